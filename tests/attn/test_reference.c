/* The definition in double: sinks, mods of the output and dropout by hand, and every gradient by differences. */
#include <stdio.h>

#include "tests/attn/calls.h"

/* ---- A call in F64 ---------------------------------------------------------------------------------- */

enum { MOST_CAPTURES = 4 };

typedef struct wide_call {
    test_tensor query, key, value, out, out_raw, lse, max, dout, dlse, dquery, dkey, dvalue;
    test_tensor captures[MOST_CAPTURES], dcaptures[MOST_CAPTURES], dscalar, cu_q, cu_kv, q_offset;
    const DLTensor *capture_list[MOST_CAPTURES], *dcapture_list[MOST_CAPTURES], *dscalar_list[1];
    fj_scalar scalars[1];
    fj_args args;
} wide_call;

static double *elements(const test_tensor *tensor) { return tensor_elements(tensor); }
static int64_t count_of(const test_tensor *tensor) { return (int64_t)(tensor->bytes / sizeof(double)); }

static void fill(test_tensor *tensor, double seed) {
    for (int64_t i = 0; i < count_of(tensor); i++) elements(tensor)[i] = sin(seed + (double)i * 1.7);
}

static void wide_tensor(test_tensor *tensor, int rank, const int64_t *shape, double seed) {
    tensor_init(tensor, FJ_DTYPE_F64, rank, shape);
    fill(tensor, seed);
}

static void bind_results(wide_call *call) {
    fj_args *args = &call->args;
    args->out = &call->out.dl;
    args->lse = &call->lse.dl;
    args->dout = &call->dout.dl;
    args->dquery = &call->dquery.dl;
    args->dkey = &call->dkey.dl;
    args->dvalue = &call->dvalue.dl;
}

static void wide_init(wide_call *call, test_sizes n, bool packed) {
    const int64_t dense[3][4] = {{n.b, n.hq, n.l, n.e}, {n.b, n.hkv, n.s, n.e}, {n.b, n.hkv, n.s, n.ev}};
    const int64_t rows[3][4] = {{n.l, n.hq, n.e}, {n.s, n.hkv, n.e}, {n.s, n.hkv, n.ev}};
    const int64_t(*const shapes)[4] = packed ? rows : dense;
    const int64_t out[4] = {n.b, n.hq, n.l, n.ev}, packed_out[3] = {n.l, n.hq, n.ev},
                  packed_lse[2] = {n.hq, n.l};
    const int rank = packed ? 3 : 4;
    memset(call, 0, sizeof *call);
    wide_tensor(&call->query, rank, shapes[0], 1);
    wide_tensor(&call->key, rank, shapes[1], 2);
    wide_tensor(&call->value, rank, shapes[2], 3);
    wide_tensor(&call->dquery, rank, shapes[0], 0);
    wide_tensor(&call->dkey, rank, shapes[1], 0);
    wide_tensor(&call->dvalue, rank, shapes[2], 0);
    test_tensor *const of_out[] = {&call->out, &call->out_raw, &call->dout};
    test_tensor *const of_rows[] = {&call->lse, &call->max, &call->dlse};
    for (int i = 0; i < 3; i++) {
        wide_tensor(of_out[i], rank, packed ? packed_out : out, 4);
        wide_tensor(of_rows[i], rank - 1, packed ? packed_lse : out, 5);
    }
    call->args = (fj_args){.struct_size = sizeof call->args,
                           .query = &call->query.dl,
                           .key = &call->key.dl,
                           .value = &call->value.dl,
                           .scale = 1};
    bind_results(call);
}

static void wide_finish(wide_call *call) {
    test_tensor *const all[] = {&call->query,   &call->key,    &call->value, &call->out,
                                &call->out_raw, &call->lse,    &call->max,   &call->dout,
                                &call->dlse,    &call->dquery, &call->dkey,  &call->dvalue,
                                &call->dscalar, &call->cu_q,   &call->cu_kv, &call->q_offset};
    for (size_t i = 0; i < FJ_ARRAY_LEN(all); i++) free(all[i]->dl.data);
    for (int i = 0; i < MOST_CAPTURES; i++) {
        free(call->captures[i].dl.data);
        free(call->dcaptures[i].dl.data);
    }
}

static void wide_launch(const wide_call *call, const fj_kernel *kernel) {
    const test_call as = {.args = call->args};
    const fj_launch alone = {.struct_size = sizeof alone, .workers = 1}; /* calls are tiny */
    fj_error error = {0};
    const fj_status status = call_launch(&as, kernel, &alone, &error);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
}

static fj_problem problem_of(test_sizes n, fj_direction direction) {
    return (fj_problem){.struct_size = sizeof(fj_problem),
                        .direction = direction,
                        .dtype = FJ_DTYPE_F64,
                        .head_dim = (int)n.e,
                        .value_dim = (int)n.ev};
}

/* ---- By hand ---------------------------------------------------------------------------------------- */

#define ck_near(got, want) ck_assert_double_eq_tol(got, want, 1e-12)

/* exp of the two scores is 1 and 2, of the sink 3. */
START_TEST(a_sink_joins_the_denominator) {
    static const test_sizes n = {1, 1, 1, 1, 2, 1, 1};
    static const struct {
        const char *sink, *mask;
        double out, sum, max;
    } cases[] = {
        {"log(3.0)", NULL, (1 + 2 * 4) / 6.0, 6, 2},
        {"log(3.0)", "kv > 0", 2 * 4 / 5.0, 5, 2},
        {"log(3.0)", "kv > 1", 0, 3, 0},
        {"log(0.0)", NULL, (1 + 2 * 4) / 3.0, 3, 2},
        {"log(0.0)", "kv > 1", 0, 0, 0},
        {"log(3.0) + 600.0 - 600.0 * (h + 1)", NULL, (1 + 2 * 4) / 6.0, 6, 2},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        const fj_mod_desc mod = {.struct_size = sizeof mod, .sink = cases[i].sink, .mask = cases[i].mask};
        fj_problem problem = problem_of(n, FJ_FORWARD);
        wide_call call;
        test_stack stack;
        problem.max = true;
        wide_init(&call, n, false);
        call.args.max = &call.max.dl;
        elements(&call.query)[0] = 1;
        memcpy(elements(&call.key), (double[]){0, log(2)}, 2 * sizeof(double));
        memcpy(elements(&call.value), (double[]){1, 4}, 2 * sizeof(double));
        stack_open(&stack, FJ_DEVICE_REFERENCE, &mod, &problem);
        wide_launch(&call, stack.kernel);
        ck_near(elements(&call.out)[0], cases[i].out);
        ck_near(exp(elements(&call.lse)[0]), cases[i].sum);
        ck_near(exp(elements(&call.max)[0]), cases[i].max);
        stack_finish(&stack);
        wide_finish(&call);
    }
}
END_TEST

/* o = 3, of which the mod makes 3 * 10 + d; a query that sees nothing has an o of 0. */
START_TEST(a_mod_of_the_output_comes_last) {
    static const test_sizes n = {1, 1, 1, 2, 2, 1, 2};
    static const double value[] = {2, 2, 4, 4}, want[] = {30, 31, 0, 1};
    const fj_mod_desc mod = {.struct_size = sizeof mod, .out = "out * 10 + d", .mask = "q < 1"};
    const fj_problem problem = problem_of(n, FJ_FORWARD);
    wide_call call;
    test_stack stack;
    wide_init(&call, n, false);
    call.args.out_raw = &call.out_raw.dl;
    memset(elements(&call.query), 0, call.query.bytes);
    memcpy(elements(&call.value), value, sizeof value);
    stack_open(&stack, FJ_DEVICE_REFERENCE, &mod, &problem);
    wide_launch(&call, stack.kernel);
    for (int i = 0; i < 4; i++) {
        ck_near(elements(&call.out)[i], want[i]);
        ck_near(elements(&call.out_raw)[i], i < 2 ? 3 : 0);
    }
    stack_finish(&stack);
    wide_finish(&call);
}
END_TEST

/* A call that is kept has the seed and the offset that it ran with, as integers with a sign. */
static void check_kept(const wide_call *call, const fj_kernel *kernel, const char *words) {
    char folder[64], content[1 << 14] = "";
    fj_text file = {0};
    fj_error error = {0};
    folder_create(folder);
    const fj_status status = fj_kernel_capture(kernel, &call->args, NULL, folder, &file, &error);
    ck_assert_msg(status == FJ_OK, "%s", error.text);
    FILE *text = fopen(file.data, "r");
    ck_assert_ptr_nonnull(text);
    (void)fread(content, 1, sizeof content - 1, text);
    (void)fclose(text);
    ck_assert_msg(strstr(content, words) != NULL, "%s has no %s", content, words);
    fj_text_finish(&file);
    folder_remove(folder);
}

/* With scores of 0 the output is the mean of the values that are kept, times 2; those that are dropped are NaN. lse is as if
 * nothing were dropped. The position of a query is what the mod sees. */
START_TEST(dropout_is_what_the_public_mask_says) {
    enum { FIRST = 5, QUERIES = 3, KEYS = 150 };
    static const test_sizes n = {2, 2, 2, QUERIES, KEYS, 1, 1};
    static const int64_t shape[4] = {2, 2, FIRST + QUERIES, KEYS};
    const uint64_t seed = 0xfedcba9876543210, offset = (uint64_t)1 << 40;
    test_tensor keep;
    tensor_init(&keep, FJ_DTYPE_BOOL, 4, shape);
    ck_assert_int_eq(fj_dropout_mask(0.5, seed, offset, &keep.dl, NULL), FJ_OK);
    for (int state = 0; state <= 1; state++) {
        fj_problem problem = problem_of(n, FJ_FORWARD);
        wide_call call;
        test_stack stack;
        test_tensor words;
        problem.dropout = problem.q_offset = true;
        wide_init(&call, n, false);
        tensor_init(&call.q_offset, FJ_DTYPE_I32, 1, (int64_t[]){2});
        for (int b = 0; b < 2; b++) ((int32_t *)tensor_elements(&call.q_offset))[b] = FIRST;
        tensor_init(&words, FJ_DTYPE_I64, 1, (int64_t[]){2});
        memcpy(tensor_elements(&words), (uint64_t[]){seed, offset}, words.bytes);
        call.args.q_offset = &call.q_offset.dl;
        call.args.dropout = 0.5;
        call.args.dropout_seed = state ? 1 : seed;
        call.args.dropout_offset = state ? 2 : offset;
        call.args.dropout_state = state ? &words.dl : NULL;
        memset(elements(&call.query), 0, call.query.bytes);
        stack_open(&stack, FJ_DEVICE_REFERENCE, NULL, &problem);
        wide_launch(&call, stack.kernel);
        for (int64_t row = 0; row < 4 * QUERIES; row++) {
            const int64_t plane = row / QUERIES, q = FIRST + row % QUERIES;
            const uint8_t *kept = (uint8_t *)tensor_elements(&keep) + (plane * shape[2] + q) * KEYS;
            double sum = 0;
            for (int64_t kv = 0; kv < KEYS; kv++)
                if (kept[kv]) sum += elements(&call.value)[plane * KEYS + kv];
            ck_near(elements(&call.out)[row], 2 * sum / KEYS);
            ck_near(elements(&call.lse)[row], log(KEYS));
        }
        check_kept(&call, stack.kernel, "\"seed\": -81985529216486896");
        check_kept(&call, stack.kernel, "\"offset\": 1099511627776");
        free(words.dl.data);
        stack_finish(&stack);
        wide_finish(&call);
    }
    free(keep.dl.data);
}
END_TEST

/* Where all is dropped the output is 0 and nothing flows back but through lse, whatever the values are; where nothing is, the
 * bits are those without dropout. */
START_TEST(the_ends_of_dropout) {
    static const test_sizes n = {1, 2, 1, 3, 70, 4, 4};
    wide_call plain, call;
    for (fj_direction direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
        fj_problem problem = problem_of(n, direction);
        test_stack stack;
        if (direction == FJ_FORWARD) wide_init(&plain, n, false);
        if (direction == FJ_FORWARD) wide_init(&call, n, false);
        stack_open(&stack, FJ_DEVICE_REFERENCE, NULL, &problem);
        wide_launch(&plain, stack.kernel);
        stack_finish(&stack);
        problem.dropout = true;
        stack_open(&stack, FJ_DEVICE_REFERENCE, NULL, &problem);
        wide_launch(&call, stack.kernel);
        const test_tensor *const of[][2] = {{&plain.out, &call.out},
                                            {&plain.lse, &call.lse},
                                            {&plain.dquery, &call.dquery},
                                            {&plain.dkey, &call.dkey},
                                            {&plain.dvalue, &call.dvalue}};
        for (size_t i = 0; i < FJ_ARRAY_LEN(of); i++)
            ck_assert_mem_eq(of[i][0]->dl.data, of[i][1]->dl.data, of[i][0]->bytes);
        if (direction == FJ_BACKWARD) {
            call.args.dropout = 1;
            elements(&call.value)[3] = (double)NAN;
            wide_launch(&call, stack.kernel);
            for (size_t i = 2; i < FJ_ARRAY_LEN(of); i++)
                for (int64_t k = 0; k < count_of(of[i][1]); k++)
                    ck_assert_double_eq(elements(of[i][1])[k], 0);
        }
        stack_finish(&stack);
    }
    wide_finish(&plain);
    wide_finish(&call);
}
END_TEST

/* ---- By differences ---------------------------------------------------------------------------------- */

/* All mods read the table `bias` and the scalar t; a query of every four sees nothing. */
static const char source[] = "t = 0.7\n"
                             "def score_mod(score, b, h, q_idx, kv_idx):\n"
                             "    return score * t + bias[h, kv_idx % 3]\n"
                             "def mask_mod(b, h, q_idx, kv_idx):\n"
                             "    return (q_idx % 4 != 2) & ((q_idx + 2 * kv_idx) % 5 != 1)\n"
                             "def out_mod(out, b, h, q_idx, d_idx):\n"
                             "    return out * out * t + out * gate[b, q_idx, h, d_idx] + bias[h, d_idx]\n"
                             "def sink_mod(b, h):\n"
                             "    return sink[h] * t + bias[h, 0] * b\n";
static const fj_binding bindings[] = {{"bias", FJ_DTYPE_F64, 2, {4, 3}},
                                      {"gate", FJ_DTYPE_F64, 4, {2, 12, 4, 3}},
                                      {"sink", FJ_DTYPE_F64, 1, {4}}};

/* The derivative of this is what backward gives. */
static double loss(const wide_call *call, const fj_kernel *forward) {
    double sum = 0;
    wide_launch(call, forward);
    for (int64_t i = 0; i < count_of(&call->out); i++)
        sum += elements(&call->out)[i] * elements(&call->dout)[i];
    for (int64_t i = 0; i < count_of(&call->lse); i++)
        sum += elements(&call->lse)[i] * elements(&call->dlse)[i];
    return sum;
}

static void check_element(const wide_call *call, const fj_kernel *forward, const char *name, int64_t at,
                          double *x, double gradient) {
    const double kept = *x, step = 1e-5;
    *x = kept + step;
    const double above = loss(call, forward);
    *x = kept - step;
    const double below = loss(call, forward);
    *x = kept;
    const double want = (above - below) / (2 * step);
    ck_assert_msg(fabs(gradient - want) <= 1e-8 * (1 + fabs(want)), "%s[%lld]: %.12g, by differences %.12g",
                  name, (long long)at, gradient, want);
}

static void check_tensor(const wide_call *call, const fj_kernel *forward, const char *name, test_tensor *x,
                         const test_tensor *gradient) {
    const int64_t step = count_of(x) > 100 ? 7 : 1; /* coprime to the extents */
    for (int64_t i = 0; i < count_of(x); i += step)
        check_element(call, forward, name, i, &elements(x)[i], elements(gradient)[i]);
}

/* Captures come in the order of their first use. */
static void bind_captures(wide_call *call, const fj_mod *mod) {
    for (size_t i = 0; i < fj_mod_capture_count(mod); i++) {
        const char *name = fj_mod_capture(mod, i).name;
        for (size_t k = 0; k < FJ_ARRAY_LEN(bindings); k++) {
            if (strcmp(name, bindings[k].name) != 0) continue;
            wide_tensor(&call->captures[i], bindings[k].rank, bindings[k].dims, 6 + (double)k);
            wide_tensor(&call->dcaptures[i], bindings[k].rank, bindings[k].dims, 0);
        }
        call->capture_list[i] = &call->captures[i].dl;
        call->dcapture_list[i] = &call->dcaptures[i].dl;
    }
    wide_tensor(&call->dscalar, 0, (int64_t[]){1}, 0);
    call->dscalar_list[0] = &call->dscalar.dl;
    call->scalars[0].f = 0.6;
    call->args.captures = call->capture_list;
    call->args.dcaptures = call->dcapture_list;
    call->args.scalars = call->scalars;
    call->args.dscalars = call->dscalar_list;
}

/* What rounding does to a result is of the size of its last bits; each gradient of what is captured has some. */
static void check_rounding(wide_call *call, const fj_mod_desc *mod, fj_problem problem) {
    const test_tensor *const results[] = {&call->out,    &call->out_raw, &call->lse,
                                          &call->dquery, &call->dkey,    &call->dvalue};
    for (fj_direction direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
        test_stack stack;
        problem.direction = direction;
        problem.dlse = false;
        problem.variant = NULL;
        stack_open(&stack, FJ_DEVICE_ROUNDING, mod, &problem);
        wide_launch(call, stack.kernel);
        for (size_t i = direction == FJ_FORWARD ? 0 : 3; i < (direction == FJ_FORWARD ? 3 : 6); i++)
            for (int64_t k = 0; k < count_of(results[i]); k++)
                ck_assert_msg(elements(results[i])[k] >= 0 && elements(results[i])[k] < 1e-13, "result %zu",
                              i);
        for (size_t i = 0; direction == FJ_BACKWARD && i < fj_mod_capture_count(stack.mod); i++) {
            double most = 0;
            for (int64_t k = 0; k < count_of(&call->dcaptures[i]); k++)
                most = fmax(most, elements(&call->dcaptures[i])[k]);
            ck_assert_msg(most > 1e-17 && most < 1e-13, "captured tensor %zu: %g", i, most);
        }
        stack_finish(&stack);
    }
}

/* Forms: dense, dense with the positions of first queries, packed. dlse is 0 where lse is -inf, which no row's is. */
START_TEST(gradients_are_those_of_differences) {
    enum { DENSE, OFFSET, PACKED };
    const int form = _i % 3;
    const double dropout = _i / 3 ? 0.3 : 0;
    const test_sizes n =
        form == PACKED ? (test_sizes){1, 4, 2, 7, 9, 2, 3} : (test_sizes){2, 4, 2, 5, 6, 2, 3};
    const char *const runtime[] = {"t"};
    const fj_mod_desc mod = {.struct_size = sizeof mod,
                             .source = source,
                             .source_length = sizeof source - 1,
                             .runtime_params = runtime,
                             .runtime_param_count = 1,
                             .bindings = bindings,
                             .binding_count = FJ_ARRAY_LEN(bindings)};
    wide_call call;
    test_stack stack[2];
    wide_init(&call, n, form == PACKED);
    for (fj_direction direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
        fj_problem problem = problem_of(n, direction);
        problem.dropout = dropout > 0;
        problem.q_offset = form == OFFSET;
        problem.dlse = direction == FJ_BACKWARD;
        problem.form = form == PACKED ? FJ_FORM_PACKED : FJ_FORM_DENSE;
        stack_open(&stack[direction], FJ_DEVICE_REFERENCE, &mod, &problem);
    }
    bind_captures(&call, stack[0].mod);
    if (form == OFFSET) {
        tensor_init(&call.q_offset, FJ_DTYPE_I32, 1, (int64_t[]){2});
        memcpy(tensor_elements(&call.q_offset), (int32_t[]){3, 6}, call.q_offset.bytes);
        call.args.q_offset = &call.q_offset.dl;
    }
    if (form == PACKED) {
        tensor_init(&call.cu_q, FJ_DTYPE_I32, 1, (int64_t[]){3});
        tensor_init(&call.cu_kv, FJ_DTYPE_I32, 1, (int64_t[]){3});
        memcpy(tensor_elements(&call.cu_q), (int32_t[]){0, 4, 7}, call.cu_q.bytes);
        memcpy(tensor_elements(&call.cu_kv), (int32_t[]){0, 6, 9}, call.cu_kv.bytes);
        call.args.cu_seqlens_q = &call.cu_q.dl;
        call.args.cu_seqlens_kv = &call.cu_kv.dl;
    }
    call.args.dropout = dropout;
    call.args.dropout_seed = 42;
    call.args.out_raw = &call.out_raw.dl;
    wide_launch(&call, stack[0].kernel);
    call.args.dlse = &call.dlse.dl;
    wide_launch(&call, stack[1].kernel);
    call.args.dlse = NULL;
    check_tensor(&call, stack[0].kernel, "query", &call.query, &call.dquery);
    check_tensor(&call, stack[0].kernel, "key", &call.key, &call.dkey);
    check_tensor(&call, stack[0].kernel, "value", &call.value, &call.dvalue);
    for (size_t i = 0; i < fj_mod_capture_count(stack[0].mod); i++)
        check_tensor(&call, stack[0].kernel, fj_mod_capture(stack[0].mod, i).name, &call.captures[i],
                     &call.dcaptures[i]);
    check_element(&call, stack[0].kernel, "t", 0, &call.scalars[0].f, *elements(&call.dscalar));
    check_rounding(&call, &mod, stack[1].plan->problem);
    for (int i = 0; i < 2; i++) stack_finish(&stack[i]);
    wide_finish(&call);
}
END_TEST

/* ---- What is refused ----------------------------------------------------------------------------------- */

static void expect(const wide_call *call, const fj_kernel *kernel, fj_status status, const char *text) {
    const test_call as = {.args = call->args};
    fj_error error = {0};
    ck_assert_int_eq(call_launch(&as, kernel, NULL, &error), status);
    ck_assert_str_eq(error.text, text);
}

START_TEST(bad_calls_are_refused) {
    static const test_sizes n = {1, 1, 1, 2, 2, 2, 2};
    const fj_mod_desc out = {.struct_size = sizeof out, .out = "out + 1"};
    fj_problem problem = problem_of(n, FJ_BACKWARD);
    test_stack plain, of_out, dropping;
    wide_call call;
    test_tensor state;
    wide_init(&call, n, false);
    tensor_init(&state, FJ_DTYPE_I64, 1, (int64_t[]){3});
    stack_open(&plain, FJ_DEVICE_REFERENCE, NULL, &problem);
    stack_open(&of_out, FJ_DEVICE_REFERENCE, &out, &problem);
    problem.dropout = true;
    stack_open(&dropping, FJ_DEVICE_REFERENCE, NULL, &problem);
    expect(&call, of_out.kernel, FJ_ERR_TENSOR,
           "out_raw is missing: backward of a mod of the output reads what forward wrote there");
    call.args.out_raw = &call.out_raw.dl;
    expect(&call, plain.kernel, FJ_ERR_TENSOR, "out_raw is given, but the mod has no mod of the output");
    call.args.out = NULL; /* which it does not read */
    wide_launch(&call, of_out.kernel);
    bind_results(&call);
    call.args.out_raw = NULL;
    call.args.dropout = 0.25;
    expect(&call, plain.kernel, FJ_ERR_ARGUMENT, "dropout is 0.25, but the plan was made without dropout");
    call.args.dropout = 1.5;
    expect(&call, dropping.kernel, FJ_ERR_ARGUMENT, "dropout is 1.5: a probability is from 0 to 1");
    call.args.dropout = (double)NAN;
    expect(&call, plain.kernel, FJ_ERR_ARGUMENT, "dropout is nan: a probability is from 0 to 1");
    call.args.dropout = 0;
    call.args.dropout_state = &state.dl;
    expect(&call, plain.kernel, FJ_ERR_TENSOR,
           "dropout_state is given, but the plan was made without dropout");
    expect(&call, dropping.kernel, FJ_ERR_TENSOR, "dropout_state has shape [3], not [2] (seed, offset)");
    stack_finish(&plain);
    stack_finish(&of_out);
    stack_finish(&dropping);
    free(state.dl.data);
    wide_finish(&call);
}
END_TEST

/* A bad read says whose it is: of the output's mod at (b, h, q, d), of a sink at (b, h). */
START_TEST(bad_reads_are_located) {
    static const test_sizes n = {2, 2, 2, 3, 2, 2, 3};
    static const fj_binding two[] = {{"t", FJ_DTYPE_F64, 1, {2}}};
    static const struct {
        fj_mod_desc mod;
        const char *text;
    } cases[] = {
        {{.out = "out + t[d * q]"},
         "captured tensor 't' F64 [2] is read at index 2 (dimension 0) at b=0 h=0 q=1 d=2"},
        {{.out = "t[0] * (d // (q - 2))"}, "an integer is divided by 0 (// or %) at b=0 h=0 q=2 d=0"},
        {{.sink = "t[b + 2 * h]"}, "captured tensor 't' F64 [2] is read at index 2 (dimension 0) at b=0 h=1"},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        fj_mod_desc mod = cases[i].mod;
        const fj_problem problem = problem_of(n, FJ_FORWARD);
        wide_call call;
        test_stack stack;
        mod.struct_size = sizeof mod;
        mod.bindings = two;
        mod.binding_count = 1;
        wide_init(&call, n, false);
        wide_tensor(&call.captures[0], 1, two[0].dims, 0);
        call.capture_list[0] = &call.captures[0].dl;
        call.args.captures = call.capture_list;
        stack_open(&stack, FJ_DEVICE_REFERENCE, &mod, &problem);
        expect(&call, stack.kernel, FJ_ERR_INDEX, cases[i].text);
        stack_finish(&stack);
        wide_finish(&call);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("reference");
    TCase *tests = tcase_create("all");
    suite_add_tcase(suite, tests);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_sink_joins_the_denominator);
    tcase_add_test(tests, a_mod_of_the_output_comes_last);
    tcase_add_test(tests, dropout_is_what_the_public_mask_says);
    tcase_add_test(tests, the_ends_of_dropout);
    tcase_add_loop_test(tests, gradients_are_those_of_differences, 0, 6);
    tcase_add_test(tests, bad_calls_are_refused);
    tcase_add_test(tests, bad_reads_are_located);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
