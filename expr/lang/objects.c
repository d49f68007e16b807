/* Dicts, lists that grow, namespaces and objects: see objects.h. */
#include "expr/lang/objects.h"
#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/names.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

#include <string.h>

/* ---- Dicts --------------------------------------------------------------------------------------------- */

fj_value fj_dict_create(fj_elab *e) {
    return (fj_value){.kind = FJ_VALUE_DICT, .dict = FJ_NEW(e->arena, fj_dict)};
}

static void check_key(fj_elab *e, fj_value key, fj_place place) {
    const bool simple = fj_value_is_number(key) || key.kind == FJ_VALUE_STR || key.kind == FJ_VALUE_NONE ||
                        key.kind == FJ_VALUE_DTYPE || fj_value_is_function(key) || key.kind == FJ_VALUE_CLASS;
    const bool tuple = key.kind == FJ_VALUE_TUPLE && key.seq->constant;
    fj_constant_need_text(e, key, place);
    if (!simple && !tuple)
        fj_elab_fail(e, place, "the key of a dict is a constant, not %s", fj_value_describe(key));
}

static fj_pair *find_pair(fj_elab *e, const fj_dict *dict, fj_value key, fj_place place) {
    check_key(e, key, place);
    for (size_t i = 0; i < dict->items.len; i++) {
        fj_pair *pair = &dict->items.data[i];
        fj_elab_step(e, place, (size_t)fj_value_weight(key));
        if (fj_value_equal(pair->key, key)) return pair;
    }
    return NULL;
}

bool fj_dict_find(fj_elab *e, const fj_dict *dict, fj_value key, fj_place place, fj_value *ret_value) {
    const fj_pair *pair = find_pair(e, dict, key, place);
    if (pair != NULL) *ret_value = pair->value;
    return pair != NULL;
}

void fj_dict_set(fj_elab *e, fj_dict *dict, fj_value key, fj_value value, fj_place place) {
    fj_pair *pair = find_pair(e, dict, key, place);
    if (pair != NULL) {
        pair->value = value;
        return;
    }
    if (dict->items.len >= FJ_ELAB_MAX_ITEMS)
        fj_elab_fail(e, place, "a dict of more than %d items", FJ_ELAB_MAX_ITEMS);
    FJ_PUSH(e->arena, &dict->items, (fj_pair){key, value});
}

fj_value fj_dict_keys(fj_elab *e, const fj_dict *dict) {
    fj_value *keys = FJ_NEW_ARRAY(e->arena, fj_value, dict->items.len);
    for (size_t i = 0; i < dict->items.len; i++) keys[i] = dict->items.data[i].key;
    return fj_value_sequence(e->arena, FJ_VALUE_LIST, keys, dict->items.len);
}

/* ---- Lists ----------------------------------------------------------------------------------------------- */

/* What an outer list says of its items would be wrong when they change. */
static fj_sequence *growing(fj_elab *e, fj_value list, fj_place place) {
    fj_sequence *seq = (fj_sequence *)(uintptr_t)list.seq;
    if (seq->held)
        fj_elab_fail(e, place, "a list that is an item of another one cannot be changed: build it before");
    return seq;
}

static void note_item(fj_elab *e, fj_sequence *seq, fj_value item, fj_place place) {
    if (fj_value_is_sequence(item)) {
        if (item.seq == seq) fj_elab_fail(e, place, "a list cannot be an item of itself");
        ((fj_sequence *)(uintptr_t)item.seq)->held = true;
    }
    seq->constant &= fj_value_is_constant(item);
    if (fj_value_text(item) != FJ_TEXT_KNOWN) seq->text = fj_value_text(item);
    seq->weight += fj_value_weight(item);
}

void fj_list_insert(fj_elab *e, fj_value list, size_t index, fj_value item, fj_place place) {
    fj_sequence *seq = growing(e, list, place);
    if (seq->len >= FJ_ELAB_MAX_ITEMS)
        fj_elab_fail(e, place, "a list of more than %d items", FJ_ELAB_MAX_ITEMS);
    fj_elab_step(e, place, 1 + (seq->len - index) / 16);
    note_item(e, seq, item, place);
    seq->items = fj_arena_grow(e->arena, seq->items, sizeof *seq->items, seq->len, seq->len + 1, &seq->cap);
    memmove(seq->items + index + 1, seq->items + index, (seq->len - index) * sizeof *seq->items);
    seq->items[index] = item;
    seq->len++;
}

void fj_item_set(fj_elab *e, fj_value object, fj_value key, fj_value value, fj_place place) {
    if (object.kind == FJ_VALUE_DICT) {
        fj_dict_set(e, object.dict, key, value, place);
        return;
    }
    fj_sequence *seq = growing(e, object, place);
    const int64_t given = fj_elab_int(e, key, place, "an index of a list");
    const int64_t i = given < 0 ? given + (int64_t)seq->len : given;
    if (i < 0 || i >= (int64_t)seq->len)
        fj_elab_fail(e, place, "index %lld is outside of a list of %zu", (long long)given, seq->len);
    note_item(e, seq, value, place);
    seq->items[i] = value;
}

/* ---- Members ----------------------------------------------------------------------------------------------- */

static fj_value *find_member(fj_elab *e, const fj_members *members, fj_str name, fj_place place) {
    fj_elab_step(e, place, 1 + members->items.len / 16);
    for (size_t i = 0; i < members->items.len; i++) {
        if (fj_str_equal(members->items.data[i].name, name)) return &members->items.data[i].value;
    }
    return NULL;
}

static void set_member(fj_elab *e, fj_members *members, fj_str name, fj_value value, fj_place place) {
    fj_value *member = find_member(e, members, name, place);
    if (member != NULL) {
        *member = value;
    } else {
        FJ_PUSH(e->arena, &members->items, (fj_member){name, value});
    }
}

fj_value fj_namespace_create(fj_elab *e) {
    return (fj_value){.kind = FJ_VALUE_OBJECT, .object = FJ_NEW(e->arena, fj_object)};
}

void fj_object_set(fj_elab *e, fj_value object, fj_str name, fj_value value, fj_place place) {
    const fj_value named = e->in_mod ? value : fj_capture_name(e, value, name, false, place);
    fj_members *members = object.kind == FJ_VALUE_CLASS ? &object.class->members : &object.object->members;
    set_member(e, members, name, named, place);
}

/* ---- Classes: looking up -------------------------------------------------------------------------------------- */

enum { DEEPEST = 32 };

static bool find_in_class(fj_elab *e, const fj_class *class, fj_str name, fj_place place, int depth,
                          fj_value *ret_value) {
    const fj_value *own = find_member(e, &class->members, name, place);
    if (own != NULL) {
        *ret_value = *own;
        return true;
    }
    for (size_t i = 0; i < class->base_count && depth < DEEPEST; i++) {
        if (class->bases[i].kind == FJ_VALUE_CLASS &&
            find_in_class(e, class->bases[i].class, name, place, depth + 1, ret_value))
            return true;
    }
    return false;
}

/* Whether a class is made of one outside of the file whose name ends like this: Module, Function. */
static bool descends(fj_elab *e, const fj_class *class, const char *ending, fj_place place, int depth) {
    fj_elab_step(e, place, 1);
    for (size_t i = 0; i < class->base_count && depth < DEEPEST; i++) {
        const fj_value base = class->bases[i];
        if (base.kind == FJ_VALUE_CLASS && descends(e, base.class, ending, place, depth + 1)) return true;
        if (base.kind != FJ_VALUE_UNKNOWN) continue;
        const size_t len = strlen(base.unknown->name), tail = strlen(ending);
        if (len >= tail && strcmp(base.unknown->name + len - tail, ending) == 0) return true;
    }
    return false;
}

static bool has_decorator(const fj_function *function, const char *name) {
    for (size_t i = 0; i < function->decorators.len; i++) {
        const fj_expr *decorator = function->decorators.data[i];
        while (decorator->kind == FJ_EXPR_CALL) decorator = decorator->left;
        const bool named = decorator->kind == FJ_EXPR_NAME || decorator->kind == FJ_EXPR_ATTRIBUTE;
        if (named && fj_str_is(decorator->text, name)) return true;
    }
    return false;
}

static fj_value bind_self(fj_elab *e, fj_value self, fj_value function) {
    fj_arguments first = {.values = FJ_NEW(e->arena, fj_value), .count = 1};
    first.values[0] = self;
    return fj_partial_create(e, function, &first);
}

/* A function found in a class, as an attribute of self. */
static fj_value bind_method(fj_elab *e, fj_value self, fj_class *class, fj_value value, fj_place place) {
    if (value.kind != FJ_VALUE_FUNCTION || value.function->owner == NULL) return value;
    const fj_function *function = value.function->function;
    if (has_decorator(function, "staticmethod")) return value;
    if (has_decorator(function, "classmethod"))
        return bind_self(e, (fj_value){.kind = FJ_VALUE_CLASS, .class = class}, value);
    if (self.kind != FJ_VALUE_OBJECT) return value;
    if (has_decorator(function, "property") || has_decorator(function, "cached_property"))
        return fj_elab_call_values(e, value, &self, 1, place);
    return bind_self(e, self, value);
}

bool fj_class_find(fj_elab *e, fj_class *class, fj_str name, fj_place place, fj_value *ret_value) {
    const fj_value self = {.kind = FJ_VALUE_CLASS, .class = class};
    if (find_in_class(e, class, name, place, 0, ret_value)) {
        *ret_value = bind_method(e, self, class, *ret_value, place);
        return true;
    }
    if (!fj_str_is(name, "apply") || !descends(e, class, "Function", place, 0)) return false;
    *ret_value = bind_self(e, self, fj_builtin_value(fj_builtin_find(FJ_STR("apply function"), 0)));
    return true;
}

/* What a module does with its tensors changes no value. */
static const fj_builtin *module_method(fj_str name) {
    static const char *const same[] = {"to",    "cuda",   "cpu",      "eval",           "train",  "half",
                                       "float", "double", "bfloat16", "requires_grad_", "compile"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(same); i++) {
        if (fj_str_is(name, same[i])) return fj_builtin_find(FJ_STR("module itself"), 0);
    }
    if (fj_str_is(name, "register_buffer") || fj_str_is(name, "register_parameter"))
        return fj_builtin_find(FJ_STR("register_buffer"), 0);
    return NULL;
}

bool fj_object_find(fj_elab *e, fj_value object, fj_str name, fj_place place, fj_value *ret_value) {
    const fj_object *o = object.object;
    const fj_value *own = find_member(e, &o->members, name, place);
    if (own != NULL) {
        *ret_value = *own;
        return true;
    }
    if (o->is_context) { /* ctx.save_for_backward(...) and the like */
        *ret_value = fj_builtin_value(fj_builtin_find(FJ_STR("print"), FJ_IN_PYTHON));
        return true;
    }
    if (o->class == NULL) return false;
    if (find_in_class(e, o->class, name, place, 0, ret_value)) {
        *ret_value = bind_method(e, object, o->class, *ret_value, place);
        return true;
    }
    const fj_builtin *method = descends(e, o->class, "Module", place, 0) ? module_method(name) : NULL;
    if (method != NULL) *ret_value = bind_self(e, object, fj_builtin_value(method));
    return method != NULL;
}

fj_value fj_super_find(fj_elab *e, fj_str name, fj_place place) {
    const fj_active *active = e->active;
    while (active != NULL && active->closure->owner == NULL) active = active->outer;
    if (active == NULL || active->closure->function->parameter_count == 0)
        fj_elab_fail(e, place, "super() outside of a method");
    const fj_class *class = active->closure->owner;
    const fj_value self = fj_names_lookup(e, active->closure->function->parameters[0].name, place);
    for (size_t i = 0; i < class->base_count; i++) {
        fj_value value;
        if (class->bases[i].kind != FJ_VALUE_CLASS ||
            !find_in_class(e, class->bases[i].class, name, place, 1, &value))
            continue;
        return bind_method(e, self, class->bases[i].class, value, place);
    }
    if (fj_str_is(name, "__init__")) return fj_builtin_value(fj_builtin_find(FJ_STR("print"), FJ_IN_PYTHON));
    const fj_builtin *method = self.kind == FJ_VALUE_OBJECT ? module_method(name) : NULL;
    if (method == NULL)
        fj_elab_fail(e, place, "no class that '%.*s' is made of has '%.*s' in this file",
                     (int)class->function->name.len, class->function->name.data, (int)name.len, name.data);
    return bind_self(e, self, fj_builtin_value(method));
}

fj_value fj_callable(fj_elab *e, fj_value value, fj_place place) {
    fj_value method;
    if (value.kind != FJ_VALUE_OBJECT || value.object->class == NULL) return value;
    if (find_in_class(e, value.object->class, FJ_STR("__call__"), place, 0, &method) ||
        (descends(e, value.object->class, "Module", place, 0) &&
         find_in_class(e, value.object->class, FJ_STR("forward"), place, 0, &method)))
        return bind_method(e, value, value.object->class, method, place);
    return value;
}

bool fj_is_instance(fj_value object, const fj_class *class) {
    if (object.kind != FJ_VALUE_OBJECT) return false;
    const fj_class *at = object.object->class;
    for (int depth = 0; at != NULL && depth < DEEPEST; depth++) { /* of the first bases */
        if (at == class) return true;
        at = at->base_count > 0 && at->bases[0].kind == FJ_VALUE_CLASS ? at->bases[0].class : NULL;
    }
    return false;
}
