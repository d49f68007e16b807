/* Keys and records of the kernel cache.
 *
 *     request key -> selection record { request as text, source digest, content key, variant that replaces it }
 *     content key -> kernel           { variant, options, compiler } and the code object
 *
 * Neither holds a time, a date or a path of this machine but the compiler's: the same compiler writes the same bytes again, so
 * that layers made in parts (`prebuild --shard`) are, put together, the layer made at once.
 *
 * The request knows no compiler: a machine without one finds a prebuilt kernel. The source digest in
 * the record is compared with the text rendered now: a corrected emitter or template never meets a
 * stale kernel.
 */
#include "jit/records.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RECORD_SCHEMA = 1 };

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
        (void)json_array_append_new(
            list, json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i}", "kernel", of->kernel, "registers",
                            of->registers, "stack", of->stack, "spill_stores", of->spill_stores,
                            "spill_loads", of->spill_loads, "shared", of->shared, "barriers", of->barriers));
    }
    return list;
}

/* How each entry point is launched. */
static json_t *launches_list(const fj_variant *variant) {
    json_t *list = json_array();
    for (int i = 0; i < variant->entry_count; i++)
        (void)json_array_append_new(list, json_pack("{s:s, s:i, s:i}", "kernel", variant->entries[i].name,
                                                    "threads", variant->entries[i].threads, "shared",
                                                    variant->entries[i].shared));
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

bool fj_jit_record_find(fj_cache *cache, const fj_request *request, fj_record *ret_record) {
    fj_cache_entry entry;
    if (!fj_cache_get(cache, FJ_CACHE_SELECTION, request->key, &entry)) return false;
    json_t *record = json_loadb(entry.metadata.data, entry.metadata.len, JSON_REJECT_DUPLICATES, NULL);
    fj_cache_entry_finish(cache, &entry);
    const char *content = json_string_value(json_object_get(record, "content"));
    const json_t *text = json_object_get(record, "request");
    bool same = json_is_string(text) && json_string_length(text) == request->text.len &&
                memcmp(json_string_value(text), request->text.data, request->text.len) == 0;
    bool found = same && content && agrees(record, "source", request->source) &&
                 fj_cache_digest_parse(content, &ret_record->content);
    const char *replacement = json_string_value(json_object_get(record, "replacement"));
    (void)snprintf(ret_record->replacement, sizeof ret_record->replacement, "%s",
                   replacement ? replacement : "");
    json_decref(record);
    return found;
}

bool fj_jit_record_put(fj_cache *cache, const fj_request *request, fj_digest content,
                       const char *replacement) {
    json_t *metadata = json_pack("{s:i, s:s, s:s, s:o, s:o, s:s%}", "schema", RECORD_SCHEMA, "device",
                                 fj_jit_target_name(request->variant->target), "variant",
                                 request->variant->name, "source", hex(request->source), "content",
                                 hex(content), "request", request->text.data, request->text.len);
    if (metadata && *replacement &&
        json_object_set_new(metadata, "replacement", json_string(replacement)) != 0) {
        json_decref(metadata);
        metadata = NULL;
    }
    return put_take(cache, FJ_CACHE_SELECTION, request->key, metadata, (fj_str){0});
}

/* What a compiler said, without the lines that say how long it took; as far as it is UTF-8. */
static json_t *log_text(fj_str log) {
    fj_buf kept;
    fj_buf_init(&kept, &fj_allocator_libc);
    for (size_t at = 0; at < log.len;) {
        const char *line = log.data + at, *end = memchr(line, '\n', log.len - at);
        const size_t length = end ? (size_t)(end - line) + 1 : log.len - at;
        if (!memmem(line, length, "Compile time", strlen("Compile time"))) fj_buf_write(&kept, line, length);
        at += length;
    }
    json_t *text = kept.failed ? NULL : json_stringn(kept.len ? kept.data : "", kept.len);
    fj_buf_finish(&kept);
    return text ? text : json_string("");
}

/* What it is for, and what its compiler said. */
static json_t *add_findings(json_t *metadata, const fj_variant *variant, const fj_compiled *compiled) {
    char arch[FJ_ARCH_NAME];
    bool cpu = variant->target == FJ_TARGET_CPU;
    if (cpu)
        (void)snprintf(arch, sizeof arch, "%s", fj_jit_isa_name(variant->isa));
    else
        fj_jit_arch_name(variant->arch, arch);
    json_t *log = log_text((fj_str){compiled->log.data, compiled->log.len});
    if (metadata && (json_object_set_new(metadata, cpu ? "isa" : "arch", json_string(arch)) != 0 ||
                     json_object_set_new(metadata, "resources", resources_list(compiled)) != 0 ||
                     json_object_set_new(metadata, "launches", launches_list(variant)) != 0 ||
                     json_object_set(metadata, "log", log) != 0)) {
        json_decref(metadata);
        metadata = NULL;
    }
    json_decref(log);
    return metadata;
}

bool fj_jit_record_put_kernel(fj_cache *cache, const fj_request *request, fj_digest content,
                              const fj_compiler *compiler, const fj_compiled *compiled) {
    const fj_variant *variant = request->variant;
    json_t *metadata =
        json_pack("{s:i, s:s, s:s, s:s, s:o, s:o, s:{s:s, s:s}}", "schema", RECORD_SCHEMA, "device",
                  fj_jit_target_name(variant->target), "variant", variant->name, "flexjit", FJ_VERSION,
                  "source", hex(request->source), "options", options_text(&request->options), "compiler",
                  "path", compiler->path, "version", compiler->version);
    metadata = add_findings(metadata, variant, compiled);
    fj_str payload = {compiled->bytes.data, compiled->bytes.len};
    return put_take(cache, FJ_CACHE_KERNEL, content, metadata, payload);
}

/* ---- Reading them ----------------------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *name) {
    const json_t *value = json_object_get(object, name);
    const char *text = json_string_value(value);
    return text && strlen(text) == json_string_length(value) ? text : NULL;
}

static bool digest_of(const json_t *object, const char *name, fj_digest *ret_digest) {
    const char *text = text_of(object, name);
    return text && fj_cache_digest_parse(text, ret_digest);
}

static const char *check_record(const json_t *record, fj_digest key) {
    const json_t *request = json_object_get(record, "request");
    fj_digest source, content;
    if (!json_is_string(request)) return "names no request";
    if (!digest_of(record, "source", &source) || !digest_of(record, "content", &content))
        return "names no kernel";
    fj_digest made = fj_cache_digest(json_string_value(request), json_string_length(request));
    return fj_cache_digest_equal(made, key) ? NULL : "has a key that is not its request's";
}

static const char *check_kernel(const json_t *kernel, fj_digest key) {
    const json_t *compiler = json_object_get(kernel, "compiler");
    const char *path = text_of(compiler, "path"), *version = text_of(compiler, "version");
    fj_compiler used = {0};
    fj_digest source;
    if (!text_of(kernel, "variant")) return "names no variant";
    if (!path || strlen(path) >= sizeof used.path || !version || strlen(version) >= sizeof used.version)
        return "names no compiler";
    if (!digest_of(kernel, "source", &source)) return "names no source";
    (void)snprintf(used.path, sizeof used.path, "%s", path);
    (void)snprintf(used.version, sizeof used.version, "%s", version);
    fj_digest made = fj_jit_content_key(source, &used);
    return fj_cache_digest_equal(made, key) ? NULL : "has a key that is not its source's and compiler's";
}

json_t *fj_jit_record_parse(fj_cache_kind kind, fj_digest key, fj_str metadata, const char **ret_wrong) {
    json_t *object = json_loadb(metadata.data, metadata.len, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(object))
        *ret_wrong = "has metadata that is not a JSON object";
    else if (json_integer_value(json_object_get(object, "schema")) != RECORD_SCHEMA)
        *ret_wrong = "has metadata of another schema";
    else
        *ret_wrong = kind == FJ_CACHE_KERNEL ? check_kernel(object, key) : check_record(object, key);
    if (!*ret_wrong) return object;
    json_decref(object);
    return NULL;
}

const char *fj_jit_record_check(fj_cache_kind kind, fj_digest key, fj_str metadata) {
    const char *wrong;
    json_decref(fj_jit_record_parse(kind, key, metadata, &wrong));
    return wrong;
}

const char *fj_jit_record_arch(const json_t *metadata) {
    const char *arch = text_of(metadata, "arch"), *isa = text_of(metadata, "isa");
    return arch ? arch : isa ? isa : "";
}

/* ---- Parts ------------------------------------------------------------------------------------------- */

/* The request's text (render.c) is lines of a name and a value, then the mods' graph, which is one part. */
static bool begins_graph(const char *line) {
    size_t word = strspn(line, "abcdefghijklmnopqrstuvwxyz0123456789_");
    return word == 0 || word > 31 || line[word] != ' ' || strncmp(line, "capture ", 8) == 0 ||
           strncmp(line, "scalar ", 7) == 0;
}

static bool add_request(json_t *parts, const char *text) {
    char name[32];
    bool added = true;
    for (const char *line = text; added && *line != '\0';) {
        if (begins_graph(line)) return json_object_set_new(parts, "mod", json_string(line)) == 0;
        size_t length = strcspn(line, "\n"), word = strcspn(line, " \n");
        const char *value = line + word + (line[word] == ' ');
        (void)snprintf(name, sizeof name, "%.*s", (int)word, line);
        added = json_object_set_new(parts, name, json_stringn(value, (size_t)(line + length - value))) == 0;
        line += length + (line[length] == '\n');
    }
    return added;
}

static const char *const kernel_parts[] = {"options", "compiler", "compiler_version", "source"};

static bool add_kernel(json_t *parts, const json_t *kernel) {
    const json_t *compiler = json_object_get(kernel, "compiler"),
                 *options = json_object_get(kernel, "options");
    fj_buf list;
    fj_buf_init(&list, &fj_allocator_libc);
    for (size_t i = 0; i < json_array_size(options); i++) {
        const char *option = json_string_value(json_array_get(options, i));
        fj_buf_printf(&list, "%s%s", i > 0 ? " " : "", option ? option : "?");
    }
    const char *values[FJ_ARRAY_LEN(kernel_parts)] = {list.len > 0 ? list.data : "",
                                                      text_of(compiler, "path"), text_of(compiler, "version"),
                                                      text_of(kernel, "source")};
    bool added = !list.failed;
    for (size_t i = 0; added && i < FJ_ARRAY_LEN(values); i++)
        added = json_object_set_new(parts, kernel_parts[i], json_string(values[i] ? values[i] : "")) == 0;
    fj_buf_finish(&list);
    return added;
}

json_t *fj_jit_record_parts(const json_t *record, const json_t *kernel) {
    json_t *parts = json_object();
    const char *request = text_of(record, "request");
    bool made = parts && (!request || add_request(parts, request)) && (!kernel || add_kernel(parts, kernel));
    if (made) return parts;
    json_decref(parts);
    return NULL;
}

bool fj_jit_record_is_request_part(const char *name) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(kernel_parts); i++)
        if (strcmp(name, kernel_parts[i]) == 0) return false;
    return true;
}
