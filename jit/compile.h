/* The host's C and C++ compilers: finding them, and compiling one text to a shared object. */
#ifndef FJ_JIT_COMPILE_H
#define FJ_JIT_COMPILE_H

#include "cache/files.h"
#include "jit/jit.h"

typedef struct fj_compiler {
    char path[1024];
    char version[256]; /* first line of what --version prints */
} fj_compiler;

typedef enum fj_language { FJ_LANGUAGE_C, FJ_LANGUAGE_CXX, FJ_LANGUAGE_COUNT } fj_language;

/* Where compilers of a language are looked for: the variable alone if it is set, else the first on PATH. */
typedef struct fj_compiler_search {
    const char *name, *device, *variable;
    const char *candidates[4]; /* NULL-terminated */
} fj_compiler_search;
const fj_compiler_search *fj_jit_compiler_search(fj_language language);

/* FJ_ERR_DEVICE says what was looked for. */
fj_status fj_jit_compiler_find(fj_language language, const fj_file_ops *ops, const fj_allocator *allocator,
                               fj_compiler *ret_compiler, fj_error *error);

/* Looks for the program `name` on PATH (or takes it as a path). */
bool fj_jit_compiler_locate(const char *name, char *ret_path, size_t size);
/* Runs PATH --version. */
fj_status fj_jit_compiler_version(const fj_file_ops *ops, const fj_allocator *allocator,
                                  fj_compiler *compiler, fj_error *error);

/* The options for a cpu kernel and for an emulated one, in order, NULL-terminated; static. */
const char *const *fj_jit_compile_options(fj_isa isa);
const char *const *fj_jit_compile_options_emu(void);

/* Appends the shared object to out. Temporary files are gone whatever the outcome. */
fj_status fj_jit_compile(const fj_compiler *compiler, fj_language language, const char *const *flags,
                         const fj_file_ops *ops, fj_str source, fj_buf *out, fj_error *error);

#endif
