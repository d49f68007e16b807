/* A folder of its own for each compilation, and the child that works in it: never a shell, never a file that stays.
 *
 * All files of a compilation, the program's own temporary ones included (TMPDIR), lie in the folder, which is removed
 * whatever happens. The child stays in the caller's process group: Ctrl-C on a terminal reaches both, the compiler dies
 * of it, and the folder still goes.
 *
 * Only a process that is killed leaves its folder. Its successor removes it: a folder in use is locked, and the lock goes
 * with the process, in whatever container it ran. A folder is made before it is locked, so young ones are left alone.
 */
#include "jit/workshop.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PREFIX "flexjit-"

enum { DEEPEST = 16, YOUNG = 60 /* seconds */ };

/* ---- The private folder -------------------------------------------------------------------------- */

static const char *base_folder(void) {
    const char *base = getenv("TMPDIR");
    return base && base[0] == '/' ? base : "/tmp";
}

typedef struct removal {
    const fj_file_ops *ops;
    int directory, depth;
} removal;

/* A compiler in front of another one (a cache, say) makes folders of its own. */
static void remove_one(void *user, const char *name) {
    const removal *r = user;
    if (r->ops->unlink(r->directory, name, false) == 0 || r->depth == DEEPEST) return;
    removal inner = {r->ops,
                     r->ops->openat(r->directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0),
                     r->depth + 1};
    if (inner.directory < 0) return;
    (void)r->ops->list(inner.directory, remove_one, &inner);
    (void)r->ops->close(inner.directory);
    (void)r->ops->unlink(r->directory, name, true);
}

static void remove_all(const fj_file_ops *ops, int directory) {
    (void)ops->list(directory, remove_one, &(removal){ops, directory, 0});
}

static bool is_left_over(const fj_file_ops *ops, int directory) {
    struct stat status;
    return ops->fstat(directory, &status) == 0 && status.st_uid == geteuid() &&
           time(NULL) - status.st_mtime > YOUNG && flock(directory, LOCK_EX | LOCK_NB) == 0;
}

static void remove_left_over(void *user, const char *name) {
    const removal *r = user;
    if (strncmp(name, PREFIX, strlen(PREFIX)) != 0) return;
    int directory = r->ops->openat(r->directory, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC, 0);
    if (directory < 0) return;
    const bool left = is_left_over(r->ops, directory);
    if (left) remove_all(r->ops, directory);
    (void)r->ops->close(directory);
    if (left) (void)r->ops->unlink(r->directory, name, true);
}

static void remove_left_overs(const fj_file_ops *ops, const char *base) {
    static atomic_bool done;
    if (atomic_exchange(&done, true)) return;
    int directory = ops->openat(AT_FDCWD, base, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (directory < 0) return;
    (void)ops->list(directory, remove_left_over, &(removal){ops, directory, 0});
    (void)ops->close(directory);
}

fj_status fj_workshop_open(fj_workshop *shop, const fj_file_ops *ops, fj_error *error) {
    const char *base = base_folder();
    shop->ops = ops;
    int length = snprintf(shop->path, sizeof shop->path, "%s/" PREFIX "XXXXXX", base);
    if (length < 0 || (size_t)length >= sizeof shop->path)
        return fj_error_set(error, FJ_ERR_IO, "TMPDIR is too long");
    remove_left_overs(ops, base);
    if (!ops->mkdtemp(shop->path))
        return fj_error_set(error, FJ_ERR_IO, "no temporary folder in '%s': %s", base, strerror(errno));
    shop->directory = ops->openat(AT_FDCWD, shop->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (shop->directory >= 0) {
        (void)flock(shop->directory, LOCK_EX | LOCK_NB);
        return FJ_OK;
    }
    int reason = errno;
    (void)ops->unlink(AT_FDCWD, shop->path, true);
    return fj_error_set(error, FJ_ERR_IO, "temporary folder '%s': %s", shop->path, strerror(reason));
}

void fj_workshop_close(fj_workshop *shop) {
    remove_all(shop->ops, shop->directory);
    (void)shop->ops->close(shop->directory);
    (void)shop->ops->unlink(AT_FDCWD, shop->path, true);
}

fj_status fj_workshop_write(const fj_workshop *shop, const char *name, fj_str text, fj_error *error) {
    int file = shop->ops->openat(shop->directory, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    bool written = file >= 0 && fj_cache_write_all(shop->ops, file, text.data, text.len);
    int reason = errno;
    if (file >= 0 && shop->ops->close(file) != 0 && written) {
        reason = errno;
        written = false;
    }
    if (written) return FJ_OK;
    return fj_error_set(error, FJ_ERR_IO, "cannot write '%s/%s': %s", shop->path, name, strerror(reason));
}

fj_status fj_workshop_read(const fj_workshop *shop, const char *name, fj_buf *out, fj_error *error) {
    char block[16384];
    int file = shop->ops->openat(shop->directory, name, O_RDONLY | O_CLOEXEC, 0);
    ssize_t got = file < 0 ? -1 : 0;
    while (file >= 0) {
        got = shop->ops->read(file, block, sizeof block);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) break;
        fj_buf_write(out, block, (size_t)got);
    }
    int reason = errno;
    if (file >= 0) (void)shop->ops->close(file);
    if (got < 0)
        return fj_error_set(error, FJ_ERR_IO, "cannot read '%s/%s': %s", shop->path, name, strerror(reason));
    if (out->failed) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    return FJ_OK;
}

/* ---- The child ------------------------------------------------------------------------------------ */

/* The caller's environment, with our TMPDIR and messages in plain ASCII. */
static char **child_environment(const fj_allocator *allocator, char *tmpdir, size_t *ret_size) {
    static char locale[] = "LC_ALL=C";
    size_t count = 0;
    while (environ[count]) count++;
    *ret_size = (count + 3) * sizeof(char *);
    char **copy = fj_alloc(allocator, *ret_size);
    if (!copy) return NULL;
    size_t to = 0;
    for (size_t from = 0; from < count && environ[from]; from++)
        if (strncmp(environ[from], "TMPDIR=", 7) != 0 && strncmp(environ[from], "LC_ALL=", 7) != 0)
            copy[to++] = environ[from];
    copy[to++] = tmpdir;
    copy[to++] = locale;
    copy[to] = NULL;
    return copy;
}

/* Input from nowhere, both outputs to a file of the folder; signals as a fresh program has them. */
static int spawn(const fj_workshop *shop, const char *path, const char *const *arguments, const char *name,
                 char **environment, pid_t *ret_child) {
    char *const *vector = (char *const *)(uintptr_t)arguments; /* posix_spawn does not write to them */
    char log[sizeof shop->path + 32];
    (void)snprintf(log, sizeof log, "%s/%s", shop->path, name);
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none, defaults;
    sigemptyset(&none);
    sigemptyset(&defaults);
    sigaddset(&defaults, SIGPIPE);
    sigaddset(&defaults, SIGCHLD);
    int failed = posix_spawn_file_actions_init(&actions);
    if (failed) return failed;
    failed = posix_spawnattr_init(&attributes);
    if (failed) {
        (void)posix_spawn_file_actions_destroy(&actions);
        return failed;
    }
    if (!failed) failed = posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0);
    if (!failed)
        failed = posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    if (!failed) failed = posix_spawn_file_actions_adddup2(&actions, 1, 2);
    if (!failed) failed = posix_spawnattr_setsigmask(&attributes, &none);
    if (!failed) failed = posix_spawnattr_setsigdefault(&attributes, &defaults);
    if (!failed)
        failed = posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    if (!failed) failed = posix_spawn(ret_child, path, &actions, &attributes, vector, environment);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return failed;
}

fj_status fj_workshop_start(const fj_workshop *shop, const char *path, const char *const *arguments,
                            const char *log, pid_t *ret_child, const fj_allocator *allocator,
                            fj_error *error) {
    char tmpdir[sizeof shop->path + 8];
    (void)snprintf(tmpdir, sizeof tmpdir, "TMPDIR=%s", shop->path);
    size_t size;
    char **environment = child_environment(allocator, tmpdir, &size);
    if (!environment) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    int failed = spawn(shop, path, arguments, log, environment, ret_child);
    fj_free(allocator, environment, size);
    if (!failed) return FJ_OK;
    return fj_error_set(error, FJ_ERR_DEVICE, "the compiler '%s' cannot be run: %s", path, strerror(failed));
}

int fj_workshop_wait(pid_t child) {
    int status = 0;
    pid_t done;
    do done = waitpid(child, &status, 0);
    while (done < 0 && errno == EINTR);
    return done < 0 ? 0 : status;
}

fj_status fj_workshop_run(const fj_workshop *shop, const char *path, const char *const *arguments,
                          int *ret_status, const fj_allocator *allocator, fj_error *error) {
    pid_t child = 0;
    fj_status status = fj_workshop_start(shop, path, arguments, "log", &child, allocator, error);
    if (status == FJ_OK) *ret_status = fj_workshop_wait(child);
    return status;
}
