/* What `flexjit tune` is asked for: from options to rows. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/report.h"
#include "cli/tune.h"

enum { MOST_JOBS = 64, F32_CHOICE = 2 };
static const double most_seconds = 1e7;

/* ---- Options ----------------------------------------------------------------------------- */

static int choices_or(const cli_args *args, cli_option option, int otherwise, int indices[CLI_MAX_CHOICES],
                      size_t *ret_count) {
    const int status = cli_args_choices(args, option, indices, ret_count);
    if (status == CLI_EXIT_OK && *ret_count == 0) {
        indices[0] = otherwise;
        *ret_count = 1;
    }
    return status;
}

static int read_numbers(cli_tune *tune, cli_call_options *options, double *ret_scale) {
    const cli_args *args = tune->args;
    tune->seed = 1;
    tune->budget = (double)NAN;
    tune->jobs = sysconf(_SC_NPROCESSORS_ONLN);
    tune->jobs = tune->jobs < 1 ? 1 : tune->jobs > MOST_JOBS ? MOST_JOBS : tune->jobs;
    int status = cli_args_integer(args, CLI_OPT_SEED, 0, INT32_MAX, &tune->seed);
    if (status == CLI_EXIT_OK) status = cli_args_real(args, CLI_OPT_SCALE, ret_scale);
    if (status == CLI_EXIT_OK) status = cli_args_real(args, CLI_OPT_BUDGET, &tune->budget);
    if (status == CLI_EXIT_OK && (tune->budget < 0 || tune->budget > most_seconds))
        status = cli_usage(args->verb, "option '--budget' takes seconds from 0 to %.0f", most_seconds);
    if (status == CLI_EXIT_OK)
        status = cli_args_choice(args, CLI_OPT_STRATEGY, CLI_TUNE_RANDOM, &tune->strategy);
    if (status == CLI_EXIT_OK) status = cli_read_call_options(args, options);
    options->dropout_seed = (uint64_t)tune->seed;
    return status;
}

/* ---- Rows -------------------------------------------------------------------------------- */

int cli_tune_add_row(cli_tune *tune, const cli_tune_row *from, const cli_shape *shape, double scale) {
    if (tune->row_count == tune->row_room) {
        const size_t room = tune->row_room * 2 + 16;
        cli_tune_row *rows = realloc(tune->rows, room * sizeof *rows);
        if (rows == NULL) return cli_no_memory();
        tune->rows = rows;
        tune->row_room = room;
    }
    cli_tune_row *row = &tune->rows[tune->row_count++];
    *row = *from;
    row->options.shape = *shape;
    row->options.scale = isnan(scale) ? 1 / sqrt((double)shape->head_dim) : scale;
    return CLI_EXIT_OK;
}

static int rows_of_options(cli_tune *tune, const cli_call_options *options, double scale) {
    static const fj_dtype dtypes[] = {FJ_DTYPE_F16, FJ_DTYPE_BF16, FJ_DTYPE_F32, FJ_DTYPE_F64}; /* --dtype */
    int dtype[CLI_MAX_CHOICES], direction[CLI_MAX_CHOICES];
    size_t dtype_count = 0, direction_count = 0;
    cli_shapes shapes = {0};
    if (!cli_args_has(tune->args, CLI_OPT_SHAPE))
        return cli_usage(tune->args->verb,
                         "--shape is missing: what to tune for is said by it, --manifest or --from");
    int status = cli_shapes_parse(tune->args, &shapes);
    if (status == CLI_EXIT_OK)
        status = choices_or(tune->args, CLI_OPT_DTYPES, F32_CHOICE, dtype, &dtype_count);
    if (status == CLI_EXIT_OK)
        status = choices_or(tune->args, CLI_OPT_DIRECTIONS, FJ_FORWARD, direction, &direction_count);
    const size_t each = dtype_count * direction_count;
    for (size_t i = 0; status == CLI_EXIT_OK && i < shapes.count * each; i++) {
        cli_tune_row row = {.options = *options,
                            .direction = (fj_direction)direction[i % direction_count],
                            .bindings = &tune->bindings};
        row.options.dtype = dtypes[dtype[i % each / direction_count]];
        status = cli_tune_add_row(tune, &row, &shapes.items[i / each], scale);
    }
    cli_shapes_finish(&shapes);
    return status;
}

/* ---- All --------------------------------------------------------------------------------- */

/* Manifests and kept calls have it all. */
static int check_source(const cli_args *args, cli_option source) {
    static const cli_option others[] = {CLI_OPT_SHAPE,     CLI_OPT_DTYPES, CLI_OPT_DIRECTIONS,
                                        CLI_OPT_INPUT,     CLI_OPT_BIND,   CLI_OPT_NO_DETERMINISTIC,
                                        CLI_OPT_PRECISION, CLI_OPT_SCALE,  CLI_OPT_DROPOUT};
    const char *name = cli_options[source].long_name;
    if (!cli_args_has(args, source)) return CLI_EXIT_OK;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (cli_args_has(args, others[i]))
            return cli_usage(args->verb, "--%s does not go with --%s", name,
                             cli_options[others[i]].long_name);
    if (cli_mod_given(args)) return cli_usage(args->verb, "--%s has its own mods", name);
    if (source != CLI_OPT_MANIFEST && cli_args_has(args, CLI_OPT_MANIFEST))
        return cli_usage(args->verb, "--%s does not go with --manifest", name);
    return CLI_EXIT_OK;
}

static int open_mod(cli_tune *tune) {
    int status = cli_bindings_open(tune->args, &tune->bindings);
    if (status == CLI_EXIT_OK)
        status = cli_mod_open(tune->context, tune->args, &tune->bindings, false, &tune->mod);
    for (size_t i = 0; status == CLI_EXIT_OK && i < tune->row_count; i++) tune->rows[i].mod = tune->mod;
    return status;
}

int cli_tune_open(const cli_args *args, cli_tune *ret_tune) {
    cli_call_options options = {0};
    double scale = (double)NAN;
    int device = CLI_DEVICE_AUTO;
    const bool has_source = cli_args_has(args, CLI_OPT_MANIFEST) || cli_args_has(args, CLI_OPT_FROM);
    *ret_tune = (cli_tune){.args = args};
    int status = check_source(args, CLI_OPT_FROM);
    if (status == CLI_EXIT_OK) status = check_source(args, CLI_OPT_MANIFEST);
    if (status == CLI_EXIT_OK) status = read_numbers(ret_tune, &options, &scale);
    if (status == CLI_EXIT_OK && !has_source) /* usage, before any work */
        status = rows_of_options(ret_tune, &options, scale);
    if (status == CLI_EXIT_OK) status = cli_args_choice(args, CLI_OPT_DEVICE, CLI_DEVICE_AUTO, &device);
    if (status == CLI_EXIT_OK && device == CLI_DEVICE_REFERENCE)
        status = cli_usage(args->verb, "the reference has no variants to choose from");
    if (status == CLI_EXIT_OK) status = cli_context_open(&ret_tune->context);
    if (status == CLI_EXIT_OK)
        status = cli_device_open(ret_tune->context, args, (cli_device)device, &ret_tune->device);
    if (status != CLI_EXIT_OK) return status;
    return has_source ? cli_tune_source_rows(ret_tune, &options) : open_mod(ret_tune);
}

void cli_tune_close(cli_tune *tune) {
    free(tune->rows);
    cli_tune_sources_close(tune);
    fj_mod_unref(&tune->mod);
    cli_bindings_close(&tune->bindings);
    fj_device_unref(&tune->device);
    fj_context_unref(&tune->context);
    *tune = (cli_tune){0};
}
