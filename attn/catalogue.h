/* All of the kernel cache in memory, except for its payloads. What cache.c and cache_show.c share. */
#ifndef FJ_ATTN_CATALOGUE_H
#define FJ_ATTN_CATALOGUE_H

#include <jansson.h>

#include "attn/objects.h"

/* A file with the name of an entry. */
typedef struct fj_row {
    fj_cache_ref ref;
    int64_t bytes, payload_bytes;
    int64_t used;      /* seconds since 1970 */
    const char *wrong; /* NULL: a sound entry; else what is wrong with it, static */
    json_t *metadata;  /* of a sound one */
    fj_digest payload; /* its digest */
    bool hidden;       /* an earlier layer has a sound entry of the same key */
} fj_row;

/* By layer, then by key, a kernel before a selection record. */
typedef struct fj_catalogue {
    fj_context *context;
    fj_row *rows;
    fj_row **order; /* the same by key, kind and layer; the ones with something wrong too */
    size_t count, capacity;
    bool failed;        /* out of memory */
    size_t sick_layers; /* that are there but cannot be read */
} fj_catalogue;

/* FJ_ERR_MEMORY. Finished by the caller, whatever the status. */
fj_status fj_attn_catalogue_read(fj_context *context, fj_catalogue *ret_catalogue, fj_error *error);
void fj_attn_catalogue_finish(fj_catalogue *catalogue);

/* The first sound entry with this key, or NULL. */
const fj_row *fj_attn_catalogue_find(const fj_catalogue *catalogue, fj_cache_kind kind, fj_digest key);
/* The kernel that a selection record names; a record that names this kernel. Or NULL. */
const fj_row *fj_attn_catalogue_kernel_of(const fj_catalogue *catalogue, const fj_row *record);
const fj_row *fj_attn_catalogue_record_of(const fj_catalogue *catalogue, const fj_row *kernel);

/* "variant" of a sound entry, never NULL. */
const char *fj_attn_row_variant(const fj_row *row);
/* Where it is. */
json_t *fj_attn_row_file(const fj_catalogue *catalogue, const fj_row *row);
bool fj_attn_row_matches(const fj_row *row, const fj_cache_filter *filter);

/* Whether a text matches a pattern of *, ? and themselves. */
bool fj_attn_matches(const char *pattern, const char *text);

/* Takes the item over. On a lack of memory the list goes, so that what it becomes part of fails. */
void fj_attn_json_append(json_t **list, json_t *item);
/* Gives the object, which it takes over, to the caller as text. NULL is a lack of memory. */
fj_status fj_attn_json_take(json_t *object, fj_text *ret_json, fj_error *error);
json_t *fj_attn_json_digest(fj_digest digest);
/* A string, also where the text is not UTF-8: then what is not ASCII is replaced. */
json_t *fj_attn_json_text(const char *text);

#endif
