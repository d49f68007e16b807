/* Decoders, as callers have them. */
#include "attn/objects.h"
#include "nn/stack.h"

/* A decoder is a stack; the header does not know that. */
static fj_nn_stack *stack_of(const fj_decoder *decoder) { return (fj_nn_stack *)(uintptr_t)decoder; }

fj_status fj_decoder_create(fj_device *device, const fj_decoder_desc *caller, fj_decoder **ret_decoder,
                            fj_error *error) {
    fj_decoder_desc desc;
    fj_status status = fj_attn_read_desc(&desc, sizeof desc, caller, "fj_decoder_desc", error);
    if (status != FJ_OK) return status;
    const fj_nn_stack of = {.dtype = desc.dtype,
                            .layer = desc.layer,
                            .layer_count = desc.layer_count,
                            .final_norm = desc.final_norm,
                            .kind = "decoder"};
    const fj_mask_kind self[] = {desc.tgt_mask, desc.tgt_key_padding_mask};
    const fj_mask_kind cross[] = {desc.memory_mask, desc.memory_key_padding_mask};
    fj_nn_stack *stack;
    status = fj_nn_stack_create(device, &of, self, cross, &stack, error);
    if (status == FJ_OK) *ret_decoder = (fj_decoder *)(void *)stack;
    return status;
}

void fj_decoder_unref(fj_decoder **decoder) {
    if (!decoder) return;
    fj_nn_stack *stack = stack_of(*decoder);
    *decoder = NULL;
    fj_nn_stack_unref(&stack);
}

static fj_nn_layer layer_of(const void *layers, int64_t index) {
    const fj_decoder_layer *l = (const fj_decoder_layer *)layers + index;
    return (fj_nn_layer){.self = &l->self_attn,
                         .cross = &l->cross_attn,
                         .linear1 = &l->linear1,
                         .linear2 = &l->linear2,
                         .norms = {&l->norm1, &l->norm2, &l->norm3}};
}

static fj_status read_call(const fj_decoder_call *caller, fj_nn_stack_call *ret_call, fj_error *error) {
    fj_decoder_call c;
    fj_status status = fj_attn_read_desc(&c, sizeof c, caller, "fj_decoder_call", error);
    if (status != FJ_OK) return status;
    *ret_call = (fj_nn_stack_call){.layers = c.layers,
                                   .dlayers = c.dlayers,
                                   .layer = layer_of,
                                   .norm = c.norm,
                                   .dnorm = c.dnorm,
                                   .src = c.tgt,
                                   .out = c.out,
                                   .memory = c.memory,
                                   .dout = c.dout,
                                   .dsrc = c.dtgt,
                                   .dmemory = c.dmemory,
                                   .self = {c.tgt_mask, c.tgt_key_padding_mask, c.tgt_is_causal},
                                   .cross = {c.memory_mask, c.memory_key_padding_mask, c.memory_is_causal},
                                   .src_name = "tgt",
                                   .dsrc_name = "dtgt",
                                   .self_names = {"tgt_mask", "tgt_key_padding_mask"},
                                   .cross_names = {"memory_mask", "memory_key_padding_mask"},
                                   .seed = c.seed,
                                   .offset = c.offset};
    return FJ_OK;
}

fj_status fj_decoder_sizes(const fj_decoder *decoder, const fj_decoder_call *caller, const fj_launch *launch,
                           fj_nn_sizes *ret_sizes, fj_error *error) {
    fj_nn_stack_call call;
    fj_status status = read_call(caller, &call, error);
    return status == FJ_OK ? fj_nn_stack_sizes(stack_of(decoder), &call, launch, ret_sizes, error) : status;
}

static fj_status run(const fj_decoder *decoder, const fj_decoder_call *caller, fj_direction direction,
                     const fj_launch *launch, const fj_nn_memory *memory, fj_error *error) {
    fj_nn_stack_call call;
    fj_status status = read_call(caller, &call, error);
    return status == FJ_OK ? fj_nn_stack_run(stack_of(decoder), &call, direction, launch, memory, error)
                           : status;
}

fj_status fj_decoder_forward(const fj_decoder *decoder, const fj_decoder_call *call, const fj_launch *launch,
                             const fj_nn_memory *memory, fj_error *error) {
    return run(decoder, call, FJ_FORWARD, launch, memory, error);
}

fj_status fj_decoder_backward(const fj_decoder *decoder, const fj_decoder_call *call, const fj_launch *launch,
                              const fj_nn_memory *memory, fj_error *error) {
    return run(decoder, call, FJ_BACKWARD, launch, memory, error);
}
