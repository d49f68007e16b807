/* The cases of ops_cases.c for the cpu: their hooks follow, each with OPS_TRY. */
#include "prim_isa.h"

/* Called instead of inlined: copies of each would be most of the time that the compiler takes. */
#undef FJ_INLINE
#define FJ_INLINE FJ_NOINLINE
#include "abi.h"
#include "ops_call.h"
#include "prim.h"

#include "block_load.h"

#define OPS_TRY(name)                                                                                        \
    static __attribute__((noinline)) void name(const struct fj_cpu_args *a, const struct ops_call *c) {      \
        struct fj_head_state head;                                                                           \
        struct fj_row_state row;                                                                             \
        struct fj_col_state col;                                                                             \
        struct fj_capture_grads grads;                                                                       \
        for (int i = 0; i < FJ_CAPTURES; i++) grads.capture[i] = i == c->summed ? (double *)c->sums : NULL;  \
        grads.scalar = (double *)c->scalar_sums;                                                             \
        fj_head_init(a, 1, 2, &head);                                                                        \
        fj_row_init(a, &head, c->query, &row);                                                               \
        for (int32_t p = 0; p < c->positions; p += FJ_LANES) {                                               \
            fj_real x[FJ_LANES], g[FJ_LANES];                                                                \
            uint32_t live = 0;                                                                               \
            for (int i = 0; i < FJ_LANES; i++) {                                                             \
                x[i] = (fj_real)c->score[p + i];                                                             \
                g[i] = (fj_real)c->adjoint[p + i];                                                           \
                live |= (uint32_t)c->live[p + i] << i;                                                       \
            }                                                                                                \
            const fj_f score = fj_get_f(x);                                                                  \
            fj_col_init(a, &head, fj_add_i(fj_splat_i(p), fj_iota_i()), &col);                               \
            const uint32_t fault = fj_bits_b(fj_fault(a, &head, &row, &col, score, fj_unbits_b(live)));      \
            fj_put_f(x, fj_score(a, &head, &row, &col, score));                                              \
            fj_put_f(g, fj_score_grad(a, &head, &row, &col, score, fj_get_f(g), fj_unbits_b(live), &grads)); \
            for (int i = 0; i < FJ_LANES; i++) {                                                             \
                c->out[p + i] = x[i];                                                                        \
                c->dout[p + i] = g[i];                                                                       \
                c->fault[p + i] = fault >> i & 1;                                                            \
            }                                                                                                \
        }                                                                                                    \
    }

#define OPS_ALL_BEGIN                                                               \
    __attribute__((visibility("default"))) void ops_try(const struct fj_cpu_args *, \
                                                        const struct ops_call *);   \
    void ops_try(const struct fj_cpu_args *a, const struct ops_call *c) {           \
        switch (c->number) {
#define OPS_ONE(n, name) \
    case n:              \
        name(a, c);      \
        break;
#define OPS_ALL_END \
    }               \
    }
