#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kern_cuda/kern_cuda.h"

const mod mods[] = {
    {.name = "none", .exact = true},
    {.name = "causal", .exact = true, .mask = "q >= kv"},
    {.name = "window", .exact = true, .mask = "(q >= kv) & (q - kv < 40)"},
    {.name = "late", .exact = true, .mask = "(q >= 3) & (kv < 7)"}, /* first rows see nothing */
    {.name = "alibi",
     .exact = true,
     .score = "score + (kv - q) * exp2(-((h + 1) * 8.0 / 4))",
     .mask = "q >= kv"},
    {.name = "softcap", .exact = true, .score = "tanh(score / 3.0) * 3.0"},
    {.name = "bias", .score = "score + bias[h, q, kv]", .capture = {{"bias", "hqk", FJ_DTYPE_F32}}},
    {.name = "document",
     .score = "score * gain[kv]",
     .mask = "(doc[q] == doc[kv]) & (q >= kv)",
     .capture = {{"gain", "n", FJ_DTYPE_F16}, {"doc", "n", FJ_DTYPE_I32}}},
    {.name = "table", .score = "score + 0.01 * (q - kv)", .mask = "q >= kv", .table = "yes"},
    {.name = "infinite", .exact = true, .score = "where(kv < 5, -inf, score)"},
    {.name = "fault", /* read past its end, where the mask shows it */
     .score = "score + short[kv]",
     .mask = "q >= kv",
     .capture = {{"short", "5", FJ_DTYPE_F32}},
     .exact = true},
    {.name = "rank0",
     .score = "score * gain + gain",
     .capture = {{"gain", "", FJ_DTYPE_BF16}},
     .exact = true},
    {.name = NULL},
};

const mod *mod_find(const char *name) {
    const mod *m = mods;
    while (m->name && strcmp(m->name, name) != 0) m++;
    return m->name ? m : NULL;
}

typedef struct compile_job {
    const mod *m;
    fj_ir *ir;
} compile_job;

static void compile_body(fj_scope *scope, void *argument) {
    compile_job *job = argument;
    const mod *m = job->m;
    fj_binding bindings[MAX_CAPTURES] = {0};
    size_t count = 0;
    for (; count < MAX_CAPTURES && m->capture[count].name; count++) {
        bindings[count].name = m->capture[count].name;
        bindings[count].dtype = m->capture[count].dtype;
        bindings[count].rank = (int)strlen(m->capture[count].dims);
        for (int d = 0; d < FJ_MAX_RANK; d++) bindings[count].dims[d] = -1;
    }
    const fj_mod_desc desc = {.struct_size = sizeof desc,
                              .score = m->score,
                              .mask = m->mask,
                              .bindings = bindings,
                              .binding_count = count};
    job->ir = fj_ir_optimise(fj_ir_guard(fj_expr_compile(scope, &desc)));
}

fj_ir *mod_compile(fj_arena *arena, const mod *m) {
    compile_job job = {m, NULL};
    fj_error error = {0};
    if (fj_scope_run(arena, &error, compile_body, &job) != FJ_OK) {
        printf("mod %s: %s\n", m->name, error.text);
        exit(1);
    }
    return job.ir;
}
