/* The emulator as a device: kernels are shared objects, memory is the host's, a launch returns when it is done. */
#ifndef FJ_DRIVER_EMU_DEVICE_H
#define FJ_DRIVER_EMU_DEVICE_H

#include "driver/driver.h"

/* shared_limit: bytes of shared memory that a block has on the architecture. */
fj_status fj_emu_device_open(const fj_allocator *allocator, int shared_limit, const fj_driver **ret_driver,
                             fj_error *error);

#endif
