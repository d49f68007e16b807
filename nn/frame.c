/* The residual and the norm around a part, by blocks of rows. */
#include "nn/part.h"

static char *rows_at(const fj_nn_run *run, const void *base, int64_t width, fj_nn_block block) {
    return fj_nn_at(run, base, block.first * width);
}

const void *fj_nn_frame_before(const fj_nn_run *run, const fj_nn_frame *frame, const void *x, int64_t width,
                               fj_nn_block block) {
    if (frame->place != FJ_NN_PRE) return x;
    run->rows->norm(rows_at(run, frame->inner, width, block), rows_at(run, x, width, block), block.count,
                    width, frame->weight, frame->bias, frame->eps, rows_at(run, frame->stats, 2, block));
    return frame->inner;
}

void fj_nn_frame_after(const fj_nn_run *run, const fj_nn_frame *frame, fj_nn_affine last, const void *x,
                       void *y, void *loose, fj_nn_block block) {
    const int64_t width = last.out;
    void *sum = frame->place == FJ_NN_POST ? frame->inner : y;
    const bool drops = frame->drop.threshold > 0;
    last.ld_y = last.ld_add = width;
    last.y = rows_at(run, drops ? loose : sum, width, block);
    last.add = drops || frame->place == FJ_NN_PLAIN ? NULL : rows_at(run, x, width, block);
    fj_nn_apply(run, &last, block.count);
    if (drops) {
        char *dropped = rows_at(run, loose, width, block);
        run->rows->drop(dropped, NULL, block.first, block.count, width, &frame->drop);
        for (int64_t r = 0; r < block.count; r++) {
            const int64_t at = (block.first + r) * width;
            run->rows->fill(fj_nn_at(run, sum, at), width, 1, width, fj_nn_at(run, loose, at),
                            frame->place == FJ_NN_PLAIN ? NULL : fj_nn_at(run, x, at), width);
        }
    }
    if (frame->place == FJ_NN_POST)
        run->rows->norm(rows_at(run, y, width, block), rows_at(run, sum, width, block), block.count, width,
                        frame->weight, frame->bias, frame->eps, rows_at(run, frame->stats, 2, block));
}

/* ---- Backward ---------------------------------------------------------------------------------------------- */

fj_nn_frame_backward fj_nn_frame_take(const fj_nn_run *run, const fj_nn_frame *frame, int64_t rows,
                                      int64_t width, fj_nn_cursor *cursor) {
    fj_nn_frame_backward memory = {0};
    if (frame->place == FJ_NN_POST) memory.dsum = fj_nn_take(cursor, rows, width, run->size);
    if (frame->place == FJ_NN_PRE) memory.dnorm = fj_nn_take(cursor, rows, width, run->size);
    if (frame->place != FJ_NN_PLAIN) memory.norm = fj_nn_take_sums(run, cursor, rows, 2 * width);
    if (frame->drop.threshold > 0) memory.dloose = fj_nn_take(cursor, rows, width, run->size);
    return memory;
}

const void *fj_nn_frame_backward_after(const fj_nn_run *run, const fj_nn_frame *frame,
                                       const fj_nn_frame_backward *memory, const void *dy, int64_t width,
                                       fj_nn_block block) {
    const void *dsum = dy;
    if (frame->place == FJ_NN_POST) {
        char *sums = fj_nn_clear_sum(run, &memory->norm, block);
        run->rows->norm_backward(rows_at(run, memory->dsum, width, block), rows_at(run, dy, width, block),
                                 rows_at(run, frame->inner, width, block),
                                 rows_at(run, frame->stats, 2, block), block.count, width, frame->weight,
                                 NULL, sums, fj_nn_at(run, sums, width));
        dsum = memory->dsum;
    }
    if (frame->drop.threshold == 0) return dsum;
    char *dropped = rows_at(run, memory->dloose, width, block);
    run->rows->fill(dropped, width, block.count, width, NULL, rows_at(run, dsum, width, block), width);
    run->rows->drop(dropped, NULL, block.first, block.count, width, &frame->drop);
    return memory->dloose;
}

void *fj_nn_frame_target(const fj_nn_run *run, const fj_nn_frame *frame, const fj_nn_frame_backward *memory,
                         void *dx, int64_t width, fj_nn_block block, bool *ret_add) {
    *ret_add = frame->place == FJ_NN_POST;
    if (frame->place == FJ_NN_PRE) return memory->dnorm;
    if (frame->place == FJ_NN_POST && dx)
        run->rows->fill(rows_at(run, dx, width, block), width, block.count, width, NULL,
                        rows_at(run, memory->dsum, width, block), width);
    return dx;
}

void fj_nn_frame_backward_before(const fj_nn_run *run, const fj_nn_frame *frame,
                                 const fj_nn_frame_backward *memory, const void *x, const void *dy, void *dx,
                                 int64_t width, fj_nn_block block) {
    if (frame->place != FJ_NN_PRE) return;
    char *sums = fj_nn_clear_sum(run, &memory->norm, block),
         *dnorm = rows_at(run, memory->dnorm, width, block);
    run->rows->norm_backward(dx ? rows_at(run, dx, width, block) : dnorm, dnorm,
                             rows_at(run, x, width, block), rows_at(run, frame->stats, 2, block), block.count,
                             width, frame->weight, rows_at(run, dy, width, block), sums,
                             fj_nn_at(run, sums, width));
}

void fj_nn_frame_finish(const fj_nn_run *run, const fj_nn_frame *frame, const fj_nn_frame_backward *memory,
                        int64_t rows, int64_t width) {
    if (frame->place == FJ_NN_PLAIN) return;
    fj_nn_finish_sums(run, &memory->norm, rows, 0, width, frame->dweight);
    fj_nn_finish_sums(run, &memory->norm, rows, width, width, frame->dbias);
}
