/* Prints the syntax tree of the files it is given, or their errors:
 *
 *   print_ast FILE ...          the tree of a mod file
 *   print_ast -e EXPRESSION     of an expression
 *   print_ast -q FILE ...       errors only, each with its file; exits with 1 if there was one
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "expr/lang/ast.h"

typedef struct job {
    fj_source source;
    bool expression;
    fj_buf out;
} job;

static void parse(fj_scope *scope, void *argument) {
    job *self = argument;
    if (self->expression) {
        fj_expr_print_expression(fj_expr_parse_expression(scope, &self->source), &self->out);
        fj_buf_put(&self->out, "\n");
    } else {
        fj_expr_print_module(fj_expr_parse_module(scope, &self->source), &self->out);
    }
}

static char *read_file(const char *path, size_t *ret_size) {
    FILE *file = strcmp(path, "-") == 0 ? stdin : fopen(path, "rb");
    if (!file) return NULL;
    size_t room = FJ_SOURCE_MAX + 2;
    char *data = malloc(room);
    *ret_size = data ? fread(data, 1, room, file) : 0;
    if (file != stdin) fclose(file);
    return data;
}

static bool show(const char *name, fj_str text, bool expression, bool quiet) {
    fj_arena arena;
    fj_error error = {0};
    job self = {.source = {name, text}, .expression = expression};
    fj_buf_init(&self.out, &fj_allocator_libc);
    fj_arena_init(&arena, &fj_allocator_libc);
    fj_status status = fj_scope_run(&arena, &error, parse, &self);
    char message[4096];
    if (status != FJ_OK) {
        (void)fj_error_format(&error, message, sizeof message);
        fputs(message, stdout);
    } else if (!quiet && self.out.data) {
        fputs(self.out.data, stdout);
    }
    fj_arena_finish(&arena);
    fj_buf_finish(&self.out);
    fj_error_finish(&error);
    return status == FJ_OK;
}

int main(int argc, char **argv) {
    bool good = true, quiet = argc > 1 && strcmp(argv[1], "-q") == 0;
    if (argc == 3 && strcmp(argv[1], "-e") == 0) return !show("<score>", fj_str_from(argv[2]), true, false);
    for (int i = 1 + quiet; i < argc; i++) {
        size_t size = 0;
        char *data = read_file(argv[i], &size);
        if (!data) {
            fprintf(stderr, "print_ast: cannot read %s\n", argv[i]);
            return 2;
        }
        const char *slash = strrchr(argv[i], '/');
        good = show(quiet || !slash ? argv[i] : slash + 1, (fj_str){data, size}, false, quiet) && good;
        free(data);
    }
    return !good;
}
