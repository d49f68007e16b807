/* One way to compile for every target. */
#include "jit/toolchain.h"

#include <stdio.h>

/* As for the host's compiler: no option that changes what an operation gives. NVRTC contracts a * b + c
 * unless it is told not to. */
static const char *const cuda_options[] = {
    "--std=c++17", "-default-device", "--fmad=false", "--ptxas-options=-v", NULL,
};

static void add(fj_options *options, const char *const *list) {
    int count = 0;
    while (options->list[count]) count++;
    for (; *list && count < FJ_MAX_OPTIONS - 1; list++) options->list[count++] = *list;
}

void fj_jit_options(const fj_variant *variant, fj_options *ret_options) {
    char arch[FJ_ARCH_NAME];
    const char *const of_arch[] = {ret_options->arch, NULL};
    *ret_options = (fj_options){0};
    fj_jit_arch_name(variant->arch, arch);
    switch (variant->target) {
    case FJ_TARGET_CUDA:
        (void)snprintf(ret_options->arch, sizeof ret_options->arch, "--gpu-architecture=%s", arch);
        add(ret_options, of_arch);
        add(ret_options, cuda_options);
        break;
    case FJ_TARGET_EMU:
        (void)snprintf(ret_options->arch, sizeof ret_options->arch, "-DFJ_ARCH=%d", variant->arch.number);
        add(ret_options, fj_jit_compile_options_emu());
        add(ret_options, of_arch);
        break;
    default: add(ret_options, fj_jit_compile_options(variant->isa));
    }
}

static fj_language language_of(fj_target target) {
    return target == FJ_TARGET_EMU ? FJ_LANGUAGE_CXX : FJ_LANGUAGE_C;
}

static fj_status find_nvrtc(const fj_variant *variant, const fj_file_ops *ops, fj_toolchain *toolchain,
                            fj_error *error) {
    fj_status status = fj_jit_nvrtc_open(variant->arch, ops, &toolchain->nvrtc, error);
    if (status != FJ_OK) return status;
    (void)snprintf(toolchain->compiler.path, sizeof toolchain->compiler.path, "NVRTC");
    (void)snprintf(toolchain->compiler.version, sizeof toolchain->compiler.version, "%d.%d",
                   toolchain->nvrtc->major, toolchain->nvrtc->minor);
    return FJ_OK;
}

fj_status fj_jit_toolchain_find(const fj_variant *variant, const fj_file_ops *ops,
                                const fj_allocator *allocator, fj_toolchain *ret_toolchain, fj_error *error) {
    *ret_toolchain = (fj_toolchain){.target = variant->target};
    if (variant->target == FJ_TARGET_CUDA) return find_nvrtc(variant, ops, ret_toolchain, error);
    return fj_jit_compiler_find(language_of(variant->target), ops, allocator, &ret_toolchain->compiler,
                                error);
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
    if (toolchain->target != FJ_TARGET_CUDA)
        return fj_jit_compile(&toolchain->compiler, language_of(toolchain->target), options->list, ops,
                              source, &compiled->bytes, error);
    fj_status status = fj_jit_nvrtc_compile(toolchain->nvrtc, ops, variant->name, source, options->list,
                                            &compiled->bytes, &compiled->log, error);
    if (status != FJ_OK) return status;
    if (compiled->log.failed) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    compiled->resource_count =
        fj_jit_resources_parse((fj_str){compiled->log.data, compiled->log.len}, compiled->resources);
    return FJ_OK;
}
