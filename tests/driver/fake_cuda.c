/* A CUDA driver without a GPU: what driver/cuda uses of it, with results that the environment chooses, and a record of
 * the calls. FAKE_CUDA is a list of settings such as "init=34 arch=70"; a setting with the name of a call is its
 * result. With FAKE_OLD_DRIVER it lacks the functions of CUDA 12. Kernels, memory and streams: fake_gpu.c. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/driver/fake_gpu.h"

static char calls[16384];
static size_t calls_size;
static char contexts[FAKE_CONTEXTS]; /* the first two are the primary contexts of device 0 and 1 */
static void *stack[8];
static int depth, retained;

int fake_setting(const char *name, int otherwise) {
    const char *at = getenv("FAKE_CUDA");
    size_t length = strlen(name);
    for (; at && *at; at += strcspn(at, " "), at += *at == ' ')
        if (strncmp(at, name, length) == 0 && at[length] == '=') return atoi(at + length + 1);
    return otherwise;
}

void fake_note(const char *format, ...) {
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

void *fake_context(int context) { return &contexts[context]; }
void *fake_root(void *context) {
    return context == &contexts[FAKE_GREEN] ? &contexts[FAKE_PRIMARY] : context;
}
void *fake_current(void) { return depth > 0 ? stack[depth - 1] : NULL; }

EXPORT const struct fake_cuda fake_cuda = {
    .calls = all_calls,
    .reset = reset,
    .set_current = set_current,
    .depth = current_depth,
    .retained = all_retained,
    .stream = fake_stream,
    .capture = fake_capture,
    .end_capture = fake_end_capture,
    .replay = fake_replay,
    .memory = fake_memory,
};

/* ---- The driver ---------------------------------------------------------------------------------------- */

EXPORT int cuInit(unsigned flags) { return (int)flags + fake_setting("init", 0); }
EXPORT int cuDriverGetVersion(int *version) {
    *version = fake_setting("version", 13000);
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
    *count = fake_setting("devices", 1);
    return fake_setting("count", 0);
}
EXPORT int cuDeviceGet(int *device, int ordinal) {
    *device = 100 + ordinal; /* handles are no ordinals */
    return ordinal < fake_setting("devices", 1) ? 0 : 101;
}
EXPORT int cuDeviceGetName(char *name, int size, int device) {
    (void)snprintf(name, (size_t)size, "Fake GPU %d", device - 100);
    return 0;
}
EXPORT int cuDeviceGetAttribute(int *value, int attribute, int device) {
    int arch = fake_setting("arch", 90);
    (void)device;
    *value = attribute == 75  ? arch / 10
           : attribute == 76  ? arch % 10
           : attribute == 16  ? 132
           : attribute == 38  ? fake_setting("cache", 50 << 20)
           : attribute == 81  ? FAKE_SHARED
           : attribute == 97  ? FAKE_SHARED - FAKE_RESERVED
           : attribute == 111 ? FAKE_RESERVED
                              : -1;
    return *value == -1;
}
EXPORT int cuDeviceTotalMem_v2(size_t *size, int device) {
    *size = (size_t)80 << 30;
    return device < 100;
}
EXPORT int cuCtxGetCurrent(void **context) {
    *context = fake_current();
    return 0;
}
EXPORT int cuCtxPushCurrent_v2(void *context) {
    const int result = fake_setting("push", 0);
    if (result != 0) return result;
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
    int result = fake_setting("retain", 0);
    if (result == 0) retained++;
    *context = &contexts[device - 100];
    return result;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    retained--;
    return device < 100;
}
