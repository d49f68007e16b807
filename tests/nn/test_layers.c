/* Masks in their forms, probabilities, dropout, threads, and what callers get wrong. */
#include <pthread.h>

#include "nn/rows.h"
#include "tests/nn/fixture.h"

enum { B = 2, L = 4, D = 4, H = 2 };

static const maker values = {.dtype = FJ_DTYPE_F64, .speed = 1.7};

static fj_mha_desc desc_of(fj_mask_kind mask, fj_mask_kind padding) {
    return (fj_mha_desc){.struct_size = sizeof(fj_mha_desc),
                         .dtype = FJ_DTYPE_F64,
                         .embed_dim = D,
                         .heads = H,
                         .batch_first = true,
                         .attn_mask = mask,
                         .key_padding_mask = padding,
                         .inference = true};
}

static const DLTensor *rows(double speed) {
    nn_tensor *t = tensor_3(FJ_DTYPE_F64, B, L, D);
    return speed > 0 ? fill_cos(t, speed) : fill(t, 1e30);
}

static subject mha_of(fj_device *device, const fj_mha_desc *desc) {
    subject s = {.launch = {.struct_size = sizeof s.launch, .workers = 1}};
    s.mha_call = (fj_mha_call){
        .struct_size = sizeof s.mha_call, .state = make_mha(&values, D), .query = rows(0.9), .out = rows(0)};
    fj_error error = {0};
    must(fj_mha_create(device, desc, &s.mha, &error), &error);
    return s;
}

/* ---- Masks ------------------------------------------------------------------------------------------------------ */

/* The same mask in all of its ranks, with strides, and with one plane for all. */
START_TEST(test_ranks) {
    const bool is_bool = _i == 0;
    const fj_dtype dtype = is_bool ? FJ_DTYPE_BOOL : FJ_DTYPE_F64;
    const fj_mha_desc desc = desc_of(is_bool ? FJ_MASK_BOOL : FJ_MASK_FLOAT, FJ_MASK_NONE);
    subject s = mha_of(cpu, &desc);
    nn_tensor *plane = tensor_2(dtype, L, L), *all = tensor_make(dtype, 4, (int64_t[]){B, H, L, L});
    for (size_t i = 0; i < all->count; i++) {
        const size_t at = i % plane->count;
        if (is_bool)
            ((uint8_t *)all->dl.data)[i] = ((uint8_t *)plane->dl.data)[at] = at % 3 == 1;
        else
            ((double *)all->dl.data)[i] = ((double *)plane->dl.data)[at] = sin((double)at);
    }
    const DLTensor *first = s.mha_call.out;
    s.mha_call.attn_mask = &plane->dl;
    forward(&s, false);
    int64_t three[] = {B * H, L, L}, broadcast[] = {1, H, L, L}, wide[] = {B, H, L, L},
            strides[] = {0, 0, L, 1};
    DLTensor forms[] = {all->dl, all->dl, all->dl, plane->dl};
    forms[1].ndim = 3, forms[1].shape = three;
    forms[2].shape = broadcast;
    forms[3].ndim = 4, forms[3].shape = wide, forms[3].strides = strides;
    for (int i = 0; i < 4; i++) {
        s.mha_call.attn_mask = &forms[i];
        s.mha_call.out = rows(0);
        forward(&s, false);
        expect_same(s.mha_call.out, first, 1e-14, "out");
    }
    subject_finish(&s);
}
END_TEST

/* A mask [B*H,L,S] is batch-major: that of head h of batch b is plane b * H + h; as [B,H,L,S] it is the same. */
START_TEST(test_batch_major) {
    const fj_mha_desc desc = desc_of(FJ_MASK_BOOL, FJ_MASK_NONE);
    subject s = mha_of(cpu, &desc);
    nn_tensor *mask = tensor_3(FJ_DTYPE_BOOL, B * H, L, L);
    for (size_t i = 0; i < mask->count; i++) /* plane p sees key p alone */
        ((uint8_t *)mask->dl.data)[i] = i % L != i / (L * L);
    nn_tensor *weights = tensor_make(FJ_DTYPE_F64, 4, (int64_t[]){B, H, L, L});
    DLTensor planes = mask->dl;
    int64_t four[] = {B, H, L, L};
    if (_i == 1) planes.ndim = 4, planes.shape = four;
    s.mha_call.attn_mask = &planes;
    s.mha_call.weights = &weights->dl;
    forward(&s, false);
    for (size_t i = 0; i < weights->count; i++)
        ck_assert_double_eq_tol(tensor_get(&weights->dl, i), i % L == i / (L * L), 1e-15);
    subject_finish(&s);
}
END_TEST

/* A causal mask by position, as a tensor that is recognised, and with the hint, are the same. */
START_TEST(test_causal) {
    const fj_mha_desc by_position = desc_of(FJ_MASK_CAUSAL, FJ_MASK_BOOL),
                      by_tensor = desc_of(FJ_MASK_BOOL, FJ_MASK_BOOL);
    subject a = mha_of(cpu, &by_position), b = mha_of(cpu, &by_tensor);
    a.mha_call.key_padding_mask = b.mha_call.key_padding_mask = mask_of(2, (int64_t[]){B, L}, "00011000");
    b.mha_call.attn_mask = mask_of(2, (int64_t[]){L, L}, "0111001100010000");
    nn_tensor *weights = tensor_make(FJ_DTYPE_F64, 4, (int64_t[]){B, H, L, L});
    a.mha_call.weights = &weights->dl;
    forward(&a, false);
    for (int hint = 0; hint < 2; hint++) {
        b.mha_call.is_causal = hint;
        forward(&b, false);
        expect_same(b.mha_call.out, a.mha_call.out, 1e-14, "out");
    }
    for (size_t i = 0; i < weights->count; i++)
        if (i % L > i / L % L) ck_assert_double_eq(tensor_get(&weights->dl, i), 0);
    subject_finish(&a);
    subject_finish(&b);
}
END_TEST

/* A call may leave out masks that the object was made for. A query that sees nothing has the output's bias. */
START_TEST(test_absent_and_dead) {
    const fj_mha_desc plain = desc_of(FJ_MASK_NONE, FJ_MASK_NONE),
                      masked = desc_of(FJ_MASK_FLOAT, FJ_MASK_BOOL);
    subject a = mha_of(cpu, &plain), b = mha_of(cpu, &masked);
    forward(&a, false);
    forward(&b, false);
    expect_same(b.mha_call.out, a.mha_call.out, 1e-14, "out");
    b.mha_call.key_padding_mask = mask_of(2, (int64_t[]){B, L}, "11110000");
    b.mha_call.weights = &tensor_3(FJ_DTYPE_F64, B, L, L)->dl;
    forward(&b, false);
    for (size_t i = 0; i < L * D; i++)
        ck_assert_double_eq_tol(tensor_get(b.mha_call.out, i), tensor_get(b.mha_call.state.out.bias, i % D),
                                1e-15);
    for (size_t i = 0; i < L * L; i++) ck_assert_double_eq(tensor_get(b.mha_call.weights, i), 0);
    subject_finish(&a);
    subject_finish(&b);
}
END_TEST

/* Probabilities of heads add up to 1; their mean is the mean. */
START_TEST(test_weights) {
    const fj_mha_desc desc = desc_of(FJ_MASK_FLOAT, FJ_MASK_FLOAT);
    subject s = mha_of(cpu, &desc);
    nn_tensor *padding = tensor_2(FJ_DTYPE_F64, B, L), *mask = tensor_2(FJ_DTYPE_F64, L, L);
    tensor_set(fill(padding, 0), 2, -HUGE_VAL);
    s.mha_call.key_padding_mask = &padding->dl;
    s.mha_call.attn_mask = fill_cos(mask, 3);
    nn_tensor *heads = tensor_make(FJ_DTYPE_F64, 4, (int64_t[]){B, H, L, L}),
              *mean = tensor_3(FJ_DTYPE_F64, B, L, L);
    s.mha_call.weights = &heads->dl;
    forward(&s, false);
    s.mha_call.weights = &mean->dl;
    forward(&s, false);
    for (size_t row = 0; row < heads->count / L; row++) {
        double sum = 0;
        for (size_t i = 0; i < L; i++) sum += tensor_get(&heads->dl, row * L + i);
        ck_assert_double_eq_tol(sum, 1, 1e-14);
    }
    ck_assert_double_eq(tensor_get(&heads->dl, 2), 0); /* padding */
    for (size_t i = 0; i < mean->count; i++) {
        const size_t b = i / (L * L), at = i % (L * L);
        double sum = 0;
        for (size_t h = 0; h < H; h++) sum += tensor_get(&heads->dl, (b * H + h) * L * L + at) / H;
        ck_assert_double_eq_tol(tensor_get(&mean->dl, i), sum, 1e-15);
    }
    subject_finish(&s);
}
END_TEST

/* ---- Dropout ---------------------------------------------------------------------------------------------------- */

/* Which probabilities a call drops is what fj_dropout_mask says; evaluation drops nothing; 1 drops all. */
START_TEST(test_dropout) {
    fj_mha_desc desc = desc_of(FJ_MASK_NONE, FJ_MASK_NONE);
    desc.inference = false;
    desc.dropout = _i == 0 ? 0.4 : 1;
    subject s = mha_of(_i == 0 ? cpu : reference, &desc);
    nn_tensor *kept = tensor_make(FJ_DTYPE_F64, 4, (int64_t[]){B, H, L, L}),
              *all = tensor_make(FJ_DTYPE_F64, 4, kept->shape);
    nn_tensor *keep = tensor_make(FJ_DTYPE_BOOL, 4, kept->shape);
    fj_error error = {0};
    s.mha_call.seed = 17, s.mha_call.offset = 4;
    must(fj_dropout_mask(desc.dropout, 17, 4, &keep->dl, &error), &error);
    s.mha_call.weights = &all->dl;
    forward(&s, false);
    s.mha_call.weights = &kept->dl;
    forward(&s, true);
    const double scale = desc.dropout < 1 ? 1 / (1 - desc.dropout) : 0;
    for (size_t i = 0; i < kept->count; i++)
        ck_assert_double_eq_tol(tensor_get(&kept->dl, i),
                                ((uint8_t *)keep->dl.data)[i] ? tensor_get(&all->dl, i) * scale : 0, 1e-14);
    if (_i == 1)
        for (size_t i = 0; i < B * L * D; i++)
            ck_assert_double_eq_tol(tensor_get(s.mha_call.out, i),
                                    tensor_get(s.mha_call.state.out.bias, i % D), 1e-15);
    subject_finish(&s);
}
END_TEST

/* ---- Threads ---------------------------------------------------------------------------------------------------- */

static void run_backwards(void *user, int64_t items, void (*fn)(void *arg, int64_t item, int worker),
                          void *arg) {
    (void)user;
    for (int64_t item = items; item-- > 0;) fn(arg, item, (int)(item % 3));
}

/* Many rows on several threads, by OpenMP and by an executor, give what one gives; in F32, where products are real ones. */
START_TEST(test_threads) {
    const maker f32 = {.dtype = FJ_DTYPE_F32, .speed = 1.7}, nothing = {.dtype = FJ_DTYPE_F32};
    enum { WIDTH = 16, INNER = 200, LENGTH = 301 }; /* a gradient of linear1 is in three slices */
    const fj_encoder_desc desc = {.struct_size = sizeof desc,
                                  .dtype = FJ_DTYPE_F32,
                                  .layer = {.d_model = WIDTH,
                                            .heads = 2,
                                            .dim_feedforward = INNER,
                                            .activation = FJ_ACTIVATION_GELU,
                                            .batch_first = true}};
    const fj_encoder_layer layer = make_encoder_layer(&f32, WIDTH, INNER);
    const fj_executor executor = {NULL, 3, run_backwards};
    fj_encoder_layer gradients[3];
    const DLTensor *outs[3], *dsrcs[3];
    subject s = {.launch = {.struct_size = sizeof s.launch}};
    fj_error error = {0};
    must(fj_encoder_create(cpu, &desc, &s.encoder, &error), &error);
    for (int i = 0; i < 3; i++) {
        gradients[i] = make_encoder_layer(&nothing, WIDTH, INNER);
        s.encoder_call =
            (fj_encoder_call){.struct_size = sizeof s.encoder_call,
                              .layers = &layer,
                              .dlayers = &gradients[i],
                              .src = fill_cos(tensor_3(FJ_DTYPE_F32, 2, LENGTH, WIDTH), 0.9),
                              .out = outs[i] = fill(tensor_3(FJ_DTYPE_F32, 2, LENGTH, WIDTH), 1e30),
                              .dout = fill_cos(tensor_3(FJ_DTYPE_F32, 2, LENGTH, WIDTH), 0.3),
                              .dsrc = dsrcs[i] = fill(tensor_3(FJ_DTYPE_F32, 2, LENGTH, WIDTH), 1e30)};
        s.launch.workers = i == 0 ? 1 : 3;
        s.launch.executor = i == 2 ? &executor : NULL;
        step(&s);
        forward(&s, false);
        expect_same(outs[i], outs[0], 1e-5, "out");
        expect_same(dsrcs[i], dsrcs[0], 1e-4, "dsrc");
        expect_same(gradients[i].linear1.weight, gradients[0].linear1.weight, 1e-4, "dweight");
        expect_same(gradients[i].self_attn.in.bias, gradients[0].self_attn.in.bias, 1e-4, "dbias");
    }
    subject_finish(&s);
}
END_TEST

static void *run_steps(void *argument) {
    subject *s = argument;
    for (int i = 0; i < 3; i++) step(s);
    return NULL;
}

/* One object in two threads at once, each call with memory of its own. */
START_TEST(test_at_once) {
    fj_mha_desc desc = desc_of(FJ_MASK_CAUSAL, FJ_MASK_NONE);
    desc.inference = false;
    subject subjects[3];
    subjects[0] = mha_of(cpu, &desc);
    subjects[0].mha_call.dout = rows(0.3);
    for (int i = 0; i < 3; i++) {
        subjects[i] = subjects[0];
        subjects[i].mha_call.out = rows(0);
        subjects[i].mha_call.dquery = rows(0);
        subjects[i].launch.workers = 1;
    }
    pthread_t threads[2];
    step(&subjects[0]);
    for (int i = 0; i < 2; i++)
        ck_assert(pthread_create(&threads[i], NULL, run_steps, &subjects[i + 1]) == 0);
    for (int i = 0; i < 2; i++) {
        ck_assert(pthread_join(threads[i], NULL) == 0);
        expect_same(subjects[i + 1].mha_call.out, subjects[0].mha_call.out, 1e-15, "out");
        expect_same(subjects[i + 1].mha_call.dquery, subjects[0].mha_call.dquery, 1e-15, "dquery");
        free(subjects[i + 1].saved);
    }
    subject_finish(&subjects[0]);
}
END_TEST

/* No rows, no keys. */
START_TEST(test_empty) {
    const fj_mha_desc desc = desc_of(FJ_MASK_NONE, FJ_MASK_BOOL);
    subject s = mha_of(cpu, &desc);
    s.mha_call.key = &tensor_3(FJ_DTYPE_F64, B, 0, D)->dl;
    s.mha_call.key_padding_mask = &tensor_2(FJ_DTYPE_BOOL, B, 0)->dl;
    forward(&s, false);
    for (size_t i = 0; i < B * L * D; i++)
        ck_assert_double_eq_tol(tensor_get(s.mha_call.out, i), tensor_get(s.mha_call.state.out.bias, i % D),
                                1e-15);
    s.mha_call.key = s.mha_call.key_padding_mask = NULL;
    s.mha_call.query = s.mha_call.out = &tensor_3(FJ_DTYPE_F64, 0, L, D)->dl;
    forward(&s, false);
    subject_finish(&s);
}
END_TEST

/* Without a batch: as with a batch of 1. */
START_TEST(test_unbatched) {
    const fj_mha_desc desc = desc_of(FJ_MASK_BOOL, FJ_MASK_BOOL);
    subject s = mha_of(cpu, &desc);
    nn_tensor *one = tensor_3(FJ_DTYPE_F64, 1, L, D), *query = tensor_2(FJ_DTYPE_F64, L, D),
              *out = tensor_2(FJ_DTYPE_F64, L, D);
    s.mha_call.query = fill_cos(tensor_3(FJ_DTYPE_F64, 1, L, D), 0.9);
    s.mha_call.out = &one->dl;
    s.mha_call.attn_mask = mask_of(2, (int64_t[]){L, L}, "0100001010000010");
    s.mha_call.key_padding_mask = mask_of(2, (int64_t[]){1, L}, "0001");
    forward(&s, false);
    s.mha_call.query = fill_cos(query, 0.9);
    s.mha_call.out = &out->dl;
    s.mha_call.key_padding_mask = mask_of(1, (int64_t[]){L}, "0001");
    forward(&s, false);
    for (size_t i = 0; i < out->count; i++)
        ck_assert_double_eq(tensor_get(&out->dl, i), tensor_get(&one->dl, i));
    subject_finish(&s);
}
END_TEST

/* ---- Errors ----------------------------------------------------------------------------------------------------- */

static void expect_error(fj_status got, fj_status wanted, const fj_error *error, const char *text) {
    ck_assert_msg(got == wanted && strstr(error->text, text), "status %d: %s; not %d: %s", got, error->text,
                  wanted, text);
}

static void fails(subject *s, fj_status wanted, const char *text) {
    fj_error error = {0};
    expect_error(subject_forward(s, false, &error), wanted, &error, text);
}

START_TEST(test_wrong_masks) {
    const fj_mha_desc desc = desc_of(FJ_MASK_BOOL, FJ_MASK_BOOL);
    subject s = mha_of(reference, &desc);
    s.mha_call.is_causal = true;
    fails(&s, FJ_ERR_ARGUMENT, "is_causal is a hint about attn_mask, which is missing");
    s.mha_call.is_causal = false;
    s.mha_call.attn_mask = &tensor_2(FJ_DTYPE_BOOL, L, L + 1)->dl;
    fails(&s, FJ_ERR_TENSOR,
          "attn_mask has shape [4,5]; allowed are [L,S], [B*H,L,S] and [B,H,L,S], with B 2, H 2, L 4, S 4");
    s.mha_call.attn_mask = &tensor_3(FJ_DTYPE_BOOL, B, L, L)->dl;
    fails(&s, FJ_ERR_TENSOR, "attn_mask has shape [2,4,4]");
    s.mha_call.attn_mask = &tensor_1(FJ_DTYPE_BOOL, L)->dl;
    fails(&s, FJ_ERR_TENSOR, "attn_mask has shape [4]");
    s.mha_call.attn_mask = &tensor_2(FJ_DTYPE_F64, L, L)->dl;
    fails(&s, FJ_ERR_TENSOR, "attn_mask is F64: the layer was made for masks of BOOL, where true is hidden");
    s.mha_call.attn_mask = NULL;
    s.mha_call.key_padding_mask = &tensor_2(FJ_DTYPE_I64, B, L)->dl;
    fails(&s, FJ_ERR_TENSOR, "key_padding_mask is I64: the layer was made for masks of BOOL");
    s.mha_call.key_padding_mask = &tensor_2(FJ_DTYPE_BOOL, L, B)->dl;
    fails(&s, FJ_ERR_TENSOR, "key_padding_mask has shape [4,2]; allowed are [B,S]");
    subject_finish(&s);
    const fj_mha_desc none = desc_of(FJ_MASK_CAUSAL, FJ_MASK_NONE);
    s = mha_of(reference, &none);
    s.mha_call.key_padding_mask = &tensor_2(FJ_DTYPE_BOOL, B, L)->dl;
    fails(&s, FJ_ERR_TENSOR, "key_padding_mask is given, but the layer was made without one");
    subject_finish(&s);
}
END_TEST

START_TEST(test_wrong_tensors) {
    const fj_mha_desc desc = desc_of(FJ_MASK_NONE, FJ_MASK_NONE);
    subject s = mha_of(reference, &desc);
    const fj_mha_call right = s.mha_call;
    s.mha_call.query = &tensor_3(FJ_DTYPE_F64, B, L, D + 1)->dl;
    fails(&s, FJ_ERR_TENSOR, "query has shape [2,4,5], not [2,4,4]");
    s.mha_call.query = &tensor_3(FJ_DTYPE_F32, B, L, D)->dl;
    fails(&s, FJ_ERR_TENSOR, "query is F32, not F64");
    s.mha_call.query = &tensor_1(FJ_DTYPE_F64, D)->dl;
    fails(&s, FJ_ERR_TENSOR, "query has rank 1");
    s.mha_call = right;
    s.mha_call.key = &tensor_3(FJ_DTYPE_F64, B + 1, L, D)->dl;
    fails(&s, FJ_ERR_TENSOR, "key has shape [3,4,4], not [2,4,4]");
    s.mha_call = right;
    s.mha_call.state.q.weight = s.mha_call.state.out.weight;
    fails(&s, FJ_ERR_TENSOR, "state has in.weight and weights of q, k or v");
    s.mha_call = right;
    s.mha_call.state.out.bias = &tensor_1(FJ_DTYPE_F64, D + 2)->dl;
    fails(&s, FJ_ERR_TENSOR, "state.out.bias has shape [6], not [4] [E]");
    s.mha_call = right;
    s.mha_call.state.in.weight = NULL;
    fails(&s, FJ_ERR_TENSOR, "state.in.weight is missing: it is [3*E,E] [12,4]");
    s.mha_call = right;
    s.mha_call.out = NULL;
    fails(&s, FJ_ERR_TENSOR, "out is missing");
    s.mha_call = right;
    s.mha_call.out = right.query;
    fails(&s, FJ_ERR_TENSOR, "out overlaps query: an output has memory of its own");
    DLTensor strided = *right.query;
    s.mha_call = right;
    strided.strides = (int64_t[]){1, D, 1};
    s.mha_call.query = &strided;
    fails(&s, FJ_ERR_TENSOR, "query has strides");
    subject_finish(&s);
}
END_TEST

START_TEST(test_wrong_memory) {
    const fj_mha_desc desc = desc_of(FJ_MASK_NONE, FJ_MASK_NONE);
    subject s = mha_of(reference, &desc);
    _Alignas(256) static char memory[512];
    fj_error error = {0};
    fj_nn_memory small = {memory, 8, NULL, 0};
    expect_error(fj_mha_forward(s.mha, &s.mha_call, NULL, &small, &error), FJ_ERR_MEMORY, &error,
                 "the workspace has 8 bytes");
    small = (fj_nn_memory){memory + 1, 1 << 30, NULL, 0};
    expect_error(fj_mha_forward(s.mha, &s.mha_call, NULL, &small, &error), FJ_ERR_ARGUMENT, &error,
                 "not aligned");
    expect_error(fj_mha_backward(s.mha, &s.mha_call, NULL, &small, &error), FJ_ERR_ARGUMENT, &error,
                 "made for inference");
    expect_error(fj_mha_forward(s.mha, &s.mha_call, NULL, NULL, &error), FJ_ERR_ARGUMENT, &error,
                 "fj_nn_memory is NULL");
    ck_assert_double_eq(tensor_get(s.mha_call.out, 0), 1e30); /* untouched */
    subject_finish(&s);
}
END_TEST

static void create_fails(fj_mha_desc desc, fj_status wanted, const char *text) {
    fj_mha *mha = NULL;
    fj_error error = {0};
    expect_error(fj_mha_create(reference, &desc, &mha, &error), wanted, &error, text);
    ck_assert_ptr_null(mha);
}

START_TEST(test_wrong_desc) {
    create_fails(desc_of(FJ_MASK_BOOL, FJ_MASK_FLOAT), FJ_ERR_ARGUMENT,
                 "floating key padding mask can't go with a BOOL");
    create_fails(desc_of(FJ_MASK_BOOL, FJ_MASK_CAUSAL), FJ_ERR_ARGUMENT, "can't be FJ_MASK_CAUSAL");
    fj_mha_desc desc = desc_of(FJ_MASK_NONE, FJ_MASK_NONE);
    desc.heads = 3;
    create_fails(desc, FJ_ERR_ARGUMENT, "embed_dim is 4, which is not a multiple of 3 heads");
    desc.heads = 1, desc.embed_dim = 257;
    create_fails(desc, FJ_ERR_ARGUMENT, "the limit is 256");
    desc.embed_dim = D, desc.dropout = 1.5;
    create_fails(desc, FJ_ERR_ARGUMENT, "dropout is a probability");
    desc.dropout = 0, desc.dtype = FJ_DTYPE_BF16;
    create_fails(desc, FJ_ERR_UNSUPPORTED, "dtype BF16 is not supported");
    fj_device *device;
    fj_mha *mha;
    fj_error rounding = {0};
    desc.dtype = FJ_DTYPE_F64;
    must(fj_device_create(context, FJ_DEVICE_ROUNDING, &device, &rounding), &rounding);
    expect_error(fj_mha_create(device, &desc, &mha, &rounding), FJ_ERR_UNSUPPORTED, &rounding, "rounding");
    fj_device_unref(&device);
    must(fj_device_create_for_arch(context, FJ_DEVICE_CUDA, "sm_80", &device, &rounding), &rounding);
    expect_error(fj_mha_create(device, &desc, &mha, &rounding), FJ_ERR_UNSUPPORTED, &rounding,
                 "they take devices of host memory");
    fj_device_unref(&device);
    const fj_encoder_desc encoder = {.struct_size = sizeof encoder, .layer = {.d_model = D, .heads = H}};
    fj_encoder *made;
    fj_error error = {0};
    expect_error(fj_encoder_create(reference, &encoder, &made, &error), FJ_ERR_ARGUMENT, &error,
                 "dim_feedforward is 0");
}
END_TEST

START_TEST(test_wrong_layers) {
    const fj_encoder_desc desc = {
        .struct_size = sizeof desc,
        .dtype = FJ_DTYPE_F64,
        .layer = {.d_model = D, .heads = H, .dim_feedforward = 3, .batch_first = true},
        .layer_count = 2};
    fj_encoder_layer layers[2];
    for (int i = 0; i < 2; i++) layers[i] = make_encoder_layer(&values, D, 3);
    subject s = {.launch = {.struct_size = sizeof s.launch}};
    s.encoder_call = (fj_encoder_call){.struct_size = sizeof s.encoder_call,
                                       .layers = layers,
                                       .src = rows(1),
                                       .out = rows(0),
                                       .norm = layers[0].norm1};
    fj_error error = {0};
    must(fj_encoder_create(reference, &desc, &s.encoder, &error), &error);
    fails(&s, FJ_ERR_TENSOR, "norm is given, but the encoder was made without final_norm");
    s.encoder_call.norm = (fj_norm){0};
    layers[1].linear2.weight = layers[1].linear1.weight;
    fails(&s, FJ_ERR_TENSOR, "layers[1].linear2.weight has shape [3,4], not [4,3]");
    s.encoder_call.layers = NULL;
    fails(&s, FJ_ERR_ARGUMENT, "layers is NULL");
    subject_finish(&s);
}
END_TEST

/* In a process of its own, as a library is opened once. */
START_TEST(test_no_blas) {
    setenv("FLEXJIT_BLAS", "/nonexistent/libblas.so", 1);
    create_fails(desc_of(FJ_MASK_NONE, FJ_MASK_NONE), FJ_ERR_UNSUPPORTED,
                 "FLEXJIT_BLAS is /nonexistent/libblas.so");
}
END_TEST

/* ---- Rows ------------------------------------------------------------------------------------------------------- */

/* The activation of each build of the rows, in F32: 1e-6 of the value, down to where it is a millionth of x. */
START_TEST(test_gelu) {
    enum { COUNT = 4099, MIDDLE = COUNT / 2 };
    const fj_nn_rows *f32 = fj_nn_rows_of(FJ_DTYPE_F32), *f64 = fj_nn_rows_of(FJ_DTYPE_F64);
    static float x[COUNT], slope[COUNT], again[COUNT];
    static double wide[COUNT], wide_slope[COUNT];
    for (int i = 0; i < COUNT; i++) x[i] = again[i] = (float)(i - MIDDLE) / 256, wide[i] = (double)x[i];
    f32->gelu(x, slope, COUNT);
    f32->gelu(again, NULL, COUNT);
    f64->gelu(wide, wide_slope, COUNT);
    for (int i = 0; i < COUNT; i++) {
        const double at = (double)(i - MIDDLE) / 256;
        ck_assert_double_eq_tol(wide[i], at * 0.5 * erfc(-at / sqrt(2)), 1e-15 * fmax(1, fabs(at)));
        if (at > -5 && at != 0) ck_assert_double_eq_tol((double)x[i], wide[i], 1e-6 * fabs(wide[i]));
        ck_assert_double_eq_tol((double)x[i], wide[i], 1e-7 * fmax(1, fabs(wide[i])));
        ck_assert_double_eq_tol((double)slope[i], wide_slope[i], 1e-6);
        ck_assert(x[i] == again[i]);
    }
    float odd[] = {INFINITY, NAN, 1e38F, -1e38F};
    f32->gelu(odd, slope, 4);
    ck_assert(isinf(odd[0]) && isnan(odd[1]) && odd[2] == 1e38F && fabsf(odd[3]) == 0);
}
END_TEST

/* Which elements of a layer are dropped: those of base/philox.h's words at (row, column). */
START_TEST(test_drop) {
    enum { ROWS = 3, WIDTH = 150 };
    const fj_nn_drop drop = fj_nn_drop_of(0.25, 99, 12);
    float x[ROWS * WIDTH];
    double y[ROWS * WIDTH], also[ROWS * WIDTH];
    for (int i = 0; i < ROWS * WIDTH; i++) x[i] = 1, y[i] = 3, also[i] = 6;
    fj_nn_rows_of(FJ_DTYPE_F32)->drop(x, NULL, 70, ROWS, WIDTH, &drop);
    fj_nn_rows_of(FJ_DTYPE_F64)->drop(y, also, 70, ROWS, WIDTH, &drop);
    for (int i = 0; i < ROWS * WIDTH; i++) {
        const uint32_t word = fj_dropout_word(drop.key, 0, (uint32_t)(70 + i / WIDTH), (uint32_t)(i % WIDTH));
        const double wanted = word >= 1U << 30 ? 4.0 / 3 : 0;
        ck_assert_double_eq_tol((double)x[i], wanted, 1e-6);
        ck_assert_double_eq_tol(y[i], 3 * wanted, 1e-15);
        ck_assert_double_eq_tol(also[i], 6 * wanted, 1e-14);
    }
}
END_TEST

static TCase *case_of(Suite *suite, const char *name) {
    TCase *cases = tcase_create(name);
    tcase_add_checked_fixture(cases, open_devices, close_devices);
    tcase_set_timeout(cases, 100);
    suite_add_tcase(suite, cases);
    return cases;
}

int main(void) {
    if (no_blas()) return 77; /* skipped */
    Suite *suite = suite_create("nn layers");
    TCase *calls = case_of(suite, "calls"), *errors = case_of(suite, "errors");
    tcase_add_loop_test(calls, test_ranks, 0, 2);
    tcase_add_loop_test(calls, test_batch_major, 0, 2);
    tcase_add_test(calls, test_causal);
    tcase_add_test(calls, test_absent_and_dead);
    tcase_add_test(calls, test_weights);
    tcase_add_loop_test(calls, test_dropout, 0, 2);
    tcase_add_test(calls, test_threads);
    tcase_add_test(calls, test_at_once);
    tcase_add_test(calls, test_empty);
    tcase_add_test(calls, test_unbatched);
    tcase_add_test(calls, test_drop);
    tcase_add_test(calls, test_gelu);
    tcase_add_test(errors, test_wrong_masks);
    tcase_add_test(errors, test_wrong_tensors);
    tcase_add_test(errors, test_wrong_memory);
    tcase_add_test(errors, test_wrong_desc);
    tcase_add_test(errors, test_wrong_layers);
    const char *fork = getenv("CK_FORK");
    if (!fork || strcmp(fork, "no") != 0) tcase_add_test(errors, test_no_blas);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
