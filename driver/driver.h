/* Devices: loading code objects, running them, their memory and their time. A driver knows nothing of attention.
 *
 * A table of functions for each open device, and what the rooms above may ask of it; only driver/cpu.h, whose kernels
 * are not grids of entry points, has more.
 *
 *     host.c                the host's memory and clock: the reference devices have these alone
 *     cpu.c                 the same, and shared objects
 *     emu/device.c          the same, and entry points that the emulator runs
 *     cuda.c, cuda_memory.c a GPU
 *
 * Addresses are the device's: integers, as the host cannot follow those of a GPU.
 */
#ifndef FJ_DRIVER_DRIVER_H
#define FJ_DRIVER_DRIVER_H

#include "base/base.h"

/* The most bytes that the parameter of an entry point has on any device. */
enum { FJ_DRIVER_PARAMETERS = 32764 };

/* A loaded code object. Owned by one holder: sharing and counting are the holder's. */
typedef struct fj_code fj_code;

/* An entry point that is ready on a device. Holds nothing that has to be freed. */
typedef struct fj_driver_entry {
    const fj_code *code;
    const char *name;
    const void *handle; /* cuda: CUkernel, of no context; emu: fj_emu_kernel */
    void *context;      /* cuda: that it was prepared in */
    void *root;         /* cuda: the same; of a green one its primary one */
    uint32_t threads, shared;
} fj_driver_entry;

/* Two moments of a stream. */
typedef struct fj_driver_timer {
    void *start, *stop;            /* cuda: events */
    double started_ms, stopped_ms; /* elsewhere */
} fj_driver_timer;

typedef struct fj_driver fj_driver;

struct fj_driver {
    const char *name;
    int ordinal;         /* of several devices of a kind */
    int parameter_limit; /* bytes of an entry point's parameter */
    int cache;           /* bytes of L2; 0: it does not matter */
    /* What a launch writes, faults included, is there when it returns, and the host can read the device's memory. Else
     * memory is downloaded, and there after `wait`. */
    bool is_host;

    /* ---- Code objects: NULL where there are none ---- */

    /* payload: the bytes of a code object, trusted (its digest was verified). FJ_ERR_DEVICE when it
     * cannot be loaded, FJ_ERR_MEMORY. */
    fj_status (*load)(const fj_driver *driver, const fj_allocator *allocator, const void *payload,
                      size_t size, fj_code **ret_code, fj_error *error);
    void (*unload)(fj_code **code); /* clears the pointer, takes NULL */
    /* The address of an exported object; NULL when there is none. */
    const void *(*symbol)(const fj_code *code, const char *name);

    /* ---- Entry points: NULL where there are none ---- */

    /* Makes an entry point resident, on a GPU in the current context, with so many threads and so much dynamic shared
     * memory for a block. name is static. FJ_ERR_DEVICE, FJ_ERR_MEMORY (the device's). */
    fj_status (*prepare)(const fj_code *code, const char *name, int threads, int shared,
                         fj_driver_entry *ret_entry, fj_error *error);
    /* Whether a launch may be put on this stream now; NULL: it always may. FJ_ERR_ARGUMENT when the current context, or
     * that of the stream, is neither the one that the entry was prepared for nor shares its memory and code with it.
     * Calls nothing that a capture would notice. */
    fj_status (*check)(const fj_driver_entry *entry, void *stream, fj_error *error);
    /* args: what the entry's one parameter is. Nothing for an empty grid. Errors as `check`; those of a running kernel
     * show later, but where is_host. */
    fj_status (*launch)(const fj_driver *driver, const fj_driver_entry *entry, const uint32_t grid[3],
                        const void *args, const fj_launch *launch, fj_error *error);

    /* ---- Memory ---- */

    /* Aligned to 256 bytes; address 0 for size 0. FJ_ERR_MEMORY says how much was asked for. */
    fj_status (*alloc)(const fj_driver *driver, const fj_allocator *allocator, size_t size,
                       uint64_t *ret_address, fj_error *error);
    void (*free)(const fj_driver *driver, const fj_allocator *allocator, uint64_t address); /* takes 0 */
    /* On a stream; host memory must stay until the stream is waited for. */
    fj_status (*upload)(const fj_driver *driver, uint64_t to, const void *from, size_t size, void *stream,
                        fj_error *error);
    fj_status (*download)(const fj_driver *driver, void *to, uint64_t from, size_t size, void *stream,
                          fj_error *error);
    fj_status (*fill)(const fj_driver *driver, uint64_t to, uint8_t byte, size_t size, void *stream,
                      fj_error *error);
    /* Until all that was put on a stream is done. FJ_ERR_ARGUMENT while it is captured: the capture goes on. */
    fj_status (*wait)(const fj_driver *driver, void *stream, fj_error *error);

    /* ---- Time: start, then stop, then elapsed, which waits ---- */

    fj_status (*timer_create)(const fj_driver *driver, fj_driver_timer *ret_timer, fj_error *error);
    void (*timer_destroy)(const fj_driver *driver, fj_driver_timer *timer);
    fj_status (*timer_start)(const fj_driver *driver, fj_driver_timer *timer, void *stream, fj_error *error);
    fj_status (*timer_stop)(const fj_driver *driver, fj_driver_timer *timer, void *stream, fj_error *error);
    fj_status (*timer_elapsed)(const fj_driver *driver, const fj_driver_timer *timer, double *ret_ms,
                               fj_error *error);

    /* All code objects were unloaded. Clears the pointer. NULL: there is nothing to close. */
    void (*close)(const fj_driver **driver);
};

extern const fj_driver fj_driver_host, fj_driver_cpu;

/* The memory and time of a table for a device whose memory is the host's. */
#define FJ_DRIVER_HOST_MEMORY                                                                \
    .is_host = true, .alloc = fj_host_alloc, .free = fj_host_free, .upload = fj_host_upload, \
    .download = fj_host_download, .fill = fj_host_fill, .wait = fj_host_wait,                \
    .timer_create = fj_host_timer_create, .timer_destroy = fj_host_timer_destroy,            \
    .timer_start = fj_host_timer_start, .timer_stop = fj_host_timer_stop,                    \
    .timer_elapsed = fj_host_timer_elapsed

fj_status fj_host_alloc(const fj_driver *driver, const fj_allocator *allocator, size_t size,
                        uint64_t *ret_address, fj_error *error);
void fj_host_free(const fj_driver *driver, const fj_allocator *allocator, uint64_t address);
fj_status fj_host_upload(const fj_driver *driver, uint64_t to, const void *from, size_t size, void *stream,
                         fj_error *error);
fj_status fj_host_download(const fj_driver *driver, void *to, uint64_t from, size_t size, void *stream,
                           fj_error *error);
fj_status fj_host_fill(const fj_driver *driver, uint64_t to, uint8_t byte, size_t size, void *stream,
                       fj_error *error);
fj_status fj_host_wait(const fj_driver *driver, void *stream, fj_error *error);
fj_status fj_host_timer_create(const fj_driver *driver, fj_driver_timer *ret_timer, fj_error *error);
void fj_host_timer_destroy(const fj_driver *driver, fj_driver_timer *timer);
fj_status fj_host_timer_start(const fj_driver *driver, fj_driver_timer *timer, void *stream, fj_error *error);
fj_status fj_host_timer_stop(const fj_driver *driver, fj_driver_timer *timer, void *stream, fj_error *error);
fj_status fj_host_timer_elapsed(const fj_driver *driver, const fj_driver_timer *timer, double *ret_ms,
                                fj_error *error);

#endif
