/* Dense masks and the classes of their blocks, counted element by element. */
#ifndef FJ_TESTS_ATTN_MASK_DENSE_H
#define FJ_TESTS_ATTN_MASK_DENSE_H

#include "attn/mask/mask.h"
#include "base/dtype.h"
#include "tests/attn/calls.h"

typedef struct dense_sizes {
    int64_t b, h, l, s, bq, bkv;
} dense_sizes;

static inline int64_t dense_rows(dense_sizes n) { return (n.l + n.bq - 1) / n.bq; }
static inline int64_t dense_columns(dense_sizes n) { return (n.s + n.bkv - 1) / n.bkv; }
static inline int64_t dense_blocks(dense_sizes n) { return n.b * n.h * dense_rows(n) * dense_columns(n); }

static inline uint32_t dense_random(uint64_t *state) {
    *state = *state * 6364136223846793005U + 1442695040888963407U;
    return (uint32_t)(*state >> 33);
}

/* Stripes, blobs and noise, so that blocks of every class are there. */
static inline void dense_fill(test_tensor *dense, dense_sizes n, uint64_t seed) {
    if (dense->dl.data == NULL) return;
    uint8_t *to = dense->dl.data;
    for (int64_t b = 0; b < n.b; b++)
        for (int64_t h = 0; h < n.h; h++) {
            const int64_t low = dense_random(&seed) % (uint32_t)(n.s + 1);
            const int64_t wide = 1 + dense_random(&seed) % (uint32_t)(n.s + 1);
            for (int64_t q = 0; q < n.l; q++)
                for (int64_t kv = 0; kv < n.s; kv++) {
                    const bool band = kv + low >= q && kv + low < q + wide;
                    *to++ = (uint8_t)(dense_random(&seed) % 997 == 0 ? !band : band);
                }
        }
}

/* The elements of a tensor that has some. */
static inline uint8_t *dense_data(const test_tensor *dense) {
    ck_assert_ptr_nonnull(dense->dl.data);
    return dense->dl.data;
}

static inline void dense_init(test_tensor *dense, dense_sizes n) {
    tensor_init(dense, FJ_DTYPE_BOOL, 4, (int64_t[]){n.b, n.h, n.l, n.s});
}

/* Class of each block, packed [B,H,Qb,KVb]. */
static inline uint8_t *dense_classes(const uint8_t *dense, dense_sizes n) {
    uint8_t *classes = calloc((size_t)dense_blocks(n) + 1, 1), *to = classes;
    if (!classes) abort();
    for (int64_t plane = 0; plane < n.b * n.h; plane++)
        for (int64_t row = 0; row < dense_rows(n); row++)
            for (int64_t column = 0; column < dense_columns(n); column++) {
                int64_t seen = 0, all = 0;
                for (int64_t q = row * n.bq; q < (row + 1) * n.bq && q < n.l; q++)
                    for (int64_t kv = column * n.bkv; kv < (column + 1) * n.bkv && kv < n.s; kv++) {
                        seen += dense[(plane * n.l + q) * n.s + kv] != 0;
                        all++;
                    }
                *to++ = (uint8_t)(seen == 0     ? FJ_BLOCK_EMPTY
                                  : seen == all ? FJ_BLOCK_FULL
                                                : FJ_BLOCK_PARTIAL);
            }
    return classes;
}

/* What the mask says, packed [B,H,Qb,KVb]; to free. */
static inline uint8_t *mask_classes(const fj_block_mask *mask) {
    const int64_t dims[] = {mask->shape.batch, mask->shape.heads, mask->q_blocks, mask->kv_blocks};
    test_tensor classes;
    fj_error error = {0};
    tensor_init(&classes, FJ_DTYPE_U8, 4, dims);
    ck_assert_msg(fj_block_mask_to_dense(mask, &classes.dl, &error) == FJ_OK, "%s", error.text);
    return classes.dl.data ? classes.dl.data : calloc(1, 1);
}

static inline void check_classes(const fj_block_mask *mask, const uint8_t *wanted, dense_sizes n) {
    uint8_t *got = mask_classes(mask);
    for (int64_t i = 0; i < dense_blocks(n); i++)
        ck_assert_msg(got[i] == wanted[i], "block %lld (row %lld, column %lld) has class %d, not %d",
                      (long long)i, (long long)(i / dense_columns(n)), (long long)(i % dense_columns(n)),
                      got[i], wanted[i]);
    free(got);
}

#endif
