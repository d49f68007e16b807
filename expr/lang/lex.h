/* The tokens of a mod file, as Python 3.12 has them. The whole text is cut before it is parsed: so a
 * bad token, bracket or indentation anywhere is an error, and whatever stands between good ones can
 * be skipped without understanding it.
 */
#ifndef FJ_EXPR_LANG_LEX_H
#define FJ_EXPR_LANG_LEX_H

#include "expr/lang/ast.h"

/* X(name, text). Operators are those from LPAREN to SEMICOLON, longest first where one begins
 * another; keywords are those from AND to YIELD. */
#define FJ_TOKENS(X)                    \
    X(END, "the end of the text")       \
    X(NEWLINE, "the end of the line")   \
    X(INDENT, "an indented block")      \
    X(DEDENT, "the end of the block")   \
    X(NAME, "a name")                   \
    X(INT, "a number")                  \
    X(FLOAT, "a number")                \
    X(IMAGINARY, "an imaginary number") \
    X(STRING, "a string")               \
    X(LPAREN, "(")                      \
    X(RPAREN, ")")                      \
    X(LBRACKET, "[")                    \
    X(RBRACKET, "]")                    \
    X(LBRACE, "{")                      \
    X(RBRACE, "}")                      \
    X(POW_ASSIGN, "**=")                \
    X(FLOORDIV_ASSIGN, "//=")           \
    X(SHL_ASSIGN, "<<=")                \
    X(SHR_ASSIGN, ">>=")                \
    X(ELLIPSIS, "...")                  \
    X(ADD_ASSIGN, "+=")                 \
    X(SUB_ASSIGN, "-=")                 \
    X(MUL_ASSIGN, "*=")                 \
    X(DIV_ASSIGN, "/=")                 \
    X(MOD_ASSIGN, "%=")                 \
    X(MATMUL_ASSIGN, "@=")              \
    X(AND_ASSIGN, "&=")                 \
    X(OR_ASSIGN, "|=")                  \
    X(XOR_ASSIGN, "^=")                 \
    X(POW, "**")                        \
    X(FLOORDIV, "//")                   \
    X(SHL, "<<")                        \
    X(SHR, ">>")                        \
    X(LE, "<=")                         \
    X(GE, ">=")                         \
    X(EQ, "==")                         \
    X(NE, "!=")                         \
    X(ARROW, "->")                      \
    X(WALRUS, ":=")                     \
    X(ADD, "+")                         \
    X(SUB, "-")                         \
    X(MUL, "*")                         \
    X(DIV, "/")                         \
    X(MOD, "%")                         \
    X(MATMUL, "@")                      \
    X(AMPERSAND, "&")                   \
    X(BAR, "|")                         \
    X(CARET, "^")                       \
    X(TILDE, "~")                       \
    X(LT, "<")                          \
    X(GT, ">")                          \
    X(ASSIGN, "=")                      \
    X(DOT, ".")                         \
    X(COMMA, ",")                       \
    X(COLON, ":")                       \
    X(SEMICOLON, ";")                   \
    X(AND, "and")                       \
    X(AS, "as")                         \
    X(ASSERT, "assert")                 \
    X(ASYNC, "async")                   \
    X(AWAIT, "await")                   \
    X(BREAK, "break")                   \
    X(CLASS, "class")                   \
    X(CONTINUE, "continue")             \
    X(DEF, "def")                       \
    X(DEL, "del")                       \
    X(ELIF, "elif")                     \
    X(ELSE, "else")                     \
    X(EXCEPT, "except")                 \
    X(FALSE, "False")                   \
    X(FINALLY, "finally")               \
    X(FOR, "for")                       \
    X(FROM, "from")                     \
    X(GLOBAL, "global")                 \
    X(IF, "if")                         \
    X(IMPORT, "import")                 \
    X(IN, "in")                         \
    X(IS, "is")                         \
    X(LAMBDA, "lambda")                 \
    X(NONE, "None")                     \
    X(NONLOCAL, "nonlocal")             \
    X(NOT, "not")                       \
    X(OR, "or")                         \
    X(PASS, "pass")                     \
    X(RAISE, "raise")                   \
    X(RETURN, "return")                 \
    X(TRUE, "True")                     \
    X(TRY, "try")                       \
    X(WHILE, "while")                   \
    X(WITH, "with")                     \
    X(YIELD, "yield")

typedef enum fj_token_kind {
#define X(name, text) FJ_TOKEN_##name,
    FJ_TOKENS(X)
#undef X
        FJ_TOKEN_COUNT
} fj_token_kind;

/* Flags of a string. */
enum { FJ_STRING_RAW = 1, FJ_STRING_BYTES = 2, FJ_STRING_FORMAT = 4, FJ_STRING_TRIPLE = 8 };

typedef struct fj_token {
    uint16_t kind;           /* fj_token_kind */
    uint8_t flags;           /* FJ_STRING_ */
    uint8_t prefix;          /* bytes before a string's quotes */
    uint32_t offset, length; /* bytes of the source; NEWLINE, INDENT, DEDENT and END have length 0 */
    uint32_t match;          /* index of the token that closes: for ( [ { and INDENT */
} fj_token;

/* The last one is END. A text that is not empty ends with NEWLINE and DEDENTs before it; with
 * expression set, line ends are blanks and there is no NEWLINE, INDENT or DEDENT at all. */
typedef struct fj_token_list {
    fj_token *data;
    size_t len;
} fj_token_list;

/* Brackets match; an INDENT stands exactly behind each line that ends with a colon. Fails with a
 * located error; takes any bytes. */
fj_token_list fj_lex_tokens(fj_scope *scope, const fj_source *source, bool expression);

const char *fj_lex_kind_text(fj_token_kind kind);
fj_str fj_lex_text(const fj_source *source, const fj_token *token);

/* The value of an INT token's text: false when it is above UINT64_MAX. */
bool fj_lex_integer(fj_str text, uint64_t *ret_value);
/* The value of a FLOAT token's text, correctly rounded, whatever the locale. */
double fj_lex_float(fj_str text);

/* The UTF-8 sequence at the head of data: its length 1..4, or 0 when it is not valid. ret_code may be
 * NULL. */
size_t fj_lex_utf8(const char *data, size_t len, uint32_t *ret_code);

/* ---- Between lex.c and lex_literal.c ------------------------------------------------------- */

/* Both take the offset where the literal begins and give the one behind it. */
uint32_t fj_lex_scan_number(fj_scope *scope, const fj_source *source, uint32_t at, fj_token_kind *ret_kind);
/* token: offset, flags and prefix are set. */
uint32_t fj_lex_scan_string(fj_scope *scope, const fj_source *source, const fj_token *token);
/* The length of a string prefix at the head of a name of `length` bytes that is followed by a quote. */
bool fj_lex_prefix(const char *name, size_t length, uint8_t *ret_flags);
/* The bytes that a string token stands for, in the arena; those between the quotes as they are for
 * bytes and f-strings. */
fj_str fj_lex_decode(fj_scope *scope, const fj_source *source, const fj_token *token);

#endif
