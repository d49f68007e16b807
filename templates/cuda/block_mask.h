// Block masks that the caller hands in: what a kernel with FJ_BLOCK_MASK sees of a tile. A position is seen where its
// block is full, or is partial and the mod's mask holds; the mod is not asked elsewhere.
//
//      lines, a block of rows each      blocks of the other axis            a tile, of several lines and blocks or of
//                 +---+---+---+---+---+---+---+                             parts of them: lines 1 and 2, blocks 2 to 3
//        line 0   | P | P | F | F | F |   |   |   P [0,2)  F [2,5)          +---+---+
//        line 1   |   |   | P | F | F | P |   |   P [2,3) [5,6)  F [3,5)    | P | F |   mixed: it is partial, and each
//        line 2   |   |   |   |   | F |   |   |   F [4,5)                   |   |   |   row has bits of its own
//                 +---+---+---+---+---+---+---+                             +---+---+
//
//  1. A kernel that keeps queries walks lines of these, one that keeps keys lines of those (abi.h has both): what it
//     streams lies along the line.
//  2. Rows are those of the tensors, not positions.
//  3. Runs of a line and class ascend and do not touch: a search finds the first one of a tile.
//
// Kernels without one have no such text: the mod's mask decides.
#ifndef FJ_CUDA_BLOCK_MASK_H
#define FJ_CUDA_BLOCK_MASK_H

#include "hooks.h"

#include "identity.h"

enum fj_class { FJ_CLASS_EMPTY, FJ_CLASS_PARTIAL, FJ_CLASS_FULL, FJ_CLASS_ASKED };
static_assert(FJ_CLASS_EMPTY == 0 && FJ_CLASS_PARTIAL == 1 && FJ_CLASS_FULL == 2,
              "as fj_block_class gives them");

// Ends belong to it.
struct fj_rectangle {
    int32_t q, q_last, kv, kv_last;
};

// A row, of a head of queries.
struct fj_place {
    int32_t head, row;
};

// What a row sees of a thread's columns, a bit each: all of it, and what of it the mod's mask shows.
struct fj_seen {
    uint32_t full, partial;
};

// Whether a column is seen; asked: the mod's mask of it.
#if FJ_BLOCK_MASK
#define FJ_SHOWN(seen, bit, asked) (((seen).full & (bit)) || (((seen).partial & (bit)) && (asked)))
#else
#define FJ_SHOWN(seen, bit, asked) (asked)
#endif

FJ_DEVICE uint32_t fj_low_bits(int32_t count) { return count < 32 ? (1u << count) - 1 : ~0u; }

// Columns of a thread: bits of those less than x after the first one, x in [0, span].
template <int columns> struct fj_fragment_columns { // two neighbours of each 8, as fragments of mma have them
    enum : int32_t { span = (columns / 2 - 1) * 8 + 2 };
    FJ_METHOD static uint32_t below(int32_t x) { return fj_low_bits(x / 8 * 2 + (x % 8 < 2 ? x % 8 : 2)); }
};
template <int columns, int step> struct fj_strided_columns {
    enum : int32_t { span = (columns - 1) * step + 1 };
    FJ_METHOD static uint32_t below(int32_t x) { return fj_low_bits((x + step - 1) / step); }
};

#if FJ_BLOCK_MASK

enum { FJ_RUNS_PARTIAL, FJ_RUNS_FULL, FJ_RUNS };

// Runs of a line and class from the first one that ends past a block.
struct fj_runs {
    const struct fj_cuda_run *first;
    int32_t count;
};
FJ_DEVICE fj_runs fj_find_runs(const int64_t *starts, const struct fj_cuda_run *runs, int32_t block) {
    const struct fj_cuda_run *first = runs + starts[0];
    int32_t from = 0, to = static_cast<int32_t>(starts[1] - starts[0]);
    const int32_t end = to;
    while (from < to) {
        const int32_t middle = from + (to - from) / 2;
        if (first[middle].last <= block)
            from = middle + 1;
        else
            to = middle;
    }
    return fj_runs{first + from, end - from};
}

template <bool of_keys> FJ_DEVICE const fj_cuda_block_lines &fj_lines_of(const fj_cuda_block_mask &mask) {
    return of_keys ? mask.kv : mask.q;
}
FJ_DEVICE int64_t fj_plane_of(const fj_cuda_block_mask &mask, int32_t b, int32_t h) {
    return static_cast<int64_t>(mask.planes_b == 1 ? 0 : b) * mask.planes_h + (mask.planes_h == 1 ? 0 : h);
}

// The class of blocks [first, last] of some lines; FJ_CLASS_ASKED where all are partial: the mod knows.
FJ_CALLED int fj_class_of_lines(const int64_t *starts, const struct fj_cuda_run *runs, int32_t lines,
                                int32_t first, int32_t last) {
    int64_t seen[FJ_RUNS] = {0, 0}, all = 0;
    for (int32_t line = 0; line < lines; line++) {
        for (int kind = 0; kind < FJ_RUNS; kind++) {
            const fj_runs found = fj_find_runs(starts + 2 * static_cast<int64_t>(line) + kind, runs, first);
            for (int32_t i = 0; i < found.count && found.first[i].first <= last; i++) {
                const struct fj_cuda_run run = found.first[i];
                seen[kind] +=
                    (run.last <= last ? run.last : last + 1) - (run.first > first ? run.first : first);
            }
        }
        all += last - first + 1;
        const int64_t both = seen[FJ_RUNS_PARTIAL] + seen[FJ_RUNS_FULL];
        if (both > 0 && both < all) return FJ_CLASS_PARTIAL;
        if (FJ_HAS_MASK && seen[FJ_RUNS_PARTIAL] > 0 && seen[FJ_RUNS_FULL] > 0) return FJ_CLASS_PARTIAL;
    }
    if (seen[FJ_RUNS_PARTIAL] + seen[FJ_RUNS_FULL] == 0) return FJ_CLASS_EMPTY;
    return FJ_HAS_MASK && seen[FJ_RUNS_PARTIAL] > 0 ? FJ_CLASS_ASKED : FJ_CLASS_FULL;
}

template <bool of_keys>
FJ_DEVICE int fj_class_by_blocks(const fj_cuda_block_mask &mask, int32_t b, int32_t h,
                                 const fj_rectangle &r) {
    const fj_cuda_block_lines &lines = fj_lines_of<of_keys>(mask);
    const int32_t line = fj_divide(of_keys ? r.kv : r.q, lines.block).whole,
                  last = fj_divide(of_keys ? r.kv_last : r.q_last, lines.block).whole;
    const int32_t block = fj_lines_of<!of_keys>(mask).block;
    return fj_class_of_lines(lines.starts + 2 * (fj_plane_of(mask, b, h) * lines.lines + line), lines.runs,
                             last - line + 1, fj_divide(of_keys ? r.q : r.kv, block).whole,
                             fj_divide(of_keys ? r.q_last : r.kv_last, block).whole);
}

// The first block from this one on that is not empty in all of some lines, else INT32_MAX.
FJ_CALLED int32_t fj_next_block(const int64_t *starts, const struct fj_cuda_run *runs, int32_t lines,
                                int32_t block) {
    int32_t next = INT32_MAX;
    for (int32_t line = 0; line < lines; line++)
        for (int kind = 0; kind < FJ_RUNS; kind++) {
            const fj_runs found = fj_find_runs(starts + 2 * static_cast<int64_t>(line) + kind, runs, block);
            if (found.count > 0 && found.first->first < next) next = found.first->first;
        }
    return next > block ? next : block;
}

// The first tile of `rows` rows from this one on in which resident rows [row, last] may see something, before `end`.
template <bool of_keys>
FJ_DEVICE int32_t fj_next_tile(const fj_cuda_block_mask &mask, int32_t b, int32_t h, int32_t row,
                               int32_t last, int32_t tile, int32_t rows, int32_t end) {
    const fj_cuda_block_lines &lines = fj_lines_of<of_keys>(mask);
    const int32_t line = fj_divide(row, lines.block).whole, block = fj_lines_of<!of_keys>(mask).block;
    const int32_t next =
        fj_next_block(lines.starts + 2 * (fj_plane_of(mask, b, h) * lines.lines + line), lines.runs,
                      fj_divide(last, lines.block).whole - line + 1, fj_divide(tile * rows, block).whole);
    if (next == INT32_MAX) return end;
    const int32_t first = static_cast<int32_t>(static_cast<int64_t>(next) * block / rows);
    return first > tile ? first : tile;
}

// What a line shows of a thread's columns. first: the row of the first of them; block: rows of a block.
template <class Columns>
FJ_CALLED fj_seen fj_seen_of_line(const int64_t *starts, const struct fj_cuda_run *runs, int32_t block,
                                  int32_t first) {
    uint32_t seen[FJ_RUNS];
#pragma unroll
    for (int kind = 0; kind < FJ_RUNS; kind++) {
        const fj_runs found = fj_find_runs(starts + kind, runs, fj_divide(first, block).whole);
        seen[kind] = 0;
        for (int32_t i = 0; i < found.count; i++) {
            const int64_t from = static_cast<int64_t>(found.first[i].first) * block - first,
                          to = static_cast<int64_t>(found.first[i].last) * block - first;
            if (from >= Columns::span) break;
            seen[kind] |= Columns::below(static_cast<int32_t>(to < Columns::span ? to : Columns::span)) &
                          ~Columns::below(static_cast<int32_t>(from > 0 ? from : 0));
        }
    }
    return fj_seen{seen[FJ_RUNS_FULL], seen[FJ_RUNS_PARTIAL]};
}

#endif

// What the block mask shows of one query and one key.
FJ_DEVICE int fj_class_of_pair([[maybe_unused]] const fj_mod_args &mod, [[maybe_unused]] int32_t b,
                               [[maybe_unused]] int32_t h, [[maybe_unused]] int32_t q,
                               [[maybe_unused]] int32_t kv) {
#if FJ_BLOCK_MASK
    return fj_class_by_blocks<false>(*mod.blocks, b, h, fj_rectangle{q, q, kv, kv});
#else
    return FJ_CLASS_PARTIAL;
#endif
}

#if FJ_BLOCK_MASK

// What the block mask shows of a thread's columns in its rows, row after row; rows of one line are looked up once.
template <bool of_keys, class Columns> struct fj_looker {
    int64_t line; // of `seen`, -1: of none
    fj_seen seen;
    // first: of the columns.
    FJ_METHOD const fj_seen &look(const fj_mod_args &mod, int32_t b, const fj_place &place, int32_t first) {
        const fj_cuda_block_lines &lines = fj_lines_of<of_keys>(*mod.blocks);
        const int64_t its =
            fj_plane_of(*mod.blocks, b, place.head) * lines.lines + fj_divide(place.row, lines.block).whole;
        if (its != line)
            seen = fj_seen_of_line<Columns>(lines.starts + 2 * its, lines.runs,
                                            fj_lines_of<!of_keys>(*mod.blocks).block, first);
        line = its;
        return seen;
    }
};

// Those of a thread's columns before `end`.
template <class Columns> FJ_DEVICE uint32_t fj_columns_before(int32_t first, int32_t end) {
    const int32_t left = end - first;
    return Columns::below(left < 0 ? 0 : left < Columns::span ? left : Columns::span);
}

// bits[r]: what the mod's mask shows of a thread's columns in row r; becomes what is seen. first: of the columns; there:
// those that are. place_of(r): of row r.
template <bool of_keys, class Columns, int rows, class Place>
FJ_DEVICE void fj_show_blocks(const fj_mod_args &mod, int32_t b, int32_t first, uint32_t there,
                              uint32_t (&bits)[rows], Place place_of) {
    fj_looker<of_keys, Columns> looker = {-1, {0, 0}};
#pragma unroll
    for (int r = 0; r < rows; r++) {
        const fj_seen &seen = looker.look(mod, b, place_of(r), first);
        bits[r] = (seen.full & there) | (seen.partial & bits[r]);
    }
}

// The same for threads that ask the mod column by column.
template <bool of_keys, class Columns, int rows, class Place>
FJ_DEVICE void fj_find_seen(const fj_mod_args &mod, int32_t b, int32_t first, fj_seen (&seen)[rows],
                            Place place_of) {
    fj_looker<of_keys, Columns> looker = {-1, {0, 0}};
#pragma unroll
    for (int r = 0; r < rows; r++) seen[r] = looker.look(mod, b, place_of(r), first);
}

#endif

#endif
