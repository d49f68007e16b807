/* Multi-head attention, as callers have it. */
#include <stdatomic.h>

#include "attn/objects.h"
#include "nn/object.h"
#include "nn/part.h"

struct fj_mha {
    atomic_int refs;
    fj_device *device;
    fj_mha_desc desc;
    fj_nn_attend *attend;
};

/* ---- The object ------------------------------------------------------------------------------------------- */

static fj_status check_desc(const fj_mha_desc *desc, fj_error *error) {
    fj_status status = fj_nn_check_heads("embed_dim", desc->embed_dim, desc->heads, error);
    if (status == FJ_OK &&
        (desc->kdim < 1 || desc->vdim < 1 || desc->kdim > INT32_MAX || desc->vdim > INT32_MAX))
        return fj_error_set(error, FJ_ERR_ARGUMENT, "kdim is %lld and vdim %lld: allowed are 1 to 2147483647",
                            (long long)desc->kdim, (long long)desc->vdim);
    return status == FJ_OK ? fj_nn_check_dropout(desc->dropout, error) : status;
}

fj_status fj_mha_create(fj_device *device, const fj_mha_desc *caller, fj_mha **ret_mha, fj_error *error) {
    fj_mha_desc desc;
    fj_status status = fj_attn_read_desc(&desc, sizeof desc, caller, "fj_mha_desc", error);
    if (status != FJ_OK) return status;
    if (desc.kdim == 0) desc.kdim = desc.embed_dim;
    if (desc.vdim == 0) desc.vdim = desc.embed_dim;
    status = check_desc(&desc, error);
    if (status == FJ_OK) status = fj_nn_check_device(device, error);
    if (status != FJ_OK) return status;
    fj_mha *mha = fj_alloc_zeroed(&device->context->allocator, sizeof *mha);
    if (!mha) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    atomic_init(&mha->refs, 1);
    mha->device = fj_attn_device_ref(device);
    mha->desc = desc;
    const fj_nn_attend_desc attend = {.dtype = desc.dtype,
                                      .heads = desc.heads,
                                      .head_dim = desc.embed_dim / desc.heads,
                                      .mask = desc.attn_mask,
                                      .padding = desc.key_padding_mask,
                                      .backward = !desc.inference,
                                      .dropout = desc.dropout > 0 && !desc.inference};
    status = fj_nn_attend_create(device, &attend, &mha->attend, error);
    if (status == FJ_OK)
        *ret_mha = mha;
    else
        fj_mha_unref(&mha);
    return status;
}

void fj_mha_unref(fj_mha **mha) {
    if (!mha || !*mha) return;
    fj_mha *last = *mha;
    *mha = NULL;
    if (atomic_fetch_sub_explicit(&last->refs, 1, memory_order_acq_rel) != 1) return;
    fj_device *device = last->device;
    fj_nn_attend_destroy(&last->attend);
    fj_free(&device->context->allocator, last, sizeof *last);
    fj_device_unref(&device);
}

/* ---- A call ----------------------------------------------------------------------------------------------- */

typedef struct call {
    fj_mha_call args;
    fj_nn_run run;
    fj_nn_tokens query, key;
    fj_nn_attn_part part;
} call;

static fj_status check_inputs(const fj_mha *mha, const fj_nn_check *check, call *c) {
    const fj_mha_desc *desc = &mha->desc;
    const fj_mha_call *a = &c->args;
    fj_status status = fj_nn_check_tokens(check, "query", a->query, "[L,E]", desc->batch_first,
                                          desc->embed_dim, NULL, &c->query);
    const DLTensor *key = a->key ? a->key : a->value;
    c->key = c->query;
    if (status == FJ_OK && a->key)
        status = fj_nn_check_tokens(check, "key", a->key, "[S,kdim]", desc->batch_first, desc->kdim,
                                    &c->query, &c->key);
    if (status == FJ_OK && !a->key && desc->kdim != desc->embed_dim)
        status = fj_nn_bad(check, FJ_ERR_TENSOR, "key is missing: it is query only where kdim is embed_dim");
    fj_nn_tokens value;
    if (status == FJ_OK && a->value)
        status = fj_nn_check_tokens(check, "value", a->value, "[S,vdim]", desc->batch_first, desc->vdim,
                                    &c->query, &value);
    if (status == FJ_OK && !a->value && desc->vdim != desc->kdim)
        status = fj_nn_bad(check, FJ_ERR_TENSOR, "value is missing: it is key only where vdim is kdim");
    if (status == FJ_OK && a->value && value.length != c->key.length)
        status =
            fj_nn_bad(check, FJ_ERR_TENSOR, "value has a length of %lld, but %s one of %lld",
                      (long long)value.length, key == a->key ? "key" : "query", (long long)c->key.length);
    return status;
}

static fj_status check_results(const fj_mha *mha, const fj_nn_check *check, const call *c, bool backward) {
    const fj_mha_call *a = &c->args;
    const DLTensor *q = a->query, *k = a->key, *v = a->value;
    if (!backward) {
        const int64_t b = c->query.batch, h = mha->desc.heads, l = c->query.length, s = c->key.length;
        const bool mean = a->weights && a->weights->ndim == (c->query.batched ? 3 : 2);
        const int64_t shape[] = {b, h, l, s}, mean_shape[] = {b, l, s};
        const int skip = !c->query.batched;
        fj_status status = fj_nn_check_tensor(check, "out", a->out, "as query", q->ndim, q->shape);
        if (status == FJ_OK && a->weights)
            status = fj_nn_check_tensor(check, "weights", a->weights,
                                        mean ? "(a mean over heads)" : "(of each head)",
                                        (mean ? 3 : 4) - skip, (mean ? mean_shape : shape) + skip);
        const fj_nn_named apart[] = {
            {"out", a->out}, {"weights", a->weights}, {"query", q}, {"key", k}, {"value", v}};
        return status == FJ_OK ? fj_nn_check_apart(check, apart, FJ_ARRAY_LEN(apart), 2) : status;
    }
    fj_status status = fj_nn_check_tensor(check, "dout", a->dout, "as query", q->ndim, q->shape);
    if (status == FJ_OK)
        status = fj_nn_check_optional(check, "dquery", a->dquery, "as query", q->ndim, q->shape);
    if (status == FJ_OK && a->dkey && !k)
        status = fj_nn_bad(check, FJ_ERR_TENSOR, "dkey is given, but key is not: dquery has its gradient");
    if (status == FJ_OK && a->dvalue && !v)
        status = fj_nn_bad(check, FJ_ERR_TENSOR, "dvalue is given, but value is not: %s has its gradient",
                           k ? "dkey" : "dquery");
    if (status == FJ_OK && k)
        status = fj_nn_check_optional(check, "dkey", a->dkey, "as key", k->ndim, k->shape);
    if (status == FJ_OK && v)
        status = fj_nn_check_optional(check, "dvalue", a->dvalue, "as value", v->ndim, v->shape);
    const fj_nn_named apart[] = {{"dquery", a->dquery}, {"dkey", a->dkey}, {"dvalue", a->dvalue},
                                 {"dout", a->dout},     {"query", q},      {"key", k},
                                 {"value", v}};
    return status == FJ_OK ? fj_nn_check_apart(check, apart, FJ_ARRAY_LEN(apart), 3) : status;
}

static void fill_part(const fj_mha *mha, call *c, bool training) {
    const fj_mha_call *a = &c->args;
    const fj_mha_desc *desc = &mha->desc;
    c->part = (fj_nn_attn_part){
        .attend = mha->attend,
        .attention = {.batch = c->query.batch,
                      .q_len = c->query.length,
                      .kv_len = c->key.length,
                      .batch_first = desc->batch_first || !c->query.batched,
                      .masks = {a->attn_mask, a->key_padding_mask, a->is_causal},
                      .dropout = training ? desc->dropout : 0,
                      .seed = a->seed,
                      .offset = a->offset},
        .embed = desc->embed_dim,
        .heads = desc->heads,
        .rows_q = c->query.batch * c->query.length,
        .rows_kv = c->key.batch * c->key.length,
        .widths = {desc->embed_dim, desc->kdim, desc->vdim},
        .frame = {.place = FJ_NN_PLAIN},
        .y = fj_nn_data(a->out),
        .dy = fj_nn_data(a->dout),
        .dinputs = {fj_nn_data(a->dquery), fj_nn_data(a->dkey), fj_nn_data(a->dvalue)},
    };
    const DLTensor *const inputs[] = {a->query, a->key, a->value};
    /* Whether an input is there, which sizes alone ask, is said by its shape: data may be NULL then. */
    for (int i = 0; i < 3; i++)
        c->part.inputs[i] = !inputs[i] ? NULL : inputs[i]->data ? fj_nn_data(inputs[i]) : inputs[i];
    fj_nn_set_projections(&c->run, &c->part, &a->state, &a->dstate);
}

/* All of a call but its memory. */
static fj_status read_call(const fj_mha *mha, const fj_mha_call *caller, const fj_launch *launch, bool sizing,
                           bool backward, bool training, call *c, fj_error *error) {
    if (!mha) return fj_error_set(error, FJ_ERR_ARGUMENT, "mha is NULL");
    fj_status status = fj_attn_read_desc(&c->args, sizeof c->args, caller, "fj_mha_call", error);
    if (status == FJ_OK) status = fj_nn_run_begin(mha->desc.dtype, launch, &c->run, error);
    if (status == FJ_OK && backward && mha->desc.inference)
        status =
            fj_error_set(error, FJ_ERR_ARGUMENT, "the attention was made for inference: it has no backward");
    if (status != FJ_OK) return status;
    const fj_nn_check check = {.dtype = mha->desc.dtype, .sizing = sizing, .error = error};
    const fj_nn_masks masks = {c->args.attn_mask, c->args.key_padding_mask, c->args.is_causal};
    status = check_inputs(mha, &check, c);
    if (status == FJ_OK)
        status = fj_nn_attend_check(mha->attend, &check, &masks, "attn_mask", "key_padding_mask",
                                    c->query.batched, c->query.batch, c->query.length, c->key.length);
    if (status == FJ_OK)
        status = fj_nn_check_mha_state(&check, "state", &c->args.state, backward ? &c->args.dstate : NULL,
                                       mha->desc.embed_dim, mha->desc.kdim, mha->desc.vdim);
    if (status == FJ_OK && !sizing) status = check_results(mha, &check, c, backward);
    if (status == FJ_OK) fill_part(mha, c, training);
    return status;
}

static bool wants_mean(const call *c) { return c->args.weights->ndim == (c->query.batched ? 3 : 2); }

/* The memory of a call, taken from its cursors: what is kept, and what is not. */
static void keep(const call *c, fj_nn_attn_part *part, bool training, fj_nn_cursor *saved,
                 fj_nn_cursor *workspace) {
    fj_nn_attn_keep(&c->run, part, training ? saved : workspace);
}

static fj_status size_call(const fj_mha *mha, const call *c, fj_nn_sizes *ret_sizes, fj_error *error) {
    fj_nn_attn_part part = c->part;
    fj_nn_cursor saved = {0}, forward = {0}, backward = {0};
    keep(c, &part, true, &saved, &forward);
    fj_status status = fj_nn_attn_size(&c->run, &part, FJ_FORWARD, &forward, error);
    if (status == FJ_OK && !mha->desc.inference)
        status = fj_nn_attn_size(&c->run, &part, FJ_BACKWARD, &backward, error);
    if (status != FJ_OK) return status;
    keep(c, &part, false, &saved, &forward); /* evaluation */
    if (c->args.weights) (void)fj_nn_weights_take(&c->run, &part.attention, wants_mean(c), &forward);
    if (saved.overflow || forward.overflow || backward.overflow)
        return fj_error_set(error, FJ_ERR_MEMORY, "the call needs more memory than can be addressed");
    *ret_sizes = (fj_nn_sizes){forward.used, backward.used, saved.used};
    return FJ_OK;
}

fj_status fj_mha_sizes(const fj_mha *mha, const fj_mha_call *caller, const fj_launch *launch,
                       fj_nn_sizes *ret_sizes, fj_error *error) {
    call c = {0};
    fj_status status = read_call(mha, caller, launch, true, false, true, &c, error);
    return status == FJ_OK ? size_call(mha, &c, ret_sizes, error) : status;
}

fj_status fj_mha_forward(const fj_mha *mha, const fj_mha_call *caller, const fj_launch *launch,
                         const fj_nn_memory *memory, fj_error *error) {
    call c = {0};
    fj_nn_sizes sizes;
    if (!memory) return fj_error_set(error, FJ_ERR_ARGUMENT, "fj_nn_memory is NULL");
    const bool training = memory->saved;
    fj_status status = read_call(mha, caller, launch, false, false, training, &c, error);
    if (status == FJ_OK) status = size_call(mha, &c, &sizes, error);
    if (status == FJ_OK) status = fj_nn_check_memory(memory, &sizes, false, error);
    if (status != FJ_OK) return status;
    fj_nn_cursor saved = {.base = memory->saved}, workspace = {.base = memory->workspace};
    keep(&c, &c.part, training, &saved, &workspace);
    void *scratch =
        c.args.weights ? fj_nn_weights_take(&c.run, &c.part.attention, wants_mean(&c), &workspace) : NULL;
    fj_nn_blas_enter();
    status = fj_nn_attn_forward(&c.run, &c.part, workspace, error);
    if (status == FJ_OK && c.args.weights)
        fj_nn_weights_run(mha->attend, &c.run, &c.part.attention, wants_mean(&c), scratch,
                          fj_nn_data(c.args.weights));
    fj_nn_blas_leave();
    return status;
}

fj_status fj_mha_backward(const fj_mha *mha, const fj_mha_call *caller, const fj_launch *launch,
                          const fj_nn_memory *memory, fj_error *error) {
    call c = {0};
    fj_nn_sizes sizes;
    if (!memory) return fj_error_set(error, FJ_ERR_ARGUMENT, "fj_nn_memory is NULL");
    fj_status status = read_call(mha, caller, launch, false, true, true, &c, error);
    if (status == FJ_OK) status = size_call(mha, &c, &sizes, error);
    if (status == FJ_OK) status = fj_nn_check_memory(memory, &sizes, true, error);
    if (status != FJ_OK) return status;
    fj_nn_cursor saved = {.base = memory->saved};
    keep(&c, &c.part, true, &saved, NULL);
    fj_nn_blas_enter();
    status = fj_nn_attn_backward(&c.run, &c.part, (fj_nn_cursor){.base = memory->workspace}, error);
    fj_nn_blas_leave();
    return status;
}
