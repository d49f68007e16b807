/* Block masks: life, facts, and the tensors that their functions take. */
#include "attn/mask/mask.h"

#include <stdio.h>

#include "base/dtype.h"

fj_status fj_mask_no_memory(fj_error *error) { return fj_error_set(error, FJ_ERR_MEMORY, "out of memory"); }

/* ---- Life ------------------------------------------------------------------------------------------ */

static fj_status check_axis(const char *name, int64_t length, int64_t block, fj_error *error) {
    if (length < 0 || length > INT32_MAX)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "%s_len is %lld; it is from 0 to 2147483647", name,
                            (long long)length);
    if (block < 1 || block > FJ_MASK_LARGEST_BLOCK)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "block_%s is %lld; it is from 1 to %d", name,
                            (long long)block, FJ_MASK_LARGEST_BLOCK);
    return FJ_OK;
}

fj_status fj_mask_check_shape(fj_mask_shape *shape, int64_t otherwise, fj_error *error) {
    if (shape->block_q == 0) shape->block_q = otherwise;
    if (shape->block_kv == 0) shape->block_kv = otherwise;
    fj_status status = check_axis("q", shape->q_len, shape->block_q, error);
    if (status == FJ_OK) status = check_axis("kv", shape->kv_len, shape->block_kv, error);
    if (status != FJ_OK) return status;
    if (shape->batch < 0 || shape->batch > INT32_MAX || shape->heads < 0 || shape->heads > INT32_MAX)
        return fj_error_set(error, FJ_ERR_ARGUMENT,
                            "batch is %lld and heads is %lld; they are from 0 to 2147483647",
                            (long long)shape->batch, (long long)shape->heads);
    int64_t blocks = shape->batch * shape->heads;
    if (__builtin_mul_overflow(blocks, fj_mask_blocks(shape->q_len, shape->block_q), &blocks) ||
        __builtin_mul_overflow(blocks, fj_mask_blocks(shape->kv_len, shape->block_kv), &blocks) ||
        blocks > INT64_MAX / 64)
        return fj_error_set(error, FJ_ERR_ARGUMENT,
                            "a mask of batch %lld and %lld heads has more blocks than 2^57",
                            (long long)shape->batch, (long long)shape->heads);
    return FJ_OK;
}

fj_status fj_mask_create(fj_context *context, const fj_mask_shape *shape, fj_block_rows *rows,
                         fj_block_mask **ret_mask, fj_error *error) {
    fj_block_mask *mask = fj_alloc_zeroed(&context->allocator, sizeof *mask);
    if (!mask) {
        fj_block_rows_finish(&context->allocator, rows);
        return fj_mask_no_memory(error);
    }
    atomic_init(&mask->refs, 1);
    atomic_init(&mask->columns, NULL);
    mask->context = fj_attn_context_ref(context);
    mask->shape = *shape;
    mask->q_blocks = (int32_t)fj_mask_blocks(shape->q_len, shape->block_q);
    mask->kv_blocks = (int32_t)fj_mask_blocks(shape->kv_len, shape->block_kv);
    mask->rows = *rows;
    *ret_mask = mask;
    return FJ_OK;
}

fj_status fj_mask_share(const fj_block_mask *mask, fj_block_mask **ret_mask, fj_error *error) {
    fj_block_mask *source = mask->source ? mask->source : (fj_block_mask *)(uintptr_t)mask;
    fj_block_mask *copy = fj_alloc_zeroed(&source->context->allocator, sizeof *copy);
    if (!copy) return fj_mask_no_memory(error);
    (void)atomic_fetch_add_explicit(&source->refs, 1, memory_order_relaxed);
    atomic_init(&copy->refs, 1);
    atomic_init(&copy->columns, NULL);
    copy->context = fj_attn_context_ref(source->context);
    copy->shape = source->shape;
    copy->q_blocks = source->q_blocks;
    copy->kv_blocks = source->kv_blocks;
    copy->undecided = source->undecided;
    copy->rows = source->rows;
    copy->source = source;
    *ret_mask = copy;
    return FJ_OK;
}

static void finish_columns(const fj_allocator *allocator, fj_block_rows *columns) {
    if (!columns) return;
    fj_block_rows_finish(allocator, columns);
    fj_free(allocator, columns, sizeof *columns);
}

void fj_block_mask_unref(fj_block_mask **mask) {
    if (!mask || !*mask) return;
    fj_block_mask *last = *mask;
    *mask = NULL;
    if (atomic_fetch_sub_explicit(&last->refs, 1, memory_order_acq_rel) != 1) return;
    fj_context *context = last->context;
    fj_mask_leave_device(last);
    finish_columns(&context->allocator, atomic_load(&last->columns));
    if (!last->source) fj_block_rows_finish(&context->allocator, &last->rows);
    fj_block_mask_unref(&last->source);
    fj_free(&context->allocator, last, sizeof *last);
    fj_context_unref(&context);
}

const fj_block_rows *fj_mask_columns(const fj_block_mask *mask) {
    fj_block_mask *shared = mask->source ? mask->source : (fj_block_mask *)(uintptr_t)mask;
    const fj_allocator *allocator = &mask->context->allocator;
    fj_block_rows *there = atomic_load(&shared->columns);
    if (there) return there;
    fj_block_rows *made = fj_alloc_zeroed(allocator, sizeof *made);
    if (!made) return NULL;
    if (fj_block_rows_transpose(allocator, &mask->rows, fj_mask_planes(&mask->shape), mask->q_blocks, made) !=
        FJ_OK) {
        fj_free(allocator, made, sizeof *made);
        return NULL;
    }
    /* Another thread may have been faster. */
    if (atomic_compare_exchange_strong(&shared->columns, &there, made)) return made;
    finish_columns(allocator, made);
    return there;
}

/* ---- Facts ----------------------------------------------------------------------------------------- */

fj_block_mask_info fj_block_mask_describe(const fj_block_mask *mask) {
    const fj_mask_shape *shape = &mask->shape;
    const int64_t planes = fj_mask_planes(shape);
    const int64_t alike = planes > 0 ? shape->batch / shape->planes_b * (shape->heads / shape->planes_h) : 0;
    const int64_t all = alike * planes * mask->q_blocks * mask->kv_blocks;
    const fj_block_rows *columns = atomic_load(&((fj_block_mask *)(uintptr_t)mask)->columns);
    fj_block_mask_info info = {
        .batch = shape->batch,
        .heads = shape->heads,
        .q_len = shape->q_len,
        .kv_len = shape->kv_len,
        .block_q = shape->block_q,
        .block_kv = shape->block_kv,
        .q_blocks = mask->q_blocks,
        .kv_blocks = mask->kv_blocks,
        .full = alike * fj_block_rows_count(&mask->rows, 0, mask->rows.count, FJ_BLOCK_FULL),
        .partial = alike * fj_block_rows_count(&mask->rows, 0, mask->rows.count, FJ_BLOCK_PARTIAL),
        .undecided = alike * mask->undecided,
        .bytes = sizeof *mask + (mask->source ? 0 : fj_block_rows_bytes(&mask->rows)) + mask->memory_size,
        .one_batch = shape->planes_b == 1,
        .one_head = shape->planes_h == 1,
    };
    if (columns) info.bytes += sizeof *columns + fj_block_rows_bytes(columns);
    info.empty = all - info.full - info.partial;
    info.sparsity = all > 0 ? 100 * (double)info.empty / (double)all : 0;
    return info;
}

fj_status fj_block_mask_check(const fj_block_mask *mask, int64_t batch, int64_t heads, int64_t q_len,
                              int64_t kv_len, fj_error *error) {
    if (!mask) return fj_error_set(error, FJ_ERR_ARGUMENT, "mask is NULL");
    const fj_mask_shape *shape = &mask->shape;
    if (shape->q_len != q_len || shape->kv_len != kv_len)
        return fj_error_set(
            error, FJ_ERR_TENSOR,
            "the block mask was made for %lld queries and %lld keys, and is called with %lld and %lld%s",
            (long long)shape->q_len, (long long)shape->kv_len, (long long)q_len, (long long)kv_len,
            q_len <= shape->q_len && kv_len <= shape->kv_len ? "; a shorter one is cropped from it" : "");
    if ((shape->batch != 1 && shape->batch != batch) || (shape->heads != 1 && shape->heads != heads))
        return fj_error_set(error, FJ_ERR_TENSOR,
                            "the block mask was made for batch %lld and %lld heads, and is called with batch "
                            "%lld and %lld heads",
                            (long long)shape->batch, (long long)shape->heads, (long long)batch,
                            (long long)heads);
    return FJ_OK;
}

/* ---- Tensors --------------------------------------------------------------------------------------- */

static fj_status check_form(const DLTensor *tensor, const fj_mask_expected *want, fj_tensor *out,
                            fj_error *error) {
    const char *name = want->name;
    if (tensor->device.device_type != kDLCPU)
        return fj_error_set(error, FJ_ERR_TENSOR,
                            "%s is on another device (DLPack type %d): it has to be in host memory", name,
                            (int)tensor->device.device_type);
    if (tensor->ndim != want->rank)
        return fj_error_set(error, FJ_ERR_TENSOR, "%s has rank %d, not %d: %s", name, (int)tensor->ndim,
                            want->rank, want->axes);
    if (!tensor->shape) return fj_error_set(error, FJ_ERR_TENSOR, "%s has no shape", name);
    if (!fj_dtype_from_dlpack(tensor->dtype, &out->dtype))
        return fj_error_set(error, FJ_ERR_TENSOR, "%s has an unknown dtype (DLPack code %d, %d bits)", name,
                            tensor->dtype.code, tensor->dtype.bits);
    if (out->dtype != want->dtype && out->dtype != want->also)
        return fj_error_set(error, FJ_ERR_TENSOR, "%s is %s, not %s%s%s", name, fj_dtype_name(out->dtype),
                            fj_dtype_name(want->dtype), want->also != want->dtype ? " or " : "",
                            want->also != want->dtype ? fj_dtype_name(want->also) : "");
    return FJ_OK;
}

/* Extents, and strides of a packed tensor where it has none. */
static fj_status read_extents(const DLTensor *tensor, const fj_mask_expected *want, fj_tensor *out,
                              bool *ret_empty, fj_error *error) {
    int64_t packed = 1;
    *ret_empty = false;
    for (int i = 0; i < FJ_MAX_RANK; i++) out->shape[i] = 1;
    for (int i = want->rank - 1; i >= 0; i--) {
        const int64_t extent = tensor->shape[i];
        if (extent < 0 || extent > INT32_MAX)
            return fj_error_set(error, FJ_ERR_TENSOR, "%s has extent %lld in dimension %d of %s", want->name,
                                (long long)extent, i, want->axes);
        if (want->dims[i] >= 0 && want->dims[i] != extent)
            return fj_error_set(error, FJ_ERR_TENSOR, "%s has extent %lld in dimension %d of %s, not %lld",
                                want->name, (long long)extent, i, want->axes, (long long)want->dims[i]);
        out->shape[i] = extent;
        out->strides[i] = tensor->strides ? tensor->strides[i] : packed;
        if (extent == 0) *ret_empty = true;
        if (extent > 0 && __builtin_mul_overflow(packed, extent, &packed))
            return fj_error_set(error, FJ_ERR_TENSOR, "%s has more elements than 64 bits can count",
                                want->name);
    }
    return FJ_OK;
}

fj_status fj_mask_read_tensor(const DLTensor *tensor, const fj_mask_expected *want, fj_tensor *ret_tensor,
                              fj_error *error) {
    if (!tensor) return fj_error_set(error, FJ_ERR_TENSOR, "%s is missing", want->name);
    fj_tensor out = {.present = true, .rank = want->rank};
    bool empty = false;
    fj_status status = check_form(tensor, want, &out, error);
    if (status == FJ_OK) status = read_extents(tensor, want, &out, &empty, error);
    if (status != FJ_OK) return status;
    if (!empty && !tensor->data) return fj_error_set(error, FJ_ERR_TENSOR, "%s has no data", want->name);
    if (!empty) out.data = (char *)tensor->data + tensor->byte_offset;
    if ((uintptr_t)out.data % fj_dtype_size(out.dtype) != 0)
        return fj_error_set(error, FJ_ERR_TENSOR, "%s is not aligned to its elements of %zu bytes",
                            want->name, fj_dtype_size(out.dtype));
    *ret_tensor = out;
    return FJ_OK;
}
