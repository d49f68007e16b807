/* What examples/decoder.c and examples/minilm.c share: an error ends the program, and tensors that keep their own shape. */
#ifndef EXAMPLES_COMMON_H
#define EXAMPLES_COMMON_H

#include <flexjit/flexjit.h>
#include <stdio.h>
#include <stdlib.h>

static inline void must(fj_status status, fj_error *error) {
    if (status == FJ_OK) return;
    char message[2048];
    fj_error_format(error, message, sizeof message);
    fputs(message, stderr);
    fj_error_finish(error);
    exit(1);
}

static inline void open_cpu(fj_context **ret_context, fj_device **ret_device) {
    fj_error error = {0};
    must(fj_context_create(NULL, ret_context), &error);
    must(fj_device_create(*ret_context, FJ_DEVICE_CPU, ret_device, &error), &error);
}

static inline void *workspace_of(size_t size) {
    void *memory = aligned_alloc(256, (size + 255) / 256 * 256 + 256);
    if (!memory) perror("workspace"), exit(1);
    return memory;
}

static inline void launch(const fj_kernel *kernel, const fj_args *args) {
    fj_error error = {0};
    size_t size;
    must(fj_kernel_workspace(kernel, args, NULL, &size, &error), &error);
    void *workspace = workspace_of(size);
    must(fj_kernel_launch(kernel, args, NULL, workspace, size, &error), &error);
    free(workspace);
}

typedef struct tensor {
    DLTensor dl;
    int64_t shape[4], strides[4];
} tensor;

/* A tensor of the host's memory, packed; strides may be changed afterwards. It must not be copied. */
static inline DLTensor *tensor_of(tensor *t, void *data, fj_dtype dtype, int rank, const int64_t shape[]) {
    int64_t stride = 1;
    for (int i = rank - 1; i >= 0; i--) t->shape[i] = shape[i], t->strides[i] = stride, stride *= shape[i];
    t->dl = (DLTensor){data, {kDLCPU, 0}, rank, fj_dtype_to_dlpack(dtype), t->shape, t->strides, 0};
    return &t->dl;
}

static inline int64_t elements(const tensor *t) {
    int64_t count = 1;
    for (int i = 0; i < t->dl.ndim; i++) count *= t->shape[i];
    return count;
}

#endif
