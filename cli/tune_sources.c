/* What `flexjit tune` is asked for by a manifest, or by calls that were kept: from files to rows. */
#include <dirent.h>
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/report.h"
#include "cli/tune.h"

/* ---- Entries ----------------------------------------------------------------------------- */

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

#define CLI_TUNABLE \
    "only dense calls are tuned, without q_offset, block mask, shared keys, max, dlse, variant and options"

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
            other->options.dropout == row->options.dropout &&
            memcmp(&other->options.shape, shape, sizeof *shape) == 0)
            return true;
    }
    return false;
}

/* Kernels are as quick for every chance of dropout but 0 and 1. */
static void take_problem(cli_call_options *options, const fj_problem *problem) {
    options->dtype = problem->dtype;
    options->tf32 = problem->tf32;
    options->nondeterministic = problem->nondeterministic;
    options->dropout = problem->dropout;
    options->dropout_rate = problem->dropout ? 0.1 : 0;
}

static int rows_of_shape(cli_tune *tune, const cli_tune_source *source, const cli_call_options *options,
                         size_t entry, const cli_shape *shape, size_t first) {
    const cli_manifest *manifest = &source->manifest;
    bool found = false;
    for (size_t i = 0; i < manifest->problem_count; i++) {
        const fj_problem *problem = &manifest->problems[i].problem;
        if (manifest->problems[i].entry != entry || !suits(problem, shape)) continue;
        cli_tune_row row = {.options = *options,
                            .direction = problem->direction,
                            .mod = manifest->entries[entry].mod,
                            .bindings = &source->bindings[entry]};
        take_problem(&row.options, problem);
        found = true;
        if (has_row(tune, first, &row, shape)) continue; /* other lengths, or another number of heads */
        const int status = cli_tune_add_row(tune, &row, shape, manifest->entries[entry].scale);
        if (status != CLI_EXIT_OK) return status;
    }
    if (found) return CLI_EXIT_OK;
    return cli_fail_file(CLI_EXIT_FAILED, manifest->path,
                         "entries[%zu]: none of its problems can be tuned: " CLI_TUNABLE
                         ", of the dimensions %lld and %lld of "
                         "its shapes",
                         entry, (long long)shape->head_dim, (long long)shape->value_dim);
}

static int open_source(cli_tune *tune, const char *path, cli_tune_source *source) {
    source->path = strdup(path);
    if (source->path == NULL) return cli_no_memory();
    int status = cli_manifest_open(source->path, tune->context, &source->manifest);
    if (status != CLI_EXIT_OK) return status;
    source->bindings = calloc(source->manifest.entry_count + 1, sizeof *source->bindings);
    if (source->bindings == NULL) return cli_no_memory();
    const json_t *entries = json_object_get(source->manifest.root, "entries");
    for (size_t e = 0; status == CLI_EXIT_OK && e < source->manifest.entry_count; e++)
        status = entry_bindings(json_array_get(entries, e), &source->bindings[e]);
    return status;
}

static int rows_of_manifest(cli_tune *tune, const cli_call_options *options) {
    tune->sources = calloc(1, sizeof *tune->sources);
    if (tune->sources == NULL) return cli_no_memory();
    cli_tune_source *source = &tune->sources[tune->source_count++];
    int status = open_source(tune, cli_args_text(tune->args, CLI_OPT_MANIFEST, NULL), source);
    for (size_t e = 0; status == CLI_EXIT_OK && e < source->manifest.entry_count; e++) {
        const cli_shapes *shapes = &source->manifest.entries[e].shapes;
        const size_t first = tune->row_count;
        for (size_t i = 0; status == CLI_EXIT_OK && i < shapes->count; i++)
            status = rows_of_shape(tune, source, options, e, &shapes->items[i], first);
    }
    if (status == CLI_EXIT_OK && tune->row_count == 0)
        return cli_fail_file(CLI_EXIT_FAILED, source->path,
                             "no entry has 'shapes': there is nothing to tune for");
    return status;
}

/* ---- Calls that were kept ---------------------------------------------------------------- */

/* The shape of q, k and v of a file; false where they are not those of a dense call. */
static bool read_shape(const cli_safetensors *file, cli_shape *ret_shape) {
    const cli_tensor *q = cli_st_find(file, "q"), *k = cli_st_find(file, "k"), *v = cli_st_find(file, "v");
    if (q == NULL || k == NULL || v == NULL || q->rank != 4 || k->rank != 4 || v->rank != 4) return false;
    const cli_shape shape = {q->dims[0], q->dims[1], k->dims[1], q->dims[2],
                             k->dims[2], q->dims[3], v->dims[3]};
    const bool whole = shape.batch > 0 && shape.kv_heads > 0 && shape.q_len > 0 && shape.kv_len > 0;
    if (!whole || k->dims[0] != shape.batch || shape.heads < 1 || shape.heads % shape.kv_heads != 0)
        return false;
    *ret_shape = shape;
    return true;
}

/* A file's tensors, beside the manifest. */
static int open_tensors(const cli_tune_source *source, const char *name, cli_bindings *bindings) {
    const char *slash = strrchr(source->path, '/');
    char *path;
    if (asprintf(&path, "%.*s%s", slash == NULL ? 0 : (int)(slash - source->path + 1), source->path, name) <
        0)
        return cli_no_memory();
    const int status = cli_st_open(path, &bindings->file);
    free(path);
    return status;
}

/* One call, with its own tensors and scale. What a sweep cannot make is left out, with a warning. */
static int row_of_call(cli_tune *tune, cli_tune_source *source, const cli_call_options *options) {
    const json_t *entry = json_array_get(json_object_get(source->manifest.root, "entries"), 0);
    const json_t *call = json_object_get(entry, "call");
    const char *name = json_string_value(json_object_get(call, "tensors"));
    const json_t *scale = json_object_get(call, "scale");
    cli_shape shape;
    if (name == NULL || !json_is_number(scale) || source->manifest.entry_count != 1) {
        cli_warn("%.200s: it is no call that `flexjit run --capture` kept", source->path);
        return CLI_EXIT_OK;
    }
    int status = open_tensors(source, name, &source->bindings[0]);
    if (status != CLI_EXIT_OK) return status;
    for (size_t i = 0; i < source->manifest.problem_count; i++) {
        const fj_problem *problem = &source->manifest.problems[i].problem;
        if (!read_shape(&source->bindings[0].file, &shape) || !suits(problem, &shape)) continue;
        cli_tune_row row = {.options = *options,
                            .direction = problem->direction,
                            .mod = source->manifest.entries[0].mod,
                            .bindings = &source->bindings[0],
                            .kept = true};
        take_problem(&row.options, problem);
        if (json_is_number(json_object_get(call, "dropout")))
            row.options.dropout_rate = json_number_value(json_object_get(call, "dropout"));
        return cli_tune_add_row(tune, &row, &shape, json_number_value(scale));
    }
    cli_warn("%.200s: left out: " CLI_TUNABLE, source->path);
    return CLI_EXIT_OK;
}

static int is_manifest(const struct dirent *entry) {
    const size_t length = strlen(entry->d_name);
    return length > 5 && entry->d_name[0] != '.' && strcmp(entry->d_name + length - 5, ".json") == 0;
}

/* By name, so that every process has the same rows. */
static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int row_of_file(cli_tune *tune, const char *folder, const char *name,
                       const cli_call_options *options) {
    cli_tune_source *source = &tune->sources[tune->source_count++];
    char *path;
    if (asprintf(&path, "%s/%s", folder, name) < 0) return cli_no_memory();
    const int status = open_source(tune, path, source);
    free(path);
    return status == CLI_EXIT_OK ? row_of_call(tune, source, options) : status;
}

static int rows_of_folder(cli_tune *tune, const cli_call_options *options) {
    const char *folder = cli_args_text(tune->args, CLI_OPT_FROM, NULL);
    struct dirent **entries = NULL;
    const int count = scandir(folder, &entries, is_manifest, by_name);
    if (count < 0) return cli_fail_file(CLI_EXIT_FAILED, folder, "%s", strerror(errno));
    tune->sources = calloc((size_t)count + 1, sizeof *tune->sources);
    int status = tune->sources == NULL ? cli_no_memory() : CLI_EXIT_OK;
    for (int i = 0; i < count; i++) {
        if (status == CLI_EXIT_OK) status = row_of_file(tune, folder, entries[i]->d_name, options);
        free(entries[i]);
    }
    free(entries);
    if (status == CLI_EXIT_OK && tune->row_count == 0)
        return cli_fail_file(CLI_EXIT_FAILED, folder, "no call in it can be tuned");
    return status;
}

/* ---- All --------------------------------------------------------------------------------- */

int cli_tune_source_rows(cli_tune *tune, const cli_call_options *options) {
    const bool kept = cli_args_has(tune->args, CLI_OPT_FROM);
    return kept ? rows_of_folder(tune, options) : rows_of_manifest(tune, options);
}

void cli_tune_sources_close(cli_tune *tune) {
    for (size_t i = 0; i < tune->source_count; i++) {
        cli_tune_source *source = &tune->sources[i];
        for (size_t e = 0; source->bindings != NULL && e < source->manifest.entry_count; e++)
            cli_bindings_close(&source->bindings[e]);
        free(source->bindings);
        cli_manifest_close(&source->manifest);
        free(source->path);
    }
    free(tune->sources);
}
