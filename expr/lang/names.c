/* Frames, lookup, assignment. */
#include <string.h>

#include "expr/lang/builtins.h"
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/names.h"
#include "expr/lang/objects.h"
#include "expr/lang/tensor.h"

/* ---- Frames and lookup --------------------------------------------------------------------------------- */

fj_frame *fj_frame_create(fj_elab *e, fj_frame *parent, const fj_str *names, size_t count) {
    fj_frame *frame = FJ_NEW(e->arena, fj_frame);
    *frame = (fj_frame){.parent = parent, .names = names, .count = count};
    frame->values = FJ_NEW_ARRAY(e->arena, fj_value, count);
    return frame;
}

static fj_value *find_local(fj_elab *e, fj_frame *frame, fj_str name, fj_place place) {
    fj_elab_step(e, place, frame->count / 16);
    for (size_t i = 0; i < frame->count; i++) {
        if (fj_str_equal(frame->names[i], name)) return &frame->values[i];
    }
    return NULL;
}

/* The nearest of the names of the source. */
static fj_suggestion nearest_name(fj_elab *e, fj_str name, fj_place place) {
    fj_elab_step(e, place, e->globals.len);
    fj_suggestion suggestion = fj_suggest_begin(name);
    for (const fj_frame *frame = e->frame; frame != NULL; frame = frame->parent) {
        for (size_t i = 0; i < frame->count; i++) fj_suggest(&suggestion, frame->names[i]);
    }
    for (size_t i = 0; i < e->globals.len; i++) fj_suggest(&suggestion, e->globals.data[i]->name);
    return suggestion;
}

static _Noreturn void fail_unknown(fj_elab *e, fj_str name, fj_place place) {
    fj_suggestion suggestion = nearest_name(e, name, place);
    for (size_t i = 0; i < e->desc->binding_count; i++)
        fj_suggest(&suggestion, fj_str_from(e->desc->bindings[i].name));
    fj_builtin_suggest(&suggestion, FJ_IN_BARE | FJ_IN_PYTHON);
    const char *ending = fj_suggest_text(e, &suggestion);
    const char *file = place.source->name;
    if (strcmp(file, "<score-mod>") == 0 || strcmp(file, "<mask-mod>") == 0) {
        fj_elab_fail_name(e, place, NULL, "unknown name '%.*s'%s", (int)name.len, name.data, ending);
    }
    const char *note =
        *ending == '\0' ? "a captured tensor needs a tensor of this name from the caller" : NULL;
    fj_elab_fail_note(e, place, note, "unknown name '%.*s'%s", (int)name.len, name.data, ending);
}

/* Whether a name looks like a misspelt one, though it could be a tensor that is bound later. */
static bool is_near_miss(fj_elab *e, fj_str name, fj_place place) {
    return nearest_name(e, name, place).best.data != NULL;
}

static fj_value lookup_builtin(fj_elab *e, fj_str name, fj_place place) {
    const fj_builtin *builtin = fj_builtin_find(name, FJ_IN_PYTHON);
    if (builtin != NULL) return fj_builtin_value(builtin);
    if (fj_str_is(name, "__name__")) return fj_value_str(FJ_STR("mod"));
    if (fj_capture_binding(e, name) != NULL) return fj_capture_free(e, name, place);
    if (fj_str_is(name, "torch") || fj_str_is(name, "math")) {
        return (fj_value){.kind = FJ_VALUE_MODULE, .str = name};
    }
    if (fj_str_is(name, "F"))
        return (fj_value){.kind = FJ_VALUE_MODULE, .str = FJ_STR("torch.nn.functional")};
    if (fj_str_is(name, "inf")) return fj_value_float(__builtin_inf());
    if (fj_str_is(name, "nan")) return fj_value_float(__builtin_nan(""));
    if (fj_str_is(name, "pi")) return fj_value_float(3.14159265358979323846);
    builtin = fj_builtin_find(name, FJ_IN_BARE | FJ_IN_FLEX);
    if (builtin != NULL) return fj_builtin_value(builtin);
    if (e->desc->bindings_open && !is_near_miss(e, name, place)) return fj_capture_free(e, name, place);
    fail_unknown(e, name, place);
}

fj_value fj_names_lookup(fj_elab *e, fj_str name, fj_place place) {
    fj_elab_step(e, place, 1);
    for (fj_frame *frame = e->frame; frame != NULL; frame = frame->parent) {
        const fj_value *local = find_local(e, frame, name, place);
        if (local == NULL || (frame->is_class && (frame != e->frame || local->kind == FJ_VALUE_UNSET)))
            continue;
        if (local->kind == FJ_VALUE_UNSET) {
            fj_elab_fail(e, place, "'%.*s' is read before it is assigned", (int)name.len, name.data);
        }
        return *local;
    }
    fj_value value;
    if (fj_names_module_value(e, name, place, &value)) return value;
    return lookup_builtin(e, name, place);
}

/* ---- Assignment ------------------------------------------------------------------------------------------- */

void fj_names_assign(fj_elab *e, fj_str name, fj_value value, fj_place place) {
    fj_value *local = e->frame == NULL ? NULL : find_local(e, e->frame, name, place);
    if (local == NULL) fj_elab_fail(e, place, "'%.*s' cannot be assigned here", (int)name.len, name.data);
    *local = e->in_mod ? value : fj_capture_name(e, value, name, false, place);
}

static void set_local(fj_elab *e, void *user, fj_str name, fj_value value, fj_place place) {
    (void)user;
    fj_names_assign(e, name, value, place);
}

void fj_names_assign_target(fj_elab *e, const fj_expr *target, fj_value value) {
    fj_names_unpack(e, target, value, set_local, NULL);
}

static void unpack_items(fj_elab *e, const fj_expr *target, const fj_sequence *from, fj_names_setter set,
                         void *user) {
    size_t star = target->items.len;
    for (size_t i = 0; i < target->items.len; i++) {
        if (target->items.data[i]->kind == FJ_EXPR_STARRED) star = i;
    }
    const bool has_star = star < target->items.len;
    const size_t least = target->items.len - has_star;
    if (has_star ? from->len < least : from->len != least) {
        fj_elab_fail(e, target->place, "%zu values cannot be unpacked into %zu names", from->len,
                     target->items.len);
    }
    for (size_t i = 0, at = 0; i < target->items.len; i++) {
        if (i == star) {
            const size_t count = from->len - least;
            const fj_value rest = fj_value_rest(e->arena, FJ_VALUE_LIST, from->items, at, at + count);
            fj_names_unpack(e, target->items.data[i]->left, rest, set, user);
            at += count;
        } else {
            fj_names_unpack(e, target->items.data[i], from->items[at++], set, user);
        }
    }
}

static void assign_attribute(fj_elab *e, const fj_expr *target, fj_value value) {
    const fj_value object = fj_elab_expr(e, target->left);
    if (object.kind == FJ_VALUE_OBJECT || object.kind == FJ_VALUE_CLASS) {
        fj_object_set(e, object, target->text, value, target->place);
    } else if (e->frame != NULL) { /* at module level: see fj_global.mutation */
        fj_elab_fail(e, target->place, "attributes of %s cannot be assigned in the mod language",
                     fj_value_describe(object));
    }
}

/* Of a list or a dict. */
static bool assign_item(fj_elab *e, const fj_expr *target, fj_value value) {
    const fj_value object = fj_elab_expr(e, target->left);
    if (object.kind != FJ_VALUE_LIST && object.kind != FJ_VALUE_DICT) return false;
    if (target->items.len != 1 || target->items.data[0]->kind == FJ_EXPR_SLICE)
        fj_elab_fail(e, target->place, "one item at a time is assigned in the mod language");
    fj_item_set(e, object, fj_elab_expr(e, target->items.data[0]), value, target->place);
    return true;
}

void fj_names_unpack(fj_elab *e, const fj_expr *target, fj_value value, fj_names_setter set, void *user) {
    fj_value opaque;
    fj_elab_enter(e, target->place);
    switch (target->kind) {
    case FJ_EXPR_NAME: set(e, user, target->text, value, target->place); break;
    case FJ_EXPR_TUPLE:
    case FJ_EXPR_LIST:
        if (fj_gives_opaque(e, value, &opaque)) { /* several tensors at once */
            for (size_t i = 0; i < target->items.len; i++) {
                fj_table *table = fj_table_create(e, target->place);
                table->error = opaque.tensor->table->error;
                table->why = opaque.tensor->table->why;
                fj_names_unpack(e, target->items.data[i], fj_capture_unnamed(e, table), set, user);
            }
        } else {
            const fj_sequence from = fj_elab_iterate(e, value, target->place);
            unpack_items(e, target, &from, set, user);
        }
        break;
    case FJ_EXPR_ATTRIBUTE:
        if (fj_str_is(target->text, "__name__") || fj_str_is(target->text, "__doc__")) break;
        assign_attribute(e, target, value);
        break;
    case FJ_EXPR_SUBSCRIPT:
        if (assign_item(e, target, value)) break;
        if (e->frame == NULL) break; /* at module level: see fj_global.mutation */
        fj_elab_fail(e, target->place,
                     "elements cannot be assigned in the mod language: make a new value, "
                     "for instance with torch.where");
    default: fj_elab_fail(e, target->place, "this cannot be assigned");
    }
    fj_elab_leave(e);
}

/* ---- Attempts -------------------------------------------------------------------------------------------- */

typedef struct evaluation {
    const fj_expr *expression;
    fj_value value;
    bool constant;
} evaluation;

static void evaluate(fj_elab *e, void *user) {
    evaluation *it = user;
    it->value = fj_elab_expr(e, it->expression);
}

/* Operators on constants, and displays of them: what gives no tensor. */
static bool is_arithmetic(fj_elab *e, const fj_expr *x) {
    switch (x->kind) {
    case FJ_EXPR_NUMBER_INT:
    case FJ_EXPR_NUMBER_FLOAT: return true;
    case FJ_EXPR_UNSUPPORTED: { /* a number that the language does not have */
        const char first = x->place.source->text.data[x->place.offset];
        return first == '.' || (first >= '0' && first <= '9');
    }
    case FJ_EXPR_NAME: return fj_value_is_number(fj_elab_expr(e, x));
    case FJ_EXPR_UNARY: return is_arithmetic(e, x->left);
    case FJ_EXPR_BINARY: return is_arithmetic(e, x->left) && is_arithmetic(e, x->right);
    case FJ_EXPR_TUPLE:
    case FJ_EXPR_LIST:
        for (size_t i = 0; i < x->items.len; i++) {
            if (!is_arithmetic(e, x->items.data[i])) return false;
        }
        return true;
    default: return false;
    }
}

static void judge(fj_elab *e, void *user) {
    evaluation *it = user;
    it->constant = is_arithmetic(e, it->expression);
}

fj_value fj_names_attempt(fj_elab *e, const fj_expr *expression) {
    if (e->in_mod) return fj_elab_expr(e, expression);
    evaluation it = {expression, FJ_NONE, false};
    const fj_error *error = fj_elab_try(e, evaluate, &it);
    if (error == NULL) return it.value;
    fj_table *table = fj_table_create(e, expression->place);
    table->error = error;
    (void)fj_elab_try(e, judge, &it);
    table->constant = it.constant;
    return fj_capture_unnamed(e, table);
}

bool fj_names_assign_parallel(fj_elab *e, const fj_stmt *stmt, fj_names_setter set, void *user) {
    const fj_expr *value = stmt->value;
    const bool displays =
        value->kind == FJ_EXPR_TUPLE && stmt->kind == FJ_STMT_ASSIGN && stmt->targets.len == 1;
    const fj_expr *target = displays ? stmt->targets.data[0] : NULL;
    if (!displays || (target->kind != FJ_EXPR_TUPLE && target->kind != FJ_EXPR_LIST) ||
        target->items.len != value->items.len)
        return false;
    for (size_t i = 0; i < value->items.len; i++) {
        if (value->items.data[i]->kind == FJ_EXPR_STARRED || target->items.data[i]->kind == FJ_EXPR_STARRED)
            return false;
    }
    fj_value *values = FJ_NEW_ARRAY(e->arena, fj_value, value->items.len);
    for (size_t i = 0; i < value->items.len; i++) values[i] = fj_names_attempt(e, value->items.data[i]);
    for (size_t i = 0; i < value->items.len; i++)
        fj_names_unpack(e, target->items.data[i], values[i], set, user);
    return true;
}

bool fj_names_assign_parallel_local(fj_elab *e, const fj_stmt *stmt) {
    return fj_names_assign_parallel(e, stmt, set_local, NULL);
}
