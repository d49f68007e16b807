/* Devices, and the peak of one. This file alone knows what kinds there are. */
#include <stdio.h>
#include <string.h>

#include "attn/objects.h"
#include "base/clock.h"
#include "driver/cuda.h"
#include "driver/emu/device.h"
#include "driver/parallel.h"

fj_device *fj_attn_device_ref(fj_device *device) {
    (void)atomic_fetch_add_explicit(&device->refs, 1, memory_order_relaxed);
    return device;
}

enum { EMULATED_ARCH = 80 };

static fj_status open_host(fj_device *device, fj_arch arch, fj_error *error) {
    (void)arch, (void)error;
    device->driver = device->traits->text == FJ_TEXT_CPU ? &fj_driver_cpu : &fj_driver_host;
    device->features = fj_jit_features();
    return FJ_OK;
}

/* A CPU of an instruction set: this one, with its caches and cores, if it has it. */
static void open_isa(fj_device *device, fj_isa isa) {
    const fj_features any = fj_jit_isa_features(isa);
    fj_features here = fj_jit_features();
    device->features = any;
    if (!here.isa[isa]) return;
    device->driver = &fj_driver_cpu;
    memcpy(here.isa, any.isa, sizeof here.isa);
    device->features = here;
}

static fj_status open_gpu(fj_device *device, fj_arch arch, fj_error *error) {
    (void)arch;
    const fj_status status =
        fj_cuda_device_open(&device->context->allocator, -1, FJ_ARCH_OLDEST, &device->driver, error);
    if (status != FJ_OK) return status;
    const fj_cuda_features *gpu = fj_cuda_device_features(device->driver);
    /* What only one architecture has is there on a GPU of it: sm_90a runs on sm_90. */
    device->features = (fj_features){.arch = {gpu->arch, gpu->arch >= 90 ? 'a' : '\0'},
                                     .multiprocessors = gpu->multiprocessors,
                                     .shared_limit = gpu->shared_limit};
    return FJ_OK;
}

static fj_status open_emu(fj_device *device, fj_arch arch, fj_error *error) {
    device->features = fj_jit_arch_features(arch);
    device->features.emulated = true;
    return fj_emu_device_open(&device->context->allocator, device->features.shared_limit, &device->driver,
                              error);
}

static const fj_device_traits kinds[] = {
    [FJ_DEVICE_CPU] =
        {.name = "cpu", .text = FJ_TEXT_CPU, .memory = kDLCPU, .open = open_host, .has_arch = true},
    [FJ_DEVICE_REFERENCE] =
        {.name = "reference", .pass = FJ_PASS_EXACT, .exact = true, .memory = kDLCPU, .open = open_host},
    [FJ_DEVICE_UNFUSED] = {.name = "unfused", .pass = FJ_PASS_UNFUSED, .memory = kDLCPU, .open = open_host},
    [FJ_DEVICE_CUDA] = {.name = "cuda",
                        .text = FJ_TEXT_GPU,
                        .memory = kDLCUDA,
                        .open = open_gpu,
                        .has_arch = true,
                        .needs_gpu = true},
    [FJ_DEVICE_EMU] =
        {.name = "emu", .text = FJ_TEXT_GPU, .memory = kDLCPU, .open = open_emu, .has_arch = true},
    [FJ_DEVICE_ROUNDING] = {.name = "rounding",
                            .pass = FJ_PASS_ROUNDING,
                            .memory = kDLCPU,
                            .open = open_host},
};

static fj_device *make(fj_context *context, fj_device_kind kind) {
    fj_device *device = fj_alloc_zeroed(&context->allocator, sizeof *device);
    if (!device) return NULL;
    atomic_init(&device->refs, 1);
    device->context = fj_attn_context_ref(context);
    device->traits = &kinds[kind];
    (void)snprintf(device->name, sizeof device->name, "%s", kinds[kind].name);
    return device;
}

static fj_status finish(fj_device *device, fj_status status, fj_device **ret_device) {
    if (status == FJ_OK)
        *ret_device = device;
    else
        fj_device_unref(&device);
    return status;
}

fj_status fj_device_create(fj_context *context, fj_device_kind kind, fj_device **ret_device,
                           fj_error *error) {
    if (!context) return fj_error_set(error, FJ_ERR_ARGUMENT, "context is NULL");
    if ((unsigned)kind >= FJ_ARRAY_LEN(kinds))
        return fj_error_set(error, FJ_ERR_ARGUMENT, "unknown kind of device: %d", (int)kind);
    fj_device *device = make(context, kind);
    if (!device) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    return finish(device, kinds[kind].open(device, (fj_arch){EMULATED_ARCH, '\0'}, error), ret_device);
}

static fj_status unknown_arch(bool is_cpu, const char *name, fj_error *error) {
    char list[FJ_ARCH_LIST];
    fj_jit_arch_list(list);
    (void)fj_error_set(error, FJ_ERR_NAME, "'%.60s' is not %s", name,
                       is_cpu ? "an instruction set of the cpu device" : "a GPU architecture");
    if (is_cpu)
        fj_error_note(error, "it is one of avx512bf16, avx512, avx2, portable");
    else
        fj_error_note(
            error,
            "it is one of %s, from sm_90 on also with a, from sm_100 on with f; for the cpu device of "
            "avx512bf16, avx512, avx2, portable",
            list);
    return FJ_ERR_NAME;
}

fj_status fj_device_create_for_arch(fj_context *context, fj_device_kind kind, const char *arch,
                                    fj_device **ret_device, fj_error *error) {
    fj_arch parsed = {0};
    fj_isa isa = FJ_ISA_PORTABLE;
    if (!context || !arch) return fj_error_set(error, FJ_ERR_ARGUMENT, "context or arch is NULL");
    if ((unsigned)kind >= FJ_ARRAY_LEN(kinds) || !kinds[kind].has_arch)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "only cpu, cuda and emu devices have an architecture");
    const bool is_cpu = kinds[kind].text == FJ_TEXT_CPU;
    if (!(is_cpu ? fj_jit_isa_parse(arch, &isa) : fj_jit_arch_parse(arch, &parsed)))
        return unknown_arch(is_cpu, arch, error);
    fj_device *device = make(context, kind);
    if (!device) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    char name[FJ_ARCH_NAME];
    fj_jit_arch_name(parsed, name);
    (void)snprintf(device->name, sizeof device->name, "%s:%s", kinds[kind].name,
                   is_cpu ? fj_jit_isa_name(isa) : name);
    if (is_cpu) {
        open_isa(device, isa);
        return finish(device, FJ_OK, ret_device);
    }
    device->features = fj_jit_arch_features(parsed);
    const fj_status status = kinds[kind].needs_gpu ? FJ_OK : kinds[kind].open(device, parsed, error);
    return finish(device, status, ret_device);
}

void fj_device_unref(fj_device **device) {
    if (!device || !*device) return;
    fj_device *last = *device;
    *device = NULL;
    if (atomic_fetch_sub_explicit(&last->refs, 1, memory_order_acq_rel) != 1) return;
    fj_context *context = last->context;
    if (last->driver && last->driver->close) last->driver->close(&last->driver);
    fj_free(&context->allocator, last, sizeof *last);
    fj_context_unref(&context);
}

const char *fj_device_name(const fj_device *device) { return device->name; }

fj_context *fj_device_context(const fj_device *device) { return device->context; }

fj_status fj_attn_not_here(const fj_device *device, fj_error *error) {
    return fj_error_set(error, FJ_ERR_DEVICE, "%s is not on this machine: kernels can be built, not loaded",
                        fj_device_name(device));
}

DLDevice fj_device_dlpack(const fj_device *device) {
    return (DLDevice){device->traits->memory, device->driver ? device->driver->ordinal : 0};
}

/* ---- Peak ------------------------------------------------------------------------------------------ */

enum { PEAK_RUNS = 25 };

/* The best of several runs of one item per worker: what the machine can do, whatever else runs on it. */
static double measure(const struct fj_cpu_kernel *kernel, double flops_per_item,
                      const struct fj_cpu_args *args, const fj_launch *launch) {
    double best = 0;
    for (int run = 0; run < PEAK_RUNS; run++) {
        double start = fj_now_ms();
        fj_driver_cpu_run(kernel, args, launch);
        double taken = (fj_now_ms() - start) * 1e-3;
        double rate = flops_per_item * (double)kernel->items(args, 0) / (taken > 0 ? taken : 1e-9);
        if (rate > best) best = rate;
    }
    return best;
}

/* Workspace and faults, aligned by hand within one block. */
static fj_status measure_object(const fj_context *context, const fj_object *object, int workers,
                                double *ret_flops, fj_error *error) {
    const fj_code *code = fj_jit_object_code(object);
    const struct fj_cpu_kernel *kernel = fj_driver_cpu_kernel(code);
    const double *flops = fj_driver_cpu.symbol(code, "fj_cpu_peak_flops");
    if (!kernel || !flops)
        return fj_error_set(error, FJ_ERR_DEVICE, "the peak kernel does not export what it should");
    fj_launch launch = {.struct_size = sizeof launch, .workers = workers};
    struct fj_cpu_args args = {.workers = fj_driver_workers(&launch)};
    size_t faults = (size_t)args.workers * sizeof *args.faults;
    size_t size = kernel->workspace(&args) + faults + 512;
    char *block = fj_alloc_zeroed(&context->allocator, size);
    if (!block) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    args.workspace = block + (256 - (uintptr_t)block % 256);
    args.faults =
        (struct fj_cpu_fault *)(void *)(block + size - faults - (uintptr_t)(block + size - faults) % 16);
    *ret_flops = measure(kernel, *flops, &args, &launch);
    fj_free(&context->allocator, block, size);
    return FJ_OK;
}

fj_status fj_device_peak(fj_device *device, fj_dtype dtype, int workers, double *ret_flops, fj_error *error) {
    if (!device || !ret_flops) return fj_error_set(error, FJ_ERR_ARGUMENT, "device or ret_flops is NULL");
    if (device->traits->text != FJ_TEXT_CPU)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "the %s device has no peak", fj_device_name(device));
    if (!device->driver) return fj_attn_not_here(device, error);
    fj_context *context = device->context;
    fj_jit_problem problem = {.kind = FJ_JIT_PEAK, .dtype = dtype};
    fj_variant variants[FJ_JIT_MAX_VARIANTS];
    if (fj_jit_variants(&problem, &device->features, variants) == 0)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "no peak is measured for %s", fj_dtype_name(dtype));
    fj_object *object = NULL;
    fj_jit_info info;
    fj_status status =
        fj_jit_prepare(context->jit, device->driver, &problem, &variants[0], &object, &info, error);
    if (status != FJ_OK) return status;
    status = measure_object(context, object, workers, ret_flops, error);
    fj_jit_release(context->jit, &object);
    return status;
}
