/* The CUDA driver's functions, opened at run time. Private to driver/. No header of CUDA is needed: the few
 * types are ours. */
#ifndef FJ_DRIVER_CUDA_API_H
#define FJ_DRIVER_CUDA_API_H

#include "base/base.h"

/* CUresult */
enum {
    FJ_CUDA_OUT_OF_MEMORY = 2,
    FJ_CUDA_STUB_LIBRARY = 34,
    FJ_CUDA_NO_DEVICE = 100,
    FJ_CUDA_INVALID_IMAGE = 200,
    FJ_CUDA_NO_BINARY_FOR_GPU = 209,
    FJ_CUDA_OUT_OF_RESOURCES = 701,
};

/* CUdevice_attribute, CUfunction_attribute */
enum {
    FJ_CUDA_MULTIPROCESSORS = 16,
    FJ_CUDA_L2_CACHE_SIZE = 38,
    FJ_CUDA_MAJOR = 75,
    FJ_CUDA_MINOR = 76,
    FJ_CUDA_SHARED_MULTIPROCESSOR = 81,
    FJ_CUDA_SHARED_OPTIN = 97,
    FJ_CUDA_SHARED_RESERVED = 111,
    FJ_CUDA_FUNCTION_THREADS = 0,
    FJ_CUDA_FUNCTION_DYNAMIC_SHARED = 8,
    FJ_CUDA_FUNCTION_CARVEOUT = 9,
};

/* FUNCTION(member, name in the library, required, parameters) */
#define FJ_CUDA_FUNCTIONS(FUNCTION)                                                                          \
    FUNCTION(init, "cuInit", true, (unsigned))                                                               \
    FUNCTION(driver_version, "cuDriverGetVersion", true, (int *))                                            \
    FUNCTION(error_name, "cuGetErrorName", true, (int, const char **))                                       \
    FUNCTION(error_string, "cuGetErrorString", true, (int, const char **))                                   \
    FUNCTION(device_count, "cuDeviceGetCount", true, (int *))                                                \
    FUNCTION(device_get, "cuDeviceGet", true, (int *, int))                                                  \
    FUNCTION(device_name, "cuDeviceGetName", true, (char *, int, int))                                       \
    FUNCTION(device_attribute, "cuDeviceGetAttribute", true, (int *, int, int))                              \
    FUNCTION(device_memory, "cuDeviceTotalMem_v2", true, (size_t *, int))                                    \
    FUNCTION(context_get, "cuCtxGetCurrent", true, (void **))                                                \
    FUNCTION(context_push, "cuCtxPushCurrent_v2", true, (void *))                                            \
    FUNCTION(context_pop, "cuCtxPopCurrent_v2", true, (void **))                                             \
    FUNCTION(context_device, "cuCtxGetDevice", true, (int *))                                                \
    FUNCTION(primary_retain, "cuDevicePrimaryCtxRetain", true, (void **, int))                               \
    FUNCTION(primary_release, "cuDevicePrimaryCtxRelease_v2", true, (int))                                   \
    FUNCTION(library_load, "cuLibraryLoadData", true,                                                        \
             (void **, const void *, int *, void **, unsigned, int *, void **, unsigned))                    \
    FUNCTION(library_unload, "cuLibraryUnload", true, (void *))                                              \
    FUNCTION(library_kernel, "cuLibraryGetKernel", true, (void **, void *, const char *))                    \
    FUNCTION(kernel_function, "cuKernelGetFunction", true, (void **, void *))                                \
    FUNCTION(kernel_set, "cuKernelSetAttribute", true, (int, int, void *, int))                              \
    FUNCTION(function_get, "cuFuncGetAttribute", true, (int *, int, void *))                                 \
    FUNCTION(function_load, "cuFuncLoad", false, (void *))                                                   \
    FUNCTION(occupancy, "cuOccupancyMaxActiveBlocksPerMultiprocessor", true, (int *, void *, int, size_t))   \
    FUNCTION(launch, "cuLaunchKernel", true,                                                                 \
             (void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *, void **, \
              void **))                                                                                      \
    FUNCTION(capturing, "cuStreamIsCapturing", true, (void *, int *))                                        \
    FUNCTION(stream_context, "cuStreamGetCtx", true, (void *, void **))                                      \
    FUNCTION(stream_contexts, "cuStreamGetCtx_v2", false, (void *, void **, void **))                        \
    FUNCTION(stream_wait, "cuStreamSynchronize", true, (void *))                                             \
    FUNCTION(alloc, "cuMemAlloc_v2", true, (uint64_t *, size_t))                                             \
    FUNCTION(free, "cuMemFree_v2", true, (uint64_t))                                                         \
    FUNCTION(copy_in, "cuMemcpyHtoDAsync_v2", true, (uint64_t, const void *, size_t, void *))                \
    FUNCTION(copy_out, "cuMemcpyDtoHAsync_v2", true, (void *, uint64_t, size_t, void *))                     \
    FUNCTION(fill, "cuMemsetD8Async", true, (uint64_t, unsigned char, size_t, void *))                       \
    FUNCTION(event_create, "cuEventCreate", true, (void **, unsigned))                                       \
    FUNCTION(event_destroy, "cuEventDestroy_v2", true, (void *))                                             \
    FUNCTION(event_record, "cuEventRecord", true, (void *, void *))                                          \
    FUNCTION(event_wait, "cuEventSynchronize", true, (void *))                                               \
    FUNCTION(event_elapsed, "cuEventElapsedTime", true, (float *, void *, void *))

typedef struct fj_cuda_api {
#define FJ_CUDA_MEMBER(member, name, required, parameters) int(*member) parameters;
    FJ_CUDA_FUNCTIONS(FJ_CUDA_MEMBER)
#undef FJ_CUDA_MEMBER
    int version; /* 13000: of the CUDA that the driver supports */
    char path[1024];
} fj_cuda_api;

/* Opens and initialises the driver the first time; it stays for the life of the process. FJ_ERR_DEVICE: no
 * driver, a stub, one that is too old, or one that finds no device. */
fj_status fj_cuda_api_open(const fj_cuda_api **ret_api, fj_error *error);
/* Whether there is a driver that cannot be used: not none, nor one without a GPU. */
bool fj_cuda_api_saw_unusable(void);

/* "what: name of the result (its sentence)". FJ_ERR_MEMORY when the GPU has too little, else FJ_ERR_DEVICE. */
fj_status fj_cuda_api_fail(const fj_cuda_api *api, int result, fj_error *error, const char *format, ...)
    FJ_PRINTF(4, 5);

#endif
