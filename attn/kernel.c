/* Kernels: a plan made ready. */
#include "attn/gpu.h"

/* ---- Life ------------------------------------------------------------------------------------------- */

static void kernel_destroy(fj_kernel *kernel) {
    fj_plan *plan = kernel->plan;
    fj_context *context = plan->device->context;
    fj_attn_gpu_finish(kernel);
    fj_jit_release(context->jit, &kernel->object);
    fj_free(&context->allocator, kernel, sizeof *kernel);
    fj_plan_unref(&plan);
}

fj_kernel_info fj_attn_kernel_info(const fj_variant *variant, const fj_jit_info *info) {
    fj_kernel_info all = {.variant = variant->name,
                          .cache_hit = info->cache_hit,
                          .compile_ms = info->compile_ms,
                          .load_ms = info->load_ms};
    for (int i = 0; i < info->resource_count; i++) {
        const fj_resources *of = &info->resources[i];
        int spills = of->spill_stores > of->spill_loads ? of->spill_stores : of->spill_loads;
        if (of->registers > all.registers) all.registers = of->registers;
        if (spills > all.spill_bytes) all.spill_bytes = spills;
    }
    for (int i = 0; i < variant->entry_count; i++)
        if (variant->entries[i].shared > all.shared_bytes) all.shared_bytes = variant->entries[i].shared;
    return all;
}

fj_status fj_attn_choose_kernel(const fj_plan *plan, const fj_variant *variant, const fj_driver *driver,
                                bool verify, fj_jit_chosen *ret_chosen, fj_error *error) {
    fj_jit *jit = plan->device->context->jit;
    const bool exact = plan->named || (plan->tuned && variant == &plan->variant);
    if (!exact)
        return fj_jit_choose(jit, driver, &plan->jit_problem, &plan->device->features, variant, verify,
                             ret_chosen, error);
    *ret_chosen = (fj_jit_chosen){.variant = variant};
    if (driver)
        return fj_jit_prepare(jit, driver, &plan->jit_problem, variant, &ret_chosen->object,
                              &ret_chosen->info, error);
    return fj_jit_build(jit, &plan->jit_problem, variant, verify, &ret_chosen->info, error);
}

static fj_status make_ready_of(fj_kernel *kernel, const fj_variant *variant, fj_error *error) {
    const fj_device *device = kernel->plan->device;
    fj_jit_chosen chosen;
    fj_status status = fj_attn_choose_kernel(kernel->plan, variant, device->driver, false, &chosen, error);
    if (status != FJ_OK) return status;
    kernel->object = chosen.object;
    kernel->variant = chosen.variant;
    kernel->info = fj_attn_kernel_info(chosen.variant, &chosen.info);
    kernel->info.decision = kernel->plan->decision;
    if (device->traits->text == FJ_TEXT_GPU) return fj_attn_gpu_prepare(kernel, error);
    kernel->cpu = fj_driver_cpu_kernel(fj_jit_object_code(kernel->object));
    if (kernel->cpu) return FJ_OK;
    return fj_error_set(error, FJ_ERR_DEVICE, "kernel %s exports no fj_cpu_kernel of ABI %d",
                        kernel->variant->name, FJ_CPU_ABI);
}

/* A record of tuning never makes a call fail: where its variant's kernel cannot be had, here and now, the plan's own choice
 * is taken, and what is wrong with that one is the error. */
static fj_status make_ready(fj_kernel *kernel, fj_error *error) {
    const fj_plan *plan = kernel->plan;
    const fj_device *device = plan->device;
    if (device->traits->text == FJ_TEXT_NONE) return FJ_OK;
    if (!device->driver) return fj_attn_not_here(device, error);
    if (!plan->tuned) return make_ready_of(kernel, &plan->variant, error);
    fj_error refusal = {0};
    fj_status status = make_ready_of(kernel, &plan->variant, &refusal);
    if (status == FJ_ERR_MEMORY) (void)fj_error_set(error, status, "%s", refusal.text);
    if (status != FJ_OK && status != FJ_ERR_MEMORY) {
        /* Who builds the defaults alone for FLEXJIT_NO_JIT did nothing wrong. */
        const bool is_expected = status == FJ_ERR_NO_JIT && plan->shipped;
        fj_attn_log(device->context, is_expected ? FJ_LOG_INFO : FJ_LOG_WARN,
                    "variant %s of %s is replaced by the default: %s", plan->variant.name, plan->decision,
                    refusal.text);
        fj_attn_gpu_finish(kernel);
        fj_jit_release(device->context->jit, &kernel->object);
        status = make_ready_of(kernel, &plan->standard, error);
        kernel->info.decision = "default";
    }
    fj_error_finish(&refusal);
    return status;
}

fj_status fj_kernel_create(const fj_plan *plan, fj_kernel **ret_kernel, fj_error *error) {
    if (!plan || !ret_kernel) return fj_error_set(error, FJ_ERR_ARGUMENT, "plan or ret_kernel is NULL");
    fj_kernel *kernel = fj_alloc_zeroed(&plan->device->context->allocator, sizeof *kernel);
    if (!kernel) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    atomic_init(&kernel->refs, 1);
    kernel->plan = fj_attn_plan_ref(plan);
    kernel->variant = &kernel->plan->variant;
    kernel->info.variant = kernel->variant->name;
    kernel->info.decision = plan->decision;
    fj_status status = make_ready(kernel, error);
    if (status != FJ_OK) {
        kernel_destroy(kernel);
        return status;
    }
    *ret_kernel = kernel;
    return FJ_OK;
}

void fj_kernel_unref(fj_kernel **kernel) {
    if (!kernel || !*kernel) return;
    fj_kernel *last = *kernel;
    *kernel = NULL;
    if (atomic_fetch_sub_explicit(&last->refs, 1, memory_order_acq_rel) == 1) kernel_destroy(last);
}

fj_kernel_info fj_kernel_describe(const fj_kernel *kernel) { return kernel->info; }

fj_status fj_plan_build(const fj_plan *plan, bool verify, fj_kernel_info *ret_info, fj_error *error) {
    if (!plan || !ret_info) return fj_error_set(error, FJ_ERR_ARGUMENT, "plan or ret_info is NULL");
    if (plan->device->traits->text == FJ_TEXT_NONE)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "the %s device has no kernels to build",
                            fj_device_name(plan->device));
    fj_jit_chosen chosen;
    fj_status status = fj_attn_choose_kernel(plan, &plan->variant, NULL, verify, &chosen, error);
    if (status != FJ_OK) return status;
    *ret_info = fj_attn_kernel_info(chosen.variant, &chosen.info);
    ret_info->decision = plan->decision;
    return FJ_OK;
}
