/* The foundation: memory, text and failure, used by every room.
 *
 * A compilation runs inside one fj_scope: an arena plus a place to escape to. Everything made on the
 * way lives in the arena and dies with it; the first error, or a failed allocation, unwinds to
 * fj_scope_run, which returns the status. So code inside a scope neither checks for NULL nor frees.
 */
#ifndef FJ_BASE_BASE_H
#define FJ_BASE_BASE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flexjit/flexjit.h"

#define FJ_PRINTF(text, first) __attribute__((format(printf, text, first)))
#define FJ_ARRAY_LEN(array) (sizeof(array) / sizeof((array)[0]))

/* ---- Allocator --------------------------------------------------------------------------- */

typedef struct fj_allocator {
    void *(*resize)(void *user, void *pointer, size_t old_size, size_t new_size);
    void *user;
} fj_allocator;

extern const fj_allocator fj_allocator_libc;

/* NULL on failure. */
void *fj_alloc(const fj_allocator *allocator, size_t size);
void *fj_alloc_zeroed(const fj_allocator *allocator, size_t size);
void fj_free(const fj_allocator *allocator, void *pointer, size_t size);

/* ---- Strings ----------------------------------------------------------------------------- */

/* A view; not NUL-terminated. */
typedef struct fj_str {
    const char *data;
    size_t len;
} fj_str;

#define FJ_STR(literal) ((fj_str){(literal), sizeof(literal) - 1})
fj_str fj_str_from(const char *text); /* NULL gives an empty string */
bool fj_str_equal(fj_str a, fj_str b);
bool fj_str_is(fj_str a, const char *text);
/* Of ASCII, whatever the locale. */
static inline bool fj_is_digit(char c) { return c >= '0' && c <= '9'; }
static inline bool fj_is_alnum(char c) {
    return fj_is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}
/* Edit distance with transpositions, for "did you mean"; capped at limit + 1. */
int fj_str_distance(fj_str a, fj_str b, int limit);

/* ---- Arena ------------------------------------------------------------------------------- */

struct fj_scope;

typedef struct fj_arena {
    const fj_allocator *allocator;
    struct fj_arena_chunk *chunks;
    struct fj_scope *scope; /* where a failed allocation escapes to; NULL: fj_arena_alloc gives NULL */
} fj_arena;

void fj_arena_init(fj_arena *arena, const fj_allocator *allocator);
void fj_arena_finish(fj_arena *arena);
/* Zeroed, aligned to 16 bytes. */
void *fj_arena_alloc(fj_arena *arena, size_t size);
/* Array growth: returns an array with room for at least needed elements; *capacity is updated. */
void *fj_arena_grow(fj_arena *arena, void *array, size_t element, size_t used, size_t needed,
                    size_t *capacity);
char *fj_arena_strdup(fj_arena *arena, fj_str text);
char *fj_arena_printf(fj_arena *arena, const char *format, ...) FJ_PRINTF(2, 3);

#define FJ_NEW(arena, type) ((type *)fj_arena_alloc((arena), sizeof(type)))
#define FJ_NEW_ARRAY(arena, type, count) ((type *)fj_arena_alloc((arena), sizeof(type) * (size_t)(count)))

/* A growing array inside an arena: FJ_VEC(int) v = {0}; FJ_PUSH(arena, &v, 3); v.data[0], v.len. */
#define FJ_VEC(type)     \
    struct {             \
        type *data;      \
        size_t len, cap; \
    }
#define FJ_PUSH(arena, vec, ...)                                                                  \
    ((vec)->len < (vec)->cap                                                                      \
         ? (void)0                                                                                \
         : (void)((vec)->data = fj_arena_grow(                                                    \
                      (arena), (vec)->data,                                                       \
                      sizeof *(vec)->data /* NOLINT(bugprone-sizeof-expression): pointers too */, \
                      (vec)->len, (vec)->len + 1, &(vec)->cap)),                                  \
     (void)((vec)->data[(vec)->len++] = (__VA_ARGS__)))

/* ---- Scope: one compilation -------------------------------------------------------------- */

typedef struct fj_scope {
    fj_arena *arena;
    fj_error *error; /* may be NULL */
    jmp_buf escape;
    fj_status status;
} fj_scope;

/* Runs body(scope, argument). FJ_OK, or the status that fj_fail or a failed allocation gave. The
 * arena is the caller's: it is finished by the caller whatever the outcome. Scopes nest: the
 * arena's scope is restored on the way out. */
fj_status fj_scope_run(fj_arena *arena, fj_error *error, void (*body)(fj_scope *, void *), void *argument);

/* Sets the error and leaves the scope. */
_Noreturn void fj_fail(fj_scope *scope, fj_status status, const char *format, ...) FJ_PRINTF(3, 4);
/* Leaves the scope with an error that was filled already (scope->error or none). */
_Noreturn void fj_escape(fj_scope *scope, fj_status status);

/* Fills an error (may be NULL) outside any scope and returns the status. */
fj_status fj_error_set(fj_error *error, fj_status status, const char *format, ...) FJ_PRINTF(3, 4);
void fj_error_note(fj_error *error, const char *format, ...) FJ_PRINTF(2, 3);
/* Keeps a long text (a compiler's messages). */
void fj_error_detail(fj_error *error, const char *text, size_t length);

/* ---- Growing text on the heap ------------------------------------------------------------ */

/* The error flag is sticky: write everything, look once at the end. data is always NUL-terminated
 * once something was written. */
typedef struct fj_buf {
    const fj_allocator *allocator;
    char *data;
    size_t len, cap;
    bool failed;
} fj_buf;

void fj_buf_init(fj_buf *buf, const fj_allocator *allocator);
void fj_buf_finish(fj_buf *buf);
void fj_buf_put(fj_buf *buf, const char *text);
void fj_buf_write(fj_buf *buf, const void *bytes, size_t length);
void fj_buf_printf(fj_buf *buf, const char *format, ...) FJ_PRINTF(2, 3);
/* The shortest decimal that reads back as the same double, always a legal C literal
 * ("1.0", "0.1", "1e+300"); infinities and NaN as "inf", "-inf", "nan". */
void fj_buf_double(fj_buf *buf, double value);
/* Gives the text to the caller as an fj_text (C library heap) and finishes the buffer.
 * FJ_ERR_MEMORY when the buffer failed. */
fj_status fj_buf_take(fj_buf *buf, fj_text *ret_text);

/* ---- Decimal numbers, whatever the locale (decimal.c) ------------------------------------ */

/* The double nearest to 12.5e-3: digits with at most one point, then maybe an exponent; what else stands
 * between them ('_') is skipped. */
double fj_decimal_value(fj_str text);
/* A number at the head of text, with a sign or not, or inf or nan: how many bytes it has; 0: there is none. */
size_t fj_decimal_parse(fj_str text, double *ret_value);
/* As printf's %.*g, with a point. */
void fj_decimal_format(char *text, size_t size, int digits, double value);

#endif
