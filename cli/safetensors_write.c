/* The writer of safetensors files: a temporary file in the same folder, flushed to the disk, then renamed. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "cli/report.h"
#include "cli/safetensors.h"

static int cannot_write(const cli_st_writer *writer, int error) {
    return cli_fail_file(CLI_EXIT_FAILED, writer->path, "cannot be written: %s", strerror(error));
}

/* ---- Header ------------------------------------------------------------------------------ */

static size_t width(const cli_tensor *tensor) { return fj_dtype_size(tensor->dtype); }

/* Wide dtypes first, so that every tensor is aligned; else in the order given. */
static int by_width(const void *a, const void *b) {
    const cli_tensor *x = *(const cli_tensor *const *)a, *y = *(const cli_tensor *const *)b;
    if (width(x) != width(y)) return width(x) > width(y) ? -1 : 1;
    return x < y ? -1 : x > y;
}

static json_t *make_header(const cli_st_writer *writer) {
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "producer", "flexjit " FJ_VERSION);
    size_t offset = 0;
    for (size_t i = 0; i < writer->count; i++) {
        const cli_tensor *tensor = writer->order[i];
        json_t *shape = json_array();
        for (int d = 0; d < tensor->rank; d++) json_array_append_new(shape, json_integer(tensor->dims[d]));
        size_t end = offset + tensor->size;
        json_t *entry = json_pack("{s:s, s:o, s:[I,I]}", "dtype", fj_dtype_name(tensor->dtype), "shape",
                                  shape, "data_offsets", (json_int_t)offset, (json_int_t)end);
        if (json_object_set_new(header, tensor->name, entry) != 0) {
            json_decref(header);
            return NULL;
        }
        offset = end;
    }
    return header;
}

/* The length, the JSON, and blanks up to a multiple of 64 bytes. */
static bool render_header(cli_st_writer *writer) {
    json_t *header = make_header(writer);
    char *text = header == NULL ? NULL : json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (text == NULL) return false;
    size_t length = strlen(text), whole = (8 + length + 63) / 64 * 64;
    writer->header = malloc(whole);
    if (writer->header != NULL) {
        uint64_t number = whole - 8;
        for (int i = 0; i < 8; i++) writer->header[i] = (char)(number >> (8 * i) & 0xff);
        memcpy(writer->header + 8, text, length);
        memset(writer->header + 8 + length, ' ', whole - 8 - length);
        writer->header_size = whole;
    }
    free(text);
    return writer->header != NULL;
}

static bool prepare(cli_st_writer *writer, const cli_tensor *tensors) {
    writer->order = calloc(writer->count + 1, sizeof(const cli_tensor *));
    if (writer->order == NULL) return false;
    for (size_t i = 0; i < writer->count; i++) writer->order[i] = &tensors[i];
    qsort(writer->order, writer->count, sizeof(const cli_tensor *), by_width);
    return render_header(writer);
}

/* ---- Files ------------------------------------------------------------------------------- */

/* A device such as /dev/null must be written to, not replaced. */
static int open_directly(cli_st_writer *writer) {
    writer->file = open(writer->target, O_WRONLY | O_CLOEXEC);
    return writer->file < 0 ? cannot_write(writer, errno) : CLI_EXIT_OK;
}

/* FOLDER/.NAME.XXXXXX, with the mode that a file made by the user would have. */
static int open_temporary(cli_st_writer *writer, const struct stat *old) {
    const char *slash = strrchr(writer->target, '/');
    int folder = slash == NULL ? 0 : (int)(slash + 1 - writer->target);
    char *temporary = NULL;
    if (asprintf(&temporary, "%.*s.%.200s.XXXXXX", folder, writer->target, writer->target + folder) < 0) {
        return cli_no_memory();
    }
    cli_interrupt_guard(temporary); /* before it is there: its name is filled in place */
    writer->file = mkostemp(temporary, O_CLOEXEC);
    if (writer->file < 0) {
        int error = errno;
        cli_interrupt_guard(NULL);
        free(temporary);
        return cannot_write(writer, error);
    }
    writer->temporary = temporary;
    mode_t mask = umask(0);
    umask(mask);
    (void)fchmod(writer->file, old != NULL ? old->st_mode & 0777 : 0666 & ~mask);
    size_t size = writer->header_size;
    for (size_t i = 0; i < writer->count; i++) size += writer->order[i]->size;
    if (fallocate(writer->file, 0, 0, (off_t)size) != 0 &&
        (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
        return cannot_write(writer, errno); /* other errors: the file system cannot reserve */
    }
    return CLI_EXIT_OK;
}

static int open_target(cli_st_writer *writer) {
    struct stat old;
    bool exists = stat(writer->path, &old) == 0;
    writer->target = exists ? realpath(writer->path, NULL) : strdup(writer->path);
    if (writer->target == NULL) return exists ? cannot_write(writer, errno) : cli_no_memory();
    if (exists && S_ISDIR(old.st_mode)) return cannot_write(writer, EISDIR);
    if (exists && !S_ISREG(old.st_mode)) return open_directly(writer);
    return open_temporary(writer, exists ? &old : NULL);
}

/* Removes the temporary file, if there is one, and frees everything. */
static void release(cli_st_writer *writer) {
    if (writer->file >= 0) close(writer->file);
    if (writer->temporary != NULL) {
        unlink(writer->temporary);
        cli_interrupt_guard(NULL);
    }
    free(writer->temporary);
    free(writer->target);
    free(writer->header);
    free(writer->order);
    *writer = (cli_st_writer){0};
}

int cli_st_create(const char *path, const cli_tensor *tensors, size_t count, cli_st_writer *ret_writer) {
    cli_st_writer writer = {.path = path, .file = -1, .count = count};
    int status = prepare(&writer, tensors) ? open_target(&writer) : cli_no_memory();
    if (status != CLI_EXIT_OK) {
        release(&writer);
        return status;
    }
    writer.is_open = true;
    *ret_writer = writer;
    return CLI_EXIT_OK;
}

static bool write_all(int file, const void *data, size_t size) {
    enum { MOST = 1 << 30 }; /* Linux writes at most 2 GiB at a time */
    const char *at = data;
    while (size > 0) {
        ssize_t written = write(file, at, size < MOST ? size : MOST);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) {
            if (written == 0) errno = ENOSPC;
            return false;
        }
        at += written;
        size -= (size_t)written;
    }
    return true;
}

static bool write_tensors(cli_st_writer *writer) {
    if (!write_all(writer->file, writer->header, writer->header_size)) return false;
    for (size_t i = 0; i < writer->count; i++) {
        if (!write_all(writer->file, writer->order[i]->data, writer->order[i]->size)) return false;
    }
    return writer->temporary == NULL || fsync(writer->file) == 0;
}

/* The rename is on the disk when the folder is. A file system that cannot do that loses nothing else. */
static void flush_folder(const char *target) {
    char *copy = strdup(target);
    if (copy == NULL) return;
    char *slash = strrchr(copy, '/');
    if (slash != NULL) slash[1] = '\0';
    int folder = open(slash != NULL ? copy : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder >= 0) {
        (void)fsync(folder);
        close(folder);
    }
    free(copy);
}

int cli_st_commit(cli_st_writer *writer) {
    bool ok = write_tensors(writer);
    int error = errno;
    if (close(writer->file) != 0 && ok) {
        ok = false;
        error = errno;
    }
    writer->file = -1;
    if (ok && writer->temporary != NULL) {
        ok = rename(writer->temporary, writer->target) == 0;
        error = errno;
        if (ok) {
            cli_interrupt_guard(NULL);
            free(writer->temporary);
            writer->temporary = NULL;
            flush_folder(writer->target);
        }
    }
    int status = ok ? CLI_EXIT_OK : cannot_write(writer, error);
    cli_st_discard(writer);
    return status;
}

void cli_st_discard(cli_st_writer *writer) {
    if (writer->is_open) release(writer);
}

/* A header alone. */
int cli_write_file(const char *path, const void *data, size_t size) {
    cli_st_writer writer = {.path = path, .file = -1, .header = malloc(size + 1), .header_size = size};
    if (writer.header == NULL) return cli_no_memory();
    memcpy(writer.header, data, size);
    const int status = open_target(&writer);
    if (status != CLI_EXIT_OK) {
        release(&writer);
        return status;
    }
    writer.is_open = true;
    return cli_st_commit(&writer);
}
