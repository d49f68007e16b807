/* Blocks and compound statements of the mod language, and the parser's own tools. See parse.h. */
#include "expr/lang/parse.h"

#include <stdio.h>
#include <string.h>

/* ---- Places and failures ----------------------------------------------------------------- */

fj_place fj_parse_token_place(const fj_parser *parser, uint32_t index) {
    const fj_token *token = &parser->tokens[index];
    return (fj_place){parser->source, token->offset, token->length};
}

fj_place fj_parse_place(const fj_parser *parser, uint32_t first) {
    uint32_t start = parser->tokens[first].offset;
    const fj_token *last = &parser->tokens[parser->at > first ? parser->at - 1 : first];
    return (fj_place){parser->source, start, last->offset + last->length - start};
}

_Noreturn void fj_parse_fail(fj_parser *parser, fj_place place, const char *format, ...) {
    char text[sizeof((fj_error *)0)->text];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    if (!parser->recover) fj_expr_fail(parser->scope, place, "%s", text);
    parser->error_place = place;
    parser->error_text = fj_arena_strdup(parser->arena, fj_str_from(text));
    longjmp(*parser->recover, 1);
}

/* The current token as a reader would call it. */
static const char *describe(const fj_parser *parser) {
    const fj_token *token = &parser->tokens[parser->at];
    fj_str text = fj_lex_text(parser->source, token);
    if (token->kind == FJ_TOKEN_STRING) return "a string";
    if (token->length == 0) {
        const char *kind = fj_lex_kind_text((fj_token_kind)token->kind);
        return strncmp(kind, "the ", 4) == 0 ? kind + 4 : kind;
    }
    bool cut = text.len > 40;
    size_t length = cut ? 40 : text.len;
    while (cut && ((unsigned char)text.data[length] & 0xC0) == 0x80) length--;
    return fj_arena_printf(parser->arena, "'%.*s%s'", (int)length, text.data, cut ? "..." : "");
}

_Noreturn void fj_parse_unexpected(fj_parser *parser, const char *wanted) {
    fj_place place = fj_parse_token_place(parser, parser->at);
    fj_token_kind kind = fj_parse_peek(parser);
    fj_token_kind before = parser->at ? (fj_token_kind)parser->tokens[parser->at - 1].kind : FJ_TOKEN_END;
    if (kind == FJ_TOKEN_ASSIGN)
        fj_parse_fail(parser, place, "unexpected '=': expected %s; a comparison is written '=='", wanted);
    if (kind == before && (kind == FJ_TOKEN_AMPERSAND || kind == FJ_TOKEN_BAR))
        fj_parse_fail(parser, place, "unexpected '%s': write '%s' or '%s' once", fj_lex_kind_text(kind),
                      fj_lex_kind_text(kind), kind == FJ_TOKEN_BAR ? "or" : "and");
    fj_parse_fail(parser, place, "unexpected %s: expected %s", describe(parser), wanted);
}

void fj_parse_expect(fj_parser *parser, fj_token_kind kind, const char *wanted) {
    if (!fj_parse_accept(parser, kind)) fj_parse_unexpected(parser, wanted);
}

fj_str fj_parse_name(fj_parser *parser, const char *wanted) {
    fj_parse_expect(parser, FJ_TOKEN_NAME, wanted);
    return fj_lex_text(parser->source, &parser->tokens[parser->at - 1]);
}

void fj_parse_enter(fj_parser *parser) {
    if (++parser->depth > FJ_NESTING_MAX)
        fj_parse_fail(parser, fj_parse_token_place(parser, parser->at), "nested more than %d deep",
                      FJ_NESTING_MAX);
}

/* ---- Names ------------------------------------------------------------------------------- */

static size_t name_slot(const fj_name_set *set, fj_str name) {
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; i < name.len; i++) hash = (hash ^ (unsigned char)name.data[i]) * 1099511628211u;
    size_t slot = (size_t)(hash ^ hash >> 32) & (set->slot_count - 1);
    while (set->slots[slot] && !fj_str_equal(set->names[set->slots[slot] - 1], name))
        slot = (slot + 1) & (set->slot_count - 1);
    return slot;
}

bool fj_names_has(const fj_name_set *set, fj_str name) {
    return set->slot_count && set->slots[name_slot(set, name)];
}

bool fj_names_add(fj_arena *arena, fj_name_set *set, fj_str name) {
    if (fj_names_has(set, name)) return false;
    if (set->count * 2 >= set->slot_count) {
        set->slot_count = set->slot_count ? set->slot_count * 2 : 16;
        set->slots = FJ_NEW_ARRAY(arena, uint32_t, set->slot_count);
        for (size_t i = 0; i < set->count; i++) set->slots[name_slot(set, set->names[i])] = (uint32_t)i + 1;
    }
    set->names = fj_arena_grow(arena, set->names, sizeof *set->names, set->count, set->count + 1, &set->cap);
    size_t slot = name_slot(set, name);
    set->names[set->count++] = name;
    set->slots[slot] = (uint32_t)set->count;
    return true;
}

void fj_parse_bind(fj_parser *parser, fj_str name) {
    if (parser->function) (void)fj_names_add(parser->arena, &parser->function->bound, name);
}

fj_parse_function *fj_parse_function_begin(fj_parser *parser, fj_function *function) {
    fj_parse_function *outer = parser->function;
    parser->function = FJ_NEW(parser->arena, fj_parse_function);
    parser->function->function = function;
    return outer;
}

void fj_parse_function_end(fj_parser *parser, fj_parse_function *outer) {
    const fj_parse_function *inner = parser->function;
    fj_function *function = inner->function;
    function->locals = FJ_NEW_ARRAY(parser->arena, fj_str, inner->bound.count);
    for (size_t i = 0; i < inner->bound.count; i++)
        if (!fj_names_has(&inner->global, inner->bound.names[i]))
            function->locals[function->local_count++] = inner->bound.names[i];
    parser->function = outer;
}

int *fj_parse_loops(fj_parser *parser) {
    return parser->function ? &parser->function->loops : &parser->module_loops;
}

/* ---- Blocks ------------------------------------------------------------------------------ */

fj_stmt *fj_parse_new_statement(fj_parser *parser, fj_stmt_kind kind) {
    fj_stmt *statement = FJ_NEW(parser->arena, fj_stmt);
    statement->kind = kind;
    return statement;
}

static void parse_statement(fj_parser *parser, fj_stmt_vec *out);

/* False when the statement was given up: parser->error_* say why. */
static bool attempt_statement(fj_parser *parser, fj_stmt_vec *out) {
    const fj_parser saved = *parser;
    jmp_buf here;
    parser->recover = &here;
    volatile bool good = false;
    if (setjmp(here) == 0) {
        parse_statement(parser, out);
        good = true;
    }
    parser->recover = saved.recover;
    parser->depth = saved.depth;
    parser->elifs = saved.elifs;
    parser->function = saved.function;
    return good;
}

fj_stmt *fj_parse_skip(fj_parser *parser, fj_stmt_vec *out, uint32_t start, uint32_t end,
                       const char *sentence) {
    fj_stmt *statement = fj_parse_new_statement(parser, FJ_STMT_UNSUPPORTED);
    statement->text = fj_str_from(sentence);
    statement->place = fj_parse_token_place(parser, start);
    fj_parse_collect_binds(parser, start, end, statement);
    FJ_PUSH(parser->arena, out, statement);
    parser->at = end;
    return statement;
}

static void parse_recovering(fj_parser *parser, fj_stmt_vec *out) {
    uint32_t start = parser->at;
    size_t count = out->len;
    int *loops = fj_parse_loops(parser), saved_loops = *loops;
    if (attempt_statement(parser, out)) return;
    *loops = saved_loops;
    out->len = count; /* `return a b`: not even the first half */
    const char *sentence = parser->error_text;
    fj_stmt *statement = fj_parse_skip(parser, out, start, fj_parse_statement_end(parser, start), sentence);
    statement->place = parser->error_place;
}

fj_stmt_list fj_parse_block(fj_parser *parser) {
    fj_stmt_vec out = {0};
    fj_parse_expect(parser, FJ_TOKEN_COLON, "':'");
    fj_parse_enter(parser);
    if (fj_parse_accept(parser, FJ_TOKEN_NEWLINE)) {
        fj_parse_expect(parser, FJ_TOKEN_INDENT, "an indented block");
        while (!fj_parse_accept(parser, FJ_TOKEN_DEDENT)) parse_recovering(parser, &out);
    } else {
        fj_parse_simple_line(parser, &out);
    }
    parser->depth--;
    return (fj_stmt_list){out.data, out.len};
}

/* ---- Compound statements ----------------------------------------------------------------- */

/* An if and its elifs, each of which is the only statement of the else before it. */
static void parse_if(fj_parser *parser, fj_stmt_vec *out) {
    int elifs = parser->elifs;
    fj_stmt *whole = fj_parse_new_statement(parser, FJ_STMT_IF), *statement = whole;
    for (;;) {
        uint32_t first = parser->at++;
        statement->value = fj_parse_named(parser);
        statement->place = fj_parse_place(parser, first);
        statement->body = fj_parse_block(parser);
        if (fj_parse_peek(parser) != FJ_TOKEN_ELIF) break;
        if (++parser->elifs > FJ_DEPTH_MAX)
            fj_parse_fail(parser, fj_parse_token_place(parser, parser->at), "more than %d 'elif' in a row",
                          FJ_DEPTH_MAX);
        fj_stmt_vec orelse = {0};
        fj_stmt *next = fj_parse_new_statement(parser, FJ_STMT_IF);
        FJ_PUSH(parser->arena, &orelse, next);
        statement->orelse = (fj_stmt_list){orelse.data, orelse.len};
        statement = next;
    }
    if (fj_parse_accept(parser, FJ_TOKEN_ELSE)) statement->orelse = fj_parse_block(parser);
    FJ_PUSH(parser->arena, out, whole);
    parser->elifs = elifs;
}

static void parse_for(fj_parser *parser, fj_stmt_vec *out) {
    uint32_t first = parser->at++;
    fj_stmt *statement = fj_parse_new_statement(parser, FJ_STMT_FOR);
    fj_expr *target = fj_parse_for_target(parser);
    fj_parse_bind_target(parser, target);
    fj_parse_expect(parser, FJ_TOKEN_IN, "'in'");
    statement->targets.data = FJ_NEW(parser->arena, fj_expr *);
    statement->targets.data[0] = target;
    statement->targets.len = 1;
    statement->value = fj_parse_elements(parser);
    statement->place = fj_parse_place(parser, first);
    ++*fj_parse_loops(parser);
    statement->body = fj_parse_block(parser);
    --*fj_parse_loops(parser);
    if (fj_parse_accept(parser, FJ_TOKEN_ELSE)) statement->orelse = fj_parse_block(parser);
    FJ_PUSH(parser->arena, out, statement);
}

static void parse_def(fj_parser *parser, fj_stmt_vec *out, uint32_t first, fj_expr_list decorators) {
    fj_stmt *statement = fj_parse_new_statement(parser, FJ_STMT_DEF);
    fj_function *function = FJ_NEW(parser->arena, fj_function);
    statement->function = function;
    function->decorators = decorators;
    function->is_async = fj_parse_accept(parser, FJ_TOKEN_ASYNC);
    parser->at++;
    function->name = fj_parse_name(parser, "the function's name");
    function->place = fj_parse_token_place(parser, parser->at - 1);
    fj_parse_bind(parser, function->name);
    if (fj_parse_peek(parser) == FJ_TOKEN_LBRACKET) /* def f[T](...): types play no part */
        parser->at = parser->tokens[parser->at].match + 1;
    fj_parse_expect(parser, FJ_TOKEN_LPAREN, "'('");
    fj_parse_function *outer = fj_parse_function_begin(parser, function);
    fj_parse_parameters(parser, function, FJ_TOKEN_RPAREN, true);
    fj_parse_expect(parser, FJ_TOKEN_RPAREN, "',' or ')'");
    if (fj_parse_accept(parser, FJ_TOKEN_ARROW)) (void)fj_parse_expression(parser);
    statement->place = fj_parse_place(parser, first);
    function->body = fj_parse_block(parser);
    fj_parse_function_end(parser, outer);
    FJ_PUSH(parser->arena, out, statement);
}

/* The bases are read as the arguments of a call; keywords such as a metaclass play no part. */
static void parse_class(fj_parser *parser, fj_stmt_vec *out, uint32_t first, fj_expr_list decorators) {
    fj_stmt *statement = fj_parse_new_statement(parser, FJ_STMT_CLASS);
    fj_function *function = FJ_NEW(parser->arena, fj_function);
    uint32_t start = ++parser->at;
    statement->function = function;
    function->decorators = decorators;
    function->name = fj_parse_name(parser, "the name of the class");
    function->place = fj_parse_token_place(parser, start);
    fj_parse_bind(parser, function->name);
    if (fj_parse_peek(parser) == FJ_TOKEN_LBRACKET) /* class X[T]: types play no part */
        parser->at = parser->tokens[parser->at].match + 1;
    if (fj_parse_peek(parser) == FJ_TOKEN_LPAREN) {
        fj_expr *name = fj_parse_new(parser, FJ_EXPR_NAME);
        name->text = function->name;
        statement->targets = fj_parse_call(parser, fj_parse_finish(parser, name, start), start)->items;
    }
    statement->place = fj_parse_place(parser, first);
    fj_parse_function *outer = fj_parse_function_begin(parser, function);
    function->body = fj_parse_block(parser);
    fj_parse_function_end(parser, outer);
    FJ_PUSH(parser->arena, out, statement);
}

static void parse_decorated(fj_parser *parser, fj_stmt_vec *out) {
    FJ_VEC(fj_expr *) decorators = {0};
    while (fj_parse_accept(parser, FJ_TOKEN_MATMUL)) {
        FJ_PUSH(parser->arena, &decorators, fj_parse_named(parser));
        fj_parse_expect(parser, FJ_TOKEN_NEWLINE, "the end of the line");
    }
    uint32_t at = parser->at;
    fj_token_kind second = fj_parse_peek_second(parser);
    if (fj_parse_peek(parser) == FJ_TOKEN_DEF ||
        (fj_parse_peek(parser) == FJ_TOKEN_ASYNC && second == FJ_TOKEN_DEF))
        parse_def(parser, out, at, (fj_expr_list){decorators.data, decorators.len});
    else if (fj_parse_peek(parser) == FJ_TOKEN_CLASS)
        parse_class(parser, out, at, (fj_expr_list){decorators.data, decorators.len});
    else
        fj_parse_unexpected(parser, "a function behind its decorators");
}

static const char *unsupported_sentence(const fj_parser *parser) {
    switch (fj_parse_peek(parser)) {
    case FJ_TOKEN_WHILE: return "while loops are not in the mod language: use a for loop over range(...)";
    case FJ_TOKEN_TRY: return "try statements are not in the mod language: write only what is to happen";
    case FJ_TOKEN_WITH: return "with statements are not in the mod language: write their body alone";
    case FJ_TOKEN_ASYNC:
        return fj_parse_peek_second(parser) == FJ_TOKEN_DEF ? NULL : "'async' is not in the mod language";
    default: return NULL;
    }
}

static void parse_statement(fj_parser *parser, fj_stmt_vec *out) {
    const char *sentence = unsupported_sentence(parser);
    uint32_t first = parser->at;
    if (sentence) {
        (void)fj_parse_skip(parser, out, first, fj_parse_statement_end(parser, first), sentence);
        return;
    }
    switch (fj_parse_peek(parser)) {
    case FJ_TOKEN_IF: parse_if(parser, out); break;
    case FJ_TOKEN_FOR: parse_for(parser, out); break;
    case FJ_TOKEN_ASYNC:
    case FJ_TOKEN_DEF: parse_def(parser, out, first, (fj_expr_list){NULL, 0}); break;
    case FJ_TOKEN_MATMUL: parse_decorated(parser, out); break;
    case FJ_TOKEN_CLASS: parse_class(parser, out, first, (fj_expr_list){NULL, 0}); break;
    case FJ_TOKEN_ELIF:
    case FJ_TOKEN_ELSE:
        fj_parse_fail(parser, fj_parse_token_place(parser, first), "this '%s' belongs to no 'if' or 'for'",
                      fj_lex_kind_text(fj_parse_peek(parser)));
    default:
        if (fj_parse_at_match(parser))
            fj_parse_match(parser, out);
        else
            fj_parse_simple_line(parser, out);
    }
}

/* ---- Entry points ------------------------------------------------------------------------ */

static fj_parser parser_for(fj_scope *scope, const fj_source *source, bool expression) {
    fj_token_list tokens = fj_lex_tokens(scope, source, expression);
    return (fj_parser){.scope = scope,
                       .arena = scope->arena,
                       .source = source,
                       .tokens = tokens.data,
                       .expression = expression};
}

fj_module *fj_expr_parse_module(fj_scope *scope, const fj_source *source) {
    fj_parser parser = parser_for(scope, source, false);
    fj_module *module = FJ_NEW(scope->arena, fj_module);
    fj_stmt_vec body = {0};
    while (fj_parse_peek(&parser) != FJ_TOKEN_END) parse_recovering(&parser, &body);
    module->source = source;
    module->body = (fj_stmt_list){body.data, body.len};
    return module;
}

fj_expr *fj_expr_parse_expression(fj_scope *scope, const fj_source *source) {
    fj_parser parser = parser_for(scope, source, true);
    if (fj_parse_peek(&parser) == FJ_TOKEN_END)
        fj_parse_fail(&parser, fj_parse_token_place(&parser, 0), "the expression is empty");
    fj_expr *expression = fj_parse_elements(&parser);
    if (fj_parse_peek(&parser) != FJ_TOKEN_END)
        fj_parse_unexpected(&parser, "an operator or the end of the expression");
    if (expression->kind == FJ_EXPR_STARRED)
        fj_parse_fail(&parser, expression->place, "'*' stands in calls, lists and tuples only");
    return expression;
}
