/* Files of a model, mapped for reading. */
#include "fuse/files.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

fj_status fj_file_map(const char *path, fj_mapping *ret, fj_error *error) {
    struct stat status;
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0) return fj_error_set(error, FJ_ERR_IO, "cannot open '%.200s': %s", path, strerror(errno));
    if (fstat(file, &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) {
        (void)close(file);
        return fj_error_set(error, FJ_ERR_IO, "'%.200s' is empty or not a file", path);
    }
    void *bytes = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    const int reason = errno;
    (void)close(file);
    if (bytes == MAP_FAILED)
        return fj_error_set(error, FJ_ERR_IO, "cannot map '%.200s': %s", path, strerror(reason));
    *ret = (fj_mapping){bytes, (size_t)status.st_size};
    return FJ_OK;
}

void fj_file_unmap(fj_mapping *mapping) {
    if (mapping->bytes != NULL) (void)munmap(mapping->bytes, mapping->size);
    *mapping = (fj_mapping){0};
}

bool fj_file_leaves_folder(const char *name) {
    if (name[0] == '\0' || name[0] == '/' || strchr(name, '\\') != NULL) return true;
    for (const char *at = name; *at != '\0';) {
        const size_t part = strcspn(at, "/");
        if (part == 2 && at[0] == '.' && at[1] == '.') return true;
        at += part + (at[part] == '/');
    }
    return false;
}

/* Whether a path, links followed, lies in a folder. */
static bool is_inside(const char *folder, const char *path) {
    char root[PATH_MAX], real[PATH_MAX];
    if (realpath(folder, root) == NULL || realpath(path, real) == NULL) return false;
    const size_t length = strlen(root);
    return strncmp(root, real, length) == 0 && (real[length] == '/' || (length == 1 && root[0] == '/'));
}

const fj_mapping *fj_files_find(fj_files *files, fj_scope *scope, const char *name) {
    fj_arena *arena = scope->arena;
    if (files->path == NULL) return NULL;
    for (size_t i = 0; i < files->items.len; i++)
        if (strcmp(files->items.data[i].name, name) == 0) return &files->items.data[i].mapping;
    const char *slash = strrchr(files->path, '/');
    const char *folder = slash == NULL
                           ? "."
                           : fj_arena_strdup(arena, (fj_str){files->path, (size_t)(slash - files->path + 1)});
    const char *path = fj_arena_printf(arena, "%s/%s", folder, name);
    if (!is_inside(folder, path)) return NULL;
    /* The place comes first: what is mapped is known to those who unmap it. */
    FJ_PUSH(arena, &files->items, (fj_file){.name = fj_arena_strdup(arena, fj_str_from(name))});
    fj_file *file = &files->items.data[files->items.len - 1];
    if (fj_file_map(path, &file->mapping, NULL) == FJ_OK) return &file->mapping;
    files->items.len--;
    return NULL;
}

void fj_files_close(fj_files *files) {
    for (size_t i = 0; i < files->items.len; i++) fj_file_unmap(&files->items.data[i].mapping);
    files->items.len = 0;
}
