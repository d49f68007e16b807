/* The sentence for a bad read in a mod: the evaluator runs again at the position of the fault.
 *
 * It reads tensors. Those that the host cannot read are copied first, whole: an index may come from any element, and errors are rare. */
#include <stdio.h>
#include <string.h>

#include "attn/objects.h"
#include "base/dtype.h"

struct explanation {
    const fj_plan *plan;
    const fj_resolved *args;
    const fj_fault *fault;
    void *stream;
    char text[400];
    bool found;
};

/* ---- Reading ---------------------------------------------------------------------------------------- */

/* `size` bytes at an address of the device, where the host can read them. */
static const char *readable(fj_scope *scope, const fj_plan *plan, void *stream, const char *data,
                            size_t size) {
    const fj_driver *driver = plan->device->driver;
    if (driver->is_host || size == 0) return data;
    char *copy = fj_arena_alloc(scope->arena, size);
    fj_status status = driver->download(driver, copy, (uint64_t)(uintptr_t)data, size, stream, NULL);
    if (status == FJ_OK) status = driver->wait(driver, stream, NULL);
    if (status != FJ_OK) fj_fail(scope, status, "a copy from the device failed");
    return copy;
}

const char *fj_attn_readable(fj_scope *scope, const fj_plan *plan, void *stream, const fj_tensor *tensor) {
    int64_t low = 0, high = 0, size = (int64_t)fj_dtype_size(tensor->dtype);
    for (int d = 0; d < tensor->rank; d++) {
        int64_t reach = tensor->strides[d] * (tensor->shape[d] - 1);
        if (tensor->shape[d] == 0) return tensor->data;
        *(reach < 0 ? &low : &high) += reach;
    }
    return readable(scope, plan, stream, tensor->data + low * size, (size_t)((high - low + 1) * size)) -
           low * size;
}

static const char *row(fj_scope *scope, const struct explanation *e, const fj_tensor *tensor, int64_t b,
                       int64_t h, int64_t i) {
    int64_t at = b * tensor->strides[0] + h * tensor->strides[1] + i * tensor->strides[2];
    size_t size = fj_dtype_size(tensor->dtype);
    return readable(scope, e->plan, e->stream, tensor->data + at * (int64_t)size,
                    size * (size_t)tensor->shape[3]);
}

/* ---- Evaluating ------------------------------------------------------------------------------------- */

/* array[i]; NULL: all are 0. */
static int64_t number(fj_scope *scope, const struct explanation *e, const int32_t *array, int64_t i) {
    int32_t value = 0;
    if (array)
        memcpy(&value, readable(scope, e->plan, e->stream, (const char *)(array + i), sizeof value),
               sizeof value);
    return value;
}

/* The key at the fault's position, which is on a page that is there. */
static const char *key_row(fj_scope *scope, const struct explanation *e, int64_t h) {
    const fj_resolved *args = e->args;
    const fj_sequences *s = &args->sequences;
    const int64_t b = e->fault->b, kv = e->fault->kv;
    switch (args->form) {
    case FJ_FORM_PACKED: return row(scope, e, &args->key, 0, h, number(scope, e, s->cu_kv, b) + kv);
    case FJ_FORM_PAGED:
        return row(scope, e, &args->key,
                   number(scope, e, s->page_table, b * s->table_row + kv / s->page_size), h,
                   kv % s->page_size);
    default: return row(scope, e, &args->key, b, h, kv);
    }
}

/* scale * query . key, which a mod may compute its indices from. */
static double score_at(fj_scope *scope, const struct explanation *e) {
    const fj_resolved *args = e->args;
    const fj_fault *at = e->fault;
    const int64_t first = args->form == FJ_FORM_PACKED ? number(scope, e, args->sequences.cu_q, at->b) : 0;
    const int64_t q = first + at->q - number(scope, e, args->sequences.q_offset, at->b);
    const char *query = row(scope, e, &args->query, args->form == FJ_FORM_PACKED ? 0 : at->b, at->h, q);
    const char *key = key_row(scope, e, at->h / (args->heads_q / args->heads_kv));
    double sum = 0;
    for (int64_t i = 0; i < args->head_dim; i++)
        sum +=
            fj_dtype_load_float(args->query.dtype, query, i) * fj_dtype_load_float(args->key.dtype, key, i);
    return sum * args->scale;
}

/* The graph that the fault is of. */
static const fj_ir *graph_of(const fj_program *program, fj_fault_of of) {
    switch (of) {
    case FJ_FAULT_OUT: return program->out;
    case FJ_FAULT_SINK: return program->sink;
    default: return program->ir;
    }
}

/* A position is told as (b, h, q, kv), of which the sink has the first two, and the output's mod d as the last. */
static void tell_position(char *text, size_t size, const fj_fault *at) {
    char *q = NULL;
    for (char *next = text; (next = strstr(next, " q=")) != NULL; next++) q = next;
    if (!q || at->of == FJ_FAULT_SCORE) return;
    *q = '\0';
    if (at->of == FJ_FAULT_OUT) (void)snprintf(q, size - (size_t)(q - text), " q=%d d=%d", at->q, at->kv);
}

static void explain(fj_scope *scope, void *argument) {
    struct explanation *explanation = argument;
    const fj_plan *plan = explanation->plan;
    const fj_fault *at = explanation->fault;
    fj_ir ir = *graph_of(&plan->mod->program, at->of);
    ir.arena = scope->arena;
    fj_eval_tensor *captures = FJ_NEW_ARRAY(scope->arena, fj_eval_tensor, ir.captures.len);
    for (size_t i = 0; i < ir.captures.len; i++) {
        const fj_tensor *tensor = &explanation->args->captures[i];
        captures[i].data = fj_attn_readable(scope, plan, explanation->stream, tensor);
        captures[i].dtype = tensor->dtype;
        memcpy(captures[i].dims, tensor->shape, sizeof captures[i].dims);
        memcpy(captures[i].strides, tensor->strides, sizeof captures[i].strides);
    }
    fj_eval_input input = {
        .captures = captures,
        .scalars = explanation->args->scalars,
        .round_f32 = !plan->device->traits->exact && plan->problem.dtype != FJ_DTYPE_F64,
    };
    fj_eval *eval = fj_eval_create(scope->arena, &ir);
    /* What the output was is not known any more: an index that depends on it is told by its position alone. */
    double score = at->of == FJ_FAULT_SCORE ? score_at(scope, explanation) : 0;
    explanation->found = fj_eval_explain(eval, &input, at->b, at->h, at->q, at->kv, score, explanation->text,
                                         sizeof explanation->text);
    tell_position(explanation->text, sizeof explanation->text, at);
}

fj_status fj_attn_explain(const fj_plan *plan, const fj_resolved *args, const fj_fault *fault, void *stream,
                          fj_error *error) {
    struct explanation explanation = {.plan = plan, .args = args, .fault = fault, .stream = stream};
    if (!error) return FJ_ERR_INDEX;
    fj_arena arena;
    fj_arena_init(&arena, &plan->device->context->allocator);
    fj_status status = fj_scope_run(&arena, NULL, explain, &explanation);
    fj_arena_finish(&arena);
    if (status == FJ_OK && explanation.found)
        return fj_error_set(error, FJ_ERR_INDEX, "%s", explanation.text);
    (void)snprintf(
        explanation.text, sizeof explanation.text,
        "a mod reads outside a captured tensor or divides an integer by zero at b=%d h=%d q=%d kv=%d",
        fault->b, fault->h, fault->q, fault->kv);
    tell_position(explanation.text, sizeof explanation.text, fault);
    return fj_error_set(error, FJ_ERR_INDEX, "%s", explanation.text);
}
