/* Memory of devices, and time on them: calls of a device's driver. */
#include "attn/objects.h"

/* ---- Memory --------------------------------------------------------------------------------------- */

static fj_status check(const fj_device *device, const void *pointer, fj_error *error) {
    if (!device || !pointer) return fj_error_set(error, FJ_ERR_ARGUMENT, "device or memory is NULL");
    if (device->driver) return FJ_OK;
    return fj_error_set(error, FJ_ERR_DEVICE,
                        "%s is not on this machine: kernels can be built for it, nothing else",
                        fj_device_name(device));
}

static uint64_t address_of(const void *memory) { return (uint64_t)(uintptr_t)memory; }

fj_status fj_device_alloc(const fj_device *device, size_t size, void **ret_memory, fj_error *error) {
    fj_status status = check(device, ret_memory, error);
    uint64_t address = 0;
    if (status != FJ_OK) return status;
    status = device->driver->alloc(device->driver, &device->context->allocator, size, &address, error);
    if (status == FJ_OK) *ret_memory = (void *)(uintptr_t)address;
    return status;
}

void fj_device_free(const fj_device *device, void **memory) {
    if (!device || !device->driver || !memory || !*memory) return;
    device->driver->free(device->driver, &device->context->allocator, address_of(*memory));
    *memory = NULL;
}

fj_status fj_device_upload(const fj_device *device, void *to, const void *from, size_t size, void *stream,
                           fj_error *error) {
    if (size == 0) return FJ_OK;
    fj_status status = check(device, to, error);
    if (status != FJ_OK) return status;
    return device->driver->upload(device->driver, address_of(to), from, size, stream, error);
}

fj_status fj_device_download(const fj_device *device, void *to, const void *from, size_t size, void *stream,
                             fj_error *error) {
    if (size == 0) return FJ_OK;
    fj_status status = check(device, to, error);
    if (status != FJ_OK) return status;
    return device->driver->download(device->driver, to, address_of(from), size, stream, error);
}

fj_status fj_device_fill(const fj_device *device, void *to, uint8_t byte, size_t size, void *stream,
                         fj_error *error) {
    if (size == 0) return FJ_OK;
    fj_status status = check(device, to, error);
    if (status != FJ_OK) return status;
    return device->driver->fill(device->driver, address_of(to), byte, size, stream, error);
}

fj_status fj_device_wait(const fj_device *device, void *stream, fj_error *error) {
    fj_status status = check(device, device, error);
    return status == FJ_OK ? device->driver->wait(device->driver, stream, error) : status;
}

/* ---- Time ------------------------------------------------------------------------------------------ */

struct fj_timer {
    fj_device *device;
    fj_driver_timer at;
};

fj_status fj_timer_create(fj_device *device, fj_timer **ret_timer, fj_error *error) {
    fj_status status = check(device, ret_timer, error);
    if (status != FJ_OK) return status;
    const fj_allocator *allocator = &device->context->allocator;
    fj_timer *timer = fj_alloc_zeroed(allocator, sizeof *timer);
    if (!timer) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    status = device->driver->timer_create(device->driver, &timer->at, error);
    if (status != FJ_OK) {
        fj_free(allocator, timer, sizeof *timer);
        return status;
    }
    timer->device = fj_attn_device_ref(device);
    *ret_timer = timer;
    return FJ_OK;
}

void fj_timer_unref(fj_timer **timer) {
    if (!timer || !*timer) return;
    fj_device *device = (*timer)->device;
    device->driver->timer_destroy(device->driver, &(*timer)->at);
    fj_free(&device->context->allocator, *timer, sizeof **timer);
    *timer = NULL;
    fj_device_unref(&device);
}

fj_status fj_timer_start(fj_timer *timer, void *stream, fj_error *error) {
    if (!timer) return fj_error_set(error, FJ_ERR_ARGUMENT, "timer is NULL");
    const fj_driver *driver = timer->device->driver;
    return driver->timer_start(driver, &timer->at, stream, error);
}

fj_status fj_timer_stop(fj_timer *timer, void *stream, fj_error *error) {
    if (!timer) return fj_error_set(error, FJ_ERR_ARGUMENT, "timer is NULL");
    const fj_driver *driver = timer->device->driver;
    return driver->timer_stop(driver, &timer->at, stream, error);
}

fj_status fj_timer_read(const fj_timer *timer, double *ret_ms, fj_error *error) {
    if (!timer || !ret_ms) return fj_error_set(error, FJ_ERR_ARGUMENT, "timer or ret_ms is NULL");
    const fj_driver *driver = timer->device->driver;
    return driver->timer_elapsed(driver, &timer->at, ret_ms, error);
}
