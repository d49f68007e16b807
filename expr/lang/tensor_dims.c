/* Dimensions of small tensors: known, or values of a launch. */
#include "expr/lang/capture.h"
#include "expr/lang/elaborate.h"
#include "expr/lang/operate.h"
#include "expr/lang/tensor.h"

fj_ref fj_dim_ref(fj_elab *e, fj_value dim, fj_place place) { return fj_to_ref(e, dim, FJ_TYPE_I64, place); }

bool fj_known_dim(fj_value dim, int64_t *ret_value) {
    const fj_value known = dim.kind == FJ_VALUE_SCALAR && dim.known != NULL ? *dim.known : dim;
    if (known.kind != FJ_VALUE_INT) return false;
    *ret_value = known.i;
    return true;
}

static fj_value dim_pick(fj_elab *e, fj_op op, fj_value a, fj_value b, fj_place place) {
    return fj_pointwise(e, op, FJ_TYPE_I64, (fj_value[]){a, b}, 2, place);
}

fj_value fj_dim_min(fj_elab *e, fj_value a, fj_value b, fj_place place) {
    return dim_pick(e, FJ_OP_MINIMUM, a, b, place);
}
fj_value fj_dim_max(fj_elab *e, fj_value a, fj_value b, fj_place place) {
    return dim_pick(e, FJ_OP_MAXIMUM, a, b, place);
}

bool fj_dim_is_one(fj_value dim) { return dim.kind == FJ_VALUE_INT && dim.i == 1; }

fj_value fj_dim_join(fj_elab *e, fj_value a, fj_value b, fj_place place) {
    int64_t x, y;
    if (fj_dim_is_one(a)) return b;
    if (fj_dim_is_one(b)) return a;
    if (!fj_known_dim(a, &x) || !fj_known_dim(b, &y) || x == y) return b.kind == FJ_VALUE_INT ? b : a;
    const fj_value one = x == 1 ? a : b;
    if (x != 1 && y != 1) {
        fj_elab_fail(e, place, "dimensions of %lld and %lld do not fit together", (long long)x, (long long)y);
    }
    if (one.kind == FJ_VALUE_SCALAR) fj_capture_specialise(e, one.ref);
    return x == 1 ? b : a;
}

fj_ref fj_dim_index(fj_elab *e, fj_value dim, fj_value of, fj_ref index) {
    int64_t x, y;
    const bool known_one = fj_known_dim(dim, &x) && x == 1 && fj_known_dim(of, &y) && y != 1;
    return fj_dim_is_one(dim) || known_one ? fj_ir_i32(e->ir, 0) : index;
}

int fj_tensor_axis(fj_elab *e, fj_value axis, int rank, fj_place place) {
    const int64_t given = fj_elab_int(e, axis, place, "dim");
    const int64_t limit = rank > 0 ? rank : 1;
    if (given < -limit || given >= limit) {
        fj_elab_fail(e, place, "dim %lld is outside of a tensor of rank %d", (long long)given, rank);
    }
    return (int)(given < 0 ? given + limit : given);
}
