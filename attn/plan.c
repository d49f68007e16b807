/* Plans: which variant runs a problem. No device, no compilation. */
#include <stdio.h>
#include <string.h>

#include "attn/gpu.h"

static bool is_attention_dtype(fj_dtype dtype) {
    return dtype == FJ_DTYPE_F16 || dtype == FJ_DTYPE_BF16 || dtype == FJ_DTYPE_F32 || dtype == FJ_DTYPE_F64;
}

static fj_status check_problem(const fj_mod *mod, const fj_problem *problem, fj_error *error) {
    if (problem->direction != FJ_FORWARD && problem->direction != FJ_BACKWARD)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "unknown direction %d", (int)problem->direction);
    if ((unsigned)problem->dtype >= FJ_DTYPE_COUNT)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "unknown dtype %d", (int)problem->dtype);
    if (!is_attention_dtype(problem->dtype))
        return fj_error_set(error, FJ_ERR_UNSUPPORTED,
                            "dtype %s is not supported: F16, BF16, F32 and F64 are",
                            fj_dtype_name(problem->dtype));
    if (problem->head_dim < 1 || problem->head_dim > 256)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "head dimension %d is outside 1 to 256",
                            problem->head_dim);
    if (problem->value_dim < 1 || problem->value_dim > 256)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "value dimension %d is outside 1 to 256",
                            problem->value_dim);
    if ((unsigned)problem->form > FJ_FORM_PAGED)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "unknown form %d", (int)problem->form);
    if (problem->form == FJ_FORM_PAGED && problem->direction == FJ_BACKWARD)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "paged keys and values have no backward");
    if (problem->form == FJ_FORM_PACKED && problem->block_mask)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "packed sequences take no block mask");
    if (problem->form != FJ_FORM_DENSE && problem->shared_keys)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "%s keys have no batch that they could share",
                            problem->form == FJ_FORM_PACKED ? "packed" : "paged");
    if (problem->gqa < 0) return fj_error_set(error, FJ_ERR_ARGUMENT, "gqa %d is negative", problem->gqa);
    if (problem->batch_heads < 0 || problem->q_len < 0 || problem->kv_len < 0)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "batch_heads %lld, q_len %lld or kv_len %lld is negative",
                            (long long)problem->batch_heads, (long long)problem->q_len,
                            (long long)problem->kv_len);
    if (mod->unbound) {
        (void)fj_error_set(error, FJ_ERR_MOD, "captured tensor '%s' is not bound", mod->unbound);
        fj_error_note(error, "give its dtype and shape: --bind NAME=DTYPE[DIMS], or fj_mod_desc.bindings");
        return FJ_ERR_MOD;
    }
    if (problem->direction == FJ_BACKWARD && mod->program.gradient_status != FJ_OK) {
        if (error) *error = mod->program.gradient_error; /* located; of a limit: it has no detail */
        return mod->program.gradient_status;
    }
    return FJ_OK;
}

/* ---- Life ---------------------------------------------------------------------------------------------- */

static void plan_destroy(fj_plan *plan) {
    fj_device *device = plan->device;
    fj_mod_unref(&plan->mod);
    fj_buf_finish(&plan->record);
    fj_free(&device->context->allocator, plan, sizeof *plan);
    fj_device_unref(&device);
}

fj_status fj_plan_create(fj_device *device, const fj_mod *mod, const fj_problem *problem, fj_plan **ret_plan,
                         fj_error *error) {
    if (!device || !mod || !ret_plan)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "device, mod or ret_plan is NULL");
    fj_problem all;
    fj_status status = fj_attn_read_desc(&all, sizeof all, problem, "fj_problem", error);
    if (status == FJ_OK) status = check_problem(mod, &all, error);
    if (status != FJ_OK) return status;
    fj_plan *plan = fj_alloc_zeroed(&device->context->allocator, sizeof *plan);
    if (!plan) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    bool backward = all.direction == FJ_BACKWARD;
    atomic_init(&plan->refs, 1);
    plan->device = fj_attn_device_ref(device);
    plan->mod = fj_attn_mod_ref(mod);
    plan->problem = all;
    plan->jit_problem = (fj_jit_problem){
        .kind = backward ? FJ_JIT_BACKWARD : FJ_JIT_FORWARD,
        .ir = mod->program.ir,
        .gradient = backward ? mod->program.gradient : NULL,
        .out = mod->program.out,
        .out_gradient = backward ? mod->program.out_gradient : NULL,
        .sink = mod->program.sink,
        .sink_gradient = backward ? mod->program.sink_gradient : NULL,
        .dropout = all.dropout,
        .dtype = all.dtype,
        .head_dim = all.head_dim,
        .value_dim = all.value_dim,
        .max = all.max && !backward,
        .block_mask = all.block_mask,
        .packed = all.form == FJ_FORM_PACKED,
        .paged = all.form == FJ_FORM_PAGED,
        .q_offset = all.q_offset,
        .shared_keys = all.shared_keys && backward,
        .deterministic = !all.nondeterministic,
        .tf32 = all.tf32,
        .gqa = all.gqa,
        .few_queries = all.few_queries,
    };
    const bool asked = all.kernel || all.option_count;
    fj_buf_init(&plan->record, &device->context->allocator);
    plan->decision = all.variant ? "variant" : asked ? "options" : "default";
    status = fj_attn_choose(plan, &all, error);
    if (status == FJ_OK && !all.variant && !asked && !all.untuned) status = fj_attn_tune(plan, error);
    plan->problem.variant = plan->variant.name;
    plan->problem.kernel = NULL; /* the caller's */
    plan->problem.options = NULL;
    plan->problem.option_count = 0;
    if (status != FJ_OK) {
        plan_destroy(plan);
        return status;
    }
    *ret_plan = plan;
    return FJ_OK;
}

fj_plan *fj_attn_plan_ref(const fj_plan *plan) {
    fj_plan *shared = (fj_plan *)(uintptr_t)plan;
    (void)atomic_fetch_add_explicit(&shared->refs, 1, memory_order_relaxed);
    return shared;
}

void fj_plan_unref(fj_plan **plan) {
    if (!plan || !*plan) return;
    fj_plan *last = *plan;
    *plan = NULL;
    if (atomic_fetch_sub_explicit(&last->refs, 1, memory_order_acq_rel) == 1) plan_destroy(last);
}

const char *fj_plan_variant(const fj_plan *plan) { return plan->variant.name; }

fj_mask_tier fj_plan_mask_tier(const fj_plan *plan) {
    if (plan->problem.block_mask) return FJ_TIER_BLOCKS;
    return plan->device->traits->text == FJ_TEXT_CPU ? plan->mod->program.table_tier
                                                     : plan->mod->program.tier;
}

/* ---- Showing --------------------------------------------------------------------------------------------- */

/* Parts of the keys, for calls as the problem says they are like; dense ones. */
static void put_splits(const fj_plan *plan, fj_buf *out) {
    const fj_problem *problem = &plan->problem;
    const int64_t group = problem->gqa > 0 ? problem->gqa : 1;
    if (plan->variant.splits == 1) return;
    fj_buf_put(out, "keys          split, by each launch's shape");
    if (problem->batch_heads > 0 && problem->q_len > 0 && problem->kv_len > 0) {
        const fj_launch_extents extents = {.batch = 1,
                                           .heads_q = problem->batch_heads,
                                           .heads_kv = FJ_MOST(problem->batch_heads / group, 1),
                                           .q_len = problem->q_len,
                                           .kv_len = problem->kv_len};
        fj_buf_printf(out, ": %lld parts for %lld heads, %lld queries, %lld keys",
                      (long long)fj_jit_splits(&plan->jit_problem, &plan->variant, &extents),
                      (long long)problem->batch_heads, (long long)problem->q_len, (long long)problem->kv_len);
    }
    fj_buf_put(out, "\n");
}

static void put_plan(const fj_plan *plan, fj_buf *out) {
    const fj_problem *problem = &plan->problem;
    fj_buf_printf(out, "device        %s\n", fj_device_name(plan->device));
    fj_buf_printf(out, "direction     %s\n", problem->direction == FJ_BACKWARD ? "backward" : "forward");
    fj_buf_printf(out, "dtype         %s\n", fj_dtype_name(problem->dtype));
    fj_buf_printf(out, "dimensions    key %d, value %d\n", problem->head_dim, problem->value_dim);
    fj_buf_printf(out, "mask          %s\n", fj_mask_tier_name(fj_plan_mask_tier(plan)));
    fj_buf_printf(out, "deterministic %s\n", problem->nondeterministic ? "no" : "yes");
    if (problem->dropout) fj_buf_put(out, "dropout       yes\n");
    fj_buf_printf(out, "variant %s\n", plan->variant.name);
    fj_buf_printf(out, "decided by %s\n", plan->decision);
    if (plan->device->traits->text == FJ_TEXT_GPU) put_splits(plan, out);
    if (plan->device->traits->text == FJ_TEXT_NONE) return;
    fj_attn_put_variants(plan, out);
}

static fj_status put_source(const fj_plan *plan, bool whole, fj_buf *out, fj_error *error) {
    fj_buf text;
    fj_rendered rendered = {0};
    fj_buf_init(&text, out->allocator);
    fj_status status =
        fj_jit_render(&plan->jit_problem, &plan->variant, out->allocator, &text, &rendered, error);
    if (status == FJ_OK && whole) fj_buf_write(out, rendered.source.data, rendered.source.len);
    if (status == FJ_OK && !whole) {
        fj_buf_write(out, rendered.constants.data, rendered.constants.len);
        fj_buf_write(out, rendered.hooks.data, rendered.hooks.len);
    }
    fj_buf_finish(&text);
    return status;
}

fj_status fj_plan_show(const fj_plan *plan, const char *stage, fj_text *ret_text, fj_error *error) {
    if (!plan || !stage || !ret_text)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "plan, stage or ret_text is NULL");
    const fj_allocator *allocator = &plan->device->context->allocator;
    bool is_source = strcmp(stage, "source") == 0, is_prologue = strcmp(stage, "prologue") == 0;
    fj_buf out;
    fj_buf_init(&out, allocator);
    fj_status status = FJ_OK;
    if (strcmp(stage, "plan") == 0)
        put_plan(plan, &out);
    else if (plan->device->traits->text == FJ_TEXT_NONE)
        status = fj_error_set(error, FJ_ERR_UNSUPPORTED, "the %s device has no kernel text",
                              fj_device_name(plan->device));
    else if (strcmp(stage, "key") == 0)
        status = fj_jit_request_text(&plan->jit_problem, &plan->variant, allocator, &out, error);
    else if (is_source || is_prologue)
        status = put_source(plan, is_source, &out, error);
    else
        status = fj_error_set(error, FJ_ERR_NAME,
                              "unknown stage '%s': a plan has prologue, source, plan, key", stage);
    if (status != FJ_OK) {
        fj_buf_finish(&out);
        return status;
    }
    if (fj_buf_take(&out, ret_text) == FJ_OK) return FJ_OK;
    return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
}
