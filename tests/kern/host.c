/* Memory and compilers of the host, for the cpu and the emulator. */
#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kern/kern.h"

struct host_tools host_tools = {.cc = "cc", .cxx = "c++"};

#ifdef KERN_THREAD
/* The first race ends the test. */
const char *__tsan_default_options(void);
const char *__tsan_default_options(void) { return "halt_on_error=1"; }
#endif

/* ---- Compiling ------------------------------------------------------------------------------------- */

static bool write_text(const char *path, const char *text) {
    FILE *file = fopen(path, "w");
    if (!file) return false;
    const bool good = fputs(text, file) >= 0;
    return fclose(file) == 0 && good;
}

void *host_compile(const char *text, const char *command, const char *source, const char *library,
                   FILE *out) {
    if (!write_text(source, text)) return (void)fprintf(out, "    %s cannot be written\n", source), NULL;
    if (system(command) != 0) return (void)fprintf(out, "    does not compile: %s\n", command), NULL;
    void *opened = dlopen(library, RTLD_NOW | RTLD_LOCAL);
    if (!opened) (void)fprintf(out, "    %s\n", dlerror());
    return opened;
}

/* ---- Memory ---------------------------------------------------------------------------------------- */

void host_create(buffer *b, size_t size) {
    *b = (buffer){.host = fj_emu_guarded_alloc(size), .size = size};
    if (!b->host) abort();
    memset(b->host, 0xff, size);
    b->address = (uint64_t)(uintptr_t)b->host;
}

void host_destroy(buffer *b) {
    fj_emu_guarded_free(b->host, b->size);
    *b = (buffer){0};
}

bool host_put(const buffer *b) { return (void)b, true; }

/* Past the end nothing can be written; before it, in the same page, nothing should have been. */
bool host_get(const buffer *b) {
    const size_t before = (uintptr_t)b->host % 4096;
    for (size_t i = 1; b->host && i <= before; i++)
        if (*(b->host - i) != 0xff) return false;
    return true;
}
