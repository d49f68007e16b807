/* Keys and records of the kernel cache.
 *
 *     request key -> selection record { request in clear, source digest, content key }
 *     content key -> kernel           { variant, options, compiler } and the code object
 *
 * The request knows no compiler: a machine without one finds a prebuilt kernel. The source digest in
 * the record is compared with the text rendered now: a mended emitter or template never meets a
 * stale kernel.
 */
#include "jit/records.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD_SCHEMA = 1 };

/* ---- Keys -------------------------------------------------------------------------------------- */

fj_digest fj_jit_source_digest(fj_str source, const fj_options *options) {
    fj_digest digest = fj_cache_digest(source.data, source.len);
    for (const char *const *option = options->list; *option; option++) {
        fj_digest link[2] = {digest, fj_cache_digest(*option, strlen(*option))};
        digest = fj_cache_digest(link, sizeof link);
    }
    return digest;
}

fj_digest fj_jit_content_key(fj_digest source, const fj_compiler *compiler) {
    fj_digest parts[3] = {
        source,
        fj_cache_digest(compiler->path, strlen(compiler->path)),
        fj_cache_digest(compiler->version, strlen(compiler->version)),
    };
    return fj_cache_digest(parts, sizeof parts);
}

/* ---- JSON --------------------------------------------------------------------------------------- */

static json_t *hex(fj_digest digest) {
    char text[33];
    fj_cache_digest_hex(digest, text);
    return json_string(text);
}

static json_t *options_text(const fj_options *options) {
    json_t *list = json_array();
    for (const char *const *option = options->list; *option; option++)
        (void)json_array_append_new(list, json_string(*option));
    return list;
}

static json_t *resources_list(const fj_compiled *compiled) {
    json_t *list = json_array();
    for (int i = 0; i < compiled->resource_count; i++) {
        const fj_resources *of = &compiled->resources[i];
        (void)json_array_append_new(list, json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:f}", "kernel",
                                                    of->kernel, "registers", of->registers, "stack",
                                                    of->stack, "spill_stores", of->spill_stores,
                                                    "spill_loads", of->spill_loads, "shared", of->shared,
                                                    "barriers", of->barriers, "ptxas_ms", of->compile_ms));
    }
    return list;
}

static int int_of(const json_t *object, const char *name) {
    return (int)json_integer_value(json_object_get(object, name));
}

int fj_jit_record_resources(fj_str metadata, fj_resources resources[FJ_RESOURCES_MAX]) {
    json_t *record = json_loadb(metadata.data, metadata.len, JSON_REJECT_DUPLICATES, NULL);
    const json_t *list = json_object_get(record, "resources");
    size_t count = json_array_size(list);
    if (count > FJ_RESOURCES_MAX) count = FJ_RESOURCES_MAX;
    for (size_t i = 0; i < count; i++) {
        const json_t *of = json_array_get(list, i);
        const char *name = json_string_value(json_object_get(of, "kernel"));
        resources[i] = (fj_resources){
            .registers = int_of(of, "registers"),
            .stack = int_of(of, "stack"),
            .spill_stores = int_of(of, "spill_stores"),
            .spill_loads = int_of(of, "spill_loads"),
            .shared = int_of(of, "shared"),
            .barriers = int_of(of, "barriers"),
            .compile_ms = json_number_value(json_object_get(of, "ptxas_ms")),
        };
        (void)snprintf(resources[i].kernel, sizeof resources[i].kernel, "%s", name ? name : "");
    }
    json_decref(record);
    return (int)count;
}

/* Writes the object, which it takes over; NULL (out of memory) writes nothing. */
static bool put_take(fj_cache *cache, fj_cache_kind kind, fj_digest key, json_t *metadata, fj_str payload) {
    char *text = metadata ? json_dumps(metadata, JSON_COMPACT) : NULL;
    bool written = text && fj_cache_put(cache, kind, key, fj_str_from(text), payload);
    free(text);
    json_decref(metadata);
    return written;
}

/* ---- Records -------------------------------------------------------------------------------------- */

static bool agrees(const json_t *record, const char *name, fj_digest digest) {
    char text[33];
    fj_cache_digest_hex(digest, text);
    const char *value = json_string_value(json_object_get(record, name));
    return value && strcmp(value, text) == 0;
}

bool fj_jit_record_find(fj_cache *cache, const fj_request *request, fj_digest *ret_content) {
    fj_cache_entry entry;
    if (!fj_cache_get(cache, FJ_CACHE_SELECTION, request->key, &entry)) return false;
    json_t *record = json_loadb(entry.metadata.data, entry.metadata.len, JSON_REJECT_DUPLICATES, NULL);
    fj_cache_entry_finish(cache, &entry);
    const char *content = json_string_value(json_object_get(record, "content"));
    const json_t *text = json_object_get(record, "request");
    bool same = json_is_string(text) && json_string_length(text) == request->text.len &&
                memcmp(json_string_value(text), request->text.data, request->text.len) == 0;
    bool found = same && content && agrees(record, "source", request->source) &&
                 fj_cache_digest_parse(content, ret_content);
    json_decref(record);
    return found;
}

bool fj_jit_record_put(fj_cache *cache, const fj_request *request, fj_digest content) {
    json_t *metadata = json_pack("{s:i, s:s, s:s, s:o, s:o, s:s%}", "schema", RECORD_SCHEMA, "device",
                                 fj_jit_target_name(request->variant->target), "variant",
                                 request->variant->name, "source", hex(request->source), "content",
                                 hex(content), "request", request->text.data, request->text.len);
    return put_take(cache, FJ_CACHE_SELECTION, request->key, metadata, (fj_str){0});
}

/* A cuda kernel's record also says what its compiler said. */
static json_t *add_findings(json_t *metadata, const fj_variant *variant, const fj_compiled *compiled,
                            double compile_ms) {
    char arch[FJ_ARCH_NAME];
    fj_jit_arch_name(variant->arch, arch);
    json_t *log = json_stringn(compiled->log.len ? compiled->log.data : "", compiled->log.len);
    if (!log) log = json_string(""); /* no UTF-8 */
    if (metadata && (json_object_set_new(metadata, "arch", json_string(arch)) != 0 ||
                     json_object_set_new(metadata, "resources", resources_list(compiled)) != 0 ||
                     json_object_set_new(metadata, "compile_ms", json_real(compile_ms)) != 0 ||
                     json_object_set(metadata, "log", log) != 0)) {
        json_decref(metadata);
        metadata = NULL;
    }
    json_decref(log);
    return metadata;
}

bool fj_jit_record_put_kernel(fj_cache *cache, const fj_request *request, fj_digest content,
                              const fj_compiler *compiler, const fj_compiled *compiled, double compile_ms) {
    const fj_variant *variant = request->variant;
    json_t *metadata =
        json_pack("{s:i, s:s, s:s, s:s, s:o, s:o, s:{s:s, s:s}}", "schema", RECORD_SCHEMA, "device",
                  fj_jit_target_name(variant->target), "variant", variant->name, "flexjit", FJ_VERSION,
                  "source", hex(request->source), "options", options_text(request->options), "compiler",
                  "path", compiler->path, "version", compiler->version);
    if (variant->target == FJ_TARGET_CUDA) metadata = add_findings(metadata, variant, compiled, compile_ms);
    fj_str payload = {compiled->bytes.data, compiled->bytes.len};
    return put_take(cache, FJ_CACHE_KERNEL, content, metadata, payload);
}
