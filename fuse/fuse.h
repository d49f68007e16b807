/* Attention in tensor graphs: reading a model, finding what is attention, writing what was found, evaluating.
 *
 *   fj_fuse_open       a model of torch.export, of ONNX, or of our own JSON, to a graph
 *   fj_fuse_find       each softmax: a fused attention, or the reason why not; the graph is rewritten
 *   fj_fuse_evaluate   a graph's outputs, in double or in the graph's dtypes; fused attentions by kernels
 *
 * One thread at a time uses a model. Functions return fj_status and fill an fj_error; outputs are untouched on failure. */
#ifndef FJ_FUSE_FUSE_H
#define FJ_FUSE_FUSE_H

#include "fuse/files.h"
#include "fuse/graph.h"

/* Why a softmax was not fused: the first that applies, in this order. */
#define FJ_REASONS(X)                                           \
    X(OUTPUTS_USED, "outputs-used")                             \
    X(SOFTMAX_DIM, "softmax-dim")                               \
    X(NOT_ATTENTION, "not-attention")                           \
    X(DTYPE_MIX, "dtype-mix")                                   \
    X(DEVICE_MIX, "device-mix")                                 \
    X(SCALE_NOT_CONSTANT, "scale-not-constant")                 \
    X(MASK_DTYPE, "mask-dtype")                                 \
    X(MASK_DOES_NOT_BROADCAST, "mask-does-not-broadcast")       \
    X(ROUNDING_DIFFERS, "rounding-differs")                     \
    X(OP_NOT_IN_THE_MOD_LANGUAGE, "op-not-in-the-mod-language") \
    X(BATCH_DIMS_DIFFER, "batch-dims-differ")                   \
    X(DROPOUT_IN_TRAINING, "dropout-in-training")               \
    X(MUTATION_BETWEEN, "mutation-between")                     \
    X(SIZE_BOUND, "size-bound")
typedef enum fj_reason {
#define X(id, name) FJ_REASON_##id,
    FJ_REASONS(X)
#undef X
        FJ_REASONS_COUNT
} fj_reason;
const char *fj_reason_name(fj_reason reason);

typedef struct fj_fused {
    const char *name;    /* attention_0 ... */
    const char *pattern; /* what it was: "softmax", "safe-softmax", "written-out", "sdpa" */
    const char *softmax; /* the node's name */
    const char *mod;     /* text of a mod file */
    bool has_score, has_mask, has_sink;
    fj_dtype dtype;
    double scale;
    fj_size batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim;
    int nodes; /* how many it replaced */
    int capture_count;
    const char **capture_names;
    int *captures;         /* values of the graph */
    int inputs[3], result; /* those that queries, keys and values come from; what the second product gave */
    bool transposed;       /* the result has queries in columns */
    FJ_VEC(const char *) notes; /* what may differ in numbers */
} fj_fused;

typedef struct fj_refused {
    const char *softmax; /* the node's name */
    fj_reason reason;
    const char *detail; /* which node, and what about it; "" */
} fj_refused;

typedef struct fj_findings {
    FJ_VEC(fj_fused) fused;
    FJ_VEC(fj_refused) refused;
} fj_findings;

typedef struct fj_model {
    fj_arena arena;
    fj_graph graph;
    fj_findings findings;
    fj_mapping file;
    fj_files files; /* beside it */
} fj_model;

/* path: what begins as a zip archive is a .pt2, what begins as one an ONNX model, else JSON. FJ_ERR_IO: it cannot be read; FJ_ERR_TENSOR: what is wrong with it, with
 * member and node. The file stays mapped, and has to stay as it is, until the model is closed. */
FJ_NODISCARD fj_status fj_fuse_open(const char *path, const fj_allocator *allocator, fj_model **ret_model,
                                    fj_error *error);
/* The same from memory that outlives the model; weights of other files are absent. */
FJ_NODISCARD fj_status fj_fuse_parse(const uint8_t *bytes, size_t size, const fj_allocator *allocator,
                                     fj_model **ret_model, fj_error *error);
void fj_fuse_close(fj_model **model); /* takes NULL, clears the pointer */

typedef struct fj_fuse_options {
    fj_context *context; /* mods are compiled, and refused where that fails; NULL: not */
    bool no_empty_rows;  /* fills by the lowest float are masks: every row sees something */
} fj_fuse_options;

/* Fills model->findings and rewrites model->graph. */
FJ_NODISCARD fj_status fj_fuse_find(fj_model *model, const fj_fuse_options *options, fj_error *error);

/* graph.json, and manifest.json for the mods as NAME.py. */
FJ_NODISCARD fj_status fj_fuse_write_graph(fj_model *model, fj_text *ret_text, fj_error *error);
FJ_NODISCARD fj_status fj_fuse_write_manifest(fj_model *model, fj_text *ret_text, fj_error *error);

/* ---- Evaluation -------------------------------------------------------------------------- */

typedef struct fj_array {
    fj_dtype dtype;
    int rank;
    int64_t dims[FJ_MAX_RANK];
    int64_t count;
    double *data;
} fj_array;

/* Elements that a value has in place of its own. */
typedef struct fj_override {
    int value;
    const double *data;
} fj_override;

typedef struct fj_evaluation {
    /* The caller's tensor of this name, packed; false: there is none. */
    bool (*input)(void *user, const char *name, fj_dtype *ret_dtype, int *ret_rank, const int64_t **ret_dims,
                  const void **ret_data);
    void *user;
    bool exact;        /* floats are not rounded to the dtypes of values */
    fj_device *device; /* for fused attentions; NULL: the graph has none */
    fj_context *context;
    const fj_override *overrides; /* by override_count */
    int override_count;
    int until;             /* the node that is not evaluated any more; 0: all are */
    fj_array **ret_arrays; /* gets those of all values, by value; NULL: they are not asked for */
} fj_evaluation;

/* The elements as their dtype has them, packed. */
void fj_fuse_store(const fj_array *array, void *data);
/* outputs: as many as the graph's, in arena, which is the caller's; NULL: not asked for. FJ_ERR_TENSOR names the node. */
FJ_NODISCARD fj_status fj_fuse_evaluate(fj_model *model, fj_arena *arena, const fj_evaluation *evaluation,
                                        fj_array *outputs, fj_error *error);

/* The gradient of one value that a fused attention reads, along a direction, against differences. */
typedef struct fj_gradient_check {
    const char *name; /* the value's */
    double error, bound;
    bool ok;
} fj_gradient_check;

/* Of the fused attention of this index. before: the same file, opened again, without what fj_fuse_find does. The list is in arena. */
FJ_NODISCARD fj_status fj_fuse_check_gradients(fj_model *before, fj_model *after, size_t index,
                                               fj_arena *arena, const fj_evaluation *evaluation,
                                               fj_gradient_check **ret_checks, int *ret_count,
                                               fj_error *error);

#endif
