/* The folders of the cache: which they are, and opening them safely. */
#include "cache/layer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* ---- Setting up ------------------------------------------------------------------------------ */

static int64_t parse_size(const char *text) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    int shift = *end == 'K' ? 10 : *end == 'M' ? 20 : *end == 'G' ? 30 : 0;
    if (shift) end++;
    bool sound = end != text && *end == '\0' && errno == 0 && value > 0 && value <= INT64_MAX >> shift;
    return sound ? (int64_t)value << shift : 0;
}

/* The user's folder is where the XDG base directory specification says. */
static int default_path(char *text, size_t size) {
    const char *base = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    if (base && base[0] == '/') return snprintf(text, size, "%s/flexjit", base);
    if (home && home[0] == '/') return snprintf(text, size, "%s/.cache/flexjit", home);
    return snprintf(text, size, "/tmp/flexjit-%lu", (unsigned long)geteuid());
}

static bool set_paths(fj_cache *cache, const char *list) {
    char standard[4096];
    if (!list) list = getenv("FLEXJIT_CACHE_PATH");
    if (!list || !*list) {
        int length = default_path(standard, sizeof standard);
        if (length < 0 || (size_t)length >= sizeof standard) standard[0] = '\0';
        list = standard;
    }
    cache->paths_size = strlen(list) + 2;
    cache->paths = fj_alloc_zeroed(cache->allocator, cache->paths_size);
    if (!cache->paths) return false;
    char *to = cache->paths;
    for (const char *from = list; *from;) {
        size_t length = strcspn(from, ":");
        if (length > 0) {
            memcpy(to, from, length);
            to += length + 1;
            cache->layers++;
        }
        from += length + (from[length] == ':');
    }
    return true;
}

fj_status fj_cache_create(const fj_cache_desc *desc, fj_cache **ret_cache) {
    fj_cache *cache = fj_alloc_zeroed(desc->allocator, sizeof *cache);
    if (!cache) return FJ_ERR_MEMORY;
    cache->allocator = desc->allocator;
    cache->ops = desc->ops ? desc->ops : &fj_file_ops_system;
    cache->log = desc->log;
    cache->log_user = desc->log_user;
    cache->limit = desc->limit;
    cache->bytes = -1;
    (void)clock_gettime(CLOCK_REALTIME, &cache->born);
    (void)pthread_mutex_init(&cache->lock, NULL);
    const char *size = getenv("FLEXJIT_CACHE_SIZE");
    if (cache->limit <= 0 && size && *size) {
        cache->limit = parse_size(size);
        if (cache->limit == 0)
            fj_cache_log(cache, FJ_LOG_WARN, "FLEXJIT_CACHE_SIZE is not a size: '%s'", size);
    }
    if (cache->limit <= 0) cache->limit = FJ_CACHE_LIMIT;
    if (!set_paths(cache, desc->path)) {
        fj_cache_destroy(&cache);
        return FJ_ERR_MEMORY;
    }
    *ret_cache = cache;
    return FJ_OK;
}

void fj_cache_destroy(fj_cache **cache) {
    if (!cache || !*cache) return;
    const fj_allocator *allocator = (*cache)->allocator;
    (void)pthread_mutex_destroy(&(*cache)->lock);
    fj_free(allocator, (*cache)->paths, (*cache)->paths_size);
    fj_free(allocator, *cache, sizeof **cache);
    *cache = NULL;
}

void fj_cache_log(const fj_cache *cache, fj_log_level level, const char *format, ...) {
    if (!cache->log) return;
    char message[1024];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(message, sizeof message, format, list);
    va_end(list);
    cache->log(cache->log_user, level, message);
}

size_t fj_cache_layer_count(const fj_cache *cache) { return cache->layers; }

int64_t fj_cache_limit(const fj_cache *cache) { return cache->limit; }

const char *fj_cache_layer_path(const fj_cache *cache, size_t index) {
    const char *path = cache->paths;
    while (index-- > 0) path += strlen(path) + 1;
    return path;
}

/* ---- Opening --------------------------------------------------------------------------------- */

/* Nobody but root and this user can have put it there. */
static bool is_trusted(const struct stat *status) {
    return (status->st_uid == geteuid() || status->st_uid == 0) &&
           (status->st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

int fj_cache_layer_open(fj_cache *cache, size_t index) {
    const fj_file_ops *ops = cache->ops;
    const char *path = fj_cache_layer_path(cache, index);
    const unsigned long long bit = 1ull << (index < 63 ? index : 63);
    int directory = ops->openat(AT_FDCWD, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (directory < 0) return -1;
    struct stat status;
    if (ops->fstat(directory, &status) == 0 && is_trusted(&status)) return directory;
    (void)ops->close(directory);
    bool again = (atomic_fetch_or(&cache->refused, bit) & bit) != 0;
    fj_cache_log(cache, again ? FJ_LOG_DEBUG : FJ_LOG_WARN,
                 "cache folder '%s' is not used: others own it or may write to it", path);
    errno = EPERM;
    return -1;
}

int fj_cache_layer_make(fj_cache *cache) {
    const char *path = fj_cache_layer_path(cache, 0);
    int directory = fj_cache_layer_open(cache, 0);
    if (directory >= 0 || errno != ENOENT) return directory;
    size_t size = strlen(path) + 1;
    char *part = fj_alloc(cache->allocator, size);
    if (!part) {
        errno = ENOMEM;
        return -1;
    }
    memcpy(part, path, size);
    for (char *at = part + 1;; at++) {
        if (*at != '/' && *at != '\0') continue;
        char separator = *at;
        *at = '\0';
        (void)cache->ops->mkdir(part, 0700); /* the opening below says what went wrong */
        *at = separator;
        if (separator == '\0') break;
    }
    fj_free(cache->allocator, part, size);
    return fj_cache_layer_open(cache, 0);
}

/* 0, or why a file is not used. */
static int judge(const struct stat *status) {
    if (S_ISLNK(status->st_mode)) return ELOOP;
    if (!S_ISREG(status->st_mode)) return EISDIR;
    return is_trusted(status) ? 0 : EPERM;
}

int fj_cache_file_look(const fj_cache *cache, int directory, const char *name, struct stat *ret_status) {
    if (cache->ops->stat(directory, name, ret_status) != 0) return -1;
    const int reason = judge(ret_status);
    if (reason == 0) return 0;
    errno = reason;
    return -1;
}

bool fj_cache_is_gone(int reason) { return reason == ENOENT || reason == ESTALE; }

int fj_cache_file_open(const fj_cache *cache, int directory, const char *name, struct stat *ret_status) {
    const fj_file_ops *ops = cache->ops;
    int file = ops->openat(directory, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC, 0);
    if (file < 0) return -1;
    int reason = ops->fstat(file, ret_status) != 0 ? errno : judge(ret_status);
    if (reason == 0) return file;
    (void)ops->close(file);
    errno = reason;
    return -1;
}

const char fj_cache_absent[] = "is not there", fj_cache_unreadable[] = "cannot be read",
           fj_cache_no_memory[] = "does not fit into memory";

const char *fj_cache_file_refusal(int reason) {
    switch (reason) {
    case ELOOP: return "is a link";
    case EISDIR: return "is not a regular file";
    case EPERM: return "is owned by others, or others may write to it";
    case EACCES: return "may not be read";
    default: return fj_cache_unreadable;
    }
}

/* ---- Names ----------------------------------------------------------------------------------- */

static const char *const suffixes[] = {[FJ_CACHE_SELECTION] = ".select", [FJ_CACHE_KERNEL] = ".kernel"};
_Static_assert(FJ_ARRAY_LEN(suffixes) == FJ_CACHE_KIND_COUNT, "a suffix for each kind");

void fj_cache_file_name(fj_cache_kind kind, fj_digest key, char name[FJ_CACHE_NAME]) {
    char hex[33];
    fj_cache_digest_hex(key, hex);
    (void)snprintf(name, FJ_CACHE_NAME, "%s%s", hex, suffixes[kind]);
}

bool fj_cache_name_parse(const char *name, fj_cache_kind *ret_kind, fj_digest *ret_key) {
    char hex[33];
    (void)snprintf(hex, sizeof hex, "%s", name);
    if (!fj_cache_digest_parse(hex, ret_key)) return false;
    for (int kind = 0; kind < FJ_CACHE_KIND_COUNT; kind++) {
        *ret_kind = (fj_cache_kind)kind;
        if (strcmp(name + 32, suffixes[kind]) == 0) return true;
    }
    return false;
}

bool fj_cache_is_temporary_name(const char *name) { return strncmp(name, ".new-", 5) == 0; }

/* ---- Looking --------------------------------------------------------------------------------- */

struct look {
    const fj_cache *cache;
    int directory;
    fj_cache_layer_info *info;
};

static void look_at(void *user, const char *name) {
    const struct look *look = user;
    struct stat status;
    fj_cache_kind kind;
    fj_digest key;
    if (!fj_cache_name_parse(name, &kind, &key)) return;
    int file = fj_cache_file_open(look->cache, look->directory, name, &status);
    if (file < 0) return;
    (void)look->cache->ops->close(file);
    look->info->entries++;
    look->info->bytes += status.st_size;
}

fj_cache_layer_info fj_cache_layer(fj_cache *cache, size_t index) {
    fj_cache_layer_info info = {.path = fj_cache_layer_path(cache, index)};
    int directory = fj_cache_layer_open(cache, index);
    if (directory < 0) {
        info.exists = errno != ENOENT;
        return info;
    }
    info.exists = true;
    info.readable = cache->ops->list(directory, look_at, &(struct look){cache, directory, &info}) == 0;
    info.writable = index == 0 && faccessat(directory, ".", W_OK, AT_EACCESS) == 0;
    (void)cache->ops->close(directory);
    return info;
}
