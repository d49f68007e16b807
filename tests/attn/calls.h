/* A small call of the public API: tensors with their memory, filled from a formula. */
#ifndef FJ_TESTS_ATTN_CALLS_H
#define FJ_TESTS_ATTN_CALLS_H

#include <check.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "attn/objects.h"
#include "tests/support/failing.h"

typedef struct test_tensor {
    DLTensor dl;
    int64_t shape[FJ_MAX_RANK], strides[FJ_MAX_RANK];
    size_t bytes;
} test_tensor;

static inline size_t tensor_bytes(fj_dtype dtype, int rank, const int64_t *shape) {
    size_t count = fj_dtype_size(dtype);
    for (int i = 0; i < rank; i++) count *= (size_t)shape[i];
    return count;
}

/* Exactly as many bytes as elements: address sanitizers see a read past the end. */
static inline void tensor_init(test_tensor *self, fj_dtype dtype, int rank, const int64_t *shape) {
    memset(self, 0, sizeof *self);
    memcpy(self->shape, shape, (size_t)rank * sizeof *shape);
    self->bytes = tensor_bytes(dtype, rank, shape);
    self->dl = (DLTensor){.data = self->bytes ? malloc(self->bytes) : NULL,
                          .device = {kDLCPU, 0},
                          .ndim = rank,
                          .dtype = fj_dtype_to_dlpack(dtype),
                          .shape = self->shape};
    memset(self->dl.data ? self->dl.data : self->shape, 0, self->dl.data ? self->bytes : 0);
}

/* The elements of a tensor that has some. */
static inline void *tensor_elements(const test_tensor *self) {
    if (!self->dl.data) abort();
    return self->dl.data;
}

static inline void tensor_fill(test_tensor *self, double seed) {
    float *to = self->dl.data;
    for (size_t i = 0; i < self->bytes / sizeof *to; i++) to[i] = (float)sin(seed + (double)i * 1.7);
}

typedef struct test_call {
    test_tensor query, key, value, out, lse, max, dout, dlse, dquery, dkey, dvalue;
    fj_args args;
} test_call;

typedef struct test_sizes {
    int64_t b, hq, hkv, l, s, e, ev;
} test_sizes;

/* F32, all tensors but max and dlse bound. */
static inline void call_init(test_call *self, test_sizes n) {
    memset(self, 0, sizeof *self);
    const int64_t q[] = {n.b, n.hq, n.l, n.e}, k[] = {n.b, n.hkv, n.s, n.e}, v[] = {n.b, n.hkv, n.s, n.ev},
                  o[] = {n.b, n.hq, n.l, n.ev};
    test_tensor *const inputs[] = {&self->query, &self->key, &self->value, &self->dout};
    const int64_t *const shapes[] = {q, k, v, o};
    for (int i = 0; i < 4; i++) {
        tensor_init(inputs[i], FJ_DTYPE_F32, 4, shapes[i]);
        tensor_fill(inputs[i], i);
    }
    tensor_init(&self->out, FJ_DTYPE_F32, 4, o);
    tensor_init(&self->dquery, FJ_DTYPE_F32, 4, q);
    tensor_init(&self->dkey, FJ_DTYPE_F32, 4, k);
    tensor_init(&self->dvalue, FJ_DTYPE_F32, 4, v);
    tensor_init(&self->lse, FJ_DTYPE_F32, 3, o);
    tensor_init(&self->max, FJ_DTYPE_F32, 3, o);
    tensor_init(&self->dlse, FJ_DTYPE_F32, 3, o);
    self->args = (fj_args){
        .struct_size = sizeof self->args,
        .query = &self->query.dl,
        .key = &self->key.dl,
        .value = &self->value.dl,
        .out = &self->out.dl,
        .lse = &self->lse.dl,
        .dout = &self->dout.dl,
        .dquery = &self->dquery.dl,
        .dkey = &self->dkey.dl,
        .dvalue = &self->dvalue.dl,
        .scale = 0.25,
    };
}

static inline void call_finish(test_call *self) {
    test_tensor *const all[] = {&self->query,  &self->key,  &self->value, &self->out,
                                &self->lse,    &self->max,  &self->dout,  &self->dlse,
                                &self->dquery, &self->dkey, &self->dvalue};
    for (size_t i = 0; i < FJ_ARRAY_LEN(all); i++) free(all[i]->dl.data);
}

/* Asks for the workspace and launches. */
static inline fj_status call_launch(const test_call *self, const fj_kernel *kernel, const fj_launch *launch,
                                    fj_error *error) {
    size_t size = 0;
    fj_status status = fj_kernel_workspace(kernel, &self->args, launch, &size, error);
    if (status != FJ_OK) return status;
    void *workspace = aligned_alloc(256, (size + 256) / 256 * 256);
    memset(workspace, 0x5a, size); /* need not be initialised */
    status = fj_kernel_launch(kernel, &self->args, launch, workspace, size, error);
    free(workspace);
    return status;
}

/* ---- The objects of a call ---------------------------------------------------------------------- */

typedef struct test_stack {
    fj_context *context;
    fj_device *device;
    fj_mod *mod;
    fj_plan *plan;
    fj_kernel *kernel;
} test_stack;

static inline void stack_finish(test_stack *self) {
    fj_kernel_unref(&self->kernel);
    fj_plan_unref(&self->plan);
    fj_mod_unref(&self->mod);
    fj_device_unref(&self->device);
    fj_context_unref(&self->context);
}

/* mod and problem may be NULL: identity, forward F32 16 x 16. Stops at the first failure. */
static inline fj_status stack_init(test_stack *self, fj_device_kind kind, const fj_mod_desc *mod,
                                   const fj_problem *problem, const fj_context_desc *context,
                                   fj_error *error) {
    const fj_mod_desc identity = {.struct_size = sizeof identity};
    const fj_problem forward = {
        .struct_size = sizeof forward, .dtype = FJ_DTYPE_F32, .head_dim = 16, .value_dim = 16};
    *self = (test_stack){0};
    fj_status status = fj_context_create(context, &self->context);
    if (status == FJ_OK) status = fj_device_create(self->context, kind, &self->device, error);
    if (status == FJ_OK) status = fj_mod_create(self->context, mod ? mod : &identity, &self->mod, error);
    if (status == FJ_OK)
        status = fj_plan_create(self->device, self->mod, problem ? problem : &forward, &self->plan, error);
    if (status == FJ_OK) status = fj_kernel_create(self->plan, &self->kernel, error);
    return status;
}

static inline void stack_open(test_stack *self, fj_device_kind kind, const fj_mod_desc *mod,
                              const fj_problem *problem) {
    fj_error error = {0};
    fj_status status = stack_init(self, kind, mod, problem, NULL, &error);
    ck_assert_msg(status == FJ_OK, "%s\n%s", error.text, error.detail ? error.detail : "");
}

#endif
