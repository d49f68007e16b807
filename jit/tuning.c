/* Records of tuning: which folders they are in, and reading them. */
#include "jit/tuning_record.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LARGEST = 64 << 20 /* bytes of a file */ };

static const char suffix[] = ".jsonl";

/* ---- Setting up ---------------------------------------------------------------------------------------- */

/* The user's folder is where the XDG base directory specification says; none without a home. */
static void default_path(char *text, size_t size) {
    const char *base = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    int length = 0;
    text[0] = '\0';
    if (base && base[0] == '/')
        length = snprintf(text, size, "%s/flexjit/tune", base);
    else if (home && home[0] == '/')
        length = snprintf(text, size, "%s/.local/share/flexjit/tune", home);
    if (length < 0 || (size_t)length >= size) text[0] = '\0';
}

static bool set_paths(fj_tuning *tuning, const char *list) {
    char standard[4096];
    if (!list) list = getenv("FLEXJIT_TUNE_PATH");
    if (!list || !*list) {
        default_path(standard, sizeof standard);
        list = standard;
    }
    tuning->paths_size = strlen(list) + 2;
    tuning->paths = fj_alloc_zeroed(tuning->allocator, tuning->paths_size);
    if (!tuning->paths) return false;
    char *to = tuning->paths;
    for (const char *from = list; *from;) {
        const size_t length = strcspn(from, ":");
        if (length > 0) {
            memcpy(to, from, length);
            to += length + 1;
            tuning->folders++;
        }
        from += length + (from[length] == ':');
    }
    return true;
}

const char *fj_tuning_folder(const fj_tuning *tuning, size_t index) {
    const char *path = tuning->paths;
    while (index-- > 0) path += strlen(path) + 1;
    return path;
}

fj_status fj_tuning_create(const fj_tuning_desc *desc, fj_tuning **ret_tuning) {
    fj_tuning *tuning = fj_alloc_zeroed(desc->allocator, sizeof *tuning);
    if (!tuning) return FJ_ERR_MEMORY;
    tuning->allocator = desc->allocator;
    tuning->ops = desc->ops ? desc->ops : &fj_file_ops_system;
    tuning->log = desc->log;
    tuning->log_user = desc->log_user;
    tuning->shipped = desc->shipped;
    tuning->shipped_count = desc->shipped_count;
    fj_arena_init(&tuning->arena, desc->allocator);
    (void)pthread_mutex_init(&tuning->lock, NULL);
    if (!set_paths(tuning, desc->path)) {
        fj_tuning_destroy(&tuning);
        return FJ_ERR_MEMORY;
    }
    *ret_tuning = tuning;
    return FJ_OK;
}

void fj_tuning_destroy(fj_tuning **tuning) {
    if (!tuning || !*tuning) return;
    const fj_allocator *allocator = (*tuning)->allocator;
    (void)pthread_mutex_destroy(&(*tuning)->lock);
    fj_arena_finish(&(*tuning)->arena);
    fj_free(allocator, (*tuning)->paths, (*tuning)->paths_size);
    fj_free(allocator, *tuning, sizeof **tuning);
    *tuning = NULL;
}

void fj_tuning_log(const fj_tuning *tuning, fj_log_level level, const char *format, ...) {
    if (!tuning->log) return;
    char message[1024];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(message, sizeof message, format, list);
    va_end(list);
    tuning->log(tuning->log_user, level, message);
}

/* ---- Files --------------------------------------------------------------------------------------------- */

const char *fj_tuning_read_file(const fj_file_ops *ops, int descriptor, fj_buf *text) {
    char part[16384];
    struct stat status;
    if (ops->fstat(descriptor, &status) != 0) return strerror(errno);
    if (!S_ISREG(status.st_mode)) return "it is not a regular file";
    for (;;) {
        const ssize_t got = ops->read(descriptor, part, sizeof part);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return strerror(errno);
        if (got == 0) return NULL;
        if (text->len + (size_t)got > LARGEST) return "it is larger than 64 MiB";
        fj_buf_write(text, part, (size_t)got);
    }
}

/* What a scope that is left early leaves to its caller. */
typedef struct loading {
    fj_tuning *tuning;
    fj_buf text, names; /* names: with a NUL after each */
} loading;

static void no_memory_if(fj_scope *scope, bool failed) {
    if (failed) fj_fail(scope, FJ_ERR_MEMORY, "out of memory");
}

static void read_text(fj_scope *scope, fj_tuning *tuning, const char *name, fj_str text, bool shipped,
                      fj_tuning_layer *layer) {
    fj_tuning_reader reader;
    fj_tuning_record record;
    fj_tuning_reader_begin(&reader, text, shipped);
    const int file = (int)tuning->files.len;
    FJ_PUSH(scope->arena, &tuning->files, name);
    layer->files++;
    while (fj_tuning_reader_next(&reader, &record)) {
        record.file = file;
        FJ_PUSH(scope->arena, &tuning->records, record);
        layer->records++;
    }
    layer->skipped += reader.skipped;
    if (reader.skipped > 0)
        fj_tuning_log(tuning, FJ_LOG_WARN, "tuning file %s: %d line%s not used; line %d %s", name,
                      reader.skipped, reader.skipped == 1 ? " is" : "s are", reader.first_line,
                      reader.first_why);
}

static void read_one(fj_scope *scope, loading *load, const char *folder, const char *name,
                     fj_tuning_layer *layer) {
    fj_tuning *tuning = load->tuning;
    const char *path = fj_arena_printf(scope->arena, "%s/%s", folder, name);
    fj_buf_finish(&load->text);
    fj_buf_init(&load->text, tuning->allocator);
    const int descriptor = tuning->ops->openat(AT_FDCWD, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC, 0);
    const char *wrong =
        descriptor < 0 ? strerror(errno) : fj_tuning_read_file(tuning->ops, descriptor, &load->text);
    if (wrong) fj_tuning_log(tuning, FJ_LOG_WARN, "tuning file %s is not used: %s", path, wrong);
    if (descriptor >= 0) (void)tuning->ops->close(descriptor);
    no_memory_if(scope, load->text.failed);
    if (!wrong) read_text(scope, tuning, path, (fj_str){load->text.data, load->text.len}, false, layer);
}

static void collect(void *user, const char *name) {
    const size_t length = strlen(name), end = sizeof suffix - 1;
    if (length > end && strcmp(name + length - end, suffix) == 0) fj_buf_write(user, name, length + 1);
}

static int by_name(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Its files in the order of their names. */
static void read_folder(fj_scope *scope, loading *load, const char *folder, fj_tuning_layer *layer) {
    const fj_file_ops *ops = load->tuning->ops;
    fj_buf_finish(&load->names);
    fj_buf_init(&load->names, load->tuning->allocator);
    const int directory = ops->openat(AT_FDCWD, folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    const int reason = errno;
    layer->exists = directory >= 0 || reason != ENOENT;
    const bool listed = directory >= 0 && ops->list(directory, collect, &load->names) == 0;
    if (!listed && layer->exists)
        fj_tuning_log(load->tuning, FJ_LOG_WARN, "tuning folder %s is not used: %s", folder,
                      strerror(directory >= 0 ? errno : reason));
    if (directory >= 0) (void)ops->close(directory);
    no_memory_if(scope, load->names.failed);
    FJ_VEC(const char *) names = {0};
    for (size_t at = 0; at < load->names.len; at += strlen(load->names.data + at) + 1)
        FJ_PUSH(scope->arena, &names, load->names.data + at);
    if (names.len > 1) qsort(names.data, names.len, sizeof *names.data, by_name);
    for (size_t i = 0; i < names.len; i++) read_one(scope, load, folder, names.data[i], layer);
}

static void read_all(fj_scope *scope, void *argument) {
    loading *load = argument;
    fj_tuning *tuning = load->tuning;
    for (size_t i = 0; i <= tuning->folders; i++) {
        fj_tuning_shelf shelf = {.first = tuning->records.len};
        if (i < tuning->folders) {
            shelf.info = (fj_tuning_layer){.path = fj_tuning_folder(tuning, i), .written = i == 0};
            read_folder(scope, load, shelf.info.path, &shelf.info);
        } else {
            shelf.info = (fj_tuning_layer){.path = "(built in)", .exists = true};
            for (size_t k = 0; k < tuning->shipped_count; k++)
                read_text(scope, tuning, tuning->shipped[k].name,
                          (fj_str){tuning->shipped[k].text, tuning->shipped[k].len}, true, &shelf.info);
        }
        shelf.end = tuning->records.len;
        FJ_PUSH(scope->arena, &tuning->shelves, shelf);
    }
}

/* What was read of it is forgotten. */
static void forget(fj_tuning *tuning) {
    fj_arena_finish(&tuning->arena);
    fj_arena_init(&tuning->arena, tuning->allocator);
    memset(&tuning->records, 0, sizeof tuning->records);
    memset(&tuning->files, 0, sizeof tuning->files);
    memset(&tuning->shelves, 0, sizeof tuning->shelves);
}

fj_status fj_tuning_read(fj_tuning *tuning) {
    fj_status status = FJ_OK;
    (void)pthread_mutex_lock(&tuning->lock);
    if (!tuning->read) {
        loading load = {.tuning = tuning};
        fj_buf_init(&load.text, tuning->allocator);
        fj_buf_init(&load.names, tuning->allocator);
        status = fj_scope_run(&tuning->arena, NULL, read_all, &load);
        fj_buf_finish(&load.text);
        fj_buf_finish(&load.names);
        if (status != FJ_OK) forget(tuning);
        tuning->read = status == FJ_OK;
    }
    (void)pthread_mutex_unlock(&tuning->lock);
    return status;
}

size_t fj_tuning_layer_count(const fj_tuning *tuning) { return tuning->folders + 1; }

fj_tuning_layer fj_tuning_layer_at(const fj_tuning *tuning, size_t index) {
    return tuning->shelves.data[index].info;
}
