// Calls whose sequences have lengths or positions of their own: a block of the grid works on one sequence, and sees a
// copy of the call that is narrowed to it. Kernels without FJ_SEQUENCES have no such text: their call is the argument.
//
//      FJ_PACKED     rows of all sequences lie one after the other
//
//          number of a block / heads:   0   1   2 | 3   4 | | 5   6   7 | none     tiles of sequence 0, 1, 2 (empty), 3
//
//      FJ_PAGED      keys in pages:     key kv is row kv % page_size of page pages[kv / page_size]; -1: not there
//      else          q_offset alone
//
//  1. The host knows bounds alone: the grid has a tile more for each sequence, and blocks past the last tile are idle.
//  2. Tensors of packed calls have batch stride 0; narrowed, their data begins with the sequence. b stays the sequence.
//  3. Rows of the workspace begin at a multiple of FJ_SEQUENCE_PAD for each sequence: floor((cu[b] + (b + 1) (pad - 1)) /
//     pad) pad. floor(x) + floor(y) <= floor(x + y): so they do not overlap.
#ifndef FJ_CUDA_SEQUENCES_H
#define FJ_CUDA_SEQUENCES_H

#include "hooks.h"

#include "shapes.h"

#if FJ_SEQUENCES

struct fj_forward_call : fj_cuda_forward {
    const int32_t *pages; // of the sequence
    int32_t page_size, page_count;
};
typedef fj_forward_call fj_own_forward;
typedef fj_cuda_backward fj_own_backward;

#else

typedef fj_cuda_forward fj_forward_call;
typedef const fj_cuda_forward &fj_own_forward;
typedef const fj_cuda_backward &fj_own_backward;

#endif

#if FJ_PACKED

// Of a block of the grid: its sequence, -1 for none; its tile in it, and how many it has.
struct fj_sequence_tile {
    int32_t b, tile, tiles;
};
// The tile with this number, of `rows` rows; a sequence has `each` of them for each row of its lengths. 32 sequences at
// a time, one per lane.
FJ_DEVICE fj_sequence_tile fj_find_sequence(const int32_t *cu, int32_t batch, int32_t number, int32_t each,
                                            int32_t rows) {
    const uint32_t lane = fj_lane();
    int32_t before = 0;
#pragma unroll 1
    for (int32_t first = 0; first < batch; first += FJ_WARP) {
        const int32_t b = first + static_cast<int32_t>(lane);
        const int32_t own = b < batch ? FJ_CEIL_DIV((cu[b + 1] - cu[b]) * each, rows) : 0;
        int32_t end = own;
#pragma unroll 1
        for (uint32_t step = 1; step < FJ_WARP; step *= 2) {
            const uint32_t other = fj_shuffle_index(static_cast<uint32_t>(end), (lane - step) % FJ_WARP);
            if (lane >= step) end += static_cast<int32_t>(other);
        }
        const uint32_t past = fj_ballot(before + end > number);
        if (past) {
            const uint32_t at = fj_popcount((past & (0u - past)) - 1);
            const int32_t tiles = static_cast<int32_t>(fj_shuffle_index(static_cast<uint32_t>(own), at));
            const int32_t last = static_cast<int32_t>(fj_shuffle_index(static_cast<uint32_t>(end), at));
            return fj_sequence_tile{first + static_cast<int32_t>(at), number - (before + last - tiles),
                                    tiles};
        }
        before += static_cast<int32_t>(fj_shuffle_index(static_cast<uint32_t>(end), FJ_WARP - 1));
    }
    return fj_sequence_tile{-1, 0, 0};
}

FJ_DEVICE void fj_skip_rows(fj_cuda_tensor &t, int64_t rows, int64_t size) {
    t.data = static_cast<char *>(t.data) + rows * t.stride[2] * size; // absent ones have strides of 0
}

#endif

// Where the rows of a sequence begin in the workspace (3.).
FJ_DEVICE int64_t fj_sequence_start(const int32_t *cu, int32_t b) {
    return FJ_SEQUENCE_ROWS(static_cast<int64_t>(cu[b]), static_cast<int64_t>(b));
}

#if FJ_SEQUENCES

enum : int64_t { FJ_IN_BYTES = FJ_IN_DTYPE == FJ_DTYPE_F64 ? 8 : FJ_IN_DTYPE == FJ_DTYPE_F32 ? 4 : 2 };

template <class Call>
FJ_DEVICE void fj_narrow_to(Call &a, const fj_cuda_sequences &s, [[maybe_unused]] int32_t b) {
    if (s.q_offset) a.q_offset += s.q_offset[b];
#if FJ_PACKED
    const int32_t q = s.cu_q[b], kv = s.cu_kv[b];
    a.q_len = s.cu_q[b + 1] - q;
    a.kv_len = s.cu_kv[b + 1] - kv;
    fj_skip_rows(a.query, q, FJ_IN_BYTES);
    fj_skip_rows(a.key, kv, FJ_IN_BYTES);
    fj_skip_rows(a.value, kv, FJ_IN_BYTES);
    fj_skip_rows(a.lse, q, sizeof(fj_real));
    fj_skip_rows(a.lse_low, q, sizeof(fj_real));
#endif
}

FJ_DEVICE fj_own_forward fj_call_of_sequence(const fj_cuda_forward &call, const fj_cuda_sequences &s,
                                             int32_t b) {
    fj_own_forward a;
    static_cast<fj_cuda_forward &>(a) = call;
    a.pages = nullptr;
    a.page_size = a.page_count = 0;
    fj_narrow_to(a, s, b);
#if FJ_PACKED
    fj_skip_rows(a.out, s.cu_q[b], FJ_PARTIAL ? static_cast<int64_t>(sizeof(fj_real)) : FJ_IN_BYTES);
    fj_skip_rows(a.max, s.cu_q[b], sizeof(fj_real));
#endif
#if FJ_PAGED
    a.kv_len = s.kv_lens[b] < call.kv_len ? s.kv_lens[b] : call.kv_len;
    a.pages = s.page_table + b * s.table_row;
    a.page_size = s.page_size;
    a.page_count = s.pages;
#endif
    return a;
}

FJ_DEVICE fj_own_backward fj_call_of_sequence(const fj_cuda_backward &call, const fj_cuda_sequences &s,
                                              int32_t b) {
    fj_own_backward a = call;
    fj_narrow_to(a, s, b);
#if FJ_PACKED
    const int64_t q = s.cu_q[b], kv = s.cu_kv[b], start = fj_sequence_start(s.cu_q, b);
    fj_skip_rows(a.out, q, FJ_IN_BYTES);
    fj_skip_rows(a.dout, q, FJ_IN_BYTES);
    fj_skip_rows(a.dlse, q, sizeof(fj_real));
    fj_skip_rows(a.dquery, q, FJ_IN_BYTES);
    fj_skip_rows(a.dkey, kv, FJ_IN_BYTES);
    fj_skip_rows(a.dvalue, kv, FJ_IN_BYTES);
    a.rows = static_cast<fj_real *>(a.rows) + start * FJ_CUDA_ROW_REALS;
    if (a.dquery_sums) a.dquery_sums += start * FJ_HEAD_PAD;
#endif
    return a;
}

#endif

// The head of a batch, as the workspace counts them.
template <class Call>
FJ_DEVICE int64_t fj_workspace_head(const Call &a, [[maybe_unused]] int32_t b, int32_t h) {
    return FJ_PACKED ? static_cast<int64_t>(h) : static_cast<int64_t>(b) * a.heads_q + h;
}
template <class Call> FJ_DEVICE int64_t fj_workspace_heads(const Call &a) {
    return FJ_PACKED ? static_cast<int64_t>(a.heads_q) : static_cast<int64_t>(a.batch) * a.heads_q;
}

// ---- Keys ------------------------------------------------------------------------------------------------

#if FJ_PAGED
// An index that no page has is that of none: what is read stays within the pages.
FJ_DEVICE bool fj_is_page(const fj_forward_call &a, int32_t page) {
    return static_cast<uint32_t>(page) < static_cast<uint32_t>(a.page_count);
}
#endif

// Where the row of a key begins, NULL: on a page that is not there.
template <class T>
FJ_DEVICE const T *fj_key_start([[maybe_unused]] const fj_forward_call &a, const fj_cuda_tensor &t, int32_t b,
                                int32_t h, int32_t kv) {
#if FJ_PAGED
    const fj_quotient at = fj_divide(kv, a.page_size);
    const int32_t page = a.pages[at.whole];
    if (!fj_is_page(a, page)) return nullptr;
    b = page;
    kv = at.rest;
#endif
    return static_cast<const T *>(t.data) + b * t.stride[0] + h * t.stride[1] + kv * t.stride[2];
}

// Whether a key before kv_len has a row.
FJ_DEVICE bool fj_key_is_there([[maybe_unused]] const fj_forward_call &a, [[maybe_unused]] int32_t kv) {
#if FJ_PAGED
    return fj_is_page(a, a.pages[fj_divide(kv, a.page_size).whole]);
#else
    return true;
#endif
}

// What keys [first, last] leave of the class of a block.
FJ_DEVICE int fj_class_of_pages([[maybe_unused]] const fj_forward_call &a, int found,
                                [[maybe_unused]] int32_t first, [[maybe_unused]] int32_t last) {
#if FJ_PAGED
    bool there = false, missing = false;
    const int32_t end = fj_divide(last, a.page_size).whole;
#pragma unroll 1
    for (int32_t i = fj_divide(first, a.page_size).whole; i <= end; i++) {
        there = there || fj_is_page(a, a.pages[i]);
        missing = missing || !fj_is_page(a, a.pages[i]);
    }
    if (!there) return 0;
    if (missing && found == 2) return 1;
#endif
    return found;
}

#endif
