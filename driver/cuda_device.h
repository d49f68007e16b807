/* The cuda device from the inside. Private to driver/. */
#ifndef FJ_DRIVER_CUDA_DEVICE_H
#define FJ_DRIVER_CUDA_DEVICE_H

#include "driver/cuda.h"
#include "driver/cuda_api.h"

typedef struct fj_cuda_device {
    fj_driver driver; /* first: its functions find the device by it */
    const fj_allocator *allocator;
    const fj_cuda_api *api;
    fj_cuda_features features;
    int handle;                                 /* CUdevice */
    void *primary;                              /* retained */
    int multiprocessor_shared, reserved_shared; /* bytes: of an SM; that a block takes besides its own */
} fj_cuda_device;

static inline const fj_cuda_device *fj_cuda_device_of(const fj_driver *driver) {
    return (const fj_cuda_device *)(const void *)driver;
}

/* Makes a context of the device current, unless one is. *ret_pushed says whether fj_cuda_leave has to undo it. */
fj_status fj_cuda_enter(const fj_cuda_device *device, void **ret_context, bool *ret_pushed, fj_error *error);
void fj_cuda_leave(const fj_cuda_device *device, bool pushed);

/* cuda_memory.c: memory and time of the table. */
void fj_cuda_fill_memory(fj_driver *driver);

#endif
