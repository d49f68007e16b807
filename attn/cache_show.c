/* One entry of the kernel cache as text, and two of them compared. */
#include <string.h>

#include "attn/catalogue.h"
#include "jit/records.h"

static const char *const kind_names[] = {[FJ_CACHE_SELECTION] = "request", [FJ_CACHE_KERNEL] = "kernel"};
_Static_assert(FJ_ARRAY_LEN(kind_names) == FJ_CACHE_KIND_COUNT, "a name for each");

/* ---- By name ------------------------------------------------------------------------------------- */

static bool is_called(const fj_row *row, const char *name) {
    char hex[33];
    fj_cache_digest_hex(row->ref.key, hex);
    if (*name != '\0' && strncmp(hex, name, strlen(name)) == 0) return true;
    return row->ref.kind == FJ_CACHE_KERNEL && strcmp(fj_attn_row_variant(row), name) == 0;
}

static void list_candidate(const fj_catalogue *all, const fj_row *row, fj_buf *list) {
    char hex[33];
    fj_cache_digest_hex(row->ref.key, hex);
    fj_buf_printf(list, "  %s  %-7s  %.63s  %.31s  in %s\n", hex, kind_names[row->ref.kind],
                  fj_attn_row_variant(row), fj_jit_record_arch(row->metadata),
                  fj_cache_layer_path(all->context->cache, row->ref.layer));
}

static fj_status several(const fj_catalogue *all, const char *name, const fj_cache_filter *filter,
                         size_t count, fj_error *error) {
    fj_buf list;
    fj_buf_init(&list, &all->context->allocator);
    for (size_t i = 0; i < all->count; i++) {
        const fj_row *row = &all->rows[i];
        if (!row->wrong && !row->hidden && is_called(row, name) && fj_attn_row_matches(row, filter))
            list_candidate(all, row, &list);
    }
    fj_status status =
        fj_error_set(error, FJ_ERR_ARGUMENT, "'%.100s' is ambiguous: %zu entries are so called", name, count);
    if (!list.failed && list.len > 0) fj_error_detail(error, list.data, list.len);
    fj_buf_finish(&list);
    return status;
}

static fj_status find(const fj_catalogue *all, const char *name, const fj_cache_filter *filter,
                      const fj_row **ret_row, fj_error *error) {
    const fj_row *found = NULL, *damaged = NULL;
    size_t count = 0;
    for (size_t i = 0; i < all->count; i++) {
        const fj_row *row = &all->rows[i];
        if (row->hidden || !is_called(row, name)) continue;
        if (row->wrong) damaged = row;
        if (row->wrong || !fj_attn_row_matches(row, filter)) continue;
        found = row;
        count++;
    }
    if (count == 1) *ret_row = found;
    if (count > 1) return several(all, name, filter, count, error);
    if (count == 1) return FJ_OK;
    if (damaged)
        return fj_error_set(error, FJ_ERR_IO, "the entry '%.100s' in '%.300s' %s", name,
                            fj_cache_layer_path(all->context->cache, damaged->ref.layer), damaged->wrong);
    return fj_error_set(error, FJ_ERR_IO, "the cache has no entry '%.100s'", name);
}

/* ---- In clear -------------------------------------------------------------------------------------- */

/* An entry and what belongs to it: the record of a kernel, the kernel of a record. */
typedef struct pair {
    const fj_row *row, *record, *kernel;
} pair;

static pair pair_of(const fj_catalogue *all, const fj_row *row) {
    bool kernel = row->ref.kind == FJ_CACHE_KERNEL;
    return (pair){row, kernel ? fj_attn_catalogue_record_of(all, row) : row,
                  kernel ? row : fj_attn_catalogue_kernel_of(all, row)};
}

static json_t *parts_of(const pair *p) {
    return fj_jit_record_parts(p->record ? p->record->metadata : NULL,
                               p->kernel ? p->kernel->metadata : NULL);
}

static json_t *describe(const fj_catalogue *all, const pair *p) {
    const fj_row *row = p->row, *other = row == p->kernel ? p->record : p->kernel;
    return json_pack(
        "{s:i, s:o, s:s, s:s, s:s, s:o, s:I, s:I, s:I, s:I, s:o, s:o?, s:o, s:O}", "schema", 1, "key",
        fj_attn_json_digest(row->ref.key), "kind", kind_names[row->ref.kind], "variant",
        fj_attn_row_variant(row), "arch", fj_jit_record_arch(row->metadata), "file",
        fj_attn_row_file(all, row), "layer", (json_int_t)row->ref.layer, "bytes", (json_int_t)row->bytes,
        "payload_bytes", (json_int_t)row->payload_bytes, "used", (json_int_t)row->used, "payload_digest",
        fj_attn_json_digest(row->payload), row == p->kernel ? "request" : "kernel",
        other ? fj_attn_json_digest(other->ref.key) : NULL, "parts", parts_of(p), "metadata", row->metadata);
}

fj_status fj_cache_show(fj_context *context, const char *name, const fj_cache_filter *filter,
                        fj_text *ret_json, fj_error *error) {
    if (!context || !name || !ret_json)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "context, name or ret_json is NULL");
    fj_cache_filter want = {.struct_size = sizeof want};
    fj_status status =
        filter ? fj_attn_read_desc(&want, sizeof want, filter, "fj_cache_filter", error) : FJ_OK;
    if (status != FJ_OK) return status;
    fj_catalogue all;
    const fj_row *row = NULL;
    status = fj_attn_catalogue_read(context, &all, error);
    if (status == FJ_OK) status = find(&all, name, &want, &row, error);
    if (row) {
        pair p = pair_of(&all, row);
        status = fj_attn_json_take(describe(&all, &p), ret_json, error);
    }
    fj_attn_catalogue_finish(&all);
    return status;
}

/* ---- Compared --------------------------------------------------------------------------------------- */

static bool add_part(json_t *list, const char *name, json_t *a, json_t *b, fj_buf *differing,
                     bool *request_differs) {
    bool same = a && b && json_equal(a, b);
    if (!same) {
        fj_buf_printf(differing, "%s%s", differing->len > 0 ? ", " : "", name);
        *request_differs |= fj_jit_record_is_request_part(name);
    }
    return json_array_append_new(list, json_pack("{s:s, s:b, s:O?, s:O?}", "part", name, "same", (int)same,
                                                 "a", a, "b", b)) == 0;
}

/* The names of both, those of a first. */
static bool compare(json_t *a, json_t *b, json_t *list, fj_buf *differing, bool *request_differs) {
    const char *name;
    json_t *value;
    bool added = true;
    json_object_foreach(a, name, value) added &=
        add_part(list, name, value, json_object_get(b, name), differing, request_differs);
    json_object_foreach(b, name, value) if (!json_object_get(a, name)) added &=
        add_part(list, name, NULL, value, differing, request_differs);
    return added;
}

/* The source's digest covers the text and the options: alone it says that the text was made differently. */
static void put_why(const pair *a, const pair *b, const fj_buf *differing, bool request_differs,
                    fj_buf *why) {
    const char *names = differing->len > 0 ? differing->data : "";
    if (a->row == b->row)
        fj_buf_put(why, "it is one entry");
    else if (a->row->ref.kind != b->row->ref.kind)
        fj_buf_put(why, "one is a kernel, keyed by its text, options and compiler; the other is a request, "
                        "keyed by what was asked for");
    else if (differing->len == 0)
        fj_buf_put(why, "no part of what is known differs");
    else if (strcmp(names, "source") == 0 && !request_differs)
        fj_buf_put(why, "the same kernel was asked for, but its text was another: flexjit's templates or "
                        "emitters changed, or FLEXJIT_TEMPLATE_PATH names others");
    else
        fj_buf_printf(why, "they differ in %s", names);
}

static json_t *explain(const fj_catalogue *all, const pair *a, const pair *b) {
    json_t *a_parts = parts_of(a), *b_parts = parts_of(b), *list = json_array();
    bool request_differs = false;
    fj_buf differing, why;
    fj_buf_init(&differing, &all->context->allocator);
    fj_buf_init(&why, &all->context->allocator);
    bool made = a_parts && b_parts && list && compare(a_parts, b_parts, list, &differing, &request_differs);
    if (made) put_why(a, b, &differing, request_differs, &why);
    json_t *report = NULL;
    if (made && !differing.failed && !why.failed)
        report = json_pack("{s:i, s:o, s:o, s:s, s:O}", "schema", 1, "a", describe(all, a), "b",
                           describe(all, b), "why", why.data, "parts", list);
    fj_buf_finish(&differing);
    fj_buf_finish(&why);
    json_decref(a_parts);
    json_decref(b_parts);
    json_decref(list);
    return report;
}

fj_status fj_cache_explain(fj_context *context, const char *a, const char *b, fj_text *ret_json,
                           fj_error *error) {
    if (!context || !a || !b || !ret_json)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "context, a, b or ret_json is NULL");
    const fj_cache_filter any = {.struct_size = sizeof any};
    fj_catalogue all;
    const fj_row *one = NULL, *two = NULL;
    fj_status status = fj_attn_catalogue_read(context, &all, error);
    if (status == FJ_OK) status = find(&all, a, &any, &one, error);
    if (status == FJ_OK) status = find(&all, b, &any, &two, error);
    if (one && two) {
        pair first = pair_of(&all, one), second = pair_of(&all, two);
        status = fj_attn_json_take(explain(&all, &first, &second), ret_json, error);
    }
    fj_attn_catalogue_finish(&all);
    return status;
}
