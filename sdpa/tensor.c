/* One tensor of the caller: what it has to be by itself. */
#include <stdio.h>
#include <string.h>

#include "sdpa/call.h"

fj_status fj_sdpa_bad(const fj_sdpa_call *call, const char *format, ...) {
    char text[sizeof call->error->text];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return fj_error_set(call->error, FJ_ERR_TENSOR, "%s", text);
}

const char *fj_sdpa_shape_text(const DLTensor *tensor, char text[FJ_SDPA_TEXT]) {
    size_t at = (size_t)snprintf(text, FJ_SDPA_TEXT, "[");
    for (int i = 0; i < tensor->ndim && at < FJ_SDPA_TEXT; i++)
        at += (size_t)snprintf(text + at, FJ_SDPA_TEXT - at, "%s%lld", i ? "," : "",
                               (long long)tensor->shape[i]);
    if (at < FJ_SDPA_TEXT) (void)snprintf(text + at, FJ_SDPA_TEXT - at, "]");
    return text;
}

fj_dtype fj_sdpa_dtype(const DLTensor *tensor) {
    fj_dtype dtype = FJ_DTYPE_COUNT;
    (void)fj_dtype_from_dlpack(tensor->dtype, &dtype);
    return dtype;
}

int64_t fj_sdpa_stride(const DLTensor *tensor, int axis) {
    int64_t packed = 1;
    if (tensor->shape[axis] <= 1) return 0;
    if (tensor->strides) return tensor->strides[axis];
    for (int i = axis + 1; i < tensor->ndim; i++) packed *= tensor->shape[i];
    return packed;
}

/* ---- Checks ------------------------------------------------------------------------------------------------ */

static fj_status check_device(const fj_sdpa_call *call, const char *name, const DLTensor *tensor) {
    const DLDevice takes = fj_device_dlpack(call->device), has = tensor->device;
    const bool gpu = takes.device_type == kDLCUDA;
    if (gpu && has.device_type == kDLCUDAManaged) return FJ_OK;
    if (has.device_type != takes.device_type)
        return fj_sdpa_bad(call, "%s is on another device (DLPack type %d): the %s device takes %s memory",
                           name, (int)has.device_type, fj_device_name(call->device),
                           gpu ? "its own or managed" : "host");
    if (gpu && has.device_id != takes.device_id)
        return fj_sdpa_bad(call, "%s is on GPU %d, but the device is GPU %d", name, (int)has.device_id,
                           (int)takes.device_id);
    return FJ_OK;
}

/* How far the elements reach is what 64 bits hold. */
static fj_status check_extents(const fj_sdpa_call *call, const char *name, const DLTensor *tensor) {
    int64_t count = 1, size = (int64_t)fj_dtype_size(fj_sdpa_dtype(tensor)), reach = 0;
    bool empty = false, over = tensor->byte_offset > INT64_MAX / 2;
    char text[FJ_SDPA_TEXT];
    for (int i = 0; i < tensor->ndim; i++) {
        if (tensor->shape[i] < 0)
            return fj_sdpa_bad(call, "%s has shape %s: extents are 0 or more", name,
                               fj_sdpa_shape_text(tensor, text));
        empty |= tensor->shape[i] == 0;
    }
    for (int i = 0; i < tensor->ndim && !empty; i++) {
        int64_t step = 0;
        over |= __builtin_mul_overflow(count, tensor->shape[i], &count);
        if (!tensor->strides || tensor->shape[i] == 1) continue;
        over |= tensor->strides[i] == INT64_MIN ||
                __builtin_mul_overflow(tensor->strides[i] < 0 ? -tensor->strides[i] : tensor->strides[i],
                                       tensor->shape[i], &step);
        over |= __builtin_add_overflow(reach, step, &reach);
    }
    if (!empty && (over || count > INT64_MAX / 2 / size || reach > INT64_MAX / 2 / size))
        return fj_sdpa_bad(call, "%s reaches further than 64-bit byte offsets", name);
    if (call->sizing || empty) return FJ_OK;
    if (!tensor->data) return fj_sdpa_bad(call, "%s has no data", name);
    if (((uintptr_t)tensor->data + tensor->byte_offset) % (uintptr_t)size != 0)
        return fj_sdpa_bad(call, "%s is not aligned to its elements of %lld bytes", name, (long long)size);
    return FJ_OK;
}

fj_status fj_sdpa_check_tensor(const fj_sdpa_call *call, const char *name, const DLTensor *tensor, int least,
                               int most, const char *axes) {
    if (!tensor) return fj_sdpa_bad(call, "%s is missing", name);
    const bool readable =
        tensor->ndim >= 0 && tensor->ndim <= FJ_MAX_RANK && (tensor->shape || !tensor->ndim);
    char text[FJ_SDPA_TEXT] = "";
    if (tensor->ndim < least || tensor->ndim > most || !readable)
        return fj_sdpa_bad(call, "%s has rank %d%s%s: it is %s", name, (int)tensor->ndim,
                           readable ? ", shape " : "", readable ? fj_sdpa_shape_text(tensor, text) : "",
                           axes);
    if (fj_sdpa_dtype(tensor) == FJ_DTYPE_COUNT)
        return fj_sdpa_bad(call, "%s has an unknown dtype (DLPack code %d, %d bits, %d lanes)", name,
                           tensor->dtype.code, tensor->dtype.bits, tensor->dtype.lanes);
    const fj_status status = check_device(call, name, tensor);
    return status == FJ_OK ? check_extents(call, name, tensor) : status;
}
