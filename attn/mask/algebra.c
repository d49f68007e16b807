/* Block masks from block masks: and, or, not, slices, shorter lengths. */
#include <stdio.h>

#include "attn/mask/mask.h"

/* A new mask of what the writer has, or the error of what went wrong. */
static fj_status finish(fj_context *context, const fj_mask_shape *shape, fj_rows_writer *writer,
                        fj_block_mask **ret_mask, fj_error *error) {
    fj_block_rows rows;
    const int32_t columns = (int32_t)fj_mask_blocks(shape->kv_len, shape->block_kv);
    if (fj_rows_take(writer, columns, &rows) != FJ_OK) return fj_mask_no_memory(error);
    return fj_mask_create(context, shape, &rows, ret_mask, error);
}

/* ---- Combinations ---------------------------------------------------------------------------------- */

static fj_block_class both(fj_block_class a, fj_block_class b) { return a < b ? a : b; }
static fj_block_class either(fj_block_class a, fj_block_class b) { return a > b ? a : b; }
_Static_assert(FJ_BLOCK_EMPTY < FJ_BLOCK_PARTIAL && FJ_BLOCK_PARTIAL < FJ_BLOCK_FULL, "both, either");

static fj_status check_alike(const fj_mask_shape *a, const fj_mask_shape *b, fj_error *error) {
    if (a->q_len != b->q_len || a->kv_len != b->kv_len)
        return fj_error_set(
            error, FJ_ERR_TENSOR, "one mask is of %lld queries and %lld keys, the other of %lld and %lld",
            (long long)a->q_len, (long long)a->kv_len, (long long)b->q_len, (long long)b->kv_len);
    if (a->block_q != b->block_q || a->block_kv != b->block_kv)
        return fj_error_set(error, FJ_ERR_TENSOR,
                            "one mask has blocks of %lld queries and %lld keys, the other of %lld and %lld",
                            (long long)a->block_q, (long long)a->block_kv, (long long)b->block_q,
                            (long long)b->block_kv);
    if ((a->batch != b->batch && a->batch != 1 && b->batch != 1) ||
        (a->heads != b->heads && a->heads != 1 && b->heads != 1))
        return fj_error_set(error, FJ_ERR_TENSOR,
                            "one mask has batch %lld and %lld heads, the other batch %lld and %lld heads",
                            (long long)a->batch, (long long)a->heads, (long long)b->batch,
                            (long long)b->heads);
    return FJ_OK;
}

/* Extents or planes along an axis: 1 gives way. */
static int64_t wider(int64_t a, int64_t b) { return a == 1 ? b : a; }

static void combine_row(fj_rows_writer *writer, fj_row_cursor a, fj_row_cursor b,
                        fj_block_class (*rule)(fj_block_class, fj_block_class)) {
    for (int32_t at = 0, end = 0, end_b = 0; at < a.columns; at = end) {
        const fj_block_class of_a = fj_row_stretch(&a, at, &end), of_b = fj_row_stretch(&b, at, &end_b);
        if (end_b < end) end = end_b;
        fj_rows_put(writer, at, end, rule(of_a, of_b));
    }
    fj_rows_end_row(writer);
}

static fj_status combine(const fj_block_mask *a, const fj_block_mask *b,
                         fj_block_class (*rule)(fj_block_class, fj_block_class), fj_block_mask **ret_mask,
                         fj_error *error) {
    if (!a || !b || !ret_mask) return fj_error_set(error, FJ_ERR_ARGUMENT, "a, b or ret_mask is NULL");
    const fj_status status = check_alike(&a->shape, &b->shape, error);
    if (status != FJ_OK) return status;
    fj_mask_shape shape = a->shape;
    shape.batch = wider(a->shape.batch, b->shape.batch);
    shape.heads = wider(a->shape.heads, b->shape.heads);
    shape.planes_b = wider(a->shape.planes_b, b->shape.planes_b);
    shape.planes_h = wider(a->shape.planes_h, b->shape.planes_h);
    fj_rows_writer writer;
    fj_rows_writer_init(&writer, &a->context->allocator);
    for (int64_t plane = 0; plane < fj_mask_planes(&shape); plane++) {
        const int64_t batch = plane / shape.planes_h, head = plane % shape.planes_h;
        const int64_t row_a = fj_mask_plane(&a->shape, batch, head) * a->q_blocks;
        const int64_t row_b = fj_mask_plane(&b->shape, batch, head) * b->q_blocks;
        for (int64_t row = 0; row < a->q_blocks; row++)
            combine_row(&writer, fj_row_begin(&a->rows, row_a + row), fj_row_begin(&b->rows, row_b + row),
                        rule);
    }
    return finish(a->context, &shape, &writer, ret_mask, error);
}

fj_status fj_block_mask_and(const fj_block_mask *a, const fj_block_mask *b, fj_block_mask **ret_mask,
                            fj_error *error) {
    return combine(a, b, both, ret_mask, error);
}

fj_status fj_block_mask_or(const fj_block_mask *a, const fj_block_mask *b, fj_block_mask **ret_mask,
                           fj_error *error) {
    return combine(a, b, either, ret_mask, error);
}

static fj_block_class opposite(fj_block_class a, fj_block_class b) {
    (void)b;
    return (fj_block_class)(FJ_BLOCK_FULL - a);
}

fj_status fj_block_mask_not(const fj_block_mask *mask, fj_block_mask **ret_mask, fj_error *error) {
    return combine(mask, mask, opposite, ret_mask, error);
}

/* ---- Parts ------------------------------------------------------------------------------------------ */

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* any: the axis stands for any extent. */
static fj_status check_range(const char *what, const int64_t range[2], int64_t extent, bool any,
                             fj_error *error) {
    if (range[0] >= 0 && range[0] <= range[1] && (any || range[1] <= extent)) return FJ_OK;
    return fj_error_set(error, FJ_ERR_ARGUMENT, "%s [%lld, %lld) are not a range of the mask's %lld", what,
                        (long long)range[0], (long long)range[1], (long long)extent);
}

static void copy_row(fj_rows_writer *writer, fj_row_cursor from, int32_t columns) {
    for (int32_t at = 0, end = 0; at < columns; at = end) {
        const fj_block_class class = fj_row_stretch(&from, at, &end);
        fj_rows_put(writer, at, end < columns ? end : columns, class);
    }
    fj_rows_end_row(writer);
}

fj_status fj_block_mask_slice(const fj_block_mask *mask, const int64_t batches[2], const int64_t heads[2],
                              const int64_t q_blocks[2], fj_block_mask **ret_mask, fj_error *error) {
    if (!mask || !batches || !heads || !q_blocks || !ret_mask)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "mask, a range or ret_mask is NULL");
    const fj_mask_shape *from = &mask->shape;
    fj_status status = check_range("batches", batches, from->batch, from->batch == 1, error);
    if (status == FJ_OK) status = check_range("heads", heads, from->heads, from->heads == 1, error);
    if (status == FJ_OK) status = check_range("query blocks", q_blocks, mask->q_blocks, false, error);
    if (status != FJ_OK) return status;
    fj_mask_shape shape = *from;
    shape.batch = batches[1] - batches[0];
    shape.heads = heads[1] - heads[0];
    shape.q_len =
        least(q_blocks[1] * from->block_q, from->q_len) - least(q_blocks[0] * from->block_q, from->q_len);
    shape.planes_b = least(from->planes_b == 1 ? 1 : shape.batch, shape.batch);
    shape.planes_h = least(from->planes_h == 1 ? 1 : shape.heads, shape.heads);
    fj_rows_writer writer;
    fj_rows_writer_init(&writer, &mask->context->allocator);
    for (int64_t b = 0; b < shape.planes_b; b++)
        for (int64_t h = 0; h < shape.planes_h; h++)
            for (int64_t row = q_blocks[0]; row < q_blocks[1]; row++)
                copy_row(
                    &writer,
                    fj_row_begin(&mask->rows,
                                 fj_mask_plane(from, batches[0] + b, heads[0] + h) * mask->q_blocks + row),
                    mask->kv_blocks);
    return finish(mask->context, &shape, &writer, ret_mask, error);
}

fj_status fj_block_mask_crop(const fj_block_mask *mask, int64_t q_len, int64_t kv_len,
                             fj_block_mask **ret_mask, fj_error *error) {
    if (!mask || !ret_mask) return fj_error_set(error, FJ_ERR_ARGUMENT, "mask or ret_mask is NULL");
    if (q_len < 0 || kv_len < 0 || q_len > mask->shape.q_len || kv_len > mask->shape.kv_len)
        return fj_error_set(
            error, FJ_ERR_ARGUMENT, "a mask of %lld queries and %lld keys cannot be cropped to %lld and %lld",
            (long long)mask->shape.q_len, (long long)mask->shape.kv_len, (long long)q_len, (long long)kv_len);
    fj_mask_shape shape = mask->shape;
    shape.q_len = q_len;
    shape.kv_len = kv_len;
    const int64_t rows = fj_mask_blocks(q_len, shape.block_q);
    fj_rows_writer writer;
    fj_rows_writer_init(&writer, &mask->context->allocator);
    for (int64_t plane = 0; plane < fj_mask_planes(&shape); plane++)
        for (int64_t row = 0; row < rows; row++)
            copy_row(&writer, fj_row_begin(&mask->rows, plane * mask->q_blocks + row),
                     (int32_t)fj_mask_blocks(kv_len, shape.block_kv));
    return finish(mask->context, &shape, &writer, ret_mask, error);
}
