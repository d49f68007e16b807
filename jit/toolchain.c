/* One way to compile for every target. */
#include "jit/toolchain.h"

#include <stdio.h>

/* As for the host's compiler: no option that changes what an operation gives. NVRTC contracts a * b + c
 * unless it is told not to. */
static const char *const cuda_options[] = {
    "--std=c++17",
    "-default-device",
    "--fmad=false",
    "--ptxas-options=-v",
};

void fj_jit_options(const fj_variant *variant, fj_options *ret_options) {
    int count = 0;
    if (variant->target == FJ_TARGET_CPU) {
        for (const char *const *at = fj_jit_compile_options(variant->isa); *at && count < FJ_MAX_OPTIONS - 1;
             at++)
            ret_options->list[count++] = *at;
    } else {
        char arch[FJ_ARCH_NAME];
        fj_jit_arch_name(variant->arch, arch);
        (void)snprintf(ret_options->arch, sizeof ret_options->arch, "--gpu-architecture=%s", arch);
        ret_options->list[count++] = ret_options->arch;
        for (size_t i = 0; i < FJ_ARRAY_LEN(cuda_options); i++) ret_options->list[count++] = cuda_options[i];
    }
    ret_options->list[count] = NULL;
}

static fj_status find_nvrtc(const fj_variant *variant, fj_toolchain *toolchain, fj_error *error) {
    fj_status status = fj_jit_nvrtc_open(&toolchain->nvrtc, error);
    if (status == FJ_OK) status = fj_jit_nvrtc_check_arch(toolchain->nvrtc, variant->arch, error);
    if (status != FJ_OK) return status;
    (void)snprintf(toolchain->compiler.path, sizeof toolchain->compiler.path, "NVRTC");
    (void)snprintf(toolchain->compiler.version, sizeof toolchain->compiler.version, "%d.%d",
                   toolchain->nvrtc->major, toolchain->nvrtc->minor);
    return FJ_OK;
}

fj_status fj_jit_toolchain_find(const fj_variant *variant, const fj_file_ops *ops,
                                const fj_allocator *allocator, fj_toolchain *ret_toolchain, fj_error *error) {
    *ret_toolchain = (fj_toolchain){.target = variant->target};
    if (variant->target == FJ_TARGET_CUDA) return find_nvrtc(variant, ret_toolchain, error);
    return fj_jit_compiler_find(ops, allocator, &ret_toolchain->compiler, error);
}

void fj_jit_compiled_init(fj_compiled *compiled, const fj_allocator *allocator) {
    compiled->resource_count = 0;
    fj_buf_init(&compiled->bytes, allocator);
    fj_buf_init(&compiled->log, allocator);
}

void fj_jit_compiled_finish(fj_compiled *compiled) {
    fj_buf_finish(&compiled->bytes);
    fj_buf_finish(&compiled->log);
}

fj_status fj_jit_toolchain_compile(const fj_toolchain *toolchain, const fj_file_ops *ops,
                                   const fj_variant *variant, const fj_options *options, fj_str source,
                                   fj_compiled *compiled, fj_error *error) {
    if (toolchain->target == FJ_TARGET_CPU)
        return fj_jit_compile(&toolchain->compiler, ops, source, variant->isa, &compiled->bytes, error);
    fj_status status = fj_jit_nvrtc_compile(toolchain->nvrtc, variant->name, source.data, options->list,
                                            &compiled->bytes, &compiled->log, error);
    if (status != FJ_OK) return status;
    if (compiled->log.failed) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    compiled->resource_count =
        fj_jit_resources_parse((fj_str){compiled->log.data, compiled->log.len}, compiled->resources);
    return FJ_OK;
}
