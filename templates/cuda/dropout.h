// Which probabilities dropout keeps: the same for every kernel and direction, by Philox 4x32-10 (base/philox.h).
//
//      counter {kv / 64 * 16 + kv % 16, q, plane, 0}   -->   words of the keys kv, kv + 16, kv + 32, kv + 48
//
//  1. Positions are those that the mod sees; a plane is a batch and a head of queries: fewer than 2^31 of them.
//  2. What is dropped is selected to 0: it adds nothing, whatever the values hold. Sums and lse are of what was before.
//  3. 1 / (1 - p) is no factor of P: outputs and dV have it once, at their end, and dP = kept ? dP / (1 - p) : 0. So
//     that the sums of dP may begin at -delta all the same, they begin at -delta (1 - p).
//  4. Decisions of a thread are bits of a word, which a loop that stays rolled makes: ten rounds are long.
#ifndef FJ_CUDA_DROPOUT_H
#define FJ_CUDA_DROPOUT_H

#include "hooks.h"

#if FJ_DROPOUT

struct fj_philox_words {
    uint32_t of[4];
};
struct fj_philox_key {
    uint32_t of[2];
};

FJ_DEVICE fj_philox_words fj_philox(fj_philox_key key, fj_philox_words counter) {
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const uint64_t a = static_cast<uint64_t>(0xD2511F53u) * counter.of[0],
                       b = static_cast<uint64_t>(0xCD9E8D57u) * counter.of[2];
        counter = fj_philox_words{
            {static_cast<uint32_t>(b >> 32) ^ counter.of[1] ^ key.of[0], static_cast<uint32_t>(b),
             static_cast<uint32_t>(a >> 32) ^ counter.of[3] ^ key.of[1], static_cast<uint32_t>(a)}};
        key.of[0] += 0x9E3779B9u;
        key.of[1] += 0xBB67AE85u;
    }
    return counter;
}

// A call's: words below `least` are dropped, and all where `some` is 0.
struct fj_dropper {
    fj_philox_key key;
    uint32_t least, some;
    // Of these positions; word kv / 16 % 4 is that of kv.
    FJ_METHOD fj_philox_words words(uint32_t plane, int32_t q, int32_t kv) const {
        const uint32_t at = static_cast<uint32_t>(kv);
        return fj_philox(key, fj_philox_words{{at / 64 * 16 + at % 16, static_cast<uint32_t>(q), plane, 0}});
    }
    FJ_METHOD bool drops_none() const { return least == 0 && some; }
    // bit: where this word keeps.
    FJ_METHOD uint32_t keeps(uint32_t word, uint32_t bit) const { return word >= least ? bit & some : 0u; }
};

FJ_DEVICE fj_dropper fj_dropper_of(const struct fj_cuda_dropout &a) {
    const uint64_t seed = a.state ? static_cast<uint64_t>(a.state[0]) : a.seed,
                   offset = a.state ? static_cast<uint64_t>(a.state[1]) : a.offset;
    const fj_philox_words words = fj_philox(
        fj_philox_key{{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)}},
        fj_philox_words{{static_cast<uint32_t>(offset), static_cast<uint32_t>(offset >> 32), 0, 0}});
    return fj_dropper{
        {{words.of[0], words.of[1]}}, static_cast<uint32_t>(a.threshold), a.threshold >> 32 ? 0u : ~0u};
}

template <class Call> FJ_DEVICE uint32_t fj_dropout_plane(const Call &a, int32_t b, int32_t h) {
    return static_cast<uint32_t>(b) * static_cast<uint32_t>(a.heads_q) + static_cast<uint32_t>(h);
}

FJ_DEVICE uint32_t fj_word_of(const fj_philox_words &words, uint32_t which) {
    const uint32_t low = which & 1 ? words.of[1] : words.of[0], high = which & 1 ? words.of[3] : words.of[2];
    return which & 2 ? high : low;
}

// One position.
FJ_CALLED bool fj_is_kept(fj_dropper dropper, uint32_t plane, int32_t q, int32_t kv) {
    const uint32_t word = fj_word_of(dropper.words(plane, q, kv), static_cast<uint32_t>(kv) / 16 % 4);
    return dropper.keeps(word, 1u) != 0;
}

struct fj_drop_row {
    uint32_t plane;
    int32_t q;
};

// ---- Fragments ---------------------------------------------------------------------------------------------

template <int rows> FJ_DEVICE void fj_keep_all(uint32_t (&keep)[rows]) {
#pragma unroll
    for (int r = 0; r < rows; r++) keep[r] = ~0u;
}

// A thread has of each 16 keys columns 2t, 2t + 1, 2t + 8 and 2t + 9 of several queries: column j is j / 4 * 16 further
// than j % 4. keep[r]: bit j says whether row r keeps column j. shared: columns j, j + 4, ... that one counter serves;
// with more than 1, the position of column 0 less its place among the 16 is a multiple of 16 * shared.
template <int shared, int columns, int rows, class Position, class Row>
FJ_DEVICE void fj_keep_columns_by(const fj_dropper &dropper, uint32_t (&keep)[rows], Position position_of,
                                  Row row_of) {
#pragma unroll
    for (int r = 0; r < rows; r++) keep[r] = 0;
#pragma unroll 1
    for (int i = 0; i < columns / shared; i++) {
        const int j = i / 4 * 4 * shared + i % 4;
        const int32_t kv = position_of(j);
        const uint32_t first = shared == 4 ? 0 : static_cast<uint32_t>(kv) / 16 % 4;
#pragma unroll
        for (int r = 0; r < rows; r++) {
            const fj_drop_row row = row_of(r);
            const fj_philox_words words = dropper.words(row.plane, row.q, kv);
#pragma unroll
            for (int n = 0; n < shared; n++)
                keep[r] |=
                    dropper.keeps(fj_word_of(words, first + static_cast<uint32_t>(n)), 1u << (j + 4 * n));
        }
    }
}

// first: the position of the first of the columns' 4 * columns keys; affine: the others follow it.
template <int columns, int rows, class Position, class Row>
FJ_DEVICE void fj_keep_columns(const fj_dropper &dropper, int32_t first, bool affine, uint32_t (&keep)[rows],
                               Position position_of, Row row_of) {
    constexpr int keys = 4 * columns, shared = keys % 64 == 0 ? 4 : keys % 32 == 0 ? 2 : 1;
    if (dropper.drops_none())
        fj_keep_all(keep);
    else if (shared > 1 && affine && first % (16 * shared) == 0)
        fj_keep_columns_by<shared, columns>(dropper, keep, position_of, row_of);
    else
        fj_keep_columns_by<1, columns>(dropper, keep, position_of, row_of);
}

// The same where rows are keys, 16 * tiles of them of which a thread has rows lane / 4 and + 8 of each 16, and columns
// queries.
template <int shared, int columns, int rows, class Position, class Row>
FJ_DEVICE void fj_keep_rows_by(const fj_dropper &dropper, uint32_t (&keep)[rows], Position position_of,
                               Row query_of) {
#pragma unroll
    for (int r = 0; r < rows; r++) keep[r] = 0;
#pragma unroll 1
    for (int j = 0; j < columns; j++) {
        const fj_drop_row query = query_of(j);
#pragma unroll
        for (int r = 0; r < rows / shared; r++) {
            const int32_t kv = position_of(r);
            const uint32_t first = static_cast<uint32_t>(kv) / 16 % 4;
            const fj_philox_words words = dropper.words(query.plane, query.q, kv);
#pragma unroll
            for (int n = 0; n < shared; n++)
                keep[r + 2 * n] |=
                    dropper.keeps(fj_word_of(words, first + static_cast<uint32_t>(n)), 1u << j);
        }
    }
}

template <int columns, int rows, class Position, class Row>
FJ_DEVICE void fj_keep_rows(const fj_dropper &dropper, int32_t first, bool affine, uint32_t (&keep)[rows],
                            Position position_of, Row query_of) {
    constexpr int shared = rows == 4 ? 2 : 1;
    if (dropper.drops_none())
        fj_keep_all(keep);
    else if (shared > 1 && affine && first % (16 * shared) == 0)
        fj_keep_rows_by<shared, columns>(dropper, keep, position_of, query_of);
    else
        fj_keep_rows_by<1, columns>(dropper, keep, position_of, query_of);
}

#endif

#endif
