/* fj_error: filling it, and rendering it with its source line and caret. */
#include "base/base.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void fj_error_finish(fj_error *error) {
    if (!error) return;
    free(error->detail);
    memset(error, 0, sizeof *error);
}

fj_status fj_error_set(fj_error *error, fj_status status, const char *format, ...) {
    if (error) {
        fj_error_finish(error);
        error->status = status;
        va_list list;
        va_start(list, format);
        (void)vsnprintf(error->text, sizeof error->text, format, list);
        va_end(list);
    }
    return status;
}

void fj_error_note(fj_error *error, const char *format, ...) {
    if (!error) return;
    va_list list;
    va_start(list, format);
    (void)vsnprintf(error->note, sizeof error->note, format, list);
    va_end(list);
}

void fj_error_detail(fj_error *error, const char *text, size_t length) {
    if (!error) return;
    free(error->detail);
    error->detail = malloc(length + 1);
    if (!error->detail) return; /* the sentence in text says enough */
    if (length) memcpy(error->detail, text, length);
    error->detail[length] = '\0';
}

/* The caret line: tabs of the source line are kept so that the columns agree on a terminal. */
static void put_caret(fj_buf *buf, const fj_error *error) {
    fj_buf_put(buf, "      | ");
    const char *at = error->source_line;
    for (int column = 1; column < error->column && *at; column++) {
        fj_buf_put(buf, *at == '\t' ? "\t" : " ");
        at++;
        while ((*at & 0xC0) == 0x80) at++;
    }
    fj_buf_put(buf, "^");
    for (int i = 1; i < error->length; i++) fj_buf_put(buf, "~");
    fj_buf_put(buf, "\n");
}

size_t fj_error_format(const fj_error *error, char *buffer, size_t size) {
    fj_buf buf;
    fj_buf_init(&buf, &fj_allocator_libc);
    if (error->file[0]) fj_buf_printf(&buf, "%s:", error->file);
    if (error->line > 0) fj_buf_printf(&buf, "%d:%d:", error->line, error->column);
    fj_buf_printf(&buf, "%serror: %s\n", buf.len ? " " : "", error->text);
    if (error->line > 0 && error->column > 0) {
        fj_buf_printf(&buf, "%5d | %s\n", error->line, error->source_line);
        put_caret(&buf, error);
    }
    if (error->note[0]) fj_buf_printf(&buf, "  note: %s\n", error->note);
    if (error->detail) fj_buf_printf(&buf, "%s\n", error->detail);
    size_t length = buf.len;
    if (size > 0) {
        size_t copied = length < size ? length : size - 1;
        if (copied) memcpy(buffer, buf.data, copied);
        buffer[copied] = '\0';
    }
    fj_buf_finish(&buf);
    return length;
}
