/* Graphs inside of ONNX's nodes. */
#include "fuse/onnx.h"

enum { MOST_INNER = 32 };

/* What a graph of If, Loop or Scan is looked at for: values of the graph around it that it reads, which are its node's operands
 * as much as those in the list, and softmaxes, which are not fused. */
typedef struct inner_graph {
    fj_onnx *onnx;
    const fj_onnx_node *owner;
    FJ_VEC(int) reads;
    int depth;
} inner_graph;

static void add_read(inner_graph *inner, const fj_wire_field *field) {
    const int value = fj_read_find(inner->onnx->reader, fj_onnx_text(inner->onnx, field));
    if (value >= 0) FJ_PUSH(inner->onnx->reader->arena, &inner->reads, value);
}

static void look_inside(inner_graph *inner, fj_wire wire);

static void look_at_node(inner_graph *inner, fj_wire wire) {
    fj_arena *arena = inner->onnx->reader->arena;
    fj_wire_field field, part;
    fj_str op = {"", 0};
    const char *name = "";
    while (fj_wire_next(&wire, &field)) {
        if (field.number == 1) add_read(inner, &field);
        if (field.number == 3) name = fj_onnx_text(inner->onnx, &field);
        if (field.number == 4) op = fj_wire_text(&field);
        while (field.number == 5 && field.type == 2 && fj_wire_next(&field.message, &part))
            if ((part.number == 6 || part.number == 11) && part.type == 2) look_inside(inner, part.message);
    }
    if (!fj_str_is(op, "Softmax") && !fj_str_is(op, "Attention")) return;
    const fj_str owner = inner->owner->op;
    const char *reason =
        fj_arena_printf(arena, "it is inside of '%.80s' (%.*s), whose graphs flexjit does not read",
                        inner->owner->name, (int)(owner.len < 60 ? owner.len : 60), owner.data);
    if (*name == '\0') name = fj_arena_printf(arena, "%.80s: a softmax", inner->owner->name);
    FJ_PUSH(arena, &inner->onnx->reader->graph->unread, (fj_unread){name, reason});
}

static void look_inside(inner_graph *inner, fj_wire wire) {
    fj_wire_field field, part;
    if (++inner->depth > MOST_INNER)
        fj_read_fail(inner->onnx->reader, "its graphs are nested more than %d deep", MOST_INNER);
    while (fj_wire_next(&wire, &field)) {
        if (field.number == 1 && field.type == 2) look_at_node(inner, field.message);
        while (field.number == 12 && field.type == 2 && fj_wire_next(&field.message, &part))
            if (part.number == 1) add_read(inner, &part); /* a value from around is a result as it is */
    }
    inner->depth--;
}

/* False: the node has no graphs. */
bool fj_onnx_inner(fj_onnx *onnx, const fj_onnx_node *node) {
    inner_graph inner = {.onnx = onnx, .owner = node};
    bool found = false;
    for (size_t i = 0; i < node->attributes.len; i++)
        for (size_t j = 0; j < node->attributes.data[i].graphs.len; j++) {
            look_inside(&inner, node->attributes.data[i].graphs.data[j]);
            found = true;
        }
    if (found) fj_onnx_unknown(onnx, node, inner.reads.data, inner.reads.len);
    return found;
}
