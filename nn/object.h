/* What the objects of this room have in common. */
#ifndef FJ_NN_OBJECT_H
#define FJ_NN_OBJECT_H

#include "nn/check.h"

/* FJ_ERR_UNSUPPORTED: no BLAS, or a device that is not for layers. */
fj_status fj_nn_check_device(const fj_device *device, fj_error *error);
/* FJ_ERR_ARGUMENT: heads that don't divide the width, or of a size that kernels don't have. name: of the width. */
fj_status fj_nn_check_heads(const char *name, int64_t width, int64_t heads, fj_error *error);
fj_status fj_nn_check_dropout(double dropout, fj_error *error);

/* An input of rows: [B,L,width], [L,B,width], or [L,width] without a batch. */
typedef struct fj_nn_tokens {
    bool batched;
    int64_t batch, length;
} fj_nn_tokens;

/* axes: of its last two dimensions. like: what the batch has to be; NULL: any. */
fj_status fj_nn_check_tokens(const fj_nn_check *check, const char *name, const DLTensor *tensor,
                             const char *axes, bool batch_first, int64_t width, const fj_nn_tokens *like,
                             fj_nn_tokens *ret_tokens);

#endif
