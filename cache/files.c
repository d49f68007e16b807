/* The system's file operations, and reading and writing whole. */
#include "cache/files.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int system_openat(int directory, const char *path, int flags, mode_t mode) {
    return openat(directory, path, flags, mode);
}
static ssize_t system_read(int descriptor, void *bytes, size_t size) { return read(descriptor, bytes, size); }
static ssize_t system_write(int descriptor, const void *bytes, size_t size) {
    return write(descriptor, bytes, size);
}
static int system_fsync(int descriptor) { return fsync(descriptor); }
static int system_close(int descriptor) { return close(descriptor); }
static int system_fstat(int descriptor, struct stat *ret_status) { return fstat(descriptor, ret_status); }
static int system_stat(int directory, const char *path, struct stat *ret_status) {
    return fstatat(directory, path, ret_status, AT_SYMLINK_NOFOLLOW);
}
static int system_touch(int descriptor) { return futimens(descriptor, NULL); }
static int system_rename(int directory, const char *from, const char *to) {
    return renameat(directory, from, directory, to);
}
static int system_unlink(int directory, const char *path, bool folder) {
    return unlinkat(directory, path, folder ? AT_REMOVEDIR : 0);
}
static int system_mkdir(const char *path, mode_t mode) { return mkdir(path, mode); }
static char *system_mkdtemp(char *pattern) { return mkdtemp(pattern); }

static int system_list(int directory, void (*each)(void *user, const char *name), void *user) {
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *stream = copy < 0 ? NULL : fdopendir(copy);
    if (!stream) {
        if (copy >= 0) (void)close(copy);
        return -1;
    }
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0) each(user, entry->d_name);
    (void)closedir(stream);
    return 0;
}

const fj_file_ops fj_file_ops_system = {
    .openat = system_openat,
    .read = system_read,
    .write = system_write,
    .fsync = system_fsync,
    .close = system_close,
    .fstat = system_fstat,
    .stat = system_stat,
    .touch = system_touch,
    .rename = system_rename,
    .unlink = system_unlink,
    .mkdir = system_mkdir,
    .mkdtemp = system_mkdtemp,
    .list = system_list,
};

bool fj_cache_write_all(const fj_file_ops *ops, int descriptor, const void *bytes, size_t size) {
    const char *at = bytes;
    while (size > 0) {
        ssize_t written = ops->write(descriptor, at, size);
        if (written < 0 && errno == EINTR) continue;
        if (written == 0) errno = ENOSPC;
        if (written <= 0) return false;
        at += written;
        size -= (size_t)written;
    }
    return true;
}

bool fj_cache_read_all(const fj_file_ops *ops, int descriptor, void *bytes, size_t size) {
    char *at = bytes;
    while (size > 0) {
        ssize_t got = ops->read(descriptor, at, size);
        if (got < 0 && errno == EINTR) continue;
        if (got == 0) errno = 0;
        if (got <= 0) return false;
        at += got;
        size -= (size_t)got;
    }
    return true;
}
