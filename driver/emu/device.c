#include "driver/emu/device.h"

#include "driver/emu/emu.h"

typedef struct emu_device {
    fj_driver driver; /* first: its functions find the device by it */
    const fj_allocator *allocator;
    fj_emu *emu;
    uint32_t shared_limit;
} emu_device;

static fj_status emu_prepare(const fj_code *code, const char *name, int threads, int shared,
                             fj_driver_entry *ret_entry, fj_error *error) {
    const fj_emu_kernel *kernel = fj_driver_cpu.symbol(code, name);
    if (!kernel || kernel->abi != FJ_EMU_ABI)
        return fj_error_set(error, FJ_ERR_DEVICE,
                            "the compiled kernel has no entry point '%s' of emulator interface %d", name,
                            FJ_EMU_ABI);
    *ret_entry = (fj_driver_entry){.code = code,
                                   .name = name,
                                   .handle = kernel,
                                   .threads = (uint32_t)threads,
                                   .shared = (uint32_t)shared};
    return FJ_OK;
}

static fj_status emu_launch(const fj_driver *driver, const fj_driver_entry *entry, const uint32_t grid[3],
                            const void *args, const fj_launch *launch, fj_error *error) {
    const emu_device *device = (const emu_device *)(const void *)driver;
    if (grid[0] == 0 || grid[1] == 0 || grid[2] == 0) return FJ_OK;
    const fj_emu_shape shape = {{grid[0], grid[1], grid[2]}, entry->threads, entry->shared};
    const fj_emu_options options = {.launch = launch, .shared_limit = device->shared_limit};
    return fj_emu_launch(device->emu, entry->handle, &shape, args, &options, error);
}

static void emu_close(const fj_driver **driver) {
    emu_device *device = (emu_device *)(uintptr_t)(const void *)*driver; /* allocated below */
    *driver = NULL;
    fj_emu_destroy(&device->emu);
    fj_free(device->allocator, device, sizeof *device);
}

fj_status fj_emu_device_open(const fj_allocator *allocator, int shared_limit, const fj_driver **ret_driver,
                             fj_error *error) {
    emu_device *device = fj_alloc_zeroed(allocator, sizeof *device);
    if (!device) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    device->driver = (fj_driver){.name = "emu",
                                 .parameter_limit = FJ_DRIVER_PARAMETERS,
                                 .load = fj_driver_cpu.load,
                                 .unload = fj_driver_cpu.unload,
                                 .symbol = fj_driver_cpu.symbol,
                                 .prepare = emu_prepare,
                                 .launch = emu_launch,
                                 .close = emu_close,
                                 FJ_DRIVER_HOST_MEMORY};
    device->allocator = allocator;
    device->shared_limit = (uint32_t)shared_limit;
    const fj_status status = fj_emu_create(allocator, &device->emu, error);
    if (status == FJ_OK)
        *ret_driver = &device->driver;
    else
        fj_free(allocator, device, sizeof *device);
    return status;
}
