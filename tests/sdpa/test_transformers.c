/* Counterparts of the tests of scaled dot product attention in PyTorch's test_transformers.py, by their names, on small
 * shapes: docs/transformers.md has the table. */
#include "tests/sdpa/calls.h"

static char folder[64];
static fj_context *context;
static fj_device *cpu, *reference;

/* The cache is one for all tests: many ask for the same kernels. */
static void open_cache(void) {
    folder_create(folder);
    setenv("FLEXJIT_CACHE_PATH", folder, 1);
    unsetenv("FLEXJIT_NO_JIT");
}
static void close_cache(void) { folder_remove(folder); }

static void setup(void) {
    ck_assert(fj_context_create(NULL, &context) == FJ_OK);
    ck_assert(fj_device_create(context, FJ_DEVICE_CPU, &cpu, NULL) == FJ_OK);
    ck_assert(fj_device_create(context, FJ_DEVICE_REFERENCE, &reference, NULL) == FJ_OK);
}
static void teardown(void) {
    free_tensors();
    fj_device_unref(&cpu);
    fj_device_unref(&reference);
    fj_context_unref(&context);
}

static void run(fj_device *device, fj_direction direction, const call *c) {
    fj_error error = {0};
    const fj_sdpa_args args = args_of(c);
    const fj_status status = fj_sdpa(device, direction, &args, NULL, &error);
    ck_assert_msg(status == FJ_OK, "%s\n%s", error.text, error.detail ? error.detail : "");
}

/* out, lse and gradients of a dense call of any layout, as the definition has them. */
static void check(fj_device *device, call *c) {
    fj_error error = {0};
    int rank;
    int64_t shape[4], strides[4];
    call want;
    const fj_sdpa_args like = args_of(c);
    ck_assert_msg(fj_sdpa_out_layout(device, &like, &rank, shape, strides, &error) == FJ_OK, "%s",
                  error.text);
    const fj_dtype statistic = c->q->dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32;
    if (!c->out) c->out = make(c->q->dtype, rank, shape);
    c->lse = make(statistic, rank - 1, shape);
    if (!c->dout) c->dout = waves(9, c->q->dtype, rank, shape);
    run(device, FJ_FORWARD, c);
    if (!c->dq) c->dq = make(c->q->dtype, c->q->dl.ndim, c->q->shape);
    c->dk = make(c->q->dtype, c->k->dl.ndim, c->k->shape);
    c->dv = make(c->q->dtype, c->v->dl.ndim, c->v->shape);
    if (c->mask && c->mask->dtype != FJ_DTYPE_BOOL)
        c->dmask = make(statistic, c->mask->dl.ndim, c->mask->shape);
    run(device, FJ_BACKWARD, c);
    define(c, &want);
    const double bound = bound_of(c->q->dtype);
    check_near(c->out, want.out, "out", bound);
    check_near(c->dq, want.dq, "dq", 4 * bound);
    check_near(c->dk, want.dk, "dk", 4 * bound);
    check_near(c->dv, want.dv, "dv", 4 * bound);
    if (c->dmask) check_near(c->dmask, want.dmask, "dmask", 4 * bound);
}

/* The call fails, in a sentence that has this text. */
static void check_fails(fj_device *device, fj_direction direction, const call *c, fj_status status,
                        const char *text) {
    fj_error error = {0};
    const fj_sdpa_args args = args_of(c);
    ck_assert_int_eq(fj_sdpa(device, direction, &args, NULL, &error), status);
    ck_assert_msg(strstr(error.text, text), "'%s' is not in '%s'", text, error.text);
    fj_error_finish(&error);
}

static fj_sdpa_report report_of(fj_device *device, const call *c) {
    fj_error error = {0};
    fj_sdpa_report report = {.struct_size = sizeof report};
    const fj_sdpa_args args = args_of(c);
    ck_assert_msg(fj_sdpa_backends(device, FJ_FORWARD, &args, &report, &error) == FJ_OK, "%s", error.text);
    return report;
}

/* [2,3,L,8] and [2,3,S,8], value's width 4. */
static call small(fj_dtype dtype, int64_t l, int64_t s) {
    return (call){.q = waves(1, dtype, DIMS(2, 3, l, 8)),
                  .k = waves(2, dtype, DIMS(2, 3, s, 8)),
                  .v = waves(3, dtype, DIMS(2, 3, s, 4))};
}

/* ---- TestTransformers and TestSDPA ----------------------------------------------------------------------------- */

/* Ranks 3 and 4, masks none, [L,S] and whole, causal, dropout with a frozen seed, F32 and F64. */
START_TEST(scaled_dot_product_attention) {
    for (int n = 0; n < 16; n++) {
        const fj_dtype dtype = n % 2 ? FJ_DTYPE_F64 : FJ_DTYPE_F32;
        const bool flat = n / 2 % 2;
        call c = {.q = waves(1, dtype, DIMS(5, 2, 4, 6)),
                  .k = waves(2, dtype, DIMS(5, 2, 3, 6)),
                  .v = waves(3, dtype, DIMS(5, 2, 3, 6))};
        if (flat)
            c = (call){.q = waves(1, dtype, DIMS(5, 4, 6)),
                       .k = waves(2, dtype, DIMS(5, 3, 6)),
                       .v = waves(3, dtype, DIMS(5, 3, 6))};
        c.causal = n / 4 == 1 ? FJ_SDPA_UPPER_LEFT : FJ_SDPA_NOT_CAUSAL;
        if (n / 4 == 2) c.mask = waves(4, dtype, DIMS(4, 3));
        if (n / 4 == 3)
            c.mask =
                flat ? waves(4, FJ_DTYPE_BOOL, DIMS(5, 4, 3)) : waves(4, FJ_DTYPE_BOOL, DIMS(5, 2, 4, 3));
        c.dropout = n % 3 == 0 ? 0.5 : n % 3 == 1 ? 0.2 : 0;
        c.seed = 7;
        check(reference, &c);
    }
}
END_TEST

/* Gradients by differences, in double, with a mask and what is kept fixed. */
START_TEST(sdp_math_gradcheck) {
    call c = {.q = waves(1, FJ_DTYPE_F64, DIMS(2, 4, 8)),
              .k = waves(2, FJ_DTYPE_F64, DIMS(1, 5, 8)),
              .v = waves(3, FJ_DTYPE_F64, DIMS(2, 5, 4)),
              .mask = waves(4, FJ_DTYPE_F64, DIMS(4, 5)),
              .dropout = 0.3,
              .seed = 3};
    check(reference, &c);
    tensor *const inputs[] = {c.q, c.k, c.v, c.mask}, *const gradients[] = {c.dq, c.dk, c.dv, c.dmask};
    for (int n = 0; n < 4; n++)
        for (int64_t i = 0; i < count_of(inputs[n]); i += 3) {
            double loss[2];
            for (int side = 0; side < 2; side++) {
                const double was = get(inputs[n], i), step = side ? 1e-5 : -1e-5;
                put(inputs[n], i, was + step);
                run(reference, FJ_FORWARD, &c);
                loss[side] = 0;
                for (int64_t e = 0; e < count_of(c.out); e++) loss[side] += get(c.out, e) * get(c.dout, e);
                put(inputs[n], i, was);
            }
            ck_assert_double_eq_tol((loss[1] - loss[0]) / 2e-5, get(gradients[n], i), 1e-7);
        }
}
END_TEST

/* Packed [B,L,3 H E], viewed as [B,H,L,E] three times; out lies as query does. */
START_TEST(fused_attention_vs_math_cpu) {
    enum { B = 2, L = 7, H = 3, E = 8 };
    const fj_dtype dtypes[] = {FJ_DTYPE_F64, FJ_DTYPE_F32, FJ_DTYPE_BF16, FJ_DTYPE_F16};
    for (int n = 0; n < 4; n++) {
        tensor *packed = waves(1, dtypes[n], DIMS(B, L, 3 * H * E)), *views[3];
        for (int i = 0; i < 3; i++) {
            views[i] = make(dtypes[n], DIMS(B, H, L, E));
            free(views[i]->memory);
            views[i]->memory =
                malloc((size_t)count_of(packed) * fj_dtype_size(dtypes[n])); /* the same, from i * H * E on */
            memcpy(views[i]->memory, packed->memory + (size_t)(i * H * E) * fj_dtype_size(dtypes[n]),
                   (size_t)(count_of(packed) - i * H * E) * fj_dtype_size(dtypes[n]));
            views[i]->dl.data = views[i]->memory;
            memcpy(views[i]->strides, (int64_t[]){L * 3 * H * E, E, 3 * H * E, 1}, 4 * sizeof(int64_t));
        }
        call c = {.q = views[0], .k = views[1], .v = views[2], .causal = FJ_SDPA_UPPER_LEFT};
        const fj_sdpa_args args = args_of(&c);
        int rank;
        int64_t shape[4], strides[4];
        ck_assert(fj_sdpa_out_layout(cpu, &args, &rank, shape, strides, NULL) == FJ_OK);
        ck_assert(rank == 4 && strides[0] == L * H * E && strides[1] == E && strides[2] == H * E &&
                  strides[3] == 1);
        c.out = lay_out(dtypes[n], 4, shape, (const int[]){0, 2, 1, 3}, 0);
        check(n == 1 ? cpu : reference, &c);
    }
}
END_TEST

/* Each of the 16 patterns of extents of 1, bool and floating. */
START_TEST(fused_attention_mask_vs_math_cpu) {
    for (int n = 0; n < 32; n++) {
        call c = small(FJ_DTYPE_F64, 5, 6);
        const int64_t shape[] = {n & 1 ? 1 : 2, n & 2 ? 1 : 3, n & 4 ? 1 : 5, n & 8 ? 1 : 6};
        c.mask = waves(4, n & 16 ? FJ_DTYPE_BOOL : FJ_DTYPE_F64, 4, shape);
        check(reference, &c);
    }
}
END_TEST

/* Rank 1 to 4 in a kernel, any strides: [kv,q] in memory, elements apart, stride 0. */
START_TEST(mem_efficient_attention_mask_variants) {
    call c = small(FJ_DTYPE_F32, 5, 6);
    c.mask = fill(lay_out(FJ_DTYPE_F32, DIMS(5, 6), (const int[]){1, 0}, 0), 4);
    check(cpu, &c);
    call apart = small(FJ_DTYPE_F32, 5, 6);
    apart.mask = fill(lay_out(FJ_DTYPE_F32, DIMS(1, 5, 6), NULL, 2), 4);
    check(cpu, &apart);
    call expanded = small(FJ_DTYPE_F32, 5, 6), row = small(FJ_DTYPE_F32, 5, 6);
    row.mask = waves(5, FJ_DTYPE_F32, DIMS(6));
    expanded.mask = make(FJ_DTYPE_F32, DIMS(2, 3, 5, 6));
    memcpy(expanded.mask->memory, row.mask->memory, 6 * sizeof(float));
    memcpy(expanded.mask->strides, (int64_t[]){0, 0, 0, 1}, 4 * sizeof(int64_t));
    expanded.out = make(FJ_DTYPE_F32, DIMS(2, 3, 5, 4));
    check(cpu, &row);
    run(cpu, FJ_FORWARD, &expanded);
    ck_assert(memcmp(expanded.out->memory, row.out->memory, 120 * sizeof(float)) == 0);
    expanded.lse = row.lse, expanded.dout = row.dout;
    expanded.dmask =
        make(FJ_DTYPE_F32, DIMS(2, 3, 5, 6)); /* where it is asked for, each element has its own */
    run(reference, FJ_BACKWARD, &expanded);
    for (int e = 0; e < 6; e++) {
        double sum = 0;
        for (int i = e; i < 180; i += 6) sum += get(expanded.dmask, i);
        ck_assert_double_eq_tol(sum, get(row.dmask, e), 1e-5);
    }
}
END_TEST

/* A band of -inf, so that rows see some keys only, and some none. */
START_TEST(fused_attention_with_inf) {
    call c = {.q = waves(1, FJ_DTYPE_F32, DIMS(1, 2, 40, 8)),
              .k = waves(2, FJ_DTYPE_F32, DIMS(1, 2, 40, 8)),
              .v = waves(3, FJ_DTYPE_F32, DIMS(1, 2, 40, 4)),
              .mask = make(FJ_DTYPE_F32, DIMS(40, 40))};
    for (int i = 0; i < 1600; i++) put(c.mask, i, i % 40 > i / 40 - 10 && i / 40 > 3 ? 0 : -(double)INFINITY);
    check(cpu, &c);
    for (int i = 0; i < 16; i++) ck_assert(get(c.out, i) == 0 && get(c.dq, i) == 0);
    ck_assert(get(c.lse, 0) == -(double)INFINITY);
}
END_TEST

START_TEST(math_with_negative_scale) {
    const double scales[] = {-3, 0, 0.25};
    for (int n = 0; n < 3; n++) {
        call c = small(FJ_DTYPE_F64, 5, 6);
        c.scale = &scales[n];
        check(reference, &c);
    }
    call c = small(FJ_DTYPE_F64, 4, 4), want;
    c.scale = (const double[]){-1e4};
    c.out = make(FJ_DTYPE_F64, DIMS(2, 3, 4, 4));
    run(cpu, FJ_FORWARD, &c);
    define(&c, &want);
    check_near(c.out, want.out, "out", 1e-10);
}
END_TEST

/* ---- TestSDPAFailureModes: what is a failure there and not here ------------------------------------------------- */

START_TEST(invalid_fused_inputs_dim_3) {
    call c = {.q = waves(1, FJ_DTYPE_F32, DIMS(3, 5, 8)),
              .k = waves(2, FJ_DTYPE_F32, DIMS(3, 6, 8)),
              .v = waves(3, FJ_DTYPE_F32, DIMS(3, 6, 4))};
    check(cpu, &c);
    call two = {.q = waves(1, FJ_DTYPE_F32, DIMS(5, 8)),
                .k = waves(2, FJ_DTYPE_F32, DIMS(6, 8)),
                .v = waves(3, FJ_DTYPE_F32, DIMS(6, 4))};
    check(cpu, &two);
}
END_TEST

/* Batches and heads of 1, groups of heads, also where key and value have different ones. */
START_TEST(invalid_fused_inputs_broadcast) {
    const int64_t of[][6] = {{1, 3, 2, 3, 2, 3}, {2, 3, 1, 3, 2, 3}, {2, 3, 1, 3, 1, 3}, {2, 1, 2, 3, 1, 3},
                             {1, 6, 2, 2, 1, 3}, {2, 6, 2, 1, 2, 2}, {1, 1, 1, 1, 2, 3}};
    for (size_t n = 0; n < sizeof of / sizeof of[0]; n++)
        for (int device = 0; device < 2; device++) {
            call c = {.q = waves(1, FJ_DTYPE_F64, DIMS(of[n][0], of[n][1], 5, 8)),
                      .k = waves(2, FJ_DTYPE_F64, DIMS(of[n][2], of[n][3], 6, 8)),
                      .v = waves(3, FJ_DTYPE_F64, DIMS(of[n][4], of[n][5], 6, 4)),
                      .backends = device ? 0 : 1u << FJ_SDPA_MATH};
            if (device && n > 1) continue;
            check(cpu, &c);
        }
}
END_TEST

START_TEST(invalid_sequence_lengths) {
    const int64_t lengths[][2] = {{0, 6}, {5, 0}, {0, 0}};
    for (int n = 0; n < 3; n++) {
        call c = small(FJ_DTYPE_F32, lengths[n][0], lengths[n][1]);
        check(cpu, &c);
        c.mask = waves(4, FJ_DTYPE_F32, DIMS(2, 1, lengths[n][0], lengths[n][1]));
        c.dmask = make(FJ_DTYPE_F32, DIMS(2, 1, lengths[n][0], lengths[n][1]));
        c.dmask->strides[0] = 0; /* of no elements any stride will do */
        check(cpu, &c);
    }
    call none = {.q = waves(1, FJ_DTYPE_F32, DIMS(0, 3, 5, 8)),
                 .k = waves(2, FJ_DTYPE_F32, DIMS(1, 3, 6, 8)),
                 .v = waves(3, FJ_DTYPE_F32, DIMS(0, 3, 6, 4))};
    check(cpu, &none);
}
END_TEST

/* A last dimension of any stride is copied, which the report and the log say; E = 1 needs no copy. */
static char logged[600];
static void keep_log(void *user, fj_log_level level, const char *message) {
    (void)user, (void)level;
    if (strncmp(message, "sdpa: ", 6) == 0) snprintf(logged, sizeof logged, "%s", message);
}
START_TEST(invalid_last_dim_stride) {
    call c = small(FJ_DTYPE_F32, 5, 6), plain = small(FJ_DTYPE_F32, 5, 6);
    c.q = fill(lay_out(FJ_DTYPE_F32, DIMS(2, 3, 5, 8), (const int[]){0, 1, 3, 2}, 0), 1);
    c.out = lay_out(FJ_DTYPE_F32, DIMS(2, 3, 5, 4), NULL, 2);
    c.dout = fill(lay_out(FJ_DTYPE_F32, DIMS(2, 3, 5, 4), (const int[]){0, 1, 3, 2}, 1), 9);
    c.dq = lay_out(FJ_DTYPE_F32, DIMS(2, 3, 5, 8), (const int[]){3, 0, 1, 2}, 1);
    check(cpu, &c);
    check(cpu, &plain);
    for (int i = 0; i < 120; i++)
        ck_assert(get(c.out, i) == get(plain.out, i) && get(c.dq, i) == get(plain.dq, i));
    ck_assert_str_eq(
        report_of(cpu, &c).copies,
        "query is copied: the stride of its last dimension is not 1; out is copied: the stride of its "
        "last dimension is not 1");
    ck_assert_str_eq(report_of(cpu, &plain).copies, "");
    const fj_context_desc desc = {.struct_size = sizeof desc, .log = keep_log, .log_level = FJ_LOG_INFO};
    fj_context *loud;
    fj_device *device;
    ck_assert(fj_context_create(&desc, &loud) == FJ_OK &&
              fj_device_create(loud, FJ_DEVICE_REFERENCE, &device, NULL) == FJ_OK);
    run(device, FJ_FORWARD, &c);
    ck_assert_msg(strstr(logged, "query is copied"), "%s", logged);
    fj_device_unref(&device);
    fj_context_unref(&loud);
}
END_TEST
START_TEST(singelton_head_dim_stride_ne_1) {
    call c = {.q = fill(lay_out(FJ_DTYPE_F32, DIMS(2, 3, 5, 1), NULL, 3), 1),
              .k = fill(lay_out(FJ_DTYPE_F32, DIMS(2, 3, 6, 1), NULL, 1), 2),
              .v = waves(3, FJ_DTYPE_F32, DIMS(2, 3, 6, 1))};
    ck_assert_str_eq(report_of(reference, &c).copies, "");
    check(reference, &c);
}
END_TEST

START_TEST(invalid_fused_inputs_head_dim) {
    call nine = {.q = waves(1, FJ_DTYPE_F16, DIMS(2, 5, 9)),
                 .k = waves(2, FJ_DTYPE_F16, DIMS(2, 6, 9)),
                 .v = waves(3, FJ_DTYPE_F16, DIMS(2, 6, 5))};
    check(cpu, &nine);
    call wide = {.q = waves(1, FJ_DTYPE_F32, DIMS(2, 257)),
                 .k = waves(2, FJ_DTYPE_F32, DIMS(3, 257)),
                 .v = waves(3, FJ_DTYPE_F32, DIMS(3, 4)),
                 .out = make(FJ_DTYPE_F32, DIMS(2, 4))};
    const fj_sdpa_report report = report_of(cpu, &wide);
    ck_assert_int_eq(report.backend, FJ_SDPA_BACKENDS);
    ck_assert_str_eq(report.refused[FJ_SDPA_MATH],
                     "query has shape [2,257]: head dimensions, the last extent, are 1 to 256");
    check_fails(cpu, FJ_FORWARD, &wide, FJ_ERR_UNSUPPORTED,
                "no backend is left for this call: flash: it runs on the devices cuda and emu");
}
END_TEST

START_TEST(fused_sdp_choice) {
    call c = small(FJ_DTYPE_F64, 5, 6);
    fj_device *emu;
    ck_assert(fj_device_create(context, FJ_DEVICE_EMU, &emu, NULL) == FJ_OK);
    ck_assert_int_eq(report_of(cpu, &c).backend, FJ_SDPA_CPU);
    ck_assert_int_eq(report_of(reference, &c).backend, FJ_SDPA_MATH);
    ck_assert_int_eq(report_of(emu, &c).backend, FJ_SDPA_EFFICIENT);
    ck_assert_str_eq(report_of(emu, &c).refused[FJ_SDPA_FLASH],
                     "query is F64: its kernels take F16, BF16 and F32");
    call single = small(FJ_DTYPE_F32, 5, 6);
    ck_assert_int_eq(report_of(emu, &single).backend, FJ_SDPA_FLASH);
    single.backends = 1u << FJ_SDPA_MATH | 1u << FJ_SDPA_CPU;
    ck_assert_int_eq(report_of(emu, &single).backend, FJ_SDPA_MATH);
    ck_assert_str_eq(report_of(emu, &single).refused[FJ_SDPA_FLASH],
                     "it is not among the backends that are allowed");
    single.backends = 1u << FJ_SDPA_FLASH | 1u << FJ_SDPA_EFFICIENT;
    check_fails(cpu, FJ_FORWARD, &single, FJ_ERR_UNSUPPORTED, "no backend is left for this call");
    fj_device_unref(&emu);
}
END_TEST

/* On a GPU, which need not be here for the choice: what the host would have to copy is refused with the tensor's name. */
START_TEST(fused_sdp_choice_cuda) {
    call c = small(FJ_DTYPE_BF16, 5, 6);
    fj_device *gpu;
    ck_assert(fj_device_create_for_arch(context, FJ_DEVICE_CUDA, "sm_90a", &gpu, NULL) == FJ_OK);
    tensor *const tensors[] = {c.q, c.k, c.v};
    for (int i = 0; i < 3; i++) tensors[i]->dl.device.device_type = kDLCUDA;
    fj_sdpa_report report = report_of(gpu, &c);
    ck_assert_int_eq(report.backend, FJ_SDPA_FLASH);
    ck_assert_str_eq(report.refused[FJ_SDPA_MATH],
                     "it reads the host's memory, and the device is cuda:sm_90a");
    ck_assert_str_eq(report.refused[FJ_SDPA_CPU], "it runs on the device cpu, and the device is cuda:sm_90a");
    c.q->strides[3] = 2;
    report = report_of(gpu, &c);
    ck_assert_int_eq(report.backend, FJ_SDPA_BACKENDS);
    for (int i = FJ_SDPA_FLASH; i <= FJ_SDPA_EFFICIENT; i++)
        ck_assert_str_eq(
            report.refused[i],
            "the host cannot copy memory of cuda: query is copied: the stride of its last dimension is not 1");
    fj_device_unref(&gpu);
}
END_TEST

START_TEST(invalid_inputs) {
    const call good = small(FJ_DTYPE_F32, 5, 6);
    call c = good;
    c.out = make(FJ_DTYPE_F32, DIMS(2, 3, 5, 4));
    c.k = waves(2, FJ_DTYPE_F16, DIMS(2, 3, 6, 8));
    check_fails(cpu, FJ_FORWARD, &c, FJ_ERR_TENSOR,
                "key is F16, query F32: query, key and value have one dtype");
    c.k = good.k, c.q = waves(1, FJ_DTYPE_F32, DIMS(8));
    check_fails(cpu, FJ_FORWARD, &c, FJ_ERR_TENSOR,
                "query has rank 1, shape [8]: it is [L,E], [H,L,E] or [B,H,L,E]");
    c.q = good.q, c.v = waves(3, FJ_DTYPE_F32, DIMS(2, 3, 6, 4)), c.v->dl.device.device_type = kDLCUDA;
    check_fails(cpu, FJ_FORWARD, &c, FJ_ERR_TENSOR,
                "value is on another device (DLPack type 2): the cpu device takes host memory");
    c.v = good.v, c.dropout = 1.5;
    check_fails(cpu, FJ_FORWARD, &c, FJ_ERR_ARGUMENT, "dropout is a probability");
    c.dropout = 0, c.mask = waves(4, FJ_DTYPE_F32, DIMS(5, 6)), c.causal = FJ_SDPA_UPPER_LEFT;
    check_fails(cpu, FJ_FORWARD, &c, FJ_ERR_ARGUMENT,
                "mask is given, but causal too"); /* is_causal_and_mask_fails */
    c.causal = FJ_SDPA_LOWER_RIGHT;
    check_fails(cpu, FJ_FORWARD, &c, FJ_ERR_ARGUMENT, "mask is given, but causal too");
    c.causal = FJ_SDPA_NOT_CAUSAL, c.mask = make(FJ_DTYPE_I32, DIMS(5, 6));
    check_fails(cpu, FJ_FORWARD, &c, FJ_ERR_TENSOR,
                "mask is I32: BOOL (true keeps) and floats (added to the scores) are allowed");
    c.mask = waves(4, FJ_DTYPE_F32, DIMS(6, 5));
    check_fails(
        cpu, FJ_FORWARD, &c, FJ_ERR_TENSOR,
        "mask has shape [6,5]: each dimension is that of [B,H,L,S] = [2,3,5,6], aligned at the right, or 1");
    c.mask = NULL, c.out->strides[1] = 0;
    check_fails(cpu, FJ_FORWARD, &c, FJ_ERR_TENSOR, "out has stride 0 in dimension 1: its elements overlap");
    c.out = make(FJ_DTYPE_F32, DIMS(3, 5, 4));
    check_fails(cpu, FJ_FORWARD, &c, FJ_ERR_TENSOR, "out has rank 3, shape [3,5,4]: it is [2,3,5,4]");
    c.out = make(FJ_DTYPE_F32, DIMS(2, 3, 5, 4)), c.lse = make(FJ_DTYPE_F32, DIMS(2, 3, 5)), c.dout = c.out;
    c.mask = waves(4, FJ_DTYPE_BOOL, DIMS(5, 6)), c.dmask = make(FJ_DTYPE_F32, DIMS(5, 6));
    check_fails(cpu, FJ_BACKWARD, &c, FJ_ERR_TENSOR, "dmask is given, but mask is BOOL, and has no gradient");
    c.mask = NULL, c.dmask = NULL, c.dq = make(FJ_DTYPE_F32, DIMS(1, 3, 5, 8));
    check_fails(cpu, FJ_BACKWARD, &c, FJ_ERR_TENSOR, "dquery has shape [1,3,5,8]: it is [2,3,5,8], as query");
}
END_TEST

/* ---- Values ------------------------------------------------------------------------------------------------------- */

START_TEST(flash_atteention_large_bf16_nan_values) {
    call c = {.q = make(FJ_DTYPE_BF16, DIMS(1, 1, 1, 64)), .out = make(FJ_DTYPE_BF16, DIMS(1, 1, 1, 64))};
    for (int i = 0; i < 64; i++) put(c.q, i, 133120);
    c.k = c.v = c.q;
    run(cpu, FJ_FORWARD, &c);
    for (int i = 0; i < 64; i++) ck_assert(get(c.out, i) == get(c.q, i));
}
END_TEST
START_TEST(fp16_overflow) {
    call c = {.q = make(FJ_DTYPE_F16, DIMS(1, 1, 8, 80)), .out = make(FJ_DTYPE_F16, DIMS(1, 1, 8, 80))};
    for (int i = 0; i < 640; i++) put(c.q, i, 256);
    c.k = c.v = c.q;
    run(cpu, FJ_FORWARD, &c);
    for (int i = 0; i < 640; i++) ck_assert(get(c.out, i) == 256);
}
END_TEST
/* What is hidden may be NaN; what is seen makes its row NaN. */
START_TEST(non_masked_rows_nan_props) {
    call c = small(FJ_DTYPE_F32, 5, 6);
    c.mask = make(FJ_DTYPE_BOOL, DIMS(5, 6));
    for (int i = 0; i < 30; i++) put(c.mask, i, i / 6 == 0 ? 0 : i % 6 != 3);
    c.out = make(FJ_DTYPE_F32, DIMS(2, 3, 5, 4));
    for (int head = 0; head < 6; head++) put(c.v, head * 24 + 3 * 4, (double)NAN);
    put(c.q, 2 * 8, (double)NAN);
    run(cpu, FJ_FORWARD, &c);
    for (int i = 0; i < 20; i++)
        ck_assert(i / 4 == 0   ? get(c.out, i) == 0
                  : i / 4 == 2 ? isnan(get(c.out, i))
                               : isfinite(get(c.out, i)));
}
END_TEST

/* ---- TestAttnBias ------------------------------------------------------------------------------------------------- */

START_TEST(causal_variants) {
    const int64_t lengths[][2] = {{7, 7}, {7, 12}, {12, 7}};
    for (int n = 0; n < 6; n++) {
        call c = small(FJ_DTYPE_F64, lengths[n / 2][0], lengths[n / 2][1]);
        c.causal = n % 2 ? FJ_SDPA_LOWER_RIGHT : FJ_SDPA_UPPER_LEFT;
        check(n > 3 ? cpu : reference, &c);
    }
}
END_TEST

/* ---- Jagged -------------------------------------------------------------------------------------------------------- */

static tensor *list_of(fj_dtype dtype, int count, const int *values) {
    tensor *t = make(dtype, DIMS(count));
    for (int i = 0; i < count; i++)
        if (dtype == FJ_DTYPE_I64)
            ((int64_t *)(void *)t->memory)[i] = values[i];
        else
            ((int32_t *)(void *)t->memory)[i] = values[i];
    return t;
}

/* Rows [first, last) of [T,H,E] as [1,H,rows,E], or a tensor that serves all as it is. */
static tensor *rows_of(const tensor *t, int64_t first, int64_t last) {
    if (t->dl.ndim == 4) return (tensor *)(uintptr_t)t;
    const int64_t heads = t->shape[1], width = t->shape[2];
    tensor *one = make(FJ_DTYPE_F64, DIMS(1, heads, last - first, width));
    for (int64_t h = 0; h < heads; h++)
        for (int64_t i = 0; i < last - first; i++)
            for (int64_t e = 0; e < width; e++)
                put(one, (h * (last - first) + i) * width + e, get(t, ((first + i) * heads + h) * width + e));
    return one;
}
static void add_rows(tensor *sum, const tensor *one, int64_t first, int64_t length) {
    const int64_t heads = one->shape[1], width = one->shape[3];
    for (int64_t n = 0; n < count_of(one); n++) {
        const int64_t h = n / width / length, i = n / width % length;
        add(sum, sum->dl.ndim == 4 ? n : ((first + i) * heads + h) * width + n % width, get(one, n));
    }
}

/* Each sequence is a call of its own; gradients of what serves all are the sums. */
static void check_jagged(fj_device *device, call *c, const int *at_q, const int *at_kv, int batch) {
    const int64_t heads = c->q->shape[1] > c->k->shape[1] ? c->q->shape[1] : c->k->shape[1];
    const int64_t all = heads > c->v->shape[1] ? heads : c->v->shape[1], rows = at_q[batch];
    const tensor *const of[] = {c->q, c->k, c->v};
    tensor *sums[3], **const got[] = {&c->dq, &c->dk, &c->dv};
    c->out = make(FJ_DTYPE_F64, DIMS(rows, all, 4));
    c->lse = make(FJ_DTYPE_F64, DIMS(all, rows));
    c->dout = waves(9, FJ_DTYPE_F64, DIMS(rows, all, 4));
    for (int i = 0; i < 3; i++) {
        sums[i] = make(FJ_DTYPE_F64, of[i]->dl.ndim, of[i]->shape);
        *got[i] = make(FJ_DTYPE_F64, of[i]->dl.ndim, of[i]->shape);
    }
    run(device, FJ_FORWARD, c);
    run(device, FJ_BACKWARD, c);
    for (int b = 0; b < batch; b++) {
        call one = {.q = rows_of(c->q, at_q[b], at_q[b + 1]),
                    .k = rows_of(c->k, at_kv[b], at_kv[b + 1]),
                    .v = rows_of(c->v, at_kv[b], at_kv[b + 1]),
                    .dout = rows_of(c->dout, at_q[b], at_q[b + 1]),
                    .causal = c->causal};
        call want;
        define(&one, &want);
        check_near(rows_of(c->out, at_q[b], at_q[b + 1]), want.out, "out", 1e-12);
        add_rows(sums[0], want.dq, at_q[b], at_q[b + 1] - at_q[b]);
        add_rows(sums[1], want.dk, at_kv[b], at_kv[b + 1] - at_kv[b]);
        add_rows(sums[2], want.dv, at_kv[b], at_kv[b + 1] - at_kv[b]);
    }
    check_near(c->dq, sums[0], "dq", 1e-12);
    check_near(c->dk, sums[1], "dk", 1e-12);
    check_near(c->dv, sums[2], "dv", 1e-12);
}

/* Lengths of 0 and 1, of queries other than those of keys, causal of each sequence. */
START_TEST(fused_kernels_seq_len_inputs) {
    const int at_q[] = {0, 4, 4, 5, 13, 13}, at_kv[] = {0, 1, 7, 8, 8, 20};
    for (int n = 0; n < 3; n++) {
        call c = {.q = waves(1, FJ_DTYPE_F64, DIMS(13, 2, 8)),
                  .k = waves(2, FJ_DTYPE_F64, DIMS(20, 2, 8)),
                  .v = waves(3, FJ_DTYPE_F64, DIMS(20, 1, 4)),
                  .cu_q = list_of(FJ_DTYPE_I64, 6, at_q),
                  .cu_kv = list_of(FJ_DTYPE_I32, 6, at_kv),
                  .causal = (fj_sdpa_causal)n};
        check_jagged(n == 2 ? cpu : reference, &c, at_q, at_kv, 5);
    }
}
END_TEST

/* All 64 combinations of one batch and one head of query, key and value. */
START_TEST(fused_kernels_nested_broadcasting) {
    const int at[] = {0, 5, 10, 15};
    for (int n = 0; n < 64; n++) {
        tensor *of[3];
        for (int i = 0; i < 3; i++) {
            const int64_t heads = n >> (2 * i) & 2 ? 1 : 2, width = i < 2 ? 8 : 4;
            of[i] = n >> (2 * i) & 1 ? waves(i, FJ_DTYPE_F64, DIMS(1, heads, 5, width))
                                     : waves(i, FJ_DTYPE_F64, DIMS(15, heads, width));
        }
        const bool q_listed = of[0]->dl.ndim == 3, kv_listed = of[1]->dl.ndim == 3 || of[2]->dl.ndim == 3;
        call c = {.q = of[0],
                  .k = of[1],
                  .v = of[2],
                  .cu_q = q_listed ? list_of(FJ_DTYPE_I32, 4, at) : NULL,
                  .cu_kv = kv_listed ? list_of(FJ_DTYPE_I32, 4, at) : NULL};
        if (!q_listed && !kv_listed)
            check(reference, &c); /* a dense call */
        else
            check_jagged(reference, &c, at, at, 3);
    }
}
END_TEST

START_TEST(fused_kernels_nested_broadcasting_error_cases) {
    const int at[] = {0, 4, 10}, falls[] = {0, 6, 4};
    call c = {.q = waves(1, FJ_DTYPE_F64, DIMS(10, 2, 8)),
              .k = waves(2, FJ_DTYPE_F64, DIMS(1, 2, 5, 8)),
              .v = waves(3, FJ_DTYPE_F64, DIMS(10, 2, 4)),
              .out = make(FJ_DTYPE_F64, DIMS(10, 2, 4)),
              .cu_q = list_of(FJ_DTYPE_I32, 3, at),
              .cu_kv = list_of(FJ_DTYPE_I32, 3, at)};
    check_fails(cpu, FJ_FORWARD, &c, FJ_ERR_TENSOR,
                "key is the same 5 rows for every sequence, but sequence 0 has 4 keys");
    c.k = waves(2, FJ_DTYPE_F64, DIMS(10, 2, 8));
    c.cu_q = list_of(FJ_DTYPE_I64, 3, falls);
    check_fails(cpu, FJ_FORWARD, &c, FJ_ERR_TENSOR, "cu_seqlens_q decreases from 6 to 4 at index 2");
    c.cu_q = NULL;
    check_fails(cpu, FJ_FORWARD, &c, FJ_ERR_TENSOR,
                "cu_seqlens_q is missing: query has the rows of all sequences");
}
END_TEST

/* ---- Ops ------------------------------------------------------------------------------------------------------------ */

/* One op serves calls of any lengths, batch and heads; another kind is refused; bits do not depend on threads, run or use. */
START_TEST(mem_eff_backwards_determinism) {
    call c = small(FJ_DTYPE_F32, 70, 90);
    c.mask = waves(4, FJ_DTYPE_F32, DIMS(70, 90));
    check(cpu, &c);
    fj_error error = {0};
    fj_sdpa_op *op = NULL;
    fj_sdpa_args args = args_of(&c);
    ck_assert_msg(fj_sdpa_create(cpu, FJ_BACKWARD, &args, &op, &error) == FJ_OK, "%s", error.text);
    ck_assert(fj_sdpa_describe(op).backend == FJ_SDPA_CPU && fj_sdpa_describe(op).kernel.cache_hit);
    for (int workers = 1; workers < 4; workers++) {
        const fj_launch launch = {.struct_size = sizeof launch, .workers = workers};
        call again = c;
        size_t size;
        again.dq = make(FJ_DTYPE_F32, DIMS(2, 3, 70, 8)), again.dmask = make(FJ_DTYPE_F32, DIMS(70, 90));
        args = args_of(&again);
        ck_assert(fj_sdpa_workspace(op, &args, &launch, &size, &error) == FJ_OK);
        void *workspace = aligned_alloc(256, (size + 255) / 256 * 256);
        ck_assert_msg(fj_sdpa_launch(op, &args, &launch, workspace, size, &error) == FJ_OK, "%s", error.text);
        ck_assert(memcmp(again.dq->memory, c.dq->memory, 2 * 3 * 70 * 8 * sizeof(float)) == 0);
        ck_assert(memcmp(again.dmask->memory, c.dmask->memory, 70 * 90 * sizeof(float)) == 0);
        args.causal = FJ_SDPA_UPPER_LEFT, args.mask = NULL, args.dmask = NULL;
        ck_assert(fj_sdpa_launch(op, &args, &launch, workspace, size, &error) == FJ_ERR_ARGUMENT);
        ck_assert_msg(strstr(error.text, "calls of another kind: causal differs"), "%s", error.text);
        free(workspace);
    }
    call other = small(FJ_DTYPE_F32, 3, 4);
    other.mask = waves(4, FJ_DTYPE_F32, DIMS(2, 1, 3, 4));
    other.out = make(FJ_DTYPE_F32, DIMS(2, 3, 3, 4)), other.lse = make(FJ_DTYPE_F32, DIMS(2, 3, 3)),
    other.dout = other.out;
    args = args_of(&other);
    size_t size;
    ck_assert(fj_sdpa_workspace(op, &args, NULL, &size, &error) == FJ_ERR_ARGUMENT);
    ck_assert_msg(strstr(error.text, "its mask does not have the axis B of [B,H,L,S], this call's has"), "%s",
                  error.text);
    fj_sdpa_unref(&op);
}
END_TEST

/* A gradient of the mask that is not asked for is not computed; what else is, is the same. */
START_TEST(a_mask_without_gradient) {
    call c = small(FJ_DTYPE_F32, 5, 6);
    c.mask = waves(4, FJ_DTYPE_F32, DIMS(5, 6));
    check(cpu, &c);
    call less = c;
    less.dmask = NULL, less.dq = make(FJ_DTYPE_F32, DIMS(2, 3, 5, 8));
    run(cpu, FJ_BACKWARD, &less);
    check_near(less.dq, c.dq, "dq", 1e-6);
    const char *const constants[] = {"mask"};
    const fj_binding binding = {.name = "mask", .dtype = FJ_DTYPE_F32, .rank = 2, .dims = {-1, -1}};
    const fj_mod_desc desc = {.struct_size = sizeof desc,
                              .score = "score + mask[q, kv]",
                              .bindings = &binding,
                              .binding_count = 1,
                              .constants = constants,
                              .constant_count = 1};
    fj_mod *mod = NULL;
    ck_assert(fj_mod_create(context, &desc, &mod, NULL) == FJ_OK);
    ck_assert(!fj_mod_capture(mod, 0).gradient);
    fj_mod_unref(&mod);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("sdpa");
    TCase *tests = tcase_create("transformers");
    tcase_set_timeout(tests, 120);
    tcase_add_unchecked_fixture(tests, open_cache, close_cache);
    tcase_add_checked_fixture(tests, setup, teardown);
    const TTest *const all[] = {scaled_dot_product_attention,
                                sdp_math_gradcheck,
                                fused_attention_vs_math_cpu,
                                fused_attention_mask_vs_math_cpu,
                                mem_efficient_attention_mask_variants,
                                fused_attention_with_inf,
                                math_with_negative_scale,
                                invalid_fused_inputs_dim_3,
                                invalid_fused_inputs_broadcast,
                                invalid_sequence_lengths,
                                invalid_last_dim_stride,
                                singelton_head_dim_stride_ne_1,
                                invalid_fused_inputs_head_dim,
                                fused_sdp_choice,
                                fused_sdp_choice_cuda,
                                invalid_inputs,
                                flash_atteention_large_bf16_nan_values,
                                fp16_overflow,
                                non_masked_rows_nan_props,
                                causal_variants,
                                fused_kernels_seq_len_inputs,
                                fused_kernels_nested_broadcasting,
                                fused_kernels_nested_broadcasting_error_cases,
                                mem_eff_backwards_determinism,
                                a_mask_without_gradient};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) tcase_add_test(tests, all[i]);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_NORMAL);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
