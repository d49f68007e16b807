/* Which variants of the cuda templates are legal for a problem on a GPU, best first.
 *
 *     mma    on tensor cores, sm_80 and newer, dimensions padded to 16: F16, BF16, and F32 as three products of TF32
 *            each (one, where the user allows it)
 *     simt   any dtype, any dimension, any architecture: the one that always fits
 *
 * A variant is listed only when the shared memory of each of its kernels, by the formulas that the templates
 * assert (templates/cuda/shapes.h), is within the device's limit: nothing is compiled that cannot launch.
 * Registers are known only after ptxas; so the tables go from the fastest to smaller tiles, and fj_jit_choose steps
 * to the next where the first spills.
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
 * tile. Any variant may be wide, for captured tensors with a dimension beyond 2^31 - 1.
 */
#include <stdio.h>

#include "base/dtype.h"
#include "jit/jit.h"
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
/* Packed: few rows, in all. */
static const tile fwd_pack[] = {
    {256, 16, 64, 2, 1}, {256, 32, 64, 2, 2}, {256, 64, 32, 2, 4}, {256, 16, 32, 1, 1}};
static const tile fwd_pack_tf32[] = {
    {128, 16, 32, 2, 1}, {128, 32, 32, 2, 2}, {128, 64, 32, 2, 4}, {256, 16, 16, 2, 1}, {256, 16, 16, 1, 1}};
static const tile bwd_simt[] = {{256, 32, 32, 1, 4}, {256, 16, 32, 1, 4}, {256, 16, 16, 1, 2}};

/* BUSY_WARPS: two for each scheduler of an SM, one on the tensor cores while the other makes probabilities.
 * RESERVED: shared memory that a block takes besides its own. */
enum {
    DELTA_THREADS = 128,
    FORWARD_HEAVY = 16,
    BACKWARD_HEAVY = 48,
    FEW_SUMS = 96,
    BUSY_WARPS = 8,
    RESERVED = 1024
};

typedef struct plan {
    const fj_jit_problem *problem;
    const fj_features *features;
    fj_variant *variants;
    int count;
    int real;   /* bytes of fj_real */
    bool half;  /* 16-bit inputs */
    bool wide;  /* of the variants that are listed now */
    bool heavy; /* the mod */
} plan;

/* ---- One variant --------------------------------------------------------------------------------------- */

/* How often the mod stands in the text. A thread has m n / (32 w) scores: unrolled over all of them, in a copy for
 * partial blocks and one for full ones, a long mod costs seconds of compile time, and registers. From the costs of
 * fj_ir_cost and times of `./dev bench compile --corpus`. */
enum { FORWARD_MOST = 2560, BACKWARD_MOST = 2048, ONE_COPY_FROM = 512, MOST_CHUNKS = 8, LONG_MASK = 48 };

static void unroll(const fj_jit_problem *problem, fj_variant *v) {
    const bool forward = problem->kind == FJ_JIT_FORWARD;
    const fj_ir_cost cost = fj_jit_mod_cost(problem);
    const int64_t one = cost.score + cost.gradient, most = forward ? FORWARD_MOST : BACKWARD_MOST;
    const int64_t all = one * (v->tile_m * v->tile_n / (32 * v->warps));
    v->mod_chunks = 1;
    while (v->mod_chunks < MOST_CHUNKS && all > most * v->mod_chunks) v->mod_chunks *= 2;
    v->mask_unroll = cost.mask > LONG_MASK ? 1 : 2;
    v->one_copy = all > ONE_COPY_FROM;
}

static void name_variant(const fj_jit_problem *problem, fj_variant *v) {
    char chunks[8] = "";
    if (v->mod_chunks > 1) (void)snprintf(chunks, sizeof chunks, "_t%d", v->mod_chunks);
    const bool tf32 = v->mma && problem->dtype == FJ_DTYPE_F32 && problem->tf32;
    const char *sequences = problem->packed   ? "_varlen"
                          : problem->paged    ? "_paged"
                          : problem->q_offset ? "_offset"
                                              : "";
    (void)snprintf(v->name, sizeof v->name, "%s_%s_%s%s_e%d_v%d_m%d_n%d_s%d_w%d%s%s%s%s%s%s%s%s",
                   problem->kind == FJ_JIT_BACKWARD ? "bwd" : "fwd", v->mma ? "mma" : "simt",
                   tf32 ? "tf32" : fj_dtype_code_name(problem->dtype),
                   problem->kind == FJ_JIT_BACKWARD && !problem->deterministic ? "_atomic" : "",
                   problem->head_dim, problem->value_dim, v->tile_m, v->tile_n, v->stages, v->warps,
                   v->pack_heads ? "_pack" : "", v->wide_captures ? "_wide" : "", sequences,
                   problem->shared_keys ? "_shared" : "", problem->block_mask ? "_blocks" : "", chunks,
                   v->one_copy ? "_one" : "", v->mask_unroll == 1 ? "_roll" : "");
}

static void add_entry(fj_variant *v, const char *name, int threads, int shared, fj_grid grid) {
    v->entries[v->entry_count++] = (fj_entry){name, threads, shared, grid, .slices = 1};
}

static void add_forward(fj_variant *v, int real, bool half) {
    int m = v->tile_m, n = v->tile_n, e = v->head_pad, d = v->value_pad;
    int shared = v->mma ? FJ_FWD_MMA_SHARED(m, n, e, d, v->stages) * (half ? 1 : 2)
                        : FJ_FWD_SIMT_SHARED(m, n, e, d, real);
    add_entry(v, "fj_fwd", v->warps * 32, shared, FJ_GRID_QUERY_TILES);
    if (!v->mma) v->entries[0].slices = FJ_FWD_SIMT_SLICES(d);
}

static void add_backward(const fj_jit_problem *problem, fj_variant *v, int real, bool half) {
    int m = v->tile_m, n = v->tile_n, s = v->stages, w = v->warps;
    int shared = v->mma ? FJ_BWD_MMA_SHARED(m, n, v->head_pad, v->value_pad, s, w, !problem->deterministic,
                                            half ? 2 : 4)
                        : FJ_BWD_SIMT_SHARED(m, n, real);
    bool capture_grads = problem->gradient && problem->gradient->scatters.len > 0;
    add_entry(v, "fj_bwd_delta", DELTA_THREADS, 0, FJ_GRID_ROWS);
    /* delta; or of bwd_simt lse, as forward computed F32 on tensor cores */
    bool own_lse = !v->mma && problem->dtype == FJ_DTYPE_F32 && v->arch.number >= 80;
    if ((capture_grads && half) || own_lse)
        add_entry(v, "fj_bwd_recompute", w * 32, shared, FJ_GRID_QUERY_TILES);
    add_entry(v, "fj_bwd_kv", w * 32, shared, FJ_GRID_KEY_TILES);
    add_entry(v, "fj_bwd_q", w * 32, shared, FJ_GRID_QUERY_TILES);
    if (capture_grads) add_entry(v, "fj_bwd_end", DELTA_THREADS, 0, FJ_GRID_GRADIENTS);
    if (problem->shared_keys) add_entry(v, "fj_bwd_sum", DELTA_THREADS, 0, FJ_GRID_KEYS);
}

static bool fits(const fj_variant *v, int limit) {
    for (int i = 0; i < v->entry_count; i++)
        if (v->entries[i].shared > limit) return false;
    return true;
}

/* Whether shared memory lets an SM hold BUSY_WARPS; the limit of a block is an SM's less RESERVED. */
static bool is_busy(const fj_variant *v, int limit) {
    for (int i = 0; i < v->entry_count; i++)
        if ((limit + RESERVED) / (v->entries[i].shared + RESERVED) * v->warps < BUSY_WARPS) return false;
    return true;
}

static void consider(plan *p, const tile *t, bool mma, bool pack, bool busy) {
    const fj_jit_problem *problem = p->problem;
    fj_variant v = {
        .target = FJ_TARGET_CUDA,
        .arch = p->features->arch,
        .mma = mma,
        .pack_heads = pack,
        .wide_captures = p->wide,
        .tile_m = t->m,
        .tile_n = t->n,
        .stages = t->stages,
        .warps = t->warps,
        .head_pad = mma ? FJ_MMA_PAD(problem->head_dim) : problem->head_dim,
        .value_pad = mma ? FJ_MMA_PAD(problem->value_dim) : problem->value_dim,
    };
    if (v.head_pad > t->dim || v.value_pad > t->dim || p->count == FJ_JIT_MAX_VARIANTS) return;
    if (problem->kind == FJ_JIT_BACKWARD)
        add_backward(problem, &v, p->real, p->half);
    else
        add_forward(&v, p->real, p->half);
    if (!fits(&v, p->features->shared_limit) || (busy && !is_busy(&v, p->features->shared_limit))) return;
    for (int i = 0; i < p->count; i++) { /* the choice of a lesser dimension, or of busy ones, again */
        const fj_variant *other = &p->variants[i];
        if (other->mma == mma && other->pack_heads == pack && other->wide_captures == p->wide &&
            other->tile_m == t->m && other->tile_n == t->n && other->stages == t->stages &&
            other->warps == t->warps)
            return;
    }
    v.arch.suffix = '\0'; /* none of these needs what only one architecture has: the same for sm_90, sm_90a */
    unroll(problem, &v);
    name_variant(problem, &v);
    p->variants[p->count++] = v;
}

/* ---- All ---------------------------------------------------------------------------------------------------- */

static bool is_dimension(int dim) { return dim >= 1 && dim <= 256; }

typedef struct tiles {
    const tile *list;
    size_t count;
} tiles;
#define TILES(list) ((tiles){list, FJ_ARRAY_LEN(list)})

static tiles mma_tiles(const plan *p, bool pack) {
    if (p->features->arch.number < 80 || p->problem->dtype == FJ_DTYPE_F64) return (tiles){0};
    if (p->problem->kind == FJ_JIT_BACKWARD) return p->half ? TILES(bwd_mma) : TILES(bwd_tf32);
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
                consider(p, &mma.list[i], true, pack, !pack && round % 2 == 0);
    for (size_t i = 0; i < simt.count; i++) consider(p, &simt.list[i], false, pack, false);
}

/* Packing is for few queries of a group of heads; it can always be asked for. */
static void list_packed_or_not(plan *p) {
    const fj_jit_problem *problem = p->problem;
    const bool packed_first = problem->few_queries && problem->gqa != 1;
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

/* A dimension that is known and does not fit 32 bits. */
static bool needs_wide(const fj_ir *ir) {
    for (size_t i = 0; ir && i < ir->captures.len; i++)
        for (int d = 0; d < ir->captures.data[i].rank; d++)
            if (ir->captures.data[i].dims[d] > INT32_MAX) return true;
    return false;
}

int fj_jit_cuda_variants(const fj_jit_problem *problem, const fj_features *features,
                         fj_variant *ret_variants) {
    plan p = {.problem = problem, .features = features, .variants = ret_variants};
    fj_dtype dtype = problem->dtype;
    if (problem->kind != FJ_JIT_FORWARD && problem->kind != FJ_JIT_BACKWARD) return 0;
    p.half = dtype == FJ_DTYPE_F16 || dtype == FJ_DTYPE_BF16;
    p.real = dtype == FJ_DTYPE_F64 ? 8 : 4;
    if (!p.half && dtype != FJ_DTYPE_F32 && dtype != FJ_DTYPE_F64) return 0;
    if (!is_dimension(problem->head_dim) || !is_dimension(problem->value_dim)) return 0;
    p.heavy = is_heavy(problem);
    p.wide = needs_wide(problem->ir);
    list_packed_or_not(&p);
    if (!p.wide && problem->ir && problem->ir->captures.len > 0) {
        p.wide = true;
        list_packed_or_not(&p);
    }
    return p.count;
}
