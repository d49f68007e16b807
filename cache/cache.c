/* Reading and writing entries, and keeping the first layer within its limit. */
#include "cache/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cache/layer.h"

/* ---- Reading --------------------------------------------------------------------------------- */

static bool read_file(const fj_cache *cache, int file, const struct stat *status, fj_cache_entry *entry) {
    if (status->st_size < FJ_CACHE_HEADER || status->st_size > (off_t)FJ_CACHE_LARGEST) return false;
    entry->block_size = (size_t)status->st_size;
    entry->block = fj_alloc(cache->allocator, entry->block_size);
    if (!entry->block) return false;
    if (fj_cache_read_all(cache->ops, file, entry->block, entry->block_size)) return true;
    fj_free(cache->allocator, entry->block, entry->block_size);
    entry->block = NULL;
    return false;
}

static bool get_from(fj_cache *cache, size_t layer, fj_cache_kind kind, fj_digest key,
                     fj_cache_entry *ret_entry) {
    char name[FJ_CACHE_NAME];
    fj_cache_file_name(kind, key, name);
    int directory = fj_cache_layer_open(cache, layer);
    if (directory < 0) return false;
    struct stat status;
    fj_cache_entry entry = {0};
    int file = fj_cache_file_open(cache, directory, name, &status);
    bool found = file >= 0 && read_file(cache, file, &status, &entry);
    if (found &&
        !fj_cache_decode(entry.block, entry.block_size, kind, key, &entry.metadata, &entry.payload)) {
        fj_cache_log(cache, FJ_LOG_WARN, "cache file '%s/%s' is damaged or foreign: it is not used",
                     fj_cache_layer_path(cache, layer), name);
        fj_cache_entry_finish(cache, &entry);
        found = false;
    }
    if (found && layer == 0) (void)cache->ops->touch(file); /* what eviction goes by */
    if (file >= 0) (void)cache->ops->close(file);
    (void)cache->ops->close(directory);
    if (found) *ret_entry = entry;
    return found;
}

bool fj_cache_get(fj_cache *cache, fj_cache_kind kind, fj_digest key, fj_cache_entry *ret_entry) {
    for (size_t layer = 0; layer < cache->layers; layer++)
        if (get_from(cache, layer, kind, key, ret_entry)) return true;
    return false;
}

void fj_cache_entry_finish(fj_cache *cache, fj_cache_entry *entry) {
    fj_free(cache->allocator, entry->block, entry->block_size);
    *entry = (fj_cache_entry){0};
}

/* ---- Writing --------------------------------------------------------------------------------- */

static void temporary_name(char name[FJ_CACHE_NAME]) {
    static atomic_uint serial;
    struct timespec now = {0};
    (void)clock_gettime(CLOCK_REALTIME, &now);
    (void)snprintf(name, FJ_CACHE_NAME, ".new-%ld-%u-%08lx", (long)getpid(), atomic_fetch_add(&serial, 1),
                   (unsigned long)now.tv_nsec);
}

static bool write_parts(const fj_file_ops *ops, int file, const uint8_t *header, fj_str metadata,
                        fj_str payload) {
    return fj_cache_write_all(ops, file, header, FJ_CACHE_HEADER) &&
           fj_cache_write_all(ops, file, metadata.data, metadata.len) &&
           fj_cache_write_all(ops, file, payload.data, payload.len) && ops->fsync(file) == 0;
}

/* Written whole under a name of its own, then renamed: a reader sees all of it or nothing. */
static bool write_file(const fj_cache *cache, int directory, const char *name, const uint8_t *header,
                       fj_str metadata, fj_str payload) {
    const fj_file_ops *ops = cache->ops;
    char fresh[FJ_CACHE_NAME];
    temporary_name(fresh);
    int file = ops->openat(directory, fresh, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0) return false;
    bool written = write_parts(ops, file, header, metadata, payload);
    int reason = errno;
    if (ops->close(file) != 0 && written) {
        reason = errno;
        written = false;
    }
    if (written && ops->rename(directory, fresh, name) != 0) {
        reason = errno;
        written = false;
    }
    if (!written) (void)ops->unlink(directory, fresh, false);
    errno = reason;
    return written;
}

bool fj_cache_put(fj_cache *cache, fj_cache_kind kind, fj_digest key, fj_str metadata, fj_str payload) {
    if (cache->layers == 0 || metadata.len + payload.len > FJ_CACHE_LARGEST - FJ_CACHE_HEADER) return false;
    uint8_t header[FJ_CACHE_HEADER];
    fj_cache_encode(kind, key, metadata, payload, header);
    char name[FJ_CACHE_NAME];
    fj_cache_file_name(kind, key, name);
    int directory = fj_cache_layer_make(cache);
    bool written = directory >= 0 && write_file(cache, directory, name, header, metadata, payload);
    if (!written)
        fj_cache_log(cache, FJ_LOG_WARN, "the cache '%s' cannot be written: %s",
                     fj_cache_layer_path(cache, 0), strerror(errno));
    else if (kind == FJ_CACHE_KERNEL)
        fj_cache_evict(cache, directory, name);
    if (directory >= 0) (void)cache->ops->close(directory);
    return written;
}

/* ---- Eviction -------------------------------------------------------------------------------- */

struct file {
    char name[FJ_CACHE_NAME];
    int64_t size;
    struct timespec used;
};

struct files {
    const fj_cache *cache;
    int directory;
    struct file *data;
    size_t len, cap;
    int64_t bytes;
};

enum { ABANDONED_AFTER = 3600 }; /* seconds: no compilation's write takes that long */

static void collect(void *user, const char *name) {
    struct files *files = user;
    const fj_cache *cache = files->cache;
    bool temporary = fj_cache_is_temporary_name(name);
    struct stat status;
    if (strlen(name) >= FJ_CACHE_NAME || (!temporary && !fj_cache_is_entry_name(name))) return;
    int descriptor = fj_cache_file_open(cache, files->directory, name, &status);
    if (descriptor < 0) return;
    (void)cache->ops->close(descriptor);
    if (temporary) {
        if (time(NULL) - status.st_mtim.tv_sec > ABANDONED_AFTER)
            (void)cache->ops->unlink(files->directory, name, false);
        return;
    }
    files->bytes += status.st_size;
    if (files->len == files->cap) {
        size_t cap = files->cap ? files->cap * 2 : 64;
        struct file *data = cache->allocator->resize(cache->allocator->user, files->data,
                                                     files->cap * sizeof *data, cap * sizeof *data);
        if (!data) return; /* one that is not known is not evicted */
        files->data = data;
        files->cap = cap;
    }
    struct file *file = &files->data[files->len++];
    (void)snprintf(file->name, sizeof file->name, "%s", name);
    file->size = status.st_size;
    file->used = status.st_mtim;
}

static int by_use(const void *a, const void *b) {
    const struct timespec *x = &((const struct file *)a)->used, *y = &((const struct file *)b)->used;
    if (x->tv_sec != y->tv_sec) return x->tv_sec < y->tv_sec ? -1 : 1;
    return (x->tv_nsec > y->tv_nsec) - (x->tv_nsec < y->tv_nsec);
}

void fj_cache_evict(const fj_cache *cache, int directory, const char *keep) {
    struct files files = {.cache = cache, .directory = directory};
    (void)cache->ops->list(directory, collect, &files);
    if (files.bytes > cache->limit && files.len > 0) {
        qsort(files.data, files.len, sizeof *files.data, by_use);
        for (size_t i = 0; i < files.len && files.bytes > cache->limit; i++) {
            if (strcmp(files.data[i].name, keep) == 0) continue;
            if (cache->ops->unlink(directory, files.data[i].name, false) == 0)
                files.bytes -= files.data[i].size;
        }
    }
    if (files.data) fj_free(cache->allocator, files.data, files.cap * sizeof *files.data);
}
