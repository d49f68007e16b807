/* PyTorch's lists of blocks: reading, checking, writing.
 *
 * A list is a pair of tensors, counts [B,H,R] and indices [B,H,R,any]; a side of a mask is one or two of them: partial
 * blocks, and full ones. Masks have two sides: key blocks of each query block, and the transpose. */
#include <stdio.h>
#include <string.h>

#include "attn/mask/mask.h"
#include "base/dtype.h"

enum { TORCH_BLOCK = 128, PARTIAL = 0, FULL = 1 };

typedef struct side_names {
    const char *counts[2], *indices[2];
    const char *counts_axes, *indices_axes;
    const char *row, *column; /* what a row, and an entry of it, is */
} side_names;

static const side_names kv_names = {
    {"kv_num_blocks", "full_kv_num_blocks"},
    {"kv_indices", "full_kv_indices"},
    "[B,H,Qb]",
    "[B,H,Qb,KVb]",
    "query block",
    "key block",
};
static const side_names q_names = {
    {"q_num_blocks", "full_q_num_blocks"},
    {"q_indices", "full_q_indices"},
    "[B,H,KVb]",
    "[B,H,KVb,Qb]",
    "key block",
    "query block",
};

typedef struct side {
    const side_names *names;
    fj_tensor counts[2], indices[2]; /* present, or not */
} side;

static int64_t load(const fj_tensor *tensor, const int64_t at[4]) {
    int64_t offset = 0;
    for (int i = 0; i < tensor->rank; i++) offset += at[i] * tensor->strides[i];
    return fj_dtype_load_int(tensor->dtype, tensor->data, offset);
}

/* ---- Tensors --------------------------------------------------------------------------------------- */

typedef struct side_tensors {
    const DLTensor *counts[2], *indices[2];
} side_tensors;

static side_tensors kv_tensors(const fj_block_lists *lists) {
    return (side_tensors){{lists->kv_num_blocks, lists->full_kv_num_blocks},
                          {lists->kv_indices, lists->full_kv_indices}};
}

static side_tensors q_tensors(const fj_block_lists *lists) {
    return (side_tensors){{lists->q_num_blocks, lists->full_q_num_blocks},
                          {lists->q_indices, lists->full_q_indices}};
}

/* dims: [B,H,R,C], -1 what is not known. */
static fj_status read_side(const side_tensors *from, const side_names *names, const int64_t dims[4],
                           fj_dtype also, side *ret_side, fj_error *error) {
    *ret_side = (side){.names = names};
    for (int k = 0; k < 2; k++) {
        if (!from->counts[k] && !from->indices[k]) continue;
        if (!from->counts[k] || !from->indices[k])
            return fj_error_set(error, FJ_ERR_TENSOR, "%s is missing: %s is given",
                                from->counts[k] ? names->indices[k] : names->counts[k],
                                from->counts[k] ? names->counts[k] : names->indices[k]);
        const fj_mask_expected counts = {names->counts[k], names->counts_axes, 3, FJ_DTYPE_I32, also, dims};
        fj_status status = fj_mask_read_tensor(from->counts[k], &counts, &ret_side->counts[k], error);
        if (status != FJ_OK) return status;
        const int64_t *extents = ret_side->counts[k].shape;
        const int64_t lines[] = {extents[0], extents[1], extents[2], dims[3]};
        const fj_mask_expected indices = {
            names->indices[k], names->indices_axes, 4, FJ_DTYPE_I32, also, lines};
        status = fj_mask_read_tensor(from->indices[k], &indices, &ret_side->indices[k], error);
        if (status != FJ_OK) return status;
    }
    return FJ_OK;
}

/* ---- Reading a row ---------------------------------------------------------------------------------- */

typedef struct lists_reader {
    const side *from;
    int64_t columns;
    unsigned char *classes; /* of the row at work */
    fj_rows_writer writer;
    fj_error *error;
} lists_reader;

static fj_status bad_entry(const lists_reader *r, int k, const int64_t at[4], int64_t block,
                           const char *what) {
    const side_names *names = r->from->names;
    return fj_error_set(r->error, FJ_ERR_TENSOR, "%s: b %lld, h %lld, %s %lld: %s %lld %s", names->indices[k],
                        (long long)at[0], (long long)at[1], names->row, (long long)at[2], names->column,
                        (long long)block, what);
}

static fj_status read_list(const lists_reader *r, int k, const int64_t row[3]) {
    const fj_tensor *counts = &r->from->counts[k], *indices = &r->from->indices[k];
    if (!counts->present) return FJ_OK;
    int64_t at[4] = {row[0], row[1], row[2], 0};
    const int64_t count = load(counts, at);
    if (count < 0 || count > indices->shape[3])
        return fj_error_set(
            r->error, FJ_ERR_TENSOR,
            "%s: b %lld, h %lld, %s %lld: the count is %lld; it is from 0 to %lld, the entries "
            "of a row of %s",
            r->from->names->counts[k], (long long)at[0], (long long)at[1], r->from->names->row,
            (long long)at[2], (long long)count, (long long)indices->shape[3], r->from->names->indices[k]);
    for (; at[3] < count; at[3]++) {
        const int64_t block = load(indices, at);
        if (block < 0 || block >= r->columns) {
            char what[64];
            (void)snprintf(what, sizeof what, "is outside of 0 to %lld", (long long)r->columns - 1);
            return bad_entry(r, k, at, block, what);
        }
        const unsigned char class = k == FULL ? FJ_BLOCK_FULL : FJ_BLOCK_PARTIAL;
        if (r->classes[block] == class) return bad_entry(r, k, at, block, "is listed twice");
        if (r->classes[block] != FJ_BLOCK_EMPTY)
            return bad_entry(r, k, at, block, "is listed as partial as well");
        r->classes[block] = class;
    }
    return FJ_OK;
}

static fj_status read_row(lists_reader *r, const int64_t row[3]) {
    memset(r->classes, FJ_BLOCK_EMPTY, (size_t)r->columns);
    fj_status status = read_list(r, PARTIAL, row);
    if (status == FJ_OK) status = read_list(r, FULL, row);
    if (status != FJ_OK) return status;
    for (int64_t c = 0; c < r->columns; c++)
        fj_rows_put(&r->writer, (int32_t)c, (int32_t)c + 1, (fj_block_class)r->classes[c]);
    fj_rows_end_row(&r->writer);
    return FJ_OK;
}

static fj_status read_rows(const fj_allocator *allocator, const side *from, int64_t columns,
                           fj_block_rows *ret_rows, fj_error *error) {
    const int64_t *extents = from->counts[PARTIAL].shape;
    const size_t size = (size_t)columns + 1;
    lists_reader r = {.from = from, .columns = columns, .classes = fj_alloc(allocator, size), .error = error};
    if (!r.classes) return fj_mask_no_memory(error);
    fj_rows_writer_init(&r.writer, allocator);
    fj_status status = FJ_OK;
    for (int64_t n = 0; status == FJ_OK && n < extents[0] * extents[1] * extents[2]; n++) {
        const int64_t row[] = {n / extents[2] / extents[1], n / extents[2] % extents[1], n % extents[2]};
        status = read_row(&r, row);
    }
    fj_free(allocator, r.classes, size);
    if (status != FJ_OK) {
        fj_rows_writer_finish(&r.writer);
        return status;
    }
    status = fj_rows_take(&r.writer, (int32_t)columns, ret_rows);
    return status == FJ_OK ? status : fj_mask_no_memory(error);
}

/* ---- A mask of them --------------------------------------------------------------------------------- */

/* A length that was not given: as many as the blocks have. */
static fj_status complete_length(const char *axis, int64_t blocks, int64_t block, int64_t *length,
                                 fj_error *error) {
    if (*length < 0) *length = blocks * block;
    if (*length <= INT32_MAX && fj_mask_blocks(*length, block) == blocks) return FJ_OK;
    return fj_error_set(
        error, FJ_ERR_TENSOR, "%s_len is %lld, which are %lld blocks of %lld; the lists have %lld", axis,
        (long long)*length, (long long)fj_mask_blocks(*length, block), (long long)block, (long long)blocks);
}

static fj_status read_shape(const fj_block_lists *lists, const side *kv, fj_mask_shape *ret_shape,
                            fj_error *error) {
    const int64_t *extents = kv->indices[PARTIAL].shape;
    fj_mask_shape shape = {
        .batch = extents[0],
        .heads = extents[1],
        .q_len = lists->q_len < 0 ? 0 : lists->q_len,
        .kv_len = lists->kv_len < 0 ? 0 : lists->kv_len,
        .block_q = lists->block_q,
        .block_kv = lists->block_kv,
        .planes_b = extents[0],
        .planes_h = extents[1],
    };
    fj_status status = fj_mask_check_shape(&shape, TORCH_BLOCK, error);
    if (status != FJ_OK) return status;
    shape.q_len = lists->q_len;
    shape.kv_len = lists->kv_len;
    const int64_t columns = lists->kv_len < 0 ? extents[3] : fj_mask_blocks(lists->kv_len, shape.block_kv);
    status = complete_length("q", extents[2], shape.block_q, &shape.q_len, error);
    if (status == FJ_OK) status = complete_length("kv", columns, shape.block_kv, &shape.kv_len, error);
    if (status == FJ_OK) *ret_shape = shape;
    return status;
}

/* The transposes, where they are given, say what the lists say. */
static fj_status check_transposes(const fj_block_mask *mask, const fj_block_lists *lists, fj_error *error) {
    const fj_allocator *allocator = &mask->context->allocator;
    const int64_t dims[] = {mask->shape.batch, mask->shape.heads, mask->kv_blocks, -1};
    const side_tensors tensors = q_tensors(lists);
    side q;
    fj_status status = read_side(&tensors, &q_names, dims, FJ_DTYPE_I64, &q, error);
    if (status != FJ_OK) return status;
    if (!q.counts[PARTIAL].present)
        return q.counts[FULL].present ? fj_error_set(error, FJ_ERR_TENSOR, "%s is missing: %s is given",
                                                     q_names.counts[PARTIAL], q_names.counts[FULL])
                                      : FJ_OK;
    fj_block_rows columns;
    status = read_rows(allocator, &q, mask->q_blocks, &columns, error);
    if (status != FJ_OK) return status;
    const fj_block_rows *own = fj_mask_columns(mask);
    const bool equal = own && fj_block_rows_equal(own, &columns);
    fj_block_rows_finish(allocator, &columns);
    if (!own) return fj_mask_no_memory(error);
    return equal ? FJ_OK
                 : fj_error_set(error, FJ_ERR_TENSOR,
                                "q_num_blocks and q_indices, with their full ones, are not the transposes of "
                                "kv_num_blocks and kv_indices; they may be left out");
}

fj_status fj_block_mask_from_lists(fj_context *context, const fj_block_lists *lists, fj_block_mask **ret_mask,
                                   fj_error *error) {
    static const int64_t any[] = {-1, -1, -1, -1};
    if (!context || !ret_mask) return fj_error_set(error, FJ_ERR_ARGUMENT, "context or ret_mask is NULL");
    fj_block_lists all;
    side kv;
    fj_mask_shape shape;
    fj_block_rows rows;
    fj_status status = fj_attn_read_desc(&all, sizeof all, lists, "fj_block_lists", error);
    if (status != FJ_OK) return status;
    if (!all.kv_num_blocks) return fj_error_set(error, FJ_ERR_TENSOR, "kv_num_blocks is missing");
    const side_tensors tensors = kv_tensors(&all);
    status = read_side(&tensors, &kv_names, any, FJ_DTYPE_I64, &kv, error);
    for (int i = 0; status == FJ_OK && kv.counts[FULL].present && i < 3; i++)
        if (kv.counts[FULL].shape[i] != kv.counts[PARTIAL].shape[i])
            status = fj_error_set(
                error, FJ_ERR_TENSOR,
                "full_kv_num_blocks and kv_num_blocks have different extents in dimension %d", i);
    if (status == FJ_OK) status = read_shape(&all, &kv, &shape, error);
    if (status == FJ_OK)
        status =
            read_rows(&context->allocator, &kv, fj_mask_blocks(shape.kv_len, shape.block_kv), &rows, error);
    fj_block_mask *mask = NULL;
    if (status == FJ_OK) status = fj_mask_create(context, &shape, &rows, &mask, error);
    if (status == FJ_OK) status = check_transposes(mask, &all, error);
    if (status == FJ_OK)
        *ret_mask = mask;
    else
        fj_block_mask_unref(&mask);
    return status;
}

/* ---- Writing ----------------------------------------------------------------------------------------- */

/* The blocks of a class in ascending order, then the others. */
static void write_list(const fj_block_rows *rows, int64_t row, fj_block_class class, const fj_tensor *count,
                       const fj_tensor *indices, const int64_t at[3]) {
    const int64_t *s = indices->strides;
    int32_t *line = (int32_t *)(void *)indices->data + at[0] * s[0] + at[1] * s[1] + at[2] * s[2];
    int64_t written = 0;
    for (int listed = 1; listed >= 0; listed--) {
        fj_row_cursor cursor = fj_row_begin(rows, row);
        for (int32_t i = 0, end = 0; i < rows->columns; i = end) {
            if ((fj_row_stretch(&cursor, i, &end) == class) != (listed == 1)) continue;
            for (int32_t block = i; block < end; block++) line[written++ * s[3]] = block;
        }
        if (listed)
            ((int32_t *)(void *)count
                 ->data)[at[0] * count->strides[0] + at[1] * count->strides[1] + at[2] * count->strides[2]] =
                (int32_t)written;
    }
}

static void write_side(const fj_block_mask *mask, const fj_block_rows *rows, const side *to) {
    const int64_t height = rows == &mask->rows ? mask->q_blocks : mask->kv_blocks;
    for (int k = 0; k < 2; k++) {
        if (!to->counts[k].present) continue;
        for (int64_t b = 0; b < mask->shape.batch; b++)
            for (int64_t h = 0; h < mask->shape.heads; h++)
                for (int64_t row = 0; row < height; row++)
                    write_list(rows, fj_mask_plane(&mask->shape, b, h) * height + row,
                               k == FULL ? FJ_BLOCK_FULL : FJ_BLOCK_PARTIAL, &to->counts[k], &to->indices[k],
                               (int64_t[]){b, h, row});
    }
}

fj_status fj_block_mask_to_lists(const fj_block_mask *mask, const fj_block_lists *lists, fj_error *error) {
    if (!mask) return fj_error_set(error, FJ_ERR_ARGUMENT, "mask is NULL");
    const int64_t kv_dims[] = {mask->shape.batch, mask->shape.heads, mask->q_blocks, mask->kv_blocks};
    const int64_t q_dims[] = {mask->shape.batch, mask->shape.heads, mask->kv_blocks, mask->q_blocks};
    fj_block_lists all;
    side kv, q;
    fj_status status = fj_attn_read_desc(&all, sizeof all, lists, "fj_block_lists", error);
    if (status != FJ_OK) return status;
    const side_tensors of_kv = kv_tensors(&all), of_q = q_tensors(&all);
    status = read_side(&of_kv, &kv_names, kv_dims, FJ_DTYPE_I32, &kv, error);
    if (status == FJ_OK) status = read_side(&of_q, &q_names, q_dims, FJ_DTYPE_I32, &q, error);
    if (status != FJ_OK) return status;
    const bool by_key = q.counts[PARTIAL].present || q.counts[FULL].present;
    const fj_block_rows *columns = by_key ? fj_mask_columns(mask) : NULL;
    if (by_key && !columns) return fj_mask_no_memory(error);
    write_side(mask, &mask->rows, &kv);
    if (by_key) write_side(mask, columns, &q);
    return FJ_OK;
}
