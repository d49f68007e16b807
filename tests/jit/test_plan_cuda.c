/* Variants of the cuda templates: legal on every architecture, named for what they are. */
#include "tests/jit/session.h"

static const int archs[] = {75, 80, 86, 87, 89, 90, 100, 103, 110, 120, 121, 130};
static const int dims[] = {1, 8, 16, 40, 64, 72, 96, 128, 160, 192, 256};
static const fj_dtype dtypes[] = {FJ_DTYPE_F16, FJ_DTYPE_BF16, FJ_DTYPE_F32, FJ_DTYPE_F64};

static void check_problem(const fj_jit_problem *of, const fj_features *features) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    int count = fj_jit_variants(of, features, list);
    bool has_simt = false;
    ck_assert_msg(count > 0, "sm_%d %s e%d v%d", features->arch.number, fj_dtype_name(of->dtype),
                  of->head_dim, of->value_dim);
    for (int i = 0; i < count; i++) {
        const fj_variant *v = &list[i];
        ck_assert_int_eq(v->target, FJ_TARGET_CUDA);
        ck_assert_int_ge(v->head_pad, of->head_dim);
        ck_assert_int_ge(v->value_pad, of->value_dim);
        ck_assert_int_gt(v->entry_count, 0);
        ck_assert_int_lt(strlen(v->name), sizeof v->name - 1);
        for (int k = 0; k < v->entry_count; k++) {
            ck_assert_int_le(v->entries[k].shared, features->shared_limit);
            ck_assert(v->entries[k].threads % 32 == 0 && v->entries[k].threads <= 1024);
        }
        for (int j = 0; j < i; j++) ck_assert_str_ne(v->name, list[j].name);
        has_simt |= !v->mma;
        ck_assert(!v->mma || (features->arch.number >= 80 && of->dtype != FJ_DTYPE_F64));
    }
    ck_assert(has_simt); /* what always fits */
}

START_TEST(every_problem_has_a_variant_that_fits) {
    for (size_t a = 0; a < FJ_ARRAY_LEN(archs); a++)
        for (size_t t = 0; t < FJ_ARRAY_LEN(dtypes); t++)
            for (size_t e = 0; e < FJ_ARRAY_LEN(dims); e++)
                for (size_t v = 0; v < FJ_ARRAY_LEN(dims); v++)
                    for (int kind = FJ_JIT_FORWARD; kind <= FJ_JIT_BACKWARD; kind++) {
                        fj_features features = fj_jit_arch_features((fj_arch){archs[a], 0});
                        fj_jit_problem of = {.kind = (fj_jit_kind)kind,
                                             .dtype = dtypes[t],
                                             .head_dim = dims[e],
                                             .value_dim = dims[v],
                                             .deterministic = true};
                        check_problem(&of, &features);
                    }
}
END_TEST

/* What a block may have at most is what fits; a byte less is not enough. */
START_TEST(shared_memory_may_be_the_limit) {
    for (int kind = FJ_JIT_FORWARD; kind <= FJ_JIT_BACKWARD; kind++) {
        fj_variant list[FJ_JIT_MAX_VARIANTS], fewer[FJ_JIT_MAX_VARIANTS];
        fj_features features = fj_jit_arch_features((fj_arch){80, 0});
        const fj_jit_problem of = {.kind = (fj_jit_kind)kind,
                                   .dtype = FJ_DTYPE_BF16,
                                   .head_dim = 64,
                                   .value_dim = 64,
                                   .deterministic = true};
        const int count = fj_jit_variants(&of, &features, list);
        int most = 0;
        for (int i = 0; i < count; i++)
            for (int k = 0; k < list[i].entry_count; k++)
                most = list[i].entries[k].shared > most ? list[i].entries[k].shared : most;
        features.shared_limit = most;
        ck_assert_int_eq(fj_jit_variants(&of, &features, fewer), count);
        features.shared_limit = most - 1;
        const int left = fj_jit_variants(&of, &features, fewer);
        ck_assert(left > 0 && left < count);
        check_problem(&of, &features);
    }
}
END_TEST

START_TEST(names_spell_the_parameters) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    fj_jit_problem of = {.kind = FJ_JIT_FORWARD,
                         .dtype = FJ_DTYPE_BF16,
                         .head_dim = 128,
                         .value_dim = 64,
                         .deterministic = true};
    fj_features features = fj_jit_arch_features((fj_arch){90, 'a'});
    ck_assert_int_gt(fj_jit_variants(&of, &features, list), 0);
    const fj_variant *v = &list[0];
    char name[64];
    (void)snprintf(name, sizeof name, "fwd_mma_bf16_e128_v64_m%d_n%d_s%d_w%d", v->tile_m, v->tile_n,
                   v->stages, v->warps);
    ck_assert_str_eq(v->name, name);
    ck_assert_int_eq(v->arch.number, 90);
    ck_assert_int_eq(v->arch.suffix, 0); /* the same kernel as for sm_90 */
    of.kind = FJ_JIT_BACKWARD;
    of.deterministic = false;
    ck_assert_int_gt(fj_jit_variants(&of, &features, list), 0);
    ck_assert_ptr_nonnull(strstr(list[0].name, "bwd_mma_bf16_atomic_e128_v64_"));
    of.dtype = FJ_DTYPE_F32;
    ck_assert_int_gt(fj_jit_variants(&of, &features, list), 0);
    ck_assert_ptr_nonnull(strstr(list[0].name, "bwd_mma_f32_atomic_e128_v64_"));
}
END_TEST

/* What a name and a request are made of, at one place. */
typedef struct asked {
    fj_jit_problem problem;
    fj_variant variant;
    char *request;
} asked;

static asked ask(const fj_jit_problem *of, const fj_variant *by) {
    asked made = {.problem = *of, .variant = *by};
    fj_buf text;
    fj_buf_init(&text, &fj_allocator_libc);
    ck_assert_int_eq(fj_jit_request_text(of, by, &fj_allocator_libc, &text, NULL), FJ_OK);
    made.request = strndup(text.data, text.len);
    fj_buf_finish(&text);
    return made;
}

enum { MOST_ASKED = 2048 };
static asked all[MOST_ASKED];
static int all_count;

static void ask_all(fj_jit_problem of, const fj_ir *ir, int arch) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    fj_features features = fj_jit_arch_features((fj_arch){arch, 0});
    of.ir = ir;
    const int count = fj_jit_variants(&of, &features, list);
    ck_assert_int_gt(count, 0);
    ck_assert_int_lt(count, FJ_JIT_MAX_VARIANTS); /* none was left out */
    ck_assert_int_le(all_count + count, MOST_ASKED);
    for (int i = 0; i < count; i++) all[all_count++] = ask(&of, &list[i]);
}

/* A graph that reads one captured vector; -1: its size is not known. */
static const fj_ir *captures_of(fj_arena *arena, int64_t size) {
    fj_ir *ir = fj_ir_create(arena);
    const fj_capture capture = {.name = "t", .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {size}};
    FJ_PUSH(arena, &ir->captures, capture);
    const fj_ref index = fj_ir_cast(ir, fj_ir_leaf(ir, FJ_OP_KV), FJ_TYPE_I64);
    ir->score = fj_ir_op2(ir, FJ_OP_ADD, fj_ir_leaf(ir, FJ_OP_SCORE), fj_ir_load(ir, 0, &index, 1));
    return ir;
}

/* Every field of a problem and of a variant in turn. */
static void ask_many(fj_scope *scope, void *unused) {
    (void)unused;
    const fj_ir *none = fj_ir_create(scope->arena), *some = captures_of(scope->arena, 8);
    const fj_jit_problem start = {.kind = FJ_JIT_FORWARD,
                                  .dtype = FJ_DTYPE_BF16,
                                  .head_dim = 64,
                                  .value_dim = 64,
                                  .deterministic = true};
    fj_jit_problem problems[9];
    for (size_t i = 0; i < FJ_ARRAY_LEN(problems); i++) problems[i] = start;
    problems[1].kind = FJ_JIT_BACKWARD;
    problems[2].dtype = FJ_DTYPE_F16;
    problems[3].head_dim = 72;
    problems[4].value_dim = 128;
    problems[5].max = true;
    problems[6].dtype = FJ_DTYPE_F32;
    problems[7].dtype = FJ_DTYPE_F32, problems[7].tf32 = true;
    problems[8].kind = FJ_JIT_BACKWARD, problems[8].deterministic = false;
    for (size_t i = 0; i < FJ_ARRAY_LEN(problems); i++) {
        ask_all(problems[i], none, 80);
        ask_all(problems[i], none, 90);
        ask_all(problems[i], some, 80);
    }
}

/* Whether a name has to tell them apart: not the outputs that are wanted, the mod and the architecture. */
static bool is_same_name(const asked *a, const asked *b) {
    const fj_jit_problem *p = &a->problem, *q = &b->problem;
    const fj_variant *v = &a->variant, *w = &b->variant;
    const bool order = p->kind == FJ_JIT_FORWARD || p->deterministic == q->deterministic;
    const bool rounding = !v->mma || p->tf32 == q->tf32;
    return p->kind == q->kind && p->dtype == q->dtype && p->head_dim == q->head_dim &&
           p->value_dim == q->value_dim && order && rounding && v->mma == w->mma && v->tile_m == w->tile_m &&
           v->tile_n == w->tile_n && v->stages == w->stages && v->warps == w->warps &&
           v->pack_heads == w->pack_heads && v->wide_captures == w->wide_captures;
}

START_TEST(names_and_requests_tell_everything_apart) {
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    all_count = 0;
    ck_assert_int_eq(fj_scope_run(&arena, NULL, ask_many, NULL), FJ_OK);
    int packed = 0, wide = 0;
    for (int i = 0; i < all_count; i++) {
        packed += all[i].variant.pack_heads;
        wide += all[i].variant.wide_captures;
        for (int j = 0; j < i; j++) {
            ck_assert_str_ne(all[i].request, all[j].request);
            ck_assert_int_eq(strcmp(all[i].variant.name, all[j].variant.name) == 0,
                             is_same_name(&all[i], &all[j]));
        }
    }
    ck_assert(packed > 0 && wide > 0);
    for (int i = 0; i < all_count; i++) free(all[i].request);
    fj_arena_finish(&arena);
}
END_TEST

static void check_wide(fj_scope *scope, void *unused) {
    (void)unused;
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    fj_features features = fj_jit_arch_features((fj_arch){90, 0});
    static const int64_t sizes[] = {8, -1, INT32_MAX, (int64_t)INT32_MAX + 1};
    for (size_t i = 0; i < FJ_ARRAY_LEN(sizes); i++) {
        const bool big = sizes[i] > INT32_MAX;
        const fj_jit_problem of = {.kind = FJ_JIT_FORWARD,
                                   .ir = captures_of(scope->arena, sizes[i]),
                                   .dtype = FJ_DTYPE_F16,
                                   .head_dim = 64,
                                   .value_dim = 64};
        const int count = fj_jit_variants(&of, &features, list);
        int wide = 0;
        for (int k = 0; k < count; k++) {
            ck_assert_int_eq(strstr(list[k].name, "_wide") != NULL, list[k].wide_captures);
            wide += list[k].wide_captures;
        }
        ck_assert_int_eq(list[0].wide_captures, big);
        ck_assert_int_eq(wide, big ? count : count / 2); /* where it need not be, it can be asked for */
    }
}

START_TEST(large_captures_take_wide_variants) {
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    ck_assert_int_eq(fj_scope_run(&arena, NULL, check_wide, NULL), FJ_OK);
    fj_arena_finish(&arena);
}
END_TEST

START_TEST(few_queries_of_a_group_are_packed) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    static const struct {
        int gqa;
        bool few, packed;
    } cases[] = {{0, false, false}, {8, false, false}, {8, true, true}, {0, true, true}, {1, true, true}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++)
        for (int arch = 75; arch <= 80; arch += 5) {
            fj_features features = fj_jit_arch_features((fj_arch){arch, 0});
            fj_jit_problem of = {.kind = FJ_JIT_FORWARD,
                                 .dtype = FJ_DTYPE_BF16,
                                 .head_dim = 128,
                                 .value_dim = 128,
                                 .gqa = cases[i].gqa,
                                 .few_queries = cases[i].few};
            int count = fj_jit_variants(&of, &features, list);
            ck_assert_int_eq(list[0].pack_heads, cases[i].packed);
            ck_assert_int_eq(list[0].splits, !cases[i].few);
            ck_assert_int_ne(list[count - 1].pack_heads, cases[i].packed); /* the others are legal too */
            of.kind = FJ_JIT_BACKWARD;
            count = fj_jit_variants(&of, &features, list);
            for (int k = 0; k < count; k++) ck_assert(!list[k].pack_heads);
        }
}
END_TEST

/* tanh of the score, so often. */
static void check_heavy(fj_scope *scope, void *unused) {
    (void)unused;
    fj_features features = fj_jit_arch_features((fj_arch){80, 0});
    fj_variant light[FJ_JIT_MAX_VARIANTS], heavy[FJ_JIT_MAX_VARIANTS];
    fj_jit_problem of = {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_BF16, .head_dim = 64, .value_dim = 64};
    fj_ir *ir = fj_ir_create(scope->arena);
    const int count = fj_jit_variants(&of, &features, light);
    of.ir = fj_ir_optimise(ir);
    ck_assert_int_eq(fj_jit_mod_cost(&of).score, 0);
    ir->score = fj_ir_op1(ir, FJ_OP_NEG, fj_ir_leaf(ir, FJ_OP_SCORE));
    of.ir = fj_ir_optimise(ir);
    ck_assert_int_eq(fj_jit_mod_cost(&of).score, 1);
    ck_assert_int_eq(fj_jit_variants(&of, &features, heavy), count);
    ck_assert_str_eq(heavy[0].name, light[0].name);
    ir->score = fj_ir_op1(ir, FJ_OP_TANH, ir->score);
    of.ir = fj_ir_optimise(ir);
    ck_assert_int_gt(fj_jit_mod_cost(&of).score, 16);
    ck_assert_int_eq(fj_jit_variants(&of, &features, heavy), count); /* the same ones in another order */
    const fj_variant *a = &light[0], *b = &heavy[0];
    ck_assert_int_lt(b->tile_m * b->tile_n / b->warps, a->tile_m * a->tile_n / a->warps);
    for (int i = 0; i < count; i++) {
        int found = 0;
        for (int k = 0; k < count; k++) {
            const fj_variant *v = &light[i], *w = &heavy[k];
            found += v->mma == w->mma && v->pack_heads == w->pack_heads && v->tile_m == w->tile_m &&
                     v->tile_n == w->tile_n && v->stages == w->stages && v->warps == w->warps;
        }
        ck_assert_int_eq(found, 1);
    }
}

/* The name says how the text is unrolled: one name, one text. */
static void check_chunks(fj_scope *scope, void *unused) {
    (void)unused;
    const fj_features features = fj_jit_arch_features((fj_arch){80, 0});
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    fj_jit_problem of = {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_BF16, .head_dim = 64, .value_dim = 64};
    fj_ir *ir = fj_ir_create(scope->arena);
    ir->score = fj_ir_leaf(ir, FJ_OP_SCORE);
    int least = 99, most = 0;
    for (int tanhs = 0; tanhs < 12; tanhs++) {
        of.ir = fj_ir_optimise(ir);
        ck_assert_int_gt(fj_jit_variants(&of, &features, list), 0);
        const fj_variant *v = &list[0];
        char chunks[16];
        (void)snprintf(chunks, sizeof chunks, "_t%d", v->mod_chunks);
        ck_assert_int_eq(strstr(v->name, chunks) != NULL, v->mod_chunks > 1);
        ck_assert_int_eq(strstr(v->name, "_one") != NULL, v->one_copy);
        ck_assert_int_eq(strstr(v->name, "_roll") != NULL, v->mask_unroll == 1);
        if (v->mod_chunks < least) least = v->mod_chunks;
        if (v->mod_chunks > most) most = v->mod_chunks;
        ir->score = fj_ir_op1(ir, FJ_OP_TANH, ir->score);
    }
    ck_assert_int_eq(least, 1);
    ck_assert_int_gt(most, 1);
}

START_TEST(names_spell_chunks) {
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    ck_assert_int_eq(fj_scope_run(&arena, NULL, check_chunks, NULL), FJ_OK);
    fj_arena_finish(&arena);
}
END_TEST

START_TEST(heavy_mods_take_smaller_variants) {
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    ck_assert_int_eq(fj_scope_run(&arena, NULL, check_heavy, NULL), FJ_OK);
    fj_arena_finish(&arena);
}
END_TEST

START_TEST(what_no_kernel_covers_has_no_variant) {
    fj_features features = fj_jit_arch_features((fj_arch){80, 0});
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    static const fj_jit_problem problems[] = {
        {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_I32, .head_dim = 64, .value_dim = 64},
        {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_F16, .head_dim = 257, .value_dim = 64},
        {.kind = FJ_JIT_BACKWARD, .dtype = FJ_DTYPE_F16, .head_dim = 64, .value_dim = 0},
        {.kind = FJ_JIT_PEAK, .dtype = FJ_DTYPE_F16},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(problems); i++)
        ck_assert_int_eq(fj_jit_variants(&problems[i], &features, list), 0);
}
END_TEST

/* ... and nothing else is in a request: a kernel must not be compiled twice. */
static void check_order(fj_scope *scope, void *unused) {
    (void)unused;
    const fj_features gpu = fj_jit_arch_features((fj_arch){80, 0}), cpu = {.isa = {true}};
    const struct {
        const fj_features *features;
        fj_jit_kind kind;
        bool same; /* the requests of sums in one order and in any */
    } cases[] = {{&cpu, FJ_JIT_FORWARD, true},
                 {&cpu, FJ_JIT_BACKWARD, true},
                 {&gpu, FJ_JIT_FORWARD, true},
                 {&gpu, FJ_JIT_BACKWARD, false}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        fj_variant list[FJ_JIT_MAX_VARIANTS];
        char *request[2], *text[2];
        for (int order = 0; order < 2; order++) {
            fj_rendered rendered;
            fj_buf out;
            const fj_ir *none = fj_ir_create(scope->arena);
            const fj_jit_problem of = {.kind = cases[i].kind,
                                       .ir = none,
                                       .gradient = cases[i].kind == FJ_JIT_BACKWARD ? none : NULL,
                                       .dtype = FJ_DTYPE_F32,
                                       .head_dim = 64,
                                       .value_dim = 64,
                                       .deterministic = order != 0};
            ck_assert_int_gt(fj_jit_variants(&of, cases[i].features, list), 0);
            request[order] = ask(&of, &list[0]).request;
            fj_buf_init(&out, &fj_allocator_libc);
            ck_assert_int_eq(fj_jit_render(&of, &list[0], &fj_allocator_libc, &out, &rendered, NULL), FJ_OK);
            text[order] = strndup(out.data, out.len);
            fj_buf_finish(&out);
        }
        ck_assert((strcmp(request[0], request[1]) == 0) == cases[i].same);
        ck_assert((strcmp(text[0], text[1]) == 0) == cases[i].same);
        for (int order = 0; order < 2; order++) free(request[order]), free(text[order]);
    }
}

START_TEST(what_changes_no_text_changes_no_request) {
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    ck_assert_int_eq(fj_scope_run(&arena, NULL, check_order, NULL), FJ_OK);
    fj_arena_finish(&arena);
}
END_TEST

/* The mods of the output and of the sink, and what they add to gradients, have kernels of their own, in their places. */
START_TEST(what_follows_from_outputs_and_sinks) {
    fj_variant list[FJ_JIT_MAX_VARIANTS];
    static const struct {
        bool out, out_adds, sink_adds, score_adds, atomic;
        const char *entries;
    } cases[] = {
        {.entries = "delta kv q "},
        {.out = true, .entries = "out delta kv q "},
        {.out = true, .out_adds = true, .entries = "out delta rows kv q rows_add end "},
        {.sink_adds = true, .entries = "delta rows kv q rows_add end "},
        {.sink_adds = true, .atomic = true, .entries = "delta rows kv q end "},
        {.score_adds = true, .entries = "delta recompute kv q end "},
        {.out = true,
         .sink_adds = true,
         .score_adds = true,
         .entries = "out delta recompute rows kv q rows_add end "},
    };
    const fj_features features = fj_jit_arch_features((fj_arch){80, 0});
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        fj_ir none = {0}, adds = {0};
        char text[128] = "";
        adds.scatters.len = 1;
        const fj_jit_problem of = {.kind = FJ_JIT_BACKWARD,
                                   .ir = &none,
                                   .gradient = cases[i].score_adds ? &adds : &none,
                                   .out = cases[i].out ? &none : NULL,
                                   .out_gradient = !cases[i].out     ? NULL
                                                 : cases[i].out_adds ? &adds
                                                                     : &none,
                                   .sink = cases[i].sink_adds ? &none : NULL,
                                   .sink_gradient = cases[i].sink_adds ? &adds : NULL,
                                   .dtype = FJ_DTYPE_BF16,
                                   .head_dim = 64,
                                   .value_dim = 64,
                                   .deterministic = !cases[i].atomic};
        ck_assert_int_gt(fj_jit_variants(&of, &features, list), 0);
        for (int k = 0; k < list[0].entry_count; k++)
            (void)snprintf(text + strlen(text), sizeof text - strlen(text), "%s ",
                           list[0].entries[k].name + strlen("fj_bwd_"));
        ck_assert_str_eq(text, cases[i].entries);
    }
}
END_TEST

RUN_SUITE("plan cuda", every_problem_has_a_variant_that_fits, shared_memory_may_be_the_limit,
          names_spell_the_parameters, names_and_requests_tell_everything_apart,
          what_changes_no_text_changes_no_request, large_captures_take_wide_variants,
          few_queries_of_a_group_are_packed, heavy_mods_take_smaller_variants, names_spell_chunks,
          what_no_kernel_covers_has_no_variant, what_follows_from_outputs_and_sinks)
