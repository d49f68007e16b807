/* Block masks from and to dense tensors. */
#include <string.h>

#include "attn/mask/mask.h"

/* ---- From dense ------------------------------------------------------------------------------------ */

enum { SOME_SEEN = 1, SOME_HIDDEN = 2 };

/* What is in `count` bools: bits of the above. */
static unsigned look(const char *bools, int64_t stride, int64_t count) {
    unsigned any = 0, all = 1;
    if (stride == 1) {
        for (int64_t i = 0; i < count; i++) {
            any |= bools[i] != 0;
            all &= bools[i] != 0;
        }
    } else {
        for (int64_t i = 0; i < count; i++) {
            any |= bools[i * stride] != 0;
            all &= bools[i * stride] != 0;
        }
    }
    return (any ? SOME_SEEN : 0u) | (all ? 0u : SOME_HIDDEN);
}

static fj_block_class class_of(unsigned seen) {
    if (!(seen & SOME_SEEN)) return FJ_BLOCK_EMPTY;
    return seen & SOME_HIDDEN ? FJ_BLOCK_PARTIAL : FJ_BLOCK_FULL;
}

typedef struct dense_reader {
    const fj_tensor *dense;
    const fj_mask_shape *shape;
    unsigned char *seen; /* a block of the row at work each */
    fj_rows_writer writer;
} dense_reader;

static void read_row(dense_reader *r, const char *plane, int64_t row) {
    const fj_mask_shape *shape = r->shape;
    const int64_t blocks = fj_mask_blocks(shape->kv_len, shape->block_kv), *strides = r->dense->strides;
    const int64_t first = row * shape->block_q, last = first + shape->block_q;
    memset(r->seen, 0, (size_t)blocks);
    for (int64_t q = first; q < last && q < shape->q_len; q++) {
        for (int64_t block = 0; block < blocks; block++) {
            if (r->seen[block] == (SOME_SEEN | SOME_HIDDEN)) continue;
            const int64_t key = block * shape->block_kv, left = shape->kv_len - key;
            const char *from = plane + q * strides[2] + key * strides[3];
            r->seen[block] |=
                (unsigned char)look(from, strides[3], left < shape->block_kv ? left : shape->block_kv);
        }
    }
    for (int64_t block = 0; block < blocks; block++)
        fj_rows_put(&r->writer, (int32_t)block, (int32_t)block + 1, class_of(r->seen[block]));
    fj_rows_end_row(&r->writer);
}

static fj_status read_dense(const fj_allocator *allocator, const fj_tensor *dense, const fj_mask_shape *shape,
                            fj_block_rows *ret_rows, fj_error *error) {
    const int64_t blocks = fj_mask_blocks(shape->kv_len, shape->block_kv);
    const size_t size = (size_t)blocks + 1;
    dense_reader r = {.dense = dense, .shape = shape, .seen = fj_alloc(allocator, size)};
    if (!r.seen) return fj_mask_no_memory(error);
    fj_rows_writer_init(&r.writer, allocator);
    for (int64_t plane = 0; plane < fj_mask_planes(shape); plane++) {
        const int64_t b = plane / shape->planes_h, h = plane % shape->planes_h;
        const char *from = dense->data + b * dense->strides[0] + h * dense->strides[1];
        for (int64_t row = 0; row < fj_mask_blocks(shape->q_len, shape->block_q); row++)
            read_row(&r, from, row);
    }
    fj_free(allocator, r.seen, size);
    const fj_status status = fj_rows_take(&r.writer, (int32_t)blocks, ret_rows);
    return status == FJ_OK ? status : fj_mask_no_memory(error);
}

/* Batches or heads of stride 0 are alike. */
static int64_t planes_along(const fj_tensor *dense, int axis) {
    return dense->shape[axis] > 1 && dense->strides[axis] == 0 ? 1 : dense->shape[axis];
}

fj_status fj_block_mask_from_dense(fj_context *context, const DLTensor *dense, int64_t block_q,
                                   int64_t block_kv, fj_block_mask **ret_mask, fj_error *error) {
    static const int64_t any[] = {-1, -1, -1, -1};
    const fj_mask_expected want = {"the dense mask", "[B,H,L,S]", 4, FJ_DTYPE_BOOL, FJ_DTYPE_BOOL, any};
    if (!context || !ret_mask) return fj_error_set(error, FJ_ERR_ARGUMENT, "context or ret_mask is NULL");
    fj_tensor from;
    fj_status status = fj_mask_read_tensor(dense, &want, &from, error);
    if (status != FJ_OK) return status;
    fj_mask_shape shape = {
        .batch = from.shape[0],
        .heads = from.shape[1],
        .q_len = from.shape[2],
        .kv_len = from.shape[3],
        .block_q = block_q,
        .block_kv = block_kv,
        .planes_b = planes_along(&from, 0),
        .planes_h = planes_along(&from, 1),
    };
    fj_block_rows rows;
    status = fj_mask_check_shape(&shape, FJ_MASK_BLOCK, error);
    if (status == FJ_OK) status = read_dense(&context->allocator, &from, &shape, &rows, error);
    return status == FJ_OK ? fj_mask_create(context, &shape, &rows, ret_mask, error) : status;
}

/* ---- To dense -------------------------------------------------------------------------------------- */

static void write_row(const fj_block_mask *mask, int64_t row, const fj_tensor *to, char *line) {
    fj_row_cursor cursor = fj_row_begin(&mask->rows, row);
    for (int32_t at = 0, end = 0; at < mask->kv_blocks; at = end) {
        const fj_block_class class = fj_row_stretch(&cursor, at, &end);
        const char value = to->dtype == FJ_DTYPE_BOOL ? (char)(class != FJ_BLOCK_EMPTY) : (char)class;
        for (int32_t i = at; i < end; i++) line[i * to->strides[3]] = value;
    }
}

fj_status fj_block_mask_to_dense(const fj_block_mask *mask, const DLTensor *classes, fj_error *error) {
    if (!mask) return fj_error_set(error, FJ_ERR_ARGUMENT, "mask is NULL");
    const int64_t dims[] = {mask->shape.batch, mask->shape.heads, mask->q_blocks, mask->kv_blocks};
    const fj_mask_expected want = {"classes", "[B,H,Qb,KVb]", 4, FJ_DTYPE_U8, FJ_DTYPE_BOOL, dims};
    fj_tensor to;
    const fj_status status = fj_mask_read_tensor(classes, &want, &to, error);
    if (status != FJ_OK) return status;
    for (int64_t b = 0; b < mask->shape.batch; b++)
        for (int64_t h = 0; h < mask->shape.heads; h++)
            for (int64_t row = 0; row < mask->q_blocks; row++)
                write_row(mask, fj_mask_plane(&mask->shape, b, h) * mask->q_blocks + row, &to,
                          to.data + b * to.strides[0] + h * to.strides[1] + row * to.strides[2]);
    return FJ_OK;
}
