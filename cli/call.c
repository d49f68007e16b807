/* Devices, kernels and launches. */
#include "cli/call.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/interrupt.h"
#include "cli/report.h"

enum { MOST_WORKERS = 4096, WORKSPACE_ALIGNMENT = 256 };

/* ---- Options ----------------------------------------------------------------------------- */

/* A variant's name begins with the direction it is for. */
static int wish_variants(const cli_args *args, cli_wish *wish) {
    const char *name;
    for (size_t i = 0; (name = cli_args_nth(args, CLI_OPT_VARIANT, i)) != NULL; i++) {
        fj_direction direction = strncmp(name, "bwd", 3) == 0 ? FJ_BACKWARD : FJ_FORWARD;
        if (wish->variants[direction] != NULL) {
            return cli_usage(args->verb, "two variants for one direction: '%s' and '%s'",
                             wish->variants[direction], name);
        }
        wish->variants[direction] = name;
    }
    return CLI_EXIT_OK;
}

int cli_wish_options(const cli_args *args, cli_wish *wish) {
    int precision;
    long long workers = 0;
    int status = cli_args_choice(args, CLI_OPT_PRECISION, 0, &precision);
    if (status == CLI_EXIT_OK) status = cli_args_integer(args, CLI_OPT_THREADS, 1, MOST_WORKERS, &workers);
    if (status == CLI_EXIT_OK) status = wish_variants(args, wish);
    if (status != CLI_EXIT_OK) return status;
    wish->tf32 = precision == 1;
    wish->workers = (int)workers;
    wish->max = cli_args_has(args, CLI_OPT_MAX);
    wish->nondeterministic = cli_args_has(args, CLI_OPT_NO_DETERMINISTIC);
    return CLI_EXIT_OK;
}

/* ---- Devices ----------------------------------------------------------------------------- */

int cli_device_open(fj_context *context, const cli_args *args, cli_device which, fj_device **ret_device) {
    const char *arch = cli_args_text(args, CLI_OPT_ARCH, NULL);
    bool shows_gpu = which == CLI_DEVICE_CUDA && args->verb == CLI_VERB_SHOW;
    if (arch != NULL && which != CLI_DEVICE_EMU && !shows_gpu) {
        return cli_usage(args->verb, "option '--arch' is for --device emu%s",
                         args->verb == CLI_VERB_SHOW ? " and --device cuda" : "");
    }
    if (which == CLI_DEVICE_EMU) {
        return cli_fail(CLI_EXIT_DEVICE,
                        "this build of flexjit has no emu device, only cpu, cuda and reference");
    }
    fj_error error = {0};
    fj_device_kind kind = which == CLI_DEVICE_REFERENCE ? FJ_DEVICE_REFERENCE
                        : which == CLI_DEVICE_CUDA      ? FJ_DEVICE_CUDA
                                                        : FJ_DEVICE_CPU;
    fj_status result = arch != NULL ? fj_device_create_for_arch(context, arch, ret_device, &error)
                                    : fj_device_create(context, kind, ret_device, &error);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

/* ---- Kernels ----------------------------------------------------------------------------- */

static const DLTensor *tensor_of(const cli_view *view) {
    return cli_view_is_set(view) ? &view->tensor : NULL;
}

/* One array for all four lists of args. */
static bool point(cli_kernel *kernel, const cli_inputs *inputs, const cli_outputs *outputs) {
    size_t captures = inputs->capture_count, scalars = inputs->scalar_count;
    const DLTensor **at = calloc(2 * captures + scalars + 1, sizeof(const DLTensor *));
    if (at == NULL) return false;
    for (size_t i = 0; i < captures; i++) {
        at[i] = tensor_of(&inputs->captures[i]);
        at[captures + i] = tensor_of(&outputs->dcaptures[i]);
    }
    for (size_t i = 0; i < scalars; i++) at[2 * captures + i] = tensor_of(&outputs->dscalars[i]);
    kernel->pointers = at;
    kernel->args.captures = at;
    kernel->args.dcaptures = at + captures;
    kernel->args.dscalars = at + 2 * captures;
    return true;
}

static bool bind(cli_kernel *kernel, const cli_wish *wish, fj_direction direction, const cli_inputs *inputs,
                 const cli_outputs *outputs) {
    kernel->launch = (fj_launch){.struct_size = sizeof kernel->launch, .workers = wish->workers};
    kernel->args = (fj_args){
        .struct_size = sizeof kernel->args,
        .query = tensor_of(&inputs->query),
        .key = tensor_of(&inputs->key),
        .value = tensor_of(&inputs->value),
        .out = tensor_of(&outputs->out),
        .lse = tensor_of(&outputs->lse),
        .scalars = inputs->scalars,
        .scale = wish->scale,
    };
    if (direction == FJ_FORWARD) {
        kernel->args.max = tensor_of(&outputs->max);
    } else {
        kernel->args.dout = tensor_of(&inputs->dout);
        kernel->args.dlse = tensor_of(&inputs->dlse);
        kernel->args.dquery = tensor_of(&outputs->dquery);
        kernel->args.dkey = tensor_of(&outputs->dkey);
        kernel->args.dvalue = tensor_of(&outputs->dvalue);
    }
    return point(kernel, inputs, outputs);
}

static fj_status make(cli_kernel *kernel, fj_device *device, const fj_mod *mod, const fj_problem *problem,
                      fj_error *error) {
    fj_status result = fj_plan_create(device, mod, problem, &kernel->plan, error);
    cli_interrupt_hold();
    if (result == FJ_OK) result = fj_kernel_create(kernel->plan, &kernel->kernel, error);
    cli_interrupt_release();
    if (result != FJ_OK) return result;
    kernel->info = fj_kernel_describe(kernel->kernel);
    if (fj_kernel_blocks(kernel->kernel, &kernel->args, &kernel->blocks, error) != FJ_OK) {
        fj_error_finish(error); /* the reference has no blocks */
        kernel->blocks = (fj_block_counts){0};
    }
    return fj_kernel_workspace(kernel->kernel, &kernel->args, &kernel->launch, &kernel->workspace_size,
                               error);
}

int cli_kernel_open(cli_kernel *kernel, fj_device *device, const fj_mod *mod, const cli_wish *wish,
                    fj_direction direction, const cli_inputs *inputs, const cli_outputs *outputs) {
    *kernel = (cli_kernel){0};
    if (wish->shape.head_dim > INT_MAX || wish->shape.value_dim > INT_MAX) {
        return cli_fail(CLI_EXIT_FAILED, "head dimensions of %lld and %lld are too large",
                        (long long)wish->shape.head_dim, (long long)wish->shape.value_dim);
    }
    fj_problem problem = {
        .struct_size = sizeof problem,
        .direction = direction,
        .dtype = wish->dtype,
        .head_dim = (int)wish->shape.head_dim,
        .value_dim = (int)wish->shape.value_dim,
        .max = direction == FJ_FORWARD && cli_view_is_set(&outputs->max),
        .dlse = direction == FJ_BACKWARD && cli_view_is_set(&inputs->dlse),
        .nondeterministic = wish->nondeterministic,
        .tf32 = wish->tf32,
        .variant = wish->variants[direction],
    };
    fj_error error = {0};
    int status = bind(kernel, wish, direction, inputs, outputs) ? CLI_EXIT_OK : cli_no_memory();
    if (status == CLI_EXIT_OK) {
        fj_status result = make(kernel, device, mod, &problem, &error);
        if (result != FJ_OK)
            status = cli_interrupted() ? CLI_EXIT_INTERRUPTED : cli_fail_library(result, &error);
        fj_error_finish(&error);
    }
    if (status == CLI_EXIT_OK && kernel->workspace_size > 0) {
        if (posix_memalign(&kernel->workspace, WORKSPACE_ALIGNMENT, kernel->workspace_size) != 0) {
            kernel->workspace = NULL;
            status = cli_fail(CLI_EXIT_FAILED, "not enough memory for a workspace of %zu bytes",
                              kernel->workspace_size);
        }
    }
    if (status != CLI_EXIT_OK) cli_kernel_close(kernel);
    return status;
}

static double now_ms(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

int cli_kernel_launch(cli_kernel *kernel, double *ret_ms) {
    fj_error error = {0};
    double begin = now_ms();
    fj_status result = fj_kernel_launch(kernel->kernel, &kernel->args, &kernel->launch, kernel->workspace,
                                        kernel->workspace_size, &error);
    *ret_ms = now_ms() - begin;
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

void cli_kernel_close(cli_kernel *kernel) {
    fj_kernel_unref(&kernel->kernel);
    fj_plan_unref(&kernel->plan);
    free(kernel->workspace);
    free(kernel->pointers);
    *kernel = (cli_kernel){0};
}

/* ---- Counting ---------------------------------------------------------------------------- */

double cli_computed_share(const fj_block_counts *blocks) {
    int64_t computed = blocks->full + blocks->partial, all = computed + blocks->empty;
    return all > 0 ? (double)computed / (double)all : 1;
}

/* A product of E or Ev numbers is two FLOPs a number. Forward: q k, p v. Backward: q k again, do v, and one each for
 * dq, dk (E), dv (Ev). */
double cli_flops(const cli_shape *shape, fj_direction direction, const fj_block_counts *blocks) {
    double e = (double)shape->head_dim, ev = (double)shape->value_dim;
    double scores =
        (double)shape->batch * (double)shape->heads * (double)shape->q_len * (double)shape->kv_len;
    double each = direction == FJ_FORWARD ? 2 * (e + ev) : 2 * (3 * e + 2 * ev);
    return scores * each * cli_computed_share(blocks);
}
