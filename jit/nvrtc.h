/* NVRTC, NVIDIA's run-time compiler: finding it, opening it, and compiling one text to a cubin. */
#ifndef FJ_JIT_NVRTC_H
#define FJ_JIT_NVRTC_H

#include "jit/jit.h"

#define FJ_NVRTC_MAX_ARCHS 64

typedef struct fj_nvrtc_api {
    int (*version)(int *major, int *minor);
    const char *(*error_string)(int result);
    int (*arch_count)(int *count);
    int (*archs)(int *archs);
    int (*create)(void **program, const char *source, const char *name, int headers, const char *const *texts,
                  const char *const *names);
    int (*destroy)(void **program);
    int (*compile)(void *program, int options, const char *const *texts);
    int (*cubin_size)(void *program, size_t *size);
    int (*cubin)(void *program, char *bytes);
    int (*log_size)(void *program, size_t *size);
    int (*log)(void *program, char *text);
} fj_nvrtc_api;

/* An opened library. Stays open for the life of the process. */
typedef struct fj_nvrtc {
    char path[1024];
    int major, minor;
    int archs[FJ_NVRTC_MAX_ARCHS]; /* 75, 80 ... */
    int arch_count;
    char builtins[64]; /* libnvrtc-builtins.so.13.0 */
    fj_nvrtc_api api;
} fj_nvrtc;

/* Opens it the first time; what was opened is given again. FJ_ERR_DEVICE: there is none, and the error's
 * detail is a list of what was looked for; or it is too old. */
fj_status fj_jit_nvrtc_open(const fj_nvrtc **ret_nvrtc, fj_error *error);

/* FJ_ERR_DEVICE when it does not compile for the architecture, with what would. */
fj_status fj_jit_nvrtc_check_arch(const fj_nvrtc *nvrtc, fj_arch arch, fj_error *error);

/* Appends the cubin to out and what the compiler said to log, also on failure. name is for its messages;
 * options are NULL-terminated. FJ_ERR_COMPILER (the log is in error->detail; the text has its first error,
 * with the template's line), FJ_ERR_DEVICE (its builtins are missing), FJ_ERR_MEMORY. Many threads may
 * compile at a time. */
fj_status fj_jit_nvrtc_compile(const fj_nvrtc *nvrtc, const char *name, const char *source,
                               const char *const *options, fj_buf *out, fj_buf *log, fj_error *error);

/* Compiles an empty kernel: whether the installation works. */
fj_status fj_jit_nvrtc_try(const fj_nvrtc *nvrtc, const fj_allocator *allocator, fj_error *error);

/* ---- Finding it (nvrtc_find.c) ------------------------------------------------------------------------ */

/* Calls try(user, path) with each place in turn until it says true: paths, or bare names for the system's
 * loader; loaded: only if the process has it already. False: none. */
bool fj_jit_nvrtc_find(bool (*try)(void *user, const char *path, bool loaded), void *user);

#endif
