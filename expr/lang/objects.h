/* Private to expr/lang: dicts, lists that grow, classes and their objects, at compile time.
 *
 * They hold configurations and the state of callable classes. What they hold may be of the kernel: an
 * attribute that is a tensor is a captured tensor of that name.
 */
#ifndef FJ_EXPR_LANG_OBJECTS_H
#define FJ_EXPR_LANG_OBJECTS_H

#include "expr/lang/elaborate.h"

/* ---- Dicts and lists ----------------------------------------------------------------------------- */

fj_value fj_dict_create(fj_elab *e);
/* Keys are constants. False: it is not there. */
bool fj_dict_find(fj_elab *e, const fj_dict *dict, fj_value key, fj_place place, fj_value *ret_value);
void fj_dict_set(fj_elab *e, fj_dict *dict, fj_value key, fj_value value, fj_place place);
/* The keys, as a list. */
fj_value fj_dict_keys(fj_elab *e, const fj_dict *dict);
/* Inserts before the index, at most the length. A list that is an item of another does not change. */
void fj_list_insert(fj_elab *e, fj_value list, size_t index, fj_value item, fj_place place);
/* x[key] = value, of a list or a dict. */
void fj_item_set(fj_elab *e, fj_value object, fj_value key, fj_value value, fj_place place);

/* ---- Objects --------------------------------------------------------------------------------------- */

/* False: there is no such attribute. */
bool fj_object_find(fj_elab *e, fj_value object, fj_str name, fj_place place, fj_value *ret_value);
void fj_object_set(fj_elab *e, fj_value object, fj_str name, fj_value value, fj_place place);
/* A new namespace. */
fj_value fj_namespace_create(fj_elab *e);
/* super().name of the method that is running. */
fj_value fj_super_find(fj_elab *e, fj_str name, fj_place place);
/* A function for an object that can be called: its __call__, or the forward of a module; others as they are. */
fj_value fj_callable(fj_elab *e, fj_value value, fj_place place);
bool fj_is_instance(fj_value object, const fj_class *class);

/* ---- Classes --------------------------------------------------------------------------------------- */

fj_value fj_class_define(fj_elab *e, const fj_stmt *stmt);
bool fj_class_find(fj_elab *e, fj_class *class, fj_str name, fj_place place, fj_value *ret_value);
fj_value fj_class_call(fj_elab *e, fj_class *class, const fj_arguments *arguments, fj_place place);

#endif
