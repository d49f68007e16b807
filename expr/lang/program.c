/* From the caller's source to graphs that any thread may read.
 *
 *   source -> fj_expr_compile -> optimise -> guard -> optimise     ir: score, mask, fault
 *                                   \-> gradient -> optimise       gradient: dscore, scatters
 */
#include "expr/lang/mod.h"

static void run_passes(fj_scope *scope, void *argument) {
    fj_program *program = argument;
    (void)scope;
    program->ir = fj_ir_optimise(fj_ir_guard(fj_ir_optimise(program->ir)));
}

static void differentiate(fj_scope *scope, void *argument) {
    fj_program *program = argument;
    (void)scope;
    program->gradient = fj_ir_optimise(fj_ir_gradient(program->ir));
}

/* What a pass refuses has the place of the result that it worked on. */
static void run_located(fj_scope *scope, fj_program *program, void (*body)(fj_scope *, void *),
                        const char *what) {
    fj_error *error = FJ_NEW(scope->arena, fj_error);
    fj_status status = fj_scope_run(scope->arena, error, body, program);
    if (status == FJ_OK) return;
    const fj_mod_origins *from = &program->origins;
    fj_place place = from->score_place.source ? from->score_place : from->mask_place;
    if (status == FJ_ERR_MOD && error->line == 0 && place.source)
        fj_expr_fail_note(scope, place, status, "unroll less, or split what is computed", "%s%s", what,
                          error->text);
    if (scope->error) {
        fj_error_finish(scope->error);
        *scope->error = *error;
    }
    fj_escape(scope, status);
}

static void differentiate_located(fj_scope *scope, void *argument) {
    run_located(scope, argument, differentiate, "in the gradient: ");
}

static fj_mask_tier tier_of(const fj_ir *ir, bool tables) {
    if (!ir->mask) return FJ_TIER_NONE;
    return fj_ir_mask_has_ranges(ir, tables) ? FJ_TIER_RANGES : FJ_TIER_ELEMENTWISE;
}

void fj_expr_build(fj_scope *scope, const fj_mod_desc *desc, fj_program *ret_program) {
    fj_program *p = ret_program;
    *p = (fj_program){0};
    p->ir = fj_expr_compile(scope, desc, &p->origins);
    run_located(scope, p, run_passes, "");
    p->tier = tier_of(p->ir, false);
    p->table_tier = tier_of(p->ir, true);
    p->gradient_status = fj_scope_run(scope->arena, &p->gradient_error, differentiate_located, p);
    if (p->gradient_status == FJ_ERR_MEMORY) fj_fail(scope, FJ_ERR_MEMORY, "out of memory");
}
