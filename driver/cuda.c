/* GPUs, code objects and launches. */
#include "driver/cuda.h"

#include <stdio.h>
#include <string.h>

#include "driver/cuda_device.h"

/* Bytes of parameters of a kernel; the CUDA version from which Volta and newer take FJ_DRIVER_PARAMETERS. */
enum { OLD_PARAMETERS = 4096, LARGE_PARAMETERS = 12010 };

struct fj_code {
    const fj_allocator *allocator;
    const fj_cuda_device *device;
    void *library; /* CUlibrary: of all contexts */
};

/* ---- Looking ---------------------------------------------------------------------------------------------- */

fj_status fj_cuda_driver_look(fj_cuda_driver_info *ret_info, fj_error *error) {
    const fj_cuda_api *api = NULL;
    fj_status status = fj_cuda_api_open(&api, error);
    if (status != FJ_OK) return status;
    int count = 0;
    int result = api->device_count(&count);
    if (result != 0) return fj_cuda_api_fail(api, result, error, "GPUs cannot be counted");
    *ret_info = (fj_cuda_driver_info){.path = api->path, .version = api->version, .devices = count};
    return FJ_OK;
}

bool fj_cuda_driver_saw_unusable(void) { return fj_cuda_api_saw_unusable(); }

static fj_status read_features(const fj_cuda_api *api, int ordinal, int *ret_handle,
                               fj_cuda_features *ret_features, fj_error *error) {
    fj_cuda_features features = {.ordinal = ordinal};
    int major = 0, minor = 0;
    int result = api->device_get(ret_handle, ordinal);
    if (result == 0) result = api->device_name(features.name, sizeof features.name, *ret_handle);
    if (result == 0) result = api->device_attribute(&major, FJ_CUDA_MAJOR, *ret_handle);
    if (result == 0) result = api->device_attribute(&minor, FJ_CUDA_MINOR, *ret_handle);
    if (result == 0)
        result = api->device_attribute(&features.multiprocessors, FJ_CUDA_MULTIPROCESSORS, *ret_handle);
    if (result == 0)
        result = api->device_attribute(&features.shared_limit, FJ_CUDA_SHARED_OPTIN, *ret_handle);
    if (result == 0) result = api->device_attribute(&features.cache, FJ_CUDA_L2_CACHE_SIZE, *ret_handle);
    if (result == 0) result = api->device_memory(&features.memory, *ret_handle);
    if (result != 0) return fj_cuda_api_fail(api, result, error, "GPU %d cannot be used", ordinal);
    features.arch = major * 10 + minor;
    features.parameter_limit =
        features.arch >= 70 && api->version >= LARGE_PARAMETERS ? FJ_DRIVER_PARAMETERS : OLD_PARAMETERS;
    *ret_features = features;
    return FJ_OK;
}

fj_status fj_cuda_features_of(int ordinal, fj_cuda_features *ret_features, fj_error *error) {
    const fj_cuda_api *api = NULL;
    int handle;
    fj_status status = fj_cuda_api_open(&api, error);
    return status == FJ_OK ? read_features(api, ordinal, &handle, ret_features, error) : status;
}

/* ---- Contexts ---------------------------------------------------------------------------------------------- */

fj_status fj_cuda_enter(const fj_cuda_device *device, void **ret_context, bool *ret_pushed, fj_error *error) {
    const fj_cuda_api *api = device->api;
    void *current = NULL;
    int handle = -1;
    *ret_pushed = false;
    int result = api->context_get(&current);
    if (result == 0 && current) result = api->context_device(&handle);
    if (result == 0 && current && handle == device->handle) {
        *ret_context = current;
        return FJ_OK;
    }
    if (result == 0) result = api->context_push(device->primary);
    if (result != 0)
        return fj_cuda_api_fail(api, result, error, "no context of GPU %d", device->features.ordinal);
    *ret_context = device->primary;
    *ret_pushed = true;
    return FJ_OK;
}

void fj_cuda_leave(const fj_cuda_device *device, bool pushed) {
    void *ignored = NULL;
    if (pushed) (void)device->api->context_pop(&ignored);
}

/* ---- Code objects -------------------------------------------------------------------------------------------- */

/* An image is a structure that the driver reads in place: one that lies at no multiple of 16 bytes, as behind the
 * metadata of a cache file, is copied to one. */
static int load_aligned(const fj_cuda_device *device, const fj_allocator *allocator, const void *payload,
                        size_t size, void **ret_library) {
    enum { ALIGNMENT = 16 };
    char *copy = NULL;
    if ((uintptr_t)payload % ALIGNMENT != 0) {
        copy = fj_alloc(allocator, size + ALIGNMENT);
        if (!copy) return FJ_CUDA_OUT_OF_MEMORY;
        payload = memcpy(copy + (ALIGNMENT - (uintptr_t)copy % ALIGNMENT) % ALIGNMENT, payload, size);
    }
    int result = device->api->library_load(ret_library, payload, NULL, NULL, 0, NULL, NULL, 0);
    fj_free(allocator, copy, size + ALIGNMENT); /* the driver keeps its own */
    return result;
}

static fj_status cuda_load(const fj_driver *driver, const fj_allocator *allocator, const void *payload,
                           size_t size, fj_code **ret_code, fj_error *error) {
    const fj_cuda_device *device = fj_cuda_device_of(driver);
    if (size < 4 || memcmp(payload, "\177ELF", 4) != 0)
        return fj_error_set(error, FJ_ERR_DEVICE, "a compiled kernel cannot be loaded: it is not a cubin");
    fj_code *code = fj_alloc_zeroed(allocator, sizeof *code);
    if (!code) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    code->allocator = allocator;
    code->device = device;
    int result = load_aligned(device, allocator, payload, size, &code->library);
    if (result == 0) {
        *ret_code = code;
        return FJ_OK;
    }
    fj_free(allocator, code, sizeof *code);
    (void)fj_cuda_api_fail(device->api, result, error, "a compiled kernel cannot be loaded on GPU %d (sm_%d)",
                           device->features.ordinal, device->features.arch);
    if (result == FJ_CUDA_NO_BINARY_FOR_GPU || result == FJ_CUDA_INVALID_IMAGE)
        fj_error_note(error, "the driver supports CUDA %d.%d: NVRTC must not be of a newer major version",
                      device->api->version / 1000, device->api->version % 1000 / 10);
    return result == FJ_CUDA_OUT_OF_MEMORY ? FJ_ERR_MEMORY : FJ_ERR_DEVICE;
}

static void cuda_unload(fj_code **code) {
    if (!code || !*code) return;
    (void)(*code)->device->api->library_unload((*code)->library);
    fj_free((*code)->allocator, *code, sizeof **code);
    *code = NULL;
}

/* A CUkernel: of no context. */
static const void *cuda_symbol(const fj_code *code, const char *name) {
    void *kernel = NULL;
    return code->device->api->library_kernel(&kernel, code->library, name) == 0 ? kernel : NULL;
}

/* ---- Kernels ---------------------------------------------------------------------------------------------------- */

/* The context that shares memory and code with that of a stream (NULL: with the current one): of a green one its primary
 * one, of any other itself. `otherwise` where the driver does not tell. */
static void *root_of(const fj_cuda_api *api, void *stream, void *otherwise) {
    void *root = NULL, *green = NULL;
    if (!api->stream_contexts || api->stream_contexts(stream, &root, &green) != 0 || !root) return otherwise;
    return root;
}

/* CUDA's handles are not const. */
static void *handle_of(const fj_driver_entry *kernel) { return (void *)(uintptr_t)kernel->handle; }

/* SMs divide one memory into shared memory and L1 and may leave the former room for one block only. As much as the
 * blocks take that an SM has registers and threads for. Only a wish: nothing fails here. */
static void wish_carveout(const fj_cuda_device *device, const fj_driver_entry *kernel) {
    const fj_cuda_api *api = device->api;
    const int64_t all = device->multiprocessor_shared, block = kernel->shared + device->reserved_shared;
    int blocks = 0;
    if (kernel->shared == 0 || all <= 0) return;
    if (api->occupancy(&blocks, handle_of(kernel), (int)kernel->threads, kernel->shared) != 0 || blocks < 1)
        return;
    const int64_t percent = (blocks * block * 100 + all - 1) / all;
    (void)api->kernel_set(FJ_CUDA_FUNCTION_CARVEOUT, percent < 100 ? (int)percent : 100, handle_of(kernel),
                          device->handle);
}

/* Attributes are the CUkernel's: those of a CUfunction are of one context. */
static fj_status make_resident(const fj_cuda_device *device, fj_driver_entry *kernel, fj_error *error) {
    const fj_cuda_api *api = device->api;
    void *function = NULL;
    int most = 0;
    if (kernel->shared > 0) {
        int result = api->kernel_set(FJ_CUDA_FUNCTION_DYNAMIC_SHARED, (int)kernel->shared, handle_of(kernel),
                                     device->handle);
        if (result != 0)
            return fj_cuda_api_fail(api, result, error,
                                    "kernel %s cannot have %u bytes of shared memory on GPU %d", kernel->name,
                                    kernel->shared, device->features.ordinal);
    }
    int result = api->kernel_function(&function, handle_of(kernel));
    if (result == 0) result = api->function_get(&most, FJ_CUDA_FUNCTION_THREADS, function);
    if (result == 0 && (int)kernel->threads > most)
        return fj_error_set(error, FJ_ERR_DEVICE,
                            "kernel %s cannot have %u threads on GPU %d: %d is the most", kernel->name,
                            kernel->threads, device->features.ordinal, most);
    if (result == 0 && api->function_load) result = api->function_load(function);
    if (result != 0)
        return fj_cuda_api_fail(api, result, error, "kernel %s cannot be made resident", kernel->name);
    wish_carveout(device, kernel);
    return FJ_OK;
}

static fj_status cuda_prepare(const fj_code *code, const char *name, int threads, int shared,
                              fj_driver_entry *ret_entry, fj_error *error) {
    const fj_cuda_device *device = code->device;
    const void *symbol = cuda_symbol(code, name);
    if (!symbol)
        return fj_error_set(error, FJ_ERR_DEVICE, "the compiled kernel has no entry point '%s'", name);
    fj_driver_entry kernel = {
        .code = code, .name = name, .threads = (uint32_t)threads, .shared = (uint32_t)shared};
    kernel.handle = symbol;
    bool pushed;
    fj_status status = fj_cuda_enter(device, &kernel.context, &pushed, error);
    if (status != FJ_OK) return status;
    kernel.root = root_of(device->api, NULL, kernel.context);
    status = make_resident(device, &kernel, error);
    fj_cuda_leave(device, pushed);
    if (status == FJ_OK) *ret_entry = kernel;
    return status;
}

static fj_status wrong_context(const fj_driver_entry *kernel, const char *whose, void *stream,
                               fj_error *error) {
    int capturing = 0;
    (void)kernel->code->device->api->capturing(stream, &capturing);
    (void)fj_error_set(error, FJ_ERR_ARGUMENT, "kernel %s is not prepared for the %s%s", kernel->name, whose,
                       capturing ? "; the capture of the stream goes on" : "");
    fj_error_note(error, "make the kernel while this context is current, before the capture");
    return FJ_ERR_ARGUMENT;
}

/* `context` is current. */
static fj_status check_contexts(const fj_driver_entry *kernel, void *context, void *stream, fj_error *error) {
    const fj_cuda_api *api = kernel->code->device->api;
    void *of_stream = NULL;
    if (context != kernel->context && root_of(api, NULL, context) != kernel->root)
        return wrong_context(kernel, "current context", stream, error);
    if (stream && api->stream_context(stream, &of_stream) == 0 && of_stream != kernel->context &&
        root_of(api, stream, of_stream) != kernel->root)
        return wrong_context(kernel, "context of the stream", stream, error);
    return FJ_OK;
}

static fj_status cuda_check(const fj_driver_entry *kernel, void *stream, fj_error *error) {
    void *context = NULL;
    bool pushed;
    fj_status status = fj_cuda_enter(kernel->code->device, &context, &pushed, error);
    if (status != FJ_OK) return status;
    status = check_contexts(kernel, context, stream, error);
    fj_cuda_leave(kernel->code->device, pushed);
    return status;
}

static fj_status cuda_launch(const fj_driver *driver, const fj_driver_entry *kernel, const uint32_t grid[3],
                             const void *args, const fj_launch *launch, fj_error *error) {
    const fj_cuda_device *device = fj_cuda_device_of(driver);
    void *stream = launch ? launch->stream : NULL;
    void *context = NULL;
    bool pushed;
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return FJ_OK;
    fj_status status = fj_cuda_enter(device, &context, &pushed, error);
    if (status != FJ_OK) return status;
    status = check_contexts(kernel, context, stream, error);
    if (status == FJ_OK) {
        void *parameters[] = {(void *)(uintptr_t)args};
        int result = device->api->launch(handle_of(kernel), grid[0], grid[1], grid[2], kernel->threads, 1, 1,
                                         kernel->shared, stream, parameters, NULL);
        if (result != 0)
            status = fj_cuda_api_fail(device->api, result, error,
                                      "kernel %s cannot be launched (%u x %u x %u blocks)", kernel->name,
                                      grid[0], grid[1], grid[2]);
    }
    fj_cuda_leave(device, pushed);
    return status;
}

/* ---- Devices ---------------------------------------------------------------------------------------------------- */

/* The device of the current context, else the first. */
static int choose_ordinal(const fj_cuda_api *api) {
    void *current = NULL;
    int handle = 0, count = 0, at = 0;
    if (api->context_get(&current) != 0 || !current || api->context_device(&handle) != 0) return 0;
    if (api->device_count(&count) != 0) return 0;
    for (int i = 0; i < count; i++)
        if (api->device_get(&at, i) == 0 && at == handle) return i;
    return 0;
}

/* 0 where the driver does not say. */
static void read_shared(fj_cuda_device *device) {
    const fj_cuda_api *api = device->api;
    if (api->device_attribute(&device->multiprocessor_shared, FJ_CUDA_SHARED_MULTIPROCESSOR,
                              device->handle) != 0)
        device->multiprocessor_shared = 0;
    if (api->device_attribute(&device->reserved_shared, FJ_CUDA_SHARED_RESERVED, device->handle) != 0)
        device->reserved_shared = 0;
}

static void cuda_close(const fj_driver **driver) {
    fj_cuda_device *device = (fj_cuda_device *)(uintptr_t)(const void *)*driver; /* allocated below */
    *driver = NULL;
    (void)device->api->primary_release(device->handle);
    fj_free(device->allocator, device, sizeof *device);
}

static void fill_table(fj_cuda_device *device) {
    device->driver = (fj_driver){.name = "cuda",
                                 .ordinal = device->features.ordinal,
                                 .parameter_limit = device->features.parameter_limit,
                                 .cache = device->features.cache,
                                 .load = cuda_load,
                                 .unload = cuda_unload,
                                 .symbol = cuda_symbol,
                                 .prepare = cuda_prepare,
                                 .check = cuda_check,
                                 .launch = cuda_launch,
                                 .close = cuda_close};
    fj_cuda_fill_memory(&device->driver);
}

fj_status fj_cuda_device_open(const fj_allocator *allocator, int ordinal, int oldest,
                              const fj_driver **ret_driver, fj_error *error) {
    const fj_cuda_api *api = NULL;
    fj_status status = fj_cuda_api_open(&api, error);
    if (status != FJ_OK) return status;
    fj_cuda_device *device = fj_alloc_zeroed(allocator, sizeof *device);
    if (!device) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    device->allocator = allocator;
    device->api = api;
    if (ordinal < 0) ordinal = choose_ordinal(api);
    status = read_features(api, ordinal, &device->handle, &device->features, error);
    if (status == FJ_OK && device->features.arch < oldest)
        status =
            fj_error_set(error, FJ_ERR_DEVICE, "GPU %d (%s) is too old: it is sm_%d, and sm_%d is needed",
                         ordinal, device->features.name, device->features.arch, oldest);
    if (status == FJ_OK) read_shared(device);
    int result = status == FJ_OK ? api->primary_retain(&device->primary, device->handle) : 0;
    if (result != 0)
        status = fj_cuda_api_fail(api, result, error, "GPU %d (%s) cannot be used", ordinal,
                                  device->features.name);
    if (status != FJ_OK) {
        fj_free(allocator, device, sizeof *device);
        return status;
    }
    fill_table(device);
    *ret_driver = &device->driver;
    return FJ_OK;
}

const fj_cuda_features *fj_cuda_device_features(const fj_driver *driver) {
    return &fj_cuda_device_of(driver)->features;
}
