/* `flexjit fuse`: attention in a tensor graph. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/fuse.h"
#include "cli/mod.h"
#include "cli/report.h"
#include "cli/verbs.h"

/* ---- What is written --------------------------------------------------------------------- */

static int write_in(const char *folder, const char *name, const char *suffix, const void *data, size_t size) {
    const size_t room = strlen(folder) + strlen(name) + strlen(suffix) + 2;
    char *path = malloc(room);
    if (path == NULL) return cli_no_memory();
    (void)snprintf(path, room, "%s/%s%s", folder, name, suffix);
    const int status = cli_write_file(path, data, size);
    free(path);
    return status;
}

static int write_text(const char *folder, const char *name, fj_model *model,
                      fj_status (*make)(fj_model *, fj_text *, fj_error *)) {
    fj_text text = {0};
    fj_error error = {0};
    const fj_status result = make(model, &text, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    const int status = write_in(folder, name, "", text.data, text.length);
    fj_text_finish(&text);
    return status;
}

static int write_all(const char *folder, fj_model *model) {
    int status = write_text(folder, "graph.json", model, fj_fuse_write_graph);
    if (status == CLI_EXIT_OK) status = write_text(folder, "manifest.json", model, fj_fuse_write_manifest);
    for (size_t i = 0; i < model->findings.fused.len && status == CLI_EXIT_OK; i++) {
        const fj_fused *fused = &model->findings.fused.data[i];
        status = write_in(folder, fused->name, ".py", fused->mod, strlen(fused->mod));
    }
    return status;
}

static int make_folder(const char *folder) {
    if (folder != NULL && mkdir(folder, 0777) != 0 && errno != EEXIST)
        return cli_fail_file(CLI_EXIT_FAILED, folder, "cannot be made: %s", strerror(errno));
    return CLI_EXIT_OK;
}

/* ---- The report -------------------------------------------------------------------------- */

/* A size as a number, or as text. */
static json_t *json_of_size(fj_model *model, fj_size size) {
    int64_t number;
    if (fj_size_is_const(&model->graph.sizes, size, &number)) return json_integer(number);
    return json_string("?");
}

static json_t *json_of_fused(fj_model *model, const fj_fused *fused) {
    json_t *notes = json_array(), *captures = json_array(), *shape = json_array();
    const fj_size sizes[] = {fused->batch,  fused->heads,    fused->kv_heads, fused->q_len,
                             fused->kv_len, fused->head_dim, fused->value_dim};
    for (size_t i = 0; i < fused->notes.len; i++)
        (void)json_array_append_new(notes, cli_json_text(fused->notes.data[i]));
    for (int i = 0; i < fused->capture_count; i++)
        (void)json_array_append_new(captures, cli_json_text(fused->capture_names[i]));
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++)
        (void)json_array_append_new(shape, json_of_size(model, sizes[i]));
    char mod[80];
    (void)snprintf(mod, sizeof mod, "%.60s.py", fused->name);
    return json_pack("{s:s, s:s, s:o, s:i, s:s, s:b, s:b, s:b, s:s, s:o, s:o, s:f, s:o, s:o, s:o}", "name",
                     fused->name, "pattern", fused->pattern, "softmax", cli_json_text(fused->softmax),
                     "nodes", fused->nodes, "mod", mod, "score_mod", fused->has_score, "mask_mod",
                     fused->has_mask, "sink_mod", fused->has_sink, "dtype", fj_dtype_name(fused->dtype),
                     "head_dim", json_of_size(model, fused->head_dim), "value_dim",
                     json_of_size(model, fused->value_dim), "scale", fused->scale, "shape", shape, "captures",
                     captures, "notes", notes);
}

static json_t *count_reasons(const fj_model *model) {
    json_t *counters = json_object();
    const fj_findings *found = &model->findings;
    (void)json_object_set_new(counters, "fused", json_integer((json_int_t)found->fused.len));
    (void)json_object_set_new(counters, "refused", json_integer((json_int_t)found->refused.len));
    for (size_t i = 0; i < found->refused.len; i++) {
        const char *name = fj_reason_name(found->refused.data[i].reason);
        const json_int_t before = json_integer_value(json_object_get(counters, name));
        (void)json_object_set_new(counters, name, json_integer(before + 1));
    }
    return counters;
}

static int print_json(fj_model *model, cli_fuse_run *run) {
    json_t *fused = json_array(), *refused = json_array(), *notes = json_array();
    const fj_findings *found = &model->findings;
    for (size_t i = 0; i < found->fused.len; i++)
        (void)json_array_append_new(fused, json_of_fused(model, &found->fused.data[i]));
    for (size_t i = 0; i < found->refused.len; i++) {
        const fj_refused *each = &found->refused.data[i];
        (void)json_array_append_new(
            refused, json_pack("{s:o, s:s, s:o}", "softmax", cli_json_text(each->softmax), "reason",
                               fj_reason_name(each->reason), "detail", cli_json_text(each->detail)));
    }
    for (size_t i = 0; i < model->graph.notes.len; i++)
        (void)json_array_append_new(notes, cli_json_text(model->graph.notes.data[i]));
    json_t *object = json_pack("{s:o, s:o, s:o, s:o, s:i}", "fused", fused, "refused", refused, "counters",
                               count_reasons(model), "notes", notes, "nodes", (int)model->graph.nodes.len);
    if (run->errors != NULL) (void)json_object_set(object, "errors", run->errors);
    if (run->gradients != NULL) (void)json_object_set(object, "gradients", run->gradients);
    json_t *error = cli_take_error();
    if (error != NULL) (void)json_object_set_new(object, "error", error);
    return cli_print_json(object);
}

static int print_text(const fj_model *model) {
    const fj_findings *found = &model->findings;
    for (size_t i = 0; i < found->fused.len; i++) {
        const fj_fused *fused = &found->fused.data[i];
        printf("%s: '%s' (%s), %s, %d nodes%s%s%s, scale %.9g\n", fused->name, fused->softmax, fused->pattern,
               fj_dtype_name(fused->dtype), fused->nodes, fused->has_score ? ", score mod" : "",
               fused->has_mask ? ", mask mod" : "", fused->has_sink ? ", sink mod" : "", fused->scale);
        for (size_t j = 0; j < fused->notes.len; j++) printf("    note: %s\n", fused->notes.data[j]);
    }
    for (size_t i = 0; i < found->refused.len; i++) {
        const fj_refused *each = &found->refused.data[i];
        printf("not fused: '%s': %s: %s\n", each->softmax, fj_reason_name(each->reason), each->detail);
    }
    printf("%zu fused, %zu not\n", found->fused.len, found->refused.len);
    return CLI_EXIT_OK;
}

/* ---- The verb ---------------------------------------------------------------------------- */

static int check_usage(const cli_args *args) {
    if (args->positional_count != 1)
        return cli_usage(args->verb, "it takes one graph, a .pt2, .onnx or .json file");
    if (cli_args_has(args, CLI_OPT_FUSE_CHECK) && !cli_args_has(args, CLI_OPT_FUSE_RUN))
        return cli_usage(args->verb, "--check needs --run");
    if (cli_args_has(args, CLI_OPT_FUSE_BACKWARD) && !cli_args_has(args, CLI_OPT_FUSE_CHECK))
        return cli_usage(args->verb, "--backward needs --check");
    if (cli_args_has(args, CLI_OPT_LIST) &&
        (cli_args_has(args, CLI_OPT_FUSE_OUTPUT) || cli_args_has(args, CLI_OPT_FUSE_RUN)))
        return cli_usage(args->verb, "--list writes and runs nothing");
    return CLI_EXIT_OK;
}

int cli_verb_fuse(const cli_args *args) {
    fj_model *model = NULL;
    fj_error error = {0};
    cli_fuse_run run = {.args = args};
    int status = check_usage(args);
    if (status != CLI_EXIT_OK) return status;
    const char *path = args->positionals[0], *folder = cli_args_text(args, CLI_OPT_FUSE_OUTPUT, NULL);
    fj_fuse_options options = {.no_empty_rows = cli_args_has(args, CLI_OPT_NO_EMPTY_ROWS)};
    fj_status result = fj_fuse_open(path, NULL, &model, &error);
    if (result != FJ_OK) {
        if (error.file[0] == '\0') (void)snprintf(error.file, sizeof error.file, "%.250s", path);
        return cli_fail_library(result, &error);
    }
    status = cli_context_open(&run.context);
    options.context = run.context;
    if (status == CLI_EXIT_OK) status = make_folder(folder);
    if (status == CLI_EXIT_OK) status = cli_fuse_run_before(&run, model);
    if (status == CLI_EXIT_OK && (result = fj_fuse_find(model, &options, &error)) != FJ_OK)
        status = cli_fail_library(result, &error);
    if (status == CLI_EXIT_OK && folder != NULL) status = write_all(folder, model);
    const bool found = status == CLI_EXIT_OK;
    if (status == CLI_EXIT_OK) status = cli_fuse_run_after(&run, model);
    if (found && (status == CLI_EXIT_OK || run.errors != NULL)) {
        const int printed = cli_report_is_json() ? print_json(model, &run) : print_text(model);
        if (status == CLI_EXIT_OK) status = printed;
    }
    cli_fuse_run_finish(&run);
    fj_fuse_close(&model);
    return status;
}
