/* A device, and captured tensors of the kinds that masks read. */
#ifndef FJ_TESTS_ATTN_MASK_TABLES_H
#define FJ_TESTS_ATTN_MASK_TABLES_H

#include "tests/attn/mask/dense.h"

static char folder[64];
static failing_allocator failing;
static fj_context *context;
static fj_device *device;

static inline void setup(void) {
    failing = (failing_allocator){.countdown = -1};
    fj_context_desc desc = {.struct_size = sizeof desc, .resize = failing_resize, .allocator_user = &failing};
    folder_create(folder);
    setenv("FLEXJIT_CACHE_PATH", folder, 1);
    ck_assert_int_eq(fj_context_create(&desc, &context), FJ_OK);
    ck_assert_int_eq(fj_device_create(context, FJ_DEVICE_CPU, &device, NULL), FJ_OK);
}

static inline void teardown(void) {
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

static inline void put_int(int capture, int64_t at, int64_t value) {
    void *to = captures[capture].dl.data;
    switch (bindings[capture].dtype) {
    case FJ_DTYPE_BOOL: ((uint8_t *)to)[at] = value != 0; break;
    case FJ_DTYPE_I16: ((int16_t *)to)[at] = (int16_t)value; break;
    case FJ_DTYPE_I64: ((int64_t *)to)[at] = value; break;
    default: ((int32_t *)to)[at] = (int32_t)value;
    }
}

static inline void fill_captures(uint64_t seed) {
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

static inline fj_mask_maker *maker_of(const fj_mod *mod) {
    fj_mask_maker *maker = NULL;
    fj_error error = {0};
    const fj_status status = fj_mask_maker_create(device, mod, FJ_DTYPE_F32, &maker, &error);
    ck_assert_msg(status == FJ_OK, "%s\n%s", error.text, error.detail ? error.detail : "");
    return maker;
}

#endif
