/* What jit keeps in the cache: selection records and kernels, with all parts of their keys in clear. */
#ifndef FJ_JIT_RECORDS_H
#define FJ_JIT_RECORDS_H

#include "jit/jit.h"
#include "jit/toolchain.h"

/* A kernel that is asked for. */
typedef struct fj_request {
    fj_digest key;    /* of the request's text */
    fj_digest source; /* of the rendered text and the options: what a record must agree with */
    fj_str text;
    const fj_variant *variant;
    const fj_options *options;
} fj_request;

/* Digest of a kernel's text and the options it is compiled with. */
fj_digest fj_jit_source_digest(fj_str source, const fj_options *options);
/* ... and the compiler. */
fj_digest fj_jit_content_key(fj_digest source, const fj_compiler *compiler);

/* The kernel that the cache's selection record names, if the record is about this very text. */
bool fj_jit_record_find(fj_cache *cache, const fj_request *request, fj_digest *ret_content);
/* False: they were not written. */
bool fj_jit_record_put(fj_cache *cache, const fj_request *request, fj_digest content);
bool fj_jit_record_put_kernel(fj_cache *cache, const fj_request *request, fj_digest content,
                              const fj_compiler *compiler, const fj_compiled *compiled, double compile_ms);

/* What the metadata of a kernel says of its resources; returns how many. */
int fj_jit_record_resources(fj_str metadata, fj_resources resources[FJ_RESOURCES_MAX]);

#endif
