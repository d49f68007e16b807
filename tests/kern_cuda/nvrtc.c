#include <dlfcn.h>
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/dtype.h"
#include "tests/kern_cuda/kern_cuda.h"

/* The defaults: what a table of tiles would try first, per least architecture. */
static const struct {
    int from, to; /* architectures */
    variant v;
} defaults[] = {
    {75, 120, {"simt", FJ_DTYPE_F32, 64, 64, 64, 32, 1, 4, 0, 0, "none"}},
    {75, 120, {"simt", FJ_DTYPE_F32, 128, 128, 64, 32, 1, 4, 0, 0, "alibi"}},
    {75, 75, {"simt", FJ_DTYPE_F16, 128, 128, 64, 32, 1, 4, 0, 0, "document"}},
    {75, 90, {"simt", FJ_DTYPE_F64, 64, 64, 32, 32, 1, 4, 0, 0, "none"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 64, 64, 128, 64, 2, 4, 0, 0, "none"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 64, 64, 128, 64, 2, 4, 0, 0, "causal"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 64, 64, 128, 64, 2, 4, 0, 0, "alibi"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 64, 64, 128, 64, 2, 4, 0, 0, "softcap"}},
    {80, 120, {"mma", FJ_DTYPE_F16, 64, 64, 64, 64, 2, 4, 0, 0, "bias"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 64, 64, 64, 64, 2, 4, 1, 0, "document"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 128, 32, 2, 4, 0, 0, "none"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 128, 32, 2, 4, 0, 0, "causal"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 128, 32, 2, 4, 0, 0, "alibi"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 128, 32, 2, 4, 0, 0, "softcap"}},
    {80, 90, {"mma", FJ_DTYPE_BF16, 128, 128, 128, 64, 1, 4, 0, 0, "none"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 64, 64, 2, 4, 0, 0, "none"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 64, 64, 2, 4, 0, 0, "causal"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 64, 64, 2, 4, 0, 0, "softcap"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 64, 64, 2, 4, 0, 0, "bias"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 64, 64, 2, 4, 0, 0, "document"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 64, 64, 2, 4, 1, 0, "document"}},
    {80, 90, {"mma", FJ_DTYPE_F16, 128, 128, 128, 64, 2, 8, 0, 0, "alibi"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 192, 128, 64, 32, 2, 4, 0, 0, "alibi"}},
    {80, 90, {"mma", FJ_DTYPE_BF16, 192, 128, 128, 64, 2, 8, 0, 0, "causal"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 256, 256, 64, 32, 2, 4, 0, 0, "causal"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 256, 256, 64, 64, 1, 4, 0, 0, "alibi"}},
    {80, 90, {"mma", FJ_DTYPE_BF16, 256, 256, 128, 64, 1, 8, 0, 0, "causal"}},
    {80, 120, {"mma", FJ_DTYPE_F32, 64, 64, 64, 32, 2, 4, 0, 0, "causal"}},
    {80, 120, {"mma", FJ_DTYPE_F32, 128, 128, 64, 32, 2, 4, 0, 0, "alibi"}},
};
static const int archs[] = {75, 80, 86, 89, 90, 100, 120};

typedef void *program;
static struct {
    int (*create)(program *, const char *, const char *, int, const char *const *, const char *const *);
    int (*compile)(program, int, const char *const *);
    int (*log_size)(program, size_t *);
    int (*log)(program, char *);
    int (*destroy)(program *);
} api;

static bool open_nvrtc(void) {
    static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so",
                                        "/usr/local/cuda/lib64/libnvrtc.so",
                                        "/usr/local/cuda/lib/libnvrtc.so"};
    void *library = NULL;
    for (size_t i = 0; i < FJ_ARRAY_LEN(names) && !library; i++) library = dlopen(names[i], RTLD_NOW);
    if (!library) return false;
    *(void **)&api.create = dlsym(library, "nvrtcCreateProgram");
    *(void **)&api.compile = dlsym(library, "nvrtcCompileProgram");
    *(void **)&api.log_size = dlsym(library, "nvrtcGetProgramLogSize");
    *(void **)&api.log = dlsym(library, "nvrtcGetProgramLog");
    *(void **)&api.destroy = dlsym(library, "nvrtcDestroyProgram");
    return api.create && api.compile && api.log_size && api.log && api.destroy;
}

/* The number before or after a word of the log, or -1. */
static int number_before(const char *log, const char *word) {
    const char *at = strstr(log, word);
    if (!at) return -1;
    while (at > log && at[-1] == ' ') at--;
    while (at > log && at[-1] >= '0' && at[-1] <= '9') at--;
    return atoi(at);
}

static int compile_and_print(const variant *v, int arch, const char *text) {
    char name[128], target[64];
    variant_name(v, name);
    (void)snprintf(target, sizeof target, "--gpu-architecture=sm_%d", arch);
    const char *options[] = {target, "--std=c++17", "-default-device", "--fmad=false", "--ptxas-options=-v"};
    program p = NULL;
    size_t size = 0;
    struct timespec from, to;
    (void)clock_gettime(CLOCK_MONOTONIC, &from);
    if (api.create(&p, text, "kernel.cu", 0, NULL, NULL) != 0) return 1;
    const int failed = api.compile(p, (int)FJ_ARRAY_LEN(options), options);
    (void)clock_gettime(CLOCK_MONOTONIC, &to);
    (void)api.log_size(p, &size);
    char *log = calloc(1, size + 1);
    (void)api.log(p, log);
    (void)api.destroy(&p);
    const double ms = (double)(to.tv_sec - from.tv_sec) * 1e3 + (double)(to.tv_nsec - from.tv_nsec) / 1e6;
    const int spills = number_before(log, "bytes spill stores");
    printf("%-44s sm_%-4d %5d %7d %8d %7.0f%s\n", name, arch, number_before(log, "registers"), spills,
           variant_shared(v), ms, failed ? "  FAILED" : "");
    if (failed || strstr(log, "warning")) printf("%s", log);
    (void)fflush(stdout);
    free(log);
    return failed != 0 || spills != 0;
}

int nvrtc_table(const char *root, const char *filter, bool all) {
    int wrong = 0;
    if (!open_nvrtc()) return printf("no NVRTC\n"), 77;
    printf("%-44s %-7s %5s %7s %8s %7s\n", "kernel", "arch", "regs", "spills", "shared", "ms");
    for (size_t i = 0; i < FJ_ARRAY_LEN(defaults); i++) {
        const variant *v = &defaults[i].v;
        char name[128];
        variant_name(v, name);
        if (fnmatch(filter, name, 0) != 0) continue;
        fj_arena arena;
        fj_buf text;
        fj_arena_init(&arena, &fj_allocator_libc);
        fj_buf_init(&text, &fj_allocator_libc);
        render(v, mod_compile(&arena, mod_find(v->mod)), root, &text);
        for (size_t k = 0; k < FJ_ARRAY_LEN(archs); k++) {
            /* Each architecture has one kernel of each kind, unless all are asked for. */
            if (archs[k] < defaults[i].from || archs[k] > defaults[i].to) continue;
            if (!all && archs[k] != 75 && archs[k] != 80 && (k + i) % 5 != 0) continue;
            wrong |= compile_and_print(v, archs[k], text.data);
        }
        fj_buf_finish(&text);
        fj_arena_finish(&arena);
    }
    return wrong;
}
