/* Reading all of a layer. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cache/layer.h"

typedef struct names {
    const fj_allocator *allocator;
    char (*data)[FJ_CACHE_NAME];
    size_t len, cap;
    bool failed;
} names;

static void collect(void *user, const char *name) {
    names *all = user;
    fj_cache_kind kind;
    fj_digest key;
    if (!fj_cache_name_parse(name, &kind, &key)) return;
    if (all->len == all->cap) {
        size_t cap = all->cap ? all->cap * 2 : 64;
        void *data = all->allocator->resize(all->allocator->user, all->data, all->cap * sizeof *all->data,
                                            cap * sizeof *all->data);
        all->failed |= !data;
        if (!data) return;
        all->data = data;
        all->cap = cap;
    }
    (void)snprintf(all->data[all->len++], FJ_CACHE_NAME, "%s", name);
}

static int by_name(const void *a, const void *b) { return strcmp(a, b); }

static fj_status visit(fj_cache *cache, int directory, fj_cache_found *found, bool *going,
                       bool (*each)(void *user, const fj_cache_found *found), void *user) {
    struct stat status = {0};
    fj_cache_entry entry = {0};
    if (!fj_cache_name_parse(found->name, &found->kind, &found->key)) return FJ_OK;
    found->wrong = fj_cache_read(cache, directory, found->kind, found->key, false, &status, &entry);
    if (found->wrong == fj_cache_no_memory) return FJ_ERR_MEMORY;
    if (found->wrong == fj_cache_absent) return FJ_OK; /* gone since the layer was listed */
    found->bytes = (int64_t)status.st_size;
    found->used = (int64_t)status.st_mtim.tv_sec;
    found->metadata = entry.metadata;
    found->payload = entry.payload;
    *going = each(user, found);
    fj_cache_entry_finish(cache, &entry);
    return FJ_OK;
}

fj_status fj_cache_walk(fj_cache *cache, size_t layer, bool (*each)(void *user, const fj_cache_found *found),
                        void *user) {
    int directory = fj_cache_layer_open(cache, layer);
    if (directory < 0) return FJ_ERR_IO;
    names all = {.allocator = cache->allocator};
    fj_status status = cache->ops->list(directory, collect, &all) == 0 ? FJ_OK : FJ_ERR_IO;
    int reason = errno;
    if (status == FJ_OK && all.failed) status = FJ_ERR_MEMORY;
    if (status == FJ_OK && all.len > 0) qsort(all.data, all.len, sizeof *all.data, by_name);
    bool going = true;
    for (size_t i = 0; status == FJ_OK && going && i < all.len; i++) {
        fj_cache_found found = {.layer = layer, .name = all.data[i]};
        status = visit(cache, directory, &found, &going, each, user);
    }
    if (all.data) fj_free(cache->allocator, all.data, all.cap * sizeof *all.data);
    (void)cache->ops->close(directory);
    errno = reason;
    return status;
}
