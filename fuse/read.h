/* What the readers share: a graph that grows by names. Bytes are untrusted. */
#ifndef FJ_FUSE_READ_H
#define FJ_FUSE_READ_H

#include <jansson.h>

#include "fuse/files.h"
#include "fuse/graph.h"

enum { FJ_READ_MOST = 1000000 }; /* values, and nodes, of a graph */

typedef struct fj_reader {
    fj_scope *scope;
    fj_arena *arena;
    fj_graph *graph;
    fj_files *files;   /* beside the model */
    json_t *names;     /* name -> value; the caller's to give back */
    const char *place; /* for messages: the member of an archive, or "" */
    fj_node_op op;     /* of the node that is being read */
    const char *node, *target;
    fj_arg args[FJ_MAX_ARGS];
    bool in_place;
} fj_reader;

_Noreturn void fj_read_fail(fj_reader *reader, const char *format, ...) FJ_PRINTF(2, 3);
/* Fails when the name is taken. */
int fj_read_value(fj_reader *reader, const char *name, fj_value_kind kind, fj_dtype dtype, int rank,
                  const fj_size *dims);
/* Puts a number under a name into a table of names. */
void fj_read_map(fj_reader *reader, json_t *map, const char *name, int64_t number);
/* Finds the elements of a value that lie in a file; where that is missing it is told of where they are needed. */
void fj_read_weights(fj_reader *reader, fj_value *value);
/* -1: there is none. */
int fj_read_find(const fj_reader *reader, const char *name);

void fj_read_node(fj_reader *reader, fj_node_op op, const char *name, const char *target);
/* Sets an argument by name. What the table does not know makes the node one of an unknown operation, unless it changes
 * nothing about values. */
void fj_read_arg(fj_reader *reader, const char *name, fj_arg arg);
/* Fills in defaults and appends the node. */
void fj_read_node_end(fj_reader *reader, const int *outputs, int output_count);

/* JSON text into a tree that refuses duplicate keys; fails with line and column. */
json_t *fj_read_json(fj_reader *reader, const char *text, size_t size);
/* Members of objects, of the kind that is expected; fail with the name of the key. */
json_t *fj_read_array(fj_reader *reader, json_t *object, const char *key);
json_t *fj_read_object(fj_reader *reader, json_t *object, const char *key);
const char *fj_read_text(fj_reader *reader, json_t *object, const char *key);

/* Our own format, and what torch.export.save writes. */
void fj_read_own(fj_reader *reader, json_t *root);
void fj_read_pt2(fj_reader *reader, const uint8_t *bytes, size_t size, json_t **ret_root);

/* ret_types: the caller's to give back. */
void fj_read_onnx(fj_reader *reader, const uint8_t *bytes, size_t size, json_t **ret_types);

/* Our own format, written. */
void fj_write_graph(fj_graph *graph, fj_buf *buf);
/* A JSON string. */
void fj_write_string(fj_buf *buf, const char *text);

#endif
