/* Allocators and file operations of which the N-th call fails, and folders that go with the test. */
#ifndef FJ_TESTS_SUPPORT_FAILING_H
#define FJ_TESTS_SUPPORT_FAILING_H

#include <dirent.h>
#include <errno.h>
#include <ftw.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/base.h"
#include "cache/files.h"

/* ---- Allocations ----------------------------------------------------------------------------- */

/* countdown < 0: never fails. live: blocks that were not given back. */
typedef struct failing_allocator {
    atomic_long countdown;
    atomic_long live;
} failing_allocator;

static inline void *failing_resize(void *user, void *pointer, size_t old_size, size_t new_size) {
    failing_allocator *self = user;
    (void)old_size;
    if (new_size == 0) {
        if (pointer) self->live--;
        free(pointer);
        return NULL;
    }
    if (self->countdown >= 0 && self->countdown-- == 0) {
        self->countdown = -1;
        return NULL;
    }
    if (!pointer) self->live++;
    return realloc(pointer, new_size);
}

/* ---- Files ----------------------------------------------------------------------------------- */

/* One for the process: the table's functions have no user pointer. */
static atomic_long failing_files_countdown = -1;
static int failing_files_reason = EIO;

static inline bool failing_now(void) {
    if (failing_files_countdown < 0 || failing_files_countdown-- != 0) return false;
    failing_files_countdown = -1;
    errno = failing_files_reason;
    return true;
}

#define FAILING(result, name, parameters, arguments)                           \
    static inline result failing_##name parameters {                           \
        return failing_now() ? (result)-1 : fj_file_ops_system.name arguments; \
    }
FAILING(int, openat, (int d, const char *p, int f, mode_t m), (d, p, f, m))
FAILING(ssize_t, read, (int d, void *b, size_t n), (d, b, n))
FAILING(ssize_t, write, (int d, const void *b, size_t n), (d, b, n))
FAILING(int, fsync, (int d), (d))
FAILING(int, fstat, (int d, struct stat *s), (d, s))
FAILING(int, stat, (int d, const char *p, struct stat *s), (d, p, s))
FAILING(int, touch, (int d), (d))
FAILING(int, rename, (int d, const char *a, const char *b), (d, a, b))
FAILING(int, unlink, (int d, const char *p, bool f), (d, p, f))
FAILING(int, mkdir, (const char *p, mode_t m), (p, m))
FAILING(int, list, (int d, void (*e)(void *, const char *), void *u), (d, e, u))
#undef FAILING

/* A failing close has closed. */
static inline int failing_close(int descriptor) {
    int result = fj_file_ops_system.close(descriptor);
    return failing_now() ? -1 : result;
}

static inline char *failing_mkdtemp(char *pattern) {
    return failing_now() ? NULL : fj_file_ops_system.mkdtemp(pattern);
}

static const fj_file_ops failing_files = {
    .openat = failing_openat,
    .read = failing_read,
    .write = failing_write,
    .fsync = failing_fsync,
    .close = failing_close,
    .fstat = failing_fstat,
    .stat = failing_stat,
    .touch = failing_touch,
    .rename = failing_rename,
    .unlink = failing_unlink,
    .mkdir = failing_mkdir,
    .mkdtemp = failing_mkdtemp,
    .list = failing_list,
};

/* ---- Folders --------------------------------------------------------------------------------- */

static inline void folder_create(char path[64]) {
    strcpy(path, "/tmp/fj-test-XXXXXX");
    if (!mkdtemp(path)) abort();
}

static inline int folder_remove_one(const char *path, const struct stat *status, int kind,
                                    struct FTW *place) {
    (void)status, (void)kind, (void)place;
    return remove(path);
}

static inline void folder_remove(const char *path) {
    (void)nftw(path, folder_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

/* How many entries have this in their name. */
static inline int folder_count(const char *path, const char *part) {
    DIR *stream = opendir(path);
    int count = 0;
    if (!stream) return -1;
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
        count += entry->d_name[0] != '\0' && strcmp(entry->d_name, ".") != 0 &&
                 strcmp(entry->d_name, "..") != 0 && strstr(entry->d_name, part) != NULL;
    (void)closedir(stream);
    return count;
}

static inline void file_write(const char *folder, const char *name, const void *bytes, size_t size,
                              int mode) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    if (!file || fwrite(bytes, 1, size, file) != size || fclose(file) != 0 || chmod(path, (mode_t)mode) != 0)
        abort();
}

static inline void *file_read(const char *folder, const char *name, size_t *ret_size) {
    char path[512];
    (void)snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "rb");
    if (!file || fseek(file, 0, SEEK_END) != 0) abort();
    *ret_size = (size_t)ftell(file);
    rewind(file);
    void *bytes = malloc(*ret_size + 1);
    if (!bytes || fread(bytes, 1, *ret_size, file) != *ret_size || fclose(file) != 0) abort();
    return bytes;
}

#endif
