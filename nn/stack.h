/* A stack of layers: what encoders and decoders have in common, which differ in cross attention alone.
 *
 * Each layer is two or three parts (part.h). Rows go through all of them as they lie in src; where padding is skipped, through a
 * packed copy of the rows that are seen.
 */
#ifndef FJ_NN_STACK_H
#define FJ_NN_STACK_H

#include <stdatomic.h>

#include "nn/object.h"
#include "nn/part.h"

typedef struct fj_nn_stack {
    atomic_int refs;
    fj_device *device;
    fj_dtype dtype;
    fj_layer_desc layer;
    int64_t layer_count;
    bool final_norm, skip_padding;
    const char *kind;           /* "encoder", for messages */
    fj_nn_attend *self, *cross; /* cross NULL: an encoder */
} fj_nn_stack;

/* Fills what the callers' descriptors leave open, makes the kernels. cross NULL: none. FJ_ERR_ARGUMENT and those of
 * fj_nn_attend_create. */
fj_status fj_nn_stack_create(fj_device *device, const fj_nn_stack *of, const fj_mask_kind self[2],
                             const fj_mask_kind *cross, fj_nn_stack **ret_stack, fj_error *error);
void fj_nn_stack_unref(fj_nn_stack **stack);

/* One layer's parameters. */
typedef struct fj_nn_layer {
    const fj_mha_state *self, *cross;
    const fj_linear *linear1, *linear2;
    const fj_norm *norms[3];
} fj_nn_layer;

/* A call, of an encoder or a decoder: the header says what its tensors are. */
typedef struct fj_nn_stack_call {
    const void *layers, *dlayers; /* of either kind */
    fj_nn_layer (*layer)(const void *layers, int64_t index);
    fj_norm norm, dnorm;
    const DLTensor *src, *out, *memory, *dout, *dsrc, *dmemory;
    fj_nn_masks self, cross;
    /* Names of the caller's fields. */
    const char *src_name, *dsrc_name, *self_names[2], *cross_names[2];
    uint64_t seed, offset;
} fj_nn_stack_call;

fj_status fj_nn_stack_sizes(const fj_nn_stack *stack, const fj_nn_stack_call *call, const fj_launch *launch,
                            fj_nn_sizes *ret_sizes, fj_error *error);
fj_status fj_nn_stack_run(const fj_nn_stack *stack, const fj_nn_stack_call *call, fj_direction direction,
                          const fj_launch *launch, const fj_nn_memory *memory, fj_error *error);

/* ---- Padding (padding.c) ------------------------------------------------------------------------------------- */

/* cu [batch + 1]: cumulative lengths of what the mask shows. False: it hides something else than ends, or nothing: leave rows as
 * they are. */
bool fj_nn_find_lengths(const DLTensor *padding, int64_t batch, int64_t length, int32_t *cu);

/* Between rows [B,L] or [L,B] and packed ones. */
typedef struct fj_nn_packing {
    const int32_t *cu;
    int64_t batch, length, width;
    bool batch_first;
} fj_nn_packing;
void fj_nn_pack(const fj_nn_run *run, const fj_nn_packing *packing, const void *rows, void *packed);
/* Rows of padding become 0. */
void fj_nn_unpack(const fj_nn_run *run, const fj_nn_packing *packing, const void *packed, void *rows);

#endif
