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

/* ---- q, k, v, do, dlse ------------------------------------------------------------------- */

static int require(const cli_run *run, const char *name, const char *layout, int rank,
                   const cli_tensor **ret_tensor) {
    const cli_tensor *tensor = cli_st_find(&run->bindings.file, name);
    if (tensor == NULL) {
        return cli_fail_file(CLI_EXIT_FAILED, run->input_path, "tensor '%s' %s is missing", name, layout);
    }
    if (tensor->rank != rank) {
        char text[SHAPE_TEXT];
        return cli_fail_file(CLI_EXIT_FAILED, run->input_path, "tensor '%s' is %s, not %s", name,
                             shape_text(tensor->rank, tensor->dims, text), layout);
    }
    *ret_tensor = tensor;
    return CLI_EXIT_OK;
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

static int shape_of(cli_run *run, const cli_tensor *q, const cli_tensor *k, const cli_tensor *v) {
    bool legal = q->known && (q->dtype == FJ_DTYPE_F16 || q->dtype == FJ_DTYPE_BF16 ||
                              q->dtype == FJ_DTYPE_F32 || q->dtype == FJ_DTYPE_F64);
    if (!legal) {
        return cli_fail_file(CLI_EXIT_FAILED, run->input_path,
                             "tensor 'q' is %s, not one of F16, BF16, F32, F64", q->dtype_name);
    }
    run->options.dtype = q->dtype;
    run->options.shape =
        (cli_shape){q->dims[0], q->dims[1], k->dims[1], q->dims[2], k->dims[2], q->dims[3], v->dims[3]};
    const cli_shape *shape = &run->options.shape;
    const int64_t k_dims[4] = {shape->batch, shape->kv_heads, shape->kv_len, shape->head_dim};
    const int64_t v_dims[4] = {shape->batch, shape->kv_heads, shape->kv_len, shape->value_dim};
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

static int borrow(cli_view *view, const cli_tensor *tensor) {
    return cli_view_borrow(view, tensor->name, tensor->dtype, tensor->rank, tensor->dims, tensor->data);
}

static int bind_backward(cli_run *run) {
    const cli_shape *shape = &run->options.shape;
    const int64_t dims[4] = {shape->batch, shape->heads, shape->q_len, shape->value_dim};
    const cli_tensor *dout = NULL, *dlse = NULL;
    int status = require(run, "do", "[B,Hq,L,Ev]", 4, &dout);
    if (status == CLI_EXIT_OK) status = require_dtype(run, dout, run->options.dtype, "as 'q' is");
    if (status == CLI_EXIT_OK) status = require_dims(run, dout, dims, "the shape of out");
    if (status == CLI_EXIT_OK) status = borrow(&run->inputs.dout, dout);
    if (status != CLI_EXIT_OK || cli_st_find(&run->bindings.file, "dlse") == NULL) return status;
    status = require(run, "dlse", "[B,Hq,L]", 3, &dlse);
    if (status == CLI_EXIT_OK) {
        status = require_dtype(run, dlse, cli_statistics_dtype(run->options.dtype), "the dtype of lse");
    }
    if (status == CLI_EXIT_OK) status = require_dims(run, dlse, dims, "the shape of lse");
    if (status == CLI_EXIT_OK) status = borrow(&run->inputs.dlse, dlse);
    return status;
}

int cli_run_shape(cli_run *run) {
    const cli_tensor *q = NULL, *k = NULL, *v = NULL;
    int status = require(run, "q", "[B,Hq,L,E]", 4, &q);
    if (status == CLI_EXIT_OK) status = require(run, "k", "[B,Hkv,S,E]", 4, &k);
    if (status == CLI_EXIT_OK) status = require(run, "v", "[B,Hkv,S,Ev]", 4, &v);
    if (status == CLI_EXIT_OK) status = shape_of(run, q, k, v);
    if (status == CLI_EXIT_OK) status = borrow(&run->inputs.query, q);
    if (status == CLI_EXIT_OK) status = borrow(&run->inputs.key, k);
    if (status == CLI_EXIT_OK) status = borrow(&run->inputs.value, v);
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

static bool is_used(const cli_run *run, const char *name) {
    if (cli_is_reserved(name)) return run->backward || (strcmp(name, "do") != 0 && strcmp(name, "dlse") != 0);
    for (size_t i = 0; i < run->inputs.capture_count; i++) {
        if (strcmp(fj_mod_capture(run->mod, i).name, name) == 0) return true;
    }
    return false;
}

int cli_run_bind(cli_run *run) {
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
