/* Index expressions and views. */
#include "fuse/index.h"

#include <string.h>

void fj_indices_init(fj_indices *x, fj_sizes *sizes, fj_arena *arena) {
    *x = (fj_indices){.arena = arena, .sizes = sizes};
}

/* ---- The tables -------------------------------------------------------------------------- */

static fj_index intern(fj_indices *x, const fj_index_sum *sum) {
    for (size_t i = 0; i < x->sums.len; i++) {
        const fj_index_sum *other = &x->sums.data[i];
        if (other->base == sum->base && other->count == sum->count &&
            memcmp(other->atoms, sum->atoms, sizeof sum->atoms[0] * (size_t)sum->count) == 0 &&
            memcmp(other->coefs, sum->coefs, sizeof sum->coefs[0] * (size_t)sum->count) == 0)
            return (fj_index)i;
    }
    FJ_PUSH(x->arena, &x->sums, *sum);
    return (fj_index)x->sums.len - 1;
}

static fj_index of_atom(fj_indices *x, fj_index_atom atom) {
    size_t at = 0;
    while (at < x->atoms.len && !(x->atoms.data[at].kind == atom.kind && x->atoms.data[at].var == atom.var &&
                                  x->atoms.data[at].of == atom.of && x->atoms.data[at].by == atom.by &&
                                  x->atoms.data[at].extent == atom.extent))
        at++;
    if (at == x->atoms.len) FJ_PUSH(x->arena, &x->atoms, atom);
    const fj_index_sum sum = {
        .base = fj_size_of(x->sizes, 0), .count = 1, .atoms = {(int)at}, .coefs = {fj_size_of(x->sizes, 1)}};
    return intern(x, &sum);
}

fj_index fj_index_var(fj_indices *x, int var, fj_size extent) {
    if (fj_size_is(x->sizes, extent, 1)) return fj_index_size(x, fj_size_of(x->sizes, 0));
    return of_atom(x, (fj_index_atom){.kind = FJ_ATOM_VAR, .var = var, .of = -1, .by = -1, .extent = extent});
}

fj_index fj_index_size(fj_indices *x, fj_size size) {
    const fj_index_sum sum = {.base = size};
    return intern(x, &sum);
}

/* ---- Arithmetic -------------------------------------------------------------------------- */

static void add_term(fj_indices *x, fj_index_sum *sum, int atom, fj_size coef) {
    int at = 0;
    while (at < sum->count && sum->atoms[at] < atom) at++;
    if (at < sum->count && sum->atoms[at] == atom) {
        sum->coefs[at] = fj_size_add(x->sizes, sum->coefs[at], coef);
        if (!fj_size_is(x->sizes, sum->coefs[at], 0)) return;
        for (int i = at + 1; i < sum->count; i++)
            sum->atoms[i - 1] = sum->atoms[i], sum->coefs[i - 1] = sum->coefs[i];
        sum->count--;
        return;
    }
    if (fj_size_is(x->sizes, coef, 0)) return;
    if (sum->count == FJ_INDEX_TERMS)
        fj_fail(x->arena->scope, FJ_ERR_TENSOR, "an index has more than %d terms", FJ_INDEX_TERMS);
    for (int i = sum->count; i > at; i--)
        sum->atoms[i] = sum->atoms[i - 1], sum->coefs[i] = sum->coefs[i - 1];
    sum->atoms[at] = atom;
    sum->coefs[at] = coef;
    sum->count++;
}

fj_index fj_index_add(fj_indices *x, fj_index a, fj_index b) {
    fj_index_sum sum = x->sums.data[a];
    const fj_index_sum other = x->sums.data[b];
    sum.base = fj_size_add(x->sizes, sum.base, other.base);
    for (int i = 0; i < other.count; i++) add_term(x, &sum, other.atoms[i], other.coefs[i]);
    return intern(x, &sum);
}

fj_index fj_index_scale(fj_indices *x, fj_index a, fj_size by) {
    const fj_index_sum old = x->sums.data[a];
    fj_index_sum sum = {.base = fj_size_mul(x->sizes, old.base, by)};
    for (int i = 0; i < old.count; i++)
        add_term(x, &sum, old.atoms[i], fj_size_mul(x->sizes, old.coefs[i], by));
    return intern(x, &sum);
}

/* What lies at or above everything that the sum may be, and whether it is at least 0. */
static bool bounds(fj_indices *x, const fj_index_sum *sum, fj_size *ret_most) {
    fj_size most = sum->base;
    if (!fj_size_at_least_0(x->sizes, sum->base)) return false;
    for (int i = 0; i < sum->count; i++) {
        if (!fj_size_at_least_0(x->sizes, sum->coefs[i]) || x->atoms.data[sum->atoms[i]].may_be_negative)
            return false;
        const fj_size last =
            fj_size_sub(x->sizes, x->atoms.data[sum->atoms[i]].extent, fj_size_of(x->sizes, 1));
        most = fj_size_add(x->sizes, most, fj_size_mul(x->sizes, sum->coefs[i], last));
    }
    *ret_most = most;
    return true;
}

/* a = whole * by + rest, with what is certain to be a multiple in whole. */
static void part(fj_indices *x, fj_index a, fj_size by, fj_index_sum *whole, fj_index_sum *rest) {
    const fj_index_sum sum = x->sums.data[a];
    fj_size quotient;
    int64_t base, divisor;
    const fj_size zero = fj_size_of(x->sizes, 0);
    *whole = (fj_index_sum){.base = zero};
    *rest = (fj_index_sum){.base = zero};
    if (fj_size_divide(x->sizes, sum.base, by, &quotient)) {
        whole->base = quotient;
    } else if (fj_size_is_const(x->sizes, sum.base, &base) && fj_size_is_const(x->sizes, by, &divisor) &&
               base >= 0 && divisor > 0) {
        whole->base = fj_size_of(x->sizes, base / divisor);
        rest->base = fj_size_of(x->sizes, base % divisor);
    } else {
        rest->base = sum.base;
    }
    for (int i = 0; i < sum.count; i++) {
        if (fj_size_divide(x->sizes, sum.coefs[i], by, &quotient))
            add_term(x, whole, sum.atoms[i], quotient);
        else
            add_term(x, rest, sum.atoms[i], sum.coefs[i]);
    }
}

/* Whether 0 <= rest < by. */
static bool is_below(fj_indices *x, const fj_index_sum *rest, fj_size by) {
    fj_size most;
    return bounds(x, rest, &most) &&
           fj_size_at_least_0(
               x->sizes, fj_size_sub(x->sizes, fj_size_sub(x->sizes, by, fj_size_of(x->sizes, 1)), most));
}

/* An extent for a quotient: (most + by) / by where it is a size, else most + 1. */
static fj_size quotient_extent(fj_indices *x, fj_size most, fj_size by) {
    fj_size extent;
    const fj_size next = fj_size_add(x->sizes, most, fj_size_of(x->sizes, 1));
    int64_t a, b;
    if (fj_size_divide(x->sizes, next, by, &extent)) return extent;
    if (fj_size_is_const(x->sizes, most, &a) && fj_size_is_const(x->sizes, by, &b) && b > 0)
        return fj_size_of(x->sizes, a / b + 1);
    return next;
}

fj_index fj_index_div(fj_indices *x, fj_index a, fj_size by) {
    fj_index_sum whole, rest;
    fj_size most;
    if (fj_size_is(x->sizes, by, 1)) return a;
    part(x, a, by, &whole, &rest);
    const fj_index quotient = intern(x, &whole);
    if (is_below(x, &rest, by)) return quotient;
    const bool negative = !bounds(x, &rest, &most);
    const fj_size extent = negative ? fj_size_of(x->sizes, 0) : quotient_extent(x, most, by);
    const fj_index inner = intern(x, &rest);
    return fj_index_add(x, quotient,
                        of_atom(x, (fj_index_atom){FJ_ATOM_DIV, -1, inner, by, extent, negative}));
}

fj_index fj_index_mod(fj_indices *x, fj_index a, fj_size by) {
    fj_index_sum whole, rest;
    if (fj_size_is(x->sizes, by, 1)) return fj_index_size(x, fj_size_of(x->sizes, 0));
    part(x, a, by, &whole, &rest);
    const fj_index inner = intern(x, &rest);
    if (is_below(x, &rest, by)) return inner;
    return of_atom(x, (fj_index_atom){FJ_ATOM_MOD, -1, inner, by, by, false});
}

/* ---- Questions --------------------------------------------------------------------------- */

bool fj_index_is_size(const fj_indices *x, fj_index a, fj_size *ret_size) {
    *ret_size = x->sums.data[a].base;
    return x->sums.data[a].count == 0;
}

int fj_index_is_var(const fj_indices *x, fj_index a) {
    const fj_index_sum *sum = &x->sums.data[a];
    if (sum->count != 1 || !fj_size_is(x->sizes, sum->base, 0) || !fj_size_is(x->sizes, sum->coefs[0], 1))
        return -1;
    const fj_index_atom *atom = &x->atoms.data[sum->atoms[0]];
    return atom->kind == FJ_ATOM_VAR ? atom->var : -1;
}

unsigned fj_index_vars(const fj_indices *x, fj_index a) {
    unsigned vars = 0;
    for (int i = 0; i < x->sums.data[a].count; i++) {
        const fj_index_atom *atom = &x->atoms.data[x->sums.data[a].atoms[i]];
        vars |= atom->kind == FJ_ATOM_VAR ? 1u << atom->var : fj_index_vars(x, atom->of);
    }
    return vars;
}

fj_index fj_index_replace(fj_indices *x, fj_index a, int var, fj_index by) {
    const fj_index_sum sum = x->sums.data[a];
    fj_index total = fj_index_size(x, sum.base);
    for (int i = 0; i < sum.count; i++) {
        const fj_index_atom atom = x->atoms.data[sum.atoms[i]];
        fj_index value;
        if (atom.kind == FJ_ATOM_VAR)
            value = atom.var == var ? by : of_atom(x, atom);
        else if (atom.kind == FJ_ATOM_DIV)
            value = fj_index_div(x, fj_index_replace(x, atom.of, var, by), atom.by);
        else
            value = fj_index_mod(x, fj_index_replace(x, atom.of, var, by), atom.by);
        total = fj_index_add(x, total, fj_index_scale(x, value, sum.coefs[i]));
    }
    return total;
}

/* ---- Views ------------------------------------------------------------------------------- */

/* Dimensions [i, ti) of `from` hold the same elements as [j, tj) of `to`, which are [first] to the last of these. */
static void regroup(fj_indices *x, const fj_value *from, int i, int ti, const fj_index *index,
                    const fj_value *to, int j, int tj, fj_index *ret) {
    fj_index linear = fj_index_size(x, fj_size_of(x->sizes, 0));
    for (int d = i; d < ti; d++) linear = fj_index_add(x, fj_index_scale(x, linear, from->dims[d]), index[d]);
    for (int d = tj; d-- > j;) {
        ret[d] = d == j ? linear : fj_index_mod(x, linear, to->dims[d]);
        linear = fj_index_div(x, linear, to->dims[d]);
    }
}

static fj_size span(fj_indices *x, const fj_value *value, int begin, int end) {
    fj_size count = fj_size_of(x->sizes, 1);
    for (int d = begin; d < end; d++) count = fj_size_mul(x->sizes, count, value->dims[d]);
    return count;
}

/* Groups of dimensions with equal products, each as small as can be; the last takes the rest. */
bool fj_index_reshape(fj_indices *x, const fj_value *from, const fj_index *index, const fj_value *to,
                      fj_index *ret) {
    int i = 0, j = 0;
    if (span(x, from, 0, from->rank) != span(x, to, 0, to->rank)) return false;
    while (i < from->rank || j < to->rank) {
        int bi = 0, bj = 0;
        for (int size = 2; size <= from->rank - i + to->rank - j && bi == 0; size++)
            for (int a = 1; a < size && bi == 0; a++)
                if (i + a <= from->rank && j + size - a <= to->rank &&
                    span(x, from, i, i + a) == span(x, to, j, j + size - a))
                    bi = a, bj = size - a;
        if (bi == 0) { /* ones that stand alone, on one side */
            for (; i < from->rank && fj_size_is(x->sizes, from->dims[i], 1); i++) {}
            for (; j < to->rank && fj_size_is(x->sizes, to->dims[j], 1); j++)
                ret[j] = fj_index_size(x, fj_size_of(x->sizes, 0));
            return i == from->rank && j == to->rank;
        }
        regroup(x, from, i, i + bi, index, to, j, j + bj, ret);
        i += bi, j += bj;
    }
    return true;
}

bool fj_index_view(fj_graph *graph, fj_indices *x, const fj_node *node, int output, const fj_index *index,
                   fj_index *ret) {
    fj_move moves[FJ_MAX_RANK];
    const fj_value *in = &graph->values.data[node->args[0].value],
                   *out = &graph->values.data[node->outputs[output]];
    if (!fj_view_moves(graph, node, output, moves)) return fj_index_reshape(x, out, index, in, ret);
    /* A symbol that is expanded to another one may be 1, or equal to it. */
    for (int d = 0; node->op == FJ_NODE_EXPAND && d < in->rank; d++)
        if (!fj_size_is(x->sizes, in->dims[d], 1) && in->dims[d] != out->dims[out->rank - in->rank + d])
            return false;
    for (int d = 0; d < in->rank; d++) {
        const fj_index offset = fj_index_size(x, moves[d].offset);
        switch (moves[d].kind) {
        case FJ_MOVE_FIXED: ret[d] = offset; break;
        case FJ_MOVE_AFFINE:
            ret[d] = fj_index_add(
                x, offset, fj_index_scale(x, index[moves[d].from], fj_size_of(x->sizes, moves[d].step)));
            break;
        case FJ_MOVE_WRAPS: ret[d] = fj_index_mod(x, index[moves[d].from], in->dims[d]); break;
        case FJ_MOVE_SHARES:
            ret[d] = fj_index_div(x, index[moves[d].from], fj_size_of(x->sizes, moves[d].step));
            break;
        }
    }
    return true;
}
