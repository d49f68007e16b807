/* The feed-forward network: y = activation(x W1^T + b1) W2^T + b2, in its frame.
 *
 * Forward is one pass over blocks of rows: both products, activation, residual and norm. Backward is another one, then the
 * gradients of the weights.
 */
#include "nn/part.h"

static bool drops(const fj_nn_drop *drop) { return drop->threshold > 0; }

void fj_nn_ff_keep(const fj_nn_run *run, fj_nn_ff_part *part, bool training, fj_nn_cursor *cursor) {
    const int64_t block_rows = fj_nn_block_rows(run, part->rows);
    fj_nn_frame *frame = &part->frame;
    part->h = training ? fj_nn_take(cursor, part->rows, part->inner, run->size)
                       : fj_nn_take(cursor, run->workers * block_rows, part->inner, run->size);
    part->slope = training ? fj_nn_take(cursor, part->rows, part->inner, run->size) : NULL;
    if (frame->place == FJ_NN_PLAIN) return;
    frame->inner = fj_nn_take(cursor, part->rows, part->width, run->size);
    frame->stats = fj_nn_take(cursor, part->rows, 2, run->size);
}

/* ---- Forward ----------------------------------------------------------------------------------------------- */

struct forward {
    const fj_nn_ff_part *part;
    void *loose;
};

static void forward_block(const fj_nn_run *run, void *arg, fj_nn_block block) {
    const struct forward *f = arg;
    const fj_nn_ff_part *p = f->part;
    const bool training = p->slope;
    const void *x = fj_nn_frame_before(run, &p->frame, p->x, p->width, block);
    /* In evaluation a block's activations lie in the memory of its worker. */
    const int64_t block_rows = fj_nn_block_rows(run, p->rows);
    char *h = fj_nn_at(run, p->h, (training ? block.first : block.worker * block_rows) * p->inner);
    const fj_nn_affine first = {.x = fj_nn_at(run, x, block.first * p->width),
                                .weight = p->weight1,
                                .bias = p->bias1,
                                .y = h,
                                .ld_x = p->width,
                                .ld_y = p->inner,
                                .in = p->width,
                                .out = p->inner};
    fj_nn_apply(run, &first, block.count);
    char *slope = training ? fj_nn_at(run, p->slope, block.first * p->inner) : NULL;
    const int64_t count = block.count * p->inner;
    if (p->activation == FJ_ACTIVATION_GELU)
        run->rows->gelu(h, slope, count);
    else
        run->rows->relu(h, slope, count);
    if (drops(&p->drop)) run->rows->drop(h, slope, block.first, block.count, p->inner, &p->drop);
    const fj_nn_affine last = {
        .x = h, .weight = p->weight2, .bias = p->bias2, .ld_x = p->inner, .in = p->inner, .out = p->width};
    fj_nn_frame_after(run, &p->frame, last, p->x, p->y, f->loose, block);
}

static void *take_loose(const fj_nn_run *run, const fj_nn_ff_part *part, fj_nn_cursor *cursor) {
    return drops(&part->frame.drop) ? fj_nn_take(cursor, part->rows, part->width, run->size) : NULL;
}

void fj_nn_ff_forward(const fj_nn_run *run, fj_nn_ff_part *part, fj_nn_cursor workspace) {
    struct forward forward = {part, take_loose(run, part, &workspace)};
    fj_nn_for_blocks(run, part->rows, forward_block, &forward);
}

/* ---- Backward ---------------------------------------------------------------------------------------------- */

struct backward {
    const fj_nn_ff_part *part;
    fj_nn_frame_backward frame;
    void *dh;
    fj_nn_sums bias1, bias2;
    const void *df; /* the same for all blocks */
};

static struct backward take_backward(const fj_nn_run *run, const fj_nn_ff_part *part, fj_nn_cursor *cursor) {
    struct backward b = {.part = part};
    b.frame = fj_nn_frame_take(run, &part->frame, part->rows, part->width, cursor);
    b.dh = fj_nn_take(cursor, part->rows, part->inner, run->size);
    b.bias1 = fj_nn_take_sums(run, cursor, part->rows, part->inner);
    b.bias2 = fj_nn_take_sums(run, cursor, part->rows, part->width);
    b.df = drops(&part->frame.drop)        ? b.frame.dloose
         : part->frame.place == FJ_NN_POST ? b.frame.dsum
                                           : part->dy;
    return b;
}

void fj_nn_ff_size(const fj_nn_run *run, const fj_nn_ff_part *part, fj_direction direction,
                   fj_nn_cursor *cursor) {
    if (direction == FJ_FORWARD)
        (void)take_loose(run, part, cursor);
    else
        (void)take_backward(run, part, cursor);
}

static void backward_block(const fj_nn_run *run, void *arg, fj_nn_block block) {
    const struct backward *b = arg;
    const fj_nn_ff_part *p = b->part;
    const void *df = fj_nn_frame_backward_after(run, &p->frame, &b->frame, p->dy, p->width, block);
    const fj_nn_transpose to_h = {.dy = df,
                                  .weight = p->weight2,
                                  .dx = b->dh,
                                  .ld_dy = p->width,
                                  .ld_dx = p->inner,
                                  .in = p->inner,
                                  .out = p->width};
    fj_nn_apply_transpose(run, &to_h, block);
    run->rows->multiply(fj_nn_at(run, b->dh, block.first * p->inner),
                        fj_nn_at(run, p->slope, block.first * p->inner), block.count * p->inner);
    fj_nn_sum_rows(run, &b->bias2, df, p->width, block);
    fj_nn_sum_rows(run, &b->bias1, b->dh, p->inner, block);
    bool add;
    void *target = fj_nn_frame_target(run, &p->frame, &b->frame, p->dx, p->width, block, &add);
    if (!target) return;
    const fj_nn_transpose to_x = {.dy = b->dh,
                                  .weight = p->weight1,
                                  .dx = target,
                                  .ld_dy = p->inner,
                                  .ld_dx = p->width,
                                  .in = p->width,
                                  .out = p->inner,
                                  .add = add};
    fj_nn_apply_transpose(run, &to_x, block);
    fj_nn_frame_backward_before(run, &p->frame, &b->frame, p->x, p->dy, p->dx, p->width, block);
}

void fj_nn_ff_backward(const fj_nn_run *run, fj_nn_ff_part *part, fj_nn_cursor workspace) {
    struct backward b = take_backward(run, part, &workspace);
    fj_nn_for_blocks(run, part->rows, backward_block, &b);
    fj_nn_frame_finish(run, &part->frame, &b.frame, part->rows, part->width);
    fj_nn_finish_sums(run, &b.bias1, part->rows, 0, part->inner, part->dbias1);
    fj_nn_finish_sums(run, &b.bias2, part->rows, 0, part->width, part->dbias2);
    const fj_nn_outer outers[] = {
        {.dy = b.dh,
         .x = part->frame.place == FJ_NN_PRE ? part->frame.inner : part->x,
         .dweight = part->dweight1,
         .ld_dy = part->inner,
         .ld_x = part->width,
         .in = part->width,
         .out = part->inner,
         .rows = part->rows},
        {.dy = b.df,
         .x = part->h,
         .dweight = part->dweight2,
         .ld_dy = part->width,
         .ld_x = part->inner,
         .in = part->inner,
         .out = part->width,
         .rows = part->rows},
    };
    fj_nn_run_outer(run, outers, FJ_ARRAY_LEN(outers));
}
