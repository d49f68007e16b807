/* Private to expr/lang: what the text of a file says of its functions, without evaluating it. */
#ifndef FJ_EXPR_LANG_USES_H
#define FJ_EXPR_LANG_USES_H

#include "expr/lang/elaborate.h"

/* Whether the module-level function `name` is used in the module, and only as what is called or what
 * functools.partial takes: such a function is a helper. */
bool fj_uses_is_helper(fj_elab *e, fj_str name);
/* "'mask_mod' (line 3), a lambda (line 8)": functions of four or five parameters anywhere in the file,
 * in classes and functions too; "" when there are none (arena). */
const char *fj_uses_list_functions(fj_elab *e);

#endif
