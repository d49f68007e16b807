/* The host's memory and clock, for devices that have no others. */
#include <string.h>

#include "base/clock.h"
#include "driver/driver.h"

enum { ALIGNMENT = 256 };

/* ---- Memory --------------------------------------------------------------------------------------- */

static void *pointer_of(uint64_t address) { return (void *)(uintptr_t)address; }

/* Lies before the memory that the caller has; so there is room for it in front of any. */
struct header {
    void *block;
    size_t size;
};

fj_status fj_host_alloc(const fj_driver *driver, const fj_allocator *allocator, size_t size,
                        uint64_t *ret_address, fj_error *error) {
    (void)driver;
    *ret_address = 0;
    if (size == 0) return FJ_OK;
    const size_t whole = size + 2 * ALIGNMENT;
    char *block = size <= SIZE_MAX - 2 * ALIGNMENT ? fj_alloc(allocator, whole) : NULL;
    if (!block) return fj_error_set(error, FJ_ERR_MEMORY, "cannot allocate %zu bytes of host memory", size);
    char *memory = block + ALIGNMENT;
    memory += (ALIGNMENT - (uintptr_t)memory % ALIGNMENT) % ALIGNMENT;
    const struct header header = {block, whole};
    memcpy(memory - sizeof header, &header, sizeof header);
    *ret_address = (uint64_t)(uintptr_t)memory;
    return FJ_OK;
}

void fj_host_free(const fj_driver *driver, const fj_allocator *allocator, uint64_t address) {
    struct header header;
    (void)driver;
    if (address == 0) return;
    memcpy(&header, (char *)pointer_of(address) - sizeof header, sizeof header);
    fj_free(allocator, header.block, header.size);
}

fj_status fj_host_upload(const fj_driver *driver, uint64_t to, const void *from, size_t size, void *stream,
                         fj_error *error) {
    (void)driver, (void)stream, (void)error;
    if (size > 0) memcpy(pointer_of(to), from, size);
    return FJ_OK;
}

fj_status fj_host_download(const fj_driver *driver, void *to, uint64_t from, size_t size, void *stream,
                           fj_error *error) {
    (void)driver, (void)stream, (void)error;
    if (size > 0) memcpy(to, pointer_of(from), size);
    return FJ_OK;
}

fj_status fj_host_fill(const fj_driver *driver, uint64_t to, uint8_t byte, size_t size, void *stream,
                       fj_error *error) {
    (void)driver, (void)stream, (void)error;
    if (size > 0) memset(pointer_of(to), byte, size);
    return FJ_OK;
}

fj_status fj_host_wait(const fj_driver *driver, void *stream, fj_error *error) {
    (void)driver, (void)stream, (void)error;
    return FJ_OK;
}

/* ---- Time ------------------------------------------------------------------------------------------ */

fj_status fj_host_timer_create(const fj_driver *driver, fj_driver_timer *ret_timer, fj_error *error) {
    (void)driver, (void)error;
    *ret_timer = (fj_driver_timer){0};
    return FJ_OK;
}

void fj_host_timer_destroy(const fj_driver *driver, fj_driver_timer *timer) { (void)driver, (void)timer; }

fj_status fj_host_timer_start(const fj_driver *driver, fj_driver_timer *timer, void *stream,
                              fj_error *error) {
    (void)driver, (void)stream, (void)error;
    timer->started_ms = fj_now_ms();
    return FJ_OK;
}

fj_status fj_host_timer_stop(const fj_driver *driver, fj_driver_timer *timer, void *stream, fj_error *error) {
    (void)driver, (void)stream, (void)error;
    timer->stopped_ms = fj_now_ms();
    return FJ_OK;
}

fj_status fj_host_timer_elapsed(const fj_driver *driver, const fj_driver_timer *timer, double *ret_ms,
                                fj_error *error) {
    (void)driver, (void)error;
    *ret_ms = timer->stopped_ms - timer->started_ms;
    return FJ_OK;
}

const fj_driver fj_driver_host = {.name = "host", FJ_DRIVER_HOST_MEMORY};
