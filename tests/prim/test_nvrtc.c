/* Kernel files compile with NVRTC for every architecture, without a word from it.
 *
 * usage: test_nvrtc INCLUDE[:INCLUDE...] FILE.cu...
 *
 * Exit status 77 (skipped) where there is no NVRTC.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/prim/nvrtc.h"

static const struct {
    int number;
    const char *name;
} archs[] = {{75, "sm_75"}, {80, "sm_80"}, {86, "sm_86"}, {90, "sm_90a"}, {100, "sm_100a"}, {120, "sm_120a"}};

static int compile(const char *file, const char *arch, const char *const *options) {
    char *cubin, *log;
    size_t size = 0;
    bool good = nvrtc_compile(file, arch, options, &cubin, &size, &log);
    bool silent = good && strspn(log, " \n") == strlen(log);
    if (!silent) printf("%s, %s:\n%s\n", file, arch, log ? log : "cannot be read");
    free(cubin);
    free(log);
    return !silent;
}

int main(int argc, char **argv) {
    enum { MOST_OPTIONS = 8 };
    static char include[MOST_OPTIONS][512];
    const char *options[MOST_OPTIONS + 2] = {"--fmad=false"}, *why;
    int failed = 0, compiled = 0, count = 1;
    if (argc < 3) return 2;
    if (!nvrtc_open(&why)) {
        printf("skipped: %s\n", why);
        return 77;
    }
    for (char *path = strtok(argv[1], ":"); path && count <= MOST_OPTIONS;
         path = strtok(NULL, ":"), count++) {
        (void)snprintf(include[count - 1], sizeof include[0], "-I%s", path);
        options[count] = include[count - 1];
    }
    for (size_t i = 0; i < sizeof archs / sizeof archs[0]; i++) {
        if (!nvrtc_supports(archs[i].number)) {
            printf("%s: not an architecture of this NVRTC\n", archs[i].name);
            continue;
        }
        for (int f = 2; f < argc; f++, compiled++) failed += compile(argv[f], archs[i].name, options);
    }
    printf("%d compiled, %d failed\n", compiled, failed);
    return failed != 0 || compiled == 0;
}
