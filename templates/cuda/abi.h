/* What a compiled cuda kernel and the library agree on: the arguments of a launch, passed by value as the one
 * kernel parameter. Plain C and C++, included by both; no pointers of the host.
 *
 *     +------------------+---------------------------------+------------------------------+
 *     | fj_cuda_forward  | fj_cuda_capture [FJ_CAPTURES]   | fj_cuda_scalar [FJ_SCALARS]  |
 *     +------------------+---------------------------------+------------------------------+
 *                        ^ between these two come, each where the kernel has it: fj_cuda_block_mask (FJ_BLOCK_MASK),
 *                          fj_cuda_sequences, fj_cuda_shared_keys, fj_cuda_dropout (FJ_DROPOUT), fj_cuda_epilogue (FJ_HAS_OUT)
 *
 * 1. Every member is 8 bytes wide or comes in pairs of 4: there is no padding, here or there.
 * 2. Strides are in elements, and 64-bit; the last dimension has stride 1 and is not listed.
 * 3. Addresses and positions are two maps: strides say where a row lies, *_offset and *_position which
 *    position the mod sees there (index + offset, or table[b * stride + index] with FJ_POSITION_TABLE).
 * 4. With FJ_PARTIAL, splits share the keys of a row: each writes float32 output (F64: double), normalised by its
 *    own sum, at split * split_out, and its lse, lse_low and maximum at split * split_lse. A launch of fj_fwd_merge
 *    makes the results of them: there the sink joins, and the output's hook is called.
 * 5. lse is kept in two parts: lse_low is what rounding took from lse, 0 where lse is not finite.
 */
#ifndef FJ_CUDA_ABI_H
#define FJ_CUDA_ABI_H

#ifndef __CUDACC_RTC__
#include <stdint.h>
#endif

#define FJ_CUDA_ABI 8
#define FJ_CUDA_MAX_RANK 8

struct fj_cuda_tensor {
    void *data;        /* NULL: absent */
    int64_t stride[3]; /* batch, head, row */
};

struct fj_cuda_capture {
    const void *data;
    int64_t shape[FJ_CUDA_MAX_RANK];
    int64_t stride[FJ_CUDA_MAX_RANK];
};

struct fj_cuda_scalar {
    double f;
    int64_t i; /* bools and ints */
};

/* Where sequences are, for kernels with FJ_SEQUENCES (sequences.h): after the call and the block mask. Packed, the call's
 * lengths are those of all sequences, and so is its grid: with FJ_PACKED x = (rows / m + batch) * heads. Paged, key and
 * value are [page, Hkv, row, E], and kv_len is what the table has room for. */
struct fj_cuda_sequences {
    const int32_t *cu_q, *cu_kv;         /* [B+1]; FJ_PACKED */
    const int32_t *page_table, *kv_lens; /* [B,pages of a sequence] [B]; FJ_PAGED */
    const int32_t *q_offset;             /* [B], NULL: 0 */
    int64_t table_row;                   /* elements from one sequence to the next */
    int32_t page_size, pages;
};

/* The results of keys that serve a batch, with FJ_SHARED_KEYS: after the sequences. dkey and dvalue of the call are then
 * parts [B,Hkv,S,E] of the workspace, which fj_bwd_sum adds up, in float32 (F64: double). */
struct fj_cuda_shared_keys {
    struct fj_cuda_tensor dkey, dvalue; /* [1,Hkv,S,E] [1,Hkv,S,Ev]; data NULL: not wanted */
};

/* Dropout, with FJ_DROPOUT: after the shared keys. Which positions are dropped is fj_dropout_word's of base/philox.h, under the
 * key of a seed and an offset. */
struct fj_cuda_dropout {
    const int64_t *state; /* [2]: seed, offset, read when the kernel runs; NULL: the next two */
    uint64_t seed, offset;
    uint64_t threshold; /* words below are dropped: fj_dropout_threshold, 0 to 2^32 */
    double scale;       /* 1 / (1 - p), 0 where p is 1: of those that are kept */
    double kept;        /* 1 - p */
};

/* The mod of the output, with FJ_HAS_OUT: after dropout. Forward: raw, where data is not NULL, gets the output before the
 * mod. Backward: the call's out is the output before the mod, dout (here) the gradient of that after it, and the call's
 * dout a part of the workspace for that of the former, which fj_bwd_out makes. */
struct fj_cuda_epilogue {
    struct fj_cuda_tensor raw, dout; /* [B,Hq,L,Ev], as out */
    int64_t raw_vector;              /* not 0: raw may be moved as enum fj_cuda_vector says */
};

/* What a read that failed was of. */
enum {
    FJ_CUDA_FAULT_SCORE /* or of the mask */,
    FJ_CUDA_FAULT_OUT /* kv is the column of the output */,
    FJ_CUDA_FAULT_SINK /* q and kv are 0 */
};

/* The first bad read that was noted; which, is unspecified. Zeroed before the launch. */
struct fj_cuda_fault {
    uint32_t found;
    int32_t b, h, q, kv; /* positions */
    int32_t where;       /* FJ_CUDA_FAULT_SCORE ... */
};

/* A block mask, for kernels with FJ_BLOCK_MASK: as attn/mask/rows.h has it, and once more with rows and columns exchanged.
 * Line l of plane p is line p * lines + l; its partial runs are runs[starts[2 line]] to runs[starts[2 line + 1]], its full
 * ones those up to runs[starts[2 line + 2]]. */
struct fj_cuda_run {
    int32_t first, last; /* blocks [first, last) of the other axis */
};
struct fj_cuda_block_lines {
    const int64_t *starts;
    const struct fj_cuda_run *runs;
    int32_t lines, block; /* blocks along the axis, of a plane; rows of a block */
};
struct fj_cuda_block_mask {
    struct fj_cuda_block_lines q, kv; /* a line for each block of queries, of keys */
    int32_t planes_b, planes_h;       /* batch and heads, or 1 where all are alike */
};

/* What of a tensor may be moved 16 bytes at a time: its address and strides are multiples of 16 bytes. */
enum fj_cuda_vector {
    FJ_CUDA_VECTOR_QUERY = 1,
    FJ_CUDA_VECTOR_KEY = 2,
    FJ_CUDA_VECTOR_VALUE = 4,
    FJ_CUDA_VECTOR_OUT = 8,
    FJ_CUDA_VECTOR_DOUT = 16,
    FJ_CUDA_VECTOR_DQUERY = 32,
    FJ_CUDA_VECTOR_DKEY = 64,
    FJ_CUDA_VECTOR_DVALUE = 128
};

/* The grid: x = tiles * columns, y = splits (1 without FJ_PARTIAL), z = slices of the value dimension (simt;
 * else 1). A column is a batch and a query head, or with FJ_PACK_HEADS a key head; a tile is FJ_TILE_M rows. */
struct fj_cuda_forward {
    struct fj_cuda_tensor query, key, value, out; /* [B,Hq,L,E] [B,Hkv,S,E] [B,Hkv,S,Ev] [B,Hq,L,Ev] */
    struct fj_cuda_tensor lse, max, lse_low;      /* [B,Hq,L] float32 (F64: double); stride[2] is of rows */
    int64_t split_out, split_lse;                 /* elements from one split to the next */
    const int32_t *q_position, *kv_position;      /* [B or 1, L], [B or 1, S]; FJ_POSITION_TABLE only */
    int64_t q_position_stride, kv_position_stride;
    struct fj_cuda_fault *fault; /* kernels with FJ_HAS_FAULT, FJ_HAS_OUT_FAULT or FJ_HAS_SINK_FAULT */
    double scale;
    int32_t q_offset, kv_offset;
    int32_t batch, heads_q;
    int32_t heads_kv, q_len;
    int32_t kv_len, l2_group; /* l2_group: columns whose keys and values fit into L2 together; >= 1 */
    uint32_t vector, unused;  /* of enum fj_cuda_vector */
};

/* The one argument of fj_fwd_merge, before captures and scalars; any grid of x: its warps share the rows. The parts are
 * what fj_fwd wrote: out, lse, and max where it is wanted (FJ_WANT_MAX; else both are ignored). */
struct fj_cuda_merge {
    struct fj_cuda_tensor part_out, part_lse, part_low, part_max; /* of reals */
    int64_t split_out, split_lse; /* as in fj_cuda_forward; split_lse: of lse_low and max, too */
    struct fj_cuda_tensor out, lse, max, lse_low; /* data may be NULL */
    const int32_t *q_position;                    /* for the output's hook, as in fj_cuda_forward */
    int64_t q_position_stride;
    struct fj_cuda_fault *fault; /* as in fj_cuda_forward */
    int32_t q_offset, splits;
    int32_t batch, heads_q;
    int32_t q_len, unused;
};

/* Row stats: what the backward kernels read of a row of queries, reals of the workspace, written by fj_bwd_delta and
 * fj_bwd_recompute. Of pairs of queries of a head, each row stat of both side by side; an odd last one has a pair of its
 * own. delta is rowsum(out dout) - dlse, as on a cpu; dP starts at its negative, so that is kept. */
enum {
    FJ_CUDA_ROW_LSE /* of fj_norm, bwd_grid.h; +inf where the row sees nothing: P is 0 */,
    FJ_CUDA_ROW_LOW,
    FJ_CUDA_ROW_MINUS_DELTA /* dlse - rowsum(out dout), or recomputed: dlse - rowsum(P dP) */,
    FJ_CUDA_ROW_NATURAL /* of fj_norm */,
    FJ_CUDA_ROW_REALS
};

/* The gradient of one captured tensor (packed row-major in its shape) or of one run-time scalar. */
struct fj_cuda_capture_grad {
    void *sums;     /* workspace: 16 bytes each, or 8. NULL: not wanted, or nothing is scattered to it */
    uint32_t *most; /* workspace; with FJ_DETERMINISTIC 0 not used */
    void *out;      /* of reals */
    int64_t count;
    int64_t stride[FJ_CUDA_MAX_RANK]; /* of out */
};

/* After it come the captures, the scalars, then fj_cuda_capture_grad [FJ_CAPTURES + FJ_SCALARS]. Launches, one after the
 * other, all with the same arguments, `threads` as the plan says:
 *
 *     fj_bwd_out     any grid of x: its warps share the rows; with FJ_HAS_OUT
 *     fj_bwd_delta   any grid of x: its warps share the rows, its threads the zeros
 *     fj_bwd_recompute x = tiles of m queries * batch * heads_q; with FJ_HAS_CAPTURE_GRADS and 16-bit inputs (delta),
 *                    and of bwd_simt with F32 inputs for sm_80 and newer (lse)
 *     fj_bwd_rows    any grid of x: its warps share the rows; with FJ_HAS_OUT_GRADS or FJ_HAS_SINK_GRADS
 *     fj_bwd_kv      x = tiles of m keys (m: tile_m of the variant) * batch * heads_kv
 *     fj_bwd_q       x = tiles of m queries * batch * heads_q; may be left out where it has nothing to do: without
 *                    dquery, unless it adds to gradients of captures (FJ_HAS_CAPTURE_GRADS and FJ_DETERMINISTIC)
 *     fj_bwd_rows_add  as fj_bwd_rows; with FJ_DETERMINISTIC
 *     fj_bwd_end     any grid of x; with gradients of captures only, whoever adds to them
 *     fj_bwd_sum     any grid of x; with FJ_SHARED_KEYS only
 *
 * Workspace, each part aligned to 16 bytes, not initialised:
 *
 *     rows    FJ_CUDA_ROW_REALS reals * FJ_BWD_ROWS(batch * heads_q, workspace_rows), with FJ_PACKED of heads_q
 *     sums    16 bytes * count of each wanted gradient; 8 with FJ_DETERMINISTIC 0
 *     most    4 bytes * count of each wanted gradient; with FJ_DETERMINISTIC
 *     runs    8 bytes * (FJ_CAPTURES + FJ_SCALARS); with gradients of captures and FJ_DETERMINISTIC
 *     dquery_sums    4 bytes * FJ_HEAD_PAD * FJ_BWD_SUM_ROWS(batch * heads_q, workspace_rows), as rows; bwd_mma with FJ_DETERMINISTIC 0
 *     dout    the call's, of elements; with FJ_HAS_OUT */
struct fj_cuda_backward {
    struct fj_cuda_tensor query, key, value, out, dout;
    struct fj_cuda_tensor lse, dlse, lse_low;   /* [B,Hq,L] of reals; data of dlse and lse_low may be NULL */
    struct fj_cuda_tensor dquery, dkey, dvalue; /* data NULL: not wanted */
    const int32_t *q_position, *kv_position;
    int64_t q_position_stride, kv_position_stride;
    void *rows;
    float *dquery_sums; /* bwd_mma with FJ_DETERMINISTIC 0; else NULL */
    int64_t *runs;
    double scale;
    int32_t q_offset, kv_offset;
    int32_t batch, heads_q;
    int32_t heads_kv, q_len;
    int32_t kv_len, l2_group; /* as in fj_cuda_forward */
    uint32_t vector;          /* of enum fj_cuda_vector */
    int32_t
        workspace_rows; /* queries of a head in the workspace: q_len; FJ_PACKED: FJ_SEQUENCE_ROWS(q_len, batch) */
};

#endif
