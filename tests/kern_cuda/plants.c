/* Defects that the tests must notice, each planted into the text of one kernel. */
#include <string.h>

#include "tests/kern_cuda/kern_cuda.h"

#define STEP_WAIT "fj_copy_async_wait<(FJ_STAGES > 1 ? FJ_STAGES - 2 : 0)>();"

const plant plants[] = {
    {"no barrier before a block", "fwd_mma_bf16_e64_v64_*", STEP_WAIT "\n            fj_block_sync();",
     STEP_WAIT},
    {"no wait for copies", "fwd_mma_bf16_e64_v64_*", STEP_WAIT, ""},
    {"the stage in use is overwritten", "fwd_mma_bf16_e64_v64_*", "ahead[FJ_STAGES - 1], filled)",
     "ahead[FJ_STAGES - 1], stage)"},
    {"no bound on keys", "fwd_mma_bf16_e64_v64_*", "i < left ? from + i * stride : nullptr",
     "from + i * stride"},
    {"no bound on queries", "fwd_mma_bf16_e64_v64_*", "if (row >= t.at.rows) return nullptr;", ""},
    {"a swizzle is missing", "fwd_mma_bf16_e64_v64_*", "(fj_tile<columns>::turn(own) ^ (lane / 8 % 2))",
     "(lane / 8 % 2)"},
    {"keys past the last are seen", "fwd_mma_bf16_e64_v64_*", "const bool there = kv < t.a.kv_len;",
     "const bool there = true;"},
    {"no guard of -inf", "fwd_mma_bf16_e32*_late", "rows.top[r] = NO_TOP;", "rows.top[r] = -INFINITY;"},
    {"a cut block is full", "fwd_mma_f16_e80*", "found == 2 && end > a.kv_len ? 1 : found", "found"},
    {"simt: no barrier before products", "fwd_simt_f32_e16*",
     "        });\n        fj_block_sync();\n#pragma unroll 4", "        });\n#pragma unroll 4"},
    {"simt: no barrier before chunks", "fwd_simt_f32_e64*", "from += DEPTH) {\n        fj_block_sync();",
     "from += DEPTH) {"},
    {"simt: no barrier before values", "fwd_simt_f32_e64*", "    });\n    fj_block_sync();\n#pragma unroll 2",
     "    });\n#pragma unroll 2"},
    {NULL, NULL, NULL, NULL},
};

bool plant_apply(const plant *p, fj_buf *text) {
    char *at = strstr(text->data, p->from);
    if (!at) return false;
    const size_t before = (size_t)(at - text->data), skip = strlen(p->from);
    fj_buf planted;
    fj_buf_init(&planted, text->allocator);
    fj_buf_write(&planted, text->data, before);
    fj_buf_put(&planted, p->to);
    for (const char *lost = p->from; *lost; lost++) /* lines keep their numbers */
        if (*lost == '\n' && !strchr(p->to, '\n')) fj_buf_put(&planted, "\n");
    fj_buf_put(&planted, at + skip);
    fj_buf_finish(text);
    *text = planted;
    return true;
}
