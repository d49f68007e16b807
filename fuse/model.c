/* Models: files, mapped, to graphs. */
#include <string.h>

#include "base/dtype.h"
#include "fuse/fuse.h"
#include "fuse/read.h"

const char *fj_reason_name(fj_reason reason) {
    static const char *const names[] = {
#define X(id, name) name,
        FJ_REASONS(X)
#undef X
    };
    return names[reason];
}

/* ---- Reading ----------------------------------------------------------------------------- */

typedef struct reading {
    fj_model *model;
    const uint8_t *bytes;
    size_t size;
    const char *path;
    json_t *names, *root;
    fj_error *error;
} reading;

/* Bytes of parameters that lie in files beside the graph. */
static void find_weights(fj_reader *reader) {
    const fj_graph *graph = reader->graph;
    for (size_t i = 0; i < graph->inputs.len; i++)
        fj_read_weights(reader, &graph->values.data[graph->inputs.data[i]]);
}

/* The rewritten graph's weights lie in the model's own file. */
static void name_weights(fj_scope *scope, reading *r) {
    const char *slash = strrchr(r->path, '/');
    r->model->graph.weights = fj_arena_strdup(scope->arena, fj_str_from(slash ? slash + 1 : r->path));
}

static void read_graph(fj_scope *scope, reading *r) {
    fj_reader reader = {.scope = scope,
                        .arena = scope->arena,
                        .graph = &r->model->graph,
                        .place = "",
                        .files = &r->model->files};
    fj_graph_init(&r->model->graph, scope->arena);
    r->names = json_object();
    reader.names = r->names;
    if (r->names == NULL) fj_fail(scope, FJ_ERR_MEMORY, "not enough memory for the graph");
    if (r->size >= 4 && memcmp(r->bytes, "PK\3\4", 4) == 0) {
        fj_read_pt2(&reader, r->bytes, r->size, &r->root);
        if (r->path != NULL) name_weights(scope, r);
    } else {
        const char *at = (const char *)r->bytes;
        size_t blanks = 0;
        while (blanks < r->size && strchr(" \t\r\n", at[blanks]) != NULL && at[blanks] != '\0') blanks++;
        if (r->size > 1 && r->bytes[0] == 0x08 &&
            r->bytes[1] < 64) { /* ir_version, the first field of an ONNX model */
            fj_read_onnx(&reader, r->bytes, r->size, &r->root);
            if (r->path != NULL) name_weights(scope, r);
            return;
        }
        if (blanks == r->size || at[blanks] != '{')
            fj_fail(scope, FJ_ERR_TENSOR,
                    "neither a .pt2 archive of torch.export.save, an ONNX model nor a graph in JSON");
        r->root = fj_read_json(&reader, at, r->size);
        fj_read_own(&reader, r->root);
        find_weights(&reader);
    }
}

static void read_model(fj_scope *scope, void *argument) {
    reading *r = argument;
    fj_graph *graph = &r->model->graph;
    read_graph(scope, r);
    for (size_t i = 0; i < graph->outputs.len; i++)
        graph->values.data[graph->outputs.data[i]].is_output = true;
    fj_graph_validate(graph);
    fj_graph_sweep(graph);
}

static fj_status read_bytes(reading *r, const fj_allocator *allocator, fj_model **ret_model,
                            fj_error *error) {
    if (allocator == NULL) allocator = &fj_allocator_libc;
    fj_model *model = fj_alloc_zeroed(allocator, sizeof *model);
    if (model == NULL) return fj_error_set(error, FJ_ERR_MEMORY, "not enough memory for the graph");
    fj_arena_init(&model->arena, allocator);
    r->model = model;
    if (r->path != NULL) model->files.path = r->path;
    const fj_status status = fj_scope_run(&model->arena, error, read_model, r);
    json_decref(r->names);
    json_decref(r->root);
    if (status == FJ_OK)
        *ret_model = model;
    else
        fj_fuse_close(&model);
    return status;
}

fj_status fj_fuse_parse(const uint8_t *bytes, size_t size, const fj_allocator *allocator,
                        fj_model **ret_model, fj_error *error) {
    reading r = {.bytes = bytes, .size = size};
    return read_bytes(&r, allocator, ret_model, error);
}

fj_status fj_fuse_open(const char *path, const fj_allocator *allocator, fj_model **ret_model,
                       fj_error *error) {
    fj_mapping file = {0};
    fj_model *model = NULL;
    fj_status status = fj_file_map(path, &file, error);
    if (status != FJ_OK) return status;
    reading r = {.bytes = file.bytes, .size = file.size, .path = path};
    status = read_bytes(&r, allocator, &model, error);
    if (status != FJ_OK) {
        fj_file_unmap(&file);
        return status;
    }
    if (model != NULL) {
        model->file = file;
        model->files.path = NULL; /* the caller's text */
    }
    *ret_model = model;
    return FJ_OK;
}

void fj_fuse_close(fj_model **model) {
    fj_model *closed = *model;
    if (closed == NULL) return;
    *model = NULL;
    const fj_allocator *allocator = closed->arena.allocator;
    fj_file_unmap(&closed->file);
    fj_files_close(&closed->files);
    fj_arena_finish(&closed->arena);
    fj_free(allocator, closed, sizeof *closed);
}

/* ---- Writing ----------------------------------------------------------------------------- */

typedef struct writing {
    fj_model *model;
    fj_buf buf;
    bool manifest;
} writing;

static void write_dim(fj_graph *graph, fj_buf *buf, fj_size size) {
    int64_t number;
    if (fj_size_is_const(&graph->sizes, size, &number))
        fj_buf_printf(buf, "%lld", (long long)number);
    else
        fj_buf_put(buf, "?");
}

static void write_entry(fj_graph *graph, fj_buf *buf, const fj_fused *fused) {
    const fj_size shape[] = {fused->batch,  fused->heads,    fused->kv_heads, fused->q_len,
                             fused->kv_len, fused->head_dim, fused->value_dim};
    int64_t numbers[FJ_ARRAY_LEN(shape)];
    bool known = true;
    for (size_t i = 0; i < FJ_ARRAY_LEN(shape); i++)
        known &= fj_size_is_const(&graph->sizes, shape[i], &numbers[i]);
    (void)fj_size_is_const(&graph->sizes, fused->head_dim, &numbers[5]);
    (void)fj_size_is_const(&graph->sizes, fused->value_dim, &numbers[6]);
    fj_buf_printf(buf, "{\"mod\":\"%s.py\",\"bind\":{", fused->name);
    for (int i = 0; i < fused->capture_count; i++) {
        const fj_value *value = &graph->values.data[fused->captures[i]];
        fj_buf_printf(buf, "%s\"%s\":\"%s[", i > 0 ? "," : "", fused->capture_names[i],
                      fj_dtype_name(value->dtype));
        for (int d = 0; d < value->rank; d++) {
            if (d > 0) fj_buf_put(buf, ",");
            write_dim(graph, buf, value->dims[d]);
        }
        fj_buf_put(buf, "]\"");
    }
    fj_buf_put(buf, "}");
    fj_buf_put(buf, ",\"scale\":");
    fj_buf_double(buf, fused->scale);
    if (known) {
        fj_buf_put(buf, ",\"shapes\":[\"");
        for (size_t i = 0; i < FJ_ARRAY_LEN(shape); i++)
            fj_buf_printf(buf, "%s%lld", i > 0 ? "," : "", (long long)numbers[i]);
        fj_buf_put(buf, "\"]");
    }
    fj_buf_printf(buf, ",\"problems\":[{\"dtype\":\"%s\",\"head_dim\":%lld,\"value_dim\":%lld}]}",
                  fj_dtype_name(fused->dtype), (long long)numbers[5], (long long)numbers[6]);
}

static void write_body(fj_scope *scope, void *argument) {
    writing *w = argument;
    (void)scope;
    if (!w->manifest) {
        fj_write_graph(&w->model->graph, &w->buf);
        return;
    }
    fj_buf_put(&w->buf, "{\"schema\":1,\"entries\":[");
    for (size_t i = 0; i < w->model->findings.fused.len; i++) {
        fj_buf_put(&w->buf, i > 0 ? ",\n  " : "\n  ");
        write_entry(&w->model->graph, &w->buf, &w->model->findings.fused.data[i]);
    }
    fj_buf_put(&w->buf, "]}\n");
}

static fj_status write_text(fj_model *model, bool manifest, fj_text *ret_text, fj_error *error) {
    writing w = {.model = model, .manifest = manifest};
    fj_buf_init(&w.buf, model->arena.allocator);
    fj_status status = fj_scope_run(&model->arena, error, write_body, &w);
    if (status != FJ_OK) {
        fj_buf_finish(&w.buf);
        return status;
    }
    status = fj_buf_take(&w.buf, ret_text);
    return status == FJ_OK ? FJ_OK : fj_error_set(error, status, "not enough memory for the text");
}

fj_status fj_fuse_write_graph(fj_model *model, fj_text *ret_text, fj_error *error) {
    return write_text(model, false, ret_text, error);
}

fj_status fj_fuse_write_manifest(fj_model *model, fj_text *ret_text, fj_error *error) {
    return write_text(model, true, ret_text, error);
}
