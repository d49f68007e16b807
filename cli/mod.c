/* From options to a context, bindings and a mod. */
#include "cli/mod.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/file.h"
#include "cli/patience.h"
#include "cli/report.h"

/* The language's limit on a source is 1 MiB: a longer file is read so far that the library sees it is longer. */
enum { SOURCE_READ = (1 << 20) + 1 };

bool cli_is_reserved(const char *name) {
    static const char *const reserved[] = {"q", "k", "v", "do", "dlse"};
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++) {
        if (strcmp(name, reserved[i]) == 0) return true;
    }
    return false;
}

/* ---- Bindings ---------------------------------------------------------------------------- */

static void bind_tensor(cli_bindings *bindings, const cli_tensor *tensor) {
    if (cli_is_reserved(tensor->name)) return;
    if (!tensor->known || tensor->rank > FJ_MAX_RANK) {
        cli_warn("tensor '%.100s' cannot be captured: %s of rank %d", tensor->name, tensor->dtype_name,
                 tensor->rank);
        return;
    }
    fj_binding *binding = &bindings->items[bindings->count++];
    *binding = (fj_binding){.name = tensor->name, .dtype = tensor->dtype, .rank = tensor->rank};
    for (int i = 0; i < tensor->rank; i++) binding->dims[i] = tensor->dims[i];
}

/* [8,4096], with ? for a dimension that is not known; NULL when it is not of this form. */
static const char *parse_dims(const char *text, fj_binding *binding) {
    if (*text++ != '[') return NULL;
    while (*text != ']') {
        if (binding->rank == FJ_MAX_RANK) return NULL;
        int64_t dim = -1;
        if (*text == '?') {
            text++;
        } else {
            char *end;
            if (*text < '0' || *text > '9') return NULL;
            errno = 0;
            dim = strtoll(text, &end, 10);
            if (errno != 0) return NULL;
            text = end;
        }
        binding->dims[binding->rank++] = dim;
        if (*text == ',') {
            text++;
        } else if (*text != ']') {
            return NULL;
        }
    }
    return text[1] == '\0' ? text : NULL;
}

const char *cli_binding_parse(const char *text, fj_binding *binding) {
    const char *bracket = strchr(text, '[');
    char dtype[16];
    size_t length = bracket == NULL ? sizeof dtype : (size_t)(bracket - text);
    if (length >= sizeof dtype) return "it is not of the form DTYPE[DIMS], such as F32[8]";
    memcpy(dtype, text, length);
    dtype[length] = '\0';
    if (!fj_dtype_parse(dtype, &binding->dtype)) return "there is no such dtype";
    _Static_assert(FJ_MAX_RANK == 8, "the message below");
    if (parse_dims(bracket, binding) == NULL)
        return "the shape is not of the form [8,4096], of at most 8 numbers";
    return NULL;
}

/* NAME=DTYPE[DIMS] */
static int parse_binding(const cli_args *args, const char *text, char **name, fj_binding *binding) {
    const char *equal = strchr(text, '=');
    if (equal == NULL || equal == text) {
        return cli_usage(args->verb, "'--bind %s' is not of the form NAME=DTYPE[DIMS], such as slopes=F32[8]",
                         text);
    }
    const char *wrong = cli_binding_parse(equal + 1, binding);
    if (wrong != NULL) return cli_usage(args->verb, "'--bind %s': %s", text, wrong);
    binding->name = *name = strndup(text, (size_t)(equal - text));
    return *name == NULL ? cli_no_memory() : CLI_EXIT_OK;
}

static bool is_bound(const cli_bindings *bindings, const char *name) {
    for (size_t i = 0; i < bindings->count; i++) {
        const char *bound = bindings->items[i].name;
        if (bound != NULL && strcmp(bound, name) == 0) return true;
    }
    return false;
}

static int bind_option(const cli_args *args, cli_bindings *bindings, size_t nth) {
    const char *text = cli_args_nth(args, CLI_OPT_BIND, nth);
    fj_binding binding = {0};
    int status = parse_binding(args, text, &bindings->names[nth], &binding);
    if (status != CLI_EXIT_OK) return status;
    if (cli_is_reserved(binding.name)) {
        return cli_usage(args->verb, "'--bind %s': %s is not a captured tensor", text, binding.name);
    }
    if (is_bound(bindings, binding.name)) {
        return cli_usage(args->verb, "tensor '%s' is bound twice", binding.name);
    }
    bindings->items[bindings->count++] = binding;
    return CLI_EXIT_OK;
}

int cli_bindings_open(const cli_args *args, cli_bindings *ret_bindings) {
    cli_bindings bindings = {0};
    const char *input = cli_args_text(args, CLI_OPT_INPUT, NULL);
    int status = input == NULL ? CLI_EXIT_OK : cli_st_open(input, &bindings.file);
    size_t options = cli_args_count(args, CLI_OPT_BIND);
    bindings.items = calloc(bindings.file.count + options + 1, sizeof *bindings.items);
    bindings.names = calloc(options + 1, sizeof *bindings.names);
    if (status == CLI_EXIT_OK && (bindings.items == NULL || bindings.names == NULL)) status = cli_no_memory();
    for (size_t i = 0; status == CLI_EXIT_OK && i < bindings.file.count; i++) {
        bind_tensor(&bindings, &bindings.file.tensors[i]);
    }
    for (size_t i = 0; status == CLI_EXIT_OK && i < options; i++) {
        status = bind_option(args, &bindings, i);
    }
    *ret_bindings = bindings; /* closed by the caller, whatever the status */
    return status;
}

void cli_bindings_close(cli_bindings *bindings) {
    for (size_t i = 0; bindings->names != NULL && bindings->names[i] != NULL; i++) free(bindings->names[i]);
    free(bindings->names);
    free(bindings->items);
    cli_st_close(&bindings->file);
    *bindings = (cli_bindings){0};
}

/* ---- Context ----------------------------------------------------------------------------- */

static const char *const level_names[] = {"debug", "info", "warn", "error"};
_Static_assert(FJ_LOG_DEBUG == 0 && FJ_LOG_ERROR == 3, "level_names is in this order");

/* user: the least level that is printed. What the library does is also of interest when it takes long. */
static void log_line(void *user, fj_log_level level, const char *message) {
    const fj_log_level *least = user;
    if (level == FJ_LOG_INFO) cli_patience_note(message);
    if (level < *least) return;
    fprintf(stderr, "flexjit: %s: %s\n", level_names[level], message);
}

int cli_context_open(fj_context **ret_context) { return cli_context_open_at(NULL, ret_context); }

int cli_context_open_at(const char *cache_path, fj_context **ret_context) {
    static fj_log_level least; /* as long as the context, and the same for all */
    fj_context_desc desc = {.struct_size = sizeof desc,
                            .log = log_line,
                            .log_user = &least,
                            .log_level = FJ_LOG_WARN,
                            .cache_path = cache_path};
    const char *wanted = getenv("FLEXJIT_LOG");
    bool known = wanted == NULL || wanted[0] == '\0';
    for (int level = 0; !known && level < 4; level++) {
        if (strcmp(wanted, level_names[level]) != 0) continue;
        desc.log_level = (fj_log_level)level;
        known = true;
    }
    if (!known) cli_warn("FLEXJIT_LOG is '%.40s', which is not one of debug, info, warn, error", wanted);
    least = desc.log_level;
    if (least > FJ_LOG_INFO && cli_patience_is_wanted()) desc.log_level = FJ_LOG_INFO;
    fj_status status = fj_context_create(&desc, ret_context);
    if (status == FJ_OK) return CLI_EXIT_OK;
    return cli_fail_library(status, &(fj_error){.status = status, .text = "no context could be made"});
}

/* ---- Mod --------------------------------------------------------------------------------- */

typedef struct request {
    fj_mod_desc desc;
    char *source;
    fj_param *params;
    char **names; /* of params: copies */
    const char **runtime;
} request;

static int read_source(const char *path, request *want) {
    int status = cli_read_file(path, SOURCE_READ, &want->source, &want->desc.source_length);
    want->desc.source = want->source;
    want->desc.file = path;
    return status;
}

static int collect_params(const cli_args *args, request *want) {
    size_t count = cli_args_count(args, CLI_OPT_PARAM), runtime = cli_args_count(args, CLI_OPT_RUNTIME_PARAM);
    want->params = calloc(count + 1, sizeof *want->params);
    want->names = calloc(count + 1, sizeof *want->names);
    want->runtime = calloc(runtime + 1, sizeof *want->runtime);
    if (want->params == NULL || want->names == NULL || want->runtime == NULL) return cli_no_memory();
    for (size_t i = 0; i < count; i++) {
        const char *text = cli_args_nth(args, CLI_OPT_PARAM, i), *equal = strchr(text, '=');
        if (equal == NULL || equal == text) {
            return cli_usage(args->verb, "'--param %s' is not of the form NAME=EXPR", text);
        }
        want->names[i] = strndup(text, (size_t)(equal - text));
        if (want->names[i] == NULL) return cli_no_memory();
        want->params[i] = (fj_param){.name = want->names[i], .expression = equal + 1};
    }
    for (size_t i = 0; i < runtime; i++) want->runtime[i] = cli_args_nth(args, CLI_OPT_RUNTIME_PARAM, i);
    want->desc.params = want->params;
    want->desc.param_count = count;
    want->desc.runtime_params = want->runtime;
    want->desc.runtime_param_count = runtime;
    return CLI_EXIT_OK;
}

static void forget(request *want) {
    for (size_t i = 0; want->names != NULL && want->names[i] != NULL; i++) free(want->names[i]);
    free(want->source);
    free(want->params);
    free(want->names);
    free(want->runtime);
}

bool cli_mod_given(const cli_args *args) {
    return args->positional_count > 0 || cli_args_has(args, CLI_OPT_SCORE) ||
           cli_args_has(args, CLI_OPT_MASK) || cli_args_has(args, CLI_OPT_OUT) ||
           cli_args_has(args, CLI_OPT_SINK);
}

static int describe(const cli_args *args, const cli_bindings *bindings, bool open, request *want) {
    want->desc = (fj_mod_desc){
        .struct_size = sizeof want->desc,
        .score = cli_args_text(args, CLI_OPT_SCORE, NULL),
        .mask = cli_args_text(args, CLI_OPT_MASK, NULL),
        .score_mod = cli_args_text(args, CLI_OPT_SCORE_MOD, NULL),
        .mask_mod = cli_args_text(args, CLI_OPT_MASK_MOD, NULL),
        .out = cli_args_text(args, CLI_OPT_OUT, NULL),
        .out_mod = cli_args_text(args, CLI_OPT_OUT_MOD, NULL),
        .sink = cli_args_text(args, CLI_OPT_SINK, NULL),
        .sink_mod = cli_args_text(args, CLI_OPT_SINK_MOD, NULL),
        .bindings = bindings->items,
        .binding_count = bindings->count,
        .bindings_open = open,
    };
    if (args->positional_count > 1) {
        return cli_usage(args->verb, "one MOD.py at most; '%s' is another", args->positionals[1]);
    }
    const char *const choices[] = {want->desc.score_mod, want->desc.mask_mod, want->desc.out_mod,
                                   want->desc.sink_mod};
    static const char *const options[] = {"score", "mask", "out", "sink"};
    for (size_t i = 0; args->positional_count == 0 && i < sizeof choices / sizeof choices[0]; i++) {
        if (choices[i] != NULL)
            return cli_usage(args->verb, "--%s-mod chooses from a MOD.py, and none is given", options[i]);
    }
    int status = collect_params(args, want);
    if (status == CLI_EXIT_OK && args->positional_count > 0) status = read_source(args->positionals[0], want);
    return status;
}

/* ---- What was chosen --------------------------------------------------------------------- */

void cli_note_origin(const char *kind, const fj_mod_origin *origin, const char *file) {
    const char *how = origin->by_count ? ", by its number of parameters" : "";
    if (origin->name == NULL) {
        cli_note("no %s mod", kind);
    } else if (origin->line > 0) {
        cli_note("%s mod '%.200s' (%.200s:%d%s)", kind, origin->name, file, origin->line, how);
    } else {
        cli_note("%s mod '%.200s'", kind, origin->name);
    }
}

/* A mod that was not asked for changes what is computed. */
void cli_note_guess(const fj_mod_desc *desc, const fj_mod *mod) {
    const fj_mod_origin score = fj_mod_score_origin(mod), mask = fj_mod_mask_origin(mod);
    const bool own = fj_mod_out_origin(mod).name != NULL || fj_mod_sink_origin(mod).name != NULL;
    if (score.by_count && (own || (mask.name != NULL && !mask.by_count)))
        cli_note_origin("score", &score, desc->file);
    if (mask.by_count && (own || (score.name != NULL && !score.by_count)))
        cli_note_origin("mask", &mask, desc->file);
}

bool cli_mod_has_capture(const fj_mod *mod, const char *name) {
    for (size_t i = 0; i < fj_mod_capture_count(mod); i++)
        if (strcmp(fj_mod_capture(mod, i).name, name) == 0) return true;
    return false;
}

/* A vector `sink` of the file that nothing reads is a sink. */
static bool implies_sink(const cli_bindings *bindings, const fj_mod *mod) {
    const cli_tensor *sink = cli_st_find(&bindings->file, "sink");
    return sink != NULL && sink->rank == 1 && fj_mod_sink_origin(mod).name == NULL &&
           !cli_mod_has_capture(mod, "sink");
}

static fj_status make_mod(fj_context *context, const cli_bindings *bindings, fj_mod_desc *desc,
                          fj_mod **ret_mod, fj_error *error) {
    const fj_status status = fj_mod_create(context, desc, ret_mod, error);
    if (status != FJ_OK || !implies_sink(bindings, *ret_mod)) return status;
    fj_mod_unref(ret_mod);
    desc->sink = CLI_IMPLIED_SINK;
    return fj_mod_create(context, desc, ret_mod, error);
}

int cli_mod_open(fj_context *context, const cli_args *args, const cli_bindings *bindings, bool open,
                 fj_mod **ret_mod) {
    request want = {0};
    int status = describe(args, bindings, open, &want);
    if (status == CLI_EXIT_OK) {
        fj_error error = {0};
        fj_status result = make_mod(context, bindings, &want.desc, ret_mod, &error);
        if (result != FJ_OK) status = cli_fail_library(result, &error);
        if (result == FJ_OK && args->verb != CLI_VERB_CHECK) cli_note_guess(&want.desc, *ret_mod);
    }
    forget(&want);
    return status;
}
