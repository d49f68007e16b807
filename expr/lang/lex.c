/* Text to tokens: lines, indentation, brackets, names and operators; see lex.h. Literals are in
 * lex_literal.c. One pass, each byte looked at a bounded number of times. */
#include "expr/lang/lex.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

typedef FJ_VEC(fj_token) token_vec;

/* Widths of an indentation with tab stops of 8 and of 1: where the two disagree about which of two
 * lines is deeper, the answer would depend on an editor's setting. */
typedef struct indent {
    uint32_t column, narrow;
    uint32_t token; /* the INDENT */
} indent;

typedef struct lexer {
    fj_scope *scope;
    const fj_source *source;
    const char *text;
    uint32_t at, end;
    bool expression;
    token_vec tokens;
    uint32_t brackets[FJ_NESTING_MAX]; /* token indices of those open */
    uint32_t bracket_count;
    indent indents[FJ_NESTING_MAX];
    uint32_t indent_count; /* the first is column 0 */
} lexer;

static fj_place place_at(const lexer *lex, uint32_t offset, uint32_t length) {
    return (fj_place){lex->source, offset, length};
}

static char peek(const lexer *lex, uint32_t ahead) {
    return lex->at + ahead < lex->end ? lex->text[lex->at + ahead] : '\0';
}

static bool is_blank(char c) { return c == ' ' || c == '\t' || c == '\f'; }

static bool is_line_end(char c) { return c == '\n' || c == '\r'; }

static fj_token *push(lexer *lex, fj_token_kind kind, uint32_t offset, uint32_t length) {
    FJ_PUSH(lex->scope->arena, &lex->tokens,
            (fj_token){.kind = (uint16_t)kind, .offset = offset, .length = length});
    return &lex->tokens.data[lex->tokens.len - 1];
}

static void skip_line_end(lexer *lex) {
    bool two = peek(lex, 0) == '\r' && peek(lex, 1) == '\n';
    lex->at += two ? 2 : 1;
}

/* ---- Text -------------------------------------------------------------------------------- */

const char *fj_lex_kind_text(fj_token_kind kind) {
    static const char *const texts[] = {
#define X(name, text) text,
        FJ_TOKENS(X)
#undef X
    };
    _Static_assert(FJ_ARRAY_LEN(texts) == FJ_TOKEN_COUNT, "one text for each token");
    return texts[kind];
}

fj_str fj_lex_text(const fj_source *source, const fj_token *token) {
    return (fj_str){source->text.data + token->offset, token->length};
}

size_t fj_lex_utf8(const char *data, size_t len, uint32_t *ret_code) {
    static const uint32_t lowest[] = {0, 0, 0x80, 0x800, 0x10000};
    unsigned char lead = (unsigned char)data[0];
    size_t count = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
    if (count == 0 || count > len) return 0;
    uint32_t code = count == 1 ? lead : lead & (0x7Fu >> count);
    for (size_t i = 1; i < count; i++) {
        if (((unsigned char)data[i] & 0xC0) != 0x80) return 0;
        code = code << 6 | ((unsigned char)data[i] & 0x3F);
    }
    if (code < lowest[count] || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) return 0;
    if (ret_code) *ret_code = code;
    return count;
}

static void check_text(lexer *lex) {
    for (uint32_t at = 0; at < lex->end;) {
        size_t count = fj_lex_utf8(lex->text + at, lex->end - at, NULL);
        if (count == 0)
            fj_expr_fail(lex->scope, place_at(lex, at, 1), "byte 0x%02x is not UTF-8: save the file as UTF-8",
                         (unsigned)(unsigned char)lex->text[at]);
        if (lex->text[at] == '\0') fj_expr_fail(lex->scope, place_at(lex, at, 1), "a NUL byte is not text");
        at += (uint32_t)count;
    }
}

/* Spaces, quotes and signs that look like others: Python has no use for them either, and they arrive
 * by pasting. */
static bool is_lookalike(uint32_t code) {
    return code == 0xA0 || code == 0xAD || code == 0xD7 || code == 0xF7 || code == 0x3000 || code == 0xFEFF ||
           (code >= 0x80 && code < 0xA0) ||
           (code >= 0x2000 && code <= 0x206F && code != 0x203F && code != 0x2040) ||
           (code >= 0x2200 && code <= 0x22FF);
}

_Noreturn static void fail_character(lexer *lex) {
    uint32_t code = 0;
    uint32_t count = (uint32_t)fj_lex_utf8(lex->text + lex->at, lex->end - lex->at, &code);
    fj_place place = place_at(lex, lex->at, count);
    if (code >= 0x80)
        fj_expr_fail(lex->scope, place, "character U+%04X looks like another: type the plain ASCII one",
                     (unsigned)code);
    if (code == '!') fj_expr_fail(lex->scope, place, "unexpected '!': write 'not x', or '~x' for a mask");
    if (code == '?')
        fj_expr_fail(lex->scope, place, "unexpected '?': a conditional is written 'a if condition else b'");
    if (code == '\\')
        fj_expr_fail(lex->scope, place,
                     "unexpected '\\': it continues a line and must be its last character");
    if (code < ' ' || code == 0x7F)
        fj_expr_fail(lex->scope, place, "unexpected control character U+%04X", (unsigned)code);
    fj_expr_fail(lex->scope, place, "unexpected character '%c'", (int)code);
}

static int line_of(const lexer *lex, uint32_t offset) {
    int line = 1;
    for (uint32_t i = 0; i < offset; i++)
        line +=
            lex->text[i] == '\n' || (lex->text[i] == '\r' && !(i + 1 < lex->end && lex->text[i + 1] == '\n'));
    return line;
}

/* ---- Names and operators ----------------------------------------------------------------- */

static uint32_t name_end(const lexer *lex) {
    uint32_t at = lex->at;
    while (at < lex->end) {
        unsigned char c = (unsigned char)lex->text[at];
        uint32_t code = 0;
        if (c < 0x80 && !(c == '_' || (c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z'))) break;
        size_t count = fj_lex_utf8(lex->text + at, lex->end - at, &code);
        if (is_lookalike(code)) break;
        at += (uint32_t)count;
    }
    return at;
}

static fj_token_kind keyword(const char *name, size_t length) {
    if (length < 2 || length > 8) return FJ_TOKEN_NAME;
    for (fj_token_kind kind = FJ_TOKEN_AND; kind <= FJ_TOKEN_YIELD; kind++) {
        const char *text = fj_lex_kind_text(kind);
        if (text[0] == name[0] && strlen(text) == length && memcmp(text, name, length) == 0) return kind;
    }
    return FJ_TOKEN_NAME;
}

static void lex_string(lexer *lex, uint32_t prefix, uint8_t flags) {
    fj_token token = {.kind = FJ_TOKEN_STRING, .flags = flags, .prefix = (uint8_t)prefix, .offset = lex->at};
    const char *quotes = lex->text + lex->at + prefix;
    if (lex->end - lex->at - prefix >= 3 && quotes[1] == quotes[0] && quotes[2] == quotes[0])
        token.flags |= FJ_STRING_TRIPLE;
    lex->at = fj_lex_scan_string(lex->scope, lex->source, &token);
    token.length = lex->at - token.offset;
    *push(lex, FJ_TOKEN_STRING, token.offset, token.length) = token;
}

static void lex_name(lexer *lex) {
    uint32_t end = name_end(lex);
    uint32_t length = end - lex->at;
    uint8_t flags = 0;
    if (length == 0) fail_character(lex);
    bool quoted = end < lex->end && (lex->text[end] == '"' || lex->text[end] == '\'');
    if (quoted && fj_lex_prefix(lex->text + lex->at, length, &flags)) {
        lex_string(lex, length, flags);
        return;
    }
    push(lex, keyword(lex->text + lex->at, length), lex->at, length);
    lex->at = end;
}

static void open_bracket(lexer *lex, fj_token_kind kind) {
    if (lex->bracket_count == FJ_NESTING_MAX)
        fj_expr_fail(lex->scope, place_at(lex, lex->at, 1), "brackets are nested more than %d deep",
                     FJ_NESTING_MAX);
    lex->brackets[lex->bracket_count++] = (uint32_t)lex->tokens.len;
    push(lex, kind, lex->at++, 1);
}

static void close_bracket(lexer *lex, fj_token_kind kind) {
    char close = lex->text[lex->at];
    if (lex->bracket_count == 0)
        fj_expr_fail(lex->scope, place_at(lex, lex->at, 1), "'%c' closes nothing", close);
    fj_token *open = &lex->tokens.data[lex->brackets[lex->bracket_count - 1]];
    if (open->kind + 1 != (int)kind)
        fj_expr_fail(lex->scope, place_at(lex, lex->at, 1), "'%c' does not close the '%c' of line %d", close,
                     lex->text[open->offset], line_of(lex, open->offset));
    lex->bracket_count--;
    open->match = (uint32_t)lex->tokens.len;
    push(lex, kind, lex->at++, 1);
}

static void lex_operator(lexer *lex) {
    for (fj_token_kind kind = FJ_TOKEN_LPAREN; kind <= FJ_TOKEN_SEMICOLON; kind++) {
        const char *text = fj_lex_kind_text(kind);
        uint32_t length = (uint32_t)strlen(text);
        if (text[0] != lex->text[lex->at] || length > lex->end - lex->at ||
            memcmp(lex->text + lex->at, text, length) != 0)
            continue;
        if (kind > FJ_TOKEN_RBRACE) {
            push(lex, kind, lex->at, length);
            lex->at += length;
        } else if ((kind - FJ_TOKEN_LPAREN) % 2 == 0) {
            open_bracket(lex, kind);
        } else {
            close_bracket(lex, kind);
        }
        return;
    }
    fail_character(lex);
}

_Static_assert(FJ_TOKEN_RPAREN == FJ_TOKEN_LPAREN + 1 && FJ_TOKEN_RBRACKET == FJ_TOKEN_LBRACKET + 1 &&
                   FJ_TOKEN_RBRACE == FJ_TOKEN_LBRACE + 1 && FJ_TOKEN_LBRACKET == FJ_TOKEN_LPAREN + 2,
               "each bracket is followed by the one that closes it");

/* ---- Lines ------------------------------------------------------------------------------- */

static void skip_comment(lexer *lex) {
    while (lex->at < lex->end && !is_line_end(lex->text[lex->at])) lex->at++;
}

/* True when a backslash continues the line here; it is skipped. */
static bool skip_continuation(lexer *lex) {
    if (peek(lex, 0) != '\\' || !is_line_end(peek(lex, 1))) return false;
    lex->at++;
    skip_line_end(lex);
    return true;
}

static void push_dedent(lexer *lex) {
    lex->tokens.data[lex->indents[--lex->indent_count].token].match = (uint32_t)lex->tokens.len;
    push(lex, FJ_TOKEN_DEDENT, lex->at, 0);
}

_Noreturn static void fail_tabs(lexer *lex, uint32_t start) {
    fj_expr_fail(
        lex->scope, place_at(lex, start, lex->at - start),
        "tabs and spaces are mixed so that the indentation depends on the width of a tab: use spaces");
}

/* A line that begins as a block does lacks its colon; else the indentation is what is wrong. */
static _Noreturn void fail_indent(lexer *lex, fj_place place) {
    size_t first = lex->tokens.len;
    if (first >= 2 && lex->tokens.data[first - 1].kind == FJ_TOKEN_NEWLINE) first--;
    const size_t end = first;
    while (first > 0) {
        const uint16_t before = lex->tokens.data[first - 1].kind;
        if (before == FJ_TOKEN_NEWLINE || before == FJ_TOKEN_INDENT || before == FJ_TOKEN_DEDENT) break;
        first--;
    }
    switch (first < end ? lex->tokens.data[first].kind : FJ_TOKEN_END) {
    case FJ_TOKEN_DEF:
    case FJ_TOKEN_CLASS:
    case FJ_TOKEN_IF:
    case FJ_TOKEN_ELIF:
    case FJ_TOKEN_ELSE:
    case FJ_TOKEN_FOR:
    case FJ_TOKEN_WHILE:
    case FJ_TOKEN_WITH:
    case FJ_TOKEN_TRY:
    case FJ_TOKEN_EXCEPT:
    case FJ_TOKEN_FINALLY:
    case FJ_TOKEN_ASYNC: {
        const fj_token *last = &lex->tokens.data[end - 1];
        fj_expr_fail(lex->scope, place_at(lex, last->offset + last->length, 0),
                     "expected ':' at the end of this line");
    }
    default: fj_expr_fail(lex->scope, place, "unexpected indentation: the line before opens no block");
    }
}

static void change_indent(lexer *lex, uint32_t start, uint32_t column, uint32_t narrow) {
    const indent *top = &lex->indents[lex->indent_count - 1];
    bool after_colon = lex->tokens.len >= 2 && lex->tokens.data[lex->tokens.len - 2].kind == FJ_TOKEN_COLON;
    fj_place place = place_at(lex, start, lex->at - start);
    if (column == top->column ? narrow != top->narrow : column > top->column && narrow <= top->narrow)
        fail_tabs(lex, start);
    if (after_colon && column <= top->column)
        fj_expr_fail(lex->scope, place_at(lex, lex->at, 0), "expected an indented block after line %d",
                     line_of(lex, lex->tokens.data[lex->tokens.len - 2].offset));
    if (column > top->column) {
        if (!after_colon) fail_indent(lex, place);
        if (lex->indent_count == FJ_NESTING_MAX)
            fj_expr_fail(lex->scope, place, "blocks are nested more than %d deep", FJ_NESTING_MAX);
        lex->indents[lex->indent_count++] = (indent){column, narrow, (uint32_t)lex->tokens.len};
        push(lex, FJ_TOKEN_INDENT, lex->at, 0);
        return;
    }
    while (column < lex->indents[lex->indent_count - 1].column) push_dedent(lex);
    top = &lex->indents[lex->indent_count - 1];
    if (column != top->column) fj_expr_fail(lex->scope, place, "this indentation matches no block around it");
    if (narrow != top->narrow) fail_tabs(lex, start);
}

/* At the start of a line outside brackets: measures its indentation unless the line is empty. */
static void lex_indentation(lexer *lex) {
    uint32_t start = lex->at, column = 0, narrow = 0;
    bool continued = false;
    for (;; lex->at++) {
        char c = peek(lex, 0);
        if (c == '\\' && skip_continuation(lex)) {
            /* The columns before the first backslash count. */
            continued = continued || column > 0;
            start = lex->at--;
        } else if (c == '\f') {
            column = narrow = 0;
        } else if (!is_blank(c)) {
            break;
        } else if (!continued) {
            column = c == '\t' ? column / 8 * 8 + 8 : column + 1;
            narrow++;
        }
    }
    if (lex->at == lex->end || is_line_end(peek(lex, 0)) || peek(lex, 0) == '#') return;
    change_indent(lex, start, column, narrow);
}

/* Ends the logical line, if there is one. */
static void push_newline(lexer *lex) {
    fj_token_kind last = lex->tokens.len ? lex->tokens.data[lex->tokens.len - 1].kind : FJ_TOKEN_NEWLINE;
    if (last != FJ_TOKEN_NEWLINE && last != FJ_TOKEN_INDENT && last != FJ_TOKEN_DEDENT)
        push(lex, FJ_TOKEN_NEWLINE, lex->at, 0);
}

static void lex_end(lexer *lex) {
    if (lex->bracket_count) {
        const fj_token *open = &lex->tokens.data[lex->brackets[lex->bracket_count - 1]];
        fj_expr_fail(lex->scope, place_at(lex, open->offset, 1), "the '%c' of line %d is never closed",
                     lex->text[open->offset], line_of(lex, open->offset));
    }
    if (!lex->expression) {
        push_newline(lex);
        size_t count = lex->tokens.len;
        if (count >= 2 && lex->tokens.data[count - 2].kind == FJ_TOKEN_COLON)
            fj_expr_fail(lex->scope, place_at(lex, lex->tokens.data[count - 2].offset, 1),
                         "expected an indented block after line %d",
                         line_of(lex, lex->tokens.data[count - 2].offset));
        while (lex->indent_count > 1) push_dedent(lex);
    }
    push(lex, FJ_TOKEN_END, lex->end, 0);
}

static void lex_all(lexer *lex) {
    bool at_line_start = !lex->expression;
    while (lex->at < lex->end) {
        if (at_line_start) lex_indentation(lex);
        at_line_start = false;
        char c = peek(lex, 0);
        if (lex->at == lex->end) {
            break;
        } else if (is_blank(c)) {
            lex->at++;
        } else if (c == '#') {
            skip_comment(lex);
        } else if (is_line_end(c)) {
            bool logical = !lex->expression && lex->bracket_count == 0;
            if (logical) push_newline(lex);
            skip_line_end(lex);
            at_line_start = logical;
        } else if (c == '\\' && skip_continuation(lex)) {
            continue;
        } else if (c == '"' || c == '\'') {
            lex_string(lex, 0, 0);
        } else if ((c >= '0' && c <= '9') || (c == '.' && peek(lex, 1) >= '0' && peek(lex, 1) <= '9')) {
            fj_token_kind kind;
            uint32_t start = lex->at;
            lex->at = fj_lex_scan_number(lex->scope, lex->source, start, &kind);
            push(lex, kind, start, lex->at - start);
        } else if (c == '_' || ((c | 32) >= 'a' && (c | 32) <= 'z') || (unsigned char)c >= 0x80) {
            lex_name(lex);
        } else {
            lex_operator(lex);
        }
    }
    lex_end(lex);
}

fj_token_list fj_lex_tokens(fj_scope *scope, const fj_source *source, bool expression) {
    if (source->text.len > FJ_SOURCE_MAX)
        fj_expr_fail(scope, (fj_place){source, 0, 0}, "the text has %zu bytes, and %d is the most",
                     source->text.len, FJ_SOURCE_MAX);
    lexer *lex = FJ_NEW(scope->arena, lexer);
    *lex = (lexer){.scope = scope,
                   .source = source,
                   .text = source->text.data,
                   .end = (uint32_t)source->text.len,
                   .expression = expression,
                   .indent_count = 1};
    check_text(lex);
    if (lex->end >= 3 && memcmp(lex->text, "\xEF\xBB\xBF", 3) == 0) lex->at = 3;
    lex_all(lex);
    return (fj_token_list){lex->tokens.data, lex->tokens.len};
}
