/* A stack of layers, forward and backward.
 *
 * Memory: in training each layer keeps its own, from `saved`; in evaluation all layers have the same, from the workspace, where a
 * layer's input lies in the output of the one before, which the first part reads before the last part writes it.
 *
 * Offsets of dropout, of each layer: probabilities, after the attention (twice in decoders), activations, after the
 * feed-forward network.
 */
#include <string.h>

#include "attn/objects.h"
#include "nn/stack_call.h"

typedef struct layer_parts {
    fj_nn_attn_part self, cross;
    fj_nn_ff_part ff;
    void *y[3]; /* outputs of the parts: self, cross, ff */
} layer_parts;

/* ---- A layer ---------------------------------------------------------------------------------------------- */

static bool has_cross(const fj_nn_stack_state *s) { return s->stack->cross; }
static int64_t offsets_of_layer(const fj_nn_stack_state *s) { return has_cross(s) ? 6 : 4; }

static fj_nn_drop drop_of(const fj_nn_stack_state *s, uint64_t offset) {
    const double dropout = s->training ? s->stack->layer.dropout : 0;
    return fj_nn_drop_of(dropout, s->call->seed, offset);
}

static fj_nn_frame frame_of(const fj_nn_stack_state *s, const fj_norm *norm, const fj_norm *dnorm,
                            uint64_t offset) {
    return (fj_nn_frame){.place = s->stack->layer.norm_first ? FJ_NN_PRE : FJ_NN_POST,
                         .weight = fj_nn_data(norm->weight),
                         .bias = fj_nn_data(norm->bias),
                         .dweight = dnorm ? fj_nn_data(dnorm->weight) : NULL,
                         .dbias = dnorm ? fj_nn_data(dnorm->bias) : NULL,
                         .eps = s->stack->layer.norm_eps,
                         .drop = drop_of(s, offset)};
}

/* An attention part without its norm's parameters and its inputs. */
static fj_nn_attn_part attention_of(const fj_nn_stack_state *s, bool cross, uint64_t offset) {
    const fj_layer_desc *l = &s->stack->layer;
    const int64_t keys = cross ? s->memory.length : s->src.length;
    fj_nn_attn_part part = {
        .attend = cross ? s->stack->cross : s->stack->self,
        .attention = {.batch = s->src.batch,
                      .q_len = s->src.length,
                      .kv_len = keys,
                      .batch_first = l->batch_first,
                      .masks = cross ? s->call->cross : s->call->self,
                      .dropout = s->training ? l->dropout : 0,
                      .seed = s->call->seed,
                      .offset = offset},
        .embed = l->d_model,
        .heads = l->heads,
        .rows_q = s->rows,
        .rows_kv = cross ? s->memory.batch * s->memory.length : s->rows,
        .widths = {l->d_model, l->d_model, l->d_model},
    };
    if (s->cu) {
        part.attention.cu = s->cu;
        part.attention.q_len = part.attention.kv_len = s->rows;
        part.attention.masks.padding = NULL;
    }
    return part;
}

/* The layer, with what it keeps taken from the cursor. x: its input. last: where its output goes; NULL: it is kept. */
static void build_layer(const fj_nn_stack_state *s, int64_t index, const void *x, void *last,
                        fj_nn_cursor *cursor, layer_parts *ret) {
    const fj_nn_stack_call *call = s->call;
    const fj_layer_desc *desc = &s->stack->layer;
    const int64_t e = desc->d_model;
    const fj_nn_layer l = call->layer(call->layers, index);
    const fj_nn_layer d = call->dlayers ? call->layer(call->dlayers, index) : (fj_nn_layer){0};
    uint64_t offset = call->offset + (uint64_t)(index * offsets_of_layer(s));
    const int ff_norm = has_cross(s) ? 2 : 1;
    memset(ret, 0, sizeof *ret);
    for (int i = 0; i < 3; i++)
        if (i == 0 || (i == 1 && has_cross(s)) || (i == 2 && !(last && s->training)))
            ret->y[i] = fj_nn_take(cursor, s->rows, e, s->run.size);
    if (last)
        ret->y[2] =
            last; /* in evaluation its place is left free all the same: the layer before wrote x there */

    ret->self = attention_of(s, false, offset);
    ret->self.inputs[0] = x;
    ret->self.frame = frame_of(s, l.norms[0], d.norms[0], offset + 1);
    ret->self.y = ret->y[0];
    fj_nn_set_projections(&s->run, &ret->self, l.self, d.self);
    fj_nn_attn_keep(&s->run, &ret->self, cursor);
    offset += 2;
    const void *before = ret->y[0];
    if (has_cross(s)) {
        ret->cross = attention_of(s, true, offset);
        ret->cross.inputs[0] = before;
        /* Sizes know no data; that it is there tells the parts that keys have an input of their own. */
        ret->cross.inputs[1] = call->memory->data ? fj_nn_data(call->memory) : call->memory;
        ret->cross.frame = frame_of(s, l.norms[1], d.norms[1], offset + 1);
        ret->cross.y = ret->y[1];
        fj_nn_set_projections(&s->run, &ret->cross, l.cross, d.cross);
        fj_nn_attn_keep(&s->run, &ret->cross, cursor);
        offset += 2;
        before = ret->y[1];
    }
    ret->ff = (fj_nn_ff_part){.rows = s->rows,
                              .width = e,
                              .inner = desc->dim_feedforward,
                              .activation = desc->activation,
                              .weight1 = fj_nn_data(l.linear1->weight),
                              .bias1 = fj_nn_data(l.linear1->bias),
                              .weight2 = fj_nn_data(l.linear2->weight),
                              .bias2 = fj_nn_data(l.linear2->bias),
                              .drop = drop_of(s, offset),
                              .frame = frame_of(s, l.norms[ff_norm], d.norms[ff_norm], offset + 1),
                              .x = before,
                              .y = ret->y[2]};
    if (call->dlayers) {
        ret->ff.dweight1 = fj_nn_data(d.linear1->weight);
        ret->ff.dbias1 = fj_nn_data(d.linear1->bias);
        ret->ff.dweight2 = fj_nn_data(d.linear2->weight);
        ret->ff.dbias2 = fj_nn_data(d.linear2->bias);
    }
    fj_nn_ff_keep(&s->run, &ret->ff, s->training, cursor);
}

/* ---- The whole: where rows lie ---------------------------------------------------------------------------- */

/* Rows at both ends of the stack. */
typedef struct ends {
    void *packed_src;  /* kept; NULL: src itself */
    void *packed_out;  /* NULL: out itself */
    void *before_norm; /* the last layer's output, kept, with a final norm */
    void *stats;
} ends;

static ends take_ends(const fj_nn_stack_state *s, fj_nn_cursor *kept, fj_nn_cursor *workspace) {
    const int64_t e = s->stack->layer.d_model;
    ends at = {0};
    if (s->cu) {
        at.packed_src = fj_nn_take(kept, s->rows, e, s->run.size);
        at.packed_out = fj_nn_take(workspace, s->rows, e, s->run.size);
    }
    if (s->stack->final_norm) {
        at.before_norm = fj_nn_take(kept, s->rows, e, s->run.size);
        at.stats = fj_nn_take(kept, s->rows, 2, s->run.size);
    }
    return at;
}

static fj_nn_packing packing_of(const fj_nn_stack_state *s) {
    const fj_layer_desc *l = &s->stack->layer;
    return (fj_nn_packing){s->cu, s->src.batch, s->src.length, l->d_model, l->batch_first || !s->src.batched};
}

/* Where the output of the last layer goes. */
static void *last_output(const fj_nn_stack_state *s, const ends *at) {
    if (s->stack->final_norm) return at->before_norm;
    return s->cu ? at->packed_out : fj_nn_data(s->call->out);
}

/* All layers, from the first on, in the memory that the call has. */
static const void *build_at(const fj_nn_stack_state *s, const ends *at, int64_t index, const void *x,
                            fj_nn_cursor *kept, fj_nn_cursor *again, layer_parts *ret) {
    const bool is_last = index + 1 == s->stack->layer_count;
    fj_nn_cursor copy = *again; /* in evaluation, each layer takes the same */
    void *last = is_last ? last_output(s, at) : NULL;
    /* The last output is unknown to sizes and to backward, which don't need it: as if it were kept elsewhere. */
    static char elsewhere;
    build_layer(s, index, x, is_last && !last ? &elsewhere : last, s->training ? kept : &copy, ret);
    return ret->y[2];
}

/* ---- Forward ---------------------------------------------------------------------------------------------- */

struct final {
    const fj_nn_stack_state *s;
    const ends *at;
    void *y;
    /* backward */
    const void *dy;
    void *dx;
    fj_nn_sums sums;
};

static void final_block(const fj_nn_run *run, void *arg, fj_nn_block block) {
    const struct final *f = arg;
    const fj_norm *norm = &f->s->call->norm;
    const int64_t e = f->s->stack->layer.d_model, from = block.first * e;
    run->rows->norm(fj_nn_at(run, f->y, from), fj_nn_at(run, f->at->before_norm, from), block.count, e,
                    fj_nn_data(norm->weight), fj_nn_data(norm->bias), f->s->stack->layer.norm_eps,
                    fj_nn_at(run, f->at->stats, 2 * block.first));
}

static fj_status forward_layer(const fj_nn_run *run, layer_parts *parts, fj_nn_cursor workspace,
                               fj_error *error) {
    fj_status status = fj_nn_attn_forward(run, &parts->self, workspace, error);
    if (status == FJ_OK && parts->cross.attend)
        status = fj_nn_attn_forward(run, &parts->cross, workspace, error);
    if (status == FJ_OK) fj_nn_ff_forward(run, &parts->ff, workspace);
    return status;
}

/* What evaluation has from the workspace for a layer. */
static size_t evaluation_size(const fj_nn_stack_state *s) {
    fj_nn_stack_state evaluation = *s;
    fj_nn_cursor cursor = {0};
    layer_parts parts;
    evaluation.training = false;
    build_layer(&evaluation, 0, NULL, NULL, &cursor, &parts);
    return cursor.overflow ? SIZE_MAX / 2 : cursor.used;
}

static fj_status forward(const fj_nn_stack_state *s, fj_nn_cursor *saved, fj_nn_cursor *workspace,
                         fj_error *error) {
    fj_nn_cursor *kept = s->training ? saved : workspace;
    const ends at = take_ends(s, kept, workspace);
    const fj_nn_packing packing = packing_of(s);
    const void *x = fj_nn_data(s->call->src);
    if (s->cu) fj_nn_pack(&s->run, &packing, x, at.packed_src);
    if (s->cu) x = at.packed_src;
    fj_nn_cursor again = *workspace;
    if (!s->training) (void)fj_nn_take(workspace, (int64_t)evaluation_size(s), 1, 1);
    for (int64_t i = 0; i < s->stack->layer_count; i++) {
        layer_parts parts;
        x = build_at(s, &at, i, x, kept, &again, &parts);
        fj_status status = forward_layer(&s->run, &parts, *workspace, error);
        if (status != FJ_OK) return status;
    }
    struct final final = {.s = s, .at = &at, .y = s->cu ? at.packed_out : fj_nn_data(s->call->out)};
    if (s->stack->final_norm) fj_nn_for_blocks(&s->run, s->rows, final_block, &final);
    if (s->cu) fj_nn_unpack(&s->run, &packing, at.packed_out, fj_nn_data(s->call->out));
    return FJ_OK;
}

/* ---- Backward --------------------------------------------------------------------------------------------- */

static void final_backward_block(const fj_nn_run *run, void *arg, fj_nn_block block) {
    const struct final *f = arg;
    const int64_t e = f->s->stack->layer.d_model, from = block.first * e;
    char *sums = fj_nn_clear_sum(run, &f->sums, block);
    run->rows->norm_backward(fj_nn_at(run, f->dx, from), fj_nn_at(run, f->dy, from),
                             fj_nn_at(run, f->at->before_norm, from),
                             fj_nn_at(run, f->at->stats, 2 * block.first), block.count, e,
                             fj_nn_data(f->s->call->norm.weight), NULL, sums, fj_nn_at(run, sums, e));
}

/* Gradients of rows: of the packed output and input, and two that parts write in turn. */
typedef struct gradients {
    void *packed_out, *packed_src, *turns[2];
    fj_nn_sums norm;
} gradients;

static gradients take_gradients(const fj_nn_stack_state *s, fj_nn_cursor *workspace) {
    const int64_t e = s->stack->layer.d_model;
    gradients g = {0};
    if (s->cu) {
        g.packed_out = fj_nn_take(workspace, s->rows, e, s->run.size);
        g.packed_src = fj_nn_take(workspace, s->rows, e, s->run.size);
    }
    for (int i = 0; i < 2; i++) g.turns[i] = fj_nn_take(workspace, s->rows, e, s->run.size);
    if (s->stack->final_norm) g.norm = fj_nn_take_sums(&s->run, workspace, s->rows, 2 * e);
    return g;
}

static void *other(const gradients *g, const void *dy) { return g->turns[dy == g->turns[0]]; }

/* Through one layer, from dy to *dx; *dx NULL: not wanted. */
static fj_status backward_layer(const fj_nn_stack_state *s, const gradients *g, layer_parts *parts,
                                const void *dy, bool is_first, void **dx, bool add_memory,
                                fj_nn_cursor workspace, fj_error *error) {
    parts->ff.dy = dy;
    parts->ff.dx = other(g, dy);
    fj_nn_ff_backward(&s->run, &parts->ff, workspace);
    dy = parts->ff.dx;
    if (has_cross(s)) {
        parts->cross.dy = dy;
        parts->cross.dinputs[0] = other(g, dy);
        parts->cross.dinputs[1] = fj_nn_data(s->call->dmemory);
        parts->cross.add_dinputs = add_memory;
        fj_status status = fj_nn_attn_backward(&s->run, &parts->cross, workspace, error);
        if (status != FJ_OK) return status;
        dy = parts->cross.dinputs[0];
    }
    if (!is_first) *dx = other(g, dy);
    parts->self.dy = dy;
    parts->self.dinputs[0] = *dx;
    return fj_nn_attn_backward(&s->run, &parts->self, workspace, error);
}

/* The layer of an index, as forward built it. */
static void rebuild(const fj_nn_stack_state *s, const ends *at, int64_t index, const void *x,
                    fj_nn_cursor saved, layer_parts *ret) {
    fj_nn_cursor none = {0};
    for (int64_t i = 0; i <= index; i++) x = build_at(s, at, i, x, &saved, &none, ret);
}

static fj_status backward(const fj_nn_stack_state *s, fj_nn_cursor *saved, fj_nn_cursor *workspace,
                          fj_error *error) {
    fj_nn_cursor nothing = {0};
    const ends at = take_ends(s, saved, &nothing);
    const gradients g = take_gradients(s, workspace);
    const fj_nn_packing packing = packing_of(s);
    const void *x = s->cu ? at.packed_src : fj_nn_data(s->call->src), *dy = fj_nn_data(s->call->dout);
    void *const dsrc = fj_nn_data(s->call->dsrc);
    if (s->cu) fj_nn_pack(&s->run, &packing, dy, g.packed_out);
    if (s->cu) dy = g.packed_out;
    if (s->stack->final_norm) {
        struct final final = {.s = s, .at = &at, .dy = dy, .dx = g.turns[1], .sums = g.norm};
        fj_nn_for_blocks(&s->run, s->rows, final_backward_block, &final);
        const int64_t e = s->stack->layer.d_model;
        fj_nn_finish_sums(&s->run, &g.norm, s->rows, 0, e, fj_nn_data(s->call->dnorm.weight));
        fj_nn_finish_sums(&s->run, &g.norm, s->rows, e, e, fj_nn_data(s->call->dnorm.bias));
        dy = g.turns[1];
    }
    for (int64_t i = s->stack->layer_count - 1; i >= 0; i--) {
        layer_parts parts;
        rebuild(s, &at, i, x, *saved, &parts);
        void *dx = s->cu ? g.packed_src : dsrc;
        fj_status status =
            backward_layer(s, &g, &parts, dy, i == 0, &dx, i + 1 < s->stack->layer_count, *workspace, error);
        if (status != FJ_OK) return status;
        dy = dx;
    }
    if (s->cu && dsrc) fj_nn_unpack(&s->run, &packing, g.packed_src, dsrc);
    return FJ_OK;
}

/* ---- Sizes and calls --------------------------------------------------------------------------------------- */

/* The lengths of a call without its padding are the first piece of a workspace; where there is none yet, they are on the heap. */
typedef struct lengths {
    const fj_allocator *allocator;
    int32_t *cu;
    size_t size; /* of the piece; 0: no piece */
    bool heap;
} lengths;

static fj_status find_lengths(fj_nn_stack_state *s, const fj_nn_memory *memory, lengths *ret,
                              fj_error *error) {
    const DLTensor *padding = s->call->self.padding;
    fj_nn_cursor cursor = {0};
    *ret = (lengths){.allocator = &s->stack->device->context->allocator};
    if (!s->stack->skip_padding || !padding || s->rows == 0) return FJ_OK;
    if (!padding->data) return fj_error_set(error, FJ_ERR_TENSOR, "%s has no data", s->call->self_names[1]);
    (void)fj_nn_take(&cursor, s->src.batch + 1, 1, sizeof *ret->cu);
    ret->size = cursor.used;
    ret->heap = !memory || !memory->workspace || memory->workspace_size < cursor.used;
    ret->cu = ret->heap ? fj_alloc(ret->allocator, cursor.used) : memory->workspace;
    if (!ret->cu) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    if (!fj_nn_find_lengths(padding, s->src.batch, s->src.length, ret->cu)) return FJ_OK;
    s->cu = ret->cu;
    s->rows = ret->cu[s->src.batch];
    return FJ_OK;
}

static void free_lengths(lengths *l) {
    if (l->heap && l->cu) fj_free(l->allocator, l->cu, l->size);
}

static fj_status size_layer(const fj_nn_stack_state *s, fj_direction direction, fj_nn_cursor *workspace,
                            fj_error *error) {
    fj_nn_cursor none = {0};
    layer_parts parts;
    build_layer(s, 0, NULL, NULL, &none, &parts);
    /* Parts have the same memory, one after the other. */
    fj_nn_cursor each[3] = {{0}, {0}, {0}};
    fj_status status = fj_nn_attn_size(&s->run, &parts.self, direction, &each[0], error);
    if (status == FJ_OK && has_cross(s))
        status = fj_nn_attn_size(&s->run, &parts.cross, direction, &each[1], error);
    if (status != FJ_OK) return status;
    fj_nn_ff_size(&s->run, &parts.ff, direction, &each[2]);
    size_t most = 0;
    for (int i = 0; i < 3; i++) {
        if (each[i].used > most) most = each[i].used;
        workspace->overflow |= each[i].overflow;
    }
    (void)fj_nn_take(workspace, (int64_t)most, 1, 1);
    return FJ_OK;
}

static fj_status size_call(const fj_nn_stack_state *as, size_t lengths_size, fj_nn_sizes *ret_sizes,
                           fj_error *error) {
    fj_nn_stack_state s = *as;
    fj_nn_cursor saved = {0}, forward = {.used = lengths_size}, backward = {.used = lengths_size};
    layer_parts parts;
    s.training = true;
    const ends at = take_ends(&s, &saved, &forward);
    for (int64_t i = 0; i < s.stack->layer_count; i++)
        (void)build_at(&s, &at, i, NULL, &saved, &forward, &parts);
    fj_status status = size_layer(&s, FJ_FORWARD, &forward, error);
    if (status == FJ_OK && !s.stack->layer.inference) {
        (void)take_gradients(&s, &backward);
        status = size_layer(&s, FJ_BACKWARD, &backward, error);
    }
    if (status != FJ_OK) return status;
    /* ... and what evaluation has there instead of `saved`. */
    (void)take_ends(&s, &forward, &forward);
    (void)fj_nn_take(&forward, (int64_t)evaluation_size(&s), 1, 1);
    if (saved.overflow || forward.overflow || backward.overflow)
        return fj_error_set(error, FJ_ERR_MEMORY, "the call needs more memory than can be addressed");
    *ret_sizes = (fj_nn_sizes){forward.used, backward.used, saved.used};
    return FJ_OK;
}

fj_status fj_nn_stack_sizes(const fj_nn_stack *stack, const fj_nn_stack_call *call, const fj_launch *launch,
                            fj_nn_sizes *ret_sizes, fj_error *error) {
    fj_nn_stack_state s;
    lengths found;
    fj_status status = fj_nn_stack_read(stack, call, launch, true, FJ_FORWARD, &s, error);
    if (status == FJ_OK) status = find_lengths(&s, NULL, &found, error);
    if (status != FJ_OK) return status;
    status = size_call(&s, found.size, ret_sizes, error);
    free_lengths(&found);
    return status;
}

static fj_status run_sized(const fj_nn_stack_state *s, fj_direction direction, const lengths *found,
                           const fj_nn_memory *memory, fj_error *error) {
    fj_nn_sizes sizes;
    fj_status status = size_call(s, found->size, &sizes, error);
    if (status == FJ_OK) status = fj_nn_check_memory(memory, &sizes, direction == FJ_BACKWARD, error);
    if (status != FJ_OK) return status;
    fj_nn_cursor saved = {.base = memory->saved},
                 workspace = {.base = memory->workspace, .used = found->size};
    fj_nn_blas_enter();
    status = direction == FJ_FORWARD ? forward(s, &saved, &workspace, error)
                                     : backward(s, &saved, &workspace, error);
    fj_nn_blas_leave();
    return status;
}

fj_status fj_nn_stack_run(const fj_nn_stack *stack, const fj_nn_stack_call *call, fj_direction direction,
                          const fj_launch *launch, const fj_nn_memory *memory, fj_error *error) {
    fj_nn_stack_state s;
    lengths found;
    if (!memory) return fj_error_set(error, FJ_ERR_ARGUMENT, "fj_nn_memory is NULL");
    fj_status status = fj_nn_stack_read(stack, call, launch, false, direction, &s, error);
    if (status == FJ_OK) status = find_lengths(&s, memory, &found, error);
    if (status != FJ_OK) return status;
    s.training = direction == FJ_BACKWARD || memory->saved;
    status = run_sized(&s, direction, &found, memory, error);
    free_lengths(&found);
    return status;
}
