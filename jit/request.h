/* A kernel that is asked for: its text, rendered once, and the digests that find it. Finding, compiling and selecting
 * work on it. */
#ifndef FJ_JIT_REQUEST_H
#define FJ_JIT_REQUEST_H

#include "jit/jit.h"
#include "jit/toolchain.h"

typedef struct fj_request {
    const fj_variant *variant; /* the caller's */
    fj_options options;
    fj_digest key;    /* of `text` */
    fj_digest source; /* of `code` and the options: what a record must agree with */
    fj_str text;      /* the request as text */
    fj_str code;      /* the kernel's whole text */
    double render_ms;
    fj_buf text_buffer, code_buffer; /* what the two are views of */
} fj_request;

/* Errors as fj_jit_render. Finish it in any case. */
fj_status fj_request_create(const fj_jit_problem *problem, const fj_variant *variant,
                            const fj_allocator *allocator, fj_request *ret_request, fj_error *error);
void fj_request_finish(fj_request *request);

/* Digest of a kernel's text and the options it is compiled with. */
fj_digest fj_jit_source_digest(fj_str source, const fj_options *options);
/* ... and the compiler. */
fj_digest fj_jit_content_key(fj_digest source, const fj_compiler *compiler);

#endif
