/* Opening libcuda.so.1. Never libcuda.so: that is what the toolkit's stub is called, which only links. */
#include "driver/cuda_api.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { OLDEST_DRIVER = 12000 }; /* cuLibraryLoadData */

/* Process-wide, once: the driver cannot be closed. */
static struct {
    pthread_mutex_t lock;
    bool open, unusable;
    fj_cuda_api api;
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

static void name_path(void *library, const char *path, char *ret_path, size_t size) {
    struct link_map *map = NULL;
    char real[PATH_MAX];
    if (dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name && *map->l_name) path = map->l_name;
    (void)snprintf(ret_path, size, "%.*s", (int)size - 1, realpath(path, real) ? real : path);
}

/* A library that is there but cannot be opened is remembered as unusable. */
static const char *why_not_opened(char *reason, size_t size) {
    const char *why = dlerror();
    (void)snprintf(reason, size, "%s", why ? why : "");
    shared.unusable |= strstr(reason, "No such file") == NULL;
    return reason;
}

static fj_status open_library(void **ret_library, fj_cuda_api *api, fj_error *error) {
    static const char *const places[] = {"libcuda.so.1", "/usr/lib/wsl/lib/libcuda.so.1"};
    const char *chosen = getenv("FLEXJIT_LIBCUDA"), *path = places[0];
    char reason[300] = "";
    if (chosen && *chosen) {
        path = chosen;
        *ret_library = dlopen(chosen, RTLD_NOW | RTLD_LOCAL);
        if (!*ret_library)
            return fj_error_set(error, FJ_ERR_DEVICE,
                                "no NVIDIA driver: FLEXJIT_LIBCUDA='%.150s' cannot be opened (%.250s)",
                                chosen, why_not_opened(reason, sizeof reason));
    }
    for (size_t i = 0; i < FJ_ARRAY_LEN(places) && !*ret_library; i++) {
        path = places[i];
        *ret_library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        if (i == 0 && !*ret_library) (void)why_not_opened(reason, sizeof reason);
    }
    if (!*ret_library) {
        (void)fj_error_set(error, FJ_ERR_DEVICE, "no NVIDIA driver: libcuda.so.1 cannot be opened (%s)",
                           reason);
        fj_error_note(error,
                      "install NVIDIA's driver; a container must be started with the GPU (--gpus all)");
        return FJ_ERR_DEVICE;
    }
    name_path(*ret_library, path, api->path, sizeof api->path);
    return FJ_OK;
}

static const char *find_functions(void *library, fj_cuda_api *api) {
    const struct {
        const char *name;
        void *slot;
        bool required;
    } functions[] = {
#define FJ_CUDA_ROW(member, name, required, parameters) {name, &api->member, required},
        FJ_CUDA_FUNCTIONS(FJ_CUDA_ROW)
#undef FJ_CUDA_ROW
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(functions); i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function && functions[i].required) return functions[i].name;
        memcpy(functions[i].slot, &function, sizeof function);
    }
    return NULL;
}

static fj_status initialise(fj_cuda_api *api, fj_error *error) {
    int result = api->init(0), count = 0;
    if (result == FJ_CUDA_STUB_LIBRARY) {
        (void)fj_error_set(error, FJ_ERR_DEVICE, "'%.300s' is the CUDA toolkit's stub, not NVIDIA's driver",
                           api->path);
        fj_error_note(error,
                      "take its folder from LD_LIBRARY_PATH, or have FLEXJIT_LIBCUDA name the driver's");
        return FJ_ERR_DEVICE;
    }
    if (result == 0) result = api->device_count(&count);
    shared.unusable = result != 0 && result != FJ_CUDA_NO_DEVICE;
    if (result == FJ_CUDA_NO_DEVICE || (result == 0 && count == 0)) {
        (void)fj_error_set(error, FJ_ERR_DEVICE, "the NVIDIA driver ('%.300s') finds no GPU", api->path);
        fj_error_note(error, "CUDA_VISIBLE_DEVICES may hide it");
        return FJ_ERR_DEVICE;
    }
    if (result != 0) return fj_cuda_api_fail(api, result, error, "the NVIDIA driver does not start");
    return FJ_OK;
}

static fj_status open_once(fj_cuda_api *api, fj_error *error) {
    void *library = NULL;
    fj_status status = open_library(&library, api, error);
    if (status != FJ_OK) return status;
    shared.unusable = true; /* until it starts */
    const char *missing = find_functions(library, api);
    if (api->driver_version) (void)api->driver_version(&api->version);
    if (missing && (api->version == 0 || api->version >= OLDEST_DRIVER))
        return fj_error_set(error, FJ_ERR_DEVICE, "'%.300s' is not an NVIDIA driver: it has no %s", api->path,
                            missing);
    if (missing) {
        (void)fj_error_set(error, FJ_ERR_DEVICE, "the NVIDIA driver is too old: it supports CUDA %d.%d",
                           api->version / 1000, api->version % 1000 / 10);
        fj_error_note(error, "CUDA 12.0 or newer is needed: driver 525 or newer");
        return FJ_ERR_DEVICE;
    }
    return initialise(api, error);
}

fj_status fj_cuda_api_open(const fj_cuda_api **ret_api, fj_error *error) {
    fj_status status = FJ_OK;
    (void)pthread_mutex_lock(&shared.lock);
    if (!shared.open) {
        fj_cuda_api api = {0};
        status = open_once(&api, error);
        if (status == FJ_OK) {
            shared.api = api;
            shared.open = true;
        }
    }
    (void)pthread_mutex_unlock(&shared.lock);
    if (status == FJ_OK) *ret_api = &shared.api;
    return status;
}

bool fj_cuda_api_saw_unusable(void) {
    (void)pthread_mutex_lock(&shared.lock);
    const bool saw = shared.unusable;
    (void)pthread_mutex_unlock(&shared.lock);
    return saw;
}

fj_status fj_cuda_api_fail(const fj_cuda_api *api, int result, fj_error *error, const char *format, ...) {
    char what[300];
    const char *name = NULL, *text = NULL;
    va_list list;
    va_start(list, format);
    (void)vsnprintf(what, sizeof what, format, list);
    va_end(list);
    if (api->error_name(result, &name) != 0 || !name) name = "unknown error";
    if (api->error_string(result, &text) != 0 || !text) text = "";
    fj_status status = result == FJ_CUDA_OUT_OF_MEMORY ? FJ_ERR_MEMORY : FJ_ERR_DEVICE;
    return fj_error_set(error, status, "%s: %s (%d%s%s)", what, name, result, *text ? ": " : "", text);
}
