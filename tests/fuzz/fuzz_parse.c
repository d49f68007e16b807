/* Any bytes through the parser, as a file and as an expression, and what it accepts through the
 * printer. Errors must have a place inside the text. */
#include <stdlib.h>

#include "expr/lang/ast.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct job {
    fj_source source;
    bool expression;
    fj_buf out;
} job;

static void parse(fj_scope *scope, void *argument) {
    job *self = argument;
    if (self->expression)
        fj_expr_print_expression(fj_expr_parse_expression(scope, &self->source), &self->out);
    else
        fj_expr_print_module(fj_expr_parse_module(scope, &self->source), &self->out);
}

static void require(bool condition) {
    if (!condition) abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    for (int expression = 0; expression < 2; expression++) {
        fj_arena arena;
        fj_error error = {0};
        job self = {.source = {"<fuzz>", {(const char *)data, size}}, .expression = expression};
        fj_buf_init(&self.out, &fj_allocator_libc);
        fj_arena_init(&arena, &fj_allocator_libc);
        fj_status status = fj_scope_run(&arena, &error, parse, &self);
        if (status != FJ_OK) {
            char text[2048];
            require(status == FJ_ERR_MOD && error.line >= 1 && error.column >= 1 && error.text[0]);
            require((size_t)error.line <= size + 1 && (size_t)error.column <= size + 1);
            (void)fj_error_format(&error, text, sizeof text);
        }
        fj_buf_finish(&self.out);
        fj_arena_finish(&arena);
        fj_error_finish(&error);
    }
    return 0;
}
