/* A block mask of a mod.
 *
 *     keys ->                              An item is a strip of rows of blocks of one plane. A rectangle of a strip is
 *    +-------+---+---+------+              asked for as a whole, by intervals: what is proven empty or full is done;
 *    | full  | f | p |      |   strip      the rest is halved along its longer side, down to a block, whose elements
 *    |       |---+---| empty|              are looked at. So a mask that is decided away from lines costs their
 *    |       | p | e |      |              length and not the area.
 *    +-------+---+---+------+
 *
 * Invariants
 *  1. Rectangles of a strip come left before right: those that a row is in, in the order of their keys.
 *  2. Halves end at powers of two, in blocks from the strip's corner: they meet whole nodes of the captures' tables and of the
 *     trees of spans.
 *  3. Threads share nothing that is written: a worker's rectangles and spans are its own.
 */
#include <string.h>

#include "attn/mask/maker.h"
#include "attn/mask/spans.h"
#include "base/clock.h"
#include "driver/parallel.h"

enum { STRIP = 32 }; /* rows of blocks */

/* What the caller does alone before it wakes other threads, which may take as long. */
static const double alone_ms = 1;
enum { ALONE_TABLES = 1 << 20 }; /* keys and queries of which tables are made alone */

/* Blocks of rows [row, row_end) by columns [column, column_end) that are of one class, and not empty. */
typedef struct rectangle {
    int32_t row, row_end, column, column_end, class;
} rectangle;

/* What a worker keeps. */
typedef struct found {
    rectangle *items;
    uint32_t *sorted; /* numbers of items, by row */
    size_t count, cap, sorted_cap;
    int64_t undecided;
    fj_span_tree rows, cols; /* of the strip, of its plane */
    int64_t plane;           /* that cols is of, and 1 */
    bool failed;
} found;

typedef struct building {
    const fj_mask_maker *maker;
    const fj_allocator *allocator;
    fj_mask_shape shape;
    int32_t q_blocks, kv_blocks;
    int64_t strips; /* of a plane */
    int64_t begun;  /* items that the caller did alone */
    struct fj_cpu_mask_args args;
    fj_rows_writer *writers; /* of each item */
    found *found;            /* of each worker */
    int workers;
} building;

/* ---- Rectangles ------------------------------------------------------------------------------------- */

typedef struct plane_at {
    const building *of;
    found *found;
    int64_t b, h;
    int32_t row; /* of the strip's corner */
    int worker;
} plane_at;

static void keep(plane_at *p, rectangle of) {
    found *f = p->found;
    if (of.class == FJ_BLOCK_EMPTY || f->failed) return;
    if (f->count == f->cap) {
        const fj_allocator *allocator = p->of->allocator;
        const size_t cap = f->cap ? 2 * f->cap : 256;
        rectangle *larger =
            allocator->resize(allocator->user, f->items, f->cap * sizeof *larger, cap * sizeof *larger);
        if (!larger) {
            f->failed = true;
            return;
        }
        f->items = larger;
        f->cap = cap;
    }
    f->items[f->count++] = of;
}

/* The greatest power of two that leaves something of n > 1. */
static int32_t half(int32_t n) { return (int32_t)(1U << (31 - __builtin_clz((uint32_t)n - 1))); }

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

static void decide(plane_at *p, rectangle of) {
    const building *all = p->of;
    const fj_mask_shape *shape = &all->shape;
    const struct fj_cpu_mask *code = all->maker->code;
    const struct fj_cpu_args *args = &all->args.args;
    const int64_t q = of.row * shape->block_q, kv = of.column * shape->block_kv;
    const int64_t q_last = least(of.row_end * shape->block_q, shape->q_len) - 1;
    const int64_t kv_last = least(of.column_end * shape->block_kv, shape->kv_len) - 1;
    const int32_t rows = of.row_end - of.row, columns = of.column_end - of.column;
    of.class = code->area(args, p->b, p->h, q, q_last, kv, kv_last,
                          fj_span_tree_at(&p->found->rows, of.row - p->row, of.row_end - p->row),
                          fj_span_tree_at(&p->found->cols, of.column, of.column_end));
    if (of.class != FJ_BLOCK_PARTIAL) {
        keep(p, of);
    } else if (rows == 1 && columns == 1) {
        of.class = code->block(args, (int32_t)p->b, (int32_t)p->h, (int32_t)q, (int32_t)q_last, (int32_t)kv,
                               (int32_t)kv_last, p->worker);
        p->found->undecided++;
        keep(p, of);
    } else {
        rectangle first = of, second = of;
        if (columns >= rows)
            first.column_end = second.column = of.column + half(columns);
        else
            first.row_end = second.row = of.row + half(rows);
        decide(p, first);
        decide(p, second);
    }
}

/* ---- Strips ----------------------------------------------------------------------------------------- */

/* The numbers of the rectangles that each row is in, row by row: those of row r from starts[r] to starts[r + 1]. */
static const uint32_t *sort_by_row(found *f, int32_t row, size_t starts[STRIP + 1],
                                   const fj_allocator *allocator) {
    size_t next[STRIP] = {0};
    for (size_t i = 0; i < f->count; i++)
        for (int32_t r = f->items[i].row; r < f->items[i].row_end; r++) next[r - row]++;
    starts[0] = 0;
    for (int r = 0; r < STRIP; r++) {
        starts[r + 1] = starts[r] + next[r];
        next[r] = starts[r];
    }
    if (!f->sorted || starts[STRIP] > f->sorted_cap) {
        const size_t cap = 2 * starts[STRIP] + 64;
        uint32_t *larger = allocator->resize(allocator->user, f->sorted, f->sorted_cap * sizeof *larger,
                                             cap * sizeof *larger);
        if (!larger) return NULL;
        f->sorted = larger;
        f->sorted_cap = cap;
    }
    for (size_t i = 0; i < f->count; i++)
        for (int32_t r = f->items[i].row; r < f->items[i].row_end; r++)
            f->sorted[next[r - row]++] = (uint32_t)i;
    return f->sorted;
}

/* The rectangles of a strip as runs of its rows. */
static void write_strip(found *f, int32_t row, int32_t row_end, const fj_allocator *allocator,
                        fj_rows_writer *writer) {
    size_t starts[STRIP + 1];
    const uint32_t *sorted = sort_by_row(f, row, starts, allocator);
    if (!sorted || f->failed) {
        f->failed = true;
        return;
    }
    for (int32_t r = 0; r < row_end - row; r++) {
        for (size_t i = starts[r]; i < starts[r + 1]; i++) {
            const rectangle *of = &f->items[sorted[i]];
            fj_rows_put(writer, of->column, of->column_end, (fj_block_class)of->class);
        }
        fj_rows_end_row(writer);
    }
}

/* The spans of the strip and its plane: those of a plane's columns are made once by each worker that comes to it. */
static fj_status make_spans(plane_at *p, int64_t plane, int32_t row, int32_t row_end) {
    const building *all = p->of;
    const fj_mask_shape *shape = &all->shape;
    found *f = p->found;
    const fj_span_range rows = {p->b, p->h, row * shape->block_q,
                                least(row_end * shape->block_q, shape->q_len) - row * shape->block_q,
                                shape->block_q};
    const fj_span_range cols = {p->b, p->h, 0, shape->kv_len, shape->block_kv};
    const struct fj_cpu_mask *code = all->maker->code;
    fj_status status = fj_span_tree_make(&f->rows, all->allocator, &code->rows, &all->args.args, &rows);
    if (status == FJ_OK && f->plane != plane + 1)
        status = fj_span_tree_make(&f->cols, all->allocator, &code->cols, &all->args.args, &cols);
    f->plane = plane + 1;
    return status;
}

static void build_strip(const building *all, int64_t item, int worker) {
    const fj_mask_shape *shape = &all->shape;
    const int64_t plane = item / all->strips, strip = item % all->strips;
    plane_at p = {.of = all,
                  .found = &all->found[worker],
                  .b = plane / shape->planes_h,
                  .h = plane % shape->planes_h,
                  .row = (int32_t)(strip * STRIP),
                  .worker = worker};
    const rectangle whole = {.row = (int32_t)(strip * STRIP),
                             .row_end = (int32_t)least((strip + 1) * STRIP, all->q_blocks),
                             .column_end = all->kv_blocks};
    p.found->count = 0;
    if (make_spans(&p, plane, whole.row, whole.row_end) != FJ_OK)
        p.found->failed = true;
    else if (all->kv_blocks > 0)
        decide(&p, whole);
    write_strip(p.found, whole.row, whole.row_end, all->allocator, &all->writers[item]);
}

static void build_remaining(void *argument, int64_t item, int worker) {
    const building *all = argument;
    build_strip(all, all->begun + item, worker);
}

static void build_strips(building *all, const fj_launch *launch, int64_t items) {
    const double start = fj_now_ms();
    while (all->begun < items && fj_now_ms() - start < alone_ms) build_strip(all, all->begun++, 0);
    fj_driver_parallel(launch, all->workers, items - all->begun, build_remaining, all);
}

/* ---- The whole -------------------------------------------------------------------------------------- */

static void finish_building(building *all, int64_t items) {
    for (int64_t i = 0; all->writers && i < items; i++) fj_rows_writer_finish(&all->writers[i]);
    for (int i = 0; all->found && i < all->workers; i++) {
        const found *f = &all->found[i];
        if (f->items) fj_free(all->allocator, f->items, f->cap * sizeof *f->items);
        if (f->sorted) fj_free(all->allocator, f->sorted, f->sorted_cap * sizeof *f->sorted);
        fj_span_tree_finish(&all->found[i].rows, all->allocator);
        fj_span_tree_finish(&all->found[i].cols, all->allocator);
    }
    if (all->writers) fj_free(all->allocator, all->writers, (size_t)(items + 1) * sizeof *all->writers);
    if (all->found) fj_free(all->allocator, all->found, (size_t)all->workers * sizeof *all->found);
}

static fj_status run_strips(building *all, const fj_launch *launch, fj_block_rows *ret_rows,
                            int64_t *ret_undecided, fj_error *error) {
    const int64_t items = fj_mask_planes(&all->shape) * all->strips;
    bool failed = false;
    all->writers = fj_alloc_zeroed(all->allocator, (size_t)(items + 1) * sizeof *all->writers);
    all->found = fj_alloc_zeroed(all->allocator, (size_t)all->workers * sizeof *all->found);
    if (all->writers && all->found) {
        for (int64_t i = 0; i < items; i++) fj_rows_writer_init(&all->writers[i], all->allocator);
        build_strips(all, launch, items);
    }
    *ret_undecided = 0;
    for (int i = 0; all->found && i < all->workers; i++) {
        failed |= all->found[i].failed;
        *ret_undecided += all->found[i].undecided;
    }
    failed = failed || !all->writers || !all->found ||
             fj_rows_join(all->allocator, all->writers, (size_t)items, all->kv_blocks, ret_rows) != FJ_OK;
    finish_building(all, items);
    return failed ? fj_mask_no_memory(error) : FJ_OK;
}

/* Every row one run: a mod without a mask. */
static fj_status all_full(const fj_allocator *allocator, const fj_mask_shape *shape, fj_block_rows *ret_rows,
                          fj_error *error) {
    const int32_t columns = (int32_t)fj_mask_blocks(shape->kv_len, shape->block_kv);
    fj_rows_writer writer;
    fj_rows_writer_init(&writer, allocator);
    for (int64_t row = 0; row < fj_mask_planes(shape) * fj_mask_blocks(shape->q_len, shape->block_q); row++) {
        fj_rows_put(&writer, 0, columns, FJ_BLOCK_FULL);
        fj_rows_end_row(&writer);
    }
    return fj_rows_take(&writer, columns, ret_rows) == FJ_OK ? FJ_OK : fj_mask_no_memory(error);
}

/* ---- Inputs ----------------------------------------------------------------------------------------- */

/* The captures as validated, as the code reads them, and places for bad reads, in one piece. */
typedef struct inputs {
    char *memory;
    size_t size;
    fj_resolved resolved;
    struct fj_cpu_tensor *captures;
    struct fj_cpu_fault *faults;
} inputs;

static fj_status read_inputs(const building *all, const fj_mask_args *args, inputs *ret, fj_error *error) {
    const size_t count = all->maker->ir->captures.len;
    const size_t resolved = (fj_attn_resolve_size(&all->maker->plan) + 15) / 16 * 16;
    const size_t captures = count * sizeof(struct fj_cpu_tensor);
    *ret = (inputs){.size = resolved + captures + (size_t)all->workers * sizeof(struct fj_cpu_fault) + 16};
    ret->memory = fj_alloc_zeroed(all->allocator, ret->size);
    if (!ret->memory) return fj_mask_no_memory(error);
    ret->captures = (struct fj_cpu_tensor *)(void *)(ret->memory + resolved);
    ret->faults = (struct fj_cpu_fault *)(void *)(ret->memory + resolved + captures);
    const fj_args call = {.struct_size = sizeof call, .captures = args->captures, .scalars = args->scalars};
    const fj_status status = fj_attn_resolve_captures(&all->maker->plan, &call, all->maker->used, ret->memory,
                                                      &ret->resolved, error);
    if (status != FJ_OK) return status;
    for (size_t i = 0; i < count; i++) {
        const fj_tensor *tensor = &ret->resolved.captures[i];
        if (!all->maker->used[i]) continue;
        ret->captures[i].data = tensor->data;
        memcpy(ret->captures[i].shape, tensor->shape, sizeof tensor->shape);
        memcpy(ret->captures[i].stride, tensor->strides, sizeof tensor->strides);
    }
    return FJ_OK;
}

static fj_status build(building *all, const fj_mask_args *args, const fj_launch *launch,
                       fj_block_rows *ret_rows, int64_t *ret_undecided, fj_error *error) {
    inputs in;
    fj_mask_tables tables = {0};
    fj_status status = read_inputs(all, args, &in, error);
    const int workers = all->shape.q_len + all->shape.kv_len <= ALONE_TABLES ? 1 : all->workers;
    if (status == FJ_OK)
        status = fj_mask_tables_make(all->maker, in.resolved.captures, launch, workers, &tables, error);
    if (status == FJ_OK) {
        all->args = (struct fj_cpu_mask_args){
            .args = {.captures = in.captures,
                     .scalars = (const union fj_cpu_scalar *)(const void *)in.resolved.scalars,
                     .faults = in.faults,
                     .workers = all->workers},
            .tables = tables.tables,
        };
        status = run_strips(all, launch, ret_rows, ret_undecided, error);
    }
    if (status == FJ_OK) {
        status = fj_mask_report_fault(all->maker, in.faults, all->workers, &in.resolved, error);
        if (status != FJ_OK) fj_block_rows_finish(all->allocator, ret_rows);
    }
    fj_mask_tables_finish(all->allocator, &tables);
    if (in.memory) fj_free(all->allocator, in.memory, in.size);
    return status;
}

/* ---- The call --------------------------------------------------------------------------------------- */

static fj_status read_launch(const fj_launch *launch, fj_launch *ret_launch, int *ret_workers,
                             fj_error *error) {
    *ret_launch = (fj_launch){.struct_size = sizeof *ret_launch};
    fj_status status =
        launch ? fj_attn_read_desc(ret_launch, sizeof *ret_launch, launch, "fj_launch", error) : FJ_OK;
    if (status != FJ_OK) return status;
    const fj_executor *executor = ret_launch->executor;
    if (executor && (!executor->run || executor->workers < 1))
        return fj_error_set(error, FJ_ERR_ARGUMENT, "the executor has no run function or no workers");
    const int workers = executor ? executor->workers : ret_launch->workers;
    if (workers < 0 || workers > FJ_DRIVER_MAX_WORKERS)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "workers is %d; the limit is %d", workers,
                            FJ_DRIVER_MAX_WORKERS);
    *ret_workers = fj_driver_workers(ret_launch);
    return FJ_OK;
}

/* Alike along an axis that the mask does not read. */
static int64_t planes_of(bool is_read, int64_t extent) { return is_read ? extent : least(extent, 1); }

static fj_status read_shape(const fj_mask_maker *maker, const fj_mask_args *args, fj_mask_shape *ret_shape,
                            fj_error *error) {
    *ret_shape = (fj_mask_shape){
        .batch = args->batch,
        .heads = args->heads,
        .q_len = args->q_len,
        .kv_len = args->kv_len,
        .block_q = args->block_q,
        .block_kv = args->block_kv,
        .planes_b = planes_of(maker->reads_batch, args->batch),
        .planes_h = planes_of(maker->reads_head, args->heads),
    };
    return fj_mask_check_shape(ret_shape, FJ_MASK_BLOCK, error);
}

fj_status fj_block_mask_make(const fj_mask_maker *maker, const fj_mask_args *args, const fj_launch *launch,
                             fj_block_mask **ret_mask, fj_error *error) {
    if (!maker || !ret_mask) return fj_error_set(error, FJ_ERR_ARGUMENT, "maker or ret_mask is NULL");
    fj_mask_args call;
    fj_launch how;
    fj_block_rows rows;
    int64_t undecided = 0;
    fj_context *context = maker->device->context;
    building all = {.maker = maker, .allocator = &context->allocator};
    fj_status status = fj_attn_read_desc(&call, sizeof call, args, "fj_mask_args", error);
    if (status == FJ_OK) status = read_launch(launch, &how, &all.workers, error);
    if (status == FJ_OK) status = read_shape(maker, &call, &all.shape, error);
    if (status != FJ_OK) return status;
    all.q_blocks = (int32_t)fj_mask_blocks(all.shape.q_len, all.shape.block_q);
    all.kv_blocks = (int32_t)fj_mask_blocks(all.shape.kv_len, all.shape.block_kv);
    all.strips = (all.q_blocks + STRIP - 1) / STRIP;
    status = maker->ir ? build(&all, &call, &how, &rows, &undecided, error)
                       : all_full(all.allocator, &all.shape, &rows, error);
    fj_block_mask *mask = NULL;
    if (status == FJ_OK) status = fj_mask_create(context, &all.shape, &rows, &mask, error);
    if (status != FJ_OK) return status;
    mask->undecided = undecided;
    *ret_mask = mask;
    return FJ_OK;
}
