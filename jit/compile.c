/* The host's compilers: their options, where they are, running them. */
#include "jit/compile.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "jit/workshop.h"

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

/* Compilation is most of the time of a small run, and -Og takes two thirds of that of -O1, for kernels as fast. */
const char *const *fj_jit_compile_options_emu(void) {
    static const char *const emu[] = {
        "-std=c++17",
        "-Og",
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

/* Passes of -O2 that GCC leaves out: together a quarter of its time, and the loops that matter are as short without them.
 * Other compilers do not know these options. */
static const char *const lean[] = {
    "-fno-code-hoisting",
    "-fno-compare-elim",
    "-fno-dse",
    "-fno-isolate-erroneous-paths-dereference",
    "-fno-optimize-strlen",
    "-fno-peephole2",
    "-fno-printf-return-value",
    "-fno-rerun-cse-after-loop",
    "-fno-schedule-insns2",
    "-fno-shrink-wrap",
    "-fno-split-loops",
    "-fno-split-wide-types",
    "-fno-tree-bit-ccp",
    "-fno-tree-copy-prop",
    "-fno-tree-dominator-opts",
    "-fno-tree-dse",
    "-fno-tree-pre",
    "-fno-tree-reassoc",
    "-fno-tree-scev-cprop",
    "-fno-tree-switch-conversion",
    "-fno-tree-vectorize",
    "-fno-unswitch-loops",
    NULL,
};

/* Its first line is the name it was called by, the packager in parentheses, the version. */
static bool is_gcc(const fj_compiler *compiler) {
    const size_t word = strcspn(compiler->version, " ");
    return strncmp(compiler->version + word, " (", 2) == 0 && !strstr(compiler->version, "clang");
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
static void keep_messages(const fj_workshop *shop, const char *log, const fj_allocator *allocator,
                          fj_error *error) {
    fj_buf messages;
    fj_buf_init(&messages, allocator);
    if (fj_workshop_read(shop, log, &messages, NULL) == FJ_OK && messages.len > 0)
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
    fj_workshop shop;
    fj_status status = fj_workshop_open(&shop, ops, error);
    if (status != FJ_OK) return status;
    const char *const arguments[] = {compiler->path, "--version", NULL};
    int exit_status = 0;
    status = fj_workshop_run(&shop, compiler->path, arguments, &exit_status, allocator, error);
    fj_buf text;
    fj_buf_init(&text, allocator);
    if (status == FJ_OK) status = fj_workshop_read(&shop, "log", &text, error);
    if (status == FJ_OK)
        (void)snprintf(compiler->version, sizeof compiler->version, "%.*s",
                       text.len ? (int)strcspn(text.data, "\n") : 0, text.len ? text.data : "");
    fj_buf_finish(&text);
    fj_workshop_close(&shop);
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

enum { MAX_ARGUMENTS = 64, MAX_PARTS = 4 };

/* A compilation in its folder. */
typedef struct work {
    fj_workshop *shop;
    const fj_compiler *compiler;
    const char *const *flags;
    const char *const *lean; /* more of them */
    const fj_allocator *allocator;
    char input[sizeof((fj_workshop *)0)->path + 16];
} work;

static void name_object(const work *w, int part, char *path, size_t size) {
    (void)snprintf(path, size, "%s/part%d.o", w->shop->path, part);
}

static int add_list(const char **arguments, int count, const char *const *list) {
    for (; *list && count < MAX_ARGUMENTS - 1; list++) arguments[count++] = *list;
    arguments[count] = NULL;
    return count;
}

/* The whole text (parts 0), or what was made of its parts, to kernel.so. */
static fj_status finish(const work *w, int parts, fj_error *error) {
    char output[sizeof w->input], objects[MAX_PARTS][sizeof w->input];
    const char *arguments[MAX_ARGUMENTS] = {w->compiler->path};
    (void)snprintf(output, sizeof output, "%s/kernel.so", w->shop->path);
    int count = add_list(arguments, 1, w->flags);
    if (parts == 0) count = add_list(arguments, count, w->lean);
    count = add_list(arguments, count, (const char *const[]){"-o", output, NULL});
    if (parts == 0) count = add_list(arguments, count, (const char *const[]){w->input, NULL});
    for (int p = 0; p < parts; p++) {
        name_object(w, p + 1, objects[p], sizeof objects[p]);
        count = add_list(arguments, count, (const char *const[]){objects[p], NULL});
    }
    /* C++ for what is compiled, not for what it needs: there is no use for its library. */
    (void)add_list(arguments, count, (const char *const[]){"-Wl,--as-needed", "-lm", NULL});
    int exit_status = 0;
    fj_status status =
        fj_workshop_run(w->shop, w->compiler->path, arguments, &exit_status, w->allocator, error);
    if (status != FJ_OK) return status;
    status = outcome(exit_status, w->compiler->path, error);
    if (status != FJ_OK) keep_messages(w->shop, "log", w->allocator, error);
    return status;
}

static fj_status start_part(const work *w, int part, const char *log, pid_t *ret_child, fj_error *error) {
    char output[sizeof w->input], number[32];
    const char *arguments[MAX_ARGUMENTS] = {w->compiler->path};
    name_object(w, part, output, sizeof output);
    (void)snprintf(number, sizeof number, "-DFJ_PART=%d", part);
    int count = add_list(arguments, add_list(arguments, 1, w->flags), w->lean);
    (void)add_list(arguments, count, (const char *const[]){"-c", number, "-o", output, w->input, NULL});
    return fj_workshop_start(w->shop, w->compiler->path, arguments, log, ret_child, w->allocator, error);
}

/* Where the caller ignores SIGCHLD this alone tells of a failure. */
static bool has_object(const work *w, int part) {
    char path[sizeof w->input];
    name_object(w, part, path, sizeof path);
    const int file = w->shop->ops->openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (file >= 0) (void)w->shop->ops->close(file);
    return file >= 0;
}

static fj_status no_object(const work *w, fj_error *error) {
    return fj_error_set(error, FJ_ERR_COMPILER, "the compiler '%s' wrote no object", w->compiler->path);
}

/* All parts at the same time; the first that fails is what is reported. */
static fj_status compile_parts(const work *w, int parts, fj_error *error) {
    pid_t children[MAX_PARTS];
    char logs[MAX_PARTS][16];
    int started = 0;
    fj_status status = FJ_OK;
    for (; started < parts; started++) {
        (void)snprintf(logs[started], sizeof logs[started], "log%d", started + 1);
        status = start_part(w, started + 1, logs[started], &children[started], error);
        if (status != FJ_OK) break;
    }
    for (int p = 0; p < started; p++) {
        const int exit_status = fj_workshop_wait(children[p]);
        if (status != FJ_OK) continue;
        status = outcome(exit_status, w->compiler->path, error);
        if (status == FJ_OK && !has_object(w, p + 1)) status = no_object(w, error);
        if (status != FJ_OK) keep_messages(w->shop, logs[p], w->allocator, error);
    }
    return status;
}

/* In how many parts a text says that it may be compiled (templates/cpu/prim_isa.h): its prologue has a line for it. */
static int parts_of(fj_str source) {
    static const char line[] = "\n#define FJ_PARTS ";
    for (size_t at = 0; at + sizeof line < source.len && at < 1024; at++)
        if (memcmp(source.data + at, line, sizeof line - 1) == 0) {
            const int parts = source.data[at + sizeof line - 1] - '0';
            return parts >= 2 && parts <= MAX_PARTS ? parts : 0;
        }
    return 0;
}

static fj_status compile_in(fj_workshop *shop, const fj_compiler *compiler, fj_language language,
                            const char *const *flags, fj_str source, fj_buf *out, fj_error *error) {
    static const char *const names[] = {[FJ_LANGUAGE_C] = "kernel.c", [FJ_LANGUAGE_CXX] = "kernel.cc"};
    fj_status status = fj_workshop_write(shop, names[language], source, error);
    if (status != FJ_OK) return status;
    work w = {.shop = shop, .compiler = compiler, .flags = flags, .allocator = out->allocator};
    w.lean = language == FJ_LANGUAGE_C && is_gcc(compiler) ? lean : &lean[FJ_ARRAY_LEN(lean) - 1];
    (void)snprintf(w.input, sizeof w.input, "%s/%s", shop->path, names[language]);
    const int parts = parts_of(source);
    if (parts) status = compile_parts(&w, parts, error);
    if (status == FJ_OK) status = finish(&w, parts, error);
    if (status != FJ_OK) return status;
    status = fj_workshop_read(shop, "kernel.so", out, error);
    if (status == FJ_OK || status == FJ_ERR_MEMORY) return status;
    status = no_object(&w, error);
    keep_messages(shop, "log", out->allocator, error);
    return status;
}

fj_status fj_jit_compile(const fj_compiler *compiler, fj_language language, const char *const *flags,
                         const fj_file_ops *ops, fj_str source, fj_buf *out, fj_error *error) {
    fj_workshop shop;
    fj_status status = fj_workshop_open(&shop, ops, error);
    if (status != FJ_OK) return status;
    status = compile_in(&shop, compiler, language, flags, source, out, error);
    fj_workshop_close(&shop);
    return status;
}
