/* NVRTC behind a table of functions. No header of CUDA is needed: the few types are ours.
 *
 * Its cache of its own (12.8 and newer) is turned off: ours holds the kernels, and times are true.
 */
#include "jit/nvrtc.h"

#include <ctype.h>
#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* nvrtcResult */
enum { OUT_OF_MEMORY = 1, COMPILATION = 6, BUILTIN_OPERATION_FAILURE = 7 };
enum { MAX_OPTIONS = 32 };

/* ---- Opening ----------------------------------------------------------------------------------------- */

/* Process-wide, once: libraries cannot be closed safely. */
static struct {
    pthread_mutex_t lock;
    bool open;
    fj_nvrtc nvrtc;
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

typedef struct opening {
    fj_nvrtc nvrtc;
    fj_buf looked;  /* a line for each place */
    fj_status sick; /* of the first library that is there but cannot be used */
    fj_error error;
} opening;

static bool find_functions(void *library, fj_nvrtc_api *api, const char **ret_missing) {
    const struct {
        const char *name;
        void *slot;
    } functions[] = {
        {"nvrtcVersion", &api->version},
        {"nvrtcGetErrorString", &api->error_string},
        {"nvrtcGetNumSupportedArchs", &api->arch_count},
        {"nvrtcGetSupportedArchs", &api->archs},
        {"nvrtcCreateProgram", &api->create},
        {"nvrtcDestroyProgram", &api->destroy},
        {"nvrtcCompileProgram", &api->compile},
        {"nvrtcGetCUBINSize", &api->cubin_size},
        {"nvrtcGetCUBIN", &api->cubin},
        {"nvrtcGetProgramLogSize", &api->log_size},
        {"nvrtcGetProgramLog", &api->log},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(functions); i++) {
        void *function = dlsym(library, functions[i].name);
        *ret_missing = functions[i].name;
        if (!function) return false;
        memcpy(functions[i].slot, &function, sizeof function);
    }
    return true;
}

static void name_path(void *library, const char *path, char *ret_path, size_t size) {
    struct link_map *map = NULL;
    char real[PATH_MAX];
    if (dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name && *map->l_name) path = map->l_name;
    (void)snprintf(ret_path, size, "%.*s", (int)size - 1, realpath(path, real) ? real : path);
}

/* NVRTC opens its builtins by their bare name: the ones beside it are the right ones, whatever the
 * loader's paths say. What is open under that name is used. */
static void open_builtins(fj_nvrtc *nvrtc) {
    char path[PATH_MAX];
    const char *slash = strrchr(nvrtc->path, '/');
    (void)snprintf(nvrtc->builtins, sizeof nvrtc->builtins, "libnvrtc-builtins.so.%d.%d", nvrtc->major,
                   nvrtc->minor);
    int length = snprintf(path, sizeof path, "%.*s%s", slash ? (int)(slash - nvrtc->path + 1) : 0,
                          nvrtc->path, nvrtc->builtins);
    if (slash && length > 0 && (size_t)length < sizeof path) (void)dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static bool ask(fj_nvrtc *nvrtc) {
    int count = 0, all[4 * FJ_NVRTC_MAX_ARCHS];
    if (nvrtc->api.version(&nvrtc->major, &nvrtc->minor) != 0 || nvrtc->major < 12) return false;
    if (nvrtc->api.arch_count(&count) != 0 || count < 1 || count > (int)FJ_ARRAY_LEN(all)) return false;
    if (nvrtc->api.archs(all) != 0) return false;
    nvrtc->arch_count = count < FJ_NVRTC_MAX_ARCHS ? count : FJ_NVRTC_MAX_ARCHS;
    memcpy(nvrtc->archs, all, (size_t)nvrtc->arch_count * sizeof *all);
    return true;
}

static bool try_open(void *user, const char *path, bool loaded) {
    opening *o = user;
    const char *missing = NULL;
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL | (loaded ? RTLD_NOLOAD : 0));
    if (!library) {
        const char *reason = dlerror();
        bool absent = !reason || strstr(reason, "No such file") != NULL;
        if (!loaded) fj_buf_printf(&o->looked, "  %s%s%s\n", path, absent ? "" : ": ", absent ? "" : reason);
        return false;
    }
    fj_nvrtc nvrtc = {0};
    name_path(library, path, nvrtc.path, sizeof nvrtc.path);
    bool whole = find_functions(library, &nvrtc.api, &missing);
    if (whole && ask(&nvrtc)) {
        open_builtins(&nvrtc);
        o->nvrtc = nvrtc;
        return true;
    }
    char why[96] = "it does not say its version and architectures";
    if (!whole)
        (void)snprintf(why, sizeof why, "it has no %s", missing);
    else if (nvrtc.major > 0 && nvrtc.major < 12)
        (void)snprintf(why, sizeof why, "it is %d.%d", nvrtc.major, nvrtc.minor);
    if (o->sick == FJ_OK)
        o->sick = fj_error_set(&o->error, FJ_ERR_DEVICE, "'%.400s' is no NVRTC of version 12 or newer: %s",
                               nvrtc.path, why);
    fj_buf_printf(&o->looked, "  %s: no NVRTC of version 12 or newer\n", nvrtc.path);
    return false;
}

static fj_status not_found(opening *o, fj_error *error) {
    const char *chosen = getenv("FLEXJIT_NVRTC");
    if (o->sick != FJ_OK)
        (void)fj_error_set(error, FJ_ERR_DEVICE, "%s", o->error.text);
    else if (chosen && *chosen)
        (void)fj_error_set(error, FJ_ERR_DEVICE,
                           "NVRTC cannot be opened: FLEXJIT_NVRTC='%.400s' is not the library", chosen);
    else
        (void)fj_error_set(error, FJ_ERR_DEVICE,
                           "NVRTC is not there: looked for libnvrtc.so.13 and libnvrtc.so.12 in Python's "
                           "packages, conda, the system's loader, CUDA_PATH, CUDA_HOME and /usr/local/cuda");
    fj_error_note(error, "pip install nvidia-cuda-nvrtc, or have FLEXJIT_NVRTC name the library; "
                         "a prebuilt cache needs none");
    if (!o->looked.failed && o->looked.len > 0) fj_error_detail(error, o->looked.data, o->looked.len);
    return FJ_ERR_DEVICE;
}

fj_status fj_jit_nvrtc_open(const fj_nvrtc **ret_nvrtc, fj_error *error) {
    fj_status status = FJ_OK;
    (void)pthread_mutex_lock(&shared.lock);
    if (!shared.open) {
        opening o = {0};
        fj_buf_init(&o.looked, &fj_allocator_libc);
        shared.open = fj_jit_nvrtc_find(try_open, &o);
        if (shared.open)
            shared.nvrtc = o.nvrtc;
        else
            status = not_found(&o, error);
        fj_buf_finish(&o.looked);
        fj_error_finish(&o.error);
    }
    (void)pthread_mutex_unlock(&shared.lock);
    if (status == FJ_OK) *ret_nvrtc = &shared.nvrtc;
    return status;
}

/* ---- Architectures ------------------------------------------------------------------------------------- */

/* The first release that compiles for an architecture (release notes of the toolkit). */
static const char *first_release(int arch) {
    switch (arch) {
    case 89:
    case 90: return "11.8";
    case 100:
    case 101:
    case 120: return "12.8";
    case 103:
    case 121: return "12.9";
    default: return arch > 100 ? "13.0" : NULL;
    }
}

fj_status fj_jit_nvrtc_check_arch(const fj_nvrtc *nvrtc, fj_arch arch, fj_error *error) {
    char name[FJ_ARCH_NAME], list[256];
    int length = 0;
    for (int i = 0; i < nvrtc->arch_count; i++)
        if (nvrtc->archs[i] == arch.number) return FJ_OK;
    list[0] = '\0';
    for (int i = 0; i < nvrtc->arch_count && length + 12 < (int)sizeof list; i++)
        length += snprintf(list + length, sizeof list - (size_t)length, " sm_%d", nvrtc->archs[i]);
    fj_jit_arch_name(arch, name);
    const char *release = first_release(arch.number);
    bool newer = nvrtc->arch_count > 0 && arch.number > nvrtc->archs[0];
    (void)fj_error_set(error, FJ_ERR_DEVICE, "NVRTC %d.%d ('%.300s') does not compile for %s%s%s%s",
                       nvrtc->major, nvrtc->minor, nvrtc->path, name, newer && release ? ": " : "",
                       newer && release ? release : "", newer && release ? " or newer does" : "");
    fj_error_note(error, "it knows%s", list);
    return FJ_ERR_DEVICE;
}

/* ---- Compiling ------------------------------------------------------------------------------------------- */

static void keep_log(const fj_nvrtc *nvrtc, void *program, fj_buf *log) {
    size_t size = 0;
    if (nvrtc->api.log_size(program, &size) != 0 || size <= 1) return;
    char *text = fj_alloc(log->allocator, size);
    if (!text) {
        log->failed = true;
        return;
    }
    if (nvrtc->api.log(program, text) == 0) fj_buf_write(log, text, strnlen(text, size));
    fj_free(log->allocator, text, size);
}

/* "FILE(LINE): error: TEXT", of `length`, as "FILE:LINE: TEXT"; #line made FILE and LINE those of a template. */
static bool place_error(const char *line, int length, char *text, size_t size) {
    static const char *const marks[] = {": error: ", ": catastrophic error: "};
    const int file = (int)strcspn(line, "(\n");
    if (file >= length || line[file] != '(' || !isdigit((unsigned char)line[file + 1])) return false;
    for (size_t i = 0; i < FJ_ARRAY_LEN(marks); i++) {
        const char *mark = memmem(line, (size_t)length, marks[i], strlen(marks[i]));
        if (!mark) continue;
        const char *message = mark + strlen(marks[i]);
        (void)snprintf(text, size, "%.*s:%d: %.*s", file, line, atoi(line + file + 1),
                       (int)(line + length - message), message);
        return true;
    }
    return false;
}

/* The first error of a log that has a place, else (of ptxas) the first line that speaks of one. */
static bool first_error(const char *log, char *text, size_t size) {
    bool found = false;
    for (const char *at = log; *at; at += strspn(at, "\n")) {
        const int length = (int)strcspn(at, "\n");
        if (place_error(at, length, text, size)) return true;
        if (!found && memmem(at, (size_t)length, "error", 5)) {
            (void)snprintf(text, size, "%.*s", length, at);
            found = true;
        }
        at += length;
    }
    return found;
}

static fj_status explain(const fj_nvrtc *nvrtc, const char *name, int result, const fj_buf *log,
                         fj_error *error) {
    const char *said = log->len > 0 && !log->failed ? log->data : "";
    char first[300];
    fj_status status = FJ_ERR_COMPILER;
    if (result == OUT_OF_MEMORY) {
        status = fj_error_set(error, FJ_ERR_MEMORY, "NVRTC ran out of memory on kernel %s", name);
    } else if (result == BUILTIN_OPERATION_FAILURE || strstr(said, "libnvrtc-builtins") != NULL) {
        status = fj_error_set(error, FJ_ERR_DEVICE,
                              "NVRTC %d.%d ('%.300s') cannot use its %s: both must be of one release and in "
                              "one folder",
                              nvrtc->major, nvrtc->minor, nvrtc->path, nvrtc->builtins);
    } else if (first_error(said, first, sizeof first)) {
        (void)fj_error_set(error, FJ_ERR_COMPILER, "NVRTC %d.%d failed on kernel %s: %s", nvrtc->major,
                           nvrtc->minor, name, first);
    } else {
        (void)fj_error_set(error, FJ_ERR_COMPILER, "NVRTC %d.%d failed on kernel %s: %s", nvrtc->major,
                           nvrtc->minor, name, nvrtc->api.error_string(result));
    }
    if (*said) fj_error_detail(error, said, log->len);
    return status;
}

static int take_cubin(const fj_nvrtc *nvrtc, void *program, fj_buf *out) {
    size_t size = 0;
    int result = nvrtc->api.cubin_size(program, &size);
    if (result != 0 || size == 0) return result != 0 ? result : COMPILATION;
    char *bytes = fj_alloc(out->allocator, size);
    if (!bytes) return OUT_OF_MEMORY;
    result = nvrtc->api.cubin(program, bytes);
    if (result == 0) fj_buf_write(out, bytes, size);
    fj_free(out->allocator, bytes, size);
    return result == 0 && out->failed ? OUT_OF_MEMORY : result;
}

fj_status fj_jit_nvrtc_compile(const fj_nvrtc *nvrtc, const char *name, const char *source,
                               const char *const *options, fj_buf *out, fj_buf *log, fj_error *error) {
    const char *texts[MAX_OPTIONS];
    char file[96];
    int count = 0;
    while (options[count] && count < MAX_OPTIONS - 1) {
        texts[count] = options[count];
        count++;
    }
    if (nvrtc->major > 12 || (nvrtc->major == 12 && nvrtc->minor >= 8)) texts[count++] = "--no-cache";
    void *program = NULL;
    (void)snprintf(file, sizeof file, "%s.cu", name);
    int result = nvrtc->api.create(&program, source, file, 0, NULL, NULL);
    if (result == 0) {
        result = nvrtc->api.compile(program, count, texts);
        keep_log(nvrtc, program, log);
        if (result == 0) result = take_cubin(nvrtc, program, out);
        (void)nvrtc->api.destroy(&program);
    }
    return result == 0 ? FJ_OK : explain(nvrtc, name, result, log, error);
}

fj_status fj_jit_nvrtc_try(const fj_nvrtc *nvrtc, const fj_allocator *allocator, fj_error *error) {
    char arch[40];
    fj_buf cubin, log;
    fj_buf_init(&cubin, allocator);
    fj_buf_init(&log, allocator);
    (void)snprintf(arch, sizeof arch, "--gpu-architecture=sm_%d", nvrtc->archs[nvrtc->arch_count - 1]);
    const char *const options[] = {arch, NULL};
    fj_status status = fj_jit_nvrtc_compile(nvrtc, "try", "extern \"C\" __global__ void fj_try() {}\n",
                                            options, &cubin, &log, error);
    fj_buf_finish(&cubin);
    fj_buf_finish(&log);
    return status;
}
