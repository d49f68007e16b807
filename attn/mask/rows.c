/* Rows of blocks: writing, counting, exchanging rows and columns. */
#include "attn/mask/rows.h"

#include <string.h>

/* ---- Memory ---------------------------------------------------------------------------------------- */

static int64_t run_total(const fj_block_rows *rows) {
    return rows->starts ? rows->starts[2 * rows->count] : 0;
}

static size_t starts_size(int64_t count) { return (size_t)(2 * count + 1) * sizeof(int64_t); }

/* One run more than there are: an allocation is never empty. */
static size_t runs_size(int64_t count) { return (size_t)(count + 1) * sizeof(fj_block_run); }

void fj_block_rows_finish(const fj_allocator *allocator, fj_block_rows *rows) {
    if (rows->runs) fj_free(allocator, rows->runs, runs_size(run_total(rows)));
    if (rows->starts) fj_free(allocator, rows->starts, starts_size(rows->count));
    *rows = (fj_block_rows){0};
}

size_t fj_block_rows_bytes(const fj_block_rows *rows) {
    return starts_size(rows->count) + runs_size(run_total(rows));
}

/* Memory for so many rows and runs; starts are zero. */
static fj_status allocate(const fj_allocator *allocator, int64_t count, int64_t runs, int32_t columns,
                          fj_block_rows *ret_rows) {
    fj_block_rows rows = {.count = count, .columns = columns};
    rows.starts = fj_alloc_zeroed(allocator, starts_size(count));
    rows.runs = rows.starts ? fj_alloc(allocator, runs_size(runs)) : NULL;
    if (!rows.runs) {
        if (rows.starts) fj_free(allocator, rows.starts, starts_size(count));
        return FJ_ERR_MEMORY;
    }
    rows.starts[2 * count] = runs;
    *ret_rows = rows;
    return FJ_OK;
}

int64_t fj_block_rows_count(const fj_block_rows *rows, int64_t row, int64_t end, fj_block_class class) {
    int64_t blocks = 0;
    for (const int64_t which = class == FJ_BLOCK_FULL; row < end; row++) {
        const int64_t *starts = rows->starts + 2 * row + which;
        for (int64_t i = starts[0]; i < starts[1]; i++) blocks += rows->runs[i].last - rows->runs[i].first;
    }
    return blocks;
}

bool fj_block_rows_equal(const fj_block_rows *a, const fj_block_rows *b) {
    if (a->count != b->count || a->columns != b->columns) return false;
    if (memcmp(a->starts, b->starts, starts_size(a->count)) != 0) return false;
    return memcmp(a->runs, b->runs, (size_t)run_total(a) * sizeof *a->runs) == 0;
}

/* ---- Writing --------------------------------------------------------------------------------------- */

void fj_rows_writer_init(fj_rows_writer *writer, const fj_allocator *allocator) {
    *writer = (fj_rows_writer){.allocator = allocator};
}

static void drop(const fj_rows_writer *writer, void *array, size_t size) {
    if (array) fj_free(writer->allocator, array, size);
}

void fj_rows_writer_finish(fj_rows_writer *writer) {
    drop(writer, writer->runs, writer->run_cap * sizeof *writer->runs);
    drop(writer, writer->full, writer->full_cap * sizeof *writer->full);
    drop(writer, writer->starts, writer->start_cap * sizeof *writer->starts);
    *writer = (fj_rows_writer){.allocator = writer->allocator, .failed = writer->failed};
}

/* Room for one element more. */
static void *grow(fj_rows_writer *writer, void *array, size_t element, size_t count, size_t *cap) {
    if (count < *cap) return array;
    const size_t wanted = *cap ? 2 * *cap : 64;
    void *larger =
        writer->allocator->resize(writer->allocator->user, array, *cap * element, wanted * element);
    if (!larger) {
        writer->failed = true;
        return array;
    }
    *cap = wanted;
    return larger;
}

static void put_start(fj_rows_writer *writer) {
    writer->starts =
        grow(writer, writer->starts, sizeof *writer->starts, writer->start_count, &writer->start_cap);
    if (!writer->failed) writer->starts[writer->start_count++] = (int64_t)writer->run_count;
}

static void put_run(fj_rows_writer *writer, fj_block_run run) {
    writer->runs = grow(writer, writer->runs, sizeof *writer->runs, writer->run_count, &writer->run_cap);
    if (!writer->failed) writer->runs[writer->run_count++] = run;
}

void fj_rows_put(fj_rows_writer *writer, int32_t first, int32_t last, fj_block_class class) {
    if (class == FJ_BLOCK_EMPTY || first >= last || writer->failed) return;
    if (writer->start_count == 0) put_start(writer);
    if (writer->failed) return;
    if (class == FJ_BLOCK_PARTIAL) {
        const size_t row = (size_t)writer->starts[writer->start_count - 1];
        if (writer->run_count > row && writer->runs[writer->run_count - 1].last == first)
            writer->runs[writer->run_count - 1].last = last;
        else
            put_run(writer, (fj_block_run){first, last});
        return;
    }
    if (writer->full_count > 0 && writer->full[writer->full_count - 1].last == first) {
        writer->full[writer->full_count - 1].last = last;
        return;
    }
    writer->full = grow(writer, writer->full, sizeof *writer->full, writer->full_count, &writer->full_cap);
    if (!writer->failed) writer->full[writer->full_count++] = (fj_block_run){first, last};
}

void fj_rows_end_row(fj_rows_writer *writer) {
    if (writer->start_count == 0) put_start(writer);
    put_start(writer);
    for (size_t i = 0; i < writer->full_count; i++) put_run(writer, writer->full[i]);
    writer->full_count = 0;
    put_start(writer);
}

fj_status fj_rows_join(const fj_allocator *allocator, const fj_rows_writer *writers, size_t count,
                       int32_t columns, fj_block_rows *ret_rows) {
    int64_t rows = 0, runs = 0;
    for (size_t i = 0; i < count; i++) {
        if (writers[i].failed) return FJ_ERR_MEMORY;
        if (writers[i].start_count == 0) continue;
        rows += (int64_t)writers[i].start_count / 2;
        runs += (int64_t)writers[i].run_count;
    }
    fj_block_rows joined;
    const fj_status status = allocate(allocator, rows, runs, columns, &joined);
    if (status != FJ_OK) return status;
    int64_t *to = joined.starts;
    fj_block_run *run = joined.runs;
    for (size_t i = 0; i < count; i++) {
        const int64_t before = run - joined.runs;
        for (size_t s = 0; s < writers[i].start_count; s++) to[s] = before + writers[i].starts[s];
        if (writers[i].start_count > 0) to += writers[i].start_count - 1;
        if (writers[i].run_count > 0) memcpy(run, writers[i].runs, writers[i].run_count * sizeof *run);
        run += writers[i].run_count;
    }
    *ret_rows = joined;
    return FJ_OK;
}

fj_status fj_rows_take(fj_rows_writer *writer, int32_t columns, fj_block_rows *ret_rows) {
    const fj_status status = fj_rows_join(writer->allocator, writer, 1, columns, ret_rows);
    fj_rows_writer_finish(writer);
    return status;
}

/* ---- Rows and columns exchanged --------------------------------------------------------------------- */

/* Of each column: the run that is open, and, for each class, the number of its runs or where the next one goes. */
typedef struct column {
    int32_t since;
    int32_t class; /* fj_block_class */
    int64_t runs[2];
} column;

typedef struct transposition {
    const fj_block_rows *rows;
    int32_t height;
    column *columns;       /* of one plane */
    fj_block_run *written; /* NULL: runs are counted */
} transposition;

static void change(const transposition *t, column *of, int32_t row, fj_block_class class) {
    if (of->class != FJ_BLOCK_EMPTY) {
        int64_t *at = &of->runs[of->class == FJ_BLOCK_FULL];
        if (t->written) t->written[*at] = (fj_block_run){of->since, row};
        ++*at;
    }
    of->class = (int32_t) class;
    of->since = row;
}

/* Only where a row differs from the one above do columns change. */
static void walk_plane(const transposition *t, int64_t plane) {
    const int32_t width = t->rows->columns;
    for (int32_t row = 0; row < t->height; row++) {
        fj_row_cursor cursor = fj_row_begin(t->rows, plane * t->height + row), above = {.columns = width};
        if (row > 0) above = fj_row_begin(t->rows, plane * t->height + row - 1);
        for (int32_t at = 0, end = 0, end_above = 0; at < width; at = end) {
            const fj_block_class class = fj_row_stretch(&cursor, at, &end);
            const fj_block_class was = fj_row_stretch(&above, at, &end_above);
            if (end_above < end) end = end_above;
            for (int32_t c = at; class != was && c < end; c++) change(t, &t->columns[c], row, class);
        }
    }
    for (int32_t c = 0; c < width; c++) change(t, &t->columns[c], t->height, FJ_BLOCK_EMPTY);
}

static void count_plane(const transposition *t, int64_t plane, int64_t *starts) {
    memset(t->columns, 0, (size_t)t->rows->columns * sizeof *t->columns);
    walk_plane(t, plane);
    for (int32_t c = 0; c < t->rows->columns; c++) {
        int64_t *to = starts + 2 * (plane * t->rows->columns + c);
        to[0] = t->columns[c].runs[0];
        to[1] = t->columns[c].runs[1];
    }
}

static void write_plane(const transposition *t, int64_t plane, const int64_t *starts) {
    for (int32_t c = 0; c < t->rows->columns; c++) {
        const int64_t *from = starts + 2 * (plane * t->rows->columns + c);
        t->columns[c] = (column){.runs = {from[0], from[1]}};
    }
    walk_plane(t, plane);
}

static fj_status transpose(const fj_allocator *allocator, transposition *t, int64_t planes,
                           fj_block_rows *ret_columns) {
    const int64_t count = planes * t->rows->columns;
    int64_t *starts = fj_alloc_zeroed(allocator, starts_size(count)), runs = 0;
    if (!starts) return FJ_ERR_MEMORY;
    for (int64_t plane = 0; plane < planes; plane++) count_plane(t, plane, starts);
    for (int64_t i = 0; i <= 2 * count; i++) {
        const int64_t here = starts[i];
        starts[i] = runs;
        runs += here;
    }
    fj_block_rows columns;
    fj_status status = allocate(allocator, count, runs, t->height, &columns);
    if (status == FJ_OK) {
        memcpy(columns.starts, starts, starts_size(count));
        t->written = columns.runs;
        for (int64_t plane = 0; plane < planes; plane++) write_plane(t, plane, starts);
        *ret_columns = columns;
    }
    fj_free(allocator, starts, starts_size(count));
    return status;
}

fj_status fj_block_rows_transpose(const fj_allocator *allocator, const fj_block_rows *rows, int64_t planes,
                                  int32_t height, fj_block_rows *ret_columns) {
    const size_t size = ((size_t)rows->columns + 1) * sizeof(column);
    transposition t = {.rows = rows, .height = height, .columns = fj_alloc_zeroed(allocator, size)};
    if (!t.columns) return FJ_ERR_MEMORY;
    const fj_status status = transpose(allocator, &t, planes, ret_columns);
    fj_free(allocator, t.columns, size);
    return status;
}
