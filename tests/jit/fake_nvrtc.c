/* An NVRTC that compiles nothing: its cubin is the text's first line behind "\177ELF", and the names of its kernels, FJ_KERNEL(NAME. FAKE_NVRTC is a list of settings
 * such as "major=12 minor=2 result=6 archs=90"; with emulate=1 the cubin is a shared object for the emulator, by the
 * host's C++ compiler, which the GPU of tests/driver/fake_gpu.c runs. With "rows=64" a kernel spills a byte for each row
 * of its tile (FJ_TILE_M) beyond 64; "fails=32": one of 32 rows does not compile. FAKE_NVRTC_LOG is what it says; texts
 * whose first line has FAKE_NVRTC_BAD in it do not compile. A file "settings" beside the library is in front of that list.
 *
 * As real ones do, it keeps state between the compilations of a process: once --restrict or -G was an option, cubins are
 * others; and with "locale=1" it leaves the process and the thread in the C locale. With "crash=1" it dies of compiling, "wait=100"
 * makes it wait as many milliseconds.
 * With FAKE_OTHER_LIBRARY it is some other library. */
#include <ctype.h>
#include <dlfcn.h>
#include <locale.h>
#include <signal.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/jit/fake_nvrtc.h"

#define EXPORT __attribute__((visibility("default")))

static int spoiled; /* by options of the past */

/* Those beside the library, then those of the environment. */
static const char *settings(void) {
    static char text[512];
    char path[512];
    Dl_info info;
    size_t length = 0;
    if (dladdr(&spoiled, &info) && info.dli_fname && strrchr(info.dli_fname, '/')) {
        (void)snprintf(path, sizeof path, "%.*ssettings",
                       (int)(strrchr(info.dli_fname, '/') + 1 - info.dli_fname), info.dli_fname);
        FILE *file = fopen(path, "r");
        if (file) length = fread(text, 1, sizeof text - 1, file);
        if (file) (void)fclose(file);
    }
    const char *chosen = getenv("FAKE_NVRTC");
    (void)snprintf(text + length, sizeof text - length, "%s%s", length ? " " : "", chosen ? chosen : "");
    return text;
}

static int setting(const char *name, int otherwise) {
    const char *at = settings();
    size_t length = strlen(name);
    for (; at && *at; at += strcspn(at, " "), at += *at == ' ')
        if (strncmp(at, name, length) == 0 && at[length] == '=') return atoi(at + length + 1);
    return otherwise;
}

EXPORT int nvrtcVersion(int *major, int *minor) {
    *major = setting("major", 13);
    *minor = setting("minor", 0);
    return setting("version", 0);
}

#ifndef FAKE_OTHER_LIBRARY

static const int archs[] = {75, 80, 86, 90, 100, 120};

struct program {
    char *source, *cubin, log[4096];
    size_t size; /* of the cubin */
    int rows;
};

static const char *arch_of(int count, const char *const *options) {
    static const char option[] = "--gpu-architecture=sm_";
    for (int i = 0; i < count; i++)
        if (strncmp(options[i], option, sizeof option - 1) == 0) return options[i] + sizeof option - 1;
    return "0";
}

/* 6 when the compiler fails, as NVRTC. */
static int emulate(struct program *program, int count, const char *const *options) {
    char folder[] = "/tmp/fake-nvrtc-XXXXXX", path[64], command[4096], includes[2048] = "";
    size_t length = 0;
    for (int i = 0; i < count && length < sizeof includes; i++)
        if (strncmp(options[i], "-I", 2) == 0)
            length += (size_t)snprintf(includes + length, sizeof includes - length, "'%s' ", options[i]);
    const char *compiler = getenv("FLEXJIT_CXX");
    if (!mkdtemp(folder)) return 1;
    (void)snprintf(path, sizeof path, "%s/kernel.cc", folder);
    FILE *file = fopen(path, "w");
    if (!file || fputs(program->source, file) < 0 || fclose(file) != 0) return 1;
    (void)snprintf(
        command, sizeof command,
        "%s -std=c++17 -Og -w -ffp-contract=off -fPIC -shared -nostartfiles -DFJ_ARCH=%d %s-o %s/kernel.so %s",
        compiler ? compiler : "c++", atoi(arch_of(count, options)), includes, folder, path);
    int result = system(command) == 0 ? 0 : 6;
    (void)snprintf(path, sizeof path, "%s/kernel.so", folder);
    file = result == 0 ? fopen(path, "r") : NULL;
    if (file) {
        (void)fseek(file, 0, SEEK_END);
        program->size = (size_t)ftell(file);
        rewind(file);
        free(program->cubin);
        program->cubin = malloc(program->size);
        if (!program->cubin || fread(program->cubin, 1, program->size, file) != program->size) result = 1;
        (void)fclose(file);
    }
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) == 0 ? result : 1;
}

EXPORT const char *nvrtcGetErrorString(int result) {
    return result == 6 ? "NVRTC_ERROR_COMPILATION" : "NVRTC_ERROR_FAKE";
}
EXPORT int nvrtcGetNumSupportedArchs(int *count) {
    *count = setting("archs", (int)(sizeof archs / sizeof archs[0]));
    return 0;
}
EXPORT int nvrtcGetSupportedArchs(int *to) {
    memcpy(to, archs, (size_t)setting("archs", (int)(sizeof archs / sizeof archs[0])) * sizeof *archs);
    return 0;
}
EXPORT int nvrtcCreateProgram(void **program, const char *source, const char *name, int headers,
                              const char *const *texts, const char *const *names) {
    struct program *made = calloc(1, sizeof *made);
    (void)name, (void)texts, (void)names;
    if (!made) return 1;
    static const char mark[] = "FJ_KERNEL(";
    size_t line = strcspn(source, "\n"), length = strlen(source);
    made->source = strdup(source);
    made->cubin = malloc(128 + line + length);
    if (!made->source || !made->cubin) abort();
    made->size = (size_t)snprintf(made->cubin, 128 + line, "\177ELF %.*s", (int)line, source) + 1;
    for (const char *at = source; (at = strstr(at, mark)) != NULL;) {
        at += sizeof mark - 1;
        for (; *at == '_' || isalnum((unsigned char)*at); at++) made->cubin[made->size++] = *at;
        made->cubin[made->size++] = '\0';
    }
    const char *rows = strstr(source, "#define FJ_TILE_M ");
    made->rows = rows ? atoi(rows + strlen("#define FJ_TILE_M ")) : 0;
    *program = made;
    return headers;
}
EXPORT int nvrtcDestroyProgram(void **program) {
    struct program *made = *program;
    free(made->source);
    free(made->cubin);
    free(made);
    *program = NULL;
    return 0;
}
EXPORT int nvrtcCompileProgram(void *program, int count, const char *const *options) {
    struct program *made = program;
    const char *log = getenv("FAKE_NVRTC_LOG"), *bad = getenv("FAKE_NVRTC_BAD");
    size_t length = (size_t)snprintf(made->log, sizeof made->log, "%s", log ? log : "");
    for (int i = 0; i < count && setting("options", 0); i++)
        length += (size_t)snprintf(made->log + length, sizeof made->log - length, "[%s]%s", options[i],
                                   i + 1 == count ? "\n" : "");
    for (int i = 0; i < count; i++)
        spoiled |= strcmp(options[i], "--restrict") == 0 || strcmp(options[i], "-G") == 0;
    if (spoiled) made->cubin[made->size - 1] = '!';
    if (setting("locale", 0)) {
        (void)setlocale(LC_ALL, "C");
        (void)uselocale(LC_GLOBAL_LOCALE);
    }
    if (setting("crash", 0)) (void)raise(SIGSEGV);
    (void)usleep((useconds_t)setting("wait", 0) * 1000);
    const int most = setting("rows", 0), spills = made->rows > most ? made->rows - most : 0;
    if (most > 0)
        (void)snprintf(made->log + length, sizeof made->log - length,
                       "ptxas info    : Compiling entry function 'fj_fwd' for 'sm_80'\n"
                       "ptxas         .     0 bytes stack frame, %d bytes spill stores, 0 bytes spill loads\n"
                       "ptxas info    : Used 200 registers\n",
                       spills);
    if ((bad && strstr(made->cubin, bad)) || (made->rows != 0 && made->rows == setting("fails", 0))) return 6;
    return setting("result", setting("emulate", 0) ? emulate(made, count, options) : 0);
}
EXPORT int nvrtcGetCUBINSize(void *program, size_t *size) {
    *size = ((struct program *)program)->size;
    return 0;
}
EXPORT int nvrtcGetCUBIN(void *program, char *to) {
    memcpy(to, ((struct program *)program)->cubin, ((struct program *)program)->size);
    return 0;
}
EXPORT int nvrtcGetProgramLogSize(void *program, size_t *size) {
    *size = strlen(((struct program *)program)->log) + 1;
    return 0;
}
EXPORT int nvrtcGetProgramLog(void *program, char *to) {
    const char *log = ((struct program *)program)->log;
    memcpy(to, log, strlen(log) + 1);
    return 0;
}

#endif
