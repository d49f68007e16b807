/* What fake_nvrtc.c defines, as in nvrtc.h with our types. */
#ifndef FJ_TESTS_JIT_FAKE_NVRTC_H
#define FJ_TESTS_JIT_FAKE_NVRTC_H

#include <stddef.h>

int nvrtcVersion(int *, int *);
const char *nvrtcGetErrorString(int);
int nvrtcGetNumSupportedArchs(int *);
int nvrtcGetSupportedArchs(int *);
int nvrtcCreateProgram(void **, const char *, const char *, int, const char *const *, const char *const *);
int nvrtcDestroyProgram(void **);
int nvrtcCompileProgram(void *, int, const char *const *);
int nvrtcGetCUBINSize(void *, size_t *);
int nvrtcGetCUBIN(void *, char *);
int nvrtcGetProgramLogSize(void *, size_t *);
int nvrtcGetProgramLog(void *, char *);

#endif
