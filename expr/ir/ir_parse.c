/* Reads the text form of a graph (ir_text.c). Takes any bytes: gives a valid graph, or an error with its
 * place. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "expr/ir/ir.h"

enum { MAX_INPUTS = 1024, MAX_VALUES = 1 << 20, MAX_NAME = 256, MAX_NUMBER = 64 };

typedef struct reader {
    fj_scope *scope;
    fj_ir *ir;
    const char *begin, *at, *end;
    int line;
    const char *line_begin;
} reader;

static _Noreturn void wrong(reader *r, const char *text) {
    fj_error *error = r->scope->error;
    const int column = (int)(r->at - r->line_begin) + 1;
    (void)fj_error_set(error, FJ_ERR_MOD, "%s", text);
    if (error != NULL) {
        error->line = r->line;
        error->column = column;
        error->length = 1;
    }
    fj_escape(r->scope, FJ_ERR_MOD);
}

/* ---- Words ------------------------------------------------------------------------------------------- */

static void skip_blanks(reader *r) {
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\t' || *r->at == '\r')) r->at++;
    if (r->at < r->end && *r->at == ';') {
        while (r->at < r->end && *r->at != '\n') r->at++;
    }
}

static bool at_line_end(reader *r) {
    skip_blanks(r);
    return r->at == r->end || *r->at == '\n';
}

static void end_line(reader *r) {
    if (!at_line_end(r)) wrong(r, "the line should end here");
    if (r->at == r->end) return;
    r->at++;
    r->line++;
    r->line_begin = r->at;
}

static bool take(reader *r, char c) {
    skip_blanks(r);
    if (r->at == r->end || *r->at != c) return false;
    r->at++;
    return true;
}

static void expect(reader *r, char c, const char *text) {
    if (!take(r, c)) wrong(r, text);
}

static bool is_word(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_';
}

static fj_str take_word(reader *r) {
    skip_blanks(r);
    const char *from = r->at;
    while (r->at < r->end && is_word(*r->at)) r->at++;
    return (fj_str){from, (size_t)(r->at - from)};
}

static bool is_number(char c) { return is_word(c) || c == '+' || c == '-' || c == '.'; }

/* Copies a number's characters; the C library reads NUL-terminated text. */
static void take_number(reader *r, char text[MAX_NUMBER]) {
    size_t length = 0;
    skip_blanks(r);
    while (r->at < r->end && is_number(*r->at)) {
        if (length + 1 == MAX_NUMBER) wrong(r, "the number is too long");
        text[length++] = *r->at++;
    }
    text[length] = '\0';
    if (length == 0) wrong(r, "there should be a number here");
}

static int64_t take_int(reader *r, int64_t least, int64_t most) {
    char text[MAX_NUMBER], *end;
    const char *from = r->at;
    take_number(r, text);
    const intmax_t value = strtoimax(text, &end, 10);
    const bool saturated = (value == INT64_MAX && strcmp(text, "9223372036854775807") != 0) ||
                           (value == INT64_MIN && strcmp(text, "-9223372036854775808") != 0);
    if (*end != '\0' || saturated || value < least || value > most) {
        r->at = from;
        wrong(r, "this is not an integer in the range it must be in");
    }
    return value;
}

static double take_double(reader *r) {
    char text[MAX_NUMBER];
    double value = 0.0;
    const char *from = r->at;
    take_number(r, text);
    const size_t used = fj_decimal_parse(fj_str_from(text), &value);
    if (used == 0 || text[used] != '\0') {
        r->at = from;
        wrong(r, "this is not a number");
    }
    return value;
}

static int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* "name" with \xNN for what is not printable. */
static const char *take_name(reader *r) {
    char name[MAX_NAME];
    size_t length = 0;
    expect(r, '"', "there should be a name in quotes here");
    while (r->at < r->end && *r->at != '"' && *r->at != '\n') {
        char c = *r->at++;
        if (c == '\\') {
            const bool fits = r->end - r->at >= 3 && r->at[0] == 'x';
            const int high = fits ? hex_digit(r->at[1]) : -1, low = fits ? hex_digit(r->at[2]) : -1;
            if (high < 0 || low < 0 || (high == 0 && low == 0))
                wrong(r, "an escape should be \\x and two digits");
            c = (char)(high * 16 + low);
            r->at += 3;
        }
        if (c == '\0' || length + 1 >= MAX_NAME) wrong(r, "the name is too long, or holds a NUL");
        name[length++] = c;
    }
    expect(r, '"', "the name should end here");
    return fj_arena_strdup(r->ir->arena, (fj_str){name, length});
}

static bool take_flag(reader *r, const char *flag) {
    const char *from = r->at;
    const fj_str word = take_word(r);
    if (fj_str_is(word, flag)) return true;
    r->at = from;
    return false;
}

/* ---- Captures and scalars ------------------------------------------------------------------------------ */

static fj_dtype take_dtype(reader *r) {
    const char *from = r->at;
    const fj_str word = take_word(r);
    for (int dtype = 0; dtype < FJ_DTYPE_COUNT; dtype++) {
        if (fj_str_is(word, fj_dtype_name((fj_dtype)dtype))) return (fj_dtype)dtype;
    }
    r->at = from;
    wrong(r, "there is no such data type");
}

static void take_dims(reader *r, fj_capture *capture) {
    expect(r, '[', "the dimensions should begin with [");
    while (!take(r, ']')) {
        if (capture->rank == FJ_MAX_RANK) wrong(r, "there are too many dimensions");
        if (capture->rank > 0) expect(r, ',', "there should be a , or ] here");
        capture->dims[capture->rank++] = take_int(r, -1, INT64_C(1) << 48);
    }
}

static void take_values(reader *r, fj_capture *capture) {
    int64_t count = 1;
    bool empty = false;
    for (int i = 0; i < capture->rank; i++) {
        if (capture->dims[i] < 0) wrong(r, "a literal needs its dimensions");
        empty |= capture->dims[i] == 0;
        if (!empty && capture->dims[i] > MAX_VALUES / count) wrong(r, "a literal has too many values");
        count = empty ? 0 : count * capture->dims[i];
    }
    const bool floats = fj_dtype_is_float(capture->dtype);
    double *values = FJ_NEW_ARRAY(r->ir->arena, double, count + 1);
    int64_t *ints = FJ_NEW_ARRAY(r->ir->arena, int64_t, count + 1);
    for (int64_t i = 0; i < count; i++) {
        if (floats)
            values[i] = take_double(r);
        else
            ints[i] = take_int(r, INT64_MIN, INT64_MAX);
        if (!floats) values[i] = (double)ints[i];
    }
    capture->literal = true;
    capture->values = values;
    capture->int_values = floats ? NULL : ints;
}

static void take_capture(reader *r) {
    fj_capture capture = {0};
    if (r->ir->captures.len == MAX_INPUTS) wrong(r, "there are too many captured tensors");
    (void)take_int(r, (int64_t)r->ir->captures.len, (int64_t)r->ir->captures.len);
    capture.dtype = take_dtype(r);
    take_dims(r, &capture);
    capture.name = take_name(r);
    capture.gradient = take_flag(r, "gradient");
    if (take(r, '=')) take_values(r, &capture);
    FJ_PUSH(r->ir->arena, &r->ir->captures, capture);
}

static bool find_type(fj_str word, fj_type *ret_type) {
    for (int type = FJ_TYPE_VOID; type < FJ_TYPE_COUNT; type++) {
        if (!fj_str_is(word, fj_type_names[type])) continue;
        *ret_type = (fj_type)type;
        return true;
    }
    return false;
}

static void take_scalar(reader *r) {
    fj_runtime_scalar scalar = {0};
    if (r->ir->scalars.len == MAX_INPUTS) wrong(r, "there are too many run-time scalars");
    (void)take_int(r, (int64_t)r->ir->scalars.len, (int64_t)r->ir->scalars.len);
    if (!find_type(take_word(r), &scalar.type) || scalar.type == FJ_TYPE_VOID || scalar.type == FJ_TYPE_I32) {
        wrong(r, "the type of a scalar is bool, i64 or float");
    }
    if (scalar.type == FJ_TYPE_FLOAT)
        scalar.f = take_double(r);
    else if (scalar.type == FJ_TYPE_BOOL)
        scalar.i = take_int(r, 0, 1);
    else
        scalar.i = take_int(r, INT64_MIN, INT64_MAX);
    scalar.name = take_name(r);
    scalar.gradient = take_flag(r, "gradient");
    FJ_PUSH(r->ir->arena, &r->ir->scalars, scalar);
}

/* ---- Nodes ------------------------------------------------------------------------------------------------ */

static fj_type own_type(fj_op op) {
    switch (fj_op_table[op].rule) {
    case FJ_RULE_LEAF_BOOL:
    case FJ_RULE_RANGE:
    case FJ_RULE_REDUCE_BOOL: return FJ_TYPE_BOOL;
    case FJ_RULE_LEAF_I32: return FJ_TYPE_I32;
    case FJ_RULE_LEAF_I64:
    case FJ_RULE_LOOP:
    case FJ_RULE_REDUCE_ARG: return FJ_TYPE_I64;
    case FJ_RULE_LEAF_FLOAT: return FJ_TYPE_FLOAT;
    default: return FJ_TYPE_VOID;
    }
}

static int64_t take_immediate(reader *r, fj_op op) {
    double value;
    int64_t bits = INT64_C(0x7ff8000000000000);
    switch (op) {
    case FJ_OP_CONST_BOOL:
        if (take_flag(r, "true")) return 1;
        if (!take_flag(r, "false")) wrong(r, "a bool is true or false");
        return 0;
    case FJ_OP_CONST_I32: return take_int(r, INT32_MIN, INT32_MAX);
    case FJ_OP_CONST_I64: return take_int(r, INT64_MIN, INT64_MAX);
    case FJ_OP_CONST_FLOAT:
        value = take_double(r);
        if (value == value) memcpy(&bits, &value, sizeof bits);
        return bits;
    case FJ_OP_LOAD:
    case FJ_OP_OUT_OF_RANGE:
    case FJ_OP_SCATTER: expect(r, '@', "a captured tensor is written @n"); return take_int(r, 0, MAX_INPUTS);
    case FJ_OP_DIM:
        expect(r, '@', "a captured tensor is written @n");
        bits = take_int(r, 0, MAX_INPUTS) << 8;
        return bits | take_int(r, 0, FJ_MAX_RANK - 1);
    case FJ_OP_SCALAR:
    case FJ_OP_SCATTER_SCALAR:
        expect(r, '$', "a run-time scalar is written $n");
        return take_int(r, 0, MAX_INPUTS);
    case FJ_OP_LOOP:
        expect(r, '#', "a loop's number is written #n");
        return take_int(r, 0, FJ_IR_MAX_NODES - 1);
    default: return 0;
    }
}

static fj_ref take_ref(reader *r) {
    expect(r, '%', "a value is written %n");
    return (fj_ref)take_int(r, 1, (int64_t)r->ir->nodes.len - 1);
}

static void take_node(reader *r) {
    fj_ref args[FJ_IR_MAX_ARGS];
    int argc = 0;
    const fj_ref next = (fj_ref)r->ir->nodes.len;
    (void)take_int(r, next, next);
    expect(r, '=', "there should be a = here");
    const fj_str name = take_word(r);
    const fj_op op = fj_op_find(name.data, name.len);
    if (op == FJ_OP_NONE) wrong(r, "there is no such operation");
    fj_type type = own_type(op);
    if (take(r, '.') && !find_type(take_word(r), &type)) wrong(r, "there is no such type");
    const int64_t imm = take_immediate(r, op);
    while (!at_line_end(r)) {
        if (argc == FJ_IR_MAX_ARGS) wrong(r, "there are too many arguments");
        if (argc > 0) expect(r, ',', "there should be a , here");
        args[argc++] = take_ref(r);
    }
    const char *problem = fj_ir_check(r->ir, &(fj_ir_candidate){op, type, imm, args, argc});
    if (problem != NULL) wrong(r, problem);
    if (fj_ir_node(r->ir, op, type, imm, args, argc) != next) wrong(r, "an equal node precedes this one");
}

static void take_root(reader *r, fj_str word) {
    fj_ref *const roots[] = {&r->ir->score, &r->ir->mask, &r->ir->fault, &r->ir->dscore};
    static const char *const names[] = {"score", "mask", "fault", "dscore"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        if (!fj_str_is(word, names[i])) continue;
        if (*roots[i] != 0) wrong(r, "this root was there already");
        *roots[i] = take_ref(r);
        return;
    }
    if (!fj_str_is(word, "effect")) wrong(r, "a line begins with capture, scalar, %n or the name of a root");
    FJ_PUSH(r->ir->arena, &r->ir->scatters, take_ref(r));
}

static void take_line(reader *r) {
    if (at_line_end(r)) return;
    if (take(r, '%')) {
        take_node(r);
        return;
    }
    const fj_str word = take_word(r);
    if (r->ir->nodes.len == 1 && fj_str_is(word, "capture"))
        take_capture(r);
    else if (r->ir->nodes.len == 1 && fj_str_is(word, "scalar"))
        take_scalar(r);
    else
        take_root(r, word);
}

fj_ir *fj_ir_parse(fj_arena *arena, fj_scope *scope, fj_str text) {
    if (text.len == 0) text.data = "";
    reader r = {
        .scope = scope,
        .begin = text.data,
        .at = text.data,
        .end = text.data + text.len,
        .line = 1,
        .line_begin = text.data,
    };
    r.ir = fj_ir_create(arena);
    while (r.at < r.end) {
        take_line(&r);
        end_line(&r);
    }
    const char *problem = fj_ir_validate(r.ir);
    if (problem != NULL) wrong(&r, problem);
    return r.ir;
}
