/* A fused attention, run through the public interface: what a user of the mod file would do. */
#include <string.h>

#include "base/dtype.h"
#include "fuse/fuse.h"

typedef struct fused_call {
    const fj_evaluation *how;
    const fj_fused *fused;
    fj_arena *arena;
    fj_mod *mod;
    fj_plan *plan;
    fj_kernel *kernel;
    fj_error *error;
} fused_call;

static void store(fj_dtype dtype, void *data, int64_t index, double value) {
    const int64_t integer = fj_dtype_is_float(dtype) ? 0 : fj_to_int(value);
    const size_t size = fj_dtype_size(dtype);
    if (fj_dtype_is_float(dtype))
        fj_dtype_store_float(dtype, data, index, value);
    else
        memcpy((char *)data + (size_t)index * size, &integer, size); /* little endian */
}

void fj_fuse_store(const fj_array *array, void *data) {
    for (int64_t i = 0; i < array->count; i++) store(array->dtype, data, i, array->data[i]);
}

/* The array as a tensor of its dtype; empty where nothing is stored yet. */
static DLTensor *tensor_of(fj_arena *arena, const fj_array *array, bool filled) {
    DLTensor *tensor = fj_arena_alloc(arena, sizeof *tensor);
    int64_t *shape = fj_arena_alloc(arena, sizeof *shape * FJ_MAX_RANK);
    char *data = fj_arena_alloc(arena, (size_t)array->count * fj_dtype_size(array->dtype) + 64);
    if (tensor == NULL || shape == NULL || data == NULL) return NULL;
    for (int i = 0; i < array->rank; i++) shape[i] = array->dims[i];
    if (filled) fj_fuse_store(array, data);
    *tensor = (DLTensor){.data = data,
                         .device = {kDLCPU, 0},
                         .ndim = array->rank,
                         .dtype = fj_dtype_to_dlpack(array->dtype),
                         .shape = shape};
    return tensor;
}

static fj_status make_mod(fused_call *call, const fj_array *const *captures) {
    const fj_fused *fused = call->fused;
    fj_binding *bindings = fj_arena_alloc(call->arena, sizeof *bindings * ((size_t)fused->capture_count + 1));
    if (bindings == NULL) return fj_error_set(call->error, FJ_ERR_MEMORY, "not enough memory");
    for (int i = 0; i < fused->capture_count; i++) {
        bindings[i] = (fj_binding){
            .name = fused->capture_names[i], .dtype = captures[i]->dtype, .rank = captures[i]->rank};
        for (int d = 0; d < captures[i]->rank; d++) bindings[i].dims[d] = captures[i]->dims[d];
    }
    const fj_mod_desc desc = {.struct_size = sizeof desc,
                              .source = fused->mod,
                              .source_length = strlen(fused->mod),
                              .file = fused->name,
                              .bindings = bindings,
                              .binding_count = (size_t)fused->capture_count};
    if (!fused->has_score && !fused->has_mask) {
        const fj_mod_desc plain = {.struct_size = sizeof plain};
        return fj_mod_create(call->how->context, &plain, &call->mod, call->error);
    }
    return fj_mod_create(call->how->context, &desc, &call->mod, call->error);
}

static fj_status launch(fused_call *call, const fj_array *const inputs[3], const fj_array *const *captures,
                        fj_array *out) {
    const size_t count = fj_mod_capture_count(call->mod);
    const DLTensor **tensors = fj_arena_alloc(call->arena, sizeof(void *) * (count + 1));
    DLTensor *in[3], *result = tensor_of(call->arena, out, false);
    bool failed = tensors == NULL || result == NULL;
    for (int i = 0; i < 3; i++) failed |= (in[i] = tensor_of(call->arena, inputs[i], true)) == NULL;
    fj_array lse = {
        .dtype = call->fused->dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32, .rank = 3, .count = 1};
    for (int d = 0; d < 3; d++) lse.count *= lse.dims[d] = out->dims[d];
    DLTensor *logs = tensor_of(call->arena, &lse, false);
    if (failed || logs == NULL) return fj_error_set(call->error, FJ_ERR_MEMORY, "not enough memory");
    for (size_t i = 0; i < count; i++) {
        const char *name = fj_mod_capture(call->mod, i).name;
        int at = 0;
        while (at < call->fused->capture_count && strcmp(call->fused->capture_names[at], name) != 0) at++;
        tensors[i] = at < call->fused->capture_count ? tensor_of(call->arena, captures[at], true) : NULL;
        if (tensors[i] == NULL) return fj_error_set(call->error, FJ_ERR_MEMORY, "not enough memory");
    }
    const fj_args args = {.struct_size = sizeof args,
                          .query = in[0],
                          .key = in[1],
                          .value = in[2],
                          .out = result,
                          .lse = logs,
                          .captures = tensors,
                          .scale = call->fused->scale};
    size_t size;
    fj_status status = fj_kernel_workspace(call->kernel, &args, NULL, &size, call->error);
    if (status != FJ_OK) return status;
    char *workspace = fj_arena_alloc(call->arena, size + 256);
    if (workspace == NULL) return fj_error_set(call->error, FJ_ERR_MEMORY, "not enough memory");
    workspace += 255 & (256 - (uintptr_t)workspace % 256);
    status = fj_kernel_launch(call->kernel, &args, NULL, workspace, size, call->error);
    if (status == FJ_OK) status = fj_kernel_check(call->kernel, &args, NULL, workspace, size, call->error);
    for (int64_t i = 0; status == FJ_OK && i < out->count; i++)
        out->data[i] = fj_dtype_load_float(out->dtype, result->data, i);
    return status;
}

fj_status fj_fuse_call(const fj_evaluation *evaluation, const fj_fused *fused, fj_arena *arena,
                       const fj_array *const inputs[3], const fj_array *const *captures, fj_array *out,
                       fj_error *error) {
    fused_call call = {.how = evaluation, .fused = fused, .arena = arena, .error = error};
    const fj_problem problem = {.struct_size = sizeof problem,
                                .direction = FJ_FORWARD,
                                .dtype = fused->dtype,
                                .head_dim = (int)inputs[0]->dims[3],
                                .value_dim = (int)inputs[2]->dims[3]};
    fj_status status = make_mod(&call, captures);
    if (status == FJ_OK) status = fj_plan_create(evaluation->device, call.mod, &problem, &call.plan, error);
    if (status == FJ_OK) status = fj_kernel_create(call.plan, &call.kernel, error);
    if (status == FJ_OK) status = launch(&call, inputs, captures, out);
    fj_kernel_unref(&call.kernel);
    fj_plan_unref(&call.plan);
    fj_mod_unref(&call.mod);
    return status;
}
