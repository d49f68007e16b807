/* What the two files of the ONNX reader share: nodes as they are read, before they are ours. */
#ifndef FJ_FUSE_ONNX_H
#define FJ_FUSE_ONNX_H

#include "fuse/read.h"
#include "fuse/wire.h"

enum { FJ_ONNX_INPUTS = 64 };

typedef struct fj_onnx_type {
    bool known;
    fj_dtype dtype;
    int rank;
    fj_size dims[FJ_MAX_RANK];
} fj_onnx_type;

typedef struct fj_onnx_attribute {
    fj_str name;
    int64_t i;
    double f;
    fj_str s;
    int count; /* of ints */
    int64_t ints[FJ_MAX_RANK * 2];
    bool has_tensor;
    fj_wire tensor;
    FJ_VEC(fj_wire) graphs; /* of If, Loop and Scan */
} fj_onnx_attribute;

typedef struct fj_onnx_node {
    fj_str op, domain;
    const char *name;
    const char *inputs[FJ_ONNX_INPUTS], *outputs[FJ_ONNX_INPUTS]; /* "": absent */
    int input_count, output_count;
    FJ_VEC(fj_onnx_attribute) attributes;
} fj_onnx_node;

typedef struct fj_onnx {
    fj_reader *reader;
    const uint8_t *file; /* what offsets count from */
    int64_t opset, ir_version;
    json_t *types; /* name -> index into kinds */
    FJ_VEC(fj_onnx_type) kinds;
} fj_onnx;

/* The type that the file declares of a value; fails when there is none. */
fj_onnx_type fj_onnx_type_of(fj_onnx *onnx, const char *name);
/* A tensor of the file as a value of this name. */
int fj_onnx_tensor(fj_onnx *onnx, fj_wire wire, const char *name);
/* An attribute or NULL; an integer's value. */
const fj_onnx_attribute *fj_onnx_find(const fj_onnx_node *node, const char *name);
int64_t fj_onnx_integer(const fj_onnx_node *node, const char *name, int64_t otherwise);
bool fj_onnx_has_input(const fj_onnx_node *node, int index);
/* The value of an input; fails when there is none. */
int fj_onnx_input(fj_onnx *onnx, const fj_onnx_node *node, int index);
/* Appends a node, argument by argument (fj_read_arg); its results are the node's, of the types that the file declares. */
void fj_onnx_begin(fj_onnx *onnx, const fj_onnx_node *node, fj_node_op op);
void fj_onnx_end(fj_onnx *onnx, const fj_onnx_node *node);
/* A value between, for what is more than one of our operations. */
int fj_onnx_between(fj_onnx *onnx, const fj_onnx_node *node, fj_node_op op, int from, const fj_arg *more,
                    int count, int rank, const fj_size *dims);
static inline fj_arg fj_onnx_of_value(int value) { return (fj_arg){.kind = FJ_ARG_VALUE, .value = value}; }
static inline fj_arg fj_onnx_of_real(double value) { return (fj_arg){.kind = FJ_ARG_FLOAT, .real = value}; }
fj_arg fj_onnx_of_int(fj_onnx *onnx, int64_t value);
fj_arg fj_onnx_of_ints(fj_onnx *onnx, const int64_t *values, int count);
/* Integers of a constant; -1: they are not known. */
int fj_onnx_constant(fj_onnx *onnx, int index, int64_t *ret, int room);
/* A node with graphs of its own (onnx_inner.c); false: it has none. */
bool fj_onnx_inner(fj_onnx *onnx, const fj_onnx_node *node);
char *fj_onnx_text(fj_onnx *onnx, const fj_wire_field *field);
/* Attention, as our operations; or why it is not known (onnx_attention.c). */
const char *fj_onnx_attention(fj_onnx *onnx, const fj_onnx_node *node);
/* Appends a node that nobody knows, which reads its inputs and more. */
void fj_onnx_unknown(fj_onnx *onnx, const fj_onnx_node *node, const int *more, size_t count);
/* Appends what a node is of our operations. */
void fj_onnx_translate(fj_onnx *onnx, const fj_onnx_node *node);

#endif
