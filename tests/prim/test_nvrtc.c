/* Kernel files compile with NVRTC for every architecture, without a word from it.
 *
 * In machine code a vector is one access: each kind of memory.cu is there.
 *
 * usage: test_nvrtc INCLUDE[:INCLUDE...] FILE.cu...
 *
 * Exit status 77 (skipped) where there is no NVRTC.
 */
#include <stdio.h>
#include <string.h>

#include "tests/prim/nvrtc.h"
#include "tests/support/machine.h"

static const fj_arch archs[] = {{75, 0}, {80, 0}, {86, 0}, {90, 'a'}, {100, 'a'}, {120, 'a'}};

/* The loads and stores of 8 and 16 bytes in prim_load_store: of each of three kinds of caching, one at least. */
static bool vectors(const char *file, const fj_buf *cubin) {
    static const int bytes[] = {8, 16};
    const machine_counts counts = machine_count(cubin->data, cubin->len);
    const char *slash = strrchr(file, '/');
    bool good = true;
    if (strcmp(slash ? slash + 1 : file, "memory.cu") != 0) return true;
    for (size_t i = 0; i < FJ_ARRAY_LEN(bytes); i++) {
        const int loads = counts.loads[bytes[i]], stores = counts.stores[bytes[i]];
        if (loads >= 3 && stores >= 3) continue;
        printf("%d loads and %d stores of %d bytes instead of 3\n", loads, stores, bytes[i]);
        good = false;
    }
    return good;
}

static int compile(const char *file, fj_arch arch, const char *const *folders) {
    char name[FJ_ARCH_NAME];
    fj_error error = {0};
    fj_buf cubin, log;
    fj_buf_init(&cubin, &fj_allocator_libc);
    fj_buf_init(&log, &fj_allocator_libc);
    fj_jit_arch_name(arch, name);
    const bool good = nvrtc_compile(file, arch, folders, &cubin, &log, &error) == FJ_OK;
    const bool silent = good && (!log.data || strspn(log.data, " \n") == strlen(log.data));
    const bool right = silent && vectors(file, &cubin);
    if (!right) printf("%s, %s: %s\n%s\n", file, name, error.text, log.data ? log.data : "");
    fj_error_finish(&error);
    fj_buf_finish(&cubin);
    fj_buf_finish(&log);
    return !right;
}

int main(int argc, char **argv) {
    const char *folders[8] = {NULL};
    const fj_nvrtc *nvrtc = NULL;
    fj_error error = {0};
    int failed = 0, compiled = 0, count = 0;
    if (argc < 3) return 2;
    if (fj_jit_nvrtc_open((fj_arch){0}, &fj_file_ops_system, &nvrtc, &error) != FJ_OK) {
        printf("skipped: %s\n", error.text);
        fj_error_finish(&error);
        return 77;
    }
    for (char *path = strtok(argv[1], ":"); path && count < 6; path = strtok(NULL, ":"))
        folders[count++] = path;
    for (size_t i = 0; i < FJ_ARRAY_LEN(archs); i++) {
        if (fj_jit_nvrtc_check_arch(nvrtc, archs[i], &error) != FJ_OK) {
            printf("%s\n", error.text);
            fj_error_finish(&error);
            continue;
        }
        for (int f = 2; f < argc; f++, compiled++) failed += compile(argv[f], archs[i], folders);
    }
    printf("%d compiled, %d failed\n", compiled, failed);
    return failed != 0 || compiled == 0;
}
