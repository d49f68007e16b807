/* What compiles for a target: the host's C or C++ compiler, or NVRTC. */
#ifndef FJ_JIT_TOOLCHAIN_H
#define FJ_JIT_TOOLCHAIN_H

#include "jit/compile.h"
#include "jit/jit.h"
#include "jit/nvrtc.h"

#define FJ_MAX_OPTIONS 40

/* What a variant's text is compiled with: part of every key, so the same with any compiler. Points into
 * itself: it is not copied. */
typedef struct fj_options {
    const char *list[FJ_MAX_OPTIONS]; /* NULL-terminated */
    char arch[40];
} fj_options;

void fj_jit_options(const fj_variant *variant, fj_options *ret_options);

typedef struct fj_toolchain {
    fj_target target;
    fj_compiler compiler;  /* path and version, as keys and records have them; of NVRTC not its path */
    const fj_nvrtc *nvrtc; /* cuda */
} fj_toolchain;

/* Finds the compiler of the variant's target. FJ_ERR_DEVICE: there is none, or it does not know the
 * architecture. */
fj_status fj_jit_toolchain_find(const fj_variant *variant, const fj_file_ops *ops,
                                const fj_allocator *allocator, fj_toolchain *ret_toolchain, fj_error *error);

typedef struct fj_compiled {
    fj_buf bytes; /* the code object */
    fj_buf log;   /* what the compiler said; empty for the host's */
    int resource_count;
    fj_resources resources[FJ_RESOURCES_MAX];
} fj_compiled;

void fj_jit_compiled_init(fj_compiled *compiled, const fj_allocator *allocator);
void fj_jit_compiled_finish(fj_compiled *compiled);

fj_status fj_jit_toolchain_compile(const fj_toolchain *toolchain, const fj_file_ops *ops,
                                   const fj_variant *variant, const fj_options *options, fj_str source,
                                   fj_compiled *compiled, fj_error *error);

#endif
