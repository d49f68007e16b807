/* What the host does around launches on a GPU: flags of tensors, gradients that no kernel makes, faults of other launches.
 * The GPU only notes what is launched, so nothing is compiled. */
#include "attn/gpu.h"
#include "tests/attn/gpu_fixture.h"

enum { B = 2, HQ = 4, HKV = 2, L = 3, S = 4, E = 64, MEMORY = 1 << 16 };

/* Tensors of one call, all in the same memory of the GPU. */
typedef struct host_call {
    fj_mod *mod;
    fj_plan *plan;
    fj_kernel *kernel;
    char *memory;
    int64_t q[4], k[4], strides[4];
    DLTensor query, key, value, out, dout, dquery, dkey, dvalue, lse;
    fj_args args;
} host_call;

static DLTensor tensor_of(const host_call *c, int64_t *shape, int rank, fj_dtype dtype) {
    return (DLTensor){.data = c->memory,
                      .device = fj_device_dlpack(device),
                      .ndim = rank,
                      .dtype = fj_dtype_to_dlpack(dtype),
                      .shape = shape};
}

static void call_open(host_call *c, const fj_mod_desc *desc, fj_direction direction) {
    const fj_problem problem = {.struct_size = sizeof problem,
                                .direction = direction,
                                .dtype = FJ_DTYPE_BF16,
                                .head_dim = E,
                                .value_dim = E};
    *c = (host_call){.q = {B, HQ, L, E}, .k = {B, HKV, S, E}};
    if (!device) box_check(fj_device_create(context, FJ_DEVICE_CUDA, &device, &error), &error);
    box_check(fj_mod_create(context, desc, &c->mod, &error), &error);
    box_check(fj_plan_create(device, c->mod, &problem, &c->plan, &error), &error);
    box_check(fj_kernel_create(c->plan, &c->kernel, &error), &error);
    void *memory = NULL;
    box_check(fj_device_alloc(device, MEMORY, &memory, &error), &error);
    box_check(fj_device_fill(device, memory, 0, MEMORY, NULL, &error), &error);
    c->memory = memory;
    c->query = c->out = c->dout = c->dquery = tensor_of(c, c->q, 4, FJ_DTYPE_BF16);
    c->key = c->value = c->dkey = c->dvalue = tensor_of(c, c->k, 4, FJ_DTYPE_BF16);
    c->lse = tensor_of(c, c->q, 3, FJ_DTYPE_F32);
    c->args = (fj_args){.struct_size = sizeof c->args,
                        .query = &c->query,
                        .key = &c->key,
                        .value = &c->value,
                        .out = &c->out,
                        .lse = &c->lse,
                        .dout = &c->dout,
                        .dquery = &c->dquery,
                        .dkey = &c->dkey,
                        .dvalue = &c->dvalue,
                        .scale = 1};
}

static void call_close(host_call *c) {
    void *memory = c->memory;
    fj_device_free(device, &memory);
    fj_kernel_unref(&c->kernel);
    fj_plan_unref(&c->plan);
    fj_mod_unref(&c->mod);
}

/* ---- Vectors ---------------------------------------------------------------------------------------- */

static uint32_t flags_of(const host_call *c, fj_direction direction) {
    static fj_gpu_parameters parameters;
    _Alignas(16) char storage[FJ_GPU_RESOLVED];
    struct fj_cuda_forward forward;
    struct fj_cuda_backward backward;
    fj_resolved all;
    fj_workspace layout;
    box_check(fj_attn_resolve(c->plan, &c->args, false, storage, &all, &error), &error);
    box_check(fj_attn_gpu_lay_out(c->kernel, &all, &layout, &error), &error);
    fj_attn_gpu_fill_parameters(c->kernel, &all, &layout, c->memory, false, &parameters);
    memcpy(&forward, parameters.bytes, sizeof forward);
    memcpy(&backward, parameters.bytes, sizeof backward);
    return direction == FJ_FORWARD ? forward.vector : backward.vector;
}

/* 16 bytes at a time: only where each row begins at a multiple of them. */
START_TEST(vectors_are_aligned) {
    static const struct {
        int64_t shape[3], strides[3];
        size_t offset; /* bytes */
        bool vector;
    } cases[] = {
        {{B, HQ, L}, {4096, 512, 64}, 0, true},  {{B, HQ, L}, {4096, 512, 72}, 16, true},
        {{B, HQ, L}, {4096, 512, 68}, 0, false}, {{B, HQ, L}, {4096, 516, 64}, 0, false},
        {{B, HQ, L}, {4100, 512, 64}, 0, false}, {{B, HQ, L}, {4096, 512, 66}, 0, false},
        {{B, HQ, L}, {4096, 512, 64}, 8, false}, {{B, HQ, L}, {4097, 513, 65}, 0, false},
        {{B, HQ, 1}, {4096, 512, 68}, 0, true},  {{1, HQ, L}, {4100, 512, 64}, 0, true},
    };
    static const uint32_t alone[] = {FJ_CUDA_VECTOR_QUERY, FJ_CUDA_VECTOR_OUT, FJ_CUDA_VECTOR_DOUT,
                                     FJ_CUDA_VECTOR_DQUERY};
    const fj_mod_desc identity = {.struct_size = sizeof identity};
    for (int direction = FJ_FORWARD; direction <= FJ_BACKWARD; direction++) {
        host_call c;
        call_open(&c, &identity, (fj_direction)direction);
        const uint32_t every = direction == FJ_FORWARD ? 15 : 255;
        DLTensor *const tensors[] = {&c.query, &c.out, &c.dout, &c.dquery};
        ck_assert_uint_eq(flags_of(&c, (fj_direction)direction), every);
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            c.q[0] = c.k[0] = cases[i].shape[0];
            c.q[2] = cases[i].shape[2];
            for (int t = 0; t < (direction == FJ_FORWARD ? 2 : 4); t++) {
                const DLTensor kept = *tensors[t];
                for (int d = 0; d < 4; d++) c.strides[d] = d < 3 ? cases[i].strides[d] : 1;
                tensors[t]->strides = c.strides;
                tensors[t]->byte_offset = cases[i].offset;
                const uint32_t flags = flags_of(&c, (fj_direction)direction);
                ck_assert_msg(flags == (cases[i].vector ? every : every & ~alone[t]),
                              "case %zu, tensor %d: %x", i, t, flags);
                *tensors[t] = kept;
            }
        }
        call_close(&c);
    }
}
END_TEST

/* ---- Gradients ---------------------------------------------------------------------------------------- */

/* A scalar that the score does not depend on: 0, whatever was there. */
START_TEST(a_gradient_that_is_zero_is_written) {
    static const char *const names[] = {"N"};
    const fj_mod_desc desc = {
        .struct_size = sizeof desc,
        .source = "N = 0.5\n",
        .source_length = 8,
        .score = "score + table[h].int() + torch.floor(N)",
        .mask = "kv + 1 > 0",
        .runtime_params = names,
        .runtime_param_count = 1,
        .bindings = &(fj_binding){.name = "table", .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {-1}},
        .binding_count = 1};
    enum { TABLE = MEMORY / 2, SCALAR = MEMORY / 2 + 4096, WORKSPACE = MEMORY / 4 };
    unsigned char bytes[4096];
    int64_t heads = HQ;
    host_call c;
    size_t size = 0;
    call_open(&c, &desc, FJ_BACKWARD);
    DLTensor table = tensor_of(&c, &heads, 1, FJ_DTYPE_F32), dtable = table,
             scalar = tensor_of(&c, NULL, 0, FJ_DTYPE_F32);
    dtable.data = c.memory + TABLE;
    scalar.data = c.memory + SCALAR;
    const DLTensor *captures[] = {&table}, *dcaptures[] = {&dtable}, *dscalars[] = {&scalar};
    c.args.captures = captures;
    c.args.dcaptures = dcaptures;
    c.args.dscalars = dscalars;
    box_check(fj_kernel_workspace(c.kernel, &c.args, NULL, &size, &error), &error);
    ck_assert_uint_le(size, MEMORY / 4);
    box_check(fj_device_fill(device, c.memory + TABLE, 0xff, MEMORY / 2, NULL, &error), &error);
    box_check(fj_kernel_launch(c.kernel, &c.args, NULL, c.memory + WORKSPACE, size, &error), &error);
    for (int i = 0; i < 2; i++) {
        const size_t used = i == 0 ? HQ * 4 : 4;
        box_check(fj_device_download(device, bytes, c.memory + (i == 0 ? TABLE : SCALAR), sizeof bytes, NULL,
                                     &error),
                  &error);
        box_check(fj_device_wait(device, NULL, &error), &error);
        for (size_t k = 0; k < sizeof bytes; k++) ck_assert_int_eq(bytes[k], k < used ? 0 : 0xff);
    }
    call_close(&c);
}
END_TEST

/* ---- Faults ------------------------------------------------------------------------------------------- */

/* A workspace that another launch used last holds a position that this call does not have. */
START_TEST(a_fault_outside_the_call_is_refused) {
    const fj_binding binding = {.name = "table", .dtype = FJ_DTYPE_F32, .rank = 1, .dims = {-1}};
    const fj_mod_desc desc = {
        .struct_size = sizeof desc, .score = "score + table[kv]", .bindings = &binding, .binding_count = 1};
    static const struct {
        struct fj_cuda_fault fault;
        bool inside;
    } cases[] = {
        {{1, 0, 0, 0, S - 1, 0}, true},  {{1, B - 1, HQ - 1, L - 1, S - 1, 0}, true},
        {{1, B, 0, 0, S - 1, 0}, false}, {{1, 0, HQ, 0, S - 1, 0}, false},
        {{1, 0, 0, L, S - 1, 0}, false}, {{1, 0, 0, 0, S, 0}, false},
        {{1, -1, 0, 0, 3, 0}, false},    {{1, 0, -1, 0, 3, 0}, false},
        {{1, 0, 0, -1, 3, 0}, false},    {{1, 0, 0, 0, -1, 0}, false},
    };
    int64_t elements = 2;
    size_t size = 0;
    host_call c;
    call_open(&c, &desc, FJ_FORWARD);
    const DLTensor table = tensor_of(&c, &elements, 1, FJ_DTYPE_F32), *const captures[] = {&table};
    char *workspace = c.memory + MEMORY / 2;
    c.args.captures = captures;
    box_check(fj_kernel_workspace(c.kernel, &c.args, NULL, &size, &error), &error);
    ck_assert_uint_ge(size, sizeof(struct fj_cuda_fault));
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        box_check(fj_device_upload(device, workspace, &cases[i].fault, sizeof cases[i].fault, NULL, &error),
                  &error);
        const fj_status status = fj_kernel_check(c.kernel, &c.args, NULL, workspace, size, &error);
        ck_assert_msg(status == (cases[i].inside ? FJ_ERR_INDEX : FJ_ERR_ARGUMENT), "case %zu: %s", i,
                      error.text);
        has_text(error.text, cases[i].inside ? "captured tensor 'table' F32 [2] is read at index 3"
                                             : "no launch of this kernel used this workspace last");
    }
    call_close(&c);
}
END_TEST

/* Parts of the keys: none where tiles fill the device or keys are of one block; never more than blocks. 100 blocks at a time. */
START_TEST(parts_fill_the_device) {
    static const struct {
        int64_t heads, keys;
        int asked;
        int64_t least, most;
    } cases[] = {
        {1, 64, 0, 1, 1},           {1, 0, 0, 1, 1},         {1, 640, 0, 2, 10},
        {1, 1 << 20, 0, 90, 128},   {10, 1 << 20, 0, 8, 10}, {100, 1 << 20, 0, 1, 1},
        {400, 1 << 20, 0, 1, 1},    {1, 1 << 20, 4, 4, 4},   {1, 100, 4, 2, 2},
        {400, 1 << 20, 16, 16, 16}, {1, 1 << 20, 1, 1, 1},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const fj_gpu_facts facts = {.mma = true,
                                    .tile_m = 16,
                                    .tile_n = 64,
                                    .value_dim = 64,
                                    .real = 4,
                                    .room = 100,
                                    .splits = cases[i].asked};
        const fj_launch_extents of = {.batch = 1,
                                      .heads_q = cases[i].heads,
                                      .heads_kv = cases[i].heads,
                                      .q_len = 1,
                                      .kv_len = cases[i].keys};
        fj_workspace layout;
        const int64_t parts = fj_gpu_splits(&facts, &of);
        ck_assert_msg(parts >= cases[i].least && parts <= cases[i].most, "case %zu: %lld parts", i,
                      (long long)parts);
        ck_assert(fj_gpu_lay_out(&facts, &of, &layout));
        const size_t each = (size_t)cases[i].heads * (64 + 2) * 4;
        const size_t needed = cases[i].asked == 1 ? 0 : each * (size_t)parts;
        ck_assert(layout.size >= needed && layout.size < needed + 256);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("gpu");
    TCase *group = tcase_create("host");
    suite_add_tcase(suite, group);
    tcase_add_checked_fixture(group, setup, teardown);
    tcase_add_test(group, vectors_are_aligned);
    tcase_add_test(group, a_gradient_that_is_zero_is_written);
    tcase_add_test(group, a_fault_outside_the_call_is_refused);
    tcase_add_test(group, parts_fill_the_device);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
