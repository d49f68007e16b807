/* The folders of the cache. Private to cache/. */
#ifndef FJ_CACHE_LAYER_H
#define FJ_CACHE_LAYER_H

#include <pthread.h>
#include <stdatomic.h>

#include "cache/cache.h"

struct fj_cache {
    const fj_allocator *allocator;
    const fj_file_ops *ops;
    void (*log)(void *user, fj_log_level level, const char *message);
    void *log_user;
    int64_t limit;
    char *paths; /* the colon list, cut by NULs */
    size_t paths_size;
    size_t layers;         /* how many paths */
    atomic_bool unwritten; /* that it cannot be written was said */
    atomic_ullong refused; /* bits of the layers that were said not to be used */
    /* What this process knows of the first layer's size, guarded by the lock (evict.c). */
    pthread_mutex_t lock;
    int64_t bytes; /* of entries, at least; -1: not looked at yet */
    int64_t grown; /* bytes written by this process since it looked */
    struct timespec born;
    bool crowded; /* that the limit is too small for this process was said */
};

void fj_cache_log(const fj_cache *cache, fj_log_level level, const char *format, ...) FJ_PRINTF(3, 4);

/* A descriptor of the folder, or -1 with errno: absent (ENOENT), or refused because others could
 * have written it (EPERM). */
int fj_cache_layer_open(fj_cache *cache, size_t index);
/* Makes the first layer and what leads to it, mode 0700, and opens it. */
int fj_cache_layer_make(fj_cache *cache);

/* A descriptor of a sound file in a folder: regular, not a link, ours or root's, not writable by
 * others. -1 and errno otherwise. */
int fj_cache_file_open(const fj_cache *cache, int directory, const char *name, struct stat *ret_status);
/* The same judgement of a file that is not opened: 0, or -1 and errno. */
int fj_cache_file_look(const fj_cache *cache, int directory, const char *name, struct stat *ret_status);
/* Whether errno says that a file is gone: also where another host removed it from a network's folder. */
bool fj_cache_is_gone(int reason);
/* What is wrong with a file that was not opened, from errno: "is a link". */
const char *fj_cache_file_refusal(int reason);

extern const char fj_cache_absent[], fj_cache_unreadable[], fj_cache_no_memory[];

/* Reads one entry of an open folder. NULL, or what is wrong with it; the three above, compared as
 * pointers, are no damage. touch: it counts as used. */
const char *fj_cache_read(fj_cache *cache, int directory, fj_cache_kind kind, fj_digest key, bool touch,
                          struct stat *ret_status, fj_cache_entry *ret_entry);

/* Whether it is the name of an entry, and of which. */
bool fj_cache_name_parse(const char *name, fj_cache_kind *ret_kind, fj_digest *ret_key);
bool fj_cache_is_temporary_name(const char *name);

bool fj_cache_sweep_folder(fj_cache *cache, int directory, fj_cache_sweep *sweep);

/* After a file of the first layer was written: keeps the layer within its limit. just_written, a kernel,
 * stays; NULL: what was written is small, and nothing is removed for it. */
void fj_cache_grew(fj_cache *cache, int directory, const char *just_written, int64_t bytes);

#endif
