/* The syntax tree: operator texts, located errors, printing. */
#include "expr/lang/ast.h"

#include <stdio.h>
#include <string.h>

#include "expr/lang/lex.h"

const char *fj_operator_text(fj_operator op) {
    static const char *const texts[] = {
        "+", "-", "*", "/",  "//", "%", "**", "@", "&",  "|",  "^",      "<<", ">>",
        "+", "-", "~", "==", "!=", "<", "<=", ">", ">=", "is", "is not", "in", "not in",
    };
    _Static_assert(FJ_ARRAY_LEN(texts) == FJ_OPERATOR_COUNT, "one text for each operator");
    return texts[op];
}

/* ---- Located errors ---------------------------------------------------------------------- */

/* A line of the source: [start, end) without its line end. */
typedef struct line {
    int number;
    size_t start, end;
} line;

static line find_line(fj_str text, size_t offset) {
    line found = {1, 0, 0};
    if (text.len >= 3 && memcmp(text.data, "\xEF\xBB\xBF", 3) == 0) found.start = 3;
    for (size_t i = 0; i < offset; i++) {
        bool end =
            text.data[i] == '\n' || (text.data[i] == '\r' && !(i + 1 < text.len && text.data[i + 1] == '\n'));
        if (end) {
            found.number++;
            found.start = i + 1;
        }
    }
    found.end = found.start;
    while (found.end < text.len && text.data[found.end] != '\n' && text.data[found.end] != '\r') found.end++;
    return found;
}

int fj_expr_line(fj_place place) {
    const fj_str text = place.source->text.data ? place.source->text : FJ_STR("");
    return find_line(text, place.offset < text.len ? place.offset : text.len).number;
}

/* A byte that is part of no character counts as one. */
static size_t character_length(const char *data, size_t len) {
    size_t count = fj_lex_utf8(data, len, NULL);
    return count ? count : 1;
}

static int count_characters(fj_str text, size_t start, size_t end) {
    int count = 0;
    for (size_t at = start; at < end; count++) at += character_length(text.data + at, end - at);
    return count;
}

/* Copies whole characters; what is none, and control characters that a terminal would obey, become '?'. */
static void copy_line(char *out, size_t size, const char *data, size_t len) {
    size_t written = 0;
    for (size_t at = 0; at < len;) {
        uint32_t code = 0;
        size_t count = fj_lex_utf8(data + at, len - at, &code);
        bool plain = count > 0 && (code == '\t' || (code >= ' ' && !(code >= 0x7F && code < 0xA0)));
        size_t width = plain ? count : 1;
        if (written + width >= size) break;
        if (plain)
            memcpy(out + written, data + at, count);
        else
            out[written] = '?';
        written += width;
        at += count ? count : 1;
    }
    out[written] = '\0';
}

/* A text cut in the middle of a character loses its head. */
static void trim_text(char *text) {
    size_t len = strlen(text), at = 0;
    while (at < len) {
        size_t count = fj_lex_utf8(text + at, len - at, NULL);
        if (count == 0 && len - at < 4) {
            text[at] = '\0';
            return;
        }
        at += count ? count : 1;
    }
}

static void fill_error(fj_error *error, fj_place place, fj_status status, const char *note,
                       const char *format, va_list list) FJ_PRINTF(5, 0);
static void fill_error(fj_error *error, fj_place place, fj_status status, const char *note,
                       const char *format, va_list list) {
    fj_str text = place.source->text.data ? place.source->text : FJ_STR("");
    size_t offset = place.offset < text.len ? place.offset : text.len;
    line at = find_line(text, offset);
    if (offset < at.start) offset = at.start;
    if (offset > at.end) offset = at.end;
    size_t end = at.end - offset < place.length ? at.end : offset + place.length;
    fj_error_finish(error);
    error->status = status;
    error->line = at.number;
    error->column = 1 + count_characters(text, at.start, offset);
    error->length = count_characters(text, offset, end);
    (void)snprintf(error->file, sizeof error->file, "%s", place.source->name ? place.source->name : "");
    trim_text(error->file);
    (void)vsnprintf(error->text, sizeof error->text, format, list);
    trim_text(error->text);
    (void)snprintf(error->note, sizeof error->note, "%s", note ? note : "");
    trim_text(error->note);
    copy_line(error->source_line, sizeof error->source_line, text.data + at.start, at.end - at.start);
}

fj_status fj_expr_error(fj_error *error, fj_place place, fj_status status, const char *note,
                        const char *format, ...) {
    va_list list;
    if (!error) return status;
    va_start(list, format);
    fill_error(error, place, status, note, format, list);
    va_end(list);
    return status;
}

_Noreturn static void fail_at(fj_scope *scope, fj_place place, fj_status status, const char *note,
                              const char *format, va_list list) FJ_PRINTF(5, 0);
_Noreturn static void fail_at(fj_scope *scope, fj_place place, fj_status status, const char *note,
                              const char *format, va_list list) {
    if (scope->error) fill_error(scope->error, place, status, note, format, list);
    fj_escape(scope, status);
}

_Noreturn void fj_expr_fail(fj_scope *scope, fj_place place, const char *format, ...) {
    va_list list;
    va_start(list, format);
    fail_at(scope, place, FJ_ERR_MOD, NULL, format, list);
}

_Noreturn void fj_expr_fail_note(fj_scope *scope, fj_place place, fj_status status, const char *note,
                                 const char *format, ...) {
    va_list list;
    va_start(list, format);
    fail_at(scope, place, status, note, format, list);
}
