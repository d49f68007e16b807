#include "tests/attn/gpu_case.h"

#include "attn/objects.h"
#include "cli/report.h"

static const fj_direction directions[] = {FJ_FORWARD, FJ_BACKWARD};

static bool has(const gpu_case *c, fj_direction direction) { return direction == FJ_FORWARD || !c->only; }

/* ---- Inputs ------------------------------------------------------------------------------------------- */

static void fill(cli_view *view, const char *name, fj_dtype dtype, int rank, const int64_t *dims,
                 uint64_t seed) {
    cli_random random = {seed};
    ck_assert_int_eq(cli_view_allocate(view, name, dtype, rank, dims), CLI_EXIT_OK);
    for (size_t i = 0; i < view->count; i++)
        cli_store(dtype, view->tensor.data, i,
                  dtype == FJ_DTYPE_I32 ? (double)(i % 5) : cli_random_normal(&random));
}

static int64_t extent(const cli_shape *s, char letter) {
    return letter == 'b' ? s->batch
         : letter == 'h' ? s->heads
         : letter == 'q' ? s->q_len
         : letter == 'k' ? s->kv_len
                         : s->q_len + s->kv_len;
}

static void fill_inputs(gpu_call *call, const gpu_case *c) {
    const cli_shape *s = &c->shape;
    cli_inputs *in = &call->inputs;
    const int64_t q[] = {s->batch, s->heads, s->q_len, s->head_dim};
    const int64_t k[] = {s->batch, s->kv_heads, s->kv_len, s->head_dim};
    const int64_t v[] = {s->batch, s->kv_heads, s->kv_len, s->value_dim};
    const int64_t o[] = {s->batch, s->heads, s->q_len, s->value_dim};
    ck_assert_int_eq(cli_inputs_begin(in, call->mod), CLI_EXIT_OK);
    fill(&in->query, "q", c->dtype, 4, q, 1);
    fill(&in->key, "k", c->dtype, 4, k, 2);
    fill(&in->value, "v", c->dtype, 4, v, 3);
    fill(&in->dout, "do", c->dtype, 4, o, 4);
    for (size_t i = 0; c->times != 0 && i < in->dout.count; i++)
        cli_store(c->dtype, in->dout.tensor.data, i, c->times * cli_load(c->dtype, in->dout.tensor.data, i));
    if (c->dlse) fill(&in->dlse, "dlse", cli_statistics_dtype(c->dtype), 3, o, 5);
    for (size_t i = 0; i < in->capture_count; i++) {
        const char *name = fj_mod_capture(call->mod, i).name;
        for (int j = 0; j < CASE_CAPTURES && c->capture[j].name; j++) {
            int64_t dims[FJ_MAX_RANK];
            int rank = (int)strlen(c->capture[j].dims);
            if (strcmp(c->capture[j].name, name) != 0) continue;
            for (int d = 0; d < rank; d++) dims[d] = extent(s, c->capture[j].dims[d]);
            fill(&in->captures[i], name, c->capture[j].dtype, rank, dims, 10 + i);
        }
        ck_assert_msg(cli_view_is_set(&in->captures[i]), "%s: nothing is bound to '%s'", c->name, name);
    }
}

/* Stripes that differ by head; blocks of a part of a tile, and of no tile's size. */
static fj_block_mask *make_mask(const gpu_case *c, fj_context *context) {
    const cli_shape *s = &c->shape;
    const int64_t dims[] = {1, s->heads, s->q_len, s->kv_len};
    cli_view dense = {0};
    fj_block_mask *mask = NULL;
    fj_error error = {0};
    ck_assert_int_eq(cli_view_allocate(&dense, "mask", FJ_DTYPE_BOOL, 4, dims), CLI_EXIT_OK);
    bool *seen = dense.tensor.data;
    for (int64_t i = 0; i < (int64_t)dense.count; i++) {
        const int64_t kv = i % s->kv_len, q = i / s->kv_len % s->q_len, h = i / s->kv_len / s->q_len;
        seen[i] = (kv / 50 + q / 25 + h) % 3 != 0;
    }
    box_check(fj_block_mask_from_dense(context, &dense.tensor, 16, 24, &mask, &error), &error);
    const fj_block_mask_info info = fj_block_mask_describe(mask);
    ck_assert(info.full > 0 && info.partial > 0 && info.empty > 0);
    cli_view_finish(&dense);
    return mask;
}

void gpu_call_init(gpu_call *call, const gpu_case *c, fj_context *context) {
    fj_binding bindings[CASE_CAPTURES];
    size_t count = 0;
    fj_error error = {0};
    for (; count < CASE_CAPTURES && c->capture[count].name; count++) {
        bindings[count] = (fj_binding){.name = c->capture[count].name,
                                       .dtype = c->capture[count].dtype,
                                       .rank = (int)strlen(c->capture[count].dims)};
        for (int d = 0; d < bindings[count].rank; d++) bindings[count].dims[d] = -1;
    }
    const fj_mod_desc desc = {
        .struct_size = sizeof desc,
        .score = c->score,
        .mask = c->mask,
        .source = c->source,
        .source_length = c->source ? strlen(c->source) : 0,
        .runtime_params = &c->scalar,
        .runtime_param_count = c->scalar != NULL,
        .bindings = bindings,
        .binding_count = count,
    };
    *call = (gpu_call){0};
    fj_status status = fj_mod_create(context, &desc, &call->mod, &error);
    ck_assert_msg(status == FJ_OK, "%s: %s", c->name, error.text);
    fill_inputs(call, c);
    if (c->blocks) call->mask = make_mask(c, context);
}

void gpu_call_finish(gpu_call *call) {
    cli_outputs_finish(&call->outputs);
    cli_inputs_finish(&call->inputs);
    fj_block_mask_unref(&call->mask);
    fj_mod_unref(&call->mod);
}

/* ---- Running ------------------------------------------------------------------------------------------ */

static cli_call_options call_options_of(const gpu_call *call, const gpu_case *c) {
    return (cli_call_options){
        .shape = c->shape, .dtype = c->dtype, .max = c->max, .scale = c->scale, .block_mask = call->mask};
}

/* The first variant of the kind that is asked for. */
static fj_plan *plan_for(const gpu_call *call, const gpu_case *c, fj_device *device, fj_direction direction) {
    fj_problem problem = {
        .struct_size = sizeof problem,
        .direction = direction,
        .dtype = c->dtype,
        .head_dim = (int)c->shape.head_dim,
        .value_dim = (int)c->shape.value_dim,
        .max = c->max && direction == FJ_FORWARD,
        .dlse = c->dlse && direction == FJ_BACKWARD,
        .nondeterministic = c->nondeterministic,
        .tf32 = c->tf32,
        .block_mask = c->blocks,
    };
    fj_error error = {0};
    fj_plan *plan = NULL, *chosen = NULL;
    fj_variant variants[FJ_JIT_MAX_VARIANTS];
    box_check(fj_plan_create(device, call->mod, &problem, &plan, &error), &error);
    int count = fj_jit_variants(&plan->jit_problem, &device->features, variants);
    for (int i = 0; i < count && !chosen; i++) {
        bool packs = strstr(variants[i].name, "_pack") != NULL, forward = direction == FJ_FORWARD;
        if (!strstr(variants[i].name, c->kind) || packs != (c->pack && forward)) continue;
        if (c->wide != (strstr(variants[i].name, "_wide") != NULL)) continue;
        problem.variant = variants[i].name;
        box_check(fj_plan_create(device, call->mod, &problem, &chosen, &error), &error);
    }
    ck_assert_msg(chosen != NULL, "%s: no variant is %s", c->name, c->kind);
    fj_plan_unref(&plan);
    return chosen;
}

/* The boxes of a launch, as many as it may have. */
typedef struct boxes {
    box query, key, value, out, lse, max, dout, dlse, dquery, dkey, dvalue;
    box captures[CASE_CAPTURES], dcaptures[CASE_CAPTURES], dscalar;
} boxes;

static void make_boxes(boxes *b, gpu_call *call, const gpu_case *c, const fj_device *device) {
    const struct {
        box *box;
        cli_view *view;
        bool filled;
    } all[] = {
        {&b->query, &call->inputs.query, true},     {&b->key, &call->inputs.key, true},
        {&b->value, &call->inputs.value, true},     {&b->dout, &call->inputs.dout, true},
        {&b->dlse, &call->inputs.dlse, true},       {&b->out, &call->outputs.out, false},
        {&b->lse, &call->outputs.lse, false},       {&b->max, &call->outputs.max, false},
        {&b->dquery, &call->outputs.dquery, false}, {&b->dkey, &call->outputs.dkey, false},
        {&b->dvalue, &call->outputs.dvalue, false},
    };
    *b = (boxes){0};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        box_make(all[i].box, device, all[i].view, c->layout, all[i].filled);
    for (size_t i = 0; i < call->inputs.capture_count; i++) {
        box_make(&b->captures[i], device, &call->inputs.captures[i], c->layout, true);
        box_make(&b->dcaptures[i], device, &call->outputs.dcaptures[i], c->layout, false);
    }
    if (call->outputs.scalar_count)
        box_make(&b->dscalar, device, &call->outputs.dscalars[0], BOX_PACKED, false);
}

static void finish_boxes(boxes *b) {
    box *all[] = {&b->query, &b->key,  &b->value,  &b->out,  &b->lse,    &b->max,
                  &b->dout,  &b->dlse, &b->dquery, &b->dkey, &b->dvalue, &b->dscalar};
    for (size_t i = 0; i < FJ_ARRAY_LEN(all); i++) box_finish(all[i]);
    for (int i = 0; i < CASE_CAPTURES; i++) {
        box_finish(&b->captures[i]);
        box_finish(&b->dcaptures[i]);
    }
}

static void get_boxes(boxes *b, fj_direction direction) {
    const struct {
        box *box;
        const char *name;
    } forward[] = {{&b->out, "out"}, {&b->lse, "lse"}, {&b->max, "max"}},
      backward[] = {{&b->dquery, "dq"},        {&b->dkey, "dk"},          {&b->dvalue, "dv"},
                    {&b->dcaptures[0], "d_0"}, {&b->dcaptures[1], "d_1"}, {&b->dcaptures[2], "d_2"},
                    {&b->dscalar, "d_scalar"}};
    for (size_t i = 0; i < (direction == FJ_FORWARD ? 3 : 7); i++) {
        box *at = direction == FJ_FORWARD ? forward[i].box : backward[i].box;
        if (at->copy) box_get(at, direction == FJ_FORWARD ? forward[i].name : backward[i].name);
    }
}

static fj_args args_of(const boxes *b, const gpu_call *call, const gpu_case *c, const DLTensor **lists) {
    for (size_t i = 0; i < CASE_CAPTURES; i++) {
        lists[i] = box_tensor(&b->captures[i]);
        lists[CASE_CAPTURES + i] = box_tensor(&b->dcaptures[i]);
    }
    lists[2 * CASE_CAPTURES] = box_tensor(&b->dscalar);
    return (fj_args){
        .struct_size = sizeof(fj_args),
        .query = box_tensor(&b->query),
        .key = box_tensor(&b->key),
        .value = box_tensor(&b->value),
        .out = box_tensor(&b->out),
        .lse = box_tensor(&b->lse),
        .max = box_tensor(&b->max),
        .dout = box_tensor(&b->dout),
        .dlse = box_tensor(&b->dlse),
        .dquery = box_tensor(&b->dquery),
        .dkey = box_tensor(&b->dkey),
        .dvalue = box_tensor(&b->dvalue),
        .captures = lists,
        .dcaptures = lists + CASE_CAPTURES,
        .scalars = call->inputs.scalars,
        .dscalars = lists + 2 * CASE_CAPTURES,
        .scale = c->scale,
    };
}

static void launch(gpu_call *call, const gpu_case *c, fj_device *device, boxes *b, fj_direction direction,
                   void *stream) {
    const DLTensor *lists[2 * CASE_CAPTURES + 1];
    fj_args args = args_of(b, call, c, lists);
    const fj_launch how = {.struct_size = sizeof how, .workers = 2, .stream = stream};
    fj_error error = {0};
    fj_kernel *kernel = NULL;
    fj_plan *plan = plan_for(call, c, device, direction);
    void *workspace = NULL;
    size_t size = 0;
    fj_block_mask *mask = NULL;
    if (direction == FJ_BACKWARD) args.max = NULL;
    if (call->mask) box_check(fj_block_mask_copy_to(device, call->mask, &mask, &error), &error);
    args.block_mask = call->mask; /* for its size any will do */
    box_check(fj_kernel_create(plan, &kernel, &error), &error);
    box_check(fj_kernel_workspace(kernel, &args, &how, &size, &error), &error);
    box_check(fj_device_alloc(device, size, &workspace, &error), &error);
    box_check(fj_device_fill(device, workspace, 0x5a, size, stream, &error), &error);
    if (mask) {
        ck_assert_int_eq(fj_kernel_launch(kernel, &args, &how, workspace, size, &error), FJ_ERR_TENSOR);
        ck_assert_ptr_nonnull(strstr(error.text, "the block mask is in the host's memory, not on device"));
    }
    args.block_mask = mask;
    fj_status status = fj_kernel_launch(kernel, &args, &how, workspace, size, &error);
    ck_assert_msg(status == FJ_OK, "%s: %s %s", c->name, error.text, error.detail ? error.detail : "");
    box_check(fj_kernel_check(kernel, &args, &how, workspace, size, &error), &error);
    get_boxes(b, direction);
    fj_block_mask_unref(&mask);
    fj_device_free(device, &workspace);
    fj_kernel_unref(&kernel);
    fj_plan_unref(&plan);
}

void gpu_call_run(gpu_call *call, const gpu_case *c, fj_device *device, void *stream) {
    cli_call_options options = call_options_of(call, c);
    boxes b;
    cli_outputs_finish(&call->outputs);
    ck_assert_int_eq(cli_outputs_allocate(&call->outputs, &options, &call->inputs, call->mod, !c->only,
                                          c->dtype, cli_statistics_dtype(c->dtype)),
                     CLI_EXIT_OK);
    make_boxes(&b, call, c, device);
    for (int i = 0; i < 2; i++)
        if (has(c, directions[i])) launch(call, c, device, &b, directions[i], stream);
    finish_boxes(&b);
}

/* ---- Checking ----------------------------------------------------------------------------------------- */

/* The same call on a device of the definition. */
static void run_definition(const gpu_call *call, const gpu_case *c, fj_context *context, fj_device_kind kind,
                           cli_outputs *ret_outputs) {
    cli_call_options options = call_options_of(call, c);
    fj_dtype dtype = kind == FJ_DEVICE_UNFUSED ? c->dtype : FJ_DTYPE_F64;
    fj_device *device = NULL;
    fj_error error = {0};
    double ms;
    box_check(fj_device_create(context, kind, &device, &error), &error);
    ck_assert_int_eq(cli_outputs_allocate(ret_outputs, &options, &call->inputs, call->mod, !c->only, dtype,
                                          cli_statistics_dtype(dtype)),
                     CLI_EXIT_OK);
    for (int i = 0; i < 2; i++) {
        cli_kernel kernel;
        if (!has(c, directions[i])) continue;
        ck_assert_int_eq(
            cli_kernel_open(&kernel, device, call->mod, &options, directions[i], &call->inputs, ret_outputs),
            CLI_EXIT_OK);
        ck_assert_int_eq(cli_kernel_run(&kernel, &ms), CLI_EXIT_OK);
        cli_kernel_close(&kernel);
    }
    fj_device_unref(&device);
}

void gpu_call_check(const gpu_call *call, const gpu_case *c, fj_context *context) {
    static const fj_device_kind kinds[] = {FJ_DEVICE_REFERENCE, FJ_DEVICE_ROUNDING, FJ_DEVICE_UNFUSED};
    cli_outputs passes[3] = {0};
    cli_output_list x, lists[3];
    const cli_call_options options = call_options_of(call, c);
    ck_assert_int_eq(cli_outputs_list(&call->outputs, call->mod, &x), CLI_EXIT_OK);
    for (int i = 0; i < 3; i++) {
        run_definition(call, c, context, kinds[i], &passes[i]);
        ck_assert_int_eq(cli_outputs_list(&passes[i], call->mod, &lists[i]), CLI_EXIT_OK);
    }
    for (size_t i = 0; i < x.count; i++) {
        cli_comparison found;
        cli_evidence evidence = cli_evidence_of(&x.items[i], &options, c->dtype, &passes[0].lse);
        evidence.reference = evidence.unfused_reference = lists[0].items[i].view;
        evidence.noise = lists[1].items[i].view;
        evidence.unfused = lists[2].items[i].view;
        if (c->dtype == FJ_DTYPE_F64)
            evidence.slack *= 4; /* the unfused pass is the reference: no yardstick */
        ck_assert_int_eq(cli_compare(&evidence, &found), CLI_EXIT_OK);
        ck_assert_msg(found.ok,
                      "%s: %s is off by %g (mean), %g is the bound; row %zu %g times its; at most %g",
                      c->name, x.items[i].name, found.mean, found.bound, found.row, found.worst, found.max);
    }
    cli_output_list_finish(&x);
    for (int i = 0; i < 3; i++) {
        cli_output_list_finish(&lists[i]);
        cli_outputs_finish(&passes[i]);
    }
}
