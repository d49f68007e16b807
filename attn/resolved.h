/* The tensors of one call after validation: what the compiled kernels and the reference path read.
 *
 * attn/validate.c makes it from fj_args. Everything in it agrees: shapes, dtypes, strides, alignment
 * and byte offsets were checked, so that no user of it checks again. Nothing is owned.
 */
#ifndef FJ_ATTN_RESOLVED_H
#define FJ_ATTN_RESOLVED_H

#include "expr/ir/ir.h"

typedef struct fj_tensor {
    bool present;
    fj_dtype dtype;
    int rank;
    char *data;                   /* first element (byte_offset is in it); may be NULL when empty */
    int64_t shape[FJ_MAX_RANK];   /* dimensions past the rank: extent 1, stride 0 */
    int64_t strides[FJ_MAX_RANK]; /* in elements */
} fj_tensor;

/* Where the sequences of a call lie: arrays of the device's memory, those of other forms NULL. */
typedef struct fj_sequences {
    const int32_t *cu_q, *cu_kv; /* packed: batch + 1 each */
    const int32_t *kv_lens, *page_table;
    const int32_t *q_offset;                          /* any form; NULL: 0 */
    int64_t pages, page_size, table_width, table_row; /* table_row: elements to the next sequence's */
} fj_sequences;

/* What a call says of dropout. state: I64 {seed, offset} of the device's memory, which count instead, or NULL; where the host reads
 * that memory, seed and offset are those of it already. */
typedef struct fj_dropout {
    double probability; /* 0 to 1; without dropout 0 */
    uint64_t seed, offset;
    const int64_t *state;
} fj_dropout;

/* What kept probabilities are multiplied by; of a probability of 1, which keeps none, 0. */
static inline double fj_dropout_scale(const fj_dropout *dropout) {
    return dropout->probability < 1 ? 1 / (1 - dropout->probability) : 0;
}

/* Tensors have their axes in the order of the dense form: packed, the batch has stride 0 and rows are those of all
 * sequences; keys and values of the paged form are [page, Hkv, row of a page, E]. */
typedef struct fj_resolved {
    /* Each below 2^31; heads_q a multiple of heads_kv. Packed, lengths are those of all sequences; paged, kv_len is what
     * the table has room for. */
    int64_t batch, heads_q, heads_kv, q_len, kv_len;
    fj_form form;
    fj_sequences sequences;
    bool shared_keys;    /* key, value and their gradients have a batch of 1 under a larger one */
    int64_t first_batch; /* what a mod sees of batch and query 0 */
    int32_t q_offset;
    int64_t head_dim, value_dim;
    double scale;
    fj_tensor query, key, value; /* [B,Hq,L,E] [B,Hkv,S,E] [B,Hkv,S,Ev], dtype of the problem */
    fj_tensor out, lse, max;     /* forward writes out, lse and, if present, max; backward reads out, lse */
    fj_tensor
        out_raw; /* before the mod of the output: forward writes it, if present; backward reads it, instead of out */
    fj_tensor lse_low;    /* lse + lse_low is the exact one; forward writes, backward reads; may be absent */
    fj_tensor dout, dlse; /* backward; dlse may be absent: zero */
    fj_tensor dquery, dkey, dvalue;
    /* One entry per ir->captures, literals included (packed, in their dtype). */
    const fj_tensor *captures;
    const fj_tensor *dcaptures; /* not present: not wanted; forward: all absent */
    /* One entry per ir->scalars: values (never NULL when there are scalars; bools are 0 or 1). */
    const fj_scalar *scalars;
    const fj_tensor *dscalars;              /* rank 0 */
    const struct fj_block_mask *block_mask; /* NULL: the mod's mask alone */
    fj_dropout dropout;
} fj_resolved;

/* Whether sequences have lengths or positions of their own: then what runs takes them one by one. */
static inline bool fj_attn_has_sequences(const fj_resolved *all) {
    return all->form != FJ_FORM_DENSE || all->sequences.q_offset;
}
/* Sequence b as a dense call of batch 1, on devices whose memory the host reads; only pages stay: then page_table is its
 * row. */
fj_resolved fj_attn_sequence(const fj_resolved *all, int64_t b);

/* What a bad read is of; templates/cuda/abi.h counts alike, templates/cpu/abi.h from 1. */
typedef enum fj_fault_of { FJ_FAULT_SCORE /* or mask */, FJ_FAULT_OUT, FJ_FAULT_SINK } fj_fault_of;

/* A bad read in a mod: the least position (b, h, q, kv in this order) at which one happened. Of the output's mod kv is the
 * dimension, of the sink q and kv are 0. */
typedef struct fj_fault {
    bool found;
    int32_t b, h, q, kv;
    fj_fault_of of;
} fj_fault;

typedef enum fj_reference_pass {
    FJ_PASS_EXACT,    /* in double */
    FJ_PASS_UNFUSED,  /* in the problem's dtype: products and probabilities rounded to it, sums in float32 */
    FJ_PASS_ROUNDING, /* what rounding does to each output (attn/rounding.inc) */
} fj_reference_pass;

/* What a program computes (fj_program); gradients are NULL for forward, what it does not have always. */
typedef struct fj_graphs {
    const fj_ir *ir, *gradient; /* ir holds score, mask and fault roots */
    const fj_ir *out, *out_gradient, *sink, *sink_gradient;
} fj_graphs;

/* The definition, unfused (attn/reference.c). out, lse, max, dout, dlse and gradients may be F64 for any problem
 * dtype. Runs on launch's executor, as fj_driver_parallel does (driver/parallel.h).
 * A bad read fills *ret_fault and gives FJ_ERR_INDEX with the error left alone: the caller writes
 * the sentence. Other errors: FJ_ERR_MEMORY. */
fj_status fj_reference_run(const fj_allocator *allocator, const fj_graphs *graphs, const fj_problem *problem,
                           const fj_resolved *args, fj_reference_pass pass, const fj_launch *launch,
                           fj_fault *ret_fault, fj_error *error);

#endif
