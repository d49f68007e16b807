/* Mods for the kernel tests. Their hooks are what expr/ir/emit.c would write, by hand, so that the contract of
 * templates/cpu/hooks.md has a second reader. */
#include <math.h>
#include <stdlib.h>

#include "tests/kern/kern.h"

/* A function of the hooks, after its common parameters. */
#define HOOK(type, name, rest)                                                                            \
    "static inline " type " fj_" name "(const struct fj_cpu_args *a, const struct fj_head_state *head,\n" \
    "    const struct fj_row_state *row, const struct fj_col_state *col" rest ") {\n"                     \
    "    (void)a, (void)head, (void)row, (void)col;\n"
#define FACTS(score, mask, captures, scalars)                                                  \
    "#define FJ_HAS_SCORE " #score "\n#define FJ_HAS_MASK " #mask "\n#define FJ_HAS_FAULT 0\n" \
    "#define FJ_HEAD_EMPTY 0\n#define FJ_ROW_EMPTY 0\n#define FJ_COL_EMPTY 0\n"                \
    "#define FJ_CAPTURES " #captures "\n#define FJ_SCALARS " #scalars "\n"                     \
    "struct fj_capture_grads { fj_acc *capture[FJ_CAPTURES + 1]; fj_acc *scalar; };\n"
/* States that keep the positions. */
#define STATES                                                                                        \
    "struct fj_head_state { int32_t h; fj_real slope; };\n"                                           \
    "struct fj_row_state { int32_t q; };\n"                                                           \
    "struct fj_col_state { fj_i kv; };\n"                                                             \
    "static inline void fj_row_init(const struct fj_cpu_args *a, const struct fj_head_state *head,\n" \
    "    int32_t q, struct fj_row_state *row) { (void)a, (void)head; row->q = q; }\n"                 \
    "static inline void fj_col_init(const struct fj_cpu_args *a, const struct fj_head_state *head,\n" \
    "    fj_i kv, struct fj_col_state *col) { (void)a, (void)head; col->kv = kv; }\n"                 \
    "static inline void fj_head_init(const struct fj_cpu_args *a, int32_t b, int32_t h,\n"            \
    "    struct fj_head_state *head) {\n    (void)a, (void)b; head->h = h;\n"
#define NO_SLOPE "    head->slope = 0;\n}\n"

static void add(kern_captures *c, int64_t at, double x) {
    c->gradients[0][at] += x;
    c->sizes[0][at] += fabs(x);
}

/* ---- causal --------------------------------------------------------------------------------------- */

static bool causal_mask(int64_t q, int64_t kv) { return q >= kv; }
static const char causal_hooks[] = FACTS(0, 1, 0, 0) STATES NO_SLOPE HOOK(
    "fj_b", "mask",
    "") "    return fj_ge_i(fj_splat_i(row->q), col->kv);\n}\n"
        "static inline int fj_block_class(const struct fj_cpu_args *a, int32_t b, int32_t h, int32_t q0, int32_t q1,\n"
        "    int32_t k0, int32_t k1) {\n    (void)a, (void)b, (void)h;\n"
        "    return q1 < k0 ? 0 : q0 >= k1 ? 2 : 1;\n}\n";

/* ---- future: kv > q, so that late rows see nothing; no block is ever known to be empty ---------- */

static bool future_mask(int64_t q, int64_t kv) { return kv > q; }
static void bias_dims(const kern_shape *s, int capture, int64_t dims[3]) {
    (void)capture;
    dims[0] = s->heads_q, dims[1] = s->q_len, dims[2] = s->kv_len;
}
static double bias_score(const kern_captures *c, int64_t h, int64_t q, int64_t kv, double score) {
    return score + c->values[0][(h * c->dims[0][1] + q) * c->dims[0][2] + kv];
}
static double bias_grad(kern_captures *c, int64_t h, int64_t q, int64_t kv, double score, double adjoint) {
    (void)score;
    add(c, (h * c->dims[0][1] + q) * c->dims[0][2] + kv, adjoint);
    return adjoint;
}
#define BIAS_INDICES \
    "    const fj_l at[3] = {fj_splat_l(head->h), fj_splat_l(row->q), fj_cast_i_l(col->kv)};\n"
static const char bias_hooks[] = FACTS(1, 1, 1, 0) STATES NO_SLOPE HOOK(
    "fj_b", "mask",
    "") "    return fj_gt_i(col->kv, fj_splat_i(row->q));\n}\n"
        "static inline int fj_block_class(const struct fj_cpu_args *a, int32_t b, int32_t h, int32_t q0, int32_t q1,\n"
        "    int32_t k0, int32_t k1) {\n    (void)a, (void)b, (void)h, (void)q0, (void)q1, (void)k0, (void)k1;\n"
        "    return 1;\n}\n" HOOK("fj_f", "score", ", fj_f score") BIAS_INDICES
    "    return fj_add_f(score, fj_load_FREAL_mixed(&a->captures[0], 3, at, 4u));\n}\n";
static const char bias_backward[] =
    "#define FJ_HAS_CAPTURE_GRADS 1\n#define FJ_CAPTURE_GRAD_AXES {14, -1}\n" HOOK(
        "fj_f", "score_grad", ", fj_f score, fj_f adjoint, fj_b live, struct fj_capture_grads *grads")
        BIAS_INDICES
    "    (void)score;\n    fj_scatter_mixed_f(grads->capture[0], &a->captures[0], 3, at, 4u, adjoint, live);\n"
    "    return adjoint;\n}\n";

/* ---- softcap and ALiBi ------------------------------------------------------------------------------ */

static void slopes_dims(const kern_shape *s, int capture, int64_t dims[3]) {
    (void)capture;
    dims[0] = s->heads_q, dims[1] = dims[2] = 1;
}
static double softcap_score(const kern_captures *c, int64_t h, int64_t q, int64_t kv, double score) {
    return 5 * tanh(score / 5) + c->values[0][h] * (double)(kv - q) / 16;
}
static double softcap_grad(kern_captures *c, int64_t h, int64_t q, int64_t kv, double score, double adjoint) {
    double t = tanh(score / 5);
    add(c, h, adjoint * (double)(kv - q) / 16);
    return adjoint * (1 - t * t);
}
static const char softcap_hooks[] = FACTS(1, 0, 1, 0) STATES
    "    const fj_l at[1] = {fj_splat_l(h)};\n"
    "    head->slope = fj_first_f(fj_load_FREAL_uniform(&a->captures[0], 1, at));\n}\n" HOOK(
        "fj_f", "score",
        ", fj_f score") "    fj_f t = fj_tanh_f(fj_div_f(score, fj_splat_f(5)));\n"
                        "    fj_f d = fj_mul_f(fj_cast_i_f(fj_sub_i(col->kv, fj_splat_i(row->q))), fj_splat_f(0.0625f));\n"
                        "    return fj_add_f(fj_mul_f(fj_splat_f(5), t), fj_mul_f(fj_splat_f(head->slope), d));\n}\n";
static const char softcap_backward[] = "#define FJ_HAS_CAPTURE_GRADS 1\n#define FJ_CAPTURE_GRAD_AXES {2, -1}\n" HOOK(
    "fj_f", "score_grad",
    ", fj_f score, fj_f adjoint, fj_b live, struct fj_capture_grads *grads") "    fj_f t = fj_tanh_f(fj_div_f(score, fj_splat_f(5)));\n"
                                                                             "    fj_f d = fj_mul_f(fj_cast_i_f(fj_sub_i(col->kv, fj_splat_i(row->q))), fj_splat_f(0.0625f));\n"
                                                                             "    const fj_l at[1] = {fj_splat_l(head->h)};\n"
                                                                             "    fj_scatter_mixed_f(grads->capture[0], &a->captures[0], 1, at, 0u, fj_mul_f(adjoint, d), live);\n"
                                                                             "    return fj_mul_f(adjoint, fj_sub_f(fj_splat_f(1), fj_mul_f(t, t)));\n}\n";

/* ---- table: a gather that collides, a run-time scalar, scores of -inf ----------------------------- */

static void table_dims(const kern_shape *s, int capture, int64_t dims[3]) {
    (void)s, (void)capture;
    dims[0] = 9, dims[1] = dims[2] = 1;
}
static bool table_hides(int64_t q, int64_t kv) { return (q + 2 * kv) % 5 == 0; }
static double table_score(const kern_captures *c, int64_t h, int64_t q, int64_t kv, double score) {
    (void)h;
    return table_hides(q, kv) ? -HUGE_VAL : score + c->scalar * c->values[0][llabs(q - kv) % 9];
}
static double table_grad(kern_captures *c, int64_t h, int64_t q, int64_t kv, double score, double adjoint) {
    (void)h, (void)score;
    if (table_hides(q, kv)) return 0;
    const double x = adjoint * c->values[0][llabs(q - kv) % 9];
    add(c, llabs(q - kv) % 9, adjoint * c->scalar);
    c->dscalar += x;
    c->scalar_size += fabs(x);
    return adjoint;
}
#define TABLE_VALUES                                                                                \
    "    const fj_i q = fj_splat_i(row->q);\n"                                                      \
    "    const fj_b hides = fj_eq_i(fj_floormod_i(fj_add_i(q, fj_mul_i(fj_splat_i(2), col->kv)),\n" \
    "                                             fj_splat_i(5)), fj_splat_i(0));\n"                \
    "    const fj_i way = fj_floormod_i(fj_abs_i(fj_sub_i(q, col->kv)), fj_splat_i(9));\n"          \
    "    const fj_l at[1] = {fj_cast_i_l(fj_sub_i(way, fj_splat_i(9)))};\n"                         \
    "    const fj_f value = fj_load_FREAL_lanes(&a->captures[0], 1, at);\n"                         \
    "    const fj_f factor = fj_splat_f((fj_real)a->scalars[0].f);\n"
static const char table_hooks[] =
    FACTS(1, 0, 1, 1) STATES NO_SLOPE HOOK("fj_f", "score", ", fj_f score") TABLE_VALUES
    "    return fj_where_f(hides, fj_splat_f((fj_real)-INFINITY), fj_add_f(score, fj_mul_f(factor, value)));\n}\n";
static const char table_backward[] =
    "#define FJ_HAS_CAPTURE_GRADS 1\n#define FJ_CAPTURE_GRAD_AXES {0, -1}\n" HOOK(
        "fj_f", "score_grad", ", fj_f score, fj_f adjoint, fj_b live, struct fj_capture_grads *grads")
        TABLE_VALUES
    "    const fj_b adds = fj_and_b(live, fj_not_b(hides));\n    (void)score;\n"
    "    fj_scatter_f(grads->capture[0], &a->captures[0], 1, at, fj_mul_f(adjoint, factor), adds);\n"
    "    fj_scatter_scalar_f(&grads->scalar[0], fj_mul_f(adjoint, value), adds);\n"
    "    return fj_where_f(hides, fj_splat_f(0), adjoint);\n}\n";

/* ---- fill: rows of one score, of a score and its negative, of scores among such, all of the scalar --------------- */

static double fill_score(const kern_captures *c, int64_t h, int64_t q, int64_t kv, double score) {
    (void)h;
    switch (q % 4) {
    case 0: return score;
    case 1: return c->scalar;
    case 2: return kv % 3 == 0 ? c->scalar : -c->scalar;
    default: return kv % 2 ? score : -fabs(c->scalar);
    }
}
static double fill_grad(kern_captures *c, int64_t h, int64_t q, int64_t kv, double score, double adjoint) {
    (void)h, (void)score;
    const double to_scalar = q % 4 == 1 || (q % 4 == 2 && kv % 3 == 0) ? adjoint
                           : q % 4 == 2                                ? -adjoint
                           : q % 4 == 3 && kv % 2 == 0                 ? (c->scalar > 0 ? -adjoint : adjoint)
                                                                       : 0;
    c->dscalar += to_scalar;
    c->scalar_size += fabs(to_scalar);
    return q % 4 == 0 || (q % 4 == 3 && kv % 2) ? adjoint : 0;
}
#define FILL_VALUES                                                                                \
    "    const int turn = row->q % 4;\n    const fj_f c = fj_splat_f((fj_real)a->scalars[0].f);\n" \
    "    const fj_b third = fj_eq_i(fj_floormod_i(col->kv, fj_splat_i(3)), fj_splat_i(0));\n"      \
    "    const fj_b odd = fj_eq_i(fj_and_i(col->kv, fj_splat_i(1)), fj_splat_i(1));\n"             \
    "    const fj_b keeps = turn == 0 ? fj_splat_b(1) : turn == 3 ? odd : fj_splat_b(0);\n"        \
    "    const fj_b negates = turn == 2 ? fj_not_b(third) : turn == 3 ? fj_gt_f(c, fj_splat_f(0)) : fj_splat_b(0);\n"
static const char fill_hooks[] = FACTS(1, 0, 0, 1) STATES NO_SLOPE HOOK("fj_f", "score", ", fj_f score")
    FILL_VALUES "    return fj_where_f(keeps, score, fj_where_f(negates, fj_neg_f(c), c));\n}\n";
static const char fill_backward[] =
    "#define FJ_HAS_CAPTURE_GRADS 1\n#define FJ_CAPTURE_GRAD_AXES {-1}\n" HOOK(
        "fj_f", "score_grad", ", fj_f score, fj_f adjoint, fj_b live, struct fj_capture_grads *grads")
        FILL_VALUES
    "    (void)score;\n"
    "    fj_scatter_scalar_f(&grads->scalar[0], fj_where_f(negates, fj_neg_f(adjoint), adjoint),\n"
    "                        fj_and_b(live, fj_not_b(keeps)));\n"
    "    return fj_where_f(keeps, adjoint, fj_splat_f(0));\n}\n";

static const char no_backward[] = "#define FJ_HAS_CAPTURE_GRADS 0\n#define FJ_CAPTURE_GRAD_AXES {-1}\n";

const kern_mod kern_mods[] = {
    {.name = "identity"},
    {.name = "causal", .hooks = causal_hooks, .backward_hooks = no_backward, .mask = causal_mask},
    {.name = "softcap",
     .hooks = softcap_hooks,
     .backward_hooks = softcap_backward,
     .capture_count = 1,
     .capture_dims = slopes_dims,
     .score = softcap_score,
     .grad = softcap_grad},
    {.name = "bias",
     .capture_is_score = true,
     .hooks = bias_hooks,
     .backward_hooks = bias_backward,
     .capture_count = 1,
     .capture_dims = bias_dims,
     .mask = future_mask,
     .score = bias_score,
     .grad = bias_grad},
    {.name = "table",
     .capture_is_score = true,
     .hooks = table_hooks,
     .backward_hooks = table_backward,
     .capture_count = 1,
     .scalar_count = 1,
     .capture_dims = table_dims,
     .score = table_score,
     .grad = table_grad},
    {.name = "fill",
     .hooks = fill_hooks,
     .backward_hooks = fill_backward,
     .scalar_count = 1,
     .scalar_is_score = true,
     .score = fill_score,
     .grad = fill_grad},
};
const int kern_mod_count = sizeof kern_mods / sizeof kern_mods[0];
