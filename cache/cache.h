/* The kernel cache: layers of folders, one file per entry, named by its key.
 *
 * The first layer is written, the others are only read. No lock is needed: a file appears whole, by
 * a rename, and names say what is in it. Nothing here fails a caller: what cannot be read is a miss,
 * what cannot be written is a warning. All functions may be called from any thread.
 */
#ifndef FJ_CACHE_CACHE_H
#define FJ_CACHE_CACHE_H

#include <time.h>

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

/* ---- Looking into it -------------------------------------------------------------------------- */

typedef struct fj_cache_layer_info {
    const char *path; /* lives as long as the cache */
    bool exists, readable, writable;
    int64_t entries, bytes;
} fj_cache_layer_info;

size_t fj_cache_layer_count(const fj_cache *cache);
fj_cache_layer_info fj_cache_layer(fj_cache *cache, size_t index);
int64_t fj_cache_limit(const fj_cache *cache);
/* Lives as long as the cache. */
const char *fj_cache_layer_path(const fj_cache *cache, size_t index);

/* "<hex>.kernel" or "<hex>.select". */
#define FJ_CACHE_NAME 48
void fj_cache_file_name(fj_cache_kind kind, fj_digest key, char name[FJ_CACHE_NAME]);

/* A file with the name of an entry. Everything it points to lives as long as the call. */
typedef struct fj_cache_found {
    size_t layer;
    fj_cache_kind kind;
    fj_digest key;
    const char *name;
    const char *wrong;        /* NULL: a sound entry; else what is wrong with it, "is a link" */
    int64_t bytes;            /* of the file; 0 where it was not opened */
    int64_t used;             /* seconds since 1970 */
    fj_str metadata, payload; /* of a sound one */
} fj_cache_found;

/* Reads a whole layer, in the order of names, and calls each; false ends it. FJ_ERR_IO: the layer cannot
 * be listed, with errno, ENOENT where there is none; FJ_ERR_MEMORY. */
fj_status fj_cache_walk(fj_cache *cache, size_t layer, bool (*each)(void *user, const fj_cache_found *found),
                        void *user);

/* ---- Clearing it --------------------------------------------------------------------------------- */

/* What goes from the first layer, least recently used first; and what went. */
typedef struct fj_cache_sweep {
    int64_t limit, keep_bytes; /* when the layer has more bytes than limit, it is brought down to the other */
    struct timespec keep_since; /* what was used last before that goes; 0: nothing */
    bool damaged;               /* what is damaged goes */
    bool dry_run;               /* nothing goes, but is counted */
    const char *keep;           /* a file that stays; NULL: none */
    int64_t most_temporaries;   /* that are removed; 0: all */
    void (*each)(void *user, const char *name, int64_t bytes, bool damaged); /* NULL, or is told */
    void *user;

    int64_t entries, bytes; /* before */
    int64_t removed, removed_bytes;
    int64_t temporaries;    /* removed files that dead processes left half-written */
    struct timespec newest; /* when the last used of those that went was used */
    int failed;             /* errno of a file that could not be removed; ENOMEM: not all were seen; or 0 */
} fj_cache_sweep;

/* FJ_ERR_IO, FJ_ERR_MEMORY. A layer that is not there has nothing to clear. */
fj_status fj_cache_sweep_layer(fj_cache *cache, fj_cache_sweep *sweep, fj_error *error);

/* ---- Archives -------------------------------------------------------------------------------------- */

/* One entry of one layer. */
typedef struct fj_cache_ref {
    size_t layer;
    fj_cache_kind kind;
    fj_digest key;
} fj_cache_ref;

/* Writes entries into an archive that appears whole under its name, or not at all (archive.h says what
 * is in it). FJ_ERR_IO, FJ_ERR_MEMORY. */
fj_status fj_cache_pack(fj_cache *cache, const char *path, const fj_cache_ref *refs, size_t count,
                        int64_t *ret_bytes, fj_error *error);

typedef struct fj_cache_unpacked {
    int64_t entries[FJ_CACHE_KIND_COUNT];
    int64_t written; /* the others were there, byte by byte */
    int64_t bytes;   /* of all entries */
} fj_cache_unpacked;

/* Puts the entries of an archive into the first layer. All of it is read and verified before anything
 * is written: an archive with anything wrong changes nothing. check: NULL, or what is wrong with an
 * entry's metadata. FJ_ERR_IO, with the place; FJ_ERR_MEMORY. */
typedef const char *fj_cache_check(fj_cache_kind kind, fj_digest key, fj_str metadata);
fj_status fj_cache_unpack(fj_cache *cache, const char *path, fj_cache_check *check,
                          fj_cache_unpacked *ret_unpacked, fj_error *error);

#endif
