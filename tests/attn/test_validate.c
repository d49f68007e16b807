/* Bad calls: each is one sentence that names the tensor, and changes nothing. */
#include "tests/attn/calls.h"

static test_stack forward, backward;
static test_call good;

static const test_sizes standard = {2, 4, 2, 5, 7, 16, 16};

static void setup(void) {
    const fj_problem problem = {.struct_size = sizeof problem,
                                .direction = FJ_BACKWARD,
                                .dtype = FJ_DTYPE_F32,
                                .head_dim = 16,
                                .value_dim = 16};
    stack_open(&forward, FJ_DEVICE_REFERENCE, NULL, NULL);
    stack_open(&backward, FJ_DEVICE_REFERENCE, NULL, &problem);
    call_init(&good, standard);
}

static void teardown(void) {
    call_finish(&good);
    stack_finish(&forward);
    stack_finish(&backward);
}

static void check_with(const test_stack *stack, const test_call *call, fj_status expected, const char *text) {
    fj_error error = {0};
    fj_status status = call_launch(call, stack->kernel, NULL, &error);
    ck_assert_msg(status == expected, "status %d: %s", status, error.text);
    ck_assert_str_eq(error.text, text);
    for (size_t i = 0; i < call->out.bytes / sizeof(float); i++)
        ck_assert(((float *)call->out.dl.data)[i] == 0); /* untouched */
    fj_error_finish(&error);
}

static void check(const test_call *call, const char *text) {
    check_with(&forward, call, FJ_ERR_TENSOR, text);
}

START_TEST(a_good_call_is_good) {
    fj_error error = {0};
    ck_assert_msg(call_launch(&good, forward.kernel, NULL, &error) == FJ_OK, "%s", error.text);
    ck_assert_msg(call_launch(&good, backward.kernel, NULL, &error) == FJ_OK, "%s", error.text);
}
END_TEST

START_TEST(missing_tensors) {
    test_call bad = good;
    bad.args.query = NULL;
    check(&bad, "query is missing");
    bad = good;
    bad.args.lse = NULL;
    check(&bad, "lse is missing");
    check_with(&backward, &bad, FJ_ERR_TENSOR, "lse is missing");
    bad = good;
    bad.args.dout = NULL;
    check_with(&backward, &bad, FJ_ERR_TENSOR, "dout is missing");
}
END_TEST

START_TEST(tensors_that_the_plan_does_not_know) {
    test_call bad = good;
    bad.args.max = &good.max.dl;
    check(&bad, "max is given, but the plan was made without it");
    bad = good;
    bad.args.dlse = &good.dlse.dl;
    check_with(&backward, &bad, FJ_ERR_TENSOR, "dlse is given, but the plan was made without it");
}
END_TEST

START_TEST(ranks_and_dtypes) {
    test_call bad = good;
    DLTensor tensor = good.key.dl;
    bad.args.key = &tensor;
    tensor.ndim = 3;
    check(&bad, "key has rank 3, not 4: [B,Hkv,S,E]");
    tensor = good.key.dl;
    tensor.dtype = fj_dtype_to_dlpack(FJ_DTYPE_F16);
    check(&bad, "key is F16, not F32");
    tensor.dtype = (DLDataType){.code = kDLFloat, .bits = 32, .lanes = 4};
    check(&bad, "key has an unknown dtype (DLPack code 2, 32 bits, 4 lanes)");
    tensor = good.key.dl;
    tensor.device.device_type = kDLCUDA;
    check(&bad, "key is on another device (DLPack type 2): the reference device takes host memory");
    tensor = good.key.dl;
    tensor.shape = NULL;
    check(&bad, "key has no shape");
    bad = good;
    tensor = good.lse.dl;
    tensor.dtype = fj_dtype_to_dlpack(FJ_DTYPE_BF16);
    bad.args.lse = &tensor;
    check(&bad, "lse is BF16, not F32 or F64");
}
END_TEST

START_TEST(bad_shapes) {
    test_call bad = good;
    int64_t shape[4] = {2, 2, 7, 8};
    DLTensor tensor = good.key.dl;
    tensor.shape = shape;
    bad.args.key = &tensor;
    check(&bad, "key has shape [2,2,7,8], not [2,*,*,16] [B,Hkv,S,E]");
    shape[3] = 16;
    shape[1] = 3;
    bad.args.value = &tensor;
    check(&bad, "query has 4 heads, which is not a multiple of key's 3");
    shape[1] = 0;
    check(&bad, "query has 4 heads, but key has none");
    shape[1] = -2;
    check(&bad, "key has a negative extent (-2, dimension 1)");
    bad = good;
    shape[1] = 2;
    shape[2] = 6;
    tensor = good.value.dl;
    tensor.shape = shape;
    bad.args.value = &tensor;
    check(&bad, "value has shape [2,2,6,16], not [2,2,7,16] [B,Hkv,S,Ev]");
    bad = good;
    int64_t rows[3] = {2, 4, 4};
    tensor = good.lse.dl;
    tensor.shape = rows;
    bad.args.lse = &tensor;
    check(&bad, "lse has shape [2,4,4], not [2,4,5] [B,Hq,L]");
    check_with(&backward, &bad, FJ_ERR_TENSOR, "lse has shape [2,4,4], not [2,4,5] [B,Hq,L]");
}
END_TEST

START_TEST(bad_strides) {
    test_call bad = good;
    int64_t strides[4] = {448, 112, 16, 2};
    DLTensor tensor = good.key.dl;
    tensor.strides = strides;
    bad.args.key = &tensor;
    check(&bad, "key has stride 2 in its last dimension, where only 1 is taken");
    bad = good;
    tensor = good.out.dl;
    tensor.strides = strides;
    strides[3] = 1;
    strides[1] = 0;
    bad.args.out = &tensor;
    check(&bad, "out has stride 0 in dimension 1: its elements overlap");
    bad = good;
    tensor = good.key.dl;
    tensor.strides = strides;
    bad.args.key = &tensor;
    strides[0] = INT64_MAX / 4;
    check(&bad, "key reaches further than 64-bit byte offsets");
    strides[0] = INT64_MIN;
    check(&bad, "key reaches further than 64-bit byte offsets");
}
END_TEST

START_TEST(lengths_that_overflow) {
    test_call bad = good;
    int64_t shape[4] = {2, 2, INT64_MAX / 2, 16};
    DLTensor tensor = good.key.dl;
    tensor.shape = shape;
    bad.args.key = &tensor;
    check(&bad, "key has more elements than 64 bits can count");
    int64_t strides[4] = {0, 0, 0, 1};
    shape[2] = 3000000000;
    tensor.strides = strides;
    bad.args.value = &tensor;
    size_t size; /* without data: to find it late takes minutes */
    ck_assert_int_eq(fj_kernel_workspace(forward.kernel, &bad.args, NULL, &size, NULL), FJ_ERR_TENSOR);
    check(&bad, "key has a length of 3000000000, which is above 2147483647");
}
END_TEST

/* Known from the shapes alone, before any memory is asked for. */
START_TEST(sizes_beyond_32_bits) {
    static const struct {
        int64_t shape[4]; /* b, hq, l, s */
        const char *text;
    } cases[] = {
        {{INT64_C(1) << 31, 1, 1, 1}, "query has a batch of 2147483648, which is above 2147483647"},
        {{1, INT64_C(1) << 31, 1, 1}, "query has a number of heads of 2147483648, which is above 2147483647"},
        {{1, 1, INT64_C(1) << 31, 1}, "query has a length of 2147483648, which is above 2147483647"},
        {{1, 1, 1, INT64_C(1) << 31}, "key has a length of 2147483648, which is above 2147483647"},
        {{1, 1, 1, 1}, NULL},
        {{1, 1, 1, INT32_MAX}, NULL},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        const int64_t *n = cases[i].shape;
        int64_t q[4] = {n[0], n[1], n[2], 16}, k[4] = {n[0], 1, n[3], 16};
        test_call call = good;
        fj_error error = {0};
        size_t size = 0;
        call.query.dl.shape = call.out.dl.shape = call.lse.dl.shape = q;
        call.key.dl.shape = call.value.dl.shape = k;
        call.args.query = &call.query.dl;
        call.args.key = &call.key.dl;
        call.args.value = &call.value.dl;
        call.args.out = &call.out.dl;
        call.args.lse = &call.lse.dl;
        const fj_status status = fj_kernel_workspace(forward.kernel, &call.args, NULL, &size, &error);
        ck_assert_msg(status == (cases[i].text ? FJ_ERR_TENSOR : FJ_OK), "case %zu: %s", i, error.text);
        ck_assert_str_eq(error.text, cases[i].text ? cases[i].text : "");
    }
}
END_TEST

START_TEST(addresses) {
    test_call bad = good;
    DLTensor tensor = good.key.dl;
    bad.args.key = &tensor;
    tensor.data = NULL;
    check(&bad, "key has no data");
    tensor = good.key.dl;
    tensor.byte_offset = 2;
    check(&bad, "key is not aligned to its elements of 4 bytes");
    static const uint64_t offsets[] = {UINT64_MAX - 3, UINT64_C(1) << 63, INT64_MAX - 3, INT64_MAX - 4 * 447};
    for (size_t i = 0; i < FJ_ARRAY_LEN(offsets); i++) {
        tensor.byte_offset = offsets[i];
        check(&bad, "key reaches further than 64-bit byte offsets");
    }
}
END_TEST

START_TEST(empty_tensors_are_legal) {
    static const test_sizes empty[] = {{0, 4, 2, 5, 7, 16, 16},
                                       {2, 0, 0, 5, 7, 16, 16},
                                       {2, 4, 2, 0, 7, 16, 16},
                                       {2, 4, 2, 5, 0, 16, 16},
                                       {0, 0, 0, 0, 0, 16, 16}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(empty); i++) {
        test_call call;
        fj_error error = {0};
        call_init(&call, empty[i]);
        ck_assert_msg(call_launch(&call, forward.kernel, NULL, &error) == FJ_OK, "%s", error.text);
        ck_assert_msg(call_launch(&call, backward.kernel, NULL, &error) == FJ_OK, "%s", error.text);
        for (size_t j = 0; j < call.lse.bytes / sizeof(float); j++)
            ck_assert(((float *)call.lse.dl.data)[j] == -INFINITY); /* no keys at all */
        call_finish(&call);
    }
}
END_TEST

START_TEST(descriptors) {
    test_call bad = good;
    bad.args.struct_size = 0;
    check_with(&forward, &bad, FJ_ERR_ARGUMENT, "fj_args: struct_size is not set");
    bad = good;
    bad.args.scale = (double)NAN;
    check_with(&forward, &bad, FJ_ERR_ARGUMENT, "scale is not finite");
    struct {
        fj_args args;
        int64_t more;
    } longer = {good.args, 0};
    longer.args.struct_size = sizeof longer;
    fj_error error = {0};
    ck_assert_int_eq(fj_kernel_launch(forward.kernel, &longer.args, NULL, NULL, 0, &error), FJ_OK);
    longer.more = 1; /* of a later version: not read */
    ck_assert_int_eq(fj_kernel_launch(forward.kernel, &longer.args, NULL, NULL, 0, &error), FJ_OK);
    memset(good.out.dl.data, 0, good.out.bytes);
    fj_launch launch = {.struct_size = sizeof launch, .workers = -1};
    ck_assert_int_eq(fj_kernel_launch(forward.kernel, &good.args, &launch, NULL, 0, &error), FJ_ERR_ARGUMENT);
    fj_executor executor = {.workers = 2};
    launch = (fj_launch){.struct_size = sizeof launch, .executor = &executor};
    ck_assert_int_eq(fj_kernel_launch(forward.kernel, &good.args, &launch, NULL, 0, &error), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_kernel_launch(NULL, &good.args, NULL, NULL, 0, &error), FJ_ERR_ARGUMENT);
    ck_assert_int_eq(fj_kernel_launch(forward.kernel, NULL, NULL, NULL, 0, NULL), FJ_ERR_ARGUMENT);
}
END_TEST

/* What float32 holds with log2(e) in it; a fused kernel would give zeros, infinities or NaN beyond. */
START_TEST(scales) {
    static const struct {
        double scale;
        const char *f32, *f64; /* NULL: taken */
    } cases[] = {
        {0, NULL, NULL},
        {-0.0, NULL, NULL},
        {-3, NULL, NULL},
        {0x1p-126, NULL, NULL},
        {-0x1p126, NULL, NULL},
        {0x1.8p126, "scale is 1.2760588759535192e+38; F32 takes 0 and magnitudes from 2^-126 to 2^126", NULL},
        {-0x1p-127, "scale is -5.877471754111438e-39; F32 takes 0 and magnitudes from 2^-126 to 2^126", NULL},
        {1e-320, "scale is 1e-320; F32 takes 0 and magnitudes from 2^-126 to 2^126", NULL},
        {1e300, "scale is 1e+300; F32 takes 0 and magnitudes from 2^-126 to 2^126", NULL},
        {1.5e308, "scale is 1.5e+308; F32 takes 0 and magnitudes from 2^-126 to 2^126",
         "scale is 1.5e+308; F64 takes 0 and magnitudes up to 2^1022"},
        {(double)-INFINITY, "scale is not finite", "scale is not finite"},
        {(double)NAN, "scale is not finite", "scale is not finite"},
    };
    const fj_problem wide = {
        .struct_size = sizeof wide, .dtype = FJ_DTYPE_F64, .head_dim = 16, .value_dim = 16};
    test_stack f64;
    stack_open(&f64, FJ_DEVICE_REFERENCE, NULL, &wide);
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        const fj_plan *const plans[] = {forward.plan, f64.plan};
        const char *const texts[] = {cases[i].f32, cases[i].f64};
        for (int j = 0; j < 2; j++) {
            fj_error error = {0};
            fj_status status = fj_attn_check_scale(plans[j], cases[i].scale, &error);
            ck_assert_int_eq(status, texts[j] ? FJ_ERR_ARGUMENT : FJ_OK);
            ck_assert_str_eq(error.text, texts[j] ? texts[j] : "");
        }
        test_call bad = good;
        bad.args.scale = cases[i].scale;
        if (cases[i].f32) check_with(&forward, &bad, FJ_ERR_ARGUMENT, cases[i].f32);
    }
    stack_finish(&f64);
}
END_TEST

/* NumPy and PyTorch give a tensor without elements any strides. */
START_TEST(strides_of_empty_tensors) {
    const test_sizes empty = {2, 4, 2, 5, 0, 16, 16};
    int64_t strides[4] = {0, 0, 0, 0};
    test_call call;
    fj_error error = {0};
    call_init(&call, empty);
    call.key.dl.strides = call.value.dl.strides = call.dkey.dl.strides = call.dvalue.dl.strides = strides;
    ck_assert_msg(call_launch(&call, forward.kernel, NULL, &error) == FJ_OK, "%s", error.text);
    ck_assert_msg(call_launch(&call, backward.kernel, NULL, &error) == FJ_OK, "%s", error.text);
    strides[0] = INT64_MAX, strides[3] = -7;
    ck_assert_msg(call_launch(&call, forward.kernel, NULL, &error) == FJ_OK, "%s", error.text);
    call_finish(&call);
}
END_TEST

START_TEST(problems) {
    static const struct {
        fj_problem problem;
        fj_status status;
        const char *text;
    } cases[] = {
        {{.dtype = FJ_DTYPE_F32, .head_dim = 0, .value_dim = 16},
         FJ_ERR_UNSUPPORTED,
         "head dimension 0 is outside 1 to 256"},
        {{.dtype = FJ_DTYPE_F32, .head_dim = 16, .value_dim = 257},
         FJ_ERR_UNSUPPORTED,
         "value dimension 257 is outside 1 to 256"},
        {{.dtype = FJ_DTYPE_I32, .head_dim = 16, .value_dim = 16},
         FJ_ERR_UNSUPPORTED,
         "dtype I32 is not supported: F16, BF16, F32 and F64 are"},
        {{.dtype = (fj_dtype)99, .head_dim = 16, .value_dim = 16}, FJ_ERR_ARGUMENT, "unknown dtype 99"},
        {{.direction = (fj_direction)7, .head_dim = 16, .value_dim = 16},
         FJ_ERR_ARGUMENT,
         "unknown direction 7"},
        {{.dtype = FJ_DTYPE_F32, .head_dim = 16, .value_dim = 16, .variant = "fast"},
         FJ_ERR_NAME,
         "unknown variant 'fast' for this problem"},
    };
    fj_plan *plan = NULL;
    fj_error error = {0};
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        fj_problem problem = cases[i].problem;
        problem.struct_size = sizeof problem;
        fj_status status = fj_plan_create(forward.device, forward.mod, &problem, &plan, &error);
        ck_assert_int_eq(status, cases[i].status);
        ck_assert_str_eq(error.text, cases[i].text);
        ck_assert_ptr_null(plan);
    }
    ck_assert_str_eq(error.note, "there are: reference");
}
END_TEST

/* ---- What a mod requires of a call ----------------------------------------------------------------- */

/* Each combines a [Hq, x] with c [Hq, y]; x and y are not known when the mod is made. */
static const char *const combining[] = {
    "score + (a[h] * c[h]).sum()",
    "score + torch.dot(a[h], c[h])",
    "score + (a[h] @ c[h])",
    "score + torch.where(a[h] > 0, c[h], a[h]).amax()",
    "score + torch.maximum(a[h], c[h]).sum()",
    "score + (a[h, 1:] + c[h, 1:]).mean()",
    "where((a[h] < c[h]).any(), score, -1)",
    "score + a[h].clamp(min=c[h]).sum()",
    "score + (a[h][None] * c[h][:, None])[0, 0]",
    "score + (a * c)[h].sum()",
    "score + (a[h, :3] * c[h]).sum()",
};

static fj_status launch_pair(const test_stack *stack, int64_t x, int64_t y, fj_error *error) {
    test_tensor a, c;
    tensor_init(&a, FJ_DTYPE_F32, 2, (int64_t[]){4, x});
    tensor_init(&c, FJ_DTYPE_F32, 2, (int64_t[]){4, y});
    const DLTensor *captures[] = {&a.dl, &c.dl};
    test_call call = good;
    call.args.captures = captures;
    const bool swapped = strcmp(fj_mod_capture(stack->mod, 0).name, "a") != 0;
    if (swapped) captures[0] = &c.dl, captures[1] = &a.dl;
    const fj_status status = call_launch(&call, stack->kernel, NULL, error);
    free(a.dl.data);
    free(c.dl.data);
    return status;
}

START_TEST(extents_that_meet) {
    const fj_binding open[] = {{"a", FJ_DTYPE_F32, 2, {4, -1}}, {"c", FJ_DTYPE_F32, 2, {4, -1}}};
    const fj_binding unequal[] = {{"a", FJ_DTYPE_F32, 2, {4, 6}}, {"c", FJ_DTYPE_F32, 2, {4, 5}}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(combining); i++) {
        fj_mod_desc desc = {
            .struct_size = sizeof desc, .score = combining[i], .bindings = open, .binding_count = 2};
        const bool sliced = strstr(combining[i], ":3") != NULL, outer = strstr(combining[i], "None") != NULL;
        fj_error error = {0};
        test_stack stack;
        stack_open(&stack, FJ_DEVICE_REFERENCE, &desc, NULL);
        ck_assert_int_eq(launch_pair(&stack, sliced ? 7 : 3, 3, &error), FJ_OK);
        const fj_status status = launch_pair(&stack, 5, 4, &error);
        ck_assert_int_eq(status, outer ? FJ_OK : FJ_ERR_TENSOR);
        if (!outer) {
            ck_assert_msg(strstr(error.text, "of what is combined here differ") != NULL, "%s", error.text);
            ck_assert_str_eq(error.file, "<score>");
            ck_assert_int_gt(error.column, 0);
            /* Known when the mod is made: refused then. */
            fj_mod *mod = NULL;
            desc.bindings = unequal;
            fj_error_finish(&error);
            ck_assert_int_eq(fj_mod_create(stack.context, &desc, &mod, &error), FJ_ERR_MOD);
        }
        fj_error_finish(&error);
        stack_finish(&stack);
    }
}
END_TEST

/* A dot product broadcasts nothing, and nothing has no greatest: what a launch says, too. */
START_TEST(extents_that_reductions_need) {
    static const struct {
        const char *score, *text;
        int64_t x, y;
    } bad[] = {
        {"score + a[h] @ c[h]", "the extents 1 and 4 of", 1, 4},
        {"score + torch.dot(a[h], c[h])", "the extents 4 and 1 of", 4, 1},
        {"score + a[h].max() + c[h].sum()", "reduced here is 0", 0, 4},
        {"score + a[h].argmin(0) + c[h].sum()", "reduced here is 0", 0, 4},
        {"score + c.amax(-1)[h] + a[h].sum()", "reduced here is 0", 4, 0},
        {"score + a[h].min(dim=0).values + c[h].sum()", "reduced here is 0", 0, 4},
        {"score + max(a[h]) + c[h].sum()", "reduced here is 0", 0, 4},
    };
    const fj_binding open[] = {{"a", FJ_DTYPE_F32, 2, {4, -1}}, {"c", FJ_DTYPE_F32, 2, {4, -1}}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(bad); i++) {
        fj_mod_desc desc = {
            .struct_size = sizeof desc, .score = bad[i].score, .bindings = open, .binding_count = 2};
        const fj_binding known[] = {{"a", FJ_DTYPE_F32, 2, {4, bad[i].x}},
                                    {"c", FJ_DTYPE_F32, 2, {4, bad[i].y}}};
        fj_error error = {0};
        test_stack stack;
        stack_open(&stack, FJ_DEVICE_REFERENCE, &desc, NULL);
        ck_assert_int_eq(launch_pair(&stack, 3, 3, &error), FJ_OK);
        ck_assert_int_eq(launch_pair(&stack, bad[i].x, bad[i].y, &error), FJ_ERR_TENSOR);
        ck_assert_msg(strstr(error.text, bad[i].text) != NULL, "%s", error.text);
        fj_error_finish(&error);
        fj_mod *mod = NULL;
        desc.bindings = known;
        ck_assert_int_eq(fj_mod_create(stack.context, &desc, &mod, &error), FJ_ERR_MOD);
        fj_error_finish(&error);
        stack_finish(&stack);
    }
}
END_TEST

/* An extent of 1 is broadcast where it is known, and then fixed. */
START_TEST(extents_that_are_broadcast) {
    const fj_binding one[] = {{"a", FJ_DTYPE_F32, 2, {4, 1}}, {"c", FJ_DTYPE_F32, 2, {4, -1}}};
    const fj_binding known[] = {{"a", FJ_DTYPE_F32, 2, {4, 1}}, {"c", FJ_DTYPE_F32, 2, {4, 6}}};
    fj_mod_desc desc = {.struct_size = sizeof desc,
                        .score = "score + (a[h] * c[h]).sum()",
                        .bindings = known,
                        .binding_count = 2};
    fj_error error = {0};
    test_stack stack;
    stack_open(&stack, FJ_DEVICE_REFERENCE, &desc, NULL);
    ck_assert_int_eq(launch_pair(&stack, 1, 6, &error), FJ_OK);
    ck_assert_int_eq(launch_pair(&stack, 1, 9, &error), FJ_OK);
    ck_assert_int_eq(launch_pair(&stack, 6, 6, &error), FJ_ERR_TENSOR);
    fj_error_finish(&error);
    stack_finish(&stack);
    desc.bindings = one; /* taken to be equal: 1 and something else is an error, not a wrong value */
    stack_open(&stack, FJ_DEVICE_REFERENCE, &desc, NULL);
    ck_assert_int_eq(launch_pair(&stack, 1, 1, &error), FJ_OK);
    ck_assert_int_eq(launch_pair(&stack, 1, 6, &error), FJ_ERR_TENSOR);
    fj_error_finish(&error);
    stack_finish(&stack);
}
END_TEST

/* A run-time int behaves as the same number in the source: exact, or refused. */
START_TEST(scalars_that_do_not_fit) {
    static const struct {
        const char *value, *expression;
        int64_t good, bad; /* bad 0: any is good */
    } cases[] = {
        {"8", "where(q + N > 3, score, 0)", INT32_MAX, (int64_t)INT32_MAX + 1},
        {"8", "where(q - kv < N, score, 0)", INT32_MIN, (int64_t)INT32_MIN - 1},
        {"8", "where(q + N * 2 > 3, score, 0)", 1 << 29, 1 << 30},
        {"8", "where(minimum(q, N) > 3, score, 0)", 7, INT64_MAX},
        {"8", "where(torch.where(q < 3, kv, N) > 3, score, 0)", 7, INT64_MAX},
        {"8", "score + N * N % 7", 3037000499, 3037000500},
        {"8", "score + (N + 1) % 7", INT64_MAX - 1, INT64_MAX},
        {"8", "score + (N << 40) % 7", 1 << 22, 1 << 23},
        {"8", "score + N ** 3 % 7", 2097151, 2097152},
        {"4294967296", "where(q - kv < N, score, 0)", INT64_MIN, 0},
        {"8", "where(q.long() + N > 3, score, 0)", INT64_MAX / 2, 0},
        {"8", "where(q + torch.tensor(N).int() > 3, score, 0)", INT64_MAX, 0},
    };
    static const char *const names[] = {"N"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        char source[64];
        (void)snprintf(source, sizeof source, "N = %s\n", cases[i].value);
        const fj_mod_desc desc = {.struct_size = sizeof desc,
                                  .source = source,
                                  .source_length = strlen(source),
                                  .score = cases[i].expression,
                                  .runtime_params = names,
                                  .runtime_param_count = 1};
        fj_error error = {0};
        test_stack stack;
        test_call call = good;
        stack_open(&stack, FJ_DEVICE_REFERENCE, &desc, NULL);
        fj_scalar value = {.i = cases[i].good};
        call.args.scalars = &value;
        ck_assert_msg(call_launch(&call, stack.kernel, NULL, &error) == FJ_OK, "%zu: %s", i, error.text);
        value.i = cases[i].bad;
        const fj_status status = call_launch(&call, stack.kernel, NULL, &error);
        ck_assert_msg(status == (cases[i].bad == 0 ? FJ_OK : FJ_ERR_TENSOR), "%zu: %s", i, error.text);
        if (cases[i].bad != 0)
            ck_assert_msg(strstr(error.text, "run-time parameter N") != NULL, "%s", error.text);
        fj_error_finish(&error);
        stack_finish(&stack);
    }
}
END_TEST

START_TEST(scalars_are_exact) {
    static const char *const names[] = {"N"};
    const fj_mod_desc desc = {.struct_size = sizeof desc,
                              .source = "N = 9007199254740993\n",
                              .source_length = 21,
                              .score = "score + N % 2",
                              .runtime_params = names,
                              .runtime_param_count = 1};
    test_stack stack;
    stack_open(&stack, FJ_DEVICE_REFERENCE, &desc, NULL);
    ck_assert_int_eq(fj_mod_scalar(stack.mod, 0).int_value, INT64_C(9007199254740993));
    stack_finish(&stack);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("attn");
    TCase *tests = tcase_create("validate");
    suite_add_tcase(suite, tests);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 60);
    tcase_add_test(tests, a_good_call_is_good);
    tcase_add_test(tests, missing_tensors);
    tcase_add_test(tests, tensors_that_the_plan_does_not_know);
    tcase_add_test(tests, ranks_and_dtypes);
    tcase_add_test(tests, bad_shapes);
    tcase_add_test(tests, bad_strides);
    tcase_add_test(tests, lengths_that_overflow);
    tcase_add_test(tests, sizes_beyond_32_bits);
    tcase_add_test(tests, addresses);
    tcase_add_test(tests, empty_tensors_are_legal);
    tcase_add_test(tests, descriptors);
    tcase_add_test(tests, scales);
    tcase_add_test(tests, strides_of_empty_tensors);
    tcase_add_test(tests, problems);
    tcase_add_test(tests, extents_that_meet);
    tcase_add_test(tests, extents_that_are_broadcast);
    tcase_add_test(tests, extents_that_reductions_need);
    tcase_add_test(tests, scalars_that_do_not_fit);
    tcase_add_test(tests, scalars_are_exact);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
