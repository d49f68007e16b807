/* The file operations of the library, as a table: tests let the N-th of them fail. */
#ifndef FJ_CACHE_FILES_H
#define FJ_CACHE_FILES_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/stat.h>
#include <sys/types.h>

/* As the system calls of the same names: -1 and errno on failure. */
typedef struct fj_file_ops {
    int (*openat)(int directory, const char *path, int flags, mode_t mode);
    ssize_t (*read)(int descriptor, void *bytes, size_t size);
    ssize_t (*write)(int descriptor, const void *bytes, size_t size);
    int (*fsync)(int descriptor);
    int (*close)(int descriptor);
    int (*fstat)(int descriptor, struct stat *ret_status);
    int (*stat)(int directory, const char *path, struct stat *ret_status); /* of a link: its own */
    int (*touch)(int descriptor); /* sets the time of modification to now */
    int (*rename)(int directory, const char *from, const char *to);
    int (*unlink)(int directory, const char *path, bool folder);
    int (*mkdir)(const char *path, mode_t mode);
    char *(*mkdtemp)(char *pattern); /* NULL on failure */
    /* Calls each(user, name) for the entries of an open directory, "." and ".." left out. */
    int (*list)(int directory, void (*each)(void *user, const char *name), void *user);
} fj_file_ops;

extern const fj_file_ops fj_file_ops_system;

/* The whole of bytes, over interruptions and short writes. */
bool fj_cache_write_all(const fj_file_ops *ops, int descriptor, const void *bytes, size_t size);
/* Exactly size bytes; false at an early end (errno 0) or on an error. */
bool fj_cache_read_all(const fj_file_ops *ops, int descriptor, void *bytes, size_t size);

#endif
