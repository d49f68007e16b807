/* NVRTC, NVIDIA's run-time compiler: finding it, asking what it is, and compiling one text to a cubin. It never runs in
 * the caller's process (nvrtc_child.c says why). */
#ifndef FJ_JIT_NVRTC_H
#define FJ_JIT_NVRTC_H

#include <stdatomic.h>

#include "jit/jit.h"
#include "jit/workshop.h"

#define FJ_NVRTC_MAX_ARCHS 64

typedef struct fj_nvrtc {
    char path[1024];
    int major, minor;
    int archs[FJ_NVRTC_MAX_ARCHS]; /* 75, 80 ... */
    int arch_count;
    char builtins[64];  /* libnvrtc-builtins.so.13.0 */
    atomic_bool broken; /* a compilation showed that the installation does not work */
} fj_nvrtc;

/* The first that compiles for arch (number 0: for any) and is not broken, in the order of fj_jit_nvrtc_find; else a
 * broken one. What was found is remembered, and lives as long as the process. FJ_ERR_DEVICE: there is none, the error's
 * detail lists what was looked for; or none compiles for arch, and the error says what would. FJ_ERR_IO, FJ_ERR_MEMORY. */
fj_status fj_jit_nvrtc_open(fj_arch arch, const fj_file_ops *ops, const fj_nvrtc **ret_nvrtc,
                            fj_error *error);

/* Whether a search found a library that is there but cannot be used. */
bool fj_jit_nvrtc_saw_unusable(void);

/* FJ_ERR_DEVICE when it does not compile for the architecture, with what would. */
fj_status fj_jit_nvrtc_check_arch(const fj_nvrtc *nvrtc, fj_arch arch, fj_error *error);

/* Appends the cubin to out and what the compiler said to log, also on failure. name is for its messages;
 * options are NULL-terminated. FJ_ERR_COMPILER (the log is in error->detail; the text has its first error,
 * with the template's line), FJ_ERR_DEVICE (the installation does not work, and is marked as broken), FJ_ERR_IO,
 * FJ_ERR_MEMORY. Many threads may compile at a time. */
fj_status fj_jit_nvrtc_compile(const fj_nvrtc *nvrtc, const fj_file_ops *ops, const char *name, fj_str source,
                               const char *const *options, fj_buf *out, fj_buf *log, fj_error *error);

/* Another one is opened from then on, where there is one. */
void fj_jit_nvrtc_give_up(const fj_nvrtc *nvrtc);

/* Compiles an empty kernel: whether the installation works. */
fj_status fj_jit_nvrtc_try(const fj_nvrtc *nvrtc, const fj_file_ops *ops, const fj_allocator *allocator,
                           fj_error *error);

/* ---- The program (nvrtc_child.c, held as bytes) --------------------------------------------------------- */

extern const unsigned char fj_jit_nvrtc_child[];
extern const size_t fj_jit_nvrtc_child_len;

/* Runs it in the workshop with arguments (NULL-terminated, the first is ignored) and appends its answer.
 * FJ_ERR_DEVICE when it cannot be started; FJ_ERR_COMPILER when it ended without an answer. */
fj_status fj_jit_nvrtc_run(const fj_workshop *shop, const char *const *arguments, fj_buf *answer,
                           fj_error *error);

/* ---- Finding it (nvrtc_find.c) ------------------------------------------------------------------------ */

/* Calls try(user, path) with each place in turn until it says true: paths, or bare names for the system's
 * loader; loaded: only if the process has it already. False: none. */
bool fj_jit_nvrtc_find(bool (*try)(void *user, const char *path, bool loaded), void *user);

#endif
