/* Requirements on what only a call knows: see require.h. */
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

#include <string.h>

/* The dimensions that are known while the mod is made. */
static fj_extents known_dims(fj_elab *e) {
    const size_t count = e->ir->captures.len * FJ_MAX_RANK;
    int64_t *dims = FJ_NEW_ARRAY(e->arena, int64_t, count + 1);
    for (size_t i = 0; i < count; i++) dims[i] = -1;
    for (size_t i = 0; i < e->captured.len; i++) {
        const fj_captured *captured = &e->captured.data[i];
        if (captured->index >= 0)
            memcpy(dims + captured->index * FJ_MAX_RANK, captured->dims, sizeof captured->dims);
    }
    return (fj_extents){dims, FJ_MAX_RANK};
}

bool fj_default_value(fj_elab *e, fj_value value, int64_t *ret_value) {
    fj_uniform uniform;
    if (value.kind == FJ_VALUE_INT) {
        *ret_value = value.i;
        return true;
    }
    if (value.kind != FJ_VALUE_SCALAR || !value.weak || value.type != FJ_TYPE_I64) return false;
    return fj_uniform_compile(e->ir, value.ref, e->arena, &uniform) &&
           fj_uniform_value(&uniform, e->ir, NULL, known_dims(e), ret_value);
}

static bool is_there(const fj_elab *e, fj_require_kind kind, fj_ref a, fj_ref b) {
    const size_t len = e->required.len;
    for (size_t i = len > 256 ? len - 256 : 0; i < len; i++) {
        const fj_required *r = &e->required.data[i];
        if (r->kind == kind && r->a == a && r->b == b) return true;
    }
    return false;
}

void fj_require(fj_elab *e, fj_require_kind kind, fj_ref a, fj_ref b, fj_place place) {
    fj_requirement r = {.kind = kind, .place = place};
    if (is_there(e, kind, a, b)) return;
    if (!fj_uniform_compile(e->ir, a, e->arena, &r.a)) return;
    if (b != 0 && !fj_uniform_compile(e->ir, b, e->arena, &r.b)) return;
    r.name = fj_runtime_name(e, a);
    if (*r.name == '\0' && b != 0) r.name = fj_runtime_name(e, b);
    FJ_PUSH(e->arena, &e->required, (fj_required){kind, a, b});
    FJ_PUSH(e->arena, &e->requirements, r);
    const fj_requirements one = {&r, 1};
    fj_error *error = FJ_NEW(e->arena, fj_error);
    if (fj_requirements_check(&one, e->ir, NULL, known_dims(e), error) == FJ_OK) return;
    error->status = FJ_ERR_MOD;
    fj_elab_fail_again(e, error);
}

void fj_require_extent(fj_elab *e, fj_value dim, fj_value of, fj_place place) {
    if (dim.kind == FJ_VALUE_INT && (dim.i == 1 || (of.kind == FJ_VALUE_INT && of.i == dim.i))) return;
    const bool known = dim.kind == FJ_VALUE_SCALAR && dim.known != NULL && dim.known->kind == FJ_VALUE_INT;
    const bool broadcast = known && dim.known->i == 1 && !(of.kind == FJ_VALUE_SCALAR && of.ref == dim.ref);
    int64_t extent = 0;
    if (broadcast && fj_known_dim(of, &extent) && extent != 1) return; /* fixed: it joins the kernel's key */
    const fj_ref a = fj_dim_ref(e, dim, place), b = fj_dim_ref(e, of, place);
    if (a != b) fj_require(e, FJ_REQUIRE_EQUAL, a, b, place);
}
