// Which tile a block of the grid keeps, and which tiles it streams: shared by the forward and the backward kernels.
//
//                    streamed tiles, FJ_TILE_N each               columns: (batch, head)
//                 0   1   2   3   4   5   6 ...                   a group of columns at a time, so that
//              +---+---+---+---+---+---+---+                      what they stream stays in L2; in it
//     resident | F | F | P |   |   |   |   |                      tile after tile
//     tile     +---+---+---+---+---+---+---+
//                F full    P partial    ' ' empty
//
//  1. What a block of the grid computes depends on its number and the arguments alone.
//  2. Every warp finds the same classes: 32 tiles at a time, one per lane, exchanged by ballots. So no list of tiles is
//     stored, and any number of them will do. Tiles come in ascending order, head by head. With a block mask, look-ups in
//     its runs leap over what is empty for long.
//  3. A class is a proof or "partial"; a tile that is cut by the last key or the last query is never full.
#ifndef FJ_CUDA_GRID_H
#define FJ_CUDA_GRID_H

#include "hooks.h"

#include "identity.h"

#include "shapes.h"

#include "block_mask.h"

// Of a kernel's arguments: what the hooks read.
template <class T> FJ_DEVICE fj_mod_args fj_mod_of([[maybe_unused]] const T &args) {
#if FJ_BLOCK_MASK
    fj_mod_args mod = {nullptr, nullptr, &args.blocks};
#else
    fj_mod_args mod = {nullptr, nullptr};
#endif
#if FJ_CAPTURES
    mod.captures = args.captures;
#endif
#if FJ_SCALARS
    mod.scalars = args.scalars;
#endif
    return mod;
}

FJ_DEVICE int64_t fj_offset(const fj_cuda_tensor &t, int32_t b, int32_t h, int32_t row) {
    return b * t.stride[0] + h * t.stride[1] + row * t.stride[2];
}

// ---- Positions -----------------------------------------------------------------------------------------

// A query or a key past the last one has the position that the affine map gives.
template <class T> FJ_DEVICE int32_t fj_q_position(const T &a, [[maybe_unused]] int32_t b, int32_t q) {
#if FJ_POSITION_TABLE
    if (a.q_position && q < a.q_len) return a.q_position[b * a.q_position_stride + q];
#endif
    return a.q_offset + q;
}
template <class T> FJ_DEVICE int32_t fj_kv_position(const T &a, [[maybe_unused]] int32_t b, int32_t kv) {
#if FJ_POSITION_TABLE
    if (a.kv_position && kv < a.kv_len) return a.kv_position[b * a.kv_position_stride + kv];
#endif
    return a.kv_offset + kv;
}

// ---- The resident tile ---------------------------------------------------------------------------------------

struct fj_grid_tile {
    fj_quotient column; // its batch; its head, of `heads`
    int32_t tile;       // in the column
};
// number: of the block in the grid; l2_group: columns that share L2.
FJ_DEVICE fj_grid_tile fj_grid_tile_of(int32_t number, int32_t tiles, int32_t batch, int32_t heads,
                                       int32_t l2_group) {
    const int32_t columns = batch * heads, from = fj_divide(number, l2_group * tiles).whole * l2_group;
    const int32_t width = columns - from < l2_group ? columns - from : l2_group;
    const fj_quotient in_group = fj_divide(number - from * tiles, width);
    return fj_grid_tile{fj_divide(from + in_group.rest, heads), in_group.whole};
}

// ---- Streamed tiles --------------------------------------------------------------------------------------------

#if FJ_BLOCK_MASK
// What a head of queries sees of a rectangle, but for what lies past the last key or query. of_keys: of a kernel that
// keeps these.
template <bool of_keys, class T>
FJ_DEVICE int fj_rectangle_class([[maybe_unused]] const T &a, const fj_mod_args &mod, int32_t b, int32_t h,
                                 const fj_rectangle &r) {
    const int found = fj_class_by_blocks<of_keys>(*mod.blocks, b, h, r);
    if (found != FJ_CLASS_ASKED) return found;
#if FJ_HAS_MASK
    if (FJ_POSITION_TABLE && (a.q_position || a.kv_position)) return FJ_CLASS_PARTIAL;
    return fj_block_class(&mod, b, h, r.q + a.q_offset, r.q_last + a.q_offset, r.kv + a.kv_offset,
                          r.kv_last + a.kv_offset);
#else
    return FJ_CLASS_FULL;
#endif
}
#endif

enum { FJ_TILE_END = -1 };
static_assert(FJ_TILE_N % 2 == 0, "the lowest bit of a tile's first row is free");

// A tile to stream: the head of queries; its first row, plus 1 if it is full; FJ_TILE_END after the last.
struct fj_streamed_tile {
    int32_t head, tile;
    FJ_METHOD bool is_end() const { return tile == FJ_TILE_END; }
    FJ_METHOD bool is_full() const { return tile & 1; }
    FJ_METHOD int32_t first() const { return tile & ~1; }
};

struct fj_tile_scheduler {
    int32_t head, next; // the first tile that was not looked at, of a head
#if FJ_MASKED
    uint32_t live, full; // bit per tile, the last of which is next - 1; live ones are still to be taken
#endif
};

FJ_DEVICE fj_tile_scheduler fj_tile_start(int32_t head, int32_t first) {
#if FJ_MASKED
    return fj_tile_scheduler{head, first, 0, 0};
#else
    return fj_tile_scheduler{head, first};
#endif
}

struct fj_no_leap {
    FJ_METHOD int32_t operator()(int32_t, int32_t tile) const { return tile; }
};

// The next tile that is not empty, before tile `end` of each head from the first one to `head_end`; tiles of further
// heads begin at 0. class_of(head, tile): its class; without a mask it is never FJ_CLASS_EMPTY. next_of(head, tile): this
// tile or a further one, all between are empty.
#if FJ_MASKED
template <bool many_heads, class Class, class Next = fj_no_leap>
FJ_DEVICE fj_streamed_tile fj_tile_take(fj_tile_scheduler &tiles, int32_t end,
                                        [[maybe_unused]] int32_t head_end, Class class_of,
                                        [[maybe_unused]] Next next_of = {}) {
    while (!tiles.live) {
        if (tiles.next >= end) {
            if (!many_heads || tiles.head + 1 >= head_end) return fj_streamed_tile{tiles.head, FJ_TILE_END};
            tiles.head++;
            tiles.next = 0;
        }
#if FJ_BLOCK_MASK
        tiles.next = next_of(tiles.head, tiles.next);
        if (tiles.next >= end) continue;
#endif
        const int32_t tile = tiles.next + static_cast<int32_t>(fj_lane());
        const int found = tile < end ? class_of(tiles.head, tile) : FJ_CLASS_EMPTY;
        tiles.live = fj_ballot(found != FJ_CLASS_EMPTY);
        tiles.full = fj_ballot(found == FJ_CLASS_FULL);
        tiles.next += FJ_WARP;
    }
    const uint32_t lowest = tiles.live & (0u - tiles.live);
    tiles.live ^= lowest;
    const int32_t tile = tiles.next - FJ_WARP + static_cast<int32_t>(fj_popcount(lowest - 1));
    return fj_streamed_tile{tiles.head, tile * FJ_TILE_N + ((tiles.full & lowest) != 0)};
}
#else
template <bool many_heads, class Class>
FJ_DEVICE fj_streamed_tile fj_tile_take(fj_tile_scheduler &tiles, int32_t end,
                                        [[maybe_unused]] int32_t head_end, Class class_of) {
    if (tiles.next >= end) {
        if (!many_heads || tiles.head + 1 >= head_end || end == 0)
            return fj_streamed_tile{tiles.head, FJ_TILE_END};
        tiles.head++;
        tiles.next = 0;
    }
    const int32_t tile = tiles.next++;
    return fj_streamed_tile{tiles.head,
                            tile * FJ_TILE_N + (class_of(tiles.head, tile) == FJ_CLASS_FULL ? 1 : 0)};
}
#endif

#endif
