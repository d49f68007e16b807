/* A GPU, through driver/cuda; kernels compiled by NVRTC with the library's own options.
 *
 * The driver does not survive a fork: only workers open it, each for itself. Around every buffer lie bytes that nobody
 * is to write. A launch is waited for at once, so that its errors are its own. */
#include <stdlib.h>
#include <string.h>

#include "driver/cuda.h"
#include "jit/toolchain.h"
#include "tests/kern/kern.h"

enum { MARGIN = 256 };

struct object {
    fj_code *code;
    fj_driver_entry kernels[FJ_JIT_MAX_ENTRIES];
};

static const fj_driver *gpu; /* of this process */
static bool measuring;       /* launches are not waited for */

static bool open_gpu(fj_error *error) {
    return gpu || fj_cuda_device_open(&fj_allocator_libc, -1, FJ_ARCH_OLDEST, &gpu, error) == FJ_OK;
}

static void say(FILE *out, fj_error *error) {
    (void)fprintf(out, "    %s%s%s\n", error->text, error->detail ? "\n" : "",
                  error->detail ? error->detail : "");
    fj_error_finish(error);
}

/* ---- Kernels -------------------------------------------------------------------------------------------- */

static bool compile(const kernel *k, const char *text, fj_compiled *compiled, FILE *out) {
    fj_toolchain toolchain;
    fj_options options;
    fj_error error = {0};
    const fj_file_ops *ops = &fj_file_ops_system;
    fj_jit_options(&k->variant, &options);
    if (fj_jit_toolchain_find(&k->variant, ops, &fj_allocator_libc, &toolchain, &error) == FJ_OK &&
        fj_jit_toolchain_compile(&toolchain, ops, &k->variant, &options, fj_str_from(text), compiled,
                                 &error) == FJ_OK)
        return true;
    say(out, &error);
    return false;
}

static bool load(const kernel *k, const fj_compiled *compiled, object *o, FILE *out) {
    fj_error error = {0};
    const fj_driver *driver = gpu;
    fj_status status =
        driver->load(driver, &fj_allocator_libc, compiled->bytes.data, compiled->bytes.len, &o->code, &error);
    for (int i = 0; i < k->variant.entry_count && status == FJ_OK; i++) {
        const fj_entry *e = &k->variant.entries[i];
        status = gpu->prepare(o->code, e->name, e->threads, e->shared, &o->kernels[i], &error);
    }
    if (status != FJ_OK) say(out, &error);
    return status == FJ_OK;
}

static void unload(object *o) {
    gpu->unload(&o->code);
    free(o);
}

static bool build(const kernel *k, const char *text, FILE *out, object **ret_object) {
    fj_error error = {0};
    fj_compiled compiled;
    if (!open_gpu(&error)) return say(out, &error), false;
    object *o = calloc(1, sizeof *o);
    if (!o) abort();
    fj_jit_compiled_init(&compiled, &fj_allocator_libc);
    const bool good = compile(k, text, &compiled, out) && load(k, &compiled, o, out);
    fj_jit_compiled_finish(&compiled);
    if (good)
        *ret_object = o;
    else
        unload(o);
    return good;
}

static uint32_t args_size(const object *o, int entry) { return (void)o, (void)entry, 0; }

static fj_status launch(const object *o, int entry, const uint32_t grid[3], const void *args, const mode *m,
                        fj_emu_counts *counts, fj_error *error) {
    (void)m, (void)counts;
    const fj_status status = gpu->launch(gpu, &o->kernels[entry], grid, args, NULL, error);
    return status == FJ_OK && !measuring ? gpu->wait(gpu, NULL, error) : status;
}

/* ---- Memory ----------------------------------------------------------------------------------------------- */

static void create(buffer *b, size_t size) {
    fj_error error = {0};
    uint64_t base = 0;
    *b = (buffer){.host = malloc(size + 1), .size = size};
    if (!b->host) abort();
    memset(b->host, 0xff, size);
    if (!open_gpu(&error) || gpu->alloc(gpu, NULL, size + 2 * MARGIN, &base, &error) != FJ_OK ||
        gpu->fill(gpu, base, 0xff, size + 2 * MARGIN, NULL, &error) != FJ_OK) {
        say(stdout, &error);
        (void)fflush(stdout);
        abort(); /* ends this worker: its test has failed */
    }
    b->address = base + MARGIN;
}

static void destroy(buffer *b) {
    if (b->address) gpu->free(gpu, NULL, b->address - MARGIN);
    free(b->host);
    *b = (buffer){0};
}

static bool put(const buffer *b) {
    if (!b->address) return true;
    return gpu->upload(gpu, b->address, b->host, b->size, NULL, NULL) == FJ_OK &&
           gpu->wait(gpu, NULL, NULL) == FJ_OK;
}

static bool is_margin(const unsigned char *bytes) {
    for (int i = 0; i < MARGIN; i++)
        if (bytes[i] != 0xff) return false;
    return true;
}

static bool get(const buffer *b) {
    if (!b->address) return true;
    unsigned char *all = malloc(b->size + 2 * MARGIN);
    if (!all) abort();
    bool good = gpu->download(gpu, all, b->address - MARGIN, b->size + 2 * MARGIN, NULL, NULL) == FJ_OK &&
                gpu->wait(gpu, NULL, NULL) == FJ_OK;
    good = good && is_margin(all) && is_margin(all + MARGIN + b->size);
    if (good) memcpy(b->host, all + MARGIN, b->size);
    free(all);
    return good;
}

/* ---- Time --------------------------------------------------------------------------------------------------- */

static bool measure(fj_status (*run)(void *user), void *user, int times, double *ret_ms) {
    fj_driver_timer timer;
    fj_status status = gpu->timer_create(gpu, &timer, NULL);
    if (status != FJ_OK) return false;
    measuring = true;
    for (int i = 0; i < times && status == FJ_OK; i++) {
        status = gpu->timer_start(gpu, &timer, NULL, NULL);
        if (status == FJ_OK) status = run(user);
        if (status == FJ_OK) status = gpu->timer_stop(gpu, &timer, NULL, NULL);
        if (status == FJ_OK) status = gpu->timer_elapsed(gpu, &timer, &ret_ms[i], NULL);
    }
    measuring = false;
    gpu->timer_destroy(gpu, &timer);
    return status == FJ_OK;
}

const device device_cuda = {
    .name = "cuda",
    .build = build,
    .unload = unload,
    .run = gpu_run,
    .args_size = args_size,
    .launch = launch,
    .create = create,
    .destroy = destroy,
    .put = put,
    .get = get,
    .measure = measure,
};
