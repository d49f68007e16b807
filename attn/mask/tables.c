/* Minima and maxima of captured tensors, as templates/cpu/abi.h describes them.
 *
 * One pass over each tensor, O(elements). Level 0 is made in pieces, on threads; the levels above it, a third of its size,
 * by one. Large tensors of several dimensions, dense masks and biases, have none: their pass would cost as much as
 * looking at the blocks themselves. */
#include <math.h>
#include <string.h>

#include "attn/mask/maker.h"
#include "base/dtype.h"
#include "driver/parallel.h"

enum { PIECE = 512, LARGEST = 1 << 24 }; /* nodes of an item; elements of a tensor of several dimensions */

typedef union fj_cpu_scalar end;

/* ---- Sizes ------------------------------------------------------------------------------------------ */

static int64_t row_count(const fj_tensor *tensor) {
    int64_t rows = 1;
    for (int i = 0; i + 1 < tensor->rank; i++) rows *= tensor->shape[i];
    return rows;
}

static bool has_nodes(const fj_tensor *tensor) {
    if (!tensor->present || tensor->rank == 0) return false;
    const int64_t length = tensor->shape[tensor->rank - 1], rows = row_count(tensor);
    if (rows == 0 || length <= FJ_CPU_TABLE_LEAF) return false;
    return tensor->rank == 1 || rows <= LARGEST / length;
}

/* Fills the places of the levels; returns the nodes of all rows. */
static int64_t lay_out(const fj_tensor *tensor, struct fj_cpu_table *table) {
    int64_t nodes = (tensor->shape[tensor->rank - 1] + FJ_CPU_TABLE_LEAF - 1) / FJ_CPU_TABLE_LEAF;
    for (;; nodes = (nodes + FJ_CPU_TABLE_FAN - 1) / FJ_CPU_TABLE_FAN) {
        table->first[table->levels++] = table->row;
        table->row += nodes;
        if (nodes == 1) return table->row * row_count(tensor);
    }
}

/* ---- Nodes ------------------------------------------------------------------------------------------ */

typedef struct filling {
    const fj_tensor *tensor;
    const struct fj_cpu_table *table;
    struct fj_cpu_node *nodes;
    int64_t pieces; /* of a row */
} filling;

#define LEAF_OF(type)                                                    \
    static struct fj_cpu_node leaf_##type(const type *from, int64_t n) { \
        type lo = from[0], hi = from[0];                                 \
        for (int64_t i = 1; i < n; i++) {                                \
            lo = from[i] < lo ? from[i] : lo;                            \
            hi = from[i] > hi ? from[i] : hi;                            \
        }                                                                \
        return (struct fj_cpu_node){.lo = {.i = lo}, .hi = {.i = hi}};   \
    }
LEAF_OF(int32_t)
LEAF_OF(int64_t)

static struct fj_cpu_node join(struct fj_cpu_node a, struct fj_cpu_node b, bool floats) {
    if (!floats) {
        if (b.lo.i < a.lo.i) a.lo.i = b.lo.i;
        if (b.hi.i > a.hi.i) a.hi.i = b.hi.i;
        return a;
    }
    if (isnan(a.lo.f)) return a;
    if (isnan(b.lo.f)) return b;
    if (b.lo.f < a.lo.f) a.lo.f = b.lo.f;
    if (b.hi.f > a.hi.f) a.hi.f = b.hi.f;
    return a;
}

static struct fj_cpu_node element(const fj_tensor *tensor, bool floats, const char *row, int64_t index) {
    struct fj_cpu_node node;
    if (floats) {
        node.lo.f = node.hi.f = fj_dtype_load_float(tensor->dtype, row, index);
        return node;
    }
    node.lo.i = fj_dtype_load_int(tensor->dtype, row, index);
    if (tensor->dtype == FJ_DTYPE_BOOL) node.lo.i = node.lo.i != 0;
    node.hi = node.lo;
    return node;
}

static struct fj_cpu_node leaf(const fj_tensor *tensor, const char *row, int64_t from, int64_t count) {
    const int64_t stride = tensor->strides[tensor->rank - 1];
    const bool floats = fj_dtype_is_float(tensor->dtype);
    const char *first = row + from * stride * (int64_t)fj_dtype_size(tensor->dtype);
    if (stride == 1 && tensor->dtype == FJ_DTYPE_I32)
        return leaf_int32_t((const int32_t *)(const void *)first, count);
    if (stride == 1 && tensor->dtype == FJ_DTYPE_I64)
        return leaf_int64_t((const int64_t *)(const void *)first, count);
    struct fj_cpu_node node = element(tensor, floats, first, 0);
    for (int64_t i = 1; i < count; i++) node = join(node, element(tensor, floats, first, i * stride), floats);
    return node;
}

static const char *row_at(const fj_tensor *tensor, int64_t row) {
    int64_t offset = 0;
    for (int i = tensor->rank - 2; i >= 0; i--) {
        offset += row % tensor->shape[i] * tensor->strides[i];
        row /= tensor->shape[i];
    }
    return tensor->data + offset * (int64_t)fj_dtype_size(tensor->dtype);
}

static void fill_piece(void *argument, int64_t item, int worker) {
    const filling *f = argument;
    const int64_t length = f->tensor->shape[f->tensor->rank - 1], row = item / f->pieces;
    const int64_t nodes = (length + FJ_CPU_TABLE_LEAF - 1) / FJ_CPU_TABLE_LEAF,
                  first = item % f->pieces * PIECE;
    const char *from = row_at(f->tensor, row);
    struct fj_cpu_node *to = f->nodes + row * f->table->row;
    (void)worker;
    for (int64_t i = first; i < first + PIECE && i < nodes; i++) {
        const int64_t at = i * FJ_CPU_TABLE_LEAF, left = length - at;
        to[i] = leaf(f->tensor, from, at, left < FJ_CPU_TABLE_LEAF ? left : FJ_CPU_TABLE_LEAF);
    }
}

static void fill_above(const filling *f, int64_t row) {
    const bool floats = fj_dtype_is_float(f->tensor->dtype);
    struct fj_cpu_node *nodes = f->nodes + row * f->table->row;
    for (int level = 1; level < f->table->levels; level++) {
        const int64_t from = f->table->first[level - 1], to = f->table->first[level];
        for (int64_t i = from; i < to; i++) {
            struct fj_cpu_node *above = nodes + to + (i - from) / FJ_CPU_TABLE_FAN;
            *above = (i - from) % FJ_CPU_TABLE_FAN == 0 ? nodes[i] : join(*above, nodes[i], floats);
        }
    }
}

static void fill(filling *f, const fj_launch *launch, int workers) {
    const int64_t nodes = (f->tensor->shape[f->tensor->rank - 1] + FJ_CPU_TABLE_LEAF - 1) / FJ_CPU_TABLE_LEAF;
    const int64_t rows = row_count(f->tensor);
    f->pieces = (nodes + PIECE - 1) / PIECE;
    fj_driver_parallel(launch, workers, rows * f->pieces, fill_piece, f);
    for (int64_t row = 0; row < rows; row++) fill_above(f, row);
}

/* ---- All of them ------------------------------------------------------------------------------------ */

static size_t nodes_size(int64_t count) { return (size_t)(count + 1) * sizeof(struct fj_cpu_node); }

void fj_mask_tables_finish(const fj_allocator *allocator, fj_mask_tables *tables) {
    if (tables->nodes) fj_free(allocator, tables->nodes, nodes_size(tables->node_count));
    if (tables->tables) fj_free(allocator, tables->tables, (tables->count + 1) * sizeof *tables->tables);
    *tables = (fj_mask_tables){0};
}

fj_status fj_mask_tables_make(const fj_mask_maker *maker, const fj_tensor *captures, const fj_launch *launch,
                              int workers, fj_mask_tables *ret_tables, fj_error *error) {
    const fj_allocator *allocator = &maker->device->context->allocator;
    fj_mask_tables all = {.count = maker->ir->captures.len};
    all.tables = fj_alloc_zeroed(allocator, (all.count + 1) * sizeof *all.tables);
    if (!all.tables) return fj_mask_no_memory(error);
    for (size_t i = 0; i < all.count; i++)
        if (maker->used[i] && has_nodes(&captures[i]))
            all.node_count += lay_out(&captures[i], &all.tables[i]);
    all.nodes = fj_alloc(allocator, nodes_size(all.node_count));
    if (!all.nodes) {
        fj_mask_tables_finish(allocator, &all);
        return fj_mask_no_memory(error);
    }
    struct fj_cpu_node *next = all.nodes;
    for (size_t i = 0; i < all.count; i++) {
        if (all.tables[i].levels == 0) continue;
        filling f = {.tensor = &captures[i], .table = &all.tables[i], .nodes = next};
        fill(&f, launch, workers);
        all.tables[i].nodes = next;
        next += all.tables[i].row * row_count(&captures[i]);
    }
    *ret_tables = all;
    return FJ_OK;
}
