/* A private folder in which programs run to their end: a compiler, for one text or for its parts. */
#ifndef FJ_JIT_WORKSHOP_H
#define FJ_JIT_WORKSHOP_H

#include <sys/types.h>

#include "base/base.h"
#include "cache/files.h"

typedef struct fj_workshop {
    const fj_file_ops *ops;
    char path[1024];
    int directory; /* locked as long as the folder is in use */
} fj_workshop;

/* A new folder in TMPDIR, else in /tmp. What processes that were killed left there is removed, once in a process.
 * FJ_ERR_IO. */
fj_status fj_workshop_open(fj_workshop *shop, const fj_file_ops *ops, fj_error *error);
/* Removes the folder with all that is in it. */
void fj_workshop_close(fj_workshop *shop);

fj_status fj_workshop_write(const fj_workshop *shop, const char *name, fj_str text, fj_error *error);
/* Appends the file to out. FJ_ERR_IO, FJ_ERR_MEMORY. */
fj_status fj_workshop_read(const fj_workshop *shop, const char *name, fj_buf *out, fj_error *error);

/* Starts a program with the folder as TMPDIR and both outputs in its file `log`. arguments are NULL-terminated, the first
 * is the program's name. Whoever starts a program waits for it. FJ_ERR_DEVICE: it cannot be run; FJ_ERR_MEMORY. */
fj_status fj_workshop_start(const fj_workshop *shop, const char *path, const char *const *arguments,
                            const char *log, pid_t *ret_child, const fj_allocator *allocator,
                            fj_error *error);
/* Until it ends. Its status as waitpid gives it; 0 when the caller ignores SIGCHLD, so that it cannot be known. */
int fj_workshop_wait(pid_t child);

/* Both, with the file "log". */
fj_status fj_workshop_run(const fj_workshop *shop, const char *path, const char *const *arguments,
                          int *ret_status, const fj_allocator *allocator, fj_error *error);

#endif
