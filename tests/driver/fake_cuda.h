/* A CUDA driver that only pretends (fake_cuda.c, fake_gpu.c): a shared object that the tests have the library open. */
#ifndef FJ_TESTS_DRIVER_FAKE_CUDA_H
#define FJ_TESTS_DRIVER_FAKE_CUDA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* FAKE_GREEN: of the first one's. */
enum { FAKE_PRIMARY, FAKE_PRIMARY_1, FAKE_OTHER, FAKE_GREEN, FAKE_CONTEXTS };

/* What the library exports for the tests, as fake_cuda. */
struct fake_cuda {
    const char *(*calls)(void); /* since the last reset, as text */
    void (*reset)(void);
    void (*set_current)(int context); /* -1: none */
    int (*depth)(void);               /* of the stack of contexts */
    int (*retained)(void);            /* primary contexts */
    void *(*stream)(int context);     /* a new one */
    /* Until the end, what is put on the stream goes into a graph. False: something was called that breaks a capture. */
    void (*capture)(void *stream);
    bool (*end_capture)(void);
    int (*replay)(void);    /* puts the graph on the stream */
    size_t (*memory)(void); /* bytes of the GPU that are not freed */
};
extern const struct fake_cuda fake_cuda;

/* As in cuda.h, with our types. */
int cuInit(unsigned);
int cuDriverGetVersion(int *);
int cuGetErrorName(int, const char **);
int cuGetErrorString(int, const char **);
int cuDeviceGetCount(int *);
int cuDeviceGet(int *, int);
int cuDeviceGetName(char *, int, int);
int cuDeviceGetAttribute(int *, int, int);
int cuDeviceTotalMem_v2(size_t *, int);
int cuCtxGetCurrent(void **);
int cuCtxPushCurrent_v2(void *);
int cuCtxPopCurrent_v2(void **);
int cuCtxGetDevice(int *);
int cuDevicePrimaryCtxRetain(void **, int);
int cuDevicePrimaryCtxRelease_v2(int);
int cuLibraryLoadData(void **, const void *, int *, void **, unsigned, int *, void **, unsigned);
int cuLibraryUnload(void *);
int cuLibraryGetKernel(void **, void *, const char *);
int cuKernelGetFunction(void **, void *);
int cuKernelSetAttribute(int, int, void *, int);
int cuFuncGetAttribute(int *, int, void *);
int cuFuncLoad(void *);
int cuOccupancyMaxActiveBlocksPerMultiprocessor(int *, void *, int, size_t);
int cuLaunchKernel(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
                   void **, void **);
int cuStreamIsCapturing(void *, int *);
int cuStreamGetCtx(void *, void **);
int cuStreamGetCtx_v2(void *, void **, void **);
int cuStreamSynchronize(void *);
int cuMemAlloc_v2(uint64_t *, size_t);
int cuMemFree_v2(uint64_t);
int cuMemcpyHtoDAsync_v2(uint64_t, const void *, size_t, void *);
int cuMemcpyDtoHAsync_v2(void *, uint64_t, size_t, void *);
int cuMemsetD8Async(uint64_t, unsigned char, size_t, void *);
int cuEventCreate(void **, unsigned);
int cuEventDestroy_v2(void *);
int cuEventRecord(void *, void *);
int cuEventSynchronize(void *);
int cuEventElapsedTime(float *, void *, void *);

#endif
