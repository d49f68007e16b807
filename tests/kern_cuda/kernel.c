#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "tests/kern_cuda/kern.h"

bool kernel_is_backward(const kernel *k) { return k->problem.kind == FJ_JIT_BACKWARD; }

/* fwd_mma_bf16_e64_v64_m64_n64_s2_w4, then what its variant does not spell, then the mod. */
static void name_kernel(kernel *k) {
    fj_buf name;
    fj_buf_init(&name, &fj_allocator_libc);
    fj_buf_printf(&name, "%s%s%s%s%s%s", k->variant.name, k->problem.tf32 ? "_tf32" : "",
                  k->problem.max ? "_max" : "", k->problem.dlse ? "_dlse" : "", k->pack ? "_pack" : "",
                  k->table ? "_table" : "");
    if (k->splits > 1) fj_buf_printf(&name, "_split%d", k->splits);
    fj_buf_printf(&name, "_%s", k->mod->name);
    if (name.failed || name.len >= sizeof k->name) abort();
    memcpy(k->name, name.data, name.len + 1);
    fj_buf_finish(&name);
}

void kernel_finish(kernel *k) {
    const graphs g = mod_graphs(k->mod);
    k->problem.ir = g.ir;
    k->problem.gradient = kernel_is_backward(k) ? g.gradient : NULL;
    name_kernel(k);
}

/* ---- Names to kernels ------------------------------------------------------------------------------ */

static bool parse_variant(kernel *k, const char *name, char variant[64], const char **ret_rest) {
    char direction[8], template[8], dtype[8];
    int e, v, m, n, s, w, end = 0;
    bool atomic = false;
    if (sscanf(name, "%3[a-z]_%4[a-z]_%4[a-z0-9]_e%d_v%d_m%d_n%d_s%d_w%d%n", direction, template, dtype, &e,
               &v, &m, &n, &s, &w, &end) != 9) {
        if (sscanf(name, "%3[a-z]_%4[a-z]_%4[a-z0-9]_atomic_e%d_v%d_m%d_n%d_s%d_w%d%n", direction, template,
                   dtype, &e, &v, &m, &n, &s, &w, &end) != 9)
            return false;
        atomic = true;
    }
    if (end >= 64) return false;
    (void)snprintf(variant, 64, "%.*s", end, name);
    *ret_rest = name + end;
    k->problem.kind = strcmp(direction, "bwd") == 0 ? FJ_JIT_BACKWARD : FJ_JIT_FORWARD;
    k->problem.deterministic = !atomic;
    k->problem.head_dim = e;
    k->problem.value_dim = v;
    for (int i = 0; i < FJ_DTYPE_COUNT; i++)
        if (strcmp(fj_dtype_code_name((fj_dtype)i), dtype) == 0) return k->problem.dtype = (fj_dtype)i, true;
    return false;
}

static bool parse_word(kernel *k, const char *word) {
    struct {
        const char *name;
        bool *flag;
    } const flags[] = {{"tf32", &k->problem.tf32},
                       {"max", &k->problem.max},
                       {"dlse", &k->problem.dlse},
                       {"pack", &k->pack},
                       {"table", &k->table}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(flags); i++)
        if (strcmp(flags[i].name, word) == 0) return *flags[i].flag = true;
    if (sscanf(word, "split%d", &k->splits) == 1) return true;
    return (k->mod = mod_find(word)) != NULL;
}

static bool find_variant(kernel *k, const char *name, const int *archs, int arch_count) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    for (int a = 0; a < arch_count; a++) {
        const fj_features features = fj_jit_arch_features((fj_arch){archs[a], 0});
        const int count = fj_jit_cuda_variants(&k->problem, &features, list);
        for (int i = 0; i < count; i++)
            if (strcmp(list[i].name, name) == 0) return k->variant = list[i], true;
    }
    return false;
}

bool kernel_parse(kernel *k, const char *name, const int *archs, int arch_count) {
    char variant[64], words[128];
    const char *rest;
    *k = (kernel){.splits = 1};
    if (!parse_variant(k, name, variant, &rest)) return false;
    (void)snprintf(words, sizeof words, "%s", rest);
    for (char *word = strtok(words, "_"); word; word = strtok(NULL, "_"))
        if (!parse_word(k, word)) return false;
    if (!k->mod) return false;
    const graphs g = mod_graphs(k->mod); /* the last pass of backward depends on them */
    k->problem.ir = g.ir;
    k->problem.gradient = kernel_is_backward(k) ? g.gradient : NULL;
    if (!find_variant(k, variant, archs, arch_count)) return false;
    kernel_finish(k);
    return true;
}

/* ---- Text ------------------------------------------------------------------------------------------------ */

bool kernel_render(const kernel *k, const plant *planted, fj_buf *text) {
    const struct {
        const char *name;
        int value;
    } constants[] = {{"PACK_HEADS", k->pack}, {"POSITION_TABLE", k->table}, {"PARTIAL", k->splits > 1}};
    fj_rendered rendered;
    fj_error error = {0};
    fj_buf users;
    fj_buf_init(&users, &fj_allocator_libc);
    if (fj_jit_render(&k->problem, &k->variant, &fj_allocator_libc, &users, &rendered, &error) != FJ_OK) {
        printf("    %s\n", error.text);
        return false;
    }
    for (size_t i = 0; i < FJ_ARRAY_LEN(constants); i++)
        if (constants[i].value)
            fj_buf_printf(text, "#define FJ_%s %d\n", constants[i].name, constants[i].value);
    fj_buf_write(text, users.data, users.len);
    fj_buf_finish(&users);
    if (planted && !plant_apply(planted, text)) {
        printf("    the text to replace is not there\n");
        return false;
    }
    return !text->failed;
}
