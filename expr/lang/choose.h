/* Private to expr/lang: which functions are the mods; parts of mod.c that evaluate.c shares. */
#ifndef FJ_EXPR_LANG_CHOOSE_H
#define FJ_EXPR_LANG_CHOOSE_H

#include "expr/lang/elaborate.h"

/* What a kind of mod is called, and what it takes. */
typedef struct fj_mod_form {
    const char *what, *article; /* "an": an out mod */
    const char *name;           /* of the function that is chosen without being asked for */
    const char *option;         /* of what chooses it, as a source: "<score-mod>" */
    const char *expression;     /* of an expression in its place: "<score>" */
    const char *parameters;
    size_t count;
} fj_mod_form;
extern const fj_mod_form fj_mod_forms[FJ_MOD_KINDS];

/* What was chosen as a mod. */
typedef struct fj_choice {
    fj_mod_kind kind;
    bool found;    /* an option, a name or the number of parameters gave it; it may still be None */
    bool by_count; /* the number of parameters did */
    fj_value mod;
    fj_str name;
    fj_place place; /* what to point at when it is wrong */
} fj_choice;

/* choose.c */
fj_choice fj_mod_choose(fj_elab *e, fj_mod_kind kind);
/* The same of what is not applied, as there is an expression: FJ_NONE where it has an error. */
fj_value fj_mod_choose_unused(fj_elab *e, fj_mod_kind kind);
/* A file without any mod: says which functions could be one. */
_Noreturn void fj_mod_fail_none(fj_elab *e);
/* The name that --score-mod, --mask-mod... begins with is there; else it fails, whatever is bound. */
void fj_mod_check_choice(fj_elab *e, fj_mod_kind kind);
/* Whether it was only guessed, and may be something else: with another mod there, it is dropped when
 * it cannot be a mod. */
bool fj_mod_is_doubtful(fj_elab *e, fj_value mod, fj_mod_kind kind);
/* This candidate gives a bool, so it is a helper or a mask: starts again without it. */
_Noreturn void fj_mod_drop_candidate(fj_elab *e, fj_place place);

/* mod.c */
fj_elab *fj_mod_begin(fj_scope *scope, const fj_mod_desc *desc, fj_hints *hints);
void fj_mod_finish(fj_elab *e);
fj_value fj_mod_expression(fj_elab *e, const fj_expr *expression, fj_mod_kind kind);
/* Whether this, called as a score mod, gives a bool. */
bool fj_mod_gives_bool(fj_elab *e, fj_value mod, fj_place place);
fj_source *fj_mod_source(fj_elab *e, const char *name, const char *text);
/* Runs body in a scope, again as long as it asks for it; other failures leave `scope`. */
void fj_mod_restarting(fj_scope *scope, fj_hints *hints, void (*body)(fj_scope *, void *), void *user);

#endif
