/* Running the host's compilers: never a shell, never a file that stays.
 *
 * All files of a compilation, the compiler's own temporary ones included (TMPDIR), lie in one
 * private folder that is removed whatever happens. The child stays in the caller's process group:
 * Ctrl-C on a terminal reaches both, the compiler dies of it, and the folder still goes.
 */
#include "jit/compile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

/* ---- Options ----------------------------------------------------------------------------------- */

/* No option that changes what an operation gives: results are those of ops.def, op by op. errno and
 * trapping are not results. */
#define COMMON                                                                                \
    "-std=c17", "-O2", "-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math", "-fPIC", \
        "-fvisibility=hidden", "-fno-plt", "-w", "-shared", "-nostartfiles", "-Wl,-z,defs", "-Wl,-s"
#define AVX2 "-mavx2", "-mfma", "-mf16c", "-mbmi2"
#define AVX512 \
    AVX2, "-mavx512f", "-mavx512bw", "-mavx512cd", "-mavx512dq", "-mavx512vl", "-mprefer-vector-width=512"

static const char *const options_portable[] = {COMMON, NULL};
static const char *const options_avx2[] = {COMMON, AVX2, NULL};
static const char *const options_avx512[] = {COMMON, AVX512, NULL};
static const char *const options_avx512bf16[] = {COMMON, AVX512, "-mavx512bf16", NULL};

static const char *const *const options[] = {
    [FJ_ISA_PORTABLE] = options_portable,
    [FJ_ISA_AVX2] = options_avx2,
    [FJ_ISA_AVX512] = options_avx512,
    [FJ_ISA_AVX512BF16] = options_avx512bf16,
};
_Static_assert(FJ_ARRAY_LEN(options) == FJ_ISA_COUNT, "options for each");

const char *const *fj_jit_compile_options(fj_isa isa) { return options[isa]; }

/* Compilation is most of the time of a small run: so not more optimised than needed. */
const char *const *fj_jit_compile_options_emu(void) {
    static const char *const emu[] = {
        "-std=c++17",
        "-O1",
        "-ffp-contract=off",
        "-fPIC",
        "-fno-exceptions",
        "-fno-rtti",
        "-fno-plt",
        "-fvisibility=hidden",
        "-w",
        "-shared",
        "-nostartfiles",
        "-Wl,-z,defs",
        "-Wl,-s",
        NULL,
    };
    return emu;
}

/* ---- The private folder -------------------------------------------------------------------------- */

struct workshop {
    const fj_file_ops *ops;
    char path[1024];
    int directory;
};

static fj_status workshop_open(struct workshop *shop, const fj_file_ops *ops, fj_error *error) {
    const char *base = getenv("TMPDIR");
    if (!base || base[0] != '/') base = "/tmp";
    shop->ops = ops;
    int length = snprintf(shop->path, sizeof shop->path, "%s/flexjit-XXXXXX", base);
    if (length < 0 || (size_t)length >= sizeof shop->path)
        return fj_error_set(error, FJ_ERR_IO, "TMPDIR is too long");
    if (!ops->mkdtemp(shop->path))
        return fj_error_set(error, FJ_ERR_IO, "no temporary folder in '%s': %s", base, strerror(errno));
    shop->directory = ops->openat(AT_FDCWD, shop->path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (shop->directory >= 0) return FJ_OK;
    int reason = errno;
    (void)ops->unlink(AT_FDCWD, shop->path, true);
    return fj_error_set(error, FJ_ERR_IO, "temporary folder '%s': %s", shop->path, strerror(reason));
}

static void remove_one(void *user, const char *name) {
    const struct workshop *shop = user;
    (void)shop->ops->unlink(shop->directory, name, false);
}

static void workshop_close(struct workshop *shop) {
    (void)shop->ops->list(shop->directory, remove_one, shop);
    (void)shop->ops->close(shop->directory);
    (void)shop->ops->unlink(AT_FDCWD, shop->path, true);
}

static fj_status workshop_write(const struct workshop *shop, const char *name, fj_str text, fj_error *error) {
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

static fj_status workshop_read(const struct workshop *shop, const char *name, fj_buf *out, fj_error *error) {
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

/* Input from nowhere, both outputs to the file "log" of the folder; signals as a fresh program has
 * them. */
static int spawn(const struct workshop *shop, const char *path, char *const *arguments, char **environment,
                 pid_t *ret_child) {
    char log[sizeof shop->path + 8];
    (void)snprintf(log, sizeof log, "%s/log", shop->path);
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
    if (!failed) failed = posix_spawn(ret_child, path, &actions, &attributes, arguments, environment);
    (void)posix_spawnattr_destroy(&attributes);
    (void)posix_spawn_file_actions_destroy(&actions);
    return failed;
}

/* Runs a program to its end. *ret_status as waitpid gives it; 0 when the caller ignores SIGCHLD, so
 * that nobody can know. */
static fj_status run(const struct workshop *shop, const char *path, char *const *arguments, int *ret_status,
                     const fj_allocator *allocator, fj_error *error) {
    char tmpdir[sizeof shop->path + 8];
    (void)snprintf(tmpdir, sizeof tmpdir, "TMPDIR=%s", shop->path);
    size_t size;
    char **environment = child_environment(allocator, tmpdir, &size);
    if (!environment) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    pid_t child = 0;
    int failed = spawn(shop, path, arguments, environment, &child);
    fj_free(allocator, environment, size);
    if (failed)
        return fj_error_set(error, FJ_ERR_DEVICE, "the compiler '%s' cannot be run: %s", path,
                            strerror(failed));
    int status = 0;
    pid_t done;
    do done = waitpid(child, &status, 0);
    while (done < 0 && errno == EINTR);
    *ret_status = done < 0 ? 0 : status;
    return FJ_OK;
}

static fj_status outcome(int status, const char *path, fj_error *error) {
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return FJ_OK;
    if (WIFSIGNALED(status))
        return fj_error_set(error, FJ_ERR_COMPILER, "the compiler '%s' was ended by signal %d (%s)", path,
                            WTERMSIG(status), strsignal(WTERMSIG(status)));
    return fj_error_set(error, FJ_ERR_COMPILER, "the compiler '%s' failed with status %d", path,
                        WEXITSTATUS(status));
}

/* Adds what the program wrote to the error. */
static void keep_messages(const struct workshop *shop, const fj_allocator *allocator, fj_error *error) {
    fj_buf messages;
    fj_buf_init(&messages, allocator);
    if (workshop_read(shop, "log", &messages, NULL) == FJ_OK && messages.len > 0)
        fj_error_detail(error, messages.data, messages.len);
    fj_buf_finish(&messages);
}

/* ---- Finding it ------------------------------------------------------------------------------------ */

static bool is_program(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

bool fj_jit_compiler_locate(const char *name, char *ret_path, size_t size) {
    char path[1024];
    if (strchr(name, '/')) {
        int length = snprintf(path, sizeof path, "%s", name);
        if (length < 0 || (size_t)length >= sizeof path || !is_program(path)) return false;
        return (size_t)snprintf(ret_path, size, "%s", path) < size;
    }
    const char *list = getenv("PATH");
    for (const char *at = list ? list : "/usr/bin:/bin"; *at;) {
        size_t length = strcspn(at, ":");
        int written = snprintf(path, sizeof path, "%.*s/%s", (int)length, at, name);
        if (length > 0 && *at == '/' && written > 0 && (size_t)written < sizeof path && is_program(path))
            return (size_t)snprintf(ret_path, size, "%s", path) < size;
        at += length + (at[length] == ':');
    }
    return false;
}

fj_status fj_jit_compiler_version(const fj_file_ops *ops, const fj_allocator *allocator,
                                  fj_compiler *compiler, fj_error *error) {
    struct workshop shop;
    fj_status status = workshop_open(&shop, ops, error);
    if (status != FJ_OK) return status;
    char option[] = "--version";
    char *const arguments[] = {compiler->path, option, NULL};
    int exit_status = 0;
    status = run(&shop, compiler->path, arguments, &exit_status, allocator, error);
    fj_buf text;
    fj_buf_init(&text, allocator);
    if (status == FJ_OK) status = workshop_read(&shop, "log", &text, error);
    if (status == FJ_OK)
        (void)snprintf(compiler->version, sizeof compiler->version, "%.*s",
                       text.len ? (int)strcspn(text.data, "\n") : 0, text.len ? text.data : "");
    fj_buf_finish(&text);
    workshop_close(&shop);
    return status;
}

static const fj_compiler_search searches[] = {
    [FJ_LANGUAGE_C] = {"C", "cpu", "FLEXJIT_CC", {"cc", "gcc", "clang"}},
    [FJ_LANGUAGE_CXX] = {"C++", "emu", "FLEXJIT_CXX", {"c++", "g++", "clang++"}},
};
_Static_assert(FJ_ARRAY_LEN(searches) == FJ_LANGUAGE_COUNT, "where to look for each");

const fj_compiler_search *fj_jit_compiler_search(fj_language language) { return &searches[language]; }

fj_status fj_jit_compiler_find(fj_language language, const fj_file_ops *ops, const fj_allocator *allocator,
                               fj_compiler *ret_compiler, fj_error *error) {
    const fj_compiler_search *search = &searches[language];
    fj_compiler compiler = {0};
    const char *chosen = getenv(search->variable);
    bool found = false;
    if (chosen && *chosen) {
        found = fj_jit_compiler_locate(chosen, compiler.path, sizeof compiler.path);
        if (!found)
            return fj_error_set(error, FJ_ERR_DEVICE,
                                "no %s compiler for the %s device: %s='%s' is not a program", search->name,
                                search->device, search->variable, chosen);
    }
    const char *const *names = search->candidates;
    for (size_t i = 0; names[i] && !found; i++)
        found = fj_jit_compiler_locate(names[i], compiler.path, sizeof compiler.path);
    if (!found)
        return fj_error_set(error, FJ_ERR_DEVICE,
                            "no %s compiler for the %s device: looked for %s, %s and %s on PATH, and "
                            "%s is not set",
                            search->name, search->device, names[0], names[1], names[2], search->variable);
    fj_status status = fj_jit_compiler_version(ops, allocator, &compiler, error);
    if (status == FJ_OK) *ret_compiler = compiler;
    return status;
}

/* ---- Compiling --------------------------------------------------------------------------------------- */

enum { MAX_ARGUMENTS = 64 };

static fj_status compile_in(struct workshop *shop, const fj_compiler *compiler, fj_language language,
                            const char *const *flags, fj_str source, fj_buf *out, fj_error *error) {
    static const char *const names[] = {[FJ_LANGUAGE_C] = "kernel.c", [FJ_LANGUAGE_CXX] = "kernel.cc"};
    fj_status status = workshop_write(shop, names[language], source, error);
    if (status != FJ_OK) return status;
    char input[sizeof shop->path + 16], output[sizeof shop->path + 16];
    (void)snprintf(input, sizeof input, "%s/%s", shop->path, names[language]);
    (void)snprintf(output, sizeof output, "%s/kernel.so", shop->path);
    const char *arguments[MAX_ARGUMENTS] = {compiler->path};
    int count = 1;
    for (const char *const *flag = flags; *flag; flag++) arguments[count++] = *flag;
    /* C++ for what is compiled, not for what it needs: there is no use for its library. */
    const char *const rest[] = {"-o", output, input, "-Wl,--as-needed", "-lm"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(rest); i++) arguments[count++] = rest[i];
    arguments[count] = NULL;
    int exit_status = 0;
    char *const *vector = (char *const *)(uintptr_t)arguments; /* posix_spawn does not write to them */
    status = run(shop, compiler->path, vector, &exit_status, out->allocator, error);
    if (status != FJ_OK) return status;
    status = outcome(exit_status, compiler->path, error);
    if (status == FJ_OK) {
        status = workshop_read(shop, "kernel.so", out, error);
        if (status == FJ_OK || status == FJ_ERR_MEMORY) return status;
        status = fj_error_set(error, FJ_ERR_COMPILER, "the compiler '%s' wrote no object", compiler->path);
    }
    keep_messages(shop, out->allocator, error);
    return status;
}

fj_status fj_jit_compile(const fj_compiler *compiler, fj_language language, const char *const *flags,
                         const fj_file_ops *ops, fj_str source, fj_buf *out, fj_error *error) {
    struct workshop shop;
    fj_status status = workshop_open(&shop, ops, error);
    if (status != FJ_OK) return status;
    status = compile_in(&shop, compiler, language, flags, source, out, error);
    workshop_close(&shop);
    return status;
}
