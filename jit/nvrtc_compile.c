/* Compiling with NVRTC: a workshop, the program that runs it (nvrtc_child.c), and its messages.
 *
 * A process that compiles one kernel at a time has its parts (forward one, backward three) compiled at a time.
 * NVRTC's cache of its own (12.9 and newer) is turned off: ours holds the kernels, and times are true.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jit/nvrtc.h"

/* nvrtcResult */
enum { OUT_OF_MEMORY = 1, COMPILATION = 6, BUILTIN_OPERATION_FAILURE = 7 };
enum { MAX_OPTIONS = 48 };

/* ---- The program ------------------------------------------------------------------------------------------- */

/* Memory first: no folder from which programs may not run is in its way. */
static fj_status run_in_memory(const fj_workshop *shop, const char *const *arguments, int *ret_status,
                               const fj_allocator *allocator, fj_error *error) {
    char path[40];
    int program = memfd_create("flexjit-nvrtc", MFD_CLOEXEC);
    if (program < 0) return fj_error_set(error, FJ_ERR_DEVICE, "no memory file");
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", program);
    fj_status status = FJ_ERR_DEVICE;
    if (fj_cache_write_all(&fj_file_ops_system, program, fj_jit_nvrtc_child, fj_jit_nvrtc_child_len))
        status = fj_workshop_run(shop, path, arguments, ret_status, allocator, error);
    (void)close(program);
    return status;
}

static fj_status run_in_file(const fj_workshop *shop, const char *const *arguments, int *ret_status,
                             const fj_allocator *allocator, fj_error *error) {
    static const char name[] = "program";
    char path[sizeof shop->path + sizeof name + 1];
    const fj_str bytes = {(const char *)fj_jit_nvrtc_child, fj_jit_nvrtc_child_len};
    (void)snprintf(path, sizeof path, "%s/%s", shop->path, name);
    fj_status status = fj_workshop_write(shop, name, bytes, error);
    if (status == FJ_OK) (void)fchmodat(shop->directory, name, 0700, 0);
    return status == FJ_OK ? fj_workshop_run(shop, path, arguments, ret_status, allocator, error) : status;
}

static fj_status run(const fj_workshop *shop, const char *const *arguments, int *ret_status,
                     const fj_allocator *allocator, fj_error *error) {
    fj_status status = run_in_memory(shop, arguments, ret_status, allocator, error);
    return status == FJ_ERR_DEVICE ? run_in_file(shop, arguments, ret_status, allocator, error) : status;
}

fj_status fj_jit_nvrtc_run(const fj_workshop *shop, const char *const *arguments, fj_buf *answer,
                           fj_error *error) {
    int exit_status = 0;
    fj_status status = run(shop, arguments, &exit_status, answer->allocator, error);
    if (status != FJ_OK) return status;
    status = fj_workshop_read(shop, "answer", answer, error);
    if (status == FJ_OK && answer->len > 0 && answer->data[answer->len - 1] == '\n') return FJ_OK;
    if (status == FJ_ERR_MEMORY) return status;
    if (WIFSIGNALED(exit_status))
        return fj_error_set(error, FJ_ERR_COMPILER, "its process was ended by signal %d (%s)",
                            WTERMSIG(exit_status), strsignal(WTERMSIG(exit_status)));
    return fj_error_set(error, FJ_ERR_COMPILER, "its process ended with status %d and without an answer",
                        WEXITSTATUS(exit_status));
}

/* ---- Messages ------------------------------------------------------------------------------------------------ */

/* "FILE(LINE): error: TEXT", of `length`, as "FILE:LINE: TEXT"; #line made FILE and LINE those of a template. */
static bool place_error(const char *line, int length, char *text, size_t size) {
    static const char *const marks[] = {": error: ", ": catastrophic error: "};
    const int file = (int)strcspn(line, "(\n");
    if (file >= length || line[file] != '(' || !fj_is_digit(line[file + 1])) return false;
    for (size_t i = 0; i < FJ_ARRAY_LEN(marks); i++) {
        const char *mark = memmem(line, (size_t)length, marks[i], strlen(marks[i]));
        if (!mark) continue;
        const char *message = mark + strlen(marks[i]);
        (void)snprintf(text, size, "%.*s:%d: %.*s", file, line, atoi(line + file + 1),
                       (int)(line + length - message), message);
        return true;
    }
    return false;
}

/* The first error of a log that has a place, else (of ptxas) the first line that speaks of one. */
static bool first_error(const char *log, char *text, size_t size) {
    bool found = false;
    for (const char *at = log; *at; at += strspn(at, "\n")) {
        const int length = (int)strcspn(at, "\n");
        if (place_error(at, length, text, size)) return true;
        if (!found && memmem(at, (size_t)length, "error", 5)) {
            (void)snprintf(text, size, "%.*s", length, at);
            found = true;
        }
        at += length;
    }
    return found;
}

/* result: of nvrtcCompileProgram, word: its name. */
static fj_status explain(const fj_nvrtc *nvrtc, const char *name, int result, const char *word,
                         const fj_buf *log, fj_error *error) {
    const char *said = log->len > 0 && !log->failed ? log->data : "";
    char first[300];
    fj_status status = FJ_ERR_COMPILER;
    if (result == OUT_OF_MEMORY) {
        status = fj_error_set(error, FJ_ERR_MEMORY, "NVRTC ran out of memory on kernel %s", name);
    } else if (result < 0) {
        status = fj_error_set(error, FJ_ERR_IO, "the files of kernel %s cannot be read or written", name);
    } else if (result == BUILTIN_OPERATION_FAILURE || strstr(said, "libnvrtc-builtins") != NULL) {
        status = fj_error_set(error, FJ_ERR_DEVICE,
                              "NVRTC %d.%d ('%.300s') cannot use its %s: both must be of one release and in "
                              "one folder",
                              nvrtc->major, nvrtc->minor, nvrtc->path, nvrtc->builtins);
    } else {
        if (first_error(said, first, sizeof first)) word = first;
        (void)fj_error_set(error, FJ_ERR_COMPILER, "NVRTC %d.%d failed on kernel %s: %s", nvrtc->major,
                           nvrtc->minor, name, word);
    }
    if (*said) fj_error_detail(error, said, log->len);
    return status;
}

/* ---- Compiling ------------------------------------------------------------------------------------------------- */

static bool is_at_least(const fj_nvrtc *nvrtc, int major, int minor) {
    return nvrtc->major > major || (nvrtc->major == major && nvrtc->minor >= minor);
}

/* One compilation and how it ended. */
typedef struct attempt {
    const fj_nvrtc *nvrtc;
    const fj_workshop *shop;
    const char *name;
    int result; /* of nvrtcCompileProgram; ENDED: its process ended; NOT_OPENED */
    fj_buf *out, *log;
} attempt;

/* Whether its kernels are compiled on threads of their own: only where the code comes out the same, before sm_100 to the
 * byte (12.9 to 13.5). What is around the code differs, the option is in its notes: so it is passed whether the process
 * compiles something else or not, and a layer of the cache that was made in parts is the one made at once. */
static bool splits(const fj_nvrtc *nvrtc, const char *architecture) {
    int number = 0;
    return is_at_least(nvrtc, 12, 9) && architecture &&
           sscanf(architecture, "--gpu-architecture=sm_%d", &number) == 1 && number < 100;
}

enum { ENDED = -2, NOT_OPENED = -3 };

static fj_status take_results(attempt *a, const char *answer, fj_error *error) {
    int length = 0;
    char word[256];
    (void)snprintf(word, sizeof word, "%s", answer);
    word[strcspn(word, "\n")] = '\0';
    if (sscanf(word, "result %d %n", &a->result, &length) != 1) { /* it was there when it was asked */
        a->result = NOT_OPENED;
        return fj_error_set(error, FJ_ERR_DEVICE, "NVRTC ('%.300s') cannot be opened any more: %s",
                            a->nvrtc->path, word);
    }
    fj_status status = fj_workshop_read(a->shop, "messages", a->log, NULL); /* there may be none */
    if (status == FJ_ERR_MEMORY) return fj_error_set(error, status, "out of memory");
    if (a->result != 0) return explain(a->nvrtc, a->name, a->result, word + length, a->log, error);
    status = fj_workshop_read(a->shop, "kernel.cubin", a->out, error);
    if (status != FJ_OK || a->out->len > 0) return status;
    return fj_error_set(error, FJ_ERR_COMPILER, "NVRTC %d.%d made no cubin of kernel %s", a->nvrtc->major,
                        a->nvrtc->minor, a->name);
}

static fj_status run_compiler(attempt *a, const char *const *options, fj_error *error) {
    const fj_nvrtc *nvrtc = a->nvrtc;
    char builtins[sizeof nvrtc->path + sizeof nvrtc->builtins];
    const char *arguments[MAX_OPTIONS + 8] = {"nvrtc", "compile", nvrtc->path, builtins, a->name};
    const char *slash = strrchr(nvrtc->path, '/');
    const char *split = NULL;
    int count = 5;
    (void)snprintf(builtins, sizeof builtins, "%.*s%s", slash ? (int)(slash - nvrtc->path + 1) : 0,
                   nvrtc->path, nvrtc->builtins);
    if (splits(nvrtc, *options)) split = "--split-compile=0";
    while (*options && count < MAX_OPTIONS) arguments[count++] = *options++;
    if (is_at_least(nvrtc, 12, 9)) arguments[count++] = "--no-cache";
    if (split) arguments[count++] = split;
    fj_buf answer;
    fj_error why = {0};
    fj_buf_init(&answer, a->out->allocator);
    fj_status status = fj_jit_nvrtc_run(a->shop, arguments, &answer, &why);
    if (status == FJ_OK) {
        status = take_results(a, answer.data, error);
    } else if (status == FJ_ERR_COMPILER) {
        a->result = ENDED;
        (void)fj_error_set(error, status, "NVRTC %d.%d ('%.300s') failed on kernel %s: %s", nvrtc->major,
                           nvrtc->minor, nvrtc->path, a->name, why.text);
    } else {
        (void)fj_error_set(error, status, "%s", why.text);
    }
    fj_error_finish(&why);
    fj_buf_finish(&answer);
    return status;
}

static fj_status compile_in_workshop(attempt *a, const fj_file_ops *ops, fj_str source,
                                     const char *const *options, fj_error *error) {
    fj_workshop shop;
    fj_status status = fj_workshop_open(&shop, ops, error);
    if (status != FJ_OK) return status;
    a->shop = &shop;
    status = fj_workshop_write(&shop, "kernel.cu", source, error);
    if (status == FJ_OK) status = run_compiler(a, options, error);
    a->shop = NULL;
    fj_workshop_close(&shop);
    return status;
}

/* Whether it fails on an empty kernel too. */
static bool is_broken(const fj_nvrtc *nvrtc, const fj_file_ops *ops, const char *const *options,
                      const fj_allocator *allocator) {
    fj_buf cubin, log;
    fj_error error = {0};
    fj_buf_init(&cubin, allocator);
    fj_buf_init(&log, allocator);
    attempt a = {.nvrtc = nvrtc, .name = "try", .out = &cubin, .log = &log};
    const fj_str empty = FJ_STR("extern \"C\" __global__ void fj_try() {}\n");
    fj_status status = compile_in_workshop(&a, ops, empty, options, &error);
    fj_error_finish(&error);
    fj_buf_finish(&cubin);
    fj_buf_finish(&log);
    return status == FJ_ERR_COMPILER || status == FJ_ERR_DEVICE;
}

/* A mistake in the text is the text's; whatever else it is may be the installation's. */
fj_status fj_jit_nvrtc_compile(const fj_nvrtc *nvrtc, const fj_file_ops *ops, const char *name, fj_str source,
                               const char *const *options, fj_buf *out, fj_buf *log, fj_error *error) {
    attempt a = {.nvrtc = nvrtc, .name = name, .out = out, .log = log};
    fj_status status = compile_in_workshop(&a, ops, source, options, error);
    bool broken = a.result == BUILTIN_OPERATION_FAILURE || a.result == NOT_OPENED;
    if (status == FJ_ERR_COMPILER && a.result != 0 && a.result != COMPILATION)
        broken = is_broken(nvrtc, ops, options, out->allocator);
    if (status == FJ_ERR_DEVICE && a.result == COMPILATION) broken = true; /* its log speaks of builtins */
    if (!broken) return status;
    fj_jit_nvrtc_give_up(nvrtc);
    if (error) error->status = FJ_ERR_DEVICE;
    return FJ_ERR_DEVICE;
}

fj_status fj_jit_nvrtc_try(const fj_nvrtc *nvrtc, const fj_file_ops *ops, const fj_allocator *allocator,
                           fj_error *error) {
    char arch[40];
    fj_buf cubin, log;
    fj_buf_init(&cubin, allocator);
    fj_buf_init(&log, allocator);
    (void)snprintf(arch, sizeof arch, "--gpu-architecture=sm_%d", nvrtc->archs[nvrtc->arch_count - 1]);
    const char *const options[] = {arch, NULL};
    fj_status status =
        fj_jit_nvrtc_compile(nvrtc, ops, "try", FJ_STR("extern \"C\" __global__ void fj_try() {}\n"), options,
                             &cubin, &log, error);
    fj_buf_finish(&cubin);
    fj_buf_finish(&log);
    return status;
}
