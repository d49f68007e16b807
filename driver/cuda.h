/* The cuda device: cubins in NVIDIA's driver.
 *
 * The driver is opened when the first device is. Calls run in the caller's current context when it is one of
 * this device, else in the device's primary context, which the device retains. Code is made resident when a
 * kernel is prepared, so that a launch loads nothing: launches may be captured in a graph.
 *
 * A green context has some of the SMs of a primary context and all of its memory and code. What is launched is a
 * CUkernel, which runs in the context of the stream: so kernels that were prepared for a primary context run on the
 * streams of its green ones, and the other way round, where the driver tells which those are (CUDA 12.5 and newer).
 */
#ifndef FJ_DRIVER_CUDA_H
#define FJ_DRIVER_CUDA_H

#include "driver/driver.h"

typedef struct fj_cuda_features {
    int ordinal;
    char name[128];
    int arch; /* ten times the major compute capability, plus the minor one */
    int multiprocessors;
    int shared_limit;    /* bytes of dynamic shared memory of a block, with opt-in */
    int cache;           /* bytes of L2 */
    int parameter_limit; /* bytes of a kernel's parameters, with this driver */
    size_t memory;       /* bytes */
} fj_cuda_features;

typedef struct fj_cuda_driver_info {
    const char *path;
    int version; /* 13000: CUDA 13.0 */
    int devices;
} fj_cuda_driver_info;

/* FJ_ERR_DEVICE says what is missing. */
fj_status fj_cuda_driver_look(fj_cuda_driver_info *ret_info, fj_error *error);
/* Whether there is a driver that cannot be used, which is another thing than none, or one without a GPU. */
bool fj_cuda_driver_saw_unusable(void);
fj_status fj_cuda_features_of(int ordinal, fj_cuda_features *ret_features, fj_error *error);

/* Opens a GPU. ordinal -1: that of the current context, else 0. FJ_ERR_DEVICE: no driver, no such device, or one older
 * than `oldest` (75). */
fj_status fj_cuda_device_open(const fj_allocator *allocator, int ordinal, int oldest,
                              const fj_driver **ret_driver, fj_error *error);
/* Of a driver that fj_cuda_device_open gave. */
const fj_cuda_features *fj_cuda_device_features(const fj_driver *driver);

#endif
