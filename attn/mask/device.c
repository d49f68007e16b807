/* Block masks where the kernels of a device read them.
 *
 *     | starts of queries | starts of keys | runs of queries | runs of keys |     one allocation of the device's memory
 *
 * A mask on a device has the rows of the one that it was made of, which stays alive with it: what the host asks of a mask,
 * it may ask of either. */
#include <string.h>

#include "attn/mask/mask.h"

_Static_assert(sizeof(struct fj_cuda_run) == sizeof(fj_block_run), "runs are passed as they are");

/* One of the four arrays. */
typedef struct part {
    const void *data;
    size_t size;
} part;

static int64_t run_count(const fj_block_rows *rows) { return rows->starts[2 * rows->count]; }

static void list_parts(const fj_block_rows *rows, const fj_block_rows *columns, part parts[4]) {
    const fj_block_rows *const sides[] = {rows, columns};
    for (int i = 0; i < 2; i++) {
        parts[i] = (part){sides[i]->starts, (size_t)(2 * sides[i]->count + 1) * sizeof(int64_t)};
        parts[2 + i] = (part){sides[i]->runs, (size_t)run_count(sides[i]) * sizeof(fj_block_run)};
    }
}

static struct fj_cuda_block_lines lines_at(const void *starts, const void *runs, int32_t lines,
                                           int64_t block) {
    return (struct fj_cuda_block_lines){
        .starts = starts, .runs = runs, .lines = lines, .block = (int32_t)block};
}

static void point(fj_block_mask *mask, const void *const at[4]) {
    const fj_mask_shape *shape = &mask->shape;
    mask->lists = (struct fj_cuda_block_mask){
        .q = lines_at(at[0], at[2], mask->q_blocks, shape->block_q),
        .kv = lines_at(at[1], at[3], mask->kv_blocks, shape->block_kv),
        .planes_b = (int32_t)shape->planes_b,
        .planes_h = (int32_t)shape->planes_h,
    };
}

static fj_status upload(fj_block_mask *mask, const part parts[4], fj_error *error) {
    const fj_driver *driver = mask->device->driver;
    const void *at[4];
    for (int i = 0; i < 4; i++) mask->memory_size += parts[i].size;
    fj_status status =
        driver->alloc(driver, &mask->device->context->allocator, mask->memory_size, &mask->memory, error);
    uint64_t to = mask->memory;
    for (int i = 0; i < 4 && status == FJ_OK; i++) {
        at[i] = (const void *)(uintptr_t)to; /* NOLINT(performance-no-int-to-ptr): of the device */
        if (parts[i].size > 0) status = driver->upload(driver, to, parts[i].data, parts[i].size, NULL, error);
        to += parts[i].size;
    }
    if (status == FJ_OK) status = driver->wait(driver, NULL, error);
    if (status == FJ_OK) point(mask, at);
    return status;
}

/* Of the lists that the host has, which are the device's where their memory is one. */
static fj_status place(fj_block_mask *mask, fj_error *error) {
    const fj_block_rows *columns = fj_mask_columns(mask->source);
    part parts[4];
    if (!columns) return fj_mask_no_memory(error);
    list_parts(&mask->rows, columns, parts);
    if (!mask->device->driver->is_host) return upload(mask, parts, error);
    point(mask, (const void *const[4]){parts[0].data, parts[1].data, parts[2].data, parts[3].data});
    return FJ_OK;
}

fj_status fj_block_mask_copy_to(fj_device *device, const fj_block_mask *mask, fj_block_mask **ret_mask,
                                fj_error *error) {
    if (!device || !mask || !ret_mask)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "device, mask or ret_mask is NULL");
    if (!device->driver)
        return fj_error_set(error, FJ_ERR_DEVICE,
                            "%s is not on this machine: kernels can be built for it, nothing else",
                            fj_device_name(device));
    fj_block_mask *copy = NULL;
    fj_status status = fj_mask_share(mask, &copy, error);
    if (status != FJ_OK) return status;
    if (device->traits->text == FJ_TEXT_GPU) {
        copy->device = fj_attn_device_ref(device);
        status = place(copy, error);
    }
    if (status == FJ_OK)
        *ret_mask = copy;
    else
        fj_block_mask_unref(&copy);
    return status;
}

void fj_mask_leave_device(fj_block_mask *mask) {
    fj_device *device = mask->device;
    if (!device) return;
    device->driver->free(device->driver, &device->context->allocator, mask->memory);
    fj_device_unref(&mask->device);
}

fj_status fj_mask_check_device(const fj_block_mask *mask, const fj_device *device, fj_error *error) {
    const fj_device *where = mask->device;
    if (where && where->traits == device->traits && where->driver->ordinal == device->driver->ordinal)
        return FJ_OK;
    return fj_error_set(error, FJ_ERR_TENSOR,
                        "the block mask is %s%s, not on device %s: fj_block_mask_copy_to makes one there",
                        where ? "on device " : "in the host's memory", where ? fj_device_name(where) : "",
                        fj_device_name(device));
}
