/* Captured tensors: what they are called, what the caller binds to them, literal tables.
 *
 * A captured tensor has the chain of the variable names that it was given, the innermost first
 * (a parameter of a factory, then the module's variable). The caller's tensor is that of the first
 * name in the chain that he binds; without any, the innermost is what is missing.
 */
#include <stdio.h>
#include <string.h>

#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

/* ---- Making them ------------------------------------------------------------------------------------- */

static fj_value capture_create(fj_elab *e, const fj_table *table, const fj_name_list *names) {
    fj_lazy_tensor *tensor = FJ_NEW(e->arena, fj_lazy_tensor);
    tensor->kind = FJ_TENSOR_CAPTURE;
    tensor->table = table;
    tensor->names = names;
    return fj_value_tensor(tensor);
}

fj_value fj_capture_unnamed(fj_elab *e, const fj_table *table) { return capture_create(e, table, NULL); }

static const fj_name_list *push_name(fj_elab *e, fj_str name, const fj_name_list *outer) {
    fj_name_list *names = FJ_NEW(e->arena, fj_name_list);
    *names = (fj_name_list){name, outer};
    return names;
}

fj_value fj_capture_free(fj_elab *e, fj_str name, fj_place place) {
    for (size_t i = 0; i < e->free_tables.len; i++) {
        if (fj_str_equal(e->free_names.data[i].name, name)) {
            return capture_create(e, e->free_tables.data[i], push_name(e, name, NULL));
        }
    }
    fj_table *table = fj_table_create(e, place);
    table->free = true;
    FJ_PUSH(e->arena, &e->free_tables, table);
    FJ_PUSH(e->arena, &e->free_names, (fj_name_list){name, NULL});
    return capture_create(e, table, push_name(e, name, NULL));
}

bool fj_is_opaque(fj_value value) {
    return value.kind == FJ_VALUE_TENSOR && value.tensor->kind == FJ_TENSOR_CAPTURE &&
           value.tensor->names == NULL && value.tensor->table->literal == NULL;
}

_Noreturn void fj_capture_fail_opaque(fj_elab *e, fj_value value, fj_place place) {
    const fj_table *table = value.tensor->table;
    if (table->missing != NULL && !e->desc->bindings_open) {
        if (e->missing.len == 0) e->missing_place = place;
        FJ_PUSH(e->arena, &e->missing, table->missing);
        fj_capture_report_missing(e);
    }
    if (table->error != NULL) fj_elab_fail_again(e, table->error);
    if (table->why != NULL) fj_elab_fail(e, table->place, "%s", table->why);
    fj_elab_fail_note(e, place, "assign it to a variable: the caller binds a tensor to that name",
                      "this tensor has no name, so its value cannot come from the caller");
}

static const fj_binding *bound_name(fj_elab *e, const fj_name_list *names, fj_str *ret_name);

/* What could not be evaluated may be no tensor at all: the reason is said, not that a tensor lacks something. */
void fj_capture_fail_broken(fj_elab *e, const fj_lazy_tensor *tensor, fj_place place) {
    fj_str name;
    if (tensor->kind != FJ_TENSOR_CAPTURE || bound_name(e, tensor->names, &name) != NULL) return;
    if (tensor->table->error != NULL) fj_elab_fail_again(e, tensor->table->error);
    if (tensor->table->why != NULL) fj_elab_fail(e, place, "%s", tensor->table->why);
}

/* ---- Names -------------------------------------------------------------------------------------------- */

const fj_binding *fj_capture_binding(fj_elab *e, fj_str name) {
    for (size_t i = 0; i < e->desc->binding_count; i++) {
        if (fj_str_is(name, e->desc->bindings[i].name)) return &e->desc->bindings[i];
    }
    return NULL;
}

static const fj_binding *bound_name(fj_elab *e, const fj_name_list *names, fj_str *ret_name) {
    for (; names != NULL; names = names->outer) {
        const fj_binding *binding = fj_capture_binding(e, names->name);
        if (binding == NULL) continue;
        *ret_name = names->name;
        return binding;
    }
    return NULL;
}

bool fj_gives_opaque(fj_elab *e, fj_value value, fj_value *ret_value) {
    *ret_value = value;
    if (fj_is_opaque(value)) return true;
    fj_str name;
    if (e->in_mod || e->desc->bindings_open || value.kind != FJ_VALUE_TENSOR) return false;
    const fj_lazy_tensor *tensor = value.tensor;
    if (tensor->kind != FJ_TENSOR_CAPTURE || tensor->table->literal != NULL) return false;
    if (bound_name(e, tensor->names, &name) != NULL) return false;
    fj_table *table = fj_table_create(e, tensor->table->place);
    table->error = tensor->table->error;
    table->why = tensor->table->why;
    table->missing = fj_arena_strdup(e->arena, tensor->names->name);
    *ret_value = fj_capture_unnamed(e, table);
    return true;
}

/* Whether a lazy tensor is made of the captured tensor of this name. */
static bool is_made_of(fj_elab *e, fj_value value, fj_str name, int *budget) {
    if (value.kind != FJ_VALUE_TENSOR || --*budget < 0) return false;
    const fj_lazy_tensor *tensor = value.tensor;
    if (tensor->kind == FJ_TENSOR_CAPTURE) {
        fj_str bound;
        return bound_name(e, tensor->names, &bound) != NULL && fj_str_equal(bound, name);
    }
    if (tensor->base != NULL && is_made_of(e, fj_value_tensor(tensor->base), name, budget)) return true;
    for (int i = 0; i < tensor->part_count; i++) {
        if (is_made_of(e, tensor->parts[i], name, budget)) return true;
    }
    for (int i = 0; i < tensor->call.count; i++) {
        if (is_made_of(e, tensor->call.args[i], name, budget)) return true;
    }
    return false;
}

static const fj_name_list *limited(const fj_name_list *names) {
    int length = 0;
    for (const fj_name_list *at = names; at != NULL; at = at->outer) length++;
    return length < 16 ? names : NULL;
}

/* Whether a value of the kernel reads the captured tensor of this name. */
static bool reads(fj_elab *e, fj_ref ref, fj_str name) {
    const bool *marks = fj_reachable(e, ref);
    for (fj_ref at = 1; at <= ref; at++) {
        const fj_node *node = fj_ir_at(e->ir, at);
        if (marks[at] && node->op == FJ_OP_LOAD && fj_str_is(name, e->ir->captures.data[node->imm.i].name))
            return true;
    }
    return false;
}

/* torch.tensor(1.0) and what is made of tensors of rank 0: the caller's tensor of that name wins. What is
 * weak was a number in Python. */
static fj_value name_scalar(fj_elab *e, fj_value value, fj_str name, bool module, fj_place place) {
    if (value.weak || fj_capture_binding(e, name) == NULL) return value;
    if (!module && reads(e, value.ref, name)) return value;
    return capture_create(e, fj_table_create(e, place), push_name(e, name, NULL));
}

fj_value fj_capture_name(fj_elab *e, fj_value value, fj_str name, bool module, fj_place place) {
    if (value.kind == FJ_VALUE_SCALAR) return name_scalar(e, value, name, module, place);
    if (value.kind != FJ_VALUE_TENSOR) return value;
    const fj_lazy_tensor *tensor = value.tensor;
    const bool bound = fj_capture_binding(e, name) != NULL;
    if (tensor->kind == FJ_TENSOR_CAPTURE) {
        if (tensor->table->literal != NULL && bound) {
            return capture_create(e, fj_table_create(e, place), push_name(e, name, NULL));
        }
        if (tensor->names != NULL && fj_str_equal(tensor->names->name, name)) return value;
        return capture_create(e, tensor->table,
                              push_name(e, name, module && bound ? NULL : limited(tensor->names)));
    }
    int budget = 64;
    if (!bound || (!module && is_made_of(e, value, name, &budget))) return value;
    fj_table *table = fj_table_create(e, place);
    table->identity = tensor;
    return capture_create(e, table, push_name(e, name, NULL));
}

/* ---- Resolving ------------------------------------------------------------------------------------------ */

static bool is_reserved(fj_str name) {
    static const char *const names[] = {"q", "k", "v", "do", "dlse"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        if (fj_str_is(name, names[i])) return true;
    }
    return false;
}

static fj_hint *find_hint(fj_elab *e, fj_str name) {
    for (size_t i = 0; i < e->hints->items.len; i++) {
        if (fj_str_is(name, e->hints->items.data[i].name)) return &e->hints->items.data[i];
    }
    return NULL;
}

static void fill_from_binding(fj_captured *captured, const fj_binding *binding) {
    captured->bound = true;
    captured->dtype = binding->dtype;
    captured->rank = binding->rank;
    for (int i = 0; i < FJ_MAX_RANK; i++) captured->dims[i] = i < binding->rank ? binding->dims[i] : -1;
}

static void fill_from_literal(fj_captured *captured, const fj_capture *literal) {
    captured->bound = true;
    captured->dtype = literal->dtype;
    captured->rank = literal->rank;
    for (int i = 0; i < FJ_MAX_RANK; i++) captured->dims[i] = literal->dims[i];
}

/* Nobody binds it: what the source says of it, what was learned, else a float tensor. */
static void fill_from_guess(fj_elab *e, fj_captured *captured) {
    const fj_table *table = captured->table;
    const fj_hint *hint = find_hint(e, captured->name);
    captured->assumed_dtype = !table->has_dtype;
    captured->dtype = table->has_dtype                ? table->dtype
                    : hint != NULL && hint->has_dtype ? hint->dtype
                                                      : FJ_DTYPE_F32;
    captured->assumed_rank = table->rank < 0;
    captured->rank = table->rank >= 0 ? table->rank : hint != NULL ? hint->rank : -1;
    for (int i = 0; i < FJ_MAX_RANK; i++) captured->dims[i] = i < captured->rank ? table->dims[i] : -1;
}

static fj_str literal_name(fj_elab *e, const fj_lazy_tensor *tensor) {
    if (tensor->names != NULL) return tensor->names->name;
    return fj_str_from(fj_arena_printf(e->arena, "table%zu", tensor->table->number));
}

static fj_captured *find_captured(fj_elab *e, fj_str name, const fj_table *table, fj_place place) {
    for (size_t i = 0; i < e->captured.len; i++) {
        fj_captured *captured = &e->captured.data[i];
        if (!fj_str_equal(captured->name, name)) continue;
        if (captured->table->identity == table->identity) return captured;
        if (captured->table->literal != NULL || table->literal != NULL)
            continue; /* tables have no use for names */
        fj_elab_fail_note(e, place, "rename one of them: the caller binds tensors by name",
                          "two different captured tensors are called '%.*s'", (int)name.len, name.data);
    }
    return NULL;
}

fj_captured *fj_capture_resolve(fj_elab *e, const fj_lazy_tensor *tensor, fj_place place) {
    if (fj_is_opaque(fj_value_tensor(tensor))) fj_capture_fail_opaque(e, fj_value_tensor(tensor), place);
    const fj_table *table = tensor->table;
    fj_str name = table->literal != NULL ? literal_name(e, tensor) : tensor->names->name;
    const fj_binding *binding = table->literal != NULL ? NULL : bound_name(e, tensor->names, &name);
    if (table->literal == NULL && is_reserved(name)) {
        fj_elab_fail(e, place,
                     "'%.*s' is the name of an attention input, so no captured tensor can be called so",
                     (int)name.len, name.data);
    }
    fj_captured *found = find_captured(e, name, table, place);
    if (found != NULL) return found;
    fj_captured captured = {.name = name, .table = table, .index = -1};
    if (table->literal != NULL) {
        fill_from_literal(&captured, table->literal);
    } else if (binding != NULL) {
        fill_from_binding(&captured, binding);
    } else {
        const bool final = table->constant || !e->desc->bindings_open;
        if (table->error != NULL && final) fj_elab_fail_again(e, table->error);
        fill_from_guess(e, &captured);
    }
    FJ_PUSH(e->arena, &e->captured, captured);
    return &e->captured.data[e->captured.len - 1];
}

/* It is needed: it may be unbound. */
void fj_capture_want(fj_elab *e, fj_captured *captured, fj_place place) {
    if (captured->bound || captured->wanted) return;
    captured->wanted = true;
    if (e->missing.len == 0) e->missing_place = place;
    FJ_PUSH(e->arena, &e->missing, fj_arena_strdup(e->arena, captured->name));
}

/* Enters it into the graph. */
uint32_t fj_capture_register(fj_elab *e, fj_captured *captured, fj_place place) {
    if (captured->index >= 0) return (uint32_t)captured->index;
    fj_capture capture = {.dtype = captured->dtype, .rank = captured->rank < 0 ? 0 : captured->rank};
    if (captured->table->literal != NULL) capture = *captured->table->literal;
    capture.name = fj_arena_strdup(e->arena, captured->name);
    for (size_t i = 0; i < e->desc->constant_count; i++)
        capture.constant |= strcmp(e->desc->constants[i], capture.name) == 0;
    for (int i = 0; i < FJ_MAX_RANK; i++) capture.dims[i] = capture.literal ? capture.dims[i] : -1;
    fj_capture_want(e, captured, place);
    FJ_PUSH(e->arena, &e->ir->captures, capture);
    captured->index = (int64_t)e->ir->captures.len - 1;
    return (uint32_t)captured->index;
}

const char *fj_capture_note(fj_elab *e, const fj_captured *captured) {
    if (!captured->bound) return NULL;
    fj_buf text;
    char dims[256] = "";
    fj_buf_init(&text, &fj_allocator_libc);
    for (int i = 0; i < captured->rank; i++) {
        if (captured->dims[i] < 0) {
            fj_buf_put(&text, i > 0 ? ",?" : "?");
        } else {
            fj_buf_printf(&text, i > 0 ? ",%lld" : "%lld", (long long)captured->dims[i]);
        }
    }
    if (text.len > 0 && text.len < sizeof dims) memcpy(dims, text.data, text.len + 1);
    fj_buf_finish(&text);
    return fj_arena_printf(
        e->arena, "%s '%.*s' %s [%s]", captured->table->literal != NULL ? "the table" : "bound to",
        (int)captured->name.len, captured->name.data, fj_dtype_name(captured->dtype), dims);
}

/* What is given instead: the name may be misspelt. */
static const char *missing_note(fj_elab *e) {
    const char *
        rule =
           "a captured tensor takes its value from the caller's tensor of that name (--input or --bind; in a manifest \"bind\")",
       *given = "";
    fj_suggestion suggestion = fj_suggest_begin(fj_str_from(e->missing.data[0]));
    for (size_t i = 0; i < e->desc->binding_count; i++) {
        const char *name = e->desc->bindings[i].name;
        fj_suggest(&suggestion, fj_str_from(name));
        if (i < 8) given = fj_arena_printf(e->arena, "%s%s'%.60s'", given, i > 0 ? ", " : "", name);
    }
    if (suggestion.best.data != NULL)
        return fj_arena_printf(e->arena, "%s; '%.*s' is given: is it meant?", rule, (int)suggestion.best.len,
                               suggestion.best.data);
    if (*given == '\0') return rule;
    return fj_arena_printf(e->arena, "%s; given are %s%s", rule, given,
                           e->desc->binding_count > 8 ? ", ..." : "");
}

void fj_capture_report_missing(fj_elab *e) {
    char list[400] = "";
    size_t used = 0;
    for (size_t i = 0; i < e->missing.len; i++) { /* as many as there is room for */
        const char *name = e->missing.data[i];
        const int more = snprintf(list + used, sizeof list - used, "%s'%s'", i > 0 ? ", " : "", name);
        if (more < 0 || (size_t)more >= sizeof list - used) break;
        used += (size_t)more;
    }
    const char *many = e->missing.len > 1 ? "s" : "";
    fj_expr_fail_note(e->scope, e->missing_place, FJ_ERR_TENSOR, missing_note(e),
                      "captured tensor%s without a value: %.*s", many, (int)used, list);
}

/* ---- What assumptions and compile-time use ask for ------------------------------------------------------------ */

void fj_capture_specialise(fj_elab *e, fj_ref ref) {
    const bool *marks = fj_reachable(e, ref);
    for (fj_ref at = 1; at <= ref; at++) {
        const fj_node *node = fj_ir_at(e->ir, at);
        if (!marks[at] || node->op != FJ_OP_DIM) continue;
        const int64_t index = node->imm.i >> 8, axis = node->imm.i & 255;
        for (size_t i = 0; i < e->captured.len; i++) {
            const fj_captured *captured = &e->captured.data[i];
            if (captured->index == index && captured->bound)
                e->ir->captures.data[index].dims[axis] = captured->dims[axis];
        }
    }
}

static fj_hint *make_hint(fj_elab *e, fj_str name) {
    fj_hint *hint = find_hint(e, name);
    if (hint != NULL) return hint;
    FJ_PUSH(e->arena, &e->hints->items, (fj_hint){.name = fj_arena_strdup(e->arena, name), .rank = -1});
    return &e->hints->items.data[e->hints->items.len - 1];
}

void fj_capture_hint_rank(fj_elab *e, fj_value value) {
    if (value.kind != FJ_VALUE_SCALAR || fj_ir_at(e->ir, value.ref)->op != FJ_OP_LOAD) return;
    for (size_t i = 0; i < e->captured.len; i++) {
        const fj_captured *captured = &e->captured.data[i];
        if (captured->index != fj_ir_at(e->ir, value.ref)->imm.i || !captured->assumed_rank ||
            captured->bound)
            continue;
        if (captured->rank >= FJ_MAX_RANK) return;
        make_hint(e, captured->name)->rank = captured->rank + 1;
        fj_elab_restart(e);
    }
}

void fj_capture_hint_dtype(fj_elab *e, fj_ref ref, fj_dtype dtype) {
    const bool *marks = fj_reachable(e, ref);
    bool learned = false;
    for (fj_ref at = 1; at <= ref; at++) {
        const fj_node *node = fj_ir_at(e->ir, at);
        if (!marks[at] || node->op != FJ_OP_LOAD) continue;
        for (size_t i = 0; i < e->captured.len; i++) {
            const fj_captured *captured = &e->captured.data[i];
            if (captured->index != node->imm.i || !captured->assumed_dtype || captured->bound) continue;
            fj_hint *hint = make_hint(e, captured->name);
            if (hint->has_dtype) continue; /* it was corrected once */
            hint->has_dtype = true;
            hint->dtype = dtype;
            learned = true;
        }
    }
    if (learned) fj_elab_restart(e);
}

void fj_capture_hint_indices(fj_elab *e, fj_captured *captured, int count) {
    if (captured->bound || !captured->assumed_rank || count <= captured->rank || count > FJ_MAX_RANK) return;
    if (captured->rank < 0) {
        captured->rank = count;
        return;
    }
    make_hint(e, captured->name)->rank = count;
    fj_elab_restart(e);
}
