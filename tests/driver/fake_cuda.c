/* A CUDA driver without a GPU: what driver/cuda uses of it, with results that the environment chooses, and a record of
 * the calls. FAKE_CUDA is a list of settings such as "init=34 arch=70"; a setting with the name of a call is its
 * result. With FAKE_OLD_DRIVER it lacks the functions of CUDA 12. */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/driver/fake_cuda.h"

#define EXPORT __attribute__((visibility("default")))

static char calls[16384];
static size_t calls_size;
static char contexts[FAKE_CONTEXTS]; /* the first two are the primary contexts of device 0 and 1 */
static void *stack[8];
static int depth, retained;
static char library, kernel, function;

static int setting(const char *name, int otherwise) {
    const char *at = getenv("FAKE_CUDA");
    size_t length = strlen(name);
    for (; at && *at; at += strcspn(at, " "), at += *at == ' ')
        if (strncmp(at, name, length) == 0 && at[length] == '=') return atoi(at + length + 1);
    return otherwise;
}

__attribute__((format(printf, 1, 2))) static void note(const char *format, ...) {
    va_list list;
    va_start(list, format);
    int length = vsnprintf(calls + calls_size, sizeof calls - calls_size, format, list);
    va_end(list);
    if (length > 0 && calls_size + (size_t)length < sizeof calls) calls_size += (size_t)length;
}

/* ---- For the tests ------------------------------------------------------------------------------------- */

static const char *all_calls(void) { return calls; }

static void reset(void) {
    calls_size = 0;
    calls[0] = '\0';
}

static void set_current(int context) {
    depth = context < 0 ? 0 : 1;
    stack[0] = context < 0 ? NULL : &contexts[context];
}

static int current_depth(void) { return depth; }

static int all_retained(void) { return retained; }

EXPORT const struct fake_cuda fake_cuda = {all_calls, reset, set_current, current_depth, all_retained};

/* ---- The driver ---------------------------------------------------------------------------------------- */

EXPORT int cuInit(unsigned flags) { return (int)flags + setting("init", 0); }
EXPORT int cuDriverGetVersion(int *version) {
    *version = setting("version", 13000);
    return 0;
}
EXPORT int cuGetErrorName(int result, const char **name) {
    *name = result == 2   ? "CUDA_ERROR_OUT_OF_MEMORY"
          : result == 999 ? "CUDA_ERROR_UNKNOWN"
                          : "CUDA_ERROR_FAKE";
    return 0;
}
EXPORT int cuGetErrorString(int result, const char **text) {
    *text = result == 2 ? "out of memory" : "a fake error";
    return 0;
}
EXPORT int cuDeviceGetCount(int *count) {
    *count = setting("devices", 1);
    return setting("count", 0);
}
EXPORT int cuDeviceGet(int *device, int ordinal) {
    *device = 100 + ordinal; /* handles are no ordinals */
    return ordinal < setting("devices", 1) ? 0 : 101;
}
EXPORT int cuDeviceGetName(char *name, int size, int device) {
    (void)snprintf(name, (size_t)size, "Fake GPU %d", device - 100);
    return 0;
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int arch = setting("arch", 90);
    (void)device;
    *value = attribute == 75 ? arch / 10
           : attribute == 76 ? arch % 10
           : attribute == 16 ? 132
           : attribute == 38 ? setting("cache", 50 << 20)
           : attribute == 97 ? 227 << 10
                             : -1;
    return *value == -1;
}
EXPORT int cuDeviceTotalMem_v2(size_t *size, int device) {
    *size = (size_t)80 << 30;
    return device < 100;
}
EXPORT int cuCtxGetCurrent(void **context) {
    *context = depth > 0 ? stack[depth - 1] : NULL;
    return 0;
}
EXPORT int cuCtxPushCurrent_v2(void *context) {
    stack[depth++] = context;
    return 0;
}
EXPORT int cuCtxPopCurrent_v2(void **context) {
    *context = stack[--depth];
    return 0;
}
EXPORT int cuCtxGetDevice(int *device) {
    if (depth == 0) return 201;
    *device = stack[depth - 1] == &contexts[1] ? 101 : 100;
    return 0;
}
EXPORT int cuDevicePrimaryCtxRetain(void **context, int device) {
    int result = setting("retain", 0);
    if (result == 0) retained++;
    *context = &contexts[device - 100];
    return result;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    retained--;
    return device < 100;
}
#ifndef FAKE_OLD_DRIVER
EXPORT int cuLibraryLoadData(void **to, const void *code, int *a, void **b, unsigned c, int *d, void **e,
                             unsigned f) {
    (void)a, (void)b, (void)c, (void)d, (void)e, (void)f;
    note("load %.4s;", (const char *)code + 1);
    *to = &library;
    return setting("load", 0);
}
#endif
EXPORT int cuLibraryUnload(void *of) {
    note("unload;");
    return of != &library;
}
EXPORT int cuLibraryGetKernel(void **to, void *of, const char *name) {
    *to = &kernel;
    return of != &library || strcmp(name, "absent") == 0 ? 500 : 0;
}
EXPORT int cuKernelGetFunction(void **to, void *of) {
    note("function;");
    *to = &function;
    return of != &kernel ? 400 : setting("function", 0);
}
EXPORT int cuFuncSetAttribute(void *of, int attribute, int value) {
    note("attribute %d=%d;", attribute, value);
    return of != &function ? 400 : setting("attribute", 0);
}
EXPORT int cuFuncGetAttribute(int *value, int attribute, void *of) {
    *value = attribute == 0 ? setting("threads", 1024) : 0;
    return of != &function ? 400 : 0;
}
EXPORT int cuFuncLoad(void *of) {
    note("resident;");
    return of != &function ? 400 : setting("resident", 0);
}
EXPORT int cuLaunchKernel(void *of, unsigned x, unsigned y, unsigned z, unsigned tx, unsigned ty, unsigned tz,
                          unsigned shared, void *stream, void **parameters, void **extra) {
    int first;
    memcpy(&first, parameters[0], sizeof first);
    note("launch %u,%u,%u %u,%u,%u %u stream %d args %d;", x, y, z, tx, ty, tz, shared, (int)(intptr_t)stream,
         first);
    return of != &function || extra ? 400 : setting("launch", 0);
}
EXPORT int cuStreamIsCapturing(void *stream, int *capturing) {
    (void)stream;
    *capturing = setting("capturing", 0);
    return 0;
}
EXPORT int cuStreamGetCtx(void *stream, void **context) {
    (void)stream;
    *context = depth > 0 ? stack[depth - 1] : NULL;
    return 0;
}
EXPORT int cuStreamSynchronize(void *stream) {
    (void)stream;
    note("wait;");
    return setting("wait", 0);
}
EXPORT int cuMemAlloc_v2(uint64_t *address, size_t size) {
    *address = (uint64_t)(uintptr_t)calloc(1, size);
    return setting("alloc", 0);
}
EXPORT int cuMemFree_v2(uint64_t address) {
    free((void *)(uintptr_t)address);
    return 0;
}
EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void *from, size_t size, void *stream) {
    (void)stream;
    memcpy((void *)(uintptr_t)to, from, size);
    return 0;
}
EXPORT int cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t size, void *stream) {
    (void)stream;
    memcpy(to, (void *)(uintptr_t)from, size);
    return 0;
}
EXPORT int cuMemsetD8Async(uint64_t to, unsigned char byte, size_t size, void *stream) {
    (void)stream;
    memset((void *)(uintptr_t)to, byte, size);
    return 0;
}
EXPORT int cuEventCreate(void **event, unsigned flags) {
    *event = malloc(1);
    return (int)flags;
}
EXPORT int cuEventDestroy_v2(void *event) {
    free(event);
    return 0;
}
EXPORT int cuEventRecord(void *event, void *stream) {
    (void)event, (void)stream;
    return 0;
}
EXPORT int cuEventSynchronize(void *event) {
    (void)event;
    return 0;
}
EXPORT int cuEventElapsedTime(float *ms, void *start, void *stop) {
    *ms = 1.5F;
    return start == stop;
}
