/* Padding, shared memory and grids of the cuda templates as formulas, in C and in CUDA C++: jit/plan_cuda.c and
 * the templates read the same lines. m: rows of queries in a tile, n: keys of a block, e, v: padded head and
 * value dimension, s: stages, r: bytes of a real. */
#ifndef FJ_CUDA_SHAPES_H
#define FJ_CUDA_SHAPES_H

#define FJ_MOST(a, b) ((a) > (b) ? (a) : (b))
#define FJ_CEIL_DIV(a, b) (((a) + (b)-1) / (b))
/* A dimension as tensor cores take it. */
#define FJ_MMA_PAD(dim) (FJ_CEIL_DIV(dim, 16) * 16)

/* fwd_mma: the queries; per stage a block of keys and one of values; at the end in their place the output;
 * all 16-bit. Float32 inputs take twice as much. */
#define FJ_FWD_MMA_SHARED(m, n, e, v, s) (2 * FJ_MOST((m) * (e) + (s) * (n) * ((e) + (v)), (m) * (v)))

/* fwd_simt: chunks of queries and of keys, the probabilities, a block of values. */
#define FJ_SIMT_DEPTH 32
#define FJ_FWD_SIMT_SHARED(m, n, e, v, r) \
    ((r) * (0 * (e) + ((m) + (n)) * (FJ_SIMT_DEPTH + 1) + (m) * ((n) + 1) + (n)*FJ_FWD_SIMT_SLICE(v)))
/* A block of its grid makes so many columns of the output; grid z counts these slices. */
#define FJ_FWD_SIMT_SLICE(v) ((v) < 128 ? FJ_CEIL_DIV(v, 8) * 8 : 128)
#define FJ_FWD_SIMT_SLICES(v) FJ_CEIL_DIV(v, FJ_FWD_SIMT_SLICE(v))

/* FJ_PARTIAL: reals that the parts of one split take, for `rows` rows of all heads and batches, if they are packed: out
 * [rows, v], lse [rows], lse_low [rows], and with x: 1 max [rows]. v: the value dimension as it is. Workspace: splits times as much. */
#define FJ_FWD_PART_REALS(rows, v, x) ((rows) * ((v) + 2 + (x)))

/* bwd, both passes: m rows are a block's own (keys in the one pass, queries in the other), n are walked at a time. A warp
 * of bwd_mma has FJ_BWD_MMA_ROWS own rows, 32 of them where a block has 128 or more: half the bytes to read for each
 * product. So FJ_BWD_MMA_SPLIT warps have the same rows: more than one share P and dS through shared memory, and so
 * does f: 1 where dQ is added up atomically (FJ_DETERMINISTIC 0), else 0. r: bytes of an element. */
#define FJ_BWD_MMA_ROWS(m) ((m) >= 128 ? 32 : 16)
#define FJ_BWD_MMA_SPLIT(m, w) (FJ_BWD_MMA_ROWS(m) * (w) / (m) > 1 ? FJ_BWD_MMA_ROWS(m) * (w) / (m) : 1)
#define FJ_BWD_MMA_SHARED(m, n, e, v, s, w, f, r)             \
    ((r) * ((m) + (s) * (n)) * ((e) + (v)) + 16 * (s) * (n) + \
     ((f) || FJ_BWD_MMA_SPLIT(m, w) > 1 ? 2 * (r) * (m) * (n) : 0))
/* Rows of the workspace, of so many heads of all batches: pairs of queries. */
#define FJ_BWD_ROWS(heads, queries) ((heads) * (FJ_CEIL_DIV(queries, 2) * 2))
/* Rows of packed sequences in the workspace (sequences.h): those before sequence b, whose first row is `row`. */
#define FJ_SEQUENCE_PAD 16
#define FJ_SEQUENCE_ROWS(row, b) \
    (((row) + ((b) + 1) * (FJ_SEQUENCE_PAD - 1)) / FJ_SEQUENCE_PAD * FJ_SEQUENCE_PAD)
/* Rows of dQ's sums, of so many heads of all batches: tiles of 16 queries (bwd_atomic.h). */
#define FJ_BWD_SUM_ROWS(heads, queries) ((heads) * (FJ_CEIL_DIV(queries, 16) * 16))
#define FJ_BWD_SIMT_SHARED(m, n, r) \
    ((r) * (((m) + (n)) * (FJ_SIMT_DEPTH + 1) + 2 * (m) * ((n) + 1) + 4 * (n)))

#endif
