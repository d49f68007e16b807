/* `fuse --run`: the graph before and after, on tensors of a file. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/call.h"
#include "cli/fuse.h"
#include "cli/report.h"

static bool find_input(void *user, const char *name, fj_dtype *ret_dtype, int *ret_rank,
                       const int64_t **ret_dims, const void **ret_data) {
    const cli_fuse_run *run = user;
    const cli_tensor *tensor = cli_st_find(&run->inputs, name);
    if (tensor == NULL || !tensor->known || tensor->rank > FJ_MAX_RANK) return false;
    *ret_dtype = tensor->dtype;
    *ret_rank = tensor->rank;
    *ret_dims = tensor->dims;
    *ret_data = tensor->data;
    return true;
}

static int evaluate(cli_fuse_run *run, fj_model *model, bool exact, fj_array **ret_outputs) {
    const fj_evaluation evaluation = {
        .input = find_input, .user = run, .exact = exact, .device = run->device, .context = run->context};
    fj_error error = {0};
    *ret_outputs = calloc(run->count + 1, sizeof **ret_outputs);
    if (*ret_outputs == NULL) return cli_no_memory();
    const fj_status result = fj_fuse_evaluate(model, &run->arena, &evaluation, *ret_outputs, &error);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

int cli_fuse_run_before(cli_fuse_run *run, fj_model *model) {
    const char *path = cli_args_text(run->args, CLI_OPT_FUSE_RUN, NULL);
    fj_arena_init(&run->arena, &fj_allocator_libc);
    if (path == NULL) return CLI_EXIT_OK;
    run->count = model->graph.outputs.len;
    cli_report_input(path);
    int status = cli_st_open(path, &run->inputs);
    if (status != CLI_EXIT_OK || !cli_args_has(run->args, CLI_OPT_FUSE_CHECK)) return status;
    status = evaluate(run, model, true, &run->exact);
    return status == CLI_EXIT_OK ? evaluate(run, model, false, &run->before) : status;
}

/* ---- Comparing --------------------------------------------------------------------------- */

typedef struct comparison {
    double most, mean, bound; /* errors of the rewritten graph; what the mean may be */
    bool ok;
} comparison;

static double unit_of(fj_dtype dtype) {
    return dtype == FJ_DTYPE_F64 ? 0x1p-52
         : dtype == FJ_DTYPE_F32 ? 0x1p-23
         : dtype == FJ_DTYPE_F16 ? 0x1p-10
                                 : 0x1p-7;
}

static bool notes_empty_rows(const fj_model *model) {
    for (size_t i = 0; i < model->findings.fused.len; i++)
        for (size_t j = 0; j < model->findings.fused.data[i].notes.len; j++)
            if (strncmp(model->findings.fused.data[i].notes.data[j], "rows that see nothing", 21) == 0)
                return true;
    return false;
}

/* Mean errors against the graph in double: mean |after - exact| <= F mean |before - exact| + A. Where the graph gives NaN for rows
 * that see nothing, as a note says, anything will do. */
static comparison compare(const fj_model *model, const fj_array *exact, const fj_array *before,
                          const fj_array *after) {
    comparison result = {.ok = true};
    double old = 0, magnitude = 0;
    int64_t counted = 0;
    const bool is_float = after->dtype >= FJ_DTYPE_F16, empty = notes_empty_rows(model);
    for (int64_t i = 0; i < after->count; i++) {
        const double x = after->data[i], b = before->data[i], e = exact->data[i];
        if (!is_float) {
            result.ok &= x == b;
            continue;
        }
        if (isnan(e) && (isnan(x) || empty)) continue;
        if (!isfinite(b) && (x == b || (isnan(x) && isnan(b)))) continue; /* the graph overflows by itself */
        if (isinf(e) || isnan(x) || isnan(e)) {
            result.ok &= x == e;
            continue;
        }
        const double error = fabs(x - e);
        result.mean += error;
        if (error > result.most) result.most = error;
        old += isfinite(b) ? fabs(b - e) : 0;
        magnitude += fabs(e);
        counted++;
    }
    if (counted == 0) return result;
    const double factor = after->dtype >= FJ_DTYPE_F32 ? 10 : 1.1;
    result.mean /= (double)counted;
    result.bound = factor * old / (double)counted + 4 * unit_of(after->dtype) * magnitude / (double)counted;
    result.ok &= result.mean <= result.bound;
    return result;
}

static int check(cli_fuse_run *run, const fj_model *model) {
    int status = CLI_EXIT_OK;
    run->errors = json_object();
    for (size_t i = 0; i < run->count; i++) {
        char name[32];
        const comparison found = compare(model, &run->exact[i], &run->before[i], &run->after[i]);
        (void)snprintf(name, sizeof name, "output_%zu", i);
        cli_note("%s: max %.3g, mean %.3g, bound %.3g: %s", name, found.most, found.mean, found.bound,
                 found.ok ? "ok" : "BAD");
        (void)json_object_set_new(run->errors, name,
                                  json_pack("{s:o, s:o, s:o}", "max", cli_json_number(found.most), "mean",
                                            cli_json_number(found.mean), "bound",
                                            cli_json_number(found.bound)));
        if (!found.ok && status == CLI_EXIT_OK)
            status = cli_fail(CLI_EXIT_FAILED,
                              "%s of the rewritten graph is out of bounds: mean error %.3g, bound %.3g", name,
                              found.mean, found.bound);
    }
    return status;
}

/* ---- Gradients --------------------------------------------------------------------------- */

static int check_one(cli_fuse_run *run, fj_model *before, fj_model *after, size_t index) {
    const fj_evaluation evaluation = {
        .input = find_input, .user = run, .device = run->device, .context = run->context};
    const char *name = after->findings.fused.data[index].name;
    fj_gradient_check *checks;
    fj_error error = {0};
    int count, status = CLI_EXIT_OK;
    const fj_status result =
        fj_fuse_check_gradients(before, after, index, &run->arena, &evaluation, &checks, &count, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    json_t *parts = json_object();
    for (int i = 0; i < count; i++) {
        const fj_gradient_check *each = &checks[i];
        cli_note("%s: gradient of '%s': error %.3g, bound %.3g: %s", name, each->name, each->error,
                 each->bound, each->ok ? "ok" : "BAD");
        (void)json_object_set_new(parts, each->name,
                                  json_pack("{s:o, s:o}", "error", cli_json_number(each->error), "bound",
                                            cli_json_number(each->bound)));
        if (!each->ok && status == CLI_EXIT_OK)
            status =
                cli_fail(CLI_EXIT_FAILED, "%s: the gradient of '%s' is out of bounds: error %.3g, bound %.3g",
                         name, each->name, each->error, each->bound);
    }
    (void)json_object_set_new(run->gradients, name, parts);
    return status;
}

/* The graph as it was is read again: the other one was rewritten. */
static int check_gradients(cli_fuse_run *run, fj_model *after) {
    fj_model *before = NULL;
    fj_error error = {0};
    const fj_status result = fj_fuse_open(run->args->positionals[0], NULL, &before, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    int status = CLI_EXIT_OK;
    run->gradients = json_object();
    for (size_t i = 0; i < after->findings.fused.len && status == CLI_EXIT_OK; i++)
        status = check_one(run, before, after, i);
    fj_fuse_close(&before);
    return status;
}

/* ---- Writing ----------------------------------------------------------------------------- */

static int write_outputs(cli_fuse_run *run, const char *folder) {
    cli_tensor *tensors = calloc(run->count + 1, sizeof *tensors);
    char(*names)[32] = calloc(run->count + 1, sizeof *names);
    const size_t room = strlen(folder) + sizeof "/outputs.safetensors";
    char *path = malloc(room);
    int status = tensors && names && path ? CLI_EXIT_OK : cli_no_memory();
    for (size_t i = 0; i < run->count && status == CLI_EXIT_OK; i++) {
        const fj_array *array = &run->after[i];
        const size_t size = (size_t)array->count * fj_dtype_size(array->dtype);
        void *data = fj_arena_alloc(&run->arena, size + 1);
        (void)snprintf(names[i], sizeof names[i], "output_%zu", i);
        if (data == NULL) {
            status = cli_no_memory();
            break;
        }
        fj_fuse_store(array, data);
        tensors[i] = (cli_tensor){.name = names[i],
                                  .dtype = array->dtype,
                                  .rank = array->rank,
                                  .dims = array->dims,
                                  .size = size,
                                  .data = data};
    }
    if (status == CLI_EXIT_OK) {
        cli_st_writer writer = {0};
        (void)snprintf(path, room, "%s/outputs.safetensors", folder);
        status = cli_st_create(path, tensors, run->count, &writer);
        if (status == CLI_EXIT_OK) status = cli_st_commit(&writer);
    }
    free(tensors);
    free(names);
    free(path);
    return status;
}

int cli_fuse_run_after(cli_fuse_run *run, fj_model *model) {
    const char *folder = cli_args_text(run->args, CLI_OPT_FUSE_OUTPUT, NULL);
    int which = CLI_DEVICE_CPU;
    if (!cli_args_has(run->args, CLI_OPT_FUSE_RUN)) return CLI_EXIT_OK;
    int status = cli_args_choice(run->args, CLI_OPT_FUSE_DEVICE, CLI_DEVICE_CPU, &which);
    if (status == CLI_EXIT_OK)
        status = cli_device_open(run->context, run->args, (cli_device)which, &run->device);
    if (status == CLI_EXIT_OK) status = evaluate(run, model, false, &run->after);
    if (status == CLI_EXIT_OK && folder != NULL) status = write_outputs(run, folder);
    if (status == CLI_EXIT_OK && run->exact != NULL) status = check(run, model);
    if (status == CLI_EXIT_OK && cli_args_has(run->args, CLI_OPT_FUSE_BACKWARD))
        status = check_gradients(run, model);
    return status;
}

void cli_fuse_run_finish(cli_fuse_run *run) {
    cli_st_close(&run->inputs);
    fj_arena_finish(&run->arena);
    free(run->exact);
    free(run->before);
    free(run->after);
    fj_device_unref(&run->device);
    fj_context_unref(&run->context);
    json_decref(run->errors);
    json_decref(run->gradients);
}
