/* Which variants of the cuda templates are legal for a problem on a GPU, best first.
 *
 *     mma    on tensor cores, sm_80 and newer, dimensions padded to 16: F16 and BF16; forward also F32, as three
 *            products of TF32 each (one, where the user allows it)
 *     simt   any dtype, any dimension, any architecture: the one that always fits
 *
 * A variant is listed only when the shared memory of each of its kernels, by the formulas that the templates
 * assert (templates/cuda/shapes.h), is within the device's limit: nothing is compiled that cannot launch.
 * Registers are known only after ptxas; so the tables go from the fastest to smaller tiles, and a caller that
 * sees spills takes the next.
 */
#include <stdio.h>

#include "base/dtype.h"
#include "jit/jit.h"
#include "templates/cuda/shapes.h"

/* One choice: for head and value dimensions of at most `dim`. */
typedef struct tile {
    int dim, m, n, stages, warps;
} tile;

/* The first that fits is the default. What has less than 100 KiB of shared memory (sm_86, 89, 120) finds its
 * own further down. Sizes: KERNELS of FlashAttention 2 and 3 for mma.sync, halved where a mod needs
 * registers. */
static const tile fwd_mma[] = {
    {64, 128, 64, 2, 4}, {64, 64, 64, 2, 4},   {64, 64, 32, 2, 4},   {128, 128, 64, 2, 8},
    {128, 64, 64, 2, 4}, {128, 64, 32, 2, 4},  {192, 128, 64, 2, 8}, {192, 64, 64, 1, 4},
    {192, 64, 32, 2, 4}, {256, 128, 32, 2, 8}, {256, 64, 64, 1, 4},  {256, 64, 32, 1, 4},
};
/* F32: operands are split in registers. */
static const tile fwd_tf32[] = {
    {64, 128, 64, 2, 4}, {64, 64, 32, 2, 4},  {128, 64, 64, 2, 4}, {128, 64, 32, 2, 4},
    {192, 64, 16, 2, 4}, {192, 64, 16, 1, 4}, {256, 64, 16, 1, 4},
};
/* Backward: m own rows, n walked ones, in both passes. */
static const tile bwd_mma[] = {
    {64, 64, 64, 2, 4},  {64, 64, 32, 2, 4},  {128, 64, 64, 2, 8}, {128, 64, 32, 2, 8}, {128, 32, 32, 1, 4},
    {192, 64, 32, 2, 8}, {192, 64, 32, 1, 8}, {192, 32, 32, 1, 4}, {256, 64, 32, 2, 8}, {256, 32, 32, 1, 4},
};
static const tile fwd_simt[] = {{256, 64, 32, 1, 4}, {256, 32, 32, 1, 4}, {256, 16, 16, 1, 2}};
static const tile bwd_simt[] = {{256, 32, 32, 1, 4}, {256, 16, 32, 1, 4}, {256, 16, 16, 1, 2}};

enum { DELTA_THREADS = 128, SIMT_TILES = 3 };
_Static_assert(FJ_ARRAY_LEN(fwd_simt) == SIMT_TILES && FJ_ARRAY_LEN(bwd_simt) == SIMT_TILES, "as many");

typedef struct plan {
    const fj_jit_problem *problem;
    const fj_features *features;
    fj_variant *variants;
    int count;
    int real;  /* bytes of fj_real */
    bool half; /* 16-bit inputs */
} plan;

/* ---- One variant --------------------------------------------------------------------------------------- */

static void name_variant(const fj_jit_problem *problem, fj_variant *v) {
    (void)snprintf(v->name, sizeof v->name, "%s_%s_%s%s_e%d_v%d_m%d_n%d_s%d_w%d",
                   problem->kind == FJ_JIT_BACKWARD ? "bwd" : "fwd", v->mma ? "mma" : "simt",
                   fj_dtype_code_name(problem->dtype),
                   problem->kind == FJ_JIT_BACKWARD && !problem->deterministic ? "_atomic" : "",
                   problem->head_dim, problem->value_dim, v->tile_q, v->tile_kv, v->stages, v->warps);
}

static void add_entry(fj_variant *v, const char *name, int threads, int shared) {
    v->entries[v->entry_count++] = (fj_entry){.name = name, .threads = threads, .shared = shared};
}

static void add_forward(fj_variant *v, int real, bool half) {
    int m = v->tile_q, n = v->tile_kv, e = v->head_pad, d = v->value_pad;
    int shared = v->mma ? FJ_FWD_MMA_SHARED(m, n, e, d, v->stages) * (half ? 1 : 2)
                        : FJ_FWD_SIMT_SHARED(m, n, e, d, real);
    add_entry(v, "fj_fwd", v->warps * 32, shared);
}

static void add_backward(const fj_jit_problem *problem, fj_variant *v, int real) {
    int m = v->tile_q, n = v->tile_kv, s = v->stages, w = v->warps;
    int shared = v->mma ? FJ_BWD_MMA_SHARED(m, n, v->head_pad, v->value_pad, s, w, !problem->deterministic)
                        : FJ_BWD_SIMT_SHARED(m, n, real);
    add_entry(v, "fj_bwd_delta", DELTA_THREADS, 0);
    add_entry(v, "fj_bwd_kv", w * 32, shared);
    add_entry(v, "fj_bwd_q", w * 32, shared);
    if (problem->gradient && problem->gradient->scatters.len > 0)
        add_entry(v, "fj_bwd_end", DELTA_THREADS, 0);
}

static bool fits(const fj_variant *v, int limit) {
    for (int i = 0; i < v->entry_count; i++)
        if (v->entries[i].shared > limit) return false;
    return true;
}

static void consider(plan *p, const tile *t, bool mma) {
    const fj_jit_problem *problem = p->problem;
    fj_variant v = {
        .target = FJ_TARGET_CUDA,
        .arch = p->features->arch,
        .mma = mma,
        .tile_q = t->m,
        .tile_kv = t->n,
        .stages = t->stages,
        .warps = t->warps,
        .head_pad = mma ? FJ_MMA_PAD(problem->head_dim) : problem->head_dim,
        .value_pad = mma ? FJ_MMA_PAD(problem->value_dim) : problem->value_dim,
    };
    if (v.head_pad > t->dim || v.value_pad > t->dim || p->count == FJ_JIT_MAX_VARIANTS) return;
    if (problem->kind == FJ_JIT_BACKWARD)
        add_backward(problem, &v, p->real);
    else
        add_forward(&v, p->real, p->half);
    if (!fits(&v, p->features->shared_limit)) return;
    for (int i = 0; i < p->count; i++) { /* the choice of a lesser dimension again */
        const fj_variant *other = &p->variants[i];
        if (other->mma == mma && other->tile_q == t->m && other->tile_kv == t->n &&
            other->stages == t->stages && other->warps == t->warps)
            return;
    }
    v.arch.suffix = '\0'; /* none of these needs what only one architecture has: the same for sm_90, sm_90a */
    name_variant(problem, &v);
    p->variants[p->count++] = v;
}

/* ---- All ---------------------------------------------------------------------------------------------------- */

static bool is_dimension(int dim) { return dim >= 1 && dim <= 256; }

int fj_jit_cuda_variants(const fj_jit_problem *problem, const fj_features *features,
                         fj_variant *ret_variants) {
    plan p = {.problem = problem, .features = features, .variants = ret_variants};
    fj_dtype dtype = problem->dtype;
    bool half = dtype == FJ_DTYPE_F16 || dtype == FJ_DTYPE_BF16, forward = problem->kind == FJ_JIT_FORWARD;
    if (problem->kind != FJ_JIT_FORWARD && problem->kind != FJ_JIT_BACKWARD) return 0;
    if (!half && dtype != FJ_DTYPE_F32 && dtype != FJ_DTYPE_F64) return 0;
    if (!is_dimension(problem->head_dim) || !is_dimension(problem->value_dim)) return 0;
    p.half = half;
    bool tensor_cores = features->arch.number >= 80 && (half || (forward && dtype == FJ_DTYPE_F32));
    p.real = dtype == FJ_DTYPE_F64 ? 8 : 4;
    const tile *mma = !forward ? bwd_mma : half ? fwd_mma : fwd_tf32, *simt = forward ? fwd_simt : bwd_simt;
    size_t mma_count = !forward ? FJ_ARRAY_LEN(bwd_mma)
                     : half     ? FJ_ARRAY_LEN(fwd_mma)
                                : FJ_ARRAY_LEN(fwd_tf32);
    for (size_t i = 0; tensor_cores && i < mma_count; i++) consider(&p, &mma[i], true);
    for (size_t i = 0; i < SIMT_TILES; i++) consider(&p, &simt[i], false);
    return p.count;
}
