/* Simple statements of the mod language: assignments, imports and those with a keyword of their own.
 * See parse.h. */
#include "expr/lang/parse.h"

/* ---- Assignments ------------------------------------------------------------------------- */

static void bind_items(fj_parser *parser, const fj_expr *target) {
    const fj_expr *starred = NULL;
    for (size_t i = 0; i < target->items.len; i++) {
        const fj_expr *item = target->items.data[i];
        if (item->kind == FJ_EXPR_STARRED && starred != NULL)
            fj_parse_fail(parser, item->place, "there are two starred names in this target");
        if (item->kind == FJ_EXPR_STARRED) starred = item;
        fj_parse_bind_target(parser, item->kind == FJ_EXPR_STARRED ? item->left : item);
    }
}

void fj_parse_bind_target(fj_parser *parser, const fj_expr *target) {
    switch (target->kind) {
    case FJ_EXPR_NAME: fj_parse_bind(parser, target->text); return;
    case FJ_EXPR_ATTRIBUTE:
    case FJ_EXPR_SUBSCRIPT: return;
    case FJ_EXPR_STARRED:
        fj_parse_fail(parser, target->place, "a starred name stands in a tuple or a list: *x, = ...");
    case FJ_EXPR_TUPLE:
    case FJ_EXPR_LIST: bind_items(parser, target); return;
    case FJ_EXPR_COMPARE: fj_parse_fail(parser, target->place, "cannot assign to a comparison");
    case FJ_EXPR_CALL: fj_parse_fail(parser, target->place, "cannot assign to a call");
    default: fj_parse_fail(parser, target->place, "cannot assign to this: expected a name");
    }
}

static bool augmented_operator(fj_token_kind kind, fj_operator *ret_op) {
    switch (kind) {
    case FJ_TOKEN_ADD_ASSIGN: *ret_op = FJ_OPERATOR_ADD; return true;
    case FJ_TOKEN_SUB_ASSIGN: *ret_op = FJ_OPERATOR_SUB; return true;
    case FJ_TOKEN_MUL_ASSIGN: *ret_op = FJ_OPERATOR_MUL; return true;
    case FJ_TOKEN_DIV_ASSIGN: *ret_op = FJ_OPERATOR_DIV; return true;
    case FJ_TOKEN_FLOORDIV_ASSIGN: *ret_op = FJ_OPERATOR_FLOORDIV; return true;
    case FJ_TOKEN_MOD_ASSIGN: *ret_op = FJ_OPERATOR_MOD; return true;
    case FJ_TOKEN_POW_ASSIGN: *ret_op = FJ_OPERATOR_POW; return true;
    case FJ_TOKEN_MATMUL_ASSIGN: *ret_op = FJ_OPERATOR_MATMUL; return true;
    case FJ_TOKEN_AND_ASSIGN: *ret_op = FJ_OPERATOR_AND; return true;
    case FJ_TOKEN_OR_ASSIGN: *ret_op = FJ_OPERATOR_OR; return true;
    case FJ_TOKEN_XOR_ASSIGN: *ret_op = FJ_OPERATOR_XOR; return true;
    case FJ_TOKEN_SHL_ASSIGN: *ret_op = FJ_OPERATOR_SHL; return true;
    case FJ_TOKEN_SHR_ASSIGN: *ret_op = FJ_OPERATOR_SHR; return true;
    default: return false;
    }
}

static void check_single_target(fj_parser *parser, const fj_expr *target, const char *what) {
    if (target->kind == FJ_EXPR_TUPLE || target->kind == FJ_EXPR_LIST)
        fj_parse_fail(parser, target->place, "%s takes one name, not several", what);
}

static void parse_assignment_chain(fj_parser *parser, fj_stmt *statement, fj_expr *target) {
    FJ_VEC(fj_expr *) targets = {0};
    statement->kind = FJ_STMT_ASSIGN;
    statement->value = target;
    while (fj_parse_accept(parser, FJ_TOKEN_ASSIGN)) {
        fj_parse_bind_target(parser, statement->value);
        FJ_PUSH(parser->arena, &targets, statement->value);
        statement->value = fj_parse_elements(parser);
    }
    statement->targets = (fj_expr_list){targets.data, targets.len};
}

/* An expression, or an assignment of any kind. */
static void parse_expression_statement(fj_parser *parser, fj_stmt_vec *out) {
    uint32_t first = parser->at;
    fj_operator op;
    fj_expr *value = fj_parse_elements(parser);
    fj_stmt *statement = fj_parse_new_statement(parser, FJ_STMT_EXPRESSION);
    if (fj_parse_peek(parser) == FJ_TOKEN_ASSIGN) {
        parse_assignment_chain(parser, statement, value);
    } else if (fj_parse_peek(parser) == FJ_TOKEN_COLON || augmented_operator(fj_parse_peek(parser), &op)) {
        bool annotation = fj_parse_peek(parser) == FJ_TOKEN_COLON;
        check_single_target(parser, value, annotation ? "an annotation" : "an augmented assignment");
        fj_parse_bind_target(parser, value);
        parser->at++;
        statement->targets.data = FJ_NEW(parser->arena, fj_expr *);
        statement->targets.data[0] = value;
        statement->targets.len = 1;
        if (annotation) (void)fj_parse_element(parser);
        statement->kind = annotation ? FJ_STMT_ANNOTATION : FJ_STMT_AUGMENTED;
        if (!annotation) {
            statement->op = op;
            statement->value = fj_parse_elements(parser);
        } else if (fj_parse_accept(parser, FJ_TOKEN_ASSIGN)) {
            statement->kind = FJ_STMT_ASSIGN;
            statement->annotated = true;
            statement->value = fj_parse_elements(parser);
        }
    } else {
        statement->value = value;
    }
    statement->place = fj_parse_place(parser, first);
    FJ_PUSH(parser->arena, out, statement);
}

/* ---- Imports ----------------------------------------------------------------------------- */

/* a.b.c; leading dots of relative imports are part of it. */
static fj_str parse_module_name(fj_parser *parser) {
    FJ_VEC(char) name = {0};
    uint32_t first = parser->at;
    while (fj_parse_peek(parser) == FJ_TOKEN_DOT || fj_parse_peek(parser) == FJ_TOKEN_ELLIPSIS) parser->at++;
    if (parser->at == first || fj_parse_peek(parser) == FJ_TOKEN_NAME) do
            (void)fj_parse_name(parser, "a module's name");
        while (fj_parse_accept(parser, FJ_TOKEN_DOT));
    for (uint32_t i = first; i < parser->at; i++) {
        fj_str text = fj_lex_text(parser->source, &parser->tokens[i]);
        for (size_t j = 0; j < text.len; j++) FJ_PUSH(parser->arena, &name, text.data[j]);
    }
    return (fj_str){name.data, name.len};
}

typedef FJ_VEC(fj_import) import_vec;

/* `as name`, and the binding. */
static void parse_import_name(fj_parser *parser, import_vec *imports, fj_import import, uint32_t first) {
    if (fj_parse_accept(parser, FJ_TOKEN_AS)) import.name = fj_parse_name(parser, "a name behind 'as'");
    import.place = fj_parse_place(parser, first);
    fj_parse_bind(parser, import.name);
    FJ_PUSH(parser->arena, imports, import);
}

static void parse_import(fj_parser *parser, fj_stmt *statement) {
    import_vec imports = {0};
    do {
        uint32_t first = parser->at;
        fj_import import = {.name = fj_lex_text(parser->source, &parser->tokens[first])};
        import.module = parse_module_name(parser);
        parse_import_name(parser, &imports, import, first);
    } while (fj_parse_accept(parser, FJ_TOKEN_COMMA));
    statement->imports = imports.data;
    statement->import_count = imports.len;
}

static void parse_from_import(fj_parser *parser, fj_stmt *statement) {
    import_vec imports = {0};
    fj_str module = parse_module_name(parser);
    fj_parse_expect(parser, FJ_TOKEN_IMPORT, "'import'");
    uint32_t first = parser->at;
    if (fj_parse_accept(parser, FJ_TOKEN_MUL)) {
        fj_import all = {.module = module, .member = FJ_STR("*"), .place = fj_parse_place(parser, first)};
        FJ_PUSH(parser->arena, &imports, all);
    } else {
        bool bracket = fj_parse_accept(parser, FJ_TOKEN_LPAREN);
        do {
            if (bracket && imports.len && fj_parse_peek(parser) == FJ_TOKEN_RPAREN) break;
            first = parser->at;
            fj_import import = {.module = module};
            import.name = import.member = fj_parse_name(parser, "the name to import");
            parse_import_name(parser, &imports, import, first);
        } while (fj_parse_accept(parser, FJ_TOKEN_COMMA));
        if (bracket) fj_parse_expect(parser, FJ_TOKEN_RPAREN, "',' or ')'");
    }
    statement->imports = imports.data;
    statement->import_count = imports.len;
}

/* ---- Simple statements ------------------------------------------------------------------- */

static void parse_global(fj_parser *parser, fj_stmt *statement, uint32_t first) {
    fj_name_set names = {0};
    bool global = parser->tokens[first].kind == FJ_TOKEN_GLOBAL;
    do {
        fj_str name = fj_parse_name(parser, "a name");
        (void)fj_names_add(parser->arena, &names, name);
        if (parser->function) (void)fj_names_add(parser->arena, &parser->function->global, name);
    } while (fj_parse_accept(parser, FJ_TOKEN_COMMA));
    statement->text = global
                        ? FJ_STR("'global' is not in the mod language: a mod assigns only its own names")
                        : FJ_STR("'nonlocal' is not in the mod language: a mod assigns only its own names");
    statement->binds = names.names;
    statement->bind_count = names.count;
}

static bool at_line_end(const fj_parser *parser) {
    fj_token_kind kind = fj_parse_peek(parser);
    return kind == FJ_TOKEN_NEWLINE || kind == FJ_TOKEN_SEMICOLON || kind == FJ_TOKEN_END;
}

static void parse_raise(fj_parser *parser, fj_stmt *statement) {
    if (at_line_end(parser)) return;
    statement->value = fj_parse_expression(parser);
    if (fj_parse_accept(parser, FJ_TOKEN_FROM)) (void)fj_parse_expression(parser);
}

/* `type X = ...` ends where its part of the line ends. */
static void skip_simple(fj_parser *parser, fj_stmt_vec *out, const char *sentence) {
    uint32_t start = parser->at, end = start;
    while (parser->tokens[end].kind != FJ_TOKEN_NEWLINE && parser->tokens[end].kind != FJ_TOKEN_SEMICOLON) {
        fj_token_kind kind = (fj_token_kind)parser->tokens[end].kind;
        bool open = kind == FJ_TOKEN_LPAREN || kind == FJ_TOKEN_LBRACKET || kind == FJ_TOKEN_LBRACE;
        end = open ? parser->tokens[end].match : end + 1;
    }
    (void)fj_parse_skip(parser, out, start, end, sentence);
}

/* del x, y */
static void parse_del(fj_parser *parser, fj_stmt_vec *out) {
    uint32_t first = parser->at++;
    fj_stmt *statement = fj_parse_new_statement(parser, FJ_STMT_DEL);
    fj_expr *what = fj_parse_elements(parser);
    fj_parse_bind_target(parser, what);
    statement->targets.data = FJ_NEW(parser->arena, fj_expr *);
    statement->targets.data[0] = what;
    statement->targets.len = 1;
    statement->place = fj_parse_place(parser, first);
    FJ_PUSH(parser->arena, out, statement);
}

static bool at_type_alias(const fj_parser *parser) {
    const fj_token *token = &parser->tokens[parser->at];
    return token->kind == FJ_TOKEN_NAME && fj_str_is(fj_lex_text(parser->source, token), "type") &&
           token[1].kind == FJ_TOKEN_NAME &&
           (token[2].kind == FJ_TOKEN_ASSIGN || token[2].kind == FJ_TOKEN_LBRACKET);
}

static void check_inside(fj_parser *parser, bool inside, const char *what, const char *where) {
    if (!inside)
        fj_parse_fail(parser, fj_parse_token_place(parser, parser->at - 1), "'%s' outside a %s", what, where);
}

/* One that begins with a keyword of its own; false: it does not. */
static bool parse_keyword_statement(fj_parser *parser, fj_stmt_vec *out) {
    static const fj_stmt_kind kinds[FJ_TOKEN_COUNT] = {
        [FJ_TOKEN_RETURN] = FJ_STMT_RETURN, [FJ_TOKEN_PASS] = FJ_STMT_PASS,
        [FJ_TOKEN_BREAK] = FJ_STMT_BREAK,   [FJ_TOKEN_CONTINUE] = FJ_STMT_CONTINUE,
        [FJ_TOKEN_ASSERT] = FJ_STMT_ASSERT, [FJ_TOKEN_RAISE] = FJ_STMT_RAISE,
        [FJ_TOKEN_IMPORT] = FJ_STMT_IMPORT, [FJ_TOKEN_FROM] = FJ_STMT_IMPORT,
        [FJ_TOKEN_GLOBAL] = FJ_STMT_GLOBAL, [FJ_TOKEN_NONLOCAL] = FJ_STMT_GLOBAL,
    };
    _Static_assert(FJ_STMT_EXPRESSION == 0, "no keyword stands for an expression");
    uint32_t first = parser->at;
    fj_token_kind keyword = fj_parse_peek(parser);
    if (kinds[keyword] == FJ_STMT_EXPRESSION) return false;
    fj_stmt *statement = fj_parse_new_statement(parser, kinds[keyword]);
    parser->at++;
    switch (keyword) {
    case FJ_TOKEN_RETURN:
        check_inside(parser, parser->function != NULL, "return", "function");
        statement->value = at_line_end(parser) ? NULL : fj_parse_elements(parser);
        break;
    case FJ_TOKEN_BREAK:
    case FJ_TOKEN_CONTINUE:
        check_inside(parser, *fj_parse_loops(parser) > 0, fj_lex_kind_text(keyword), "loop");
        break;
    case FJ_TOKEN_ASSERT:
        statement->value = fj_parse_expression(parser);
        if (fj_parse_accept(parser, FJ_TOKEN_COMMA)) statement->message = fj_parse_expression(parser);
        break;
    case FJ_TOKEN_RAISE: parse_raise(parser, statement); break;
    case FJ_TOKEN_IMPORT: parse_import(parser, statement); break;
    case FJ_TOKEN_FROM: parse_from_import(parser, statement); break;
    case FJ_TOKEN_GLOBAL:
    case FJ_TOKEN_NONLOCAL: parse_global(parser, statement, first); break;
    default: break;
    }
    statement->place = fj_parse_place(parser, first);
    FJ_PUSH(parser->arena, out, statement);
    return true;
}

void fj_parse_simple_line(fj_parser *parser, fj_stmt_vec *out) {
    do {
        if (fj_parse_peek(parser) == FJ_TOKEN_NEWLINE) break;
        if (fj_parse_peek(parser) == FJ_TOKEN_DEL)
            parse_del(parser, out);
        else if (at_type_alias(parser))
            skip_simple(parser, out, "type aliases are not in the mod language");
        else if (!parse_keyword_statement(parser, out))
            parse_expression_statement(parser, out);
    } while (fj_parse_accept(parser, FJ_TOKEN_SEMICOLON));
    fj_parse_expect(parser, FJ_TOKEN_NEWLINE, "the end of the line");
    if (fj_parse_peek(parser) == FJ_TOKEN_INDENT) /* del x: */
        fj_parse_fail(parser, fj_parse_token_place(parser, parser->at - 2),
                      "unexpected ':': this statement has no block");
}
