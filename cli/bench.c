/* `flexjit bench`: the time of a mod over shapes, dtypes, directions and devices. */
#include "cli/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "cli/mod.h"
#include "cli/number.h"
#include "cli/report.h"
#include "cli/verbs.h"

enum { MOST_LAUNCHES = 1000000, FEWEST = 3, MOST = 100 };
static const double timed_ms = 500;

typedef struct bench {
    const cli_args *args;
    fj_context *context;
    cli_bindings bindings;
    fj_mod *mod;
    cli_shapes shapes;
    int devices[CLI_MAX_CHOICES], dtypes[CLI_MAX_CHOICES], directions[CLI_MAX_CHOICES];
    size_t device_count, dtype_count, direction_count;
    long long warmup, repeat, seed; /* repeat 0: for a time */
    double scale;
    cli_call_options options;
    cli_bench_report report;
    size_t done;
} bench;

/* In the order of --dtype's choices. */
static const fj_dtype dtypes[] = {FJ_DTYPE_F16, FJ_DTYPE_BF16, FJ_DTYPE_F32, FJ_DTYPE_F64};
enum { F32_CHOICE = 2, DTYPES = 4 };

/* ---- Random tensors ---------------------------------------------------------------------- */

static int fill_normal(cli_view *view, const char *name, fj_dtype dtype, int rank, const int64_t *dims,
                       uint64_t seed) {
    int status = cli_view_allocate(view, name, dtype, rank, dims);
    cli_random random = {seed};
    for (size_t i = 0; status == CLI_EXIT_OK && i < view->count; i++) {
        cli_store(dtype, view->tensor.data, i, cli_random_normal(&random));
    }
    return status;
}

/* Integers are likely indices: below every extent that they may index. */
static int64_t least_extent(const bench *b, const cli_shape *shape) {
    int64_t least = shape->q_len < shape->kv_len ? shape->q_len : shape->kv_len;
    for (size_t i = 0; i < b->bindings.count; i++) {
        const fj_binding *binding = &b->bindings.items[i];
        for (int d = 0; d < binding->rank; d++) {
            if (binding->dims[d] >= 1 && binding->dims[d] < least) least = binding->dims[d];
        }
    }
    return least < 1 ? 1 : least < INT32_MAX ? least : INT32_MAX;
}

static int by_value(const void *a, const void *b) {
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

static int fill_integers(cli_view *view, const char *name, const fj_binding *binding, int64_t bound,
                         uint64_t seed) {
    int status = cli_view_allocate(view, name, binding->dtype, binding->rank, binding->dims);
    int64_t *values = status == CLI_EXIT_OK ? malloc((view->count + 1) * sizeof *values) : NULL;
    if (status == CLI_EXIT_OK && values == NULL) status = cli_no_memory();
    if (status != CLI_EXIT_OK) return status;
    cli_random random = {seed};
    if (binding->dtype == FJ_DTYPE_BOOL) bound = 2;
    for (size_t i = 0; i < view->count; i++) values[i] = cli_random_below(&random, bound);
    if (binding->rank == 1 && binding->dtype != FJ_DTYPE_BOOL)
        qsort(values, view->count, sizeof *values, by_value);
    for (size_t i = 0; i < view->count; i++)
        cli_store(binding->dtype, view->tensor.data, i, (double)values[i]);
    free(values);
    return CLI_EXIT_OK;
}

static const fj_binding *find_binding(const bench *b, const char *name) {
    for (size_t i = 0; i < b->bindings.count; i++) {
        if (strcmp(b->bindings.items[i].name, name) == 0) return &b->bindings.items[i];
    }
    return NULL;
}

static int64_t dtype_bound(fj_dtype dtype, int64_t bound) {
    int64_t most = dtype == FJ_DTYPE_I8  ? 128
                 : dtype == FJ_DTYPE_U8  ? 256
                 : dtype == FJ_DTYPE_I16 ? 32768
                                         : bound;
    return bound < most ? bound : most;
}

static int fill_capture(const bench *b, const cli_shape *shape, size_t index, cli_view *view) {
    const char *name = fj_mod_capture(b->mod, index).name;
    const cli_tensor *tensor = cli_st_find(&b->bindings.file, name);
    if (tensor != NULL && tensor->known) {
        return cli_view_borrow(view, name, tensor->dtype, tensor->rank, tensor->dims, tensor->data);
    }
    const fj_binding *binding = find_binding(b, name);
    if (binding == NULL) return cli_fail(CLI_EXIT_FAILED, "captured tensor '%.100s' is not bound", name);
    for (int d = 0; d < binding->rank; d++) {
        if (binding->dims[d] >= 0) continue;
        return cli_usage(b->args->verb, "'--bind %.100s': to fill the tensor, its whole shape must be given",
                         name);
    }
    uint64_t seed = (uint64_t)b->seed * 1000 + 10 + index;
    switch (binding->dtype) {
    case FJ_DTYPE_F16:
    case FJ_DTYPE_BF16:
    case FJ_DTYPE_F32:
    case FJ_DTYPE_F64: return fill_normal(view, name, binding->dtype, binding->rank, binding->dims, seed);
    case FJ_DTYPE_F8_E4M3:
    case FJ_DTYPE_F8_E5M2:
        return cli_fail(CLI_EXIT_FAILED, "captured tensor '%.100s': %s is not filled; give it with --input",
                        name, fj_dtype_name(binding->dtype));
    default:
        return fill_integers(view, name, binding, dtype_bound(binding->dtype, least_extent(b, shape)), seed);
    }
}

static int fill_inputs(const bench *b, const cli_call_options *options, bool backward, cli_inputs *inputs) {
    const cli_shape *s = &options->shape;
    const int64_t q[4] = {s->batch, s->heads, s->q_len, s->head_dim};
    const int64_t k[4] = {s->batch, s->kv_heads, s->kv_len, s->head_dim};
    const int64_t v[4] = {s->batch, s->kv_heads, s->kv_len, s->value_dim};
    const int64_t out[4] = {s->batch, s->heads, s->q_len, s->value_dim};
    uint64_t seed = (uint64_t)b->seed * 1000;
    int status = cli_inputs_begin(inputs, b->mod);
    if (status == CLI_EXIT_OK) status = fill_normal(&inputs->query, "q", options->dtype, 4, q, seed);
    if (status == CLI_EXIT_OK) status = fill_normal(&inputs->key, "k", options->dtype, 4, k, seed + 1);
    if (status == CLI_EXIT_OK) status = fill_normal(&inputs->value, "v", options->dtype, 4, v, seed + 2);
    if (status == CLI_EXIT_OK && backward)
        status = fill_normal(&inputs->dout, "do", options->dtype, 4, out, seed + 3);
    for (size_t i = 0; status == CLI_EXIT_OK && i < inputs->capture_count; i++) {
        status = fill_capture(b, s, i, &inputs->captures[i]);
    }
    return status;
}

/* ---- One row ----------------------------------------------------------------------------- */

static size_t bytes_of(const cli_view *view) { return view->count * fj_dtype_size(view->dtype); }

/* Every tensor of the launch, once. A view that is not set has no elements. */
static double launch_bytes(const cli_inputs *in, const cli_outputs *out, fj_direction direction) {
    size_t bytes = bytes_of(&in->query) + bytes_of(&in->key) + bytes_of(&in->value) + bytes_of(&out->out) +
                   bytes_of(&out->lse);
    if (direction == FJ_BACKWARD) {
        bytes += bytes_of(&in->dout) + bytes_of(&out->dquery) + bytes_of(&out->dkey) + bytes_of(&out->dvalue);
    }
    for (size_t i = 0; i < in->capture_count; i++) {
        bytes += bytes_of(&in->captures[i]);
        if (direction == FJ_BACKWARD) bytes += bytes_of(&out->dcaptures[i]);
    }
    return (double)bytes;
}

static int by_time(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Launches for as long as asked; an interruption is status 130. */
static int time_launches(const bench *b, cli_kernel *kernel, cli_bench_row *row) {
    long long most = b->repeat > 0 ? b->repeat : MOST;
    double *times = malloc((size_t)most * sizeof *times), ignored, total = 0;
    if (times == NULL) return cli_no_memory();
    int status = CLI_EXIT_OK;
    for (long long i = 0; status == CLI_EXIT_OK && i < b->warmup; i++) {
        status = cli_interrupted() ? CLI_EXIT_INTERRUPTED : cli_kernel_launch(kernel, &ignored);
    }
    size_t count = 0;
    while (status == CLI_EXIT_OK && count < (size_t)most) {
        if (b->repeat == 0 && count >= FEWEST && total >= timed_ms) break;
        status = cli_interrupted() ? CLI_EXIT_INTERRUPTED : cli_kernel_launch(kernel, &times[count]);
        if (status == CLI_EXIT_OK) total += times[count++];
    }
    if (status == CLI_EXIT_OK) {
        qsort(times, count, sizeof *times, by_time);
        row->launches = (int)count;
        row->min_ms = times[0];
        row->max_ms = times[count - 1];
        row->median_ms = (times[(count - 1) / 2] + times[count / 2]) / 2;
    }
    free(times);
    return status;
}

static int time_direction(const bench *b, fj_device *device, const cli_call_options *options,
                          const cli_inputs *inputs, const cli_outputs *outputs, cli_bench_row *row) {
    cli_kernel kernel = {0};
    int status = CLI_EXIT_OK;
    if (row->direction == FJ_BACKWARD) { /* which needs out and lse */
        double ignored;
        status = cli_kernel_open(&kernel, device, b->mod, options, FJ_FORWARD, inputs, outputs);
        if (status == CLI_EXIT_OK) status = cli_kernel_run(&kernel, &ignored);
        cli_kernel_close(&kernel);
    }
    if (status == CLI_EXIT_OK && cli_interrupted()) status = CLI_EXIT_INTERRUPTED;
    if (status == CLI_EXIT_OK) {
        status = cli_kernel_open(&kernel, device, b->mod, options, row->direction, inputs, outputs);
    }
    if (status == CLI_EXIT_OK) status = cli_kernel_put(&kernel);
    if (status == CLI_EXIT_OK) status = time_launches(b, &kernel, row);
    if (status == CLI_EXIT_OK) {
        snprintf(row->variant, sizeof row->variant, "%s", kernel.info.variant);
        row->blocks = kernel.blocks;
        row->flops = cli_flops(&options->shape, row->direction, &kernel.blocks);
        row->bytes = launch_bytes(inputs, outputs, row->direction);
    }
    cli_kernel_close(&kernel);
    return status;
}

static int time_row(const bench *b, fj_device *device, const cli_shape *shape, cli_bench_row *row) {
    cli_call_options options = b->options;
    bool backward = row->direction == FJ_BACKWARD;
    options.shape = row->shape = *shape;
    options.dtype = row->dtype;
    options.scale = isnan(b->scale) ? 1 / sqrt((double)shape->head_dim) : b->scale;
    cli_inputs inputs = {0};
    cli_outputs outputs = {0};
    int status = fill_inputs(b, &options, backward, &inputs);
    if (status == CLI_EXIT_OK) {
        status = cli_outputs_allocate(&outputs, &options, &inputs, b->mod, backward, row->dtype,
                                      cli_statistics_dtype(row->dtype));
    }
    if (status == CLI_EXIT_OK) status = time_direction(b, device, &options, &inputs, &outputs, row);
    cli_outputs_finish(&outputs);
    cli_inputs_finish(&inputs);
    return cli_interrupted() ? CLI_EXIT_INTERRUPTED : status;
}

/* ---- All rows ---------------------------------------------------------------------------- */

static void show_progress(const bench *b, size_t all) {
    if (isatty(STDERR_FILENO) == 0 || isatty(STDOUT_FILENO) != 0) return;
    fprintf(stderr, "\r%zu of %zu%s", b->done, all, b->done == all ? "\n" : "");
}

/* The peak, measured when it is first needed; 0 when the device has none. */
static double peak_of(const bench *b, fj_device *device, int dtype, double peaks[DTYPES]) {
    if (!isnan(peaks[dtype])) return peaks[dtype];
    fj_error error = {0};
    double peak = 0;
    if (fj_device_peak(device, dtypes[dtype], b->options.workers, &peak, &error) != FJ_OK)
        fj_error_finish(&error);
    return peaks[dtype] = peak;
}

static int time_on_device(bench *b, fj_device *device) {
    double peaks[DTYPES] = {(double)NAN, (double)NAN, (double)NAN, (double)NAN};
    size_t all = b->shapes.count * b->dtype_count * b->direction_count * b->device_count;
    size_t each = b->dtype_count * b->direction_count;
    for (size_t i = 0; i < b->shapes.count * each; i++) {
        int dtype = b->dtypes[i % each / b->direction_count];
        cli_bench_row row = {
            .dtype = dtypes[dtype],
            .direction = (fj_direction)b->directions[i % b->direction_count],
            .device = fj_device_name(device),
        };
        show_progress(b, all);
        int status = time_row(b, device, &b->shapes.items[i / each], &row);
        if (status != CLI_EXIT_OK) return status;
        row.peak_flops = peak_of(b, device, dtype, peaks);
        status = cli_bench_report_add(&b->report, &row);
        if (status != CLI_EXIT_OK) return status;
        b->done++;
        show_progress(b, all);
    }
    return CLI_EXIT_OK;
}

static int time_all(bench *b, cli_bench_format format) {
    fj_device *devices[CLI_MAX_CHOICES] = {0};
    int status = CLI_EXIT_OK;
    for (size_t i = 0; status == CLI_EXIT_OK && i < b->device_count; i++) {
        status = cli_device_open(b->context, b->args, (cli_device)b->devices[i], &devices[i]);
    }
    if (status == CLI_EXIT_OK) {
        cli_interrupt_defer();
        cli_bench_report_begin(&b->report, format, fj_device_name(devices[0]));
        for (size_t i = 0; status == CLI_EXIT_OK && i < b->device_count; i++)
            status = time_on_device(b, devices[i]);
        int printed = cli_bench_report_end(&b->report);
        if (status == CLI_EXIT_OK) status = printed;
    }
    for (size_t i = 0; i < b->device_count; i++) fj_device_unref(&devices[i]);
    return status;
}

/* ---- Options ----------------------------------------------------------------------------- */

static int choices_or(const cli_args *args, cli_option option, int otherwise, int indices[CLI_MAX_CHOICES],
                      size_t *ret_count) {
    int status = cli_args_choices(args, option, indices, ret_count);
    if (status == CLI_EXIT_OK && *ret_count == 0) {
        indices[0] = otherwise;
        *ret_count = 1;
    }
    return status;
}

static int read_numbers(bench *b) {
    const cli_args *args = b->args;
    bool once = cli_args_has(args, CLI_OPT_ONCE);
    b->warmup = once ? 0 : 1;
    b->repeat = once ? 1 : 0;
    b->seed = 1;
    b->scale = (double)NAN;
    if (once && (cli_args_has(args, CLI_OPT_REPEAT) || cli_args_has(args, CLI_OPT_WARMUP))) {
        return cli_usage(args->verb, "--once goes with neither --repeat nor --warmup");
    }
    int status = cli_args_integer(args, CLI_OPT_REPEAT, 1, MOST_LAUNCHES, &b->repeat);
    if (status == CLI_EXIT_OK) status = cli_args_integer(args, CLI_OPT_WARMUP, 0, MOST_LAUNCHES, &b->warmup);
    if (status == CLI_EXIT_OK) status = cli_args_integer(args, CLI_OPT_SEED, 0, INT32_MAX, &b->seed);
    if (status == CLI_EXIT_OK) status = cli_args_real(args, CLI_OPT_SCALE, &b->scale);
    if (status == CLI_EXIT_OK) status = cli_read_call_options(args, &b->options);
    return status;
}

static int read_options(bench *b, int *ret_format) {
    const cli_args *args = b->args;
    int status = cli_shapes_parse(args, &b->shapes);
    if (status == CLI_EXIT_OK)
        status = choices_or(args, CLI_OPT_DEVICES, CLI_DEVICE_AUTO, b->devices, &b->device_count);
    if (status == CLI_EXIT_OK)
        status = choices_or(args, CLI_OPT_DTYPES, F32_CHOICE, b->dtypes, &b->dtype_count);
    if (status == CLI_EXIT_OK) {
        status = choices_or(args, CLI_OPT_DIRECTIONS, FJ_FORWARD, b->directions, &b->direction_count);
    }
    if (status == CLI_EXIT_OK) status = cli_args_choice(args, CLI_OPT_FORMAT, CLI_FORMAT_TABLE, ret_format);
    if (status == CLI_EXIT_OK) status = read_numbers(b);
    if (status == CLI_EXIT_OK && cli_report_is_json()) *ret_format = CLI_FORMAT_JSON;
    if (status == CLI_EXIT_OK && *ret_format == CLI_FORMAT_JSON) cli_report_begin(true);
    return status;
}

int cli_verb_bench(const cli_args *args) {
    bench b = {.args = args};
    int format = CLI_FORMAT_TABLE;
    int status = read_options(&b, &format);
    if (status == CLI_EXIT_OK) status = cli_context_open(&b.context);
    if (status == CLI_EXIT_OK) status = cli_bindings_open(args, &b.bindings);
    if (status == CLI_EXIT_OK) status = cli_mod_open(b.context, args, &b.bindings, false, &b.mod);
    if (status == CLI_EXIT_OK) status = time_all(&b, (cli_bench_format)format);
    fj_mod_unref(&b.mod);
    cli_bindings_close(&b.bindings);
    cli_shapes_finish(&b.shapes);
    fj_context_unref(&b.context);
    return status;
}
