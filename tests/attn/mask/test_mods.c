/* Block masks of mods against their masks evaluated at every position.
 *
 * Masks are the heads of one mod, so that one compilation tests many: fixed ones, of the kinds that the corpus has, and
 * random ones (FJ_SEED, and FJ_COUNT masks of them, for longer runs). */
#include <time.h>

#include "tests/attn/mask/dense.h"

static char folder[64];
static failing_allocator failing;
static fj_context *context;
static fj_device *device;

static void setup(void) {
    failing = (failing_allocator){.countdown = -1};
    fj_context_desc desc = {.struct_size = sizeof desc, .resize = failing_resize, .allocator_user = &failing};
    folder_create(folder);
    setenv("FLEXJIT_CACHE_PATH", folder, 1);
    ck_assert_int_eq(fj_context_create(&desc, &context), FJ_OK);
    ck_assert_int_eq(fj_device_create(context, FJ_DEVICE_CPU, &device, NULL), FJ_OK);
}

static void teardown(void) {
    fj_device_unref(&device);
    fj_context_unref(&context);
    ck_assert_int_eq(failing.live, 0);
    folder_remove(folder);
}

/* ---- Captured tensors -------------------------------------------------------------------------------- */

enum { POSITIONS = 400, DOCUMENTS = 12, BATCHES = 3, MAP = 20 };

enum { DOC, OFFSETS, FLAGS, RANDOM, BYBATCH, MAPPED, FLOATS, HALVES, WIDE, ORIGIN, CAPTURES };

static const fj_binding bindings[CAPTURES] = {
    [DOC] = {"doc", FJ_DTYPE_I32, 1, {-1}},         /* ascending document numbers */
    [OFFSETS] = {"offsets", FJ_DTYPE_I64, 1, {-1}}, /* where documents begin */
    [FLAGS] = {"flags", FJ_DTYPE_BOOL, 1, {-1}},
    [RANDOM] = {"rnd", FJ_DTYPE_I16, 1, {-1}},        /* not sorted */
    [BYBATCH] = {"bydoc", FJ_DTYPE_I32, 2, {-1, -1}}, /* doc, for each batch */
    [MAPPED] = {"blockmap", FJ_DTYPE_BOOL, 3, {-1, -1, -1}},
    [FLOATS] = {"weights", FJ_DTYPE_F32, 1, {-1}},
    [HALVES] = {"halves", FJ_DTYPE_BF16, 1, {-1}}, /* ascending, with NaN */
    [WIDE] = {"span", FJ_DTYPE_I64, 2, {-1, 2}},   /* first and last key of a document */
    [ORIGIN] = {"origin", FJ_DTYPE_I32, 0, {0}},
};

static test_tensor captures[CAPTURES];

static void put_int(int capture, int64_t at, int64_t value) {
    void *to = captures[capture].dl.data;
    switch (bindings[capture].dtype) {
    case FJ_DTYPE_BOOL: ((uint8_t *)to)[at] = value != 0; break;
    case FJ_DTYPE_I16: ((int16_t *)to)[at] = (int16_t)value; break;
    case FJ_DTYPE_I64: ((int64_t *)to)[at] = value; break;
    default: ((int32_t *)to)[at] = (int32_t)value;
    }
}

static void fill_captures(uint64_t seed) {
    static const int64_t dims[CAPTURES][3] = {
        [DOC] = {POSITIONS},    [OFFSETS] = {DOCUMENTS + 1},      [FLAGS] = {POSITIONS},
        [RANDOM] = {POSITIONS}, [BYBATCH] = {BATCHES, POSITIONS}, [MAPPED] = {BATCHES, MAP, MAP},
        [FLOATS] = {POSITIONS}, [HALVES] = {POSITIONS},           [WIDE] = {DOCUMENTS, 2},
    };
    for (int i = 0; i < CAPTURES; i++) {
        free(captures[i].dl.data);
        tensor_init(&captures[i], bindings[i].dtype, bindings[i].rank, dims[i]);
    }
    for (int64_t b = 0; b <= BATCHES; b++) {
        int64_t document = 0, flag = 0;
        for (int64_t i = 0; i < POSITIONS; i++) {
            if (i > 0 && document + 1 < DOCUMENTS && dense_random(&seed) % 37 == 0) {
                document++;
                if (b == 0) put_int(OFFSETS, document, i);
            }
            if (dense_random(&seed) % 60 == 0) flag = !flag;
            if (b > 0) {
                put_int(BYBATCH, (b - 1) * POSITIONS + i, document);
                continue;
            }
            put_int(DOC, i, document);
            put_int(FLAGS, i, flag);
            put_int(RANDOM, i, (int64_t)(dense_random(&seed) % 100) - 50);
            ((float *)captures[FLOATS].dl.data)[i] = (float)sin((double)i / 20);
            fj_dtype_store_float(FJ_DTYPE_BF16, captures[HALVES].dl.data, i,
                                 i == 150 ? (double)NAN : (double)i / 50);
        }
        if (b == 0)
            for (int64_t d = document + 1; d <= DOCUMENTS; d++) put_int(OFFSETS, d, POSITIONS);
    }
    for (int64_t d = 0; d < DOCUMENTS; d++) {
        put_int(WIDE, 2 * d, 30 * d);
        put_int(WIDE, 2 * d + 1, 30 * d + 50);
    }
    for (int64_t i = 0; i < BATCHES * MAP * MAP; i++) put_int(MAPPED, i, dense_random(&seed) % 3 == 0);
    put_int(ORIGIN, 0, 100);
}

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

static fj_mask_maker *maker_of(const fj_mod *mod) {
    fj_mask_maker *maker = NULL;
    fj_error error = {0};
    const fj_status status = fj_mask_maker_create(device, mod, FJ_DTYPE_F32, &maker, &error);
    ck_assert_msg(status == FJ_OK, "%s\n%s", error.text, error.detail ? error.detail : "");
    return maker;
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

/* ---- Calls -------------------------------------------------------------------------------------------------- */

static fj_mod *plain_mod(const char *score, const char *mask) {
    fj_mod *mod = NULL;
    fj_error error = {0};
    const fj_mod_desc desc = {.struct_size = sizeof desc,
                              .score = score,
                              .mask = mask,
                              .bindings = bindings,
                              .binding_count = CAPTURES,
                              .bindings_open = true};
    ck_assert_msg(fj_mod_create(context, &desc, &mod, &error) == FJ_OK, "%s", error.text);
    return mod;
}

static fj_status make_plain(const char *score, const char *mask, const fj_mask_args *args,
                            fj_block_mask **ret_mask, fj_error *error) {
    fj_mod *mod = plain_mod(score, mask);
    fj_mask_maker *maker = NULL;
    fj_status status = fj_mask_maker_create(device, mod, FJ_DTYPE_BF16, &maker, error);
    if (status == FJ_OK) status = fj_block_mask_make(maker, args, NULL, ret_mask, error);
    fj_mask_maker_unref(&maker);
    fj_mod_unref(&mod);
    return status;
}

/* Batches and heads that a mask does not tell apart are kept once; what only the score reads need not be there. */
START_TEST(broadcast) {
    const fj_mask_args args = {
        .struct_size = sizeof args, .batch = 3, .heads = 5, .q_len = 130, .kv_len = 200};
    fj_block_mask *mask = NULL;
    fj_error error = {0};
    ck_assert_msg(make_plain("score + weights[kv]", "q >= kv", &args, &mask, &error) == FJ_OK, "%s",
                  error.text);
    fj_block_mask_info info = fj_block_mask_describe(mask);
    ck_assert(info.one_batch && info.one_head);
    ck_assert_int_eq(mask->rows.count, 3);
    ck_assert_int_eq(info.full, 15 * 3);
    ck_assert_int_eq(info.partial, 15 * 3);
    ck_assert_int_eq(info.empty, 15 * 6);
    fj_block_mask_unref(&mask);
    ck_assert_int_eq(make_plain(NULL, "q >= kv + 64 * h", &args, &mask, NULL), FJ_OK);
    info = fj_block_mask_describe(mask);
    ck_assert(info.one_batch && !info.one_head);
    ck_assert_int_eq(mask->rows.count, 5 * 3);
    fj_block_mask_unref(&mask);
    ck_assert_int_eq(make_plain("score * 2", NULL, &args, &mask, NULL), FJ_OK);
    info = fj_block_mask_describe(mask);
    ck_assert_int_eq(info.full, 15 * 3 * 4);
    ck_assert_int_eq(info.undecided, 0);
    fj_block_mask_unref(&mask);
}
END_TEST

START_TEST(bad_calls) {
    fj_mask_args args = {.struct_size = sizeof args, .batch = 1, .heads = 1, .q_len = 100, .kv_len = 500};
    fj_block_mask *mask = NULL;
    fj_error error = {0};
    fill_captures(1);
    const DLTensor *doc[] = {&captures[DOC].dl}, *flags[] = {&captures[FLAGS].dl};
    args.captures = doc;
    ck_assert_int_eq(make_plain(NULL, "doc[q] == doc[kv]", &args, &mask, &error), FJ_ERR_INDEX);
    /* Key 400 reads as document 0, which the first query is of. */
    ck_assert_str_eq(
        error.text,
        "captured tensor 'doc' I32 [400] is read at index 400 (dimension 0) at b=0 h=0 q=0 kv=400");
    ck_assert_int_eq(make_plain(NULL, "(doc[q] == doc[kv]) & (kv < 400)", &args, &mask, &error), FJ_OK);
    fj_block_mask_unref(&mask);
    args.kv_len = 400;
    args.captures = flags;
    ck_assert_int_eq(make_plain(NULL, "doc[q] == doc[kv]", &args, &mask, &error), FJ_ERR_TENSOR);
    ck_assert_str_eq(error.text, "captured tensor 'doc' is BOOL, not I32");
    args.captures = NULL;
    ck_assert_int_eq(make_plain(NULL, "doc[q] == doc[kv]", &args, &mask, &error), FJ_ERR_TENSOR);
    ck_assert_str_eq(error.text, "captured tensor 'doc' is missing");
    args.kv_len = -1;
    ck_assert_int_eq(make_plain(NULL, "q >= kv", &args, &mask, &error), FJ_ERR_ARGUMENT);
    ck_assert_str_eq(error.text, "kv_len is -1; it is from 0 to 2147483647");
    args.kv_len = 5, args.block_kv = (int64_t)1 << 31;
    ck_assert_int_eq(make_plain(NULL, "q >= kv", &args, &mask, &error), FJ_ERR_ARGUMENT);
    ck_assert(mask == NULL);
    fj_device *reference = NULL;
    fj_mask_maker *maker = NULL;
    fj_mod *mod = plain_mod(NULL, "q >= kv");
    ck_assert_int_eq(fj_device_create(context, FJ_DEVICE_REFERENCE, &reference, NULL), FJ_OK);
    ck_assert_int_eq(fj_mask_maker_create(reference, mod, FJ_DTYPE_F32, &maker, &error), FJ_ERR_UNSUPPORTED);
    ck_assert_int_eq(fj_mask_maker_create(device, mod, FJ_DTYPE_I32, &maker, &error), FJ_ERR_UNSUPPORTED);
    fj_mod_unref(&mod);
    fj_device_unref(&reference);
}
END_TEST

START_TEST(each_allocation_fails) {
    const fj_mask_args args = {.struct_size = sizeof args,
                               .batch = 2,
                               .heads = 2,
                               .q_len = 400,
                               .kv_len = 400,
                               .block_q = 16,
                               .block_kv = 16,
                               .captures = (const DLTensor *[]){&captures[DOC].dl, &captures[OFFSETS].dl}};
    const fj_launch launch = {.struct_size = sizeof launch, .workers = 1};
    fill_captures(1);
    fj_mod *mod = plain_mod(NULL, "(doc[q] == doc[kv]) & (q - offsets[doc[q]] >= kv)");
    fj_mask_maker *maker = maker_of(mod);
    bool reached_the_end = false;
    const long before = failing.live;
    for (long i = 0; !reached_the_end; i++) {
        fj_block_mask *mask = NULL;
        fj_mask_maker *another = NULL;
        failing.countdown = i;
        fj_status status = fj_mask_maker_create(device, mod, FJ_DTYPE_F32, &another, NULL);
        if (status == FJ_OK) status = fj_block_mask_make(another, &args, &launch, &mask, NULL);
        reached_the_end = failing.countdown >= 0;
        failing.countdown = -1;
        ck_assert_msg(status == FJ_ERR_MEMORY || status == FJ_OK, "allocation %ld: status %d", i, status);
        ck_assert(!reached_the_end || status == FJ_OK);
        fj_block_mask_unref(&mask);
        fj_mask_maker_unref(&another);
        ck_assert_msg(failing.live == before, "allocation %ld: blocks are left", i);
    }
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
    tcase_add_test(tests, broadcast);
    tcase_add_test(tests, bad_calls);
    tcase_add_test(tests, each_allocation_fails);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
