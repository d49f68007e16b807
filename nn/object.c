/* What the objects of this room have in common. */
#include "nn/object.h"

#include <stdio.h>

#include "attn/objects.h"
#include "nn/blas.h"

enum { MOST_HEAD_DIM = 256 };

fj_status fj_nn_check_device(const fj_device *device, fj_error *error) {
    if (!device) return fj_error_set(error, FJ_ERR_ARGUMENT, "device is NULL");
    if (device->traits->memory != kDLCPU)
        return fj_error_set(
            error, FJ_ERR_UNSUPPORTED,
            "layers are not supported on the %s device: they take devices of host memory, as cpu",
            fj_device_name(device));
    if (device->traits->text == FJ_TEXT_NONE && device->traits->pass == FJ_PASS_ROUNDING)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED,
                            "layers are not supported on the %s device, whose results are deviations",
                            fj_device_name(device));
    return fj_nn_blas_open(error);
}

fj_status fj_nn_check_heads(const char *name, int64_t width, int64_t heads, fj_error *error) {
    if (width < 1 || width > INT32_MAX / 4)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "%s is %lld: allowed are 1 to %d", name, (long long)width,
                            INT32_MAX / 4);
    if (heads < 1 || width % heads != 0)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "%s is %lld, which is not a multiple of %lld heads", name,
                            (long long)width, (long long)heads);
    if (width / heads > MOST_HEAD_DIM)
        return fj_error_set(error, FJ_ERR_ARGUMENT,
                            "%s is %lld with %lld heads: each has %lld features, the limit is %d", name,
                            (long long)width, (long long)heads, (long long)(width / heads), MOST_HEAD_DIM);
    return FJ_OK;
}

fj_status fj_nn_check_dropout(double dropout, fj_error *error) {
    if (dropout >= 0 && dropout <= 1) return FJ_OK;
    return fj_error_set(error, FJ_ERR_ARGUMENT, "dropout is a probability: 0 to 1");
}

fj_status fj_nn_check_tokens(const fj_nn_check *check, const char *name, const DLTensor *tensor,
                             const char *axes, bool batch_first, int64_t width, const fj_nn_tokens *like,
                             fj_nn_tokens *ret_tokens) {
    if (!tensor) return fj_nn_bad(check, FJ_ERR_TENSOR, "%s is missing", name);
    const int rank = tensor->ndim;
    if ((rank != 2 && rank != 3) || !tensor->shape)
        return fj_nn_bad(check, FJ_ERR_TENSOR, "%s has rank %d: it is %s, or has a batch and rank 3", name,
                         rank, axes);
    if (like && like->batched != (rank == 3))
        return fj_nn_bad(check, FJ_ERR_TENSOR, "%s has rank %d, but what it goes with has rank %d", name,
                         rank, like->batched ? 3 : 2);
    const int b = batch_first ? 0 : 1, l = batch_first ? 1 : 0;
    const fj_nn_tokens tokens = {rank == 3, rank == 3 ? tensor->shape[b] : 1,
                                 tensor->shape[rank == 3 ? l : 0]};
    int64_t shape[3] = {0, 0, width}, rows;
    if (tokens.batch < 0 || tokens.length < 0 || __builtin_mul_overflow(tokens.batch, tokens.length, &rows) ||
        rows > INT32_MAX)
        return fj_nn_bad(check, FJ_ERR_TENSOR,
                         "%s has a batch of %lld and a length of %lld: 0 to 2147483647 rows are "
                         "allowed",
                         name, (long long)tokens.batch, (long long)tokens.length);
    shape[b] = like ? like->batch : tokens.batch;
    shape[l] = tokens.length;
    if (rank == 2) shape[1] = tokens.length;
    fj_status status = fj_nn_check_tensor(check, name, tensor, axes, rank, rank == 3 ? shape : shape + 1);
    if (status == FJ_OK) *ret_tokens = tokens;
    return status;
}
