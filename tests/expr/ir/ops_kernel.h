// The cases of ops_cases.c for GPUs and the emulator: their hooks follow, each with OPS_TRY.
#include "prim.h"

// Not always inlined: copies of each would be most of the time that compilers take.
#undef FJ_DEVICE
#ifdef __CUDACC_RTC__
#define FJ_DEVICE static __device__ inline
#else
#define FJ_DEVICE static __attribute__((noinline, unused))
#endif
#include "hooks.h"

#include "ops_call.h"

struct ops_args {
    const struct fj_cuda_capture *captures;
    const struct fj_cuda_scalar *scalars;
    struct ops_call call;
};

// One capture has gradients, and one scalar: the code for each would be most of the text.
FJ_DEVICE fj_acc ops_start(void *sums) {
    return fj_grad_start(sums ? FJ_GRAD_FLOAT : FJ_GRAD_NONE, nullptr, sums, 0);
}

#define OPS_TRY(name)                                                                           \
    FJ_CALLED void name(const ops_args &args) {                                                 \
        const ops_call &c = args.call;                                                          \
        const fj_mod_args mod{args.captures, args.scalars};                                     \
        struct fj_head_state head;                                                              \
        struct fj_row_state row;                                                                \
        struct fj_col_state col;                                                                \
        struct fj_capture_grads grads;                                                          \
        fj_acc none = ops_start(nullptr), sums = ops_start(c.sums);                             \
        fj_acc scalars[FJ_SCALARS] = {ops_start(c.scalar_sums), none, none};                    \
        for (int i = 0; i < FJ_CAPTURES; i++) grads.capture[i] = i == c.summed ? &sums : &none; \
        grads.scalar = scalars;                                                                 \
        fj_head_init(&mod, 1, 2, &head);                                                        \
        fj_row_init(&mod, &head, c.query, &row);                                                \
        for (int32_t p = static_cast<int32_t>(fj_thread_x()); p < c.positions; p += FJ_WARP) {  \
            const fj_real score = static_cast<fj_real>(c.score[p]);                             \
            const fj_real adjoint = static_cast<fj_real>(c.adjoint[p]);                         \
            const bool live = c.live[p] != 0;                                                   \
            fj_col_init(&mod, &head, p, &col);                                                  \
            c.fault[p] = fj_fault(&mod, &head, &row, &col, score, live);                        \
            c.out[p] = fj_score(&mod, &head, &row, &col, score);                                \
            c.dout[p] = fj_score_grad(&mod, &head, &row, &col, score, adjoint, live, &grads);   \
        }                                                                                       \
        fj_grad_flush(sums);                                                                    \
        fj_grad_flush(scalars[0]);                                                              \
    }

#define OPS_ALL_BEGIN                     \
    FJ_KERNEL(ops_try, 32, 1, ops_args) { \
        switch (args.call.number) {
#define OPS_ONE(n, name) \
    case n:              \
        name(args);      \
        break;
#define OPS_ALL_END \
    }               \
    }
