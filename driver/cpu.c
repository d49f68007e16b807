/* The cpu device: shared objects from memory, and their phases on threads. */
#include "driver/cpu.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver/parallel.h"

struct fj_code {
    const fj_allocator *allocator;
    void *handle;
};

/* ---- Loading --------------------------------------------------------------------------------- */

/* The dynamic linker takes two objects of one path for the same object, and numbers of descriptors
 * are reused. So the path is spelled differently each time: a serial number in binary, as "/" and
 * "/." between the folder and the number. */
static void unique_path(int descriptor, char path[192]) {
    static atomic_ullong serial;
    unsigned long long bits = atomic_fetch_add(&serial, 1) + 1;
    size_t length = (size_t)snprintf(path, 192, "/proc/self/fd");
    for (; bits; bits >>= 1) {
        path[length++] = '/';
        path[length++] = bits & 1 ? '.' : '/';
    }
    (void)snprintf(path + length, 192 - length, "/%d", descriptor);
}

static bool write_all(int descriptor, const char *bytes, size_t size) {
    while (size > 0) {
        ssize_t written = write(descriptor, bytes, size);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return false;
        bytes += written;
        size -= (size_t)written;
    }
    return true;
}

/* From memory: no file, so nothing to find or to clean up. */
static void *open_in_memory(const void *payload, size_t size) {
    int descriptor = memfd_create("flexjit-kernel", MFD_CLOEXEC);
    void *handle = NULL;
    if (descriptor < 0) return NULL;
    if (write_all(descriptor, payload, size)) {
        char path[192];
        unique_path(descriptor, path);
        handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    }
    (void)close(descriptor);
    return handle;
}

/* Where /proc is not there, or code of memory files may not run. */
static void *open_in_file(const void *payload, size_t size) {
    const char *base = getenv("TMPDIR");
    char path[1024];
    void *handle = NULL;
    if (!base || base[0] != '/') base = "/tmp";
    int length = snprintf(path, sizeof path, "%s/flexjit-XXXXXX", base);
    int descriptor = length > 0 && (size_t)length < sizeof path ? mkostemp(path, O_CLOEXEC) : -1;
    if (descriptor < 0) return NULL;
    if (write_all(descriptor, payload, size)) handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    (void)unlink(path);
    (void)close(descriptor);
    return handle;
}

static fj_status cpu_load(const fj_driver *driver, const fj_allocator *allocator, const void *payload,
                          size_t size, fj_code **ret_code, fj_error *error) {
    (void)driver;
    fj_code *code = fj_alloc_zeroed(allocator, sizeof *code);
    if (!code) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    code->allocator = allocator;
    code->handle = open_in_memory(payload, size);
    if (!code->handle) code->handle = open_in_file(payload, size);
    if (!code->handle) {
        const char *reason = dlerror();
        fj_free(allocator, code, sizeof *code);
        return fj_error_set(error, FJ_ERR_DEVICE, "a compiled kernel cannot be loaded: %s",
                            reason ? reason : strerror(errno));
    }
    *ret_code = code;
    return FJ_OK;
}

static void cpu_unload(fj_code **code) {
    if (!code || !*code) return;
    (void)dlclose((*code)->handle);
    fj_free((*code)->allocator, *code, sizeof **code);
    *code = NULL;
}

static const void *cpu_symbol(const fj_code *code, const char *name) { return dlsym(code->handle, name); }

const fj_driver fj_driver_cpu = {
    .name = "cpu",
    .load = cpu_load,
    .unload = cpu_unload,
    .symbol = cpu_symbol,
    FJ_DRIVER_HOST_MEMORY,
};

const struct fj_cpu_kernel *fj_driver_cpu_kernel(const fj_code *code) {
    const struct fj_cpu_kernel *kernel = cpu_symbol(code, "fj_cpu_kernel");
    return kernel && kernel->abi == FJ_CPU_ABI ? kernel : NULL;
}

/* ---- Running --------------------------------------------------------------------------------- */

struct phase {
    const struct fj_cpu_kernel *kernel;
    const struct fj_cpu_args *args;
    int number;
};

static void run_item(void *argument, int64_t item, int worker) {
    const struct phase *phase = argument;
    phase->kernel->run(phase->args, phase->number, item, worker);
}

void fj_driver_cpu_run(const struct fj_cpu_kernel *kernel, const struct fj_cpu_args *args,
                       const fj_launch *launch) {
    memset(args->faults, 0, (size_t)args->workers * sizeof *args->faults);
    for (int number = 0;; number++) {
        int64_t items = kernel->items(args, number);
        if (items < 0) return;
        struct phase phase = {kernel, args, number};
        fj_driver_parallel(launch, args->workers, items, run_item, &phase);
    }
}
