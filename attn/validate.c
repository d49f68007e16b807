/* The tensors of a call: checked against the plan and each other, and resolved.
 *
 * Every error is one sentence that names the tensor and says what it should have been.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attn/validate.h"
#include "base/dtype.h"

fj_status fj_attn_bad(const fj_validation *v, const char *format, ...) {
    if (!v->error) return FJ_ERR_TENSOR;
    char text[sizeof v->error->text];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return fj_error_set(v->error, FJ_ERR_TENSOR, "%s", text);
}

/* ---- One tensor ------------------------------------------------------------------------------------------ */

static void shape_text(char *text, size_t size, const int64_t *shape, int rank) {
    size_t length = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && length < size; i++) {
        const char *comma = i ? "," : "";
        if (shape[i] == FJ_ANY_EXTENT)
            length += (size_t)snprintf(text + length, size - length, "%s*", comma);
        else
            length += (size_t)snprintf(text + length, size - length, "%s%lld", comma, (long long)shape[i]);
    }
    if (length < size) (void)snprintf(text + length, size - length, "]");
}

static fj_status check_form(const fj_validation *v, const DLTensor *tensor, const fj_expected *want) {
    const char *name = want->name;
    DLDevice takes = fj_device_dlpack(v->plan->device), has = tensor->device;
    bool managed = takes.device_type == kDLCUDA && has.device_type == kDLCUDAManaged;
    if (has.device_type != takes.device_type && !managed)
        return fj_attn_bad(v, "%s is on another device (DLPack type %d): the %s device takes %s memory", name,
                           (int)has.device_type, fj_device_name(v->plan->device),
                           takes.device_type == kDLCUDA ? "its own or managed" : "host");
    if (takes.device_type == kDLCUDA && !managed && has.device_id != takes.device_id)
        return fj_attn_bad(v, "%s is on GPU %d, but the device is GPU %d", name, (int)has.device_id,
                           (int)takes.device_id);
    if (tensor->ndim != want->rank)
        return fj_attn_bad(v, "%s has rank %d, not %d%s%s", name, (int)tensor->ndim, want->rank,
                           want->axes ? ": " : "", want->axes ? want->axes : "");
    if (want->rank > 0 && !tensor->shape) return fj_attn_bad(v, "%s has no shape", name);
    fj_dtype dtype;
    if (!fj_dtype_from_dlpack(tensor->dtype, &dtype))
        return fj_attn_bad(v, "%s has an unknown dtype (DLPack code %d, %d bits, %d lanes)", name,
                           tensor->dtype.code, tensor->dtype.bits, tensor->dtype.lanes);
    if (dtype == want->dtype || dtype == want->also) return FJ_OK;
    if (want->dtype == want->also)
        return fj_attn_bad(v, "%s is %s, not %s", name, fj_dtype_name(dtype), fj_dtype_name(want->dtype));
    return fj_attn_bad(v, "%s is %s, not %s or %s", name, fj_dtype_name(dtype), fj_dtype_name(want->dtype),
                       fj_dtype_name(want->also));
}

static fj_status check_shape(const fj_validation *v, const DLTensor *tensor, const fj_expected *want) {
    char got[200], expected[200];
    for (int i = 0; i < want->rank; i++)
        if (tensor->shape[i] < 0)
            return fj_attn_bad(v, "%s has a negative extent (%lld, dimension %d)", want->name,
                               (long long)tensor->shape[i], i);
    for (int i = 0; i < want->rank; i++) {
        if (want->shape[i] == FJ_ANY_EXTENT || want->shape[i] == tensor->shape[i]) continue;
        shape_text(got, sizeof got, tensor->shape, want->rank);
        shape_text(expected, sizeof expected, want->shape, want->rank);
        return fj_attn_bad(v, "%s has shape %s, not %s%s%s", want->name, got, expected, want->axes ? " " : "",
                           want->axes ? want->axes : "");
    }
    return FJ_OK;
}

/* Fills shape and strides; packed when the caller gives none. A stride that is never used (extent 1, or
 * no elements) becomes what a packed tensor has. */
static fj_status set_strides(const fj_validation *v, const DLTensor *tensor, const fj_expected *want,
                             fj_tensor *out) {
    int64_t packed = 1;
    bool empty = false;
    for (int i = 0; i < want->rank; i++) empty |= tensor->shape[i] == 0;
    for (int i = 0; i < FJ_MAX_RANK; i++) out->shape[i] = 1;
    for (int i = want->rank - 1; i >= 0; i--) {
        int64_t extent = tensor->shape[i];
        out->shape[i] = extent;
        out->strides[i] = tensor->strides && extent > 1 && !empty ? tensor->strides[i] : packed;
        if (i == want->rank - 1 && extent > 1 && out->strides[i] != 1)
            return fj_attn_bad(v, "%s has stride %lld in its last dimension, where only 1 is taken",
                               want->name, (long long)out->strides[i]);
        if (want->written && extent > 1 && !empty && out->strides[i] == 0)
            return fj_attn_bad(v, "%s has stride 0 in dimension %d: its elements overlap", want->name, i);
        if (!empty && __builtin_mul_overflow(packed, extent, &packed))
            return fj_attn_bad(v, "%s has more elements than 64 bits can count", want->name);
    }
    return FJ_OK;
}

/* Every byte of the tensor lies at an offset that 64 bits hold. */
static fj_status check_extent(const fj_validation *v, const DLTensor *tensor, const fj_expected *want,
                              fj_tensor *out) {
    int64_t low = 0, high = 0, size = (int64_t)fj_dtype_size(out->dtype);
    bool empty = false, over = tensor->byte_offset > INT64_MAX;
    for (int i = 0; i < out->rank; i++) {
        int64_t reach = 0;
        empty |= out->shape[i] == 0;
        if (out->shape[i] > 1) over |= __builtin_mul_overflow(out->strides[i], out->shape[i] - 1, &reach);
        over |= __builtin_add_overflow(reach < 0 ? low : high, reach, reach < 0 ? &low : &high);
    }
    over |= __builtin_add_overflow(high, 1, &high);
    over |= __builtin_mul_overflow(high, size, &high) || __builtin_mul_overflow(low, size, &low);
    over |= __builtin_add_overflow(high, (int64_t)(tensor->byte_offset & INT64_MAX), &high);
    if (over && !empty) return fj_attn_bad(v, "%s reaches further than 64-bit byte offsets", want->name);
    if (v->sizing && !want->is_read) return FJ_OK;
    if (!tensor->data && !empty) return fj_attn_bad(v, "%s has no data", want->name);
    out->data = tensor->data ? (char *)tensor->data + (empty ? 0 : tensor->byte_offset) : NULL;
    if (!empty && (uintptr_t)out->data % (uintptr_t)size != 0)
        return fj_attn_bad(v, "%s is not aligned to its elements of %lld bytes", want->name, (long long)size);
    return FJ_OK;
}

fj_status fj_attn_resolve_tensor(const fj_validation *v, const DLTensor *tensor, const fj_expected *want,
                                 fj_tensor *ret_tensor) {
    if (!tensor) return fj_attn_bad(v, "%s is missing", want->name);
    fj_tensor out = {.present = true, .rank = want->rank};
    fj_status status = check_form(v, tensor, want);
    if (status == FJ_OK) status = check_shape(v, tensor, want);
    if (status != FJ_OK) return status;
    (void)fj_dtype_from_dlpack(tensor->dtype, &out.dtype);
    status = set_strides(v, tensor, want, &out);
    if (status == FJ_OK) status = check_extent(v, tensor, want, &out);
    if (status == FJ_OK) *ret_tensor = out;
    return status;
}

/* ---- Captures and scalars ----------------------------------------------------------------------------------- */

static fj_status resolve_capture(const fj_validation *v, size_t index, const fj_args *args,
                                 fj_tensor *capture, fj_tensor *dcapture) {
    const fj_mod *mod = v->plan->mod;
    const fj_capture *info = &mod->program.ir->captures.data[mod->capture_index[index]];
    fj_expected want = {.rank = info->rank, .dtype = info->dtype, .also = info->dtype};
    (void)snprintf(want.name, sizeof want.name, "captured tensor '%.100s'", info->name);
    for (int i = 0; i < info->rank; i++) want.shape[i] = info->dims[i] < 0 ? FJ_ANY_EXTENT : info->dims[i];
    fj_status status =
        fj_attn_resolve_tensor(v, args->captures ? args->captures[index] : NULL, &want, capture);
    bool backward = v->plan->problem.direction == FJ_BACKWARD;
    const DLTensor *gradient = backward && args->dcaptures ? args->dcaptures[index] : NULL;
    if (status != FJ_OK || !gradient) return status;
    if (!info->gradient)
        return fj_attn_bad(v, "captured tensor '%.100s' has no gradient, but one is asked for", info->name);
    want = fj_attn_statistic(v, true);
    (void)snprintf(want.name, sizeof want.name, "the gradient of captured tensor '%.100s'", info->name);
    want.rank = info->rank;
    memcpy(want.shape, capture->shape, sizeof want.shape);
    return fj_attn_resolve_tensor(v, gradient, &want, dcapture);
}

static fj_status resolve_scalar(const fj_validation *v, size_t index, const fj_args *args, fj_scalar *scalar,
                                fj_tensor *dscalar) {
    const fj_runtime_scalar *info = &v->plan->mod->program.ir->scalars.data[index];
    *scalar = args->scalars ? args->scalars[index] : v->plan->mod->scalar_values[index];
    if (info->type == FJ_TYPE_BOOL) scalar->i = scalar->i != 0;
    bool backward = v->plan->problem.direction == FJ_BACKWARD;
    const DLTensor *gradient = backward && args->dscalars ? args->dscalars[index] : NULL;
    if (!gradient) return FJ_OK;
    if (!info->gradient)
        return fj_attn_bad(v, "run-time scalar '%.100s' has no gradient, but one is asked for", info->name);
    fj_expected want = fj_attn_statistic(v, true);
    (void)snprintf(want.name, sizeof want.name, "the gradient of run-time scalar '%.100s'", info->name);
    return fj_attn_resolve_tensor(v, gradient, &want, dscalar);
}

size_t fj_attn_resolve_size(const fj_plan *plan) {
    size_t captures = plan->mod->program.ir->captures.len, scalars = plan->mod->scalar_count;
    return 2 * captures * sizeof(fj_tensor) + scalars * (sizeof(fj_tensor) + sizeof(fj_scalar));
}

/* What the mod requires of extents and scalars. */
static fj_status check_requirements(const fj_validation *v, const fj_resolved *all) {
    const fj_mod *mod = v->plan->mod;
    const fj_requirements *requirements = &mod->program.origins.requirements;
    if (requirements->count == 0) return FJ_OK;
    _Static_assert(sizeof(fj_tensor) % sizeof(int64_t) == 0, "extents are a whole number apart");
    const fj_extents extents = {all->captures ? all->captures[0].shape : NULL,
                                sizeof(fj_tensor) / sizeof(int64_t)};
    return fj_requirements_check(requirements, mod->program.ir, all->scalars, extents, v->error);
}

static fj_status resolve_mod_inputs(const fj_validation *v, const fj_args *args, void *storage,
                                    fj_resolved *all) {
    const fj_mod *mod = v->plan->mod;
    size_t captures = mod->program.ir->captures.len;
    fj_tensor *capture = storage, *dcapture = capture + captures, *dscalar = dcapture + captures;
    fj_scalar *scalar = (fj_scalar *)(void *)(dscalar + mod->scalar_count);
    memset(storage, 0, fj_attn_resolve_size(v->plan));
    all->captures = capture;
    all->dcaptures = dcapture;
    all->dscalars = dscalar;
    all->scalars = scalar;
    for (size_t i = 0; i < captures; i++) capture[i] = mod->literals[i];
    for (size_t i = 0; i < mod->capture_count; i++) {
        size_t at = mod->capture_index[i];
        if (v->used && !v->used[at]) {
            for (int axis = 0; axis < FJ_MAX_RANK; axis++) capture[at].shape[axis] = FJ_ANY_EXTENT;
            continue;
        }
        fj_status status = resolve_capture(v, i, args, &capture[at], &dcapture[at]);
        if (status != FJ_OK) return status;
    }
    for (size_t i = 0; i < mod->scalar_count; i++) {
        fj_status status = resolve_scalar(v, i, args, &scalar[i], &dscalar[i]);
        if (status != FJ_OK) return status;
    }
    return check_requirements(v, all);
}

/* ---- The scale -------------------------------------------------------------------------------------------- */

/* Kernels multiply by scale * log2(e) in float32 (F64: in double), which must not overflow, nor lose bits of a
 * score that matters: in double no score is large enough for that. */
fj_status fj_attn_check_scale(const fj_plan *plan, double scale, fj_error *error) {
    bool wide = plan->problem.dtype == FJ_DTYPE_F64;
    const double least = wide ? 0 : 0x1p-126, most = wide ? 0x1p1022 : 0x1p126, size = fabs(scale);
    if (!isfinite(scale)) return fj_error_set(error, FJ_ERR_ARGUMENT, "scale is not finite");
    if (size == 0 || (size >= least && size <= most)) return FJ_OK;
    fj_buf value;
    fj_buf_init(&value, &plan->device->context->allocator);
    fj_buf_double(&value, scale);
    (void)fj_error_set(error, FJ_ERR_ARGUMENT, "scale is %.*s; %s takes 0 and magnitudes %s", (int)value.len,
                       value.data ? value.data : "", fj_dtype_name(plan->problem.dtype),
                       wide ? "up to 2^1022" : "from 2^-126 to 2^126");
    if (!wide) fj_error_note(error, "a score mod can multiply the score, and F64 takes more");
    fj_buf_finish(&value);
    return FJ_ERR_ARGUMENT;
}

/* Sizes do not depend on it. */
static fj_status resolve_block_mask(const fj_validation *v, const fj_args *args, fj_resolved *all) {
    if (args->block_mask && !v->plan->problem.block_mask)
        return fj_attn_bad(v, "block_mask is given, but the plan was made without it");
    if (!v->plan->problem.block_mask || (v->sizing && !args->block_mask)) return FJ_OK;
    if (!args->block_mask) return fj_attn_bad(v, "block_mask is missing, but the plan was made with it");
    all->block_mask = args->block_mask;
    return fj_block_mask_check(args->block_mask, all->batch, all->heads_q, all->q_len, all->kv_len, v->error);
}

fj_status fj_attn_resolve(const fj_plan *plan, const fj_args *args, bool sizing, void *storage,
                          fj_resolved *ret_resolved, fj_error *error) {
    fj_validation v = {plan, sizing, error, NULL};
    fj_resolved all = {.scale = args->scale};
    fj_status status = fj_attn_resolve_inputs(&v, args, &all);
    if (status == FJ_OK) status = resolve_block_mask(&v, args, &all);
    if (status == FJ_OK) status = fj_attn_resolve_dropout(&v, args, &all);
    if (status == FJ_OK) status = fj_attn_resolve_results(&v, args, &all);
    if (status == FJ_OK && fj_attn_resolve_size(plan) > 0)
        status = resolve_mod_inputs(&v, args, storage, &all);
    if (status == FJ_OK) *ret_resolved = all;
    return status;
}

fj_status fj_attn_resolve_captures(const fj_plan *plan, const fj_args *args, const bool *used, void *storage,
                                   fj_resolved *ret_resolved, fj_error *error) {
    fj_validation v = {plan, false, error, used};
    fj_resolved all = {0};
    fj_status status = fj_attn_resolve_size(plan) > 0 ? resolve_mod_inputs(&v, args, storage, &all) : FJ_OK;
    if (status == FJ_OK) *ret_resolved = all;
    return status;
}
