/* Memory of devices, and time on them: of a GPU, or of the host for all others. */
#include <string.h>

#include "attn/objects.h"
#include "base/clock.h"

enum { ALIGNMENT = 256 };

/* ---- The host's --------------------------------------------------------------------------------- */

/* Lies before the memory that the caller has; so there is room for it in front of any. */
struct header {
    void *block;
    size_t size;
};

static void *host_alloc(const fj_allocator *allocator, size_t size) {
    if (size > SIZE_MAX - 2 * ALIGNMENT) return NULL;
    size_t whole = size + 2 * ALIGNMENT;
    char *block = fj_alloc(allocator, whole);
    if (!block) return NULL;
    char *memory = block + ALIGNMENT;
    memory += (ALIGNMENT - (uintptr_t)memory % ALIGNMENT) % ALIGNMENT;
    const struct header header = {block, whole};
    memcpy(memory - sizeof header, &header, sizeof header);
    return memory;
}

static void host_free(const fj_allocator *allocator, void *memory) {
    struct header header;
    memcpy(&header, (char *)memory - sizeof header, sizeof header);
    fj_free(allocator, header.block, header.size);
}

/* ---- Memory --------------------------------------------------------------------------------------- */

static fj_status check(const fj_device *device, const void *pointer, fj_error *error) {
    if (!device || !pointer) return fj_error_set(error, FJ_ERR_ARGUMENT, "device or memory is NULL");
    if (device->kind != FJ_DEVICE_CUDA || device->cuda) return FJ_OK;
    return fj_error_set(error, FJ_ERR_DEVICE, "%s is not on this machine: memory cannot be allocated",
                        fj_device_name(device));
}

static uint64_t address_of(const void *memory) { return (uint64_t)(uintptr_t)memory; }

fj_status fj_device_alloc(const fj_device *device, size_t size, void **ret_memory, fj_error *error) {
    fj_status status = check(device, ret_memory, error);
    void *memory = NULL;
    if (status != FJ_OK) return status;
    if (device->cuda) {
        uint64_t address = 0;
        status = fj_cuda_alloc(device->cuda, size, &address, error);
        memory = (void *)(uintptr_t)address;
    } else if (size > 0) {
        memory = host_alloc(&device->context->allocator, size);
        if (!memory)
            status = fj_error_set(error, FJ_ERR_MEMORY, "cannot allocate %zu bytes of host memory", size);
    }
    if (status == FJ_OK) *ret_memory = memory;
    return status;
}

void fj_device_free(const fj_device *device, void **memory) {
    if (!device || !memory || !*memory) return;
    if (device->cuda)
        fj_cuda_free(device->cuda, address_of(*memory));
    else
        host_free(&device->context->allocator, *memory);
    *memory = NULL;
}

fj_status fj_device_upload(const fj_device *device, void *to, const void *from, size_t size, void *stream,
                           fj_error *error) {
    if (size == 0) return FJ_OK;
    fj_status status = check(device, to, error);
    if (status != FJ_OK) return status;
    if (device->cuda) return fj_cuda_upload(device->cuda, address_of(to), from, size, stream, error);
    memcpy(to, from, size);
    return FJ_OK;
}

fj_status fj_device_download(const fj_device *device, void *to, const void *from, size_t size, void *stream,
                             fj_error *error) {
    if (size == 0) return FJ_OK;
    fj_status status = check(device, to, error);
    if (status != FJ_OK) return status;
    if (device->cuda) return fj_cuda_download(device->cuda, to, address_of(from), size, stream, error);
    memcpy(to, from, size);
    return FJ_OK;
}

fj_status fj_device_fill(const fj_device *device, void *to, uint8_t byte, size_t size, void *stream,
                         fj_error *error) {
    if (size == 0) return FJ_OK;
    fj_status status = check(device, to, error);
    if (status != FJ_OK) return status;
    if (device->cuda) return fj_cuda_fill(device->cuda, address_of(to), byte, size, stream, error);
    memset(to, byte, size);
    return FJ_OK;
}

fj_status fj_device_wait(const fj_device *device, void *stream, fj_error *error) {
    fj_status status = check(device, device, error);
    return status == FJ_OK && device->cuda ? fj_cuda_wait(device->cuda, stream, error) : status;
}

/* ---- Time ------------------------------------------------------------------------------------------ */

struct fj_timer {
    fj_device *device;
    fj_cuda_timer events; /* cuda */
    double start, stop;   /* elsewhere: milliseconds */
};

fj_status fj_timer_create(fj_device *device, fj_timer **ret_timer, fj_error *error) {
    fj_status status = check(device, ret_timer, error);
    if (status != FJ_OK) return status;
    const fj_allocator *allocator = &device->context->allocator;
    fj_timer *timer = fj_alloc_zeroed(allocator, sizeof *timer);
    if (!timer) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    if (device->cuda) status = fj_cuda_timer_create(device->cuda, &timer->events, error);
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
    if (device->cuda) fj_cuda_timer_destroy(device->cuda, &(*timer)->events);
    fj_free(&device->context->allocator, *timer, sizeof **timer);
    *timer = NULL;
    fj_device_unref(&device);
}

fj_status fj_timer_start(fj_timer *timer, void *stream, fj_error *error) {
    if (!timer) return fj_error_set(error, FJ_ERR_ARGUMENT, "timer is NULL");
    timer->start = fj_now_ms();
    if (!timer->device->cuda) return FJ_OK;
    return fj_cuda_timer_start(timer->device->cuda, &timer->events, stream, error);
}

fj_status fj_timer_stop(fj_timer *timer, void *stream, fj_error *error) {
    if (!timer) return fj_error_set(error, FJ_ERR_ARGUMENT, "timer is NULL");
    timer->stop = fj_now_ms();
    if (!timer->device->cuda) return FJ_OK;
    return fj_cuda_timer_stop(timer->device->cuda, &timer->events, stream, error);
}

fj_status fj_timer_read(const fj_timer *timer, double *ret_ms, fj_error *error) {
    if (!timer || !ret_ms) return fj_error_set(error, FJ_ERR_ARGUMENT, "timer or ret_ms is NULL");
    if (timer->device->cuda) return fj_cuda_timer_elapsed(timer->device->cuda, &timer->events, ret_ms, error);
    *ret_ms = timer->stop - timer->start;
    return FJ_OK;
}
