/* The host's C compiler: finding it, and compiling one text to a shared object. */
#ifndef FJ_JIT_COMPILE_H
#define FJ_JIT_COMPILE_H

#include "cache/files.h"
#include "jit/jit.h"

typedef struct fj_compiler {
    char path[1024];
    char version[256]; /* first line of what --version prints */
} fj_compiler;

/* FLEXJIT_CC alone if it is set, else the first of cc, gcc, clang on PATH. FJ_ERR_DEVICE says what
 * was looked for. */
fj_status fj_jit_compiler_find(const fj_file_ops *ops, const fj_allocator *allocator,
                               fj_compiler *ret_compiler, fj_error *error);

/* Looks for the program `name` on PATH (or takes it as a path). */
bool fj_jit_compiler_locate(const char *name, char *ret_path, size_t size);
/* Runs PATH --version. */
fj_status fj_jit_compiler_version(const fj_file_ops *ops, const fj_allocator *allocator,
                                  fj_compiler *compiler, fj_error *error);

/* The options, in order, NULL-terminated; static. */
const char *const *fj_jit_compile_options(fj_isa isa);

/* Appends the shared object to out. Temporary files are gone whatever the outcome. */
fj_status fj_jit_compile(const fj_compiler *compiler, const fj_file_ops *ops, fj_str source, fj_isa isa,
                         fj_buf *out, fj_error *error);

#endif
