/* Rows of blocks, compressed to runs: what a block mask is made of.
 *
 *     blocks of a row   . . # # # + . + +        . empty   + partial   # full
 *     its partial runs              [5,6) [7,9)
 *     its full runs         [2,5)
 *
 * Invariants
 *  1. The runs of a row and a class ascend, are not empty, and do not touch each other.
 *  2. Runs of one class are disjoint from those of the other. What is in none is empty.
 *  3. Row r: its partial runs are runs[starts[2r] .. starts[2r+1]), its full ones runs[starts[2r+1] .. starts[2r+2]).
 */
#ifndef FJ_ATTN_MASK_ROWS_H
#define FJ_ATTN_MASK_ROWS_H

#include "expr/ir/ir.h"

typedef struct fj_block_run {
    int32_t first, last; /* blocks [first, last) */
} fj_block_run;

typedef struct fj_block_rows {
    int64_t count;   /* rows, of all planes */
    int32_t columns; /* blocks of a row */
    int64_t *starts; /* 2 * count + 1 */
    fj_block_run *runs;
} fj_block_rows;

void fj_block_rows_finish(const fj_allocator *allocator, fj_block_rows *rows);
size_t fj_block_rows_bytes(const fj_block_rows *rows);
/* Number of blocks of a class, FJ_BLOCK_PARTIAL or FJ_BLOCK_FULL, in rows [row, end). */
int64_t fj_block_rows_count(const fj_block_rows *rows, int64_t row, int64_t end, fj_block_class class);
/* Rows and columns exchanged, in each of the planes, of `height` rows. Costs runs and changes between rows, not blocks.
 * FJ_ERR_MEMORY. */
fj_status fj_block_rows_transpose(const fj_allocator *allocator, const fj_block_rows *rows, int64_t planes,
                                  int32_t height, fj_block_rows *ret_columns);
bool fj_block_rows_equal(const fj_block_rows *a, const fj_block_rows *b);

/* ---- Reading a row ------------------------------------------------------------------------------ */

/* Walks a row from left to right, empty stretches included. */
typedef struct fj_row_cursor {
    const fj_block_run *next[2], *end[2]; /* partial, full */
    int32_t columns;
} fj_row_cursor;

static inline fj_row_cursor fj_row_begin(const fj_block_rows *rows, int64_t row) {
    const int64_t *starts = rows->starts + 2 * row;
    return (fj_row_cursor){
        .next = {rows->runs + starts[0], rows->runs + starts[1]},
        .end = {rows->runs + starts[1], rows->runs + starts[2]},
        .columns = rows->columns,
    };
}

/* What block `at` is, and where the stretch of its class ends. `at` may not decrease between calls. */
static inline fj_block_class fj_row_stretch(fj_row_cursor *cursor, int32_t at, int32_t *ret_end) {
    int32_t end = cursor->columns;
    for (int k = 0; k < 2; k++) {
        while (cursor->next[k] < cursor->end[k] && cursor->next[k]->last <= at) cursor->next[k]++;
        if (cursor->next[k] == cursor->end[k]) continue;
        if (cursor->next[k]->first <= at) {
            *ret_end = cursor->next[k]->last;
            return k == 0 ? FJ_BLOCK_PARTIAL : FJ_BLOCK_FULL;
        }
        if (cursor->next[k]->first < end) end = cursor->next[k]->first;
    }
    *ret_end = end;
    return FJ_BLOCK_EMPTY;
}

/* ---- Writing rows --------------------------------------------------------------------------------- */

/* The failure flag is sticky: write everything, fj_rows_take looks at the end. */
typedef struct fj_rows_writer {
    const fj_allocator *allocator;
    fj_block_run *runs, *full; /* full: of the row at work */
    int64_t *starts;
    size_t run_count, run_cap, full_count, full_cap, start_count, start_cap;
    bool failed;
} fj_rows_writer;

void fj_rows_writer_init(fj_rows_writer *writer, const fj_allocator *allocator);
void fj_rows_writer_finish(fj_rows_writer *writer);
/* Blocks [first, last) of the row at work, right of what it has. Touching stretches of one class become one run. */
void fj_rows_put(fj_rows_writer *writer, int32_t first, int32_t last, fj_block_class class);
void fj_rows_end_row(fj_rows_writer *writer);
/* All rows that were ended; the writer is finished, whatever the status. FJ_ERR_MEMORY. */
fj_status fj_rows_take(fj_rows_writer *writer, int32_t columns, fj_block_rows *ret_rows);
/* The rows of several writers, one after the other; they stay. FJ_ERR_MEMORY, also when one of them failed. */
fj_status fj_rows_join(const fj_allocator *allocator, const fj_rows_writer *writers, size_t count,
                       int32_t columns, fj_block_rows *ret_rows);

#endif
