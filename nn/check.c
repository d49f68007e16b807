/* Tensors of a call against what they have to be. */
#include "nn/check.h"

#include <stdio.h>
#include <string.h>

enum { ALIGNMENT = 256 };

fj_status fj_nn_bad(const fj_nn_check *check, fj_status status, const char *format, ...) {
    if (!check->error) return status;
    char text[sizeof check->error->text];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    return fj_error_set(check->error, status, "%s%s", check->where, text);
}

void fj_nn_shape_text(char *text, size_t size, int rank, const int64_t *shape) {
    size_t length = (size_t)snprintf(text, size, "[");
    for (int i = 0; i < rank && length < size; i++)
        length += (size_t)snprintf(text + length, size - length, "%s%lld", i ? "," : "", (long long)shape[i]);
    if (length < size) (void)snprintf(text + length, size - length, "]");
}

/* ---- One tensor ---------------------------------------------------------------------------------------- */

static bool is_packed(const DLTensor *tensor) {
    int64_t packed = 1;
    for (int i = 0; i < tensor->ndim; i++)
        if (tensor->shape[i] == 0) return true;
    for (int i = tensor->ndim - 1; i >= 0; i--) {
        if (tensor->strides && tensor->shape[i] > 1 && tensor->strides[i] != packed) return false;
        packed *= tensor->shape[i];
    }
    return true;
}

static bool has_shape(const DLTensor *tensor, int rank, const int64_t *shape) {
    bool same = tensor->ndim == rank && tensor->shape;
    for (int i = 0; i < rank && same; i++) same = tensor->shape[i] == shape[i];
    return same;
}

static bool is_there(const fj_nn_check *check, const DLTensor *tensor) {
    bool empty = false;
    for (int i = 0; i < tensor->ndim; i++) empty |= tensor->shape[i] == 0;
    return check->sizing || empty || tensor->data;
}

static bool is_aligned(const fj_nn_check *check, const DLTensor *tensor) {
    return check->sizing || (uintptr_t)fj_nn_data(tensor) % fj_dtype_size(check->dtype) == 0;
}

/* Without a text: what nearly every tensor is. */
static bool is_right(const fj_nn_check *check, const DLTensor *tensor, int rank, const int64_t *shape) {
    fj_dtype dtype;
    return tensor && tensor->device.device_type == kDLCPU && fj_dtype_from_dlpack(tensor->dtype, &dtype) &&
           dtype == check->dtype && has_shape(tensor, rank, shape) && is_packed(tensor) &&
           is_there(check, tensor) && is_aligned(check, tensor);
}

fj_status fj_nn_check_tensor(const fj_nn_check *check, const char *name, const DLTensor *tensor,
                             const char *axes, int rank, const int64_t *shape) {
    char got[160], want[160];
    fj_dtype dtype;
    if (is_right(check, tensor, rank, shape)) return FJ_OK;
    fj_nn_shape_text(want, sizeof want, rank, shape);
    if (!tensor) return fj_nn_bad(check, FJ_ERR_TENSOR, "%s is missing: it is %s %s", name, axes, want);
    if (tensor->device.device_type != kDLCPU)
        return fj_nn_bad(check, FJ_ERR_TENSOR,
                         "%s is on another device (DLPack type %d): layers take host memory", name,
                         (int)tensor->device.device_type);
    if (!fj_dtype_from_dlpack(tensor->dtype, &dtype))
        return fj_nn_bad(check, FJ_ERR_TENSOR, "%s has an unknown dtype (DLPack code %d, %d bits, %d lanes)",
                         name, tensor->dtype.code, tensor->dtype.bits, tensor->dtype.lanes);
    if (dtype != check->dtype)
        return fj_nn_bad(check, FJ_ERR_TENSOR, "%s is %s, not %s", name, fj_dtype_name(dtype),
                         fj_dtype_name(check->dtype));
    if (!has_shape(tensor, rank, shape)) {
        fj_nn_shape_text(got, sizeof got, tensor->shape && tensor->ndim <= 16 ? tensor->ndim : 0,
                         tensor->shape);
        return fj_nn_bad(check, FJ_ERR_TENSOR, "%s has shape %s, not %s %s", name, got, want, axes);
    }
    if (!is_packed(tensor))
        return fj_nn_bad(check, FJ_ERR_TENSOR, "%s has strides: layers take packed tensors", name);
    if (!is_there(check, tensor)) return fj_nn_bad(check, FJ_ERR_TENSOR, "%s has no data", name);
    return fj_nn_bad(check, FJ_ERR_TENSOR, "%s is not aligned to its elements of %zu bytes", name,
                     fj_dtype_size(dtype));
}

fj_status fj_nn_check_optional(const fj_nn_check *check, const char *name, const DLTensor *tensor,
                               const char *axes, int rank, const int64_t *shape) {
    return tensor ? fj_nn_check_tensor(check, name, tensor, axes, rank, shape) : FJ_OK;
}

fj_status fj_nn_check_gradient(const fj_nn_check *check, const char *name, const DLTensor *gradient,
                               const DLTensor *of, const char *axes, int rank, const int64_t *shape) {
    char full[96];
    if (!gradient) return FJ_OK;
    (void)snprintf(full, sizeof full, "the gradient of %s", name);
    if (!of) return fj_nn_bad(check, FJ_ERR_TENSOR, "%s is asked for, but %s is not given", full, name);
    return fj_nn_check_tensor(check, full, gradient, axes, rank, shape);
}

/* ---- Overlap ----------------------------------------------------------------------------------------------- */

static size_t byte_size(const fj_nn_check *check, const DLTensor *tensor) {
    size_t size = fj_dtype_size(check->dtype);
    for (int i = 0; i < tensor->ndim; i++) size *= (size_t)tensor->shape[i];
    return size;
}

fj_status fj_nn_check_apart(const fj_nn_check *check, const fj_nn_named *tensors, size_t count,
                            size_t outputs) {
    for (size_t i = 0; i < outputs; i++)
        for (size_t j = i + 1; j < count; j++) {
            const DLTensor *a = tensors[i].tensor, *b = tensors[j].tensor;
            if (!a || !b) continue;
            const uintptr_t a_first = (uintptr_t)fj_nn_data(a), b_first = (uintptr_t)fj_nn_data(b);
            if (a_first < b_first + byte_size(check, b) && b_first < a_first + byte_size(check, a))
                return fj_nn_bad(check, FJ_ERR_TENSOR, "%s overlaps %s: an output has memory of its own",
                                 tensors[i].name, tensors[j].name);
        }
    return FJ_OK;
}

/* ---- Parameters ------------------------------------------------------------------------------------------ */

typedef struct parameter {
    const char *name; /* of the field */
    const DLTensor *tensor, *gradient;
    const char *axes;
    int64_t shape[2];
    int rank;
    bool required;
} parameter;

static fj_status check_parameter(const fj_nn_check *check, const char *owner, const parameter *p) {
    char name[80];
    const bool right = p->tensor ? is_right(check, p->tensor, p->rank, p->shape) : !p->required;
    if (right && (!p->gradient || (p->tensor && is_right(check, p->gradient, p->rank, p->shape))))
        return FJ_OK;
    (void)snprintf(name, sizeof name, "%s.%s", owner, p->name);
    fj_status status = p->required ? fj_nn_check_tensor(check, name, p->tensor, p->axes, p->rank, p->shape)
                                   : fj_nn_check_optional(check, name, p->tensor, p->axes, p->rank, p->shape);
    if (status == FJ_OK)
        status = fj_nn_check_gradient(check, name, p->gradient, p->tensor, p->axes, p->rank, p->shape);
    return status;
}

static fj_status check_parameters(const fj_nn_check *check, const char *owner, const parameter *parameters,
                                  size_t count) {
    fj_status status = FJ_OK;
    for (size_t i = 0; i < count && status == FJ_OK; i++)
        status = check_parameter(check, owner, &parameters[i]);
    return status;
}

fj_status fj_nn_check_linear(const fj_nn_check *check, const char *name, const fj_linear *linear,
                             const fj_linear *gradient, int64_t out, int64_t in) {
    const fj_linear none = {0}, *g = gradient ? gradient : &none;
    const parameter parameters[] = {
        {"weight", linear->weight, g->weight, "[out,in]", {out, in}, 2, true},
        {"bias", linear->bias, g->bias, "[out]", {out}, 1, false},
    };
    return check_parameters(check, name, parameters, FJ_ARRAY_LEN(parameters));
}

fj_status fj_nn_check_norm(const fj_nn_check *check, const char *name, const fj_norm *norm,
                           const fj_norm *gradient, int64_t width) {
    const fj_norm none = {0}, *g = gradient ? gradient : &none;
    const parameter parameters[] = {
        {"weight", norm->weight, g->weight, "[D]", {width}, 1, false},
        {"bias", norm->bias, g->bias, "[D]", {width}, 1, false},
    };
    return check_parameters(check, name, parameters, FJ_ARRAY_LEN(parameters));
}

/* What a form of the projections excludes. */
static fj_status check_form(const fj_nn_check *check, const char *name, const fj_mha_state *s, int64_t embed,
                            int64_t k_in, int64_t v_in) {
    const bool separate = s->q.weight || s->k.weight || s->v.weight,
               biases = s->q.bias || s->k.bias || s->v.bias;
    if (s->in.weight && separate)
        return fj_nn_bad(check, FJ_ERR_TENSOR,
                         "%s has in.weight and weights of q, k or v: one form is allowed", name);
    if (s->in.weight && (k_in != embed || v_in != embed))
        return fj_nn_bad(
            check, FJ_ERR_TENSOR,
            "%s has in.weight, which is for keys and values of %lld features, but they have %lld and "
            "%lld: give weights of q, k and v",
            name, (long long)embed, (long long)k_in, (long long)v_in);
    if (s->in.bias && biases)
        return fj_nn_bad(check, FJ_ERR_TENSOR, "%s has in.bias and biases of q, k or v: one form is allowed",
                         name);
    if (s->in.weight && biases)
        return fj_nn_bad(check, FJ_ERR_TENSOR,
                         "%s has in.weight: its bias is in.bias, not those of q, k or v", name);
    return FJ_OK;
}

fj_status fj_nn_check_mha_state(const fj_nn_check *check, const char *name, const fj_mha_state *s,
                                const fj_mha_state *gradient, int64_t embed, int64_t k_in, int64_t v_in) {
    const fj_mha_state none = {0}, *g = gradient ? gradient : &none;
    const bool separate = !s->in.weight && (s->q.weight || s->k.weight || s->v.weight);
    fj_status status = check_form(check, name, s, embed, k_in, v_in);
    const parameter parameters[] = {
        {"in.weight", s->in.weight, g->in.weight, "[3*E,E]", {3 * embed, embed}, 2, !separate},
        {"in.bias", s->in.bias, g->in.bias, "[3*E]", {3 * embed}, 1, false},
        {"q.weight", s->q.weight, g->q.weight, "[E,E]", {embed, embed}, 2, separate},
        {"k.weight", s->k.weight, g->k.weight, "[E,kdim]", {embed, k_in}, 2, separate},
        {"v.weight", s->v.weight, g->v.weight, "[E,vdim]", {embed, v_in}, 2, separate},
        {"q.bias", s->q.bias, g->q.bias, "[E]", {embed}, 1, false},
        {"k.bias", s->k.bias, g->k.bias, "[E]", {embed}, 1, false},
        {"v.bias", s->v.bias, g->v.bias, "[E]", {embed}, 1, false},
        {"out.weight", s->out.weight, g->out.weight, "[E,E]", {embed, embed}, 2, true},
        {"out.bias", s->out.bias, g->out.bias, "[E]", {embed}, 1, false},
    };
    return status == FJ_OK ? check_parameters(check, name, parameters, FJ_ARRAY_LEN(parameters)) : status;
}

/* ---- Memory ---------------------------------------------------------------------------------------------- */

static fj_status check_piece(const char *name, const void *memory, size_t size, size_t needed,
                             fj_error *error) {
    if (size < needed || (!memory && needed > 0))
        return fj_error_set(error, FJ_ERR_MEMORY, "%s has %zu bytes; this call needs %zu", name,
                            memory ? size : 0, needed);
    if ((uintptr_t)memory % ALIGNMENT != 0)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "%s is not aligned to %d bytes", name, ALIGNMENT);
    return FJ_OK;
}

fj_status fj_nn_check_memory(const fj_nn_memory *memory, const fj_nn_sizes *sizes, bool backward,
                             fj_error *error) {
    fj_status status = check_piece("the workspace", memory->workspace, memory->workspace_size,
                                   backward ? sizes->backward : sizes->forward, error);
    if (status == FJ_OK && (memory->saved || backward))
        status =
            check_piece("the memory for saved state", memory->saved, memory->saved_size, sizes->saved, error);
    return status;
}
