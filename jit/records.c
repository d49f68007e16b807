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
#include <stdlib.h>
#include <string.h>

enum { RECORD_SCHEMA = 1 };

/* ---- Keys -------------------------------------------------------------------------------------- */

fj_digest fj_jit_source_digest(fj_str source, fj_isa isa) {
    fj_digest digest = fj_cache_digest(source.data, source.len);
    for (const char *const *option = fj_jit_compile_options(isa); *option; option++) {
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

static json_t *options_text(fj_isa isa) {
    json_t *list = json_array();
    for (const char *const *option = fj_jit_compile_options(isa); *option; option++)
        (void)json_array_append_new(list, json_string(*option));
    return list;
}

/* Writes the object, which it takes over; NULL (out of memory) writes nothing. */
static void put_take(fj_cache *cache, fj_cache_kind kind, fj_digest key, json_t *metadata, fj_str payload) {
    char *text = metadata ? json_dumps(metadata, JSON_COMPACT) : NULL;
    if (text) (void)fj_cache_put(cache, kind, key, fj_str_from(text), payload);
    free(text);
    json_decref(metadata);
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

void fj_jit_record_put(fj_cache *cache, const fj_request *request, fj_digest content) {
    json_t *metadata = json_pack("{s:i, s:s, s:s, s:o, s:o, s:s%}", "schema", RECORD_SCHEMA, "device",
                                 request->device, "variant", request->variant, "source", hex(request->source),
                                 "content", hex(content), "request", request->text.data, request->text.len);
    put_take(cache, FJ_CACHE_SELECTION, request->key, metadata, (fj_str){0});
}

void fj_jit_record_put_kernel(fj_cache *cache, const fj_request *request, fj_digest content,
                              const fj_compiler *compiler, fj_str payload) {
    json_t *metadata = json_pack(
        "{s:i, s:s, s:s, s:s, s:o, s:o, s:{s:s, s:s}}", "schema", RECORD_SCHEMA, "device", request->device,
        "variant", request->variant, "flexjit", FJ_VERSION, "source", hex(request->source), "options",
        options_text(request->isa), "compiler", "path", compiler->path, "version", compiler->version);
    put_take(cache, FJ_CACHE_KERNEL, content, metadata, payload);
}
