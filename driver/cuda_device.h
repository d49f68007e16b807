/* The cuda device from the inside. Private to driver/. */
#ifndef FJ_DRIVER_CUDA_DEVICE_H
#define FJ_DRIVER_CUDA_DEVICE_H

#include "driver/cuda.h"
#include "driver/cuda_api.h"

struct fj_cuda_device {
    fj_driver driver; /* first: the vtable's functions find the device by it */
    const fj_allocator *allocator;
    const fj_cuda_api *api;
    fj_cuda_features features;
    int handle;                                 /* CUdevice */
    void *primary;                              /* retained */
    int multiprocessor_shared, reserved_shared; /* bytes: of an SM; that a block takes besides its own */
};

/* Makes a context of the device current, unless one is. *ret_pushed says whether fj_cuda_leave has to undo it. */
fj_status fj_cuda_enter(const fj_cuda_device *device, void **ret_context, bool *ret_pushed, fj_error *error);
void fj_cuda_leave(const fj_cuda_device *device, bool pushed);

#endif
