/* String views and growing text: see base.h. */
#include "base/base.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Views ------------------------------------------------------------------------------- */

fj_str fj_str_from(const char *text) { return (fj_str){text, text ? strlen(text) : 0}; }

bool fj_str_equal(fj_str a, fj_str b) {
    return a.len == b.len && (a.len == 0 || memcmp(a.data, b.data, a.len) == 0);
}

bool fj_str_is(fj_str a, const char *text) { return fj_str_equal(a, fj_str_from(text)); }

/* Optimal string alignment distance, three rows of its table at a time. */
int fj_str_distance(fj_str a, fj_str b, int limit) {
    enum { LONGEST = 63 };
    if (a.len > LONGEST || b.len > LONGEST) return limit + 1;
    int rows[3][LONGEST + 1];
    for (size_t j = 0; j <= b.len; j++) rows[0][j] = (int)j;
    for (size_t i = 1; i <= a.len; i++) {
        int *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = (int)i;
        for (size_t j = 1; j <= b.len; j++) {
            int best = above[j - 1] + (a.data[i - 1] != b.data[j - 1]);
            if (above[j] + 1 < best) best = above[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            bool swapped = i > 1 && j > 1 && a.data[i - 1] == b.data[j - 2] && a.data[i - 2] == b.data[j - 1];
            if (swapped && above2[j - 2] + 1 < best) best = above2[j - 2] + 1;
            row[j] = best;
        }
    }
    int distance = rows[a.len % 3][b.len];
    return distance > limit ? limit + 1 : distance;
}

/* ---- Growing text -------------------------------------------------------------------------- */

void fj_buf_init(fj_buf *buf, const fj_allocator *allocator) { *buf = (fj_buf){.allocator = allocator}; }

void fj_buf_finish(fj_buf *buf) {
    fj_free(buf->allocator, buf->data, buf->cap);
    *buf = (fj_buf){.allocator = buf->allocator};
}

static bool buf_reserve(fj_buf *buf, size_t more) {
    if (buf->failed) return false;
    if (buf->cap > buf->len && buf->cap - buf->len > more) return true;
    size_t room = buf->cap ? buf->cap * 2 : 256;
    if (room < buf->len + more + 1) room = buf->len + more + 1;
    char *data =
        more > SIZE_MAX / 4 ? NULL : buf->allocator->resize(buf->allocator->user, buf->data, buf->cap, room);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->cap = room;
    return true;
}

void fj_buf_write(fj_buf *buf, const void *bytes, size_t length) {
    if (!buf_reserve(buf, length)) return;
    if (length) memcpy(buf->data + buf->len, bytes, length);
    buf->len += length;
    buf->data[buf->len] = '\0';
}

void fj_buf_put(fj_buf *buf, const char *text) { fj_buf_write(buf, text, strlen(text)); }

void fj_buf_printf(fj_buf *buf, const char *format, ...) {
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    int length = vsnprintf(NULL, 0, format, list);
    va_end(list);
    if (length >= 0 && buf_reserve(buf, (size_t)length)) {
        (void)vsnprintf(buf->data + buf->len, (size_t)length + 1, format, again);
        buf->len += (size_t)length;
    }
    va_end(again);
}

fj_status fj_buf_take(fj_buf *buf, fj_text *ret_text) {
    char *data = buf->failed ? NULL : malloc(buf->len + 1);
    if (!data) {
        fj_buf_finish(buf);
        return FJ_ERR_MEMORY;
    }
    if (buf->len) memcpy(data, buf->data, buf->len);
    data[buf->len] = '\0';
    *ret_text = (fj_text){data, buf->len};
    fj_buf_finish(buf);
    return FJ_OK;
}

void fj_text_finish(fj_text *text) {
    if (!text) return;
    free(text->data);
    *text = (fj_text){0};
}
