/* A fused attention by a kernel of a device, and what that says of its gradients. */
#ifndef FJ_FUSE_CALL_H
#define FJ_FUSE_CALL_H

#include "fuse/fuse.h"

typedef struct fj_gradients {
    const fj_array *dout; /* the caller's, of the shape of the result */
    fj_array inputs[3];   /* of q, k and v */
    fj_array *captures;   /* in the order of fj_fused; data NULL: it has none */
} fj_gradients;

/* gradients: NULL: none is wanted. What is made lies in the arena. */
fj_status fj_fuse_call(const fj_evaluation *evaluation, const fj_fused *fused, fj_arena *arena,
                       const fj_array *const inputs[3], const fj_array *const *captures, fj_array *out,
                       fj_gradients *gradients, fj_error *error);

#endif
