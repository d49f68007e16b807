/* What `flexjit tune` is asked for: from options or a manifest to rows. */
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
    return status == CLI_EXIT_OK ? cli_read_call_options(args, options) : status;
}

/* ---- Rows -------------------------------------------------------------------------------- */

static int add_row(cli_tune *tune, const cli_tune_row *from, const cli_shape *shape, double scale) {
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
        status = add_row(tune, &row, &shapes.items[i / each], scale);
    }
    cli_shapes_finish(&shapes);
    return status;
}

/* ---- Manifests --------------------------------------------------------------------------- */

/* What an entry binds, again, as tensors are filled by it. It was read before: all of it is right. */
static int entry_bindings(const json_t *entry, cli_bindings *bindings) {
    const json_t *bind = json_object_get(entry, "bind");
    const char *key;
    json_t *value;
    bindings->items = calloc(json_object_size(bind) + 1, sizeof *bindings->items);
    if (bindings->items == NULL) return cli_no_memory();
    json_object_foreach(json_object_get(entry, "bind"), key, value) {
        fj_binding *binding = &bindings->items[bindings->count];
        if (cli_binding_parse(json_string_value(value), binding) != NULL) continue;
        binding->name = key;
        bindings->count++;
    }
    return CLI_EXIT_OK;
}

/* Calls that a sweep can make: dense ones, whose shape has the problem's dimensions. */
static bool suits(const fj_problem *problem, const cli_shape *shape) {
    const bool plain = problem->form == FJ_FORM_DENSE && !problem->block_mask && !problem->q_offset &&
                       !problem->shared_keys && !problem->max && !problem->dlse && problem->variant == NULL &&
                       problem->kernel == NULL && problem->option_count == 0;
    return plain && problem->head_dim == shape->head_dim && problem->value_dim == shape->value_dim;
}

static bool has_row(const cli_tune *tune, size_t from, const cli_tune_row *row, const cli_shape *shape) {
    for (size_t i = from; i < tune->row_count; i++) {
        const cli_tune_row *other = &tune->rows[i];
        if (other->direction == row->direction && other->options.dtype == row->options.dtype &&
            other->options.tf32 == row->options.tf32 &&
            other->options.nondeterministic == row->options.nondeterministic &&
            memcmp(&other->options.shape, shape, sizeof *shape) == 0)
            return true;
    }
    return false;
}

static int rows_of_shape(cli_tune *tune, const cli_call_options *options, size_t entry,
                         const cli_shape *shape, size_t first) {
    const cli_manifest *manifest = &tune->manifest;
    bool found = false;
    for (size_t i = 0; i < manifest->problem_count; i++) {
        const fj_problem *problem = &manifest->problems[i].problem;
        if (manifest->problems[i].entry != entry || !suits(problem, shape)) continue;
        cli_tune_row row = {.options = *options,
                            .direction = problem->direction,
                            .mod = manifest->entries[entry].mod,
                            .bindings = &tune->entry_bindings[entry]};
        row.options.dtype = problem->dtype;
        row.options.tf32 = problem->tf32;
        row.options.nondeterministic = problem->nondeterministic;
        found = true;
        if (has_row(tune, first, &row, shape)) continue; /* other lengths, or another number of heads */
        const int status = add_row(tune, &row, shape, (double)NAN);
        if (status != CLI_EXIT_OK) return status;
    }
    if (found) return CLI_EXIT_OK;
    return cli_fail_file(
        CLI_EXIT_FAILED, manifest->path,
        "entries[%zu]: none of its problems is of dense calls with the dimensions %lld and %lld of "
        "its shapes",
        entry, (long long)shape->head_dim, (long long)shape->value_dim);
}

static int rows_of_manifest(cli_tune *tune, const cli_call_options *options) {
    cli_manifest *manifest = &tune->manifest;
    int status =
        cli_manifest_open(cli_args_text(tune->args, CLI_OPT_MANIFEST, NULL), tune->context, manifest);
    if (status != CLI_EXIT_OK) return status;
    tune->entry_bindings = calloc(manifest->entry_count + 1, sizeof *tune->entry_bindings);
    if (tune->entry_bindings == NULL) return cli_no_memory();
    const json_t *entries = json_object_get(manifest->root, "entries");
    for (size_t e = 0; status == CLI_EXIT_OK && e < manifest->entry_count; e++) {
        const cli_shapes *shapes = &manifest->entries[e].shapes;
        const size_t first = tune->row_count;
        status = entry_bindings(json_array_get(entries, e), &tune->entry_bindings[e]);
        for (size_t i = 0; status == CLI_EXIT_OK && i < shapes->count; i++)
            status = rows_of_shape(tune, options, e, &shapes->items[i], first);
    }
    if (status == CLI_EXIT_OK && tune->row_count == 0)
        return cli_fail_file(CLI_EXIT_FAILED, manifest->path,
                             "no entry has 'shapes': there is nothing to tune for");
    return status;
}

/* ---- All --------------------------------------------------------------------------------- */

/* A manifest has it all. */
static int check_manifest(const cli_args *args) {
    static const cli_option others[] = {CLI_OPT_SHAPE,     CLI_OPT_DTYPES, CLI_OPT_DIRECTIONS,
                                        CLI_OPT_INPUT,     CLI_OPT_BIND,   CLI_OPT_NO_DETERMINISTIC,
                                        CLI_OPT_PRECISION, CLI_OPT_SCALE};
    if (!cli_args_has(args, CLI_OPT_MANIFEST)) return CLI_EXIT_OK;
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        if (cli_args_has(args, others[i]))
            return cli_usage(args->verb, "--manifest does not go with --%s",
                             cli_options[others[i]].long_name);
    return cli_mod_given(args) ? cli_usage(args->verb, "--manifest has its own mods") : CLI_EXIT_OK;
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
    const bool from_manifest = cli_args_has(args, CLI_OPT_MANIFEST);
    *ret_tune = (cli_tune){.args = args};
    int status = check_manifest(args);
    if (status == CLI_EXIT_OK) status = read_numbers(ret_tune, &options, &scale);
    if (status == CLI_EXIT_OK && !from_manifest) /* usage, before any work */
        status = rows_of_options(ret_tune, &options, scale);
    if (status == CLI_EXIT_OK) status = cli_args_choice(args, CLI_OPT_DEVICE, CLI_DEVICE_AUTO, &device);
    if (status == CLI_EXIT_OK && device == CLI_DEVICE_REFERENCE)
        status = cli_usage(args->verb, "the reference has no variants to choose from");
    if (status == CLI_EXIT_OK) status = cli_context_open(&ret_tune->context);
    if (status == CLI_EXIT_OK)
        status = cli_device_open(ret_tune->context, args, (cli_device)device, &ret_tune->device);
    if (status != CLI_EXIT_OK) return status;
    return from_manifest ? rows_of_manifest(ret_tune, &options) : open_mod(ret_tune);
}

void cli_tune_close(cli_tune *tune) {
    for (size_t i = 0; tune->entry_bindings != NULL && i < tune->manifest.entry_count; i++)
        cli_bindings_close(&tune->entry_bindings[i]);
    free(tune->entry_bindings);
    free(tune->rows);
    cli_manifest_close(&tune->manifest);
    fj_mod_unref(&tune->mod);
    cli_bindings_close(&tune->bindings);
    fj_device_unref(&tune->device);
    fj_context_unref(&tune->context);
    *tune = (cli_tune){0};
}
