/* Compile-time values: see value.h. */
#include "expr/lang/value.h"
#include "expr/lang/builtins.h"
#include "expr/lang/tensor.h"

/* Sequences nest; messages and comparisons look no deeper than this. */
enum { DEEPEST = 64 };

static const int64_t HEAVIEST = (int64_t)1 << 40;

int64_t fj_value_weight(fj_value v) {
    return fj_value_is_sequence(v) || v.kind == FJ_VALUE_SLICE ? v.seq->weight : 1;
}

fj_value fj_value_sequence(fj_arena *arena, fj_value_kind kind, const fj_value *items, size_t len) {
    fj_sequence *seq = FJ_NEW(arena, fj_sequence);
    seq->items = FJ_NEW_ARRAY(arena, fj_value, len);
    seq->len = seq->cap = len;
    seq->constant = true;
    seq->weight = 1;
    for (size_t i = 0; i < len; i++) {
        seq->items[i] = items[i];
        if (fj_value_is_sequence(items[i])) ((fj_sequence *)(uintptr_t)items[i].seq)->held = true;
        seq->constant &= fj_value_is_constant(items[i]);
        if (fj_value_text(items[i]) != FJ_TEXT_KNOWN) seq->text = fj_value_text(items[i]);
        seq->weight += fj_value_weight(items[i]);
        if (seq->weight > HEAVIEST) seq->weight = HEAVIEST;
    }
    return (fj_value){.kind = kind, .seq = seq};
}

fj_value fj_value_rest(fj_arena *arena, fj_value_kind kind, const fj_value *items, size_t from, size_t to) {
    return fj_value_sequence(arena, kind, from < to ? items + from : items, from < to ? to - from : 0);
}

fj_value fj_value_unknown(fj_arena *arena, const char *name, const char *why) {
    fj_unknown *unknown = FJ_NEW(arena, fj_unknown);
    *unknown = (fj_unknown){name, why};
    return (fj_value){.kind = FJ_VALUE_UNKNOWN, .unknown = unknown};
}

bool fj_value_is_constant(fj_value v) {
    if (fj_value_is_sequence(v)) return v.seq->constant;
    return v.kind != FJ_VALUE_SCALAR && v.kind != FJ_VALUE_TENSOR && v.kind != FJ_VALUE_UNKNOWN;
}

fj_text_state fj_value_text(fj_value v) {
    if (fj_value_is_sequence(v)) return v.seq->text;
    return v.kind == FJ_VALUE_STR ? v.text : FJ_TEXT_KNOWN;
}

double fj_value_as_double(fj_value v) {
    switch (v.kind) {
    case FJ_VALUE_BOOL: return v.b ? 1.0 : 0.0;
    case FJ_VALUE_INT: return (double)v.i;
    default: return v.f;
    }
}

bool fj_value_truth(fj_value v) {
    switch (v.kind) {
    case FJ_VALUE_NONE: return false;
    case FJ_VALUE_BOOL: return v.b;
    case FJ_VALUE_INT: return v.i != 0;
    case FJ_VALUE_FLOAT: return v.f != 0.0;
    case FJ_VALUE_STR: return v.str.len > 0;
    case FJ_VALUE_TUPLE:
    case FJ_VALUE_LIST: return v.seq->len > 0;
    case FJ_VALUE_DICT: return v.dict->items.len > 0;
    default: return true;
    }
}

static bool equal(fj_value a, fj_value b, int depth) {
    if (fj_value_is_number(a) && fj_value_is_number(b)) {
        const bool floating = a.kind == FJ_VALUE_FLOAT || b.kind == FJ_VALUE_FLOAT;
        if (floating) return fj_value_as_double(a) == fj_value_as_double(b);
        return (a.kind == FJ_VALUE_BOOL ? a.b : a.i) == (b.kind == FJ_VALUE_BOOL ? b.b : b.i);
    }
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case FJ_VALUE_STR:
        if (a.text == FJ_TEXT_UNKNOWN) return false; /* who compares has asked before */
        return a.text == b.text && fj_str_equal(a.str, b.str);
    case FJ_VALUE_MODULE: return fj_str_equal(a.str, b.str);
    case FJ_VALUE_DTYPE: return a.dtype == b.dtype;
    case FJ_VALUE_TUPLE:
    case FJ_VALUE_LIST:
        if (a.seq == b.seq) return true;
        if (a.seq->len != b.seq->len || depth >= DEEPEST) return false;
        for (size_t i = 0; i < a.seq->len; i++) {
            if (!equal(a.seq->items[i], b.seq->items[i], depth + 1)) return false;
        }
        return true;
    case FJ_VALUE_FUNCTION: return a.function == b.function;
    case FJ_VALUE_BUILTIN: return a.builtin == b.builtin;
    case FJ_VALUE_PARTIAL: return a.partial == b.partial;
    case FJ_VALUE_DICT: return a.dict == b.dict;
    case FJ_VALUE_OBJECT: return a.object == b.object;
    case FJ_VALUE_CLASS: return a.class == b.class;
    default: return true; /* None, ... */
    }
}

bool fj_value_equal(fj_value a, fj_value b) { return equal(a, b, 0); }

const char *fj_value_describe(fj_value v) {
    static const char *const scalars[FJ_TYPE_COUNT] = {
        [FJ_TYPE_VOID] = "a run-time value",  [FJ_TYPE_BOOL] = "a run-time bool",
        [FJ_TYPE_I32] = "a run-time int",     [FJ_TYPE_I64] = "a run-time int",
        [FJ_TYPE_FLOAT] = "a run-time float",
    };
    switch (v.kind) {
    case FJ_VALUE_UNSET: return "nothing";
    case FJ_VALUE_NONE: return "None";
    case FJ_VALUE_BOOL: return "a bool";
    case FJ_VALUE_INT: return "an int";
    case FJ_VALUE_FLOAT: return "a float";
    case FJ_VALUE_STR: return v.text == FJ_TEXT_KNOWN ? "a string" : "a string that is not known";
    case FJ_VALUE_TUPLE: return "a tuple";
    case FJ_VALUE_LIST: return "a list";
    case FJ_VALUE_SLICE: return "a slice";
    case FJ_VALUE_ELLIPSIS: return "'...'";
    case FJ_VALUE_DTYPE: return "a dtype";
    case FJ_VALUE_MODULE: return "a module";
    case FJ_VALUE_FUNCTION:
    case FJ_VALUE_BUILTIN:
    case FJ_VALUE_PARTIAL: return "a function";
    case FJ_VALUE_DICT: return "a dict";
    case FJ_VALUE_OBJECT: return "an object";
    case FJ_VALUE_CLASS: return "a class";
    case FJ_VALUE_UNKNOWN: return "something outside the language";
    case FJ_VALUE_SCALAR: return scalars[v.type];
    case FJ_VALUE_TENSOR: return "a tensor";
    }
    return "a value";
}

static void print(fj_value v, fj_buf *out, int depth) {
    switch (v.kind) {
    case FJ_VALUE_NONE: fj_buf_put(out, "None"); break;
    case FJ_VALUE_BOOL: fj_buf_put(out, v.b ? "true" : "false"); break;
    case FJ_VALUE_INT: fj_buf_printf(out, "%lld", (long long)v.i); break;
    case FJ_VALUE_FLOAT: fj_buf_double(out, v.f); break;
    case FJ_VALUE_STR:
        if (v.text == FJ_TEXT_KNOWN)
            fj_buf_printf(out, "'%.*s'", (int)v.str.len, v.str.data);
        else
            fj_buf_put(out, fj_value_describe(v));
        break;
    case FJ_VALUE_DTYPE: fj_buf_put(out, fj_dtype_name(v.dtype)); break;
    case FJ_VALUE_TUPLE:
    case FJ_VALUE_LIST:
        fj_buf_put(out, v.kind == FJ_VALUE_TUPLE ? "(" : "[");
        for (size_t i = 0; i < v.seq->len && depth < DEEPEST; i++) {
            if (i > 0) fj_buf_put(out, ", ");
            print(v.seq->items[i], out, depth + 1);
        }
        fj_buf_put(out, v.kind == FJ_VALUE_TUPLE ? ")" : "]");
        break;
    default: fj_buf_put(out, fj_value_describe(v)); break;
    }
}

void fj_value_print(fj_value v, fj_buf *out) { print(v, out, 0); }
