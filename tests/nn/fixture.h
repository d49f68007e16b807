/* Layers with their tensors: made from sizes, filled from formulas, run forward and backward. */
#ifndef FJ_TESTS_NN_FIXTURE_H
#define FJ_TESTS_NN_FIXTURE_H

#include <check.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "flexjit/nn.h"
#include "nn/blas.h"

/* ---- Tensors ----------------------------------------------------------------------------------------------- */

enum { MOST_TENSORS = 1000, MOST_LAYERS = 6 };

typedef struct nn_tensor {
    DLTensor dl;
    int64_t shape[4];
    size_t count;
} nn_tensor;

/* All tensors of a test, which frees them at its end. */
static nn_tensor *tensors[MOST_TENSORS];
static size_t tensor_count;

static inline nn_tensor *tensor_make(fj_dtype dtype, int rank, const int64_t *shape) {
    nn_tensor *t = calloc(1, sizeof *t);
    ck_assert(t && tensor_count < MOST_TENSORS);
    t->count = 1;
    for (int i = 0; i < rank; i++) t->count *= (size_t)(t->shape[i] = shape[i]);
    t->dl = (DLTensor){.data = malloc(t->count * fj_dtype_size(dtype) + 1),
                       .device = {kDLCPU, 0},
                       .ndim = rank,
                       .dtype = fj_dtype_to_dlpack(dtype),
                       .shape = t->shape};
    ck_assert(t->dl.data);
    return tensors[tensor_count++] = t;
}

static inline nn_tensor *tensor_1(fj_dtype dtype, int64_t a) { return tensor_make(dtype, 1, (int64_t[]){a}); }
static inline nn_tensor *tensor_2(fj_dtype dtype, int64_t a, int64_t b) {
    return tensor_make(dtype, 2, (int64_t[]){a, b});
}
static inline nn_tensor *tensor_3(fj_dtype dtype, int64_t a, int64_t b, int64_t c) {
    return tensor_make(dtype, 3, (int64_t[]){a, b, c});
}

static inline void tensors_free(void) {
    while (tensor_count > 0) {
        nn_tensor *t = tensors[--tensor_count];
        free(t->dl.data);
        free(t);
    }
}

static inline nn_tensor *tensor_of(const DLTensor *dl) { return (nn_tensor *)(void *)(uintptr_t)dl; }

static inline double tensor_get(const DLTensor *dl, size_t i) {
    return dl->dtype.bits == 64 ? ((const double *)dl->data)[i] : (double)((const float *)dl->data)[i];
}
static inline void tensor_set(const DLTensor *dl, size_t i, double value) {
    if (dl->dtype.bits == 64)
        ((double *)dl->data)[i] = value;
    else
        ((float *)dl->data)[i] = (float)value;
}

/* As PyTorch's tests fill parameters (speed 1), or something else. */
static inline const DLTensor *fill_cos(nn_tensor *t, double speed) {
    for (size_t i = 0; i < t->count; i++) tensor_set(&t->dl, i, cos(speed * (double)i));
    return &t->dl;
}
static inline const DLTensor *fill(nn_tensor *t, double value) {
    for (size_t i = 0; i < t->count; i++) tensor_set(&t->dl, i, value);
    return &t->dl;
}
static inline const DLTensor *fill_from(nn_tensor *t, const double *values) {
    for (size_t i = 0; i < t->count; i++) tensor_set(&t->dl, i, values[i]);
    return &t->dl;
}
/* A BOOL mask of 0 and 1. */
static inline const DLTensor *mask_of(int rank, const int64_t *shape, const char *bits) {
    nn_tensor *t = tensor_make(FJ_DTYPE_BOOL, rank, shape);
    for (size_t i = 0; i < t->count; i++) ((uint8_t *)t->dl.data)[i] = bits[i] == '1';
    return &t->dl;
}

static inline void expect(const DLTensor *got, const double *wanted, double tolerance, const char *what) {
    for (size_t i = 0; i < tensor_of(got)->count; i++) {
        const double value = tensor_get(got, i);
        ck_assert_msg(fabs(value - wanted[i]) <= tolerance * fmax(1, fabs(wanted[i])),
                      "%s[%zu]: %.12g, not %.12g", what, i, value, wanted[i]);
    }
}

static inline void expect_same(const DLTensor *a, const DLTensor *b, double tolerance, const char *what) {
    for (size_t i = 0; i < tensor_of(a)->count; i++)
        ck_assert_msg(fabs(tensor_get(a, i) - tensor_get(b, i)) <=
                          tolerance * fmax(1, fabs(tensor_get(b, i))),
                      "%s[%zu]: %.12g, not %.12g", what, i, tensor_get(a, i), tensor_get(b, i));
}

/* ---- Parameters -------------------------------------------------------------------------------------------- */

/* How parameters are made: numbers from a formula, or gradients full of nonsense. */
typedef struct maker {
    fj_dtype dtype;
    double speed; /* of the cosine; 0: gradients */
    bool no_bias;
} maker;

static inline const DLTensor *parameter(const maker *m, int rank, int64_t a, int64_t b) {
    nn_tensor *t = tensor_make(m->dtype, rank, (int64_t[]){a, b});
    return m->speed > 0 ? fill_cos(t, m->speed) : fill(t, 1e30);
}
static inline fj_linear make_linear(const maker *m, int64_t out, int64_t in) {
    return (fj_linear){parameter(m, 2, out, in), m->no_bias ? NULL : parameter(m, 1, out, 1)};
}
static inline fj_norm make_norm(const maker *m, int64_t width) {
    return (fj_norm){parameter(m, 1, width, 1), m->no_bias ? NULL : parameter(m, 1, width, 1)};
}
static inline fj_mha_state make_mha(const maker *m, int64_t e) {
    return (fj_mha_state){.in = make_linear(m, 3 * e, e), .out = make_linear(m, e, e)};
}
static inline fj_encoder_layer make_encoder_layer(const maker *m, int64_t d, int64_t f) {
    return (fj_encoder_layer){.self_attn = make_mha(m, d),
                              .linear1 = make_linear(m, f, d),
                              .linear2 = make_linear(m, d, f),
                              .norm1 = make_norm(m, d),
                              .norm2 = make_norm(m, d)};
}
static inline fj_decoder_layer make_decoder_layer(const maker *m, int64_t d, int64_t f) {
    return (fj_decoder_layer){.self_attn = make_mha(m, d),
                              .cross_attn = make_mha(m, d),
                              .linear1 = make_linear(m, f, d),
                              .linear2 = make_linear(m, d, f),
                              .norm1 = make_norm(m, d),
                              .norm2 = make_norm(m, d),
                              .norm3 = make_norm(m, d)};
}

/* ---- Calls --------------------------------------------------------------------------------------------------- */

/* A call of any of the objects: the functions, and what they are called with. */
typedef struct subject {
    fj_mha *mha;
    fj_encoder *encoder;
    fj_decoder *decoder;
    fj_mha_call mha_call;
    fj_encoder_call encoder_call;
    fj_decoder_call decoder_call;
    fj_launch launch;
    void *saved;
    size_t saved_size;
} subject;

static inline void *aligned(size_t size) {
    void *memory = aligned_alloc(256, (size + 255) / 256 * 256 + 256);
    ck_assert(memory);
    memset(memory, 0x7f, size); /* need not be initialised */
    return memory;
}

static inline fj_status subject_sizes(subject *s, fj_nn_sizes *sizes, fj_error *error) {
    if (s->mha) return fj_mha_sizes(s->mha, &s->mha_call, &s->launch, sizes, error);
    if (s->encoder) return fj_encoder_sizes(s->encoder, &s->encoder_call, &s->launch, sizes, error);
    return fj_decoder_sizes(s->decoder, &s->decoder_call, &s->launch, sizes, error);
}

/* Training keeps its state in the subject. */
static inline fj_status subject_forward(subject *s, bool training, fj_error *error) {
    fj_nn_sizes sizes;
    fj_status status = subject_sizes(s, &sizes, error);
    if (status != FJ_OK) return status;
    if (training && s->saved_size < sizes.saved) {
        free(s->saved);
        s->saved = aligned(s->saved_size = sizes.saved);
    }
    const fj_nn_memory memory = {aligned(sizes.forward), sizes.forward, training ? s->saved : NULL,
                                 sizes.saved};
    if (s->mha) status = fj_mha_forward(s->mha, &s->mha_call, &s->launch, &memory, error);
    if (s->encoder) status = fj_encoder_forward(s->encoder, &s->encoder_call, &s->launch, &memory, error);
    if (s->decoder) status = fj_decoder_forward(s->decoder, &s->decoder_call, &s->launch, &memory, error);
    free(memory.workspace);
    return status;
}

static inline fj_status subject_backward(subject *s, fj_error *error) {
    fj_nn_sizes sizes;
    fj_status status = subject_sizes(s, &sizes, error);
    if (status != FJ_OK) return status;
    const fj_nn_memory memory = {aligned(sizes.backward), sizes.backward, s->saved, s->saved_size};
    if (s->mha) status = fj_mha_backward(s->mha, &s->mha_call, &s->launch, &memory, error);
    if (s->encoder) status = fj_encoder_backward(s->encoder, &s->encoder_call, &s->launch, &memory, error);
    if (s->decoder) status = fj_decoder_backward(s->decoder, &s->decoder_call, &s->launch, &memory, error);
    free(memory.workspace);
    return status;
}

static inline void must(fj_status status, const fj_error *error) {
    ck_assert_msg(status == FJ_OK, "%s\n%s", error->text, error->detail ? error->detail : error->note);
}

static inline void forward(subject *s, bool training) {
    fj_error error = {0};
    must(subject_forward(s, training, &error), &error);
}
static inline void step(subject *s) {
    fj_error error = {0};
    must(subject_forward(s, true, &error), &error);
    must(subject_backward(s, &error), &error);
}

static inline void subject_finish(subject *s) {
    fj_mha_unref(&s->mha);
    fj_encoder_unref(&s->encoder);
    fj_decoder_unref(&s->decoder);
    free(s->saved);
}

/* ---- The device of a test -------------------------------------------------------------------------------------- */

static fj_context *context;
static fj_device *cpu, *reference;

/* Found out in a child: tests begin in a process that has opened none. */
static inline bool no_blas(void) {
    int status = 1;
    const pid_t child = fork();
    if (child == 0) _exit(fj_nn_blas_open(NULL) != FJ_OK);
    return child < 0 || waitpid(child, &status, 0) != child || status != 0;
}

static inline void open_devices(void) {
    fj_error error = {0};
    ck_assert(fj_context_create(NULL, &context) == FJ_OK);
    must(fj_device_create(context, FJ_DEVICE_CPU, &cpu, &error), &error);
    must(fj_device_create(context, FJ_DEVICE_REFERENCE, &reference, &error), &error);
}

static inline void close_devices(void) {
    tensors_free();
    fj_device_unref(&cpu);
    fj_device_unref(&reference);
    fj_context_unref(&context);
}

#endif
