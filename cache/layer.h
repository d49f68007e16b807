/* The folders of the cache. Private to cache/. */
#ifndef FJ_CACHE_LAYER_H
#define FJ_CACHE_LAYER_H

#include "cache/cache.h"

struct fj_cache {
    const fj_allocator *allocator;
    const fj_file_ops *ops;
    void (*log)(void *user, fj_log_level level, const char *message);
    void *log_user;
    int64_t limit;
    char *paths; /* the colon list, cut by NULs */
    size_t paths_size;
    size_t layers; /* how many paths */
};

void fj_cache_log(const fj_cache *cache, fj_log_level level, const char *format, ...) FJ_PRINTF(3, 4);

const char *fj_cache_layer_path(const fj_cache *cache, size_t index);

/* A descriptor of the folder, or -1 with errno: absent (ENOENT), or refused because others could
 * have written it (EPERM). */
int fj_cache_layer_open(const fj_cache *cache, size_t index);
/* Makes the first layer and what leads to it, mode 0700, and opens it. */
int fj_cache_layer_make(const fj_cache *cache);

/* A descriptor of a sound file in a folder: regular, not a link, ours or root's, not writable by
 * others. -1 otherwise. */
int fj_cache_file_open(const fj_cache *cache, int directory, const char *name, struct stat *ret_status);

/* "<hex>.kernel" or "<hex>.select". */
#define FJ_CACHE_NAME 48
void fj_cache_file_name(fj_cache_kind kind, fj_digest key, char name[FJ_CACHE_NAME]);
bool fj_cache_is_entry_name(const char *name);
bool fj_cache_is_temporary_name(const char *name);

/* Removes the entries used least recently until the folder is within the limit; `keep` stays. Also
 * removes temporary files that a dead process left. */
void fj_cache_evict(const fj_cache *cache, int directory, const char *keep);

#endif
