/* What the files of the parser share; only they include it.
 *
 *   parse.c         blocks and compound statements
 *   parse_simple.c  statements of one line
 *   parse_expr.c    expressions: operators
 *   parse_atom.c    literals, names, displays
 *   parse_call.c    calls, subscripts, comprehensions, lambdas, parameters
 *   parse_skip.c    statements that are not understood: where they end and which names they bind
 *
 * Recursive descent over the tokens of lex.h. fj_parse_fail gives up the innermost statement, which
 * becomes an `unsupported` one that carries the message, and parsing goes on behind it; in a single
 * expression it fails the whole. What may nest counts itself with fj_parse_enter, and what repeats
 * (a + b + ..., a.b.c..., elif) is a loop: so the stack is bounded whatever the text.
 */
#ifndef FJ_EXPR_LANG_PARSE_H
#define FJ_EXPR_LANG_PARSE_H

#include "expr/lang/ast.h"
#include "expr/lang/lex.h"

/* Names in order of first appearance, each once. */
typedef struct fj_name_set {
    fj_str *names;
    size_t count, cap;
    uint32_t *slots; /* index + 1, 0: free */
    size_t slot_count;
} fj_name_set;

/* False when it was there. */
bool fj_names_add(fj_arena *arena, fj_name_set *set, fj_str name);
bool fj_names_has(const fj_name_set *set, fj_str name);

/* The function whose body is being parsed. */
typedef struct fj_parse_function {
    fj_function *function;
    fj_name_set bound, global;
    int loops; /* around the current statement */
} fj_parse_function;

typedef struct fj_parser {
    fj_scope *scope;
    fj_arena *arena;
    const fj_source *source;
    const fj_token *tokens;
    uint32_t at;
    bool expression;             /* a single one: every error is final */
    int depth;                   /* nesting, FJ_NESTING_MAX */
    int elifs;                   /* around the current statement, FJ_DEPTH_MAX */
    fj_parse_function *function; /* NULL: module level */
    int module_loops;
    jmp_buf *recover; /* NULL: none */
    fj_place error_place;
    const char *error_text;
} fj_parser;

/* ---- Tokens ------------------------------------------------------------------------------ */

static inline fj_token_kind fj_parse_peek(const fj_parser *parser) {
    return (fj_token_kind)parser->tokens[parser->at].kind;
}

/* END is never passed. */
static inline bool fj_parse_accept(fj_parser *parser, fj_token_kind kind) {
    if (parser->tokens[parser->at].kind != kind) return false;
    parser->at++;
    return true;
}

/* The kind behind the current token. */
static inline fj_token_kind fj_parse_peek_second(const fj_parser *parser) {
    const fj_token *token = &parser->tokens[parser->at];
    return (fj_token_kind)(token->kind == FJ_TOKEN_END ? FJ_TOKEN_END : token[1].kind);
}

/* From a token to the last one that was taken. */
fj_place fj_parse_place(const fj_parser *parser, uint32_t first);
fj_place fj_parse_token_place(const fj_parser *parser, uint32_t index);

/* Fails with "unexpected ...: expected <wanted>" unless the token is there. */
void fj_parse_expect(fj_parser *parser, fj_token_kind kind, const char *wanted);
fj_str fj_parse_name(fj_parser *parser, const char *wanted);

_Noreturn void fj_parse_fail(fj_parser *parser, fj_place place, const char *format, ...) FJ_PRINTF(3, 4);
_Noreturn void fj_parse_unexpected(fj_parser *parser, const char *wanted);

/* One level deeper; on the way out: parser->depth--. */
void fj_parse_enter(fj_parser *parser);

/* ---- Expressions ------------------------------------------------------------------------- */

/* Expressions that are collected, before their number is known. */
typedef FJ_VEC(fj_expr *) fj_expr_vec;

fj_expr *fj_parse_new(fj_parser *parser, fj_expr_kind kind);
/* Sets place (from the token `first` to here) and depth, once the children are known. */
fj_expr *fj_parse_finish(fj_parser *parser, fj_expr *expression, uint32_t first);
/* One that is nothing but items. */
fj_expr *fj_parse_finish_items(fj_parser *parser, fj_expr_kind kind, const fj_expr_vec *items,
                               uint32_t first);
/* An `unsupported` expression from the token `first` to here. */
fj_expr *fj_parse_unsupported(fj_parser *parser, uint32_t first, const char *sentence);

/* Everything but tuples without parentheses, := and starred. */
fj_expr *fj_parse_expression(fj_parser *parser);
/* Also :=. */
fj_expr *fj_parse_named(fj_parser *parser);
/* The value behind `name :=`. */
fj_expr *fj_parse_walrus(fj_parser *parser, const fj_expr *name, uint32_t first);
/* Also *x. */
fj_expr *fj_parse_element(fj_parser *parser);
/* One element, or a tuple when there are commas; yield is unsupported. */
fj_expr *fj_parse_elements(fj_parser *parser);
/* What stands before `in`. */
fj_expr *fj_parse_for_target(fj_parser *parser);
/* Operators from | up; or_test, for conditions of comprehensions. */
fj_expr *fj_parse_operand(fj_parser *parser);
fj_expr *fj_parse_or(fj_parser *parser);
fj_expr *fj_parse_atom(fj_parser *parser);

/* The rest of a call, of a subscript: their bracket is the current token. */
fj_expr *fj_parse_call(fj_parser *parser, fj_expr *callee, uint32_t first);
fj_expr *fj_parse_subscript(fj_parser *parser, fj_expr *object, uint32_t first);
/* `for ... in ...` behind an element, up to the closing bracket. NULL: it is asynchronous; nothing
 * was taken. */
fj_expr *fj_parse_comprehension(fj_parser *parser, fj_expr *element, uint32_t first);
/* Up to the token `close`, which is not taken. */
void fj_parse_parameters(fj_parser *parser, fj_function *function, fj_token_kind close, bool annotated);

/* lambda ...: the keyword is the current token. */
fj_expr *fj_parse_lambda(fj_parser *parser);

/* ---- Statements -------------------------------------------------------------------------- */

typedef FJ_VEC(fj_stmt *) fj_stmt_vec;

/* A statement joins its list when it is complete: a failure may come before. */
fj_stmt *fj_parse_new_statement(fj_parser *parser, fj_stmt_kind kind);
/* Simple statements up to the end of the line. */
void fj_parse_simple_line(fj_parser *parser, fj_stmt_vec *out);
/* How many loops are around the current statement. */
int *fj_parse_loops(fj_parser *parser);
/* Adds the tokens [start, end) as an unsupported statement and goes behind them. */
fj_stmt *fj_parse_skip(fj_parser *parser, fj_stmt_vec *out, uint32_t start, uint32_t end,
                       const char *sentence);
/* Binds the names of a target. */
void fj_parse_bind_target(fj_parser *parser, const fj_expr *target);
/* parse_match.c: whether a match statement begins here (match is a name everywhere else); parses it, as the
 * ifs that it stands for. */
bool fj_parse_at_match(const fj_parser *parser);
void fj_parse_match(fj_parser *parser, fj_stmt_vec *out);
/* Behind a colon: an indented block, or statements on the line. */
fj_stmt_list fj_parse_block(fj_parser *parser);

/* ---- Names that are bound ---------------------------------------------------------------- */

void fj_parse_bind(fj_parser *parser, fj_str name);
/* Begins a function: its parameters and body follow. End it with the outer one that this returns. */
fj_parse_function *fj_parse_function_begin(fj_parser *parser, fj_function *function);
void fj_parse_function_end(fj_parser *parser, fj_parse_function *outer);

/* ---- Skipping ---------------------------------------------------------------------------- */

/* The token behind the statement that begins at `start`: its lines, blocks and further clauses. */
uint32_t fj_parse_statement_end(const fj_parser *parser, uint32_t start);
/* The names that the tokens [start, end) evidently bind, as far as that shows; bound in the function
 * as well. */
void fj_parse_collect_binds(fj_parser *parser, uint32_t start, uint32_t end, fj_stmt *statement);

#endif
