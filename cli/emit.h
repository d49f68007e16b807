/* `flexjit prebuild --emit-c`: kernels as C files, with what builds them. */
#ifndef FJ_CLI_EMIT_H
#define FJ_CLI_EMIT_H

#include "cli/manifest.h"

/* Writes a NAME.c and a NAME.h for each of these builds (indices, in any order), a meson.build and a CMakeLists.txt into the
 * folder, which is made when missing. What is there with the same bytes is left alone; a file that flexjit did not write is
 * not replaced. Returns an exit status; the error is reported. */
int cli_emit_c(const char *folder, const cli_builds *builds, const size_t *indices, size_t count,
               fj_device *const *devices);

#endif
