/* The language: any bytes are a mod file, an expression of any mod, a choice of a mod. Each is compiled, and what
 * compiles is valid. */
#include <stdlib.h>
#include <string.h>

#include "expr/lang/mod.h"

typedef struct input {
    fj_mod_desc desc;
    char *text; /* NUL-terminated */
} input;

static void check(fj_scope *scope, void *user) {
    const input *in = user;
    const fj_ir *ir = fj_expr_compile(scope, &in->desc, NULL);
    if (fj_ir_validate(ir) != NULL) abort();
}

static void check_graph(const fj_ir *ir) {
    const char *wrong = ir ? fj_ir_validate(ir) : NULL;
    if (wrong != NULL && strstr(wrong, "nested") == NULL) abort();
}

/* With the graphs of the output and of the sink. */
static void check_program(fj_scope *scope, void *user) {
    const input *in = user;
    fj_program *program = FJ_NEW(scope->arena, fj_program);
    fj_expr_build(scope, &in->desc, program);
    fj_error_finish(&program->gradient_error);
    const fj_ir *graphs[] = {program->ir,           program->gradient, program->out,
                             program->out_gradient, program->sink,     program->sink_gradient};
    for (size_t i = 0; i < FJ_ARRAY_LEN(graphs); i++) check_graph(graphs[i]);
}

static void evaluate(fj_scope *scope, void *user) {
    const input *in = user;
    fj_buf out;
    fj_buf_init(&out, scope->arena->allocator);
    char *line = strchr(in->text, '\n');
    if (line != NULL) *line++ = '\0';
    fj_expr_evaluate(scope, in->text, line, &out);
    fj_buf_finish(&out);
}

static void run(input *in, void (*body)(fj_scope *, void *)) {
    fj_arena arena;
    fj_error error = {0};
    fj_arena_init(&arena, &fj_allocator_libc);
    (void)fj_scope_run(&arena, &error, body, in);
    fj_error_finish(&error);
    fj_arena_finish(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const fj_binding bindings[] = {
        {"t", FJ_DTYPE_F32, 1, {8}},      {"m", FJ_DTYPE_F64, 2, {3, 4}}, {"i", FJ_DTYPE_I32, 1, {8}},
        {"b2", FJ_DTYPE_BOOL, 2, {4, 4}}, {"s", FJ_DTYPE_I64, 0, {0}},
    };
    input in = {.desc = {.struct_size = sizeof in.desc,
                         .bindings = bindings,
                         .binding_count = FJ_ARRAY_LEN(bindings)}};
    in.text = malloc(size + 1);
    if (in.text == NULL) return 0;
    if (size > 0) memcpy(in.text, data, size);
    in.text[size] = '\0';

    in.desc.source = (const char *)data;
    in.desc.source_length = size;
    run(&in, check);
    in.desc.bindings_open = true;
    in.desc.binding_count = 0;
    run(&in, check);
    in.desc.binding_count = FJ_ARRAY_LEN(bindings);
    in.desc.source = NULL;
    in.desc.score = in.desc.mask = in.text;
    run(&in, check);
    run(&in, evaluate); /* cuts the text at its first line */
    in.desc.score = in.desc.mask = NULL;
    in.desc.out = in.desc.sink = in.text;
    run(&in, check_program);
    in.desc.sink = NULL;
    run(&in, check_program);
    free(in.text);
    return 0;
}
