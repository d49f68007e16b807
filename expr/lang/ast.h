/* The syntax tree of a mod file: what expr/lang/parse.c makes and expr/elaborate*.c evaluates.
 *
 * A node's children are arena pointers; lists are arrays with a length. Every node knows its place
 * as a byte range of its source; lines and columns are computed only for an error (fj_expr_fail).
 * What the subset lacks, but a file may contain where no chosen mod reaches, becomes an
 * `unsupported` statement or expression that carries the sentence to say when it is reached.
 */
#ifndef FJ_EXPR_LANG_AST_H
#define FJ_EXPR_LANG_AST_H

#include "base/base.h"

/* A file, or an expression of the command line. */
typedef struct fj_source {
    const char *name; /* for messages: "alibi.py", "<score>" */
    fj_str text;
} fj_source;

typedef struct fj_place {
    const fj_source *source;
    uint32_t offset, length; /* bytes; length 0 marks a point */
} fj_place;

/* Fails with FJ_ERR_MOD at a place: fills file, line, column (code points), length, source_line. */
_Noreturn void fj_expr_fail(fj_scope *scope, fj_place place, const char *format, ...) FJ_PRINTF(3, 4);
/* As fj_expr_fail with another status and a note (NULL: none). */
_Noreturn void fj_expr_fail_note(fj_scope *scope, fj_place place, fj_status status, const char *note,
                                 const char *format, ...) FJ_PRINTF(5, 6);

/* Fills an error (may be NULL) outside any scope and returns the status. */
fj_status fj_expr_error(fj_error *error, fj_place place, fj_status status, const char *note,
                        const char *format, ...) FJ_PRINTF(5, 6);

/* The 1-based line of a place. */
int fj_expr_line(fj_place place);

typedef enum fj_expr_kind {
    FJ_EXPR_NUMBER_INT,   /* integer */
    FJ_EXPR_NUMBER_FLOAT, /* number */
    FJ_EXPR_STRING,       /* text: decoded; integer 1: opaque, the source of an f-string or bytes */
    FJ_EXPR_TRUE,
    FJ_EXPR_FALSE,
    FJ_EXPR_NONE,
    FJ_EXPR_NAME,          /* text */
    FJ_EXPR_TUPLE,         /* items */
    FJ_EXPR_LIST,          /* items */
    FJ_EXPR_UNARY,         /* op, left */
    FJ_EXPR_BINARY,        /* op, left, right */
    FJ_EXPR_COMPARE,       /* left, items (the other operands), ops */
    FJ_EXPR_AND,           /* items, two or more */
    FJ_EXPR_OR,            /* items */
    FJ_EXPR_NOT,           /* left */
    FJ_EXPR_CONDITION,     /* left if condition else right */
    FJ_EXPR_CALL,          /* left (callee), items (positional), keywords */
    FJ_EXPR_ATTRIBUTE,     /* left . text */
    FJ_EXPR_SUBSCRIPT,     /* left [ items ]; one item that is not a tuple is a list of one */
    FJ_EXPR_SLICE,         /* left : right : condition, each may be NULL; only inside a subscript */
    FJ_EXPR_LAMBDA,        /* function */
    FJ_EXPR_COMPREHENSION, /* left: element; clauses; a list (generator expressions are unsupported
                              except as the only argument of a call, where they are this too);
                              integer 1: a dict, whose element is a tuple of key and value */
    FJ_EXPR_DICT,          /* items: key, value, key, value...; a starred key is **left, its value None */
    FJ_EXPR_NAMED,         /* text := left */
    FJ_EXPR_STARRED,       /* * left, in calls and displays */
    FJ_EXPR_ELLIPSIS,
    FJ_EXPR_UNSUPPORTED, /* text: the sentence of the error */
    FJ_EXPR_KIND_COUNT
} fj_expr_kind;

/* The operators of unary, binary, compare and augmented assignment. */
typedef enum fj_operator {
    FJ_OPERATOR_ADD,
    FJ_OPERATOR_SUB,
    FJ_OPERATOR_MUL,
    FJ_OPERATOR_DIV,
    FJ_OPERATOR_FLOORDIV,
    FJ_OPERATOR_MOD,
    FJ_OPERATOR_POW,
    FJ_OPERATOR_MATMUL,
    FJ_OPERATOR_AND,
    FJ_OPERATOR_OR,
    FJ_OPERATOR_XOR,
    FJ_OPERATOR_SHL,
    FJ_OPERATOR_SHR,
    FJ_OPERATOR_POSITIVE, /* unary + */
    FJ_OPERATOR_NEGATIVE, /* unary - */
    FJ_OPERATOR_INVERT,   /* ~ */
    FJ_OPERATOR_EQ,
    FJ_OPERATOR_NE,
    FJ_OPERATOR_LT,
    FJ_OPERATOR_LE,
    FJ_OPERATOR_GT,
    FJ_OPERATOR_GE,
    FJ_OPERATOR_IS,
    FJ_OPERATOR_IS_NOT,
    FJ_OPERATOR_IN,
    FJ_OPERATOR_NOT_IN,
    FJ_OPERATOR_COUNT
} fj_operator;

/* "+", "//", "is not", ... */
const char *fj_operator_text(fj_operator op);

typedef struct fj_expr fj_expr;
typedef struct fj_stmt fj_stmt;

typedef struct fj_expr_list {
    fj_expr **data;
    size_t len;
} fj_expr_list;

typedef struct fj_keyword {
    fj_str name; /* empty: **value */
    fj_place place;
    fj_expr *value;
} fj_keyword;

/* for target in iterable if conditions */
typedef struct fj_clause {
    fj_expr *target, *iterable;
    fj_expr_list conditions;
} fj_clause;

typedef enum fj_parameter_kind {
    FJ_PARAMETER_PLAIN,
    FJ_PARAMETER_STAR,
    FJ_PARAMETER_DOUBLE_STAR
} fj_parameter_kind;

typedef struct fj_parameter {
    fj_str name;
    fj_place place;
    fj_parameter_kind kind;
    bool keyword_only;      /* after * */
    fj_expr *default_value; /* NULL: none */
} fj_parameter;

typedef struct fj_stmt_list {
    fj_stmt **data;
    size_t len;
} fj_stmt_list;

typedef struct fj_function {
    fj_str name;    /* "<lambda>" */
    fj_place place; /* of the name */
    fj_parameter *parameters;
    size_t parameter_count;
    fj_stmt_list body; /* a lambda's is one return statement */
    fj_expr_list decorators;
    bool is_generator, is_async; /* reached: an error */
    /* Names assigned anywhere in the body (parameters included): Python's locals. */
    fj_str *locals;
    size_t local_count;
} fj_function;

struct fj_expr {
    fj_expr_kind kind;
    fj_operator op;
    uint16_t depth; /* levels of expressions below and including this one, at most FJ_DEPTH_MAX */
    bool bare;      /* binary: & | or ^ as an operand of a comparison, without parentheses */
    fj_place place;
    fj_str text;
    int64_t integer;
    double number;
    fj_expr *left, *right, *condition;
    fj_expr_list items;
    fj_operator *ops; /* compare: one per item */
    fj_keyword *keywords;
    size_t keyword_count;
    fj_clause *clauses;
    size_t clause_count;
    fj_function *function;
};

typedef enum fj_stmt_kind {
    FJ_STMT_EXPRESSION, /* value */
    FJ_STMT_ASSIGN,     /* targets (a = b = value gives two), value */
    FJ_STMT_AUGMENTED,  /* targets.data[0] op= value */
    FJ_STMT_ANNOTATION, /* name: type without a value; nothing happens */
    FJ_STMT_RETURN,     /* value or NULL */
    FJ_STMT_IF,         /* value, body, orelse (elif is a nested if) */
    FJ_STMT_FOR,        /* targets.data[0], value, body, orelse */
    FJ_STMT_BREAK,
    FJ_STMT_CONTINUE,
    FJ_STMT_PASS,
    FJ_STMT_ASSERT,      /* value, message or NULL */
    FJ_STMT_RAISE,       /* value or NULL */
    FJ_STMT_DEF,         /* function */
    FJ_STMT_CLASS,       /* function: name, body, decorators, names bound; targets: the bases */
    FJ_STMT_DEL,         /* targets */
    FJ_STMT_IMPORT,      /* imports */
    FJ_STMT_GLOBAL,      /* global and nonlocal: unsupported when reached */
    FJ_STMT_UNSUPPORTED, /* text: the sentence of the error; binds: names it would bind (class X) */
    FJ_STMT_KIND_COUNT
} fj_stmt_kind;

/* import module as name; from module import member as name. */
typedef struct fj_import {
    fj_str module; /* dotted */
    fj_str member; /* empty: the module itself; "*" */
    fj_str name;   /* what it binds: for `import a.b` without `as` it is "a" */
    fj_place place;
} fj_import;

struct fj_stmt {
    fj_stmt_kind kind;
    fj_operator op;
    fj_place place;
    bool annotated; /* an assignment with a type: a field of a dataclass */
    fj_str text;
    fj_expr_list targets;
    fj_expr *value, *message;
    fj_stmt_list body, orelse;
    fj_function *function;
    fj_import *imports;
    size_t import_count;
    fj_str *binds;
    size_t bind_count;
};

typedef struct fj_module {
    const fj_source *source;
    fj_stmt_list body;
} fj_module;

/* A whole file. Any bytes: accepts, or fails with a located error. Bounds: FJ_SOURCE_MAX bytes;
 * FJ_NESTING_MAX levels of brackets, blocks and operators; FJ_DEPTH_MAX levels of an expression's
 * tree, which a chain such as a + b + c + ... makes deep to the left without nesting, and as many
 * elifs of one if. So who walks a tree may recurse. */
#define FJ_SOURCE_MAX (1 << 20)
#define FJ_NESTING_MAX 256
#define FJ_DEPTH_MAX 1000
fj_module *fj_expr_parse_module(fj_scope *scope, const fj_source *source);
/* One expression, nothing after it. */
fj_expr *fj_expr_parse_expression(fj_scope *scope, const fj_source *source);

/* Appends the tree as indented S-expressions, one statement a line. */
void fj_expr_print_module(const fj_module *module, fj_buf *out);
void fj_expr_print_function(const fj_function *function, int indent, fj_buf *out);
void fj_expr_print_expression(const fj_expr *expression, fj_buf *out);

#endif
