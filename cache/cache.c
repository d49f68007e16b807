/* Reading and writing entries. */
#include "cache/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "cache/layer.h"

enum { NAMES_TRIED = 4 };

/* ---- Reading --------------------------------------------------------------------------------- */

/* NULL, or what is wrong with the file. */
static const char *read_file(const fj_cache *cache, int file, const struct stat *status,
                             fj_cache_entry *entry) {
    if (status->st_size < FJ_CACHE_HEADER) return "is cut short";
    if (status->st_size > (off_t)FJ_CACHE_LARGEST) return "is too large for an entry";
    entry->block_size = (size_t)status->st_size;
    entry->block = fj_alloc(cache->allocator, entry->block_size);
    if (!entry->block) return fj_cache_no_memory;
    if (fj_cache_read_all(cache->ops, file, entry->block, entry->block_size)) return NULL;
    const int reason = errno;
    fj_free(cache->allocator, entry->block, entry->block_size);
    entry->block = NULL;
    return fj_cache_is_gone(reason) ? fj_cache_absent : fj_cache_unreadable;
}

const char *fj_cache_read(fj_cache *cache, int directory, fj_cache_kind kind, fj_digest key, bool touch,
                          struct stat *ret_status, fj_cache_entry *ret_entry) {
    char name[FJ_CACHE_NAME];
    fj_cache_entry entry = {0};
    fj_cache_file_name(kind, key, name);
    errno = 0;
    int file = fj_cache_file_open(cache, directory, name, ret_status);
    if (file < 0) return fj_cache_is_gone(errno) ? fj_cache_absent : fj_cache_file_refusal(errno);
    const char *wrong = read_file(cache, file, ret_status, &entry);
    if (!wrong) {
        wrong = fj_cache_decode(entry.block, entry.block_size, kind, key, &entry.metadata, &entry.payload);
        if (wrong) fj_cache_entry_finish(cache, &entry);
    }
    if (!wrong && touch) (void)cache->ops->touch(file); /* what eviction goes by */
    (void)cache->ops->close(file);
    if (!wrong) *ret_entry = entry;
    return wrong;
}

static bool get_from(fj_cache *cache, size_t layer, fj_cache_kind kind, fj_digest key,
                     fj_cache_entry *ret_entry) {
    struct stat status;
    int directory = fj_cache_layer_open(cache, layer);
    if (directory < 0) return false;
    const char *wrong = fj_cache_read(cache, directory, kind, key, layer == 0, &status, ret_entry);
    (void)cache->ops->close(directory);
    if (wrong && wrong != fj_cache_absent) {
        char name[FJ_CACHE_NAME];
        fj_cache_file_name(kind, key, name);
        fj_cache_log(cache, FJ_LOG_WARN, "cache file '%s/%s' is not used: it %s",
                     fj_cache_layer_path(cache, layer), name, wrong);
    }
    return !wrong;
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

/* No two hosts of a network's folder, processes or threads have the same: ".new-HOST-PID-SERIAL-RANDOM". */
static void temporary_name(char name[FJ_CACHE_NAME]) {
    static atomic_uint serial;
    struct timespec now = {0};
    char host[256] = "";
    uint32_t random = 0;
    (void)gethostname(host, sizeof host - 1);
    const fj_digest digest = fj_cache_digest(host, strlen(host));
    if (getrandom(&random, sizeof random, GRND_NONBLOCK) != (ssize_t)sizeof random) {
        (void)clock_gettime(CLOCK_REALTIME, &now);
        random = (uint32_t)now.tv_nsec;
    }
    (void)snprintf(name, FJ_CACHE_NAME, ".new-%02x%02x%02x-%d-%u-%08x", digest.bytes[0], digest.bytes[1],
                   digest.bytes[2], (int)getpid(), atomic_fetch_add(&serial, 1), random);
}

/* Under a name that nobody has, even where names are not as unique as they should be. */
static int create_temporary(const fj_file_ops *ops, int directory, char name[FJ_CACHE_NAME]) {
    int file = -1;
    for (int i = 0; i < NAMES_TRIED; i++) {
        temporary_name(name);
        file = ops->openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
        if (file >= 0 || errno != EEXIST) break;
    }
    return file;
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
    int file = create_temporary(ops, directory, fresh);
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

/* Said once: a cache that cannot be written fails in the same way at each kernel. */
static void warn_unwritten(fj_cache *cache, int reason) {
    bool again = atomic_exchange(&cache->unwritten, true);
    fj_cache_log(cache, again ? FJ_LOG_DEBUG : FJ_LOG_WARN, "the cache '%s' cannot be written: %s",
                 fj_cache_layer_path(cache, 0), strerror(reason));
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
        warn_unwritten(cache, errno);
    else
        fj_cache_grew(cache, directory, kind == FJ_CACHE_KERNEL ? name : NULL,
                      (int64_t)(sizeof header + metadata.len + payload.len));
    if (directory >= 0) (void)cache->ops->close(directory);
    return written;
}
