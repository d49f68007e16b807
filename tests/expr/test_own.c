/* Mods of the output and of the sink: what is chosen, and the graphs that are made of it. */
#include "mod_case.h"

#define OUT(text) "def out_mod(out, b, h, q, d):\n    return " text "\n"
#define SINK(text) "def sink_mod(b, h):\n    return " text "\n"
#define SOFT "def soft(score, b, h, q, kv):\n    return score * 2\n"

static const fj_binding tensors[] = {
    {"gate", FJ_DTYPE_F32, 2, {4, 16}},
    {"sinks", FJ_DTYPE_F32, 1, {4}},
    {"bias", FJ_DTYPE_F32, 1, {4}},
    {"ids", FJ_DTYPE_I32, 1, {8}},
};
#define BOUND .bindings = tensors, .binding_count = FJ_ARRAY_LEN(tensors)

/* ---- Choosing ------------------------------------------------------------------------------------------- */

START_TEST(names_are_theirs) {
    ASSERT_OK(.source = OUT("out * 2") SINK("h * 0.5"));
    ck_assert_uint_eq(graph->score | graph->mask, 0);
    ck_assert_uint_ne(origins.out_root, 0);
    ck_assert_uint_ne(origins.sink_root, 0);
    ck_assert_str_eq(origins.out.name, "out_mod");
    ck_assert_int_eq(origins.sink.line, 3);
    ck_assert(!origins.out.by_count && !origins.sink.by_count);
    ck_assert_ptr_null(origins.score.name);
    ASSERT_OK(.source = SOFT);
    ck_assert_uint_eq(origins.out_root | origins.sink_root, 0);
    ck_assert_ptr_null(origins.out.name);
    ck_assert_ptr_null(origins.sink.name);
    ASSERT_OK(.source = SOFT "out_mod = None\nsink_mod = None\n");
    ck_assert_uint_eq(origins.out_root | origins.sink_root, 0);
}
END_TEST

/* Five parameters or not, they are no score mods; nor is what has a second name. */
START_TEST(they_are_no_candidates) {
    static const char *const sources[] = {
        SOFT OUT("out * 3"),
        SOFT "def gated(out, b, h, q, d):\n    return out * 3\nout_mod = gated\n",
        SOFT "def make(n):\n    return lambda out, b, h, q, d: out * n\ntwice = make(2)\nout_mod = twice\n",
        SOFT "def inner(out, b, h, q, d):\n    return out * 3\n" OUT("inner(out, b, h, q, d)"),
        OUT("out * 3") SOFT SINK("1"),
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(sources); i++) {
        ASSERT_OK(.source = sources[i]);
        ck_assert_str_eq(origins.score.name, "soft");
        ck_assert_str_eq(origins.out.name, "out_mod");
        ck_assert_uint_ne(origins.out_root, 0);
    }
    ASSERT_OK(.source = OUT("out * 3"));
    ck_assert_uint_eq(graph->score, 0);
    ASSERT_OK(.source = SOFT "def gated(out, b, h, q, d):\n    return out * 3\n", .out_mod = "gated");
    ck_assert_str_eq(origins.score.name, "soft");
    ck_assert_str_eq(origins.out.name, "gated");
    ASSERT_OK(.source = SOFT "def gated(out, b, h, q, d):\n    return out * 3\nout_mod = gated\n",
              .out = "out + 1");
    ck_assert_str_eq(origins.score.name, "soft");
    ck_assert_str_eq(origins.out.name, "<out>");
}
END_TEST

/* A file that knows nothing of them chooses as ever. */
START_TEST(others_choose_as_before) {
    ASSERT_FAILS(FJ_ERR_MOD, "'soft', 'hard'",
                 .source = SOFT "def hard(score, b, h, q, kv):\n    return score * 3\n");
    fj_error_finish(&error);
    ASSERT_OK(.source = SOFT "def sink(b, h):\n    return 1\ndef out(b, h, q, kv):\n    return q >= kv\n");
    ck_assert_str_eq(origins.mask.name, "out");
    ck_assert_uint_eq(origins.out_root | origins.sink_root, 0);
}
END_TEST

START_TEST(chosen_by_option) {
    const char *source = SOFT "def scaled(n):\n    return lambda out, b, h, q, d: out * n\n"
                              "def flat(n):\n    return lambda b, h: n\n";
    ASSERT_OK(.source = source, .out_mod = "scaled(0.5)", .sink_mod = "flat(n=2)");
    ck_assert_str_eq(origins.out.name, "scaled(0.5)");
    ck_assert_int_eq(origins.sink.line, 6);
    ASSERT_FAILS(FJ_ERR_NAME, "did you mean 'flat'", .source = source, .sink_mod = "flatt(1)");
    fj_error_finish(&error);
    ASSERT_FAILS(FJ_ERR_MOD, "a sink mod takes 2 arguments, (b, h)", .source = source, .sink_mod = "flat");
    fj_error_finish(&error);
    ASSERT_FAILS(FJ_ERR_MOD, "an out mod takes 5 arguments, (out, b, h, q_idx, d_idx)", .source = source,
                 .out_mod = "scaled");
}
END_TEST

/* ---- Graphs ----------------------------------------------------------------------------------------------- */

static fj_program program;
static void build(fj_scope *scope, void *user) { fj_expr_build(scope, user, &program); }

#define BUILD(...)                                                                            \
    do {                                                                                      \
        fj_mod_desc desc_ = {__VA_ARGS__};                                                    \
        desc_.struct_size = sizeof desc_;                                                     \
        if (desc_.source) desc_.source_length = strlen(desc_.source);                         \
        fj_mod_desc *kept_ = FJ_NEW(&arena, fj_mod_desc);                                     \
        *kept_ = desc_;                                                                       \
        ck_assert_msg(fj_scope_run(&arena, &error, build, kept_) == FJ_OK, "%s", error.text); \
    } while (0)

static const char *names_of(const fj_ir *ir) {
    static char text[128];
    text[0] = '\0';
    for (size_t i = 0; i < ir->captures.len; i++) {
        const fj_capture *capture = &ir->captures.data[i];
        const size_t at = strlen(text);
        (void)snprintf(text + at, sizeof text - at, "%s%s ", capture->name, capture->gradient ? "+" : "");
    }
    for (size_t i = 0; i < ir->scalars.len; i++) {
        const size_t at = strlen(text);
        (void)snprintf(text + at, sizeof text - at, "$%s%s ", ir->scalars.data[i].name,
                       ir->scalars.data[i].gradient ? "+" : "");
    }
    return text;
}

/* Score and mask first, then the output's, then the sink's; the same lists in every graph. */
START_TEST(captures_are_shared) {
    BUILD(BOUND,
          .source = "S = 0.5\nT = 2.0\n" SCORE("score + bias[h]") MASK("ids[q % 8] >= kv")
              OUT("out * gate[h, d] + bias[h] * S") SINK("sinks[h] * T"),
          .runtime_params = (const char *const[]){"S", "T"}, .runtime_param_count = 2);
    const fj_ir *graphs[] = {program.ir,           program.gradient, program.out,
                             program.out_gradient, program.sink,     program.sink_gradient};
    for (size_t i = 0; i < FJ_ARRAY_LEN(graphs); i++) {
        ck_assert_ptr_nonnull(graphs[i]);
        ck_assert_str_eq(names_of(graphs[i]), "bias+ ids gate+ sinks+ $S+ $T+ ");
        ck_assert_ptr_null(fj_ir_validate(graphs[i]));
    }
    ck_assert_uint_eq(program.gradient->scatters.len, 1);
    ck_assert_uint_eq(program.out_gradient->scatters.len, 3);
    ck_assert_uint_eq(program.sink_gradient->scatters.len, 2);
    ck_assert_uint_eq(program.out->mask | program.sink->mask | program.sink->dscore, 0);
    ck_assert_int_eq(program.ir->cost.score, fj_ir_cost_of(program.ir).score);
    int loads;
    count(program.ir, FJ_OP_LOAD, &loads);
    ck_assert_int_eq(loads, 2); /* nothing of the others */
}
END_TEST

START_TEST(absent_ones_have_no_graph) {
    BUILD(.score = "score * 2");
    ck_assert(!program.out && !program.sink && !program.out_gradient && !program.sink_gradient);
    BUILD(.out = "out");
    ck_assert_ptr_null(program.out);
    ck_assert_str_eq(program.origins.out.name, "<out>");
    BUILD(.sink = "1");
    ck_assert_ptr_nonnull(program.sink);
    ck_assert_ptr_null(program.out);
}
END_TEST

static double run_one(const fj_ir *ir, const int32_t at[4], double score, bool *ret_fault) {
    static const float rows[64] = {[17] = 3, [2] = 5}, vector[4] = {1, 2, 3, 4};
    fj_eval_tensor captures[4] = {{0}};
    double result = 0;
    for (size_t i = 0; i < ir->captures.len; i++) {
        const fj_capture *capture = &ir->captures.data[i];
        captures[i] = (fj_eval_tensor){.data = capture->rank == 2 ? rows : vector, .dtype = capture->dtype};
        captures[i].dims[0] = 4;
        captures[i].dims[capture->rank - 1] = capture->rank == 2 ? 16 : 4;
        captures[i].strides[capture->rank - 1] = 1;
        if (capture->rank == 2) captures[i].strides[0] = 16;
    }
    const fj_eval_input input = {.captures = captures};
    const fj_eval_lanes lanes = {
        .b = at[0], .h = at[1], .q = at[2], .kv0 = at[3], .count = 1, .score = &score};
    fj_eval_run(fj_eval_create(&arena, ir), &input, &lanes, &result, NULL, NULL, ret_fault, NULL);
    return result;
}

static void evaluate(fj_scope *scope, void *user) {
    bool fault = true;
    (void)scope, (void)user;
    ck_assert_double_eq(run_one(program.out, (int32_t[]){0, 1, 7, 1}, 2, &fault), 2 * 3 + 7);
    ck_assert(!fault);
    (void)run_one(program.out, (int32_t[]){0, 1, 7, 16}, 2, &fault);
    ck_assert(fault);
    ck_assert_double_eq(run_one(program.sink, (int32_t[]){0, 3, 0, 0}, 0, &fault), 4 * 2);
    ck_assert(!fault);
    (void)run_one(program.sink, (int32_t[]){0, 4, 0, 0}, 0, &fault);
    ck_assert(fault);
}

/* Of the output the score is its element and kv its dimension; of the sink every row is live. */
START_TEST(values_are_of_their_positions) {
    BUILD(BOUND, .out = "out * gate[h, d_idx] + q_idx", .sink = "sinks[h] * 2");
    ck_assert_int_eq(fj_scope_run(&arena, &error, evaluate, NULL), FJ_OK);
    const uint8_t *leaves = fj_ir_leaves(program.sink);
    for (size_t i = 1; i < program.sink->nodes.len; i++) ck_assert_uint_eq(leaves[i] & ~3u, 0);
}
END_TEST

/* A gradient that cannot be made is one of all mods. */
START_TEST(gradients_fail_together) {
    BUILD(.source = "import torch\n" SOFT
                    "def out_mod(out, b, h, q, d):\n    total = out\n    for i in range(4000):\n"
                    "        total = total + torch.tan(out * i) * torch.atan(out + i)\n    return total\n");
    ck_assert_int_eq(program.gradient_status, FJ_ERR_MOD);
    ck_assert_ptr_nonnull(program.out);
    ck_assert(!program.gradient && !program.out_gradient);
    ck_assert_int_eq(program.gradient_error.line, 8);
    fj_error_finish(&program.gradient_error);
}
END_TEST

/* ---- Text ------------------------------------------------------------------------------------------------- */

/* Calls what kernels call, in every target's words: what is emitted is compiled by their tests. */
START_TEST(hooks_have_their_names) {
    static const char *const words[] = {"struct fj_out_head_state {",
                                        "fj_out_row_init(",
                                        "fj_out_col_init(",
                                        " fj_out(",
                                        " fj_out_fault(",
                                        " fj_out_grad(",
                                        "#define FJ_HAS_OUT 1\n",
                                        "#define FJ_HAS_OUT_FAULT 1\n",
                                        "#define FJ_HAS_OUT_GRADS 1\n",
                                        "#define FJ_OUT_ROW_EMPTY 0\n",
                                        "#define FJ_OUT_GRAD_AXES {10, -1, -1}\n",
                                        "struct fj_sink_head_state {",
                                        "fj_sink_head_init(",
                                        " fj_sink(",
                                        " fj_sink_fault(",
                                        "void fj_sink_grad(",
                                        "#define FJ_HAS_SINK 1\n",
                                        "#define FJ_HAS_SINK_FAULT 1\n",
                                        "#define FJ_HAS_SINK_GRADS 1\n",
                                        "#define FJ_SINK_HEAD_EMPTY 0\n",
                                        "#define FJ_SINK_GRAD_AXES {-1, 2, -1}\n"};
    static const fj_emit_target targets[] = {FJ_EMIT_CPU, FJ_EMIT_CUDA};
    BUILD(BOUND, .out = "out * gate[h, d] + torch.sin(q.float())", .sink = "sinks[h] * 2");
    for (size_t t = 0; t < FJ_ARRAY_LEN(targets); t++) {
        fj_buf text;
        fj_buf_init(&text, &fj_allocator_libc);
        fj_ir_emit_out(program.out, program.out_gradient, targets[t], &text);
        fj_ir_emit_sink(program.sink, program.sink_gradient, targets[t], &text);
        for (size_t i = 0; i < FJ_ARRAY_LEN(words); i++)
            ck_assert_msg(strstr(text.data, words[i]) != NULL, "no %s in %s", words[i], text.data);
        ck_assert_ptr_null(strstr(text.data, "sink_row"));
        ck_assert_ptr_null(strstr(text.data, "struct fj_head_state"));
        fj_buf_finish(&text);
        fj_buf_init(&text, &fj_allocator_libc);
        fj_ir_emit_out(NULL, NULL, targets[t], &text);
        fj_ir_emit_sink(NULL, NULL, targets[t], &text);
        ck_assert_str_eq(text.data, "#define FJ_HAS_OUT 0\n#define FJ_HAS_SINK 0\n");
        fj_buf_finish(&text);
    }
}
END_TEST

int main(void) {
    const TTest *const tests[] = {
        names_are_theirs,        they_are_no_candidates,        others_choose_as_before,
        chosen_by_option,        captures_are_shared,           absent_ones_have_no_graph,
        gradients_fail_together, values_are_of_their_positions, hooks_have_their_names,
    };
    return run_mod_tests("expr own", tests, FJ_ARRAY_LEN(tests));
}
