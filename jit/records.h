/* What jit keeps in the cache: selection records and kernels, with all parts of their keys as text. */
#ifndef FJ_JIT_RECORDS_H
#define FJ_JIT_RECORDS_H

#include <jansson.h>

#include "jit/request.h"

/* What a selection record says. */
typedef struct fj_record {
    fj_digest content;                     /* the kernel */
    char replacement[FJ_JIT_VARIANT_NAME]; /* the variant that was found better; "": none */
} fj_record;

/* The cache's record, if it is about this very text. */
bool fj_jit_record_find(fj_cache *cache, const fj_request *request, fj_record *ret_record);
/* False: they were not written. */
bool fj_jit_record_put(fj_cache *cache, const fj_request *request, fj_digest content,
                       const char *replacement);
bool fj_jit_record_put_kernel(fj_cache *cache, const fj_request *request, fj_digest content,
                              const fj_compiler *compiler, const fj_compiled *compiled);

/* ---- Reading them without the kernel ------------------------------------------------------------ */

/* The metadata of an entry as an object, or NULL and what is wrong with it: its own words and the key that
 * they make must agree. */
json_t *fj_jit_record_parse(fj_cache_kind kind, fj_digest key, fj_str metadata, const char **ret_wrong);
/* The same as a question: NULL, or what is wrong. */
const char *fj_jit_record_check(fj_cache_kind kind, fj_digest key, fj_str metadata);

/* "sm_80" or "avx512" of a parsed kernel or selection record; "" when it does not say. */
const char *fj_jit_record_arch(const json_t *metadata);

/* Every part of the keys as text, as an object of strings, each under a name of its own: first those of the
 * request, then those of the kernel. Either may be NULL. NULL: out of memory. */
json_t *fj_jit_record_parts(const json_t *record, const json_t *kernel);
/* Whether a part belongs to the request, which is what decides the request key. */
bool fj_jit_record_is_request_part(const char *name);

/* What the metadata of a kernel says of its resources; returns how many. */
int fj_jit_record_resources(fj_str metadata, fj_resources resources[FJ_RESOURCES_MAX]);

#endif
