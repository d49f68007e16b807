/* The sentence for a bad read in a mod: the evaluator runs again at the position of the fault. */
#include <string.h>

#include "attn/objects.h"
#include "base/dtype.h"

struct explanation {
    const fj_plan *plan;
    const fj_resolved *args;
    const fj_fault *fault;
    char text[400];
    bool found;
};

static const char *row(const fj_tensor *tensor, int64_t b, int64_t h, int64_t i) {
    int64_t at = b * tensor->strides[0] + h * tensor->strides[1] + i * tensor->strides[2];
    return tensor->data + at * (int64_t)fj_dtype_size(tensor->dtype);
}

/* scale * query . key, which a mod may compute its indices from. */
static double score_at(const fj_resolved *args, const fj_fault *at) {
    int64_t h_kv = at->h / (args->heads_q / args->heads_kv);
    const char *query = row(&args->query, at->b, at->h, at->q), *key = row(&args->key, at->b, h_kv, at->kv);
    double sum = 0;
    for (int64_t e = 0; e < args->head_dim; e++)
        sum +=
            fj_dtype_load_float(args->query.dtype, query, e) * fj_dtype_load_float(args->key.dtype, key, e);
    return sum * args->scale;
}

static void explain(fj_scope *scope, void *argument) {
    struct explanation *explanation = argument;
    const fj_plan *plan = explanation->plan;
    const fj_fault *at = explanation->fault;
    fj_ir ir = *plan->mod->ir;
    ir.arena = scope->arena;
    fj_eval_tensor *captures = FJ_NEW_ARRAY(scope->arena, fj_eval_tensor, ir.captures.len);
    for (size_t i = 0; i < ir.captures.len; i++) {
        const fj_tensor *tensor = &explanation->args->captures[i];
        captures[i].data = tensor->data;
        captures[i].dtype = tensor->dtype;
        memcpy(captures[i].dims, tensor->shape, sizeof captures[i].dims);
        memcpy(captures[i].strides, tensor->strides, sizeof captures[i].strides);
    }
    fj_eval_input input = {
        .captures = captures,
        .scalars = explanation->args->scalars,
        .round_f32 = plan->device->kind != FJ_DEVICE_REFERENCE && plan->problem.dtype != FJ_DTYPE_F64,
    };
    fj_eval *eval = fj_eval_create(scope->arena, &ir);
    double score = score_at(explanation->args, at);
    explanation->found = fj_eval_explain(eval, &input, at->b, at->h, at->q, at->kv, score, explanation->text,
                                         sizeof explanation->text);
}

fj_status fj_attn_explain(const fj_plan *plan, const fj_resolved *args, const fj_fault *fault,
                          fj_error *error) {
    struct explanation explanation = {.plan = plan, .args = args, .fault = fault};
    if (!error) return FJ_ERR_INDEX;
    fj_arena arena;
    fj_arena_init(&arena, &plan->device->context->allocator);
    fj_status status = fj_scope_run(&arena, NULL, explain, &explanation);
    fj_arena_finish(&arena);
    if (status == FJ_OK && explanation.found)
        return fj_error_set(error, FJ_ERR_INDEX, "%s", explanation.text);
    return fj_error_set(
        error, FJ_ERR_INDEX,
        "a mod reads outside a captured tensor or divides an integer by zero at b=%d h=%d q=%d kv=%d",
        fault->b, fault->h, fault->q, fault->kv);
}
