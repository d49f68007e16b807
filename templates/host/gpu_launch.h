/* Launches of the kernels for a GPU as numbers: grids, and the workspace that they share. Plain C that needs nothing: the
 * library includes it, and the files that fj_plan_emit_c writes contain it. */
#ifndef FJ_HOST_GPU_LAUNCH_H
#define FJ_HOST_GPU_LAUNCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "../cuda/abi.h"

#include "../cuda/shapes.h"

/* What the blocks of a launch are of. */
typedef enum fj_grid {
    FJ_GRID_QUERY_TILES, /* tile_m queries of a head, or of the heads of a group */
    FJ_GRID_KEY_TILES,   /* tile_m keys of a key head */
    FJ_GRID_ROWS,        /* some, for all queries and for the sums of gradients of captures */
    FJ_GRID_GRADIENTS,   /* some, for gradients of captures */
    FJ_GRID_KEYS,        /* some, for the elements of all keys and values of one batch */
} fj_grid;

/* An entry point of a variant's code object: all that is known of it before a call. */
typedef struct fj_entry {
    const char *name; /* static */
    int threads;      /* of a block */
    int shared;       /* bytes of dynamic shared memory */
    fj_grid grid;     /* blocks along x */
    int slices;       /* blocks along z: each makes so many of the output's columns */
} fj_entry;

/* What launches depend on of a variant and its problem. */
typedef struct fj_gpu_facts {
    bool mma, pack_heads;
    int tile_m, head_pad;
    /* Forward, with FJ_PARTIAL: parts of the keys, 0: as many as a launch finds best; 1: without. The next are for these. */
    int splits;
    int tile_n, value_dim;
    int room; /* blocks that the device holds at a time */
    bool max;
    bool backward, deterministic;
    bool notes;         /* forward: of a mod that may read badly */
    int dout_columns;   /* backward, of a mod of the output: of dout in the workspace; else 0 */
    bool capture_grads; /* backward adds to some */
    int element, real;  /* bytes: of query, key, value; of lse and sums */
    int inputs;         /* captures and scalars */
} fj_gpu_facts;

/* The extents of a call. Products of them do not overflow: the caller looked. */
typedef struct fj_launch_extents {
    int64_t batch, heads_q, heads_kv, q_len, kv_len;
    bool packed;       /* lengths are those of all sequences, of which there are `batch` */
    int64_t gradients; /* elements of all gradients of captures and scalars that are wanted */
    int64_t largest;   /* of one of them; -1: none is wanted */
    int64_t key_elements, value_elements; /* of one batch; where keys serve a batch */
    int64_t multiprocessors;
} fj_launch_extents;

/* Where the kernels' parts lie in the workspace, each at a multiple of 256 bytes; 0 also for one that is not there.
 *
 *     forward     | fault | parts |                 fault: zeroed on the stream, where the mod may read badly
 *     backward    | rows | sums | most | runs | dquery_sums | dkey | dvalue | dout |       templates/cuda/abi.h
 */
typedef struct fj_workspace {
    size_t fault;
    size_t parts; /* of the keys: fj_gpu_parts */
    size_t rows;
    size_t sums, most; /* of each gradient that is wanted, in order */
    size_t runs;
    size_t dquery_sums;
    size_t dkey, dvalue; /* parts of each batch, where keys serve a batch */
    size_t dout;         /* before the mod of the output */
    size_t size;         /* of all */
} fj_workspace;

enum { FJ_BLOCKS_PER_MULTIPROCESSOR = 8, FJ_DELTA_WARPS = 4, FJ_ELEMENTS_PER_BLOCK = 1024 };

/* Of split keys: most parts; what a part costs beside its blocks of keys, in the time of one; parts that are merged in it. */
enum { FJ_SPLIT_MOST = 128, FJ_SPLIT_START = 3, FJ_SPLIT_MERGED = 16 };

/* ---- Grids --------------------------------------------------------------------------------------------- */

/* Queries of all heads and batches. */
static inline int64_t fj_gpu_rows(const fj_launch_extents *of) {
    return (of->packed ? 1 : of->batch) * of->heads_q * of->q_len;
}

/* At most: every sequence may end within a tile. */
static inline int64_t fj_gpu_packed_tiles(const fj_gpu_facts *v, const fj_launch_extents *of, int64_t rows) {
    return rows / v->tile_m + (of->batch < rows ? of->batch : rows);
}

/* Tiles of the rows of each head, or of the heads of a group together. */
static inline int64_t fj_gpu_query_tiles(const fj_gpu_facts *v, const fj_launch_extents *of) {
    if (of->heads_q == 0) return 0; /* of any number of key heads */
    const int64_t group = v->pack_heads ? of->heads_q / of->heads_kv : 1;
    if (of->packed) return fj_gpu_packed_tiles(v, of, of->q_len * group) * (of->heads_q / group);
    return FJ_CEIL_DIV(of->q_len * group, v->tile_m) * (of->batch * of->heads_q / group);
}

static inline int64_t fj_gpu_key_tiles(const fj_gpu_facts *v, const fj_launch_extents *of) {
    if (of->packed) return fj_gpu_packed_tiles(v, of, of->kv_len) * of->heads_kv;
    return FJ_CEIL_DIV(of->kv_len, v->tile_m) * (of->batch * of->heads_kv);
}

/* Of kernels that take any grid: as many blocks as there is work for, some for each multiprocessor at most. */
static inline int64_t fj_gpu_some_blocks(const fj_launch_extents *of, int64_t work) {
    const int64_t most = of->multiprocessors * FJ_BLOCKS_PER_MULTIPROCESSOR;
    return work < most ? work : most;
}

/* Blocks along x; along z an entry has its slices. 0: there is nothing to do. */
static inline int64_t fj_gpu_blocks(const fj_gpu_facts *facts, const fj_entry *entry,
                                    const fj_launch_extents *of) {
    const int64_t sums = of->largest < 0 ? 0 : of->largest / FJ_ELEMENTS_PER_BLOCK + 1;
    switch (entry->grid) {
    case FJ_GRID_QUERY_TILES: return fj_gpu_query_tiles(facts, of);
    case FJ_GRID_KEY_TILES: return fj_gpu_key_tiles(facts, of);
    case FJ_GRID_ROWS: {
        const int64_t rows = FJ_CEIL_DIV(fj_gpu_rows(of), FJ_DELTA_WARPS);
        return fj_gpu_some_blocks(of, rows > sums ? rows : sums);
    }
    case FJ_GRID_GRADIENTS: return fj_gpu_some_blocks(of, sums);
    case FJ_GRID_KEYS:
        return fj_gpu_some_blocks(of, (of->key_elements + of->value_elements) / FJ_ELEMENTS_PER_BLOCK + 1);
    }
    return 0;
}

/* ---- Split keys ------------------------------------------------------------------------------------------- */

/* Blocks of the keys of a sequence; packed, whose lengths are not the host's to read, of one of average length. */
static inline int64_t fj_gpu_key_blocks(const fj_gpu_facts *facts, const fj_launch_extents *of) {
    const int64_t sequences = of->packed && of->batch > 0 ? of->batch : 1;
    return FJ_CEIL_DIV(FJ_CEIL_DIV(of->kv_len, sequences), facts->tile_n);
}

/* Parts of the keys of a tile. Few tiles leave multiprocessors without work, each more part costs a start and a merge: of
 * all numbers the one that is done first, where blocks of the grid run in waves. From shapes alone: the same call has the
 * same parts, so the same bits. */
static inline int64_t fj_gpu_splits(const fj_gpu_facts *facts, const fj_launch_extents *of) {
    const int64_t blocks = fj_gpu_key_blocks(facts, of);
    const int64_t wanted = facts->splits ? facts->splits : FJ_SPLIT_MOST,
                  most = blocks < wanted ? blocks : wanted;
    if (most <= 1 || facts->splits) return most > 1 ? most : 1;
    const int64_t tiles = fj_gpu_query_tiles(facts, of), room = facts->room > 0 ? facts->room : 1;
    int64_t best = 1, least = INT64_MAX;
    for (int64_t parts = 1; parts <= most; parts++) {
        const int64_t waves = FJ_CEIL_DIV(tiles * parts, room);
        const int64_t cost = waves * (FJ_CEIL_DIV(blocks, parts) + FJ_SPLIT_START) * FJ_SPLIT_MERGED + parts;
        if (cost < least) least = cost, best = parts;
    }
    return best;
}

/* Blocks along y. */
static inline int64_t fj_gpu_blocks_y(const fj_gpu_facts *facts, const fj_entry *entry,
                                      const fj_launch_extents *of) {
    const bool split = !facts->backward && facts->splits != 1 && entry->grid == FJ_GRID_QUERY_TILES;
    return split ? fj_gpu_splits(facts, of) : 1;
}

/* ---- The workspace --------------------------------------------------------------------------------------- */

static inline bool fj_gpu_add_part(fj_workspace *to, size_t *ret_at, int64_t count, int64_t each) {
    size_t size;
    *ret_at = to->size;
    if (count == 0 || each == 0) return true;
    if (__builtin_mul_overflow((size_t)count, (size_t)each, &size) || size > SIZE_MAX / 4 - to->size)
        return false;
    to->size += (size + 255) / 256 * 256;
    return true;
}

/* Queries of a head in the workspace of backward. */
static inline int64_t fj_gpu_workspace_rows(const fj_launch_extents *of) {
    return of->packed ? FJ_SEQUENCE_ROWS(of->q_len, of->batch) : of->q_len;
}

static inline bool fj_gpu_lay_out_backward(const fj_gpu_facts *facts, const fj_launch_extents *of,
                                           fj_workspace *to) {
    const int64_t heads = (of->packed ? 1 : of->batch) * of->heads_q, q_rows = fj_gpu_workspace_rows(of);
    const bool exact = facts->deterministic;
    return fj_gpu_add_part(to, &to->rows, FJ_BWD_ROWS(heads, q_rows),
                           (int64_t)FJ_CUDA_ROW_REALS * facts->real) &&
           fj_gpu_add_part(to, &to->sums, of->gradients, exact ? 16 : 8) &&
           fj_gpu_add_part(to, &to->most, exact ? of->gradients : 0, 4) &&
           fj_gpu_add_part(to, &to->runs, facts->capture_grads && exact ? facts->inputs : 0, 8) &&
           fj_gpu_add_part(to, &to->dquery_sums, !exact && facts->mma ? FJ_BWD_SUM_ROWS(heads, q_rows) : 0,
                           (int64_t)sizeof(float) * facts->head_pad) &&
           fj_gpu_add_part(to, &to->dkey, of->batch * of->key_elements, facts->element) &&
           fj_gpu_add_part(to, &to->dvalue, of->batch * of->value_elements, facts->element) &&
           fj_gpu_add_part(to, &to->dout, heads * of->q_len, (int64_t)facts->dout_columns * facts->element);
}

/* False: it is larger than memory can be addressed. */
static inline bool fj_gpu_lay_out(const fj_gpu_facts *facts, const fj_launch_extents *of,
                                  fj_workspace *ret_workspace) {
    *ret_workspace = (fj_workspace){.size = 0};
    if (facts->backward) return fj_gpu_lay_out_backward(facts, of, ret_workspace);
    const int64_t rows = facts->splits == 1 ? 0 : fj_gpu_rows(of);
    return fj_gpu_add_part(ret_workspace, &ret_workspace->fault, facts->notes,
                           sizeof(struct fj_cuda_fault)) &&
           fj_gpu_add_part(ret_workspace, &ret_workspace->parts, rows ? fj_gpu_splits(facts, of) * rows : 0,
                           FJ_FWD_PART_REALS((int64_t)1, facts->value_dim, facts->max) * facts->real);
}

#endif
