/* Devices, kernels and launches. */
#include "cli/call.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "cli/interrupt.h"
#include "cli/patience.h"
#include "cli/report.h"

enum { MOST_WORKERS = 4096, FEW_QUERIES = 64 /* rows of a common tile */ };

const char *const cli_form_names[CLI_FORMS] = {
    [FJ_FORM_DENSE] = "dense", [FJ_FORM_PACKED] = "packed", [FJ_FORM_PAGED] = "paged"};

/* ---- Options ----------------------------------------------------------------------------- */

/* A variant's name begins with the direction it is for. */
static int read_variants(const cli_args *args, cli_call_options *options) {
    const char *name;
    for (size_t i = 0; (name = cli_args_nth(args, CLI_OPT_VARIANT, i)) != NULL; i++) {
        fj_direction direction = strncmp(name, "bwd", 3) == 0 ? FJ_BACKWARD : FJ_FORWARD;
        if (options->variants[direction] != NULL) {
            return cli_usage(args->verb, "two variants for one direction: '%s' and '%s'",
                             options->variants[direction], name);
        }
        options->variants[direction] = name;
    }
    return CLI_EXIT_OK;
}

void cli_forget_variants(cli_call_options *options) {
    options->variants[FJ_FORWARD] = options->variants[FJ_BACKWARD] = NULL;
    options->kernel = NULL;
    options->kernel_option_count = 0;
}

static int read_dropout(const cli_args *args, cli_call_options *options) {
    options->dropout = cli_args_has(args, CLI_OPT_DROPOUT);
    if (!options->dropout && cli_args_has(args, CLI_OPT_DROPOUT_SEED))
        return cli_usage(args->verb, "option '--seed' is for --dropout");
    int status = cli_args_real(args, CLI_OPT_DROPOUT, &options->dropout_rate);
    if (status == CLI_EXIT_OK && !(options->dropout_rate >= 0 && options->dropout_rate <= 1))
        status = cli_usage(args->verb, "option '--dropout' takes a probability from 0 to 1, not '%s'",
                           cli_args_text(args, CLI_OPT_DROPOUT, ""));
    return status == CLI_EXIT_OK ? cli_args_word(args, CLI_OPT_DROPOUT_SEED, &options->dropout_seed) : status;
}

int cli_read_call_options(const cli_args *args, cli_call_options *options) {
    int precision;
    long long workers = 0;
    int status = cli_args_choice(args, CLI_OPT_PRECISION, 0, &precision);
    if (status == CLI_EXIT_OK) status = cli_args_integer(args, CLI_OPT_THREADS, 1, MOST_WORKERS, &workers);
    if (status == CLI_EXIT_OK) status = read_variants(args, options);
    if (status == CLI_EXIT_OK) status = cli_read_kernel_options(args, options);
    if (status == CLI_EXIT_OK) status = read_dropout(args, options);
    if (status != CLI_EXIT_OK) return status;
    options->tf32 = precision == 1;
    options->workers = (int)workers;
    options->max = cli_args_has(args, CLI_OPT_MAX);
    options->nondeterministic = cli_args_has(args, CLI_OPT_NO_DETERMINISTIC);
    return CLI_EXIT_OK;
}

/* ---- Devices ----------------------------------------------------------------------------- */

int cli_device_open(fj_context *context, const cli_args *args, cli_device which, fj_device **ret_device) {
    static const fj_device_kind kinds[] = {
        [CLI_DEVICE_AUTO] = FJ_DEVICE_CUDA,           [CLI_DEVICE_CPU] = FJ_DEVICE_CPU,
        [CLI_DEVICE_CUDA] = FJ_DEVICE_CUDA,           [CLI_DEVICE_EMU] = FJ_DEVICE_EMU,
        [CLI_DEVICE_REFERENCE] = FJ_DEVICE_REFERENCE,
    };
    const char *arch = cli_args_text(args, CLI_OPT_ARCH, NULL);
    bool shows_gpu = which == CLI_DEVICE_CUDA && args->verb == CLI_VERB_SHOW;
    if (arch != NULL && which != CLI_DEVICE_EMU && which != CLI_DEVICE_CPU && !shows_gpu) {
        return cli_usage(args->verb, "option '--arch' is for --device emu and --device cpu%s",
                         args->verb == CLI_VERB_SHOW ? " and --device cuda" : "");
    }
    fj_error error = {0};
    fj_status result = arch != NULL
                         ? fj_device_create_for_arch(context, kinds[which], arch, ret_device, &error)
                         : fj_device_create(context, kinds[which], ret_device, &error);
    if (result == FJ_ERR_DEVICE && which == CLI_DEVICE_AUTO) { /* no GPU that is new enough */
        fj_error_finish(&error);
        result = fj_device_create(context, FJ_DEVICE_CPU, ret_device, &error);
    }
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

/* ---- Kernels ----------------------------------------------------------------------------- */

/* A tensor of the call, and where it goes. */
typedef struct slot {
    const cli_view *view;
    const DLTensor **to;
    bool is_input, is_output;
} slot;

static int place_all(cli_kernel *kernel, const slot *slots, size_t count) {
    int status = CLI_EXIT_OK;
    for (size_t i = 0; i < count && status == CLI_EXIT_OK; i++) {
        status = cli_device_copies_add(&kernel->copies, slots[i].view, slots[i].is_input, slots[i].is_output,
                                       slots[i].to);
    }
    return status;
}

/* One array for all four lists of args. */
static int place_captures(cli_kernel *kernel, bool backward, const cli_inputs *inputs,
                          const cli_outputs *outputs) {
    size_t captures = inputs->capture_count, scalars = inputs->scalar_count;
    const DLTensor **at = calloc(2 * captures + scalars + 1, sizeof(const DLTensor *));
    if (at == NULL) return cli_no_memory();
    kernel->pointers = at;
    kernel->args.captures = at;
    kernel->args.dcaptures = at + captures;
    kernel->args.dscalars = at + 2 * captures;
    int status = CLI_EXIT_OK;
    for (size_t i = 0; i < captures && status == CLI_EXIT_OK; i++) {
        const slot slots[] = {{&inputs->captures[i], &at[i], true, false},
                              {&outputs->dcaptures[i], &at[captures + i], false, true}};
        status = place_all(kernel, slots, backward ? 2 : 1);
    }
    for (size_t i = 0; i < scalars && backward && status == CLI_EXIT_OK; i++) {
        const slot slots[] = {{&outputs->dscalars[i], &at[2 * captures + i], false, true}};
        status = place_all(kernel, slots, 1);
    }
    return status;
}

static int bind(cli_kernel *kernel, const cli_call_options *options, fj_direction direction,
                const cli_inputs *inputs, const cli_outputs *outputs) {
    enum { ALWAYS = 12, BACKWARD = 17 };
    fj_args *args = &kernel->args;
    bool backward = direction == FJ_BACKWARD;
    kernel->launch = (fj_launch){.struct_size = sizeof kernel->launch, .workers = options->workers};
    *args = (fj_args){.struct_size = sizeof *args,
                      .scalars = inputs->scalars,
                      .scale = options->scale,
                      .block_mask = options->block_mask,
                      .dropout = options->dropout_rate,
                      .dropout_seed = options->dropout_seed};
    const slot slots[] = {
        {&inputs->query, &args->query, true, false},
        {&inputs->key, &args->key, true, false},
        {&inputs->value, &args->value, true, false},
        {&inputs->sequences[CLI_CU_SEQLENS_Q], &args->cu_seqlens_q, true, false},
        {&inputs->sequences[CLI_CU_SEQLENS_KV], &args->cu_seqlens_kv, true, false},
        {&inputs->sequences[CLI_PAGE_TABLE], &args->page_table, true, false},
        {&inputs->sequences[CLI_KV_LENS], &args->kv_lens, true, false},
        {&inputs->sequences[CLI_Q_OFFSET], &args->q_offset, true, false},
        {&outputs->out, &args->out, backward, !backward},
        {&outputs->out_raw, &args->out_raw, backward, !backward},
        {&outputs->lse, &args->lse, backward, !backward},
        {&outputs->lse_low, &args->lse_low, backward, !backward},
        {&inputs->dout, &args->dout, true, false},
        {&inputs->dlse, &args->dlse, true, false},
        {&outputs->dquery, &args->dquery, false, true},
        {&outputs->dkey, &args->dkey, false, true},
        {&outputs->dvalue, &args->dvalue, false, true},
    };
    const slot max = {&outputs->max, &args->max, false, true};
    size_t limit = BACKWARD + 1 + 2 * inputs->capture_count + inputs->scalar_count;
    int status = cli_device_copies_begin(&kernel->copies, kernel->device, limit);
    if (status == CLI_EXIT_OK) status = place_all(kernel, slots, backward ? BACKWARD : ALWAYS);
    if (status == CLI_EXIT_OK && !backward) status = place_all(kernel, &max, 1);
    return status == CLI_EXIT_OK ? place_captures(kernel, backward, inputs, outputs) : status;
}

static fj_status make(cli_kernel *kernel, const fj_mod *mod, const fj_problem *problem, fj_error *error) {
    fj_status result = fj_plan_create(kernel->device, mod, problem, &kernel->plan, error);
    cli_interrupt_hold();
    cli_patience_begin();
    if (result == FJ_OK) result = fj_kernel_create(kernel->plan, &kernel->kernel, error);
    cli_patience_end();
    cli_interrupt_release();
    if (result != FJ_OK) return result;
    kernel->info = fj_kernel_describe(kernel->kernel);
    if (fj_kernel_blocks(kernel->kernel, &kernel->args, &kernel->blocks, error) != FJ_OK) {
        fj_error_finish(error); /* the reference has no blocks */
        kernel->blocks = (fj_block_counts){0};
    }
    result = fj_kernel_splits(kernel->kernel, &kernel->args, &kernel->splits, error);
    if (result == FJ_OK)
        result = fj_kernel_workspace(kernel->kernel, &kernel->args, &kernel->launch, &kernel->workspace_size,
                                     error);
    if (result == FJ_OK)
        result = fj_device_alloc(kernel->device, kernel->workspace_size, &kernel->workspace, error);
    if (result == FJ_OK) result = fj_timer_create(kernel->device, &kernel->timer, error);
    return result;
}

/* Of packed sequences the average; 1 where that is less but there is something. */
void cli_problem_suits(const cli_shape *shape, fj_form form, fj_problem *problem) {
    const int64_t sequences = form == FJ_FORM_PACKED && shape->batch > 0 ? shape->batch : 1;
    const int64_t q_len = shape->q_len / sequences, kv_len = shape->kv_len / sequences;
    problem->gqa = shape->kv_heads > 0 ? (int)(shape->heads / shape->kv_heads) : 0;
    problem->few_queries = q_len < FEW_QUERIES;
    if (__builtin_mul_overflow(shape->batch, shape->heads, &problem->batch_heads)) problem->batch_heads = 0;
    problem->q_len = q_len > 0 || shape->q_len == 0 ? q_len : 1;
    problem->kv_len = kv_len > 0 || shape->kv_len == 0 ? kv_len : 1;
}

fj_problem cli_problem_of(const cli_call_options *options, fj_direction direction) {
    fj_problem problem = {
        .struct_size = sizeof problem,
        .direction = direction,
        .dtype = options->dtype,
        .head_dim = (int)options->shape.head_dim,
        .value_dim = (int)options->shape.value_dim,
        .nondeterministic = options->nondeterministic,
        .tf32 = options->tf32,
        .variant = options->variants[direction],
        .kernel = options->kernel,
        .options = options->kernel_options,
        .option_count = options->kernel_option_count,
        .block_mask = options->block_mask != NULL,
        .form = options->form,
        .shared_keys = options->shared_keys,
        .dropout = options->dropout,
    };
    cli_problem_suits(&options->shape, options->form, &problem);
    return problem;
}

int cli_kernel_open(cli_kernel *kernel, fj_device *device, const fj_mod *mod, const cli_call_options *options,
                    fj_direction direction, const cli_inputs *inputs, const cli_outputs *outputs) {
    *kernel = (cli_kernel){.device = device};
    if (options->shape.head_dim > INT_MAX || options->shape.value_dim > INT_MAX) {
        return cli_fail(CLI_EXIT_FAILED, "head dimensions of %lld and %lld are too large",
                        (long long)options->shape.head_dim, (long long)options->shape.value_dim);
    }
    fj_problem problem = cli_problem_of(options, direction);
    problem.max = direction == FJ_FORWARD && cli_view_is_set(&outputs->max);
    problem.dlse = direction == FJ_BACKWARD && cli_view_is_set(&inputs->dlse);
    problem.q_offset = cli_view_is_set(&inputs->sequences[CLI_Q_OFFSET]);
    fj_error error = {0};
    int status = bind(kernel, options, direction, inputs, outputs);
    if (status == CLI_EXIT_OK) {
        fj_status result = make(kernel, mod, &problem, &error);
        if (result != FJ_OK)
            status = cli_interrupted() ? CLI_EXIT_INTERRUPTED : cli_fail_library(result, &error);
        fj_error_finish(&error);
    }
    if (status != CLI_EXIT_OK) cli_kernel_close(kernel);
    return status;
}

int cli_kernel_put(cli_kernel *kernel) { return cli_device_copies_put(&kernel->copies); }
int cli_kernel_get(cli_kernel *kernel) { return cli_device_copies_get(&kernel->copies); }

int cli_kernel_launch(cli_kernel *kernel, double *ret_ms) {
    fj_error error = {0};
    fj_status result = fj_timer_start(kernel->timer, NULL, &error);
    if (result == FJ_OK)
        result = fj_kernel_launch(kernel->kernel, &kernel->args, &kernel->launch, kernel->workspace,
                                  kernel->workspace_size, &error);
    if (result == FJ_OK) result = fj_timer_stop(kernel->timer, NULL, &error);
    if (result == FJ_OK) result = fj_timer_read(kernel->timer, ret_ms, &error);
    if (result == FJ_OK)
        result = fj_kernel_check(kernel->kernel, &kernel->args, &kernel->launch, kernel->workspace,
                                 kernel->workspace_size, &error);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

int cli_kernel_run(cli_kernel *kernel, double *ret_ms) {
    int status = cli_kernel_put(kernel);
    if (status == CLI_EXIT_OK) status = cli_kernel_launch(kernel, ret_ms);
    return status == CLI_EXIT_OK ? cli_kernel_get(kernel) : status;
}

void cli_kernel_close(cli_kernel *kernel) {
    fj_kernel_unref(&kernel->kernel);
    fj_plan_unref(&kernel->plan);
    fj_timer_unref(&kernel->timer);
    fj_device_free(kernel->device, &kernel->workspace);
    cli_device_copies_finish(&kernel->copies);
    free(kernel->pointers);
    *kernel = (cli_kernel){0};
}

/* ---- Counting ---------------------------------------------------------------------------- */

double cli_computed_share(const fj_block_counts *blocks) {
    int64_t computed = blocks->full + blocks->partial, all = computed + blocks->empty;
    return all > 0 ? (double)computed / (double)all : 1;
}

double cli_scores(const cli_shape *shape, const fj_block_counts *blocks) {
    const bool known = blocks->full + blocks->partial + blocks->empty > 0;
    return known ? (double)blocks->scores
                 : (double)shape->batch * (double)shape->heads * (double)shape->q_len * (double)shape->kv_len;
}

/* A product of E or Ev numbers is two FLOPs a number. Forward: q k, p v. Backward: q k again, do v, and one each for
 * dq, dk (E), dv (Ev). */
double cli_flops(const cli_shape *shape, fj_direction direction, const fj_block_counts *blocks) {
    double e = (double)shape->head_dim, ev = (double)shape->value_dim;
    double each = direction == FJ_FORWARD ? 2 * (e + ev) : 2 * (3 * e + 2 * ev);
    return cli_scores(shape, blocks) * each;
}
