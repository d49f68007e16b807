/* NVRTC, opened at run time, for the tests: kernels compile without a GPU. */
#ifndef FJ_TESTS_PRIM_NVRTC_H
#define FJ_TESTS_PRIM_NVRTC_H

#include <stdbool.h>
#include <stddef.h>

/* False: there is none, or it lacks a function; `why` (static text) says which. Looked for with the system
 * loader, then in CUDA_PATH, CUDA_HOME and /usr/local/cuda. */
bool nvrtc_open(const char **why);
bool nvrtc_supports(int arch);
/* Compiles a file to a cubin, from malloc, for "sm_80" and the like. log: what the compiler said, from malloc,
 * empty when it had nothing to say. options: NULL-terminated, besides architecture and C++17. */
bool nvrtc_compile(const char *path, const char *arch, const char *const *options, char **cubin, size_t *size,
                   char **log);

#endif
