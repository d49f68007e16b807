/* The emulator: kernels compiled by the host's C++ compiler, run on the CPU. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/kern_cuda/kern.h"

/* What a test program is linked with, its kernels are compiled with. */
#ifndef KERN_SANITIZER
#define KERN_SANITIZER "-g1"
#endif

#ifdef KERN_THREAD
/* The first race ends the test. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "halt_on_error=1"; }
#endif

/* For the compiler of this program; with other flags a call of a primitive may be doubled, and call sites say nothing. */
static const char strict[] = "-Og " KERN_STRICT;
struct emu_tools emu_tools = {.cxx = "c++", .flags = strict};

struct object {
    void *library;
    char path[640]; /* stays until then: sanitizers read lines from it */
    const fj_emu_kernel *kernels[FJ_JIT_MAX_ENTRIES];
    const fj_variant *variant;
};

static bool write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    if (!file) return false;
    const bool good = fputs(text, file) >= 0;
    return fclose(file) == 0 && good;
}

static void *compile(const kernel *k, const char *text, const char *library, FILE *out) {
    char source[640], command[4096];
    (void)snprintf(source, sizeof source, "%.*s.cc", (int)strlen(library) - 3, library);
    (void)snprintf(command, sizeof command,
                   "%s -x c++ -std=c++17 -w %s " KERN_SANITIZER
                   " -ffp-contract=off -DFJ_ARCH=%d -fPIC -shared -o %s %s",
                   emu_tools.cxx, emu_tools.flags, k->variant.arch.number, library, source);
    if (!write_text(source, text)) return (void)fprintf(out, "    %s cannot be written\n", source), NULL;
    if (system(command) != 0) return (void)fprintf(out, "    does not compile: %s\n", command), NULL;
    void *opened = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!opened) (void)fprintf(out, "    %s\n", dlerror());
    return opened;
}

static bool build(const kernel *k, const char *text, FILE *out, object **ret_object) {
    object *o = calloc(1, sizeof *o);
    if (!o) abort();
    o->variant = &k->variant;
    (void)snprintf(o->path, sizeof o->path, "%s/%s.%d.so", emu_tools.folder, k->name, (int)getpid());
    o->library = compile(k, text, o->path, out);
    if (!o->library) return free(o), false;
    for (int i = 0; i < k->variant.entry_count; i++) {
        o->kernels[i] = dlsym(o->library, k->variant.entries[i].name);
        if (o->kernels[i]) continue;
        (void)fprintf(out, "    there is no kernel %s\n", k->variant.entries[i].name);
        free(o);
        return false;
    }
    *ret_object = o;
    return true;
}

static void unload(object *o) {
    (void)dlclose(o->library);
    (void)unlink(o->path);
    free(o);
}

static uint32_t args_size(const object *o, int entry) { return o->kernels[entry]->args_size; }

static fj_status launch(const object *o, int entry, const uint32_t grid[3], const void *args, const mode *m,
                        fj_emu_counts *counts, fj_error *error) {
    static fj_emu *emu; /* of this process */
    const fj_entry *e = &o->variant->entries[entry];
    const fj_emu_shape launched = {{grid[0], grid[1], grid[2]}, (uint32_t)e->threads, (uint32_t)e->shared};
    const fj_launch one = {.struct_size = sizeof one, .workers = 1};
    const fj_emu_options how = {
        .schedule = m->schedule,
        .copies = m->copies,
        .seed = 7,
        .launch = &one,
        .counts = counts,
        .rounding = m->rounding,
        .one_call_site = emu_tools.flags == strict,
        .shared_limit = (uint32_t)fj_jit_arch_features(o->variant->arch).shared_limit,
    };
    const fj_status status = emu ? FJ_OK : fj_emu_create(&fj_allocator_libc, &emu, error);
    return status == FJ_OK ? fj_emu_launch(emu, o->kernels[entry], &launched, args, &how, error) : status;
}

static void create(buffer *b, size_t size) {
    *b = (buffer){.host = fj_emu_guarded_alloc(size), .size = size};
    if (!b->host) abort();
    memset(b->host, 0xff, size);
    b->address = (uint64_t)(uintptr_t)b->host;
}

static void destroy(buffer *b) {
    fj_emu_guarded_free(b->host, b->size);
    *b = (buffer){0};
}

static bool put(const buffer *b) { return (void)b, true; }

/* Past the end nothing can be written; before it, in the same page, nothing should have been. */
static bool get(const buffer *b) {
    const size_t before = (uintptr_t)b->host % 4096;
    for (size_t i = 1; b->host && i <= before; i++)
        if (*(b->host - i) != 0xff) return false;
    return true;
}

const device device_emu = {
    .name = "emu",
    .has_modes = true,
    .build = build,
    .unload = unload,
    .args_size = args_size,
    .launch = launch,
    .create = create,
    .destroy = destroy,
    .put = put,
    .get = get,
};
