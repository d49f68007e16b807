/* Whether a candidate gives what it should. Nothing of its speed counts before.
 *
 * A candidate runs on two shapes. The small one is compared with the definition, by the rule of `flexjit run --check`; its
 * lengths are odd, so that the ends of tiles are looked at, and it is as large as the reference is computed in a moment.
 * The shape that is tuned is compared with what the default gave there, which passed the first comparison itself.
 *
 * Before each launch that is looked at, outputs and workspace are filled with bytes that are NaN in every dtype: who writes
 * nothing, or reads what it did not write, shows. Tensors lie between pages that cannot be touched, inputs in pages that
 * cannot be written, and the rest of an output's pages has a pattern: who writes outside crashes or changes it. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cli/fill.h"
#include "cli/number.h"
#include "cli/report.h"
#include "cli/tune.h"

enum {
    POISON = 0xff,
    PATTERN = 0x5a,
    TENSOR_ALIGNMENT = 64,
    WORKSPACE_ALIGNMENT = 256,
    TAIL = 256,
    FEW = 64
};

/* ---- Guarded memory ---------------------------------------------------------------------- */

static int guard_open(cli_guard *guard, size_t size, size_t alignment) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), inner = (size + page - 1) / page * page + page;
    const size_t whole = inner + 2 * page;
    uint8_t *map = mmap(NULL, whole, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return cli_no_memory();
    *guard = (cli_guard){.map = map, .map_size = whole, .size = size};
    if (mprotect(map + page, inner, PROT_READ | PROT_WRITE) != 0) return cli_no_memory();
    guard->data = map + page + (inner - size) / alignment * alignment;
    memset(map + page, PATTERN, inner);
    return CLI_EXIT_OK;
}

static void guard_close(cli_guard *guard) {
    if (guard->map != NULL) munmap(guard->map, guard->map_size);
    *guard = (cli_guard){0};
}

static bool guard_is_whole(const cli_guard *guard) {
    if (guard->map == NULL) return true;
    const size_t page = (size_t)sysconf(_SC_PAGESIZE);
    const uint8_t *end = guard->map + guard->map_size - page;
    bool whole = true;
    for (const uint8_t *at = guard->map + page; at < guard->data; at++) whole = whole && *at == PATTERN;
    for (const uint8_t *at = guard->data + guard->size; at < end; at++) whole = whole && *at == PATTERN;
    return whole;
}

static size_t bytes_of(const cli_view *view) { return view->count * fj_dtype_size(view->dtype); }

/* Moves a tensor's data. */
static int guard_view(cli_stage *stage, cli_view *view, bool is_input) {
    if (!cli_view_is_set(view) || bytes_of(view) == 0) return CLI_EXIT_OK;
    cli_guard *guard = &stage->guards[stage->guard_count];
    int status = guard_open(guard, bytes_of(view), TENSOR_ALIGNMENT);
    stage->guard_count++;
    if (status != CLI_EXIT_OK) return status;
    if (is_input) memcpy(guard->data, view->tensor.data, guard->size);
    if (is_input && mprotect(guard->map, guard->map_size, PROT_NONE) == 0) {
        const size_t page = (size_t)sysconf(_SC_PAGESIZE);
        if (mprotect(guard->map + page, guard->map_size - 2 * page, PROT_READ) != 0) return cli_no_memory();
    }
    free(view->owned);
    view->owned = NULL;
    view->tensor.data = guard->data;
    return CLI_EXIT_OK;
}

/* ---- Stages ------------------------------------------------------------------------------ */

/* Each view of the outputs, by number; false behind the last. */
static bool output_at(cli_outputs *outputs, size_t index, bool *ret_backward, cli_view **ret_view) {
    cli_view *const fixed[] = {&outputs->out,    &outputs->lse,  &outputs->lse_low, &outputs->max,
                               &outputs->dquery, &outputs->dkey, &outputs->dvalue};
    enum { FORWARD = 4, FIXED = 7 };
    *ret_backward = index >= FORWARD;
    if (index < FIXED) return *ret_view = fixed[index], true;
    index -= FIXED;
    if (index < outputs->capture_count) return *ret_view = &outputs->dcaptures[index], true;
    index -= outputs->capture_count;
    if (index < outputs->scalar_count) return *ret_view = &outputs->dscalars[index], true;
    return false;
}

static int guard_all(cli_stage *stage) {
    cli_inputs *in = &stage->run.inputs;
    cli_view *const inputs[] = {&in->query, &in->key, &in->value, &in->dout};
    enum { INPUTS = 4, OUTPUTS = 7 };
    if (fj_device_dlpack(stage->run.device).device_type != kDLCPU) return CLI_EXIT_OK;
    stage->guards = calloc(INPUTS + OUTPUTS + 2 * in->capture_count + in->scalar_count, sizeof(cli_guard));
    if (stage->guards == NULL) return cli_no_memory();
    int status = CLI_EXIT_OK;
    for (size_t i = 0; status == CLI_EXIT_OK && i < INPUTS; i++) status = guard_view(stage, inputs[i], true);
    for (size_t i = 0; status == CLI_EXIT_OK && i < in->capture_count; i++)
        status = guard_view(stage, &in->captures[i], true);
    bool backward;
    cli_view *view;
    for (size_t i = 0; status == CLI_EXIT_OK && output_at(&stage->run.outputs, i, &backward, &view); i++)
        status = guard_view(stage, view, false);
    return status;
}

static int64_t at_most(int64_t value, int64_t limit) { return value < limit ? value : limit; }

/* A length of at most `limit`; odd, unless the plan takes it for few. */
static int64_t odd_length(int64_t length, int64_t limit) {
    length = at_most(length, limit);
    if (length <= FEW || length % 2 != 0) return length;
    return length - 27 > FEW ? length - 27 : length - 1;
}

/* Dimensions, groups of heads, mod and dtype stay; what the reference multiplies is limited. */
static cli_shape small_shape(const cli_shape *of, fj_direction direction) {
    const double most = direction == FJ_BACKWARD ? 8e6 : 2e7;
    cli_shape shape = *of;
    const int64_t group = of->heads / of->kv_heads;
    shape.batch = 1;
    shape.kv_heads = at_most(of->kv_heads, group > 8 ? 1 : 2);
    shape.heads = shape.kv_heads * group;
    for (int64_t limit = 8192; limit >= 128; limit /= 2) {
        shape.q_len = odd_length(of->q_len, limit / 2 < 128 ? 128 : limit / 2);
        shape.kv_len = odd_length(of->kv_len, limit);
        const double scores = (double)shape.heads * (double)shape.q_len * (double)shape.kv_len;
        if (scores * (double)(shape.head_dim + shape.value_dim) <= most) break;
    }
    return shape;
}

static int fill(const cli_tune *tune, const cli_tune_row *row, cli_stage *stage) {
    const bool backward = row->direction == FJ_BACKWARD;
    const fj_dtype dtype = row->options.dtype;
    cli_run *run = &stage->run;
    const cli_fill from = {row->mod, row->bindings, tune->args->verb, tune->seed, row->kept};
    int status = cli_fill_inputs(&from, &run->options, backward, &run->inputs);
    if (status == CLI_EXIT_OK)
        status = cli_outputs_allocate(&run->outputs, &run->options, &run->inputs, row->mod, backward, dtype,
                                      cli_statistics_dtype(dtype));
    if (status == CLI_EXIT_OK) status = cli_outputs_list(&run->outputs, row->mod, &run->list);
    return status;
}

/* Backward reads what forward gave. */
static int run_forward(cli_stage *stage) {
    cli_kernel kernel = {0};
    double ignored;
    int status = cli_kernel_open(&kernel, stage->run.device, stage->run.mod, &stage->run.options, FJ_FORWARD,
                                 &stage->run.inputs, &stage->run.outputs);
    if (status == CLI_EXIT_OK) status = cli_kernel_run(&kernel, &ignored);
    cli_kernel_close(&kernel);
    return status;
}

static fj_mod *without_const(const fj_mod *mod) {
    union {
        const fj_mod *constant;
        fj_mod *pointer;
    } same = {.constant = mod};
    return same.pointer;
}

int cli_stage_open(const cli_tune *tune, const cli_tune_row *row, bool small, cli_stage *stage) {
    cli_run *run = &stage->run;
    *stage = (cli_stage){.direction = row->direction};
    *run = (cli_run){.args = tune->args,
                     .context = tune->context,
                     .device = tune->device,
                     .mod = without_const(row->mod),
                     .options = row->options,
                     .backward = row->direction == FJ_BACKWARD};
    cli_forget_variants(&run->options);
    if (small) run->options.shape = small_shape(&row->options.shape, row->direction);
    int status = fill(tune, row, stage);
    if (status == CLI_EXIT_OK) status = guard_all(stage);
    if (status == CLI_EXIT_OK && run->backward) status = run_forward(stage);
    if (status == CLI_EXIT_OK && small) {
        run->comparisons = calloc(run->list.count + 1, sizeof *run->comparisons);
        status = run->comparisons == NULL ? cli_no_memory() : cli_check_open(run, &stage->check);
    }
    if (status != CLI_EXIT_OK) cli_stage_close(stage);
    return status;
}

void cli_stage_close(cli_stage *stage) {
    cli_run *run = &stage->run;
    for (size_t i = 0; stage->expected != NULL && i < run->list.count; i++) free(stage->expected[i]);
    free(stage->expected);
    free(stage->noise);
    cli_check_close(&stage->check);
    free(run->comparisons);
    cli_output_list_finish(&run->list);
    cli_outputs_finish(&run->outputs);
    cli_inputs_finish(&run->inputs);
    for (size_t i = 0; i < stage->guard_count; i++) guard_close(&stage->guards[i]);
    free(stage->guards);
    *stage = (cli_stage){0};
}

/* ---- Trials ------------------------------------------------------------------------------ */

static int guard_workspace(cli_trial *trial) {
    cli_kernel *kernel = &trial->kernel;
    const bool host = fj_device_dlpack(kernel->device).device_type == kDLCPU;
    if (kernel->workspace_size == 0) return CLI_EXIT_OK;
    fj_device_free(kernel->device, &kernel->workspace);
    if (host) {
        int status = guard_open(&trial->guard, kernel->workspace_size, WORKSPACE_ALIGNMENT);
        kernel->workspace = trial->guard.data;
        return status;
    }
    fj_error error = {0};
    const fj_status result =
        fj_device_alloc(kernel->device, kernel->workspace_size + TAIL, &trial->workspace, &error);
    kernel->workspace = trial->workspace;
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

int cli_trial_open(cli_stage *stage, const char *variant, cli_trial *trial) {
    *trial = (cli_trial){0};
    cli_call_options options = stage->run.options;
    options.variants[stage->direction] = variant;
    int status = cli_kernel_open(&trial->kernel, stage->run.device, stage->run.mod, &options,
                                 stage->direction, &stage->run.inputs, &stage->run.outputs);
    if (status == CLI_EXIT_OK) status = guard_workspace(trial);
    if (status == CLI_EXIT_OK) status = cli_kernel_put(&trial->kernel);
    if (status != CLI_EXIT_OK) cli_trial_close(trial);
    return status;
}

void cli_trial_close(cli_trial *trial) {
    cli_kernel *kernel = &trial->kernel;
    if (trial->guard.map != NULL || trial->workspace != NULL) kernel->workspace = NULL;
    fj_device_free(kernel->device, &trial->workspace);
    guard_close(&trial->guard);
    cli_kernel_close(kernel);
    *trial = (cli_trial){0};
}

static fj_status poison(cli_stage *stage, const cli_trial *trial, fj_error *error) {
    const cli_kernel *kernel = &trial->kernel;
    bool backward;
    cli_view *view;
    for (size_t i = 0; output_at(&stage->run.outputs, i, &backward, &view); i++) {
        if (cli_view_is_set(view) && backward == stage->run.backward)
            memset(view->tensor.data, POISON, bytes_of(view));
    }
    fj_status result = FJ_OK;
    for (size_t i = 0; result == FJ_OK && i < kernel->copies.count; i++) {
        const cli_device_copy *copy = &kernel->copies.items[i];
        if (copy->is_output)
            result =
                fj_device_fill(kernel->device, copy->tensor.data, POISON, bytes_of(copy->host), NULL, error);
    }
    if (result == FJ_OK && kernel->workspace_size > 0)
        result =
            fj_device_fill(kernel->device, kernel->workspace, POISON, kernel->workspace_size, NULL, error);
    if (result == FJ_OK && trial->workspace != NULL)
        result = fj_device_fill(kernel->device, (char *)trial->workspace + kernel->workspace_size, PATTERN,
                                TAIL, NULL, error);
    return result;
}

/* What a launch wrote where nothing of it belongs. */
static int check_guards(const cli_stage *stage, const cli_trial *trial, char wrong[CLI_WRONG_SIZE]) {
    bool whole = guard_is_whole(&trial->guard);
    if (trial->workspace != NULL) {
        uint8_t tail[TAIL];
        fj_error error = {0};
        fj_status result =
            fj_device_download(trial->kernel.device, tail,
                               (char *)trial->workspace + trial->kernel.workspace_size, TAIL, NULL, &error);
        if (result == FJ_OK) result = fj_device_wait(trial->kernel.device, NULL, &error);
        if (result != FJ_OK) return cli_fail_library(result, &error);
        for (size_t i = 0; i < TAIL; i++) whole = whole && tail[i] == PATTERN;
    }
    if (!whole) snprintf(wrong, CLI_WRONG_SIZE, "it writes outside of its workspace");
    for (size_t i = 0; i < stage->guard_count; i++)
        if (!guard_is_whole(&stage->guards[i]))
            snprintf(wrong, CLI_WRONG_SIZE, "it writes outside of its outputs");
    return CLI_EXIT_OK;
}

/* ---- Comparing --------------------------------------------------------------------------- */

static int check_reference(cli_stage *stage, char wrong[CLI_WRONG_SIZE]) {
    bool ok = true;
    cli_run *run = &stage->run;
    const int status = cli_check_compare(stage->check, run, run->comparisons, &ok);
    for (size_t i = 0; status == CLI_EXIT_OK && !ok && i < run->list.count; i++) {
        const cli_comparison *of = &run->comparisons[i];
        if (of->ok) continue;
        if (isfinite(of->max))
            snprintf(wrong, CLI_WRONG_SIZE,
                     "%.60s differs from the reference: mean %.3g, bound %.3g, largest %.3g",
                     run->list.items[i].name, of->mean, of->bound, of->max);
        else
            snprintf(
                wrong, CLI_WRONG_SIZE,
                "%.60s has NaN, infinities or values of masked rows that the reference has not, or lacks them",
                run->list.items[i].name);
        break;
    }
    return status;
}

/* Of a result whose terms cancel nothing is left but rounding: the gradient of what is added to all scores of a row is 0. */
static const double times_noise = 64;

/* How far two right results of a dtype may be apart, in units of what is usual in their row or tensor: both round products
 * and sums in another order, and 16-bit probabilities each for itself. */
static double distance(fj_dtype dtype) {
    switch (dtype) {
    case FJ_DTYPE_F16: return 0.02;
    case FJ_DTYPE_BF16: return 0.12;
    case FJ_DTYPE_F64: return 1e-9;
    default: return 3e-4;
    }
}

typedef struct difference {
    double largest; /* in units of what is allowed */
    bool exact;     /* what is not finite is so in both */
} difference;

static double root_mean_square(const cli_view *view, const void *data, size_t first, size_t count) {
    double sum = 0;
    size_t finite = 0;
    for (size_t i = first; i < first + count; i++) {
        const double value = cli_load(view->dtype, data, i);
        if (!isfinite(value)) continue;
        sum += value * value;
        finite++;
    }
    return finite > 0 ? sqrt(sum / (double)finite) : 0;
}

static difference differ(const cli_view *view, const void *expected, fj_dtype dtype, double noise) {
    const DLTensor *tensor = &view->tensor;
    const size_t width =
        tensor->ndim > 0 && tensor->shape[tensor->ndim - 1] > 0 ? (size_t)tensor->shape[tensor->ndim - 1] : 1;
    const double usual = root_mean_square(view, expected, 0, view->count);
    difference result = {.exact = true};
    for (size_t row = 0; row + width <= view->count; row += width) {
        const double scale = fmax(usual, root_mean_square(view, expected, row, width));
        const double allowed = fmax(distance(dtype) * scale, times_noise * noise);
        for (size_t i = row; i < row + width; i++) {
            const double x = cli_load(view->dtype, tensor->data, i), y = cli_load(view->dtype, expected, i);
            if (isfinite(x) && isfinite(y)) {
                if (x != y) result.largest = fmax(result.largest, fabs(x - y) / allowed);
            } else if (isnan(y) ? !isnan(x) : x != y) {
                result.exact = false;
            }
        }
    }
    return result;
}

static void check_expected(const cli_stage *stage, char wrong[CLI_WRONG_SIZE]) {
    for (size_t i = 0; i < stage->run.list.count; i++) {
        const cli_output *output = &stage->run.list.items[i];
        if (stage->expected[i] == NULL) continue;
        const difference of = differ(output->view, stage->expected[i], stage->run.options.dtype,
                                     stage->noise != NULL ? stage->noise[i] : 0);
        if (of.exact && of.largest <= 1) continue;
        if (of.exact)
            snprintf(wrong, CLI_WRONG_SIZE,
                     "%.60s is %.3g times as far from the default's as rounding explains", output->name,
                     of.largest);
        else
            snprintf(wrong, CLI_WRONG_SIZE, "%.60s has NaN or infinities where the default has none",
                     output->name);
        return;
    }
}

/* A row of an output has as much of it in both shapes; the gradient of a capture is a sum over more scores, whose rounding
 * grows by the root of their number at most. */
int cli_stage_learn(cli_stage *stage, const cli_stage *small) {
    const cli_shape *big = &stage->run.options.shape, *of = &small->run.options.shape;
    const double growth =
        sqrt((double)(big->batch * big->heads) / (double)(of->batch * of->heads) *
             ((double)big->q_len / (double)of->q_len) * ((double)big->kv_len / (double)of->kv_len));
    const cli_output_list *list = &stage->run.list;
    stage->noise = calloc(list->count + 1, sizeof *stage->noise);
    if (stage->noise == NULL) return cli_no_memory();
    for (size_t i = 0; i < list->count; i++)
        stage->noise[i] =
            cli_check_noise(small->check, i) * (list->items[i].kind == CLI_OUTPUT_GRADIENT ? growth : 1);
    return CLI_EXIT_OK;
}

int cli_stage_expect(cli_stage *stage) {
    const cli_output_list *list = &stage->run.list;
    if (stage->expected == NULL) stage->expected = calloc(list->count + 1, sizeof *stage->expected);
    if (stage->expected == NULL) return cli_no_memory();
    for (size_t i = 0; i < list->count; i++) {
        const cli_output *output = &list->items[i];
        if ((output->kind >= CLI_OUTPUT_DQ) != stage->run.backward) continue;
        const size_t size = bytes_of(output->view);
        free(stage->expected[i]);
        stage->expected[i] = malloc(size + 1);
        if (stage->expected[i] == NULL) return cli_no_memory();
        memcpy(stage->expected[i], output->view->tensor.data, size);
    }
    return CLI_EXIT_OK;
}

int cli_trial_check(cli_stage *stage, cli_trial *trial, char ret_wrong[CLI_WRONG_SIZE]) {
    fj_error error = {0};
    const fj_status result = poison(stage, trial, &error);
    double ignored;
    ret_wrong[0] = '\0';
    int status = result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
    if (status == CLI_EXIT_OK) status = cli_kernel_launch(&trial->kernel, &ignored);
    if (status == CLI_EXIT_OK) status = cli_kernel_get(&trial->kernel);
    if (status == CLI_EXIT_OK) status = check_guards(stage, trial, ret_wrong);
    if (status == CLI_EXIT_OK && ret_wrong[0] == '\0' && stage->check != NULL)
        status = check_reference(stage, ret_wrong);
    if (status == CLI_EXIT_OK && ret_wrong[0] == '\0' && stage->expected != NULL)
        check_expected(stage, ret_wrong);
    return status;
}
