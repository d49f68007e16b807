/* Statements that are not understood: where they end, and the names they evidently bind, so that
 * reading such a name says why it has no value. See parse.h. */
#include "expr/lang/parse.h"

#include <assert.h>

static bool opens(fj_token_kind kind) {
    return kind == FJ_TOKEN_LPAREN || kind == FJ_TOKEN_LBRACKET || kind == FJ_TOKEN_LBRACE;
}

/* Behind the logical line and its block. */
static uint32_t line_end(const fj_parser *parser, uint32_t at) {
    while (parser->tokens[at].kind != FJ_TOKEN_NEWLINE)
        at = opens((fj_token_kind)parser->tokens[at].kind) ? parser->tokens[at].match : at + 1;
    at++;
    return parser->tokens[at].kind == FJ_TOKEN_INDENT ? parser->tokens[at].match + 1 : at;
}

uint32_t fj_parse_statement_end(const fj_parser *parser, uint32_t start) {
    uint32_t end = start;
    assert(parser->tokens[start].kind != FJ_TOKEN_INDENT && parser->tokens[start].kind != FJ_TOKEN_DEDENT);
    while (parser->tokens[end].kind == FJ_TOKEN_MATMUL) /* decorators */
        end = line_end(parser, end);
    if (parser->tokens[end].kind != FJ_TOKEN_DEDENT && parser->tokens[end].kind != FJ_TOKEN_END)
        end = line_end(parser, end);
    for (;;) {
        fj_token_kind kind = (fj_token_kind)parser->tokens[end].kind;
        if (kind != FJ_TOKEN_ELIF && kind != FJ_TOKEN_ELSE && kind != FJ_TOKEN_EXCEPT &&
            kind != FJ_TOKEN_FINALLY)
            return end;
        end = line_end(parser, end);
    }
}

/* ---- Names ------------------------------------------------------------------------------- */

/* A walk over the tokens of one statement; a line is a part between NEWLINEs, colons of headers and
 * semicolons. */
typedef struct collector {
    fj_parser *parser;
    const fj_token *tokens;
    uint32_t at, end;
    fj_name_set names;
} collector;

static fj_token_kind kind_at(const collector *walk, uint32_t at) {
    return at < walk->end ? (fj_token_kind)walk->tokens[at].kind : FJ_TOKEN_END;
}

static void add(collector *walk, uint32_t at) {
    if (kind_at(walk, at) != FJ_TOKEN_NAME) return;
    fj_str name = fj_lex_text(walk->parser->source, &walk->tokens[at]);
    (void)fj_names_add(walk->parser->arena, &walk->names, name);
    fj_parse_bind(walk->parser, name);
}

static bool ends_line(fj_token_kind kind) {
    return kind == FJ_TOKEN_NEWLINE || kind == FJ_TOKEN_SEMICOLON || kind == FJ_TOKEN_INDENT ||
           kind == FJ_TOKEN_DEDENT || kind == FJ_TOKEN_END;
}

/* Names of a target or a pattern in [at, end): those that are not read, called or looked into. */
static void add_targets(collector *walk, uint32_t at, uint32_t end) {
    for (uint32_t begin = at; at < end; at++) {
        fj_token_kind before = at > begin ? (fj_token_kind)walk->tokens[at - 1].kind : FJ_TOKEN_NEWLINE;
        fj_token_kind after = kind_at(walk, at + 1);
        if (before == FJ_TOKEN_NAME && walk->tokens[at].kind == FJ_TOKEN_LBRACKET)
            at = walk->tokens[at].match; /* x[i]: i is read */
        else if (before != FJ_TOKEN_DOT && after != FJ_TOKEN_DOT && after != FJ_TOKEN_LPAREN &&
                 after != FJ_TOKEN_LBRACKET)
            add(walk, at);
    }
}

/* import a.b as c, d; behind the keyword. */
static void add_imports(collector *walk, bool from) {
    bool name_next = true;
    while (from && !ends_line(kind_at(walk, walk->at)) && kind_at(walk, walk->at) != FJ_TOKEN_IMPORT)
        walk->at++;
    for (; !ends_line(kind_at(walk, walk->at)); walk->at++) {
        fj_token_kind kind = kind_at(walk, walk->at);
        if (kind == FJ_TOKEN_NAME && name_next) {
            uint32_t last = walk->at;
            while (kind_at(walk, last + 1) == FJ_TOKEN_DOT && kind_at(walk, last + 2) == FJ_TOKEN_NAME)
                last += 2;
            bool renamed = kind_at(walk, last + 1) == FJ_TOKEN_AS;
            add(walk, renamed ? last + 2 : walk->at);
            walk->at = renamed ? last + 2 : last;
        }
        name_next = kind != FJ_TOKEN_NAME;
    }
}

/* class X, def X: the name; what is inside belongs to it. */
static void add_definition(collector *walk) {
    add(walk, walk->at + 1);
    uint32_t end = line_end(walk->parser, walk->at);
    walk->at = end < walk->end ? end : walk->end;
}

/* Up to a token of this kind outside brackets, or the end of the line. */
static uint32_t find(const collector *walk, uint32_t at, fj_token_kind wanted) {
    while (!ends_line(kind_at(walk, at)) && kind_at(walk, at) != wanted) {
        uint32_t match = opens(kind_at(walk, at)) ? walk->tokens[at].match : at;
        at = match + 1;
    }
    return at < walk->end ? at : walk->end;
}

static bool is_case(const collector *walk) {
    return kind_at(walk, walk->at) == FJ_TOKEN_NAME &&
           fj_str_is(fj_lex_text(walk->parser->source, &walk->tokens[walk->at]), "case") &&
           kind_at(walk, walk->at + 1) != FJ_TOKEN_ASSIGN && kind_at(walk, walk->at + 1) != FJ_TOKEN_DOT;
}

/* The rest of a line, and of a header up to its colon: x = y = ..., x += ..., x: T, (x := ...), as x. */
static void add_assignments(collector *walk) {
    uint32_t first = walk->at, start = first;
    bool header = kind_at(walk, first) >= FJ_TOKEN_AND; /* if, with, ... */
    for (; !ends_line(kind_at(walk, walk->at)); walk->at++) {
        fj_token_kind kind = kind_at(walk, walk->at);
        bool single = walk->at == first + 1;
        uint32_t before = walk->at - 1;
        if (kind == FJ_TOKEN_WALRUS && walk->at > first) {
            add(walk, before);
        } else if (kind == FJ_TOKEN_AS) {
            uint32_t next = walk->at + 1;
            bool bracket = kind_at(walk, next) == FJ_TOKEN_LPAREN;
            add_targets(walk, next, bracket ? walk->tokens[next].match : next + 1);
        } else if (kind == FJ_TOKEN_ASSIGN && !header) {
            add_targets(walk, start, walk->at);
            start = walk->at + 1;
        } else if (single && kind >= FJ_TOKEN_ADD_ASSIGN && kind <= FJ_TOKEN_XOR_ASSIGN) {
            add(walk, start);
        } else if (single && kind >= FJ_TOKEN_POW_ASSIGN && kind <= FJ_TOKEN_SHR_ASSIGN) {
            add(walk, start);
        } else if (kind == FJ_TOKEN_COLON) {
            if (single) add(walk, start);
            walk->at++;
            return;
        } else if (opens(kind)) {
            /* Only := binds inside brackets; as for targets, they are looked at when '=' follows. */
            uint32_t close = walk->tokens[walk->at].match;
            for (uint32_t i = walk->at; i < close && i < walk->end; i++)
                if (kind_at(walk, i) == FJ_TOKEN_WALRUS) add(walk, i - 1);
            walk->at = close < walk->end ? close : walk->end - 1;
        }
    }
}

static void collect_line(collector *walk) {
    uint32_t stop;
    switch (kind_at(walk, walk->at)) {
    case FJ_TOKEN_ASYNC: walk->at++; return;
    case FJ_TOKEN_CLASS:
    case FJ_TOKEN_DEF: add_definition(walk); return;
    case FJ_TOKEN_IMPORT: walk->at++, add_imports(walk, false); return;
    case FJ_TOKEN_FROM: walk->at++, add_imports(walk, true); return;
    case FJ_TOKEN_FOR:
        stop = find(walk, walk->at, FJ_TOKEN_IN);
        add_targets(walk, walk->at + 1, stop);
        walk->at = stop;
        add_assignments(walk);
        return;
    case FJ_TOKEN_DEL:
        stop = find(walk, walk->at, FJ_TOKEN_NEWLINE);
        add_targets(walk, walk->at + 1, stop);
        walk->at = stop;
        return;
    case FJ_TOKEN_GLOBAL:
    case FJ_TOKEN_NONLOCAL:
    case FJ_TOKEN_MATMUL: walk->at = find(walk, walk->at, FJ_TOKEN_NEWLINE); return;
    default: break;
    }
    if (is_case(walk)) {
        stop = find(walk, walk->at, FJ_TOKEN_COLON);
        uint32_t guard = walk->at;
        while (guard < stop && kind_at(walk, guard) != FJ_TOKEN_IF) guard++;
        add_targets(walk, walk->at + 1, guard);
        walk->at = stop < walk->end ? stop + 1 : stop;
        return;
    }
    add_assignments(walk);
}

void fj_parse_collect_binds(fj_parser *parser, uint32_t start, uint32_t end, fj_stmt *statement) {
    collector walk = {.parser = parser, .tokens = parser->tokens, .at = start, .end = end};
    if (kind_at(&walk, start) == FJ_TOKEN_NAME && kind_at(&walk, start + 1) == FJ_TOKEN_NAME &&
        fj_str_is(fj_lex_text(parser->source, &parser->tokens[start]), "type")) {
        add(&walk, start + 1); /* type X[T] = ... */
        walk.at = end;
    }
    while (walk.at < end) {
        if (ends_line(kind_at(&walk, walk.at)))
            walk.at++;
        else
            collect_line(&walk);
    }
    statement->binds = walk.names.names;
    statement->bind_count = walk.names.count;
}
