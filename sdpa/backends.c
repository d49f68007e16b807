/* Which backends can compute a call. A plan is asked, so that no limit is written down twice. */
#include <stdio.h>
#include <string.h>

#include "sdpa/call.h"

const char *fj_sdpa_backend_name(fj_sdpa_backend backend) {
    static const char *const names[] = {"flash", "efficient", "cpu", "math"};
    return (unsigned)backend < FJ_ARRAY_LEN(names) ? names[backend] : "none";
}

/* What a device computes with, by the first word of its name. */
typedef enum device_kind { GPU_DEVICE, CPU_DEVICE, PASS_DEVICE } device_kind;

static bool is_called(const fj_device *device, const char *word) {
    const size_t length = strlen(word);
    const char *name = fj_device_name(device);
    return strncmp(name, word, length) == 0 && (name[length] == '\0' || name[length] == ':');
}

static device_kind kind_of(const fj_device *device) {
    if (is_called(device, "cuda") || is_called(device, "emu")) return GPU_DEVICE;
    return is_called(device, "cpu") ? CPU_DEVICE : PASS_DEVICE;
}

/* ---- The mod and the problem ------------------------------------------------------------------------------------ */

static fj_status make_mod(fj_device *device, const fj_sdpa_class *class, fj_mod **ret_mod, fj_error *error) {
    static const char source[] = "shift = 0\n";
    static const char *const runtime[] = {"shift"}, *const constants[] = {"mask"};
    fj_sdpa_mod text;
    fj_sdpa_write_mod(class, &text);
    const fj_mod_desc desc = {
        .struct_size = sizeof desc,
        .file = "<sdpa>",
        .source = text.has_shift ? source : NULL,
        .source_length = text.has_shift ? sizeof source - 1 : 0,
        .score = text.score[0] ? text.score : NULL,
        .mask = text.mask[0] ? text.mask : NULL,
        .runtime_params = runtime,
        .runtime_param_count = text.has_shift ? 1 : 0,
        .bindings = text.bindings,
        .binding_count = text.binding_count,
        .constants = constants,
        .constant_count = text.is_constant ? 1 : 0,
    };
    return fj_mod_create(fj_device_context(device), &desc, ret_mod, error);
}

enum { FEW_QUERIES = 64 };

/* As `flexjit run` asks, so that both find the same kernels. */
static fj_problem problem_of(const fj_sdpa_call *call) {
    const fj_sdpa_class *class = &call->class;
    const int64_t sequences = class->packed && call->batch > 0 ? call->batch : 1;
    const int64_t q_len = call->q_rows / sequences, kv_len = call->kv_rows / sequences;
    fj_problem problem = {
        .struct_size = sizeof problem,
        .direction = class->direction,
        .dtype = class->dtype,
        .head_dim = (int)class->head_dim,
        .value_dim = (int)class->value_dim,
        .dlse = class->has_dlse,
        .nondeterministic = class->nondeterministic,
        .tf32 = class->tf32,
        .gqa = call->kv_heads > 0 ? (int)(call->heads / call->kv_heads) : 0,
        .few_queries = q_len < FEW_QUERIES,
        .form = class->packed ? FJ_FORM_PACKED : FJ_FORM_DENSE,
        .shared_keys = class->shared_keys,
        .dropout = class->has_dropout,
        .q_len = q_len > 0 || call->q_rows == 0 ? q_len : 1,
        .kv_len = kv_len > 0 || call->kv_rows == 0 ? kv_len : 1,
    };
    if (__builtin_mul_overflow(call->batch, call->heads, &problem.batch_heads)) problem.batch_heads = 0;
    return problem;
}

/* ---- One backend --------------------------------------------------------------------------------------------------- */

typedef struct candidate {
    fj_device *device; /* not owned */
    const char *kernel;
    fj_device *reference; /* made on demand */
} candidate;

/* Why the device is none of this backend's; "": it is. */
static fj_status find_device(fj_device *device, fj_dtype dtype, fj_sdpa_backend backend, candidate *of,
                             char *reason, size_t size, fj_error *error) {
    const device_kind kind = kind_of(device);
    const char *name = fj_device_name(device);
    of->device = device;
    of->kernel = backend == FJ_SDPA_FLASH ? "mma" : backend == FJ_SDPA_EFFICIENT ? "simt" : NULL;
    if (backend < FJ_SDPA_CPU && kind != GPU_DEVICE)
        (void)snprintf(reason, size, "it runs on the devices cuda and emu, and the device is %s", name);
    else if (backend == FJ_SDPA_FLASH && dtype == FJ_DTYPE_F64)
        (void)snprintf(reason, size, "query is F64: its kernels take F16, BF16 and F32");
    else if (backend == FJ_SDPA_CPU && kind != CPU_DEVICE)
        (void)snprintf(reason, size, "it runs on the device cpu, and the device is %s", name);
    else if (backend == FJ_SDPA_MATH && fj_device_dlpack(device).device_type == kDLCUDA)
        (void)snprintf(reason, size, "it reads the host's memory, and the device is %s", name);
    else if (backend == FJ_SDPA_MATH && kind != PASS_DEVICE) {
        fj_status status = FJ_OK;
        if (!of->reference)
            status = fj_device_create(fj_device_context(device), FJ_DEVICE_REFERENCE, &of->reference, error);
        of->device = of->reference;
        return status;
    }
    return FJ_OK;
}

static void check_width(const fj_sdpa_call *call, char *reason, size_t size) {
    static const char *const names[] = {"query", "value"};
    const int64_t widths[] = {call->class.head_dim, call->class.value_dim};
    char text[FJ_SDPA_TEXT];
    for (int i = 0; i < 2 && !reason[0]; i++)
        if (widths[i] < 1 || widths[i] > 256)
            (void)snprintf(reason, size, "%s has shape %s: head dimensions, the last extent, are 1 to 256",
                           names[i], fj_sdpa_shape_text(i ? call->args.value : call->args.query, text));
}

/* A GPU's memory is not the host's to copy. */
static fj_status check_copies(fj_sdpa_call *call, char *reason, size_t size) {
    size_t bytes;
    char copies[512];
    if (fj_device_dlpack(call->device).device_type != kDLCUDA || reason[0]) return FJ_OK;
    fj_sdpa_call laid_out = *call;
    const fj_status status = fj_sdpa_lay_out(&laid_out, &bytes);
    if (status != FJ_OK) return status;
    fj_sdpa_tell_copies(&laid_out, copies, sizeof copies);
    if (copies[0])
        (void)snprintf(reason, size, "the host cannot copy memory of cuda: %.180s", copies);
    else if (fj_sdpa_makes_list(call, false) || fj_sdpa_makes_list(call, true))
        (void)snprintf(reason, size,
                       "the host cannot make memory of cuda: give cu_seqlens_q and cu_seqlens_kv, both I32");
    return FJ_OK;
}

static fj_status try_plan(const fj_mod *mod, const fj_problem *problem, const candidate *of,
                          const char *kernel, fj_plan **ret_plan, char *reason, size_t size) {
    fj_error why = {0};
    fj_problem asked = *problem;
    asked.kernel = kernel;
    const fj_status status = fj_plan_create(of->device, mod, &asked, ret_plan, &why);
    if (status != FJ_OK && status != FJ_ERR_MEMORY)
        (void)snprintf(reason, size, "%.*s", (int)size - 1, why.text);
    fj_error_finish(&why);
    return status == FJ_ERR_MEMORY ? status : FJ_OK;
}

/* ---- All of them ------------------------------------------------------------------------------------------------------ */

/* The plan of the first backend that is left. Where both kinds of a GPU's kernels are, the plan is free, so that
 * records of tuning count, and its variant says which it is. */
static fj_status take(fj_sdpa_choice *choice, const fj_problem *problem, const candidate *of,
                      fj_sdpa_backend backend, fj_plan **plan, fj_error *error) {
    char reason[256];
    choice->report.backend = backend;
    choice->plan = *plan;
    *plan = NULL;
    choice->device = of->device;
    if (backend != FJ_SDPA_FLASH || choice->report.refused[FJ_SDPA_EFFICIENT][0]) return FJ_OK;
    fj_plan *free_plan = NULL;
    const fj_status status = try_plan(choice->mod, problem, of, NULL, &free_plan, reason, sizeof reason);
    if (status != FJ_OK) return fj_error_set(error, status, "out of memory");
    if (!free_plan) return FJ_OK;
    fj_plan_unref(&choice->plan);
    choice->plan = free_plan;
    if (strstr(fj_plan_variant(free_plan), "simt")) choice->report.backend = FJ_SDPA_EFFICIENT;
    return FJ_OK;
}

static fj_status consider(fj_device *device, fj_sdpa_call *call, const fj_problem *problem,
                          fj_sdpa_backend backend, candidate *of, fj_sdpa_choice *choice, fj_plan **ret_plan,
                          fj_error *error) {
    char *reason = choice->report.refused[backend];
    const size_t size = sizeof choice->report.refused[backend];
    const unsigned allowed = call->class.backends;
    fj_status status = find_device(device, call->class.dtype, backend, of, reason, size, error);
    if (status != FJ_OK) return status;
    check_width(call, reason, size);
    status = check_copies(call, reason, size);
    if (status != FJ_OK || reason[0]) return status;
    if (allowed && (allowed >> backend & 1) == 0) {
        (void)snprintf(reason, size, "it is not among the backends that are allowed");
        return FJ_OK;
    }
    status = try_plan(choice->mod, problem, of, of->kernel, ret_plan, reason, size);
    return status == FJ_OK ? FJ_OK : fj_error_set(error, status, "out of memory");
}

fj_status fj_sdpa_choose(fj_device *device, fj_sdpa_call *call, fj_sdpa_choice *ret_choice, fj_error *error) {
    fj_sdpa_choice *choice = ret_choice;
    fj_plan *plans[FJ_SDPA_BACKENDS] = {0};
    candidate of[FJ_SDPA_BACKENDS] = {0};
    *choice = (fj_sdpa_choice){.report.backend = FJ_SDPA_BACKENDS};
    fj_status status = make_mod(device, &call->class, &choice->mod, error);
    const fj_problem problem = problem_of(call);
    for (int i = 0; i < FJ_SDPA_BACKENDS && status == FJ_OK; i++)
        status = consider(device, call, &problem, i, &of[i], choice, &plans[i], error);
    for (int i = 0; i < FJ_SDPA_BACKENDS && status == FJ_OK; i++)
        if (!choice->plan && plans[i]) status = take(choice, &problem, &of[i], i, &plans[i], error);
    for (int i = 0; i < FJ_SDPA_BACKENDS; i++) {
        fj_plan_unref(&plans[i]);
        fj_device_unref(&of[i].reference); /* the plan has it */
    }
    if (status != FJ_OK) fj_sdpa_choice_finish(choice);
    return status;
}

void fj_sdpa_choice_finish(fj_sdpa_choice *choice) {
    fj_plan_unref(&choice->plan);
    fj_mod_unref(&choice->mod);
}

fj_status fj_sdpa_backends(fj_device *device, fj_direction direction, const fj_sdpa_args *args,
                           fj_sdpa_report *ret_report, fj_error *error) {
    fj_sdpa_call call;
    fj_sdpa_choice choice;
    size_t bytes;
    if (!ret_report || ret_report->struct_size < sizeof(size_t))
        return fj_error_set(error, FJ_ERR_ARGUMENT, "ret_report is NULL, or its struct_size is not set");
    fj_status status = fj_sdpa_read(device, direction, args, true, &call, error);
    if (status == FJ_OK && call.args.out) status = fj_sdpa_place_results(&call);
    if (status == FJ_OK) status = fj_sdpa_choose(device, &call, &choice, error);
    if (status != FJ_OK) return status;
    call.takes_wide = choice.report.backend == FJ_SDPA_MATH;
    status = fj_sdpa_lay_out(&call, &bytes);
    fj_sdpa_tell_copies(&call, choice.report.copies, sizeof choice.report.copies);
    const size_t size = ret_report->struct_size;
    choice.report.struct_size = size;
    if (status == FJ_OK)
        memcpy(ret_report, &choice.report, size < sizeof choice.report ? size : sizeof choice.report);
    fj_sdpa_choice_finish(&choice);
    return status;
}
