/* Which variants of the cpu templates the plan lists for a problem, best first; space.c has all that are legal. */
#include "jit/space.h"

enum { MAX_TILES = 4 };

typedef struct tile {
    int q, kv;
} tile;

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

/* Reading keys and values where they lie is what few queries need; it doubles the text of a kernel, and the time to compile
 * it, for all others. */
static int is_direct(const fj_jit_problem *problem, bool second_choice) {
    return problem->kind == FJ_JIT_FORWARD && problem->few_queries != second_choice;
}

int fj_jit_variants(const fj_jit_problem *problem, const fj_features *features, fj_variant *ret_variants) {
    tile tiles[MAX_TILES];
    int count = 0;
    if (features->arch.number != 0) return fj_jit_cuda_variants(problem, features, ret_variants);
    for (int isa = FJ_ISA_COUNT - 1; isa >= 0; isa--) {
        const int tile_count = list_tiles(problem, (fj_isa)isa, tiles);
        for (int i = 0; i < 2 * tile_count && count < FJ_JIT_MAX_VARIANTS; i++) {
            const tile *of = &tiles[i % tile_count];
            const fj_values values = {{[FJ_AXIS_TILE_Q] = of->q,
                                       [FJ_AXIS_TILE_KV] = of->kv,
                                       [FJ_AXIS_ISA] = isa,
                                       [FJ_AXIS_DIRECT] = is_direct(problem, i >= tile_count),
                                       [FJ_AXIS_SPLITS] = 1}};
            if (i >= tile_count && problem->kind != FJ_JIT_FORWARD) break;
            count += fj_jit_make_variant(problem, features, &values, &ret_variants[count]);
        }
    }
    return count;
}
