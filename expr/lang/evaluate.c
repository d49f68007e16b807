/* run-tests: one expression over bindings, compiled and evaluated by the oracle.
 *
 * b, h, q, kv and score are the position; any other name is a captured tensor: int64, float64 or
 * bool by its value, or what torch.tensor([...], dtype=...) says.
 */
#include <string.h>

#include "base/dtype.h"
#include "expr/lang/capture.h"
#include "expr/lang/choose.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/tensor.h"

typedef struct table_data {
    fj_str name;
    const fj_capture *literal;
} table_data;

typedef struct job {
    const char *expression, *bindings;
    fj_buf *out;
    fj_hints hints;
    fj_mod_desc desc;
    FJ_VEC(fj_binding) tables;
    FJ_VEC(table_data) data;
    fj_eval_lanes lanes;
    double score;
} job;

/* ---- Bindings ------------------------------------------------------------------------------------------ */

static bool set_position(job *j, fj_str name, fj_value value) {
    const char *const names[] = {"b", "h", "q", "kv", "q_idx", "kv_idx"};
    int32_t *const places[] = {&j->lanes.b,   &j->lanes.h, &j->lanes.q,
                               &j->lanes.kv0, &j->lanes.q, &j->lanes.kv0};
    if (fj_str_is(name, "score") && fj_value_is_number(value)) {
        j->score = fj_value_as_double(value);
        return true;
    }
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        if (!fj_str_is(name, names[i]) || value.kind != FJ_VALUE_INT) continue;
        *places[i] = (int32_t)value.i;
        return true;
    }
    return false;
}

static const fj_capture *literal_of(fj_elab *e, fj_value value, fj_place place) {
    if (value.kind == FJ_VALUE_TENSOR && value.tensor->kind == FJ_TENSOR_CAPTURE &&
        value.tensor->table->literal != NULL) {
        return value.tensor->table->literal;
    }
    return fj_capture_literal(e, value, FJ_NONE, place).tensor->table->literal;
}

static void bind(fj_elab *e, job *j, fj_str name, fj_str text) {
    fj_source *source = FJ_NEW(e->arena, fj_source);
    *source = (fj_source){"<bindings>", text};
    const fj_expr *x = fj_expr_parse_expression(e->scope, source);
    const fj_value value = fj_elab_expr(e, x);
    if (set_position(j, name, value)) return;
    const fj_capture *literal = literal_of(e, value, x->place);
    fj_binding binding = {
        .name = fj_arena_strdup(e->arena, name), .dtype = literal->dtype, .rank = literal->rank};
    for (int i = 0; i < literal->rank; i++) binding.dims[i] = literal->dims[i];
    FJ_PUSH(e->arena, &j->tables, binding);
    FJ_PUSH(e->arena, &j->data, (table_data){name, literal});
}

/* The end of a value: a blank outside of brackets. */
static const char *end_of_value(const char *text) {
    for (int depth = 0; *text != '\0' && (depth > 0 || (*text != ' ' && *text != '\t' && *text != '\n'));
         text++) {
        depth += *text == '[' || *text == '(';
        depth -= *text == ']' || *text == ')';
    }
    return text;
}

static void read_bindings(fj_elab *e, job *j) {
    const char *at = j->bindings == NULL ? "" : j->bindings;
    for (at += strspn(at, " \t\n"); *at != '\0'; at += strspn(at, " \t\n")) {
        const size_t len = strcspn(at, "= \t\n");
        if (len == 0 || at[len] != '=')
            fj_fail(e->scope, FJ_ERR_ARGUMENT, "bindings are written name=value, with blanks between");
        const char *value = at + len + 1, *end = end_of_value(value);
        bind(e, j, (fj_str){at, len}, (fj_str){value, (size_t)(end - value)});
        at = end;
    }
}

/* ---- Values ----------------------------------------------------------------------------------------------- */

static const void *pack(fj_elab *e, const fj_capture *literal, int64_t count) {
    void *data = fj_arena_alloc(e->arena, fj_dtype_size(literal->dtype) * (size_t)(count + 1));
    for (int64_t i = 0; i < count; i++) {
        switch (literal->dtype) {
        case FJ_DTYPE_BOOL: ((bool *)data)[i] = literal->int_values[i] != 0; break;
        case FJ_DTYPE_I32: ((int32_t *)data)[i] = (int32_t)literal->int_values[i]; break;
        case FJ_DTYPE_I64: ((int64_t *)data)[i] = literal->int_values[i]; break;
        default: fj_dtype_store_float(literal->dtype, data, i, literal->values[i]); break;
        }
    }
    return data;
}

static const fj_capture *data_of(const job *j, const fj_capture *capture) {
    for (size_t i = 0; i < j->data.len && !capture->literal; i++) {
        if (fj_str_is(j->data.data[i].name, capture->name)) return j->data.data[i].literal;
    }
    return capture;
}

static fj_eval_input make_input(fj_elab *e, const job *j, const fj_ir *ir) {
    fj_eval_tensor *tensors = FJ_NEW_ARRAY(e->arena, fj_eval_tensor, ir->captures.len + 1);
    for (size_t i = 0; i < ir->captures.len; i++) {
        const fj_capture *data = data_of(j, &ir->captures.data[i]);
        int64_t count = 1;
        tensors[i].dtype = data->dtype;
        for (int axis = data->rank - 1; axis >= 0; axis--) {
            tensors[i].dims[axis] = data->dims[axis];
            tensors[i].strides[axis] = count;
            count *= data->dims[axis];
        }
        tensors[i].data = pack(e, data, count);
    }
    return (fj_eval_input){.captures = tensors};
}

/* One root, as a double or a bool; a fault is an error. */
static double run_root(fj_elab *e, job *j, fj_ref root, bool *ret_mask) {
    e->ir->score = ret_mask == NULL ? root : 0;
    e->ir->mask = ret_mask == NULL ? 0 : root;
    const fj_ir *guarded = fj_ir_guard(e->ir);
    const fj_eval_input input = make_input(e, j, guarded);
    fj_eval *eval = fj_eval_create(e->arena, guarded);
    double value = 0.0;
    bool fault = false;
    j->lanes.count = 1;
    j->lanes.score = &j->score;
    fj_eval_run(eval, &input, &j->lanes, ret_mask == NULL ? &value : NULL, ret_mask, NULL,
                guarded->fault != 0 ? &fault : NULL, NULL);
    if (!fault) return value;
    char text[400] = "a bad read or division";
    (void)fj_eval_explain(eval, &input, j->lanes.b, j->lanes.h, j->lanes.q, j->lanes.kv0, j->score, text,
                          sizeof text);
    fj_fail(e->scope, FJ_ERR_INDEX, "%s", text);
}

static double run_int(fj_elab *e, job *j, fj_ref ref) {
    return run_root(e, j, fj_ir_cast(e->ir, ref, FJ_TYPE_FLOAT), NULL);
}

/* An int64 in two halves, which doubles hold exactly. */
static int64_t run_int64(fj_elab *e, job *j, fj_ref ref) {
    const fj_ref high = fj_ir_op2(e->ir, FJ_OP_SHR, ref, fj_ir_i64(e->ir, 32));
    const fj_ref low = fj_ir_op2(e->ir, FJ_OP_AND, ref, fj_ir_i64(e->ir, 0xffffffff));
    return (int64_t)((uint64_t)(int64_t)run_int(e, j, high) << 32 | (uint64_t)run_int(e, j, low));
}

static fj_value run_scalar(fj_elab *e, job *j, fj_value value) {
    bool truth = false;
    switch (value.type) {
    case FJ_TYPE_BOOL: (void)run_root(e, j, value.ref, &truth); return fj_value_bool(truth);
    case FJ_TYPE_I32: return fj_value_int((int64_t)run_int(e, j, value.ref));
    case FJ_TYPE_I64: return fj_value_int(run_int64(e, j, value.ref));
    default: return fj_value_float(run_root(e, j, value.ref, NULL));
    }
}

static fj_value run_value(fj_elab *e, job *j, fj_value value, fj_place place) {
    fj_elab_enter(e, place);
    value = fj_tensor_settle(e, value, place);
    if (value.kind == FJ_VALUE_SCALAR) value = run_scalar(e, j, value);
    if (value.kind == FJ_VALUE_TENSOR || fj_value_is_sequence(value)) {
        const fj_value_kind kind = value.kind == FJ_VALUE_TUPLE ? FJ_VALUE_TUPLE : FJ_VALUE_LIST;
        const fj_sequence items = fj_elab_iterate(e, value, place);
        fj_value *values = FJ_NEW_ARRAY(e->arena, fj_value, items.len);
        for (size_t i = 0; i < items.len; i++) values[i] = run_value(e, j, items.items[i], place);
        value = fj_value_sequence(e->arena, kind, values, items.len);
    }
    fj_elab_leave(e);
    return value;
}

static void run(fj_scope *scope, void *user) {
    job *j = user;
    j->tables.len = j->data.len = 0;
    j->desc = (fj_mod_desc){.struct_size = sizeof j->desc};
    fj_elab *first = fj_mod_begin(scope, &j->desc, &j->hints);
    read_bindings(first, j);
    j->desc.bindings = j->tables.data;
    j->desc.binding_count = j->tables.len;
    fj_elab *e = fj_mod_begin(scope, &j->desc, &j->hints);
    const fj_source *source = fj_mod_source(e, "<expression>", j->expression);
    const fj_expr *x = fj_expr_parse_expression(scope, source);
    const fj_value value = fj_mod_expression(e, x, FJ_MOD_SCORE);
    fj_value_print(run_value(e, j, value, x->place), j->out);
}

void fj_expr_evaluate(fj_scope *scope, const char *expression, const char *bindings, fj_buf *out) {
    job *j = FJ_NEW(scope->arena, job);
    j->expression = expression;
    j->bindings = bindings;
    j->out = out;
    fj_mod_restarting(scope, &j->hints, run, j);
}
