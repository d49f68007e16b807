/* From a description of mods to their graph: see mod.h. */
#include "expr/lang/capture.h"
#include "expr/lang/choose.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/names.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

#include <string.h>

/* ---- Applying a mod ---------------------------------------------------------------------------------- */

enum { ARGUMENTS = 5 };

static const fj_op leaves[ARGUMENTS] = {FJ_OP_SCORE, FJ_OP_B, FJ_OP_H, FJ_OP_Q, FJ_OP_KV};

static void make_arguments(fj_elab *e, fj_value *ret_values) {
    for (int i = 0; i < ARGUMENTS; i++)
        ret_values[i] = fj_scalar_value(e, fj_ir_leaf(e->ir, leaves[i]), false);
}

static void enter_mod(fj_elab *e) {
    e->frame = NULL;
    e->time = FJ_TIME_END;
    e->in_mod = true;
}

static bool takes_value(fj_mod_kind kind) { return kind == FJ_MOD_SCORE || kind == FJ_MOD_OUT; }

static fj_value apply(fj_elab *e, fj_value mod, fj_mod_kind kind, fj_place place) {
    fj_value arguments[ARGUMENTS];
    make_arguments(e, arguments);
    enter_mod(e);
    return fj_elab_call_values(e, mod, arguments + (takes_value(kind) ? 0 : 1), fj_mod_forms[kind].count,
                               place);
}

/* An expression of the command line, over the positions. */
fj_value fj_mod_expression(fj_elab *e, const fj_expr *expression, fj_mod_kind kind) {
    enum { NAMES = 7 };
    static const char *const names[FJ_MOD_KINDS][NAMES] = {
        [FJ_MOD_MASK] = {NULL, "b", "h", "q", "kv", "q_idx", "kv_idx"},
        [FJ_MOD_SCORE] = {"score", "b", "h", "q", "kv", "q_idx", "kv_idx"},
        [FJ_MOD_OUT] = {"out", "b", "h", "q", "d", "q_idx", "d_idx"},
        [FJ_MOD_SINK] = {NULL, "b", "h"},
    };
    static const int values[NAMES] = {0, 1, 2, 3, 4, 3, 4};
    fj_value arguments[ARGUMENTS];
    make_arguments(e, arguments);
    enter_mod(e);
    fj_str *locals = FJ_NEW_ARRAY(e->arena, fj_str, NAMES);
    size_t count = 0;
    e->frame = fj_frame_create(e, NULL, locals, NAMES);
    for (size_t i = 0; i < NAMES; i++) {
        if (names[kind][i] == NULL) continue;
        locals[count] = fj_str_from(names[kind][i]);
        e->frame->values[count++] = arguments[values[i]];
    }
    e->frame->count = count;
    return fj_elab_expr(e, expression);
}

/* ---- What a mod returns ------------------------------------------------------------------------------- */

static fj_value one_value(fj_elab *e, fj_value value, fj_mod_kind kind, fj_place place) {
    static const char *const results[] = {"a mask", "a score", "an output", "a sink"};
    const char *what = fj_mod_forms[kind].what;
    value = fj_tensor_settle(e, value, place);
    if (value.kind == FJ_VALUE_NONE) fj_elab_fail(e, place, "the %s mod returns nothing", what);
    if (fj_value_is_function(value)) {
        fj_elab_fail_note(e, place, "a factory is called with its own arguments, as in generate(8)",
                          "the %s mod returns a function: it is a factory", what);
    }
    if (value.kind == FJ_VALUE_TENSOR) {
        fj_elab_fail_note(e, place, "reduce it, or read it with more indices",
                          "the %s mod returns a tensor of rank %d, not one value", what,
                          fj_tensor_rank(e, value.tensor, place));
    }
    if (fj_value_is_sequence(value) || value.kind == FJ_VALUE_STR)
        fj_elab_fail(e, place, "the %s mod returns %s, not one value", what, fj_value_describe(value));
    return fj_operand(e, value, place, results[kind]);
}

/* The root of a mod that returns a float; 0: it returns what it is given. */
static fj_ref float_root(fj_elab *e, fj_value value, fj_mod_kind kind, fj_place place) {
    value = one_value(e, value, kind, place);
    const fj_ref ref = fj_to_ref(e, value, FJ_TYPE_FLOAT, place);
    return fj_ir_at(e->ir, ref)->op == FJ_OP_SCORE ? 0 : ref;
}

static void set_mask(fj_elab *e, fj_value value, fj_place place) {
    value = one_value(e, value, FJ_MOD_MASK, place);
    if (fj_value_type(value) != FJ_TYPE_BOOL) {
        fj_type_fail(e, value, FJ_DTYPE_BOOL, place,
                     "the mask mod returns %s, not a bool: compare it with something",
                     fj_value_describe(value));
    }
    const fj_ref ref = fj_to_ref(e, value, FJ_TYPE_BOOL, place);
    const fj_node *node = fj_ir_at(e->ir, ref);
    e->ir->mask = node->op == FJ_OP_CONST_BOOL && node->imm.i == 1 ? 0 : ref;
}

/* ---- One mod ---------------------------------------------------------------------------------------------- */

fj_source *fj_mod_source(fj_elab *e, const char *name, const char *text) {
    fj_source *source = FJ_NEW(e->arena, fj_source);
    source->name = name;
    source->text = (fj_str){fj_arena_strdup(e->arena, fj_str_from(text)), strlen(text)};
    return source;
}

static void set(fj_elab *e, fj_value value, fj_mod_kind kind, fj_place place) {
    e->results[kind] = place;
    switch (kind) {
    case FJ_MOD_SCORE: e->ir->score = float_root(e, value, kind, place); break;
    case FJ_MOD_OUT: e->out = float_root(e, value, kind, place); break;
    case FJ_MOD_SINK: e->sink = float_root(e, value, kind, place); break;
    default: set_mask(e, value, place);
    }
}

static void apply_choice(fj_elab *e, void *user) {
    const fj_choice *c = user;
    e->returned = c->place;
    const fj_value value = fj_tensor_settle(e, apply(e, c->mod, c->kind, c->place), c->place);
    const bool number = fj_value_is_number(value) || value.kind == FJ_VALUE_SCALAR;
    if (c->kind == FJ_MOD_SCORE && c->by_count && number && fj_value_type(value) == FJ_TYPE_BOOL)
        fj_mod_drop_candidate(e, c->place);
    set(e, value, c->kind, e->returned);
}

typedef struct trial {
    fj_value mod;
    fj_place place;
    bool is_bool;
} trial;

static void try_score(fj_elab *e, void *user) {
    trial *t = user;
    const fj_value value = fj_tensor_settle(e, apply(e, t->mod, FJ_MOD_SCORE, t->place), t->place);
    const bool number = fj_value_is_number(value) || value.kind == FJ_VALUE_SCALAR;
    t->is_bool = number && fj_value_type(value) == FJ_TYPE_BOOL;
}

bool fj_mod_gives_bool(fj_elab *e, fj_value mod, fj_place place) {
    trial t = {mod, place, false};
    return fj_elab_try(e, try_score, &t) == NULL && t.is_bool;
}

/* An error in a function that only its parameters made a mod: says that too. */
static _Noreturn void fail_guessed(fj_elab *e, const fj_choice *c, const fj_error *error) {
    fj_error *more = FJ_NEW(e->arena, fj_error);
    const char *what = fj_mod_forms[c->kind].what;
    *more = *error;
    fj_error_note(more,
                  "%s%s'%.*s' is taken for the %s mod because it takes %zu arguments; choose another with "
                  "--%s-mod NAME",
                  error->note, *error->note != '\0' ? "; " : "", (int)c->name.len, c->name.data, what,
                  fj_mod_forms[c->kind].count, what);
    fj_elab_fail_again(e, more);
}

static void apply_chosen(fj_elab *e, fj_choice *c) {
    e->found |= c->found;
    if (c->mod.kind == FJ_VALUE_NONE) return;
    if (!c->by_count) {
        apply_choice(e, c);
        return;
    }
    const fj_error *error = fj_elab_try(e, apply_choice, c);
    if (error == NULL) return;
    if (!fj_mod_is_doubtful(e, c->mod, c->kind)) fail_guessed(e, c, error);
    e->hints->skip[c->kind] = true;
    fj_elab_restart(e);
}

/* The expression that stands in a mod's place; NULL: none. */
static const char *expression_of(const fj_elab *e, fj_mod_kind kind) {
    const char *const texts[] = {e->desc->mask, e->desc->score, e->desc->out, e->desc->sink};
    return texts[kind];
}

static void compile_expression(fj_elab *e, fj_mod_kind kind) {
    const fj_source *source = fj_mod_source(e, fj_mod_forms[kind].expression, expression_of(e, kind));
    e->found = true;
    e->origins[kind] = (fj_mod_origin){.name = source->name};
    const fj_expr *expression = fj_expr_parse_expression(e->scope, source);
    FJ_PUSH(e->arena, &e->expressions, expression);
    set(e, fj_mod_expression(e, expression, kind), kind, expression->place);
}

/* Chosen before it is applied: what is the output's mod or the sink's is no score mod, however many parameters it has. */
static fj_choice choose_own(fj_elab *e, fj_mod_kind kind) {
    fj_choice choice = {.kind = kind, .mod = FJ_NONE};
    if (expression_of(e, kind) != NULL) {
        e->own[kind] = fj_mod_choose_unused(e, kind);
        return choice;
    }
    choice = fj_mod_choose(e, kind);
    e->own[kind] = choice.mod;
    return choice;
}

static void compile_one(fj_elab *e, fj_mod_kind kind, fj_choice *own) {
    if (expression_of(e, kind) != NULL) {
        compile_expression(e, kind);
        return;
    }
    fj_choice choice = own != NULL ? *own : fj_mod_choose(e, kind);
    apply_chosen(e, &choice);
}

/* ---- The whole ---------------------------------------------------------------------------------------------- */

static void mark_gradients(fj_elab *e, fj_ref root) {
    if (root == 0) return;
    const bool *marks = fj_reachable(e, root);
    for (fj_ref ref = 1; ref <= root; ref++) {
        const fj_node *node = fj_ir_at(e->ir, ref);
        if (!marks[ref]) continue;
        if (node->op == FJ_OP_LOAD) {
            fj_capture *capture = &e->ir->captures.data[node->imm.i];
            capture->gradient =
                !capture->literal && !capture->constant && fj_ir_value_type(capture->dtype) == FJ_TYPE_FLOAT;
        }
        if (node->op == FJ_OP_SCALAR) {
            fj_runtime_scalar *scalar = &e->ir->scalars.data[node->imm.i];
            scalar->gradient = scalar->type == FJ_TYPE_FLOAT;
        }
    }
}

fj_elab *fj_mod_begin(fj_scope *scope, const fj_mod_desc *desc, fj_hints *hints) {
    fj_elab *e = FJ_NEW(scope->arena, fj_elab);
    e->scope = scope;
    e->arena = scope->arena;
    e->ir = fj_ir_create(scope->arena);
    e->desc = desc;
    e->hints = hints;
    e->time = FJ_TIME_END;
    for (size_t i = 0; i < desc->binding_count; i++) {
        const fj_binding *binding = &desc->bindings[i];
        if (binding->rank < 0 || binding->rank > FJ_MAX_RANK || (unsigned)binding->dtype >= FJ_DTYPE_COUNT) {
            fj_fail(scope, FJ_ERR_ARGUMENT, "the binding of '%s' has a bad rank or dtype", binding->name);
        }
    }
    const fj_module *module = NULL;
    if (desc->source != NULL) {
        fj_source *source = FJ_NEW(e->arena, fj_source);
        source->name = desc->file != NULL ? desc->file : "<mod>";
        source->text = (fj_str){desc->source, desc->source_length};
        module = fj_expr_parse_module(scope, source);
    }
    fj_names_load(e, module);
    fj_names_load_overrides(e);
    return e;
}

void fj_mod_finish(fj_elab *e) {
    if (e->missing.len > 0 && !e->desc->bindings_open) fj_capture_report_missing(e);
    e->in_mod = false;
    fj_names_check_overrides(e);
    mark_gradients(e, e->ir->score);
    mark_gradients(e, e->out);
    mark_gradients(e, e->sink);
}

typedef struct job {
    const fj_mod_desc *desc;
    fj_hints hints;
    fj_elab *e;
} job;

static void run(fj_scope *scope, void *user) {
    job *j = user;
    fj_elab *e = j->e = fj_mod_begin(scope, j->desc, &j->hints);
    static const fj_mod_kind order[] = {FJ_MOD_SCORE, FJ_MOD_MASK, FJ_MOD_OUT, FJ_MOD_SINK};
    for (size_t i = 0; i < FJ_ARRAY_LEN(order); i++) fj_mod_check_choice(e, order[i]);
    fj_choice out = choose_own(e, FJ_MOD_OUT), sink = choose_own(e, FJ_MOD_SINK);
    compile_one(e, FJ_MOD_SCORE, NULL);
    compile_one(e, FJ_MOD_MASK, NULL);
    compile_one(e, FJ_MOD_OUT, &out);
    compile_one(e, FJ_MOD_SINK, &sink);
    if (e->module != NULL && !e->found) fj_mod_fail_none(e);
    fj_mod_finish(e);
}

void fj_mod_restarting(fj_scope *scope, fj_hints *hints, void (*body)(fj_scope *, void *), void *user) {
    for (int i = 0;; i++) {
        fj_error *error = FJ_NEW(scope->arena, fj_error);
        hints->restart = false;
        const fj_status status = fj_scope_run(scope->arena, error, body, user);
        if (status == FJ_OK) return;
        if (hints->restart && status != FJ_ERR_MEMORY && i < 256) continue;
        if (scope->error != NULL) {
            fj_error_finish(scope->error);
            *scope->error = *error;
        }
        fj_escape(scope, status);
    }
}

static fj_elab *compile(fj_scope *scope, const fj_mod_desc *desc) {
    job *j = FJ_NEW(scope->arena, job);
    j->desc = desc;
    fj_mod_restarting(scope, &j->hints, run, j);
    return j->e;
}

fj_ir *fj_expr_compile(fj_scope *scope, const fj_mod_desc *desc, fj_mod_origins *ret_origins) {
    const fj_elab *e = compile(scope, desc);
    if (ret_origins != NULL)
        *ret_origins = (fj_mod_origins){.score = e->origins[FJ_MOD_SCORE],
                                        .mask = e->origins[FJ_MOD_MASK],
                                        .out = e->origins[FJ_MOD_OUT],
                                        .sink = e->origins[FJ_MOD_SINK],
                                        .score_place = e->results[FJ_MOD_SCORE],
                                        .mask_place = e->results[FJ_MOD_MASK],
                                        .out_place = e->results[FJ_MOD_OUT],
                                        .sink_place = e->results[FJ_MOD_SINK],
                                        .out_root = e->out,
                                        .sink_root = e->sink,
                                        .requirements = {e->requirements.data, e->requirements.len}};
    return e->ir;
}

/* ---- What was reached -------------------------------------------------------------------------------------------- */

void fj_expr_print_ast(fj_scope *scope, const fj_mod_desc *desc, fj_buf *out) {
    fj_elab *e = compile(scope, desc);
    FJ_VEC(fj_stmt *) reached = {0};
    const fj_thunk *last = NULL;
    for (size_t i = 0; i < e->globals.len; i++) {
        const fj_thunk *thunk = e->globals.data[i]->thunk;
        if (!thunk->reached || thunk == last) continue;
        last = thunk;
        fj_stmt *copy = FJ_NEW(e->arena, fj_stmt);
        *copy = *thunk->stmt;
        FJ_PUSH(e->arena, &reached, copy);
    }
    fj_module module = {.body = {reached.data, reached.len}};
    if (e->module != NULL) {
        module.source = e->module->source;
        fj_expr_print_module(&module, out);
    }
    for (size_t i = 0; i < e->expressions.len; i++) {
        fj_expr_print_expression(e->expressions.data[i], out);
        fj_buf_put(out, "\n");
    }
}
