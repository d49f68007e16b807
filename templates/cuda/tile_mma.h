// Matrices of 16-bit elements, or of float32 (FJ_IN_DTYPE), in shared memory, as tensor cores read them.
//
// A tile has rows of `columns` elements, a multiple of 16, without gaps. Its 16-byte chunks are permuted within
// a row so that the 8 rows that one matrix of 8 rows x 16 bytes is read from lie in 8 different groups of banks:
//
//      chunks of a row    chunk c of row r lies at
//      8 k                c ^ (r % 8)
//      4 (2k+1)           c ^ (r / 2 % 4)
//      2 (2k+1)           c ^ (r / 4 % 2)
//
//  1. (r * chunks + place) % 8 takes all 8 values over any 8 rows from a multiple of 8, for a fixed c.
//  2. The permutation keeps a chunk within its aligned group of 8, 4 or 2: it is one XOR of the address.
//  3. Rows that are not there, and columns between the dimension and its padding, are zero: no NaN of a
//     neighbour is ever multiplied, not even by zero.
#ifndef FJ_CUDA_TILE_MMA_H
#define FJ_CUDA_TILE_MMA_H

#include "hooks.h"

#if FJ_IN_DTYPE == FJ_DTYPE_F32
typedef uint32_t fj_raw; // the bits of an element
#else
typedef uint16_t fj_raw;
#endif
enum { FJ_CHUNK = 16 / sizeof(fj_raw) }; // elements

#if FJ_IN_DTYPE == FJ_DTYPE_BF16
#define FJ_MMA fj_mma_m16n8k16_bf16
#define FJ_PACK2 fj_bf16x2_from_f32
#else
#define FJ_MMA fj_mma_m16n8k16_f16
#define FJ_PACK2 fj_f16x2_from_f32
#endif

template <int columns> struct fj_tile {
    static_assert(columns % 16 == 0, "columns of a tile");
    enum : uint32_t { // pitch: bytes of a row; span: chunks that are permuted among themselves
        pitch = columns * sizeof(fj_raw),
        chunks = columns / FJ_CHUNK,
        span = chunks % 8 == 0 ? 8
             : chunks % 4 == 0 ? 4
                               : 2
    };
    // The XOR of a row, in chunks.
    static constexpr uint32_t swizzle(uint32_t row) { return row / (8 / span) % span; }
    static constexpr uint32_t at(uint32_t row, uint32_t chunk) {
        return row * pitch + ((chunk ^ swizzle(row)) << 4);
    }
};

// ---- From global memory ------------------------------------------------------------------------------------

// A chunk, of which `count` elements are there, one at a time.
FJ_DEVICE fj_b128 fj_gather_chunk(const fj_raw *from, int32_t count) {
    fj_b128 chunk = {{0, 0, 0, 0}};
    constexpr int32_t each = 4 / sizeof(fj_raw);
#pragma unroll
    for (int32_t i = 0; i < FJ_CHUNK; i++)
        if (i < count) chunk.r[i / each] |= static_cast<uint32_t>(from[i]) << (i % each * 16);
    return chunk;
}

// Rows come from any place: row_of(row) gives a row's first element, or NULL for one that is not there. Copies
// into the tile at byte `to` of shared memory, asynchronously where vector holds. A loop that stays rolled.
// any: an address for copies of nothing.
template <int columns, int rows, int threads, class F, class G>
FJ_DEVICE void fj_tile_copy_rows(uint32_t to, int32_t dim, bool vector, F row_of, G any) {
    typedef fj_tile<columns> tile;
    const uint32_t shared = fj_shared_address(fj_shared()) + to;
#pragma unroll 1
    for (uint32_t i = fj_thread_x(); i < rows * tile::chunks; i += threads) {
        const uint32_t row = i / tile::chunks, chunk = i % tile::chunks;
        const fj_raw *from = row_of(static_cast<int32_t>(row));
        const int32_t there = from ? dim - static_cast<int32_t>(chunk) * FJ_CHUNK : 0;
        if (vector) {
            const int32_t count = there < 0 ? 0 : there < FJ_CHUNK ? there : int32_t(FJ_CHUNK);
            fj_copy_async_16(shared + tile::at(row, chunk), count ? from + chunk * FJ_CHUNK : any(),
                             static_cast<uint32_t>(count) * sizeof(fj_raw));
        } else {
            *fj_shared_at<fj_b128>(to + tile::at(row, chunk)) =
                fj_gather_chunk(from + chunk * FJ_CHUNK, there);
        }
    }
}
template <int columns, int rows, int threads, class F>
FJ_DEVICE void fj_tile_copy_rows(uint32_t to, int32_t dim, bool vector, F row_of) {
    fj_tile_copy_rows<columns, rows, threads>(to, dim, vector, row_of, [&] { return row_of(0); });
}

// Rows at a stride, `rows` at a time, again and again: a thread keeps its chunk, of every row that is a multiple of
// `step` further, and the address of the first of them.
template <int columns, int rows, int threads> struct fj_copier {
    typedef fj_tile<columns> tile;
    enum : uint32_t { step = threads / tile::chunks ? threads / tile::chunks : 1 };
    enum : bool { even = threads % tile::chunks == 0 && rows % step == 0 }; // every thread has as many chunks
    const fj_raw *own;

    FJ_METHOD static uint32_t row() { return fj_thread_x() / tile::chunks; }
    FJ_METHOD static uint32_t chunk() { return fj_thread_x() % tile::chunks; }
    FJ_METHOD static int64_t skip(int64_t stride) { return row() * stride + chunk() * FJ_CHUNK; }
    FJ_METHOD explicit fj_copier(const fj_raw *from, int64_t stride) : own(from + skip(stride)) {}

    // Rows from `first`, of which `left` are there (at least one), into the tile at byte `to`. All but the last rows
    // of a tensor are copied without a comparison.
    FJ_METHOD void send(uint32_t to, int32_t dim, bool vector, int64_t stride, int32_t first,
                        int32_t left) const {
        const fj_raw *at = own + static_cast<uint32_t>(first) * stride;
        if (!vector || threads < tile::chunks || left < rows) {
            const fj_raw *from = at - skip(stride);
            fj_tile_copy_rows<columns, rows, threads>(
                to, dim, vector, [&](int32_t i) { return i < left ? from + i * stride : nullptr; });
            return;
        }
        const int32_t there = dim - static_cast<int32_t>(chunk()) * FJ_CHUNK;
        const uint32_t bytes = dim == columns || there >= FJ_CHUNK ? 16u
                             : there < 0                           ? 0u
                                                                   : uint32_t(there) * sizeof(fj_raw);
        const uint32_t shared = fj_shared_address(fj_shared()) + to;
#pragma unroll
        for (uint32_t i = 0; i < rows; i += step) {
            if (!even && (row() >= step || i + row() >= rows)) break;
            // Rows a multiple of 8 further are swizzled alike.
            const uint32_t place =
                step % 8 == 0 ? tile::at(row(), chunk()) + i * tile::pitch : tile::at(i + row(), chunk());
            fj_copy_async_16(shared + place, at, bytes);
            at += stride * step;
        }
    }
};

// The first `left` elements of a chunk, to global memory.
FJ_DEVICE void fj_put_chunk(fj_raw *to, fj_b128 chunk, int32_t left, bool vector) {
    if (vector && left >= FJ_CHUNK) {
        fj_store_b128(to, chunk);
        return;
    }
    constexpr int32_t each = 4 / sizeof(fj_raw);
#pragma unroll
    for (int32_t i = 0; i < FJ_CHUNK; i++)
        if (i < left) to[i] = static_cast<fj_raw>(chunk.r[i / each] >> (i % each * 16));
}

// ---- Fragments ---------------------------------------------------------------------------------------------
//
// Of 16-bit elements, a step is 16 deep; of float32, 8: in bytes it is the same, two chunks. A tile lies at a multiple
// of its span, and the permutation of a row is that of all rows a multiple of 8 further: so a reader is one register.

template <int columns> struct fj_reader {
    uint32_t base;
    // Chunk 0 or 1 of a lane's own row; `swizzle` is the XOR that the row and this choice make, in chunks.
    FJ_METHOD explicit fj_reader(uint32_t shared, uint32_t own, uint32_t swizzle)
        : base(shared + own * fj_tile<columns>::pitch + (swizzle << 4)) {}
    // Rows further down, a multiple of 8, and steps to the right: what passes the span is added, the rest is XORed.
    FJ_METHOD uint32_t at(uint32_t rows, uint32_t step) const {
        constexpr uint32_t within = fj_tile<columns>::span * 16 - 1;
        return (base ^ (step * 32 & within)) + (step * 32 & ~within) + rows * fj_tile<columns>::pitch;
    }
};

// A, 16 rows x a step: rows from `row`, a tile of rows x depth.
template <int columns> struct fj_read_a : fj_reader<columns> {
    FJ_METHOD explicit fj_read_a(uint32_t shared, uint32_t row)
        : fj_read_a(shared, fj_lane(), row + fj_lane() % 16) {}
    FJ_METHOD explicit fj_read_a(uint32_t shared, uint32_t lane, uint32_t own)
        : fj_reader<columns>(shared, own, (fj_tile<columns>::swizzle(own) ^ (lane / 16))) {}
    FJ_METHOD void load(uint32_t (&a)[4], uint32_t tile, uint32_t step) const {
        fj_ldmatrix_x4(a, this->at(tile * 16, step));
    }
};

// B, a step x two times 8 columns, from a tile of columns x depth: keys.
template <int columns> struct fj_read_b : fj_reader<columns> {
    FJ_METHOD explicit fj_read_b(uint32_t shared)
        : fj_read_b(shared, fj_lane(), fj_lane() % 8 + fj_lane() / 16 * 8) {}
    FJ_METHOD explicit fj_read_b(uint32_t shared, uint32_t lane, uint32_t own)
        : fj_reader<columns>(shared, own, (fj_tile<columns>::swizzle(own) ^ (lane / 8 % 2))) {}
    // r[0], r[1]: columns 16 pair .. + 7; r[2], r[3]: the next 8.
    FJ_METHOD void load(uint32_t (&r)[4], uint32_t pair, uint32_t step) const {
        fj_ldmatrix_x4(r, this->at(pair * 16, step));
    }
};

// B, a step x two times 8 columns, from a tile of depth x columns: values. 16-bit elements only.
template <int columns> struct fj_read_bt : fj_reader<columns> {
    FJ_METHOD explicit fj_read_bt(uint32_t shared) : fj_read_bt(shared, fj_lane(), fj_lane() % 16) {}
    FJ_METHOD explicit fj_read_bt(uint32_t shared, uint32_t lane, uint32_t own)
        : fj_reader<columns>(shared, own, (fj_tile<columns>::swizzle(own) ^ (lane / 16))) {}
    FJ_METHOD void load(uint32_t (&r)[4], uint32_t pair, uint32_t step) const {
        fj_ldmatrix_x4_t(r, this->at(step * 16, pair));
    }
};

// Whether a product with this element may be no number: it is not finite or, in float32, rounds to infinity as TF32, as
// all do from 2^128 (1 - 2^-12) on. Where no row sees it, it must not show.
FJ_DEVICE bool fj_is_bad_element(uint32_t raw) {
#if FJ_IN_DTYPE == FJ_DTYPE_F32
    return (raw & 0x7fffffffu) >= 0x7f7ff000u;
#elif FJ_IN_DTYPE == FJ_DTYPE_BF16
    return (raw & 0x7f80u) == 0x7f80u;
#else
    return (raw & 0x7c00u) == 0x7c00u;
#endif
}

// Turns for an even number of tiles: FJ_MOD_CHUNKS, or as many as divide it.
#define FJ_TILE_CHUNKS(tiles) ((tiles) % FJ_MOD_CHUNKS == 0 ? FJ_MOD_CHUNKS : (tiles) % 4 == 0 ? 4 : 2)

// The first `step` tiles of each row of tiles behind the others.
template <int step, int rows, int tiles> FJ_DEVICE void fj_rotate_tiles(float (&c)[rows][tiles][4]) {
#pragma unroll
    for (int i = 0; i < rows * 4; i++) {
        float first[step];
#pragma unroll
        for (int j = 0; j < step; j++) first[j] = c[i / 4][j][i % 4];
#pragma unroll
        for (int j = 0; j < tiles; j++)
            c[i / 4][j][i % 4] = j + step < tiles ? c[i / 4][j + step < tiles ? j + step : 0][i % 4]
                                                  : first[j + step < tiles ? 0 : j + step - tiles];
    }
}

#endif
