/* Defects that the backward tests must notice, each planted into the text of one kernel. */
#include "tests/kern_cuda/bwd.h"

#define STEP_WAIT "fj_copy_async_wait<(FJ_STAGES > 1 ? FJ_STAGES - 2 : 0)>();"
#define MMA "bwd_mma_bf16_e64_v64_*"

const plant bwd_plants[] = {
    {"no barrier before a step", MMA, STEP_WAIT "\n            fj_block_sync();", STEP_WAIT},
    {"no wait for copies", MMA, STEP_WAIT, ""},
    {"the stage in use is overwritten", MMA, "ahead[FJ_STAGES - 1], filled)", "ahead[FJ_STAGES - 1], stage)"},
    {"no barrier before results", "bwd_mma_f16_e256*",
     "    fj_block_sync();         // all are there, and read: their place is free\n", ""},
    {"no barrier before stores", MMA, "X_BYTES, dvalue, 1);\n    fj_block_sync();", "X_BYTES, dvalue, 1);"},
    {"shared weights without a barrier", "bwd_mma_f16_e256*",
     "fj_barrier_sync(1 + fj_warp() / SPLIT, SPLIT * FJ_WARP);", ""},
    {"a cut tile is full", "bwd_mma_bf16_e16*_bias",
     "end <= at.walked && at.first + FJ_TILE_Q <= at.count ? 1 : 0", "1"},
    {"own rows past the last scatter", "bwd_mma_f16_e64*_relative",
     "index < t.at.walked && t.row(r) < t.at.count", "index < t.at.walked"},
    {"delta with the wrong sign", MMA, "fj_real delta = -sum;", "fj_real delta = sum;"},
    {"dlse is forgotten", MMA, "if (a.dlse.data) delta +=", "if (false) delta +="},
    {"scale on dvalue", MMA, "X_BYTES, dvalue, 1)", "X_BYTES, dvalue, static_cast<float>(t.a.scale))"},
    {"P is not selected", "bwd_mma_f16_e80*_causal", "s = live ? p : fj_real(0);", "s = p;"},
    {"only the first head of a group", "bwd_mma_f16_e80*_causal", "at.head + (keys ? ratio : 1);",
     "at.head + 1;"},
    {"states of the first head stay", "bwd_mma_bf16_e128*_alibi", "next != h) {", "h < 0) {"},
    {"no settling of units", "bwd_mma_f16_e64*_relative",
     "    fj_sink_settle(acc);\n    if (acc.mode == FJ_SINK_ADD) {", "    if (acc.mode == FJ_SINK_ADD) {"},
    {"sums are not zeroed", "bwd_mma_bf16_e16*_bias", "threads) sums[n] = 0;", "threads) (void)sums;"},
    {"units of the wrong size", "bwd_mma_bf16_e16*_bias", "const int32_t units = 61 - count - exponent;",
     "const int32_t units = 20 - count - exponent;"},
    {"float atomics", "bwd_mma_f16_e64*_relative",
     "mode = FJ_DETERMINISTIC ? (keys ? FJ_SINK_LOOK : FJ_SINK_ADD)", "mode = false ? FJ_SINK_NONE"},
    {"simt: no barrier before products", "bwd_simt_f32_e64*",
     "from, dim);\n        fj_block_sync();\n#pragma unroll 4", "from, dim);\n#pragma unroll 4"},
    {"simt: no barrier before chunks", "bwd_simt_f32_e64*", "from += DEPTH) {\n        fj_block_sync();",
     "from += DEPTH) {"},
    {"simt: no barrier before columns", "bwd_simt_f32_e64*", "chunk++) {\n        fj_block_sync();",
     "chunk++) {"},
    {NULL, NULL, NULL, NULL},
};
