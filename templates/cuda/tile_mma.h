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
    static constexpr uint32_t turn(uint32_t row) { return row / (8 / span) % span; }
    static constexpr uint32_t at(uint32_t row, uint32_t chunk) {
        return row * pitch + ((chunk ^ turn(row)) << 4);
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
template <int columns, int rows, int threads, class F>
FJ_DEVICE void fj_tile_copy_rows(uint32_t to, int32_t dim, bool vector, F row_of) {
    typedef fj_tile<columns> tile;
    const uint32_t shared = fj_shared_address(fj_shared()) + to;
#pragma unroll 1
    for (uint32_t i = fj_thread_x(); i < rows * tile::chunks; i += threads) {
        const uint32_t row = i / tile::chunks, chunk = i % tile::chunks;
        const fj_raw *from = row_of(static_cast<int32_t>(row));
        const int32_t there = from ? dim - static_cast<int32_t>(chunk) * FJ_CHUNK : 0;
        if (vector) {
            const int32_t count = there < 0 ? 0 : there < FJ_CHUNK ? there : int32_t(FJ_CHUNK);
            fj_copy_async_16(shared + tile::at(row, chunk), count ? from + chunk * FJ_CHUNK : row_of(0),
                             static_cast<uint32_t>(count) * sizeof(fj_raw));
        } else {
            *fj_shared_at<fj_b128>(to + tile::at(row, chunk)) =
                fj_gather_chunk(from + chunk * FJ_CHUNK, there);
        }
    }
}

// The same, unrolled where vector holds.
template <int columns, int rows, int threads, int unroll, class F>
FJ_DEVICE void fj_tile_copy(uint32_t to, int32_t dim, bool vector, F row_of) {
    typedef fj_tile<columns> tile;
    constexpr uint32_t total = rows * tile::chunks;
    const uint32_t shared = fj_shared_address(fj_shared()) + to;
    if (!vector) {
        fj_tile_copy_rows<columns, rows, threads>(to, dim, false, row_of);
        return;
    }
#pragma unroll unroll
    for (uint32_t first = 0; first < total; first += threads) {
        const uint32_t i = first + fj_thread_x(), row = i / tile::chunks, chunk = i % tile::chunks;
        if (total % threads != 0 && i >= total) break;
        const fj_raw *from = row_of(static_cast<int32_t>(row));
        const int32_t there = from ? dim - static_cast<int32_t>(chunk) * FJ_CHUNK : 0;
        const int32_t count = there < 0 ? 0 : there < FJ_CHUNK ? there : int32_t(FJ_CHUNK);
        fj_copy_async_16(shared + tile::at(row, chunk), count ? from + chunk * FJ_CHUNK : row_of(0),
                         static_cast<uint32_t>(count) * sizeof(fj_raw));
    }
}

// Rows at a stride, of which the first `left` are there (at least one). With vector, unrolled: a thread keeps its
// chunk and goes down the rows with one pointer, since products of the stride would be kept in registers.
template <int columns, int rows, int threads>
FJ_DEVICE void fj_tile_copy(uint32_t to, int32_t dim, bool vector, const fj_raw *from, int64_t stride,
                            int32_t left) {
    typedef fj_tile<columns> tile;
    if (!vector || threads % tile::chunks != 0) {
        fj_tile_copy_rows<columns, rows, threads>(
            to, dim, vector, [&](int32_t row) { return row < left ? from + row * stride : nullptr; });
        return;
    }
    constexpr uint32_t step = threads / tile::chunks ? threads / tile::chunks : 1;
    const uint32_t shared = fj_shared_address(fj_shared()) + to;
    const uint32_t first = fj_thread_x() / tile::chunks, chunk = fj_thread_x() % tile::chunks;
    const int32_t there = dim - static_cast<int32_t>(chunk) * FJ_CHUNK;
    const uint32_t bytes = (there < 0          ? 0u
                            : there < FJ_CHUNK ? uint32_t(there)
                                               : uint32_t(FJ_CHUNK)) *
                           sizeof(fj_raw);
    const fj_raw *at = from + first * stride + chunk * FJ_CHUNK;
    const int64_t down = stride * step;
#pragma unroll
    for (uint32_t row = 0; row < rows; row += step) {
        if (rows % step != 0 && first + row >= rows) break;
        const bool live = static_cast<int32_t>(first + row) < left && bytes != 0;
        fj_copy_async_16(shared + tile::at(first + row, chunk), live ? at : from, live ? bytes : 0u);
        at += down;
    }
}

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
// Of 16-bit elements, a step is 16 deep; of float32, 8: in bytes it is the same. Each reader keeps a lane's part
// of the address; `turn` is that of its row, which is the same for all rows that are a multiple of 8 further.

// A, 16 rows x a step: rows from `row`, a tile of rows x depth.
template <int columns> struct fj_read_a {
    uint32_t base, turn;
    FJ_METHOD explicit fj_read_a(uint32_t shared, uint32_t row) {
        const uint32_t lane = fj_lane(), own = row + lane % 16;
        base = shared + own * fj_tile<columns>::pitch;
        turn = (fj_tile<columns>::turn(own) ^ (lane / 16)) << 4;
    }
    FJ_METHOD void load(uint32_t (&a)[4], uint32_t tile, uint32_t step) const {
        fj_ldmatrix_x4(a, base + tile * 16 * fj_tile<columns>::pitch + (turn ^ (step << 5)));
    }
};

// B, a step x two times 8 columns, from a tile of columns x depth: keys.
template <int columns> struct fj_read_b {
    uint32_t base, turn;
    FJ_METHOD explicit fj_read_b(uint32_t shared) {
        const uint32_t lane = fj_lane(), own = lane % 8 + lane / 16 * 8;
        base = shared + own * fj_tile<columns>::pitch;
        turn = (fj_tile<columns>::turn(own) ^ (lane / 8 % 2)) << 4;
    }
    // r[0], r[1]: columns 16 pair .. + 7; r[2], r[3]: the next 8.
    FJ_METHOD void load(uint32_t (&r)[4], uint32_t pair, uint32_t step) const {
        fj_ldmatrix_x4(r, base + pair * 16 * fj_tile<columns>::pitch + (turn ^ (step << 5)));
    }
};

// B, a step x two times 8 columns, from a tile of depth x columns: values. 16-bit elements only.
template <int columns> struct fj_read_bt {
    uint32_t base, turn;
    FJ_METHOD explicit fj_read_bt(uint32_t shared) {
        const uint32_t lane = fj_lane(), own = lane % 16;
        base = shared + own * fj_tile<columns>::pitch;
        turn = (fj_tile<columns>::turn(own) ^ (lane / 16)) << 4;
    }
    FJ_METHOD void load(uint32_t (&r)[4], uint32_t pair, uint32_t step) const {
        fj_ldmatrix_x4_t(r, base + step * 16 * fj_tile<columns>::pitch + (turn ^ (pair << 5)));
    }
};

// Turns for an even number of tiles: FJ_MOD_TURNS, or as many as divide it.
#define FJ_TILE_TURNS(tiles) ((tiles) % FJ_MOD_TURNS == 0 ? FJ_MOD_TURNS : (tiles) % 4 == 0 ? 4 : 2)

// The first `step` tiles of each row of tiles behind the others.
template <int step, int rows, int tiles> FJ_DEVICE void fj_turn_tiles(float (&c)[rows][tiles][4]) {
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
