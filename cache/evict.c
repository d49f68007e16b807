/* Keeping the first layer within its limit, and clearing it on demand.
 *
 * To look at a layer costs a system call or three for each of its files, so this is not done at each
 * write. A process looks when it writes for the first time, and keeps the sum; it looks again when what
 * it has written since would pass the limit, and at the latest when it has written a sixteenth of the
 * limit: other processes write too, and none knows of the others. P of them exceed the limit by no more
 * than P sixteenths. When it is exceeded a sixteenth is cleared more than must be, so that the next
 * write does not look again.
 *
 * What others do meanwhile: a file that is open stays readable after it was removed; one that was used since the folder was
 * looked at stays. A process between a record and its kernel may find the kernel gone: it compiles again.
 *
 * Clocks go wrong, and a network's server has one of its own: after a write the time is the one that the folder got by it. What was used an hour or more from now is taken to be used now, and says so from then on: else it would
 * outlive all others. A half-written file is abandoned an hour after its last write; after one write of an entry only some of
 * many are removed, so that none pays for thousands.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cache/layer.h"

enum {
    SHARE = 16,
    ABANDONED_AFTER = 3600, /* seconds: no compilation's write takes that long */
    DRIFT = 3600,           /* seconds that the clocks of hosts may differ */
    TEMPORARIES_OF_A_WRITE = 256
};

/* ---- Looking --------------------------------------------------------------------------------- */

typedef struct file {
    char name[FJ_CACHE_NAME];
    int64_t bytes;
    struct timespec used;
} file;

typedef struct files {
    const fj_cache *cache;
    int directory;
    fj_cache_sweep *sweep;
    struct timespec now;
    file *data;
    size_t len, cap;
} files;

static bool older(struct timespec a, struct timespec b) {
    return a.tv_sec != b.tv_sec ? a.tv_sec < b.tv_sec : a.tv_nsec < b.tv_nsec;
}

static bool discard(files *all, const char *name) {
    return all->sweep->dry_run || all->cache->ops->unlink(all->directory, name, false) == 0 ||
           fj_cache_is_gone(errno);
}

/* A time in the future becomes now, in the file too. */
static void set_right(const files *all, const char *name, struct stat *status) {
    struct stat opened;
    if (status->st_mtim.tv_sec - all->now.tv_sec <= DRIFT) return;
    status->st_mtim = all->now;
    int descriptor = all->sweep->dry_run ? -1 : fj_cache_file_open(all->cache, all->directory, name, &opened);
    if (descriptor < 0) return;
    if (all->cache->ops->touch(descriptor) == 0 && all->cache->ops->fstat(descriptor, &opened) == 0)
        status->st_mtim = opened.st_mtim;
    (void)all->cache->ops->close(descriptor);
}

static void look_at_temporary(files *all, const char *name) {
    fj_cache_sweep *sweep = all->sweep;
    struct stat status;
    if (sweep->most_temporaries > 0 && sweep->temporaries >= sweep->most_temporaries) return;
    if (fj_cache_file_look(all->cache, all->directory, name, &status) != 0) return;
    set_right(all, name, &status);
    bool abandoned = all->now.tv_sec - status.st_mtim.tv_sec > ABANDONED_AFTER;
    sweep->temporaries += abandoned && discard(all, name);
}

static void look_at(void *user, const char *name) {
    files *all = user;
    const fj_cache *cache = all->cache;
    struct stat status;
    fj_cache_kind kind;
    fj_digest key;
    if (fj_cache_is_temporary_name(name)) {
        look_at_temporary(all, name);
        return;
    }
    if (!fj_cache_name_parse(name, &kind, &key)) return;
    if (fj_cache_file_look(cache, all->directory, name, &status) != 0) return;
    set_right(all, name, &status);
    all->sweep->bytes += status.st_size;
    all->sweep->entries++;
    if (all->len == all->cap) {
        size_t cap = all->cap ? all->cap * 2 : 64;
        file *data = cache->allocator->resize(cache->allocator->user, all->data, all->cap * sizeof *data,
                                              cap * sizeof *data);
        if (!data) all->sweep->failed = ENOMEM;
        if (!data) return; /* one that is not known is not evicted */
        all->data = data;
        all->cap = cap;
    }
    file *found = &all->data[all->len++];
    (void)snprintf(found->name, sizeof found->name, "%s", name);
    found->bytes = status.st_size;
    found->used = status.st_mtim;
}

static int by_use(const void *a, const void *b) {
    const file *x = a, *y = b;
    if (older(x->used, y->used)) return -1;
    return older(y->used, x->used) ? 1 : strcmp(x->name, y->name);
}

/* ---- Removing -------------------------------------------------------------------------------- */

static bool is_damaged(fj_cache *cache, const files *all, const file *at) {
    fj_cache_kind kind;
    fj_digest key;
    fj_cache_entry entry;
    struct stat status;
    if (!fj_cache_name_parse(at->name, &kind, &key)) return false;
    const char *wrong = fj_cache_read(cache, all->directory, kind, key, false, &status, &entry);
    if (!wrong) fj_cache_entry_finish(cache, &entry);
    return wrong && wrong != fj_cache_absent && wrong != fj_cache_unreadable && wrong != fj_cache_no_memory;
}

/* Whether somebody used it since the folder was looked at: it is being loaded. */
static bool is_in_use(const files *all, const file *at) {
    struct stat status;
    return fj_cache_file_look(all->cache, all->directory, at->name, &status) == 0 &&
           older(at->used, status.st_mtim);
}

/* In the order in which they were used. */
static void clear(fj_cache *cache, files *all) {
    fj_cache_sweep *sweep = all->sweep;
    bool over = sweep->bytes > sweep->limit;
    int64_t left = sweep->bytes;
    for (size_t i = 0; i < all->len; i++) {
        const file *at = &all->data[i];
        bool damaged = sweep->damaged && is_damaged(cache, all, at);
        bool goes = damaged || (over && left > sweep->keep_bytes) || older(at->used, sweep->keep_since);
        if (!goes || (sweep->keep && strcmp(at->name, sweep->keep) == 0)) continue;
        if (!damaged && is_in_use(all, at)) continue;
        left -= at->bytes; /* also of one that cannot be removed: newer ones do not go in its place */
        if (!discard(all, at->name)) {
            sweep->failed = errno;
            continue;
        }
        sweep->removed++;
        sweep->removed_bytes += at->bytes;
        if (older(sweep->newest, at->used)) sweep->newest = at->used;
        if (sweep->each) sweep->each(sweep->user, at->name, at->bytes, damaged);
    }
}

bool fj_cache_sweep_folder(fj_cache *cache, int directory, fj_cache_sweep *sweep) {
    files all = {.cache = cache, .directory = directory, .sweep = sweep};
    struct stat status;
    (void)clock_gettime(CLOCK_REALTIME, &all.now);
    if (sweep->keep && cache->ops->fstat(directory, &status) == 0) all.now = status.st_mtim;
    bool listed = cache->ops->list(directory, look_at, &all) == 0;
    int reason = errno;
    bool due = sweep->damaged || sweep->bytes > sweep->limit || sweep->keep_since.tv_sec > 0;
    if (listed && due && all.len > 0) {
        qsort(all.data, all.len, sizeof *all.data, by_use);
        clear(cache, &all);
    }
    if (all.data) fj_free(cache->allocator, all.data, all.cap * sizeof *all.data);
    errno = reason;
    return listed;
}

/* ---- After a write ---------------------------------------------------------------------------- */

/* Under the lock. */
static void look_again(fj_cache *cache, int directory, const char *just_written) {
    fj_cache_sweep sweep = {.limit = cache->limit,
                            .keep_bytes = cache->limit - cache->limit / SHARE,
                            .keep = just_written,
                            .most_temporaries = TEMPORARIES_OF_A_WRITE};
    if (!fj_cache_sweep_folder(cache, directory, &sweep)) return;
    if (sweep.removed > 0)
        fj_cache_log(cache, FJ_LOG_INFO, "the cache '%s' was over its limit: %lld entries were removed",
                     fj_cache_layer_path(cache, 0), (long long)sweep.removed);
    if (sweep.removed > 0 && !older(sweep.newest, cache->born) && !cache->crowded) {
        cache->crowded = true;
        fj_cache_log(cache, FJ_LOG_WARN,
                     "the cache '%s' is too small for this process: its own kernels are being removed "
                     "(FLEXJIT_CACHE_SIZE is %lld bytes)",
                     fj_cache_layer_path(cache, 0), (long long)cache->limit);
    }
    cache->bytes = sweep.bytes - sweep.removed_bytes;
    cache->grown = 0;
}

void fj_cache_grew(fj_cache *cache, int directory, const char *just_written, int64_t bytes) {
    (void)pthread_mutex_lock(&cache->lock);
    cache->grown += bytes;
    bool due =
        cache->bytes < 0 || cache->bytes + cache->grown > cache->limit || cache->grown > cache->limit / SHARE;
    if (due && just_written) look_again(cache, directory, just_written);
    (void)pthread_mutex_unlock(&cache->lock);
}

/* ---- On demand ---------------------------------------------------------------------------------- */

fj_status fj_cache_sweep_layer(fj_cache *cache, fj_cache_sweep *sweep, fj_error *error) {
    const char *path = fj_cache_layer_path(cache, 0);
    int directory = cache->layers > 0 ? fj_cache_layer_open(cache, 0) : -1;
    if (directory < 0 && (cache->layers == 0 || errno == ENOENT)) return FJ_OK; /* nothing to sweep */
    bool listed = directory >= 0 && fj_cache_sweep_folder(cache, directory, sweep);
    int reason = errno;
    if (directory >= 0) (void)cache->ops->close(directory);
    if (!listed)
        return fj_error_set(error, FJ_ERR_IO, "the cache '%.300s' cannot be read: %s", path,
                            strerror(reason));
    if (sweep->failed == ENOMEM) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    if (sweep->failed != 0)
        return fj_error_set(error, FJ_ERR_IO, "a file of the cache '%.300s' cannot be removed: %s", path,
                            strerror(sweep->failed));
    return FJ_OK;
}
