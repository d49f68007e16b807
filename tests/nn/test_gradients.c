/* Gradients of layers in F64 against differences of a loss, sum(out * dout), and dropout, whose mask stays while its seed does. */
#include "tests/nn/fixture.h"

enum { B = 2, L = 5, S = 4, D = 6, H = 3, F = 7, MOST_PAIRS = 64 };

/* What is differentiated, and its gradient. */
typedef struct pairs {
    const DLTensor *value[MOST_PAIRS], *gradient[MOST_PAIRS];
    int count;
} pairs;

static void add(pairs *p, const DLTensor *value, const DLTensor *gradient) {
    if (!value) return;
    ck_assert(gradient && p->count < MOST_PAIRS);
    p->value[p->count] = value;
    p->gradient[p->count++] = gradient;
}
static void add_linear(pairs *p, const fj_linear *l, const fj_linear *d) {
    add(p, l->weight, d->weight);
    add(p, l->bias, d->bias);
}
static void add_norm(pairs *p, const fj_norm *n, const fj_norm *d) {
    add(p, n->weight, d->weight);
    add(p, n->bias, d->bias);
}
static void add_mha(pairs *p, const fj_mha_state *s, const fj_mha_state *d) {
    add_linear(p, &s->in, &d->in);
    add_linear(p, &s->q, &d->q);
    add_linear(p, &s->k, &d->k);
    add_linear(p, &s->v, &d->v);
    add_linear(p, &s->out, &d->out);
}

static double loss(subject *s, const DLTensor *out, const DLTensor *dout) {
    double sum = 0;
    forward(s, true);
    for (size_t i = 0; i < tensor_of(out)->count; i++) sum += tensor_get(out, i) * tensor_get(dout, i);
    return sum;
}

/* A few elements of each. */
static void check(subject *s, const pairs *p, const DLTensor *out, const DLTensor *dout) {
    step(s);
    for (int i = 0; i < p->count; i++) {
        const size_t count = tensor_of(p->value[i])->count, stride = count / 3 + 1;
        for (size_t at = (size_t)i % stride; at < count; at += stride) {
            const double value = tensor_get(p->value[i], at), epsilon = 1e-5;
            tensor_set(p->value[i], at, value + epsilon);
            const double above = loss(s, out, dout);
            tensor_set(p->value[i], at, value - epsilon);
            const double below = loss(s, out, dout);
            tensor_set(p->value[i], at, value);
            const double difference = (above - below) / (2 * epsilon),
                         gradient = tensor_get(p->gradient[i], at);
            ck_assert_msg(fabs(difference - gradient) <= 1e-6 * fmax(1, fabs(difference)),
                          "gradient of tensor %d, element %zu: %.10g, by differences %.10g", i, at, gradient,
                          difference);
        }
    }
}

static const maker values = {.dtype = FJ_DTYPE_F64, .speed = 1.7}, nothing = {.dtype = FJ_DTYPE_F64};

static const DLTensor *input(int64_t a, int64_t b, int64_t c, double speed) {
    nn_tensor *t = tensor_3(FJ_DTYPE_F64, a, b, c);
    return speed > 0 ? fill_cos(t, speed) : fill(t, 1e30);
}

/* ---- Multi-head attention ------------------------------------------------------------------------------------- */

typedef struct mha_case {
    bool separate, has_key, has_value, batch_first, no_bias, on_cpu;
    fj_mask_kind mask, padding;
    double dropout;
} mha_case;

static const mha_case mha_cases[] = {
    {.batch_first = true, .mask = FJ_MASK_FLOAT, .padding = FJ_MASK_FLOAT, .on_cpu = true},
    {.separate = true,
     .has_key = true,
     .has_value = true,
     .mask = FJ_MASK_BOOL,
     .padding = FJ_MASK_BOOL,
     .on_cpu = true},
    {.has_key = true, .batch_first = true, .no_bias = true, .dropout = 0.3, .on_cpu = true},
    {.has_value = true, .separate = true, .mask = FJ_MASK_CAUSAL},
    {.separate = true, .has_key = true, .dropout = 0.5, .mask = FJ_MASK_FLOAT, .padding = FJ_MASK_BOOL},
};

static fj_mha_state separate_state(const maker *m, int64_t k_in, int64_t v_in) {
    return (fj_mha_state){.q = make_linear(m, D, D),
                          .k = make_linear(m, D, k_in),
                          .v = make_linear(m, D, v_in),
                          .out = make_linear(m, D, D)};
}

START_TEST(test_mha) {
    const mha_case *c = &mha_cases[_i];
    maker of = values, none = nothing;
    of.no_bias = none.no_bias = c->no_bias;
    const int64_t keys = c->has_key ? S : L, k_in = c->separate && c->has_key ? 4 : D;
    const int64_t v_in = c->separate && c->has_value ? 8 : k_in;
    const fj_mha_desc desc = {.struct_size = sizeof desc,
                              .dtype = FJ_DTYPE_F64,
                              .embed_dim = D,
                              .heads = H,
                              .kdim = k_in,
                              .vdim = v_in,
                              .batch_first = c->batch_first,
                              .attn_mask = c->mask,
                              .key_padding_mask = c->padding,
                              .dropout = c->dropout};
    subject s = {.launch = {.struct_size = sizeof s.launch, .workers = 1}};
    fj_mha_call *a = &s.mha_call;
    const int64_t q0 = c->batch_first ? B : L, q1 = c->batch_first ? L : B;
    const int64_t k0 = c->batch_first ? B : keys, k1 = c->batch_first ? keys : B;
    *a = (fj_mha_call){.struct_size = sizeof *a,
                       .state = c->separate ? separate_state(&of, k_in, v_in) : make_mha(&of, D),
                       .dstate = c->separate ? separate_state(&none, k_in, v_in) : make_mha(&none, D),
                       .query = input(q0, q1, D, 0.9),
                       .key = c->has_key ? input(k0, k1, k_in, 1.3) : NULL,
                       .value = c->has_value ? input(k0, k1, v_in, 2.1) : NULL,
                       .out = input(q0, q1, D, 0),
                       .dout = input(q0, q1, D, 0.37),
                       .dquery = input(q0, q1, D, 0),
                       .dkey = c->has_key ? input(k0, k1, k_in, 0) : NULL,
                       .dvalue = c->has_value ? input(k0, k1, v_in, 0) : NULL,
                       .seed = 5,
                       .offset = 7};
    if (c->mask == FJ_MASK_FLOAT) a->attn_mask = input(B * H, L, keys, 3.1);
    if (c->mask == FJ_MASK_BOOL)
        a->attn_mask = mask_of(2, (int64_t[]){L, keys},
                               "0100"
                               "0010"
                               "1000"
                               "0001"
                               "0000");
    if (c->padding == FJ_MASK_FLOAT) {
        nn_tensor *padding = tensor_2(FJ_DTYPE_F64, B, keys);
        tensor_set(fill(padding, 0), 1, -HUGE_VAL);
        a->key_padding_mask = &padding->dl;
    }
    if (c->padding == FJ_MASK_BOOL) a->key_padding_mask = mask_of(2, (int64_t[]){B, keys}, "00010000");
    fj_error error = {0};
    must(fj_mha_create(c->on_cpu ? cpu : reference, &desc, &s.mha, &error), &error);
    pairs p = {.count = 0};
    add_mha(&p, &a->state, &a->dstate);
    add(&p, a->query, a->dquery);
    add(&p, a->key, a->dkey);
    add(&p, a->value, a->dvalue);
    check(&s, &p, a->out, a->dout);
    subject_finish(&s);
}
END_TEST

/* ---- Encoder and decoder ---------------------------------------------------------------------------------------- */

typedef struct layer_case {
    bool norm_first, gelu, on_cpu, skip;
    double dropout;
} layer_case;

static const layer_case layer_cases[] = {
    {.gelu = true, .dropout = 0.2, .on_cpu = true},
    {.norm_first = true, .gelu = true, .dropout = 0.4},
    {.norm_first = true, .gelu = true, .skip = true, .on_cpu = true},
    {.skip = true, .gelu = true, .dropout = 0.3},
};

static fj_layer_desc layer_of(const layer_case *c) {
    return (fj_layer_desc){.d_model = D,
                           .heads = H,
                           .dim_feedforward = F,
                           .activation = c->gelu ? FJ_ACTIVATION_GELU : FJ_ACTIVATION_RELU,
                           .norm_first = c->norm_first,
                           .norm_eps = 1e-3,
                           .dropout = c->dropout};
}

START_TEST(test_encoder) {
    const layer_case *c = &layer_cases[_i];
    const fj_encoder_desc desc = {.struct_size = sizeof desc,
                                  .dtype = FJ_DTYPE_F64,
                                  .layer = layer_of(c),
                                  .layer_count = 2,
                                  .final_norm = true,
                                  .key_padding_mask = FJ_MASK_BOOL,
                                  .skip_padding = c->skip};
    fj_encoder_layer layers[2], dlayers[2];
    subject s = {.launch = {.struct_size = sizeof s.launch, .workers = 1}};
    fj_encoder_call *a = &s.encoder_call;
    *a = (fj_encoder_call){.struct_size = sizeof *a,
                           .layers = layers,
                           .dlayers = dlayers,
                           .norm = make_norm(&values, D),
                           .dnorm = make_norm(&nothing, D),
                           .src = input(L, B, D, 0.9),
                           .out = input(L, B, D, 0),
                           .dout = input(L, B, D, 0.37),
                           .dsrc = input(L, B, D, 0),
                           .key_padding_mask = mask_of(2, (int64_t[]){B, L}, "0001100000"),
                           .seed = 3,
                           .offset = 11};
    pairs p = {.count = 0};
    for (int i = 0; i < 2; i++) {
        const fj_encoder_layer *l = &layers[i], *d = &dlayers[i];
        layers[i] = make_encoder_layer(&values, D, F);
        dlayers[i] = make_encoder_layer(&nothing, D, F);
        add_mha(&p, &l->self_attn, &d->self_attn);
        add_linear(&p, &l->linear1, &d->linear1);
        add_linear(&p, &l->linear2, &d->linear2);
        add_norm(&p, &l->norm1, &d->norm1);
        add_norm(&p, &l->norm2, &d->norm2);
    }
    add_norm(&p, &a->norm, &a->dnorm);
    add(&p, a->src, a->dsrc);
    fj_error error = {0};
    must(fj_encoder_create(c->on_cpu ? cpu : reference, &desc, &s.encoder, &error), &error);
    check(&s, &p, a->out, a->dout);
    subject_finish(&s);
}
END_TEST

START_TEST(test_decoder) {
    const layer_case *c = &layer_cases[_i];
    const fj_decoder_desc desc = {.struct_size = sizeof desc,
                                  .dtype = FJ_DTYPE_F64,
                                  .layer = layer_of(c),
                                  .layer_count = 2,
                                  .tgt_mask = FJ_MASK_CAUSAL};
    fj_decoder_layer layers[2], dlayers[2];
    subject s = {.launch = {.struct_size = sizeof s.launch, .workers = 1}};
    fj_decoder_call *a = &s.decoder_call;
    *a = (fj_decoder_call){.struct_size = sizeof *a,
                           .layers = layers,
                           .dlayers = dlayers,
                           .tgt = input(L, B, D, 0.9),
                           .memory = input(S, B, D, 1.9),
                           .out = input(L, B, D, 0),
                           .dout = input(L, B, D, 0.37),
                           .dtgt = input(L, B, D, 0),
                           .dmemory = input(S, B, D, 0),
                           .seed = 3,
                           .offset = 11};
    pairs p = {.count = 0};
    for (int i = 0; i < 2; i++) {
        const fj_decoder_layer *l = &layers[i], *d = &dlayers[i];
        layers[i] = make_decoder_layer(&values, D, F);
        dlayers[i] = make_decoder_layer(&nothing, D, F);
        add_mha(&p, &l->self_attn, &d->self_attn);
        add_mha(&p, &l->cross_attn, &d->cross_attn);
        add_linear(&p, &l->linear1, &d->linear1);
        add_norm(&p, &l->norm1, &d->norm1);
        add_norm(&p, &l->norm2, &d->norm2);
        add_norm(&p, &l->norm3, &d->norm3);
    }
    add(&p, a->tgt, a->dtgt);
    add(&p, a->memory, a->dmemory);
    fj_error error = {0};
    must(fj_decoder_create(c->on_cpu ? cpu : reference, &desc, &s.decoder, &error), &error);
    check(&s, &p, a->out, a->dout);
    subject_finish(&s);
}
END_TEST

int main(void) {
    if (no_blas()) return 77; /* skipped */
    Suite *suite = suite_create("nn gradients");
    TCase *cases = tcase_create("gradients");
    tcase_add_checked_fixture(cases, open_devices, close_devices);
    tcase_set_timeout(cases, 100);
    tcase_add_loop_test(cases, test_mha, 0, (int)(sizeof mha_cases / sizeof *mha_cases));
    tcase_add_loop_test(cases, test_encoder, 0, (int)(sizeof layer_cases / sizeof *layer_cases));
    tcase_add_loop_test(cases, test_decoder, 0, 2);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
