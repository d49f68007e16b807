/* Tensors of a call against what they have to be. Each error is one sentence with the tensor's name, its shape and what is
 * allowed. */
#ifndef FJ_NN_CHECK_H
#define FJ_NN_CHECK_H

#include "base/base.h"
#include "flexjit/nn.h"

typedef struct fj_nn_check {
    fj_dtype dtype;
    bool sizing; /* data are not looked at */
    fj_error *error;
    char where[64]; /* before the names: "layers[2]." */
} fj_nn_check;

/* A packed tensor of that shape; axes is its text, "[L,B,E]". FJ_ERR_TENSOR. */
fj_status fj_nn_check_tensor(const fj_nn_check *check, const char *name, const DLTensor *tensor,
                             const char *axes, int rank, const int64_t *shape);
/* ... which may be NULL. */
fj_status fj_nn_check_optional(const fj_nn_check *check, const char *name, const DLTensor *tensor,
                               const char *axes, int rank, const int64_t *shape);
/* A gradient: only of what there is. */
fj_status fj_nn_check_gradient(const fj_nn_check *check, const char *name, const DLTensor *gradient,
                               const DLTensor *of, const char *axes, int rank, const int64_t *shape);
/* Packed tensors that were checked, with names; NULL: not given. The first `outputs` of them overlap none of the others. */
typedef struct fj_nn_named {
    const char *name;
    const DLTensor *tensor;
} fj_nn_named;
fj_status fj_nn_check_apart(const fj_nn_check *check, const fj_nn_named *tensors, size_t count,
                            size_t outputs);
fj_status fj_nn_bad(const fj_nn_check *check, fj_status status, const char *format, ...) FJ_PRINTF(3, 4);

/* "[2,3]", into text. */
void fj_nn_shape_text(char *text, size_t size, int rank, const int64_t *shape);

/* NULL for none. */
static inline void *fj_nn_data(const DLTensor *tensor) {
    return tensor && tensor->data ? (char *)tensor->data + tensor->byte_offset : NULL;
}

/* A linear layer and its gradient. names: of weight and bias. */
fj_status fj_nn_check_linear(const fj_nn_check *check, const char *name, const fj_linear *linear,
                             const fj_linear *gradient, int64_t out, int64_t in);
fj_status fj_nn_check_norm(const fj_nn_check *check, const char *name, const fj_norm *norm,
                           const fj_norm *gradient, int64_t width);
/* gradient: NULL: none. k_in, v_in: features of key and value. */
fj_status fj_nn_check_mha_state(const fj_nn_check *check, const char *name, const fj_mha_state *state,
                                const fj_mha_state *gradient, int64_t embed, int64_t k_in, int64_t v_in);

/* The memory of a call against its sizes. */
fj_status fj_nn_check_memory(const fj_nn_memory *memory, const fj_nn_sizes *sizes, bool backward,
                             fj_error *error);

#endif
