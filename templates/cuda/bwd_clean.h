// bwd_care.h for bwd_mma: tiles without what is not finite, and marks of it.
#ifndef FJ_CUDA_BWD_CLEAN_H
#define FJ_CUDA_BWD_CLEAN_H

#include "bwd_care.h"

#include "bwd_tile.h"

// How a block sweeps. resident: its keys are not all finite, of FUSED, where they multiply dS too: then the first sweep
// adds nothing to dQ, and the others do.
struct fj_caring {
    int how; // enum fj_care
    bool resident;
    FJ_METHOD bool adds() const { return resident == (how != FJ_PLAIN); }
};

// An element: its bits, those of the exponent, of 1 and of a NaN.
enum : uint32_t {
    FJ_ELEMENT_BITS = 8 * sizeof(fj_raw),
    FJ_ELEMENT = FJ_ELEMENT_BITS == 16 ? 0xffffu : ~0u,
    FJ_EXPONENT = FJ_IN_DTYPE == FJ_DTYPE_F32  ? 0x7f800000u
                : FJ_IN_DTYPE == FJ_DTYPE_BF16 ? 0x7f80u
                                               : 0x7c00u,
    FJ_ONE = FJ_IN_DTYPE == FJ_DTYPE_F32  ? 0x3f800000u
           : FJ_IN_DTYPE == FJ_DTYPE_BF16 ? 0x3f80u
                                          : 0x3c00u,
    FJ_NOT_A_NUMBER = FJ_EXPONENT | FJ_EXPONENT >> 1
};

// A word of elements, of which bad ones (fj_is_bad_element) become 0, or 1 where others become 0.
FJ_DEVICE uint32_t fj_clean_word(uint32_t word, bool mark) {
#pragma unroll
    for (uint32_t shift = 0; shift < 32; shift += FJ_ELEMENT_BITS) {
        const bool bad = fj_is_bad_element(word >> shift);
        if (bad || mark) word &= ~(FJ_ELEMENT << shift);
        if (bad && mark) word |= FJ_ONE << shift;
    }
    return word;
}

// Of bytes of shared memory, a multiple of 16, between barriers.
FJ_DEVICE void fj_clean(uint32_t from, uint32_t bytes, bool mark) {
    fj_block_sync();
#pragma unroll 1
    for (uint32_t at = fj_thread_x() * 16; at < bytes; at += THREADS * 16) {
        fj_b128 *chunk = fj_shared_at<fj_b128>(from + at);
        fj_b128 x = *chunk;
#pragma unroll
        for (int i = 0; i < 4; i++) x.r[i] = fj_clean_word(x.r[i], mark);
        *chunk = x;
    }
    fj_block_sync();
}

// NaN where the first `left` elements of a chunk are not 0.
FJ_DEVICE void fj_put_marks(fj_raw *to, const fj_b128 &chunk, int32_t left) {
    constexpr int32_t each = 4 / sizeof(fj_raw);
#pragma unroll
    for (int32_t i = 0; i < FJ_CHUNK; i++) {
        const uint32_t bits = chunk.r[i / each] >> (i % each * 16) & FJ_ELEMENT;
        if (i < left && bits) to[i] = static_cast<fj_raw>(FJ_NOT_A_NUMBER);
    }
}

template <int pairs> FJ_DEVICE bool fj_all_finite(const fj_sums<pairs> &sum) {
    float none = 0; // NaN with the first that is not finite
#pragma unroll
    for (int n = 0; n < ROW_TILES * 2 * pairs * 4; n++)
        none = fj_fma_rn(sum.c[n / 4 / (2 * pairs)][n / 4 % (2 * pairs)][n % 4], 0.0f, none);
    return none == 0;
}

// In place of row stats that are of no use between sweeps.
FJ_DEVICE bool fj_block_any(bool vote) {
    static_assert(FJ_WARPS <= FJ_TILE_N / 2, "a gap for each warp");
    return fj_block_any<FJ_WARPS, 8>(fj_shared_at<uint32_t>(ROW_STATS + 24), vote);
}

// After sweep 0: whether the results have to be made with care. In any case behind a barrier: resident and streamed
// rows have been read, their place is free.
FJ_DEVICE bool fj_needs_care(fj_caring &care, bool bad) {
    if (care.how != FJ_PLAIN) {
        fj_block_sync();
        return false;
    }
    if (!fj_block_any(bad || care.resident)) return false;
    fj_block_sync();
    care.how = FJ_CLEAN;
    return true;
}
// After sweep 1 comes sweep 2.
FJ_DEVICE bool fj_has_to_mark(fj_caring &care) {
    if (care.how != FJ_CLEAN) return false;
    fj_block_sync();
    care.how = FJ_MARK;
    return true;
}

#if FUSED
// Resident keys have arrived, and are looked at.
FJ_DEVICE void fj_check_resident(fj_caring &care) {
    if (care.how != FJ_PLAIN) return;
    bool bad = false;
    fj_copy_async_commit();
    fj_copy_async_wait<0>();
    fj_block_sync();
#pragma unroll 1
    for (uint32_t at = fj_thread_x() * 4; at < RESIDENT_QK_BYTES; at += THREADS * 4) {
        const uint32_t word = *fj_shared_at<uint32_t>(at);
        bad |= fj_clean_word(word, false) != word;
    }
    care.resident = fj_block_any(bad);
    fj_block_sync();
}
#endif

#endif
