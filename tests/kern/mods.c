#include <stdlib.h>
#include <string.h>

#include "tests/kern/kern.h"

const mod mods[] = {
    {.name = "none", .exact = true},
    {.name = "causal", .exact = true, .mask = "q >= kv"},
    {.name = "window", .exact = true, .mask = "(q >= kv) & (q - kv < 40)"},
    {.name = "late", .exact = true, .mask = "(q >= 3) & (kv < 70)"}, /* the first rows see nothing */
    {.name = "blind", .exact = true, .mask = "q < 0"},               /* no row sees anything */
    {.name = "gap", .exact = true, .mask = "(kv < 40) | (kv >= 130)"},
    {.name = "keep", .mask = "keep[b, kv]", .capture = {{"keep", "bk", FJ_DTYPE_BOOL}}},
    {.name = "alibi",
     .exact = true,
     .score = "score + slopes[h] * (kv - q)",
     .mask = "q >= kv",
     .capture = {{"slopes", "h", FJ_DTYPE_F32}}},
    {.name = "slope",
     .exact = true,
     .score = "score + slope * (kv - q) * (h + 1)",
     .mask = "q >= kv",
     .definitions = "slope = 0.05\n",
     .scalar = "slope"},
    {.name = "softcap", .exact = true, .score = "tanh(score / 3.0) * 3.0"},
    /* Scores beyond any fraction, all of a row or some, first or late; others just come to have none. */
    {.name = "far",
     .exact = true,
     .large = true,
     .score = "where((kv > 70) & (q % 3 == 1), 5e8, where((q < 7) | (kv % 9 == 4), -1.875 * 2.0 ** 127, "
              "where(q % 3 == 2, where(kv > 70, 11629083.0, 11629076.0), score)))"},
    {.name = "infinite", .exact = true, .score = "where((kv < 5) | (q % 7 == 2), -inf, score)"},
    {.name = "document",
     .score = "score * gain[kv]",
     .mask = "(doc[q] == doc[kv]) & (q >= kv)",
     .capture = {{"gain", "n", FJ_DTYPE_F16}, {"doc", "n", FJ_DTYPE_I32}}},
    {.name = "bias",
     .exact = true,
     .score = "score + bias[h, q, kv]",
     .capture = {{"bias", "hqk", FJ_DTYPE_F32}}},
    {.name = "relative",
     .exact = true,
     .score = "score + table[q - kv + 200] + row[q]",
     .mask = "q + 30 >= kv",
     .capture = {{"table", "n", FJ_DTYPE_F32}, {"row", "n", FJ_DTYPE_BF16}}},
    {.name = "rank0",
     .exact = true,
     .score = "score * gain + gain",
     .capture = {{"gain", "", FJ_DTYPE_BF16}}},
    {.name = "sink",
     .exact = true,
     .mask = "(q >= 3) & (kv < 70)",
     .sink = "logit[h] * 2.0 - 1.0",
     .capture = {{"logit", "h", FJ_DTYPE_F32}}},
    {.name = "gate",
     .exact = true,
     .mask = "q >= kv",
     .out = "out * gate[h, d] + out * out * 0.25 + rest[b, q]",
     .capture = {{"gate", "hd", FJ_DTYPE_F32}, {"rest", "bq", FJ_DTYPE_F16}}},
    /* One tensor, and a scalar, for all of them. */
    {.name = "epilogue",
     .exact = true,
     .score = "score * 0.5 + weight[h] * slope * (kv - q)",
     .mask = "(q + kv) % 7 != 3",
     .out = "out * (d % 3 + 1) - out * weight[h] * slope + weight[h * (q % 2)]",
     .sink = "weight[h] * 3.0 + slope",
     .definitions = "slope = 0.05\n",
     .scalar = "slope",
     .capture = {{"weight", "h", FJ_DTYPE_F32}}},
    {.name = "fault", /* reads past the end, where the mask shows it */
     .exact = true,
     .score = "score + short[kv]",
     .mask = "q >= kv",
     .capture = {{"short", "5", FJ_DTYPE_F32}}},
    {.name = "beyond", /* so do the mods of the output and of the sink */
     .exact = true,
     .mask = "q >= kv",
     .out = "out + short[d]",
     .sink = "short[h * 9]",
     .capture = {{"short", "5", FJ_DTYPE_F32}}},
    {.name = NULL},
};

const mod *mod_find(const char *name) {
    const mod *m = mods;
    while (m->name && strcmp(m->name, name) != 0) m++;
    return m->name ? m : NULL;
}

typedef struct compile_job {
    const mod *m;
    graphs found;
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
                              .source = m->definitions,
                              .source_length = m->definitions ? strlen(m->definitions) : 0,
                              .score = m->score,
                              .mask = m->mask,
                              .out = m->out,
                              .sink = m->sink,
                              .runtime_params = &m->scalar,
                              .runtime_param_count = m->scalar != NULL,
                              .bindings = bindings,
                              .binding_count = count};
    fj_program p;
    fj_expr_build(scope, &desc, &p);
    job->found = (graphs){p.ir, p.gradient, p.out, p.out_gradient, p.sink, p.sink_gradient};
}

/* The table of mods tells captures in the order of the graph. */
static void check_order(const mod *m, const fj_ir *ir) {
    for (size_t i = 0; i < ir->captures.len; i++)
        if (!m->capture[i].name || strcmp(m->capture[i].name, ir->captures.data[i].name) != 0) {
            printf("mod %s: capture %zu is '%s' in the graph\n", m->name, i, ir->captures.data[i].name);
            exit(1);
        }
}

graphs mod_graphs(const mod *m) {
    static graphs compiled[FJ_ARRAY_LEN(mods)];
    static fj_arena arena;
    graphs *found = &compiled[m - mods];
    if (found->ir) return *found;
    if (!arena.allocator) fj_arena_init(&arena, &fj_allocator_libc);
    compile_job job = {.m = m};
    fj_error error = {0};
    if (fj_scope_run(&arena, &error, compile_body, &job) != FJ_OK) {
        printf("mod %s: %s\n", m->name, error.text);
        exit(1);
    }
    check_order(m, job.found.ir);
    return *found = job.found;
}
