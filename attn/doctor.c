/* What was found where, as JSON. */
#include <jansson.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attn/objects.h"
#include "jit/compile.h"

/* Jansson takes NULL for a value that could not be made and fails as a whole: one look at the end. */

static json_t *compilers(const fj_context *context) {
    const char *chosen = getenv("FLEXJIT_CC");
    const char *const names[] = {chosen, "cc", "gcc", "clang"};
    const fj_file_ops *files = context->files ? context->files : &fj_file_ops_system;
    json_t *list = json_array();
    bool is_used = false;
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        fj_compiler compiler = {0};
        if (!names[i] || !*names[i]) continue;
        bool found = fj_jit_compiler_locate(names[i], compiler.path, sizeof compiler.path);
        if (found) found = fj_jit_compiler_version(files, &context->allocator, &compiler, NULL) == FJ_OK;
        bool used = found && !is_used && (i == 0 || !chosen || !*chosen);
        is_used |= used;
        (void)json_array_append_new(list, json_pack("{s:s, s:b, s:b, s:s, s:s}", "name", names[i], "found",
                                                    (int)found, "used", (int)used, "path", compiler.path,
                                                    "version", compiler.version));
    }
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

static const char *environment(const char *name) {
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

fj_status fj_doctor(fj_context *context, fj_text *ret_json, fj_error *error) {
    if (!context || !ret_json) return fj_error_set(error, FJ_ERR_ARGUMENT, "context or ret_json is NULL");
    json_t *object = json_pack(
        "{s:i, s:s, s:o, s:{s:o, s:i, s:i, s:i}, s:o, s:{s:I}, s:{s:s?, s:s?, s:s?, s:s?}}", "schema", 1,
        "version", FJ_VERSION, "compilers", compilers(context), "cpu", "features", features(), "processors",
        (int)sysconf(_SC_NPROCESSORS_ONLN), "openmp", _OPENMP, "openmp_threads", omp_get_max_threads(),
        "cache_layers", layers(context), "cache", "limit", (json_int_t)fj_cache_limit(context->cache),
        "environment", "FLEXJIT_CC", environment("FLEXJIT_CC"), "FLEXJIT_CACHE_PATH",
        environment("FLEXJIT_CACHE_PATH"), "FLEXJIT_TEMPLATE_PATH", environment("FLEXJIT_TEMPLATE_PATH"),
        "FLEXJIT_NO_JIT", environment("FLEXJIT_NO_JIT"));
    char *text = object ? json_dumps(object, JSON_INDENT(2)) : NULL;
    json_decref(object);
    if (!text) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    *ret_json = (fj_text){text, strlen(text)};
    return FJ_OK;
}
