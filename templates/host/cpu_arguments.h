/* The arguments of the cpu's kernels, from the tensors of a call. Reads fj_tensor and fj_resolved, which are defined before it:
 * the library's (attn/resolved.h), and of the files that fj_plan_emit_c writes call.h's. */
#ifndef FJ_HOST_CPU_ARGUMENTS_H
#define FJ_HOST_CPU_ARGUMENTS_H

#include <string.h>

#include "../cpu/abi.h"

static inline size_t fj_cpu_align_up(size_t size, size_t alignment) {
    return (size + alignment - 1) & ~(alignment - 1);
}

static inline struct fj_cpu_tensor fj_cpu_describe(const fj_tensor *tensor) {
    struct fj_cpu_tensor out = {.data = tensor->data};
    memcpy(out.shape, tensor->shape, sizeof out.shape);
    memcpy(out.stride, tensor->strides, sizeof out.stride);
    return out;
}

/* What of the arguments is a sequence's own. */
static inline void fj_cpu_set_sequence(struct fj_cpu_args *args, const fj_resolved *all) {
    args->query = fj_cpu_describe(&all->query);
    args->key = fj_cpu_describe(&all->key);
    args->value = fj_cpu_describe(&all->value);
    args->out = fj_cpu_describe(&all->out);
    args->lse = fj_cpu_describe(&all->lse);
    args->max = fj_cpu_describe(&all->max);
    args->lse_low = fj_cpu_describe(&all->lse_low);
    args->out_raw = fj_cpu_describe(&all->out_raw);
    args->dout = fj_cpu_describe(&all->dout);
    args->dlse = fj_cpu_describe(&all->dlse);
    args->dquery = fj_cpu_describe(&all->dquery);
    args->dkey = fj_cpu_describe(&all->dkey);
    args->dvalue = fj_cpu_describe(&all->dvalue);
    args->batch = all->batch;
    args->q_len = all->q_len;
    args->kv_len = all->kv_len;
    args->first_batch = (int32_t)all->first_batch;
    args->q_offset = all->q_offset;
    args->pages = all->sequences.page_table;
    args->page_size = all->sequences.page_size;
}

/* Bytes that the workers keep. */
static inline size_t fj_cpu_scratch_size(const struct fj_cpu_kernel *kernel, int workers) {
    return fj_cpu_align_up((size_t)kernel->scratch, 256) * (size_t)workers;
}

/* The captures and scalars of a call as a kernel reads them. */
static inline void fj_cpu_put_inputs(const fj_tensor *from, const fj_tensor *from_grads,
                                     const fj_tensor *from_scalars, size_t capture_count, size_t scalar_count,
                                     struct fj_cpu_tensor *captures, struct fj_cpu_tensor *dcaptures,
                                     struct fj_cpu_tensor *dscalars) {
    for (size_t i = 0; i < capture_count; i++) {
        captures[i] = fj_cpu_describe(&from[i]);
        dcaptures[i] = fj_cpu_describe(&from_grads[i]);
        if (!from_grads[i].present) memcpy(dcaptures[i].shape, captures[i].shape, sizeof captures[i].shape);
    }
    for (size_t i = 0; i < scalar_count; i++) dscalars[i] = fj_cpu_describe(&from_scalars[i]);
}

#endif
