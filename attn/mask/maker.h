/* What makes block masks of a mod: its mask alone, as a graph and as loaded code. */
#ifndef FJ_ATTN_MASK_MAKER_H
#define FJ_ATTN_MASK_MAKER_H

#include "attn/mask/mask.h"

struct fj_mask_maker {
    atomic_int refs;
    fj_device *device;
    fj_mod *mod;
    fj_arena arena;   /* of the graph and what belongs to it; nothing is added once the maker is made */
    const fj_ir *ir;  /* mask and fault; NULL: there is no mask */
    const bool *used; /* of ir->captures: the mask reads an element or an extent */
    bool reads_batch, reads_head;
    fj_plan plan; /* what validation is given: a device, a mod, a problem; not an object */
    fj_variant variant;
    fj_object *object;
    const struct fj_cpu_mask *code;
    fj_kernel_info info;
};

/* FJ_ERR_INDEX, which tells of the least bad read of those that workers kept; FJ_OK where there is none (fault.c). */
fj_status fj_mask_report_fault(const fj_mask_maker *maker, const struct fj_cpu_fault *faults, int count,
                               const fj_resolved *inputs, fj_error *error);

/* ---- Tables: minima and maxima of captures (tables.c) -------------------------------------------- */

typedef struct fj_mask_tables {
    struct fj_cpu_table *tables; /* of each capture */
    struct fj_cpu_node *nodes;   /* of all of them */
    size_t count;
    int64_t node_count;
} fj_mask_tables;

/* Those of the captures that a maker reads, where they are long enough to have nodes; on threads. FJ_ERR_MEMORY. */
fj_status fj_mask_tables_make(const fj_mask_maker *maker, const fj_tensor *captures, const fj_launch *launch,
                              int workers, fj_mask_tables *ret_tables, fj_error *error);
void fj_mask_tables_finish(const fj_allocator *allocator, fj_mask_tables *tables);

#endif
