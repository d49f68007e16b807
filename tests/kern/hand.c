/* Hooks of some of the mods for kernels of the cpu, written by hand: a second reader of templates/cpu/hooks.md, beside
 * the emitter. They keep nothing but positions in their states, and find everything else anew. */
#include <string.h>

#include "tests/kern/kern.h"

/* A function of the hooks, after its common parameters. */
#define HOOK(type, name, rest)                                                                            \
    "static inline " type " fj_" name "(const struct fj_cpu_args *a, const struct fj_head_state *head,\n" \
    "    const struct fj_row_state *row, const struct fj_col_state *col" rest ") {\n"                     \
    "    (void)a, (void)head, (void)row, (void)col;\n"
#define SCORE HOOK("fj_f", "score", ", fj_f score")
#define MASK HOOK("fj_b", "mask", "")
#define GRADIENT                                                                                        \
    HOOK("fj_f", "score_grad", ", fj_f score, fj_f adjoint, fj_b live, struct fj_capture_grads *grads") \
    "    (void)score, (void)live, (void)grads;\n"
#define BLOCK_CLASS                                                                                                 \
    "static inline int fj_block_class(const struct fj_cpu_args *a, int64_t b, int64_t h, int64_t q0, int64_t q1,\n" \
    "    int64_t k0, int64_t k1) {\n    (void)a, (void)b, (void)h, (void)q0, (void)q1, (void)k0, (void)k1;\n"

typedef struct hand {
    const char *mod;
    bool score, mask;
    int captures, scalars;
    const char *axes; /* of FJ_CAPTURE_GRAD_AXES; NULL: nothing is scattered */
    const char *hooks, *gradient;
    const char *own, *own_gradient; /* of the output and the sink; NULL: there are none */
} hand;

static const char states[] =
    "struct fj_head_state { int32_t h; };\nstruct fj_row_state { int32_t q; };\nstruct fj_col_state { fj_i kv; };\n"
    "struct fj_capture_grads { fj_acc *capture[FJ_CAPTURES + 1]; fj_acc *scalar; };\n"
    "static inline void fj_head_init(const struct fj_cpu_args *a, int32_t b, int32_t h,\n"
    "    struct fj_head_state *head) { (void)a, (void)b; head->h = h; }\n"
    "static inline void fj_row_init(const struct fj_cpu_args *a, const struct fj_head_state *head,\n"
    "    int32_t q, struct fj_row_state *row) { (void)a, (void)head; row->q = q; }\n"
    "static inline void fj_col_init(const struct fj_cpu_args *a, const struct fj_head_state *head,\n"
    "    fj_i kv, struct fj_col_state *col) { (void)a, (void)head; col->kv = kv; }\n";

#define CAUSAL                                                               \
    MASK "    return fj_ge_i(fj_splat_i(row->q), col->kv);\n}\n" BLOCK_CLASS \
         "    return q1 < k0 ? 0 : q0 >= k1 ? 2 : 1;\n}\n"
#define TANH "    const fj_f t = fj_tanh_f(fj_div_f(score, fj_splat_f(3)));\n"
#define BIAS_AT "    const fj_l at[3] = {fj_splat_l(head->h), fj_splat_l(row->q), fj_cast_i_l(col->kv)};\n"
/* An index from the end, and lanes that are the same. */
#define RELATIVE_AT                                                                  \
    "    const fj_i way = fj_sub_i(fj_splat_i(row->q), col->kv);\n"                  \
    "    const fj_i size = fj_splat_i((int32_t)a->captures[0].shape[0]);\n"          \
    "    const fj_i first = fj_add_i(way, fj_splat_i(200)), zero = fj_splat_i(0);\n" \
    "    const fj_i back = fj_where_i(fj_ge_i(first, zero), size, zero);\n"          \
    "    const fj_l at[1] = {fj_cast_i_l(fj_sub_i(first, back))};\n"                 \
    "    const fj_l own[1] = {fj_splat_l(row->q)};\n"
#define DISTANCE                                                                                       \
    "    const fj_i way = fj_mul_i(fj_sub_i(col->kv, fj_splat_i(row->q)), fj_splat_i(head->h + 1));\n" \
    "    const fj_f distance = fj_cast_i_f(way);\n"

#define OUT_HOOK(type, name, rest)                                                                    \
    "static inline " type " fj_" name                                                                 \
    "(const struct fj_cpu_args *a, const struct fj_out_head_state *head,\n"                           \
    "    const struct fj_out_row_state *row, const struct fj_out_col_state *col, fj_f x" rest ") {\n" \
    "    (void)a, (void)head, (void)row, (void)col;\n"                                                \
    "    const fj_l gate[2] = {fj_splat_l(head->h), fj_cast_i_l(col->d)};\n"                          \
    "    const fj_l rest[2] = {fj_splat_l(head->b), fj_splat_l(row->q)};\n"                           \
    "    const fj_f slope = fj_load_f32_mixed(&a->captures[0], 2, gate, 2u);\n"                       \
    "    const fj_f square = fj_mul_f(x, fj_splat_f(0.25f));\n"
#define OUT_STATES                                                                                            \
    "struct fj_out_head_state { int32_t b, h; };\nstruct fj_out_row_state { int32_t q; };\n"                  \
    "struct fj_out_col_state { fj_i d; };\n"                                                                  \
    "static inline void fj_out_head_init(const struct fj_cpu_args *a, int32_t b, int32_t h,\n"                \
    "    struct fj_out_head_state *head) { (void)a; head->b = b, head->h = h; }\n"                            \
    "static inline void fj_out_row_init(const struct fj_cpu_args *a, const struct fj_out_head_state *head,\n" \
    "    int32_t q, struct fj_out_row_state *row) { (void)a, (void)head; row->q = q; }\n"                     \
    "static inline void fj_out_col_init(const struct fj_cpu_args *a, const struct fj_out_head_state *head,\n" \
    "    fj_i d, struct fj_out_col_state *col) { (void)a, (void)head; col->d = d; }\n"
#define SINK_HOOK(type, name, rest)                                            \
    "static inline " type " fj_" name                                          \
    "(const struct fj_cpu_args *a, const struct fj_sink_head_state *head" rest \
    ") {\n    const fj_l at[1] = {fj_splat_l(head->h)};\n"

static const hand hands[] = {
    {.mod = "causal", .mask = true, .hooks = CAUSAL},
    {.mod = "softcap",
     .score = true,
     .hooks = SCORE TANH "    return fj_mul_f(t, fj_splat_f(3));\n}\n",
     .gradient = GRADIENT TANH "    return fj_mul_f(adjoint, fj_sub_f(fj_splat_f(1), fj_mul_f(t, t)));\n}\n"},
    {.mod = "bias",
     .score = true,
     .captures = 1,
     .axes = "14, -1",
     .hooks = SCORE BIAS_AT "    return fj_add_f(score, fj_load_f32_mixed(&a->captures[0], 3, at, 4u));\n}\n",
     .gradient = GRADIENT BIAS_AT
     "    fj_scatter_mixed_f(grads->capture[0], &a->captures[0], 3, at, 4u, adjoint, live);\n"
     "    return adjoint;\n}\n"},
    {.mod = "relative",
     .score = true,
     .mask = true,
     .captures = 2,
     .axes = "0, 4, -1",
     .hooks = SCORE RELATIVE_AT
     "    const fj_f far = fj_load_f32_lanes(&a->captures[0], 1, at);\n"
     "    return fj_add_f(fj_add_f(score, far), fj_load_bf16_uniform(&a->captures[1], 1, own));\n}\n" MASK
     "    return fj_ge_i(fj_splat_i(row->q + 30), col->kv);\n}\n" BLOCK_CLASS "    return 1;\n}\n",
     .gradient = GRADIENT RELATIVE_AT
     "    fj_scatter_f(grads->capture[0], &a->captures[0], 1, at, adjoint, live);\n"
     "    fj_scatter_mixed_f(grads->capture[1], &a->captures[1], 1, own, 0u, adjoint, live);\n"
     "    return adjoint;\n}\n"},
    {.mod = "slope",
     .score = true,
     .mask = true,
     .scalars = 1,
     .axes = "-1",
     .hooks = SCORE DISTANCE
     "    return fj_add_f(score, fj_mul_f(fj_splat_f((fj_real)a->scalars[0].f), distance));\n}\n" CAUSAL,
     .gradient = GRADIENT DISTANCE
     "    fj_scatter_scalar_f(&grads->scalar[0], fj_mul_f(adjoint, distance), live);\n    return adjoint;\n}\n"},
    {.mod = "gate",
     .mask = true,
     .captures = 2,
     .hooks = CAUSAL,
     .own =
         "#define FJ_HAS_OUT 1\n#define FJ_HAS_OUT_FAULT 0\n#define FJ_OUT_HEAD_EMPTY 0\n#define FJ_OUT_ROW_EMPTY 0\n"
         "#define FJ_OUT_COL_EMPTY 0\n#define FJ_OUT_GRAD_AXES {10, 5, -1}\n" OUT_STATES OUT_HOOK(
             "fj_f", "out",
             "") "    const fj_f more = fj_load_f16_uniform(&a->captures[1], 2, rest);\n"
                 "    return fj_add_f(fj_add_f(fj_mul_f(x, slope), fj_mul_f(square, x)), more);\n}\n",
     .own_gradient = OUT_HOOK(
         "fj_f", "out_grad",
         ", fj_f adjoint, fj_b live, struct fj_capture_grads *grads") "    fj_scatter_mixed_f(grads->capture[0], &a->captures[0], 2, gate, 2u, fj_mul_f(adjoint, x), live);\n"
                                                                      "    fj_scatter_mixed_f(grads->capture[1], &a->captures[1], 2, rest, 0u, adjoint, live);\n"
                                                                      "    return fj_mul_f(adjoint, fj_add_f(slope, fj_add_f(square, square)));\n}\n"},
    {.mod = "sink",
     .mask = true,
     .captures = 1,
     .hooks = MASK
     "    return fj_and_b(fj_ge_i(fj_splat_i(row->q), fj_splat_i(3)), fj_lt_i(col->kv, fj_splat_i(70)));\n"
     "}\n" BLOCK_CLASS "    return q1 < 3 || k0 >= 70 ? 0 : q0 >= 3 && k1 < 70 ? 2 : 1;\n}\n",
     .own = "#define FJ_HAS_SINK 1\n#define FJ_HAS_SINK_FAULT 0\n#define FJ_SINK_HEAD_EMPTY 0\n"
            "#define FJ_SINK_GRAD_AXES {2, -1}\nstruct fj_sink_head_state { int32_t h; };\n"
            "static inline void fj_sink_head_init(const struct fj_cpu_args *a, int32_t b, int32_t h,\n"
            "    struct fj_sink_head_state *head) { (void)a, (void)b; head->h = h; }\n" SINK_HOOK(
                "fj_f", "sink", "") "    const fj_f logit = fj_load_f32_uniform(&a->captures[0], 1, at);\n"
                                    "    return fj_sub_f(fj_add_f(logit, logit), fj_splat_f(1));\n}\n",
     .own_gradient = SINK_HOOK(
         "void", "sink_grad",
         ", fj_f adjoint, fj_b live, struct fj_capture_grads *grads") "    fj_scatter_mixed_f(grads->capture[0], &a->captures[0], 1, at, 0u, fj_add_f(adjoint, adjoint), live);\n}\n"},
};

bool hand_hooks(const kernel *k, fj_buf *text) {
    const hand *h = NULL;
    for (size_t i = 0; i < FJ_ARRAY_LEN(hands); i++)
        if (strcmp(hands[i].mod, k->mod->name) == 0) h = &hands[i];
    if (!h || !kernel_is_cpu(k)) return false;
    if (!text) return true;
    const bool backward = kernel_is_backward(k);
    fj_buf_printf(text,
                  "#define FJ_HAS_SCORE %d\n#define FJ_HAS_MASK %d\n#define FJ_HAS_FAULT 0\n"
                  "#define FJ_HAS_CAPTURE_GRADS %d\n#define FJ_CAPTURE_GRAD_AXES {%s}\n"
                  "#define FJ_HEAD_EMPTY 0\n#define FJ_ROW_EMPTY 0\n#define FJ_COL_EMPTY 0\n"
                  "#define FJ_CAPTURES %d\n#define FJ_SCALARS %d\n%s%s%s",
                  h->score, h->mask, backward && h->axes, h->axes ? h->axes : "-1", h->captures, h->scalars,
                  states, h->hooks, backward && h->gradient ? h->gradient : "");
    if (h->own)
        fj_buf_printf(text, "#define FJ_HAS_OUT_GRADS %d\n#define FJ_HAS_SINK_GRADS %d\n%s%s",
                      backward && k->problem.out, backward && k->problem.sink, h->own,
                      backward ? h->own_gradient : "");
    return true;
}
