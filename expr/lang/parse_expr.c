/* Expressions of the mod language: nodes and operators. See parse.h. */
#include "expr/lang/parse.h"

/* ---- Nodes ------------------------------------------------------------------------------- */

fj_expr *fj_parse_new(fj_parser *parser, fj_expr_kind kind) {
    fj_expr *expression = FJ_NEW(parser->arena, fj_expr);
    expression->kind = kind;
    return expression;
}

static unsigned deeper(unsigned depth, const fj_expr *child) {
    return child && child->depth > depth ? child->depth : depth;
}

static unsigned deeper_list(unsigned depth, const fj_expr_list *list) {
    for (size_t i = 0; i < list->len; i++) depth = deeper(depth, list->data[i]);
    return depth;
}

static unsigned children_depth(const fj_expr *expression) {
    unsigned depth = deeper(deeper(deeper(0, expression->left), expression->right), expression->condition);
    depth = deeper_list(depth, &expression->items);
    for (size_t i = 0; i < expression->keyword_count; i++)
        depth = deeper(depth, expression->keywords[i].value);
    for (size_t i = 0; i < expression->clause_count; i++) {
        const fj_clause *clause = &expression->clauses[i];
        depth = deeper(deeper(depth, clause->target), clause->iterable);
        depth = deeper_list(depth, &clause->conditions);
    }
    const fj_function *function = expression->function;
    for (size_t i = 0; function && i < function->parameter_count; i++)
        depth = deeper(depth, function->parameters[i].default_value);
    return function ? deeper(depth, function->body.data[0]->value) : depth;
}

fj_expr *fj_parse_finish(fj_parser *parser, fj_expr *expression, uint32_t first) {
    expression->place = fj_parse_place(parser, first);
    unsigned depth = children_depth(expression) + 1;
    if (depth > FJ_DEPTH_MAX)
        fj_parse_fail(parser, expression->place,
                      "this expression chains more than %d operations: split it into assignments",
                      FJ_DEPTH_MAX);
    expression->depth = (uint16_t)depth;
    return expression;
}

fj_expr *fj_parse_finish_items(fj_parser *parser, fj_expr_kind kind, const fj_expr_vec *items,
                               uint32_t first) {
    fj_expr *expression = fj_parse_new(parser, kind);
    expression->items = (fj_expr_list){items->data, items->len};
    return fj_parse_finish(parser, expression, first);
}

fj_expr *fj_parse_unsupported(fj_parser *parser, uint32_t first, const char *sentence) {
    if (parser->expression) fj_parse_fail(parser, fj_parse_place(parser, first), "%s", sentence);
    fj_expr *expression = fj_parse_new(parser, FJ_EXPR_UNSUPPORTED);
    expression->text = fj_str_from(sentence);
    return fj_parse_finish(parser, expression, first);
}

/* ---- Operators --------------------------------------------------------------------------- */

static fj_expr *parse_primary(fj_parser *parser) {
    uint32_t first = parser->at;
    bool await = fj_parse_accept(parser, FJ_TOKEN_AWAIT);
    fj_expr *value = fj_parse_atom(parser);
    for (;;) {
        fj_token_kind kind = fj_parse_peek(parser);
        if (kind == FJ_TOKEN_LPAREN) {
            value = fj_parse_call(parser, value, first);
        } else if (kind == FJ_TOKEN_LBRACKET) {
            value = fj_parse_subscript(parser, value, first);
        } else if (fj_parse_accept(parser, FJ_TOKEN_DOT)) {
            fj_expr *attribute = fj_parse_new(parser, FJ_EXPR_ATTRIBUTE);
            attribute->left = value;
            attribute->text = fj_parse_name(parser, "an attribute's name");
            value = fj_parse_finish(parser, attribute, first);
        } else {
            return await ? fj_parse_unsupported(parser, first, "'await' is not in the mod language") : value;
        }
    }
}

static fj_expr *parse_unary(fj_parser *parser);

static fj_expr *parse_power(fj_parser *parser) {
    uint32_t first = parser->at;
    fj_expr *base = parse_primary(parser);
    if (!fj_parse_accept(parser, FJ_TOKEN_POW)) return base;
    fj_expr *power = fj_parse_new(parser, FJ_EXPR_BINARY);
    power->op = FJ_OPERATOR_POW;
    power->left = base;
    fj_parse_enter(parser);
    power->right = parse_unary(parser);
    parser->depth--;
    return fj_parse_finish(parser, power, first);
}

/* -9223372036854775808: the one integer that is legal only behind a minus. */
static fj_expr *parse_lowest_integer(fj_parser *parser) {
    uint32_t first = parser->at;
    uint64_t value = 0;
    if (fj_parse_peek_second(parser) != FJ_TOKEN_INT || parser->tokens[first + 2].kind == FJ_TOKEN_POW ||
        !fj_lex_integer(fj_lex_text(parser->source, &parser->tokens[first + 1]), &value) ||
        value != (uint64_t)INT64_MAX + 1)
        return NULL;
    parser->at += 2;
    fj_expr *number = fj_parse_new(parser, FJ_EXPR_NUMBER_INT);
    number->integer = INT64_MIN;
    return fj_parse_finish(parser, number, first);
}

static fj_expr *parse_unary(fj_parser *parser) {
    uint32_t first = parser->at;
    fj_operator op;
    switch (fj_parse_peek(parser)) {
    case FJ_TOKEN_ADD: op = FJ_OPERATOR_POSITIVE; break;
    case FJ_TOKEN_SUB: op = FJ_OPERATOR_NEGATIVE; break;
    case FJ_TOKEN_TILDE: op = FJ_OPERATOR_INVERT; break;
    default: return parse_power(parser);
    }
    fj_expr *lowest = op == FJ_OPERATOR_NEGATIVE ? parse_lowest_integer(parser) : NULL;
    if (lowest) return lowest;
    fj_parse_enter(parser);
    parser->at++;
    fj_expr *unary = fj_parse_new(parser, FJ_EXPR_UNARY);
    unary->op = op;
    unary->left = parse_unary(parser);
    parser->depth--;
    return fj_parse_finish(parser, unary, first);
}

/* How tightly a binary operator binds; 0: the token is none. */
static int binary_operator(fj_token_kind kind, fj_operator *ret_op) {
    static const struct {
        fj_token_kind kind;
        fj_operator op;
        int level;
    } table[] = {
        {FJ_TOKEN_BAR, FJ_OPERATOR_OR, 1},        {FJ_TOKEN_CARET, FJ_OPERATOR_XOR, 2},
        {FJ_TOKEN_AMPERSAND, FJ_OPERATOR_AND, 3}, {FJ_TOKEN_SHL, FJ_OPERATOR_SHL, 4},
        {FJ_TOKEN_SHR, FJ_OPERATOR_SHR, 4},       {FJ_TOKEN_ADD, FJ_OPERATOR_ADD, 5},
        {FJ_TOKEN_SUB, FJ_OPERATOR_SUB, 5},       {FJ_TOKEN_MUL, FJ_OPERATOR_MUL, 6},
        {FJ_TOKEN_DIV, FJ_OPERATOR_DIV, 6},       {FJ_TOKEN_FLOORDIV, FJ_OPERATOR_FLOORDIV, 6},
        {FJ_TOKEN_MOD, FJ_OPERATOR_MOD, 6},       {FJ_TOKEN_MATMUL, FJ_OPERATOR_MATMUL, 6},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(table); i++) {
        if (table[i].kind == kind) {
            *ret_op = table[i].op;
            return table[i].level;
        }
    }
    return 0;
}

/* Operators of at least this level, to the left. */
static fj_expr *parse_binary(fj_parser *parser, int lowest) {
    uint32_t first = parser->at;
    fj_expr *left = parse_unary(parser);
    for (;;) {
        fj_operator op;
        int level = binary_operator(fj_parse_peek(parser), &op);
        if (level == 0 || level < lowest) return left;
        parser->at++;
        fj_expr *binary = fj_parse_new(parser, FJ_EXPR_BINARY);
        binary->op = op;
        binary->left = left;
        binary->right = parse_binary(parser, level + 1);
        left = fj_parse_finish(parser, binary, first);
    }
}

fj_expr *fj_parse_operand(fj_parser *parser) { return parse_binary(parser, 1); }

static bool accept_comparison(fj_parser *parser, fj_operator *ret_op) {
    fj_token_kind second = fj_parse_peek_second(parser);
    uint32_t count = 1;
    switch (fj_parse_peek(parser)) {
    case FJ_TOKEN_EQ: *ret_op = FJ_OPERATOR_EQ; break;
    case FJ_TOKEN_NE: *ret_op = FJ_OPERATOR_NE; break;
    case FJ_TOKEN_LT: *ret_op = FJ_OPERATOR_LT; break;
    case FJ_TOKEN_LE: *ret_op = FJ_OPERATOR_LE; break;
    case FJ_TOKEN_GT: *ret_op = FJ_OPERATOR_GT; break;
    case FJ_TOKEN_GE: *ret_op = FJ_OPERATOR_GE; break;
    case FJ_TOKEN_IN: *ret_op = FJ_OPERATOR_IN; break;
    case FJ_TOKEN_IS:
        count = second == FJ_TOKEN_NOT ? 2 : 1;
        *ret_op = second == FJ_TOKEN_NOT ? FJ_OPERATOR_IS_NOT : FJ_OPERATOR_IS;
        break;
    case FJ_TOKEN_NOT:
        if (second != FJ_TOKEN_IN) return false;
        count = 2;
        *ret_op = FJ_OPERATOR_NOT_IN;
        break;
    default: return false;
    }
    parser->at += count;
    return true;
}

/* Whether the operand from the token `first` to here is a & b, a | b or a ^ b without parentheses. */
static bool is_bare_bits(const fj_parser *parser, const fj_expr *operand, uint32_t first) {
    const bool bits =
        operand->kind == FJ_EXPR_BINARY &&
        (operand->op == FJ_OPERATOR_AND || operand->op == FJ_OPERATOR_OR || operand->op == FJ_OPERATOR_XOR);
    const bool enclosed =
        parser->tokens[first].kind == FJ_TOKEN_LPAREN && parser->tokens[first].match + 1 == parser->at;
    return bits && !enclosed;
}

/* q >= kv & q - kv < 5 is q >= (kv & q - kv) < 5 in Python, which its author hardly means. The node fails where it is evaluated. */
static fj_expr *refuse_chain(fj_parser *parser, const fj_expr *bits, uint32_t first) {
    const fj_str text = {parser->source->text.data + bits->place.offset, bits->place.length};
    const char *op = fj_operator_text(bits->op);
    const char *sentence = fj_arena_printf(
        parser->arena,
        "'%s' binds tighter than a comparison, so this chain compares with (%.*s%s): write (a >= b) %s (c < d)",
        op, (int)(text.len < 60 ? text.len : 60), text.data, text.len < 60 ? "" : "...", op);
    return fj_parse_unsupported(parser, first, sentence);
}

static fj_expr *parse_comparison(fj_parser *parser) {
    uint32_t first = parser->at, start = first;
    fj_expr *left = fj_parse_operand(parser), *bits = NULL;
    fj_operator op;
    const bool bare = is_bare_bits(parser, left, start);
    if (!accept_comparison(parser, &op)) return left;
    left->bare = bare;
    if (bare) bits = left;
    fj_expr_vec items = {0};
    FJ_VEC(fj_operator) ops = {0};
    do {
        start = parser->at;
        FJ_PUSH(parser->arena, &ops, op);
        fj_expr *item = fj_parse_operand(parser);
        FJ_PUSH(parser->arena, &items, item);
        item->bare = is_bare_bits(parser, item, start);
        if (bits == NULL && item->bare) bits = item;
    } while (accept_comparison(parser, &op));
    if (items.len > 1 && bits != NULL) return refuse_chain(parser, bits, first);
    fj_expr *compare = fj_parse_new(parser, FJ_EXPR_COMPARE);
    compare->left = left;
    compare->items = (fj_expr_list){items.data, items.len};
    compare->ops = ops.data;
    return fj_parse_finish(parser, compare, first);
}

static fj_expr *parse_not(fj_parser *parser) {
    uint32_t first = parser->at;
    if (fj_parse_peek(parser) != FJ_TOKEN_NOT) return parse_comparison(parser);
    fj_parse_enter(parser);
    parser->at++;
    fj_expr *inverse = fj_parse_new(parser, FJ_EXPR_NOT);
    inverse->left = parse_not(parser);
    parser->depth--;
    return fj_parse_finish(parser, inverse, first);
}

static fj_expr *parse_and(fj_parser *parser) {
    uint32_t first = parser->at;
    fj_expr *left = parse_not(parser);
    if (fj_parse_peek(parser) != FJ_TOKEN_AND) return left;
    fj_expr_vec items = {0};
    FJ_PUSH(parser->arena, &items, left);
    while (fj_parse_accept(parser, FJ_TOKEN_AND)) FJ_PUSH(parser->arena, &items, parse_not(parser));
    return fj_parse_finish_items(parser, FJ_EXPR_AND, &items, first);
}

fj_expr *fj_parse_or(fj_parser *parser) {
    uint32_t first = parser->at;
    fj_expr *left = parse_and(parser);
    if (fj_parse_peek(parser) != FJ_TOKEN_OR) return left;
    fj_expr_vec items = {0};
    FJ_PUSH(parser->arena, &items, left);
    while (fj_parse_accept(parser, FJ_TOKEN_OR)) FJ_PUSH(parser->arena, &items, parse_and(parser));
    return fj_parse_finish_items(parser, FJ_EXPR_OR, &items, first);
}

/* ---- Whole expressions ------------------------------------------------------------------- */

fj_expr *fj_parse_expression(fj_parser *parser) {
    uint32_t first = parser->at;
    fj_expr *value;
    fj_parse_enter(parser);
    if (fj_parse_peek(parser) == FJ_TOKEN_LAMBDA) {
        value = fj_parse_lambda(parser);
    } else {
        value = fj_parse_or(parser);
        if (fj_parse_accept(parser, FJ_TOKEN_IF)) {
            fj_expr *choice = fj_parse_new(parser, FJ_EXPR_CONDITION);
            choice->left = value;
            choice->condition = fj_parse_or(parser);
            fj_parse_expect(parser, FJ_TOKEN_ELSE, "'else' and the other value");
            choice->right = fj_parse_expression(parser);
            value = fj_parse_finish(parser, choice, first);
        }
    }
    parser->depth--;
    return value;
}

fj_expr *fj_parse_named(fj_parser *parser) {
    uint32_t first = parser->at;
    fj_expr *value = fj_parse_expression(parser);
    if (value->kind != FJ_EXPR_NAME || !fj_parse_accept(parser, FJ_TOKEN_WALRUS)) return value;
    return fj_parse_walrus(parser, value, first);
}

fj_expr *fj_parse_walrus(fj_parser *parser, const fj_expr *name, uint32_t first) {
    fj_parse_bind(parser, name->text);
    fj_expr *named = fj_parse_new(parser, FJ_EXPR_NAMED);
    named->text = name->text;
    named->left = fj_parse_expression(parser);
    if (parser->function) return fj_parse_finish(parser, named, first);
    return fj_parse_unsupported(
        parser, first, "':=' outside of a function is not in the mod language: assign on a line before");
}

fj_expr *fj_parse_element(fj_parser *parser) {
    uint32_t first = parser->at;
    if (!fj_parse_accept(parser, FJ_TOKEN_MUL)) return fj_parse_named(parser);
    fj_expr *starred = fj_parse_new(parser, FJ_EXPR_STARRED);
    starred->left = fj_parse_operand(parser);
    return fj_parse_finish(parser, starred, first);
}

/* What may stand behind a trailing comma of a tuple without parentheses. */
static bool ends_elements(fj_token_kind kind) {
    return kind == FJ_TOKEN_NEWLINE || kind == FJ_TOKEN_END || kind == FJ_TOKEN_ASSIGN ||
           kind == FJ_TOKEN_SEMICOLON || kind == FJ_TOKEN_RPAREN || kind == FJ_TOKEN_RBRACKET ||
           kind == FJ_TOKEN_COLON || kind == FJ_TOKEN_IN;
}

static fj_expr *parse_yield(fj_parser *parser) {
    uint32_t first = parser->at++;
    if (parser->function) parser->function->function->is_generator = true;
    if (fj_parse_accept(parser, FJ_TOKEN_FROM))
        (void)fj_parse_expression(parser);
    else if (!ends_elements(fj_parse_peek(parser)))
        (void)fj_parse_elements(parser);
    return fj_parse_unsupported(parser, first, "'yield' is not in the mod language: return a value");
}

fj_expr *fj_parse_elements(fj_parser *parser) {
    uint32_t first = parser->at;
    if (fj_parse_peek(parser) == FJ_TOKEN_YIELD) {
        fj_parse_enter(parser);
        fj_expr *yield = parse_yield(parser);
        parser->depth--;
        return yield;
    }
    fj_expr *element = fj_parse_element(parser);
    if (fj_parse_peek(parser) != FJ_TOKEN_COMMA) return element;
    fj_expr_vec items = {0};
    FJ_PUSH(parser->arena, &items, element);
    while (fj_parse_accept(parser, FJ_TOKEN_COMMA) && !ends_elements(fj_parse_peek(parser)))
        FJ_PUSH(parser->arena, &items, fj_parse_element(parser));
    return fj_parse_finish_items(parser, FJ_EXPR_TUPLE, &items, first);
}
