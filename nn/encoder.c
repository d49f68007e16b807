/* Encoders, as callers have them. */
#include "attn/objects.h"
#include "nn/stack.h"

/* An encoder is a stack; the header does not know that. */
static fj_nn_stack *stack_of(const fj_encoder *encoder) { return (fj_nn_stack *)(uintptr_t)encoder; }

fj_status fj_encoder_create(fj_device *device, const fj_encoder_desc *caller, fj_encoder **ret_encoder,
                            fj_error *error) {
    fj_encoder_desc desc;
    fj_status status = fj_attn_read_desc(&desc, sizeof desc, caller, "fj_encoder_desc", error);
    if (status != FJ_OK) return status;
    const fj_nn_stack of = {.dtype = desc.dtype,
                            .layer = desc.layer,
                            .layer_count = desc.layer_count,
                            .final_norm = desc.final_norm,
                            .skip_padding = desc.skip_padding && desc.key_padding_mask == FJ_MASK_BOOL,
                            .kind = "encoder"};
    const fj_mask_kind masks[] = {desc.mask, desc.key_padding_mask};
    fj_nn_stack *stack;
    status = fj_nn_stack_create(device, &of, masks, NULL, &stack, error);
    if (status == FJ_OK) *ret_encoder = (fj_encoder *)(void *)stack;
    return status;
}

void fj_encoder_unref(fj_encoder **encoder) {
    if (!encoder) return;
    fj_nn_stack *stack = stack_of(*encoder);
    *encoder = NULL;
    fj_nn_stack_unref(&stack);
}

static fj_nn_layer layer_of(const void *layers, int64_t index) {
    const fj_encoder_layer *l = (const fj_encoder_layer *)layers + index;
    return (fj_nn_layer){.self = &l->self_attn,
                         .linear1 = &l->linear1,
                         .linear2 = &l->linear2,
                         .norms = {&l->norm1, &l->norm2}};
}

static fj_status read_call(const fj_encoder_call *caller, fj_nn_stack_call *ret_call, fj_error *error) {
    fj_encoder_call c;
    fj_status status = fj_attn_read_desc(&c, sizeof c, caller, "fj_encoder_call", error);
    if (status != FJ_OK) return status;
    *ret_call = (fj_nn_stack_call){.layers = c.layers,
                                   .dlayers = c.dlayers,
                                   .layer = layer_of,
                                   .norm = c.norm,
                                   .dnorm = c.dnorm,
                                   .src = c.src,
                                   .out = c.out,
                                   .dout = c.dout,
                                   .dsrc = c.dsrc,
                                   .self = {c.mask, c.key_padding_mask, c.is_causal},
                                   .src_name = "src",
                                   .dsrc_name = "dsrc",
                                   .self_names = {"mask", "key_padding_mask"},
                                   .seed = c.seed,
                                   .offset = c.offset};
    return FJ_OK;
}

fj_status fj_encoder_sizes(const fj_encoder *encoder, const fj_encoder_call *caller, const fj_launch *launch,
                           fj_nn_sizes *ret_sizes, fj_error *error) {
    fj_nn_stack_call call;
    fj_status status = read_call(caller, &call, error);
    return status == FJ_OK ? fj_nn_stack_sizes(stack_of(encoder), &call, launch, ret_sizes, error) : status;
}

static fj_status run(const fj_encoder *encoder, const fj_encoder_call *caller, fj_direction direction,
                     const fj_launch *launch, const fj_nn_memory *memory, fj_error *error) {
    fj_nn_stack_call call;
    fj_status status = read_call(caller, &call, error);
    return status == FJ_OK ? fj_nn_stack_run(stack_of(encoder), &call, direction, launch, memory, error)
                           : status;
}

fj_status fj_encoder_forward(const fj_encoder *encoder, const fj_encoder_call *call, const fj_launch *launch,
                             const fj_nn_memory *memory, fj_error *error) {
    return run(encoder, call, FJ_FORWARD, launch, memory, error);
}

fj_status fj_encoder_backward(const fj_encoder *encoder, const fj_encoder_call *call, const fj_launch *launch,
                              const fj_nn_memory *memory, fj_error *error) {
    return run(encoder, call, FJ_BACKWARD, launch, memory, error);
}
