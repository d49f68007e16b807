/* Numbers and strings of the mod language: where they end, whether they are well formed, and their
 * values. */
#include "expr/lang/lex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- Numbers ----------------------------------------------------------------------------- */

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

static int digit_value(char c) {
    if (is_digit(c)) return c - '0';
    char lower = (char)(c | 32);
    return lower >= 'a' && lower <= 'z' ? lower - 'a' + 10 : 99;
}

typedef struct reader {
    fj_scope *scope;
    const fj_source *source;
    const char *text;
    uint32_t start, at, end;
} reader;

static char peek(const reader *in, uint32_t ahead) {
    return in->at + ahead < in->end ? in->text[in->at + ahead] : '\0';
}

static fj_place number_place(const reader *in) {
    return (fj_place){in->source, in->start, in->at - in->start};
}

/* Digits with single underscores between them. */
static void skip_digits(reader *in, int base) {
    while (digit_value(peek(in, 0)) < base ||
           (peek(in, 0) == '_' && in->text[in->at - 1] != '_' && digit_value(peek(in, 1)) < base))
        in->at++;
}

/* A number touches no name, but a keyword may follow it: 1if x else 2. */
static void check_number_end(const reader *in) {
    static const char *const followers[] = {"and", "else", "for", "if", "in", "is", "not", "or"};
    char c = peek(in, 0);
    if (c == '_')
        fj_expr_fail(in->scope, (fj_place){in->source, in->start, in->at - in->start + 1},
                     "'_' in a number must stand between two digits");
    if (!is_digit(c) && digit_value(c) == 99 && (unsigned char)c < 0x80) return;
    for (size_t i = 0; i < FJ_ARRAY_LEN(followers); i++) {
        size_t length = strlen(followers[i]);
        if (in->end - in->at >= length && memcmp(in->text + in->at, followers[i], length) == 0) return;
    }
    uint32_t width = (uint32_t)fj_lex_utf8(in->text + in->at, in->end - in->at, NULL);
    fj_expr_fail(in->scope, (fj_place){in->source, in->start, in->at - in->start + width},
                 "'%.*s' cannot follow a number directly", (int)width, in->text + in->at);
}

static uint32_t scan_based(reader *in, int base, const char *name) {
    in->at += 2;
    bool underscore = peek(in, 0) == '_';
    if (underscore) in->at++;
    uint32_t digits = in->at;
    skip_digits(in, base);
    if (in->at == digits)
        fj_expr_fail(in->scope, number_place(in), "%s number needs digits after '%.2s'", name,
                     in->text + in->start);
    if (is_digit(peek(in, 0)))
        fj_expr_fail(in->scope, (fj_place){in->source, in->at, 1}, "%s number has no digit '%c'", name,
                     peek(in, 0));
    check_number_end(in);
    return in->at;
}

static void check_leading_zeros(const reader *in) {
    if (in->text[in->start] != '0') return;
    for (uint32_t i = in->start; i < in->at; i++)
        if (in->text[i] != '0' && in->text[i] != '_')
            fj_expr_fail(in->scope, number_place(in),
                         "a decimal number has no leading zeros: an octal one is written 0o17");
}

uint32_t fj_lex_scan_number(fj_scope *scope, const fj_source *source, uint32_t at, fj_token_kind *ret_kind) {
    reader in = {scope, source, source->text.data, at, at, (uint32_t)source->text.len};
    char second = (char)(peek(&in, 1) | 32);
    *ret_kind = FJ_TOKEN_INT;
    if (peek(&in, 0) == '0' && second == 'x') return scan_based(&in, 16, "a hexadecimal");
    if (peek(&in, 0) == '0' && second == 'o') return scan_based(&in, 8, "an octal");
    if (peek(&in, 0) == '0' && second == 'b') return scan_based(&in, 2, "a binary");
    skip_digits(&in, 10);
    if (peek(&in, 0) == '.') {
        *ret_kind = FJ_TOKEN_FLOAT;
        in.at++;
        if (is_digit(peek(&in, 0))) skip_digits(&in, 10);
    }
    if ((peek(&in, 0) | 32) == 'e') {
        uint32_t sign = peek(&in, 1) == '+' || peek(&in, 1) == '-';
        if (is_digit(peek(&in, 1 + sign))) {
            *ret_kind = FJ_TOKEN_FLOAT;
            in.at += 1 + sign;
            skip_digits(&in, 10);
        }
    }
    if ((peek(&in, 0) | 32) == 'j') {
        *ret_kind = FJ_TOKEN_IMAGINARY;
        in.at++;
    } else if (*ret_kind == FJ_TOKEN_INT) {
        check_leading_zeros(&in);
    }
    check_number_end(&in);
    return in.at;
}

bool fj_lex_integer(fj_str text, uint64_t *ret_value) {
    unsigned base = 10;
    size_t at = 0;
    if (text.len > 2 && text.data[0] == '0' && digit_value(text.data[1]) > 9 && text.data[1] != '_') {
        char letter = (char)(text.data[1] | 32);
        base = letter == 'x' ? 16 : letter == 'o' ? 8 : 2;
        at = 2;
    }
    uint64_t value = 0;
    for (; at < text.len; at++) {
        if (text.data[at] == '_') continue;
        unsigned digit = (unsigned)digit_value(text.data[at]);
        if (value > (UINT64_MAX - digit) / base) return false;
        value = value * base + digit;
    }
    *ret_value = value;
    return true;
}

double fj_lex_float(fj_str text) { return fj_decimal_value(text); }

/* ---- Where strings end ------------------------------------------------------------------- */

bool fj_lex_prefix(const char *name, size_t length, uint8_t *ret_flags) {
    uint8_t flags = 0;
    for (size_t i = 0; i < length && i < 3; i++) {
        char c = (char)(name[i] | 32);
        uint8_t flag = c == 'r' ? FJ_STRING_RAW
                     : c == 'b' ? FJ_STRING_BYTES
                     : c == 'f' ? FJ_STRING_FORMAT
                                : 0;
        if ((flags & flag) || (flag == 0 && (c != 'u' || length != 1))) return false;
        flags |= flag;
    }
    *ret_flags = flags;
    return length <= 2 && flags != (FJ_STRING_BYTES | FJ_STRING_FORMAT);
}

/* A string that is being read; an f-string holds expressions that hold strings. */
typedef struct quoted {
    uint32_t start; /* of the literal, for messages */
    char quote;
    uint8_t flags;
} quoted;

_Noreturn static void fail_open(const reader *in, const quoted *string) {
    fj_expr_fail(in->scope, (fj_place){in->source, string->start, in->end - string->start},
                 string->flags & FJ_STRING_TRIPLE ? "this string is never closed"
                                                  : "this string is not closed on its line");
}

/* Skips the closing quotes if they are here. */
static bool skip_quotes(reader *in, const quoted *string) {
    uint32_t count = string->flags & FJ_STRING_TRIPLE ? 3 : 1;
    for (uint32_t i = 0; i < count; i++)
        if (peek(in, i) != string->quote) return false;
    in->at += count;
    return true;
}

/* One character of the string's text, not a closing quote. */
static void skip_character(reader *in, const quoted *string) {
    if (in->at >= in->end) fail_open(in, string);
    char c = in->text[in->at++];
    if (c == '\\') {
        if (in->at >= in->end) fail_open(in, string);
        bool brace = (string->flags & FJ_STRING_FORMAT) && (peek(in, 0) == '{' || peek(in, 0) == '}');
        if (!brace) in->at += peek(in, 0) == '\r' && peek(in, 1) == '\n' ? 2 : 1;
    } else if ((c == '\n' || c == '\r') && !(string->flags & FJ_STRING_TRIPLE)) {
        fail_open(in, string);
    }
}

static void scan_quoted(reader *in, uint32_t prefix, uint8_t flags, int depth);

/* The expression of a replacement field up to its end or its format, brackets balanced. Opening and
 * closing kinds are not compared: nothing in an f-string is ever evaluated. */
static void scan_field_expression(reader *in, uint32_t open, int depth) {
    uint32_t brackets = 0;
    for (;;) {
        char c = peek(in, 0);
        uint32_t length = 0;
        uint8_t flags = 0;
        while (digit_value(peek(in, length)) < 99 || peek(in, length) == '_' ||
               (unsigned char)peek(in, length) >= 0x80)
            length++;
        char after = peek(in, length);
        if (in->at >= in->end)
            fj_expr_fail(in->scope, (fj_place){in->source, open, 1},
                         "this '{' of an f-string is never closed");
        if ((after == '"' || after == '\'') && fj_lex_prefix(in->text + in->at, length, &flags)) {
            scan_quoted(in, length, flags, depth);
        } else if (length) {
            in->at += length;
        } else if (c == '#') {
            while (in->at < in->end && peek(in, 0) != '\n' && peek(in, 0) != '\r') in->at++;
        } else {
            if (brackets == 0 && (c == '}' || c == ':')) return;
            if (c == '(' || c == '[' || c == '{')
                brackets++;
            else if (c == ')' || c == ']' || c == '}')
                brackets -= brackets > 0;
            in->at++;
        }
    }
}

/* A replacement field behind its opening brace. */
static void scan_field(reader *in, const quoted *string, int depth) {
    uint32_t open = in->at - 1;
    if (depth > FJ_NESTING_MAX)
        fj_expr_fail(in->scope, (fj_place){in->source, open, 1}, "f-strings are nested more than %d deep",
                     FJ_NESTING_MAX);
    scan_field_expression(in, open, depth + 1);
    if (in->text[in->at++] == '}') return;
    for (;;) {
        char c = peek(in, 0);
        if (skip_quotes(in, string))
            fj_expr_fail(in->scope, (fj_place){in->source, open, 1},
                         "this '{' of an f-string is never closed");
        skip_character(in, string);
        if (c == '{')
            scan_field(in, string, depth + 1);
        else if (c == '}')
            return;
    }
}

/* A literal at in->at, which is moved behind it. */
static void scan_quoted(reader *in, uint32_t prefix, uint8_t flags, int depth) {
    quoted string = {in->at, in->text[in->at + prefix], flags & (uint8_t)~FJ_STRING_TRIPLE};
    in->at += prefix;
    if (peek(in, 1) == string.quote && peek(in, 2) == string.quote) string.flags |= FJ_STRING_TRIPLE;
    in->at += string.flags & FJ_STRING_TRIPLE ? 3 : 1;
    while (!skip_quotes(in, &string)) {
        char c = peek(in, 0), next = peek(in, 1);
        skip_character(in, &string);
        if (!(flags & FJ_STRING_FORMAT)) continue;
        if (c == '\\' && next == 'N' && !(flags & FJ_STRING_RAW) && peek(in, 0) == '{') {
            while (in->at < in->end && peek(in, 0) != '}' && peek(in, 0) != string.quote) in->at++;
        } else if (c == '{' && next == '{') {
            in->at++;
        } else if (c == '{') {
            scan_field(in, &string, depth);
        }
    }
}

/* ---- What strings stand for -------------------------------------------------------------- */

static size_t put_utf8(char *out, uint32_t code) {
    if (code >= 0xD800 && code <= 0xDFFF)
        code = 0xFFFD; /* Python keeps lone surrogates; they are no text for anyone else */
    if (code < 0x80) {
        out[0] = (char)code;
        return 1;
    }
    size_t count = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    for (size_t i = count; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3F));
    out[0] = (char)((0xF00u >> count & 0xF0) | code);
    return count;
}

/* \x, \u, \U: exactly `count` digits behind the letter. */
static uint32_t read_hex(reader *in, uint32_t start, uint32_t count) {
    uint32_t code = 0;
    for (uint32_t i = 0; i < count; i++) {
        int digit = digit_value(peek(in, 0));
        if (digit >= 16)
            fj_expr_fail(in->scope, (fj_place){in->source, start, in->at - start},
                         "this escape needs %u hexadecimal digits", (unsigned)count);
        code = code << 4 | (uint32_t)digit;
        in->at++;
    }
    if (code > 0x10FFFF)
        fj_expr_fail(in->scope, (fj_place){in->source, start, in->at - start},
                     "this escape is beyond the last character, U+10FFFF");
    return code;
}

/* An escape behind its backslash, written to out: never longer than it is in the source. */
static size_t decode_escape(reader *in, char *out, bool bytes) {
    static const char letters[] = "\\'\"abfnrtv", values[] = "\\'\"\a\b\f\n\r\t\v";
    uint32_t start = in->at - 1;
    char c = in->text[in->at++];
    const char *letter = strchr(letters, c);
    if (letter) {
        out[0] = values[letter - letters];
        return 1;
    }
    if (c == '\n') return 0;
    if (c == '\r') {
        in->at += peek(in, 0) == '\n';
        return 0;
    }
    if (c >= '0' && c <= '7') {
        uint32_t code = (uint32_t)(c - '0');
        for (int i = 0; i < 2 && peek(in, 0) >= '0' && peek(in, 0) <= '7'; i++)
            code = code * 8 + (uint32_t)(in->text[in->at++] - '0');
        return put_utf8(out, code);
    }
    if (c == 'x' || (!bytes && (c == 'u' || c == 'U')))
        return put_utf8(out, read_hex(in, start, c == 'x' ? 2 : c == 'u' ? 4 : 8));
    /* Unknown escapes stay as they are, as in Python; so do named characters, \N{...}. */
    out[0] = '\\';
    out[1] = c;
    return 2;
}

static fj_str decode(reader *in, uint32_t end, bool raw, bool bytes) {
    char *out = fj_arena_alloc(in->scope->arena, end - in->at + 1);
    size_t length = 0;
    while (in->at < end) {
        char c = in->text[in->at++];
        if (c == '\\' && !raw) {
            length += decode_escape(in, out + length, bytes);
        } else if (c == '\r') {
            in->at += peek(in, 0) == '\n';
            out[length++] = '\n';
        } else {
            out[length++] = c;
        }
    }
    return (fj_str){out, length};
}

static uint32_t content_margin(const fj_token *token) { return token->flags & FJ_STRING_TRIPLE ? 3 : 1; }

fj_str fj_lex_decode(fj_scope *scope, const fj_source *source, const fj_token *token) {
    uint32_t margin = content_margin(token);
    uint32_t begin = token->offset + token->prefix + margin, end = token->offset + token->length - margin;
    const char *content = source->text.data + begin;
    bool opaque = token->flags & (FJ_STRING_FORMAT | FJ_STRING_BYTES);
    if (opaque || (!memchr(content, '\\', end - begin) && !memchr(content, '\r', end - begin)))
        return (fj_str){content, end - begin};
    reader in = {scope, source, source->text.data, token->offset, begin, end};
    return decode(&in, end, token->flags & FJ_STRING_RAW, false);
}

uint32_t fj_lex_scan_string(fj_scope *scope, const fj_source *source, const fj_token *token) {
    reader in = {scope, source, source->text.data, token->offset, token->offset, (uint32_t)source->text.len};
    scan_quoted(&in, token->prefix, token->flags, 0);
    uint32_t begin = token->offset + token->prefix + content_margin(token);
    uint32_t end = in.at - content_margin(token);
    if (token->flags & FJ_STRING_BYTES)
        for (uint32_t i = begin; i < end; i++)
            if ((unsigned char)in.text[i] >= 0x80)
                fj_expr_fail(scope, (fj_place){source, i, (uint32_t)fj_lex_utf8(in.text + i, end - i, NULL)},
                             "a bytes literal holds ASCII characters only");
    /* Bad escapes are errors now, wherever the string stands. */
    if (!(token->flags & (FJ_STRING_RAW | FJ_STRING_FORMAT)) && memchr(in.text + begin, '\\', end - begin)) {
        reader escapes = {scope, source, source->text.data, token->offset, begin, end};
        (void)decode(&escapes, end, false, token->flags & FJ_STRING_BYTES);
    }
    return in.at;
}
