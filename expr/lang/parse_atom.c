/* Atoms of expressions: literals, names, displays. See parse.h. */
#include "expr/lang/parse.h"

#include <string.h>

/* ---- Literals ---------------------------------------------------------------------------- */

static fj_expr *parse_number(fj_parser *parser) {
    uint32_t first = parser->at++;
    const fj_token *token = &parser->tokens[first];
    fj_str text = fj_lex_text(parser->source, token);
    uint64_t value = 0;
    if (token->kind == FJ_TOKEN_IMAGINARY)
        return fj_parse_unsupported(parser, first, "imaginary numbers are not in the mod language");
    bool integer = token->kind == FJ_TOKEN_INT;
    if (integer && (!fj_lex_integer(text, &value) || value > INT64_MAX))
        return fj_parse_unsupported(parser, first,
                                    "this integer is beyond 64 bits: the largest is 9223372036854775807");
    fj_expr *number = fj_parse_new(parser, integer ? FJ_EXPR_NUMBER_INT : FJ_EXPR_NUMBER_FLOAT);
    if (integer)
        number->integer = (int64_t)value;
    else
        number->number = fj_lex_float(text);
    return fj_parse_finish(parser, number, first);
}

/* Adjacent strings are one. */
static fj_expr *parse_string(fj_parser *parser) {
    uint32_t first = parser->at;
    fj_expr *string = fj_parse_new(parser, FJ_EXPR_STRING);
    FJ_VEC(fj_str) parts = {0};
    size_t length = 0;
    do {
        const fj_token *token = &parser->tokens[parser->at++];
        fj_str part = fj_lex_decode(parser->scope, parser->source, token);
        if (token->flags & (FJ_STRING_FORMAT | FJ_STRING_BYTES)) string->integer = 1;
        length += part.len;
        FJ_PUSH(parser->arena, &parts, part);
    } while (fj_parse_peek(parser) == FJ_TOKEN_STRING);
    string->text = parts.data[0];
    if (parts.len > 1) {
        char *whole = fj_arena_alloc(parser->arena, length + 1);
        string->text = (fj_str){whole, length};
        for (size_t i = 0; i < parts.len; i++) {
            if (parts.data[i].len) memcpy(whole, parts.data[i].data, parts.data[i].len);
            whole += parts.data[i].len;
        }
    }
    return fj_parse_finish(parser, string, first);
}

/* ---- Displays ---------------------------------------------------------------------------- */

/* The elements behind a first one, up to `close`. */
static void parse_more(fj_parser *parser, fj_expr_vec *items, fj_token_kind close) {
    while (fj_parse_accept(parser, FJ_TOKEN_COMMA) && fj_parse_peek(parser) != close)
        FJ_PUSH(parser->arena, items, fj_parse_element(parser));
}

static bool at_comprehension(const fj_parser *parser) {
    fj_token_kind kind = fj_parse_peek(parser);
    return kind == FJ_TOKEN_FOR || (kind == FJ_TOKEN_ASYNC && fj_parse_peek_second(parser) == FJ_TOKEN_FOR);
}

static fj_expr *skip_bracket(fj_parser *parser, uint32_t first, const char *sentence) {
    parser->at = parser->tokens[first].match + 1;
    return fj_parse_unsupported(parser, first, sentence);
}

static fj_expr *parse_parenthesis(fj_parser *parser) {
    uint32_t first = parser->at++;
    fj_expr_vec items = {0};
    if (fj_parse_accept(parser, FJ_TOKEN_RPAREN))
        return fj_parse_finish_items(parser, FJ_EXPR_TUPLE, &items, first);
    fj_expr *inner =
        fj_parse_peek(parser) == FJ_TOKEN_YIELD ? fj_parse_elements(parser) : fj_parse_element(parser);
    if (at_comprehension(parser))
        return skip_bracket(parser, first,
                            "generator expressions are not in the mod language: write a list, [...]");
    bool tuple = fj_parse_peek(parser) == FJ_TOKEN_COMMA;
    FJ_PUSH(parser->arena, &items, inner);
    parse_more(parser, &items, FJ_TOKEN_RPAREN);
    fj_parse_expect(parser, FJ_TOKEN_RPAREN, "',' or ')'");
    if (tuple) return fj_parse_finish_items(parser, FJ_EXPR_TUPLE, &items, first);
    if (inner->kind == FJ_EXPR_STARRED)
        fj_parse_fail(parser, inner->place, "'*' stands in calls, lists and tuples only");
    return inner;
}

static fj_expr *parse_list(fj_parser *parser) {
    uint32_t first = parser->at++;
    fj_expr_vec items = {0};
    if (fj_parse_peek(parser) != FJ_TOKEN_RBRACKET) FJ_PUSH(parser->arena, &items, fj_parse_element(parser));
    if (items.len && at_comprehension(parser)) {
        fj_expr *list = fj_parse_comprehension(parser, items.data[0], first);
        if (!list)
            return skip_bracket(parser, first, "asynchronous comprehensions are not in the mod language");
        fj_parse_expect(parser, FJ_TOKEN_RBRACKET, "'for', 'if' or ']'");
        return fj_parse_finish(parser, list, first);
    }
    parse_more(parser, &items, FJ_TOKEN_RBRACKET);
    fj_parse_expect(parser, FJ_TOKEN_RBRACKET, "',' or ']'");
    return fj_parse_finish_items(parser, FJ_EXPR_LIST, &items, first);
}

/* key: value, or **dict, which is a starred key without a value. False: it is an item of a set. */
static bool parse_pair(fj_parser *parser, fj_expr_vec *items) {
    uint32_t first = parser->at;
    if (fj_parse_accept(parser, FJ_TOKEN_POW)) {
        fj_expr *starred = fj_parse_new(parser, FJ_EXPR_STARRED);
        starred->left = fj_parse_operand(parser);
        FJ_PUSH(parser->arena, items, fj_parse_finish(parser, starred, first));
        FJ_PUSH(parser->arena, items, fj_parse_finish(parser, fj_parse_new(parser, FJ_EXPR_NONE), first));
        return true;
    }
    FJ_PUSH(parser->arena, items, fj_parse_element(parser));
    if (!fj_parse_accept(parser, FJ_TOKEN_COLON)) return false;
    FJ_PUSH(parser->arena, items, fj_parse_expression(parser));
    return true;
}

/* {key: value for ...}: a comprehension of pairs. */
static fj_expr *parse_dict_comprehension(fj_parser *parser, const fj_expr_vec *items, uint32_t first) {
    fj_expr *pair = fj_parse_finish_items(parser, FJ_EXPR_TUPLE, items, first + 1);
    fj_expr *dict = fj_parse_comprehension(parser, pair, first);
    if (!dict) return skip_bracket(parser, first, "asynchronous comprehensions are not in the mod language");
    fj_parse_expect(parser, FJ_TOKEN_RBRACE, "'for', 'if' or '}'");
    dict->integer = 1;
    return fj_parse_finish(parser, dict, first);
}

static fj_expr *parse_dict(fj_parser *parser) {
    uint32_t first = parser->at++;
    fj_expr_vec items = {0};
    while (fj_parse_peek(parser) != FJ_TOKEN_RBRACE) {
        if (!parse_pair(parser, &items))
            return skip_bracket(parser, first, "sets are not in the mod language: use a tuple or a list");
        if (items.len == 2 && at_comprehension(parser))
            return parse_dict_comprehension(parser, &items, first);
        if (!fj_parse_accept(parser, FJ_TOKEN_COMMA)) break;
    }
    fj_parse_expect(parser, FJ_TOKEN_RBRACE, "',' or '}'");
    return fj_parse_finish_items(parser, FJ_EXPR_DICT, &items, first);
}

static fj_expr *parse_leaf(fj_parser *parser, fj_expr_kind kind) {
    uint32_t first = parser->at++;
    fj_expr *leaf = fj_parse_new(parser, kind);
    if (kind == FJ_EXPR_NAME) leaf->text = fj_lex_text(parser->source, &parser->tokens[first]);
    return fj_parse_finish(parser, leaf, first);
}

fj_expr *fj_parse_atom(fj_parser *parser) {
    switch (fj_parse_peek(parser)) {
    case FJ_TOKEN_NAME: return parse_leaf(parser, FJ_EXPR_NAME);
    case FJ_TOKEN_TRUE: return parse_leaf(parser, FJ_EXPR_TRUE);
    case FJ_TOKEN_FALSE: return parse_leaf(parser, FJ_EXPR_FALSE);
    case FJ_TOKEN_NONE: return parse_leaf(parser, FJ_EXPR_NONE);
    case FJ_TOKEN_ELLIPSIS: return parse_leaf(parser, FJ_EXPR_ELLIPSIS);
    case FJ_TOKEN_INT:
    case FJ_TOKEN_FLOAT:
    case FJ_TOKEN_IMAGINARY: return parse_number(parser);
    case FJ_TOKEN_STRING: return parse_string(parser);
    case FJ_TOKEN_LPAREN: return parse_parenthesis(parser);
    case FJ_TOKEN_LBRACKET: return parse_list(parser);
    case FJ_TOKEN_LBRACE: return parse_dict(parser);
    default: fj_parse_unexpected(parser, "an expression");
    }
}
