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

/* Bytes of parameters of a kernel: of Volta and newer since CUDA 12.1, and of all before. */
enum { FJ_CUDA_PARAMETERS = 32764, FJ_CUDA_PARAMETERS_OLD = 4096 };

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

typedef struct fj_cuda_device fj_cuda_device;

/* ordinal -1: that of the current context, else 0. FJ_ERR_DEVICE: no driver, no such device, or one older
 * than `oldest` (75). */
fj_status fj_cuda_device_open(const fj_allocator *allocator, int ordinal, int oldest,
                              fj_cuda_device **ret_device, fj_error *error);
/* All code objects were unloaded. Clears the pointer, takes NULL. */
void fj_cuda_device_close(fj_cuda_device **device);
const fj_driver *fj_cuda_device_driver(const fj_cuda_device *device);
const fj_cuda_features *fj_cuda_device_features(const fj_cuda_device *device);

/* ---- Kernels ------------------------------------------------------------------------------------------ */

/* An entry point that is resident in one context. */
typedef struct fj_cuda_kernel {
    const fj_code *code;
    const char *name;
    void *handle;  /* CUkernel: of no context */
    void *context; /* that it was prepared in */
    void *root;    /* the same; of a green one its primary one */
    uint32_t threads, shared;
} fj_cuda_kernel;

/* Makes an entry point of a code object resident in the current context, with so many threads and so much
 * dynamic shared memory for a block. name is static. FJ_ERR_DEVICE, FJ_ERR_MEMORY (of the GPU). */
fj_status fj_cuda_kernel_prepare(const fj_code *code, const char *name, int threads, int shared,
                                 fj_cuda_kernel *ret_kernel, fj_error *error);

/* Whether a launch may be put on this stream now: FJ_ERR_ARGUMENT when the current context, or that of the stream,
 * is neither the one that the kernel was prepared for nor shares its memory and code with it. Calls nothing that a
 * capture would notice. */
fj_status fj_cuda_launch_check(const fj_cuda_kernel *kernel, void *stream, fj_error *error);

/* Puts a launch on a stream (NULL: the default one). args: what the kernel's one parameter is. Errors as
 * fj_cuda_launch_check; those of the running kernel show later. */
fj_status fj_cuda_launch(const fj_cuda_kernel *kernel, const uint32_t grid[3], const void *args, void *stream,
                         fj_error *error);

/* ---- Memory and time (cuda_memory.c) ----------------------------------------------------------------------- */

/* Of the GPU; address 0 for size 0. FJ_ERR_MEMORY says how much was asked for. */
fj_status fj_cuda_alloc(const fj_cuda_device *device, size_t size, uint64_t *ret_address, fj_error *error);
void fj_cuda_free(const fj_cuda_device *device, uint64_t address);
/* On a stream; host memory must stay until the stream is waited for. */
fj_status fj_cuda_upload(const fj_cuda_device *device, uint64_t to, const void *from, size_t size,
                         void *stream, fj_error *error);
fj_status fj_cuda_download(const fj_cuda_device *device, void *to, uint64_t from, size_t size, void *stream,
                           fj_error *error);
fj_status fj_cuda_fill(const fj_cuda_device *device, uint64_t to, uint8_t byte, size_t size, void *stream,
                       fj_error *error);
/* Until all that was put on a stream is done. FJ_ERR_ARGUMENT while it is captured: the capture goes on. */
fj_status fj_cuda_wait(const fj_cuda_device *device, void *stream, fj_error *error);

/* Two moments of a stream. start, then stop, then elapsed, which waits. */
typedef struct fj_cuda_timer {
    void *start, *stop;
} fj_cuda_timer;
fj_status fj_cuda_timer_create(const fj_cuda_device *device, fj_cuda_timer *ret_timer, fj_error *error);
void fj_cuda_timer_destroy(const fj_cuda_device *device, fj_cuda_timer *timer);
fj_status fj_cuda_timer_start(const fj_cuda_device *device, const fj_cuda_timer *timer, void *stream,
                              fj_error *error);
fj_status fj_cuda_timer_stop(const fj_cuda_device *device, const fj_cuda_timer *timer, void *stream,
                             fj_error *error);
fj_status fj_cuda_timer_elapsed(const fj_cuda_device *device, const fj_cuda_timer *timer, double *ret_ms,
                                fj_error *error);

#endif
