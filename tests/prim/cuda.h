/* A GPU for the conformance tests, through the driver API, opened at run time. */
#ifndef FJ_TESTS_PRIM_CUDA_H
#define FJ_TESTS_PRIM_CUDA_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/prim/prim.h"

/* Opens the first device; why (static text): what is missing. */
bool cuda_open(const char **why);
uint32_t cuda_arch(void); /* 90 */
const char *cuda_device(void);
/* Compiles SOURCE/kernels/FILE.cu, once per file, and runs the case's kernel. False: error says why. */
bool cuda_run(const char *source, const char *prim, const struct prim_case *test, const uint32_t *in,
              uint32_t *out, char error[512]);

#endif
