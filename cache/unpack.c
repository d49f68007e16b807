/* Reading an archive, twice: to verify all of it, then to put its entries into the first layer. What the
 * second reading finds is verified again, as the file may have changed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "cache/archive.h"
#include "cache/layer.h"

typedef struct reader {
    fj_cache *cache;
    fj_cache_check *check;
    const char *path;
    int file;
    uint64_t at, size; /* of the file; `at` is where the next byte comes from */
    uint64_t block_at; /* where the member that is being read begins */
    bool writing;
    fj_cache_unpacked *unpacked;
    fj_error *error;
} reader;

/* A member's header, or the end of the archive. */
typedef struct next_member {
    bool end;
    fj_archive_member member;
} next_member;

/* ---- Errors ------------------------------------------------------------------------------------ */

static fj_status wrong(const reader *r, const char *format, ...) FJ_PRINTF(2, 3);
static fj_status wrong(const reader *r, const char *format, ...) {
    char text[400];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    (void)fj_error_set(r->error, FJ_ERR_IO, "at byte %llu: %s", (unsigned long long)r->block_at, text);
    if (r->error) (void)snprintf(r->error->file, sizeof r->error->file, "%s", r->path);
    return FJ_ERR_IO;
}

static fj_status cannot_read(const reader *r, const char *reason) {
    (void)fj_error_set(r->error, FJ_ERR_IO, "cannot be read: %s", reason);
    if (r->error) (void)snprintf(r->error->file, sizeof r->error->file, "%s", r->path);
    return FJ_ERR_IO;
}

static fj_status no_memory(const reader *r) { return fj_error_set(r->error, FJ_ERR_MEMORY, "out of memory"); }

/* ---- Bytes ------------------------------------------------------------------------------------- */

static fj_status take(reader *r, void *bytes, uint64_t size) {
    if (size > r->size - r->at) return wrong(r, "the archive is cut short");
    errno = 0;
    if (!fj_cache_read_all(r->cache->ops, r->file, bytes, (size_t)size))
        return cannot_read(r, errno != 0 ? strerror(errno) : "it became shorter");
    r->at += size;
    return FJ_OK;
}

static bool is_zero(const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != 0) return false;
    return true;
}

static fj_status take_padding(reader *r, uint64_t size) {
    uint8_t block[FJ_ARCHIVE_BLOCK] = {0};
    return take(r, block, fj_cache_archive_padding(size));
}

/* Nothing but zeros, and a block of them at least, comes after the first block of zeros. */
static fj_status take_end(reader *r) {
    uint8_t block[FJ_ARCHIVE_BLOCK] = {0};
    if (r->size - r->at < sizeof block) return wrong(r, "the archive is cut short");
    while (r->at < r->size) {
        uint64_t size = r->size - r->at < sizeof block ? r->size - r->at : sizeof block;
        r->block_at = r->at;
        fj_status status = take(r, block, size);
        if (status != FJ_OK) return status;
        if (!is_zero(block, (size_t)size)) return wrong(r, "something comes after the archive's end");
    }
    return FJ_OK;
}

static fj_status take_header(reader *r, next_member *ret_next) {
    uint8_t block[FJ_ARCHIVE_BLOCK] = {0};
    r->block_at = r->at;
    fj_status status = take(r, block, sizeof block);
    if (status != FJ_OK) return status;
    ret_next->end = is_zero(block, sizeof block);
    if (ret_next->end) return take_end(r);
    const char *said = fj_cache_archive_parse(block, &ret_next->member);
    if (said) return wrong(r, "member '%s' %s", ret_next->member.name, said);
    if (ret_next->member.size > r->size - r->at) return wrong(r, "the archive is cut short");
    return FJ_OK;
}

/* ---- Entries ------------------------------------------------------------------------------------- */

static bool belongs(const next_member *next, const fj_archive_member *first, fj_archive_part part) {
    return !next->end && next->member.part == part && next->member.kind == first->kind &&
           fj_cache_digest_equal(next->member.key, first->key);
}

/* The file of an entry, put together again. */
typedef struct whole {
    uint8_t *bytes;
    size_t size, capacity;
} whole;

static fj_status add_part(reader *r, const fj_archive_member *member, whole *file) {
    size_t size = file->size + (size_t)member->size;
    if (size > FJ_CACHE_LARGEST) return wrong(r, "member '%s' is too large", member->name);
    if (size > file->capacity) {
        const fj_allocator *allocator = r->cache->allocator;
        uint8_t *bytes = allocator->resize(allocator->user, file->bytes, file->capacity, size);
        if (!bytes) return no_memory(r);
        file->bytes = bytes;
        file->capacity = size;
    }
    fj_status status = take(r, file->bytes + file->size, member->size);
    if (status == FJ_OK) status = take_padding(r, member->size);
    file->size = size;
    return status;
}

static bool is_there(fj_cache *cache, const fj_archive_member *first, const whole *file) {
    struct stat status;
    fj_cache_entry entry;
    int directory = fj_cache_layer_open(cache, 0);
    if (directory < 0) return false;
    bool same = !fj_cache_read(cache, directory, first->kind, first->key, false, &status, &entry);
    if (same) {
        same = entry.block_size == file->size && memcmp(entry.block, file->bytes, file->size) == 0;
        fj_cache_entry_finish(cache, &entry);
    }
    (void)cache->ops->close(directory);
    return same;
}

static fj_status enter(reader *r, const fj_archive_member *first, const whole *file) {
    fj_str metadata, payload;
    const char *said = fj_cache_decode(file->bytes, file->size, first->kind, first->key, &metadata, &payload);
    if (!said) said = r->check(first->kind, first->key, metadata);
    if (said) return wrong(r, "the entry of member '%s' %s", first->name, said);
    r->unpacked->bytes += (int64_t)file->size;
    r->unpacked->entries[first->kind]++;
    if (!r->writing || is_there(r->cache, first, file)) return FJ_OK;
    if (!fj_cache_put(r->cache, first->kind, first->key, metadata, payload)) {
        char name[FJ_CACHE_NAME];
        fj_cache_file_name(first->kind, first->key, name);
        return fj_error_set(r->error, FJ_ERR_IO, "'%.300s/%s' cannot be written",
                            fj_cache_layer_path(r->cache, 0), name);
    }
    r->unpacked->written++;
    return FJ_OK;
}

/* One entry: the members from *next on; then *next is the one after them. */
static fj_status take_entry(reader *r, next_member *next) {
    const fj_archive_member first = next->member;
    const uint64_t first_at = r->block_at;
    whole file = {0};
    if (first.part != FJ_ARCHIVE_HEADER) return wrong(r, "member '%s' comes without its header", first.name);
    fj_status status = add_part(r, &first, &file);
    if (status == FJ_OK) status = take_header(r, next);
    for (int part = FJ_ARCHIVE_METADATA; status == FJ_OK && part < FJ_ARCHIVE_PARTS; part++) {
        if (!belongs(next, &first, (fj_archive_part)part)) continue;
        status = add_part(r, &next->member, &file);
        if (status == FJ_OK) status = take_header(r, next);
    }
    if (status == FJ_OK) {
        uint64_t next_at = r->block_at;
        r->block_at = first_at;
        status = enter(r, &first, &file);
        r->block_at = next_at;
    }
    if (file.bytes) fj_free(r->cache->allocator, file.bytes, file.capacity);
    return status;
}

static fj_status take_all(reader *r) {
    next_member next;
    fj_status status = take_header(r, &next);
    while (status == FJ_OK && !next.end) status = take_entry(r, &next);
    return status;
}

/* ---- The archive ----------------------------------------------------------------------------------- */

static fj_status open_archive(reader *r) {
    const fj_file_ops *ops = r->cache->ops;
    struct stat status;
    r->at = r->block_at = 0;
    r->file = ops->openat(AT_FDCWD, r->path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
    if (r->file < 0) return cannot_read(r, strerror(errno));
    if (ops->fstat(r->file, &status) == 0 && S_ISREG(status.st_mode)) {
        r->size = (uint64_t)status.st_size;
        return FJ_OK;
    }
    (void)ops->close(r->file);
    return cannot_read(r, "it is not a regular file");
}

static fj_status read_once(reader *r, bool writing, fj_cache_unpacked *unpacked) {
    *unpacked = (fj_cache_unpacked){0};
    r->writing = writing;
    r->unpacked = unpacked;
    fj_status status = open_archive(r);
    if (status != FJ_OK) return status;
    status = take_all(r);
    (void)r->cache->ops->close(r->file);
    return status;
}

fj_status fj_cache_unpack(fj_cache *cache, const char *path, fj_cache_check *check,
                          fj_cache_unpacked *ret_unpacked, fj_error *error) {
    reader r = {.cache = cache, .check = check, .path = path, .error = error};
    fj_cache_unpacked unpacked;
    fj_status status = read_once(&r, false, &unpacked);
    if (status == FJ_OK && unpacked.bytes > cache->limit) {
        r.block_at = 0;
        status = wrong(&r,
                       "entries of %lld bytes in all are more than the cache's limit of %lld "
                       "(FLEXJIT_CACHE_SIZE)",
                       (long long)unpacked.bytes, (long long)cache->limit);
    }
    if (status == FJ_OK) status = read_once(&r, true, &unpacked);
    if (status == FJ_OK) *ret_unpacked = unpacked;
    return status;
}
