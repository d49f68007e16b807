#include "tests/prim/cuda.h"

#include <stdio.h>
#include <string.h>

#include "driver/cuda.h"
#include "tests/prim/nvrtc.h"

static const fj_driver *gpu; /* of this process */

/* The code of the file that was used last: cases come sorted by file. */
static fj_status code_of(const char *source, const char *prim, const char *file, fj_code **ret_code,
                         fj_error *error) {
    static char loaded[64];
    static fj_code *code;
    const fj_driver *driver = gpu;
    char path[600], kernels[600];
    if (strcmp(loaded, file) == 0) return *ret_code = code, FJ_OK;
    loaded[0] = '\0';
    driver->unload(&code);
    (void)snprintf(path, sizeof path, "%s/kernels/%s.cu", source, file);
    (void)snprintf(kernels, sizeof kernels, "%s/kernels", source);
    const int number = fj_cuda_device_features(gpu)->arch;
    const fj_arch arch = {number, number >= 90 ? 'a' : 0};
    fj_buf cubin, log;
    fj_buf_init(&cubin, &fj_allocator_libc);
    fj_buf_init(&log, &fj_allocator_libc);
    fj_status status = nvrtc_compile(path, arch, (const char *[]){prim, kernels, NULL}, &cubin, &log, error);
    if (status == FJ_OK)
        status = driver->load(driver, &fj_allocator_libc, cubin.data, cubin.len, &code, error);
    fj_buf_finish(&cubin);
    fj_buf_finish(&log);
    if (status != FJ_OK) return status;
    (void)snprintf(loaded, sizeof loaded, "%s", file);
    *ret_code = code;
    return FJ_OK;
}

typedef struct args {
    uint64_t in, out;
} args;

static fj_status launch(const fj_driver_entry *kernel, const struct prim_case *test, const args *a,
                        const uint32_t *in, uint32_t *out, fj_error *error) {
    const size_t in_size = test->in_words * sizeof *in, out_size = test->out_words * sizeof *out;
    uint32_t grid[3];
    for (int i = 0; i < 3; i++) grid[i] = test->grid[i] ? test->grid[i] : 1;
    fj_status status = gpu->upload(gpu, a->in, in, in_size, NULL, error);
    if (status == FJ_OK) status = gpu->upload(gpu, a->out, out, out_size, NULL, error);
    if (status == FJ_OK) status = gpu->launch(gpu, kernel, grid, a, NULL, error);
    if (status == FJ_OK) status = gpu->wait(gpu, NULL, error);
    if (status == FJ_OK) status = gpu->download(gpu, out, a->out, out_size, NULL, error);
    return status == FJ_OK ? gpu->wait(gpu, NULL, error) : status;
}

fj_status cuda_run(const char *source, const char *prim, const struct prim_case *test, const uint32_t *in,
                   uint32_t *out, fj_error *error) {
    fj_code *code = NULL;
    fj_driver_entry kernel;
    args a = {0, 0};
    fj_status status = gpu ? FJ_OK : fj_cuda_device_open(&fj_allocator_libc, -1, FJ_ARCH_OLDEST, &gpu, error);
    if (status == FJ_OK) status = code_of(source, prim, test->file, &code, error);
    if (status == FJ_OK)
        status = gpu->prepare(code, test->kernel, (int)test->threads, (int)test->shared, &kernel, error);
    /* Kernels without input get an address all the same. */
    if (status == FJ_OK) status = gpu->alloc(gpu, NULL, test->in_words * sizeof *in + 16, &a.in, error);
    if (status == FJ_OK) status = gpu->alloc(gpu, NULL, test->out_words * sizeof *out + 16, &a.out, error);
    if (status == FJ_OK) status = launch(&kernel, test, &a, in, out, error);
    if (!gpu) return status;
    gpu->free(gpu, NULL, a.in);
    gpu->free(gpu, NULL, a.out);
    return status;
}
