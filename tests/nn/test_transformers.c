/* Counterparts of the tests of layers in PyTorch's test_transformers.py, by their names: docs/transformers.md has the table. */
#include "tests/nn/layers.h"

/* ---- Tests, by PyTorch's names ----------------------------------------------------------------------------------- */

START_TEST(self_attn_TxT_attn_mask) {
    enum { B = 2, H = 2, L = 5 };
    const mha self = make_mha(H, FJ_MASK_BOOL, FJ_MASK_NONE, true);
    const DLTensor *x = waves(0, DIMS(B, L, 4 * H)), *mask = causal(L);
    DLTensor *flat = make(FJ_DTYPE_BOOL, DIMS(B * H, L, L)), *whole = make(FJ_DTYPE_BOOL, DIMS(B, H, L, L));
    for (int i = 0; i < B * H * L * L; i++) bools(flat)[i] = bools(whole)[i] = bools(mask)[i % (L * L)];
    const DLTensor *expected = attend(&self, x, mask, NULL, true);
    ASSERT_SAME(attend(&self, x, flat, NULL, true), expected, NULL);
    ASSERT_SAME(attend(&self, x, whole, NULL, true), expected, NULL);
    bools(flat)[2 * L * L + 4] = bools(whole)[2 * L * L + 4] = false; /* batch 1, head 0: a key for query 0 */
    const DLTensor *other = attend(&self, x, flat, NULL, true);
    ASSERT_SAME(other, attend(&self, x, whole, NULL, true), NULL);
    for (int i = 0; i < B * L; i++) /* is seen there alone */
        for (int e = 0; e < 4 * H; e++)
            ck_assert((numbers(other)[i * 4 * H + e] != numbers(expected)[i * 4 * H + e]) == (i == L));
}
END_TEST

/* Moves parameters, all pointers of their structs, along their gradients. */
static void descend(fj_encoder_layer *layers, const fj_encoder_layer *gradients, size_t count, double rate) {
    const DLTensor **at = (const DLTensor **)layers, *const *slope = (const DLTensor *const *)gradients;
    for (size_t i = 0; i < count * (sizeof *layers / sizeof(void *)); i++)
        for (int64_t e = 0; at[i] && slope[i] && e < count_of(at[i]); e++)
            numbers(at[i])[e] -= rate * numbers(slope[i])[e];
}

START_TEST(train_with_pad_and_catch_error) {
    enum { B = 1, L = 4, D = 8 };
    encoder self = make_encoder(2, FJ_MASK_NONE, FJ_MASK_BOOL);
    self.desc.layer.activation = FJ_ACTIVATION_GELU;
    fj_encoder_layer gradients[] = {encoder_layer(0, D, 12, true), encoder_layer(0, D, 12, true)};
    const DLTensor *src = waves(2, DIMS(B, L, D)), *padding = tails(L, B, (int64_t[]){2});
    fj_encoder_call call = {
        .struct_size = sizeof call, .layers = self.layers, .dlayers = gradients, .src = src};
    call.out = empty(DIMS(B, L, D)), call.dout = empty(DIMS(B, L, D)), call.key_padding_mask = padding;
    fj_encoder *object = NULL;
    fj_error error = {0};
    double first = 0, loss = 0;
    ck_assert_msg(fj_encoder_create(device, &self.desc, &object, &error) == FJ_OK, "%s", error.text);
    for (int step = 0; step < 200;
         step++) { /* to give back its input; each other step is for the loss alone */
        ck_assert_msg(step_encoder(object, &call, true, &error) == FJ_OK, "%s", error.text);
        if (step % 2) descend(self.layers, gradients, 2, 0.01);
        loss = 0;
        for (int64_t i = 0; i < (int64_t)2 * D; i++) { /* of tokens that are no padding */
            const double difference = numbers(call.out)[i] - numbers(src)[i];
            loss += difference * difference, numbers(call.dout)[i] = 2 * difference;
        }
        if (step == 0) first = loss;
    }
    fj_encoder_unref(&object);
    ck_assert_double_lt(loss, 0.5 * first);
    ASSERT_SAME(encode(&self, src, NULL, padding, true), encode(&self, src, NULL, padding, false), padding);
    call.key_padding_mask = make(FJ_DTYPE_I64, DIMS(B, L));
    ck_assert_int_eq(status_encoder(&self.desc, &call, true, &error), FJ_ERR_TENSOR);
    ck_assert_msg(strstr(error.text, "key_padding_mask") && strstr(error.text, "I64"), "%s", error.text);
}
END_TEST

/* Training and evaluation agree, and so do a mask of bools and the floating one that hides the same. */
START_TEST(multiheadattention_fastpath_attn_mask) {
    enum { B = 2, H = 2, L = 4 };
    const DLTensor *x = waves(4, DIMS(B, L, 4 * H)), *paddings[] = {NULL, tails(L, B, (int64_t[]){4, 3})};
    DLTensor *deep = make(FJ_DTYPE_BOOL, DIMS(B * H, L, L));
    for (int i = 0; i < B * H * L * L; i++) bools(deep)[i] = sin(i) > 0.2 && i % L;
    const DLTensor *masks[] = {NULL, causal(L), deep};
    for (int m = 0; m < 3; m++)
        for (int p = 0; p < 2; p++) {
            const mha plain = make_mha(H, FJ_MASK_BOOL, FJ_MASK_BOOL, true);
            const mha added = make_mha(H, FJ_MASK_FLOAT, FJ_MASK_FLOAT, true);
            const DLTensor *expected = attend(&plain, x, masks[m], paddings[p], true);
            const DLTensor *mask = masks[m] ? floating(masks[m]) : NULL;
            const DLTensor *padding = paddings[p] ? floating(paddings[p]) : NULL;
            ASSERT_SAME(attend(&plain, x, masks[m], paddings[p], false), expected, NULL);
            ASSERT_SAME(attend(&added, x, mask, padding, true), expected, NULL);
            ASSERT_SAME(attend(&added, x, mask, padding, false), expected, NULL);
        }
}
END_TEST

START_TEST(transformerencoderlayer_src_mask) {
    const int64_t heads[] = {1, 4, 8};
    for (int i = 0; i < 3; i++) {
        encoder self = make_encoder(1, FJ_MASK_BOOL, FJ_MASK_NONE);
        self.desc.layer.heads = heads[i], self.desc.layer.d_model = 4 * heads[i];
        self.layers[0] = encoder_layer(1, 4 * heads[i], 12, true);
        const DLTensor *src = waves(1, DIMS(2, 3, 4 * heads[i])), *mask = causal(3);
        ASSERT_SAME(encode(&self, src, mask, NULL, true), encode(&self, src, mask, NULL, false), NULL);
    }
}
END_TEST

/* What is skipped changes nothing else, and is 0. */
START_TEST(transformerencoder_fastpath) {
    enum { B = 4, L = 9 };
    const DLTensor *src = waves(3, DIMS(B, L, 8)), *padding = tails(L, B, (int64_t[]){9, 1, 4, 8});
    encoder self = make_encoder(2, FJ_MASK_BOOL, FJ_MASK_BOOL);
    const DLTensor *masks[] = {NULL, causal(L)};
    for (int i = 0; i < 4; i++) {
        self.desc.skip_padding = false;
        const DLTensor *expected = encode(&self, src, masks[i / 2], padding, true);
        self.desc.skip_padding = true;
        const DLTensor *out = encode(&self, src, masks[i / 2], padding, i % 2);
        ASSERT_SAME(out, expected, padding);
        for (int64_t row = 0; row < (int64_t)B * L; row++)
            for (int e = 0; e < 8; e++) ck_assert(!bools(padding)[row] || numbers(out)[row * 8 + e] == 0);
    }
}
END_TEST

/* Numbers of PyTorch 2.15 in double. A mask whose axes were mistaken would give others. */
START_TEST(transformerencoder_square_input) {
    static const double expected[2][4] = {
        {2.420306133263939, 0.017629267817909, -0.607857933695444, -0.085519477256328},
        {2.419835962760092, 0.017548946243767, -0.608187659773144, -0.085347713402835}};
    encoder self = make_encoder(2, FJ_MASK_BOOL, FJ_MASK_NONE);
    self.desc.layer.d_model = 4, self.desc.layer.dim_feedforward = 16;
    for (int i = 0; i < 2; i++) {
        self.layers[i] = encoder_layer(0, 4, 16, true);
        const DLTensor **parameters = (const DLTensor **)&self.layers[i];
        for (size_t p = 0; p < sizeof(fj_encoder_layer) / sizeof(void *); p++)
            if (parameters[p]) parameters[p] = cosines(parameters[p]->ndim, parameters[p]->shape);
    }
    DLTensor *src = empty(DIMS(2, 2, 4)), *mask = make(FJ_DTYPE_BOOL, DIMS(2, 2));
    for (int i = 0; i < 16; i++) numbers(src)[i] = i;
    bools(mask)[1] = true;
    for (int training = 0; training < 2; training++) {
        const DLTensor *out = encode(&self, src, mask, NULL, training);
        for (int i = 0; i < 16; i++) ck_assert_double_eq_tol(numbers(out)[i], expected[i / 8][i % 4], 1e-12);
    }
}
END_TEST

/* Masks of bools and of floats that hide the same, with padding; hidden keys are as if they were not there. */
START_TEST(encoder_padding_and_src_mask_bool) {
    enum { B = 2, L = 5, KEPT = 3 };
    const encoder plain = make_encoder(2, FJ_MASK_BOOL, FJ_MASK_BOOL);
    const encoder added = make_encoder(2, FJ_MASK_FLOAT, FJ_MASK_FLOAT);
    const DLTensor *src = waves(0, DIMS(B, L, 8)), *mask = causal(L),
                   *padding = tails(L, B, (int64_t[]){3, 3});
    const DLTensor *out = encode(&plain, src, mask, padding, true);
    ASSERT_SAME(encode(&added, src, floating(mask), floating(padding), true), out, padding);
    DLTensor *cut = empty(DIMS(B, KEPT, 8));
    for (int b = 0; b < B; b++)
        memcpy(numbers(cut) + b * KEPT * 8, numbers(src) + b * L * 8, sizeof(double[KEPT * 8]));
    const DLTensor *shorter = encode(&plain, cut, causal(KEPT), NULL, true);
    for (int b = 0; b < B; b++)
        for (int i = 0; i < KEPT * 8; i++)
            ck_assert_double_eq_tol(numbers(out)[b * L * 8 + i], numbers(shorter)[b * KEPT * 8 + i], 1e-11);
}
END_TEST

static const DLTensor *decode(fj_mask_kind kind, const DLTensor *tgt, const DLTensor *memory,
                              const DLTensor *mask, const DLTensor *padding, const DLTensor *memory_padding,
                              bool training) {
    fj_decoder_desc desc = {.struct_size = sizeof desc, .dtype = FJ_DTYPE_F64, .layer_count = 2};
    desc.layer = (fj_layer_desc){.d_model = 8, .heads = 2, .dim_feedforward = 12, .batch_first = true};
    desc.tgt_mask = desc.tgt_key_padding_mask = desc.memory_key_padding_mask = kind;
    const fj_decoder_layer layers[] = {decoder_layer(0, 8, 12, true), decoder_layer(1, 8, 12, true)};
    fj_decoder_call call = {.struct_size = sizeof call, .layers = layers, .tgt = tgt, .memory = memory};
    call.out = empty(tgt->ndim, tgt->shape), call.tgt_mask = mask, call.tgt_key_padding_mask = padding;
    call.memory_key_padding_mask = memory_padding, call.dout = tgt, call.dtgt = empty(tgt->ndim, tgt->shape);
    run_decoder(&desc, &call, training);
    return call.out;
}

START_TEST(decoder_padding_and_src_mask_bool) {
    enum { B = 2, L = 4, S = 3 };
    const DLTensor *tgt = waves(0, DIMS(B, L, 8)), *memory = waves(1, DIMS(B, S, 8)), *mask = causal(L);
    const DLTensor *padding = tails(L, B, (int64_t[]){3, 4}),
                   *memory_padding = tails(S, B, (int64_t[]){3, 1});
    const DLTensor *out = decode(FJ_MASK_BOOL, tgt, memory, mask, padding, memory_padding, true);
    ASSERT_SAME(decode(FJ_MASK_BOOL, tgt, memory, mask, padding, memory_padding, false), out, padding);
    ASSERT_SAME(
        decode(FJ_MASK_FLOAT, tgt, memory, floating(mask), floating(padding), floating(memory_padding), true),
        out, padding);
    for (int i = 8; i < S * 8; i++) numbers(memory)[S * 8 + i] += 1; /* hidden: nothing comes of it */
    ASSERT_SAME(decode(FJ_MASK_BOOL, tgt, memory, mask, padding, memory_padding, true), out, padding);
}
END_TEST

/* The hint changes nothing where the mask is causal; the kind of mask that needs no tensor gives the same. */
START_TEST(encoder_is_causal) {
    enum { B = 2, L = 5 };
    const encoder self = make_encoder(2, FJ_MASK_BOOL, FJ_MASK_NONE),
                  without = make_encoder(2, FJ_MASK_CAUSAL, FJ_MASK_NONE);
    const DLTensor *src = waves(0, DIMS(B, L, 8)), *out = encode(&self, src, causal(L), NULL, true);
    fj_encoder_call call = {
        .struct_size = sizeof call, .layers = self.layers, .src = src, .out = empty(DIMS(B, L, 8))};
    call.mask = causal(L), call.is_causal = true;
    run_encoder(&self.desc, &call, false);
    ASSERT_SAME(call.out, out, NULL);
    ASSERT_SAME(encode(&without, src, NULL, NULL, true), out, NULL);
}
END_TEST

START_TEST(mha_native_args) {
    enum { B = 2, L = 7 };
    for (int i = 0; i < 8; i++) {
        const int64_t heads = i & 1 ? 8 : 1;
        const mha self = make_mha(heads, FJ_MASK_NONE, FJ_MASK_BOOL, i & 2);
        const DLTensor *padding = i & 4 ? tails(L, B, (int64_t[]){7, 2}) : NULL,
                       *x = waves(i, DIMS(B, L, 4 * heads));
        ASSERT_SAME(attend(&self, x, NULL, padding, true), attend(&self, x, NULL, padding, false), NULL);
    }
}
END_TEST

/* Five of six sequences are padding throughout; the output keeps its shape, and NaN comes nowhere. */
START_TEST(kpm_mask_trailing_column_with_nested_tensor) {
    enum { B = 6, L = 4 };
    encoder self = make_encoder(2, FJ_MASK_NONE, FJ_MASK_BOOL);
    const DLTensor *src = waves(0, DIMS(B, L, 8)), *padding = tails(L, B, (int64_t[]){0, 0, 2, 0, 0, 0});
    const DLTensor *out = encode(&self, src, NULL, padding, true);
    for (int i = 0; i < B * L * 8; i++) ck_assert(isfinite(numbers(out)[i]));
    self.desc.skip_padding = true;
    ASSERT_SAME(encode(&self, src, NULL, padding, true), out, padding);
    ASSERT_SAME(encode(&self, src, NULL, padding, false), out, padding);
}
END_TEST

/* Without biases is as with biases of 0. */
START_TEST(bias_is_none) {
    mha self = make_mha(2, FJ_MASK_NONE, FJ_MASK_NONE, false);
    const DLTensor *x = waves(0, DIMS(2, 3, 8)), *expected = attend(&self, x, NULL, NULL, true);
    self.state.in.bias = filled(0, DIMS(24)), self.state.out.bias = filled(0, DIMS(8));
    ASSERT_SAME(attend(&self, x, NULL, NULL, true), expected, NULL);
    encoder stack = make_encoder(1, FJ_MASK_NONE, FJ_MASK_NONE); /* transformer_bias_is_none */
    stack.layers[0] = encoder_layer(0, 8, 12, false);
    const DLTensor *src = waves(0, DIMS(2, 3, 8)), *out = encode(&stack, src, NULL, NULL, true);
    fj_encoder_layer *layer = &stack.layers[0];
    layer->self_attn.in.bias = filled(0, DIMS(24)), layer->self_attn.out.bias = filled(0, DIMS(8));
    layer->linear1.bias = filled(0, DIMS(12));
    layer->linear2.bias = layer->norm1.bias = layer->norm2.bias = filled(0, DIMS(8));
    ASSERT_SAME(encode(&stack, src, NULL, NULL, true), out, NULL);
}
END_TEST

/* Padding in front, or between tokens, is computed as if nothing were to be skipped. */
START_TEST(mask_check_fastpath) {
    enum { B = 3, L = 5 };
    encoder self = make_encoder(2, FJ_MASK_NONE, FJ_MASK_BOOL);
    const DLTensor *src = waves(0, DIMS(B, L, 8));
    DLTensor *padding = make(FJ_DTYPE_BOOL, DIMS(B, L));
    bools(padding)[0] = bools(padding)[L + 2] = bools(padding)[3 * L - 1] = true;
    const DLTensor *out = encode(&self, src, NULL, padding, true);
    self.desc.skip_padding = true;
    ASSERT_SAME(encode(&self, src, NULL, padding, true), out, padding);
    ASSERT_SAME(encode(&self, src, NULL, padding, false), out, padding);
}
END_TEST

START_TEST(train_with_is_causal) {
    const mha self = make_mha(1, FJ_MASK_BOOL, FJ_MASK_NONE, true);
    DLTensor *ones = filled(1, DIMS(1, 2, 4)), *out = empty(DIMS(1, 2, 4));
    fj_mha_call call = {.struct_size = sizeof call, .query = ones, .out = out, .is_causal = true};
    call.state = (fj_mha_state){.in.weight = filled(1, DIMS(12, 4)), .out.weight = filled(1, DIMS(4, 4))};
    fj_error error = {0};
    ck_assert_int_eq(status_mha(&self.desc, &call, false, &error), FJ_ERR_ARGUMENT);
    ck_assert_msg(strstr(error.text, "is_causal") && strstr(error.text, "attn_mask"), "%s", error.text);
    call.attn_mask = causal(2);
    run_mha(&self.desc, &call, false);
    for (int i = 0; i < 8; i++) ck_assert_double_eq(numbers(out)[i], 16);
}
END_TEST

START_TEST(incompatible_mask) {
    mha self = make_mha(2, FJ_MASK_BOOL, FJ_MASK_FLOAT, true);
    const fj_mha_call call = {.struct_size = sizeof call};
    fj_error error = {0};
    ck_assert_int_ne(status_mha(&self.desc, &call, false, &error), FJ_OK);
    ck_assert_msg(strstr(error.text, "padding") && strstr(error.text, "mask"), "%s", error.text);
}
END_TEST

/* Other features of keys and values need projections of their own. */
START_TEST(script_mha_in_proj_weight_none) {
    mha self = make_mha(2, FJ_MASK_NONE, FJ_MASK_NONE, true);
    self.desc.kdim = self.desc.vdim = 16;
    const DLTensor *x = waves(0, DIMS(2, 3, 8)), *wide = waves(1, DIMS(2, 5, 16));
    fj_mha_call call = {.struct_size = sizeof call,
                        .state = self.state,
                        .query = x,
                        .key = wide,
                        .out = empty(DIMS(2, 3, 8))};
    fj_error error = {0};
    ck_assert_int_ne(status_mha(&self.desc, &call, false, &error), FJ_OK);
    ck_assert_msg(strstr(error.text, "weight"), "%s", error.text);
    call.state.q = linear(1, 8, 8, true), call.state.k = linear(2, 8, 16, true),
    call.state.v = linear(3, 8, 16, true);
    call.state.in = (fj_linear){0};
    run_mha(&self.desc, &call, false);
    for (int i = 0; i < 48; i++) ck_assert(isfinite(numbers(call.out)[i]));
}
END_TEST

int main(void) {
    fj_error error = {0};
    fj_mha *probe = NULL;
    const fj_mha_desc any = {.struct_size = sizeof any, .dtype = FJ_DTYPE_F64, .embed_dim = 8, .heads = 2};
    if (fj_context_create(NULL, &context) != FJ_OK) return 1;
    if (fj_device_create(context, FJ_DEVICE_CPU, &device, &error) != FJ_OK) return 1;
    if (fj_mha_create(device, &any, &probe, &error) == FJ_ERR_UNSUPPORTED) {
        printf("skipped: %s\n", error.text);
        return 77; /* no BLAS */
    }
    fj_mha_unref(&probe);
    Suite *suite = suite_create("nn transformers");
    TCase *tests = tcase_create("by name");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, self_attn_TxT_attn_mask);
    tcase_add_test(tests, train_with_pad_and_catch_error);
    tcase_add_test(tests, multiheadattention_fastpath_attn_mask);
    tcase_add_test(tests, transformerencoderlayer_src_mask);
    tcase_add_test(tests, transformerencoder_fastpath);
    tcase_add_test(tests, transformerencoder_square_input);
    tcase_add_test(tests, encoder_padding_and_src_mask_bool);
    tcase_add_test(tests, decoder_padding_and_src_mask_bool);
    tcase_add_test(tests, encoder_is_causal);
    tcase_add_test(tests, mha_native_args);
    tcase_add_test(tests, kpm_mask_trailing_column_with_nested_tensor);
    tcase_add_test(tests, bias_is_none);
    tcase_add_test(tests, mask_check_fastpath);
    tcase_add_test(tests, train_with_is_causal);
    tcase_add_test(tests, incompatible_mask);
    tcase_add_test(tests, script_mha_in_proj_weight_none);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    fj_device_unref(&device), fj_context_unref(&context);
    return failed != 0;
}
