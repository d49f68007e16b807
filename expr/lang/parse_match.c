/* match statements on constants, as the ifs that they stand for. See parse.h.
 *
 *   match kind:                      if kind == "causal" or kind == "full": ...
 *       case "causal" | "full": ...  else:
 *       case _ if strict: ...            if strict: ...
 */
#include "expr/lang/parse.h"

bool fj_parse_at_match(const fj_parser *parser) {
    uint32_t at = parser->at;
    const fj_token *tokens = parser->tokens;
    if (tokens[at].kind != FJ_TOKEN_NAME || !fj_str_is(fj_lex_text(parser->source, &tokens[at]), "match"))
        return false;
    while (tokens[at].kind != FJ_TOKEN_NEWLINE) at++;
    return tokens[at - 1].kind == FJ_TOKEN_COLON && tokens[at + 2].kind == FJ_TOKEN_NAME &&
           fj_str_is(fj_lex_text(parser->source, &tokens[at + 2]), "case");
}

static fj_expr *list_of(fj_parser *parser, fj_expr_kind kind, fj_expr *a, fj_expr *b, uint32_t first) {
    fj_expr *both = fj_parse_new(parser, kind);
    both->items.data = FJ_NEW_ARRAY(parser->arena, fj_expr *, 2);
    both->items.data[0] = a;
    both->items.data[1] = b;
    both->items.len = 2;
    return fj_parse_finish(parser, both, first);
}

static bool is_singleton(const fj_expr *pattern) {
    return pattern->kind == FJ_EXPR_NONE || pattern->kind == FJ_EXPR_TRUE || pattern->kind == FJ_EXPR_FALSE;
}

static bool is_constant(const fj_expr *pattern) {
    const bool number = pattern->kind == FJ_EXPR_NUMBER_INT || pattern->kind == FJ_EXPR_NUMBER_FLOAT;
    if (pattern->kind == FJ_EXPR_UNARY)
        return pattern->op == FJ_OPERATOR_NEGATIVE && is_constant(pattern->left);
    return number || is_singleton(pattern) || pattern->kind == FJ_EXPR_STRING ||
           pattern->kind == FJ_EXPR_ATTRIBUTE;
}

/* NULL: it always matches. */
static fj_expr *condition_of(fj_parser *parser, fj_expr *subject, fj_expr *pattern, uint32_t first) {
    if (pattern->kind == FJ_EXPR_BINARY && pattern->op == FJ_OPERATOR_OR) {
        fj_expr *left = condition_of(parser, subject, pattern->left, first);
        fj_expr *right = condition_of(parser, subject, pattern->right, first);
        return left && right ? list_of(parser, FJ_EXPR_OR, left, right, first) : NULL;
    }
    if (pattern->kind == FJ_EXPR_NAME && fj_str_is(pattern->text, "_")) return NULL;
    if (!is_constant(pattern))
        fj_parse_fail(
            parser, pattern->place,
            "the mod language matches constants: numbers, strings, None, names with a dot, and '_'");
    fj_expr *compare = fj_parse_new(parser, FJ_EXPR_COMPARE);
    compare->left = subject;
    compare->items.data = FJ_NEW(parser->arena, fj_expr *);
    compare->items.data[0] = pattern;
    compare->items.len = 1;
    compare->ops = FJ_NEW(parser->arena, fj_operator);
    compare->ops[0] = is_singleton(pattern) ? FJ_OPERATOR_IS : FJ_OPERATOR_EQ;
    return fj_parse_finish(parser, compare, first);
}

static fj_stmt *parse_case(fj_parser *parser, fj_expr *subject) {
    uint32_t first = parser->at;
    if (!fj_str_is(fj_parse_name(parser, "'case'"), "case"))
        fj_parse_fail(parser, fj_parse_token_place(parser, first), "expected 'case'");
    fj_expr *condition = condition_of(parser, subject, fj_parse_operand(parser), first);
    if (fj_parse_accept(parser, FJ_TOKEN_IF)) {
        fj_expr *guard = fj_parse_named(parser);
        condition = condition ? list_of(parser, FJ_EXPR_AND, condition, guard, first) : guard;
    }
    if (!condition) condition = fj_parse_finish(parser, fj_parse_new(parser, FJ_EXPR_TRUE), first);
    fj_stmt *statement = fj_parse_new_statement(parser, FJ_STMT_IF);
    statement->value = condition;
    statement->place = fj_parse_place(parser, first);
    statement->body = fj_parse_block(parser);
    return statement;
}

void fj_parse_match(fj_parser *parser, fj_stmt_vec *out) {
    parser->at++;
    fj_expr *subject = fj_parse_elements(parser);
    fj_parse_expect(parser, FJ_TOKEN_COLON, "':'");
    fj_parse_expect(parser, FJ_TOKEN_NEWLINE, "the end of the line");
    fj_parse_expect(parser, FJ_TOKEN_INDENT, "the first case");
    fj_parse_enter(parser);
    fj_stmt *last = NULL;
    int elifs = parser->elifs;
    while (!fj_parse_accept(parser, FJ_TOKEN_DEDENT)) {
        if (++parser->elifs > FJ_DEPTH_MAX)
            fj_parse_fail(parser, fj_parse_token_place(parser, parser->at), "more than %d cases",
                          FJ_DEPTH_MAX);
        fj_stmt *statement = parse_case(parser, subject);
        if (last) {
            last->orelse.data = FJ_NEW(parser->arena, fj_stmt *);
            last->orelse.data[0] = statement;
            last->orelse.len = 1;
        } else {
            FJ_PUSH(parser->arena, out, statement);
        }
        last = statement;
    }
    parser->elifs = elifs;
    parser->depth--;
}
