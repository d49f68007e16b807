#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "templates/cuda/shapes.h"
#include "tests/kern_cuda/bwd.h"

/* ---- Mods ------------------------------------------------------------------------------------------ */

static const bwd_mod mods_bwd[] = {
    {.name = "none", .exact = true},
    {.name = "causal", .exact = true, .mask = "q >= kv"},
    {.name = "window", .exact = true, .mask = "(q >= kv) & (q - kv < 40)"},
    {.name = "late", .exact = true, .mask = "(q >= 3) & (kv < 70)"}, /* first rows see nothing */
    {.name = "softcap", .exact = true, .score = "tanh(score / 3.0) * 3.0"},
    {.name = "infinite", .exact = true, .score = "where(kv < 5, -inf, score)"},
    {.name = "alibi",
     .exact = true,
     .score = "score + slope * (kv - q) * (h + 1)",
     .mask = "q >= kv",
     .source = "slope = 0.05\n",
     .scalar = "slope"},
    {.name = "head", .exact = true, .score = "score * gain[h]", .capture = {{"gain", "h", FJ_DTYPE_F32}}},
    {.name = "bias", .score = "score + bias[h, q, kv]", .capture = {{"bias", "hqk", FJ_DTYPE_F32}}},
    {.name = "relative",
     .score = "score + table[q - kv + 200] + row[q]",
     .mask = "q + 30 >= kv",
     .capture = {{"table", "n", FJ_DTYPE_F32}, {"row", "n", FJ_DTYPE_BF16}}},
    {.name = "document",
     .score = "score * gain[kv]",
     .mask = "(doc[q] == doc[kv]) & (q >= kv)",
     .capture = {{"gain", "n", FJ_DTYPE_F16}, {"doc", "n", FJ_DTYPE_I32}}},
    {.name = NULL},
};

const bwd_mod *bwd_mod_find(const char *name) {
    const bwd_mod *m = mods_bwd;
    while (m->name && strcmp(m->name, name) != 0) m++;
    return m->name ? m : NULL;
}

typedef struct compile_job {
    const bwd_mod *m;
    bwd_graphs graphs;
} compile_job;

static void compile_body(fj_scope *scope, void *argument) {
    compile_job *job = argument;
    const bwd_mod *m = job->m;
    fj_binding bindings[MAX_CAPTURES] = {0};
    size_t count = 0;
    for (; count < MAX_CAPTURES && m->capture[count].name; count++) {
        bindings[count].name = m->capture[count].name;
        bindings[count].dtype = m->capture[count].dtype;
        bindings[count].rank = (int)strlen(m->capture[count].dims);
        for (int d = 0; d < FJ_MAX_RANK; d++) bindings[count].dims[d] = -1;
    }
    const fj_mod_desc desc = {.struct_size = sizeof desc,
                              .source = m->source,
                              .source_length = m->source ? strlen(m->source) : 0,
                              .score = m->score,
                              .mask = m->mask,
                              .runtime_params = &m->scalar,
                              .runtime_param_count = m->scalar != NULL,
                              .bindings = bindings,
                              .binding_count = count};
    job->graphs.ir = fj_ir_optimise(fj_ir_guard(fj_ir_optimise(fj_expr_compile(scope, &desc))));
    job->graphs.gradient = fj_ir_optimise(fj_ir_gradient(job->graphs.ir));
}

bwd_graphs bwd_mod_compile(fj_arena *arena, const bwd_mod *m) {
    compile_job job = {m, {NULL, NULL}};
    fj_error error = {0};
    if (fj_scope_run(arena, &error, compile_body, &job) != FJ_OK) {
        printf("mod %s: %s\n", m->name, error.text);
        exit(1);
    }
    return job.graphs;
}

/* ---- Variants ---------------------------------------------------------------------------------------- */

static bool is_mma(const bwd_variant *v) { return strcmp(v->template, "mma") == 0; }

void bwd_variant_name(const bwd_variant *v, char name[128]) {
    (void)snprintf(name, 128, "bwd_%s_%s%s_e%d_v%d_m%d_n%d_s%d_w%d_%s", v->template,
                   fj_dtype_code_name(v->dtype), v->atomic ? "_atomic" : "", v->e, v->v, v->m, v->n,
                   v->stages, v->warps, v->mod);
}

int bwd_variant_shared(const bwd_variant *v) {
    if (is_mma(v))
        return FJ_BWD_MMA_SHARED(v->m, v->n, FJ_MMA_PAD(v->e), FJ_MMA_PAD(v->v), v->stages, v->warps,
                                 v->atomic);
    return FJ_BWD_SIMT_SHARED(v->m, v->n, v->dtype == FJ_DTYPE_F64 ? 8 : 4);
}

/* ---- Text: files, each once ---------------------------------------------------------------------------- */

typedef struct files {
    const char *root; /* the folder templates/ */
    fj_buf *out;
    char seen[32][64];
    int count;
} files;

static void put_file(files *f, const char *name) {
    for (int i = 0; i < f->count; i++)
        if (strcmp(f->seen[i], name) == 0) return;
    (void)snprintf(f->seen[f->count++], sizeof f->seen[0], "%s", name);
    char path[1024], line[1024], included[64];
    (void)snprintf(path, sizeof path, "%s/%s", f->root, name);
    FILE *file = fopen(path, "r");
    if (!file) {
        printf("%s: cannot be read\n", path);
        exit(1);
    }
    fj_buf_printf(f->out, "#line 1 \"%s\"\n", path);
    for (int number = 1; fgets(line, sizeof line, file); number++) {
        if (sscanf(line, " # include \"%63[^\"]\"", included) != 1) {
            fj_buf_put(f->out, line);
            continue;
        }
        char next[128];
        if (strncmp(included, "../", 3) == 0)
            (void)snprintf(next, sizeof next, "%s", included + 3);
        else
            (void)snprintf(next, sizeof next, "cuda/%s", included);
        put_file(f, next);
        fj_buf_printf(f->out, "#line %d \"%s\"\n", number + 1, path);
    }
    (void)fclose(file);
}

void bwd_render(const bwd_variant *v, const bwd_graphs *graphs, const char *root, fj_buf *out) {
    static const struct {
        fj_dtype dtype;
        const char *name;
    } dtypes[] = {
        {FJ_DTYPE_F16, "F16"}, {FJ_DTYPE_BF16, "BF16"}, {FJ_DTYPE_F32, "F32"}, {FJ_DTYPE_F64, "F64"}};
    files f = {.root = root, .out = out};
    for (int i = 0; i < 4; i++) fj_buf_printf(out, "#define FJ_DTYPE_%s %d\n", dtypes[i].name, i + 1);
    for (int i = 0; i < 4; i++)
        if (dtypes[i].dtype == v->dtype)
            fj_buf_printf(out, "#define FJ_IN_DTYPE FJ_DTYPE_%s\n", dtypes[i].name);
    const struct {
        const char *name;
        int value;
    } constants[] = {
        {"REAL_F64", v->dtype == FJ_DTYPE_F64},
        {"HEAD_DIM", v->e},
        {"VALUE_DIM", v->v},
        {"HEAD_PAD", is_mma(v) ? FJ_MMA_PAD(v->e) : v->e},
        {"VALUE_PAD", is_mma(v) ? FJ_MMA_PAD(v->v) : v->v},
        {"DETERMINISTIC", !v->atomic},
        {"TILE_Q", v->m},
        {"TILE_KV", v->n},
        {"STAGES", v->stages},
        {"WARPS", v->warps},
        {"SHARED_BYTES", bwd_variant_shared(v)},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(constants); i++)
        fj_buf_printf(out, "#define FJ_%s %d\n", constants[i].name, constants[i].value);
    put_file(&f, "cuda/hooks.h");
    fj_buf_put(out, "#line 1 \"hooks\"\n");
    if (graphs->ir->score || graphs->ir->mask) fj_ir_emit(graphs->ir, graphs->gradient, FJ_EMIT_CUDA, out);
    char name[64];
    (void)snprintf(name, sizeof name, "cuda/bwd_%s.cu", v->template);
    put_file(&f, name);
}
