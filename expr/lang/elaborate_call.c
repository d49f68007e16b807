/* Functions: definitions, arguments, calls. */
#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/names.h"
#include "expr/lang/objects.h"
#include "expr/lang/tensor.h"

#include <string.h>

/* ---- Definitions --------------------------------------------------------------------------------- */

/* Decorators that leave what a mod computes as it is. */
static bool is_neutral(const fj_expr *decorator) {
    static const char *const names[] = {"compile",  "no_grad",         "inference_mode", "jit",
                                        "wraps",    "lru_cache",       "cache",          "staticmethod",
                                        "script",   "disable",         "register_fake",  "custom_op",
                                        "export",   "classmethod",     "property",       "abstractmethod",
                                        "override", "cached_property", "custom_fwd"};
    while (decorator->kind == FJ_EXPR_CALL) decorator = decorator->left;
    if (decorator->kind != FJ_EXPR_NAME && decorator->kind != FJ_EXPR_ATTRIBUTE) return false;
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++) {
        if (fj_str_is(decorator->text, names[i])) return true;
    }
    return false;
}

fj_value fj_elab_define(fj_elab *e, const fj_function *function) {
    fj_closure *closure = FJ_NEW(e->arena, fj_closure);
    closure->function = function;
    closure->frame = e->frame;
    while (closure->frame != NULL && closure->frame->is_class) closure->frame = closure->frame->parent;
    closure->owner = e->frame != NULL && e->frame->is_class ? e->class : NULL;
    closure->defaults = FJ_NEW_ARRAY(e->arena, fj_value, function->parameter_count);
    for (size_t i = 0; i < function->parameter_count; i++) {
        const fj_parameter *parameter = &function->parameters[i];
        if (parameter->default_value == NULL) continue;
        const fj_value value = fj_names_attempt(e, parameter->default_value);
        closure->defaults[i] =
            e->in_mod ? value : fj_capture_name(e, value, parameter->name, false, parameter->place);
    }
    fj_value value = {.kind = FJ_VALUE_FUNCTION, .function = closure};
    for (size_t i = function->decorators.len; i-- > 0;) {
        const fj_expr *decorator = function->decorators.data[i];
        if (is_neutral(decorator)) continue;
        value = fj_elab_call_values(e, fj_elab_expr(e, decorator), &value, 1, decorator->place);
    }
    return value;
}

/* ---- Arguments ------------------------------------------------------------------------------------- */

static void push_keyword(fj_elab *e, fj_arguments *arguments, fj_str name, fj_value value) {
    arguments->names[arguments->keyword_count] = name;
    arguments->keywords[arguments->keyword_count++] = value;
    (void)e;
}

/* f(**dict) */
static void spread_dict(fj_elab *e, fj_arguments *arguments, const fj_dict *dict, fj_place place) {
    for (size_t i = 0; i < dict->items.len; i++) {
        const fj_pair pair = dict->items.data[i];
        if (pair.key.kind != FJ_VALUE_STR)
            fj_elab_fail(e, place, "the keys of '**' are strings, not %s", fj_value_describe(pair.key));
        for (size_t k = 0; k < arguments->keyword_count; k++) {
            if (fj_str_equal(arguments->names[k], pair.key.str))
                fj_elab_fail(e, place, "the argument '%.*s' is given twice", (int)pair.key.str.len,
                             pair.key.str.data);
        }
        push_keyword(e, arguments, pair.key.str, pair.value);
    }
}

static fj_arguments evaluate_arguments(fj_elab *e, const fj_expr *x) {
    FJ_VEC(fj_value) values = {0};
    for (size_t i = 0; i < x->items.len; i++) {
        const fj_expr *item = x->items.data[i];
        if (item->kind != FJ_EXPR_STARRED) {
            FJ_PUSH(e->arena, &values, fj_elab_expr(e, item));
            continue;
        }
        const fj_sequence more = fj_elab_iterate(e, fj_elab_expr(e, item->left), item->place);
        fj_elab_step(e, x->place, more.len);
        for (size_t j = 0; j < more.len; j++) FJ_PUSH(e->arena, &values, more.items[j]);
    }
    fj_arguments arguments = {.values = values.data, .count = values.len};
    fj_value *given = FJ_NEW_ARRAY(e->arena, fj_value, x->keyword_count);
    size_t room = x->keyword_count;
    for (size_t i = 0; i < x->keyword_count; i++) {
        given[i] = fj_elab_expr(e, x->keywords[i].value);
        if (x->keywords[i].name.len > 0) continue;
        if (given[i].kind == FJ_VALUE_TENSOR)
            fj_capture_fail_broken(e, given[i].tensor, x->keywords[i].place);
        if (given[i].kind != FJ_VALUE_DICT)
            fj_elab_fail(e, x->keywords[i].place, "'**' takes a dict, not %s", fj_value_describe(given[i]));
        room += given[i].dict->items.len;
    }
    arguments.names = FJ_NEW_ARRAY(e->arena, fj_str, room);
    arguments.keywords = FJ_NEW_ARRAY(e->arena, fj_value, room);
    for (size_t i = 0; i < x->keyword_count; i++) {
        if (x->keywords[i].name.len > 0)
            push_keyword(e, &arguments, x->keywords[i].name, given[i]);
        else
            spread_dict(e, &arguments, given[i].dict, x->keywords[i].place);
    }
    return arguments;
}

static fj_arguments join_arguments(fj_elab *e, const fj_arguments *first, const fj_arguments *second) {
    fj_arguments joined = {.count = first->count + second->count};
    joined.values = FJ_NEW_ARRAY(e->arena, fj_value, joined.count);
    for (size_t i = 0; i < joined.count; i++) {
        joined.values[i] = i < first->count ? first->values[i] : second->values[i - first->count];
    }
    joined.names = FJ_NEW_ARRAY(e->arena, fj_str, first->keyword_count + second->keyword_count);
    joined.keywords = FJ_NEW_ARRAY(e->arena, fj_value, first->keyword_count + second->keyword_count);
    for (size_t i = 0; i < first->keyword_count; i++) {
        bool again = false; /* a later keyword wins over one of functools.partial */
        for (size_t j = 0; j < second->keyword_count; j++)
            again |= fj_str_equal(first->names[i], second->names[j]);
        if (!again) push_keyword(e, &joined, first->names[i], first->keywords[i]);
    }
    for (size_t i = 0; i < second->keyword_count; i++)
        push_keyword(e, &joined, second->names[i], second->keywords[i]);
    return joined;
}

/* ---- Binding arguments to parameters ------------------------------------------------------------------ */

typedef struct binding {
    const fj_closure *closure;
    const fj_arguments *arguments;
    fj_value *values; /* one per parameter */
    fj_place place;
} binding;

static fj_str function_name(const binding *b) { return b->closure->function->name; }

static void bind_positional(fj_elab *e, const binding *b) {
    const fj_function *function = b->closure->function;
    size_t at = 0, room = 0;
    for (size_t i = 0; i < function->parameter_count; i++) {
        const fj_parameter *parameter = &function->parameters[i];
        if (parameter->kind == FJ_PARAMETER_STAR && parameter->name.len > 0) {
            b->values[i] =
                fj_value_rest(e->arena, FJ_VALUE_TUPLE, b->arguments->values, at, b->arguments->count);
            at = b->arguments->count;
        } else if (parameter->kind == FJ_PARAMETER_PLAIN && !parameter->keyword_only) {
            room++;
            if (at < b->arguments->count) b->values[i] = b->arguments->values[at++];
        }
    }
    if (at < b->arguments->count) {
        const fj_str name = function_name(b);
        fj_elab_fail(e, b->place, "%.*s() takes %zu %s but %zu %s given", (int)name.len, name.data, room,
                     room == 1 ? "argument" : "arguments", b->arguments->count,
                     b->arguments->count == 1 ? "is" : "are");
    }
}

static void bind_keyword(fj_elab *e, const binding *b, fj_str keyword, fj_value value) {
    const fj_function *function = b->closure->function;
    const fj_str name = function_name(b);
    fj_suggestion suggestion = fj_suggest_begin(keyword);
    for (size_t i = 0; i < function->parameter_count; i++) {
        if (function->parameters[i].kind != FJ_PARAMETER_PLAIN) continue;
        fj_suggest(&suggestion, function->parameters[i].name);
        if (!fj_str_equal(function->parameters[i].name, keyword)) continue;
        if (b->values[i].kind != FJ_VALUE_UNSET) {
            fj_elab_fail(e, b->place, "%.*s() gets its argument '%.*s' twice", (int)name.len, name.data,
                         (int)keyword.len, keyword.data);
        }
        b->values[i] = value;
        return;
    }
    for (size_t i = 0; i < function->parameter_count; i++) {
        if (function->parameters[i].kind != FJ_PARAMETER_DOUBLE_STAR) continue;
        if (b->values[i].kind == FJ_VALUE_UNSET) b->values[i] = fj_dict_create(e);
        fj_dict_set(e, b->values[i].dict, fj_value_str(keyword), value, b->place);
        return;
    }
    fj_elab_fail(e, b->place, "%.*s() has no parameter '%.*s'%s", (int)name.len, name.data, (int)keyword.len,
                 keyword.data, fj_suggest_text(e, &suggestion));
}

static void bind_defaults(fj_elab *e, const binding *b) {
    const fj_function *function = b->closure->function;
    const fj_str name = function_name(b);
    for (size_t i = 0; i < function->parameter_count; i++) {
        const fj_parameter *parameter = &function->parameters[i];
        if (b->values[i].kind != FJ_VALUE_UNSET || parameter->name.len == 0) continue;
        if (parameter->kind == FJ_PARAMETER_DOUBLE_STAR) {
            b->values[i] = fj_dict_create(e);
            continue;
        }
        b->values[i] = b->closure->defaults[i];
        if (b->values[i].kind == FJ_VALUE_UNSET) {
            fj_elab_fail(e, b->place, "%.*s() needs an argument for its parameter '%.*s'", (int)name.len,
                         name.data, (int)parameter->name.len, parameter->name.data);
        }
    }
}

/* ---- Calls ------------------------------------------------------------------------------------------------ */

static void check_recursion(fj_elab *e, const fj_closure *closure, fj_place place) {
    const fj_str name = closure->function->name;
    for (const fj_active *active = e->active; active != NULL; active = active->outer) {
        if (active->closure->function == closure->function && active->closure->frame == closure->frame) {
            fj_elab_fail(e, place, "'%.*s' calls itself: the mod language has no recursion", (int)name.len,
                         name.data);
        }
    }
    if (e->calls >= FJ_ELAB_MAX_CALLS)
        fj_elab_fail(e, place, "calls are nested more than %d deep", FJ_ELAB_MAX_CALLS);
}

static fj_value call_function(fj_elab *e, const fj_closure *closure, const fj_arguments *arguments,
                              fj_place place) {
    const fj_function *function = closure->function;
    if (function->is_generator || function->is_async) {
        fj_elab_fail(e, place, "'%.*s' is a generator or a coroutine, which the mod language does not have",
                     (int)function->name.len, function->name.data);
    }
    check_recursion(e, closure, place);
    const binding b = {closure, arguments, FJ_NEW_ARRAY(e->arena, fj_value, function->parameter_count),
                       place};
    bind_positional(e, &b);
    for (size_t i = 0; i < arguments->keyword_count; i++)
        bind_keyword(e, &b, arguments->names[i], arguments->keywords[i]);
    bind_defaults(e, &b);

    fj_frame *outer = e->frame;
    fj_active active = {closure, e->active};
    e->frame = fj_frame_create(e, closure->frame, function->locals, function->local_count);
    e->active = &active;
    e->calls++;
    for (size_t i = 0; i < function->parameter_count; i++) {
        if (function->parameters[i].name.len == 0) continue;
        fj_names_assign(e, function->parameters[i].name, b.values[i], function->parameters[i].place);
    }
    fj_value value = FJ_NONE;
    (void)fj_elab_block(e, &function->body, &value);
    e->calls--;
    e->active = active.outer;
    e->frame = outer;
    return value;
}

fj_value fj_partial_create(fj_elab *e, fj_value callee, const fj_arguments *arguments) {
    fj_partial *partial = FJ_NEW(e->arena, fj_partial);
    partial->callee = callee;
    partial->arguments = *arguments;
    return (fj_value){.kind = FJ_VALUE_PARTIAL, .partial = partial};
}

/* What lies outside the language gives a tensor that the caller supplies, unless a mod needs it. */
static fj_value call_unknown(fj_elab *e, const fj_unknown *unknown, fj_place place) {
    if (e->in_mod) fj_elab_fail(e, place, "%s", unknown->why);
    fj_table *table = fj_table_create(e, place);
    table->why = unknown->why;
    return fj_capture_unnamed(e, table);
}

static _Noreturn void fail_tensor(fj_elab *e, const fj_lazy_tensor *tensor, fj_place place) {
    fj_capture_fail_broken(e, tensor, place);
    if (tensor->kind != FJ_TENSOR_CAPTURE || !tensor->table->free)
        fj_elab_fail(e, place, "a tensor cannot be called");
    const fj_str name = tensor->names->name;
    fj_elab_fail(e, place, "unknown function '%.*s': paste its definition into this file", (int)name.len,
                 name.data);
}

fj_value fj_elab_call(fj_elab *e, fj_value callee, const fj_arguments *arguments, fj_place place) {
    fj_elab_enter(e, place);
    fj_value value;
    switch (callee.kind) {
    case FJ_VALUE_FUNCTION: value = call_function(e, callee.function, arguments, place); break;
    case FJ_VALUE_BUILTIN: value = fj_builtin_call(e, callee.builtin, arguments, place); break;
    case FJ_VALUE_PARTIAL: {
        const fj_arguments joined = join_arguments(e, &callee.partial->arguments, arguments);
        value = fj_elab_call(e, callee.partial->callee, &joined, place);
        break;
    }
    case FJ_VALUE_CLASS: value = fj_class_call(e, callee.class, arguments, place); break;
    case FJ_VALUE_OBJECT: {
        const fj_value method = fj_callable(e, callee, place);
        if (method.kind == FJ_VALUE_OBJECT)
            fj_elab_fail(e, place, "an object without a __call__ in its class cannot be called");
        value = fj_elab_call(e, method, arguments, place);
        break;
    }
    case FJ_VALUE_UNKNOWN: value = call_unknown(e, callee.unknown, place); break;
    case FJ_VALUE_TENSOR:
        if (fj_is_opaque(callee) && !e->in_mod) {
            value = callee;
            break;
        }
        fail_tensor(e, callee.tensor, place);
    default: fj_elab_fail(e, place, "%s cannot be called", fj_value_describe(callee));
    }
    fj_elab_leave(e);
    return value;
}

fj_value fj_elab_call_values(fj_elab *e, fj_value callee, const fj_value *values, size_t count,
                             fj_place place) {
    const fj_arguments arguments = {.values = FJ_NEW_ARRAY(e->arena, fj_value, count), .count = count};
    for (size_t i = 0; i < count; i++) arguments.values[i] = values[i];
    return fj_elab_call(e, callee, &arguments, place);
}

fj_value fj_elab_call_expr(fj_elab *e, const fj_expr *x) {
    const fj_value callee = fj_elab_expr(e, x->left);
    const fj_arguments arguments = evaluate_arguments(e, x);
    return fj_elab_call(e, callee, &arguments, x->place);
}
