/* Memory of the GPU, and time on it. */
#include "driver/cuda_device.h"

/* Calls of the driver in a context of the device; `call` is an expression over api. */
#define IN_CONTEXT(device, error, call, ...)                                                \
    do {                                                                                    \
        const fj_cuda_api *api = (device)->api;                                             \
        void *context_;                                                                     \
        bool pushed_;                                                                       \
        fj_status status_ = fj_cuda_enter((device), &context_, &pushed_, (error));          \
        if (status_ != FJ_OK) return status_;                                               \
        int result_ = (call);                                                               \
        fj_cuda_leave((device), pushed_);                                                   \
        return result_ == 0 ? FJ_OK : fj_cuda_api_fail(api, result_, (error), __VA_ARGS__); \
    } while (0)

static fj_status cuda_alloc(const fj_driver *driver, const fj_allocator *allocator, size_t size,
                            uint64_t *ret_address, fj_error *error) {
    const fj_cuda_device *device = fj_cuda_device_of(driver);
    (void)allocator; /* the host's */
    *ret_address = 0;
    if (size == 0) return FJ_OK;
    IN_CONTEXT(device, error, api->alloc(ret_address, size), "%zu bytes on GPU %d", size,
               device->features.ordinal);
}

static fj_status release(const fj_cuda_device *device, uint64_t address) {
    IN_CONTEXT(device, NULL, api->free(address), "memory of the GPU cannot be freed");
}

static void cuda_free(const fj_driver *driver, const fj_allocator *allocator, uint64_t address) {
    (void)allocator;
    if (address != 0) (void)release(fj_cuda_device_of(driver), address);
}

static fj_status cuda_upload(const fj_driver *driver, uint64_t to, const void *from, size_t size,
                             void *stream, fj_error *error) {
    const fj_cuda_device *device = fj_cuda_device_of(driver);
    if (size == 0) return FJ_OK;
    IN_CONTEXT(device, error, api->copy_in(to, from, size, stream), "a copy of %zu bytes to the GPU", size);
}

static fj_status cuda_download(const fj_driver *driver, void *to, uint64_t from, size_t size, void *stream,
                               fj_error *error) {
    const fj_cuda_device *device = fj_cuda_device_of(driver);
    if (size == 0) return FJ_OK;
    IN_CONTEXT(device, error, api->copy_out(to, from, size, stream), "a copy of %zu bytes from the GPU",
               size);
}

static fj_status cuda_fill(const fj_driver *driver, uint64_t to, uint8_t byte, size_t size, void *stream,
                           fj_error *error) {
    const fj_cuda_device *device = fj_cuda_device_of(driver);
    if (size == 0) return FJ_OK;
    IN_CONTEXT(device, error, api->fill(to, byte, size, stream), "a fill of %zu bytes on the GPU", size);
}

static fj_status is_capturing(const fj_cuda_device *device, void *stream, int *ret_capturing,
                              fj_error *error) {
    IN_CONTEXT(device, error, api->capturing(stream, ret_capturing), "the stream cannot be used");
}

static fj_status wait_stream(const fj_cuda_device *device, void *stream, fj_error *error) {
    IN_CONTEXT(device, error, api->stream_wait(stream), "work on the GPU failed");
}

static fj_status cuda_wait(const fj_driver *driver, void *stream, fj_error *error) {
    const fj_cuda_device *device = fj_cuda_device_of(driver);
    int capturing = 0;
    fj_status status = is_capturing(device, stream, &capturing, error);
    if (status == FJ_OK && capturing)
        return fj_error_set(error, FJ_ERR_ARGUMENT,
                            "a stream that is captured cannot be waited for; the capture goes on");
    return status == FJ_OK ? wait_stream(device, stream, error) : status;
}

/* ---- Time ------------------------------------------------------------------------------------------------- */

static fj_status create_event(const fj_cuda_device *device, void **event, fj_error *error) {
    IN_CONTEXT(device, error, api->event_create(event, 0), "no timer on the GPU");
}

static fj_status destroy_event(const fj_cuda_device *device, void *event) {
    IN_CONTEXT(device, NULL, api->event_destroy(event), "a timer of the GPU cannot be freed");
}

static void timer_destroy(const fj_driver *driver, fj_driver_timer *timer) {
    const fj_cuda_device *device = fj_cuda_device_of(driver);
    if (timer->start) (void)destroy_event(device, timer->start);
    if (timer->stop) (void)destroy_event(device, timer->stop);
    *timer = (fj_driver_timer){0};
}

static fj_status timer_create(const fj_driver *driver, fj_driver_timer *ret_timer, fj_error *error) {
    const fj_cuda_device *device = fj_cuda_device_of(driver);
    fj_driver_timer timer = {0};
    fj_status status = create_event(device, &timer.start, error);
    if (status == FJ_OK) status = create_event(device, &timer.stop, error);
    if (status == FJ_OK)
        *ret_timer = timer;
    else
        timer_destroy(driver, &timer);
    return status;
}

static fj_status timer_start(const fj_driver *driver, fj_driver_timer *timer, void *stream, fj_error *error) {
    const fj_cuda_device *device = fj_cuda_device_of(driver);
    IN_CONTEXT(device, error, api->event_record(timer->start, stream), "no timing on the GPU");
}

static fj_status timer_stop(const fj_driver *driver, fj_driver_timer *timer, void *stream, fj_error *error) {
    const fj_cuda_device *device = fj_cuda_device_of(driver);
    IN_CONTEXT(device, error, api->event_record(timer->stop, stream), "no timing on the GPU");
}

static fj_status wait_event(const fj_cuda_device *device, void *event, fj_error *error) {
    IN_CONTEXT(device, error, api->event_wait(event), "work on the GPU failed");
}

static fj_status elapsed(const fj_cuda_device *device, const fj_driver_timer *timer, float *ms,
                         fj_error *error) {
    IN_CONTEXT(device, error, api->event_elapsed(ms, timer->start, timer->stop), "no timing on the GPU");
}

static fj_status timer_elapsed(const fj_driver *driver, const fj_driver_timer *timer, double *ret_ms,
                               fj_error *error) {
    const fj_cuda_device *device = fj_cuda_device_of(driver);
    float ms = 0;
    fj_status status = wait_event(device, timer->stop, error);
    if (status == FJ_OK) status = elapsed(device, timer, &ms, error);
    if (status == FJ_OK) *ret_ms = (double)ms;
    return status;
}

void fj_cuda_fill_memory(fj_driver *driver) {
    driver->alloc = cuda_alloc;
    driver->free = cuda_free;
    driver->upload = cuda_upload;
    driver->download = cuda_download;
    driver->fill = cuda_fill;
    driver->wait = cuda_wait;
    driver->timer_create = timer_create;
    driver->timer_destroy = timer_destroy;
    driver->timer_start = timer_start;
    driver->timer_stop = timer_stop;
    driver->timer_elapsed = timer_elapsed;
}
