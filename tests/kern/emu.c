/* The emulator: kernels compiled by the host's C++ compiler, run on the CPU. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/kern/kern.h"

/* For the compiler of this program; with other flags a call of a primitive may be doubled, and call sites say nothing. */
static const char strict[] = "-Og " KERN_STRICT;
struct object {
    void *library;
    char path[640]; /* stays until then: sanitizers read lines from it */
    const fj_emu_kernel *kernels[FJ_JIT_MAX_ENTRIES];
    const fj_variant *variant;
};

static void *compile(const kernel *k, const char *text, const char *library, FILE *out) {
    char source[640], command[4096];
    (void)snprintf(source, sizeof source, "%.*s.cc", (int)strlen(library) - 3, library);
    (void)snprintf(command, sizeof command,
                   "%s -x c++ -std=c++17 -w %s " KERN_SANITIZER
                   " -ffp-contract=off -DFJ_ARCH=%d -fPIC -shared -o %s %s",
                   host_tools.cxx, host_tools.flags ? host_tools.flags : strict, k->variant.arch.number,
                   library, source);
    return host_compile(text, command, source, library, out);
}

static bool build(const kernel *k, const char *text, FILE *out, object **ret_object) {
    object *o = calloc(1, sizeof *o);
    if (!o) abort();
    o->variant = &k->variant;
    (void)snprintf(o->path, sizeof o->path, "%s/%s.%d.so", host_tools.folder, k->name, (int)getpid());
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
        .one_call_site = !host_tools.flags,
        .shared_limit = (uint32_t)fj_jit_arch_features(o->variant->arch).shared_limit,
    };
    const fj_status status = emu ? FJ_OK : fj_emu_create(&fj_allocator_libc, &emu, error);
    return status == FJ_OK ? fj_emu_launch(emu, o->kernels[entry], &launched, args, &how, error) : status;
}

const device device_emu = {
    .name = "emu",
    .has_modes = true,
    .counts = true,
    .build = build,
    .unload = unload,
    .run = gpu_run,
    .args_size = args_size,
    .launch = launch,
    HOST_MEMORY,
};
