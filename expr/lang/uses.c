/* Who uses a function, and which functions a file has: see uses.h. */
#include "expr/lang/uses.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/lex.h"

/* ---- Uses -------------------------------------------------------------------------------------------- */

typedef struct uses {
    fj_elab *e;
    fj_str name;
    size_t targets, others;
} uses;

static void walk_expr(uses *u, const fj_expr *x);
static void walk_block(uses *u, const fj_stmt_list *body);

static bool is_name(const uses *u, const fj_expr *x) {
    return x->kind == FJ_EXPR_NAME && fj_str_equal(x->text, u->name);
}

static bool is_local(const uses *u, const fj_function *function) {
    for (size_t i = 0; i < function->local_count; i++) {
        if (fj_str_equal(function->locals[i], u->name)) return true;
    }
    return false;
}

static void walk_function(uses *u, const fj_function *function) {
    for (size_t i = 0; i < function->decorators.len; i++) walk_expr(u, function->decorators.data[i]);
    for (size_t i = 0; i < function->parameter_count; i++)
        walk_expr(u, function->parameters[i].default_value);
    if (!is_local(u, function)) walk_block(u, &function->body);
}

static void walk_list(uses *u, const fj_expr_list *list) {
    for (size_t i = 0; i < list->len; i++) walk_expr(u, list->data[i]);
}

static void walk_call(uses *u, const fj_expr *x) {
    const fj_expr *callee = x->left;
    size_t first = 0;
    if (is_name(u, callee)) {
        u->targets++;
    } else {
        const bool named = callee->kind == FJ_EXPR_NAME || callee->kind == FJ_EXPR_ATTRIBUTE;
        const bool partial = named && fj_str_is(callee->text, "partial");
        if (partial && x->items.len > 0 && is_name(u, x->items.data[0])) {
            u->targets++;
            first = 1;
        }
        walk_expr(u, callee);
    }
    for (size_t i = first; i < x->items.len; i++) walk_expr(u, x->items.data[i]);
    for (size_t i = 0; i < x->keyword_count; i++) walk_expr(u, x->keywords[i].value);
}

static void walk_expr(uses *u, const fj_expr *x) {
    if (x == NULL) return;
    fj_elab_step(u->e, x->place, 1);
    if (is_name(u, x)) u->others++;
    if (x->kind == FJ_EXPR_CALL) {
        walk_call(u, x);
        return;
    }
    walk_expr(u, x->left);
    walk_expr(u, x->right);
    walk_expr(u, x->condition);
    walk_list(u, &x->items);
    for (size_t i = 0; i < x->clause_count; i++) {
        walk_expr(u, x->clauses[i].target);
        walk_expr(u, x->clauses[i].iterable);
        walk_list(u, &x->clauses[i].conditions);
    }
    if (x->function != NULL) walk_function(u, x->function);
}

static void walk_block(uses *u, const fj_stmt_list *body) {
    for (size_t i = 0; i < body->len; i++) {
        const fj_stmt *stmt = body->data[i];
        fj_elab_step(u->e, stmt->place, 1);
        walk_list(u, &stmt->targets);
        walk_expr(u, stmt->value);
        walk_expr(u, stmt->message);
        walk_block(u, &stmt->body);
        walk_block(u, &stmt->orelse);
        if (stmt->function != NULL) walk_function(u, stmt->function);
    }
}

bool fj_uses_is_helper(fj_elab *e, fj_str name) {
    uses u = {.e = e, .name = name};
    if (e->module != NULL) walk_block(&u, &e->module->body);
    return u.targets > 0 && u.others == 0;
}

/* ---- Functions of the text ------------------------------------------------------------------------------ */

/* Parameters without defaults between the tokens [at, end), `self` and `cls` left out; -1: it takes any. */
static int count_parameters(const fj_source *source, const fj_token *tokens, uint32_t at, uint32_t end) {
    int count = 0;
    bool first = true;
    while (at < end) {
        const fj_token *token = &tokens[at];
        const bool plain = token->kind == FJ_TOKEN_NAME, own = plain && first;
        bool needed = plain;
        if (own &&
            (fj_str_is(fj_lex_text(source, token), "self") || fj_str_is(fj_lex_text(source, token), "cls")))
            needed = false;
        if (token->kind == FJ_TOKEN_MUL && at + 1 < end && tokens[at + 1].kind == FJ_TOKEN_NAME) return -1;
        for (; at < end && tokens[at].kind != FJ_TOKEN_COMMA; at++) {
            if (tokens[at].kind == FJ_TOKEN_ASSIGN) needed = false;
            if (tokens[at].match > at) at = tokens[at].match;
        }
        count += needed;
        first = false;
        at++;
    }
    return count;
}

/* The end of a lambda's parameters: its colon. */
static uint32_t find_colon(const fj_token *tokens, uint32_t at) {
    for (; tokens[at].kind != FJ_TOKEN_COLON; at++) {
        if (tokens[at].kind == FJ_TOKEN_NEWLINE || tokens[at].kind == FJ_TOKEN_END) return at;
        if (tokens[at].match > at) at = tokens[at].match;
    }
    return at;
}

const char *fj_uses_list_functions(fj_elab *e) {
    const char *text = "";
    if (e->module == NULL) return text;
    const fj_source *source = e->module->source;
    const fj_token_list tokens = fj_lex_tokens(e->scope, source, false);
    int found = 0;
    for (uint32_t i = 0; i + 2 < tokens.len; i++) {
        const fj_token *at = &tokens.data[i];
        fj_place place = {source, at->offset, at->length};
        int count = 0;
        const char *name = "a lambda";
        if (at->kind == FJ_TOKEN_DEF && at[2].kind == FJ_TOKEN_LPAREN) {
            const fj_str given = fj_lex_text(source, &at[1]);
            name = fj_arena_printf(e->arena, "'%.*s'", (int)(given.len < 60 ? given.len : 60), given.data);
            count = count_parameters(source, tokens.data, i + 3, at[2].match);
        } else if (at->kind == FJ_TOKEN_LAMBDA) {
            count = count_parameters(source, tokens.data, i + 1, find_colon(tokens.data, i + 1));
        }
        if (count != 4 && count != 5) continue;
        if (++found > 8) return fj_arena_printf(e->arena, "%s, ...", text);
        text = fj_arena_printf(e->arena, "%s%s%s (line %d, %d parameters)", text, found > 1 ? ", " : "", name,
                               fj_expr_line(place), count);
    }
    return text;
}
