/* The space by walking it: of each axis the values that come into question, in all combinations; variant.c says which are
 * legal. Some tens of thousands, of which all but a few thousand fail at their tiles. */
#include "jit/space.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    bool of_cpu, of_gpu;
    int candidates[FJ_AXIS_VALUES]; /* of those that have it; up to the first -1 */
} axes[] = {
    [FJ_AXIS_KERNEL] = {"kernel", false, true, {0, 1, -1}},
    [FJ_AXIS_TILE_Q] = {"tile_q", true, true, {16, 32, 48, 64, 96, 128, 144, 192, 240, 256, -1}},
    [FJ_AXIS_TILE_KV] = {"tile_kv", true, true, {16,  32,  48,  64,  96,  128, 192, 256, 320,  384, 448,
                                                 512, 576, 640, 704, 768, 832, 896, 960, 1024, -1}},
    [FJ_AXIS_ISA] = {"isa", true, false, {3, 2, 1, 0, -1}},
    [FJ_AXIS_STAGES] = {"stages", false, true, {1, 2, 3, 4, -1}},
    [FJ_AXIS_WARPS] = {"warps", false, true, {1, 2, 4, 8, 16, -1}},
    [FJ_AXIS_SPLITS] = {"splits", true, true, {1, 0, 2, 4, 8, 16, 32, 64, -1}},
    [FJ_AXIS_PACK] = {"pack", false, true, {0, 1, -1}},
    [FJ_AXIS_DIRECT] = {"direct", true, false, {0, 1, -1}},
    [FJ_AXIS_WIDE] = {"wide", false, true, {0, 1, -1}},
    [FJ_AXIS_MOD_CHUNKS] = {"mod_chunks", false, true, {1, 2, 4, 8, -1}},
    [FJ_AXIS_MASK_UNROLL] = {"mask_unroll", false, true, {1, 2, 4, -1}},
    [FJ_AXIS_ONE_COPY] = {"one_copy", false, true, {0, 1, -1}},
};
_Static_assert(FJ_ARRAY_LEN(axes) == FJ_AXIS_COUNT, "a row for each");
_Static_assert(FJ_ISA_COUNT == 4, "the candidates of isa");

const char *fj_jit_axis_name(fj_axis axis) { return axes[axis].name; }

fj_axis fj_jit_axis_find(const char *name) {
    int axis = 0;
    while (axis < FJ_AXIS_COUNT && strcmp(axes[axis].name, name) != 0) axis++;
    return (fj_axis)axis;
}

bool fj_jit_has_axis(const fj_features *features, fj_axis axis) {
    return features->arch.number ? axes[axis].of_gpu : axes[axis].of_cpu;
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
        [FJ_AXIS_SPLITS] = v->splits,
        [FJ_AXIS_PACK] = v->pack_heads,
        [FJ_AXIS_DIRECT] = v->direct,
        [FJ_AXIS_WIDE] = v->wide_captures,
        [FJ_AXIS_MOD_CHUNKS] = v->mod_chunks,
        [FJ_AXIS_MASK_UNROLL] = v->mask_unroll,
        [FJ_AXIS_ONE_COPY] = v->one_copy,
    }};
}

/* ---- Walking ---------------------------------------------------------------------------------------------- */

typedef struct walk {
    const fj_jit_problem *problem;
    const fj_features *features;
    const fj_values *wanted;
    bool (*visit)(void *user, const fj_variant *variant);
    void *user;
    fj_values at;
} walk;

/* Whether nothing is legal at these values, however it is unrolled. */
static bool is_empty(const walk *w) {
    fj_values values = w->at;
    fj_variant variant;
    for (int axis = FJ_AXIS_MOD_CHUNKS; axis < FJ_AXIS_COUNT; axis++)
        if (fj_jit_has_axis(w->features, (fj_axis)axis)) values.of[axis] = FJ_VALUE_PLAN;
    return !fj_jit_make_variant(w->problem, w->features, &values, &variant);
}

/* False: it is to end. */
static bool step(walk *w, int axis) {
    if (axis == FJ_AXIS_MOD_CHUNKS && is_empty(w)) return true;
    if (axis == FJ_AXIS_COUNT) {
        fj_variant variant;
        return !fj_jit_make_variant(w->problem, w->features, &w->at, &variant) || w->visit(w->user, &variant);
    }
    const int wanted = w->wanted->of[axis];
    if (wanted != FJ_VALUE_ANY || !fj_jit_has_axis(w->features, (fj_axis)axis)) {
        w->at.of[axis] = wanted == FJ_VALUE_ANY ? 0 : wanted;
        return step(w, axis + 1);
    }
    for (const int *value = axes[axis].candidates; *value >= 0; value++) {
        w->at.of[axis] = *value;
        if (!step(w, axis + 1)) return false;
    }
    return true;
}

void fj_jit_visit_variants(const fj_jit_problem *problem, const fj_features *features,
                           const fj_values *wanted, bool (*visit)(void *user, const fj_variant *variant),
                           void *user) {
    walk w = {.problem = problem, .features = features, .wanted = wanted, .visit = visit, .user = user};
    (void)step(&w, 0);
}

/* What nobody asks for is as the plan has it. */
static fj_values with_plan(const fj_values *wanted) {
    fj_values values = *wanted;
    for (int axis = FJ_AXIS_WIDE; axis < FJ_AXIS_COUNT; axis++)
        if (values.of[axis] == FJ_VALUE_ANY) values.of[axis] = FJ_VALUE_PLAN;
    return values;
}

/* ---- Legal values ------------------------------------------------------------------------------------------- */

typedef struct collection {
    fj_axis axis;
    int values[FJ_AXIS_VALUES], count;
} collection;

static bool collect(void *user, const fj_variant *variant) {
    collection *c = user;
    const int value = fj_jit_values_of(variant).of[c->axis];
    int at = 0;
    while (at < c->count && c->values[at] < value) at++;
    if ((at < c->count && c->values[at] == value) || c->count == FJ_AXIS_VALUES) return true;
    memmove(c->values + at + 1, c->values + at, sizeof *c->values * (size_t)(c->count - at));
    c->values[at] = value;
    c->count++;
    return true;
}

int fj_jit_legal_values(const fj_jit_problem *problem, const fj_features *features, const fj_values *wanted,
                        fj_axis axis, int ret_values[FJ_AXIS_VALUES]) {
    collection c = {.axis = axis};
    fj_values all = with_plan(wanted);
    all.of[axis] = FJ_VALUE_ANY;
    fj_jit_visit_variants(problem, features, &all, collect, &c);
    memcpy(ret_values, c.values, sizeof c.values);
    return c.count;
}

/* ---- The nearest ---------------------------------------------------------------------------------------------- */

typedef struct nearest {
    fj_values to;
    fj_variant *best;
    int distance; /* INT_MAX: none yet */
} nearest;

/* Twice the steps by which sizes differ, of half a power of two. */
static int ratio(int a, int b) {
    int steps = 0;
    for (int least = a < b ? a : b, most = a < b ? b : a; least > 0 && 2 * most > 3 * least; most /= 2)
        steps += 2;
    return steps + (a != b);
}

static bool compare(void *user, const fj_variant *variant) {
    nearest *n = user;
    const fj_values values = fj_jit_values_of(variant);
    const int *a = values.of, *b = n->to.of;
    const int kind = (a[FJ_AXIS_KERNEL] != b[FJ_AXIS_KERNEL]) + (a[FJ_AXIS_PACK] != b[FJ_AXIS_PACK]) +
                     (a[FJ_AXIS_DIRECT] != b[FJ_AXIS_DIRECT]) + (a[FJ_AXIS_SPLITS] != b[FJ_AXIS_SPLITS]) +
                     (a[FJ_AXIS_WIDE] != b[FJ_AXIS_WIDE]) + abs(a[FJ_AXIS_ISA] - b[FJ_AXIS_ISA]);
    const int distance = 1000 * kind + 4 * ratio(a[FJ_AXIS_TILE_Q], b[FJ_AXIS_TILE_Q]) +
                         4 * ratio(a[FJ_AXIS_TILE_KV], b[FJ_AXIS_TILE_KV]) +
                         3 * ratio(a[FJ_AXIS_WARPS], b[FJ_AXIS_WARPS]) +
                         2 * abs(a[FJ_AXIS_STAGES] - b[FJ_AXIS_STAGES]);
    if (distance >= n->distance) return true;
    n->distance = distance;
    *n->best = *variant;
    return true;
}

bool fj_jit_nearest_variant(const fj_jit_problem *problem, const fj_features *features,
                            const fj_values *wanted, const fj_variant *to, fj_variant *ret_variant) {
    fj_variant best;
    nearest n = {.to = fj_jit_values_of(to), .best = &best, .distance = INT32_MAX};
    const fj_values all = with_plan(wanted);
    fj_jit_visit_variants(problem, features, &all, compare, &n);
    if (n.distance == INT32_MAX) return false;
    *ret_variant = best;
    return true;
}

/* ---- Names ------------------------------------------------------------------------------------------------------ */

/* One word of a name: a number behind a letter, or what stands for itself. Others are the problem's. */
static void read_word(const char *word, fj_values *values) {
    static const struct {
        const char *word;
        fj_axis axis;
        int value;
    } words[] = {
        {"mma", FJ_AXIS_KERNEL, 1},    {"pack", FJ_AXIS_PACK, 1},    {"wide", FJ_AXIS_WIDE, 1},
        {"direct", FJ_AXIS_DIRECT, 1}, {"one", FJ_AXIS_ONE_COPY, 1}, {"roll", FJ_AXIS_MASK_UNROLL, 1},
        {"split", FJ_AXIS_SPLITS, 0},
    };
    static const struct {
        char letter;
        fj_axis axis;
    } letters[] = {
        {'m', FJ_AXIS_TILE_Q}, {'n', FJ_AXIS_TILE_KV},    {'s', FJ_AXIS_STAGES},
        {'w', FJ_AXIS_WARPS},  {'t', FJ_AXIS_MOD_CHUNKS}, {'u', FJ_AXIS_MASK_UNROLL},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(words); i++)
        if (strcmp(word, words[i].word) == 0) values->of[words[i].axis] = words[i].value;
    for (int isa = 0; isa < FJ_ISA_COUNT; isa++)
        if (strcmp(word, fj_jit_isa_name((fj_isa)isa)) == 0) values->of[FJ_AXIS_ISA] = isa;
    if (strncmp(word, "split", 5) == 0 && word[5]) values->of[FJ_AXIS_SPLITS] = atoi(word + 5);
    const size_t digits = strspn(word + 1, "0123456789");
    if (digits == 0 || digits > 4 || word[1 + digits]) return;
    for (size_t i = 0; i < FJ_ARRAY_LEN(letters); i++)
        if (word[0] == letters[i].letter) values->of[letters[i].axis] = atoi(word + 1);
}

bool fj_jit_find_variant(const fj_jit_problem *problem, const fj_features *features, const char *name,
                         fj_variant *ret_variant) {
    char text[FJ_JIT_VARIANT_NAME], *rest = text;
    const bool gpu = features->arch.number != 0;
    fj_values values = {{[FJ_AXIS_SPLITS] = 1, [FJ_AXIS_MOD_CHUNKS] = gpu, [FJ_AXIS_MASK_UNROLL] = 2 * gpu}};
    fj_variant variant;
    if (strlen(name) >= sizeof text) return false;
    (void)snprintf(text, sizeof text, "%s", name);
    for (const char *word; (word = strsep(&rest, "_"));)
        if (*word) read_word(word, &values);
    if (!fj_jit_make_variant(problem, features, &values, &variant) || strcmp(variant.name, name) != 0)
        return false;
    *ret_variant = variant;
    return true;
}
