/* `flexjit check`, `flexjit show`: what the compiler makes of a mod. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/call.h"
#include "cli/mod.h"
#include "cli/report.h"
#include "cli/verbs.h"

typedef struct inspection {
    const cli_args *args;
    fj_context *context;
    cli_bindings bindings;
    fj_mod *mod;
} inspection;

/* Without bindings, captures are left open. */
static int begin(inspection *in) {
    if (!cli_mod_given(in->args)) {
        return cli_usage(
            in->args->verb,
            "a mod is missing: give MOD.py, --score EXPR, --mask EXPR, --out EXPR or --sink EXPR");
    }
    int status = cli_context_open(&in->context);
    if (status == CLI_EXIT_OK) status = cli_bindings_open(in->args, &in->bindings);
    if (status != CLI_EXIT_OK) return status;
    bool open = !cli_args_has(in->args, CLI_OPT_INPUT) && !cli_args_has(in->args, CLI_OPT_BIND);
    return cli_mod_open(in->context, in->args, &in->bindings, open, &in->mod);
}

static void end(inspection *in) {
    fj_mod_unref(&in->mod);
    cli_bindings_close(&in->bindings);
    fj_context_unref(&in->context);
}

static json_t *origin_json(const fj_mod_origin *origin) {
    if (origin->name == NULL) return json_null();
    json_t *object =
        json_pack("{s:o, s:b}", "name", cli_json_text(origin->name), "by_count", origin->by_count);
    if (origin->line > 0) json_object_set_new(object, "line", json_integer(origin->line));
    return object;
}

/* Names what was chosen: a mod that is not found where its author looks for it computes something else. */
static int report_origins(const inspection *in) {
    const fj_mod_origin score = fj_mod_score_origin(in->mod), mask = fj_mod_mask_origin(in->mod),
                        out = fj_mod_out_origin(in->mod), sink = fj_mod_sink_origin(in->mod);
    if (in->args->positional_count == 0) /* an expression is its own name */
        return cli_report_is_json() ? cli_print_json(json_pack("{s:b}", "ok", 1)) : CLI_EXIT_OK;
    const char *file = in->args->positionals[0];
    if (cli_report_is_json()) {
        return cli_print_json(json_pack("{s:b, s:o, s:o, s:o, s:o}", "ok", 1, "score_mod",
                                        origin_json(&score), "mask_mod", origin_json(&mask), "out_mod",
                                        origin_json(&out), "sink_mod", origin_json(&sink)));
    }
    cli_note_origin("score", &score, file);
    cli_note_origin("mask", &mask, file);
    if (out.name != NULL) cli_note_origin("out", &out, file);
    if (sink.name != NULL) cli_note_origin("sink", &sink, file);
    return CLI_EXIT_OK;
}

/* A mod that can only run forward is not right yet. */
static int check_gradient(const inspection *in) {
    fj_text text = {0};
    fj_error error = {0};
    fj_status result = fj_mod_show(in->mod, "grad", &text, &error);
    fj_text_finish(&text);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

int cli_verb_check(const cli_args *args) {
    inspection in = {.args = args};
    int status = begin(&in);
    if (status == CLI_EXIT_OK) status = check_gradient(&in);
    if (status == CLI_EXIT_OK) status = report_origins(&in);
    end(&in);
    return status;
}

/* ---- show -------------------------------------------------------------------------------- */

/* In the order of --stage's choices; from FIRST_PLAN_STAGE on they are a plan's. */
static const char *const stage_names[] = {"ast",      "ir",     "grad", "rates", "ranges",
                                          "prologue", "source", "plan", "key"};
enum { STAGE_IR = 1, STAGE_GRAD = 2, FIRST_PLAN_STAGE = 5 };

static bool is_dense(const cli_tensor *tensor) {
    bool sane = tensor != NULL && tensor->rank == 4;
    for (int i = 0; sane && i < 4; i++) sane = tensor->dims[i] <= INT32_MAX;
    return sane;
}

/* q, k and v of --input say what the options would. */
static void problem_from_file(const inspection *in, fj_problem *problem) {
    const cli_tensor *q = cli_st_find(&in->bindings.file, "q"), *k = cli_st_find(&in->bindings.file, "k"),
                     *v = cli_st_find(&in->bindings.file, "v");
    if (q != NULL && q->known) problem->dtype = q->dtype;
    if (is_dense(q)) problem->value_dim = problem->head_dim = (int)q->dims[3];
    if (is_dense(v)) problem->value_dim = (int)v->dims[3];
    if (q == NULL || k == NULL || !is_dense(q) || !is_dense(k)) return;
    const cli_shape shape = {.batch = q->dims[0],
                             .heads = q->dims[1],
                             .kv_heads = k->dims[1],
                             .q_len = q->dims[2],
                             .kv_len = k->dims[2]};
    cli_problem_suits(&shape, FJ_FORM_DENSE, problem);
}

/* --shape says all of it. */
static int problem_from_shape(const inspection *in, fj_problem *problem) {
    if (!cli_args_has(in->args, CLI_OPT_SHAPE)) return CLI_EXIT_OK;
    cli_shapes shapes;
    int status = cli_shapes_parse(in->args, &shapes);
    if (status != CLI_EXIT_OK) return status;
    const cli_shape shape = shapes.items[0];
    const size_t count = shapes.count;
    cli_shapes_finish(&shapes);
    if (count != 1)
        return cli_usage(in->args->verb, "'--shape': %zu shapes; a kernel is shown for one", count);
    if (shape.head_dim > 1 << 20 || shape.value_dim > 1 << 20)
        return cli_usage(in->args->verb, "'--shape': head dimensions of %lld and %lld are too large",
                         (long long)shape.head_dim, (long long)shape.value_dim);
    problem->head_dim = (int)shape.head_dim;
    problem->value_dim = (int)shape.value_dim;
    cli_problem_suits(&shape, FJ_FORM_DENSE, problem);
    return CLI_EXIT_OK;
}

static int problem_of(const inspection *in, const cli_call_options *options, fj_problem *problem) {
    static const fj_dtype dtypes[] = {FJ_DTYPE_F16, FJ_DTYPE_BF16, FJ_DTYPE_F32, FJ_DTYPE_F64};
    const cli_args *args = in->args;
    *problem =
        (fj_problem){.struct_size = sizeof *problem, .dtype = FJ_DTYPE_F32, .head_dim = 64, .value_dim = 64};
    problem_from_file(in, problem);
    int status = problem_from_shape(in, problem), dtype = -1, direction = 0;
    long long head_dim = problem->head_dim, value_dim = -1;
    if (status == CLI_EXIT_OK && cli_args_has(args, CLI_OPT_DTYPE))
        status = cli_args_choice(args, CLI_OPT_DTYPE, 0, &dtype);
    if (status == CLI_EXIT_OK) status = cli_args_choice(args, CLI_OPT_DIRECTION, FJ_FORWARD, &direction);
    if (status == CLI_EXIT_OK) status = cli_args_integer(args, CLI_OPT_HEAD_DIM, 1, 1 << 20, &head_dim);
    if (status == CLI_EXIT_OK) status = cli_args_integer(args, CLI_OPT_VALUE_DIM, 1, 1 << 20, &value_dim);
    if (status != CLI_EXIT_OK) return status;
    if (dtype >= 0) problem->dtype = dtypes[dtype];
    if (cli_args_has(args, CLI_OPT_HEAD_DIM)) problem->head_dim = problem->value_dim = (int)head_dim;
    if (value_dim > 0) problem->value_dim = (int)value_dim;
    problem->direction = (fj_direction)direction;
    problem->nondeterministic = options->nondeterministic;
    problem->tf32 = options->tf32;
    problem->dropout = options->dropout;
    problem->variant = options->variants[direction];
    problem->kernel = options->kernel;
    problem->options = options->kernel_options;
    problem->option_count = options->kernel_option_count;
    return CLI_EXIT_OK;
}

static int make_plan(const inspection *in, fj_plan **ret_plan) {
    cli_call_options options = {0};
    fj_problem problem;
    int which = 0, status = cli_read_call_options(in->args, &options);
    if (status == CLI_EXIT_OK) status = problem_of(in, &options, &problem);
    if (status == CLI_EXIT_OK) status = cli_args_choice(in->args, CLI_OPT_DEVICE, CLI_DEVICE_AUTO, &which);
    fj_device *device = NULL;
    if (status == CLI_EXIT_OK) status = cli_device_open(in->context, in->args, (cli_device)which, &device);
    if (status != CLI_EXIT_OK) return status;
    fj_error error = {0};
    fj_status result = fj_plan_create(device, in->mod, &problem, ret_plan, &error);
    fj_device_unref(&device);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

static int show_stage(const inspection *in, fj_plan **plan, int stage, fj_text *ret_text) {
    fj_error error = {0};
    fj_status result;
    if (stage < FIRST_PLAN_STAGE) {
        result = fj_mod_show(in->mod, stage_names[stage], ret_text, &error);
    } else {
        int status = *plan != NULL ? CLI_EXIT_OK : make_plan(in, plan);
        if (status != CLI_EXIT_OK) return status;
        result = fj_plan_show(*plan, stage_names[stage], ret_text, &error);
    }
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

static void print_stage(const char *name, const fj_text *text, bool title) {
    if (title) printf("# %s\n", name);
    fwrite(text->data, 1, text->length, stdout);
    if (text->length == 0 || text->data[text->length - 1] != '\n') putchar('\n');
}

static int show_all(const inspection *in, const int *stages, size_t count) {
    fj_plan *plan = NULL;
    json_t *texts = json_object();
    int status = CLI_EXIT_OK;
    for (size_t i = 0; status == CLI_EXIT_OK && i < count; i++) {
        fj_text text = {0};
        status = show_stage(in, &plan, stages[i], &text);
        if (status != CLI_EXIT_OK) break;
        if (cli_report_is_json()) {
            json_object_set_new(texts, stage_names[stages[i]], cli_json_text(text.data));
        } else {
            if (i > 0) putchar('\n');
            print_stage(stage_names[stages[i]], &text, count > 1);
        }
        fj_text_finish(&text);
    }
    fj_plan_unref(&plan);
    if (status == CLI_EXIT_OK && cli_report_is_json())
        return cli_print_json(json_pack("{s:o}", "stages", texts));
    json_decref(texts);
    return status;
}

int cli_verb_show(const cli_args *args) {
    int stages[CLI_MAX_CHOICES] = {STAGE_IR, STAGE_GRAD};
    size_t count = 2;
    inspection in = {.args = args};
    int status = CLI_EXIT_OK;
    if (cli_args_has(args, CLI_OPT_STAGE)) status = cli_args_choices(args, CLI_OPT_STAGE, stages, &count);
    if (status == CLI_EXIT_OK) status = begin(&in);
    if (status == CLI_EXIT_OK) status = show_all(&in, stages, count);
    end(&in);
    return status;
}
