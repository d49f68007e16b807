/* A variant from the values of its parameters: whether they are legal together, what follows from them, its name.
 *
 *     cpu     tile_q a multiple of 48 up to 240, tile_kv one of 64 up to 1024, in backward of two panels at least; any
 *             instruction set that the CPU has, avx512bf16 only for BF16; direct in forward alone
 *     mma     sm_80 and newer, F16, BF16, F32; dimensions padded to 16
 *     simt    any dtype, any architecture
 *
 * Those are the rules that the templates assert: the first lines of cpu/fwd_grid.h, cpu/bwd_grid.h, cuda/fwd_tile.h,
 * cuda/bwd_tile.h, cuda/fwd_simt.cu, cuda/bwd_simt_tile.h. Of what these take, tiles and warps are powers of two, or three
 * times one. Shared memory is that of the formulas in cuda/shapes.h, within the device's limit: nothing is compiled that
 * cannot launch. And what a thread sums up must fit its registers, where it would not, all of it would be spilled.
 */
#include <stdio.h>
#include <string.h>

#include "base/dtype.h"
#include "jit/space.h"
#include "templates/cuda/shapes.h"

enum {
    CPU_ROWS = 48,
    CPU_MOST_ROWS = 240,
    CPU_KEYS = 64,
    CPU_MOST_KEYS = 1024,
    MOST_STAGES = 4,
    MOST_SPLITS = 64,
    MOST_WARPS = 32, /* of a multiprocessor that split keys count on: 64 registers for each thread */
    THREAD_REGISTERS = 255,
    BLOCK_REGISTERS = 65536,
    DELTA_THREADS = 128,
    MERGE_THREADS = 128
};

static const char *const prefixes[] = {
    [FJ_JIT_FORWARD] = "fwd",
    [FJ_JIT_BACKWARD] = "bwd",
    [FJ_JIT_PEAK] = "peak",
    [FJ_JIT_MASK] = "mask",
};
_Static_assert(FJ_ARRAY_LEN(prefixes) == FJ_JIT_KIND_COUNT, "a prefix for each");

static bool is_attention(const fj_jit_problem *problem) {
    return problem->kind == FJ_JIT_FORWARD || problem->kind == FJ_JIT_BACKWARD;
}

static bool is_half(const fj_jit_problem *problem) {
    return problem->dtype == FJ_DTYPE_F16 || problem->dtype == FJ_DTYPE_BF16;
}

static bool is_dimension(int dim) { return dim >= 1 && dim <= 256; }

static bool is_supported(const fj_jit_problem *problem) {
    const bool real = problem->dtype == FJ_DTYPE_F32 || problem->dtype == FJ_DTYPE_F64;
    if (problem->kind == FJ_JIT_MASK) return real;
    if (!real && !is_half(problem)) return false;
    return problem->kind == FJ_JIT_PEAK ||
           (is_dimension(problem->head_dim) && is_dimension(problem->value_dim));
}

/* A dimension that is known and does not fit 32 bits. */
static bool needs_wide(const fj_ir *ir) {
    for (size_t i = 0; ir && i < ir->captures.len; i++)
        for (int d = 0; d < ir->captures.data[i].rank; d++)
            if (ir->captures.data[i].dims[d] > INT32_MAX) return true;
    return false;
}

/* ---- cpu ------------------------------------------------------------------------------------------------- */

static void name_cpu(const fj_jit_problem *problem, fj_variant *v) {
    const char *dtype = fj_dtype_code_name(problem->dtype), *isa = fj_jit_isa_name(v->isa);
    if (is_attention(problem))
        (void)snprintf(v->name, sizeof v->name, "%s_cpu_%s_e%d_v%d_m%d_n%d_%s%s%s%s", prefixes[problem->kind],
                       dtype, problem->head_dim, problem->value_dim, v->tile_m, v->tile_n, isa,
                       v->direct ? "_direct" : "", problem->paged ? "_paged" : "",
                       problem->block_mask ? "_blocks" : "");
    else
        (void)snprintf(v->name, sizeof v->name, "%s_cpu_%s_%s", prefixes[problem->kind], dtype, isa);
}

/* Keys of a panel: FJ_PANEL of cpu/tile.h is this on AVX-512, and less elsewhere. */
static int panel_of(const fj_jit_problem *problem, fj_isa isa) {
    return isa >= FJ_ISA_AVX512 && problem->dtype != FJ_DTYPE_F64 ? 64 : 32;
}

static bool make_cpu(const fj_jit_problem *problem, const fj_features *features, const int *of,
                     fj_variant *ret_variant) {
    const fj_isa isa = (fj_isa)of[FJ_AXIS_ISA];
    const int rows = of[FJ_AXIS_TILE_Q], keys = of[FJ_AXIS_TILE_KV], direct = of[FJ_AXIS_DIRECT];
    if (isa >= FJ_ISA_COUNT || !features->isa[isa]) return false;
    if (isa == FJ_ISA_AVX512BF16 && problem->dtype != FJ_DTYPE_BF16) return false;
    if (!is_attention(problem) && (rows || keys)) return false;
    if (direct > (problem->kind == FJ_JIT_FORWARD)) return false;
    if (is_attention(problem)) {
        if (rows < CPU_ROWS || rows > CPU_MOST_ROWS || rows % CPU_ROWS) return false;
        if (keys < CPU_KEYS || keys > CPU_MOST_KEYS || keys % CPU_KEYS) return false;
        if (problem->kind == FJ_JIT_BACKWARD && keys < 2 * panel_of(problem, isa)) return false;
    }
    fj_variant v = {.isa = isa, .direct = direct, .tile_m = rows, .tile_n = keys, .splits = 1};
    name_cpu(problem, &v);
    *ret_variant = v;
    return true;
}

/* ---- GPUs: legality ------------------------------------------------------------------------------------------ */

static bool is_power(int n) { return n > 0 && (n & (n - 1)) == 0; }

static bool is_legal_mma(const fj_jit_problem *problem, const fj_variant *v) {
    const int m = v->tile_m, n = v->tile_n, w = v->warps, split = FJ_BWD_MMA_SPLIT(m, w);
    if (v->stages < 1 || v->stages > MOST_STAGES) return false;
    if (problem->kind == FJ_JIT_FORWARD) return m == 16 * w || m == 32 * w;
    return m * split % (16 * w) == 0 && m * split >= 16 * w && n % (16 * split) == 0 &&
           2 * (n / 8 / split) <= 32 && w <= n / 2;
}

/* Registers of a thread for sums: scores, outputs, gradients. */
static int sums_of(const fj_jit_problem *problem, const fj_variant *v) {
    const int m = v->tile_m, n = v->tile_n, w = v->warps, e = v->head_pad, d = v->value_pad;
    const bool forward = problem->kind == FJ_JIT_FORWARD;
    if (v->mma && forward) return m / w * (d + n) / 32;
    if (v->mma) {
        const int split = FJ_BWD_MMA_SPLIT(m, w);
        return m * split / w * (2 * n + e + d) / (32 * split);
    }
    const int words = problem->dtype == FJ_DTYPE_F64 ? 2 : 1;
    return m / (4 * w) * (forward ? (n + FJ_FWD_SIMT_SLICE(d)) / 8 : 2 * n / 8) * words;
}

static bool is_legal_tile(const fj_jit_problem *problem, const fj_variant *v) {
    const int m = v->tile_m, n = v->tile_n, w = v->warps;
    const bool keys = is_power(n) || (n % 3 == 0 && is_power(n / 3));
    if (!is_power(m) || m < 16 || m > 256 || !keys || n < 16 || n > 128 || !is_power(w) || w > 16)
        return false;
    if (v->mma ? !is_legal_mma(problem, v) : v->stages != 1 || m % (4 * w)) return false;
    return n % 16 == 0 && sums_of(problem, v) <= THREAD_REGISTERS &&
           sums_of(problem, v) <= BLOCK_REGISTERS / (32 * w);
}

/* Where it is not chosen at each launch. */
static bool is_split(int splits) { return splits == 0 || (splits <= MOST_SPLITS && is_power(splits)); }

static bool is_legal_gpu(const fj_jit_problem *problem, const fj_features *features, const int *of) {
    const int kernel = of[FJ_AXIS_KERNEL], pack = of[FJ_AXIS_PACK], wide = of[FJ_AXIS_WIDE];
    const bool mma = features->arch.number >= 80 && problem->dtype != FJ_DTYPE_F64;
    if (!is_attention(problem) || kernel > mma) return false;
    if (of[FJ_AXIS_SPLITS] != 1 && (problem->kind != FJ_JIT_FORWARD || !is_split(of[FJ_AXIS_SPLITS])))
        return false;
    if (pack > (problem->kind == FJ_JIT_FORWARD)) return false;
    return wide == 0 ? !needs_wide(problem->ir) : wide == 1 && problem->ir && problem->ir->captures.len > 0;
}

/* ---- GPUs: unrolling ---------------------------------------------------------------------------------------- */

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

/* Column tiles of a thread. */
static int tiles_of(const fj_jit_problem *problem, const fj_variant *v) {
    const int split = problem->kind == FJ_JIT_FORWARD ? 1 : FJ_BWD_MMA_SPLIT(v->tile_m, v->warps);
    return v->tile_n / 8 / split;
}

/* Other values than the plan's are legal where they make another kernel: of mma, of what the mod has. */
static bool set_unrolling(const fj_jit_problem *problem, const int *of, fj_variant *v) {
    const fj_ir_cost cost = fj_jit_mod_cost(problem);
    const bool score = v->mma && cost.score + cost.gradient > 0, mask = v->mma && cost.mask > 0;
    const int chunks = of[FJ_AXIS_MOD_CHUNKS], mask_unroll = of[FJ_AXIS_MASK_UNROLL],
              one_copy = of[FJ_AXIS_ONE_COPY];
    unroll(problem, v);
    if (chunks != FJ_VALUE_PLAN && chunks != v->mod_chunks) {
        if (!score || !is_power(chunks) || chunks > MOST_CHUNKS || tiles_of(problem, v) % chunks)
            return false;
        v->mod_chunks = chunks;
    }
    if (mask_unroll != FJ_VALUE_PLAN && mask_unroll != v->mask_unroll) {
        if (!mask || !is_power(mask_unroll) || mask_unroll > 4) return false;
        v->mask_unroll = mask_unroll;
    }
    if (one_copy != FJ_VALUE_PLAN && one_copy != v->one_copy) {
        if (!(score || mask) || one_copy > 1) return false;
        v->one_copy = one_copy;
    }
    return true;
}

/* ---- GPUs: names and entries ----------------------------------------------------------------------------------- */

static void name_gpu(const fj_jit_problem *problem, fj_variant *v) {
    char chunks[16] = "", mask[16] = "", splits[24] = "";
    const bool backward = problem->kind == FJ_JIT_BACKWARD;
    const bool tf32 = v->mma && problem->dtype == FJ_DTYPE_F32 && problem->tf32;
    const char *sequences = problem->packed   ? "_varlen"
                          : problem->paged    ? "_paged"
                          : problem->q_offset ? "_offset"
                                              : "";
    if (v->mod_chunks > 1) (void)snprintf(chunks, sizeof chunks, "_t%d", v->mod_chunks);
    if (v->mask_unroll == 1) (void)snprintf(mask, sizeof mask, "_roll");
    if (v->mask_unroll > 2) (void)snprintf(mask, sizeof mask, "_u%d", v->mask_unroll);
    if (v->splits == 0) (void)snprintf(splits, sizeof splits, "_split");
    if (v->splits > 1) (void)snprintf(splits, sizeof splits, "_split%d", v->splits);
    (void)snprintf(v->name, sizeof v->name, "%s_%s_%s%s_e%d_v%d_m%d_n%d_s%d_w%d%s%s%s%s%s%s%s%s%s",
                   prefixes[problem->kind], fj_jit_kernel_name(v->mma),
                   tf32 ? "tf32" : fj_dtype_code_name(problem->dtype),
                   backward && !problem->deterministic ? "_atomic" : "", problem->head_dim,
                   problem->value_dim, v->tile_m, v->tile_n, v->stages, v->warps,
                   v->pack_heads ? "_pack" : "", v->wide_captures ? "_wide" : "", sequences,
                   problem->shared_keys ? "_shared" : "", problem->block_mask ? "_blocks" : "", chunks,
                   v->one_copy ? "_one" : "", mask, splits);
}

static void add_entry(fj_variant *v, const char *name, int threads, int shared, fj_grid grid) {
    v->entries[v->entry_count++] = (fj_entry){name, threads, shared, grid, .slices = 1};
}

static void add_forward(const fj_jit_problem *problem, fj_variant *v, int real) {
    int m = v->tile_m, n = v->tile_n, e = v->head_pad, d = v->value_pad;
    int shared = v->mma ? FJ_FWD_MMA_SHARED(m, n, e, d, v->stages) * (is_half(problem) ? 1 : 2)
                        : FJ_FWD_SIMT_SHARED(m, n, e, d, real);
    add_entry(v, "fj_fwd", v->warps * 32, shared, FJ_GRID_QUERY_TILES);
    if (!v->mma) v->entries[0].slices = FJ_FWD_SIMT_SLICES(d);
    if (v->splits != 1) add_entry(v, "fj_fwd_merge", MERGE_THREADS, 0, FJ_GRID_ROWS);
}

/* Blocks of the first entry on the device, by shared memory and warps. */
static int room_of(const fj_variant *v, const fj_features *features) {
    enum { RESERVED = 1024 };
    const int by_shared = (features->shared_limit + RESERVED) / (v->entries[0].shared + RESERVED);
    const int by_warps = v->warps < MOST_WARPS ? MOST_WARPS / v->warps : 1;
    return features->multiprocessors * (by_shared < by_warps ? by_shared : by_warps);
}

static void add_backward(const fj_jit_problem *problem, fj_variant *v, int real) {
    int m = v->tile_m, n = v->tile_n, s = v->stages, w = v->warps;
    const bool half = is_half(problem);
    int shared = v->mma ? FJ_BWD_MMA_SHARED(m, n, v->head_pad, v->value_pad, s, w, !problem->deterministic,
                                            half ? 2 : 4)
                        : FJ_BWD_SIMT_SHARED(m, n, real);
    bool capture_grads = problem->gradient && problem->gradient->scatters.len > 0;
    const bool rows = fj_jit_adds_rows(problem);
    if (problem->out) add_entry(v, "fj_bwd_out", DELTA_THREADS, 0, FJ_GRID_ROWS);
    add_entry(v, "fj_bwd_delta", DELTA_THREADS, 0, FJ_GRID_ROWS);
    /* delta; or of bwd_simt lse, as forward computed F32 on tensor cores */
    bool own_lse = !v->mma && problem->dtype == FJ_DTYPE_F32 && v->arch.number >= 80;
    if ((capture_grads && half) || own_lse)
        add_entry(v, "fj_bwd_recompute", w * 32, shared, FJ_GRID_QUERY_TILES);
    if (rows) add_entry(v, "fj_bwd_rows", DELTA_THREADS, 0, FJ_GRID_ROWS);
    add_entry(v, "fj_bwd_kv", w * 32, shared, FJ_GRID_KEY_TILES);
    add_entry(v, "fj_bwd_q", w * 32, shared, FJ_GRID_QUERY_TILES);
    if (rows && problem->deterministic) add_entry(v, "fj_bwd_rows_add", DELTA_THREADS, 0, FJ_GRID_ROWS);
    if (capture_grads || rows) add_entry(v, "fj_bwd_end", DELTA_THREADS, 0, FJ_GRID_GRADIENTS);
    if (problem->shared_keys) add_entry(v, "fj_bwd_sum", DELTA_THREADS, 0, FJ_GRID_KEYS);
}

static bool fits(const fj_variant *v, int limit) {
    for (int i = 0; i < v->entry_count; i++)
        if (v->entries[i].shared > limit) return false;
    return true;
}

static bool make_gpu(const fj_jit_problem *problem, const fj_features *features, const int *of,
                     fj_variant *ret_variant) {
    if (!is_legal_gpu(problem, features, of)) return false;
    const bool mma = of[FJ_AXIS_KERNEL];
    const int real = problem->dtype == FJ_DTYPE_F64 ? 8 : 4;
    fj_variant v = {
        .target = features->emulated ? FJ_TARGET_EMU : FJ_TARGET_CUDA,
        /* none of these needs what only one architecture has: the same for sm_90, sm_90a */
        .arch = {features->arch.number, '\0'},
        .mma = mma,
        .pack_heads = of[FJ_AXIS_PACK],
        .wide_captures = of[FJ_AXIS_WIDE],
        .splits = of[FJ_AXIS_SPLITS],
        .tile_m = of[FJ_AXIS_TILE_Q],
        .tile_n = of[FJ_AXIS_TILE_KV],
        .stages = of[FJ_AXIS_STAGES],
        .warps = of[FJ_AXIS_WARPS],
        .head_pad = mma ? FJ_MMA_PAD(problem->head_dim) : problem->head_dim,
        .value_pad = mma ? FJ_MMA_PAD(problem->value_dim) : problem->value_dim,
    };
    if (!is_legal_tile(problem, &v)) return false;
    if (problem->kind == FJ_JIT_BACKWARD)
        add_backward(problem, &v, real);
    else
        add_forward(problem, &v, real);
    if (!fits(&v, features->shared_limit) || !set_unrolling(problem, of, &v)) return false;
    v.room = room_of(&v, features);
    name_gpu(problem, &v);
    *ret_variant = v;
    return true;
}

bool fj_jit_make_variant(const fj_jit_problem *problem, const fj_features *features, const fj_values *values,
                         fj_variant *ret_variant) {
    fj_values all = *values;
    if (all.of[FJ_AXIS_WIDE] == FJ_VALUE_PLAN)
        all.of[FJ_AXIS_WIDE] = features->arch.number && needs_wide(problem->ir);
    if (!is_supported(problem)) return false;
    for (int axis = 0; axis < FJ_AXIS_COUNT; axis++)
        if (!fj_jit_has_axis(features, (fj_axis)axis) && all.of[axis] > 0) return false;
    if (!features->arch.number && all.of[FJ_AXIS_SPLITS] != 1) return false;
    return features->arch.number ? make_gpu(problem, features, all.of, ret_variant)
                                 : make_cpu(problem, features, all.of, ret_variant);
}
