/* A GPU for the conformance tests. */
#ifndef FJ_TESTS_PRIM_CUDA_H
#define FJ_TESTS_PRIM_CUDA_H

#include "base/base.h"
#include "tests/prim/prim.h"

/* Compiles SOURCE/kernels/FILE.cu, once per file, and runs the case's kernel; out: before and after. The device is
 * opened by the first call. FJ_ERR_DEVICE: after it, the device may be of no further use. */
fj_status cuda_run(const char *source, const char *prim, const struct prim_case *test, const uint32_t *in,
                   uint32_t *out, fj_error *error);

#endif
