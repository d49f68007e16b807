/* Allocators, arenas and scopes: see base.h. */
#include "base/base.h"

#include <assert.h>
#include <stdalign.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Allocator --------------------------------------------------------------------------- */

static void *libc_resize(void *user, void *pointer, size_t old_size, size_t new_size) {
    (void)user, (void)old_size;
    if (new_size == 0) {
        free(pointer);
        return NULL;
    }
    return realloc(pointer, new_size);
}

const fj_allocator fj_allocator_libc = {libc_resize, NULL};

void *fj_alloc(const fj_allocator *allocator, size_t size) {
    return allocator->resize(allocator->user, NULL, 0, size ? size : 1);
}

void *fj_alloc_zeroed(const fj_allocator *allocator, size_t size) {
    void *pointer = fj_alloc(allocator, size);
    if (pointer) memset(pointer, 0, size);
    return pointer;
}

void fj_free(const fj_allocator *allocator, void *pointer, size_t size) {
    if (pointer) (void)allocator->resize(allocator->user, pointer, size ? size : 1, 0);
}

/* ---- Arena ------------------------------------------------------------------------------- */

#define ARENA_ALIGN 16
#ifdef FJ_TINY_LIMITS
#define ARENA_CHUNK 64
#else
#define ARENA_CHUNK (32 * 1024)
#endif

struct fj_arena_chunk {
    struct fj_arena_chunk *next;
    size_t size, used; /* of bytes */
    alignas(ARENA_ALIGN) unsigned char bytes[];
};

void fj_arena_init(fj_arena *arena, const fj_allocator *allocator) {
    *arena = (fj_arena){.allocator = allocator};
}

void fj_arena_finish(fj_arena *arena) {
    for (struct fj_arena_chunk *chunk = arena->chunks, *next; chunk; chunk = next) {
        next = chunk->next;
        fj_free(arena->allocator, chunk, sizeof *chunk + chunk->size);
    }
    arena->chunks = NULL;
}

static void *arena_failed(fj_arena *arena) {
    if (arena->scope) fj_fail(arena->scope, FJ_ERR_MEMORY, "out of memory");
    return NULL;
}

void *fj_arena_alloc(fj_arena *arena, size_t size) {
    if (size > SIZE_MAX / 2) return arena_failed(arena);
    size = (size + ARENA_ALIGN - 1) & ~(size_t)(ARENA_ALIGN - 1);
    struct fj_arena_chunk *chunk = arena->chunks;
    if (!chunk || chunk->size - chunk->used < size) {
        size_t room = size > ARENA_CHUNK ? size : ARENA_CHUNK;
        struct fj_arena_chunk *fresh = fj_alloc(arena->allocator, sizeof *fresh + room);
        if (!fresh) return arena_failed(arena);
        fresh->size = room;
        fresh->used = 0;
        /* An oversized block goes behind the current chunk, whose rest stays in use. */
        if (chunk && size > ARENA_CHUNK) {
            fresh->next = chunk->next;
            chunk->next = fresh;
        } else {
            fresh->next = chunk;
            arena->chunks = fresh;
        }
        chunk = fresh;
    }
    void *pointer = chunk->bytes + chunk->used;
    chunk->used += size;
    return memset(pointer, 0, size);
}

void *fj_arena_grow(fj_arena *arena, void *array, size_t element, size_t used, size_t needed,
                    size_t *capacity) {
    if (needed <= *capacity) return array;
    size_t room = *capacity ? *capacity * 2 : 8;
    if (room < needed) room = needed;
    if (room > SIZE_MAX / 2 / element) return arena_failed(arena);
    void *fresh = fj_arena_alloc(arena, room * element);
    if (!fresh) return NULL;
    if (used) memcpy(fresh, array, used * element);
    *capacity = room;
    return fresh;
}

char *fj_arena_strdup(fj_arena *arena, fj_str text) {
    char *copy = fj_arena_alloc(arena, text.len + 1);
    if (copy && text.len) memcpy(copy, text.data, text.len);
    return copy;
}

char *fj_arena_printf(fj_arena *arena, const char *format, ...) {
    va_list list, again;
    va_start(list, format);
    va_copy(again, list);
    int length = vsnprintf(NULL, 0, format, list);
    va_end(list);
    char *text = fj_arena_alloc(arena, (size_t)length + 1);
    if (text) (void)vsnprintf(text, (size_t)length + 1, format, again);
    va_end(again);
    return text;
}

/* ---- Scope ------------------------------------------------------------------------------- */

fj_status fj_scope_run(fj_arena *arena, fj_error *error, void (*body)(fj_scope *, void *), void *argument) {
    struct fj_scope *outer = arena->scope;
    fj_scope scope = {.arena = arena, .error = error, .status = FJ_OK};
    arena->scope = &scope;
    if (setjmp(scope.escape) == 0) body(&scope, argument);
    arena->scope = outer;
    return scope.status;
}

_Noreturn void fj_escape(fj_scope *scope, fj_status status) {
    assert(status != FJ_OK);
    scope->status = status;
    longjmp(scope->escape, 1);
}

_Noreturn void fj_fail(fj_scope *scope, fj_status status, const char *format, ...) {
    if (scope->error) {
        fj_error_finish(scope->error);
        scope->error->status = status;
        va_list list;
        va_start(list, format);
        (void)vsnprintf(scope->error->text, sizeof scope->error->text, format, list);
        va_end(list);
    }
    fj_escape(scope, status);
}
