/* Private to jit/: one request made ready. */
#ifndef FJ_JIT_PREPARE_H
#define FJ_JIT_PREPARE_H

#include "jit/records.h"
#include "jit/sharing.h"

typedef struct fj_made {
    fj_object *object; /* with a driver; the caller releases it */
    fj_jit_info info;
} fj_made;

/* driver NULL: the cache has it from then on, and it is not loaded; with verify, what no layer has is an error. Errors as
 * fj_jit_prepare and fj_jit_build. */
fj_status fj_jit_make(fj_jit *jit, const fj_driver *driver, const fj_request *request, bool verify,
                      fj_made *ret_made, fj_error *error);

/* verify.c: whether a loaded object, or the bytes of one that is not loaded here, has the entry points of its variant.
 * FJ_ERR_COMPILER says what is missing; else the errors of loading. */
fj_status fj_jit_verify_code(const fj_variant *variant, const fj_driver *driver, const fj_code *code,
                             fj_error *error);
fj_status fj_jit_verify_payload(const fj_variant *variant, const fj_allocator *allocator, fj_str payload,
                                fj_error *error);

#endif
