/* Where NVRTC may be. The order is that of NVIDIA's cuda.pathfinder:
 *
 *     FLEXJIT_NVRTC              alone, when it is set: a file, or the folder of one
 *     what is loaded already     by PyTorch, say
 *     Python's wheels            nvidia/cu13/lib, nvidia/cuda_nvrtc/lib beside site-packages; no Python is run
 *     conda                      CONDA_PREFIX/lib
 *     the system's loader        LD_LIBRARY_PATH, ld.so.conf
 *     the toolkit                CUDA_PATH, CUDA_HOME, /usr/local/cuda, /usr/local/cuda-*
 *
 * In each place a newer major version comes first.
 */
#include <glob.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "jit/compile.h"
#include "jit/nvrtc.h"

static const char *const names[] = {"libnvrtc.so.13", "libnvrtc.so.12"};

typedef struct search {
    bool (*try)(void *user, const char *path, bool loaded);
    void *user;
    bool found;
} search;

static void look_at(search *s, const char *path, bool loaded) {
    if (!s->found) s->found = s->try(s->user, path, loaded);
}

static bool is_folder(const char *path) {
    struct stat status;
    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

static void look_in(search *s, const char *folder) {
    char path[PATH_MAX];
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        int length = snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        if (length > 0 && (size_t)length < sizeof path) look_at(s, path, false);
    }
}

/* As versions: 3.12 before 3.9. */
static int newest_first(const void *a, const void *b) {
    return strverscmp(*(char *const *)b, *(char *const *)a);
}

/* The folders that match, the newest version first. */
static void look_in_all(search *s, const char *pattern) {
    glob_t found = {0};
    if (s->found) return;
    if (glob(pattern, GLOB_NOSORT, NULL, &found) == 0) {
        qsort(found.gl_pathv, found.gl_pathc, sizeof *found.gl_pathv, newest_first);
        for (size_t i = 0; i < found.gl_pathc && !s->found; i++) look_in(s, found.gl_pathv[i]);
    }
    globfree(&found);
}

/* ---- Python --------------------------------------------------------------------------------------------- */

static void look_in_python(search *s, const char *prefix) {
    static const char *const wheels[] = {"cu13", "cuda_nvrtc"};
    static const char *const packages[] = {"site-packages", "dist-packages"};
    char pattern[PATH_MAX];
    for (size_t i = 0; i < FJ_ARRAY_LEN(wheels); i++)
        for (size_t j = 0; j < FJ_ARRAY_LEN(packages); j++) {
            int length = snprintf(pattern, sizeof pattern, "%s/lib/python3*/%s/nvidia/%s/lib", prefix,
                                  packages[j], wheels[i]);
            if (length > 0 && (size_t)length < sizeof pattern) look_in_all(s, pattern);
        }
}

/* PREFIX/bin/python3 -> PREFIX */
static void look_in_python_on_path(search *s, bool resolved) {
    char program[PATH_MAX], real[PATH_MAX];
    if (!fj_jit_compiler_locate("python3", program, sizeof program)) return;
    if (resolved && !realpath(program, real)) return;
    char *path = resolved ? real : program;
    for (int i = 0; i < 2; i++) {
        char *slash = strrchr(path, '/');
        if (!slash) return;
        *slash = '\0';
    }
    look_in_python(s, path);
}

static void look_in_pythons(search *s) {
    const char *environment = getenv("VIRTUAL_ENV"), *home = getenv("HOME");
    char local[PATH_MAX];
    if (environment && *environment) look_in_python(s, environment);
    look_in_python_on_path(s, false);
    look_in_python_on_path(s, true);
    int length = home && *home ? snprintf(local, sizeof local, "%s/.local", home) : 0;
    if (length > 0 && (size_t)length < sizeof local) look_in_python(s, local);
    look_in_python(s, "/usr/local");
    look_in_python(s, "/usr");
}

/* ---- The rest ---------------------------------------------------------------------------------------------- */

static void look_below(search *s, const char *variable, const char *const *folders) {
    const char *base = getenv(variable);
    char path[PATH_MAX];
    for (; base && *base && *folders; folders++) {
        int length = snprintf(path, sizeof path, "%s/%s", base, *folders);
        if (length > 0 && (size_t)length < sizeof path) look_in(s, path);
    }
}

bool fj_jit_nvrtc_find(bool (*try)(void *user, const char *path, bool loaded), void *user) {
    static const char *const lib[] = {"lib", NULL}, *const toolkit[] = {"lib64", "lib", NULL};
    search s = {.try = try, .user = user};
    const char *chosen = getenv("FLEXJIT_NVRTC");
    if (chosen && *chosen) {
        if (is_folder(chosen))
            look_in(&s, chosen);
        else
            look_at(&s, chosen, false);
        return s.found;
    }
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) look_at(&s, names[i], true);
    look_in_pythons(&s);
    look_below(&s, "CONDA_PREFIX", lib);
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) look_at(&s, names[i], false);
    look_below(&s, "CUDA_PATH", toolkit);
    look_below(&s, "CUDA_HOME", toolkit);
    look_in_all(&s, "/usr/local/cuda/lib64");
    look_in_all(&s, "/usr/local/cuda-*/lib64");
    return s.found;
}
