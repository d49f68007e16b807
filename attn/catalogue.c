/* Reading the kernel cache into memory. */
#include "attn/catalogue.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/records.h"

/* ---- Reading ----------------------------------------------------------------------------------- */

static bool add(void *user, const fj_cache_found *found) {
    fj_catalogue *all = user;
    if (all->count == all->capacity) {
        const fj_allocator *allocator = &all->context->allocator;
        size_t capacity = all->capacity ? all->capacity * 2 : 64;
        fj_row *rows = allocator->resize(allocator->user, all->rows, all->capacity * sizeof *rows,
                                         capacity * sizeof *rows);
        all->failed = !rows;
        if (!rows) return false;
        all->rows = rows;
        all->capacity = capacity;
    }
    fj_row *row = &all->rows[all->count++];
    *row = (fj_row){
        .ref = {found->layer, found->kind, found->key},
        .bytes = found->bytes,
        .payload_bytes = (int64_t)found->payload.len,
        .used = found->used,
        .wrong = found->wrong,
    };
    if (row->wrong) return true;
    row->payload = fj_cache_digest(found->payload.data, found->payload.len);
    row->metadata = fj_jit_record_parse(found->kind, found->key, found->metadata, &row->wrong);
    return true;
}

/* By key and kind; of the same ones the first layer's first. */
static int by_key(const void *a, const void *b) {
    const fj_row *x = *(fj_row *const *)a, *y = *(fj_row *const *)b;
    int order = memcmp(&x->ref.key, &y->ref.key, sizeof x->ref.key);
    if (order == 0) order = (x->ref.kind > y->ref.kind) - (x->ref.kind < y->ref.kind);
    return order != 0 ? order : (x->ref.layer > y->ref.layer) - (x->ref.layer < y->ref.layer);
}

static bool same_key(const fj_row *a, const fj_row *b) {
    return a->ref.kind == b->ref.kind && fj_cache_digest_equal(a->ref.key, b->ref.key);
}

static fj_status put_in_order(fj_catalogue *all) {
    const fj_allocator *allocator = &all->context->allocator;
    if (all->count == 0) return FJ_OK;
    all->order = fj_alloc(allocator, all->count * sizeof(fj_row *));
    if (!all->order) return FJ_ERR_MEMORY;
    for (size_t i = 0; i < all->count; i++) all->order[i] = &all->rows[i];
    qsort(all->order, all->count, sizeof(fj_row *), by_key);
    const fj_row *winner = NULL;
    for (size_t i = 0; i < all->count; i++) {
        fj_row *row = all->order[i];
        if (row->wrong) continue;
        row->hidden = winner && same_key(winner, row);
        if (!row->hidden) winner = row;
    }
    return FJ_OK;
}

fj_status fj_attn_catalogue_read(fj_context *context, fj_catalogue *ret_catalogue, fj_error *error) {
    fj_catalogue *all = ret_catalogue;
    *all = (fj_catalogue){.context = context};
    fj_status status = FJ_OK;
    for (size_t i = 0; status == FJ_OK && i < fj_cache_layer_count(context->cache); i++) {
        status = fj_cache_walk(context->cache, i, add, all);
        int reason = errno;
        if (all->failed) status = FJ_ERR_MEMORY;
        if (status != FJ_ERR_IO) continue;
        status = FJ_OK;
        all->sick_layers += reason != ENOENT;
    }
    if (status == FJ_OK) status = put_in_order(all);
    return status == FJ_OK ? FJ_OK : fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
}

void fj_attn_catalogue_finish(fj_catalogue *catalogue) {
    for (size_t i = 0; i < catalogue->count; i++) json_decref(catalogue->rows[i].metadata);
    if (catalogue->context) {
        const fj_allocator *allocator = &catalogue->context->allocator;
        fj_free(allocator, catalogue->order, catalogue->count * sizeof(fj_row *));
        fj_free(allocator, catalogue->rows, catalogue->capacity * sizeof *catalogue->rows);
    }
    *catalogue = (fj_catalogue){0};
}

/* ---- Finding ------------------------------------------------------------------------------------- */

const fj_row *fj_attn_catalogue_find(const fj_catalogue *catalogue, fj_cache_kind kind, fj_digest key) {
    fj_row wanted = {.ref = {.kind = kind, .key = key}};
    const fj_row *pointer = &wanted;
    size_t low = 0, high = catalogue->count;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (by_key(&catalogue->order[middle], &pointer) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < catalogue->count && same_key(catalogue->order[low], &wanted); low++)
        if (!catalogue->order[low]->wrong) return catalogue->order[low];
    return NULL;
}

static bool names(const fj_row *record, fj_digest *ret_kernel) {
    const char *text = json_string_value(json_object_get(record->metadata, "content"));
    return text && fj_cache_digest_parse(text, ret_kernel);
}

const fj_row *fj_attn_catalogue_kernel_of(const fj_catalogue *catalogue, const fj_row *record) {
    fj_digest kernel;
    return names(record, &kernel) ? fj_attn_catalogue_find(catalogue, FJ_CACHE_KERNEL, kernel) : NULL;
}

const fj_row *fj_attn_catalogue_record_of(const fj_catalogue *catalogue, const fj_row *kernel) {
    fj_digest named;
    for (size_t i = 0; i < catalogue->count; i++) {
        const fj_row *row = &catalogue->rows[i];
        if (row->wrong || row->hidden || row->ref.kind != FJ_CACHE_SELECTION) continue;
        if (names(row, &named) && fj_cache_digest_equal(named, kernel->ref.key)) return row;
    }
    return NULL;
}

const char *fj_attn_row_variant(const fj_row *row) {
    const char *variant = json_string_value(json_object_get(row->metadata, "variant"));
    return variant ? variant : "";
}

/* After a star the last one is all that can be taken back: no pattern takes more than the product of both lengths. */
bool fj_attn_matches(const char *pattern, const char *text) {
    const char *star = NULL, *resume = NULL;
    while (*text != '\0') {
        if (*pattern == '*') {
            star = pattern++;
            resume = text;
        } else if (*pattern == '?' || *pattern == *text) {
            pattern++;
            text++;
        } else if (star) {
            pattern = star + 1;
            text = ++resume;
        } else {
            return false;
        }
    }
    return pattern[strspn(pattern, "*")] == '\0';
}

bool fj_attn_row_matches(const fj_row *row, const fj_cache_filter *filter) {
    if (filter->variant && !fj_attn_matches(filter->variant, fj_attn_row_variant(row))) return false;
    return !filter->arch || strcmp(filter->arch, fj_jit_record_arch(row->metadata)) == 0;
}

/* ---- JSON ------------------------------------------------------------------------------------------ */

void fj_attn_json_append(json_t **list, json_t *item) {
    if (json_array_append_new(*list, item) == 0) return;
    json_decref(*list);
    *list = NULL;
}

fj_status fj_attn_json_take(json_t *object, fj_text *ret_json, fj_error *error) {
    char *text = object ? json_dumps(object, JSON_INDENT(2)) : NULL;
    json_decref(object);
    if (!text) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    *ret_json = (fj_text){text, strlen(text)};
    return FJ_OK;
}

json_t *fj_attn_json_digest(fj_digest digest) {
    char text[33];
    fj_cache_digest_hex(digest, text);
    return json_string(text);
}

json_t *fj_attn_json_text(const char *text) {
    json_t *string = json_string(text);
    if (string) return string;
    char *copy = strdup(text);
    for (char *at = copy; at && *at != '\0'; at++)
        if ((unsigned char)*at >= 0x80) *at = '?';
    string = copy ? json_string(copy) : NULL;
    free(copy);
    return string;
}

json_t *fj_attn_row_file(const fj_catalogue *catalogue, const fj_row *row) {
    char name[FJ_CACHE_NAME], path[4096];
    fj_cache_file_name(row->ref.kind, row->ref.key, name);
    (void)snprintf(path, sizeof path, "%s/%s", fj_cache_layer_path(catalogue->context->cache, row->ref.layer),
                   name);
    return fj_attn_json_text(path);
}
