/* The table of tests: every variant that the plan lists for the targets, each with a mod, dimensions and options,
 * and shapes, so drawn from a seed that pairs of values meet: of many candidates the one is taken that brings most
 * pairs that no test has had yet (Cohen et al., The AETG System, 1997). */
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "templates/cuda/shapes.h"
#include "tests/kern/kern.h"

/* ---- Pairs ------------------------------------------------------------------------------------------------- */

enum { AXES = 10, VALUES = 40 };

typedef struct pairs {
    bool seen[AXES][VALUES][AXES][VALUES];
} pairs;

static int pairs_new(pairs *p, const int values[AXES], bool take) {
    int found = 0;
    for (int a = 0; a < AXES; a++)
        for (int b = a; b < AXES; b++) { /* b = a: the value itself */
            bool *seen = &p->seen[a][values[a]][b][values[b]];
            found += *seen ? 0 : a == b ? 4 : 1;
            if (take) *seen = true;
        }
    return found;
}

/* ---- Variants ---------------------------------------------------------------------------------------------------- */

/* What of a variant does not follow from the dimensions. */
typedef struct row {
    fj_jit_kind kind;
    fj_dtype dtype;
    fj_isa isa;
    bool deterministic, mma, pack;
    int m, n, stages, warps;
} row;

static const fj_dtype dtypes[] = {FJ_DTYPE_BF16, FJ_DTYPE_F16, FJ_DTYPE_F32, FJ_DTYPE_F64};
static const int dims[] = {64, 8, 40, 72, 100, 16, 128, 33, 20, 1, 96, 136, 17, 192, 256, 80, 155, 200};
typedef struct extra {
    bool max, pack, table, tf32, hand, blocks, offset, dropout;
    int splits;
    fj_form form;
} extra;
static const extra gpu_extras[] = {{.max = false},
                                   {.max = true},
                                   {.pack = true},
                                   {.table = true},
                                   {.tf32 = true},
                                   {.max = true, .pack = true, .table = true},
                                   {.pack = true, .splits = 1},
                                   {.splits = 3},
                                   {.max = true, .table = true, .splits = 7},
                                   {.max = true, .splits = 40},
                                   {.blocks = true},
                                   {.blocks = true, .max = true},
                                   {.blocks = true, .pack = true},
                                   {.blocks = true, .table = true, .splits = 3},
                                   {.blocks = true, .splits = 5},
                                   {.form = FJ_FORM_PACKED, .max = true, .splits = 3},
                                   {.form = FJ_FORM_PAGED, .splits = 3},
                                   {.offset = true, .splits = 4},
                                   {.form = FJ_FORM_PACKED},
                                   {.form = FJ_FORM_PACKED, .pack = true, .max = true},
                                   {.form = FJ_FORM_PAGED, .max = true},
                                   {.form = FJ_FORM_PAGED, .pack = true},
                                   {.form = FJ_FORM_PAGED, .blocks = true},
                                   {.offset = true},
                                   {.dropout = true},
                                   {.dropout = true, .pack = true, .max = true},
                                   {.dropout = true, .table = true, .splits = 3},
                                   {.dropout = true, .blocks = true},
                                   {.dropout = true, .form = FJ_FORM_PACKED},
                                   {.dropout = true, .offset = true}};
static const extra cpu_extras[] = {{.max = false},    {.hand = true},
                                   {.max = true},     {.max = true, .hand = true},
                                   {.blocks = true},  {.blocks = true, .max = true},
                                   {.dropout = true}, {.dropout = true, .blocks = true, .max = true}};

enum { DTYPES = FJ_ARRAY_LEN(dtypes), DIMS = FJ_ARRAY_LEN(dims), MOST_ROWS = 256 };

static int mod_count(void) {
    int count = 0;
    while (mods[count].name) count++;
    return count;
}

/* For few queries: packed on a GPU, reading keys where they lie on the cpu. */
static bool is_packed(const fj_variant *v) { return v->pack_heads || v->direct; }

static bool row_is(const row *r, const fj_jit_problem *p, const fj_variant *v) {
    return r->kind == p->kind && r->dtype == p->dtype && r->isa == v->isa &&
           r->deterministic == p->deterministic && r->mma == v->mma && r->pack == is_packed(v) &&
           r->m == v->tile_m && r->n == v->tile_n && r->stages == v->stages && r->warps == v->warps;
}

static int add_rows(row *rows, int count, const fj_jit_problem *p, const fj_features *features) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    const int listed = fj_jit_variants(p, features, list);
    for (int i = 0; i < listed; i++) {
        int at = 0;
        while (at < count && !row_is(&rows[at], p, &list[i])) at++;
        if (at < count) continue;
        if (count == MOST_ROWS) abort();
        rows[count++] = (row){p->kind,          p->dtype,       list[i].isa,
                              p->deterministic, list[i].mma,    is_packed(&list[i]),
                              list[i].tile_m,   list[i].tile_n, list[i].stages,
                              list[i].warps};
    }
    return count;
}

/* Every row of the plan's tables that some problem gets on some of the targets. */
static int list_rows(const range *r, row rows[MOST_ROWS]) {
    int count = 0;
    for (int n = 0; n < 3 * DTYPES * r->target_count * 16; n++) {
        const int target = r->targets[n / (3 * DTYPES) % r->target_count];
        const int direction = n % 3, dim = 16 * (n / (3 * DTYPES * r->target_count) + 1);
        const fj_jit_problem p = {.kind = direction == 0 ? FJ_JIT_FORWARD : FJ_JIT_BACKWARD,
                                  .dtype = dtypes[n / 3 % DTYPES],
                                  .head_dim = dim,
                                  .value_dim = dim,
                                  .deterministic = direction != 2};
        if (target_is_cpu(target) && direction == 2) continue; /* sums are always in one order */
        const fj_features features = target_features(target);
        count = add_rows(rows, count, &p, &features);
    }
    return count;
}

/* ---- Kernels ------------------------------------------------------------------------------------------------------ */

typedef struct draw {
    kernel kernel;
    int values[AXES], cost;
} draw;

/* Of the template and what it is told; false: not legal. */
static bool set_extra(kernel *k, const extra *e) {
    const bool backward = kernel_is_backward(k);
    const bool f32 = k->problem.dtype == FJ_DTYPE_F32 && k->variant.mma;
    if (k->variant.pack_heads && e->pack) return false;
    if (backward && (e->pack || e->splits > 0)) return false;
    if ((e->tf32 && !f32) || (e->hand && !hand_hooks(k, NULL))) return false;
    k->problem.max = e->max && !backward;
    k->problem.tf32 = e->tf32;
    k->pack = e->pack;
    k->table = e->table;
    k->hand = e->hand;
    k->splits = e->splits;
    return true;
}

static bool find_row(kernel *k, const row *r, int target) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    const fj_features features = target_features(target);
    kernel_put_graphs(k);
    const int count = fj_jit_variants(&k->problem, &features, list);
    for (int i = 0; i < count; i++)
        if (row_is(r, &k->problem, &list[i])) return k->variant = list[i], true;
    return false;
}

static bool draw_kernel(draw *d, const row *r, const range *x, generator *random) {
    const int e = random_below(random, DIMS), v = random_below(random, 3) ? random_below(random, DIMS) : e;
    const bool cpu = target_is_cpu(x->targets[0]);
    const extra *extras = cpu ? cpu_extras : gpu_extras;
    const int extra_count = cpu ? FJ_ARRAY_LEN(cpu_extras) : FJ_ARRAY_LEN(gpu_extras);
    const int which = random_below(random, mod_count()), chosen = random_below(random, extra_count);
    const int target = random_below(random, x->target_count);
    d->kernel = (kernel){.problem = {.kind = r->kind,
                                     .dtype = r->dtype,
                                     .head_dim = dims[e],
                                     .value_dim = dims[v],
                                     .deterministic = r->deterministic,
                                     .packed = extras[chosen].form == FJ_FORM_PACKED,
                                     .paged = extras[chosen].form == FJ_FORM_PAGED,
                                     .q_offset = extras[chosen].offset,
                                     .dropout = extras[chosen].dropout,
                                     .block_mask = extras[chosen].blocks},
                         .mod = &mods[which]};
    if (x->few && extras[chosen].splits > 7) return false; /* blocks by the dozen */
    if (r->kind == FJ_JIT_BACKWARD && extras[chosen].form == FJ_FORM_PAGED) return false;
    if (!find_row(&d->kernel, r, x->targets[target]) || !set_extra(&d->kernel, &extras[chosen])) return false;
    const int template = r->kind == FJ_JIT_FORWARD ? 0 : r->deterministic ? 1 : 2;
    const int values[AXES] = {template * 2 + r->mma,
                              (int)r->dtype,
                              e,
                              v,
                              which,
                              chosen,
                              target,
                              r->n == 16 ? 0 : r->n / 32,
                              r->warps == 8 ? 1 : 0,
                              target_is_cpu(x->targets[0]) ? (int)r->isa : r->stages};
    memcpy(d->values, values, sizeof d->values);
    d->cost = (dims[e] + dims[v]) / (x->few ? 4 : 40);
    return true;
}

static void choose_kernel(kernel *k, const row *r, const range *x, pairs *p, generator *random) {
    enum { CANDIDATES = 60, TRIES = 4000 };
    draw best = {.cost = 0}, d;
    int most = -1000, found = 0;
    for (int i = 0; i < TRIES && found < CANDIDATES; i++) {
        if (!draw_kernel(&d, r, x, random)) continue;
        const int worth = pairs_new(p, d.values, false) - d.cost;
        found++;
        if (worth <= most) continue;
        most = worth;
        best = d;
    }
    if (found == 0) abort();
    (void)pairs_new(p, best.values, true);
    *k = best.kernel;
    kernel_finish(k);
}

/* ---- Shapes ---------------------------------------------------------------------------------------------------------- */

static const int64_t heads[][2] = {{1, 1}, {3, 1}, {2, 2}, {8, 1}, {6, 2}, {4, 4}};
static const double dropouts[] = {0.3, 0.5, 0.1, 0, 1, 0.9};
static const double scales[] = {0.35, -0.3, 0.0, 1.0, 0.125};
static const int32_t offsets[][2] = {{0, 0}, {59, 0}, {100, 3}, {0, 33}};
static const int32_t l2_groups[] = {2, 1, 1000};
/* Of a position, less than a tile, of no tile's size, of a tile and more, beyond the lengths. */
static const int32_t block_sizes[][2] = {{1, 1},  {16, 48}, {64, 64},    {128, 96},
                                         {7, 13}, {3, 100}, {1000, 1000}};
static const unsigned absences[] = {0,
                                    ABSENT_DQUERY,
                                    ABSENT_DKEY,
                                    ABSENT_DVALUE,
                                    ABSENT_CAPTURE_GRADS,
                                    ABSENT_DQUERY | ABSENT_CAPTURE_GRADS,
                                    ABSENT_DKEY | ABSENT_DVALUE,
                                    ABSENT_LSE,
                                    ABSENT_MAX,
                                    ABSENT_LOW,
                                    ABSENT_LSE | ABSENT_LOW,
                                    ABSENT_RAW}; /* the last: of mods of the output */

/* 1, around a tile, several tiles and a bit (or as many as there are splits), anything. */
static int64_t length_of(int kind, int tile, int splits, generator *random) {
    switch (kind) {
    case 0: return 1;
    case 1: return tile - 1;
    case 2: return tile;
    case 3: return tile + 1;
    case 4:
        return splits > 2 ? splits * tile - random_below(random, 9) : 2 * tile + 3 + random_below(random, 9);
    default: return 3 + random_below(random, 90);
    }
}

static int64_t cost_of(const kernel *k, const shape *s) {
    const int64_t q = FJ_CEIL_DIV(s->q_len, k->variant.tile_m) * k->variant.tile_m,
                  kv = FJ_CEIL_DIV(s->kv_len, k->variant.tile_n) * k->variant.tile_n;
    return s->batch * s->heads_q * q * kv * (k->problem.head_dim + k->problem.value_dim + 32) *
           (kernel_is_backward(k) ? 3 : 1);
}

/* CUDA threads of a launch, about: what a call costs under ThreadSanitizer, which makes a view of each. */
static int64_t threads_of(const kernel *k, const shape *s) {
    const int64_t m = k->variant.tile_m, rows = s->batch * s->heads_q * FJ_CEIL_DIV(s->q_len, m),
                  keys = s->batch * s->heads_kv * FJ_CEIL_DIV(s->kv_len, m);
    const int64_t blocks = kernel_is_backward(k) ? 2 * rows + keys : rows * (k->splits ? k->splits : 1);
    return blocks * k->variant.warps * 32;
}

enum {
    CPU_SPLITS = 9
}; /* few queries over so many tiles of keys: the forward kernel of the cpu splits them */

static shape draw_shape(const kernel *k, generator *random, int values[AXES]) {
    const bool backward = kernel_is_backward(k);
    int picked[AXES] = {0};
    picked[0] = random_below(random, 6);
    picked[1] = random_below(random, 6);
    picked[2] = random_below(random, FJ_ARRAY_LEN(heads));
    picked[3] = random_below(random, 2);
    picked[4] = random_below(random, LAYOUT_COUNT);
    picked[5] = random_below(random, FJ_ARRAY_LEN(scales));
    picked[6] = random_below(random, FJ_ARRAY_LEN(offsets));
    picked[7] = random_below(random, FJ_ARRAY_LEN(l2_groups));
    picked[8] =
        random_below(random, 2) ? 0 : random_below(random, (int)FJ_ARRAY_LEN(absences) - !k->problem.out);
    picked[9] = backward * 2 + (backward && random_below(random, 2));
    memcpy(values, picked, sizeof picked);
    /* Tiles of a backward kernel are of either. */
    const int m = k->variant.tile_m, n = backward && random_below(random, 2) ? m : k->variant.tile_n;
    const bool cpu = kernel_is_cpu(k);
    const unsigned unwanted = backward ? ABSENT_LSE | ABSENT_MAX | ABSENT_RAW
                                       : 0xffu & ~(ABSENT_LSE | ABSENT_MAX | ABSENT_LOW | ABSENT_RAW);
    const bool blocks = k->problem.block_mask;
    const layout how = k->problem.packed ? LAYOUT_ROWS : k->problem.paged ? LAYOUT_PACKED : (layout)picked[4];
    const int block = blocks ? random_below(random, FJ_ARRAY_LEN(block_sizes)) : 0;
    return (shape){
        .batch = 1 + picked[3],
        .heads_q = heads[picked[2]][0],
        .heads_kv = heads[picked[2]][1],
        .q_len = length_of(picked[0], m, 0, random),
        .kv_len = length_of(picked[1], n, cpu && picked[0] == 0 ? CPU_SPLITS : k->splits, random),
        .scale = scales[picked[5]],
        .how = how,
        .q_offset = cpu ? 0 : offsets[picked[6]][0],
        .kv_offset = cpu ? 0 : offsets[picked[6]][1],
        .l2_group = cpu ? 0 : l2_groups[picked[7]],
        .absent = absences[picked[8]] & ~unwanted,
        .dlse = picked[9] == 3,
        .block = {blocks ? block_sizes[block][0] : 0, blocks ? block_sizes[block][1] : 0},
        .block_planes = blocks ? (unsigned)random_below(random, 4) : 0,
        .dropout = k->problem.dropout ? dropouts[random_below(random, FJ_ARRAY_LEN(dropouts))] : 0,
        .seed = k->problem.dropout ? random_next(random) : 0,
        .offset = k->problem.dropout ? random_next(random) : 0,
    };
}

/* Few queries of groups of any size against keys of any number, as when one token after the other is made. */
static shape draw_decode(const kernel *k, generator *random, bool is_long) {
    static const int64_t groups[] = {1, 3, 4, 5, 7, 8, 12, 16, 24, 32}, queries[] = {1, 1, 1, 2, 5, 17},
                         keys[] = {2085, 5000, 1, 63, 64, 257, 1000};
    const int64_t group = groups[random_below(random, FJ_ARRAY_LEN(groups))],
                  q_len = queries[random_below(random, FJ_ARRAY_LEN(queries))],
                  kv_len = keys[random_below(random, is_long ? 2 : FJ_ARRAY_LEN(keys))];
    const int64_t heads_kv = group * q_len * kv_len > 40000 ? 1 : 1 + random_below(random, 2);
    return (shape){.batch = 1 + (heads_kv == 1 && random_below(random, 2)),
                   .heads_q = group * heads_kv,
                   .heads_kv = heads_kv,
                   .q_len = q_len,
                   .kv_len = group * q_len > 40 && kv_len > 2085 ? 2085 : kv_len,
                   /* Thousands of equal probabilities are all rounded to one side as they are added up. */
                   .scale = is_long ? scales[random_below(random, 2)]
                                    : scales[random_below(random, FJ_ARRAY_LEN(scales))],
                   .how = (layout)random_below(random, LAYOUT_COUNT),
                   .dropout = k->problem.dropout ? dropouts[random_below(random, 3)] : 0,
                   .seed = k->problem.dropout ? random_next(random) : 0,
                   .absent = 0};
}

/* Nothing along one of the axes. */
static void empty_shape(shape *s, int axis) {
    int64_t *const lengths[] = {&s->kv_len, &s->q_len, &s->batch, &s->heads_q};
    *lengths[axis % 4] = 0;
    if (axis % 4 == 3) s->heads_kv = 0;
}

typedef struct extent {
    int kernels, shapes; /* of each row; of each kernel */
    int64_t limit;       /* of the work of a shape */
    int64_t threads;     /* most of a launch */
} extent;

static extent extent_of(const range *r) {
    if (r->few) return (extent){1, 2, 4 << 20, 1024};
    if (r->all) return (extent){6, MOST_SHAPES, 400 << 20, INT64_MAX};
    return (extent){1, 5, 24 << 20, INT64_MAX};
}

static bool is_too_large(const kernel *k, const shape *s, const extent *most) {
    return cost_of(k, s) > most->limit || threads_of(k, s) > most->threads;
}

static void choose_shapes(test *t, pairs *p, generator *random, int count, const extent *most_work) {
    enum { CANDIDATES = 30, TRIES = 2000 };
    for (t->shape_count = 0; t->shape_count < count; t->shape_count++) {
        int most = -1, found = 0, values[AXES], taken[AXES] = {0};
        for (int i = 0; i < TRIES && found < CANDIDATES; i++) {
            const shape s = draw_shape(&t->kernel, random, values);
            if (is_too_large(&t->kernel, &s, most_work) && !(i == TRIES - 1 && found == 0)) continue;
            if (s.scale == 0 && t->shape_count == 0) continue; /* the one that runs in all modes */
            const int worth = pairs_new(p, values, false);
            found++;
            if (worth <= most) continue;
            most = worth;
            memcpy(taken, values, sizeof taken);
            t->shapes[t->shape_count] = s;
            t->shapes[t->shape_count].spoilt =
                !kernel_is_backward(&t->kernel) && s.how != LAYOUT_SHARED && t->shape_count % 3 == 1;
        }
        (void)pairs_new(p, taken, true);
    }
    if (count > 2) empty_shape(&t->shapes[count - 1], random_below(random, 4));
    const bool decodes = kernel_is_cpu(&t->kernel) && !kernel_is_backward(&t->kernel);
    for (int i = 0; decodes && i < MOST_DECODES; i++) {
        shape *s = &t->shapes[t->shape_count++];
        *s = draw_decode(&t->kernel, random, i == 0); /* cut into parts */
        s->spoilt = s->how != LAYOUT_SHARED && i % 2 == 0;
    }
}

/* For accumulators that are added to for long: forward over many keys, backward also over many queries, and little else. */
static void lengthen(test *t, int64_t length) {
    const int most = kernel_is_backward(&t->kernel) ? 2 : 1;
    t->shape_count = t->shape_count < most ? t->shape_count : most;
    for (int i = 0; i < t->shape_count; i++) {
        shape *s = &t->shapes[i];
        s->batch = 1;
        s->heads_q = s->heads_q > s->heads_kv ? 2 : 1;
        s->heads_kv = 1;
        s->q_len = i == 0 ? 13 : length;
        s->kv_len = i == 0 ? length : 13;
        s->absent = 0;
    }
}

/* ---- All -------------------------------------------------------------------------------------------------------------- */

/* With r->few, of each template and dtype the row with the smallest tiles. */
static int keep_few(row *rows, int count) {
    int kept = 0;
    for (int i = 0; i < count; i++) {
        bool least = rows[i].dtype != FJ_DTYPE_F64 && rows[i].dtype != FJ_DTYPE_F16;
        for (int j = 0; j < count; j++)
            if (j != i && rows[j].kind == rows[i].kind && rows[j].dtype == rows[i].dtype &&
                rows[j].isa == rows[i].isa && rows[j].deterministic == rows[i].deterministic &&
                rows[j].mma == rows[i].mma)
                least &= rows[i].m * rows[i].n < rows[j].m * rows[j].n ||
                         (rows[i].m * rows[i].n == rows[j].m * rows[j].n && i < j);
        if (least) rows[kept++] = rows[i];
    }
    return kept;
}

enum { PARTS = 5 };

/* What a kernel brings that none before it has: a template with a dtype, a tile, stages or options, a direction with a
 * mod. */
static int count_new(pairs *p, const kernel *k, bool take) {
    enum { OF_TEMPLATES = 0, OF_MODS = 1 };
    const fj_variant *v = &k->variant;
    const int direction = kernel_is_backward(k) ? 2 + !k->problem.deterministic : 0;
    const int options = k->problem.dropout << 5 | k->problem.tf32 | k->hand << 4 | kernel_packs(k) << 1 |
                        k->table << 2 | (k->splits > 0) << 3;
    const int values[] = {(int)k->problem.dtype,
                          v->tile_m / 16,
                          v->tile_n / 16,
                          options,
                          v->warps,
                          kernel_is_cpu(k) ? (int)v->isa : v->stages,
                          k->problem.packed + 2 * k->problem.paged + 3 * k->problem.q_offset,
                          k->problem.block_mask ? 1 + kernel_packs(k) + 2 * (k->problem.ir->mask != 0) : 0};
    bool *met = &p->seen[OF_MODS][direction][0][k->mod - mods];
    int found = !*met;
    *met |= take;
    for (size_t a = 0; a < FJ_ARRAY_LEN(values); a++) {
        bool *seen = &p->seen[OF_TEMPLATES][direction * 2 + v->mma][a][values[a]];
        found += !*seen;
        *seen |= take;
    }
    return found;
}

/* Marks kernels until no other brings anything: the one that brings most is next (a greedy cover). */
static void cover(bool *taken, const test *tests, int count) {
    static pairs covered;
    for (;;) {
        int best = -1, most = 0;
        for (int i = 0; i < count; i++) {
            const int found = taken[i] ? 0 : count_new(&covered, &tests[i].kernel, false);
            if (found <= most) continue;
            most = found;
            best = i;
        }
        if (best < 0) return;
        taken[best] = count_new(&covered, &tests[best].kernel, true) > 0;
    }
}

/* The part of the table for a day: a cover is in every part, the rest in one of five, from one day to the next. */
static int keep_part(test *tests, int count, int64_t day) {
    bool *every = calloc((size_t)count + 1, sizeof *every);
    int kept = 0, left = 0;
    if (!every) abort();
    cover(every, tests, count);
    for (int i = 0; i < count; i++)
        if (every[i] || left++ % PARTS == day % PARTS) tests[kept++] = tests[i];
    free(every);
    return kept;
}

test *table_make(const range *r, int *count) {
    static row rows[MOST_ROWS];
    static pairs of_kernels, of_shapes;
    const extent x = extent_of(r);
    generator random = random_of(r->seed, "table");
    int row_count = list_rows(r, rows);
    if (r->few) row_count = keep_few(rows, row_count);
    test *tests = calloc((size_t)row_count * (size_t)x.kernels + 1, sizeof *tests);
    if (!tests) abort();
    *count = 0;
    for (int i = 0; i < row_count * x.kernels; i++) {
        test *t = &tests[*count];
        choose_kernel(&t->kernel, &rows[i % row_count], r, &of_kernels, &random);
        choose_shapes(t, &of_shapes, &random, x.shapes, &x);
        if (r->length) lengthen(t, r->length);
        *count += fnmatch(r->filter, t->kernel.name, 0) == 0;
    }
    if (r->day) *count = keep_part(tests, *count, r->day);
    return tests;
}

void table_shapes(test *t, const range *r, int count) {
    static pairs none;
    generator random = random_of(r->seed, t->kernel.name);
    memset(&none, 0, sizeof none);
    const extent x = extent_of(r);
    choose_shapes(t, &none, &random, count, &x);
    if (r->length) lengthen(t, r->length);
}
