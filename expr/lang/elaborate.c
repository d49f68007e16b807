/* Errors, steps and attempts of compile-time evaluation: see elaborate.h. */
#include "expr/lang/elaborate.h"
#include "expr/lang/capture.h"
#include "expr/lang/names.h"

#include <stdio.h>
#include <string.h>

/* ---- Errors ------------------------------------------------------------------------------------ */

#define FORMAT_TEXT(text, format)                     \
    char text[512];                                   \
    va_list list;                                     \
    va_start(list, format);                           \
    (void)vsnprintf(text, sizeof text, format, list); \
    va_end(list)

/* Something assumed of a tensor without a binding may be the cause: that it is missing goes first. */
static _Noreturn void fail(fj_elab *e, fj_place place, fj_status status, const char *note, const char *text) {
    if (e->missing.len > 0 && !e->desc->bindings_open) fj_capture_report_missing(e);
    fj_expr_fail_note(e->scope, place, status, note, "%s", text);
}

_Noreturn void fj_elab_fail(fj_elab *e, fj_place place, const char *format, ...) {
    FORMAT_TEXT(text, format);
    fail(e, place, FJ_ERR_MOD, NULL, text);
}

_Noreturn void fj_elab_fail_note(fj_elab *e, fj_place place, const char *note, const char *format, ...) {
    FORMAT_TEXT(text, format);
    fail(e, place, FJ_ERR_MOD, note, text);
}

_Noreturn void fj_elab_fail_name(fj_elab *e, fj_place place, const char *note, const char *format, ...) {
    FORMAT_TEXT(text, format);
    fail(e, place, FJ_ERR_NAME, note, text);
}

_Noreturn void fj_elab_fail_again(fj_elab *e, const fj_error *error) {
    if (e->scope->error != NULL) {
        fj_error_finish(e->scope->error);
        *e->scope->error = *error;
    }
    fj_escape(e->scope, error->status);
}

/* ---- Suggestions ------------------------------------------------------------------------------- */

fj_suggestion fj_suggest_begin(fj_str wanted) {
    const int limit = wanted.len < 3 ? 0 : wanted.len < 6 ? 1 : 2;
    return (fj_suggestion){wanted, {NULL, 0}, limit + 1};
}

void fj_suggest(fj_suggestion *suggestion, fj_str candidate) {
    const int distance = fj_str_distance(suggestion->wanted, candidate, suggestion->distance);
    if (distance < suggestion->distance && distance > 0) {
        suggestion->best = candidate;
        suggestion->distance = distance;
    }
}

const char *fj_suggest_text(fj_elab *e, const fj_suggestion *suggestion) {
    const fj_str best = suggestion->best;
    return best.data == NULL ? ""
                             : fj_arena_printf(e->arena, ": did you mean '%.*s'?", (int)best.len, best.data);
}

/* ---- Bounds ------------------------------------------------------------------------------------ */

void fj_elab_step(fj_elab *e, fj_place place, size_t steps) {
    e->steps += (int64_t)(steps < FJ_ELAB_MAX_STEPS ? steps : FJ_ELAB_MAX_STEPS);
    if (e->steps > FJ_ELAB_MAX_STEPS) {
        fj_elab_fail(e, place, "compile-time evaluation takes more than %d steps", FJ_ELAB_MAX_STEPS);
    }
    if (e->ir->nodes.len + 64 > FJ_IR_MAX_NODES) {
        fj_elab_fail(e, place, "the mod needs more than %d values: unroll less", FJ_IR_MAX_NODES);
    }
}

void fj_elab_enter(fj_elab *e, fj_place place) {
    if (++e->depth > FJ_ELAB_MAX_DEPTH) fj_elab_fail(e, place, "expressions and calls are nested too deeply");
    fj_elab_step(e, place, 1);
}

/* ---- Attempts ---------------------------------------------------------------------------------- */

typedef struct attempt {
    fj_elab *e;
    void (*body)(fj_elab *, void *);
    void *argument;
} attempt;

static void run_attempt(fj_scope *scope, void *user) {
    const attempt *a = user;
    a->e->scope = scope;
    a->body(a->e, a->argument);
}

const fj_error *fj_elab_try(fj_elab *e, void (*body)(fj_elab *, void *), void *argument) {
    fj_error error = {0};
    attempt a = {e, body, argument};
    fj_scope *scope = e->scope;
    fj_frame *frame = e->frame;
    fj_active *active = e->active;
    struct fj_class *class = e->class;
    const size_t time = e->time, running = e->running.len, required = e->required.len;
    const int depth = e->depth, calls = e->calls;
    const bool in_mod = e->in_mod;
    const fj_status status = fj_scope_run(e->arena, &error, run_attempt, &a);
    e->scope = scope;
    if (status == FJ_OK) return NULL;
    while (e->running.len > running) {
        fj_thunk *thunk = e->running.data[--e->running.len];
        thunk->state = FJ_THUNK_FRESH;
        if (!fj_thunk_mutates(thunk)) continue; /* it may have changed a list: it does not run again */
        thunk->state = FJ_THUNK_FAILED;
        thunk->error = FJ_NEW(e->arena, fj_error);
        *(fj_error *)(uintptr_t)thunk->error = error;
    }
    e->frame = frame;
    e->active = active;
    e->class = class;
    e->time = time;
    e->depth = depth;
    e->calls = calls;
    e->in_mod = in_mod;
    e->required.len = e->requirements.len = required;
    /* Nothing that an attempt may hide. */
    if (e->hints->restart) fj_escape(e->scope, status); /* which fills no error */
    if (status == FJ_ERR_MEMORY || e->steps > FJ_ELAB_MAX_STEPS) fj_elab_fail_again(e, &error);
    fj_error *kept = FJ_NEW(e->arena, fj_error);
    *kept = error;
    return kept;
}

_Noreturn void fj_elab_restart(fj_elab *e) {
    e->hints->restart = true;
    fj_escape(e->scope, FJ_ERR_MOD);
}
