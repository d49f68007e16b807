#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "templates/cuda/shapes.h"
#include "tests/kern_cuda/kern_cuda.h"

static bool is_mma(const variant *v) { return strcmp(v->template, "mma") == 0; }

void variant_name(const variant *v, char name[128]) {
    (void)snprintf(name, 128, "fwd_%s_%s_e%d_v%d_m%d_n%d_s%d_w%d%s%s_%s", v->template,
                   fj_dtype_code_name(v->dtype), v->e, v->v, v->m, v->n, v->stages, v->warps,
                   v->pack ? "_pack" : "", v->partial ? "_partial" : "", v->mod);
}

bool variant_has_max(const variant *v) { return !is_mma(v) || v->e % 64 != 0; }

int variant_shared(const variant *v) {
    const int e = FJ_MMA_PAD(v->e), w = FJ_MMA_PAD(v->v);
    if (is_mma(v)) return FJ_FWD_MMA_SHARED(v->m, v->n, e, w, v->stages) * (v->dtype == FJ_DTYPE_F32 ? 2 : 1);
    return FJ_FWD_SIMT_SHARED(v->m, v->n, v->e, v->v, v->dtype == FJ_DTYPE_F64 ? 8 : 4);
}

/* ---- Files, each once ------------------------------------------------------------------------- */

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

/* ---- The whole ---------------------------------------------------------------------------------- */

void render(const variant *v, const fj_ir *ir, const char *root, fj_buf *out) {
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
        {"WANT_MAX", variant_has_max(v)},
        {"TILE_Q", v->m},
        {"TILE_KV", v->n},
        {"STAGES", v->stages},
        {"WARPS", v->warps},
        {"PACK_HEADS", v->pack},
        {"PARTIAL", v->partial},
        {"POSITION_TABLE", mod_find(v->mod)->table != NULL},
        {"SHARED_BYTES", variant_shared(v)},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(constants); i++)
        fj_buf_printf(out, "#define FJ_%s %d\n", constants[i].name, constants[i].value);
    put_file(&f, "cuda/hooks.h");
    fj_buf_put(out, "#line 1 \"hooks\"\n");
    if (ir->score || ir->mask) fj_ir_emit(ir, NULL, FJ_EMIT_CUDA, out);
    char name[64];
    (void)snprintf(name, sizeof name, "cuda/fwd_%s.cu", v->template);
    put_file(&f, name);
}
