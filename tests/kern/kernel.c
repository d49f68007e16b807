#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "jit/space.h"
#include "tests/kern/kern.h"

fj_features target_features(int target) {
    if (!target_is_cpu(target)) return fj_jit_arch_features((fj_arch){target, 0});
    fj_features features = {.arch = {0, 0}};
    features.isa[-target] = true;
    return features;
}

bool kernel_is_cpu(const kernel *k) { return k->variant.target == FJ_TARGET_CPU; }

bool kernel_packs(const kernel *k) { return k->pack || strstr(k->variant.name, "_pack"); }

bool kernel_is_backward(const kernel *k) { return k->problem.kind == FJ_JIT_BACKWARD; }

/* fwd_mma_bf16_e64_v64_m64_n64_s2_w4, then what its variant does not spell, then the mod. */
static void name_kernel(kernel *k) {
    fj_buf name;
    fj_buf_init(&name, &fj_allocator_libc);
    fj_buf_printf(&name, "%s%s%s%s%s%s%s", k->variant.name, k->problem.tf32 ? "_tf32" : "",
                  k->problem.max ? "_max" : "", k->pack ? "_pack" : "", k->table ? "_table" : "",
                  k->hand ? "_hand" : "", k->problem.dropout ? "_dropout" : "");
    if (k->splits > 0 && k->variant.splits == 1) fj_buf_printf(&name, "_split%d", k->splits);
    fj_buf_printf(&name, "_%s", k->mod->name);
    if (name.failed || name.len >= sizeof k->name) abort();
    memcpy(k->name, name.data, name.len + 1);
    fj_buf_finish(&name);
}

void kernel_put_graphs(kernel *k) {
    const graphs g = mod_graphs(k->mod);
    const bool backward = kernel_is_backward(k);
    k->problem.ir = g.ir;
    k->problem.gradient = backward ? g.gradient : NULL;
    k->problem.out = g.out;
    k->problem.out_gradient = backward ? g.out_gradient : NULL;
    k->problem.sink = g.sink;
    k->problem.sink_gradient = backward ? g.sink_gradient : NULL;
}

void kernel_finish(kernel *k) {
    kernel_put_graphs(k);
    if (k->variant.splits != 1) k->splits = k->variant.splits ? k->variant.splits : 3;
    if (k->splits > 0 && k->variant.splits == 1)
        k->variant.entries[k->variant.entry_count++] =
            (fj_entry){.name = "fj_fwd_merge", .threads = 128, .slices = 1};
    name_kernel(k);
}

/* ---- Names to kernels ------------------------------------------------------------------------------ */

/* What the beginning of a name says of the problem; the rest of it is found by looking. */
static bool parse_problem(fj_jit_problem *p, const char *name) {
    char direction[8], template[8], dtype[8];
    int end = 0;
    if (sscanf(name, "%3[a-z]_%4[a-z]_%4[a-z0-9]_%n", direction, template, dtype, &end) != 3) return false;
    p->kind = strcmp(direction, "bwd") == 0 ? FJ_JIT_BACKWARD : FJ_JIT_FORWARD;
    p->deterministic = strncmp(name + end, "atomic_", 7) != 0;
    p->block_mask = strstr(name, "_blocks_") != NULL;
    p->packed = strstr(name, "_varlen_") != NULL;
    p->paged = strstr(name, "_paged_") != NULL;
    p->q_offset = strstr(name, "_offset_") != NULL;
    p->dropout = strstr(name, "_dropout_") != NULL;
    p->few_queries = strstr(name, "_split_") != NULL; /* whose list has these */
    if (!p->deterministic) end += 7;
    if (sscanf(name + end, "e%d_v%d_", &p->head_dim, &p->value_dim) != 2) return false;
    for (int i = 0; i < FJ_DTYPE_COUNT; i++)
        if (strcmp(fj_dtype_code_name((fj_dtype)i), dtype) == 0) return p->dtype = (fj_dtype)i, true;
    return false;
}

static bool parse_word(kernel *k, const char *word) {
    struct {
        const char *name;
        bool *flag;
    } const flags[] = {{"tf32", &k->problem.tf32}, {"max", &k->problem.max},
                       {"pack", &k->pack},         {"table", &k->table},
                       {"hand", &k->hand},         {"dropout", &k->problem.dropout}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(flags); i++)
        if (strcmp(flags[i].name, word) == 0) return *flags[i].flag = true;
    return sscanf(word, "split%d", &k->splits) == 1;
}

/* A variant's name but for what follows from the mod: a name in a table of tests may leave that out. */
static size_t chosen_length(const char *name) {
    static const char *const spelled[] = {"_t2", "_t4", "_t8", "_one", "_roll", "_u4"};
    size_t length = strlen(name);
    for (size_t i = 0; i < FJ_ARRAY_LEN(spelled); i++) {
        const char *at = strstr(name, spelled[i]);
        if (at && (size_t)(at - name) < length) length = (size_t)(at - name);
    }
    return length;
}

/* The same for one that no list has: the longest beginning that is a name. */
static size_t find_in_space(kernel *k, const char *name, const fj_features *features) {
    char text[FJ_JIT_VARIANT_NAME];
    for (size_t length = strlen(name); length > 0; length--) {
        if (name[length] != '_' || length >= sizeof text) continue;
        (void)snprintf(text, sizeof text, "%.*s", (int)length, name);
        if (fj_jit_find_variant(&k->problem, features, text, &k->variant)) return length;
    }
    return 0;
}

/* The variant whose name is the longest beginning of this one; returns how much of it that is, 0: there is none. */
static size_t find_variant(kernel *k, const char *name, const int *targets, int target_count) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    size_t longest = 0;
    for (int a = 0; a < target_count; a++) {
        const fj_features features = target_features(targets[a]);
        const int count = fj_jit_variants(&k->problem, &features, list);
        for (int i = 0; i < count; i++) {
            const size_t lengths[] = {chosen_length(list[i].name), strlen(list[i].name)};
            for (int n = 0; n < 2; n++) {
                if (lengths[n] <= longest || strncmp(list[i].name, name, lengths[n]) != 0 ||
                    name[lengths[n]] != '_')
                    continue;
                longest = lengths[n];
                k->variant = list[i];
            }
        }
    }
    for (int a = 0; longest == 0 && a < target_count; a++) {
        const fj_features features = target_features(targets[a]);
        longest = find_in_space(k, name, &features);
    }
    return longest;
}

bool kernel_parse(kernel *k, const char *name, const int *targets, int target_count) {
    char words[128];
    const char *last = strrchr(name, '_');
    *k = (kernel){.mod = last ? mod_find(last + 1) : NULL};
    if (!k->mod || !parse_problem(&k->problem, name)) return false;
    kernel_put_graphs(k);
    const size_t length = find_variant(k, name, targets, target_count);
    if (length == 0) return false;
    const char *rest = name + length;
    (void)snprintf(words, sizeof words, "%.*s", (int)(last - rest), rest);
    for (char *word = strtok(words, "_"); word; word = strtok(NULL, "_"))
        if (!parse_word(k, word)) return false;
    kernel_finish(k);
    return strcmp(k->name + strlen(k->variant.name), rest) == 0;
}

/* ---- Text ------------------------------------------------------------------------------------------------ */

bool text_replace(fj_buf *text, const char *from, const char *to) {
    char *at = strstr(text->data, from);
    if (!at) return false;
    const size_t before = (size_t)(at - text->data);
    fj_buf all;
    fj_buf_init(&all, text->allocator);
    fj_buf_write(&all, text->data, before);
    fj_buf_put(&all, to);
    int lost = 0;
    for (const char *c = from; *c; c++) lost += *c == '\n';
    for (const char *c = to; *c; c++) lost -= *c == '\n';
    while (lost-- > 0) fj_buf_put(&all, "\n");
    fj_buf_put(&all, at + strlen(from));
    fj_buf_finish(text);
    *text = all;
    return true;
}

/* Says it before the text, or in place of what that says. */
static void set_constant(fj_buf *text, const char *name, int value) {
    char said[64], wanted[64];
    (void)snprintf(said, sizeof said, "#define FJ_%s 0\n", name);
    (void)snprintf(wanted, sizeof wanted, "#define FJ_%s %d\n", name, value);
    char *at = strstr(text->data, said);
    if (at) {
        memcpy(at, wanted, strlen(said));
        return;
    }
    fj_buf all;
    fj_buf_init(&all, text->allocator);
    fj_buf_put(&all, wanted);
    fj_buf_write(&all, text->data, text->len);
    fj_buf_finish(text);
    *text = all;
}

int kernel_chunks;

static void set_chunks(fj_buf *text) {
    char wanted[40];
    (void)snprintf(wanted, sizeof wanted, "#define FJ_MOD_CHUNKS %d\n", kernel_chunks);
    if (kernel_chunks > 0) (void)text_replace(text, "#define FJ_MOD_CHUNKS 1\n", wanted);
}

/* Those of hand.c in place of those that were emitted. */
static void replace_hooks(const kernel *k, fj_str hooks, fj_buf *text) {
    const size_t from = (size_t)(hooks.data - text->data), to = from + hooks.len;
    fj_buf all;
    fj_buf_init(&all, text->allocator);
    fj_buf_write(&all, text->data, from);
    (void)hand_hooks(k, &all);
    fj_buf_write(&all, text->data + to, text->len - to);
    fj_buf_finish(text);
    *text = all;
}

bool kernel_render(const kernel *k, const plant *planted, fj_buf *text, FILE *out) {
    const struct {
        const char *name;
        int value;
    } constants[] = {{"PACK_HEADS", k->pack}, {"POSITION_TABLE", k->table}, {"PARTIAL", k->splits > 0}};
    fj_rendered rendered;
    fj_error error = {0};
    if (fj_jit_render(&k->problem, &k->variant, &fj_allocator_libc, text, &rendered, &error) != FJ_OK) {
        (void)fprintf(out, "    %s\n", error.text);
        return false;
    }
    if (k->hand) replace_hooks(k, rendered.hooks, text);
    for (size_t i = 0; i < FJ_ARRAY_LEN(constants); i++)
        if (constants[i].value) set_constant(text, constants[i].name, constants[i].value);
    set_chunks(text);
    if (planted && !plant_apply(planted, text)) {
        (void)fprintf(out, "    the text to replace is not there\n");
        return false;
    }
    return !text->failed;
}
