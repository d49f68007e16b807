/* Scaled dot product attention of tensors, as PyTorch's scaled_dot_product_attention defines it:
 *
 *     out = softmax(query key^T * scale + mask) value
 *
 * with masks that are tensors, batches and heads that are broadcast, sequences of any lengths, forward and backward. Built on
 * flexjit.h: a call becomes a mod such as `score + mask[b, h, q, kv]` and runs by the same plans, kernels and cache. That
 * header's conventions hold here.
 *
 *     fj_sdpa            one call that does all: finds or compiles the kernel, allocates a workspace, runs
 *     fj_sdpa_create     the same in parts: a kernel for calls of one kind,
 *     fj_sdpa_launch     launched any number of times
 */
#ifndef FLEXJIT_SDPA_H
#define FLEXJIT_SDPA_H

#include "flexjit/flexjit.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Which keys a query sees by its position, of L queries and S keys. */
typedef enum fj_sdpa_causal {
    FJ_SDPA_NOT_CAUSAL,
    FJ_SDPA_UPPER_LEFT, /* kv <= q: PyTorch's is_causal */
    FJ_SDPA_LOWER_RIGHT, /* kv <= q + S - L: the last query sees all; where L > S the first L - S queries see nothing */
} fj_sdpa_causal;

/* What computes a call, in the order of preference. */
typedef enum fj_sdpa_backend {
    FJ_SDPA_FLASH,     /* cuda, emu: fused kernels on tensor cores */
    FJ_SDPA_EFFICIENT, /* cuda, emu: fused kernels on plain cores */
    FJ_SDPA_CPU,       /* cpu: fused kernels */
    /* The definition in double, unfused: the reference device, on tensors of the host's memory. Slow: where it is taken because no
     * other can compute the call, the log has a warning. The devices unfused and rounding run their own pass under this name. */
    FJ_SDPA_MATH,
    FJ_SDPA_BACKENDS
} fj_sdpa_backend;
/* "flash", "efficient", "cpu", "math". */
FJ_API const char *fj_sdpa_backend_name(fj_sdpa_backend backend);

/* Tensors of one call; all stay the caller's. Strides are in elements, NULL means packed.
 *
 * Dense. Ranks are 2 to 4, missing dimensions in front count as 1:
 *
 *   query [B,H,L,E]  key [B,H,S,E]  value [B,H,S,Ev]   one of F16 BF16 F32 F64; E and Ev from 1 to 256
 *   out [B,H,L,Ev]   lse [B,H,L]                       of the largest rank of the three, lse of one less
 *
 * A batch of 1, or one head, stands for all that the others have (broadcast). Query's heads may also be a multiple of key's and
 * of value's (grouped-query attention): head h reads key head h / (H / Hkv). Lengths may be 0 and may differ.
 * fj_sdpa_out_layout says what out has to be. Gradients have the shapes of their tensors, and are summed over what was
 * broadcast.
 *
 * mask: BOOL, true keeps, or of a float dtype, added to the scores (its values are rounded to F32 where query is not F64). Rank
 * 0 to 4; aligned at the right with [B,H,L,S], each dimension is that one or 1. Any strides, 0 too. A bool mask's gradient does not
 * exist. dmask has the mask's shape, and its dtype or that of lse; it is the sum over what was broadcast. A mask excludes causal.
 * The fewer axes of [B,H,L,S] a mask has, the less is read: a dimension of 1 is better than one of stride 0, but that is
 * seen too where no dmask is asked for.
 *
 * A query that sees nothing, or only scores of -inf, gives 0, and lse -inf; what a bool or causal mask hides has no part in any
 * result, NaN included. flexjit.h says more (fj_args).
 *
 * Strides. Any, but a last dimension whose stride is not 1 (and whose extent is above 1) is copied to the workspace first, or
 * from it; so are gradients that have to be summed, heads of key and value that differ and are both above 1, and keys and values
 * that serve several sequences. That is told by fj_sdpa_backends (copies) and in the log (FJ_LOG_INFO). It is done by the
 * host, on one thread; on cuda such a call is refused with FJ_ERR_UNSUPPORTED. Elements of an output may not overlap.
 *
 * lse: F32, or F64 for F64 inputs: natural logarithm. Forward may leave it out. Backward reads out and lse of forward; lse_low,
 * optional, makes it exact for large scores (see fj_args). On the math backend results, and out, lse and dout of backward, may
 * be F64 for any inputs.
 *
 * Jagged: sequences of any lengths, one after the other. cu_seqlens_q and cu_seqlens_kv [B+1], I32 or I64: from 0, never less
 * than before, to Tq and Tk; sequence b has rows cu_seqlens[b] to cu_seqlens[b + 1]. Lengths of queries and keys may differ and
 * be 0; causal is that of each sequence.
 *
 *   query [Tq,H,E]  key [Tk,H,E]  value [Tk,H,Ev]   out [Tq,H,Ev]   lse [H,Tq]   mask [B,H,L,S], L and S at least the longest
 *
 * One head stands for all, as above; and a dense tensor [1,H,L,E] of rank 4 stands for a sequence that is the same for all of
 * them: query, then without cu_seqlens_q (out has Tq = B * L rows); key and value, then without cu_seqlens_kv; or one of key
 * and value, while all sequences of the other have its length.
 *
 * dropout, 0 to 1: the chance with which a probability is dropped, as fj_args says. Backward is given the dropout, seed and
 * offset of its forward. */
typedef struct fj_sdpa_args {
    size_t struct_size;
    const DLTensor *query, *key, *value;
    const DLTensor *mask; /* NULL: none */
    const DLTensor *out, *lse;
    const DLTensor *lse_low; /* NULL: absent */
    /* Backward. Gradients may be NULL: those are not computed. */
    const DLTensor *dout;
    const DLTensor *dlse; /* the gradient of lse, as lse; NULL: 0 */
    const DLTensor *dquery, *dkey, *dvalue, *dmask;
    const double *scale; /* any sign, 0 too; NULL: 1 / sqrt(E) */
    fj_sdpa_causal causal;
    /* By default results are the same bits for each run, and on cpu for each number of threads. true lets kernels for a GPU add up
     * dquery and dmask by float atomics, in the order in which threads come; bits then differ from run to run. On cpu it changes
     * nothing: there determinism costs nothing. What it costs on a GPU: dkey and dvalue nothing; dquery is a pass of its own, which
     * computes the scores a second time; of dmask one pass finds how large the sums get, and the other adds integers of 64 bits. */
    bool nondeterministic;
    bool tf32;         /* products of F32 may be rounded to TF32 */
    unsigned backends; /* those allowed: bits 1 << fj_sdpa_backend; 0: all */
    const DLTensor *cu_seqlens_q, *cu_seqlens_kv;
    double dropout;
    uint64_t dropout_seed, dropout_offset;
    const DLTensor *dropout_state; /* as in fj_args */
} fj_sdpa_args;

/* Shape and strides of out as the call asks for it: dimensions in memory lie in the order in which query's do, as PyTorch has
 * it (a query [B,H,L,E] that is a view of [B,L,H,E] gives such an out). Any other strides will do as well. out and lse of
 * args are not read, data is not followed but that of cu_seqlens. FJ_ERR_TENSOR, FJ_ERR_ARGUMENT. */
FJ_NODISCARD FJ_API fj_status fj_sdpa_out_layout(const fj_device *device, const fj_sdpa_args *args,
                                                 int *ret_rank, int64_t ret_shape[4], int64_t ret_strides[4],
                                                 fj_error *error);

typedef struct fj_sdpa_report {
    size_t struct_size;
    fj_sdpa_backend
        backend; /* the one that is taken, by default the first that can; FJ_SDPA_BACKENDS: there is none */
    char refused[FJ_SDPA_BACKENDS]
                [256]; /* why it cannot compute this call, or that args leave it out; "": it can */
    char copies[512];  /* which tensors are copied or summed by the host, and why; "": none */
} fj_sdpa_report;

/* Which backends can compute a call, and why the others cannot. Compiles nothing. Only errors of the call itself fail:
 * FJ_ERR_TENSOR, FJ_ERR_ARGUMENT. struct_size of the report is the caller's to set. */
FJ_NODISCARD FJ_API fj_status fj_sdpa_backends(fj_device *device, fj_direction direction,
                                               const fj_sdpa_args *args, fj_sdpa_report *ret_report,
                                               fj_error *error);

/* A kernel for calls of one kind. Immutable: any thread may launch it at any time. */
typedef struct fj_sdpa_op fj_sdpa_op;

/* Finds or compiles the kernel for calls like this one; may block for as long as a compiler runs. Calls are of one kind where these
 * agree: dtypes, E, Ev, causal, dense or jagged, the mask's dtype and which of the axes [B,H,L,S] it has, whether there are dlse,
 * dmask and dropout, nondeterministic, tf32, backends; in backward also whether key and value both have a batch of 1 under a larger one. Batch,
 * heads, lengths, ranks, strides and scale may differ (the kernel is chosen to suit those of args). Data is not followed but that
 * of cu_seqlens; out, lse, dout and gradients of args need not be there yet, dmask only where mask has dimensions of stride 0.
 * FJ_ERR_UNSUPPORTED: no backend is left; text, or the detail where it is longer, has the reason of each. Else as fj_kernel_create. */
FJ_NODISCARD FJ_API fj_status fj_sdpa_create(fj_device *device, fj_direction direction,
                                             const fj_sdpa_args *args, fj_sdpa_op **ret_op, fj_error *error);
FJ_API void fj_sdpa_unref(fj_sdpa_op **op);

typedef struct fj_sdpa_info {
    fj_sdpa_backend backend;
    fj_kernel_info kernel; /* its texts live as long as the op */
} fj_sdpa_info;
FJ_API fj_sdpa_info fj_sdpa_describe(const fj_sdpa_op *op);
/* Borrowed from the op: for fj_plan_show and the like. */
FJ_API const fj_plan *fj_sdpa_plan(const fj_sdpa_op *op);

/* As fj_kernel_workspace and fj_kernel_launch. FJ_ERR_ARGUMENT: the op was made for calls of another kind. On cuda a launch only
 * puts work on the stream, and can be captured in a graph. */
FJ_NODISCARD FJ_API fj_status fj_sdpa_workspace(const fj_sdpa_op *op, const fj_sdpa_args *args,
                                                const fj_launch *launch, size_t *ret_size, fj_error *error);
FJ_NODISCARD FJ_API fj_status fj_sdpa_launch(const fj_sdpa_op *op, const fj_sdpa_args *args,
                                             const fj_launch *launch, void *workspace, size_t workspace_size,
                                             fj_error *error);

/* All of it: makes the op, allocates, launches, waits, frees. launch may be NULL. */
FJ_NODISCARD FJ_API fj_status fj_sdpa(fj_device *device, fj_direction direction, const fj_sdpa_args *args,
                                      const fj_launch *launch, fj_error *error);

#ifdef __cplusplus
}
#endif
#endif
