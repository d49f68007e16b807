#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/dtype.h"
#include "tests/kern_cuda/bwd.h"

/* What a table of tiles would try first. */
static const struct {
    int from, to; /* architectures */
    bwd_variant v;
} defaults[] = {
    {75, 120, {"simt", FJ_DTYPE_F32, 64, 64, 32, 32, 1, 4, 0, "none"}},
    {75, 120, {"simt", FJ_DTYPE_F32, 128, 128, 32, 32, 1, 4, 0, "alibi"}},
    {75, 120, {"simt", FJ_DTYPE_F32, 256, 256, 16, 32, 1, 4, 0, "causal"}},
    {75, 75, {"simt", FJ_DTYPE_F16, 128, 128, 32, 32, 1, 4, 0, "document"}},
    {75, 90, {"simt", FJ_DTYPE_F64, 64, 64, 16, 32, 1, 4, 0, "none"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 64, 64, 64, 64, 2, 4, 0, "none"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 64, 64, 64, 64, 2, 4, 0, "causal"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 64, 64, 64, 64, 2, 4, 0, "softcap"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 64, 64, 64, 32, 2, 4, 0, "relative"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 64, 64, 2, 8, 0, "none"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 64, 64, 2, 8, 0, "causal"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 64, 64, 2, 8, 0, "alibi"}},
    {80, 120, {"mma", FJ_DTYPE_F16, 128, 128, 64, 64, 2, 8, 0, "softcap"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 64, 32, 2, 8, 0, "causal"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 128, 128, 64, 32, 2, 8, 0, "bias"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 192, 128, 64, 32, 2, 8, 0, "causal"}},
    {80, 90, {"mma", FJ_DTYPE_BF16, 256, 256, 64, 32, 2, 8, 0, "causal"}},
    {80, 120, {"mma", FJ_DTYPE_BF16, 256, 256, 32, 32, 1, 4, 0, "causal"}},
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

/* Registers and bytes of spills of one kernel, of ptxas's log; false: it does not speak of it. */
static bool find_kernel(const char *log, const char *kernel, int *registers, int *spills) {
    char entry[64];
    (void)snprintf(entry, sizeof entry, "entry function '%s'", kernel);
    const char *at = strstr(log, entry);
    const char *stack = at ? strstr(at, "bytes stack frame, ") : NULL,
               *used = at ? strstr(at, "Used ") : NULL;
    if (!stack || !used) return false;
    *spills = atoi(stack + strlen("bytes stack frame, "));
    *registers = atoi(used + strlen("Used "));
    return true;
}

static double milliseconds(clockid_t clock) {
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int compile_and_print(const bwd_variant *v, int arch, const char *text) {
    char name[128], target[64];
    bwd_variant_name(v, name);
    (void)snprintf(target, sizeof target, "--gpu-architecture=sm_%d", arch);
    const char *options[] = {target, "--std=c++17", "-default-device", "--fmad=false", "--ptxas-options=-v"};
    program p = NULL;
    size_t size = 0;
    const double from = milliseconds(CLOCK_PROCESS_CPUTIME_ID);
    if (api.create(&p, text, "kernel.cu", 0, NULL, NULL) != 0) return 1;
    const int failed = api.compile(p, (int)FJ_ARRAY_LEN(options), options);
    const double ms = milliseconds(CLOCK_PROCESS_CPUTIME_ID) - from;
    (void)api.log_size(p, &size);
    char *log = calloc(1, size + 1);
    (void)api.log(p, log);
    (void)api.destroy(&p);
    int kv = -1, kv_spills = -1, q = -1, q_spills = -1;
    const bool found =
        find_kernel(log, "fj_bwd_kv", &kv, &kv_spills) && find_kernel(log, "fj_bwd_q", &q, &q_spills);
    printf("%-52s sm_%-4d %5d %6d %5d %6d %8d %6.0f%s\n", name, arch, kv, kv_spills, q, q_spills,
           bwd_variant_shared(v), ms, failed || !found ? "  FAILED" : "");
    if (failed || strstr(log, "warning")) printf("%.2000s", log);
    (void)fflush(stdout);
    free(log);
    return failed != 0 || !found || kv_spills || q_spills;
}

int bwd_nvrtc_table(const char *root, bool all) {
    int wrong = 0;
    if (!open_nvrtc()) return printf("no NVRTC\n"), 77;
    printf("%-52s %-7s %5s %6s %5s %6s %8s %6s\n", "kernels", "arch", "kv", "spills", "q", "spills", "shared",
           "cpu ms");
    for (size_t i = 0; i < FJ_ARRAY_LEN(defaults); i++) {
        const bwd_variant *v = &defaults[i].v;
        fj_arena arena;
        fj_buf text;
        fj_arena_init(&arena, &fj_allocator_libc);
        fj_buf_init(&text, &fj_allocator_libc);
        const bwd_graphs graphs = bwd_mod_compile(&arena, bwd_mod_find(v->mod));
        bwd_render(v, &graphs, root, &text);
        for (size_t k = 0; k < FJ_ARRAY_LEN(archs); k++) {
            /* Each architecture has some of the kernels, unless all are asked for. */
            if (archs[k] < defaults[i].from || archs[k] > defaults[i].to) continue;
            if (!all && (k + i) % 7 != 0) continue;
            wrong |= compile_and_print(v, archs[k], text.data);
        }
        fj_buf_finish(&text);
        fj_arena_finish(&arena);
    }
    return wrong;
}
