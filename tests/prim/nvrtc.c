/* NVRTC through dlopen. */
#include "tests/prim/nvrtc.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

typedef struct program *nvrtcProgram;

static struct {
    int (*create)(nvrtcProgram *, const char *text, const char *name, int headers, const char *const *texts,
                  const char *const *names);
    int (*compile)(nvrtcProgram, int options, const char *const *);
    int (*log_size)(nvrtcProgram, size_t *);
    int (*log)(nvrtcProgram, char *);
    int (*cubin_size)(nvrtcProgram, size_t *);
    int (*cubin)(nvrtcProgram, char *);
    int (*destroy)(nvrtcProgram *);
    int (*arch_count)(int *);
    int (*archs)(int *);
} nvrtc;

static void *open_in(const char *root, const char *folder) {
    char path[512];
    if (!root) return NULL;
    (void)snprintf(path, sizeof path, "%s/%s/libnvrtc.so", root, folder);
    return dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static void *find_library(void) {
    static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12", "libnvrtc.so"};
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof names[0]; i++)
        library = dlopen(names[i], RTLD_NOW | RTLD_LOCAL);
    const char *roots[] = {getenv("CUDA_PATH"), getenv("CUDA_HOME"), "/usr/local/cuda"};
    for (size_t i = 0; !library && i < sizeof roots / sizeof roots[0]; i++) {
        library = open_in(roots[i], "lib64");
        if (!library) library = open_in(roots[i], "lib");
    }
    return library;
}

bool nvrtc_open(const char **why) {
    void *library = find_library();
    *why = "NVRTC was not found";
    if (!library) return false;
    const struct {
        const char *name;
        void *place;
    } functions[] = {
        {"nvrtcCreateProgram", &nvrtc.create},       {"nvrtcCompileProgram", &nvrtc.compile},
        {"nvrtcGetProgramLogSize", &nvrtc.log_size}, {"nvrtcGetProgramLog", &nvrtc.log},
        {"nvrtcGetCUBINSize", &nvrtc.cubin_size},    {"nvrtcGetCUBIN", &nvrtc.cubin},
        {"nvrtcDestroyProgram", &nvrtc.destroy},     {"nvrtcGetNumSupportedArchs", &nvrtc.arch_count},
        {"nvrtcGetSupportedArchs", &nvrtc.archs},
    };
    *why = "NVRTC is too old: a function is missing";
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function) return false;
        *(void **)functions[i].place = function;
    }
    return true;
}

bool nvrtc_supports(int arch) {
    int count = 0, archs[64];
    if (nvrtc.arch_count(&count) != 0 || count > 64 || nvrtc.archs(archs) != 0) return false;
    for (int i = 0; i < count; i++)
        if (archs[i] == arch) return true;
    return false;
}

static char *read_text(const char *path) {
    FILE *file = fopen(path, "rb");
    if (!file) return NULL;
    char *text = NULL;
    size_t length = 0;
    for (size_t room = 1 << 16; (text = realloc(text, length + room)) != NULL;) {
        size_t got = fread(text + length, 1, room - 1, file);
        length += got;
        if (got == 0) break;
    }
    (void)fclose(file);
    if (text) text[length] = '\0';
    return text;
}

static char *take(nvrtcProgram program, int (*size_of)(nvrtcProgram, size_t *),
                  int (*get)(nvrtcProgram, char *), size_t *size) {
    *size = 0;
    if (size_of(program, size) != 0) return NULL;
    char *bytes = calloc(*size + 1, 1);
    if (bytes) (void)get(program, bytes);
    return bytes;
}

bool nvrtc_compile(const char *path, const char *arch, const char *const *options, char **cubin, size_t *size,
                   char **log) {
    char target[64];
    const char *all[32] = {target, "--std=c++17"};
    int count = 2;
    for (; *options && count < 32; options++) all[count++] = *options;
    (void)snprintf(target, sizeof target, "--gpu-architecture=%s", arch);
    nvrtcProgram program = NULL;
    char *text = read_text(path);
    *cubin = *log = NULL;
    if (!text || nvrtc.create(&program, text, path, 0, NULL, NULL) != 0) {
        free(text);
        return false;
    }
    bool good = nvrtc.compile(program, count, all) == 0;
    size_t log_size;
    *log = take(program, nvrtc.log_size, nvrtc.log, &log_size);
    if (good) *cubin = take(program, nvrtc.cubin_size, nvrtc.cubin, size);
    (void)nvrtc.destroy(&program);
    free(text);
    return good && *cubin && *log;
}
