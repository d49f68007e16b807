/* Which variants of the cuda templates the plan lists for a problem on a GPU, best first; space.c has all that are legal.
 *
 *     mma    on tensor cores, sm_80 and newer, dimensions padded to 16: F16, BF16, and F32 as three products of TF32
 *            each (one, where the user allows it)
 *     simt   any dtype, any dimension, any architecture: the one that always fits
 *
 * Of each row of the tables variant.c says whether it is legal. Registers are known only after ptxas; so the tables go from
 * the fastest to smaller tiles, and fj_jit_choose steps to the next where the first spills.
 *
 * A heavy mod, by its instructions for a score, takes the first of those with few sums in a thread: it needs their
 * registers, hides its latency behind more warps, and is unrolled less. As `./dev bench compile` finds on sm_80:
 *
 *     BF16, e64      m128 n64 w4            m128 n64 w8           registers, ms
 *     no mod         220, 308               138, 216
 *     soft cap       210, 456               125, 271
 *     bias           254, 483               146, 307
 *
 * A forward variant may be packed: the rows of its tiles are (query, head of a group), so that few queries fill a
 * tile. Where queries are few, blocks of the grid take parts of the keys, which a second kernel merges; how many, each
 * launch finds by its shapes. Any variant may be wide, for captured tensors with a dimension beyond 2^31 - 1.
 */
#include <string.h>

#include "jit/space.h"
#include "templates/cuda/shapes.h"

/* One choice: for head and value dimensions of at most `dim`. */
typedef struct tile {
    int dim, m, n, stages, warps;
} tile;

/* The first that fits, and of which an SM holds BUSY_WARPS, is the default. What has less than 100 KiB of shared
 * memory (sm_86, 89, 120) finds its own further down. A warp has 32 rows where registers allow: with 16 the bytes that
 * it reads of shared memory, not the tensor cores, are the limit (./dev bench sass). */
static const tile fwd_mma[] = {
    {64, 128, 64, 2, 4},  {64, 128, 64, 2, 8},  {64, 64, 64, 2, 4},   {64, 64, 32, 2, 4},
    {128, 128, 64, 1, 4}, {128, 128, 32, 1, 4}, {128, 128, 64, 2, 8}, {128, 64, 64, 2, 4},
    {128, 64, 32, 2, 4},  {192, 128, 64, 2, 8}, {192, 64, 64, 1, 4},  {192, 64, 32, 2, 4},
    {256, 128, 64, 1, 8}, {256, 128, 32, 2, 8}, {256, 64, 64, 1, 4},  {256, 64, 32, 1, 4},
};
/* F32: operands are split in registers. */
static const tile fwd_tf32[] = {
    {64, 128, 32, 2, 4}, {64, 64, 32, 2, 4},  {64, 64, 64, 2, 4},  {128, 64, 64, 2, 4},
    {128, 64, 32, 2, 4}, {128, 64, 32, 1, 4}, {128, 64, 16, 2, 4}, {192, 64, 16, 2, 4},
    {192, 64, 16, 1, 4}, {256, 64, 16, 1, 4}, {256, 32, 16, 2, 2},
};
/* Backward: m own rows, n walked ones, in both passes. Of what has 32 rows to a warp, the first whose kernels without
 * a mod spill nowhere: e64 m128 n32 w4 and e128 m128 n64 w8 spill 8 to 32 bytes, but are nearer to the peak else. */
static const tile bwd_mma[] = {
    {64, 128, 64, 2, 8},  {64, 64, 64, 2, 4},   {64, 128, 32, 2, 8},  {64, 64, 32, 2, 4},
    {64, 128, 32, 2, 4},  {128, 128, 32, 2, 8}, {128, 128, 32, 1, 8}, {128, 64, 64, 2, 8},
    {128, 128, 64, 2, 8}, {128, 64, 32, 2, 8},  {128, 32, 32, 1, 4},  {192, 64, 32, 2, 8},
    {192, 64, 32, 1, 8},  {192, 32, 32, 1, 4},  {256, 64, 32, 2, 8},  {256, 32, 32, 1, 4},
};
/* F32: of 4 bytes to an element, operands split in registers. e128 m64 n32 w4 spills. */
static const tile bwd_tf32[] = {
    {64, 64, 32, 2, 4},  {64, 64, 32, 1, 4},  {64, 64, 16, 1, 4},  {128, 64, 32, 2, 8},
    {128, 64, 32, 1, 8}, {128, 32, 32, 1, 4}, {192, 32, 64, 1, 8}, {192, 64, 32, 1, 8},
    {256, 32, 64, 1, 8}, {192, 32, 32, 1, 4}, {256, 32, 32, 1, 4}, {256, 16, 32, 1, 2},
};
static const tile fwd_simt[] = {{256, 64, 32, 1, 4}, {256, 32, 32, 1, 4}, {256, 16, 16, 1, 2}};
/* Packed, or without a group to pack: few rows, in all. */
static const tile fwd_pack[] = {
    {256, 16, 64, 2, 1}, {256, 32, 64, 2, 2}, {256, 64, 32, 2, 4}, {256, 16, 32, 1, 1}};
static const tile fwd_pack_tf32[] = {
    {128, 16, 32, 2, 1}, {128, 32, 32, 2, 2}, {128, 64, 32, 2, 4}, {256, 16, 16, 2, 1}, {256, 16, 16, 1, 1}};
static const tile bwd_simt[] = {{256, 32, 32, 1, 4}, {256, 16, 32, 1, 4}, {256, 16, 16, 1, 2}};

/* BUSY_WARPS: two for each scheduler of an SM, one on the tensor cores while the other makes probabilities.
 * RESERVED: shared memory that a block takes besides its own. */
enum { FORWARD_HEAVY = 16, BACKWARD_HEAVY = 48, FEW_SUMS = 96, BUSY_WARPS = 8, RESERVED = 1024 };

typedef struct plan {
    const fj_jit_problem *problem;
    const fj_features *features;
    fj_variant *variants;
    int count;
    bool half;  /* 16-bit inputs */
    bool wide;  /* of the variants that are listed now */
    bool few;   /* queries: keys are split */
    bool heavy; /* the mod */
} plan;

/* ---- One variant --------------------------------------------------------------------------------------- */

/* Whether shared memory lets an SM hold BUSY_WARPS; the limit of a block is an SM's less RESERVED. */
static bool is_busy(const fj_variant *v, int limit) {
    for (int i = 0; i < v->entry_count; i++)
        if ((limit + RESERVED) / (v->entries[i].shared + RESERVED) * v->warps < BUSY_WARPS) return false;
    return true;
}

static void consider(plan *p, const tile *t, bool mma, bool pack, bool busy) {
    const fj_jit_problem *problem = p->problem;
    const int head = mma ? FJ_MMA_PAD(problem->head_dim) : problem->head_dim,
              value = mma ? FJ_MMA_PAD(problem->value_dim) : problem->value_dim;
    const fj_values values = {{
        [FJ_AXIS_KERNEL] = mma,
        [FJ_AXIS_TILE_Q] = t->m,
        [FJ_AXIS_TILE_KV] = t->n,
        [FJ_AXIS_STAGES] = t->stages,
        [FJ_AXIS_WARPS] = t->warps,
        [FJ_AXIS_SPLITS] = !p->few,
        [FJ_AXIS_PACK] = pack,
        [FJ_AXIS_WIDE] = p->wide,
        [FJ_AXIS_MOD_CHUNKS] = FJ_VALUE_PLAN,
        [FJ_AXIS_MASK_UNROLL] = FJ_VALUE_PLAN,
        [FJ_AXIS_ONE_COPY] = FJ_VALUE_PLAN,
    }};
    if (head > t->dim || value > t->dim || p->count == FJ_JIT_MAX_VARIANTS) return;
    fj_variant *v = &p->variants[p->count];
    if (!fj_jit_make_variant(problem, p->features, &values, v)) return;
    if (busy && !is_busy(v, p->features->shared_limit)) return;
    for (int i = 0; i < p->count; i++) /* the choice of a lesser dimension, or of busy ones, again */
        if (strcmp(p->variants[i].name, v->name) == 0) return;
    p->count++;
}

/* ---- All ---------------------------------------------------------------------------------------------------- */

typedef struct tiles {
    const tile *list;
    size_t count;
} tiles;
#define TILES(list) ((tiles){list, FJ_ARRAY_LEN(list)})

static tiles mma_tiles(const plan *p, bool pack) {
    if (p->features->arch.number < 80 || p->problem->dtype == FJ_DTYPE_F64) return (tiles){0};
    if (p->problem->kind == FJ_JIT_BACKWARD) return p->half ? TILES(bwd_mma) : TILES(bwd_tf32);
    pack |= p->few;
    if (!p->half) return pack ? TILES(fwd_pack_tf32) : TILES(fwd_tf32);
    return pack ? TILES(fwd_pack) : TILES(fwd_mma);
}

/* Floats of a thread in the sums of the products: scores, outputs, gradients. */
static int sums_of(const fj_jit_problem *problem, const tile *t) {
    const int e = FJ_MMA_PAD(problem->head_dim), v = FJ_MMA_PAD(problem->value_dim);
    const int split = FJ_BWD_MMA_SPLIT(t->m, t->warps);
    if (problem->kind == FJ_JIT_FORWARD) return t->m / t->warps * (v + t->n) / 32;
    return t->m * split / t->warps * (2 * t->n + e + v) / (32 * split);
}

/* Whether these are few: at most FEW_SUMS, or where dimensions are large what 16 rows to a warp and a block of 32 have. */
static bool has_few_sums(const fj_jit_problem *problem, const tile *t) {
    const int e = FJ_MMA_PAD(problem->head_dim), v = FJ_MMA_PAD(problem->value_dim);
    const int least = problem->kind == FJ_JIT_FORWARD ? (v + 32) / 2 : (e + v + 64) / 4;
    return sums_of(problem, t) <= FJ_MOST(FEW_SUMS, least);
}

static void list_all(plan *p, bool pack) {
    const tiles mma = mma_tiles(p, pack),
                simt = p->problem->kind == FJ_JIT_FORWARD ? TILES(fwd_simt) : TILES(bwd_simt);
    for (int round = 0; round < 4;
         round++) /* a heavy mod: few sums before many; of each, first what is busy */
        for (size_t i = 0; i < mma.count; i++)
            if (round / 2 == (p->heavy && !has_few_sums(p->problem, &mma.list[i])))
                consider(p, &mma.list[i], true, pack, !pack && !p->few && round % 2 == 0);
    for (size_t i = 0; i < simt.count; i++) consider(p, &simt.list[i], false, pack, false);
}

/* Packing is for few queries, of a head as of a group of them: so one kernel serves all. It can always be asked for. */
static void list_packed_or_not(plan *p) {
    const fj_jit_problem *problem = p->problem;
    const bool packed_first = problem->few_queries;
    if (problem->kind == FJ_JIT_BACKWARD) {
        list_all(p, false);
        return;
    }
    list_all(p, packed_first);
    list_all(p, !packed_first);
}

static bool is_heavy(const fj_jit_problem *problem) {
    const fj_ir_cost cost = fj_jit_mod_cost(problem);
    return cost.score + cost.gradient >= (problem->kind == FJ_JIT_FORWARD ? FORWARD_HEAVY : BACKWARD_HEAVY);
}

int fj_jit_cuda_variants(const fj_jit_problem *problem, const fj_features *features,
                         fj_variant *ret_variants) {
    plan p = {.problem = problem, .features = features, .variants = ret_variants};
    p.half = problem->dtype == FJ_DTYPE_F16 || problem->dtype == FJ_DTYPE_BF16;
    p.heavy = is_heavy(problem);
    p.few = problem->few_queries && problem->kind == FJ_JIT_FORWARD;
    for (int wide = 0; wide <= 1; wide++) {
        p.wide = wide != 0;
        list_packed_or_not(&p);
    }
    return p.count;
}
