/* What the kernel does not take as it is: copies in the workspace, and sums for the caller. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/dtype.h"
#include "sdpa/call.h"

/* ---- What is copied ------------------------------------------------------------------------------------------- */

static bool is_mask(int index) { return index == MASK || index == DMASK; }
static bool is_statistic(int index) { return index == LSE || index == LSE_LOW || index == DLSE; }
static bool is_of_keys(int index) {
    return index == KEY || index == VALUE || index == DKEY || index == DVALUE;
}

static int last_axis(const fj_sdpa_call *call, int index) {
    static const int order[] = {WIDTH, ROWS, GROUP, BATCH};
    if (is_statistic(index)) return ROWS;
    if (!is_mask(index)) return WIDTH;
    for (int i = 0; i < 4; i++)
        if (call->class.walks[order[i]]) return order[i];
    return REPEAT;
}

static const char *reason_for(const fj_sdpa_call *call, int index) {
    const fj_sdpa_slot *slot = &call->slots[index];
    const int last = last_axis(call, index);
    const bool strided = is_mask(index) && call->class.strided;
    const bool heads_repeat = slot->extent[GROUP] > 1 && slot->extent[REPEAT] > 1;
    const bool sequences_repeat = call->class.packed && !is_mask(index) && slot->extent[BATCH] != 1;
    if (slot->copied) return slot->copied;
    if (slot->dtype != slot->kernel_dtype) return "its dtype is not that of the kernel";
    if (slot->summed) return "it is summed over what is broadcast";
    if (slot->own[last] > 1 && slot->stride[last] != 1 && !strided)
        return "the stride of its last dimension is not 1";
    if (heads_repeat) return "key and value differ in heads";
    return sequences_repeat ? "it serves every sequence" : NULL;
}

/* The order in memory of a copy, from the slowest axis to the fastest. */
static const int *order_of(const fj_sdpa_call *call, int index) {
    static const int dense[AXES] = {BATCH, GROUP, REPEAT, ROWS, WIDTH},
                     list[AXES] = {BATCH, ROWS, GROUP, REPEAT, WIDTH},
                     rows[AXES] = {GROUP, REPEAT, BATCH, ROWS, WIDTH};
    if (!call->class.packed || is_mask(index)) return dense;
    return is_statistic(index) ? rows : list;
}

static fj_status measure(fj_sdpa_call *call, int index, size_t *offset) {
    fj_sdpa_slot *slot = &call->slots[index];
    const int *order = order_of(call, index);
    int64_t next = 1, size;
    for (int i = AXES - 1; i >= 0; i--) {
        slot->copy_stride[order[i]] = next;
        if (__builtin_mul_overflow(next, slot->extent[order[i]], &next)) next = INT64_MAX;
    }
    if (__builtin_mul_overflow(next, (int64_t)fj_dtype_size(slot->kernel_dtype), &size) ||
        size > INT64_MAX / 4)
        return fj_sdpa_bad(call, "a copy of %s would have more bytes than 64 bits can count", slot->name);
    slot->offset = *offset;
    slot->size = (size_t)size;
    *offset += (slot->size + 255) / 256 * 256;
    return FJ_OK;
}

fj_status fj_sdpa_lay_out(fj_sdpa_call *call, size_t *ret_size) {
    size_t offset = 0;
    fj_sdpa_slot *dmask = &call->slots[DMASK];
    if (dmask->present && !(call->takes_wide && dmask->dtype == FJ_DTYPE_F64))
        dmask->kernel_dtype = call->class.dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32;
    for (int i = 0; i < SLOTS; i++) {
        fj_sdpa_slot *slot = &call->slots[i];
        if (!slot->present) continue;
        if (call->class.shared_keys && is_of_keys(i)) slot->extent[BATCH] = 1;
        for (int axis = 0; axis < AXES && slot->written; axis++)
            slot->summed |= slot->own[axis] != slot->extent[axis];
        if (is_mask(i)) slot->summed = false; /* by the kernel */
        slot->copied = reason_for(call, i);
        if (!slot->copied) continue;
        const fj_status status = measure(call, i, &offset);
        if (status != FJ_OK) return status;
    }
    *ret_size = offset;
    return FJ_OK;
}

void fj_sdpa_tell_copies(const fj_sdpa_call *call, char *text, size_t size) {
    size_t at = 0;
    text[0] = '\0';
    for (int i = 0; i < SLOTS; i++) {
        const fj_sdpa_slot *slot = &call->slots[i];
        if (!slot->present || !slot->copied || !slot->tensor || at >= size) continue;
        at += (size_t)snprintf(text + at, size - at, "%s%s is copied: %s", at ? "; " : "", slot->name,
                               slot->copied);
    }
    for (int of_keys = 0; of_keys < 2; of_keys++)
        if (fj_sdpa_makes_list(call, of_keys) && at < size &&
            (of_keys ? call->args.cu_seqlens_kv : call->args.cu_seqlens_q))
            at += (size_t)snprintf(text + at, size - at,
                                   "%s%s is copied: the kernel takes I32, one after the other",
                                   at ? "; " : "", of_keys ? "cu_seqlens_kv" : "cu_seqlens_q");
}

/* ---- The kernel's tensors --------------------------------------------------------------------------------------- */

static void add_axis(fj_sdpa_slot *slot, int64_t extent, int64_t stride) {
    slot->shape[slot->kernel.ndim] = extent;
    slot->strides[slot->kernel.ndim++] = stride;
}

static void add_axes(fj_sdpa_call *call, int index, const int64_t *stride) {
    fj_sdpa_slot *slot = &call->slots[index];
    const int64_t *extent = slot->extent;
    const int64_t heads = extent[GROUP] * extent[REPEAT];
    const int64_t head_stride = extent[REPEAT] > 1 ? stride[REPEAT] : stride[GROUP];
    static const int of_masks[] = {BATCH, GROUP, ROWS, WIDTH};
    if (is_mask(index)) {
        for (int i = 0; i < 4; i++)
            if (call->class.walks[of_masks[i]]) add_axis(slot, extent[of_masks[i]], stride[of_masks[i]]);
        if (call->class.strided) add_axis(slot, 1, 1);
        return;
    }
    const bool packed = call->class.packed;
    if (!packed) add_axis(slot, extent[BATCH], stride[BATCH]);
    if (!packed || is_statistic(index)) add_axis(slot, heads, head_stride);
    add_axis(slot, packed ? extent[BATCH] * extent[ROWS] : extent[ROWS], stride[ROWS]);
    if (packed && !is_statistic(index)) add_axis(slot, heads, head_stride);
    if (!is_statistic(index)) add_axis(slot, extent[WIDTH], stride[WIDTH]);
}

void fj_sdpa_bind(fj_sdpa_call *call, char *copies) {
    for (int i = 0; i < SLOTS; i++) {
        fj_sdpa_slot *slot = &call->slots[i];
        if (!slot->present) continue;
        slot->kernel = (DLTensor){.device = fj_device_dlpack(call->device),
                                  .dtype = fj_dtype_to_dlpack(slot->kernel_dtype),
                                  .shape = slot->shape,
                                  .strides = slot->strides};
        if (slot->copied)
            slot->kernel.data = copies ? copies + slot->offset : NULL;
        else {
            slot->kernel.data = slot->tensor->data;
            slot->kernel.byte_offset = slot->tensor->byte_offset;
            slot->kernel.device = slot->tensor->device;
        }
        add_axes(call, i, slot->copied ? slot->copy_stride : slot->stride);
    }
}

/* ---- Copying ---------------------------------------------------------------------------------------------------- */

static char *caller_data(const fj_sdpa_slot *slot) {
    return (char *)slot->tensor->data + slot->tensor->byte_offset;
}

static void copy_element(char *to, const char *from, size_t size) {
    switch (size) {
    case 1: memcpy(to, from, 1); break;
    case 2: memcpy(to, from, 2); break;
    case 4: memcpy(to, from, 4); break;
    default: memcpy(to, from, 8); break;
    }
}

/* Along WIDTH and ROWS of a place; strides in elements. */
static void copy_plane(const fj_sdpa_slot *slot, char *to, const int64_t *to_stride, const char *from,
                       const int64_t *from_stride) {
    const size_t size = fj_dtype_size(slot->dtype);
    const int64_t width = slot->extent[WIDTH], rows = slot->extent[ROWS], bytes = (int64_t)size;
    const bool whole = to_stride[WIDTH] == 1 && from_stride[WIDTH] == 1 && width > 1;
    for (int64_t row = 0; row < rows; row++) {
        char *a = to + row * to_stride[ROWS] * bytes;
        const char *b = from + row * from_stride[ROWS] * bytes;
        if (whole) {
            memcpy(a, b, size * (size_t)width);
            continue;
        }
        for (int64_t x = 0; x < width; x++)
            copy_element(a + x * to_stride[WIDTH] * bytes, b + x * from_stride[WIDTH] * bytes, size);
    }
}

typedef void plane_fn(const fj_sdpa_slot *slot, char *kernel, char *caller, bool squares);

/* Calls fn for each batch and head, with extents as counted. */
static void for_planes(const fj_sdpa_slot *slot, const int64_t *extents, bool squares, plane_fn *fn) {
    const int64_t size = (int64_t)fj_dtype_size(slot->dtype),
                  kernel_size = (int64_t)fj_dtype_size(slot->kernel_dtype);
    for (int i = 0; i < AXES; i++)
        if (extents[i] == 0) return;
    for (int64_t b = 0; b < extents[BATCH]; b++)
        for (int64_t g = 0; g < extents[GROUP]; g++)
            for (int64_t r = 0; r < extents[REPEAT]; r++) {
                const int64_t caller =
                    b * slot->stride[BATCH] + g * slot->stride[GROUP] + r * slot->stride[REPEAT];
                const int64_t kernel = b * slot->copy_stride[BATCH] + g * slot->copy_stride[GROUP] +
                                       r * slot->copy_stride[REPEAT];
                fn(slot, (char *)slot->kernel.data + kernel * kernel_size, caller_data(slot) + caller * size,
                   squares);
            }
}

static void read_plane(const fj_sdpa_slot *slot, char *kernel, char *caller, bool squares) {
    (void)squares;
    copy_plane(slot, kernel, slot->copy_stride, caller, slot->stride);
}

static void write_plane(const fj_sdpa_slot *slot, char *kernel, char *caller, bool squares) {
    (void)squares;
    copy_plane(slot, caller, slot->stride, kernel, slot->copy_stride);
}

/* Of another dtype. */
static void convert_plane(const fj_sdpa_slot *slot, char *kernel, char *caller, bool squares) {
    (void)squares;
    for (int64_t row = 0; row < slot->extent[ROWS]; row++)
        for (int64_t x = 0; x < slot->extent[WIDTH]; x++)
            fj_dtype_store_float(
                slot->dtype, caller, row * slot->stride[ROWS] + x * slot->stride[WIDTH],
                fj_dtype_load_float(slot->kernel_dtype, kernel,
                                    row * slot->copy_stride[ROWS] + x * slot->copy_stride[WIDTH]));
}

/* ---- Sums -------------------------------------------------------------------------------------------------------- */

enum { MOST_WIDTH = 256 };

static void add_row(const fj_sdpa_slot *slot, const char *kernel, int64_t at, bool squares,
                    double sum[MOST_WIDTH]) {
    const int64_t width = slot->own[WIDTH];
    if (slot->dtype == FJ_DTYPE_F32 && !squares) {
        const float *row = (const float *)(const void *)kernel + at;
        for (int64_t x = 0; x < width; x++) sum[x] += (double)row[x];
        return;
    }
    for (int64_t x = 0; x < width; x++) {
        const double value = fj_dtype_load_float(slot->dtype, kernel, at + x);
        sum[x] += squares ? value * value : value;
    }
}

/* A row of the caller's: the sum over batches and heads that he has one of. kernel: the first of its rows. */
static void sum_row(const fj_sdpa_slot *slot, const char *kernel, char *caller, bool squares) {
    double sum[MOST_WIDTH] = {0};
    const int64_t batches = slot->own[BATCH] == slot->extent[BATCH] ? 1 : slot->extent[BATCH];
    const int64_t repeats = slot->own[REPEAT] == slot->extent[REPEAT] ? 1 : slot->extent[REPEAT];
    for (int64_t b = 0; b < batches; b++)
        for (int64_t r = 0; r < repeats; r++)
            add_row(slot, kernel, b * slot->copy_stride[BATCH] + r * slot->copy_stride[REPEAT], squares, sum);
    for (int64_t x = 0; x < slot->own[WIDTH]; x++)
        fj_dtype_store_float(slot->dtype, caller, x * slot->stride[WIDTH], squares ? sqrt(sum[x]) : sum[x]);
}

static void sum_plane(const fj_sdpa_slot *slot, char *kernel, char *caller, bool squares) {
    const int64_t size = (int64_t)fj_dtype_size(slot->dtype);
    for (int64_t row = 0; row < slot->own[ROWS]; row++)
        sum_row(slot, kernel + row * slot->copy_stride[ROWS] * size, caller + row * slot->stride[ROWS] * size,
                squares);
}

/* ---- All ---------------------------------------------------------------------------------------------------------- */

void fj_sdpa_copy_in(const fj_sdpa_call *call) {
    for (int i = 0; i < SLOTS; i++) {
        const fj_sdpa_slot *slot = &call->slots[i];
        if (slot->present && slot->copied && !slot->written)
            for_planes(slot, slot->extent, false, read_plane);
    }
}

void fj_sdpa_copy_out(const fj_sdpa_call *call) {
    const bool squares = strcmp(fj_device_name(call->device), "rounding") == 0;
    for (int i = 0; i < SLOTS; i++) {
        const fj_sdpa_slot *slot = &call->slots[i];
        if (!slot->present || !slot->copied || !slot->written || !slot->tensor) continue;
        if (slot->summed)
            for_planes(slot, slot->own, squares, sum_plane);
        else
            for_planes(slot, slot->extent, squares,
                       slot->dtype == slot->kernel_dtype ? write_plane : convert_plane);
    }
}
