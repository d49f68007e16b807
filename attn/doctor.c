/* What was found where, as JSON. */
#include <jansson.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attn/catalogue.h"
#include "driver/cuda.h"
#include "jit/compile.h"
#include "jit/nvrtc.h"

/* Jansson takes NULL for a value that could not be made and fails as a whole: one look at the end. */

/* Whether it compiles, and what is wrong. */
static bool compiles(const fj_context *context, const fj_compiler *compiler, fj_language language,
                     fj_error *error) {
    const fj_file_ops *files = context->files ? context->files : &fj_file_ops_system;
    const char *const *options =
        language == FJ_LANGUAGE_C ? fj_jit_compile_options(FJ_ISA_PORTABLE) : fj_jit_compile_options_emu();
    fj_buf object;
    fj_buf_init(&object, &context->allocator);
    fj_status status =
        fj_jit_compile(compiler, language, options, files,
                       FJ_STR("int fj_try(void);\nint fj_try(void) { return 0; }\n"), &object, error);
    fj_buf_finish(&object);
    return status == FJ_OK;
}

/* The one that is used, tried. */
static void add_trial(const fj_context *context, const fj_compiler *compiler, fj_language language,
                      json_t *row, bool *works) {
    fj_error error = {0};
    const bool tried = compiles(context, compiler, language, &error);
    (void)json_object_set_new(row, "works", json_boolean(tried));
    if (!tried) (void)json_object_set_new(row, "error", json_string(error.text));
    *works &= tried;
    fj_error_finish(&error);
}

static void add_compilers(const fj_context *context, fj_language language, json_t *list, bool *works) {
    const fj_compiler_search *search = fj_jit_compiler_search(language);
    const char *chosen = getenv(search->variable);
    const char *const names[] = {chosen, search->candidates[0], search->candidates[1], search->candidates[2]};
    const fj_file_ops *files = context->files ? context->files : &fj_file_ops_system;
    bool is_used = false;
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        fj_compiler compiler = {0};
        if (!names[i] || !*names[i]) continue;
        bool found = fj_jit_compiler_locate(names[i], compiler.path, sizeof compiler.path);
        if (found) found = fj_jit_compiler_version(files, &context->allocator, &compiler, NULL) == FJ_OK;
        bool used = found && !is_used && (i == 0 || !chosen || !*chosen);
        is_used |= used;
        json_t *row =
            json_pack("{s:s, s:s, s:b, s:b, s:s, s:s}", "name", names[i], "device", search->device, "found",
                      (int)found, "used", (int)used, "path", compiler.path, "version", compiler.version);
        if (used) add_trial(context, &compiler, language, row, works);
        (void)json_array_append_new(list, row);
    }
}

static json_t *compilers(const fj_context *context, bool *works) {
    json_t *list = json_array();
    for (int i = 0; i < FJ_LANGUAGE_COUNT; i++) add_compilers(context, (fj_language)i, list, works);
    return list;
}

static json_t *features(void) {
    fj_features have = fj_jit_features();
    json_t *object = json_object();
    for (int isa = 0; isa < FJ_ISA_COUNT; isa++)
        (void)json_object_set_new(object, fj_jit_isa_name((fj_isa)isa), json_boolean(have.isa[isa]));
    return object;
}

static json_t *layers(const fj_context *context) {
    json_t *list = json_array();
    for (size_t i = 0; i < fj_cache_layer_count(context->cache); i++) {
        fj_cache_layer_info info = fj_cache_layer(context->cache, i);
        (void)json_array_append_new(
            list, json_pack("{s:s, s:b, s:b, s:b, s:I, s:I}", "path", info.path, "exists", (int)info.exists,
                            "readable", (int)info.readable, "writable", (int)info.writable, "entries",
                            (json_int_t)info.entries, "bytes", (json_int_t)info.bytes));
    }
    return list;
}

/* What is missing, with what to do about it. */
/* The last is what the library was built with. NULL: out of memory. */
static json_t *tuning_layers(const fj_context *context) {
    if (fj_tuning_read(context->tuning) != FJ_OK) return NULL;
    json_t *list = json_array();
    for (size_t i = 0; i < fj_tuning_layer_count(context->tuning); i++) {
        const fj_tuning_layer layer = fj_tuning_layer_at(context->tuning, i);
        fj_attn_json_append(&list,
                            json_pack("{s:o, s:b, s:b, s:i, s:i, s:i}", "path", fj_attn_json_text(layer.path),
                                      "written", (int)layer.written, "exists", (int)layer.exists, "files",
                                      layer.files, "records", layer.records, "skipped", layer.skipped));
    }
    return list;
}

static json_t *not_found(fj_error *error) {
    json_t *object = json_pack("{s:b, s:s}", "found", 0, "error", error->text);
    if (error->note[0]) (void)json_object_set_new(object, "note", json_string(error->note));
    fj_error_finish(error);
    return object;
}

/* One that does not work is passed over where there is another, as compilations do it. */
static json_t *nvrtc(const fj_context *context, bool *works) {
    const fj_file_ops *files = context->files ? context->files : &fj_file_ops_system;
    const fj_nvrtc *found = NULL, *last = NULL;
    fj_error error = {0};
    bool tried = false;
    while (!tried && fj_jit_nvrtc_open((fj_arch){0}, files, &found, &error) == FJ_OK && found != last) {
        tried = fj_jit_nvrtc_try(found, files, &context->allocator, &error) == FJ_OK;
        last = found;
    }
    *works &= found ? tried : !fj_jit_nvrtc_saw_unusable();
    if (!found) return not_found(&error);
    char version[32];
    (void)snprintf(version, sizeof version, "%d.%d", found->major, found->minor);
    json_t *archs = json_array();
    for (int i = 0; i < found->arch_count; i++) {
        char name[FJ_ARCH_NAME];
        fj_jit_arch_name((fj_arch){found->archs[i], '\0'}, name);
        (void)json_array_append_new(archs, json_string(name));
    }
    json_t *object = json_pack("{s:b, s:s, s:s, s:s, s:b, s:o}", "found", 1, "path", found->path, "version",
                               version, "builtins", found->builtins, "works", (int)tried, "archs", archs);
    if (!tried) (void)json_object_set_new(object, "error", json_string(error.text));
    fj_error_finish(&error);
    return object;
}

static json_t *gpus(int count) {
    json_t *list = json_array();
    for (int i = 0; i < count; i++) {
        fj_cuda_features gpu;
        char arch[FJ_ARCH_NAME];
        if (fj_cuda_features_of(i, &gpu, NULL) != FJ_OK) continue;
        fj_jit_arch_name((fj_arch){gpu.arch, '\0'}, arch);
        (void)json_array_append_new(list, json_pack("{s:s, s:s, s:b, s:i, s:i, s:I}", "name", gpu.name,
                                                    "arch", arch, "usable", (int)(gpu.arch >= FJ_ARCH_OLDEST),
                                                    "multiprocessors", gpu.multiprocessors, "shared_limit",
                                                    gpu.shared_limit, "memory", (json_int_t)gpu.memory));
    }
    return list;
}

static json_t *cuda(bool *works) {
    fj_cuda_driver_info info;
    fj_error error = {0};
    const fj_status status = fj_cuda_driver_look(&info, &error);
    *works &= !fj_cuda_driver_saw_unusable();
    if (status != FJ_OK) return not_found(&error);
    char version[32];
    (void)snprintf(version, sizeof version, "%d.%d", info.version / 1000, info.version % 1000 / 10);
    return json_pack("{s:b, s:s, s:s, s:o}", "found", 1, "path", info.path, "cuda", version, "gpus",
                     gpus(info.devices));
}

static const char *environment(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

fj_status fj_doctor(fj_context *context, fj_text *ret_json, fj_error *error) {
    if (!context || !ret_json) return fj_error_set(error, FJ_ERR_ARGUMENT, "context or ret_json is NULL");
    bool works = true;
    json_t *object = json_pack(
        "{s:i, s:s, s:o, s:{s:o, s:i, s:i, s:i}, s:o, s:o, s:o, s:{s:I}, s:o, s:{s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?, s:s?}}",
        "schema", 1, "version", FJ_VERSION, "compilers", compilers(context, &works), "cpu", "features",
        features(), "processors", (int)sysconf(_SC_NPROCESSORS_ONLN), "openmp", _OPENMP, "openmp_threads",
        omp_get_max_threads(), "nvrtc", nvrtc(context, &works), "driver", cuda(&works), "cache_layers",
        layers(context), "cache", "limit", (json_int_t)fj_cache_limit(context->cache), "tuning_layers",
        tuning_layers(context), "environment", "FLEXJIT_CC", environment("FLEXJIT_CC"), "FLEXJIT_CXX",
        environment("FLEXJIT_CXX"), "FLEXJIT_NVRTC", environment("FLEXJIT_NVRTC"), "FLEXJIT_LIBCUDA",
        environment("FLEXJIT_LIBCUDA"), "FLEXJIT_CACHE_PATH", environment("FLEXJIT_CACHE_PATH"),
        "FLEXJIT_TEMPLATE_PATH", environment("FLEXJIT_TEMPLATE_PATH"), "FLEXJIT_NO_JIT",
        environment("FLEXJIT_NO_JIT"), "FLEXJIT_TUNE_PATH", environment("FLEXJIT_TUNE_PATH"));
    if (object && json_object_set_new(object, "works", json_boolean(works)) != 0) {
        json_decref(object);
        object = NULL;
    }
    char *text = object ? json_dumps(object, JSON_INDENT(2)) : NULL;
    json_decref(object);
    if (!text) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    *ret_json = (fj_text){text, strlen(text)};
    return FJ_OK;
}
