/* Which NVRTC there are, and which one compiles for an architecture. Each is asked in a process of its own: a library
 * that crashes when it is opened is one that does not work, and nothing of it stays in the caller's process. */
#include "jit/nvrtc.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_LIBRARIES = 8 };

/* Those that answered, in the order in which they were found. They only grow in number. */
static struct {
    pthread_mutex_t lock;
    int count;
    bool unusable; /* one was there, but cannot be used */
    fj_nvrtc list[MOST_LIBRARIES];
} shared = {.lock = PTHREAD_MUTEX_INITIALIZER};

typedef struct opening {
    fj_arch arch;
    const fj_file_ops *ops;
    const fj_nvrtc *found;
    fj_buf looked;   /* a line for each place */
    fj_status sick;  /* of the first library that is there but cannot be used */
    fj_error error;  /* why */
    fj_status ended; /* the search, by an error that has nothing to do with the place */
} opening;

/* ---- Asking -------------------------------------------------------------------------------------------- */

static bool read_answer(const char *text, fj_nvrtc *nvrtc) {
    int length = 0, read = 0;
    if (sscanf(text, "path %1023[^\n]\nversion %d %d\narchs%n", nvrtc->path, &nvrtc->major, &nvrtc->minor,
               &length) != 3 ||
        length == 0)
        return false;
    while (nvrtc->arch_count < FJ_NVRTC_MAX_ARCHS &&
           sscanf(text + length, "%d%n", &nvrtc->archs[nvrtc->arch_count], &read) == 1) {
        nvrtc->arch_count++;
        length += read;
    }
    (void)snprintf(nvrtc->builtins, sizeof nvrtc->builtins, "libnvrtc-builtins.so.%d.%d", nvrtc->major,
                   nvrtc->minor);
    return true;
}

static fj_status ask(const fj_file_ops *ops, const char *path, fj_buf *answer, fj_error *error) {
    const char *const arguments[] = {"nvrtc", "ask", path, NULL};
    fj_workshop shop;
    fj_status status = fj_workshop_open(&shop, ops, error);
    if (status != FJ_OK) return status;
    status = fj_jit_nvrtc_run(&shop, arguments, answer, error);
    fj_workshop_close(&shop);
    return status;
}

/* The rest of a line that begins with the word, its newline cut; NULL. */
static const char *after(const char *word, char *text) {
    const size_t length = strlen(word);
    if (strncmp(text, word, length) != 0) return NULL;
    text[strcspn(text, "\n")] = '\0';
    return text + length;
}

static void note_sick(opening *o, const char *path, const char *why) {
    if (o->sick == FJ_OK)
        o->sick = fj_error_set(&o->error, FJ_ERR_DEVICE,
                               "'%.400s' is not NVRTC of version 12 or newer: %.300s", path, why);
    fj_buf_printf(&o->looked, "  %s: no NVRTC of version 12 or newer: %s\n", path, why);
}

static void note_closed(opening *o, const char *path, const char *reason) {
    const bool absent = strstr(reason, "No such file") != NULL;
    fj_buf_printf(&o->looked, "  %s%s%s\n", path, absent ? "" : ": ", absent ? "" : reason);
    if (absent || o->sick != FJ_OK) return;
    o->sick = fj_error_set(&o->error, FJ_ERR_DEVICE, "'%.400s' cannot be opened: %.400s", path, reason);
}

/* ---- The list -------------------------------------------------------------------------------------------- */

static bool knows(const fj_nvrtc *nvrtc, fj_arch arch) {
    for (int i = 0; i < nvrtc->arch_count; i++)
        if (nvrtc->archs[i] == arch.number) return true;
    return arch.number == 0;
}

static bool is_usable(const fj_nvrtc *nvrtc, fj_arch arch) { return !nvrtc->broken && knows(nvrtc, arch); }

static fj_nvrtc *find_path(const char *path) {
    for (int i = 0; i < shared.count; i++)
        if (strcmp(shared.list[i].path, path) == 0) return &shared.list[i];
    return NULL;
}

static bool take(opening *o, const char *text) {
    fj_nvrtc nvrtc = {0};
    char why[64];
    if (!read_answer(text, &nvrtc)) return false;
    if (nvrtc.major < 12) {
        (void)snprintf(why, sizeof why, "it is %d.%d", nvrtc.major, nvrtc.minor);
        note_sick(o, nvrtc.path, why);
        return false;
    }
    fj_nvrtc *known = find_path(nvrtc.path);
    if (!known && shared.count < MOST_LIBRARIES) {
        known = &shared.list[shared.count++];
        *known = nvrtc;
    }
    if (!known || !is_usable(known, o->arch)) return false;
    o->found = known;
    return true;
}

/* Where the process has a library of this name; false: it has none. */
static bool is_loaded(const char *name, char path[PATH_MAX]) {
    struct link_map *map = NULL;
    void *library = dlopen(name, RTLD_LAZY | RTLD_LOCAL | RTLD_NOLOAD);
    if (!library) return false;
    bool named = dlinfo(library, RTLD_DI_LINKMAP, &map) == 0 && map && map->l_name && *map->l_name;
    (void)snprintf(path, PATH_MAX, "%s", named ? map->l_name : name);
    (void)dlclose(library);
    return true;
}

static bool try_place(void *user, const char *path, bool loaded) {
    opening *o = user;
    char place[PATH_MAX];
    if (o->ended != FJ_OK) return false;
    if (loaded) {
        if (!is_loaded(path, place)) return false;
        path = place;
    } else if (strchr(path, '/') && access(path, F_OK) != 0) {
        fj_buf_printf(&o->looked, "  %s\n", path);
        return false;
    }
    fj_buf answer;
    fj_error error = {0};
    bool found = false;
    fj_buf_init(&answer, &fj_allocator_libc);
    fj_status status = ask(o->ops, path, &answer, &error);
    const char *text;
    if (status == FJ_ERR_COMPILER)
        note_sick(o, path, error.text);
    else if (status != FJ_OK)
        o->ended = fj_error_set(&o->error, status, "%s", error.text);
    else if ((text = after("closed ", answer.data)) != NULL)
        note_closed(o, path, text);
    else if ((text = after("foreign ", answer.data)) != NULL)
        note_sick(o, path, text);
    else
        found = take(o, answer.data);
    fj_error_finish(&error);
    fj_buf_finish(&answer);
    return found;
}

static fj_status not_found(const opening *o, fj_error *error) {
    const char *chosen = getenv("FLEXJIT_NVRTC");
    if (o->sick != FJ_OK)
        (void)fj_error_set(error, FJ_ERR_DEVICE, "%s", o->error.text);
    else if (chosen && *chosen)
        (void)fj_error_set(error, FJ_ERR_DEVICE,
                           "NVRTC cannot be opened: FLEXJIT_NVRTC='%.400s' is not the library", chosen);
    else
        (void)fj_error_set(error, FJ_ERR_DEVICE,
                           "NVRTC not found: searched for libnvrtc.so.13 and libnvrtc.so.12 in Python's "
                           "packages, conda, the system's loader, CUDA_PATH, CUDA_HOME and /usr/local/cuda");
    fj_error_note(error, "pip install nvidia-cuda-nvrtc, or have FLEXJIT_NVRTC name the library; "
                         "a prebuilt cache needs none");
    if (!o->looked.failed && o->looked.len > 0) fj_error_detail(error, o->looked.data, o->looked.len);
    return FJ_ERR_DEVICE;
}

/* A broken one is tried again: it says best what is wrong. Else the newest speaks for all. */
static fj_status take_unusable(opening *o, fj_error *error) {
    const fj_nvrtc *newest = NULL;
    for (int i = 0; i < shared.count; i++) {
        const fj_nvrtc *at = &shared.list[i];
        if (!o->found && knows(at, o->arch)) o->found = at;
        if (!newest || at->major * 1000 + at->minor > newest->major * 1000 + newest->minor) newest = at;
    }
    if (o->found) return FJ_OK;
    return newest ? fj_jit_nvrtc_check_arch(newest, o->arch, error) : not_found(o, error);
}

fj_status fj_jit_nvrtc_open(fj_arch arch, const fj_file_ops *ops, const fj_nvrtc **ret_nvrtc,
                            fj_error *error) {
    opening o = {.arch = arch, .ops = ops};
    fj_status status = FJ_OK;
    (void)pthread_mutex_lock(&shared.lock);
    for (int i = 0; i < shared.count && !o.found; i++)
        if (is_usable(&shared.list[i], arch)) o.found = &shared.list[i];
    if (!o.found) {
        fj_buf_init(&o.looked, &fj_allocator_libc);
        (void)fj_jit_nvrtc_find(try_place, &o);
        if (o.ended != FJ_OK)
            status = fj_error_set(error, o.ended, "%s", o.error.text);
        else if (!o.found)
            status = take_unusable(&o, error);
        shared.unusable |= o.sick != FJ_OK;
        fj_buf_finish(&o.looked);
        fj_error_finish(&o.error);
    }
    (void)pthread_mutex_unlock(&shared.lock);
    if (status == FJ_OK) *ret_nvrtc = o.found;
    return status;
}

bool fj_jit_nvrtc_saw_unusable(void) {
    (void)pthread_mutex_lock(&shared.lock);
    const bool saw = shared.unusable;
    (void)pthread_mutex_unlock(&shared.lock);
    return saw;
}

void fj_jit_nvrtc_give_up(const fj_nvrtc *nvrtc) {
    (void)pthread_mutex_lock(&shared.lock);
    fj_nvrtc *known = find_path(nvrtc->path);
    if (known) known->broken = true;
    (void)pthread_mutex_unlock(&shared.lock);
}

/* ---- Architectures ------------------------------------------------------------------------------------- */

/* The releases that compile for an architecture, as those releases list them. last: NULL when it still does. */
static const struct releases {
    int arch;
    const char *first, *last;
} releases[] = {
    {75, "12.0", NULL},  {80, "12.0", NULL},  {86, "12.0", NULL},  {87, "12.0", NULL},    {88, "13.0", NULL},
    {89, "12.0", NULL},  {90, "12.0", NULL},  {100, "12.8", NULL}, {101, "12.8", "12.9"}, {103, "12.9", NULL},
    {107, "13.4", NULL}, {110, "13.0", NULL}, {120, "12.8", NULL}, {121, "12.9", NULL},
};

static void say_releases(fj_arch arch, char text[48]) {
    text[0] = '\0';
    for (size_t i = 0; i < FJ_ARRAY_LEN(releases); i++) {
        if (releases[i].arch != arch.number) continue;
        if (releases[i].last)
            (void)snprintf(text, 48, ": %s to %s do", releases[i].first, releases[i].last);
        else
            (void)snprintf(text, 48, ": %s or newer does", releases[i].first);
    }
}

fj_status fj_jit_nvrtc_check_arch(const fj_nvrtc *nvrtc, fj_arch arch, fj_error *error) {
    char name[FJ_ARCH_NAME], list[256], release[48];
    int length = 0;
    if (knows(nvrtc, arch)) return FJ_OK;
    list[0] = '\0';
    for (int i = 0; i < nvrtc->arch_count && length + 12 < (int)sizeof list; i++)
        length += snprintf(list + length, sizeof list - (size_t)length, " sm_%d", nvrtc->archs[i]);
    fj_jit_arch_name(arch, name);
    say_releases(arch, release);
    (void)fj_error_set(error, FJ_ERR_DEVICE, "NVRTC %d.%d ('%.300s') does not compile for %s%s", nvrtc->major,
                       nvrtc->minor, nvrtc->path, name, release);
    fj_error_note(error, "it knows%s", list);
    return FJ_ERR_DEVICE;
}
