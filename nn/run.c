/* Blocks of rows on threads. */
#include "nn/run.h"

#include <string.h>

#include "driver/parallel.h"

enum {
    ALIGNMENT = 256,
    BLOCK_ROWS = 256, /* a product packs its weights once for so many rows, which fit the cache */
    ROW_STEP = 16,    /* blocks are a multiple of it: what products compute at a time */
    SLICE_ROWS = 96,  /* rows of a weight's gradient that a thread takes at least */
};

/* ---- Memory ---------------------------------------------------------------------------------------------- */

void *fj_nn_take(fj_nn_cursor *cursor, int64_t rows, int64_t width, size_t size) {
    size_t bytes, end;
    if (__builtin_mul_overflow((size_t)rows, (size_t)width, &bytes) ||
        __builtin_mul_overflow(bytes, size, &bytes) || __builtin_add_overflow(bytes, ALIGNMENT - 1, &bytes) ||
        __builtin_add_overflow(cursor->used, bytes - bytes % ALIGNMENT, &end) || end > SIZE_MAX / 2) {
        cursor->overflow = true;
        return NULL;
    }
    char *piece = cursor->base ? cursor->base + cursor->used : NULL;
    cursor->used = end;
    return piece;
}

/* ---- Threads --------------------------------------------------------------------------------------------- */

fj_status fj_nn_run_begin(fj_dtype dtype, const fj_launch *launch, fj_nn_run *ret_run, fj_error *error) {
    fj_nn_run run = {.dtype = dtype, .size = fj_dtype_size(dtype), .rows = fj_nn_rows_of(dtype)};
    if (launch) {
        if (launch->struct_size < sizeof launch->struct_size)
            return fj_error_set(error, FJ_ERR_ARGUMENT, "fj_launch: struct_size is not set");
        memcpy(&run.launch, launch,
               launch->struct_size < sizeof run.launch ? launch->struct_size : sizeof run.launch);
    }
    run.launch.struct_size = sizeof run.launch;
    const fj_executor *executor = run.launch.executor;
    if (executor && (!executor->run || executor->workers < 1))
        return fj_error_set(error, FJ_ERR_ARGUMENT, "the executor has no run function or no workers");
    const int workers = executor ? executor->workers : run.launch.workers;
    if (workers < 0 || workers > FJ_DRIVER_MAX_WORKERS)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "workers is %d; the limit is %d", workers,
                            FJ_DRIVER_MAX_WORKERS);
    run.workers = fj_driver_workers(&run.launch);
    *ret_run = run;
    return FJ_OK;
}

/* As many blocks for each thread, none above BLOCK_ROWS. */
int64_t fj_nn_block_rows(const fj_nn_run *run, int64_t rows) {
    const int64_t rounds =
        (rows + (int64_t)BLOCK_ROWS * run->workers - 1) / ((int64_t)BLOCK_ROWS * run->workers);
    const int64_t blocks = (rounds > 0 ? rounds : 1) * run->workers;
    const int64_t each = (rows + blocks - 1) / blocks;
    const int64_t stepped = (each + ROW_STEP - 1) / ROW_STEP * ROW_STEP;
    return stepped > 0 ? stepped : ROW_STEP;
}

int64_t fj_nn_block_count(const fj_nn_run *run, int64_t rows) {
    const int64_t each = fj_nn_block_rows(run, rows);
    return (rows + each - 1) / each;
}

struct over_blocks {
    const fj_nn_run *run;
    int64_t rows, each;
    void (*fn)(const fj_nn_run *run, void *arg, fj_nn_block block);
    void *arg;
};

static void run_block(void *argument, int64_t item, int worker) {
    const struct over_blocks *over = argument;
    const int64_t first = item * over->each, left = over->rows - first;
    const fj_nn_block block = {first, left < over->each ? left : over->each, item, worker};
    over->fn(over->run, over->arg, block);
}

void fj_nn_for_blocks(const fj_nn_run *run, int64_t rows,
                      void (*fn)(const fj_nn_run *run, void *arg, fj_nn_block block), void *arg) {
    struct over_blocks over = {run, rows, fj_nn_block_rows(run, rows), fn, arg};
    fj_driver_parallel(&run->launch, run->workers, fj_nn_block_count(run, rows), run_block, &over);
}

/* ---- Products with weights --------------------------------------------------------------------------------- */

void fj_nn_apply(const fj_nn_run *run, const fj_nn_affine *a, int64_t rows) {
    const bool filled = a->bias || a->add;
    /* A product that adds to what is there does not write zeros before. */
    if (filled) run->rows->fill(a->y, a->ld_y, rows, a->out, a->bias, a->add, a->ld_add);
    const fj_nn_product product = {.trans_b = true,
                                   .add = filled,
                                   .m = rows,
                                   .n = a->out,
                                   .k = a->in,
                                   .a = a->x,
                                   .b = a->weight,
                                   .c = a->y,
                                   .ld_a = a->ld_x,
                                   .ld_b = a->in,
                                   .ld_c = a->ld_y};
    fj_nn_multiply(run->dtype, &product);
}

void fj_nn_apply_transpose(const fj_nn_run *run, const fj_nn_transpose *t, fj_nn_block block) {
    const fj_nn_product product = {.add = t->add,
                                   .m = block.count,
                                   .n = t->in,
                                   .k = t->out,
                                   .a = fj_nn_at(run, t->dy, block.first * t->ld_dy),
                                   .b = t->weight,
                                   .c = fj_nn_at(run, t->dx, block.first * t->ld_dx),
                                   .ld_a = t->ld_dy,
                                   .ld_b = t->in,
                                   .ld_c = t->ld_dx};
    fj_nn_multiply(run->dtype, &product);
}

enum { MOST_OUTERS = 8 };

struct over_outers {
    const fj_nn_run *run;
    const fj_nn_outer *outers;
    int count;
    int64_t first[MOST_OUTERS + 1], each[MOST_OUTERS]; /* slices before, rows of a slice */
};

static void run_slice(void *argument, int64_t item, int worker) {
    const struct over_outers *over = argument;
    int i = 0;
    (void)worker;
    while (item >= over->first[i + 1]) i++;
    const fj_nn_outer *o = &over->outers[i];
    const int64_t at = (item - over->first[i]) * over->each[i], left = o->out - at;
    const fj_nn_product product = {.trans_a = true,
                                   .m = left < over->each[i] ? left : over->each[i],
                                   .n = o->in,
                                   .k = o->rows,
                                   .a = fj_nn_at(over->run, o->dy, at),
                                   .b = o->x,
                                   .c = fj_nn_at(over->run, o->dweight, at * o->in),
                                   .ld_a = o->ld_dy,
                                   .ld_b = o->ld_x,
                                   .ld_c = o->in};
    fj_nn_multiply(over->run->dtype, &product);
}

void fj_nn_run_outer(const fj_nn_run *run, const fj_nn_outer *outers, int count) {
    struct over_outers over = {.run = run, .outers = outers, .count = count};
    for (int i = 0; i < count; i++) {
        const int64_t out = outers[i].dweight ? outers[i].out : 0;
        int64_t each = (out + run->workers - 1) / run->workers;
        if (each < SLICE_ROWS) each = SLICE_ROWS;
        over.each[i] = (each + ROW_STEP - 1) / ROW_STEP * ROW_STEP;
        over.first[i + 1] = over.first[i] + (out + over.each[i] - 1) / over.each[i];
    }
    fj_driver_parallel(&run->launch, run->workers, over.first[count], run_slice, &over);
}

/* ---- Sums over rows ------------------------------------------------------------------------------------------ */

fj_nn_sums fj_nn_take_sums(const fj_nn_run *run, fj_nn_cursor *cursor, int64_t rows, int64_t width) {
    return (fj_nn_sums){fj_nn_take(cursor, fj_nn_block_count(run, rows), width, run->size), width};
}

void *fj_nn_clear_sum(const fj_nn_run *run, const fj_nn_sums *sums, fj_nn_block block) {
    void *partial = fj_nn_at(run, sums->partial, block.index * sums->width);
    memset(partial, 0, (size_t)sums->width * run->size);
    return partial;
}

void fj_nn_sum_rows(const fj_nn_run *run, const fj_nn_sums *sums, const void *x, int64_t ld,
                    fj_nn_block block) {
    void *partial = fj_nn_clear_sum(run, sums, block);
    run->rows->sum(partial, fj_nn_at(run, x, block.first * ld), ld, block.count, sums->width);
}

void fj_nn_finish_sums(const fj_nn_run *run, const fj_nn_sums *sums, int64_t rows, int64_t first,
                       int64_t count, void *to) {
    if (!to) return;
    memset(to, 0, (size_t)count * run->size);
    run->rows->sum(to, fj_nn_at(run, sums->partial, first), sums->width, fj_nn_block_count(run, rows), count);
}
