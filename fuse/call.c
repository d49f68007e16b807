/* A fused attention, run through the public interface: what a user of the mod file would do. */
#include "fuse/call.h"

#include <string.h>

#include "base/dtype.h"

typedef struct fused_call {
    fj_scope *scope;
    const fj_evaluation *how;
    fj_device *device;
    const fj_fused *fused;
    const fj_array *const *inputs, *const *captures;
    fj_array *out;
    fj_gradients *gradients;
    fj_mod *mod;
    fj_plan *plan;
    fj_kernel *kernel;
    FJ_VEC(void *) memory; /* of a device that does not use the host's */
} fused_call;

/* ---- Tensors ----------------------------------------------------------------------------- */

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

static void require(const fused_call *call, fj_status status) {
    if (status != FJ_OK) fj_escape(call->scope, status); /* the error is filled */
}

static size_t size_of(const fj_array *array) { return (size_t)array->count * fj_dtype_size(array->dtype); }

static bool has_own_memory(const fused_call *call) {
    return fj_device_dlpack(call->device).device_type != kDLCPU;
}

/* Memory that the device reads, until the call is over. */
static void *allocate(fused_call *call, size_t size) {
    fj_arena *arena = call->scope->arena;
    if (!has_own_memory(call)) {
        char *bytes = fj_arena_alloc(arena, size + 256);
        return bytes + (255 & (256 - (uintptr_t)bytes % 256));
    }
    FJ_PUSH(arena, &call->memory, NULL);
    void **place = &call->memory.data[call->memory.len - 1];
    require(call, fj_device_alloc(call->device, size + 1, place, call->scope->error));
    return *place;
}

static void copy_in(const fused_call *call, void *to, const void *from, size_t size) {
    if (!has_own_memory(call)) {
        memcpy(to, from, size);
        return;
    }
    require(call, fj_device_upload(call->device, to, from, size, NULL, call->scope->error));
    require(call, fj_device_wait(call->device, NULL, call->scope->error));
}

/* The array as a tensor of its dtype; empty where nothing is stored yet. */
static DLTensor *tensor_of(fused_call *call, const fj_array *array, bool filled) {
    fj_arena *arena = call->scope->arena;
    DLTensor *tensor = FJ_NEW(arena, DLTensor);
    int64_t *shape = FJ_NEW_ARRAY(arena, int64_t, FJ_MAX_RANK);
    void *data = allocate(call, size_of(array));
    for (int i = 0; i < array->rank; i++) shape[i] = array->dims[i];
    if (filled) {
        void *host = fj_arena_alloc(arena, size_of(array) + 1);
        fj_fuse_store(array, host);
        copy_in(call, data, host, size_of(array));
    }
    *tensor = (DLTensor){.data = data,
                         .device = fj_device_dlpack(call->device),
                         .ndim = array->rank,
                         .dtype = fj_dtype_to_dlpack(array->dtype),
                         .shape = shape};
    return tensor;
}

/* What a tensor holds, back as numbers. */
static void fetch(const fused_call *call, const DLTensor *tensor, fj_array *array) {
    const void *data = tensor->data;
    if (has_own_memory(call)) {
        void *host = fj_arena_alloc(call->scope->arena, size_of(array) + 1);
        require(call, fj_device_download(call->device, host, tensor->data, size_of(array), NULL,
                                         call->scope->error));
        require(call, fj_device_wait(call->device, NULL, call->scope->error));
        data = host;
    }
    for (int64_t i = 0; i < array->count; i++) array->data[i] = fj_dtype_load_float(array->dtype, data, i);
}

/* ---- Kernels ----------------------------------------------------------------------------- */

static void make_mod(fused_call *call) {
    const fj_fused *fused = call->fused;
    const bool plain = !fused->has_score && !fused->has_mask && !fused->has_sink;
    fj_binding *bindings = FJ_NEW_ARRAY(call->scope->arena, fj_binding, fused->capture_count + 1);
    for (int i = 0; i < fused->capture_count; i++) {
        const fj_array *capture = call->captures[i];
        bindings[i] =
            (fj_binding){.name = fused->capture_names[i], .dtype = capture->dtype, .rank = capture->rank};
        for (int d = 0; d < capture->rank; d++) bindings[i].dims[d] = capture->dims[d];
    }
    const fj_mod_desc desc = {.struct_size = sizeof desc,
                              .source = plain ? NULL : fused->mod,
                              .source_length = plain ? 0 : strlen(fused->mod),
                              .file = plain ? NULL : fused->name,
                              .bindings = bindings,
                              .binding_count = plain ? 0 : (size_t)fused->capture_count};
    require(call, fj_mod_create(call->how->context, &desc, &call->mod, call->scope->error));
}

static void launch(fused_call *call, fj_direction direction, const fj_args *args) {
    fj_error *error = call->scope->error;
    const fj_problem problem = {.struct_size = sizeof problem,
                                .direction = direction,
                                .dtype = call->fused->dtype,
                                .head_dim = (int)call->inputs[0]->dims[3],
                                .value_dim = (int)call->inputs[2]->dims[3]};
    size_t size;
    fj_kernel_unref(&call->kernel);
    fj_plan_unref(&call->plan);
    require(call, fj_plan_create(call->device, call->mod, &problem, &call->plan, error));
    require(call, fj_kernel_create(call->plan, &call->kernel, error));
    require(call, fj_kernel_workspace(call->kernel, args, NULL, &size, error));
    void *workspace = allocate(call, size);
    require(call, fj_kernel_launch(call->kernel, args, NULL, workspace, size, error));
    require(call, fj_kernel_check(call->kernel, args, NULL, workspace, size, error));
}

static const fj_array *capture_of(const fused_call *call, size_t index, int *ret_at) {
    const char *name = fj_mod_capture(call->mod, index).name;
    int at = 0;
    while (at < call->fused->capture_count && strcmp(call->fused->capture_names[at], name) != 0) at++;
    if (at == call->fused->capture_count)
        fj_fail(call->scope, FJ_ERR_TENSOR, "'%.80s' of %s is not captured", name, call->fused->name);
    *ret_at = at;
    return call->captures[at];
}

/* Room for a gradient of the shape of `like`. */
static DLTensor *gradient_of(fused_call *call, const fj_array *like, fj_dtype dtype, fj_array *ret) {
    *ret = *like;
    ret->dtype = dtype;
    ret->data = FJ_NEW_ARRAY(call->scope->arena, double, like->count + 1);
    return tensor_of(call, ret, false);
}

static void backward(fused_call *call, fj_args *args, fj_dtype statistics) {
    fj_gradients *gradients = call->gradients;
    fj_arena *arena = call->scope->arena;
    const size_t count = fj_mod_capture_count(call->mod);
    const DLTensor *in[3], **tensors = FJ_NEW_ARRAY(arena, const DLTensor *, count + 1);
    int at;
    for (int i = 0; i < 3; i++)
        in[i] = gradient_of(call, call->inputs[i], call->fused->dtype, &gradients->inputs[i]);
    gradients->captures = FJ_NEW_ARRAY(arena, fj_array, call->fused->capture_count + 1);
    for (size_t i = 0; i < count; i++) {
        const fj_array *capture = capture_of(call, i, &at);
        if (fj_mod_capture(call->mod, i).gradient)
            tensors[i] = gradient_of(call, capture, statistics, &gradients->captures[at]);
    }
    args->dout = tensor_of(call, gradients->dout, true);
    args->dquery = in[0];
    args->dkey = in[1];
    args->dvalue = in[2];
    args->dcaptures = tensors;
    launch(call, FJ_BACKWARD, args);
    for (int i = 0; i < 3; i++) fetch(call, in[i], &gradients->inputs[i]);
    for (size_t i = 0; i < count; i++) {
        (void)capture_of(call, i, &at);
        if (tensors[i] != NULL) fetch(call, tensors[i], &gradients->captures[at]);
    }
}

static void run(fj_scope *scope, void *argument) {
    fused_call *call = argument;
    call->scope = scope;
    make_mod(call);
    const fj_dtype statistics = call->fused->dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32;
    const size_t count = fj_mod_capture_count(call->mod);
    const DLTensor **tensors = FJ_NEW_ARRAY(scope->arena, const DLTensor *, count + 1);
    fj_array lse = {.dtype = statistics, .rank = 3, .count = 1};
    for (int d = 0; d < 3; d++) lse.count *= lse.dims[d] = call->out->dims[d];
    int at;
    for (size_t i = 0; i < count; i++) tensors[i] = tensor_of(call, capture_of(call, i, &at), true);
    fj_args args = {.struct_size = sizeof args,
                    .query = tensor_of(call, call->inputs[0], true),
                    .key = tensor_of(call, call->inputs[1], true),
                    .value = tensor_of(call, call->inputs[2], true),
                    .out = tensor_of(call, call->out, false),
                    .lse = tensor_of(call, &lse, false),
                    .captures = tensors,
                    .scale = call->fused->scale};
    launch(call, FJ_FORWARD, &args);
    fetch(call, args.out, call->out);
    if (call->gradients != NULL) backward(call, &args, statistics);
}

fj_status fj_fuse_call(const fj_evaluation *evaluation, const fj_fused *fused, fj_arena *arena,
                       const fj_array *const inputs[3], const fj_array *const *captures, fj_array *out,
                       fj_gradients *gradients, fj_error *error) {
    fused_call call = {.how = evaluation,
                       .device = evaluation->device,
                       .fused = fused,
                       .inputs = inputs,
                       .captures = captures,
                       .out = out,
                       .gradients = gradients};
    const fj_status status = fj_scope_run(arena, error, run, &call);
    for (size_t i = 0; i < call.memory.len; i++) fj_device_free(call.device, &call.memory.data[i]);
    fj_kernel_unref(&call.kernel);
    fj_plan_unref(&call.plan);
    fj_mod_unref(&call.mod);
    return status;
}
