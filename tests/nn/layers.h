/* Layers in F64 by the public API alone: tensors that are kept until the process ends, parameters of waves, calls. */
#ifndef FJ_TESTS_NN_LAYERS_H
#define FJ_TESTS_NN_LAYERS_H

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <flexjit/nn.h>

static fj_context *context;
static fj_device *device;

/* ---- Tensors, kept until the process ends --------------------------------------------------------------------- */

typedef struct box {
    DLTensor dl;
    int64_t shape[4];
    struct box *next; /* all are reachable, for LeakSanitizer */
    double data[];
} box;

static box *boxes;

#define DIMS(...) \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (int64_t[]) { __VA_ARGS__ }

static inline int64_t count_of(const DLTensor *t) {
    int64_t count = 1;
    for (int i = 0; i < t->ndim; i++) count *= t->shape[i];
    return count;
}

static inline DLTensor *make(fj_dtype dtype, int rank, const int64_t *shape) {
    int64_t count = 1;
    for (int i = 0; i < rank; i++) count *= shape[i];
    box *made = calloc(1, sizeof *made + (size_t)count * sizeof(double));
    ck_assert_ptr_nonnull(made);
    for (int i = 0; i < rank; i++) made->shape[i] = shape[i];
    made->dl = (DLTensor){made->data, {kDLCPU, 0}, rank, fj_dtype_to_dlpack(dtype), made->shape, NULL, 0};
    made->next = boxes, boxes = made;
    return &made->dl;
}

static inline double *numbers(const DLTensor *t) { return t->data; }

static inline bool *bools(const DLTensor *t) { return t->data; }

static inline DLTensor *empty(int rank, const int64_t *shape) { return make(FJ_DTYPE_F64, rank, shape); }

static inline DLTensor *waves(double seed, int rank, const int64_t *shape) {
    DLTensor *t = empty(rank, shape);
    for (int64_t i = 0; i < count_of(t); i++) numbers(t)[i] = sin(seed + (double)i * 1.7);
    return t;
}

static inline DLTensor *filled(double value, int rank, const int64_t *shape) {
    DLTensor *t = empty(rank, shape);
    for (int64_t i = 0; i < count_of(t); i++) numbers(t)[i] = value;
    return t;
}

static inline DLTensor *cosines(int rank, const int64_t *shape) {
    DLTensor *t = empty(rank, shape);
    for (int64_t i = 0; i < count_of(t); i++) numbers(t)[i] = cos((double)i);
    return t;
}

/* A mask [L,L] that hides later keys. */
static inline DLTensor *causal(int64_t length) {
    DLTensor *t = make(FJ_DTYPE_BOOL, DIMS(length, length));
    for (int64_t i = 0; i < length * length; i++) bools(t)[i] = i % length > i / length;
    return t;
}

/* A padding mask that hides the ends of sequences. */
static inline DLTensor *tails(int64_t length, int64_t batch, const int64_t *lengths) {
    DLTensor *t = make(FJ_DTYPE_BOOL, DIMS(batch, length));
    for (int64_t i = 0; i < batch * length; i++) bools(t)[i] = i % length >= lengths[i / length];
    return t;
}

/* The floating mask that hides the same. */
static inline DLTensor *floating(const DLTensor *mask) {
    DLTensor *t = empty(mask->ndim, mask->shape);
    for (int64_t i = 0; i < count_of(t); i++) numbers(t)[i] = bools(mask)[i] ? (double)-INFINITY : 0;
    return t;
}

/* Both may be NaN nowhere. Rows of `hidden`, which may be NULL, are not compared. */
static inline double furthest(const DLTensor *a, const DLTensor *b, const DLTensor *hidden) {
    const int64_t width = a->shape[a->ndim - 1];
    double worst = 0;
    for (int64_t i = 0; i < count_of(a); i++) {
        if (hidden && bools(hidden)[i / width]) continue;
        const double difference = fabs(numbers(a)[i] - numbers(b)[i]);
        if (!(difference <= worst)) worst = difference;
    }
    return worst;
}

/* ---- State ----------------------------------------------------------------------------------------------------- */

enum { MOST = 3 };

static inline fj_linear linear(double seed, int64_t out, int64_t in, bool bias) {
    return (fj_linear){waves(seed, DIMS(out, in)), bias ? waves(seed + 1, DIMS(out)) : NULL};
}

static inline fj_norm norm(double seed, int64_t width, bool bias) {
    return (fj_norm){waves(seed, DIMS(width)), bias ? waves(seed + 1, DIMS(width)) : NULL};
}

static inline fj_mha_state attention(double seed, int64_t width, bool bias) {
    return (fj_mha_state){.in = linear(seed, 3 * width, width, bias),
                          .out = linear(seed + 2, width, width, bias)};
}

static inline fj_encoder_layer encoder_layer(double seed, int64_t width, int64_t inner, bool bias) {
    return (fj_encoder_layer){.self_attn = attention(seed, width, bias),
                              .linear1 = linear(seed + 4, inner, width, bias),
                              .linear2 = linear(seed + 6, width, inner, bias),
                              .norm1 = norm(seed + 8, width, bias),
                              .norm2 = norm(seed + 10, width, bias)};
}

static inline fj_decoder_layer decoder_layer(double seed, int64_t width, int64_t inner, bool bias) {
    const fj_encoder_layer base = encoder_layer(seed, width, inner, bias);
    return (fj_decoder_layer){.self_attn = base.self_attn,
                              .cross_attn = attention(seed + 12, width, bias),
                              .linear1 = base.linear1,
                              .linear2 = base.linear2,
                              .norm1 = base.norm1,
                              .norm2 = base.norm2,
                              .norm3 = norm(seed + 14, width, bias)};
}

/* ---- Calls ----------------------------------------------------------------------------------------------------- */

/* For each KIND: step_KIND, a call of an object: forward, for training with memory for what backward reads, and then backward;
 * status_KIND, which makes the object too; run_KIND, which has to work. */
#define CALL(kind)                                                                                          \
    static inline fj_status step_##kind(const fj_##kind *object, const fj_##kind##_call *call,              \
                                        bool training, fj_error *error) {                                   \
        fj_nn_sizes sizes;                                                                                  \
        fj_status status = fj_##kind##_sizes(object, call, NULL, &sizes, error);                            \
        if (status != FJ_OK) return status;                                                                 \
        fj_nn_memory memory = {.workspace_size = MAX(sizes.forward, sizes.backward)};                       \
        memory.workspace = aligned_alloc(256, memory.workspace_size / 256 * 256 + 256);                     \
        memory.saved = training ? aligned_alloc(256, sizes.saved / 256 * 256 + 256) : NULL;                 \
        memory.saved_size = training ? sizes.saved : 0;                                                     \
        status = fj_##kind##_forward(object, call, NULL, &memory, error);                                   \
        if (status == FJ_OK && training) status = fj_##kind##_backward(object, call, NULL, &memory, error); \
        free(memory.workspace), free(memory.saved);                                                         \
        return status;                                                                                      \
    }                                                                                                       \
    static inline fj_status status_##kind(const fj_##kind##_desc *desc, const fj_##kind##_call *call,       \
                                          bool training, fj_error *error) {                                 \
        fj_##kind *object = NULL;                                                                           \
        fj_status status = fj_##kind##_create(device, desc, &object, error);                                \
        if (status == FJ_OK) status = step_##kind(object, call, training, error);                           \
        fj_##kind##_unref(&object);                                                                         \
        return status;                                                                                      \
    }                                                                                                       \
    static inline void run_##kind(const fj_##kind##_desc *desc, const fj_##kind##_call *call,               \
                                  bool training) {                                                          \
        fj_error error = {0};                                                                               \
        ck_assert_msg(status_##kind(desc, call, training, &error) == FJ_OK, "%s", error.text);              \
    }
#define MAX(a, b) ((a) > (b) ? (a) : (b))

CALL(mha)
CALL(encoder)
CALL(decoder)

/* An encoder of `count` layers of 2 heads of 4, batch first. */
typedef struct encoder {
    fj_encoder_desc desc;
    fj_encoder_layer layers[MOST];
} encoder;

static inline encoder make_encoder(int64_t count, fj_mask_kind mask, fj_mask_kind padding) {
    encoder made = {.desc = {.struct_size = sizeof made.desc, .dtype = FJ_DTYPE_F64, .layer_count = count}};
    made.desc.layer = (fj_layer_desc){.d_model = 8, .heads = 2, .dim_feedforward = 12, .batch_first = true};
    made.desc.mask = mask, made.desc.key_padding_mask = padding;
    for (int64_t i = 0; i < count; i++) made.layers[i] = encoder_layer(3.0 * (double)i, 8, 12, true);
    return made;
}

/* What it gives. Training asks for the gradient of src alone. */
static inline const DLTensor *encode(const encoder *self, const DLTensor *src, const DLTensor *mask,
                                     const DLTensor *padding, bool training) {
    const fj_encoder_call call = {.struct_size = sizeof call,
                                  .layers = self->layers,
                                  .src = src,
                                  .out = empty(src->ndim, src->shape),
                                  .mask = mask,
                                  .key_padding_mask = padding,
                                  .dout = waves(5, src->ndim, src->shape),
                                  .dsrc = empty(src->ndim, src->shape)};
    run_encoder(&self->desc, &call, training);
    return call.out;
}

/* Multi-head attention of itself, of `heads` heads of 4. */
typedef struct mha {
    fj_mha_desc desc;
    fj_mha_state state;
} mha;

static inline mha make_mha(int64_t heads, fj_mask_kind mask, fj_mask_kind padding, bool bias) {
    mha made = {.desc = {.struct_size = sizeof made.desc, .dtype = FJ_DTYPE_F64}};
    made.desc.embed_dim = 4 * heads, made.desc.heads = heads, made.desc.batch_first = true;
    made.desc.attn_mask = mask, made.desc.key_padding_mask = padding;
    made.state = attention(1, 4 * heads, bias);
    return made;
}

static inline const DLTensor *attend(const mha *self, const DLTensor *x, const DLTensor *mask,
                                     const DLTensor *padding, bool training) {
    const fj_mha_call call = {.struct_size = sizeof call,
                              .state = self->state,
                              .query = x,
                              .out = empty(x->ndim, x->shape),
                              .attn_mask = mask,
                              .key_padding_mask = padding,
                              .dout = waves(5, x->ndim, x->shape),
                              .dquery = empty(x->ndim, x->shape)};
    run_mha(&self->desc, &call, training);
    return call.out;
}

#define ASSERT_SAME(a, b, hidden) ck_assert_double_lt(furthest(a, b, hidden), 1e-11)

#endif
