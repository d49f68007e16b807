/* Looking for a GPU from a test program whose tests run in processes of their own. */
#ifndef FJ_TESTS_SUPPORT_GPU_H
#define FJ_TESTS_SUPPORT_GPU_H

#include "jit/jit.h"

/* Whether there is a GPU, and NVRTC to compile for it. Asked in a process that ends with the answer: the driver does not
 * survive a fork, so only workers open it. FJ_ERR_DEVICE says what is missing. */
fj_status gpu_find(fj_arch *ret_arch, char name[128], fj_error *error);

#endif
