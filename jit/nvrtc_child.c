/* The program in which NVRTC runs, one for each question. The library holds it (embed) and starts it in a workshop:
 *
 *     nvrtc ask LIBRARY                                 -> answer
 *     nvrtc compile LIBRARY BUILTINS NAME [OPTION...]   kernel.cu -> kernel.cubin, messages, answer
 *
 * TMPDIR is the folder of these files. The first line of an answer is one of
 *
 *     path PATH          and then "version MAJOR MINOR", "archs 75 80 ..."
 *     result N TEXT      of nvrtcCompileProgram: 0 is success
 *     closed TEXT        the library cannot be opened, as the loader says
 *     foreign TEXT       it is some other library
 *
 * Why a process: NVRTC keeps state. What any user of the same library in a process compiled with -G or --restrict
 * changes later compilations of everyone (12.4 to 13.5; other registers, more spills, pointers that may not alias), and
 * up to 12.4 the calling thread is left in the C locale. Here there is no other user and nothing is left; nor can a
 * fault of NVRTC end the caller. Namespaces of the loader (dlmopen) keep the state apart as well, but NVRTC crashes on
 * threads that the other C library did not start.
 */
#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_ARCHS = 256, USAGE = 64 };

static struct {
    int (*version)(int *major, int *minor);
    const char *(*error_string)(int result);
    int (*arch_count)(int *count);
    int (*archs)(int *archs);
    int (*create)(void **program, const char *source, const char *name, int headers, const char *const *texts,
                  const char *const *names);
    int (*compile)(void *program, int options, const char *const *texts);
    int (*cubin_size)(void *program, size_t *size);
    int (*cubin)(void *program, char *bytes);
    int (*log_size)(void *program, size_t *size);
    int (*log)(void *program, char *text);
} nvrtc;

/* ---- Files ---------------------------------------------------------------------------------------------- */

static FILE *open_file(const char *name, const char *mode) {
    char path[PATH_MAX];
    const char *folder = getenv("TMPDIR");
    int length = snprintf(path, sizeof path, "%s/%s", folder ? folder : ".", name);
    return length > 0 && (size_t)length < sizeof path ? fopen(path, mode) : NULL;
}

static bool write_file(const char *name, const void *bytes, size_t size) {
    FILE *file = open_file(name, "wb");
    if (!file) return false;
    bool written = fwrite(bytes, 1, size, file) == size;
    return fclose(file) == 0 && written;
}

/* With a NUL behind it; NULL on failure. */
static char *read_file(const char *name) {
    FILE *file = open_file(name, "rb");
    long size = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    char *text = size >= 0 ? malloc((size_t)size + 1) : NULL;
    if (text) {
        rewind(file);
        text[fread(text, 1, (size_t)size, file)] = '\0';
    }
    if (file) (void)fclose(file);
    return text;
}

static int answer(const char *word, const char *text) {
    FILE *file = open_file("answer", "w");
    if (!file) return EXIT_FAILURE;
    (void)fprintf(file, "%s %s\n", word, text);
    return fclose(file) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

static int answer_result(int result) {
    char text[300];
    const char *name = nvrtc.error_string(result);
    (void)snprintf(text, sizeof text, "%d %.200s", result, name ? name : "");
    return answer("result", text);
}

/* ---- The library ------------------------------------------------------------------------------------------ */

/* NULL, or what it lacks. */
static const char *find_functions(void *library) {
    const struct {
        const char *name;
        void *slot;
    } functions[] = {
        {"nvrtcVersion", &nvrtc.version},
        {"nvrtcGetErrorString", &nvrtc.error_string},
        {"nvrtcGetNumSupportedArchs", &nvrtc.arch_count},
        {"nvrtcGetSupportedArchs", &nvrtc.archs},
        {"nvrtcCreateProgram", &nvrtc.create},
        {"nvrtcCompileProgram", &nvrtc.compile},
        {"nvrtcGetCUBINSize", &nvrtc.cubin_size},
        {"nvrtcGetCUBIN", &nvrtc.cubin},
        {"nvrtcGetProgramLogSize", &nvrtc.log_size},
        {"nvrtcGetProgramLog", &nvrtc.log},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function) return functions[i].name;
        memcpy(functions[i].slot, &function, sizeof function);
    }
    return NULL;
}

static void print_path(FILE *file, void *library, const char *path) {
    struct link_map *map = NULL;
    char real[PATH_MAX];
    if (dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name && *map->l_name) path = map->l_name;
    (void)fprintf(file, "path %s\n", realpath(path, real) ? real : path);
}

static int ask(void *library, const char *path) {
    int major = 0, minor = 0, count = 0, archs[MOST_ARCHS];
    bool told = nvrtc.version(&major, &minor) == 0;
    if (told && major >= 12)
        told = nvrtc.arch_count(&count) == 0 && count > 0 && count <= MOST_ARCHS && nvrtc.archs(archs) == 0;
    if (!told) return answer("foreign", "it does not say its version and architectures");
    FILE *file = open_file("answer", "w");
    if (!file) return EXIT_FAILURE;
    print_path(file, library, path);
    (void)fprintf(file, "version %d %d\narchs", major, minor);
    for (int i = 0; i < count; i++) (void)fprintf(file, " %d", archs[i]);
    (void)fputc('\n', file);
    return fclose(file) == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}

/* ---- Compiling ---------------------------------------------------------------------------------------------- */

/* Another number than NVRTC's own when the files fail. */
enum { NO_MEMORY = 1, NO_FILE = -1 };

static int keep_messages(void *program) {
    size_t size = 0;
    if (nvrtc.log_size(program, &size) != 0 || size <= 1) return 0;
    char *text = malloc(size);
    if (!text) return NO_MEMORY;
    int result = nvrtc.log(program, text);
    if (result == 0 && !write_file("messages", text, strnlen(text, size))) result = NO_FILE;
    free(text);
    return result;
}

static int keep_cubin(void *program) {
    size_t size = 0;
    int result = nvrtc.cubin_size(program, &size);
    if (result != 0) return result;
    char *bytes = malloc(size + 1);
    if (!bytes) return NO_MEMORY;
    result = nvrtc.cubin(program, bytes);
    if (result == 0 && !write_file("kernel.cubin", bytes, size)) result = NO_FILE;
    free(bytes);
    return result;
}

static int compile(const char *name, int count, const char *const *options) {
    char file[256];
    void *program = NULL;
    char *source = read_file("kernel.cu");
    if (!source) return answer_result(NO_FILE);
    (void)snprintf(file, sizeof file, "%s.cu", name);
    int result = nvrtc.create(&program, source, file, 0, NULL, NULL);
    if (result == 0) {
        result = nvrtc.compile(program, count, options);
        const int kept = keep_messages(program);
        if (result == 0) result = kept;
        if (result == 0) result = keep_cubin(program);
    }
    free(source);
    return answer_result(result); /* the program goes with the process */
}

int main(int argc, char **argv) {
    const bool compiles = argc >= 5 && strcmp(argv[1], "compile") == 0;
    if (!compiles && (argc != 3 || strcmp(argv[1], "ask") != 0)) return USAGE;
    void *library = dlopen(argv[2], RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char *reason = dlerror();
        return answer("closed", reason ? reason : "");
    }
    const char *missing = find_functions(library);
    if (missing) {
        char text[96];
        (void)snprintf(text, sizeof text, "it has no %s", missing);
        return answer("foreign", text);
    }
    if (!compiles) return ask(library, argv[2]);
    /* NVRTC opens its builtins by their bare name: the ones beside it are the right ones, whatever the loader's paths
     * say. What is open under that name is used. */
    (void)dlopen(argv[3], RTLD_NOW | RTLD_LOCAL);
    return compile(argv[4], argc - 5, (const char *const *)(argv + 5));
}
