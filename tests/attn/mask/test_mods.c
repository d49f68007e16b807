/* Block masks of mods against their masks evaluated at every position.
 *
 * Masks are the heads of one mod, so that one compilation tests many: fixed ones, of the kinds that the corpus has, and
 * random ones (FJ_SEED, and FJ_COUNT masks of them, for longer runs). */
#include <time.h>

#include "tests/attn/mask/tables.h"

static const DLTensor *const *pointers(void) {
    static const DLTensor *list[CAPTURES];
    for (int i = 0; i < CAPTURES; i++) list[i] = &captures[i].dl;
    return list;
}

/* ---- Masks -------------------------------------------------------------------------------------------- */

static const char *const masks[] = {
    "q >= kv",
    "(q >= kv) & (q - kv <= 100)",
    "(abs(q - kv) <= 90) & (abs(q - kv) % 4 == 0)",
    "(abs(q - kv) <= 40) | flags[q] | flags[kv]",
    "(kv < 70) | (q >= kv)",
    "doc[q] == doc[kv]",
    "(doc[q] == doc[kv]) & (q - offsets[doc[q]] >= kv - offsets[doc[kv]])",
    "(kv >= offsets[doc[q]]) & (q >= kv)",
    "bydoc[b, q] == bydoc[b, kv]",
    "rnd[q] == rnd[kv]",
    "(rnd[q] <= 60) & (rnd[kv] >= -70)",
    "blockmap[b, q // 32, kv // 32]",
    "(q >= span[doc[kv]][0]) & (q < span[doc[kv], 1])",
    "any((span[doc[q]] // 64) == (kv // 64))",
    "(abs(clamp(q % 32, 3, 28) - kv % 32) <= 3) & (abs(q // 32 - kv // 32) <= 2)",
    "(q // 96 == kv // 96) | (q < 0)",
    "weights[kv] > 0.5",
    "weights[q] * 2.0 >= weights[kv] + 0.1",
    "halves[kv] > 2.0",
    "~(halves[kv] <= halves[q])",
    "kv >= q + origin",
    "kv - WINDOW < q",
    "exp(q / 100.0) > kv / 10.0",
    "doc[kv - 400] == doc[q]",
    "(b == 1) & (q >= kv)",
    "q >= 0",
    "kv < 0",
    "((q & 7) == 3) | (kv >> 6 == 1)",
};

/* The heads of one mod are masks of their own. */
static fj_mod *mod_of(const char *const *list, size_t count) {
    fj_buf text;
    fj_mod *mod = NULL;
    fj_error error = {0};
    fj_buf_init(&text, &fj_allocator_libc);
    fj_buf_put(&text, "WINDOW = 5\ndef mask_mod(b, h, q, kv):\n    seen = q >= kv + 1000\n");
    for (size_t i = 0; i < count; i++)
        fj_buf_printf(&text, "    seen = torch.where(h == %zu, %s, seen)\n", i, list[i]);
    fj_buf_put(&text, "    return seen\n");
    const char *const runtime[] = {"WINDOW"};
    const fj_mod_desc desc = {.struct_size = sizeof desc,
                              .source = text.data,
                              .source_length = text.len,
                              .runtime_params = runtime,
                              .runtime_param_count = strstr(text.data, "- WINDOW") ? 1 : 0,
                              .bindings = bindings,
                              .binding_count = CAPTURES};
    const fj_status status = fj_mod_create(context, &desc, &mod, &error);
    ck_assert_msg(status == FJ_OK, "%s:%d: %s\n%s", error.file, error.line, error.text, error.source_line);
    fj_buf_finish(&text);
    return mod;
}

/* Captures that the mod has, in its order. */
static const DLTensor *const *captures_of(const fj_mod *mod) {
    static const DLTensor *list[CAPTURES];
    for (size_t i = 0; i < fj_mod_capture_count(mod); i++)
        for (int k = 0; k < CAPTURES; k++)
            if (strcmp(fj_mod_capture(mod, i).name, bindings[k].name) == 0) list[i] = pointers()[k];
    return list;
}

/* ---- The masks at every position ------------------------------------------------------------------------ */

typedef struct evaluation {
    const fj_mod *mod;
    const fj_scalar *scalars;
    dense_sizes n;
    bool *dense;
} evaluation;

static void evaluate_body(fj_scope *scope, void *argument) {
    const evaluation *e = argument;
    const fj_ir ir = fj_ir_view(e->mod->program.ir, scope->arena);
    fj_eval_tensor *tensors = FJ_NEW_ARRAY(scope->arena, fj_eval_tensor, ir.captures.len + 1);
    for (size_t i = 0; i < fj_mod_capture_count(e->mod); i++) {
        const DLTensor *from = captures_of(e->mod)[i];
        fj_eval_tensor *to = &tensors[e->mod->capture_index[i]];
        int64_t stride = 1;
        to->data = from->data;
        to->dtype = fj_mod_capture(e->mod, i).dtype;
        for (int d = from->ndim - 1; d >= 0; d--) {
            to->dims[d] = from->shape[d];
            to->strides[d] = stride;
            stride *= from->shape[d];
        }
    }
    const fj_eval_input input = {.captures = tensors, .scalars = e->scalars, .round_f32 = true};
    fj_eval *eval = fj_eval_create(scope->arena, &ir);
    bool *to = e->dense;
    for (int64_t row = 0; row < e->n.b * e->n.h * e->n.l; row++)
        for (int64_t kv = 0; kv < e->n.s; kv += FJ_EVAL_LANES) {
            const int64_t left = e->n.s - kv;
            const fj_eval_lanes lanes = {.b = (int32_t)(row / e->n.l / e->n.h),
                                         .h = (int32_t)(row / e->n.l % e->n.h),
                                         .q = (int32_t)(row % e->n.l),
                                         .kv0 = (int32_t)kv,
                                         .count = left < FJ_EVAL_LANES ? (int)left : FJ_EVAL_LANES};
            fj_eval_run(eval, &input, &lanes, NULL, to, NULL, NULL, NULL);
            to += lanes.count;
        }
}

static uint8_t *evaluate(const fj_mod *mod, const fj_scalar *scalars, dense_sizes n) {
    bool *dense = malloc((size_t)(n.b * n.h * n.l * n.s) + 1);
    evaluation e = {mod, scalars, n, dense};
    fj_arena arena;
    fj_arena_init(&arena, &fj_allocator_libc);
    ck_assert_int_eq(fj_scope_run(&arena, NULL, evaluate_body, &e), FJ_OK);
    fj_arena_finish(&arena);
    return (uint8_t *)dense;
}

static fj_mask_args args_of(const fj_mod *mod, const fj_scalar *scalars, dense_sizes n) {
    return (fj_mask_args){.struct_size = sizeof(fj_mask_args),
                          .batch = n.b,
                          .heads = n.h,
                          .q_len = n.l,
                          .kv_len = n.s,
                          .block_q = n.bq,
                          .block_kv = n.bkv,
                          .captures = captures_of(mod),
                          .scalars = scalars};
}

/* Block by block; returns how many were undecided. */
static int64_t check_mask(const fj_mask_maker *maker, const fj_mod *mod, const char *const *list,
                          const fj_scalar *scalars, const uint8_t *dense, dense_sizes n) {
    fj_block_mask *mask = NULL;
    fj_error error = {0};
    const fj_mask_args args = args_of(mod, scalars, n);
    ck_assert_msg(fj_block_mask_make(maker, &args, NULL, &mask, &error) == FJ_OK, "%s", error.text);
    uint8_t *got = mask_classes(mask), *wanted = dense_classes(dense, n);
    for (int64_t i = 0; i < dense_blocks(n); i++) {
        const int64_t plane = i / dense_rows(n) / dense_columns(n),
                      block = i % (dense_rows(n) * dense_columns(n));
        ck_assert_msg(got[i] == wanted[i], "%s, blocks of %d x %d: b %d, block %d, %d: class %d, not %d",
                      list[plane % n.h], (int)n.bq, (int)n.bkv, (int)(plane / n.h),
                      (int)(block / dense_columns(n)), (int)(block % dense_columns(n)), got[i], wanted[i]);
    }
    const int64_t undecided = fj_block_mask_describe(mask).undecided;
    free(got), free(wanted);
    fj_block_mask_unref(&mask);
    return undecided;
}

static void check_masks(const char *const *list, size_t count, const fj_scalar *scalars, uint64_t seed) {
    static const int64_t lengths[][2] = {{128, 192}, {70, 399}, {61, 33}},
                         blocks[][2] = {{64, 64}, {128, 32}, {17, 50}};
    fill_captures(seed);
    fj_mod *mod = mod_of(list, count);
    fj_mask_maker *maker = maker_of(mod);
    for (size_t i = 0; i < FJ_ARRAY_LEN(lengths); i++) {
        dense_sizes n = {2, (int64_t)count, lengths[i][0], lengths[i][1], 0, 0};
        uint8_t *dense = evaluate(mod, scalars, n);
        for (size_t k = 0; k < FJ_ARRAY_LEN(blocks); k++) {
            n.bq = blocks[k][0], n.bkv = blocks[k][1];
            (void)check_mask(maker, mod, list, scalars, dense, n);
        }
        free(dense);
    }
    fj_mask_maker_unref(&maker);
    fj_mod_unref(&mod);
}

START_TEST(fixed_masks) {
    const fj_scalar window = {.i = 60};
    check_masks(masks, FJ_ARRAY_LEN(masks), &window, 1);
}
END_TEST

/* ---- Random masks --------------------------------------------------------------------------------------- */

typedef struct drawing {
    uint64_t state;
    fj_buf text;
} drawing;

static int draw(drawing *d, int below) { return (int)(dense_random(&d->state) % (uint32_t)below); }

static void draw_bool(drawing *d, int depth);

/* Text with I and B for what is drawn, C for a constant. Nothing is constant as a whole: ~True is an int. */
static void expand(drawing *d, const char *form, int depth);

static void draw_int(drawing *d, int depth) {
    static const char *const leaves[] = {"q",
                                         "kv",
                                         "q",
                                         "kv",
                                         "b",
                                         "(q * 0 + C)",
                                         "doc[q]",
                                         "doc[kv]",
                                         "offsets[doc[q]]",
                                         "origin",
                                         "bydoc[b, kv]",
                                         "rnd[kv]",
                                         "rnd[q]"};
    static const char *const forms[] = {"(I + I)",
                                        "(I - I)",
                                        "(I - I)",
                                        "abs(I)",
                                        "(I // C)",
                                        "(I % C)",
                                        "(I % C)",
                                        "-I",
                                        "minimum(I, I)",
                                        "maximum(I, C)",
                                        "clamp(I, 3, C)",
                                        "(I & 31)",
                                        "(I >> 2)",
                                        "where(B, I, I)",
                                        "(I * C)",
                                        "offsets[I % 12]",
                                        "rnd[I % 400]",
                                        "doc[-1 - I % 300]",
                                        "span[doc[q], I % 2]",
                                        "(I | 8)",
                                        "(I ^ 5)"};
    if (depth <= 0 || draw(d, 3) == 0)
        expand(d, leaves[draw(d, FJ_ARRAY_LEN(leaves))], 0);
    else
        expand(d, forms[draw(d, FJ_ARRAY_LEN(forms))], depth - 1);
}

static void draw_bool(drawing *d, int depth) {
    static const char *const leaves[] = {"(I >= I)",
                                         "(I <= I)",
                                         "(I == I)",
                                         "(I < C)",
                                         "(q >= kv)",
                                         "flags[q]",
                                         "flags[kv]",
                                         "blockmap[b, q // 32, kv // 32]",
                                         "(weights[kv] > 0.3)",
                                         "(halves[q] * 2.0 >= halves[kv])",
                                         "(doc[q] == doc[kv])",
                                         "(abs(q - kv) <= C)",
                                         "(I / C > weights[I % 400] * 9.0)",
                                         "any(span[doc[q]] >= I)"};
    static const char *const forms[] = {"(B & B)", "(B & B)", "(B | B)", "~B", "(B ^ B)", "where(B, B, B)"};
    if (depth <= 0 || draw(d, 3) == 0)
        expand(d, leaves[draw(d, FJ_ARRAY_LEN(leaves))], depth - 1);
    else
        expand(d, forms[draw(d, FJ_ARRAY_LEN(forms))], depth - 1);
}

static void expand(drawing *d, const char *form, int depth) {
    for (; *form; form++) {
        const bool stands_alone = !fj_is_alnum(form[1]);
        if (*form == 'I' && stands_alone)
            draw_int(d, depth);
        else if (*form == 'B' && stands_alone)
            draw_bool(d, depth);
        else if (*form == 'C' && stands_alone)
            fj_buf_printf(&d->text, "%d", 1 + draw(d, draw(d, 2) ? 200 : 9));
        else
            fj_buf_write(&d->text, form, 1);
    }
}

START_TEST(random_masks) {
    enum { HEADS = 24 };
    const char *seed_text = getenv("FJ_SEED"), *count_text = getenv("FJ_COUNT");
    const long count = count_text ? strtol(count_text, NULL, 10) : HEADS;
    drawing d = {.state = seed_text ? strtoull(seed_text, NULL, 10) : (uint64_t)time(NULL) / 86400};
    printf("seed %llu\n", (unsigned long long)d.state);
    for (long done = 0; done < count; done += HEADS) {
        const char *list[HEADS];
        for (int i = 0; i < HEADS; i++) {
            fj_buf_init(&d.text, &fj_allocator_libc);
            draw_bool(&d, 4);
            list[i] = d.text.data;
        }
        check_masks(list, HEADS, NULL, d.state);
        for (int i = 0; i < HEADS; i++) free((void *)(uintptr_t)list[i]);
        if (count_text) {
            printf("%ld masks are right\n", done + HEADS);
            (void)fflush(stdout);
        }
    }
}
END_TEST

/* ---- What intervals decide -------------------------------------------------------------------------------- */

/* Of 7 x 25 x 25 blocks those along lines are left undecided, not areas: the sum of what each head may leave. */
START_TEST(decided) {
    static const char *const list[] = {
        "q >= kv",
        "(q >= kv) & (q - kv <= 100)",
        "doc[q] == doc[kv]",
        "(doc[q] == doc[kv]) & (q >= kv)",
        "(doc[q] == doc[kv]) & (q - offsets[doc[q]] >= kv - offsets[doc[kv]])",
        "(kv < 70) | (q >= kv)",
        "q >= 0",
    };
    const int64_t most = 25 + 3 * 25 + 3 * 4 * 25 + 2 * 25;
    const dense_sizes n = {1, FJ_ARRAY_LEN(list), 400, 400, 16, 16};
    fill_captures(3);
    fj_mod *mod = mod_of(list, FJ_ARRAY_LEN(list));
    fj_mask_maker *maker = maker_of(mod);
    uint8_t *dense = evaluate(mod, NULL, n);
    const int64_t undecided = check_mask(maker, mod, list, NULL, dense, n);
    ck_assert_msg(undecided <= most, "%lld undecided", (long long)undecided);
    free(dense);
    fj_mask_maker_unref(&maker);
    fj_mod_unref(&mod);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attn");
    TCase *tests = tcase_create("mask mods");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 36000);
    tcase_add_test(tests, fixed_masks);
    tcase_add_test(tests, random_masks);
    tcase_add_test(tests, decided);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
