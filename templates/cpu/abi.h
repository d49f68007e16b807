/* What a compiled cpu kernel and the library agree on. Included by both; plain C, no dependencies.
 *
 * A kernel exports one symbol, `fj_cpu_kernel`, of type struct fj_cpu_kernel. It holds no threads
 * and allocates nothing. A launch is a sequence of phases, each a number of independent items; the
 * driver runs all items of a phase, in any order on any threads, before the next phase. The
 * decomposition may never make results depend on the number of workers.
 */
#ifndef FJ_CPU_ABI_H
#define FJ_CPU_ABI_H

#include <stddef.h>
#include <stdint.h>

#ifndef FJ_CPU_EXPORT /* static where the kernel is a part of a program (fj_plan_emit_c) */
#define FJ_CPU_EXPORT __attribute__((visibility("default")))
#endif

#define FJ_CPU_ABI 5
#define FJ_CPU_MAX_RANK 8

struct fj_cpu_tensor {
    char *data;                      /* first element; NULL: absent */
    int64_t shape[FJ_CPU_MAX_RANK];  /* 1 past the rank; of captures also where data is NULL */
    int64_t stride[FJ_CPU_MAX_RANK]; /* in elements */
};

union fj_cpu_scalar {
    double f;
    int64_t i;
};

/* The first bad read that an item saw; the library reports the one with the least position. found: whose it is, 0: there is
 * none. Of the out mod kv is the column, of the sink q and kv are 0. */
enum { FJ_CPU_FAULT_SCORE = 1 /* or of the mask */, FJ_CPU_FAULT_OUT, FJ_CPU_FAULT_SINK };
struct fj_cpu_fault {
    int32_t found, b, h, q, kv;
};

/* A block mask, for kernels with FJ_BLOCK_MASK: as attn/mask/rows.h has it. Row r of plane p is row p * q_blocks + r; its
 * partial runs are runs[starts[2 row]] to runs[starts[2 row + 1]], its full ones those up to runs[starts[2 row + 2]]. */
struct fj_cpu_run {
    int32_t first, last; /* blocks [first, last) */
};
struct fj_cpu_block_mask {
    const int64_t *starts;
    const struct fj_cpu_run *runs;
    int64_t planes_b, planes_h; /* batch and heads, or 1 where all are alike */
    int64_t block_q, block_kv, q_blocks;
};

struct fj_cpu_args {
    struct fj_cpu_tensor query, key, value; /* [B,Hq,L,E] [B,Hkv,S,E] [B,Hkv,S,Ev] */
    struct fj_cpu_tensor out, lse, max;     /* [B,Hq,L,Ev] [B,Hq,L] [B,Hq,L]; forward: out may be absent */
    struct fj_cpu_tensor lse_low;           /* [B,Hq,L], may be absent: what rounding took from lse */
    /* With FJ_HAS_OUT: as out, before fj_out. Forward writes it, where it is not absent; backward reads it in place of out. */
    struct fj_cpu_tensor out_raw;
    struct fj_cpu_tensor dout, dlse;
    struct fj_cpu_tensor dquery, dkey, dvalue;
    const struct fj_cpu_tensor *captures;
    const struct fj_cpu_tensor *dcaptures; /* data NULL: not wanted */
    const union fj_cpu_scalar *scalars;
    const struct fj_cpu_tensor *dscalars;
    int64_t batch, heads_q, heads_kv, q_len, kv_len;
    /* Address and position: tensors have batch and query 0 where a mod, and a fault, have these. */
    int32_t first_batch, q_offset;
    /* Kernels with FJ_PAGED, whose batch is 1: key kv is row kv % page_size of page pages[kv / page_size] of key and value,
     * whose first dimension is pages; -1: it is not there. */
    const int32_t *pages;
    int64_t page_size;
    /* Backward, of calls that run one after the other and add up: what the earlier ones left, kernel->carry bytes; gradients
     * of captures and, with shared_keys, dkey and dvalue go to the outputs with the last. NULL: a call on its own. */
    char *carry;
    int32_t is_first, is_last, shared_keys, unused;
    double scale;
    /* With FJ_DROPOUT (dropout.h): Philox's key of the call's positions; words below the threshold, 0 to 2^32, are dropped,
     * what is kept is multiplied by the scale: 1 / (1 - p), or 0 where p is 1. */
    uint32_t dropout_key[2];
    uint64_t dropout_threshold;
    double dropout_scale;
    const struct fj_cpu_block_mask *block_mask;
    int32_t workers;
    char *scratch;               /* 256-byte aligned, kernel->scratch bytes for each worker */
    char *workspace;             /* the same, kernel->workspace bytes */
    struct fj_cpu_fault *faults; /* one per worker, zeroed before the first phase */
};

struct fj_cpu_kernel {
    int32_t abi;     /* FJ_CPU_ABI */
    int64_t scratch; /* bytes that a worker needs: calls that are run together share them */
    /* Bytes of workspace for these shapes and workers; pointers are not followed. */
    size_t (*workspace)(const struct fj_cpu_args *args);
    size_t (*carry)(const struct fj_cpu_args *args); /* backward */
    /* Items of a phase; -1 past the last phase. */
    int64_t (*items)(const struct fj_cpu_args *args, int phase);
    void (*run)(const struct fj_cpu_args *args, int phase, int64_t item, int worker);
    /* Full, partial and empty blocks that the kernel's own analysis finds, and the scores that the mask leaves (blocks.h). */
    void (*blocks)(const struct fj_cpu_args *args, int64_t counts[4]);
};

/* ---- Masks (mask.c) ------------------------------------------------------------------------------ */

/* Minima and maxima of a captured tensor along its last dimension, for each of the rows that the others count, packed:
 * a node of level 0 has FJ_CPU_TABLE_LEAF elements, one of level l + 1 FJ_CPU_TABLE_FAN nodes of level l; the last node of
 * a level may have fewer. */
#define FJ_CPU_TABLE_LEAF 32
#define FJ_CPU_TABLE_FAN 4
#define FJ_CPU_TABLE_LEVELS 16

struct fj_cpu_node {
    union fj_cpu_scalar lo, hi; /* ints and bools: i; floats: f, lo is NaN where an element is */
};

struct fj_cpu_table {
    const struct fj_cpu_node *nodes;    /* NULL: none */
    int64_t row;                        /* nodes of a row */
    int64_t first[FJ_CPU_TABLE_LEVELS]; /* of each level in a row */
    int32_t levels;
};

/* Of args the captures, scalars and faults are set. */
struct fj_cpu_mask_args {
    struct fj_cpu_args args;           /* first: hooks are given a pointer to it */
    const struct fj_cpu_table *tables; /* of each capture */
};

/* An object for a mask exports `fj_cpu_mask`, beside a fj_cpu_kernel without items. Ends of ranges belong to them;
 * classes are 0 empty, 1 partial, 2 full. */
struct fj_cpu_mask {
    int32_t abi; /* FJ_CPU_ABI */
    /* By intervals, so 1 may be any: then `block` looks, or smaller areas tell. rows, cols: the spans of the area's rows and
     * columns, NULL where spans have a size of 0. */
    int (*area)(const struct fj_cpu_args *args, int64_t b, int64_t h, int64_t q_first, int64_t q_last,
                int64_t kv_first, int64_t kv_last, const void *rows, const void *cols);
    /* What values of rows and columns span over a range of them; join: what two ranges do. Aligned to 16. */
    struct fj_cpu_spans {
        int64_t size;
        void (*make)(const struct fj_cpu_args *args, int32_t b, int32_t h, int32_t first, int32_t last,
                     void *to);
        void (*join)(void *to, const void *from);
    } rows, cols;
    /* By elements, exactly. The least bad read of a worker is in args->faults. */
    int (*block)(const struct fj_cpu_args *args, int32_t b, int32_t h, int32_t q_first, int32_t q_last,
                 int32_t kv_first, int32_t kv_last, int worker);
};

#endif
