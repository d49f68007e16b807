/* What the compiler made of a mod, as text; and the language's own calculator. */
#include <string.h>

#include "attn/objects.h"
#include "expr/lang/mod.h"

struct show {
    const fj_mod *mod;
    const char *stage;
    const char *expression, *bindings;
    fj_buf *out;
};

typedef void print_function(const fj_ir *ir, fj_buf *out);

/* The graphs are shared between threads, their arenas are not: printing borrows the scope's. */
static void print_graph(fj_scope *scope, const fj_ir *graph, print_function *print, fj_buf *out) {
    const fj_ir ir = fj_ir_view(graph, scope->arena);
    print(&ir, out);
}

/* The graph of the score and mask mods, then those of the output's and the sink's, under a comment. */
static void print_graphs(fj_scope *scope, const struct show *show, print_function *print, bool gradients) {
    const fj_program *program = &show->mod->program;
    const struct {
        const char *name;
        const fj_ir *graph;
    } own[] = {
        {"out: score is its element, kv its dimension", gradients ? program->out_gradient : program->out},
        {"sink", gradients ? program->sink_gradient : program->sink}};
    print_graph(scope, gradients ? program->gradient : program->ir, print, show->out);
    for (size_t i = 0; i < FJ_ARRAY_LEN(own); i++) {
        if (!own[i].graph) continue;
        fj_buf_printf(show->out, "; %s\n", own[i].name);
        print_graph(scope, own[i].graph, print, show->out);
    }
}

static void print(fj_scope *scope, void *argument) {
    const struct show *show = argument;
    const fj_mod *mod = show->mod;
    if (strcmp(show->stage, "ast") == 0) {
        fj_expr_print_ast(scope, &mod->desc, show->out);
    } else if (strcmp(show->stage, "ir") == 0) {
        print_graphs(scope, show, fj_ir_print, false);
    } else if (strcmp(show->stage, "rates") == 0) {
        print_graphs(scope, show, fj_ir_print_rates, false);
    } else if (strcmp(show->stage, "ranges") == 0) {
        print_graph(scope, mod->program.ir, fj_ir_print_ranges, show->out);
    } else if (strcmp(show->stage, "grad") == 0) {
        if (!mod->program.gradient) {
            if (scope->error) *scope->error = mod->program.gradient_error; /* of a limit: it has no detail */
            fj_escape(scope, mod->program.gradient_status);
        }
        print_graphs(scope, show, fj_ir_print, true);
    } else {
        fj_fail(scope, FJ_ERR_NAME, "unknown stage '%s': a mod has ast, ir, grad, rates, ranges",
                show->stage);
    }
}

static void evaluate(fj_scope *scope, void *argument) {
    const struct show *show = argument;
    fj_expr_evaluate(scope, show->expression, show->bindings, show->out);
}

static fj_status run(const fj_allocator *allocator, void (*body)(fj_scope *, void *), struct show *show,
                     fj_text *ret_text, fj_error *error) {
    fj_arena arena;
    fj_buf out;
    fj_arena_init(&arena, allocator);
    fj_buf_init(&out, allocator);
    show->out = &out;
    fj_status status = fj_scope_run(&arena, error, body, show);
    fj_arena_finish(&arena);
    if (status != FJ_OK) {
        fj_buf_finish(&out);
        return status;
    }
    if (fj_buf_take(&out, ret_text) == FJ_OK) return FJ_OK;
    return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
}

fj_status fj_mod_show(const fj_mod *mod, const char *stage, fj_text *ret_text, fj_error *error) {
    if (!mod || !stage || !ret_text)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "mod, stage or ret_text is NULL");
    return run(&mod->context->allocator, print, &(struct show){.mod = mod, .stage = stage}, ret_text, error);
}

fj_status fj_evaluate(fj_context *context, const char *expression, const char *bindings, fj_text *ret_text,
                      fj_error *error) {
    if (!context || !expression || !ret_text)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "context, expression or ret_text is NULL");
    struct show show = {.expression = expression, .bindings = bindings ? bindings : ""};
    return run(&context->allocator, evaluate, &show, ret_text, error);
}
