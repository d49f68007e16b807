/* The kernel cache: layers of folders, one file per entry, named by its key.
 *
 * The first layer is written, the others are only read. No lock is needed: a file appears whole, by
 * a rename, and names say what is in it. Nothing here fails a caller: what cannot be read is a miss,
 * what cannot be written is a warning. All functions may be called from any thread.
 */
#ifndef FJ_CACHE_CACHE_H
#define FJ_CACHE_CACHE_H

#include "cache/entry.h"
#include "cache/files.h"

#define FJ_CACHE_LIMIT \
    ((int64_t)2 << 30) /* bytes of the first layer, unless FLEXJIT_CACHE_SIZE says otherwise */

typedef struct fj_cache fj_cache;

typedef struct fj_cache_desc {
    const char *path; /* colon list; NULL: FLEXJIT_CACHE_PATH, else ${XDG_CACHE_HOME:-~/.cache}/flexjit */
    int64_t limit;    /* bytes; 0: FLEXJIT_CACHE_SIZE (with K, M or G), else FJ_CACHE_LIMIT */
    const fj_file_ops *ops; /* NULL: the system's */
    const fj_allocator *allocator;
    void (*log)(void *user, fj_log_level level, const char *message);
    void *log_user;
} fj_cache_desc;

/* FJ_ERR_MEMORY only. Touches no file. */
fj_status fj_cache_create(const fj_cache_desc *desc, fj_cache **ret_cache);
void fj_cache_destroy(fj_cache **cache);

typedef struct fj_cache_entry {
    fj_str metadata, payload;
    void *block; /* holds both */
    size_t block_size;
} fj_cache_entry;

/* The first layer that has a sound entry. False: a miss. Give the entry back. */
bool fj_cache_get(fj_cache *cache, fj_cache_kind kind, fj_digest key, fj_cache_entry *ret_entry);
void fj_cache_entry_finish(fj_cache *cache, fj_cache_entry *entry);

/* Writes to the first layer, then removes what was used least recently while the layer is over its
 * limit. False: it was not written (a warning says why). */
bool fj_cache_put(fj_cache *cache, fj_cache_kind kind, fj_digest key, fj_str metadata, fj_str payload);

typedef struct fj_cache_layer_info {
    const char *path; /* lives as long as the cache */
    bool exists, readable, writable;
    int64_t entries, bytes;
} fj_cache_layer_info;

size_t fj_cache_layer_count(const fj_cache *cache);
fj_cache_layer_info fj_cache_layer(fj_cache *cache, size_t index);
int64_t fj_cache_limit(const fj_cache *cache);

#endif
