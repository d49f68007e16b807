/* An NVRTC that compiles nothing: its cubin is the text's first line behind "\177ELF". FAKE_NVRTC is a list of settings
 * such as "major=12 minor=2 result=6 archs=90"; FAKE_NVRTC_LOG is what it says. With FAKE_OTHER_LIBRARY it is some
 * other library. */
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/jit/fake_nvrtc.h"

#define EXPORT __attribute__((visibility("default")))

static int setting(const char *name, int otherwise) {
    const char *at = getenv("FAKE_NVRTC");
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
    char cubin[128], log[4096];
};

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
    (void)snprintf(made->cubin, sizeof made->cubin, "\177ELF %.*s", (int)strcspn(source, "\n"), source);
    *program = made;
    return headers;
}
EXPORT int nvrtcDestroyProgram(void **program) {
    free(*program);
    *program = NULL;
    return 0;
}
EXPORT int nvrtcCompileProgram(void *program, int count, const char *const *options) {
    struct program *made = program;
    const char *log = getenv("FAKE_NVRTC_LOG");
    size_t length = (size_t)snprintf(made->log, sizeof made->log, "%s", log ? log : "");
    for (int i = 0; i < count && setting("options", 0); i++)
        length += (size_t)snprintf(made->log + length, sizeof made->log - length, "[%s]", options[i]);
    return setting("result", 0);
}
EXPORT int nvrtcGetCUBINSize(void *program, size_t *size) {
    *size = strlen(((struct program *)program)->cubin) + 1;
    return 0;
}
EXPORT int nvrtcGetCUBIN(void *program, char *to) {
    (void)strcpy(to, ((struct program *)program)->cubin);
    return 0;
}
EXPORT int nvrtcGetProgramLogSize(void *program, size_t *size) {
    *size = strlen(((struct program *)program)->log) + 1;
    return 0;
}
EXPORT int nvrtcGetProgramLog(void *program, char *to) {
    (void)strcpy(to, ((struct program *)program)->log);
    return 0;
}

#endif
