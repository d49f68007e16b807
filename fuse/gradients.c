/* Gradients of fused attentions, by the backward kernel, against differences of the graph as it was.
 *
 * A part is a value of the graph that an attention reads as floats: one from which queries, keys or values come, or a captured one; a
 * value may be several. Along a direction d of it, loss = sum of dout * result changes by <gradient, d>, and by
 * (loss(x + e d) - loss(x - e d)) / 2e, where the graph as it was is evaluated in double with that value in its place. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/call.h"
#include "fuse/fuse.h"

static const double STEP = 1e-4;

typedef struct checking {
    fj_scope *scope;
    fj_model *before, *after;
    const fj_evaluation *how;
    const fj_fused *fused;
    int node;         /* of the attention, in the graph after */
    fj_array *arrays; /* of the graph after */
    fj_array result;  /* of the graph before */
    fj_array dout;    /* of the result's shape */
    fj_gradients gradients;
    fj_gradient_check *checks;
    int count;
} checking;

/* From -1 to 1, the same in every run. */
static double random_of(uint64_t seed, int64_t index) {
    uint64_t x = (seed + 1) * 0x9e3779b97f4a7c15u + (uint64_t)index * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (double)(int64_t)(x ^ x >> 31) * 0x1p-63;
}

static fj_array like(const checking *c, const fj_array *array) {
    fj_array copy = *array;
    copy.data = FJ_NEW_ARRAY(c->scope->arena, double, array->count + 1);
    return copy;
}

/* Values of a graph up to a node, with some in place of their own. */
static fj_array *evaluate(const checking *c, fj_model *model, bool exact, int until,
                          const fj_override *overrides, int count) {
    fj_evaluation how = *c->how;
    fj_array *arrays = NULL;
    how.exact = exact;
    how.overrides = overrides;
    how.override_count = count;
    how.until = until;
    how.ret_arrays = &arrays;
    const fj_status status = fj_fuse_evaluate(model, c->scope->arena, &how, NULL, c->scope->error);
    if (status != FJ_OK) fj_escape(c->scope, status);
    return arrays;
}

static const fj_node *node_of(const checking *c) { return &c->after->graph.nodes.data[c->node]; }

/* ---- The kernel's ------------------------------------------------------------------------ */

/* Out is [B,H,L,Ev]; the result has the same elements, or those with L and Ev exchanged. */
static int64_t out_of_result(const checking *c, int64_t at) {
    const fj_array *result = &c->result;
    if (!c->fused->transposed) return at;
    const int64_t l = result->dims[result->rank - 1], ev = result->dims[result->rank - 2];
    return at / (l * ev) * (l * ev) + at % l * ev + at / l % ev;
}

static void run_backward(checking *c) {
    const fj_node *node = node_of(c);
    fj_arena *arena = c->scope->arena;
    const fj_array *inputs[3], **captures = FJ_NEW_ARRAY(arena, const fj_array *, node->args[3].count + 1);
    for (int i = 0; i < 3; i++) inputs[i] = &c->arrays[node->args[i].value];
    for (int i = 0; i < node->args[3].count; i++) captures[i] = &c->arrays[node->args[3].values[i]];
    fj_array out = like(c, inputs[0]);
    out.dims[3] = inputs[2]->dims[3];
    out.count = c->result.count;
    out.data = FJ_NEW_ARRAY(arena, double, out.count + 1);
    fj_array dout = out;
    dout.data = FJ_NEW_ARRAY(arena, double, out.count + 1);
    c->dout = like(c, &c->result);
    for (int64_t i = 0; i < out.count; i++) { /* rows that see nothing are NaN in a graph */
        const double x = isfinite(c->result.data[i]) ? random_of(0, i) : 0;
        c->dout.data[i] = dout.data[out_of_result(c, i)] = fj_dtype_round(out.dtype, x);
    }
    c->gradients.dout = &dout;
    const fj_status status =
        fj_fuse_call(c->how, c->fused, arena, inputs, captures, &out, &c->gradients, c->scope->error);
    if (status != FJ_OK) fj_escape(c->scope, status);
}

/* ---- Along directions -------------------------------------------------------------------- */

static double loss(const checking *c, int value, const fj_array *direction, double step) {
    fj_array moved = like(c, direction);
    const int last = c->before->graph.values.data[c->fused->result].node;
    /* Every part is where the kernel had it, so that no rounding lies between. */
    fj_override *overrides = FJ_NEW_ARRAY(c->scope->arena, fj_override, 4 + c->fused->capture_count);
    int count = 0;
    for (int i = 0; i < 3 + c->fused->capture_count; i++) {
        const int each = i < 3 ? c->fused->inputs[i] : c->fused->captures[i - 3];
        overrides[count++] = (fj_override){each, each == value ? moved.data : c->arrays[each].data};
    }
    for (int64_t i = 0; i < moved.count; i++)
        moved.data[i] = c->arrays[value].data[i] + step * direction->data[i];
    const fj_array *result = &evaluate(c, c->before, true, last + 1, overrides, count)[c->fused->result];
    double sum = 0;
    for (int64_t i = 0; i < result->count; i++)
        if (c->dout.data[i] != 0) sum += c->dout.data[i] * result->data[i];
    return sum;
}

/* <gradient, d> of all roles that a value has; false: it has none. */
static bool analytic(const checking *c, int value, const fj_array *direction, double *ret_change,
                     double *ret_norm) {
    const fj_override override = {value, direction->data};
    const fj_node *node = node_of(c);
    const fj_array *moved = evaluate(c, c->after, true, c->node, &override, 1);
    double change = 0, square = 0;
    bool any = false;
    for (int i = 0; i < 3 + c->fused->capture_count; i++) {
        const bool captured = i >= 3;
        if ((captured ? c->fused->captures[i - 3] : c->fused->inputs[i]) != value) continue;
        const fj_array *gradient = captured ? &c->gradients.captures[i - 3] : &c->gradients.inputs[i];
        const fj_array *d = captured ? direction : &moved[node->args[i].value];
        if (gradient->data == NULL) continue;
        any = true;
        for (int64_t j = 0; j < gradient->count; j++) {
            change += gradient->data[j] * d->data[j];
            square += gradient->data[j] * gradient->data[j];
        }
    }
    *ret_change = change;
    *ret_norm = sqrt(square);
    return any;
}

static void check_part(checking *c, int value) {
    static const double tolerances[] = {
        [FJ_DTYPE_F16] = 0.01, [FJ_DTYPE_BF16] = 0.05, [FJ_DTYPE_F32] = 1e-4, [FJ_DTYPE_F64] = 1e-6};
    fj_array direction = like(c, &c->arrays[value]);
    double change, norm;
    for (int64_t i = 0; i < direction.count; i++)
        direction.data[i] = random_of((uint64_t)value + 1, i) < 0 ? -1 : 1;
    if (!analytic(c, value, &direction, &change, &norm)) return;
    const double up = loss(c, value, &direction, STEP), down = loss(c, value, &direction, -STEP);
    fj_gradient_check *check = &c->checks[c->count++];
    *check = (fj_gradient_check){.name = c->after->graph.values.data[value].name,
                                 .error = fabs(change - (up - down) / (2 * STEP)),
                                 .bound = tolerances[c->fused->dtype] * norm + 1e-7 * (1 + fabs(up))};
    check->ok = check->error <= check->bound;
}

static void check_all(fj_scope *scope, void *argument) {
    checking *c = argument;
    const fj_graph *graph = &c->after->graph;
    c->scope = scope;
    for (c->node = 0; c->node < (int)graph->nodes.len; c->node++)
        if (node_of(c)->op == FJ_NODE_ATTENTION && strcmp(node_of(c)->args[5].text, c->fused->name) == 0)
            break;
    if (c->node == (int)graph->nodes.len)
        fj_fail(scope, FJ_ERR_TENSOR, "%s is not in the graph", c->fused->name);
    c->arrays = evaluate(c, c->after, false, c->node, NULL, 0);
    c->result = evaluate(c, c->before, true, c->before->graph.values.data[c->fused->result].node + 1, NULL,
                         0)[c->fused->result];
    run_backward(c);
    c->checks = FJ_NEW_ARRAY(scope->arena, fj_gradient_check, 3 + c->fused->capture_count);
    for (int i = 0; i < 3 + c->fused->capture_count; i++) {
        const int value = i < 3 ? c->fused->inputs[i] : c->fused->captures[i - 3];
        bool again = c->arrays[value].dtype < FJ_DTYPE_F16;
        for (int j = 0; j < i; j++)
            again |= (j < 3 ? c->fused->inputs[j] : c->fused->captures[j - 3]) == value;
        if (!again) check_part(c, value);
    }
}

fj_status fj_fuse_check_gradients(fj_model *before, fj_model *after, size_t index, fj_arena *arena,
                                  const fj_evaluation *evaluation, fj_gradient_check **ret_checks,
                                  int *ret_count, fj_error *error) {
    checking c = {
        .before = before, .after = after, .how = evaluation, .fused = &after->findings.fused.data[index]};
    const fj_status status = fj_scope_run(arena, error, check_all, &c);
    *ret_checks = c.checks;
    *ret_count = status == FJ_OK ? c.count : 0;
    return status;
}
