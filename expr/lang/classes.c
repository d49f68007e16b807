/* Class statements, and what calling a class makes: see objects.h. */
#include "expr/lang/builtins.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/names.h"
#include "expr/lang/objects.h"
#include "expr/lang/tensor.h"

#include <string.h>

/* ---- Definition ------------------------------------------------------------------------------------------ */

static bool ends_with(const char *name, const char *ending) {
    const size_t len = strlen(name), tail = strlen(ending);
    return len >= tail && strcmp(name + len - tail, ending) == 0;
}

/* Decorators of a class that change nothing but how it is called. */
static void read_decorators(fj_elab *e, fj_class *class) {
    static const char *const neutral[] = {"final",  "total_ordering",    "script",     "compile",
                                          "unique", "runtime_checkable", "deprecated", "jit"};
    const fj_expr_list *decorators = &class->function->decorators;
    for (size_t i = 0; i < decorators->len; i++) {
        const fj_expr *decorator = decorators->data[i];
        while (decorator->kind == FJ_EXPR_CALL) decorator = decorator->left;
        bool known = false;
        const bool named = decorator->kind == FJ_EXPR_NAME || decorator->kind == FJ_EXPR_ATTRIBUTE;
        if (named && fj_str_is(decorator->text, "dataclass")) known = class->is_data = true;
        for (size_t k = 0; named && k < FJ_ARRAY_LEN(neutral); k++)
            known |= fj_str_is(decorator->text, neutral[k]);
        if (!known)
            fj_elab_fail(e, decorator->place,
                         "this decorator of a class is not in the mod language: 'dataclass' is");
    }
}

static void add_field(fj_elab *e, fj_class *class, fj_str name) {
    for (size_t i = 0; i < class->fields.len; i++) {
        if (fj_str_equal(class->fields.data[i], name)) return;
    }
    FJ_PUSH(e->arena, &class->fields, name);
}

static void read_bases(fj_elab *e, const fj_stmt *stmt, fj_class *class) {
    class->bases = FJ_NEW_ARRAY(e->arena, fj_value, stmt->targets.len);
    for (size_t i = 0; i < stmt->targets.len; i++) {
        const fj_value base = fj_names_attempt(e, stmt->targets.data[i]);
        class->bases[class->base_count++] = base;
        if (base.kind == FJ_VALUE_UNKNOWN && ends_with(base.unknown->name, "NamedTuple"))
            class->is_data = true;
        if (base.kind != FJ_VALUE_CLASS) continue;
        class->is_data |= base.class->is_data;
        fj_elab_step(e, stmt->place, 1 + base.class->fields.len);
        for (size_t k = 0; k < base.class->fields.len; k++) add_field(e, class, base.class->fields.data[k]);
    }
}

typedef struct definition {
    const fj_stmt *stmt;
} definition;

static void define_one(fj_elab *e, void *user) {
    const definition *d = user;
    const fj_stmt_list one = {(fj_stmt **)(uintptr_t)&d->stmt, 1};
    fj_value ignored = FJ_NONE;
    (void)fj_elab_block(e, &one, &ignored);
}

/* A statement of the body; what cannot be understood is said when it is used. */
static void run_member(fj_elab *e, fj_class *class, const fj_stmt *stmt) {
    definition d = {stmt};
    const bool is_def = stmt->kind == FJ_STMT_DEF;
    if (stmt->kind == FJ_STMT_EXPRESSION || stmt->kind == FJ_STMT_PASS) return;
    const bool field = stmt->kind == FJ_STMT_ANNOTATION || stmt->annotated;
    if (field && stmt->targets.data[0]->kind == FJ_EXPR_NAME)
        add_field(e, class, stmt->targets.data[0]->text);
    if (stmt->kind == FJ_STMT_ANNOTATION) return;
    for (size_t i = 0; is_def && i < stmt->function->decorators.len; i++) {
        const fj_expr *decorator = stmt->function->decorators.data[i];
        if (decorator->kind == FJ_EXPR_ATTRIBUTE &&
            (fj_str_is(decorator->text, "setter") || fj_str_is(decorator->text, "deleter")))
            return;
    }
    const fj_error *error = fj_elab_try(e, define_one, &d);
    if (error == NULL) return;
    const char *why = fj_arena_strdup(e->arena, fj_str_from(error->text));
    if (is_def)
        fj_names_assign(e, stmt->function->name, fj_value_unknown(e->arena, "a method", why), stmt->place);
    for (size_t i = 0; i < stmt->bind_count; i++)
        fj_names_assign(e, stmt->binds[i], fj_value_unknown(e->arena, "a member", why), stmt->place);
}

fj_value fj_class_define(fj_elab *e, const fj_stmt *stmt) {
    fj_class *class = FJ_NEW(e->arena, fj_class);
    const fj_function *function = class->function = stmt->function;
    read_bases(e, stmt, class);
    read_decorators(e, class);
    fj_frame *outer = e->frame;
    fj_class *outer_class = e->class;
    e->frame = fj_frame_create(e, outer, function->locals, function->local_count);
    e->frame->is_class = true;
    e->class = class;
    for (size_t i = 0; i < function->body.len; i++) run_member(e, class, function->body.data[i]);
    for (size_t i = 0; i < e->frame->count; i++) {
        if (e->frame->values[i].kind == FJ_VALUE_UNSET) continue;
        FJ_PUSH(e->arena, &class->members.items, (fj_member){e->frame->names[i], e->frame->values[i]});
    }
    e->frame = outer;
    e->class = outer_class;
    return (fj_value){.kind = FJ_VALUE_CLASS, .class = class};
}

/* ---- Objects ------------------------------------------------------------------------------------------------ */

static bool set_field(fj_elab *e, fj_class *class, fj_value object, fj_str name, fj_value value,
                      fj_place place) {
    for (size_t i = 0; i < class->fields.len; i++) {
        if (!fj_str_equal(class->fields.data[i], name)) continue;
        fj_object_set(e, object, name, value, place);
        return true;
    }
    return false;
}

/* The arguments of a dataclass are its fields, in order; what is not given has a default in the class. */
static void fill_fields(fj_elab *e, fj_class *class, fj_value object, const fj_arguments *given,
                        fj_place place) {
    const fj_str name = class->function->name;
    if (given->count > class->fields.len)
        fj_elab_fail(e, place, "%.*s() takes %zu arguments but %zu are given", (int)name.len, name.data,
                     class->fields.len, given->count);
    for (size_t i = 0; i < given->count; i++)
        fj_object_set(e, object, class->fields.data[i], given->values[i], place);
    for (size_t i = 0; i < given->keyword_count; i++) {
        if (!set_field(e, class, object, given->names[i], given->keywords[i], place))
            fj_elab_fail(e, place, "%.*s() has no parameter '%.*s'", (int)name.len, name.data,
                         (int)given->names[i].len, given->names[i].data);
    }
    for (size_t i = 0; i < class->fields.len; i++) {
        fj_value value;
        const fj_str field = class->fields.data[i];
        if (!fj_object_find(e, object, field, place, &value))
            fj_elab_fail(e, place, "%.*s() needs an argument for its parameter '%.*s'", (int)name.len,
                         name.data, (int)field.len, field.data);
    }
}

fj_value fj_class_call(fj_elab *e, fj_class *class, const fj_arguments *arguments, fj_place place) {
    fj_value object = fj_namespace_create(e), init;
    object.object->class = class;
    const fj_str name = class->function->name;
    if (class->is_data) {
        fill_fields(e, class, object, arguments, place);
        if (fj_object_find(e, object, FJ_STR("__post_init__"), place, &init))
            (void)fj_elab_call_values(e, init, NULL, 0, place);
    } else if (fj_object_find(e, object, FJ_STR("__init__"), place, &init)) {
        (void)fj_elab_call(e, init, arguments, place);
    } else if (arguments->count + arguments->keyword_count > 0) {
        fj_elab_fail(e, place, "%.*s() takes no arguments: the class has no __init__", (int)name.len,
                     name.data);
    }
    return object;
}
