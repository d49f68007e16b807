#include "jit/launch.h"

#include "base/dtype.h"

fj_gpu_facts fj_jit_facts(const fj_jit_problem *problem, const fj_variant *variant) {
    const bool backward = problem->kind == FJ_JIT_BACKWARD;
    return (fj_gpu_facts){
        .mma = variant->mma,
        .pack_heads = variant->pack_heads,
        .tile_m = variant->tile_m,
        .splits = variant->splits,
        .tile_n = variant->tile_n,
        .value_dim = problem->value_dim,
        .room = variant->room,
        .max = problem->max,
        .head_pad = variant->head_pad,
        .backward = backward,
        .deterministic = problem->deterministic,
        .notes = !backward && fj_jit_notes_faults(problem),
        .capture_grads = backward && fj_jit_adds_gradients(problem),
        .dout_columns = backward && problem->out ? problem->value_dim : 0,
        .element = (int)fj_dtype_size(problem->dtype),
        .real = problem->dtype == FJ_DTYPE_F64 ? 8 : 4,
        .inputs = (int)(problem->ir->captures.len + problem->ir->scalars.len),
    };
}

int64_t fj_jit_blocks(const fj_variant *variant, const fj_entry *entry, const fj_launch_extents *of) {
    const fj_gpu_facts facts = {.tile_m = variant->tile_m, .pack_heads = variant->pack_heads};
    return fj_gpu_blocks(&facts, entry, of);
}

int64_t fj_jit_splits(const fj_jit_problem *problem, const fj_variant *variant, const fj_launch_extents *of) {
    const fj_gpu_facts facts = fj_jit_facts(problem, variant);
    return facts.backward || facts.splits == 1 ? 1 : fj_gpu_splits(&facts, of);
}

bool fj_jit_lay_out(const fj_jit_problem *problem, const fj_variant *variant, const fj_launch_extents *of,
                    fj_workspace *ret_workspace) {
    const fj_gpu_facts facts = fj_jit_facts(problem, variant);
    return fj_gpu_lay_out(&facts, of, ret_workspace);
}
