// Backward attention without tensor cores: any dtype, any dimension, any architecture, little shared memory. The
// variant that always fits, and the one that computes F32 (and F64) in full precision.
//
//              streamed rows (FJ_TILE_N)     a thread has resident rows ty, ty + TY, ... and columns tx, tx + 8, ...
//            +--------------------------+
//  resident  |  S = resident streamed^T |    for each tile that is not empty:
//    rows    |  dP, in registers,       |      for each chunk of the depth: S += resident chunk * streamed chunk
//    (FJ_    |  FJ_SIMT_DEPTH of        |      the same for dP, of the other pair of tensors
//    TILE_M) |  depth at a time         |      mod, mask, derivative; P and dS to shared memory
//            +--------------------------+      for each chunk of columns: dV += P dO, dK += dS Q
//
//      pass         resident  streamed  S from    dP from    sums
//      fj_bwd_kv    keys      queries   K, Q      V, dO      dK += dS Q, dV += P dO
//      fj_bwd_q     queries   keys      Q, K      dO, V      dQ += dS K
//
//  1. Both passes are the same text, with sides exchanged (bwd_grid.h).
//  2. P and dS of a row are written and read by the row's 8 threads, which are of one warp. Chunks are the block's: a
//     barrier stands before they are written and before they are read.
//  3. What is not there (rows, columns) is read as zero. Pitches are odd: no conflicts in columns.
#include "bwd_simt_tile.h"

#include "bwd_delta.cu"

#include "bwd_simt_recompute.h"

// ---- The kernels -------------------------------------------------------------------------------------------------

template <int chunks> FJ_DEVICE bool fj_all_finite(const fj_real (&sum)[chunks][RESIDENT][PART]) {
    fj_real none = 0; // NaN with the first that is not finite
#pragma unroll
    for (int n = 0; n < chunks * RESIDENT * PART; n++)
        none = fj_fma_rn(sum[n / PART / RESIDENT][n / PART % RESIDENT][n % PART], fj_real(0), none);
    return none == 0;
}

// After a sweep, the next one (bwd_care.h); FJ_PLAIN: what there is, is the result. Row stats were last read before
// barriers.
FJ_DEVICE int fj_next_sweep(const fj_simt &t, int how, bool bad) {
    if (how != FJ_PLAIN) return how == FJ_CLEAN ? FJ_MARK : FJ_PLAIN;
    const bool any = fj_block_any<FJ_WARPS, 1>(reinterpret_cast<uint32_t *>(t.row_stats), bad);
    fj_block_sync();
    return any ? FJ_CLEAN : FJ_PLAIN;
}

FJ_DEVICE void fj_stream_queries(const fj_backward_args &args, const fj_simt &t, int how,
                                 fj_real (&dkey)[E_CHUNKS][RESIDENT][PART],
                                 fj_real (&dvalue)[V_CHUNKS][RESIDENT][PART]) {
    const fj_cuda_backward &a = t.a;
    fj_thread_grads grads;
    fj_resident<FJ_RESIDENT_KEYS> resident;
    struct fj_head_state head;
    fj_grads_start<FJ_RESIDENT_KEYS>(args, grads, how != FJ_PLAIN);
    fj_clear(dkey);
    fj_clear(dvalue);
    fj_tile_scheduler tiles = fj_tile_start(t.at);
    for (int32_t h = -1;;) {
        const fj_streamed_tile tile = fj_tile_next<FJ_RESIDENT_KEYS>(a, t.mod, t.at, tiles);
        if (tile.is_end()) break;
        const int32_t first = tile.first();
        if (tile.head != h) {
            h = tile.head;
            fj_head_init(&t.mod, t.at.b, h, &head);
            fj_start_resident(t, head, h, resident);
        }
        fj_scores s, d;
        fj_copy_row_stats(t, h, first);
        fj_multiply_rows(t, s, a.key, t.at.head_kv, a.query, h, first, FJ_HEAD_DIM);
        fj_multiply_rows(t, d, a.value, t.at.head_kv, a.dout, h, first, FJ_VALUE_DIM);
        fj_apply(t, resident, head, h, first, tile.is_full(), s, d, grads, how);
        fj_put_probs(t, t.p, s);
        fj_put_probs(t, t.ds, d);
        fj_multiply_frag<V_CHUNKS>(t, dvalue, t.p, a.dout, h, first, FJ_VALUE_DIM, how);
        fj_multiply_frag<E_CHUNKS>(t, dkey, t.ds, a.query, h, first, FJ_HEAD_DIM, how);
        fj_grads_settle(grads);
    }
    fj_grads_end(args, grads);
}

FJ_KERNEL(fj_bwd_kv, THREADS, 1, fj_backward_args) {
    const fj_work work = fj_work_of<FJ_RESIDENT_KEYS>(args);
    if (work.is_idle()) return;
    const fj_simt t = fj_simt_of(args, work);
    const fj_cuda_backward &a = t.a;
    int how = FJ_PLAIN;
#pragma unroll 1
    do {
        fj_real dkey[E_CHUNKS][RESIDENT][PART], dvalue[V_CHUNKS][RESIDENT][PART];
        fj_stream_queries(args, t, how, dkey, dvalue);
        const bool marks = how == FJ_MARK;
        how = fj_next_sweep(t, how, !fj_all_finite(dkey) || !fj_all_finite(dvalue));
        fj_store(t, a.dkey, t.at.head_kv, dkey, FJ_HEAD_DIM, static_cast<fj_real>(a.scale), marks);
#if FJ_DROPOUT
        const fj_real value_scale = t.kept_scale;
#else
        const fj_real value_scale = 1;
#endif
        fj_store(t, a.dvalue, t.at.head_kv, dvalue, FJ_VALUE_DIM, value_scale, marks);
    } while (how != FJ_PLAIN);
}

FJ_DEVICE void fj_stream_keys(const fj_backward_args &args, const fj_simt &t, int how,
                              fj_real (&dquery)[E_CHUNKS][RESIDENT][PART]) {
    const fj_cuda_backward &a = t.a;
    fj_thread_grads grads;
    fj_resident<FJ_RESIDENT_QUERIES> resident;
    struct fj_head_state head;
    fj_grads_start<FJ_RESIDENT_QUERIES>(args, grads, how != FJ_PLAIN);
    fj_clear(dquery);
    fj_head_init(&t.mod, t.at.b, t.at.head, &head);
    fj_start_resident(t, head, resident);
    fj_tile_scheduler tiles = fj_tile_start(t.at);
    for (;;) {
        const fj_streamed_tile tile = fj_tile_next<FJ_RESIDENT_QUERIES>(a, t.mod, t.at, tiles);
        if (tile.is_end()) break;
        const int32_t first = tile.first();
        fj_scores s, d;
        fj_multiply_rows(t, s, a.query, t.at.head, a.key, t.at.head_kv, first, FJ_HEAD_DIM);
        fj_multiply_rows(t, d, a.dout, t.at.head, a.value, t.at.head_kv, first, FJ_VALUE_DIM);
        fj_apply(t, resident, head, first, tile.is_full(), s, d, grads, how);
        fj_put_probs(t, t.ds, d);
        fj_multiply_frag<E_CHUNKS>(t, dquery, t.ds, a.key, t.at.head_kv, first, FJ_HEAD_DIM, how);
        fj_grads_settle(grads);
    }
    fj_grads_end(args, grads);
}

FJ_KERNEL(fj_bwd_q, THREADS, 1, fj_backward_args) {
    const fj_work work = fj_work_of<FJ_RESIDENT_QUERIES>(args);
    if (work.is_idle()) return;
    const fj_simt t = fj_simt_of(args, work);
    const fj_cuda_backward &a = t.a;
    int how = FJ_PLAIN;
#pragma unroll 1
    do {
        fj_real dquery[E_CHUNKS][RESIDENT][PART];
        fj_stream_keys(args, t, how, dquery);
        const bool marks = how == FJ_MARK;
        how = fj_next_sweep(t, how, !fj_all_finite(dquery));
        fj_store(t, a.dquery, t.at.head, dquery, FJ_HEAD_DIM, static_cast<fj_real>(a.scale), marks);
    } while (how != FJ_PLAIN);
}
