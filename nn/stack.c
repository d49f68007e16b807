/* A stack of layers: the object, and what its calls have to be. stack_run.c runs them. */
#include "nn/stack.h"

#include <stdio.h>
#include <string.h>

#include "attn/objects.h"
#include "nn/stack_call.h"

/* ---- The object ------------------------------------------------------------------------------------------- */

static fj_status check_desc(const fj_nn_stack *of, fj_error *error) {
    const fj_layer_desc *l = &of->layer;
    fj_status status = fj_nn_check_heads("d_model", l->d_model, l->heads, error);
    if (status != FJ_OK) return status;
    if (l->dim_feedforward < 1 || l->dim_feedforward > INT32_MAX)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "dim_feedforward is %lld: allowed are 1 to 2147483647",
                            (long long)l->dim_feedforward);
    if ((unsigned)l->activation > FJ_ACTIVATION_GELU)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "unknown activation: %d", (int)l->activation);
    if (!(l->norm_eps >= 0))
        return fj_error_set(error, FJ_ERR_ARGUMENT, "norm_eps is below 0, or not a number");
    if (of->layer_count < 0)
        return fj_error_set(error, FJ_ERR_ARGUMENT,
                            "layer_count is %lld: allowed are 1 and more, and 0 for 1",
                            (long long)of->layer_count);
    return fj_nn_check_dropout(l->dropout, error);
}

static fj_status create_attend(const fj_nn_stack *stack, const fj_mask_kind masks[2], bool packed,
                               fj_nn_attend **ret_attend, fj_error *error) {
    const fj_layer_desc *l = &stack->layer;
    const fj_nn_attend_desc desc = {.dtype = stack->dtype,
                                    .heads = l->heads,
                                    .head_dim = l->d_model / l->heads,
                                    .mask = masks[0],
                                    .padding = masks[1],
                                    .backward = !l->inference,
                                    .dropout = l->dropout > 0 && !l->inference,
                                    .packed = packed};
    return fj_nn_attend_create(stack->device, &desc, ret_attend, error);
}

fj_status fj_nn_stack_create(fj_device *device, const fj_nn_stack *of, const fj_mask_kind self[2],
                             const fj_mask_kind *cross, fj_nn_stack **ret_stack, fj_error *error) {
    fj_status status = check_desc(of, error);
    if (status == FJ_OK) status = fj_nn_check_device(device, error);
    if (status != FJ_OK) return status;
    fj_nn_stack *stack = fj_alloc_zeroed(&device->context->allocator, sizeof *stack);
    if (!stack) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    *stack = *of;
    atomic_init(&stack->refs, 1);
    stack->device = fj_attn_device_ref(device);
    if (stack->layer_count == 0) stack->layer_count = 1;
    if (stack->layer.norm_eps == 0) stack->layer.norm_eps = 1e-5;
    status = create_attend(stack, self, of->skip_padding, &stack->self, error);
    if (status == FJ_OK && cross) status = create_attend(stack, cross, false, &stack->cross, error);
    if (status == FJ_OK)
        *ret_stack = stack;
    else
        fj_nn_stack_unref(&stack);
    return status;
}

void fj_nn_stack_unref(fj_nn_stack **stack) {
    if (!stack || !*stack) return;
    fj_nn_stack *last = *stack;
    *stack = NULL;
    if (atomic_fetch_sub_explicit(&last->refs, 1, memory_order_acq_rel) != 1) return;
    fj_device *device = last->device;
    fj_nn_attend_destroy(&last->self);
    fj_nn_attend_destroy(&last->cross);
    fj_free(&device->context->allocator, last, sizeof *last);
    fj_device_unref(&device);
}

/* ---- A call ----------------------------------------------------------------------------------------------- */

static fj_status check_layer(const fj_nn_stack *stack, const fj_nn_stack_call *call, fj_nn_check *check,
                             int64_t index) {
    const fj_nn_layer l = call->layer(call->layers, index);
    const fj_nn_layer d = call->dlayers ? call->layer(call->dlayers, index) : (fj_nn_layer){0};
    const int64_t e = stack->layer.d_model, f = stack->layer.dim_feedforward;
    (void)snprintf(check->where, sizeof check->where, "layers[%lld].", (long long)index);
    fj_status status = fj_nn_check_mha_state(check, "self_attn", l.self, d.self, e, e, e);
    if (status == FJ_OK && l.cross)
        status = fj_nn_check_mha_state(check, "cross_attn", l.cross, d.cross, e, e, e);
    if (status == FJ_OK) status = fj_nn_check_linear(check, "linear1", l.linear1, d.linear1, f, e);
    if (status == FJ_OK) status = fj_nn_check_linear(check, "linear2", l.linear2, d.linear2, e, f);
    static const char *const names[] = {"norm1", "norm2", "norm3"};
    for (int i = 0; i < 3 && status == FJ_OK; i++)
        if (l.norms[i]) status = fj_nn_check_norm(check, names[i], l.norms[i], d.norms[i], e);
    check->where[0] = '\0';
    return status;
}

static fj_status check_parameters(const fj_nn_stack *stack, const fj_nn_stack_call *call,
                                  fj_nn_check *check) {
    if (!call->layers) return fj_nn_bad(check, FJ_ERR_ARGUMENT, "layers is NULL");
    fj_status status = FJ_OK;
    for (int64_t i = 0; i < stack->layer_count && status == FJ_OK; i++)
        status = check_layer(stack, call, check, i);
    const bool has_norm = call->norm.weight || call->norm.bias || call->dnorm.weight || call->dnorm.bias;
    if (status == FJ_OK && !stack->final_norm && has_norm)
        return fj_nn_bad(check, FJ_ERR_TENSOR, "norm is given, but the %s was made without final_norm",
                         stack->kind);
    return status == FJ_OK && stack->final_norm
             ? fj_nn_check_norm(check, "norm", &call->norm, &call->dnorm, stack->layer.d_model)
             : status;
}

static fj_status check_inputs(const fj_nn_stack *stack, const fj_nn_stack_call *call,
                              const fj_nn_check *check, fj_nn_stack_state *s) {
    const fj_layer_desc *l = &stack->layer;
    fj_status status = fj_nn_check_tokens(check, call->src_name, call->src, "[L,D]", l->batch_first,
                                          l->d_model, NULL, &s->src);
    s->memory = s->src;
    if (status == FJ_OK && stack->cross)
        status = fj_nn_check_tokens(check, "memory", call->memory, "[S,D]", l->batch_first, l->d_model,
                                    &s->src, &s->memory);
    if (status == FJ_OK)
        status = fj_nn_attend_check(stack->self, check, &call->self, call->self_names[0], call->self_names[1],
                                    s->src.batched, s->src.batch, s->src.length, s->src.length);
    if (status == FJ_OK && stack->cross)
        status =
            fj_nn_attend_check(stack->cross, check, &call->cross, call->cross_names[0], call->cross_names[1],
                               s->src.batched, s->src.batch, s->src.length, s->memory.length);
    return status;
}

static fj_status check_results(const fj_nn_stack_call *call, const fj_nn_check *check,
                               fj_direction direction) {
    const DLTensor *src = call->src, *memory = call->memory;
    if (direction == FJ_FORWARD) {
        const fj_nn_named apart[] = {{"out", call->out}, {call->src_name, src}, {"memory", memory}};
        const fj_status status =
            fj_nn_check_tensor(check, "out", call->out, "as its input", src->ndim, src->shape);
        return status == FJ_OK ? fj_nn_check_apart(check, apart, FJ_ARRAY_LEN(apart), 1) : status;
    }
    fj_status status = fj_nn_check_tensor(check, "dout", call->dout, "as out", src->ndim, src->shape);
    if (status == FJ_OK)
        status =
            fj_nn_check_optional(check, call->dsrc_name, call->dsrc, "as its input", src->ndim, src->shape);
    if (status == FJ_OK && memory)
        status =
            fj_nn_check_optional(check, "dmemory", call->dmemory, "as memory", memory->ndim, memory->shape);
    const fj_nn_named apart[] = {{call->dsrc_name, call->dsrc},
                                 {"dmemory", call->dmemory},
                                 {"dout", call->dout},
                                 {call->src_name, src},
                                 {"memory", memory}};
    return status == FJ_OK ? fj_nn_check_apart(check, apart, FJ_ARRAY_LEN(apart), 2) : status;
}

fj_status fj_nn_stack_read(const fj_nn_stack *stack, const fj_nn_stack_call *call, const fj_launch *launch,
                           bool sizing, fj_direction direction, fj_nn_stack_state *ret_state,
                           fj_error *error) {
    fj_nn_stack_state *const s = ret_state;
    if (!stack) return fj_error_set(error, FJ_ERR_ARGUMENT, "the object of the call is NULL");
    *s = (fj_nn_stack_state){.stack = stack, .call = call};
    fj_status status = fj_nn_run_begin(stack->dtype, launch, &s->run, error);
    if (status == FJ_OK && direction == FJ_BACKWARD && stack->layer.inference)
        status = fj_error_set(error, FJ_ERR_ARGUMENT, "the %s was made for inference: it has no backward",
                              stack->kind);
    if (status != FJ_OK) return status;
    fj_nn_check check = {.dtype = stack->dtype, .sizing = sizing, .error = error};
    status = check_inputs(stack, call, &check, s);
    if (status == FJ_OK) status = check_parameters(stack, call, &check);
    if (status == FJ_OK && !sizing) status = check_results(call, &check, direction);
    s->rows = s->src.batch * s->src.length;
    return status;
}
