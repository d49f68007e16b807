/* The masks of a call against what its layer was made for. */
#include "nn/attend.h"

static bool is_tensor(fj_mask_kind kind) { return kind == FJ_MASK_BOOL || kind == FJ_MASK_FLOAT; }

static fj_status check_mask_form(const fj_nn_check *check, const char *name, const DLTensor *mask,
                                 fj_mask_kind kind) {
    fj_dtype dtype;
    if (!is_tensor(kind))
        return fj_nn_bad(check, FJ_ERR_TENSOR, "%s is given, but the layer was made without one%s", name,
                         kind == FJ_MASK_CAUSAL ? ": its mask is FJ_MASK_CAUSAL, which has no tensor" : "");
    if (mask->device.device_type != kDLCPU)
        return fj_nn_bad(check, FJ_ERR_TENSOR,
                         "%s is on another device (DLPack type %d): layers take host memory", name,
                         (int)mask->device.device_type);
    const fj_dtype wanted = kind == FJ_MASK_BOOL ? FJ_DTYPE_BOOL : check->dtype;
    const bool known = fj_dtype_from_dlpack(mask->dtype, &dtype);
    if (known && dtype == wanted) return FJ_OK;
    return fj_nn_bad(check, FJ_ERR_TENSOR, "%s is %s: the layer was made for masks of %s, %s", name,
                     known ? fj_dtype_name(dtype) : "of an unknown dtype", fj_dtype_name(wanted),
                     kind == FJ_MASK_BOOL ? "where true is hidden" : "which are added to the scores");
}

static fj_status check_mask_data(const fj_nn_check *check, const char *name, const DLTensor *mask) {
    const int last = mask->ndim - 1;
    bool empty = false;
    for (int i = 0; i <= last; i++) empty |= mask->shape[i] == 0;
    if (empty) return FJ_OK;
    if (mask->strides && mask->shape[last] > 1 && mask->strides[last] != 1)
        return fj_nn_bad(check, FJ_ERR_TENSOR,
                         "%s has stride %lld in its last dimension, where only 1 is allowed", name,
                         (long long)mask->strides[last]);
    return check->sizing || mask->data ? FJ_OK : fj_nn_bad(check, FJ_ERR_TENSOR, "%s has no data", name);
}

static fj_status bad_mask_shape(const fj_nn_check *check, const char *name, const DLTensor *mask,
                                const char *allowed, int64_t batch, int64_t heads, int64_t q_len,
                                int64_t kv_len) {
    char got[160];
    fj_nn_shape_text(got, sizeof got, mask->shape && mask->ndim <= 16 ? mask->ndim : 0, mask->shape);
    return fj_nn_bad(check, FJ_ERR_TENSOR,
                     "%s has shape %s; allowed are %s, with B %lld, H %lld, L %lld, S %lld", name, got,
                     allowed, (long long)batch, (long long)heads, (long long)q_len, (long long)kv_len);
}

static bool extent_is(const DLTensor *mask, int axis, int64_t wanted) {
    return mask->shape[axis] == wanted || mask->shape[axis] == 1;
}

static bool mask_shape_is_right(const DLTensor *mask, int64_t batch, int64_t heads, int64_t q_len,
                                int64_t kv_len) {
    const int rank = mask->ndim;

    if (rank < 2 || rank > 4 || !mask->shape) return false;
    if (mask->shape[rank - 1] != kv_len || !extent_is(mask, rank - 2, q_len)) return false;
    if (rank == 3) return extent_is(mask, 0, batch * heads);
    return rank == 2 || (extent_is(mask, 0, batch) && extent_is(mask, 1, heads));
}

fj_status fj_nn_attend_check(const fj_nn_attend *attend, const fj_nn_check *check, const fj_nn_masks *masks,
                             const char *mask_name, const char *padding_name, bool batched, int64_t batch,
                             int64_t q_len, int64_t kv_len) {
    const fj_nn_attend_desc *desc = fj_nn_attend_describe(attend);
    const DLTensor *mask = masks->mask, *padding = masks->padding;
    fj_status status = FJ_OK;
    if (masks->is_causal && !mask && desc->mask != FJ_MASK_CAUSAL)
        return fj_nn_bad(check, FJ_ERR_ARGUMENT,
                         "is_causal is a hint about %s, which is missing: give it, or make the layer with "
                         "FJ_MASK_CAUSAL, which needs none",
                         mask_name);
    if (mask) {
        status = check_mask_form(check, mask_name, mask, desc->mask);
        if (status != FJ_OK) return status;
        if (!mask_shape_is_right(mask, batch, desc->heads, q_len, kv_len))
            return bad_mask_shape(check, mask_name, mask, "[L,S], [B*H,L,S] and [B,H,L,S]", batch,
                                  desc->heads, q_len, kv_len);
        status = check_mask_data(check, mask_name, mask);
    }
    if (status != FJ_OK || !padding) return status;
    status = check_mask_form(check, padding_name, padding, desc->padding);
    if (status != FJ_OK) return status;
    const int rank = batched ? 2 : 1;
    if (padding->ndim != rank || !padding->shape || padding->shape[rank - 1] != kv_len ||
        (batched && padding->shape[0] != batch))
        return bad_mask_shape(check, padding_name, padding, batched ? "[B,S]" : "[S]", batch, desc->heads,
                              q_len, kv_len);
    return check_mask_data(check, padding_name, padding);
}
