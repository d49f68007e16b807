/* `flexjit bench`: the time of a mod over shapes, dtypes, directions and devices. */
#include "cli/bench.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/fill.h"
#include "cli/interrupt.h"
#include "cli/mod.h"
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

/* ---- One row ----------------------------------------------------------------------------- */

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
        cli_call_options before = *options; /* the kernel's options are of what is timed */
        before.kernel = NULL;
        before.kernel_option_count = 0;
        status = cli_kernel_open(&kernel, device, b->mod, &before, FJ_FORWARD, inputs, outputs);
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
        row->bytes = cli_launch_bytes(inputs, outputs, row->direction);
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
    const cli_fill fill = {b->mod, &b->bindings, b->args->verb, b->seed, false};
    int status = cli_fill_inputs(&fill, &options, backward, &inputs);
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
    b->options.dropout_seed = (uint64_t)b->seed;
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
