/* The driver API through dlopen: one device, its primary context, one kernel at a time. */
#include "tests/prim/cuda.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/prim/nvrtc.h"

typedef uint64_t pointer; /* of the device */

static struct {
    int (*init)(unsigned);
    int (*device_get)(int *, int);
    int (*device_name)(char *, int, int);
    int (*device_attribute)(int *, int, int);
    int (*context_retain)(void **, int);
    int (*context_set)(void *);
    int (*context_sync)(void);
    int (*module_load)(void **, const void *);
    int (*module_function)(void **, void *, const char *);
    int (*alloc)(pointer *, size_t);
    int (*release)(pointer);
    int (*to_device)(pointer, const void *, size_t);
    int (*to_host)(void *, pointer, size_t);
    int (*launch)(void *, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, void *,
                  void **, void **);
    int (*error_name)(int, const char **);
} cu;

static uint32_t arch;
static char device_name[128];

enum { MAJOR = 75, MINOR = 76 }; /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_* */

static bool find_functions(void *library) {
    const struct {
        const char *name;
        void *place;
    } functions[] = {
        {"cuInit", &cu.init},
        {"cuDeviceGet", &cu.device_get},
        {"cuDeviceGetName", &cu.device_name},
        {"cuDeviceGetAttribute", &cu.device_attribute},
        {"cuDevicePrimaryCtxRetain", &cu.context_retain},
        {"cuCtxSetCurrent", &cu.context_set},
        {"cuCtxSynchronize", &cu.context_sync},
        {"cuModuleLoadData", &cu.module_load},
        {"cuModuleGetFunction", &cu.module_function},
        {"cuMemAlloc_v2", &cu.alloc},
        {"cuMemFree_v2", &cu.release},
        {"cuMemcpyHtoD_v2", &cu.to_device},
        {"cuMemcpyDtoH_v2", &cu.to_host},
        {"cuLaunchKernel", &cu.launch},
        {"cuGetErrorName", &cu.error_name},
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function) return false;
        *(void **)functions[i].place = function;
    }
    return true;
}

bool cuda_open(const char **why) {
    int device = 0, major = 0, minor = 0;
    void *context = NULL, *library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    *why = "there is no CUDA driver";
    if (!library || !find_functions(library)) return false;
    *why = "there is no CUDA device";
    if (cu.init(0) != 0 || cu.device_get(&device, 0) != 0) return false;
    *why = "the CUDA device cannot be used";
    if (cu.device_name(device_name, sizeof device_name, device) != 0 ||
        cu.device_attribute(&major, MAJOR, device) != 0 || cu.device_attribute(&minor, MINOR, device) != 0 ||
        cu.context_retain(&context, device) != 0 || cu.context_set(context) != 0)
        return false;
    arch = (uint32_t)(major * 10 + minor);
    return nvrtc_open(why);
}

uint32_t cuda_arch(void) { return arch; }
const char *cuda_device(void) { return device_name; }

/* The module of the file that was used last: cases come sorted by file. */
static void *module_of(const char *source, const char *prim, const char *file, char error[512]) {
    static char loaded[64];
    static void *module;
    if (strcmp(loaded, file) == 0) return module;
    char path[512], target[16], include[2][600], *cubin = NULL, *log = NULL;
    size_t size = 0;
    (void)snprintf(path, sizeof path, "%s/kernels/%s.cu", source, file);
    (void)snprintf(include[0], sizeof include[0], "-I%s", prim);
    (void)snprintf(include[1], sizeof include[1], "-I%s/kernels", source);
    (void)snprintf(target, sizeof target, arch >= 90 ? "sm_%ua" : "sm_%u", arch);
    const char *options[] = {include[0], include[1], "--fmad=false", NULL};
    module = NULL;
    if (!nvrtc_compile(path, target, options, &cubin, &size, &log))
        (void)snprintf(error, 512, "does not compile: %.400s", log ? log : "");
    else if (cu.module_load(&module, cubin) != 0)
        (void)snprintf(error, 512, "the cubin does not load");
    free(cubin);
    free(log);
    if (module) (void)snprintf(loaded, sizeof loaded, "%s", file);
    return module;
}

static int launch(void *function, const struct prim_case *test, const uint32_t *in, uint32_t *out,
                  size_t in_size, size_t out_size) {
    struct {
        pointer in, out;
    } args = {0, 0};
    void *parameters[] = {&args};
    unsigned grid[3];
    for (int i = 0; i < 3; i++) grid[i] = test->grid[i] ? test->grid[i] : 1;
    int status = cu.alloc(&args.in, in_size + 16);
    if (!status) status = cu.alloc(&args.out, out_size + 16);
    if (!status && in_size) status = cu.to_device(args.in, in, in_size);
    if (!status) status = cu.to_device(args.out, out, out_size);
    if (!status)
        status = cu.launch(function, grid[0], grid[1], grid[2], test->threads, 1, 1, test->shared, NULL,
                           parameters, NULL);
    if (!status) status = cu.context_sync();
    if (!status) status = cu.to_host(out, args.out, out_size);
    (void)cu.release(args.in);
    (void)cu.release(args.out);
    return status;
}

bool cuda_run(const char *source, const char *prim, const struct prim_case *test, const uint32_t *in,
              uint32_t *out, char error[512]) {
    void *module = module_of(source, prim, test->file, error), *function = NULL;
    if (!module) return false;
    if (cu.module_function(&function, module, test->kernel) != 0) {
        (void)snprintf(error, 512, "no such kernel in the cubin");
        return false;
    }
    int status = launch(function, test, in, out, test->in_words * sizeof *in, test->out_words * sizeof *out);
    if (status == 0) return true;
    const char *name = "an unknown error";
    (void)cu.error_name(status, &name);
    (void)snprintf(error, 512, "the launch failed: %s", name);
    return false;
}
