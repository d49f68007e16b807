/* Multi-head attention: projections, attention, and the output's product, in its frame.
 *
 * The projections of one input lie side by side, [rows,E] of query, key and value as far as they have the same input, and are
 * one product where their weights do too. Attention reads them as they lie; backward writes the gradients in the same way.
 */
#include "nn/part.h"

/* ---- Projections --------------------------------------------------------------------------------------------- */

/* 0 query's, 1 key's, 2 value's, of the column's input. */
static int input_of(const fj_nn_attn_part *part, int column) {
    while (column > 0 && !part->inputs[column]) column--;
    return column;
}

static int64_t rows_of(const fj_nn_attn_part *part, int input) {
    return input == 0 ? part->rows_q : part->rows_kv;
}

/* Columns that have this input: they follow each other. */
static int columns_of(const fj_nn_attn_part *part, int input) {
    int count = 0;
    for (int column = 0; column < 3; column++) count += input_of(part, column) == input;
    return count;
}

static const void *offset(const fj_nn_run *run, const void *base, int64_t index) {
    return base ? fj_nn_at(run, base, index) : NULL;
}

void fj_nn_set_projections(const fj_nn_run *run, fj_nn_attn_part *part, const fj_mha_state *state,
                           const fj_mha_state *dstate) {
    const fj_mha_state none = {0}, *d = dstate ? dstate : &none;
    const fj_linear *const separate[] = {&state->q, &state->k, &state->v}, *const dseparate[] = {&d->q, &d->k,
                                                                                                 &d->v};
    const int64_t e = part->embed;
    const bool packed = state->in.weight;
    part->projection_count = 0;
    for (int column = 0; column < 3; column++) {
        const int input = input_of(part, column);
        const int count = packed ? columns_of(part, input) : 1;
        if (packed && input != column) continue; /* with the column before */
        part->projections[part->projection_count++] = (fj_nn_projection){
            .weight = packed ? offset(run, fj_nn_data(state->in.weight), column * e * e)
                             : fj_nn_data(separate[column]->weight),
            .bias = state->in.bias ? offset(run, fj_nn_data(state->in.bias), column * e)
                                   : fj_nn_data(separate[column]->bias),
            .dweight = (void *)(uintptr_t)(packed ? offset(run, fj_nn_data(d->in.weight), column * e * e)
                                                  : fj_nn_data(dseparate[column]->weight)),
            .dbias = (void *)(uintptr_t)(state->in.bias ? offset(run, fj_nn_data(d->in.bias), column * e)
                                                        : fj_nn_data(dseparate[column]->bias)),
            .in = part->widths[column],
            .out = count * e,
            .input = input,
            .column = column,
        };
    }
    part->out_weight = fj_nn_data(state->out.weight);
    part->out_bias = fj_nn_data(state->out.bias);
    part->dout_weight = fj_nn_data(d->out.weight);
    part->dout_bias = fj_nn_data(d->out.bias);
}

/* The three columns: of the projections, or of their gradients. */
static void take_columns(const fj_nn_run *run, const fj_nn_attn_part *part, fj_nn_cursor *cursor,
                         fj_nn_columns columns[3]) {
    for (int column = 0; column < 3; column++) {
        const int input = input_of(part, column);
        const int64_t ld = columns_of(part, input) * part->embed;
        void *data = input == column
                       ? fj_nn_take(cursor, rows_of(part, input), ld, run->size)
                       : (void *)(uintptr_t)offset(run, columns[input].data, (column - input) * part->embed);
        columns[column] = (fj_nn_columns){data, ld};
    }
}

void fj_nn_attn_keep(const fj_nn_run *run, fj_nn_attn_part *part, fj_nn_cursor *cursor) {
    fj_nn_attention *a = &part->attention;
    fj_nn_frame *frame = &part->frame;
    fj_nn_columns columns[3];
    take_columns(run, part, cursor, columns);
    a->q = columns[0];
    a->k = columns[1];
    a->v = columns[2];
    a->out = (fj_nn_columns){fj_nn_take(cursor, part->rows_q, part->embed, run->size), part->embed};
    a->lse = fj_nn_take(cursor, part->rows_q, part->heads, run->size);
    if (frame->place == FJ_NN_PLAIN) return;
    frame->inner = fj_nn_take(cursor, part->rows_q, part->embed, run->size);
    frame->stats = fj_nn_take(cursor, part->rows_q, 2, run->size);
}

/* ---- Forward ----------------------------------------------------------------------------------------------- */

struct forward {
    const fj_nn_attn_part *part;
    void *loose, *workspace;
    size_t size;
    int input;
};

static const fj_nn_columns *column_of(const fj_nn_attn_part *part, int column) {
    const fj_nn_attention *a = &part->attention;
    return column == 0 ? &a->q : column == 1 ? &a->k : &a->v;
}

static void project_block(const fj_nn_run *run, void *arg, fj_nn_block block) {
    const struct forward *f = arg;
    const fj_nn_attn_part *p = f->part;
    const void *x = p->inputs[f->input];
    if (f->input == 0) x = fj_nn_frame_before(run, &p->frame, x, p->embed, block);
    for (int i = 0; i < p->projection_count; i++) {
        const fj_nn_projection *to = &p->projections[i];
        const fj_nn_columns *columns = column_of(p, to->column);
        if (to->input != f->input) continue;
        const fj_nn_affine affine = {.x = fj_nn_at(run, x, block.first * to->in),
                                     .weight = to->weight,
                                     .bias = to->bias,
                                     .y = fj_nn_at(run, columns->data, block.first * columns->ld),
                                     .ld_x = to->in,
                                     .ld_y = columns->ld,
                                     .in = to->in,
                                     .out = to->out};
        fj_nn_apply(run, &affine, block.count);
    }
}

static void out_block(const fj_nn_run *run, void *arg, fj_nn_block block) {
    const struct forward *f = arg;
    const fj_nn_attn_part *p = f->part;
    const fj_nn_affine last = {.x = fj_nn_at(run, p->attention.out.data, block.first * p->embed),
                               .weight = p->out_weight,
                               .bias = p->out_bias,
                               .ld_x = p->embed,
                               .in = p->embed,
                               .out = p->embed};
    fj_nn_frame_after(run, &p->frame, last, p->inputs[0], p->y, f->loose, block);
}

static fj_status take_forward(const fj_nn_run *run, const fj_nn_attn_part *part, fj_nn_cursor *cursor,
                              struct forward *ret, fj_error *error) {
    *ret = (struct forward){.part = part};
    if (part->frame.drop.threshold > 0) ret->loose = fj_nn_take(cursor, part->rows_q, part->embed, run->size);
    return fj_nn_attend_take(part->attend, run, &part->attention, FJ_FORWARD, cursor, &ret->workspace,
                             &ret->size, error);
}

fj_status fj_nn_attn_forward(const fj_nn_run *run, fj_nn_attn_part *part, fj_nn_cursor workspace,
                             fj_error *error) {
    struct forward f;
    fj_status status = take_forward(run, part, &workspace, &f, error);
    if (status != FJ_OK) return status;
    for (f.input = 0; f.input < 3; f.input++)
        if (part->inputs[f.input]) fj_nn_for_blocks(run, rows_of(part, f.input), project_block, &f);
    status = fj_nn_attend_run(part->attend, run, &part->attention, FJ_FORWARD, f.workspace, f.size, error);
    if (status != FJ_OK) return status;
    fj_nn_for_blocks(run, part->rows_q, out_block, &f);
    return FJ_OK;
}

/* ---- Backward ---------------------------------------------------------------------------------------------- */

struct backward {
    const fj_nn_attn_part *part;
    fj_nn_attention attention;
    fj_nn_frame_backward frame;
    const void *df; /* the gradient of the output's product */
    void *workspace;
    size_t size;
    fj_nn_columns gradients[3];
    fj_nn_sums biases[3]; /* of projections */
    fj_nn_sums out_bias;
    int input;
};

static fj_status take_backward(const fj_nn_run *run, const fj_nn_attn_part *part, fj_nn_cursor *cursor,
                               struct backward *ret, fj_error *error) {
    struct backward b = {.part = part, .attention = part->attention};
    const fj_nn_frame *frame = &part->frame;
    b.frame = fj_nn_frame_take(run, frame, part->rows_q, part->embed, cursor);
    b.df = frame->drop.threshold > 0 ? b.frame.dloose : frame->place == FJ_NN_POST ? b.frame.dsum : part->dy;
    b.attention.dout = (fj_nn_columns){fj_nn_take(cursor, part->rows_q, part->embed, run->size), part->embed};
    take_columns(run, part, cursor, b.gradients);
    b.attention.dq = b.gradients[0];
    b.attention.dk = b.gradients[1];
    b.attention.dv = b.gradients[2];
    for (int i = 0; i < part->projection_count; i++) {
        const fj_nn_projection *of = &part->projections[i];
        b.biases[i] = fj_nn_take_sums(run, cursor, rows_of(part, of->input), of->out);
    }
    b.out_bias = fj_nn_take_sums(run, cursor, part->rows_q, part->embed);
    const fj_status status =
        fj_nn_attend_take(part->attend, run, &b.attention, FJ_BACKWARD, cursor, &b.workspace, &b.size, error);
    *ret = b;
    return status;
}

fj_status fj_nn_attn_size(const fj_nn_run *run, const fj_nn_attn_part *part, fj_direction direction,
                          fj_nn_cursor *cursor, fj_error *error) {
    struct forward forward;
    struct backward backward;
    return direction == FJ_FORWARD ? take_forward(run, part, cursor, &forward, error)
                                   : take_backward(run, part, cursor, &backward, error);
}

static void out_backward_block(const fj_nn_run *run, void *arg, fj_nn_block block) {
    const struct backward *b = arg;
    const fj_nn_attn_part *p = b->part;
    const void *df = fj_nn_frame_backward_after(run, &p->frame, &b->frame, p->dy, p->embed, block);
    const fj_nn_transpose transpose = {.dy = df,
                                       .weight = p->out_weight,
                                       .dx = b->attention.dout.data,
                                       .ld_dy = p->embed,
                                       .ld_dx = p->embed,
                                       .in = p->embed,
                                       .out = p->embed};
    fj_nn_apply_transpose(run, &transpose, block);
    fj_nn_sum_rows(run, &b->out_bias, df, p->embed, block);
}

/* From the gradients of an input's projections to its own. */
static void project_backward_block(const fj_nn_run *run, void *arg, fj_nn_block block) {
    const struct backward *b = arg;
    const fj_nn_attn_part *p = b->part;
    void *target = p->dinputs[b->input];
    bool add = p->add_dinputs;
    if (b->input == 0)
        target = fj_nn_frame_target(run, &p->frame, &b->frame, p->dinputs[0], p->embed, block, &add);
    for (int i = 0; i < p->projection_count; i++) {
        const fj_nn_projection *of = &p->projections[i];
        const fj_nn_columns *columns = &b->gradients[of->column];
        if (of->input != b->input) continue;
        fj_nn_sum_rows(run, &b->biases[i], columns->data, columns->ld, block);
        if (!target) continue;
        const fj_nn_transpose transpose = {.dy = columns->data,
                                           .weight = of->weight,
                                           .dx = target,
                                           .ld_dy = columns->ld,
                                           .ld_dx = of->in,
                                           .in = of->in,
                                           .out = of->out,
                                           .add = add};
        fj_nn_apply_transpose(run, &transpose, block);
        add = true;
    }
    if (b->input == 0)
        fj_nn_frame_backward_before(run, &p->frame, &b->frame, p->inputs[0], p->dy, p->dinputs[0], p->embed,
                                    block);
}

static void finish_parameters(const fj_nn_run *run, const struct backward *b) {
    const fj_nn_attn_part *p = b->part;
    fj_nn_outer outers[4] = {{.dy = b->df,
                              .x = p->attention.out.data,
                              .dweight = p->dout_weight,
                              .ld_dy = p->embed,
                              .ld_x = p->embed,
                              .in = p->embed,
                              .out = p->embed,
                              .rows = p->rows_q}};
    fj_nn_frame_finish(run, &p->frame, &b->frame, p->rows_q, p->embed);
    fj_nn_finish_sums(run, &b->out_bias, p->rows_q, 0, p->embed, p->dout_bias);
    for (int i = 0; i < p->projection_count; i++) {
        const fj_nn_projection *of = &p->projections[i];
        const int64_t rows = rows_of(p, of->input);
        const bool normalised = of->input == 0 && p->frame.place == FJ_NN_PRE;
        fj_nn_finish_sums(run, &b->biases[i], rows, 0, of->out, of->dbias);
        outers[i + 1] = (fj_nn_outer){.dy = b->gradients[of->column].data,
                                      .x = normalised ? p->frame.inner : p->inputs[of->input],
                                      .dweight = of->dweight,
                                      .ld_dy = b->gradients[of->column].ld,
                                      .ld_x = of->in,
                                      .in = of->in,
                                      .out = of->out,
                                      .rows = rows};
    }
    fj_nn_run_outer(run, outers, p->projection_count + 1);
}

fj_status fj_nn_attn_backward(const fj_nn_run *run, fj_nn_attn_part *part, fj_nn_cursor workspace,
                              fj_error *error) {
    struct backward b;
    fj_status status = take_backward(run, part, &workspace, &b, error);
    if (status != FJ_OK) return status;
    fj_nn_for_blocks(run, part->rows_q, out_backward_block, &b);
    status = fj_nn_attend_run(part->attend, run, &b.attention, FJ_BACKWARD, b.workspace, b.size, error);
    if (status != FJ_OK) return status;
    for (b.input = 0; b.input < 3; b.input++)
        if (part->inputs[b.input]) fj_nn_for_blocks(run, rows_of(part, b.input), project_backward_block, &b);
    finish_parameters(run, &b);
    return FJ_OK;
}
