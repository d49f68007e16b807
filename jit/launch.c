#include "jit/launch.h"

#include "base/dtype.h"

#include "templates/cuda/abi.h"
#include "templates/cuda/shapes.h"

enum { BLOCKS_PER_MULTIPROCESSOR = 8, DELTA_WARPS = 4, ELEMENTS_PER_BLOCK = 1024 };

/* ---- Grids --------------------------------------------------------------------------------------------- */

/* At most: every sequence may end within a tile. */
static int64_t packed_tiles(const fj_variant *v, const fj_launch_extents *of, int64_t rows) {
    return rows / v->tile_m + (of->batch < rows ? of->batch : rows);
}

/* Tiles of the rows of each head, or of the heads of a group together. */
static int64_t query_tiles(const fj_variant *v, const fj_launch_extents *of) {
    if (of->heads_q == 0) return 0; /* of any number of key heads */
    const int64_t group = v->pack_heads ? of->heads_q / of->heads_kv : 1;
    if (of->packed) return packed_tiles(v, of, of->q_len * group) * (of->heads_q / group);
    return FJ_CEIL_DIV(of->q_len * group, v->tile_m) * (of->batch * of->heads_q / group);
}

static int64_t key_tiles(const fj_variant *v, const fj_launch_extents *of) {
    if (of->packed) return packed_tiles(v, of, of->kv_len) * of->heads_kv;
    return FJ_CEIL_DIV(of->kv_len, v->tile_m) * (of->batch * of->heads_kv);
}

/* Of kernels that take any grid: as many blocks as there is work for, some for each multiprocessor at most. */
static int64_t some_blocks(const fj_launch_extents *of, int64_t work) {
    const int64_t most = of->multiprocessors * BLOCKS_PER_MULTIPROCESSOR;
    return work < most ? work : most;
}

int64_t fj_jit_blocks(const fj_variant *variant, const fj_entry *entry, const fj_launch_extents *of) {
    const int64_t sums = of->largest < 0 ? 0 : of->largest / ELEMENTS_PER_BLOCK + 1;
    switch (entry->grid) {
    case FJ_GRID_QUERY_TILES: return query_tiles(variant, of);
    case FJ_GRID_KEY_TILES: return key_tiles(variant, of);
    case FJ_GRID_ROWS: {
        const int64_t rows = FJ_CEIL_DIV((of->packed ? 1 : of->batch) * of->heads_q * of->q_len, DELTA_WARPS);
        return some_blocks(of, rows > sums ? rows : sums);
    }
    case FJ_GRID_GRADIENTS: return some_blocks(of, sums);
    case FJ_GRID_KEYS:
        return some_blocks(of, (of->key_elements + of->value_elements) / ELEMENTS_PER_BLOCK + 1);
    }
    return 0;
}

/* ---- The workspace --------------------------------------------------------------------------------------- */

static bool add_part(fj_workspace *to, size_t *ret_at, int64_t count, int64_t each) {
    size_t size;
    *ret_at = to->size;
    if (count == 0 || each == 0) return true;
    if (__builtin_mul_overflow((size_t)count, (size_t)each, &size) || size > SIZE_MAX / 4 - to->size)
        return false;
    to->size += (size + 255) / 256 * 256;
    return true;
}

int64_t fj_jit_workspace_rows(const fj_launch_extents *of) {
    return of->packed ? FJ_SEQUENCE_ROWS(of->q_len, of->batch) : of->q_len;
}

static bool lay_out_backward(const fj_jit_problem *problem, const fj_variant *variant,
                             const fj_launch_extents *of, fj_workspace *to) {
    const int64_t heads = (of->packed ? 1 : of->batch) * of->heads_q, q_rows = fj_jit_workspace_rows(of);
    const int64_t real = problem->dtype == FJ_DTYPE_F64 ? 8 : 4;
    const bool capture_grads = problem->gradient->scatters.len > 0, exact = problem->deterministic;
    const int64_t inputs = (int64_t)(problem->ir->captures.len + problem->ir->scalars.len);
    return add_part(to, &to->rows, FJ_BWD_ROWS(heads, q_rows), FJ_CUDA_ROW_REALS * real) &&
           add_part(to, &to->sums, of->gradients, exact ? 16 : 8) &&
           add_part(to, &to->most, exact ? of->gradients : 0, 4) &&
           add_part(to, &to->runs, capture_grads && exact ? inputs : 0, 8) &&
           add_part(to, &to->dquery_sums, !exact && variant->mma ? FJ_BWD_SUM_ROWS(heads, q_rows) : 0,
                    (int64_t)sizeof(float) * variant->head_pad) &&
           add_part(to, &to->dkey, of->batch * of->key_elements, (int64_t)fj_dtype_size(problem->dtype)) &&
           add_part(to, &to->dvalue, of->batch * of->value_elements, (int64_t)fj_dtype_size(problem->dtype));
}

bool fj_jit_lay_out(const fj_jit_problem *problem, const fj_variant *variant, const fj_launch_extents *of,
                    fj_workspace *ret_workspace) {
    *ret_workspace = (fj_workspace){0};
    if (problem->kind == FJ_JIT_BACKWARD) return lay_out_backward(problem, variant, of, ret_workspace);
    return add_part(ret_workspace, &ret_workspace->fault, problem->ir->fault != 0,
                    sizeof(struct fj_cuda_fault));
}
