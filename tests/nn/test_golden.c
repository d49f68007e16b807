/* Layers against numbers of PyTorch: those that golden.py writes, and those of PyTorch's own tests. */
#include "tests/nn/fixture.h"
#include "tests/nn/golden.h"

enum { B = 2, L = 5, S = 3, D = 4, H = 2, F = 16 };

/* golden.h has 12 digits. */
static const double EXACT = 1e-10;

typedef struct encoder_case {
    int64_t layers;
    const char *padding; /* [B,L] */
    const double *out, *dsrc, *dweight;
    bool norm, norm_first, gelu, skip, causal;
} encoder_case;

static const encoder_case encoder_cases[] = {
    {.layers = 1, .out = golden_one},
    {.layers = 1, .padding = "0010000011", .out = golden_one_padded},
    {.layers = 2, .padding = "0001100001", .out = golden_two_tails},
    {.layers = 2, .padding = "0001100001", .skip = true, .out = golden_two_tails},
    {.layers = 2,
     .norm = true,
     .padding = "0010000011",
     .skip = true, /* a hole: nothing is skipped */
     .out = golden_two_norm,
     .dsrc = golden_two_norm_dsrc,
     .dweight = golden_two_norm_dweight},
    {.layers = 6, .out = golden_six},
    {.layers = 6, .norm = true, .out = golden_six_norm},
    {.layers = 2,
     .norm = true,
     .norm_first = true,
     .gelu = true,
     .causal = true,
     .out = golden_two_first,
     .dsrc = golden_two_first_dsrc,
     .dweight = golden_two_first_dweight},
};

/* [L,B,D] to [B,L,D], or as it is. */
static const DLTensor *in_order(const double *values, int64_t length, bool batch_first) {
    nn_tensor *t = batch_first ? tensor_3(FJ_DTYPE_F64, B, length, D) : tensor_3(FJ_DTYPE_F64, length, B, D);
    for (int64_t l = 0; l < length; l++)
        for (int64_t b = 0; b < B; b++)
            for (int64_t d = 0; d < D; d++)
                tensor_set(&t->dl, (size_t)(((batch_first ? b * length + l : l * B + b)) * D + d),
                           values[(l * B + b) * D + d]);
    return &t->dl;
}

/* got is in order, wanted [L,B,D]; rows that are hidden are not compared. */
static void expect_rows(const DLTensor *got, const double *wanted, bool batch_first, const char *padding,
                        const char *what) {
    for (int64_t l = 0; l < L; l++)
        for (int64_t b = 0; b < B; b++)
            for (int64_t d = 0; d < D && !(padding && padding[b * L + l] == '1'); d++) {
                const double value = tensor_get(got, (size_t)((batch_first ? b * L + l : l * B + b) * D + d));
                const double right = wanted[(l * B + b) * D + d];
                ck_assert_msg(fabs(value - right) <= EXACT * fmax(1, fabs(right)),
                              "%s[l %d, b %d, d %d]: %.12g, not %.12g", what, (int)l, (int)b, (int)d, value,
                              right);
            }
}

static void check_encoder(fj_device *device, const encoder_case *c, bool batch_first) {
    const maker values = {.dtype = FJ_DTYPE_F64, .speed = 1}, nothing = {.dtype = FJ_DTYPE_F64};
    fj_encoder_layer layers[MOST_LAYERS], dlayers[MOST_LAYERS];
    double dout[L * B * D];
    for (int i = 0; i < L * B * D; i++) dout[i] = sin(i);
    for (int64_t i = 0; i < c->layers; i++) {
        layers[i] = make_encoder_layer(&values, D, F);
        dlayers[i] = make_encoder_layer(&nothing, D, F);
    }
    const fj_encoder_desc desc = {.struct_size = sizeof desc,
                                  .dtype = FJ_DTYPE_F64,
                                  .layer = {.d_model = D,
                                            .heads = H,
                                            .dim_feedforward = F,
                                            .activation = c->gelu ? FJ_ACTIVATION_GELU : FJ_ACTIVATION_RELU,
                                            .norm_first = c->norm_first,
                                            .batch_first = batch_first},
                                  .layer_count = c->layers,
                                  .final_norm = c->norm,
                                  .mask = c->causal ? FJ_MASK_CAUSAL : FJ_MASK_NONE,
                                  .key_padding_mask = c->padding ? FJ_MASK_BOOL : FJ_MASK_NONE,
                                  .skip_padding = c->skip};
    subject s = {.launch = {.struct_size = sizeof s.launch, .workers = 2}};
    s.encoder_call = (fj_encoder_call){
        .struct_size = sizeof s.encoder_call,
        .layers = layers,
        .dlayers = dlayers,
        .src = in_order(golden_src, L, batch_first),
        .out = in_order(dout, L, batch_first),
        .dout = in_order(dout, L, batch_first),
        .dsrc = in_order(dout, L, batch_first),
        .key_padding_mask = c->padding ? mask_of(2, (int64_t[]){B, L}, c->padding) : NULL,
    };
    if (c->norm) s.encoder_call.norm = make_norm(&values, D);
    if (c->norm) s.encoder_call.dnorm = make_norm(&nothing, D);
    fj_error error = {0};
    must(fj_encoder_create(device, &desc, &s.encoder, &error), &error);
    forward(&s, false);
    expect_rows(s.encoder_call.out, c->out, batch_first, c->padding, "out in evaluation");
    forward(&s, true);
    expect_rows(s.encoder_call.out, c->out, batch_first, c->padding, "out in training");
    if (c->dsrc) {
        step(&s);
        expect_rows(s.encoder_call.dsrc, c->dsrc, batch_first, NULL, "dsrc");
        expect(dlayers[0].self_attn.in.weight, c->dweight, EXACT, "dweight");
    }
    subject_finish(&s);
}

START_TEST(test_encoder) {
    check_encoder(reference, &encoder_cases[_i], true);
    check_encoder(reference, &encoder_cases[_i], false);
    check_encoder(cpu, &encoder_cases[_i], _i % 2 == 0);
}
END_TEST

/* Padding that is skipped gives the same, and rows of 0 in its place. */
START_TEST(test_padding_is_zero) {
    const maker values = {.dtype = FJ_DTYPE_F64, .speed = 1}, nothing = {.dtype = FJ_DTYPE_F64};
    const fj_encoder_layer layer = make_encoder_layer(&values, D, F),
                           dlayer = make_encoder_layer(&nothing, D, F);
    const fj_encoder_desc desc = {
        .struct_size = sizeof desc,
        .dtype = FJ_DTYPE_F64,
        .layer = {.d_model = D, .heads = H, .dim_feedforward = F, .batch_first = true},
        .key_padding_mask = FJ_MASK_BOOL,
        .skip_padding = true};
    subject s = {.launch = {.struct_size = sizeof s.launch}};
    fj_error error = {0};
    s.encoder_call = (fj_encoder_call){
        .struct_size = sizeof s.encoder_call,
        .layers = &layer,
        .dlayers = &dlayer,
        .src = in_order(golden_src, L, true),
        .out = in_order(golden_src, L, true),
        .dout = in_order(golden_src, L, true),
        .dsrc = in_order(golden_src, L, true),
        .key_padding_mask = mask_of(2, (int64_t[]){B, L}, _i == 0 ? "1111100001" : "1111111111"),
    };
    must(fj_encoder_create(cpu, &desc, &s.encoder, &error), &error);
    step(&s);
    for (size_t i = 0; i < B * L * D; i++) {
        const bool hidden = i < L * D || i >= (2 * L - 1) * D || _i == 1;
        ck_assert_msg((tensor_get(s.encoder_call.out, i) == 0) == hidden, "out[%zu]", i);
        ck_assert_msg((tensor_get(s.encoder_call.dsrc, i) == 0) == hidden, "dsrc[%zu]", i);
    }
    for (size_t i = 0; i < 3 * D * D && _i == 1; i++)
        ck_assert_double_eq(tensor_get(dlayer.self_attn.in.weight, i), 0);
    subject_finish(&s);
}
END_TEST

/* transformerencoder_square_input: batch and length are both 2, and a mask of these is not confused. */
START_TEST(test_square_input) {
    static const double wanted[2][D] = {
        {2.420306205749512, 0.017629241570830, -0.607857942581177, -0.085519507527351},
        {2.419836044311523, 0.017548924311996, -0.608187675476074, -0.085347734391689}};
    const maker values = {.dtype = FJ_DTYPE_F64, .speed = 1};
    fj_encoder_layer layers[2];
    for (int i = 0; i < 2; i++) layers[i] = make_encoder_layer(&values, D, F);
    const fj_encoder_desc desc = {
        .struct_size = sizeof desc,
        .dtype = FJ_DTYPE_F64,
        .layer = {.d_model = D, .heads = H, .dim_feedforward = F, .batch_first = true},
        .layer_count = 2,
        .mask = FJ_MASK_BOOL};
    nn_tensor *src = tensor_3(FJ_DTYPE_F64, 2, 2, D);
    for (size_t i = 0; i < src->count; i++) tensor_set(&src->dl, i, (double)i);
    subject s = {.launch = {.struct_size = sizeof s.launch}};
    s.encoder_call = (fj_encoder_call){.struct_size = sizeof s.encoder_call,
                                       .layers = layers,
                                       .src = &src->dl,
                                       .out = &tensor_3(FJ_DTYPE_F64, 2, 2, D)->dl,
                                       .mask = mask_of(2, (int64_t[]){2, 2}, "0100")};
    fj_error error = {0};
    must(fj_encoder_create(_i == 0 ? cpu : reference, &desc, &s.encoder, &error), &error);
    for (int training = 0; training < 2; training++) {
        forward(&s, training);
        for (size_t i = 0; i < src->count; i++)
            ck_assert_double_eq_tol(tensor_get(s.encoder_call.out, i), wanted[i / (2 * D)][i % D], 1e-7);
    }
    subject_finish(&s);
}
END_TEST

/* All-ones weights: each value is 4, each output 16. */
START_TEST(test_ones) {
    const maker values = {.dtype = FJ_DTYPE_F64, .speed = 1, .no_bias = true};
    fj_mha_state state = make_mha(&values, D);
    fill(tensor_of(state.in.weight), 1);
    fill(tensor_of(state.out.weight), 1);
    const fj_mha_desc desc = {.struct_size = sizeof desc,
                              .dtype = FJ_DTYPE_F64,
                              .embed_dim = D,
                              .heads = 1,
                              .batch_first = true,
                              .attn_mask = FJ_MASK_CAUSAL};
    nn_tensor *query = tensor_3(FJ_DTYPE_F64, 1, 2, D);
    subject s = {.launch = {.struct_size = sizeof s.launch}};
    s.mha_call = (fj_mha_call){.struct_size = sizeof s.mha_call,
                               .state = state,
                               .query = fill(query, 1),
                               .out = &tensor_3(FJ_DTYPE_F64, 1, 2, D)->dl};
    fj_error error = {0};
    must(fj_mha_create(reference, &desc, &s.mha, &error), &error);
    forward(&s, false);
    for (size_t i = 0; i < query->count; i++)
        ck_assert_double_eq_tol(tensor_get(s.mha_call.out, i), 16, 1e-12);
    subject_finish(&s);
}
END_TEST

static void check_decoder(fj_device *device, int64_t count, bool norm_first, const double *out,
                          const double *dtgt, const double *dmemory) {
    const maker values = {.dtype = FJ_DTYPE_F64, .speed = 1}, nothing = {.dtype = FJ_DTYPE_F64};
    fj_decoder_layer layers[MOST_LAYERS], dlayers[MOST_LAYERS];
    double dout[L * B * D];
    for (int i = 0; i < L * B * D; i++) dout[i] = sin(i);
    for (int64_t i = 0; i < count; i++) {
        layers[i] = make_decoder_layer(&values, D, F);
        dlayers[i] = make_decoder_layer(&nothing, D, F);
    }
    const fj_decoder_desc desc = {.struct_size = sizeof desc,
                                  .dtype = FJ_DTYPE_F64,
                                  .layer = {.d_model = D,
                                            .heads = H,
                                            .dim_feedforward = F,
                                            .activation = FJ_ACTIVATION_GELU,
                                            .norm_first = norm_first},
                                  .layer_count = count,
                                  .tgt_mask = FJ_MASK_BOOL,
                                  .memory_key_padding_mask = FJ_MASK_BOOL};
    subject s = {.launch = {.struct_size = sizeof s.launch}};
    s.decoder_call = (fj_decoder_call){.struct_size = sizeof s.decoder_call,
                                       .layers = layers,
                                       .dlayers = dlayers,
                                       .tgt = in_order(golden_src, L, false),
                                       .memory = in_order(golden_memory, S, false),
                                       .out = in_order(dout, L, false),
                                       .dout = in_order(dout, L, false),
                                       .dtgt = in_order(dout, L, false),
                                       .dmemory = in_order(golden_memory, S, false),
                                       .tgt_mask = mask_of(2, (int64_t[]){L, L}, "0111100111000110000100000"),
                                       .tgt_is_causal = norm_first, /* a hint changes nothing */
                                       .memory_key_padding_mask = mask_of(2, (int64_t[]){B, S}, "001000")};
    fj_error error = {0};
    must(fj_decoder_create(device, &desc, &s.decoder, &error), &error);
    forward(&s, false);
    expect(s.decoder_call.out, out, EXACT, "out in evaluation");
    step(&s);
    expect(s.decoder_call.out, out, EXACT, "out");
    expect(s.decoder_call.dtgt, dtgt, EXACT, "dtgt");
    expect(s.decoder_call.dmemory, dmemory, EXACT, "dmemory");
    subject_finish(&s);
}

START_TEST(test_decoder) {
    fj_device *device = _i == 0 ? reference : cpu;
    check_decoder(device, 2, false, golden_decoder, golden_decoder_dtgt, golden_decoder_dmemory);
    check_decoder(device, 1, true, golden_decoder_first, golden_decoder_first_dtgt,
                  golden_decoder_first_dmemory);
}
END_TEST

int main(void) {
    if (no_blas()) return 77; /* skipped */
    Suite *suite = suite_create("nn golden");
    TCase *cases = tcase_create("golden");
    tcase_add_checked_fixture(cases, open_devices, close_devices);
    tcase_set_timeout(cases, 100);
    tcase_add_loop_test(cases, test_encoder, 0, (int)(sizeof encoder_cases / sizeof *encoder_cases));
    tcase_add_loop_test(cases, test_padding_is_zero, 0, 2);
    tcase_add_loop_test(cases, test_square_input, 0, 2);
    tcase_add_test(cases, test_ones);
    tcase_add_loop_test(cases, test_decoder, 0, 2);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
