/* Calls, subscripts, comprehensions, parameters and lambdas. See parse.h. */
#include "expr/lang/parse.h"

/* ---- Calls ------------------------------------------------------------------------------- */

typedef struct arguments {
    fj_expr_vec items;
    FJ_VEC(fj_keyword) keywords;
    fj_name_set names;
} arguments;

static bool at_for(const fj_parser *parser) {
    return fj_parse_peek(parser) == FJ_TOKEN_FOR || fj_parse_peek(parser) == FJ_TOKEN_ASYNC;
}

static void parse_keyword(fj_parser *parser, arguments *out) {
    uint32_t first = parser->at;
    fj_keyword keyword = {.place = fj_parse_token_place(parser, first)};
    if (!fj_parse_accept(parser, FJ_TOKEN_POW)) {
        keyword.name = fj_parse_name(parser, "a name");
        if (!fj_names_add(parser->arena, &out->names, keyword.name))
            fj_parse_fail(parser, keyword.place, "the argument '%.*s' is given twice", (int)keyword.name.len,
                          keyword.name.data);
        parser->at++;
    }
    keyword.value = fj_parse_expression(parser);
    FJ_PUSH(parser->arena, &out->keywords, keyword);
}

/* f(x for x in y): the only argument. */
static fj_expr *parse_generator(fj_parser *parser, fj_expr *element, uint32_t open, bool alone) {
    uint32_t close = parser->tokens[open].match, first = open + 1;
    fj_expr *list = alone ? fj_parse_comprehension(parser, element, first) : NULL;
    if (alone && !list) {
        parser->at = close;
        return fj_parse_unsupported(parser, first, "asynchronous comprehensions are not in the mod language");
    }
    if (!list || parser->at != close)
        fj_parse_fail(parser, fj_parse_token_place(parser, parser->at),
                      "a comprehension among other arguments needs brackets of its own: [...]");
    return list;
}

fj_expr *fj_parse_call(fj_parser *parser, fj_expr *callee, uint32_t first) {
    uint32_t open = parser->at++;
    arguments out = {0};
    fj_expr *call = fj_parse_new(parser, FJ_EXPR_CALL);
    while (fj_parse_peek(parser) != FJ_TOKEN_RPAREN) {
        fj_token_kind kind = fj_parse_peek(parser);
        if (kind == FJ_TOKEN_POW ||
            (kind == FJ_TOKEN_NAME && fj_parse_peek_second(parser) == FJ_TOKEN_ASSIGN)) {
            parse_keyword(parser, &out);
        } else {
            fj_expr *item = fj_parse_element(parser);
            if (at_for(parser))
                item = parse_generator(parser, item, open, out.items.len + out.keywords.len == 0);
            if (out.keywords.len && item->kind != FJ_EXPR_STARRED)
                fj_parse_fail(parser, item->place,
                              "a positional argument cannot follow one that is given by name");
            FJ_PUSH(parser->arena, &out.items, item);
        }
        if (!fj_parse_accept(parser, FJ_TOKEN_COMMA)) break;
    }
    fj_parse_expect(parser, FJ_TOKEN_RPAREN, "',' or ')'");
    call->left = callee;
    call->items = (fj_expr_list){out.items.data, out.items.len};
    call->keywords = out.keywords.data;
    call->keyword_count = out.keywords.len;
    return fj_parse_finish(parser, call, first);
}

/* ---- Subscripts -------------------------------------------------------------------------- */

static fj_expr *parse_slice_part(fj_parser *parser) {
    fj_token_kind kind = fj_parse_peek(parser);
    return kind == FJ_TOKEN_COLON || kind == FJ_TOKEN_COMMA || kind == FJ_TOKEN_RBRACKET
             ? NULL
             : fj_parse_expression(parser);
}

static fj_expr *parse_index(fj_parser *parser) {
    uint32_t first = parser->at;
    fj_expr *start = fj_parse_peek(parser) == FJ_TOKEN_COLON ? NULL : fj_parse_element(parser);
    if (!fj_parse_accept(parser, FJ_TOKEN_COLON)) return start;
    fj_expr *slice = fj_parse_new(parser, FJ_EXPR_SLICE);
    slice->left = start;
    slice->right = parse_slice_part(parser);
    if (fj_parse_accept(parser, FJ_TOKEN_COLON)) slice->condition = parse_slice_part(parser);
    return fj_parse_finish(parser, slice, first);
}

fj_expr *fj_parse_subscript(fj_parser *parser, fj_expr *object, uint32_t first) {
    parser->at++;
    fj_expr_vec items = {0};
    bool comma = false;
    if (fj_parse_peek(parser) == FJ_TOKEN_RBRACKET) fj_parse_unexpected(parser, "an index");
    do {
        FJ_PUSH(parser->arena, &items, parse_index(parser));
        if (!fj_parse_accept(parser, FJ_TOKEN_COMMA)) break;
        comma = true;
    } while (fj_parse_peek(parser) != FJ_TOKEN_RBRACKET);
    fj_parse_expect(parser, FJ_TOKEN_RBRACKET, "',' or ']'");
    fj_expr *subscript = fj_parse_new(parser, FJ_EXPR_SUBSCRIPT);
    subscript->left = object;
    subscript->items = (fj_expr_list){items.data, items.len};
    /* x[(i, j)] is x[i, j] */
    if (!comma && items.data[0]->kind == FJ_EXPR_TUPLE && items.data[0]->items.len)
        subscript->items = items.data[0]->items;
    return fj_parse_finish(parser, subscript, first);
}

/* ---- Comprehensions ---------------------------------------------------------------------- */

fj_expr *fj_parse_for_target(fj_parser *parser) {
    uint32_t first = parser->at;
    fj_expr_vec items = {0};
    bool tuple = false;
    do {
        uint32_t start = parser->at;
        if (fj_parse_accept(parser, FJ_TOKEN_MUL)) {
            fj_expr *starred = fj_parse_new(parser, FJ_EXPR_STARRED);
            starred->left = fj_parse_operand(parser);
            FJ_PUSH(parser->arena, &items, fj_parse_finish(parser, starred, start));
        } else {
            FJ_PUSH(parser->arena, &items, fj_parse_operand(parser));
        }
        if (!fj_parse_accept(parser, FJ_TOKEN_COMMA)) break;
        tuple = true;
    } while (fj_parse_peek(parser) != FJ_TOKEN_IN);
    if (!tuple) return items.data[0];
    fj_expr *target = fj_parse_new(parser, FJ_EXPR_TUPLE);
    target->items = (fj_expr_list){items.data, items.len};
    return fj_parse_finish(parser, target, first);
}

/* Starred parts, x.a and x[i] are Python too: who evaluates the target refuses them. */
static void check_target(fj_parser *parser, const fj_expr *target) {
    switch (target->kind) {
    case FJ_EXPR_TUPLE:
    case FJ_EXPR_LIST:
        for (size_t i = 0; i < target->items.len; i++) check_target(parser, target->items.data[i]);
        break;
    case FJ_EXPR_NAME:
    case FJ_EXPR_STARRED:
    case FJ_EXPR_ATTRIBUTE:
    case FJ_EXPR_SUBSCRIPT: break;
    default:
        fj_parse_fail(parser, target->place, "the target of a comprehension is a name or a tuple of names");
    }
}

fj_expr *fj_parse_comprehension(fj_parser *parser, fj_expr *element, uint32_t first) {
    FJ_VEC(fj_clause) clauses = {0};
    uint32_t start = parser->at;
    if (element->kind == FJ_EXPR_STARRED)
        fj_parse_fail(parser, element->place, "'*' cannot be the element of a comprehension");
    while (at_for(parser)) {
        fj_clause clause = {0};
        fj_expr_vec conditions = {0};
        if (fj_parse_peek(parser) == FJ_TOKEN_ASYNC) {
            parser->at = start;
            return NULL;
        }
        parser->at++;
        clause.target = fj_parse_for_target(parser);
        check_target(parser, clause.target);
        fj_parse_expect(parser, FJ_TOKEN_IN, "'in'");
        clause.iterable = fj_parse_or(parser);
        while (fj_parse_accept(parser, FJ_TOKEN_IF)) {
            uint32_t at = parser->at;
            fj_expr *condition = fj_parse_or(parser);
            if (condition->kind == FJ_EXPR_NAME && fj_parse_accept(parser, FJ_TOKEN_WALRUS))
                condition = fj_parse_walrus(parser, condition, at);
            FJ_PUSH(parser->arena, &conditions, condition);
        }
        clause.conditions = (fj_expr_list){conditions.data, conditions.len};
        FJ_PUSH(parser->arena, &clauses, clause);
    }
    fj_expr *list = fj_parse_new(parser, FJ_EXPR_COMPREHENSION);
    list->left = element;
    list->clauses = clauses.data;
    list->clause_count = clauses.len;
    return fj_parse_finish(parser, list, first);
}

/* ---- Parameters and lambdas -------------------------------------------------------------------------- */

typedef FJ_VEC(fj_parameter) parameter_vec;

static void parse_parameter(fj_parser *parser, parameter_vec *out, fj_parameter parameter, bool annotated) {
    parameter.place = fj_parse_token_place(parser, parser->at);
    parameter.name = fj_parse_name(parser, "a parameter");
    if (annotated && fj_parse_accept(parser, FJ_TOKEN_COLON)) (void)fj_parse_element(parser);
    bool plain = parameter.kind == FJ_PARAMETER_PLAIN;
    if (plain && fj_parse_accept(parser, FJ_TOKEN_ASSIGN))
        parameter.default_value = fj_parse_expression(parser);
    else if (plain && !parameter.keyword_only && out->len && out->data[out->len - 1].default_value)
        fj_parse_fail(parser, parameter.place, "parameter '%.*s' needs a default, as the one before it has",
                      (int)parameter.name.len, parameter.name.data);
    if (fj_names_has(&parser->function->bound, parameter.name))
        fj_parse_fail(parser, parameter.place, "there are two parameters '%.*s'", (int)parameter.name.len,
                      parameter.name.data);
    fj_parse_bind(parser, parameter.name);
    FJ_PUSH(parser->arena, out, parameter);
}

void fj_parse_parameters(fj_parser *parser, fj_function *function, fj_token_kind close, bool annotated) {
    parameter_vec out = {0};
    bool keyword_only = false;
    while (fj_parse_peek(parser) != close) {
        fj_parameter parameter = {.keyword_only = keyword_only};
        if (fj_parse_accept(parser, FJ_TOKEN_DIV)) {
            if (out.len == 0 || keyword_only)
                fj_parse_fail(parser, fj_parse_token_place(parser, parser->at - 1),
                              "'/' stands behind positional parameters");
        } else if (fj_parse_accept(parser, FJ_TOKEN_MUL)) {
            if (keyword_only)
                fj_parse_fail(parser, fj_parse_token_place(parser, parser->at - 1), "'*' stands here twice");
            keyword_only = true;
            parameter.kind = FJ_PARAMETER_STAR;
            if (fj_parse_peek(parser) != FJ_TOKEN_COMMA)
                parse_parameter(parser, &out, parameter, annotated);
            else if (parser->tokens[parser->at + 1].kind == close)
                fj_parse_unexpected(parser, "a parameter behind '*'");
        } else if (fj_parse_accept(parser, FJ_TOKEN_POW)) {
            parameter.kind = FJ_PARAMETER_DOUBLE_STAR;
            parse_parameter(parser, &out, parameter, annotated);
            (void)fj_parse_accept(parser, FJ_TOKEN_COMMA);
            break;
        } else {
            parse_parameter(parser, &out, parameter, annotated);
        }
        if (!fj_parse_accept(parser, FJ_TOKEN_COMMA)) break;
    }
    function->parameters = out.data;
    function->parameter_count = out.len;
}

fj_expr *fj_parse_lambda(fj_parser *parser) {
    uint32_t first = parser->at++;
    fj_function *function = FJ_NEW(parser->arena, fj_function);
    function->name = FJ_STR("<lambda>");
    function->place = fj_parse_token_place(parser, first);
    fj_parse_function *outer = fj_parse_function_begin(parser, function);
    fj_parse_parameters(parser, function, FJ_TOKEN_COLON, false);
    fj_parse_expect(parser, FJ_TOKEN_COLON, "':' and the value of the lambda");
    uint32_t body = parser->at;
    fj_stmt *result = FJ_NEW(parser->arena, fj_stmt);
    result->kind = FJ_STMT_RETURN;
    result->value = fj_parse_expression(parser);
    result->place = fj_parse_place(parser, body);
    function->body.data = FJ_NEW(parser->arena, fj_stmt *);
    function->body.data[0] = result;
    function->body.len = 1;
    fj_parse_function_end(parser, outer);
    fj_expr *lambda = fj_parse_new(parser, FJ_EXPR_LAMBDA);
    lambda->function = function;
    return fj_parse_finish(parser, lambda, first);
}
