/* Random tensors for calls that measure: `bench`, `tune`. */
#include "cli/fill.h"

#include <stdlib.h>
#include <string.h>

#include "cli/number.h"
#include "cli/report.h"

static int fill_normal(cli_view *view, const char *name, fj_dtype dtype, int rank, const int64_t *dims,
                       uint64_t seed) {
    int status = cli_view_allocate(view, name, dtype, rank, dims);
    cli_random random = {seed};
    for (size_t i = 0; status == CLI_EXIT_OK && i < view->count; i++) {
        cli_store(dtype, view->tensor.data, i, cli_random_normal(&random));
    }
    return status;
}

/* Integers are likely indices: below every extent that they may index. */
static int64_t least_extent(const cli_fill *from, const cli_shape *shape) {
    int64_t least = shape->q_len < shape->kv_len ? shape->q_len : shape->kv_len;
    for (size_t i = 0; i < from->bindings->count; i++) {
        const fj_binding *binding = &from->bindings->items[i];
        for (int d = 0; d < binding->rank; d++) {
            if (binding->dims[d] >= 1 && binding->dims[d] < least) least = binding->dims[d];
        }
    }
    return least < 1 ? 1 : least < INT32_MAX ? least : INT32_MAX;
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int fill_integers(cli_view *view, const char *name, const fj_binding *binding, int64_t bound,
                         uint64_t seed) {
    int status = cli_view_allocate(view, name, binding->dtype, binding->rank, binding->dims);
    int64_t *values = status == CLI_EXIT_OK ? malloc((view->count + 1) * sizeof *values) : NULL;
    if (status == CLI_EXIT_OK && values == NULL) status = cli_no_memory();
    if (status != CLI_EXIT_OK) return status;
    cli_random random = {seed};
    if (binding->dtype == FJ_DTYPE_BOOL) bound = 2;
    for (size_t i = 0; i < view->count; i++) values[i] = cli_random_below(&random, bound);
    if (binding->rank == 1 && binding->dtype != FJ_DTYPE_BOOL)
        qsort(values, view->count, sizeof *values, by_value);
    for (size_t i = 0; i < view->count; i++)
        cli_store(binding->dtype, view->tensor.data, i, (double)values[i]);
    free(values);
    return CLI_EXIT_OK;
}

static const fj_binding *find_binding(const cli_fill *from, const char *name) {
    for (size_t i = 0; i < from->bindings->count; i++) {
        if (strcmp(from->bindings->items[i].name, name) == 0) return &from->bindings->items[i];
    }
    return NULL;
}

static int64_t dtype_bound(fj_dtype dtype, int64_t bound) {
    int64_t most = dtype == FJ_DTYPE_I8  ? 128
                 : dtype == FJ_DTYPE_U8  ? 256
                 : dtype == FJ_DTYPE_I16 ? 32768
                                         : bound;
    return bound < most ? bound : most;
}

static int fill_capture(const cli_fill *from, const cli_shape *shape, size_t index, cli_view *view) {
    const char *name = fj_mod_capture(from->mod, index).name;
    const cli_tensor *tensor = cli_st_find(&from->bindings->file, name);
    if (tensor != NULL && tensor->known) {
        return cli_view_borrow(view, name, tensor->dtype, tensor->rank, tensor->dims, tensor->data);
    }
    const fj_binding *binding = find_binding(from, name);
    if (binding == NULL) return cli_fail(CLI_EXIT_FAILED, "captured tensor '%.100s' is not bound", name);
    for (int d = 0; d < binding->rank; d++) {
        if (binding->dims[d] >= 0) continue;
        return cli_usage(from->verb, "'--bind %.100s': to fill the tensor, its whole shape must be given",
                         name);
    }
    uint64_t seed = (uint64_t)from->seed * 1000 + 10 + index;
    switch (binding->dtype) {
    case FJ_DTYPE_F16:
    case FJ_DTYPE_BF16:
    case FJ_DTYPE_F32:
    case FJ_DTYPE_F64: return fill_normal(view, name, binding->dtype, binding->rank, binding->dims, seed);
    case FJ_DTYPE_F8_E4M3:
    case FJ_DTYPE_F8_E5M2:
        return cli_fail(CLI_EXIT_FAILED, "captured tensor '%.100s': %s is not filled; give it with --input",
                        name, fj_dtype_name(binding->dtype));
    default:
        return fill_integers(view, name, binding, dtype_bound(binding->dtype, least_extent(from, shape)),
                             seed);
    }
}

/* One of q, k, v, do: of the file where it has it, else random. */
static int fill_operand(const cli_fill *from, cli_view *view, const char *name, fj_dtype dtype,
                        const int64_t dims[4], uint64_t seed) {
    const cli_tensor *tensor = from->kept ? cli_st_find(&from->bindings->file, name) : NULL;
    const bool fits = tensor != NULL && tensor->known && tensor->dtype == dtype && tensor->rank == 4 &&
                      memcmp(tensor->dims, dims, 4 * sizeof *dims) == 0;
    return fits ? cli_view_borrow(view, name, dtype, 4, dims, tensor->data)
                : fill_normal(view, name, dtype, 4, dims, seed);
}

int cli_fill_inputs(const cli_fill *from, const cli_call_options *options, bool backward,
                    cli_inputs *inputs) {
    const cli_shape *s = &options->shape;
    const int64_t q[4] = {s->batch, s->heads, s->q_len, s->head_dim};
    const int64_t k[4] = {s->batch, s->kv_heads, s->kv_len, s->head_dim};
    const int64_t v[4] = {s->batch, s->kv_heads, s->kv_len, s->value_dim};
    const int64_t out[4] = {s->batch, s->heads, s->q_len, s->value_dim};
    uint64_t seed = (uint64_t)from->seed * 1000;
    int status = cli_inputs_begin(inputs, from->mod);
    if (status == CLI_EXIT_OK) status = fill_operand(from, &inputs->query, "q", options->dtype, q, seed);
    if (status == CLI_EXIT_OK) status = fill_operand(from, &inputs->key, "k", options->dtype, k, seed + 1);
    if (status == CLI_EXIT_OK) status = fill_operand(from, &inputs->value, "v", options->dtype, v, seed + 2);
    if (status == CLI_EXIT_OK && backward)
        status = fill_operand(from, &inputs->dout, "do", options->dtype, out, seed + 3);
    for (size_t i = 0; status == CLI_EXIT_OK && i < inputs->capture_count; i++) {
        status = fill_capture(from, s, i, &inputs->captures[i]);
    }
    return status;
}

/* ---- Bytes ------------------------------------------------------------------------------- */

static size_t bytes_of(const cli_view *view) { return view->count * fj_dtype_size(view->dtype); }

/* Every tensor of the launch, once. A view that is not set has no elements. */
double cli_launch_bytes(const cli_inputs *in, const cli_outputs *out, fj_direction direction) {
    size_t bytes = bytes_of(&in->query) + bytes_of(&in->key) + bytes_of(&in->value) + bytes_of(&out->out) +
                   bytes_of(&out->lse);
    if (direction == FJ_BACKWARD) {
        bytes += bytes_of(&in->dout) + bytes_of(&out->dquery) + bytes_of(&out->dkey) + bytes_of(&out->dvalue);
    }
    for (size_t i = 0; i < in->capture_count; i++) {
        bytes += bytes_of(&in->captures[i]);
        if (direction == FJ_BACKWARD) bytes += bytes_of(&out->dcaptures[i]);
    }
    return (double)bytes;
}
