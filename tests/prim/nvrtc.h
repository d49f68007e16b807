/* NVRTC for the kernels of the tests, which are files that include others. */
#ifndef FJ_TESTS_PRIM_NVRTC_H
#define FJ_TESTS_PRIM_NVRTC_H

#include "jit/nvrtc.h"

/* Appends the cubin, and what the compiler said to log. folders: of what is included, NULL-terminated, at most 6. */
fj_status nvrtc_compile(const char *path, fj_arch arch, const char *const *folders, fj_buf *cubin,
                        fj_buf *log, fj_error *error);

#endif
