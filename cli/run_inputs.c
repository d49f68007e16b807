/* `flexjit run`: the tensors of the input file, checked against each other and bound. */
#include <stdio.h>
#include <string.h>

#include "cli/report.h"
#include "cli/run.h"

enum { SHAPE_TEXT = 128 };

static const char *shape_text(int rank, const int64_t *dims, char text[SHAPE_TEXT]) {
    int at = snprintf(text, SHAPE_TEXT, "[");
    for (int i = 0; i < rank && at < SHAPE_TEXT - 24; i++) {
        at += snprintf(text + at, (size_t)(SHAPE_TEXT - at), "%s%lld", i > 0 ? "," : "", (long long)dims[i]);
    }
    snprintf(text + at, (size_t)(SHAPE_TEXT - at), "]");
    return text;
}

/* ---- Operands ---------------------------------------------------------------------------- */

/* What a form calls its tensors, and their axes. Where batch, heads and rows stand; -1: nowhere. */
typedef struct operand {
    const char *name, *layout;
    int rank, batch, heads, rows;
} operand;

enum { Q, K, V, DO, DLSE, OPERANDS };
static const operand operands[][OPERANDS] = {
    [FJ_FORM_DENSE] = {{"q", "[B,Hq,L,E]", 4, 0, 1, 2},
                       {"k", "[B,Hkv,S,E]", 4, 0, 1, 2},
                       {"v", "[B,Hkv,S,Ev]", 4, 0, 1, 2},
                       {"do", "[B,Hq,L,Ev]", 4, 0, 1, 2},
                       {"dlse", "[B,Hq,L]", 3, 0, 1, 2}},
    [FJ_FORM_PACKED] = {{"q", "[Tq,Hq,E]", 3, -1, 1, 0},
                        {"k", "[Tk,Hkv,E]", 3, -1, 1, 0},
                        {"v", "[Tk,Hkv,Ev]", 3, -1, 1, 0},
                        {"do", "[Tq,Hq,Ev]", 3, -1, 1, 0},
                        {"dlse", "[Hq,Tq]", 2, -1, 0, 1}},
    [FJ_FORM_PAGED] = {{"q", "[B,Hq,L,E]", 4, 0, 1, 2},
                       {"k_pages", "[N,P,Hkv,E]", 4, 0, 2, 1},
                       {"v_pages", "[N,P,Hkv,Ev]", 4, 0, 2, 1},
                       {"do", "[B,Hq,L,Ev]", 4, 0, 1, 2},
                       {"dlse", "[B,Hq,L]", 3, 0, 1, 2}},
};

static const operand *operand_of(const cli_run *run, int which) {
    return &operands[run->options.form][which];
}

static int require(const cli_run *run, const char *name, const char *layout, int rank,
                   const cli_tensor **ret_tensor) {
    const cli_tensor *tensor = cli_st_find(&run->bindings.file, name);
    if (tensor == NULL) {
        return cli_fail_file(CLI_EXIT_FAILED, run->input_path, "tensor '%s' %s is missing", name, layout);
    }
    if (tensor->rank != rank) {
        char text[SHAPE_TEXT];
        const bool as_packed =
            run->options.form == FJ_FORM_DENSE && tensor->rank == 3 && strcmp(name, "q") == 0;
        return cli_fail_file(CLI_EXIT_FAILED, run->input_path, "tensor '%s' is %s, not %s%s", name,
                             shape_text(tensor->rank, tensor->dims, text), layout,
                             as_packed ? " (packed sequences have tensors cu_seqlens_q and cu_seqlens_kv)"
                                       : "");
    }
    *ret_tensor = tensor;
    return CLI_EXIT_OK;
}

static int require_operand(const cli_run *run, int which, const cli_tensor **ret_tensor) {
    const operand *of = operand_of(run, which);
    return require(run, of->name, of->layout, of->rank, ret_tensor);
}

static int require_dtype(const cli_run *run, const cli_tensor *tensor, fj_dtype dtype, const char *because) {
    if (tensor->known && tensor->dtype == dtype) return CLI_EXIT_OK;
    return cli_fail_file(CLI_EXIT_FAILED, run->input_path, "tensor '%s' is %s, but must be %s, %s",
                         tensor->name, tensor->dtype_name, fj_dtype_name(dtype), because);
}

static int require_dims(const cli_run *run, const cli_tensor *tensor, const int64_t *dims,
                        const char *because) {
    if (memcmp(tensor->dims, dims, (size_t)tensor->rank * sizeof *dims) == 0) return CLI_EXIT_OK;
    char is[SHAPE_TEXT], must[SHAPE_TEXT];
    return cli_fail_file(CLI_EXIT_FAILED, run->input_path, "tensor '%s' is %s, but must be %s, %s",
                         tensor->name, shape_text(tensor->rank, tensor->dims, is),
                         shape_text(tensor->rank, dims, must), because);
}

/* Extents in the order of an operand. */
static void put_dims(const operand *of, int64_t batch, int64_t heads, int64_t rows, int64_t width,
                     int64_t dims[4]) {
    dims[of->rank - 1] = width;
    if (of->batch >= 0) dims[of->batch] = batch;
    dims[of->heads] = heads;
    dims[of->rows] = rows;
}

/* ---- Form -------------------------------------------------------------------------------- */

static bool is_there(const cli_run *run, const char *name) {
    return cli_st_find(&run->bindings.file, name) != NULL;
}

static bool is_captured(const cli_run *run, const char *name) { return cli_mod_has_capture(run->mod, name); }

/* A dense call may have captures that are named as what other forms have. */
static fj_form form_of(const cli_run *run) {
    const cli_tensor *q = cli_st_find(&run->bindings.file, "q");
    if (!is_there(run, "k") && (is_there(run, "k_pages") || is_there(run, "page_table")))
        return FJ_FORM_PAGED;
    const bool packed = is_there(run, "cu_seqlens_q") || is_there(run, "cu_seqlens_kv");
    return packed && (q == NULL || q->rank == 3) ? FJ_FORM_PACKED : FJ_FORM_DENSE;
}

static const struct {
    const char *name, *layout;
    int rank;
    fj_form form; /* q_offset: any */
} sequences[CLI_SEQUENCES] = {
    [CLI_CU_SEQLENS_Q] = {"cu_seqlens_q", "[B+1]", 1, FJ_FORM_PACKED},
    [CLI_CU_SEQLENS_KV] = {"cu_seqlens_kv", "[B+1]", 1, FJ_FORM_PACKED},
    [CLI_PAGE_TABLE] = {"page_table", "[B,M]", 2, FJ_FORM_PAGED},
    [CLI_KV_LENS] = {"kv_lens", "[B]", 1, FJ_FORM_PAGED},
    [CLI_Q_OFFSET] = {"q_offset", "[B]", 1, FJ_FORM_DENSE},
};

static bool has_sequence(const cli_run *run, int which) {
    if (which != CLI_Q_OFFSET) return sequences[which].form == run->options.form;
    return is_there(run, "q_offset") && (run->options.form != FJ_FORM_DENSE || !is_captured(run, "q_offset"));
}

static int borrow(cli_view *view, const cli_tensor *tensor) {
    return cli_view_borrow(view, tensor->name, tensor->dtype, tensor->rank, tensor->dims, tensor->data);
}

/* Values are the library's to check. */
static int bind_sequences(cli_run *run) {
    int status = CLI_EXIT_OK;
    for (int i = 0; i < CLI_SEQUENCES && status == CLI_EXIT_OK; i++) {
        const cli_tensor *tensor = NULL;
        if (!has_sequence(run, i)) continue;
        status = require(run, sequences[i].name, sequences[i].layout, sequences[i].rank, &tensor);
        if (status == CLI_EXIT_OK) status = require_dtype(run, tensor, FJ_DTYPE_I32, "as indices are");
        if (status == CLI_EXIT_OK && i != CLI_CU_SEQLENS_Q && i != CLI_PAGE_TABLE) {
            const int64_t count = run->options.shape.batch + (i == CLI_CU_SEQLENS_KV);
            status = require_dims(run, tensor, &count,
                                  i == CLI_CU_SEQLENS_KV ? "as 'cu_seqlens_q' is" : "the batch");
        }
        if (status == CLI_EXIT_OK) status = borrow(&run->inputs.sequences[i], tensor);
    }
    return status;
}

/* ---- q, k, v, do, dlse ------------------------------------------------------------------- */

static int shape_of(cli_run *run, const cli_tensor *q, const cli_tensor *k, const cli_tensor *v) {
    bool legal = q->known && (q->dtype == FJ_DTYPE_F16 || q->dtype == FJ_DTYPE_BF16 ||
                              q->dtype == FJ_DTYPE_F32 || q->dtype == FJ_DTYPE_F64);
    if (!legal) {
        return cli_fail_file(CLI_EXIT_FAILED, run->input_path,
                             "tensor 'q' is %s, not one of F16, BF16, F32, F64", q->dtype_name);
    }
    const operand *const at_q = operand_of(run, Q), *const at_k = operand_of(run, K);
    cli_shape *shape = &run->options.shape;
    run->options.dtype = q->dtype;
    *shape = (cli_shape){
        .batch = at_q->batch >= 0 ? q->dims[at_q->batch] : 0,
        .heads = q->dims[at_q->heads],
        .kv_heads = k->dims[at_k->heads],
        .q_len = q->dims[at_q->rows],
        .kv_len = k->dims[at_k->rows],
        .head_dim = q->dims[at_q->rank - 1],
        .value_dim = v->dims[at_k->rank - 1],
    };
    const bool own_batch = run->options.form == FJ_FORM_DENSE && k->dims[0] != 1;
    run->options.shared_keys = run->options.form == FJ_FORM_DENSE && k->dims[0] == 1 && shape->batch != 1;
    int64_t k_dims[4], v_dims[4];
    put_dims(at_k, own_batch ? shape->batch : k->dims[0], shape->kv_heads, shape->kv_len, shape->head_dim,
             k_dims);
    put_dims(at_k, k->dims[0], shape->kv_heads, shape->kv_len, shape->value_dim, v_dims);
    int status = require_dtype(run, k, q->dtype, "as 'q' is");
    if (status == CLI_EXIT_OK) status = require_dtype(run, v, q->dtype, "as 'q' is");
    if (status == CLI_EXIT_OK) status = require_dims(run, k, k_dims, "by batch and head dimension of 'q'");
    if (status == CLI_EXIT_OK) status = require_dims(run, v, v_dims, "by batch, heads and length of 'k'");
    if (status != CLI_EXIT_OK) return status;
    if (shape->kv_heads == 0 ? shape->heads != 0 : shape->heads % shape->kv_heads != 0) {
        return cli_fail_file(CLI_EXIT_FAILED, run->input_path,
                             "tensor 'q' has %lld heads, which is not a multiple of the %lld of 'k'",
                             (long long)shape->heads, (long long)shape->kv_heads);
    }
    return CLI_EXIT_OK;
}

/* What a form's other tensors say of the shape. */
static int complete_shape(cli_run *run) {
    cli_shape *shape = &run->options.shape;
    const cli_tensor *tensor = NULL;
    int status = CLI_EXIT_OK;
    if (run->options.form == FJ_FORM_PACKED) {
        status = require(run, "cu_seqlens_q", "[B+1]", 1, &tensor);
        if (status == CLI_EXIT_OK && tensor->dims[0] < 1)
            return cli_fail_file(CLI_EXIT_FAILED, run->input_path,
                                 "tensor 'cu_seqlens_q' is empty: it has B + 1 elements");
        if (status == CLI_EXIT_OK) shape->batch = tensor->dims[0] - 1;
    }
    if (run->options.form == FJ_FORM_PAGED) {
        status = require(run, "page_table", "[B,M]", 2, &tensor);
        if (status == CLI_EXIT_OK && tensor->dims[0] != shape->batch)
            return cli_fail_file(CLI_EXIT_FAILED, run->input_path,
                                 "tensor 'page_table' has %lld rows, but 'q' has a batch of %lld",
                                 (long long)tensor->dims[0], (long long)shape->batch);
        if (status == CLI_EXIT_OK && __builtin_mul_overflow(shape->kv_len, tensor->dims[1], &shape->kv_len))
            return cli_fail_file(CLI_EXIT_FAILED, run->input_path, "tensor 'page_table' has too many pages");
    }
    return status;
}

static int bind_backward(cli_run *run) {
    const cli_shape *shape = &run->options.shape;
    int64_t dims[4];
    const cli_tensor *dout = NULL, *dlse = NULL;
    put_dims(operand_of(run, DO), shape->batch, shape->heads, shape->q_len, shape->value_dim, dims);
    int status = require_operand(run, DO, &dout);
    if (status == CLI_EXIT_OK) status = require_dtype(run, dout, run->options.dtype, "as 'q' is");
    if (status == CLI_EXIT_OK) status = require_dims(run, dout, dims, "the shape of out");
    if (status == CLI_EXIT_OK) status = borrow(&run->inputs.dout, dout);
    if (status != CLI_EXIT_OK || !is_there(run, "dlse")) return status;
    status = require_operand(run, DLSE, &dlse);
    if (status == CLI_EXIT_OK) {
        status = require_dtype(run, dlse, cli_statistics_dtype(run->options.dtype), "the dtype of lse");
    }
    const operand *of = operand_of(run, DLSE);
    put_dims(of, shape->batch, shape->heads, shape->q_len, dims[of->rank - 1], dims);
    if (of->rows == of->rank - 1) dims[of->rows] = shape->q_len;
    if (status == CLI_EXIT_OK) status = require_dims(run, dlse, dims, "the shape of lse");
    if (status == CLI_EXIT_OK) status = borrow(&run->inputs.dlse, dlse);
    return status;
}

int cli_run_shape(cli_run *run) {
    const cli_tensor *q = NULL, *k = NULL, *v = NULL;
    run->options.form = form_of(run);
    if (run->options.form == FJ_FORM_PAGED && run->backward)
        return cli_fail_file(CLI_EXIT_FAILED, run->input_path, "paged keys and values have no backward");
    int status = require_operand(run, Q, &q);
    if (status == CLI_EXIT_OK) status = require_operand(run, K, &k);
    if (status == CLI_EXIT_OK) status = require_operand(run, V, &v);
    if (status == CLI_EXIT_OK) status = shape_of(run, q, k, v);
    if (status == CLI_EXIT_OK) status = complete_shape(run);
    if (status == CLI_EXIT_OK) status = borrow(&run->inputs.query, q);
    if (status == CLI_EXIT_OK) status = borrow(&run->inputs.key, k);
    if (status == CLI_EXIT_OK) status = borrow(&run->inputs.value, v);
    if (status == CLI_EXIT_OK) status = bind_sequences(run);
    if (status == CLI_EXIT_OK && run->backward) status = bind_backward(run);
    return status;
}

/* ---- Captures ---------------------------------------------------------------------------- */

int cli_check_bools(const char *path, const cli_tensor *tensor) {
    const uint8_t *bytes = tensor->data;
    for (size_t i = 0; tensor->dtype == FJ_DTYPE_BOOL && i < tensor->size; i++) {
        if (bytes[i] <= 1) continue;
        return cli_fail_file(CLI_EXIT_FAILED, path, "tensor '%.100s': element %zu is %d, which is not a BOOL",
                             tensor->name, i, bytes[i]);
    }
    return CLI_EXIT_OK;
}

/* Not by --sink or a file. */
static bool is_sink_implied(const cli_run *run) {
    const fj_mod_origin origin = fj_mod_sink_origin(run->mod);
    return origin.name != NULL && origin.line == 0 && !cli_args_has(run->args, CLI_OPT_SINK);
}

static bool is_used(const cli_run *run, const char *name) {
    for (int i = 0; i < OPERANDS; i++)
        if (strcmp(name, operand_of(run, i)->name) == 0) return run->backward || i < DO;
    for (int i = 0; i < CLI_SEQUENCES; i++)
        if (strcmp(name, sequences[i].name) == 0 && has_sequence(run, i)) return true;
    return is_captured(run, name);
}

/* A sink that no mod of the user's reads has a logit for each head. */
static int check_sink(const cli_run *run) {
    const cli_tensor *sink = cli_st_find(&run->bindings.file, "sink");
    if (sink == NULL || !is_sink_implied(run)) return CLI_EXIT_OK;
    const fj_dtype dtype = sink->dtype;
    if (dtype != FJ_DTYPE_F16 && dtype != FJ_DTYPE_BF16 && dtype != FJ_DTYPE_F32 && dtype != FJ_DTYPE_F64)
        return cli_fail_file(CLI_EXIT_FAILED, run->input_path,
                             "tensor 'sink' is %s, not one of F16, BF16, F32, F64", sink->dtype_name);
    return require_dims(run, sink, &run->options.shape.heads, "a logit for each head of 'q'");
}

int cli_run_bind(cli_run *run) {
    const int sound = check_sink(run);
    if (sound != CLI_EXIT_OK) return sound;
    for (size_t i = 0; i < run->inputs.capture_count; i++) {
        fj_input_info info = fj_mod_capture(run->mod, i);
        const cli_tensor *tensor = cli_st_find(&run->bindings.file, info.name);
        if (tensor == NULL || !tensor->known) {
            return cli_fail_file(CLI_EXIT_FAILED, run->input_path, "captured tensor '%.100s' is missing",
                                 info.name);
        }
        int status = cli_check_bools(run->input_path, tensor);
        if (status == CLI_EXIT_OK) status = borrow(&run->inputs.captures[i], tensor);
        if (status != CLI_EXIT_OK) return status;
    }
    for (size_t i = 0; i < run->bindings.file.count; i++) {
        const char *name = run->bindings.file.tensors[i].name;
        if (!is_used(run, name)) cli_warn("%s: nothing uses tensor '%.100s'", run->input_path, name);
    }
    return CLI_EXIT_OK;
}
