/* Adding a record to a file. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/tuning_record.h"

/* The folder and what leads to it. What goes wrong is seen when the file is opened. */
static void make_folders(const fj_file_ops *ops, char *path) {
    for (char *at = path + 1; *at; at++) {
        if (*at != '/') continue;
        *at = '\0';
        (void)ops->mkdir(path, 0700);
        *at = '/';
    }
}

/* NULL, or why nothing may be added to it. What a first write leaves that did not come to the end of the header is no
 * stranger's. */
static const char *look_through(fj_str text, const char *header, bool *ret_needs_header) {
    fj_tuning_reader reader;
    fj_tuning_record ignored;
    fj_tuning_reader_begin(&reader, text, false);
    while (fj_tuning_reader_next(&reader, &ignored)) continue;
    *ret_needs_header = !reader.current;
    if (reader.foreign) return "it has records of another schema; give another file";
    const bool torn = text.len < strlen(header) && memcmp(text.data, header, text.len) == 0;
    if (!reader.headed && reader.skipped > 0 && !torn) return "it is not a file of tuning records";
    return NULL;
}

static const char *write_once(const fj_file_ops *ops, int descriptor, const fj_buf *line) {
    ssize_t written;
    do written = ops->write(descriptor, line->data, line->len);
    while (written < 0 && errno == EINTR);
    if (written < 0) return strerror(errno);
    if ((size_t)written < line->len) return strerror(ENOSPC);
    return ops->fsync(descriptor) == 0 ? NULL : strerror(errno);
}

/* NULL, or what is wrong. record NULL: nothing is written. */
static const char *add(const fj_tuning *tuning, int descriptor, const char *header, const char *record) {
    fj_buf text, line;
    bool needs_header = false;
    fj_buf_init(&text, tuning->allocator);
    fj_buf_init(&line, tuning->allocator);
    const char *wrong = fj_tuning_read_file(tuning->ops, descriptor, &text);
    if (!wrong && !text.failed && text.len > 0)
        wrong = look_through((fj_str){text.data, text.len}, header, &needs_header);
    if (text.len > 0 && text.data[text.len - 1] != '\n') fj_buf_put(&line, "\n");
    if (text.len == 0 || needs_header) fj_buf_put(&line, header);
    if (record) fj_buf_put(&line, record);
    if (!wrong && (text.failed || line.failed)) wrong = "out of memory";
    if (!wrong && record) wrong = write_once(tuning->ops, descriptor, &line);
    fj_buf_finish(&line);
    fj_buf_finish(&text);
    return wrong;
}

static fj_status add_to(const fj_tuning *tuning, const char *path, const char *header, const char *record,
                        fj_error *error) {
    const int flags = O_RDWR | O_APPEND | (record ? O_CREAT : 0) | O_NONBLOCK | O_CLOEXEC;
    const int descriptor = tuning->ops->openat(AT_FDCWD, path, flags, 0644);
    if (descriptor < 0 && !record && errno == ENOENT) return FJ_OK;
    const char *wrong = descriptor < 0 ? strerror(errno) : add(tuning, descriptor, header, record);
    if (descriptor >= 0 && tuning->ops->close(descriptor) != 0 && !wrong) wrong = strerror(errno);
    if (!wrong) return FJ_OK;
    return fj_error_set(error, FJ_ERR_IO, "tuning record cannot be added to '%.200s': %s", path, wrong);
}

/* record NULL: it is seen whether one could be added. */
static fj_status append(fj_tuning *tuning, const char *file, const fj_tuning_new *record, fj_error *error) {
    if (!file && tuning->folders == 0)
        return fj_error_set(error, FJ_ERR_IO, "no folder for tuning records: set FLEXJIT_TUNE_PATH or HOME");
    fj_buf path;
    fj_buf_init(&path, tuning->allocator);
    if (file)
        fj_buf_put(&path, file);
    else
        fj_buf_printf(&path, "%s/" FJ_TUNING_FILE, fj_tuning_folder(tuning, 0));
    char *header = fj_tuning_header_text(), *text = record ? fj_tuning_record_text(record) : NULL;
    fj_status status = FJ_ERR_MEMORY;
    if (path.failed || !header || (record && !text)) {
        (void)fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    } else {
        if (!file && record) make_folders(tuning->ops, path.data);
        status = add_to(tuning, path.data, header, text, error);
    }
    free(header);
    free(text);
    fj_buf_finish(&path);
    return status;
}

fj_status fj_tuning_append(fj_tuning *tuning, const char *file, const fj_tuning_new *record,
                           fj_error *error) {
    return append(tuning, file, record, error);
}

fj_status fj_tuning_probe(fj_tuning *tuning, const char *file, fj_error *error) {
    return append(tuning, file, NULL, error);
}
