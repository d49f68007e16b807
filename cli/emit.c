/* Kernels as C files: their names, the files, and the descriptions for Meson and CMake. */
#include "cli/emit.h"

#include <errno.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "cli/file.h"
#include "cli/report.h"
#include "cli/safetensors.h"

enum { LONGEST_NAME = 160, MARK_WITHIN = 4096, LARGEST_FILE = 1 << 30 };

/* In the first lines of each file. */
static const char mark[] = "written by flexjit";

typedef struct emitted {
    const cli_build *build;
    char name[LONGEST_NAME + 16];
    bool is_cuda;
} emitted;

/* ---- Names ------------------------------------------------------------------------------- */

static void append_identifier(char *name, size_t size, const char *text, size_t length) {
    size_t at = strlen(name);
    for (size_t i = 0; i < length && at + 1 < size; i++) {
        const char c = text[i];
        const bool sound =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
        name[at++] = sound ? c : '_';
    }
    name[at] = '\0';
}

/* MOD_VARIANT, and of GPUs _ARCH: "alibi_fwd_mma_bf16_e64_v64_m128_n64_s2_w4_sm_80". */
static void name_build(const cli_build *build, const char *device, emitted *ret) {
    const char *slash = strrchr(build->name, '/'), *mod = slash != NULL ? slash + 1 : build->name;
    const char *dot = strrchr(mod, '.'), *colon = strchr(device, ':');
    const size_t length = mod[0] == 'e' && strchr(mod, '[') != NULL ? strcspn(mod, "]")
                        : dot != NULL && dot != mod                 ? (size_t)(dot - mod)
                                                                    : strlen(mod);
    *ret = (emitted){.build = build, .is_cuda = strncmp(device, "cuda", 4) == 0};
    if (!(mod[0] >= 'a' && mod[0] <= 'z') && !(mod[0] >= 'A' && mod[0] <= 'Z'))
        append_identifier(ret->name, LONGEST_NAME, "mod_", 4);
    append_identifier(ret->name, 48, mod, length);
    append_identifier(ret->name, LONGEST_NAME, "_", 1);
    append_identifier(ret->name, LONGEST_NAME, fj_plan_variant(build->plan),
                      strlen(fj_plan_variant(build->plan)));
    if (ret->is_cuda && colon != NULL) {
        append_identifier(ret->name, LONGEST_NAME, "_", 1);
        append_identifier(ret->name, LONGEST_NAME, colon + 1, strlen(colon + 1));
    }
}

/* Of names that are the same the later ones get numbers: _2, _3 ... */
static int make_unique(emitted *all, size_t count) {
    json_t *used = json_object();
    int status = used != NULL ? CLI_EXIT_OK : cli_no_memory();
    for (size_t i = 0; status == CLI_EXIT_OK && i < count; i++) {
        const size_t length = strlen(all[i].name);
        for (size_t n = 2; json_object_get(used, all[i].name) != NULL; n++)
            snprintf(all[i].name + length, sizeof all[i].name - length, "_%zu", n);
        if (json_object_set_new(used, all[i].name, json_true()) != 0) status = cli_no_memory();
    }
    json_decref(used);
    return status;
}

static int by_index(const void *a, const void *b) {
    const size_t x = *(const size_t *)a, y = *(const size_t *)b;
    return (x > y) - (x < y);
}

/* In the manifest's order. */
static int name_all(const cli_builds *builds, const size_t *indices, size_t count, fj_device *const *devices,
                    emitted *ret_all) {
    size_t *sorted = calloc(count + 1, sizeof *sorted);
    if (sorted == NULL) return cli_no_memory();
    if (count > 0) memcpy(sorted, indices, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_index);
    for (size_t i = 0; i < count; i++) {
        const cli_build *build = &builds->items[sorted[i]];
        name_build(build, fj_device_name(devices[build->device]), &ret_all[i]);
    }
    free(sorted);
    return make_unique(ret_all, count);
}

/* ---- Files ------------------------------------------------------------------------------- */

static bool has_mark(const char *text, size_t size) {
    char first[MARK_WITHIN];
    const size_t length = size < sizeof first - 1 ? size : sizeof first - 1;
    memcpy(first, text, length);
    first[length] = '\0';
    return strstr(first, mark) != NULL;
}

/* Leaves alone what is the same, and what is somebody else's. */
static int write_text(const char *folder, const char *name, const char *text, size_t length) {
    char path[PATH_MAX];
    struct stat status;
    const int size = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (size < 0 || (size_t)size >= sizeof path)
        return cli_fail_file(CLI_EXIT_FAILED, folder, "the path of '%s' is too long", name);
    if (stat(path, &status) == 0) {
        char *there = NULL;
        size_t there_size = 0;
        const int result = cli_read_file(path, LARGEST_FILE, &there, &there_size);
        if (result != CLI_EXIT_OK) return result;
        const bool same = there_size == length && memcmp(there, text, length) == 0,
                   ours = has_mark(there, there_size);
        free(there);
        if (same) return CLI_EXIT_OK;
        if (!ours) return cli_fail_file(CLI_EXIT_FAILED, path, "is there, and was not written by flexjit");
    }
    return cli_write_file(path, text, length);
}

static int emit_one(const char *folder, const emitted *of) {
    char file[sizeof of->name + 2];
    fj_text header = {0}, source = {0};
    fj_error error = {0};
    const fj_status result = fj_plan_emit_c(of->build->plan, of->name, &header, &source, &error);
    if (result != FJ_OK) {
        if (error.file[0] == '\0') snprintf(error.file, sizeof error.file, "%s", of->build->name);
        return cli_fail_library(result, &error);
    }
    snprintf(file, sizeof file, "%s.h", of->name);
    int status = write_text(folder, file, header.data, header.length);
    snprintf(file, sizeof file, "%s.c", of->name);
    if (status == CLI_EXIT_OK) status = write_text(folder, file, source.data, source.length);
    fj_text_finish(&header);
    fj_text_finish(&source);
    return status;
}

/* ---- Descriptions for build systems ------------------------------------------------------ */

static const char meson_begin[] =
    "# The kernels of this folder as a static library; written by flexjit. In a project of C:\n"
    "#     subdir('FOLDER')\n"
    "#     executable('program', 'program.c', dependencies: flexjit_kernels_dep)\n"
    "flexjit_kernels_cc = meson.get_compiler('c')\n"
    "flexjit_kernels_deps = [\n"
    "  flexjit_kernels_cc.find_library('m', required: false),\n"
    "  dependency('openmp', language: 'c', required: false),\n"
    "]\n";
static const char meson_cuda[] =
    "# cuda.h and libcuda: set flexjit_cuda_dep before where they are elsewhere.\n"
    "if not is_variable('flexjit_cuda_dep')\n"
    "  flexjit_cuda_dep = flexjit_kernels_cc.find_library('cuda')\n"
    "endif\n"
    "flexjit_kernels_deps += flexjit_cuda_dep\n";
static const char meson_end[] = "  c_args: ['-O2'],\n"
                                "  override_options: ['c_std=c11'],\n"
                                "  pic: true,\n"
                                "  dependencies: flexjit_kernels_deps,\n"
                                ")\n"
                                "flexjit_kernels_dep = declare_dependency(\n"
                                "  link_with: flexjit_kernels,\n"
                                "  include_directories: include_directories('.'),\n"
                                "  dependencies: flexjit_kernels_deps,\n"
                                ")\n";

static const char cmake_begin[] =
    "# The kernels of this folder as a static library; written by flexjit. In a project of C:\n"
    "#     add_subdirectory(FOLDER)\n"
    "#     target_link_libraries(program PRIVATE flexjit_kernels)\n"
    "cmake_minimum_required(VERSION 3.17)\n"
    "add_library(flexjit_kernels STATIC\n";
static const char cmake_end[] =
    ")\n"
    "target_include_directories(flexjit_kernels PUBLIC ${CMAKE_CURRENT_SOURCE_DIR})\n"
    "target_compile_options(flexjit_kernels PRIVATE -O2)\n"
    "set_target_properties(flexjit_kernels PROPERTIES C_STANDARD 11 C_EXTENSIONS OFF POSITION_INDEPENDENT_CODE ON)\n"
    "target_link_libraries(flexjit_kernels PUBLIC m)\n"
    "find_package(OpenMP COMPONENTS C)\n"
    "if(OpenMP_C_FOUND)\n"
    "  target_link_libraries(flexjit_kernels PUBLIC OpenMP::OpenMP_C)\n"
    "endif()\n";
static const char cmake_cuda[] = "find_package(CUDAToolkit 12 REQUIRED)\n"
                                 "target_link_libraries(flexjit_kernels PUBLIC CUDA::cuda_driver)\n";

static int write_meson(const char *folder, const emitted *all, size_t count, bool cuda) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) return cli_no_memory();
    fputs(meson_begin, out);
    if (cuda) fputs(meson_cuda, out);
    fputs("flexjit_kernels = static_library('flexjit_kernels',\n", out);
    for (size_t i = 0; i < count; i++) fprintf(out, "  '%s.c',\n", all[i].name);
    fputs(meson_end, out);
    if (fclose(out) != 0) return cli_no_memory();
    const int status = write_text(folder, "meson.build", text, size);
    free(text);
    return status;
}

static int write_cmake(const char *folder, const emitted *all, size_t count, bool cuda) {
    char *text = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&text, &size);
    if (out == NULL) return cli_no_memory();
    fputs(cmake_begin, out);
    for (size_t i = 0; i < count; i++) fprintf(out, "  %s.c\n", all[i].name);
    fputs(cmake_end, out);
    if (cuda) fputs(cmake_cuda, out);
    if (fclose(out) != 0) return cli_no_memory();
    const int status = write_text(folder, "CMakeLists.txt", text, size);
    free(text);
    return status;
}

int cli_emit_c(const char *folder, const cli_builds *builds, const size_t *indices, size_t count,
               fj_device *const *devices) {
    bool cuda = false;
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        return cli_fail_file(CLI_EXIT_FAILED, folder, "cannot be made: %s", strerror(errno));
    emitted *all = calloc(count + 1, sizeof *all);
    int status = all != NULL ? name_all(builds, indices, count, devices, all) : cli_no_memory();
    for (size_t i = 0; i < count && status == CLI_EXIT_OK; i++) {
        status = emit_one(folder, &all[i]);
        cuda |= all[i].is_cuda;
    }
    if (status == CLI_EXIT_OK) status = write_meson(folder, all, count, cuda);
    if (status == CLI_EXIT_OK) status = write_cmake(folder, all, count, cuda);
    if (status == CLI_EXIT_OK)
        cli_note("%.300s: a pair of C files for each of %zu kernels, meson.build and CMakeLists.txt", folder,
                 count);
    free(all);
    return status;
}
