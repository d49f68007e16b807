/* From source text to IR: lexer, parser, compile-time evaluation, types. */
#ifndef FJ_EXPR_LANG_MOD_H
#define FJ_EXPR_LANG_MOD_H

#include "expr/ir/ir.h"
#include "expr/lang/ast.h"
#include "expr/lang/require.h"

/* Where the mods come from; texts are in the arena. The places are those of their results, for what
 * goes wrong once they are graphs. */
typedef struct fj_mod_origins {
    fj_mod_origin score, mask, out, sink;
    fj_place score_place, mask_place, out_place, sink_place;
    fj_ref out_root, sink_root;   /* of fj_expr_compile's graph: floats; 0: absent */
    fj_requirements requirements; /* of each launch: fj_requirements_check */
} fj_mod_origins;

/* Compiles the mods that desc chooses into one graph (score and mask roots, those of output and sink in ret_origins; captures
 * in order of first use, score mod first, then mask, output and sink; not yet optimised). ret_origins may be NULL. Everything lives in the arena. Errors are located
 * in scope->error (FJ_ERR_MOD, FJ_ERR_NAME) and leave the scope. */
fj_ir *fj_expr_compile(fj_scope *scope, const fj_mod_desc *desc, fj_mod_origins *ret_origins);

/* A mod, compiled. Nothing is added to its graphs afterwards. */
typedef struct fj_program {
    const fj_ir *ir;       /* optimised, with the fault root */
    const fj_ir *gradient; /* optimised; NULL when gradient_status and gradient_error say why */
    /* Score mods of their own kind: out's score is the output's element and its kv the dimension; sink reads b and h alone. NULL: absent.
     * All graphs of a program have the same lists of captures and scalars. */
    const fj_ir *out, *out_gradient, *sink, *sink_gradient;
    fj_mask_tier tier, table_tier; /* table_tier: where captured tensors are looked up by minima and maxima */
    fj_mod_origins origins;
    fj_status gradient_status;
    fj_error gradient_error; /* the caller finishes it, also after an error */
} fj_program;

/* Everything that a mod is planned and rendered from, in the arena; desc outlives it. A gradient that cannot be made is an
 * error of who asks for backward. Errors as fj_expr_compile, and of the passes: too many values (FJ_ERR_MOD). */
void fj_expr_build(fj_scope *scope, const fj_mod_desc *desc, fj_program *ret_program);

/* The syntax tree of what the chosen mods reach, as text (show --stage ast). */
void fj_expr_print_ast(fj_scope *scope, const fj_mod_desc *desc, fj_buf *out);

/* run-tests: evaluates one expression over bindings "q=3 kv=5 t=[1,2]"; appends the value as the
 * language prints it (`true`, `3`, `1.5`, `inf`; int64 and int32 alike). */
void fj_expr_evaluate(fj_scope *scope, const char *expression, const char *bindings, fj_buf *out);

#endif
