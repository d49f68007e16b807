/* Private to expr/: what the emitters share. */
#ifndef FJ_EXPR_IR_EMIT_H
#define FJ_EXPR_IR_EMIT_H

#include "expr/ir/schedule.h"

typedef struct fj_emit {
    const fj_ir *ir;
    fj_arena *arena;
    fj_emit_target target;
    fj_buf *out;
    const fj_rate *rates;
    const uint8_t *leaves;
    const fj_free_loops *free_loops;
    const bool *needed; /* by the interval that is being written */
    const bool *given;  /* what the function being written reads from the states */
} fj_emit;

/* emit_node.c */
/* A value as an argument of an operation: its name, or a constant. */
void fj_emit_value(fj_emit *emit, fj_ref ref);
/* The statements of a block. */
void fj_emit_block(fj_emit *emit, const fj_sched_block *block, int depth);
void fj_emit_indent(fj_emit *emit, int depth);

/* emit_facts.c: the macros of the score and mask mods, of the output's and of the sink's. */
typedef struct fj_emit_empty {
    bool head, row, col; /* states without members */
} fj_emit_empty;
void fj_emit_facts(fj_emit *emit, fj_emit_empty empty, bool gradient);
void fj_emit_out_facts(fj_emit *emit, fj_emit_empty empty, bool gradient);
void fj_emit_sink_facts(fj_emit *emit, fj_emit_empty empty, bool gradient);

/* emit_interval.c */
void fj_emit_block_class(fj_emit *emit);
void fj_emit_may_fault(fj_emit *emit);
/* fj_span_class: as fj_block_class, where the interval of a node with a name, "rows" or "cols", is that of its span. */
void fj_emit_span_class(fj_emit *emit, const char *const *spans);

/* emit_span.c: FJ_HAS_SPANS, and where it is 1 spans of the states' members and fj_span_class. */
void fj_emit_spans(fj_emit *emit, const fj_ref *rows, size_t row_count, const fj_ref *cols, size_t col_count);

/* How a hook is declared, and the type that its argument a points to. */
static inline const char *fj_emit_linkage(const fj_emit *emit) {
    return emit->target == FJ_EMIT_CUDA ? "FJ_DEVICE" : "static inline";
}
static inline const char *fj_emit_args_type(const fj_emit *emit) {
    return emit->target == FJ_EMIT_CUDA ? "const fj_mod_args" : "const struct fj_cpu_args";
}

static inline char fj_emit_letter(const fj_emit *emit, fj_ref ref) {
    return fj_type_letters[fj_ir_type(emit->ir, ref)];
}

#endif
