/* The maker of a mod's block masks: the mask cut out of the mod's graph, and its code. */
#include "attn/mask/maker.h"

#include <string.h>

/* ---- The graph -------------------------------------------------------------------------------------- */

/* The mask and its bad reads, without the score: what only the score reads is not needed, nor in the code's key. */
static void cut_out(fj_scope *scope, void *argument) {
    fj_mask_maker *maker = argument;
    fj_ir whole = fj_ir_view(maker->mod->program.ir, scope->arena);
    whole.score = whole.fault = whole.dscore = 0;
    whole.scatters.len = 0;
    fj_ir *ir = fj_ir_optimise(fj_ir_guard(fj_ir_optimise(&whole)));
    bool *used = FJ_NEW_ARRAY(scope->arena, bool, ir->captures.len + 1);
    for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
        const fj_node *node = fj_ir_at(ir, ref);
        if (node->op == FJ_OP_LOAD || node->op == FJ_OP_OUT_OF_RANGE) used[node->imm.i] = true;
        if (node->op == FJ_OP_DIM) used[node->imm.i >> 8] = true;
    }
    const uint8_t leaves = fj_ir_leaves(ir)[ir->mask];
    maker->reads_batch = leaves & 1;
    maker->reads_head = leaves & 2;
    maker->used = used;
    maker->ir = ir;
}

static bool is_bound(const fj_mod *mod, const char *name) {
    for (size_t i = 0; i < mod->desc.binding_count; i++)
        if (strcmp(mod->desc.bindings[i].name, name) == 0) return true;
    return false;
}

static fj_status check_bound(const fj_mask_maker *maker, fj_error *error) {
    for (size_t i = 0; i < maker->ir->captures.len; i++) {
        const fj_capture *capture = &maker->ir->captures.data[i];
        if (!maker->used[i] || capture->literal || is_bound(maker->mod, capture->name)) continue;
        (void)fj_error_set(error, FJ_ERR_MOD, "captured tensor '%s' is not bound", capture->name);
        fj_error_note(error, "give its dtype and shape: --bind NAME=DTYPE[DIMS], or fj_mod_desc.bindings");
        return FJ_ERR_MOD;
    }
    return FJ_OK;
}

/* ---- The code --------------------------------------------------------------------------------------- */

static fj_status load(fj_mask_maker *maker, fj_error *error) {
    const fj_device *device = maker->device;
    const fj_jit_problem problem = {
        .kind = FJ_JIT_MASK, .ir = maker->ir, .dtype = maker->plan.problem.dtype, .deterministic = true};
    fj_variant variants[FJ_JIT_MAX_VARIANTS];
    fj_jit_info info;
    if (fj_jit_variants(&problem, &device->features, variants) == 0)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "no code of the %s device decides blocks of a mask",
                            fj_device_name(device));
    if (!device->driver) return fj_attn_not_here(device, error);
    maker->variant = variants[0];
    const fj_status status = fj_jit_prepare(device->context->jit, device->driver, &problem, &maker->variant,
                                            &maker->object, &info, error);
    if (status != FJ_OK) return status;
    maker->info = fj_attn_kernel_info(&maker->variant, &info);
    maker->code = device->driver->symbol(fj_jit_object_code(maker->object), "fj_cpu_mask");
    if (maker->code && maker->code->abi == FJ_CPU_ABI) return FJ_OK;
    return fj_error_set(error, FJ_ERR_DEVICE, "%s exports no fj_cpu_mask of ABI %d", maker->variant.name,
                        FJ_CPU_ABI);
}

static fj_status make_ready(fj_mask_maker *maker, fj_error *error) {
    if (!maker->mod->program.ir->mask) return FJ_OK;
    fj_status status = fj_scope_run(&maker->arena, error, cut_out, maker);
    if (status == FJ_OK) status = check_bound(maker, error);
    return status == FJ_OK ? load(maker, error) : status;
}

/* ---- Life ------------------------------------------------------------------------------------------- */

static void destroy(fj_mask_maker *maker) {
    fj_device *device = maker->device;
    const fj_allocator *allocator = &device->context->allocator;
    fj_jit_release(device->context->jit, &maker->object);
    fj_arena_finish(&maker->arena);
    fj_mod_unref(&maker->mod);
    fj_free(allocator, maker, sizeof *maker);
    fj_device_unref(&device);
}

fj_status fj_mask_maker_create(fj_device *device, const fj_mod *mod, fj_dtype dtype,
                               fj_mask_maker **ret_maker, fj_error *error) {
    if (!device || !mod || !ret_maker)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "device, mod or ret_maker is NULL");
    if (dtype != FJ_DTYPE_F16 && dtype != FJ_DTYPE_BF16 && dtype != FJ_DTYPE_F32 && dtype != FJ_DTYPE_F64)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED,
                            "dtype %s is not supported: F16, BF16, F32 and F64 are",
                            (unsigned)dtype < FJ_DTYPE_COUNT ? fj_dtype_name(dtype) : "of an unknown number");
    if (device->traits->text != FJ_TEXT_CPU)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED,
                            "block masks are not made on the %s device: the cpu device makes them",
                            device->name);
    fj_mask_maker *maker = fj_alloc_zeroed(&device->context->allocator, sizeof *maker);
    if (!maker) return fj_mask_no_memory(error);
    atomic_init(&maker->refs, 1);
    maker->device = fj_attn_device_ref(device);
    maker->mod = fj_attn_mod_ref(mod);
    maker->info.variant = "";
    maker->plan.device = maker->device;
    maker->plan.mod = maker->mod;
    maker->plan.problem.dtype = dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32;
    fj_arena_init(&maker->arena, &device->context->allocator);
    const fj_status status = make_ready(maker, error);
    if (status == FJ_OK)
        *ret_maker = maker;
    else
        destroy(maker);
    return status;
}

void fj_mask_maker_unref(fj_mask_maker **maker) {
    if (!maker || !*maker) return;
    fj_mask_maker *last = *maker;
    *maker = NULL;
    if (atomic_fetch_sub_explicit(&last->refs, 1, memory_order_acq_rel) == 1) destroy(last);
}

fj_kernel_info fj_mask_maker_describe(const fj_mask_maker *maker) { return maker->info; }
