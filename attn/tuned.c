/* Plans and records of tuning: what is looked up when a plan is made, and what a measurement leaves. */
#include <math.h>

#include "attn/catalogue.h"
#include "attn/gpu.h"
#include "driver/cuda.h"
#include "jit/tuning.h"

static fj_tuning_call call_of(const fj_plan *plan) {
    const fj_problem *problem = &plan->problem;
    return (fj_tuning_call){.problem = &plan->jit_problem,
                            .features = &plan->device->features,
                            .tier = plan->mod->program.tier,
                            .batch_heads = problem->batch_heads,
                            .q_len = problem->q_len,
                            .kv_len = problem->kv_len};
}

/* "tuning record FILE:LINE (shipped, nearest: batch times heads 8, 512 queries, 512 keys)" */
static bool describe(fj_buf *out, const fj_tuning_found *found) {
    fj_buf_printf(out, "tuning record %s:%d (%s%s", found->file, found->line,
                  found->shipped ? "shipped, " : "", found->rule == FJ_TUNING_EXACT ? "exact" : "nearest");
    if (found->rule == FJ_TUNING_NEAREST)
        fj_buf_printf(out, ": %s%sbatch times heads %lld, %lld queries, %lld keys",
                      found->other_device ? "another device, " : "", found->other_mod ? "another mod, " : "",
                      (long long)found->batch_heads, (long long)found->q_len, (long long)found->kv_len);
    fj_buf_put(out, ")");
    return !out->failed;
}

fj_status fj_attn_tune(fj_plan *plan, fj_error *error) {
    fj_context *context = plan->device->context;
    if (plan->device->traits->text == FJ_TEXT_NONE) return FJ_OK;
    const fj_tuning_call call = call_of(plan);
    fj_tuning_found found;
    bool is_found;
    if (fj_tuning_find(context->tuning, &call, &is_found, &found) != FJ_OK)
        return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    if (!is_found) return FJ_OK;
    if (!describe(&plan->record, &found)) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    plan->standard = plan->variant;
    plan->variant = found.variant;
    if (plan->device->traits->text == FJ_TEXT_GPU && fj_attn_gpu_check_parameters(plan, NULL) != FJ_OK) {
        plan->variant = plan->standard;
        return FJ_OK;
    }
    plan->tuned = true;
    plan->shipped = found.shipped;
    plan->decision = plan->record.data;
    fj_attn_log(context, FJ_LOG_DEBUG, "variant %s by %s", plan->variant.name, plan->decision);
    return FJ_OK;
}

const char *fj_plan_decision(const fj_plan *plan) { return plan->decision; }

static void add_name(void *user, const fj_variant *variant) {
    json_t **names = user;
    if (json_object_set_new(*names, variant->name, json_null()) == 0) return;
    json_decref(*names);
    *names = NULL;
}

fj_status fj_plan_tuned_variants(const fj_plan *plan, fj_text *ret_json, fj_error *error) {
    if (!plan || !ret_json) return fj_error_set(error, FJ_ERR_ARGUMENT, "plan or ret_json is NULL");
    const fj_tuning_call call = call_of(plan);
    json_t *names = json_object(), *list = json_array();
    if (plan->device->traits->text != FJ_TEXT_NONE &&
        fj_tuning_each(plan->device->context->tuning, &call, add_name, &names) != FJ_OK) {
        json_decref(names);
        names = NULL;
    }
    const char *name;
    json_t *value;
    json_object_foreach(names, name, value) fj_attn_json_append(&list, json_string(name));
    if (!names) {
        json_decref(list);
        list = NULL;
    }
    json_decref(names);
    return fj_attn_json_take(json_pack("{s:i, s:o}", "schema", 1, "variants", list), ret_json, error);
}

/* ---- Adding ---------------------------------------------------------------------------------------------- */

static fj_status check_result(const fj_plan *winner, const fj_tuning_result *result, fj_error *error) {
    const fj_problem *problem = &winner->problem;
    if (winner->device->traits->text == FJ_TEXT_NONE)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "the %s device has no kernels to tune",
                            fj_device_name(winner->device));
    if (problem->batch_heads < 1 || problem->q_len < 1 || problem->kv_len < 1)
        return fj_error_set(
            error, FJ_ERR_ARGUMENT,
            "the plan's batch_heads, q_len and kv_len are %lld, %lld and %lld: a record needs all three",
            (long long)problem->batch_heads, (long long)problem->q_len, (long long)problem->kv_len);
    if (!(result->time_ms > 0 && isfinite(result->time_ms)) ||
        !(result->default_ms > 0 && isfinite(result->default_ms)))
        return fj_error_set(error, FJ_ERR_ARGUMENT, "time_ms or default_ms is not a finite number above 0");
    return FJ_OK;
}

fj_status fj_tuning_check(fj_context *context, const char *file, fj_error *error) {
    if (!context) return fj_error_set(error, FJ_ERR_ARGUMENT, "context is NULL");
    return fj_tuning_probe(context->tuning, file, error);
}

fj_status fj_tuning_add(const fj_plan *winner, const char *file, const fj_tuning_result *result,
                        fj_error *error) {
    fj_tuning_result all;
    if (!winner) return fj_error_set(error, FJ_ERR_ARGUMENT, "winner is NULL");
    fj_status status = fj_attn_read_desc(&all, sizeof all, result, "fj_tuning_result", error);
    if (status == FJ_OK) status = check_result(winner, &all, error);
    if (status != FJ_OK) return status;
    const fj_device *device = winner->device;
    fj_variant variants[FJ_JIT_MAX_VARIANTS];
    if (!all.default_variant && fj_jit_variants(&winner->jit_problem, &device->features, variants) > 0)
        all.default_variant = variants[0].name;
    char machine[FJ_JIT_CPU_NAME];
    fj_jit_cpu_name(machine);
    const bool gpu = device->traits->memory == kDLCUDA && device->driver;
    const fj_tuning_new record = {
        .call = call_of(winner),
        .machine = gpu ? fj_cuda_device_features(device->driver)->name : machine,
        .best = {winner->variant.name, all.time_ms},
        .standard = {all.default_variant ? all.default_variant : "", all.default_ms},
    };
    return fj_tuning_append(device->context->tuning, file, &record, error);
}
