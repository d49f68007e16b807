/* The attention of a layer: kernels made of mods in which its masks are merged, and calls of them on projected rows.
 *
 * Queries, keys and values are columns of rows of features, which kernels read where they lie: strides are all that turns
 * rows [L,B] or [B,L] of E features into [B,H,L,E/H].
 */
#ifndef FJ_NN_ATTEND_H
#define FJ_NN_ATTEND_H

#include "nn/check.h"
#include "nn/run.h"

typedef struct fj_nn_attend_desc {
    fj_dtype dtype;
    int64_t heads, head_dim;
    fj_mask_kind mask, padding;
    bool backward, dropout;
    bool packed; /* also kernels for packed rows, without a padding mask */
} fj_nn_attend_desc;

typedef struct fj_nn_attend fj_nn_attend;

/* Errors as fj_kernel_create. */
fj_status fj_nn_attend_create(fj_device *device, const fj_nn_attend_desc *desc, fj_nn_attend **ret_attend,
                              fj_error *error);
void fj_nn_attend_destroy(fj_nn_attend **attend);
const fj_nn_attend_desc *fj_nn_attend_describe(const fj_nn_attend *attend);

/* The masks of a call, as they were given. Whether that is right is fj_nn_attend_check's. */
typedef struct fj_nn_masks {
    const DLTensor *mask, *padding;
    bool is_causal;
} fj_nn_masks;

/* Shapes, dtypes and kinds. names: of the mask and the padding mask. batched: whether the call has a batch. */
fj_status fj_nn_attend_check(const fj_nn_attend *attend, const fj_nn_check *check, const fj_nn_masks *masks,
                             const char *mask_name, const char *padding_name, bool batched, int64_t batch,
                             int64_t q_len, int64_t kv_len);

/* A matrix of rows, E columns of which are of interest. */
typedef struct fj_nn_columns {
    void *data;
    int64_t ld;
} fj_nn_columns;

typedef struct fj_nn_attention {
    int64_t batch, q_len, kv_len;
    bool batch_first; /* rows are [B,L], else [L,B] */
    /* Packed rows, where not NULL: sequence b has the rows cu[b] to cu[b + 1], of q_len in all. */
    const int32_t *cu;
    fj_nn_columns q, k, v, out; /* out [.,E] */
    void *lse;                  /* [B,H,L]; packed [H,L] */
    fj_nn_columns dout, dq, dk, dv;
    fj_nn_masks masks;
    double dropout;
    uint64_t seed, offset;
} fj_nn_attention;

/* Takes the workspace of one direction. Data are not looked at, but for cu. */
fj_status fj_nn_attend_take(const fj_nn_attend *attend, const fj_nn_run *run, const fj_nn_attention *call,
                            fj_direction direction, fj_nn_cursor *cursor, void **ret_workspace,
                            size_t *ret_size, fj_error *error);
fj_status fj_nn_attend_run(const fj_nn_attend *attend, const fj_nn_run *run, const fj_nn_attention *call,
                           fj_direction direction, void *workspace, size_t size, fj_error *error);

/* The masks of a call as kernels read them, for who reads them too. mask, padding: NULL: none. */
typedef struct fj_nn_mask_view {
    const void *mask, *padding;
    bool mask_is_bool, padding_is_bool;
    int64_t mask_strides[3], padding_stride; /* of b, h, q; of b. Keys have a stride of 1 */
    bool future_is_hidden;
} fj_nn_mask_view;
fj_nn_mask_view fj_nn_attend_masks(const fj_nn_attend *attend, const fj_nn_attention *call);
double fj_nn_attend_scale(const fj_nn_attend_desc *desc);

/* Probabilities, after forward: [B,H,L,S], or [B,L,S], their mean over the heads. scratch: fj_nn_weights_take. */
void *fj_nn_weights_take(const fj_nn_run *run, const fj_nn_attention *call, bool mean, fj_nn_cursor *cursor);
void fj_nn_weights_run(const fj_nn_attend *attend, const fj_nn_run *run, const fj_nn_attention *call,
                       bool mean, void *scratch, void *weights);

#endif
