/* `flexjit mask`: a mod's block mask: counts, a picture, PyTorch's tensors. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/call.h"
#include "cli/mod.h"
#include "cli/patience.h"
#include "cli/report.h"
#include "cli/safetensors.h"
#include "cli/verbs.h"

enum { CELLS = 40, REPEATS = 5 }; /* of a picture in a terminal of 80 columns; timed makings at most */
static const double enough_ms = 100;

typedef struct mask_call {
    const cli_args *args;
    fj_context *context;
    fj_device *device;
    cli_bindings bindings;
    fj_mod *mod;
    cli_inputs inputs;
    const DLTensor **captures;
    fj_mask_maker *maker;
    fj_block_mask *mask;
    fj_mask_args of;
    int workers;
    double time_ms;
} mask_call;

/* ---- Options ----------------------------------------------------------------------------- */

/* Q,KV */
static int read_block(const cli_args *args, fj_mask_args *of) {
    const char *text = cli_args_text(args, CLI_OPT_BLOCK, "64,64"), *at = text;
    int64_t sizes[2] = {0};
    for (int i = 0; i < 2; i++) {
        char *end;
        errno = 0;
        const long long size = *at >= '0' && *at <= '9' ? strtoll(at, &end, 10) : 0;
        if (size < 1 || size > 1 << 30 || errno != 0 || *end != (i == 0 ? ',' : '\0')) {
            return cli_usage(args->verb, "'--block %s' is not of the form Q,KV, two numbers from 1 to %d",
                             text, 1 << 30);
        }
        sizes[i] = size;
        at = end + 1;
    }
    of->block_q = sizes[0];
    of->block_kv = sizes[1];
    return CLI_EXIT_OK;
}

static int read_options(mask_call *call) {
    const cli_args *args = call->args;
    long long q = 0, kv = 0, batch = 1, heads = 1;
    if (!cli_mod_given(args)) return cli_usage(args->verb, "a mod is missing: give MOD.py or --mask EXPR");
    if (!cli_args_has(args, CLI_OPT_Q_LEN)) return cli_usage(args->verb, "--q-len N is missing");
    if (!cli_args_has(args, CLI_OPT_KV_LEN)) return cli_usage(args->verb, "--kv-len N is missing");
    const char *lists = cli_args_text(args, CLI_OPT_EXPORT, NULL),
               *picture = cli_args_text(args, CLI_OPT_PICTURE, NULL);
    if (lists != NULL && picture != NULL && strcmp(lists, picture) == 0)
        return cli_usage(args->verb, "--export and --output name the same file, '%s'", lists);
    int status = cli_args_integer(args, CLI_OPT_Q_LEN, 0, INT32_MAX, &q);
    if (status == CLI_EXIT_OK) status = cli_args_integer(args, CLI_OPT_KV_LEN, 0, INT32_MAX, &kv);
    if (status == CLI_EXIT_OK) status = cli_args_integer(args, CLI_OPT_BATCH, 0, INT32_MAX, &batch);
    if (status == CLI_EXIT_OK) status = cli_args_integer(args, CLI_OPT_HEADS, 0, INT32_MAX, &heads);
    if (status == CLI_EXIT_OK) status = read_block(args, &call->of);
    cli_call_options options = {0};
    if (status == CLI_EXIT_OK) status = cli_read_call_options(args, &options);
    call->workers = options.workers;
    call->of.struct_size = sizeof call->of;
    call->of.q_len = q;
    call->of.kv_len = kv;
    call->of.batch = batch;
    call->of.heads = heads;
    return status;
}

/* ---- Making ------------------------------------------------------------------------------ */

/* Captures that the file has; which of them the mask reads, the library knows. */
static int bind(mask_call *call) {
    int status = cli_inputs_begin(&call->inputs, call->mod);
    if (status != CLI_EXIT_OK) return status;
    call->captures = calloc(call->inputs.capture_count + 1, sizeof(const DLTensor *));
    if (call->captures == NULL) return cli_no_memory();
    for (size_t i = 0; i < call->inputs.capture_count; i++) {
        const char *name = fj_mod_capture(call->mod, i).name;
        const cli_tensor *tensor = cli_st_find(&call->bindings.file, name);
        if (tensor == NULL || !tensor->known) continue;
        status = cli_check_bools(cli_args_text(call->args, CLI_OPT_INPUT, ""), tensor);
        if (status == CLI_EXIT_OK)
            status = cli_view_borrow(&call->inputs.captures[i], name, tensor->dtype, tensor->rank,
                                     tensor->dims, tensor->data);
        if (status != CLI_EXIT_OK) return status;
        call->captures[i] = &call->inputs.captures[i].tensor;
    }
    call->of.captures = call->captures;
    call->of.scalars = call->inputs.scalars;
    return CLI_EXIT_OK;
}

static int open_maker(mask_call *call) {
    static const fj_dtype dtypes[] = {FJ_DTYPE_F16, FJ_DTYPE_BF16, FJ_DTYPE_F32, FJ_DTYPE_F64};
    fj_error error = {0};
    int dtype = 2;
    const int status = cli_args_choice(call->args, CLI_OPT_MASK_DTYPE, dtype, &dtype);
    if (status != CLI_EXIT_OK) return status;
    cli_patience_begin();
    fj_status result = fj_device_create(call->context, FJ_DEVICE_CPU, &call->device, &error);
    if (result == FJ_OK)
        result = fj_mask_maker_create(call->device, call->mod, dtypes[dtype], &call->maker, &error);
    cli_patience_end();
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

/* Again, while that takes little time: the first threads take longer to wake than most masks to make. */
static int make(mask_call *call) {
    const fj_launch launch = {.struct_size = sizeof launch, .workers = call->workers};
    fj_timer *timer = NULL;
    fj_error error = {0};
    double total = 0;
    fj_status result = fj_timer_create(call->device, &timer, &error);
    for (int i = 0; result == FJ_OK && i < REPEATS && total < enough_ms; i++) {
        double ms = 0;
        fj_block_mask_unref(&call->mask);
        result = fj_timer_start(timer, NULL, &error);
        if (result == FJ_OK)
            result = fj_block_mask_make(call->maker, &call->of, &launch, &call->mask, &error);
        if (result == FJ_OK) result = fj_timer_stop(timer, NULL, &error);
        if (result == FJ_OK) result = fj_timer_read(timer, &ms, &error);
        if (i == 0 || ms < call->time_ms) call->time_ms = ms;
        total += ms;
    }
    fj_timer_unref(&timer);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

/* ---- Files ------------------------------------------------------------------------------- */

enum { LISTS = 8, EXPORTED = LISTS + 2 };
static const char *const names[EXPORTED] = {
    "kv_num_blocks", "kv_indices",        "full_kv_num_blocks", "full_kv_indices", "q_num_blocks",
    "q_indices",     "full_q_num_blocks", "full_q_indices",     "block_size",      "seq_lengths"};

static int allocate_lists(const fj_block_mask_info *info, cli_view views[EXPORTED]) {
    int status = CLI_EXIT_OK;
    for (int i = 0; status == CLI_EXIT_OK && i < LISTS; i++) {
        const bool by_key = i >= LISTS / 2;
        const int64_t dims[] = {info->batch, info->heads, by_key ? info->kv_blocks : info->q_blocks,
                                by_key ? info->q_blocks : info->kv_blocks};
        status = cli_view_allocate(&views[i], names[i], FJ_DTYPE_I32, i % 2 == 0 ? 3 : 4, dims);
    }
    const int64_t pairs[2][2] = {{info->block_q, info->block_kv}, {info->q_len, info->kv_len}}, two[] = {2};
    for (int i = LISTS; status == CLI_EXIT_OK && i < EXPORTED; i++) {
        status = cli_view_allocate(&views[i], names[i], FJ_DTYPE_I32, 1, two);
        for (int k = 0; status == CLI_EXIT_OK && k < 2; k++)
            ((int32_t *)views[i].tensor.data)[k] = (int32_t)pairs[i - LISTS][k];
    }
    return status;
}

static int write_lists(const mask_call *call, const char *path, cli_view views[EXPORTED]) {
    const fj_block_mask_info info = fj_block_mask_describe(call->mask);
    cli_tensor tensors[EXPORTED];
    cli_st_writer writer = {0};
    int status = allocate_lists(&info, views);
    if (status != CLI_EXIT_OK) return status;
    const fj_block_lists lists = {sizeof lists,
                                  &views[0].tensor,
                                  &views[1].tensor,
                                  &views[2].tensor,
                                  &views[3].tensor,
                                  &views[4].tensor,
                                  &views[5].tensor,
                                  &views[6].tensor,
                                  &views[7].tensor,
                                  0,
                                  0,
                                  0,
                                  0};
    fj_error error = {0};
    const fj_status result = fj_block_mask_to_lists(call->mask, &lists, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    for (int i = 0; i < EXPORTED; i++) {
        tensors[i] = (cli_tensor){.name = names[i],
                                  .dtype = FJ_DTYPE_I32,
                                  .rank = views[i].tensor.ndim,
                                  .dims = views[i].tensor.shape,
                                  .size = views[i].count * sizeof(int32_t),
                                  .data = views[i].tensor.data};
    }
    status = cli_st_create(path, tensors, EXPORTED, &writer);
    return status == CLI_EXIT_OK ? cli_st_commit(&writer) : status;
}

static int export_lists(const mask_call *call) {
    const char *path = cli_args_text(call->args, CLI_OPT_EXPORT, NULL);
    cli_view views[EXPORTED] = {0};
    if (path == NULL) return CLI_EXIT_OK;
    const int status = write_lists(call, path, views);
    for (int i = 0; i < EXPORTED; i++) cli_view_finish(&views[i]);
    return status;
}

/* What the picture is of: the mask's name, and its file. */
static void title_of(const mask_call *call, char *title, size_t size) {
    const fj_mod_origin origin = fj_mod_mask_origin(call->mod);
    const char *expression = cli_args_text(call->args, CLI_OPT_MASK, NULL);
    const char *file = call->args->positional_count > 0 ? call->args->positionals[0] : "",
               *slash = strrchr(file, '/');
    if (slash != NULL) file = slash + 1;
    if (expression != NULL)
        snprintf(title, size, "%.200s", expression);
    else if (origin.name == NULL)
        snprintf(title, size, "no mask");
    else
        snprintf(title, size, "%.100s (%.100s)", origin.name, file);
}

static int write_picture(const mask_call *call) {
    const char *path = cli_args_text(call->args, CLI_OPT_PICTURE, NULL);
    char title[256];
    fj_text text = {0};
    fj_error error = {0};
    if (path == NULL) return CLI_EXIT_OK;
    title_of(call, title, sizeof title);
    const fj_status result = fj_block_mask_svg(call->mask, title, 0, 0, &text, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    const int status = cli_write_file(path, text.data, text.length);
    fj_text_finish(&text);
    return status;
}

/* ---- The report -------------------------------------------------------------------------- */

/* Masks are decided by lists of blocks wherever there is a mask: the tier of bounds in closed form is the kernels' own. */
static fj_mask_tier tier_of(const mask_call *call) {
    return fj_mod_mask_origin(call->mod).name == NULL ? FJ_TIER_NONE : FJ_TIER_BLOCKS;
}

static int print_json(const mask_call *call) {
    const fj_block_mask_info info = fj_block_mask_describe(call->mask);
    const fj_kernel_info code = fj_mask_maker_describe(call->maker);
    json_t *object = json_pack(
        "{s:s, s:[I,I], s:I, s:I, s:I, s:I, s:f, s:f, s:I, s:[I,I], s:I, s:I, s:s, s:f, s:f}", "tier",
        fj_mask_tier_name(tier_of(call)), "block", (json_int_t)info.block_q, (json_int_t)info.block_kv,
        "full", (json_int_t)info.full, "partial", (json_int_t)info.partial, "empty", (json_int_t)info.empty,
        "undecided", (json_int_t)info.undecided, "sparsity", info.sparsity, "time_ms", call->time_ms, "bytes",
        (json_int_t)info.bytes, "seq_lengths", (json_int_t)info.q_len, (json_int_t)info.kv_len, "batch",
        (json_int_t)info.batch, "heads", (json_int_t)info.heads, "cache", code.cache_hit ? "hit" : "miss",
        "compile_ms", code.compile_ms, "load_ms", code.load_ms);
    return cli_print_json(object);
}

static int print_text(const mask_call *call) {
    const fj_block_mask_info info = fj_block_mask_describe(call->mask);
    printf(
        "mask %s (%lld,%lld,%lld,%lld), blocks of %lld x %lld: %lld full, %lld partial, %lld empty, sparsity %.2f %%; "
        "%lld undecided by intervals; %.3f ms, %zu bytes\n",
        fj_mask_tier_name(tier_of(call)), (long long)info.batch, (long long)info.heads, (long long)info.q_len,
        (long long)info.kv_len, (long long)info.block_q, (long long)info.block_kv, (long long)info.full,
        (long long)info.partial, (long long)info.empty, info.sparsity, (long long)info.undecided,
        call->time_ms, info.bytes);
    if (cli_args_has(call->args, CLI_OPT_PICTURE)) return CLI_EXIT_OK;
    fj_text text = {0};
    fj_error error = {0};
    const fj_status result = fj_block_mask_text(call->mask, CELLS, CELLS, &text, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    fwrite(text.data, 1, text.length, stdout);
    fj_text_finish(&text);
    return CLI_EXIT_OK;
}

/* ---- The verb ---------------------------------------------------------------------------- */

static void finish(mask_call *call) {
    fj_block_mask_unref(&call->mask);
    fj_mask_maker_unref(&call->maker);
    free(call->captures);
    cli_inputs_finish(&call->inputs);
    fj_mod_unref(&call->mod);
    cli_bindings_close(&call->bindings);
    fj_device_unref(&call->device);
    fj_context_unref(&call->context);
}

int cli_verb_mask(const cli_args *args) {
    mask_call call = {.args = args};
    int status = read_options(&call);
    if (status == CLI_EXIT_OK) status = cli_context_open(&call.context);
    if (status == CLI_EXIT_OK) status = cli_bindings_open(args, &call.bindings);
    /* A score mod's captures may be absent: the mask does not read them. */
    if (status == CLI_EXIT_OK) status = cli_mod_open(call.context, args, &call.bindings, true, &call.mod);
    if (status == CLI_EXIT_OK) status = bind(&call);
    if (status == CLI_EXIT_OK) status = open_maker(&call);
    if (status == CLI_EXIT_OK) status = make(&call);
    if (status == CLI_EXIT_OK) status = export_lists(&call);
    if (status == CLI_EXIT_OK) status = write_picture(&call);
    if (status == CLI_EXIT_OK) status = cli_report_is_json() ? print_json(&call) : print_text(&call);
    finish(&call);
    return status;
}
