/* Any bytes as the text form of a graph: it is refused, or it is valid, prints back to itself and survives
 * every pass and emitter. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "expr/ir/ir.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { MAX_NODES = 300 }; /* passes over more are slow, and not new */

static void require(bool condition) {
    if (!condition) abort();
}

static void check_text(fj_scope *scope, const fj_ir *ir) {
    fj_buf first, second;
    fj_buf_init(&first, scope->arena->allocator);
    fj_buf_init(&second, scope->arena->allocator);
    fj_ir_print(ir, &first);
    fj_ir_print(fj_ir_parse(scope->arena, scope, (fj_str){first.data, first.len}), &second);
    require(first.len == second.len && (first.len == 0 || memcmp(first.data, second.data, first.len) == 0));
    fj_buf_finish(&first);
    fj_buf_finish(&second);
}

static void emit_all(fj_scope *scope, const fj_ir *ir, const fj_ir *gradient) {
    for (int target = FJ_EMIT_CPU; target <= FJ_EMIT_SCALAR; target++) {
        fj_buf out;
        fj_buf_init(&out, scope->arena->allocator);
        fj_ir_emit(ir, gradient, (fj_emit_target)target, &out);
        fj_ir_emit_out(ir, gradient, (fj_emit_target)target, &out);
        fj_ir_print_ranges(ir, &out);
        fj_ir_print_rates(ir, &out);
        fj_ir_print_canonical(ir, &out);
        fj_buf_finish(&out);
    }
}

static void run(fj_scope *scope, void *argument) {
    const fj_str *text = argument;
    fj_ir *ir = fj_ir_parse(scope->arena, scope, *text);
    require(fj_ir_validate(ir) == NULL);
    if (ir->nodes.len > MAX_NODES) return;
    check_text(scope, ir);
    const fj_ir *better = fj_ir_optimise(ir);
    require(fj_ir_validate(better) == NULL);
    const fj_ir *guarded = fj_ir_guard(better);
    require(fj_ir_validate(guarded) == NULL);
    const fj_ir *gradient = fj_ir_gradient(guarded);
    const char *wrong = fj_ir_validate(gradient);
    require(wrong == NULL || strstr(wrong, "nested") != NULL);
    if (wrong == NULL) emit_all(scope, better, gradient);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fj_arena arena;
    fj_error error = {0};
    fj_str text = {(const char *)data, size};
    fj_arena_init(&arena, &fj_allocator_libc);
    (void)fj_scope_run(&arena, &error, run, &text);
    fj_arena_finish(&arena);
    fj_error_finish(&error);
    return 0;
}
