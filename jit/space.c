#include "jit/space.h"

#include <string.h>

static const struct {
    const char *name;
    bool of_cpu, of_gpu;
} parameters[] = {
    [FJ_AXIS_KERNEL] = {"kernel", false, true},
    [FJ_AXIS_TILE_Q] = {"tile_q", true, true},
    [FJ_AXIS_TILE_KV] = {"tile_kv", true, true},
    [FJ_AXIS_ISA] = {"isa", true, false},
    [FJ_AXIS_STAGES] = {"stages", false, true},
    [FJ_AXIS_WARPS] = {"warps", false, true},
    [FJ_AXIS_SPLITS] = {"splits", true, true},
    [FJ_AXIS_PACK] = {"pack", false, true},
    [FJ_AXIS_WIDE] = {"wide", false, true},
    [FJ_AXIS_MOD_CHUNKS] = {"mod_chunks", false, true},
    [FJ_AXIS_MASK_UNROLL] = {"mask_unroll", false, true},
    [FJ_AXIS_ONE_COPY] = {"one_copy", false, true},
};
_Static_assert(FJ_ARRAY_LEN(parameters) == FJ_AXIS_COUNT, "a row for each");

const char *fj_jit_axis_name(fj_axis parameter) { return parameters[parameter].name; }

fj_axis fj_jit_axis_find(const char *name) {
    int parameter = 0;
    while (parameter < FJ_AXIS_COUNT && strcmp(parameters[parameter].name, name) != 0) parameter++;
    return (fj_axis)parameter;
}

bool fj_jit_has_axis(const fj_features *features, fj_axis parameter) {
    return features->arch.number ? parameters[parameter].of_gpu : parameters[parameter].of_cpu;
}

const char *fj_jit_kernel_name(int kernel) { return kernel ? "mma" : "simt"; }

fj_values fj_jit_values_of(const fj_variant *v) {
    return (fj_values){{
        [FJ_AXIS_KERNEL] = v->mma,
        [FJ_AXIS_TILE_Q] = v->tile_m,
        [FJ_AXIS_TILE_KV] = v->tile_n,
        [FJ_AXIS_ISA] = (int)v->isa,
        [FJ_AXIS_STAGES] = v->stages,
        [FJ_AXIS_WARPS] = v->warps,
        [FJ_AXIS_SPLITS] = 1,
        [FJ_AXIS_PACK] = v->pack_heads,
        [FJ_AXIS_WIDE] = v->wide_captures,
        [FJ_AXIS_MOD_CHUNKS] = v->mod_chunks,
        [FJ_AXIS_MASK_UNROLL] = v->mask_unroll,
        [FJ_AXIS_ONE_COPY] = v->one_copy,
    }};
}
