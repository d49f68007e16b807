/* Block masks without mods: from and to dense tensors and PyTorch's lists, algebra, slices, pictures; bad lists; failing
 * allocations. Everything is compared with classes counted element by element. */
#include <pthread.h>

#include "tests/attn/mask/dense.h"

static fj_context *context;
static failing_allocator failing;

static void setup(void) {
    failing = (failing_allocator){.countdown = -1};
    fj_context_desc desc = {.struct_size = sizeof desc, .resize = failing_resize, .allocator_user = &failing};
    ck_assert_int_eq(fj_context_create(&desc, &context), FJ_OK);
}

static void teardown(void) {
    fj_context_unref(&context);
    ck_assert_int_eq(failing.live, 0);
}

static const dense_sizes sizes[] = {
    {1, 1, 256, 256, 64, 64}, {2, 3, 100, 77, 16, 32},  {1, 2, 65, 129, 64, 64}, {1, 1, 1, 300, 64, 7},
    {1, 1, 33, 1, 1, 1},      {2, 1, 0, 50, 64, 64},    {1, 1, 50, 0, 64, 64},   {0, 2, 50, 50, 64, 64},
    {3, 1, 90, 90, 128, 40},  {1, 1, 200, 300, 192, 96}};

static fj_block_mask *from_dense(const test_tensor *dense, dense_sizes n) {
    fj_block_mask *mask = NULL;
    fj_error error = {0};
    const fj_status status = fj_block_mask_from_dense(context, &dense->dl, n.bq, n.bkv, &mask, &error);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
    return mask;
}

/* ---- Dense ------------------------------------------------------------------------------------------- */

START_TEST(dense) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(sizes); i++) {
        test_tensor from;
        dense_init(&from, sizes[i]);
        dense_fill(&from, sizes[i], i);
        uint8_t *wanted = dense_classes(from.dl.data, sizes[i]);
        fj_block_mask *mask = from_dense(&from, sizes[i]);
        check_classes(mask, wanted, sizes[i]);
        int64_t counts[3] = {0};
        for (int64_t b = 0; b < dense_blocks(sizes[i]); b++) counts[wanted[b]]++;
        const fj_block_mask_info info = fj_block_mask_describe(mask);
        ck_assert_int_eq(info.empty, counts[FJ_BLOCK_EMPTY]);
        ck_assert_int_eq(info.partial, counts[FJ_BLOCK_PARTIAL]);
        ck_assert_int_eq(info.full, counts[FJ_BLOCK_FULL]);
        fj_block_mask_unref(&mask);
        free(wanted);
        free(from.dl.data);
    }
}
END_TEST

/* Heads that share memory are kept once; keys need not lie side by side. */
START_TEST(dense_strides) {
    const dense_sizes n = {2, 3, 70, 80, 16, 16};
    test_tensor one;
    dense_init(&one, (dense_sizes){2, 1, 80, 70, 16, 16});
    dense_fill(&one, (dense_sizes){2, 1, 80, 70, 16, 16}, 5);
    test_tensor packed;
    dense_init(&packed, n);
    for (int64_t i = 0; i < 2 * 3 * 70 * 80; i++) {
        const int64_t kv = i % 80, q = i / 80 % 70, b = i / 80 / 70 / 3;
        dense_data(&packed)[i] = dense_data(&one)[b * 80 * 70 + kv * 70 + q];
    }
    uint8_t *wanted = dense_classes(packed.dl.data, n);
    int64_t dims[] = {2, 3, 70, 80}, strides[] = {80 * 70, 0, 1, 70};
    one.dl.shape = dims;
    one.dl.strides = strides;
    fj_block_mask *mask = from_dense(&one, n);
    const fj_block_mask_info info = fj_block_mask_describe(mask);
    ck_assert(info.one_head && !info.one_batch);
    ck_assert_int_eq(mask->rows.count, 2 * 5);
    check_classes(mask, wanted, n);
    fj_block_mask_unref(&mask);
    free(wanted);
    free(one.dl.data);
    free(packed.dl.data);
}
END_TEST

/* ---- Lists ------------------------------------------------------------------------------------------- */

enum { KV_NUM, KV, FULL_KV_NUM, FULL_KV, Q_NUM, Q, FULL_Q_NUM, FULL_Q, LISTS };

typedef struct eight {
    test_tensor tensors[LISTS];
    fj_block_lists lists;
} eight;

static void point(eight *e) {
    const DLTensor **const to[] = {&e->lists.kv_num_blocks,      &e->lists.kv_indices,
                                   &e->lists.full_kv_num_blocks, &e->lists.full_kv_indices,
                                   &e->lists.q_num_blocks,       &e->lists.q_indices,
                                   &e->lists.full_q_num_blocks,  &e->lists.full_q_indices};
    for (int i = 0; i < LISTS; i++) *to[i] = &e->tensors[i].dl;
}

static eight *to_lists(const fj_block_mask *mask, dense_sizes n) {
    eight *e = calloc(1, sizeof *e);
    fj_error error = {0};
    for (int i = 0; i < LISTS; i++) {
        const bool by_key = i >= Q_NUM;
        const int64_t dims[] = {n.b, n.h, by_key ? dense_columns(n) : dense_rows(n),
                                by_key ? dense_rows(n) : dense_columns(n)};
        tensor_init(&e->tensors[i], FJ_DTYPE_I32, i % 2 ? 4 : 3, dims);
        e->tensors[i].dl.shape = e->tensors[i].shape;
        if (e->tensors[i].bytes > 0) memset(e->tensors[i].dl.data, 0x5a, e->tensors[i].bytes);
    }
    e->lists = (fj_block_lists){
        .struct_size = sizeof e->lists, .block_q = n.bq, .block_kv = n.bkv, .q_len = n.l, .kv_len = n.s};
    point(e);
    ck_assert_msg(fj_block_mask_to_lists(mask, &e->lists, &error) == FJ_OK, "%s", error.text);
    return e;
}

static void finish_lists(eight *e) {
    for (int i = 0; i < LISTS; i++) free(e->tensors[i].dl.data);
    free(e);
}

static int32_t *ints(const eight *e, int list) { return e->tensors[list].dl.data; }

/* A row of indices is a permutation: what the list has, ascending, then the rest. */
static void check_lists(const eight *e, const uint8_t *classes, dense_sizes n) {
    const int64_t rows = dense_rows(n), columns = dense_columns(n);
    for (int64_t plane = 0; plane < n.b * n.h; plane++)
        for (int list = KV_NUM; list < LISTS; list += 2) {
            const bool by_key = list >= Q_NUM;
            const uint8_t class = list == KV_NUM || list == Q_NUM ? FJ_BLOCK_PARTIAL : FJ_BLOCK_FULL;
            const int64_t height = by_key ? columns : rows, width = by_key ? rows : columns;
            for (int64_t row = 0; row < height; row++) {
                const int32_t *line = ints(e, list + 1) + (plane * height + row) * width;
                int64_t at = 0;
                for (int listed = 1; listed >= 0; listed--) {
                    for (int64_t i = 0; i < width; i++) {
                        const int64_t block = by_key ? i * columns + row : row * columns + i;
                        if ((classes[plane * rows * columns + block] == class) == (listed == 1))
                            ck_assert_int_eq(line[at++], i);
                    }
                    if (listed) ck_assert_int_eq(ints(e, list)[plane * height + row], at);
                }
            }
        }
}

START_TEST(lists) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(sizes); i++) {
        test_tensor from;
        dense_init(&from, sizes[i]);
        dense_fill(&from, sizes[i], 100 + i);
        uint8_t *classes = dense_classes(from.dl.data, sizes[i]);
        fj_block_mask *mask = from_dense(&from, sizes[i]), *again = NULL;
        fj_error error = {0};
        eight *e = to_lists(mask, sizes[i]);
        check_lists(e, classes, sizes[i]);
        /* Any order in a row, anything past the count. */
        for (int64_t row = 0; row < sizes[i].b * sizes[i].h * dense_rows(sizes[i]); row++) {
            int32_t *line = ints(e, KV) + row * dense_columns(sizes[i]), count = ints(e, KV_NUM)[row];
            for (int32_t a = 0, z = count - 1; a < z; a++, z--) {
                const int32_t kept = line[a];
                line[a] = line[z];
                line[z] = kept;
            }
            for (int64_t rest = count; rest < dense_columns(sizes[i]); rest++) line[rest] = -7;
        }
        ck_assert_msg(fj_block_mask_from_lists(context, &e->lists, &again, &error) == FJ_OK, "%s",
                      error.text);
        check_classes(again, classes, sizes[i]);
        ck_assert(fj_block_rows_equal(&mask->rows, &again->rows));
        fj_block_mask_unref(&again);
        /* Without transposes; without full ones these are empty. */
        e->lists.q_num_blocks = e->lists.q_indices = e->lists.full_q_num_blocks = e->lists.full_q_indices =
            NULL;
        ck_assert_int_eq(fj_block_mask_from_lists(context, &e->lists, &again, NULL), FJ_OK);
        check_classes(again, classes, sizes[i]);
        fj_block_mask_unref(&again);
        e->lists.full_kv_num_blocks = e->lists.full_kv_indices = NULL;
        for (int64_t b = 0; b < dense_blocks(sizes[i]); b++)
            if (classes[b] == FJ_BLOCK_FULL) classes[b] = FJ_BLOCK_EMPTY;
        ck_assert_int_eq(fj_block_mask_from_lists(context, &e->lists, &again, NULL), FJ_OK);
        check_classes(again, classes, sizes[i]);
        fj_block_mask_unref(&again);
        fj_block_mask_unref(&mask);
        finish_lists(e);
        free(classes);
        free(from.dl.data);
    }
}
END_TEST

static void refuse(const eight *e, fj_status wanted, const char *text) {
    fj_block_mask *mask = NULL;
    fj_error error = {0};
    ck_assert_int_eq(fj_block_mask_from_lists(context, &e->lists, &mask, &error), wanted);
    ck_assert_msg(strstr(error.text, text) != NULL, "'%s' is not in: %s", text, error.text);
    ck_assert(mask == NULL);
}

/* One fault at a time; what is put in, and the sentence. */
START_TEST(bad_lists) {
    static const struct {
        int list, at, value;
        const char *text;
    } cases[] = {
        {KV_NUM, 2, -1, "kv_num_blocks: b 0, h 1, query block 0: the count is -1; it is from 0 to 5"},
        {KV_NUM, 3, 6, "kv_num_blocks: b 0, h 1, query block 1: the count is 6; it is from 0 to 5"},
        {FULL_KV_NUM, 1, 100, "full_kv_num_blocks: b 0, h 0, query block 1: the count is 100"},
        {KV, 0, 5, "kv_indices: b 0, h 0, query block 0: key block 5 is outside of 0 to 4"},
        {KV, 1, -1, "kv_indices: b 0, h 0, query block 0: key block -1 is outside of 0 to 4"},
        {KV, 1, 0, "kv_indices: b 0, h 0, query block 0: key block 0 is listed twice"},
        {FULL_KV, 0, 1, "full_kv_indices: b 0, h 0, query block 0: key block 1 is listed as partial as well"},
        {Q_NUM, 0, 0, "are not the transposes"},
        {Q, 0, 9, "q_indices: b 0, h 0, key block 0: query block 9 is outside of 0 to 1"},
    };
    const dense_sizes n = {1, 2, 128, 320, 64, 64};
    test_tensor from;
    dense_init(&from, n);
    /* row 0 of a head: partial 0 1, full 2; row 1: partial 0 */
    for (int64_t h = 0; h < 2; h++) {
        uint8_t *to = dense_data(&from) + h * 128 * 320;
        to[0] = to[64] = to[64 * 320] = 1;
        for (int i = 0; i < 64; i++) memset(to + i * 320 + 128, 1, 64);
    }
    fj_block_mask *mask = from_dense(&from, n);
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        eight *e = to_lists(mask, n);
        ints(e, cases[i].list)[cases[i].at] = cases[i].value;
        refuse(e, FJ_ERR_TENSOR, cases[i].text);
        finish_lists(e);
    }
    eight *e = to_lists(mask, n);
    e->lists.kv_num_blocks = NULL;
    refuse(e, FJ_ERR_TENSOR, "kv_num_blocks is missing");
    point(e);
    e->lists.full_kv_indices = NULL;
    refuse(e, FJ_ERR_TENSOR, "full_kv_indices is missing: full_kv_num_blocks is given");
    point(e);
    e->lists.full_q_num_blocks = NULL;
    refuse(e, FJ_ERR_TENSOR, "full_q_num_blocks is missing");
    point(e);
    e->lists.q_num_blocks = e->lists.q_indices = NULL;
    refuse(e, FJ_ERR_TENSOR, "q_num_blocks is missing");
    point(e);
    e->lists.q_len = 129;
    refuse(e, FJ_ERR_TENSOR, "q_len is 129, which are 3 blocks of 64; the lists have 2");
    e->lists.q_len = -1, e->lists.block_kv = -3;
    refuse(e, FJ_ERR_ARGUMENT, "block_kv is -3");
    e->lists.block_kv = 64;
    e->tensors[KV].dl.dtype = fj_dtype_to_dlpack(FJ_DTYPE_F32);
    refuse(e, FJ_ERR_TENSOR, "kv_indices is F32, not I32 or I64");
    e->tensors[KV].dl.dtype = fj_dtype_to_dlpack(FJ_DTYPE_I32);
    e->tensors[KV].dl.ndim = 3;
    refuse(e, FJ_ERR_TENSOR, "kv_indices has rank 3, not 4: [B,H,Qb,KVb]");
    e->tensors[KV].dl.ndim = 4;
    e->tensors[FULL_KV_NUM].dl.shape[1] = 1;
    e->tensors[FULL_KV].dl.shape[1] = 1;
    refuse(e, FJ_ERR_TENSOR, "different extents in dimension 1");
    finish_lists(e);
    fj_block_mask_unref(&mask);
    free(from.dl.data);
}
END_TEST

/* ---- Threads ------------------------------------------------------------------------------------------ */

static void *ask_for_columns(void *argument) { return (void *)(uintptr_t)fj_mask_columns(argument); }

/* Threads that ask at the same time get one transpose. */
START_TEST(threads) {
    const dense_sizes n = {2, 2, 150, 130, 8, 8};
    enum { THREADS = 8 };
    pthread_t crew[THREADS];
    void *columns[THREADS];
    test_tensor from;
    dense_init(&from, n);
    dense_fill(&from, n, 6);
    fj_block_mask *mask = from_dense(&from, n);
    const size_t before = fj_block_mask_describe(mask).bytes;
    for (int i = 0; i < THREADS; i++)
        ck_assert_int_eq(pthread_create(&crew[i], NULL, ask_for_columns, mask), 0);
    for (int i = 0; i < THREADS; i++) ck_assert_int_eq(pthread_join(crew[i], &columns[i]), 0);
    for (int i = 0; i < THREADS; i++) ck_assert_ptr_eq(columns[i], columns[0]);
    ck_assert_int_eq(fj_block_rows_count(columns[0], 0, mask->kv_blocks * 4, FJ_BLOCK_FULL),
                     fj_block_mask_describe(mask).full);
    ck_assert(fj_block_mask_describe(mask).bytes > before);
    fj_block_mask_unref(&mask);
    free(from.dl.data);
}
END_TEST

/* ---- Algebra ----------------------------------------------------------------------------------------- */

START_TEST(algebra) {
    const dense_sizes n = {2, 3, 100, 77, 16, 32}, one = {1, 3, 100, 77, 16, 32};
    test_tensor from, other;
    dense_init(&from, n);
    dense_init(&other, one);
    dense_fill(&from, n, 1);
    dense_fill(&other, one, 2);
    uint8_t *a = dense_classes(from.dl.data, n), *b = dense_classes(other.dl.data, one),
            *wanted = malloc(dense_blocks(n));
    fj_block_mask *mask_a = from_dense(&from, n), *mask_b = from_dense(&other, one), *result = NULL;
    for (int rule = 0; rule < 3; rule++) {
        for (int64_t i = 0; i < dense_blocks(n); i++) {
            const uint8_t x = a[i], y = b[i % dense_blocks(one)];
            wanted[i] = (uint8_t)(rule == 0 ? (x < y ? x : y) : rule == 1 ? (x > y ? x : y) : 2 - x);
        }
        const fj_status status = rule == 0 ? fj_block_mask_and(mask_a, mask_b, &result, NULL)
                               : rule == 1 ? fj_block_mask_or(mask_b, mask_a, &result, NULL)
                                           : fj_block_mask_not(mask_a, &result, NULL);
        ck_assert_int_eq(status, FJ_OK);
        check_classes(result, wanted, n);
        fj_block_mask_unref(&result);
    }
    fj_error error = {0};
    fj_block_mask *shorter = NULL;
    ck_assert_int_eq(fj_block_mask_crop(mask_b, 99, 77, &shorter, NULL), FJ_OK);
    ck_assert_int_eq(fj_block_mask_and(mask_a, shorter, &result, &error), FJ_ERR_TENSOR);
    ck_assert_str_eq(error.text, "one mask is of 100 queries and 77 keys, the other of 99 and 77");
    fj_block_mask_unref(&shorter);
    fj_block_mask_unref(&mask_a);
    fj_block_mask_unref(&mask_b);
    free(a), free(b), free(wanted);
    free(from.dl.data), free(other.dl.data);
}
END_TEST

START_TEST(parts) {
    const dense_sizes n = {3, 2, 150, 130, 32, 16}, part = {2, 1, 64, 130, 32, 16};
    const int64_t batches[] = {1, 3}, heads[] = {1, 2}, rows[] = {1, 3};
    test_tensor from, cut;
    dense_init(&from, n);
    dense_init(&cut, part);
    dense_fill(&from, n, 9);
    for (int64_t b = 0; b < 2; b++)
        memcpy(dense_data(&cut) + b * 64 * 130, dense_data(&from) + (((b + 1) * 2 + 1) * 150 + 32) * 130,
               64 * 130);
    uint8_t *wanted = dense_classes(cut.dl.data, part);
    fj_block_mask *mask = from_dense(&from, n), *result = NULL;
    ck_assert_int_eq(fj_block_mask_slice(mask, batches, heads, rows, &result, NULL), FJ_OK);
    check_classes(result, wanted, part);
    ck_assert_int_eq(fj_block_mask_describe(result).q_len, 64);
    fj_block_mask_unref(&result);
    /* The last block of queries has 150 - 128 of them. */
    ck_assert_int_eq(fj_block_mask_slice(mask, batches, heads, (int64_t[]){4, 5}, &result, NULL), FJ_OK);
    ck_assert_int_eq(fj_block_mask_describe(result).q_len, 22);
    fj_block_mask_unref(&result);
    fj_error error = {0};
    ck_assert_int_eq(fj_block_mask_slice(mask, batches, heads, (int64_t[]){4, 6}, &result, &error),
                     FJ_ERR_ARGUMENT);
    ck_assert_str_eq(error.text, "query blocks [4, 6) are not a range of the mask's 5");
    /* Cropped at block ends the classes are those of a shorter mask. */
    const dense_sizes crop = {3, 2, 96, 64, 32, 16};
    uint8_t *all = dense_classes(from.dl.data, n);
    ck_assert_int_eq(fj_block_mask_crop(mask, 96, 64, &result, NULL), FJ_OK);
    uint8_t *got = mask_classes(result);
    for (int64_t i = 0; i < dense_blocks(crop); i++)
        ck_assert_int_eq(got[i], all[(i / 12 * 5 + i / 4 % 3) * 9 + i % 4]);
    ck_assert_int_eq(fj_block_mask_check(result, 3, 2, 96, 64, NULL), FJ_OK);
    ck_assert_int_eq(fj_block_mask_check(result, 3, 2, 150, 130, &error), FJ_ERR_TENSOR);
    ck_assert_str_eq(error.text,
                     "the block mask was made for 96 queries and 64 keys, and is called with 150 and 130");
    ck_assert_int_eq(fj_block_mask_check(result, 1, 2, 96, 64, &error), FJ_ERR_TENSOR);
    fj_block_mask_unref(&result);
    fj_block_mask_unref(&mask);
    free(got), free(all), free(wanted);
    free(from.dl.data), free(cut.dl.data);
}
END_TEST

/* ---- Copies for a device ------------------------------------------------------------------------------- */

/* A copy says what the first one says, which may go before it; it is a mask to all that the host does. */
START_TEST(copies) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(sizes); i++) {
        test_tensor from;
        fj_device *device = NULL;
        fj_block_mask *made[3] = {0}, *inverse = NULL;
        fj_error error = {0};
        dense_init(&from, sizes[i]);
        dense_fill(&from, sizes[i], i);
        uint8_t *wanted = dense_classes(from.dl.data, sizes[i]);
        fj_block_mask *mask = from_dense(&from, sizes[i]);
        for (int n = 0; n < 3; n++) { /* of the mask, of a copy, where there is no copy to make */
            const fj_device_kind kind = n < 2 ? FJ_DEVICE_EMU : FJ_DEVICE_REFERENCE;
            ck_assert_int_eq(fj_device_create(context, kind, &device, &error), FJ_OK);
            const fj_status status = fj_block_mask_copy_to(device, n == 1 ? made[0] : mask, &made[n], &error);
            ck_assert_msg(status == FJ_OK, "%s", error.text);
            fj_device_unref(&device);
        }
        fj_block_mask_unref(&mask);
        for (int n = 0; n < 3; n++) check_classes(made[n], wanted, sizes[i]);
        ck_assert_int_eq(fj_block_mask_not(made[1], &inverse, NULL), FJ_OK);
        fj_block_mask_unref(&made[0]);
        const fj_block_mask_info info = fj_block_mask_describe(made[1]);
        ck_assert_int_eq(fj_block_mask_describe(inverse).full, info.empty);
        eight *e = to_lists(made[1], sizes[i]);
        finish_lists(e);
        fj_block_mask_unref(&inverse);
        fj_block_mask_unref(&made[1]);
        fj_block_mask_unref(&made[2]);
        free(wanted);
        free(from.dl.data);
    }
    ck_assert_int_eq(fj_block_mask_copy_to(NULL, NULL, NULL, NULL), FJ_ERR_ARGUMENT);
}
END_TEST

/* ---- Pictures ---------------------------------------------------------------------------------------- */

START_TEST(pictures) {
    const dense_sizes n = {1, 1, 6, 6, 2, 2};
    test_tensor from;
    dense_init(&from, n);
    for (int q = 0; q < 6; q++) memset(dense_data(&from) + q * 6, 1, (size_t)q + 1);
    fj_block_mask *mask = from_dense(&from, n);
    fj_text text = {0};
    ck_assert_int_eq(fj_block_mask_text(mask, 0, 0, &text, NULL), FJ_OK);
    ck_assert_str_eq(text.data, "▒▒····\n██▒▒··\n████▒▒\n");
    fj_text_finish(&text);
    ck_assert_int_eq(fj_block_mask_text(mask, 1, 1, &text, NULL), FJ_OK);
    ck_assert_str_eq(text.data, "▒▒\n"); /* 3 full and 3 partial of 9: a half */
    fj_text_finish(&text);
    ck_assert_int_eq(fj_block_mask_svg(mask, "a<b & \xff", 0, 0, &text, NULL), FJ_OK);
    ck_assert(strstr(text.data, "<text x=\"36\" y=\"22\">a&lt;b &amp; ?</text>") != NULL);
    ck_assert(strstr(text.data, "<path class=\"s4\" d=\"M0 0h1v1h-1zM1 1h1v1h-1zM2 2h1v1h-1z\"/>") != NULL);
    ck_assert(strstr(text.data, "<path class=\"s8\" d=\"M0 1h1v1h-1zM0 2h2v1h-2z\"/>") != NULL);
    ck_assert(strstr(text.data, "3 full") != NULL && strstr(text.data, "3 empty, 33.3333 % of all") != NULL);
    fj_text_finish(&text);
    fj_block_mask_unref(&mask);
    free(from.dl.data);
}
END_TEST

/* ---- Memory ------------------------------------------------------------------------------------------ */

/* Everything that allocates, in a row. */
static fj_status go(fj_device *device, const test_tensor *from, const eight *e) {
    fj_block_mask *masks[7] = {0};
    fj_text text = {0};
    const int64_t all[] = {0, 1};
    fj_status status = fj_block_mask_from_dense(context, &from->dl, 16, 32, &masks[0], NULL);
    if (status == FJ_OK) status = fj_block_mask_from_lists(context, &e->lists, &masks[1], NULL);
    if (status == FJ_OK) status = fj_block_mask_or(masks[0], masks[1], &masks[2], NULL);
    if (status == FJ_OK) status = fj_block_mask_not(masks[0], &masks[3], NULL);
    if (status == FJ_OK) status = fj_block_mask_slice(masks[0], all, all, all, &masks[4], NULL);
    if (status == FJ_OK) status = fj_block_mask_crop(masks[0], 50, 50, &masks[5], NULL);
    if (status == FJ_OK) status = fj_block_mask_copy_to(device, masks[0], &masks[6], NULL);
    if (status == FJ_OK) status = fj_block_mask_to_lists(masks[2], &e->lists, NULL);
    if (status == FJ_OK) status = fj_block_mask_text(masks[0], 0, 0, &text, NULL);
    fj_text_finish(&text);
    if (status == FJ_OK) status = fj_block_mask_svg(masks[0], NULL, 0, 0, &text, NULL);
    fj_text_finish(&text);
    for (size_t i = 0; i < FJ_ARRAY_LEN(masks); i++) fj_block_mask_unref(&masks[i]);
    return status;
}

START_TEST(each_allocation_fails) {
    const dense_sizes n = {1, 2, 100, 77, 16, 32};
    test_tensor from;
    dense_init(&from, n);
    dense_fill(&from, n, 4);
    fj_block_mask *mask = from_dense(&from, n);
    eight *e = to_lists(mask, n);
    fj_block_mask_unref(&mask);
    fj_device *device = NULL;
    ck_assert_int_eq(fj_device_create(context, FJ_DEVICE_EMU, &device, NULL), FJ_OK);
    const long before = failing.live;
    bool reached_the_end = false;
    for (long i = 0; !reached_the_end; i++) {
        failing.countdown = i;
        const fj_status status = go(device, &from, e);
        reached_the_end = failing.countdown >= 0;
        failing.countdown = -1;
        ck_assert_msg(status == (reached_the_end ? FJ_OK : FJ_ERR_MEMORY), "allocation %ld: status %d", i,
                      status);
        ck_assert_msg(failing.live == before, "allocation %ld: blocks are left", i);
    }
    fj_device_unref(&device);
    finish_lists(e);
    free(from.dl.data);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attn");
    TCase *tests = tcase_create("mask objects");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, dense);
    tcase_add_test(tests, dense_strides);
    tcase_add_test(tests, lists);
    tcase_add_test(tests, bad_lists);
    tcase_add_test(tests, threads);
    tcase_add_test(tests, algebra);
    tcase_add_test(tests, parts);
    tcase_add_test(tests, copies);
    tcase_add_test(tests, pictures);
    tcase_add_test(tests, each_allocation_fails);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
