/* Writing an archive. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cache/archive.h"
#include "cache/layer.h"

typedef struct writer {
    const fj_file_ops *ops;
    int file;
    int64_t bytes;
} writer;

static bool put(writer *w, const void *bytes, size_t size) {
    w->bytes += (int64_t)size;
    return fj_cache_write_all(w->ops, w->file, bytes, size);
}

static const uint8_t zeros[2 * FJ_ARCHIVE_BLOCK];

static bool put_member(writer *w, const fj_cache_ref *ref, fj_archive_part part, fj_str content) {
    uint8_t block[FJ_ARCHIVE_BLOCK];
    fj_archive_member member = {.kind = ref->kind, .key = ref->key, .part = part, .size = content.len};
    fj_cache_archive_header(&member, block);
    return put(w, block, sizeof block) && put(w, content.data, content.len) &&
           put(w, zeros, fj_cache_archive_padding(content.len));
}

static bool put_entry(writer *w, const fj_cache_ref *ref, const fj_cache_entry *entry) {
    fj_str header = {entry->block, FJ_CACHE_HEADER};
    return put_member(w, ref, FJ_ARCHIVE_HEADER, header) &&
           put_member(w, ref, FJ_ARCHIVE_METADATA, entry->metadata) &&
           (entry->payload.len == 0 || put_member(w, ref, FJ_ARCHIVE_PAYLOAD, entry->payload));
}

static fj_status cannot_write(const char *path, int reason, fj_error *error) {
    fj_status status = fj_error_set(error, FJ_ERR_IO, "cannot be written: %s", strerror(reason));
    if (error) (void)snprintf(error->file, sizeof error->file, "%s", path);
    return status;
}

static fj_status pack_one(fj_cache *cache, writer *w, const char *path, const fj_cache_ref *ref,
                          fj_error *error) {
    struct stat status;
    fj_cache_entry entry;
    int directory = fj_cache_layer_open(cache, ref->layer);
    const char *wrong = fj_cache_absent;
    if (directory >= 0) {
        wrong = fj_cache_read(cache, directory, ref->kind, ref->key, false, &status, &entry);
        (void)cache->ops->close(directory);
    }
    if (wrong == fj_cache_no_memory) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    if (wrong) {
        char name[FJ_CACHE_NAME];
        fj_cache_file_name(ref->kind, ref->key, name);
        return fj_error_set(error, FJ_ERR_IO, "cache file '%.300s/%s' cannot be exported: it %s",
                            fj_cache_layer_path(cache, ref->layer), name, wrong);
    }
    bool written = put_entry(w, ref, &entry);
    int reason = errno;
    fj_cache_entry_finish(cache, &entry);
    return written ? FJ_OK : cannot_write(path, reason, error);
}

/* Writes all and closes the file, whatever happens. */
static fj_status pack_all(fj_cache *cache, writer *w, const char *path, const fj_cache_ref *refs,
                          size_t count, fj_error *error) {
    fj_status status = FJ_OK;
    for (size_t i = 0; status == FJ_OK && i < count; i++) status = pack_one(cache, w, path, &refs[i], error);
    if (status == FJ_OK && (!put(w, zeros, sizeof zeros) || w->ops->fsync(w->file) != 0))
        status = cannot_write(path, errno, error);
    if (w->ops->close(w->file) != 0 && status == FJ_OK) status = cannot_write(path, errno, error);
    return status;
}

fj_status fj_cache_pack(fj_cache *cache, const char *path, const fj_cache_ref *refs, size_t count,
                        int64_t *ret_bytes, fj_error *error) {
    const fj_file_ops *ops = cache->ops;
    char fresh[4096];
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    int length =
        snprintf(fresh, sizeof fresh, "%s.new-%ld-%08lx", path, (long)getpid(), (unsigned long)now.tv_nsec);
    if (length < 0 || (size_t)length >= sizeof fresh) return cannot_write(path, ENAMETOOLONG, error);
    writer w = {.ops = ops};
    w.file = ops->openat(AT_FDCWD, fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (w.file < 0) return cannot_write(path, errno, error);
    fj_status status = pack_all(cache, &w, path, refs, count, error);
    if (status == FJ_OK && ops->rename(AT_FDCWD, fresh, path) != 0) status = cannot_write(path, errno, error);
    if (status != FJ_OK)
        (void)ops->unlink(AT_FDCWD, fresh, false);
    else
        *ret_bytes = w.bytes;
    return status;
}
