/* Private to expr/lang: what an expression of a mod evaluates to at compile time.
 *
 * Constants are Python's: None, bool, int (64 bits), float, str, tuples and lists. A scalar is a
 * value of the kernel: a node of the IR. A tensor is a captured tensor, or something lazy made of
 * captured tensors: a shape, and a rule that gives the element at given indices (tensor.c).
 *
 * `weak` marks what came from Python numbers (dimensions, run-time scalars, arithmetic on them): it
 * does not widen the type of what it is combined with. `known` is the value that a scalar has with
 * the tensors that are bound now, where that is known: dimensions, and arithmetic on them.
 */
#ifndef FJ_EXPR_LANG_VALUE_H
#define FJ_EXPR_LANG_VALUE_H

#include "expr/ir/ir.h"
#include "expr/lang/ast.h"

typedef enum fj_value_kind {
    FJ_VALUE_UNSET, /* an argument that was not given */
    FJ_VALUE_NONE,
    FJ_VALUE_BOOL,
    FJ_VALUE_INT,
    FJ_VALUE_FLOAT,
    FJ_VALUE_STR,
    FJ_VALUE_TUPLE,
    FJ_VALUE_LIST,
    FJ_VALUE_SLICE, /* seq: start, stop, step */
    FJ_VALUE_ELLIPSIS,
    FJ_VALUE_DTYPE,
    FJ_VALUE_MODULE, /* str: the dotted name */
    FJ_VALUE_FUNCTION,
    FJ_VALUE_BUILTIN,
    FJ_VALUE_PARTIAL, /* a function with arguments; a method with its object */
    FJ_VALUE_DICT,
    FJ_VALUE_OBJECT, /* of a class, or a namespace */
    FJ_VALUE_CLASS,
    FJ_VALUE_UNKNOWN, /* exists in Python, but not in the language */
    FJ_VALUE_SCALAR,
    FJ_VALUE_TENSOR,
} fj_value_kind;

/* What is known of a string at compile time. What needs the value of one that is not known is an error. */
typedef enum fj_text_state {
    FJ_TEXT_KNOWN,
    FJ_TEXT_UNKNOWN, /* Python has one, which is not computed here: of a float, of a format */
    FJ_TEXT_DEVICE,  /* of the one place where tensors are: equal to itself */
} fj_text_state;

typedef struct fj_value {
    fj_value_kind kind;
    fj_type type;       /* SCALAR */
    bool weak;          /* SCALAR */
    fj_text_state text; /* STR */
    union {
        bool b;
        int64_t i;
        double f;
        fj_str str;
        fj_dtype dtype;
        fj_ref ref;
        const struct fj_sequence *seq;
        const struct fj_closure *function;
        const struct fj_builtin *builtin;
        const struct fj_partial *partial;
        struct fj_dict *dict;
        struct fj_object *object;
        struct fj_class *class;
        const struct fj_unknown *unknown;
        const struct fj_lazy_tensor *tensor;
    };
    const struct fj_value *known; /* SCALAR: a constant, or NULL */
} fj_value;

typedef struct fj_sequence {
    fj_value *items;
    size_t len, cap; /* a list may grow until it is an item of another */
    bool held;
    const char *const *fields; /* names of the items, of a named tuple; NULL: none */
    bool constant;             /* holds nothing of the kernel, at any depth */
    fj_text_state text;        /* of the strings in it, at any depth: the least that is known */
    int64_t weight;            /* items at all depths: they share parts, so this may be huge */
} fj_sequence;

typedef struct fj_closure {
    const fj_function *function;
    struct fj_frame *frame; /* where it was defined; NULL: the module */
    fj_value *defaults;     /* one per parameter; UNSET: none */
    struct fj_class *owner; /* of a method; NULL: none */
} fj_closure;

/* Dicts, objects and classes are shared and change in place, as in Python; they are equal to themselves. */
typedef struct fj_pair {
    fj_value key, value;
} fj_pair;

typedef struct fj_dict {
    FJ_VEC(fj_pair) items;
} fj_dict;

typedef struct fj_member {
    fj_str name;
    fj_value value;
} fj_member;

typedef struct fj_members {
    FJ_VEC(fj_member) items;
} fj_members;

typedef struct fj_class {
    const fj_function *function; /* the name and the body */
    fj_value *bases;
    size_t base_count;
    fj_members members;
    FJ_VEC(fj_str) fields; /* annotated names */
    bool is_data;          /* its arguments are its fields: a dataclass, a NamedTuple */
} fj_class;

typedef struct fj_object {
    fj_class *class; /* NULL: a namespace */
    bool is_context; /* the first argument of an autograd function's forward */
    fj_members members;
} fj_object;

/* The arguments of a call, evaluated. */
typedef struct fj_arguments {
    fj_value *values;
    size_t count;
    fj_str *names; /* keywords */
    fj_value *keywords;
    size_t keyword_count;
} fj_arguments;

typedef struct fj_partial {
    fj_value callee;
    fj_arguments arguments;
} fj_partial;

typedef struct fj_unknown {
    const char *name; /* "torch.arange" */
    const char *why;  /* the sentence to say when it is used */
} fj_unknown;

#define FJ_UNSET ((fj_value){.kind = FJ_VALUE_UNSET})
#define FJ_NONE ((fj_value){.kind = FJ_VALUE_NONE})
static inline fj_value fj_value_bool(bool b) { return (fj_value){.kind = FJ_VALUE_BOOL, .b = b}; }
static inline fj_value fj_value_int(int64_t i) { return (fj_value){.kind = FJ_VALUE_INT, .i = i}; }
static inline fj_value fj_value_float(double f) { return (fj_value){.kind = FJ_VALUE_FLOAT, .f = f}; }
static inline fj_value fj_value_str(fj_str str) { return (fj_value){.kind = FJ_VALUE_STR, .str = str}; }
static inline fj_value fj_value_vague(fj_text_state text) {
    return (fj_value){.kind = FJ_VALUE_STR, .text = text, .str = FJ_STR("")};
}
static inline fj_value fj_value_dtype(fj_dtype dtype) {
    return (fj_value){.kind = FJ_VALUE_DTYPE, .dtype = dtype};
}
static inline fj_value fj_value_tensor(const struct fj_lazy_tensor *tensor) {
    return (fj_value){.kind = FJ_VALUE_TENSOR, .tensor = tensor};
}
fj_value fj_value_sequence(fj_arena *arena, fj_value_kind kind, const fj_value *items, size_t len);
/* Of items[from], ..., items[to - 1]. */
fj_value fj_value_rest(fj_arena *arena, fj_value_kind kind, const fj_value *items, size_t from, size_t to);
fj_value fj_value_unknown(fj_arena *arena, const char *name, const char *why);

static inline bool fj_value_is_sequence(fj_value v) {
    return v.kind == FJ_VALUE_TUPLE || v.kind == FJ_VALUE_LIST;
}
/* bool, int, float */
static inline bool fj_value_is_number(fj_value v) {
    return v.kind == FJ_VALUE_BOOL || v.kind == FJ_VALUE_INT || v.kind == FJ_VALUE_FLOAT;
}
static inline bool fj_value_is_function(fj_value v) {
    return v.kind == FJ_VALUE_FUNCTION || v.kind == FJ_VALUE_BUILTIN || v.kind == FJ_VALUE_PARTIAL;
}
/* Whether it holds nothing of the kernel, at any depth. */
bool fj_value_is_constant(fj_value v);
/* What is known of the strings in it. */
fj_text_state fj_value_text(fj_value v);
/* Of a number. */
double fj_value_as_double(fj_value v);
/* Python's truth of a constant. */
bool fj_value_truth(fj_value v);
/* Items at all depths; 1 for what is not a sequence. */
int64_t fj_value_weight(fj_value v);
/* Python's == of constants; takes as long as the lesser weight says. */
bool fj_value_equal(fj_value a, fj_value b);
/* "an int", "a tuple", "a run-time bool": for messages. */
const char *fj_value_describe(fj_value v);
/* As the language prints it: true 3 1.5 inf (1, 2). */
void fj_value_print(fj_value v, fj_buf *out);

#endif
