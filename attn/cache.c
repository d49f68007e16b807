/* What the kernel cache has, for its users: listed, verified, cleared, carried elsewhere. */
#include <stdlib.h>
#include <string.h>

#include "attn/catalogue.h"
#include "jit/records.h"

static fj_status not_null(const void *context, const void *ret_json, fj_error *error) {
    if (context && ret_json) return FJ_OK;
    return fj_error_set(error, FJ_ERR_ARGUMENT, "context or ret_json is NULL");
}

static fj_status read_filter(const fj_cache_filter *given, fj_cache_filter *ret_filter, fj_error *error) {
    *ret_filter = (fj_cache_filter){.struct_size = sizeof *ret_filter};
    if (!given) return FJ_OK;
    return fj_attn_read_desc(ret_filter, sizeof *ret_filter, given, "fj_cache_filter", error);
}

static bool is_wanted(const fj_row *row, fj_cache_kind kind, const fj_cache_filter *filter) {
    return !row->wrong && row->ref.kind == kind && fj_attn_row_matches(row, filter);
}

/* ---- Layers ------------------------------------------------------------------------------------ */

fj_status fj_cache_path(fj_context *context, fj_text *ret_json, fj_error *error) {
    fj_status status = not_null(context, ret_json, error);
    if (status != FJ_OK) return status;
    json_t *layers = json_array();
    for (size_t i = 0; i < fj_cache_layer_count(context->cache); i++) {
        fj_cache_layer_info info = fj_cache_layer(context->cache, i);
        fj_attn_json_append(&layers, json_pack("{s:o, s:b, s:b, s:b, s:b, s:I, s:I}", "path",
                                               fj_attn_json_text(info.path), "written", (int)(i == 0),
                                               "exists", (int)info.exists, "readable", (int)info.readable,
                                               "writable", (int)info.writable, "entries",
                                               (json_int_t)info.entries, "bytes", (json_int_t)info.bytes));
    }
    return fj_attn_json_take(json_pack("{s:i, s:o, s:I}", "schema", 1, "layers", layers, "limit",
                                       (json_int_t)fj_cache_limit(context->cache)),
                             ret_json, error);
}

/* ---- Kernels ----------------------------------------------------------------------------------- */

static json_t *list_row(const fj_row *row) {
    const char *device = json_string_value(json_object_get(row->metadata, "device"));
    return json_pack("{s:o, s:s, s:s, s:s, s:I, s:I, s:I, s:I, s:b}", "key",
                     fj_attn_json_digest(row->ref.key), "variant", fj_attn_row_variant(row), "device",
                     device ? device : "", "arch", fj_jit_record_arch(row->metadata), "bytes",
                     (json_int_t)row->bytes, "payload_bytes", (json_int_t)row->payload_bytes, "used",
                     (json_int_t)row->used, "layer", (json_int_t)row->ref.layer, "hidden", (int)row->hidden);
}

fj_status fj_cache_list(fj_context *context, const fj_cache_filter *filter, fj_text *ret_json,
                        fj_error *error) {
    fj_cache_filter want;
    fj_catalogue all = {0};
    json_int_t damaged = 0;
    fj_status status = not_null(context, ret_json, error);
    if (status == FJ_OK) status = read_filter(filter, &want, error);
    if (status == FJ_OK) status = fj_attn_catalogue_read(context, &all, error);
    if (status == FJ_OK) {
        json_t *kernels = json_array();
        for (size_t i = 0; i < all.count; i++) {
            damaged += all.rows[i].wrong != NULL;
            if (is_wanted(&all.rows[i], FJ_CACHE_KERNEL, &want))
                fj_attn_json_append(&kernels, list_row(&all.rows[i]));
        }
        status = fj_attn_json_take(
            json_pack("{s:i, s:o, s:I}", "schema", 1, "kernels", kernels, "damaged", damaged), ret_json,
            error);
    }
    fj_attn_catalogue_finish(&all);
    return status;
}

/* ---- Verifying --------------------------------------------------------------------------------- */

/* A layer that is there but not used has nothing sound in it. */
static void add_sick_layers(const fj_context *context, json_t **damaged) {
    for (size_t i = 0; i < fj_cache_layer_count(context->cache); i++) {
        fj_cache_layer_info info = fj_cache_layer(context->cache, i);
        if (!info.exists || info.readable) continue;
        fj_attn_json_append(damaged, json_pack("{s:o, s:I, s:s}", "file", fj_attn_json_text(info.path),
                                               "layer", (json_int_t)i, "text",
                                               "is a layer that cannot be read or is not trusted"));
    }
}

static json_t *verify(const fj_catalogue *all) {
    json_t *damaged = json_array();
    json_int_t kinds[FJ_CACHE_KIND_COUNT] = {0}, bytes = 0, dangling = 0;
    for (size_t i = 0; i < all->count; i++) {
        const fj_row *row = &all->rows[i];
        bytes += row->bytes;
        if (row->wrong) {
            fj_attn_json_append(&damaged, json_pack("{s:o, s:I, s:s}", "file", fj_attn_row_file(all, row),
                                                    "layer", (json_int_t)row->ref.layer, "text", row->wrong));
            continue;
        }
        kinds[row->ref.kind]++;
        dangling += row->ref.kind == FJ_CACHE_SELECTION && !fj_attn_catalogue_kernel_of(all, row);
    }
    if (all->sick_layers > 0) add_sick_layers(all->context, &damaged);
    return json_pack("{s:i, s:I, s:I, s:I, s:I, s:I, s:o}", "schema", 1, "entries", (json_int_t)all->count,
                     "kernels", kinds[FJ_CACHE_KERNEL], "records", kinds[FJ_CACHE_SELECTION], "bytes", bytes,
                     "dangling", dangling, "damaged", damaged);
}

fj_status fj_cache_verify(fj_context *context, fj_text *ret_json, fj_error *error) {
    fj_catalogue all = {0};
    fj_status status = not_null(context, ret_json, error);
    if (status == FJ_OK) status = fj_attn_catalogue_read(context, &all, error);
    if (status == FJ_OK) status = fj_attn_json_take(verify(&all), ret_json, error);
    fj_attn_catalogue_finish(&all);
    return status;
}

/* ---- Clearing ------------------------------------------------------------------------------------ */

static void note_removed(void *user, const char *name, int64_t bytes, bool damaged) {
    fj_attn_json_append(user, json_pack("{s:s, s:I, s:b}", "file", name, "bytes", (json_int_t)bytes,
                                        "damaged", (int)damaged));
}

fj_status fj_cache_collect(fj_context *context, int64_t bytes, int64_t seconds, bool dry_run,
                           fj_text *ret_json, fj_error *error) {
    fj_status status = not_null(context, ret_json, error);
    if (status != FJ_OK) return status;
    json_t *removed = json_array();
    fj_cache_sweep sweep = {
        .limit = bytes >= 0 ? bytes : INT64_MAX,
        .keep_bytes = bytes >= 0 ? bytes : INT64_MAX,
        .keep_since = {.tv_sec = seconds >= 0 && seconds < time(NULL) ? time(NULL) - seconds : 0},
        .damaged = true,
        .dry_run = dry_run,
        .each = note_removed,
        .user = &removed,
    };
    status = fj_cache_sweep_layer(context->cache, &sweep, error);
    if (status != FJ_OK) {
        json_decref(removed);
        return status;
    }
    return fj_attn_json_take(json_pack("{s:i, s:I, s:I, s:o, s:I, s:I, s:b}", "schema", 1, "entries",
                                       (json_int_t)sweep.entries, "bytes", (json_int_t)sweep.bytes, "removed",
                                       removed, "removed_bytes", (json_int_t)sweep.removed_bytes,
                                       "temporaries", (json_int_t)sweep.temporaries, "dry_run", (int)dry_run),
                             ret_json, error);
}

/* ---- Carrying ------------------------------------------------------------------------------------- */

/* The wanted kernels, then the records that name one of them; returns how many kernels, and of both. */
static size_t choose(const fj_catalogue *all, const fj_cache_filter *filter, fj_cache_ref *refs,
                     size_t *ret_count) {
    size_t count = 0;
    for (size_t i = 0; i < all->count; i++)
        if (!all->rows[i].hidden && is_wanted(&all->rows[i], FJ_CACHE_KERNEL, filter))
            refs[count++] = all->rows[i].ref;
    size_t kernels = count;
    for (size_t i = 0; i < all->count; i++) {
        const fj_row *row = &all->rows[i];
        if (row->wrong || row->hidden || row->ref.kind != FJ_CACHE_SELECTION) continue;
        const fj_row *kernel = fj_attn_catalogue_kernel_of(all, row);
        if (kernel && is_wanted(kernel, FJ_CACHE_KERNEL, filter)) refs[count++] = row->ref;
    }
    *ret_count = count;
    return kernels;
}

static fj_status export(const fj_catalogue *all, const char *file, const fj_cache_filter *filter,
                        fj_text *ret_json, fj_error *error) {
    const fj_allocator *allocator = &all->context->allocator;
    size_t room = (all->count + 1) * sizeof(fj_cache_ref), count = 0;
    fj_cache_ref *refs = fj_alloc(allocator, room);
    if (!refs) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    size_t kernels = choose(all, filter, refs, &count);
    int64_t bytes = 0;
    fj_status status = kernels > 0 ? fj_cache_pack(all->context->cache, file, refs, count, &bytes, error)
                                   : fj_error_set(error, FJ_ERR_IO, "the cache has no such kernel");
    fj_free(allocator, refs, room);
    if (status != FJ_OK) return status;
    return fj_attn_json_take(json_pack("{s:i, s:I, s:I, s:I}", "schema", 1, "kernels", (json_int_t)kernels,
                                       "records", (json_int_t)(count - kernels), "bytes", (json_int_t)bytes),
                             ret_json, error);
}

fj_status fj_cache_export(fj_context *context, const char *file, const fj_cache_filter *filter,
                          fj_text *ret_json, fj_error *error) {
    fj_cache_filter want;
    fj_catalogue all = {0};
    fj_status status = not_null(context, ret_json, error);
    if (status == FJ_OK && !file) status = fj_error_set(error, FJ_ERR_ARGUMENT, "file is NULL");
    if (status == FJ_OK) status = read_filter(filter, &want, error);
    if (status == FJ_OK) status = fj_attn_catalogue_read(context, &all, error);
    if (status == FJ_OK) status = export(&all, file, &want, ret_json, error);
    fj_attn_catalogue_finish(&all);
    return status;
}

fj_status fj_cache_import(fj_context *context, const char *file, fj_text *ret_json, fj_error *error) {
    fj_cache_unpacked unpacked;
    fj_status status = not_null(context, ret_json, error);
    if (status == FJ_OK && !file) status = fj_error_set(error, FJ_ERR_ARGUMENT, "file is NULL");
    if (status == FJ_OK)
        status = fj_cache_unpack(context->cache, file, fj_jit_record_check, &unpacked, error);
    if (status != FJ_OK) return status;
    return fj_attn_json_take(json_pack("{s:i, s:I, s:I, s:I, s:I}", "schema", 1, "kernels",
                                       (json_int_t)unpacked.entries[FJ_CACHE_KERNEL], "records",
                                       (json_int_t)unpacked.entries[FJ_CACHE_SELECTION], "written",
                                       (json_int_t)unpacked.written, "bytes", (json_int_t)unpacked.bytes),
                             ret_json, error);
}
