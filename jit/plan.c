/* Which variants of the cpu templates are legal for a problem, best first.
 *
 * The rules are those that the first lines of templates/cpu/fwd.c and bwd.c assert:
 *   - head and value dimension 1 to 256; F16, BF16, F32, F64
 *   - avx512bf16 only for BF16
 *   - the query tile is a multiple of 48 up to 240, the key tile one of a panel (64 at most) up to 1024; backward has
 *     two panels at least
 */
#include <stdio.h>

#include "base/dtype.h"
#include "jit/jit.h"

enum { MAX_TILES = 4 };

typedef struct tile {
    int q, kv;
} tile;

static const char *const prefixes[] = {
    [FJ_JIT_FORWARD] = "fwd",
    [FJ_JIT_BACKWARD] = "bwd",
    [FJ_JIT_PEAK] = "peak",
    [FJ_JIT_MASK] = "mask",
};
_Static_assert(FJ_ARRAY_LEN(prefixes) == FJ_JIT_KIND_COUNT, "a prefix for each");

static void name_variant(const fj_jit_problem *problem, fj_variant *variant) {
    const char *dtype = fj_dtype_code_name(problem->dtype), *isa = fj_jit_isa_name(variant->isa);
    if (problem->kind == FJ_JIT_PEAK || problem->kind == FJ_JIT_MASK)
        (void)snprintf(variant->name, sizeof variant->name, "%s_cpu_%s_%s", prefixes[problem->kind], dtype,
                       isa);
    else
        (void)snprintf(variant->name, sizeof variant->name, "%s_cpu_%s_e%d_v%d_m%d_n%d_%s%s%s",
                       prefixes[problem->kind], dtype, problem->head_dim, problem->value_dim, variant->tile_m,
                       variant->tile_n, isa, problem->paged ? "_paged" : "",
                       problem->block_mask ? "_blocks" : "");
}

static bool is_supported(const fj_jit_problem *problem) {
    bool dtype = problem->dtype == FJ_DTYPE_F16 || problem->dtype == FJ_DTYPE_BF16 ||
                 problem->dtype == FJ_DTYPE_F32 || problem->dtype == FJ_DTYPE_F64;
    if (problem->kind == FJ_JIT_PEAK) return dtype;
    if (problem->kind == FJ_JIT_MASK) return problem->dtype == FJ_DTYPE_F32 || problem->dtype == FJ_DTYPE_F64;
    return dtype && problem->head_dim >= 1 && problem->head_dim <= 256 && problem->value_dim >= 1 &&
           problem->value_dim <= 256;
}

/* Tiles, best first. */
static int list_tiles(const fj_jit_problem *problem, fj_isa isa, tile tiles[MAX_TILES]) {
    bool is_small = problem->head_dim + problem->value_dim <= 256;
    switch (problem->kind) {
    case FJ_JIT_FORWARD:
        tiles[0] = (tile){48, is_small ? 256 : 128};
        tiles[1] = (tile){48, is_small ? 128 : 256};
        return 2;
    case FJ_JIT_BACKWARD:
        tiles[0] = (tile){isa == FJ_ISA_AVX512BF16 ? 96 : 48, is_small ? 192 : 128};
        tiles[1] = (tile){48, is_small ? 128 : 256};
        return 2;
    default: tiles[0] = (tile){0, 0}; return 1;
    }
}

int fj_jit_variants(const fj_jit_problem *problem, const fj_features *features, fj_variant *ret_variants) {
    tile tiles[MAX_TILES];
    int count = 0;
    if (features->arch.number != 0) {
        count = fj_jit_cuda_variants(problem, features, ret_variants);
        for (int i = 0; i < count && features->emulated; i++) ret_variants[i].target = FJ_TARGET_EMU;
        return count;
    }
    if (!is_supported(problem)) return 0;
    for (int isa = FJ_ISA_COUNT - 1; isa >= 0; isa--) {
        if (!features->isa[isa] || (isa == FJ_ISA_AVX512BF16 && problem->dtype != FJ_DTYPE_BF16)) continue;
        const int tile_count = list_tiles(problem, (fj_isa)isa, tiles);
        for (int i = 0; i < tile_count && count < FJ_JIT_MAX_VARIANTS; i++) {
            fj_variant *variant = &ret_variants[count++];
            *variant = (fj_variant){.isa = (fj_isa)isa, .tile_m = tiles[i].q, .tile_n = tiles[i].kv};
            name_variant(problem, variant);
        }
    }
    return count;
}
