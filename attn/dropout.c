/* Which probabilities dropout keeps, for callers that want to see it: kernels and the reference path ask base/philox.h alike. */
#include "attn/validate.h"
#include "base/philox.h"

static fj_status check_keep(const DLTensor *keep, fj_error *error) {
    fj_dtype dtype;
    if (!keep) return fj_error_set(error, FJ_ERR_ARGUMENT, "keep is NULL");
    if (keep->ndim != 4)
        return fj_error_set(error, FJ_ERR_TENSOR, "keep has rank %d: it is [B,Hq,L,S]", keep->ndim);
    if (!fj_dtype_from_dlpack(keep->dtype, &dtype) || dtype != FJ_DTYPE_BOOL)
        return fj_error_set(error, FJ_ERR_TENSOR, "keep is not BOOL");
    if (keep->device.device_type != kDLCPU)
        return fj_error_set(error, FJ_ERR_TENSOR, "keep is not in the host's memory");
    for (int axis = 0; axis < 4; axis++)
        if (keep->shape[axis] < 0 || keep->shape[axis] > INT32_MAX)
            return fj_error_set(error, FJ_ERR_TENSOR,
                                "keep: extent %lld of dimension %d is outside 0 to 2^31 - 1",
                                (long long)keep->shape[axis], axis);
    return FJ_OK;
}

fj_status fj_dropout_mask(double dropout, uint64_t seed, uint64_t offset, const DLTensor *keep,
                          fj_error *error) {
    if (!(dropout >= 0 && dropout <= 1))
        return fj_error_set(error, FJ_ERR_ARGUMENT, "dropout is a probability: 0 to 1");
    fj_status status = check_keep(keep, error);
    if (status != FJ_OK) return status;
    const int64_t *extent = keep->shape;
    int64_t strides[4] = {extent[1] * extent[2] * extent[3], extent[2] * extent[3], extent[3], 1};
    for (int axis = 0; axis < 4; axis++)
        if (keep->strides) strides[axis] = keep->strides[axis];
    const fj_philox_key key = fj_dropout_key(seed, offset);
    const uint64_t threshold = fj_dropout_threshold(dropout);
    for (int64_t plane = 0; plane < extent[0] * extent[1]; plane++)
        for (int64_t q = 0; q < extent[2]; q++) {
            uint8_t *row = (uint8_t *)keep->data + keep->byte_offset + plane / extent[1] * strides[0] +
                           plane % extent[1] * strides[1] + q * strides[2];
            for (int64_t kv = 0; kv < extent[3]; kv++)
                row[kv * strides[3]] =
                    fj_dropout_word(key, (uint64_t)plane, (uint32_t)q, (uint32_t)kv) >= threshold;
        }
    return FJ_OK;
}
