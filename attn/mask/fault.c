/* The sentence for a bad read that was found while a mask was made. */
#include <string.h>

#include "attn/mask/maker.h"

typedef struct explanation {
    const fj_mask_maker *maker;
    const fj_resolved *inputs;
    const struct fj_cpu_fault *at;
    char text[400];
    bool found;
} explanation;

static void explain(fj_scope *scope, void *argument) {
    explanation *e = argument;
    const fj_ir ir = fj_ir_view(e->maker->ir, scope->arena);
    fj_eval_tensor *captures = FJ_NEW_ARRAY(scope->arena, fj_eval_tensor, ir.captures.len + 1);
    for (size_t i = 0; i < ir.captures.len; i++) {
        const fj_tensor *tensor = &e->inputs->captures[i];
        if (!e->maker->used[i]) continue;
        captures[i].data = tensor->data;
        captures[i].dtype = tensor->dtype;
        memcpy(captures[i].dims, tensor->shape, sizeof captures[i].dims);
        memcpy(captures[i].strides, tensor->strides, sizeof captures[i].strides);
    }
    const fj_eval_input input = {.captures = captures,
                                 .scalars = e->inputs->scalars,
                                 .round_f32 = e->maker->plan.problem.dtype != FJ_DTYPE_F64};
    e->found = fj_eval_explain(fj_eval_create(scope->arena, &ir), &input, e->at->b, e->at->h, e->at->q,
                               e->at->kv, 0, e->text, sizeof e->text);
}

static bool is_before(const struct fj_cpu_fault *a, const struct fj_cpu_fault *b) {
    if (a->b != b->b) return a->b < b->b;
    if (a->h != b->h) return a->h < b->h;
    return a->q != b->q ? a->q < b->q : a->kv < b->kv;
}

fj_status fj_mask_report_fault(const fj_mask_maker *maker, const struct fj_cpu_fault *faults, int count,
                               const fj_resolved *inputs, fj_error *error) {
    const struct fj_cpu_fault *least_fault = NULL;
    for (int i = 0; i < count; i++) {
        const struct fj_cpu_fault *fault = &faults[i];
        if (fault->found && (!least_fault || is_before(fault, least_fault))) least_fault = fault;
    }
    if (!least_fault) return FJ_OK;
    explanation e = {.maker = maker, .inputs = inputs, .at = least_fault};
    fj_arena arena;
    fj_arena_init(&arena, &maker->device->context->allocator);
    const fj_status status = fj_scope_run(&arena, NULL, explain, &e);
    fj_arena_finish(&arena);
    if (status == FJ_OK && e.found) return fj_error_set(error, FJ_ERR_INDEX, "%s", e.text);
    return fj_error_set(error, FJ_ERR_INDEX,
                        "the mask reads outside a captured tensor or divides an integer by zero at b=%d h=%d "
                        "q=%d kv=%d",
                        least_fault->b, least_fault->h, least_fault->q, least_fault->kv);
}
