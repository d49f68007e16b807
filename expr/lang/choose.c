/* Which functions are the mods: LANGUAGE.md, "Choosing the mods". */
#include "expr/lang/choose.h"
#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/names.h"
#include "expr/lang/objects.h"
#include "expr/lang/tensor.h"
#include "expr/lang/uses.h"

#include <string.h>

const fj_mod_form fj_mod_forms[FJ_MOD_KINDS] = {
    [FJ_MOD_MASK] = {"mask", "a", "mask_mod", "<mask-mod>", "<mask>", "b, h, q_idx, kv_idx", 4},
    [FJ_MOD_SCORE] = {"score", "a", "score_mod", "<score-mod>", "<score>", "score, b, h, q_idx, kv_idx", 5},
    [FJ_MOD_OUT] = {"out", "an", "out_mod", "<out-mod>", "<out>", "out, b, h, q_idx, d_idx", 5},
    [FJ_MOD_SINK] = {"sink", "a", "sink_mod", "<sink-mod>", "<sink>", "b, h", 2},
};

/* ---- Factories --------------------------------------------------------------------------------------- */

/* Whether a value is a function is read off the text, so that nothing is run for it. */
typedef struct search {
    fj_elab *e;
    const fj_function *function;
    int depth;
} search;

static bool is_factory(fj_elab *e, const fj_function *function, int depth);

static const fj_expr *find_assigned(const search *s, const fj_stmt_list *body, fj_str name,
                                    bool *ret_is_def) {
    for (size_t i = body->len; i-- > 0;) {
        const fj_stmt *stmt = body->data[i];
        fj_elab_step(s->e, stmt->place, 1);
        if (stmt->kind == FJ_STMT_DEF && fj_str_equal(stmt->function->name, name)) {
            *ret_is_def = true;
            return NULL;
        }
        for (size_t j = 0; stmt->kind == FJ_STMT_ASSIGN && j < stmt->targets.len; j++) {
            const fj_expr *target = stmt->targets.data[j];
            if (target->kind == FJ_EXPR_NAME && fj_str_equal(target->text, name)) return stmt->value;
        }
        const fj_expr *inner = find_assigned(s, &stmt->body, name, ret_is_def);
        if (inner == NULL && !*ret_is_def) inner = find_assigned(s, &stmt->orelse, name, ret_is_def);
        if (inner != NULL || *ret_is_def) return inner;
    }
    return NULL;
}

static bool is_local(const fj_function *function, fj_str name) {
    for (size_t i = 0; i < function->local_count; i++) {
        if (fj_str_equal(function->locals[i], name)) return true;
    }
    return false;
}

static const fj_function *module_function(fj_elab *e, fj_str name) {
    const fj_global *global = fj_names_find(e, name);
    return global != NULL && global->thunk->stmt->kind == FJ_STMT_DEF ? global->thunk->stmt->function : NULL;
}

static bool gives_function(search s, const fj_expr *x);

static bool call_gives_function(search s, const fj_expr *callee) {
    static const char *const names[] = {"and_masks", "or_masks", "compose", "partial"};
    if (callee->kind != FJ_EXPR_NAME && callee->kind != FJ_EXPR_ATTRIBUTE) return false;
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        if (fj_str_is(callee->text, names[i])) return true;
    }
    const fj_function *function = callee->kind == FJ_EXPR_NAME ? module_function(s.e, callee->text) : NULL;
    return function != NULL && is_factory(s.e, function, s.depth);
}

static bool gives_function(search s, const fj_expr *x) {
    if (x == NULL || ++s.depth > 8) return false;
    fj_elab_step(s.e, x->place, 1);
    switch (x->kind) {
    case FJ_EXPR_LAMBDA: return true;
    case FJ_EXPR_CONDITION: return gives_function(s, x->left) || gives_function(s, x->right);
    case FJ_EXPR_CALL: return call_gives_function(s, x->left);
    case FJ_EXPR_NAME: {
        if (!is_local(s.function, x->text)) return module_function(s.e, x->text) != NULL;
        bool is_def = false;
        const fj_expr *value = find_assigned(&s, &s.function->body, x->text, &is_def);
        return is_def || gives_function(s, value);
    }
    default: return false;
    }
}

/* What the returns of a body say: 0 no value is returned, 1 a value, 2 a function. */
static int look_at_returns(search s, const fj_stmt_list *body) {
    int found = 0;
    for (size_t i = 0; i < body->len; i++) {
        const fj_stmt *stmt = body->data[i];
        fj_elab_step(s.e, stmt->place, 1);
        int here = 0;
        if (stmt->kind == FJ_STMT_RETURN && stmt->value != NULL)
            here = gives_function(s, stmt->value) ? 2 : 1;
        if (stmt->kind == FJ_STMT_IF || stmt->kind == FJ_STMT_FOR) {
            const int then = look_at_returns(s, &stmt->body), otherwise = look_at_returns(s, &stmt->orelse);
            here = then > otherwise ? then : otherwise;
        }
        if (here > found) found = here;
    }
    return found;
}

static bool is_factory(fj_elab *e, const fj_function *function, int depth) {
    if (depth > 8) return false;
    return look_at_returns((search){e, function, depth}, &function->body) == 2;
}

static bool returns_value(fj_elab *e, const fj_function *function) {
    return look_at_returns((search){e, function, 0}, &function->body) == 1;
}

/* ---- Parameters ------------------------------------------------------------------------------------------ */

/* How many positional arguments a function needs and takes; false: it cannot be a mod. */
static bool arity(const fj_function *function, size_t *ret_least, size_t *ret_most) {
    *ret_least = *ret_most = 0;
    for (size_t i = 0; i < function->parameter_count; i++) {
        const fj_parameter *parameter = &function->parameters[i];
        if (parameter->kind == FJ_PARAMETER_STAR && parameter->name.len > 0) *ret_most = 1000;
        if (parameter->kind != FJ_PARAMETER_PLAIN) continue;
        if (parameter->keyword_only && parameter->default_value == NULL) return false;
        if (parameter->keyword_only) continue;
        ++*ret_most;
        *ret_least += parameter->default_value == NULL;
    }
    return !function->is_generator && !function->is_async;
}

static size_t builtin_arity(const fj_builtin *builtin) {
    if (strcmp(builtin->name, "apply compose") == 0) return 5;
    return strncmp(builtin->name, "apply ", 6) == 0 ? 4 : 0;
}

static bool names_keyword(fj_value v, fj_str name) {
    for (; v.kind == FJ_VALUE_PARTIAL; v = v.partial->callee) {
        for (size_t i = 0; i < v.partial->arguments.keyword_count; i++) {
            if (fj_str_equal(v.partial->arguments.names[i], name)) return true;
        }
    }
    return false;
}

/* How many positional arguments a value needs to be called; 0: it cannot be a mod. */
static size_t value_arity(fj_value v) {
    size_t given = 0, needed = 0;
    fj_value callee = v;
    for (; callee.kind == FJ_VALUE_PARTIAL; callee = callee.partial->callee) {
        if (callee.partial->callee.kind == FJ_VALUE_BUILTIN)
            return builtin_arity(callee.partial->callee.builtin);
        given += callee.partial->arguments.count;
    }
    if (callee.kind != FJ_VALUE_FUNCTION) return 0;
    const fj_function *function = callee.function->function;
    if (function->is_generator || function->is_async) return 0;
    for (size_t i = 0; i < function->parameter_count; i++) {
        const fj_parameter *parameter = &function->parameters[i];
        if (parameter->kind != FJ_PARAMETER_PLAIN) continue;
        const bool there = parameter->default_value != NULL || names_keyword(v, parameter->name);
        if (parameter->keyword_only) {
            if (!there) return 0;
        } else if (given > 0) {
            given--;
        } else {
            needed += !there;
        }
    }
    return needed;
}

/* ---- Candidates -------------------------------------------------------------------------------------------- */

typedef struct candidates {
    FJ_VEC(fj_value) values;
    FJ_VEC(fj_str) names;
    FJ_VEC(fj_place) places;
} candidates;

typedef struct attempt {
    fj_str name;
    fj_place place;
    fj_value value;
} attempt;

static void look_up(fj_elab *e, void *user) {
    attempt *a = user;
    if (!fj_names_module_value(e, a->name, a->place, &a->value)) a->value = FJ_NONE;
    a->value = fj_callable(e, a->value, a->place);
}

static bool may_be_mod(fj_elab *e, const fj_global *global, size_t wanted) {
    const fj_stmt *stmt = global->thunk->stmt;
    size_t least, most;
    if (stmt->kind == FJ_STMT_DEF) {
        return arity(stmt->function, &least, &most) && least == wanted && returns_value(e, stmt->function);
    }
    return stmt->kind == FJ_STMT_ASSIGN &&
           (stmt->value->kind == FJ_EXPR_LAMBDA || stmt->value->kind == FJ_EXPR_CALL ||
            stmt->value->kind == FJ_EXPR_NAME);
}

static void add_candidate(fj_elab *e, candidates *found, const attempt *a) {
    for (size_t i = 0; i < found->values.len; i++) {
        if (fj_value_equal(found->values.data[i], a->value)) return;
    }
    FJ_PUSH(e->arena, &found->values, a->value);
    FJ_PUSH(e->arena, &found->names, a->name);
    FJ_PUSH(e->arena, &found->places, a->place);
}

static bool is_dropped(const fj_elab *e, fj_place place, size_t wanted) {
    for (size_t i = 0; wanted == 5 && i < e->hints->not_scores.len; i++) {
        if (e->hints->not_scores.data[i] == place.offset) return true;
    }
    return false;
}

_Noreturn void fj_mod_drop_candidate(fj_elab *e, fj_place place) {
    FJ_PUSH(e->arena, &e->hints->not_scores, place.offset);
    fj_elab_restart(e);
}

/* Whether it is the mod of the output or of the sink. */
static bool is_own(const fj_elab *e, fj_value value) {
    for (int kind = FJ_MOD_OUT; kind < FJ_MOD_KINDS; kind++) {
        if (fj_value_equal(e->own[kind], value)) return true;
    }
    return false;
}

static bool has_own_name(fj_str name) { return fj_str_is(name, "out_mod") || fj_str_is(name, "sink_mod"); }

static candidates find_candidates(fj_elab *e, size_t wanted) {
    candidates found = {0};
    for (size_t i = 0; i < e->globals.len; i++) {
        const fj_global *global = e->globals.data[i];
        if (fj_names_find(e, global->name) != global || global->mutation || !may_be_mod(e, global, wanted) ||
            has_own_name(global->name))
            continue;
        attempt a = {global->name, global->thunk->stmt->place, FJ_NONE};
        const bool is_def = global->thunk->stmt->kind == FJ_STMT_DEF;
        if (is_def) a.place = global->thunk->stmt->function->place;
        if (is_dropped(e, a.place, wanted) || (is_def && fj_uses_is_helper(e, global->name))) continue;
        if (fj_elab_try(e, look_up, &a) == NULL && value_arity(a.value) == wanted && !is_own(e, a.value))
            add_candidate(e, &found, &a);
    }
    return found;
}

static const char *list_names(fj_elab *e, const candidates *found) {
    const char *text = "";
    for (size_t i = 0; i < found->names.len && i < 12; i++) {
        text = fj_arena_printf(e->arena, "%s%s'%.*s'", text, i > 0 ? ", " : "", (int)found->names.data[i].len,
                               found->names.data[i].data);
    }
    return text;
}

/* ---- Choosing -------------------------------------------------------------------------------------------------- */

static void check_arity(fj_elab *e, fj_value mod, fj_mod_kind kind, fj_place place) {
    const fj_mod_form *form = &fj_mod_forms[kind];
    const char *what = form->what;
    if (mod.kind == FJ_VALUE_UNKNOWN) fj_elab_fail(e, place, "%s", mod.unknown->why);
    if (fj_is_opaque(mod)) fj_capture_fail_opaque(e, mod, place);
    if (mod.kind == FJ_VALUE_TENSOR) fj_capture_fail_broken(e, mod.tensor, place);
    if (!fj_value_is_function(mod))
        fj_elab_fail(e, place, "the %s mod is %s, not a function", what, fj_value_describe(mod));
    if (mod.kind != FJ_VALUE_FUNCTION) return;
    const fj_function *function = mod.function->function;
    const size_t wanted = form->count;
    size_t least, most;
    if (function->is_generator || function->is_async) return; /* its call says so */
    if (arity(function, &least, &most) && least <= wanted && wanted <= most) return;
    const char *note = is_factory(e, function, 0)
                         ? "it is a factory: call it with its own arguments, as in generate(8)"
                         : NULL;
    fj_elab_fail_note(e, function->place, note, "%s %s mod takes %zu arguments, (%s), but '%.*s' takes %zu",
                      form->article, what, wanted, form->parameters, (int)function->name.len,
                      function->name.data, least);
}

/* The name that a choice begins with must be there: this is a usage error, whatever is bound. */
static void check_choice(fj_elab *e, const fj_expr *x, fj_mod_kind kind) {
    while (x->kind == FJ_EXPR_CALL || x->kind == FJ_EXPR_ATTRIBUTE) x = x->left;
    if (x->kind != FJ_EXPR_NAME || fj_names_find(e, x->text) != NULL) return;
    if (fj_builtin_find(x->text, FJ_IN_FLEX | FJ_IN_PYTHON) != NULL || fj_str_is(x->text, "torch")) return;
    fj_suggestion suggestion = fj_suggest_begin(x->text);
    for (size_t i = 0; i < e->globals.len; i++) fj_suggest(&suggestion, e->globals.data[i]->name);
    const candidates found = find_candidates(e, fj_mod_forms[kind].count);
    const char *note = NULL;
    if (found.names.len > 0) note = fj_arena_printf(e->arena, "there is %s", list_names(e, &found));
    fj_elab_fail_name(e, x->place, note, "the module has no function '%.*s'%s", (int)x->text.len,
                      x->text.data, fj_suggest_text(e, &suggestion));
}

/* What the caller chose; NULL: nothing. */
static const char *option_of(const fj_elab *e, fj_mod_kind kind) {
    const char *const texts[] = {e->desc->mask_mod, e->desc->score_mod, e->desc->out_mod, e->desc->sink_mod};
    return texts[kind];
}

static const fj_expr *parse_choice(fj_elab *e, fj_mod_kind kind) {
    const char *text = option_of(e, kind);
    if (text == NULL) return NULL;
    const fj_source *source = fj_mod_source(e, fj_mod_forms[kind].option, text);
    return fj_expr_parse_expression(e->scope, source);
}

void fj_mod_check_choice(fj_elab *e, fj_mod_kind kind) {
    const fj_expr *x = parse_choice(e, kind);
    if (x != NULL) check_choice(e, x, kind);
}

static void choose_by_option(fj_elab *e, fj_choice *choice) {
    const fj_expr *x = parse_choice(e, choice->kind);
    choice->found = true;
    choice->place = x->place;
    choice->name = x->place.source->text;
    choice->mod = fj_elab_expr(e, x);
}

static void choose_by_name(fj_elab *e, fj_choice *choice) {
    const fj_str name = fj_str_from(fj_mod_forms[choice->kind].name);
    const fj_global *global = fj_names_find(e, name);
    if (global == NULL) return;
    const fj_stmt *stmt = global->thunk->stmt;
    choice->name = name;
    choice->place = stmt->kind == FJ_STMT_DEF ? stmt->function->place : stmt->place;
    choice->found = fj_names_module_value(e, name, choice->place, &choice->mod);
}

static void choose_by_count(fj_elab *e, fj_choice *choice) {
    const bool is_score = choice->kind == FJ_MOD_SCORE;
    const char *what = fj_mod_forms[choice->kind].what;
    const candidates found = find_candidates(e, fj_mod_forms[choice->kind].count);
    if (found.values.len == 0 || e->hints->skip[choice->kind]) return;
    choice->place = found.places.data[0];
    for (size_t i = 0; is_score && found.values.len > 1 && i < found.values.len; i++) {
        if (fj_mod_gives_bool(e, found.values.data[i], found.places.data[i]))
            fj_mod_drop_candidate(e, found.places.data[i]);
    }
    if (found.values.len > 1) {
        const char *note =
            fj_arena_printf(e->arena, "choose with --%s-mod NAME, or call one of them %s_mod", what, what);
        fj_elab_fail_note(e, choice->place, note, "several functions could be the %s mod: %s", what,
                          list_names(e, &found));
    }
    choice->found = choice->by_count = true;
    choice->name = found.names.data[0];
    choice->mod = found.values.data[0];
}

/* The line that a reader looks for: of the function, else of what made it; 0 outside of the file. */
static int line_of(const fj_elab *e, const fj_choice *choice) {
    const fj_value mod = choice->mod;
    const fj_place place = mod.kind == FJ_VALUE_FUNCTION ? mod.function->function->place : choice->place;
    return e->module != NULL && place.source == e->module->source ? fj_expr_line(place) : 0;
}

fj_choice fj_mod_choose(fj_elab *e, fj_mod_kind kind) {
    fj_choice choice = {.kind = kind, .mod = FJ_NONE};
    e->frame = NULL;
    e->time = FJ_TIME_END;
    e->in_mod = false;
    if (option_of(e, kind) != NULL) {
        choose_by_option(e, &choice);
    } else {
        choose_by_name(e, &choice);
        if (!choice.found && (kind == FJ_MOD_SCORE || kind == FJ_MOD_MASK)) choose_by_count(e, &choice);
    }
    choice.mod = fj_callable(e, choice.mod, choice.place);
    if (choice.mod.kind == FJ_VALUE_NONE) return choice;
    check_arity(e, choice.mod, kind, choice.place);
    e->origins[kind] = (fj_mod_origin){.name = fj_arena_strdup(e->arena, choice.name),
                                       .line = line_of(e, &choice),
                                       .by_count = choice.by_count};
    return choice;
}

static void choose_unused(fj_elab *e, void *user) {
    fj_choice *choice = user;
    *choice = fj_mod_choose(e, choice->kind);
}

fj_value fj_mod_choose_unused(fj_elab *e, fj_mod_kind kind) {
    fj_choice choice = {.kind = kind, .mod = FJ_NONE};
    return fj_elab_try(e, choose_unused, &choice) == NULL ? choice.mod : FJ_NONE;
}

_Noreturn void fj_mod_fail_none(fj_elab *e) {
    const char *list = fj_uses_list_functions(e);
    const char *note = "a score mod takes (score, b, h, q_idx, kv_idx), a mask mod (b, h, q_idx, kv_idx)";
    if (*list != '\0') {
        note = fj_arena_printf(e->arena,
                               "functions of four or five parameters: %s; a mod is defined at module level "
                               "or returned by a factory, and chosen with --score-mod X or --mask-mod X",
                               list);
    }
    fj_elab_fail_note(e, (fj_place){e->module->source, 0, 0}, note,
                      "neither a score mod nor a mask mod is found in this file");
}

/* A function that has the right number of parameters by chance: none is called as those of mods are. */
bool fj_mod_is_doubtful(fj_elab *e, fj_value mod, fj_mod_kind kind) {
    static const char *const usual[] = {"score", "b",    "h",    "q",    "kv",    "q_idx", "kv_idx",
                                        "batch", "head", "q_id", "k_id", "kv_id", "k_idx", "i",
                                        "j",     "m",    "n",    "s",    "_"};
    const fj_mod_desc *desc = e->desc;
    const bool is_score = kind == FJ_MOD_SCORE;
    const char *own = is_score ? desc->score_mod : desc->mask_mod;
    const bool chosen =
        own != NULL || fj_names_find(e, is_score ? FJ_STR("score_mod") : FJ_STR("mask_mod")) != NULL;
    const char *other = is_score ? desc->mask_mod : desc->score_mod,
               *expression = is_score ? desc->mask : desc->score;
    const fj_global *named = fj_names_find(e, is_score ? FJ_STR("mask_mod") : FJ_STR("score_mod"));
    if (chosen || mod.kind != FJ_VALUE_FUNCTION || (other == NULL && expression == NULL && named == NULL))
        return false;
    const fj_function *function = mod.function->function;
    for (size_t i = 0; i < function->parameter_count; i++) {
        for (size_t k = 0; k < FJ_ARRAY_LEN(usual); k++) {
            if (fj_str_is(function->parameters[i].name, usual[k])) return false;
        }
    }
    return true;
}
