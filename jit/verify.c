/* Whether a code object has what its variant promises. A compiler that reports success and wrote something else is
 * found out before the object is kept, and an object of the cache before it is used. */
#include <stdio.h>
#include <string.h>

#include "driver/cpu.h"
#include "driver/emu/emu.h"
#include "jit/prepare.h"

static fj_status lacks(const fj_variant *variant, const char *name, int interface, fj_error *error) {
    char of[40] = "";
    if (interface) (void)snprintf(of, sizeof of, " of interface %d", interface);
    return fj_error_set(error, FJ_ERR_COMPILER, "the object that was compiled for kernel %s has no %s%s",
                        variant->name, name, of);
}

fj_status fj_jit_verify_code(const fj_variant *variant, const fj_driver *driver, const fj_code *code,
                             fj_error *error) {
    if (variant->target == FJ_TARGET_CPU)
        return fj_driver_cpu_kernel(code) ? FJ_OK : lacks(variant, "fj_cpu_kernel", FJ_CPU_ABI, error);
    for (int i = 0; i < variant->entry_count; i++) {
        const char *name = variant->entries[i].name;
        const void *symbol = driver->symbol(code, name);
        if (!symbol) return lacks(variant, name, variant->target == FJ_TARGET_EMU ? FJ_EMU_ABI : 0, error);
        if (variant->target == FJ_TARGET_EMU && ((const fj_emu_kernel *)symbol)->abi != FJ_EMU_ABI)
            return lacks(variant, name, FJ_EMU_ABI, error);
    }
    return FJ_OK;
}

/* Without its GPU a cubin cannot be loaded: its table of strings has the names. */
static fj_status verify_cubin(const fj_variant *variant, fj_str payload, fj_error *error) {
    for (int i = 0; i < variant->entry_count; i++) {
        const char *name = variant->entries[i].name;
        if (!payload.data || !memmem(payload.data, payload.len, name, strlen(name) + 1))
            return lacks(variant, name, 0, error);
    }
    return FJ_OK;
}

/* Nothing of it runs, so an instruction set that this CPU does not have is no obstacle. */
fj_status fj_jit_verify_payload(const fj_variant *variant, const fj_allocator *allocator, fj_str payload,
                                fj_error *error) {
    const fj_driver *driver = &fj_driver_cpu;
    fj_code *code = NULL;
    if (variant->target == FJ_TARGET_CUDA) return verify_cubin(variant, payload, error);
    fj_status status = driver->load(driver, allocator, payload.data, payload.len, &code, error);
    if (status == FJ_OK) status = fj_jit_verify_code(variant, driver, code, error);
    driver->unload(&code);
    return status;
}
