#include "tests/prim/nvrtc.h"

#include <stdio.h>

enum { MOST_FOLDERS = 6 };

static fj_status read_text(const char *path, fj_buf *text, fj_error *error) {
    char part[4096];
    FILE *file = fopen(path, "rb");
    if (!file) return fj_error_set(error, FJ_ERR_IO, "'%s' cannot be read", path);
    for (size_t got; (got = fread(part, 1, sizeof part, file)) > 0;) fj_buf_write(text, part, got);
    (void)fclose(file);
    return text->failed ? fj_error_set(error, FJ_ERR_MEMORY, "out of memory") : FJ_OK;
}

fj_status nvrtc_compile(const char *path, fj_arch arch, const char *const *folders, fj_buf *cubin,
                        fj_buf *log, fj_error *error) {
    char target[48], name[FJ_ARCH_NAME], include[MOST_FOLDERS][600];
    const char *options[MOST_FOLDERS + 4] = {target, "--std=c++17", "--fmad=false"};
    const fj_nvrtc *nvrtc = NULL;
    fj_buf text;
    fj_jit_arch_name(arch, name);
    (void)snprintf(target, sizeof target, "--gpu-architecture=%s", name);
    for (int i = 0; i < MOST_FOLDERS && folders[i]; i++) {
        (void)snprintf(include[i], sizeof include[i], "-I%s", folders[i]);
        options[3 + i] = include[i];
    }
    fj_buf_init(&text, &fj_allocator_libc);
    fj_status status = fj_jit_nvrtc_open(arch, &fj_file_ops_system, &nvrtc, error);
    if (status == FJ_OK) status = read_text(path, &text, error);
    if (status == FJ_OK)
        status = fj_jit_nvrtc_compile(nvrtc, &fj_file_ops_system, path, (fj_str){text.data, text.len},
                                      options, cubin, log, error);
    fj_buf_finish(&text);
    return status;
}
