/* The parts of a layer: attention, and the feed-forward network. Each is a function f with parameters; around it, or not, stand
 * a residual and a norm:
 *
 *     FJ_NN_PLAIN    y = f(x)
 *     FJ_NN_POST     y = norm(x + f(x))
 *     FJ_NN_PRE      y = x + f(norm(x))
 *
 * Forward keeps what backward needs in memory that is taken before: a caller that evaluates takes it from a workspace. Backward
 * takes a workspace of its own.
 */
#ifndef FJ_NN_PART_H
#define FJ_NN_PART_H

#include "nn/attend.h"

typedef enum fj_nn_place { FJ_NN_PLAIN, FJ_NN_POST, FJ_NN_PRE } fj_nn_place;

/* The norm of a part, its residual, and what is dropped in between. */
typedef struct fj_nn_frame {
    fj_nn_place place;
    const void *weight, *bias;
    void *dweight, *dbias;
    double eps;
    fj_nn_drop drop; /* of f(x), where threshold is not 0 */
    void *inner;     /* kept: POST: x + f(x); PRE: norm(x). [rows,E] */
    void *stats;     /* kept: [rows,2] */
} fj_nn_frame;

/* ---- Attention --------------------------------------------------------------------------------------------- */

/* One of up to three products that project: some of query, key and value, of one input. */
typedef struct fj_nn_projection {
    const void *weight, *bias;
    void *dweight, *dbias;
    int64_t in, out;
    int input;  /* 0 query's, 1 key's, 2 value's */
    int column; /* the first of its columns: 0 query's, 1 key's, 2 value's */
} fj_nn_projection;

typedef struct fj_nn_attn_part {
    const fj_nn_attend *attend;
    fj_nn_attention attention; /* lengths, masks, dropout; its columns are set here */
    int64_t embed, heads;
    int64_t rows_q, rows_kv;
    const void *inputs[3]; /* query [rows_q,E], key [rows_kv,.], value; key NULL: query; value NULL: key */
    int64_t widths[3];
    fj_nn_projection projections[3];
    int projection_count;
    const void *out_weight, *out_bias;
    void *dout_weight, *dout_bias;
    fj_nn_frame frame;
    void *y;
    const void *dy;
    void *dinputs[3]; /* NULL: not wanted; added to where add_dinputs */
    bool add_dinputs;
} fj_nn_attn_part;

/* Fills widths and projections. dstate: NULL: no gradients of parameters. Inputs are set before. */
void fj_nn_set_projections(const fj_nn_run *run, fj_nn_attn_part *part, const fj_mha_state *state,
                           const fj_mha_state *dstate);

/* Takes what forward writes. */
void fj_nn_attn_keep(const fj_nn_run *run, fj_nn_attn_part *part, fj_nn_cursor *cursor);
/* Counts the workspace of a direction. */
fj_status fj_nn_attn_size(const fj_nn_run *run, const fj_nn_attn_part *part, fj_direction direction,
                          fj_nn_cursor *cursor, fj_error *error);
fj_status fj_nn_attn_forward(const fj_nn_run *run, fj_nn_attn_part *part, fj_nn_cursor workspace,
                             fj_error *error);
fj_status fj_nn_attn_backward(const fj_nn_run *run, fj_nn_attn_part *part, fj_nn_cursor workspace,
                              fj_error *error);

/* ---- Feed-forward ------------------------------------------------------------------------------------------- */

typedef struct fj_nn_ff_part {
    int64_t rows, width, inner;
    fj_activation activation;
    const void *weight1, *bias1, *weight2, *bias2;
    void *dweight1, *dbias1, *dweight2, *dbias2;
    fj_nn_drop drop; /* of the activations */
    fj_nn_frame frame;
    const void *x;
    void *y;
    void *h,
        *slope; /* kept: activations and their derivatives, [rows,inner]; slope NULL: evaluation, h [workers,block,inner] */
    const void *dy;
    void *dx; /* NULL: not wanted */
} fj_nn_ff_part;

void fj_nn_ff_keep(const fj_nn_run *run, fj_nn_ff_part *part, bool training, fj_nn_cursor *cursor);
void fj_nn_ff_forward(const fj_nn_run *run, fj_nn_ff_part *part, fj_nn_cursor workspace);
/* Counts the workspace of a direction. */
void fj_nn_ff_size(const fj_nn_run *run, const fj_nn_ff_part *part, fj_direction direction,
                   fj_nn_cursor *cursor);
void fj_nn_ff_backward(const fj_nn_run *run, fj_nn_ff_part *part, fj_nn_cursor workspace);

/* ---- Of both, by blocks of rows ------------------------------------------------------------------------------ */

/* PRE: the norm of x. Gives what f reads. */
const void *fj_nn_frame_before(const fj_nn_run *run, const fj_nn_frame *frame, const void *x, int64_t width,
                               fj_nn_block block);
/* The last product of f, whose x points to the block's first row, then what the frame does with it. loose [rows,E]: where dropout has f(x); else not used. */
void fj_nn_frame_after(const fj_nn_run *run, const fj_nn_frame *frame, fj_nn_affine last, const void *x,
                       void *y, void *loose, fj_nn_block block);

/* Backward's memory of a frame. */
typedef struct fj_nn_frame_backward {
    void *dsum;   /* POST: the gradient of x + f(x). [rows,E] */
    void *dloose; /* with dropout: of f(x) before it */
    void *dnorm;  /* PRE: of norm(x) */
    fj_nn_sums norm;
} fj_nn_frame_backward;
fj_nn_frame_backward fj_nn_frame_take(const fj_nn_run *run, const fj_nn_frame *frame, int64_t rows,
                                      int64_t width, fj_nn_cursor *cursor);
/* From dy to the gradient of f(x), whose rows the block has; in whole: the gradient of x by the residual, NULL for PLAIN. */
const void *fj_nn_frame_backward_after(const fj_nn_run *run, const fj_nn_frame *frame,
                                       const fj_nn_frame_backward *memory, const void *dy, int64_t width,
                                       fj_nn_block block);
/* Where the gradient of f's input goes: then frame_backward_before makes that of x. PLAIN, POST: dx itself, in which the residual's
 * is already, so that *ret_add. */
void *fj_nn_frame_target(const fj_nn_run *run, const fj_nn_frame *frame, const fj_nn_frame_backward *memory,
                         void *dx, int64_t width, fj_nn_block block, bool *ret_add);
void fj_nn_frame_backward_before(const fj_nn_run *run, const fj_nn_frame *frame,
                                 const fj_nn_frame_backward *memory, const void *x, const void *dy, void *dx,
                                 int64_t width, fj_nn_block block);
/* The norm's gradients, once all blocks are done. */
void fj_nn_frame_finish(const fj_nn_run *run, const fj_nn_frame *frame, const fj_nn_frame_backward *memory,
                        int64_t rows, int64_t width);

#endif
