/* From the caller's source to graphs that any thread may read.
 *
 *   source -> fj_expr_compile -> optimise -> guard -> optimise     ir: score, mask, fault
 *                                   \-> gradient -> optimise       gradient: dscore, scatters
 *
 * The mods of the output and of the sink are compiled into the same graph, as they share its captures and scalars, and are
 * taken out of it: each is a score mod of a graph of its own, which goes the same way. */
#include "expr/lang/mod.h"

typedef struct pass {
    const fj_ir *ir, *gradient; /* what is made: passes read the first */
    bool is_sink;
    fj_place place; /* what goes wrong has the place of the result that was worked on */
} pass;

/* A sink is of every row: nothing hides it. */
static void always_live(fj_ir *ir) {
    if (ir->fault)
        ir->fault = fj_ir_substitute(ir, ir->fault, fj_ir_leaf(ir, FJ_OP_LIVE), fj_ir_bool(ir, true));
}

static void run_passes(fj_scope *scope, void *argument) {
    pass *p = argument;
    (void)scope;
    fj_ir *guarded = fj_ir_guard(fj_ir_optimise(p->ir));
    if (p->is_sink) always_live(guarded);
    p->ir = fj_ir_optimise(guarded);
}

static void differentiate(fj_scope *scope, void *argument) {
    pass *p = argument;
    (void)scope;
    p->gradient = fj_ir_optimise(fj_ir_gradient(p->ir));
}

static void run_located(fj_scope *scope, pass *p, void (*body)(fj_scope *, void *), const char *what) {
    fj_error *error = FJ_NEW(scope->arena, fj_error);
    fj_status status = fj_scope_run(scope->arena, error, body, p);
    if (status == FJ_OK) return;
    if (status == FJ_ERR_MOD && error->line == 0 && p->place.source)
        fj_expr_fail_note(scope, p->place, status, "unroll less, or split what is computed", "%s%s", what,
                          error->text);
    if (scope->error) {
        fj_error_finish(scope->error);
        *scope->error = *error;
    }
    fj_escape(scope, status);
}

/* The graph with other roots: passes take what these reach. */
static const fj_ir *part_of(const fj_ir *whole, fj_ref score, fj_ref mask) {
    fj_ir *part = FJ_NEW(whole->arena, fj_ir);
    *part = *whole;
    part->score = score;
    part->mask = mask;
    return part;
}

enum { SCORE, OUT, SINK, PASSES };

static void differentiate_all(fj_scope *scope, void *argument) {
    pass *passes = argument;
    for (int i = 0; i < PASSES; i++)
        if (passes[i].ir) run_located(scope, &passes[i], differentiate, "in the gradient: ");
}

static fj_mask_tier tier_of(const fj_ir *ir, bool tables) {
    if (!ir->mask) return FJ_TIER_NONE;
    return fj_ir_mask_has_ranges(ir, tables) ? FJ_TIER_RANGES : FJ_TIER_ELEMENTWISE;
}

void fj_expr_build(fj_scope *scope, const fj_mod_desc *desc, fj_program *ret_program) {
    fj_program *p = ret_program;
    *p = (fj_program){0};
    const fj_ir *whole = fj_expr_compile(scope, desc, &p->origins);
    const fj_mod_origins *from = &p->origins;
    pass passes[PASSES] = {
        [SCORE] = {.ir = part_of(whole, whole->score, whole->mask),
                   .place = from->score_place.source ? from->score_place : from->mask_place},
        [OUT] = {.ir = from->out_root ? part_of(whole, from->out_root, 0) : NULL, .place = from->out_place},
        [SINK] = {.ir = from->sink_root ? part_of(whole, from->sink_root, 0) : NULL,
                  .is_sink = true,
                  .place = from->sink_place},
    };
    for (int i = 0; i < PASSES; i++)
        if (passes[i].ir) run_located(scope, &passes[i], run_passes, "");
    p->ir = passes[SCORE].ir;
    p->out = passes[OUT].ir;
    p->sink = passes[SINK].ir;
    p->tier = tier_of(p->ir, false);
    p->table_tier = tier_of(p->ir, true);
    p->gradient_status = fj_scope_run(scope->arena, &p->gradient_error, differentiate_all, passes);
    if (p->gradient_status == FJ_ERR_MEMORY) fj_fail(scope, FJ_ERR_MEMORY, "out of memory");
    if (p->gradient_status != FJ_OK) return;
    p->gradient = passes[SCORE].gradient;
    p->out_gradient = passes[OUT].gradient;
    p->sink_gradient = passes[SINK].gradient;
}
