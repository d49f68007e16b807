/* Methods of lists and dicts, namespaces, torch.nn's activations, operator and itertools. */
#include <string.h>

#include "expr/lang/builtins.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/objects.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

/* ---- Lists ----------------------------------------------------------------------------------------------- */

static fj_value list_of(fj_elab *e, const fj_builtin_args *call) {
    if (!fj_value_is_sequence(call->args[0]))
        fj_elab_fail(e, call->place, "%s() is a method of lists, not of %s", call->name,
                     fj_value_describe(call->args[0]));
    return call->args[0];
}

fj_value fj_build_list_append(fj_elab *e, const fj_builtin_args *call) {
    const fj_value list = list_of(e, call);
    fj_list_insert(e, list, list.seq->len, call->args[1], call->place);
    return FJ_NONE;
}

fj_value fj_build_list_extend(fj_elab *e, const fj_builtin_args *call) {
    const fj_value list = list_of(e, call);
    const fj_sequence more = fj_elab_iterate(e, call->args[1], call->place);
    for (size_t i = 0; i < more.len; i++) fj_list_insert(e, list, list.seq->len, more.items[i], call->place);
    return FJ_NONE;
}

static size_t index_of(fj_elab *e, const fj_builtin_args *call, fj_value list, fj_value index) {
    const int64_t given = fj_elab_int(e, index, call->place, "an index of a list"),
                  len = (int64_t)list.seq->len;
    const int64_t i = given < 0 ? given + len : given;
    return (size_t)(i < 0 ? 0 : i > len ? len : i);
}

fj_value fj_build_list_insert(fj_elab *e, const fj_builtin_args *call) {
    const fj_value list = list_of(e, call);
    fj_list_insert(e, list, index_of(e, call, list, call->args[1]), call->args[2], call->place);
    return FJ_NONE;
}

fj_value fj_build_list_pop(fj_elab *e, const fj_builtin_args *call) {
    const fj_value list = list_of(e, call);
    fj_sequence *seq = (fj_sequence *)(uintptr_t)list.seq;
    const fj_value last = fj_value_int(-1);
    const size_t at = index_of(e, call, list, fj_is_given(call->args[1]) ? call->args[1] : last);
    if (seq->held) fj_elab_fail(e, call->place, "a list that is an item of another one cannot be changed");
    if (at >= seq->len) fj_elab_fail(e, call->place, "pop() of a list that has no such item");
    const fj_value item = seq->items[at];
    fj_elab_step(e, call->place, 1 + seq->len / 16);
    memmove(seq->items + at, seq->items + at + 1, (seq->len - at - 1) * sizeof *seq->items);
    seq->len--;
    return item;
}

fj_value fj_build_list_copy(fj_elab *e, const fj_builtin_args *call) {
    const fj_value list = list_of(e, call);
    fj_elab_step(e, call->place, list.seq->len);
    return fj_value_sequence(e->arena, list.kind, list.seq->items, list.seq->len);
}

fj_value fj_build_list_find(fj_elab *e, const fj_builtin_args *call) {
    const fj_value list = list_of(e, call);
    int64_t count = 0;
    for (size_t i = 0; i < list.seq->len; i++) {
        const fj_value item = list.seq->items[i];
        if (!fj_value_is_constant(item) || !fj_value_is_constant(call->args[1]))
            fj_elab_fail(e, call->place, "%s() looks for constants", call->name);
        if (!fj_constant_compare(e, FJ_OPERATOR_EQ, item, call->args[1], call->place)) continue;
        if (call->data == 0) return fj_value_int((int64_t)i);
        count++;
    }
    if (call->data == 0) fj_elab_fail(e, call->place, "this is not in the list");
    return fj_value_int(count);
}

/* ---- Dicts ------------------------------------------------------------------------------------------------- */

static fj_dict *dict_of(fj_elab *e, const fj_builtin_args *call) {
    if (call->args[0].kind != FJ_VALUE_DICT)
        fj_elab_fail(e, call->place, "%s() is a method of dicts, not of %s", call->name,
                     fj_value_describe(call->args[0]));
    return call->args[0].dict;
}

static void update(fj_elab *e, fj_dict *dict, fj_value from, const fj_arguments *given, fj_place place) {
    if (from.kind == FJ_VALUE_DICT) {
        for (size_t i = 0; i < from.dict->items.len; i++) {
            const fj_pair pair = from.dict->items.data[i];
            fj_dict_set(e, dict, pair.key, pair.value, place);
        }
    } else if (fj_is_given(from)) {
        const fj_sequence pairs = fj_elab_iterate(e, from, place);
        for (size_t i = 0; i < pairs.len; i++) {
            const fj_sequence pair = fj_elab_iterate(e, pairs.items[i], place);
            if (pair.len != 2) fj_elab_fail(e, place, "a dict is made of pairs");
            fj_dict_set(e, dict, pair.items[0], pair.items[1], place);
        }
    }
    for (size_t i = 0; i < given->keyword_count; i++)
        fj_dict_set(e, dict, fj_value_str(given->names[i]), given->keywords[i], place);
}

fj_value fj_build_dict(fj_elab *e, const fj_builtin_args *call) {
    const fj_value dict = fj_dict_create(e);
    if (call->arguments->count > 1) fj_elab_fail(e, call->place, "dict() takes one argument and keywords");
    const fj_value from = call->arguments->count > 0 ? call->arguments->values[0] : FJ_UNSET;
    update(e, dict.dict, from, call->arguments, call->place);
    return dict;
}

fj_value fj_build_dict_update(fj_elab *e, const fj_builtin_args *call) {
    const fj_arguments *given = call->arguments;
    if (given->count == 0 || given->count > 2 || given->values[0].kind != FJ_VALUE_DICT)
        fj_elab_fail(e, call->place, "update() takes one dict");
    update(e, given->values[0].dict, given->count > 1 ? given->values[1] : FJ_UNSET, given, call->place);
    return FJ_NONE;
}

fj_value fj_build_dict_get(fj_elab *e, const fj_builtin_args *call) {
    fj_value value;
    fj_dict *dict = dict_of(e, call);
    const fj_value otherwise = call->args[2].kind == FJ_VALUE_UNSET ? FJ_NONE : call->args[2];
    if (fj_dict_find(e, dict, call->args[1], call->place, &value)) return value;
    if (call->data != 0) fj_dict_set(e, dict, call->args[1], otherwise, call->place);
    return otherwise;
}

fj_value fj_build_dict_items(fj_elab *e, const fj_builtin_args *call) {
    const fj_dict *dict = dict_of(e, call);
    fj_value *items = FJ_NEW_ARRAY(e->arena, fj_value, dict->items.len);
    fj_elab_step(e, call->place, dict->items.len);
    for (size_t i = 0; i < dict->items.len; i++) {
        const fj_pair pair = dict->items.data[i];
        const fj_value both[2] = {pair.key, pair.value};
        items[i] = call->data == 0 ? pair.key
                 : call->data == 1 ? pair.value
                                   : fj_value_sequence(e->arena, FJ_VALUE_TUPLE, both, 2);
    }
    return fj_value_sequence(e->arena, FJ_VALUE_LIST, items, dict->items.len);
}

fj_value fj_build_dict_copy(fj_elab *e, const fj_builtin_args *call) {
    const fj_value copy = fj_dict_create(e);
    const fj_arguments none = {0};
    (void)dict_of(e, call);
    update(e, copy.dict, call->args[0], &none, call->place);
    return copy;
}

/* ---- Namespaces, attributes --------------------------------------------------------------------------------- */

fj_value fj_build_namespace(fj_elab *e, const fj_builtin_args *call) {
    const fj_value object = fj_namespace_create(e);
    if (call->arguments->count > 0) fj_elab_fail(e, call->place, "%s() takes keywords", call->name);
    for (size_t i = 0; i < call->arguments->keyword_count; i++)
        fj_object_set(e, object, call->arguments->names[i], call->arguments->keywords[i], call->place);
    return object;
}

/* dataclasses.field: the default */
fj_value fj_build_field(fj_elab *e, const fj_builtin_args *call) {
    const fj_arguments *given = call->arguments;
    for (size_t i = 0; i < given->keyword_count; i++) {
        if (fj_str_is(given->names[i], "default")) return given->keywords[i];
        if (fj_str_is(given->names[i], "default_factory"))
            return fj_elab_call_values(e, given->keywords[i], NULL, 0, call->place);
    }
    return FJ_UNSET;
}

static bool find_attribute(fj_elab *e, const fj_builtin_args *call, fj_value *ret_value) {
    const fj_value object = call->args[0], name = call->args[1];
    if (name.kind != FJ_VALUE_STR)
        fj_elab_fail(e, call->place, "%s() takes the name of an attribute", call->name);
    fj_constant_need_text(e, name, call->place);
    if (object.kind == FJ_VALUE_OBJECT) return fj_object_find(e, object, name.str, call->place, ret_value);
    if (object.kind == FJ_VALUE_CLASS)
        return fj_class_find(e, object.class, name.str, call->place, ret_value);
    *ret_value = fj_elab_attribute(e, object, name.str, call->place);
    return true;
}

fj_value fj_build_getattr(fj_elab *e, const fj_builtin_args *call) {
    fj_value value;
    if (find_attribute(e, call, &value)) return value;
    if (call->args[2].kind != FJ_VALUE_UNSET) return call->args[2];
    return fj_elab_attribute(e, call->args[0], call->args[1].str, call->place);
}

fj_value fj_build_hasattr(fj_elab *e, const fj_builtin_args *call) {
    fj_value value;
    return fj_value_bool(find_attribute(e, call, &value));
}

/* module.register_buffer(name, tensor) */
fj_value fj_build_register(fj_elab *e, const fj_builtin_args *call) {
    if (call->args[1].kind != FJ_VALUE_STR) fj_elab_fail(e, call->place, "%s() takes a name", call->name);
    fj_constant_need_text(e, call->args[1], call->place);
    fj_object_set(e, call->args[0], call->args[1].str, call->args[2], call->place);
    return FJ_NONE;
}

fj_value fj_build_itself(fj_elab *e, const fj_builtin_args *call) {
    (void)e;
    return call->arguments->values[0];
}

/* ---- Autograd functions -------------------------------------------------------------------------------------- */

/* X.apply(...): its forward, which is differentiated as any other function is. */
fj_value fj_build_apply_function(fj_elab *e, const fj_builtin_args *call) {
    const fj_arguments *given = call->arguments;
    fj_class *class = given->values[0].class;
    fj_value forward, setup;
    if (!fj_class_find(e, class, FJ_STR("forward"), call->place, &forward))
        fj_elab_fail(e, call->place, "'%.*s' has no forward in this file", (int)class->function->name.len,
                     class->function->name.data);
    const bool has_context = !fj_class_find(e, class, FJ_STR("setup_context"), call->place, &setup);
    fj_arguments arguments = *given;
    arguments.values = FJ_NEW_ARRAY(e->arena, fj_value, given->count);
    arguments.count = 0;
    if (has_context) {
        arguments.values[arguments.count] = fj_namespace_create(e);
        arguments.values[arguments.count++].object->is_context = true;
    }
    for (size_t i = 1; i < given->count; i++) arguments.values[arguments.count++] = given->values[i];
    return fj_elab_call(e, forward, &arguments, call->place);
}

/* ---- torch.nn ---------------------------------------------------------------------------------------------------- */

/* nn.ELU(alpha=2.0): the function of torch.nn.functional, with the arguments as keywords. */
fj_value fj_build_module(fj_elab *e, const fj_builtin_args *call) {
    static const struct {
        const char *module, *function;
        const char *parameters[3];
    } modules[] = {
        {"GELU", "gelu", {"approximate"}},
        {"ReLU", "relu", {NULL}},
        {"Tanh", "tanh", {NULL}},
        {"Sigmoid", "sigmoid", {NULL}},
        {"SiLU", "silu", {NULL}},
        {"Softplus", "softplus", {"beta", "threshold"}},
        {"ELU", "elu", {"alpha"}},
        {"Hardtanh", "hardtanh", {"min_val", "max_val"}},
        {"Softsign", "softsign", {NULL}},
        {"ReLU6", "relu6", {NULL}},
        {"LeakyReLU", "leaky_relu", {"negative_slope"}},
        {"LogSigmoid", "logsigmoid", {NULL}},
        {"Mish", "mish", {NULL}},
        {"Threshold", "threshold", {"threshold", "value"}},
        {"Hardsigmoid", "hardsigmoid", {NULL}},
        {"Hardswish", "hardswish", {NULL}},
        {"Tanhshrink", "tanhshrink", {NULL}},
    };
    fj_arguments rest = {.names = FJ_NEW_ARRAY(e->arena, fj_str, call->count),
                         .keywords = FJ_NEW_ARRAY(e->arena, fj_value, call->count)};
    for (size_t i = 0; i < FJ_ARRAY_LEN(modules); i++) {
        if (strcmp(modules[i].module, call->name) != 0) continue;
        const fj_builtin *function = fj_builtin_find(fj_str_from(modules[i].function), FJ_IN_FUNCTIONAL);
        for (int k = 0; k < 3 && k < call->count && modules[i].parameters[k] != NULL; k++) {
            if (!fj_is_given(call->args[k])) continue;
            rest.names[rest.keyword_count] = fj_str_from(modules[i].parameters[k]);
            rest.keywords[rest.keyword_count++] = call->args[k];
        }
        return fj_partial_create(e, fj_builtin_value(function), &rest);
    }
    return fj_builtin_value(fj_builtin_find(FJ_STR("identity"), 0)); /* nn.Identity, nn.Dropout(0.0) */
}

/* ---- itertools ------------------------------------------------------------------------------------------------------ */

fj_value fj_build_accumulate(fj_elab *e, const fj_builtin_args *call) {
    const fj_sequence from = fj_elab_iterate(e, call->args[0], call->place);
    const bool has_start = fj_is_given(call->args[2]), has_function = fj_is_given(call->args[1]);
    FJ_VEC(fj_value) items = {0};
    fj_value total = call->args[2];
    if (has_start) FJ_PUSH(e->arena, &items, total);
    for (size_t i = 0; i < from.len; i++) {
        const fj_value both[2] = {total, from.items[i]};
        fj_elab_step(e, call->place, 1);
        if (i == 0 && !has_start)
            total = from.items[0];
        else if (has_function)
            total = fj_elab_call_values(e, call->args[1], both, 2, call->place);
        else
            total = fj_operate(e, FJ_OPERATOR_ADD, both[0], both[1], call->place);
        FJ_PUSH(e->arena, &items, total);
    }
    return fj_value_sequence(e->arena, FJ_VALUE_LIST, items.data, items.len);
}

fj_value fj_build_chain(fj_elab *e, const fj_builtin_args *call) {
    FJ_VEC(fj_value) items = {0};
    for (size_t i = 0; i < call->args[0].seq->len; i++) {
        const fj_sequence part = fj_elab_iterate(e, call->args[0].seq->items[i], call->place);
        fj_elab_step(e, call->place, part.len);
        for (size_t k = 0; k < part.len; k++) FJ_PUSH(e->arena, &items, part.items[k]);
    }
    if (items.len > FJ_ELAB_MAX_ITEMS) fj_elab_fail(e, call->place, "more than %d items", FJ_ELAB_MAX_ITEMS);
    return fj_value_sequence(e->arena, FJ_VALUE_LIST, items.data, items.len);
}

/* All tuples of one item of each, the last changing first. */
fj_value fj_build_product(fj_elab *e, const fj_builtin_args *call) {
    const fj_sequence *lists = call->args[0].seq;
    fj_sequence *parts = FJ_NEW_ARRAY(e->arena, fj_sequence, lists->len);
    fj_value *tuple = FJ_NEW_ARRAY(e->arena, fj_value, lists->len);
    size_t total = 1;
    for (size_t i = 0; i < lists->len; i++) {
        parts[i] = fj_elab_iterate(e, lists->items[i], call->place);
        if (__builtin_mul_overflow(total, parts[i].len, &total) || total > FJ_ELAB_MAX_ITEMS)
            fj_elab_fail(e, call->place, "more than %d items", FJ_ELAB_MAX_ITEMS);
    }
    fj_value *items = FJ_NEW_ARRAY(e->arena, fj_value, total);
    for (size_t i = 0; i < total; i++) {
        size_t rest = i;
        fj_elab_step(e, call->place, 1 + lists->len);
        for (size_t k = lists->len; k-- > 0; rest /= parts[k].len)
            tuple[k] = parts[k].items[rest % parts[k].len];
        items[i] = fj_value_sequence(e->arena, FJ_VALUE_TUPLE, tuple, lists->len);
    }
    return fj_value_sequence(e->arena, FJ_VALUE_LIST, items, total);
}
