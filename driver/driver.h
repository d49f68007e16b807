/* Devices: loading code objects and running them. A driver knows nothing of attention.
 *
 * The vtable is what the rooms above need of every device that has code objects; what is special to
 * one device is in its own header (driver/cpu.h, driver/cuda.h). The reference devices have no driver.
 */
#ifndef FJ_DRIVER_DRIVER_H
#define FJ_DRIVER_DRIVER_H

#include "base/base.h"

/* A loaded code object. Owned by one holder: sharing and counting are the holder's. */
typedef struct fj_code fj_code;

typedef struct fj_driver fj_driver;

struct fj_driver {
    const char *name;
    /* payload: the bytes of a code object, trusted (its digest was verified). FJ_ERR_DEVICE when it
     * cannot be loaded, FJ_ERR_MEMORY. */
    fj_status (*load)(const fj_driver *driver, const fj_allocator *allocator, const void *payload,
                      size_t size, fj_code **ret_code, fj_error *error);
    void (*unload)(fj_code **code); /* clears the pointer, takes NULL */
    /* The address of an exported object; NULL when there is none. */
    const void *(*symbol)(const fj_code *code, const char *name);
};

extern const fj_driver fj_driver_cpu;

#endif
