/* Emits the hooks of templates/cpu/hooks.md and templates/cuda/hooks.md: states by rate, and the functions that use
 * them.
 *
 * requires: a valid graph; validated rates
 * keeps: the graph
 *
 *     struct fj_head_state    values of rate uniform and head that something faster reads
 *     struct fj_row_state     values of rate row
 *     struct fj_col_state     values of rate column
 *     fj_score, fj_mask ...   what is left
 *
 * 1. A value without free loops whose rate is less than the function's is read from a state: it is a
 *    member because some function reads it, and for no other reason. Constants, scalars and dimensions
 *    are never members.
 * 2. Every function computes all its values in lanes; head and row states keep lane 0.
 * 3. The members a function needs are found from the fastest functions backwards: pair functions, then
 *    column and row, then head.
 *
 * The mods of the output and of the sink are score mods of their own kind, whose names have a prefix: fj_out_head_state,
 * fj_out_row_init. Of a sink there is the head's state alone, as it reads nothing that is faster. */
#include "expr/ir/emit.h"

enum { STAGE_HEAD, STAGE_ROW, STAGE_COL, STAGE_PAIR, STAGE_COUNT };

static int stage_of_rate(fj_rate rate) {
    static const int stages[FJ_RATE_COUNT] = {
        [FJ_RATE_UNIFORM] = STAGE_HEAD, [FJ_RATE_HEAD] = STAGE_HEAD, [FJ_RATE_ROW] = STAGE_ROW,
        [FJ_RATE_COL] = STAGE_COL,      [FJ_RATE_PAIR] = STAGE_PAIR,
    };
    return stages[rate];
}

static const char *const stage_names[] = {"head", "row", "col"};

typedef FJ_VEC(fj_ref) ref_vec;

/* A mod's part of names: fj_<prefix>head_state. */
typedef struct mod_names {
    const char *prefix;
    bool is_sink;
} mod_names;

static const mod_names score_names = {"", false}, out_names = {"out_", false}, sink_names = {"sink_", true};

typedef struct emission {
    fj_emit emit;
    const mod_names *names;
    bool *given[STAGE_COUNT]; /* per node: what a function of this stage finds in the states */
    bool *is_member;          /* per node */
    ref_vec members[STAGE_COUNT];
} emission;

/* ---- Members --------------------------------------------------------------------------------------- */

static bool is_cheap(fj_op op) {
    return fj_op_is_const(op) || op == FJ_OP_SCALAR || op == FJ_OP_DIM || op == FJ_OP_LOOP;
}

static void find_given(emission *e) {
    const fj_ir *ir = e->emit.ir;
    for (int stage = 0; stage < STAGE_COUNT; stage++) {
        e->given[stage] = FJ_NEW_ARRAY(e->emit.arena, bool, ir->nodes.len);
        for (fj_ref ref = 1; ref < ir->nodes.len; ref++) {
            const int of = stage_of_rate(e->emit.rates[ref]);
            const bool slower = of < stage && !(of == STAGE_ROW && stage == STAGE_COL);
            const bool pure = e->emit.free_loops[ref].count == 0 && fj_ir_type(ir, ref) != FJ_TYPE_VOID;
            e->given[stage][ref] = slower && pure && !is_cheap((fj_op)fj_ir_at(ir, ref)->op);
        }
    }
    e->is_member = FJ_NEW_ARRAY(e->emit.arena, bool, ir->nodes.len);
}

static void use(emission *e, int stage, fj_ref ref) {
    if (ref == 0 || !e->given[stage][ref] || e->is_member[ref]) return;
    e->is_member[ref] = true;
    FJ_PUSH(e->emit.arena, &e->members[stage_of_rate(e->emit.rates[ref])], ref);
}

static void use_block(emission *e, int stage, const fj_sched_block *block) {
    for (size_t i = 0; i < block->items.len; i++) {
        const fj_sched_item *item = &block->items.data[i];
        if (item->loop != 0) use(e, stage, fj_ir_args(e->emit.ir, item->loop)[0]);
        if (item->body != NULL) use_block(e, stage, item->body);
        if (item->ref == 0) continue;
        for (int k = 0; k < fj_ir_at(e->emit.ir, item->ref)->argc; k++) {
            use(e, stage, fj_ir_args(e->emit.ir, item->ref)[k]);
        }
    }
}

static const fj_sched_block *schedule(const emission *e, int stage, const fj_ref *roots, size_t count) {
    const fj_sched_want want = {roots, count, e->given[stage]};
    const fj_sched_block *block = fj_schedule(e->emit.ir, e->emit.free_loops, &want);
    if (block == NULL) fj_fail(e->emit.arena->scope, FJ_ERR_MOD, "too many reductions are nested");
    return block;
}

static void find_members(emission *e, int stage, const fj_ref *roots, size_t count) {
    use_block(e, stage, schedule(e, stage, roots, count));
    for (size_t i = 0; i < count; i++) use(e, stage, roots[i]);
}

/* ---- States ---------------------------------------------------------------------------------------- */

static const char *member_type(int stage, fj_type type) {
    static const char *const lanes[FJ_TYPE_COUNT] = {"", "fj_b", "fj_i", "fj_l", "fj_f"};
    static const char *const single[FJ_TYPE_COUNT] = {"", "int", "int32_t", "int64_t", "fj_real"};
    return stage == STAGE_COL ? lanes[type] : single[type];
}

static void put_struct(emission *e, int stage) {
    fj_buf *out = e->emit.out;
    fj_buf_printf(out, "struct fj_%s%s_state {\n", e->names->prefix, stage_names[stage]);
    if (e->members[stage].len == 0) fj_buf_put(out, "    char none;\n");
    for (size_t i = 0; i < e->members[stage].len; i++) {
        const fj_ref ref = e->members[stage].data[i];
        fj_buf_printf(out, "    %s v%u;\n", member_type(stage, fj_ir_type(e->emit.ir, ref)), ref);
    }
    fj_buf_put(out, "};\n\n");
}

/* Members that this block reads become values of their own. */
typedef struct reader {
    emission *e;
    int stage;
    bool *seen;
    ref_vec found;
} reader;

static void read_one(reader *r, fj_ref ref) {
    if (ref == 0 || !r->e->given[r->stage][ref] || r->seen[ref]) return;
    r->seen[ref] = true;
    FJ_PUSH(r->e->emit.arena, &r->found, ref);
}

static void read_block(reader *r, const fj_sched_block *block) {
    const fj_ir *ir = r->e->emit.ir;
    for (size_t i = 0; i < block->items.len; i++) {
        const fj_sched_item *item = &block->items.data[i];
        if (item->loop != 0) read_one(r, fj_ir_args(ir, item->loop)[0]);
        if (item->body != NULL) read_block(r, item->body);
        if (item->ref == 0) continue;
        for (int k = 0; k < fj_ir_at(ir, item->ref)->argc; k++) read_one(r, fj_ir_args(ir, item->ref)[k]);
    }
}

static void put_reads(emission *e, int stage, const fj_sched_block *block, const fj_ref *roots,
                      size_t count) {
    reader r = {.e = e, .stage = stage};
    r.seen = FJ_NEW_ARRAY(e->emit.arena, bool, e->emit.ir->nodes.len);
    read_block(&r, block);
    for (size_t i = 0; i < count; i++) read_one(&r, roots[i]);
    for (size_t i = 0; i < r.found.len; i++) {
        const fj_ref ref = r.found.data[i];
        const int from = stage_of_rate(e->emit.rates[ref]);
        const char letter = fj_emit_letter(&e->emit, ref);
        const bool splat = from != STAGE_COL && e->emit.target != FJ_EMIT_CUDA;
        fj_buf_printf(e->emit.out, "    const fj_%c v%u = ", letter, ref);
        if (splat) fj_buf_printf(e->emit.out, "fj_splat_%c(", letter);
        fj_buf_printf(e->emit.out, "%s->v%u%s;\n", stage_names[from], ref, splat ? ")" : "");
    }
}

/* ---- Functions --------------------------------------------------------------------------------------- */

static void put_body(emission *e, int stage, const fj_ref *roots, size_t count) {
    const fj_sched_block *block = schedule(e, stage, roots, count);
    put_reads(e, stage, block, roots, count);
    fj_emit_block(&e->emit, block, 1);
}

static void put_init(emission *e, int stage, const char *position) {
    const ref_vec *members = &e->members[stage];
    const char *prefix = e->names->prefix;
    fj_buf *out = e->emit.out;
    fj_buf_printf(out, "%s void fj_%s%s_init(%s *a, ", fj_emit_linkage(&e->emit), prefix, stage_names[stage],
                  fj_emit_args_type(&e->emit));
    if (stage != STAGE_HEAD) fj_buf_printf(out, "const struct fj_%shead_state *head, ", prefix);
    fj_buf_printf(out, "%s, struct fj_%s%s_state *%s) {\n", position, prefix, stage_names[stage],
                  stage_names[stage]);
    put_body(e, stage, members->data, members->len);
    const bool whole = stage == STAGE_COL || e->emit.target == FJ_EMIT_CUDA;
    for (size_t i = 0; i < members->len; i++) {
        const fj_ref ref = members->data[i];
        fj_buf_printf(out, "    %s->v%u = ", stage_names[stage], ref);
        if (!whole) fj_buf_printf(out, "fj_first_%c(", fj_emit_letter(&e->emit, ref));
        fj_emit_value(&e->emit, ref);
        fj_buf_put(out, whole ? ";\n" : ");\n");
    }
    if (members->len == 0) fj_buf_printf(out, "    %s->none = 0;\n", stage_names[stage]);
    fj_buf_printf(out, "    (void)a%s;\n}\n\n",
                  stage == STAGE_HEAD  ? ", (void)b, (void)h"
                  : stage == STAGE_ROW ? ", (void)head, (void)q"
                                       : ", (void)head, (void)kv");
}

typedef struct function {
    const char *name, *type, *parameters, *unused;
    fj_ref root;
    const char *otherwise; /* what it gives without a root; NULL: it gives nothing */
} function;

static void put_state_parameters(const emission *e) {
    const char *prefix = e->names->prefix;
    fj_buf *out = e->emit.out;
    fj_buf_printf(out, "(%s *a, const struct fj_%shead_state *head", fj_emit_args_type(&e->emit), prefix);
    if (e->names->is_sink) return;
    fj_buf_printf(
        out, ",\n                         const struct fj_%srow_state *row, const struct fj_%scol_state *col",
        prefix, prefix);
}

/* Compilers do not inline a hook that is called from several places unless it is tiny, and then find its rows of captured tensors
 * anew for each vector. Longer ones are worth a call. */
enum { MOST_INLINED = 24 };
static const char *function_linkage(const emission *e, const function *f, size_t effect_count) {
    const bool is_short = e->emit.target == FJ_EMIT_CPU && f->root != 0 && effect_count == 0 &&
                          e->emit.ir->nodes.len <= MOST_INLINED;
    return is_short ? "FJ_INLINE" : fj_emit_linkage(&e->emit);
}

static void put_function(emission *e, const function *f, const fj_ref *effects, size_t effect_count) {
    fj_buf *out = e->emit.out;
    ref_vec roots = {0};
    if (f->root != 0) FJ_PUSH(e->emit.arena, &roots, f->root);
    for (size_t i = 0; i < effect_count; i++) FJ_PUSH(e->emit.arena, &roots, effects[i]);
    fj_buf_printf(out, "%s %s fj_%s", function_linkage(e, f, effect_count), f->type, f->name);
    put_state_parameters(e);
    fj_buf_printf(out, "%s) {\n", f->parameters);
    if (roots.len > 0) put_body(e, STAGE_PAIR, roots.data, roots.len);
    fj_buf_printf(out, "    (void)a, (void)head%s%s;\n", e->names->is_sink ? "" : ", (void)row, (void)col",
                  f->unused);
    if (f->otherwise != NULL) {
        fj_buf_put(out, "    return ");
        if (f->root != 0)
            fj_emit_value(&e->emit, f->root);
        else
            fj_buf_put(out, f->otherwise);
        fj_buf_put(out, ";\n");
    }
    fj_buf_put(out, "}\n\n");
}

/* ---- Facts -------------------------------------------------------------------------------------------- */

/* Which states have no members. */
static fj_emit_empty find_empty(const emission *e) {
    return (fj_emit_empty){e->members[STAGE_HEAD].len == 0, e->members[STAGE_ROW].len == 0,
                           e->members[STAGE_COL].len == 0};
}

static void put_grads(emission *e) {
    fj_buf_printf(
        e->emit.out,
        "struct fj_capture_grads {\n    fj_acc *capture[FJ_CAPTURES + 1];\n    fj_acc *scalar;\n};\n\n");
}

/* ---- The whole ------------------------------------------------------------------------------------------ */

static void put_gradient(emission *e) {
    const fj_ir *ir = e->emit.ir;
    const function score_grad = {
        "score_grad",
        "fj_f",
        ",\n                         fj_f score, fj_f adjoint, fj_b live, struct fj_capture_grads *grads",
        ", (void)score, (void)adjoint, (void)live, (void)grads",
        ir->dscore,
        "adjoint",
    };
    put_grads(e);
    put_function(e, &score_grad, ir->scatters.data, ir->scatters.len);
}

static void put_wrapper(fj_buf *out, const fj_ir *ir, bool gradient) {
    fj_buf_put(out,
               "static void fj_scalar_mod(const struct fj_cpu_args *a, struct fj_scalar_position *at,\n"
               "                          struct fj_scalar_result *to) {\n"
               "    struct fj_head_state head;\n    struct fj_row_state row;\n    struct fj_col_state col;\n"
               "    fj_head_init(a, at->b, at->h, &head);\n    fj_row_init(a, &head, at->q, &row);\n"
               "    fj_col_init(a, &head, at->kv, &col);\n"
               "    to->score = fj_score(a, &head, &row, &col, at->score);\n"
               "    to->mask = fj_mask(a, &head, &row, &col);\n"
               "    to->fault = fj_fault(a, &head, &row, &col, at->score, at->live);\n");
    if (gradient) {
        fj_buf_put(
            out,
            "    struct fj_capture_grads grads = {.scalar = to->dscalars};\n"
            "    for (int i = 0; i < FJ_CAPTURES; i++) grads.capture[i] = to->dcaptures[i];\n"
            "    to->dscore = fj_score_grad(a, &head, &row, &col, at->score, at->adjoint, at->live, &grads);\n");
    }
    fj_buf_put(out,
               ir->mask != 0
                   ? "    to->block_class = fj_block_class(a, at->b, at->h, at->q, at->q, at->kv, at->kv);\n"
                   : "    to->block_class = 2;\n");
    fj_buf_put(out, "}\n\n");
}

static void find_all_members(emission *e, bool gradient) {
    const fj_ir *ir = e->emit.ir;
    const fj_ref single[] = {ir->score, ir->mask, ir->fault, gradient ? ir->dscore : 0};
    for (size_t i = 0; i < FJ_ARRAY_LEN(single); i++) {
        if (single[i] != 0) find_members(e, STAGE_PAIR, &single[i], 1);
    }
    if (gradient && ir->scatters.len > 0) find_members(e, STAGE_PAIR, ir->scatters.data, ir->scatters.len);
    find_members(e, STAGE_COL, e->members[STAGE_COL].data, e->members[STAGE_COL].len);
    find_members(e, STAGE_ROW, e->members[STAGE_ROW].data, e->members[STAGE_ROW].len);
}

static const char *no_bits(const emission *e) {
    return e->emit.target == FJ_EMIT_CUDA ? "(fj_b)(0)" : "fj_splat_b(0)";
}

static void put_states(emission *e) {
    const int end = e->names->is_sink ? STAGE_ROW : STAGE_PAIR;
    for (int stage = STAGE_HEAD; stage < end; stage++) put_struct(e, stage);
    put_init(e, STAGE_HEAD, "int32_t b, int32_t h");
    if (end < STAGE_PAIR) return;
    put_init(e, STAGE_ROW, "int32_t q");
    put_init(e, STAGE_COL, "fj_i kv");
}

static void put_score_mod(emission *e, bool gradient) {
    const fj_ir *ir = e->emit.ir;
    const bool cuda = e->emit.target == FJ_EMIT_CUDA;
    const function score = {"score", "fj_f", ", fj_f score", ", (void)score", ir->score, "score"};
    const function mask = {"mask", "fj_b", "", "", ir->mask, cuda ? "(fj_b)(1)" : "fj_splat_b(1)"};
    const function fault = {
        "fault", "fj_b", ", fj_f score, fj_b live", ", (void)score, (void)live", ir->fault, no_bits(e),
    };
    fj_emit_facts(&e->emit, find_empty(e), gradient);
    put_states(e);
    put_function(e, &score, NULL, 0);
    put_function(e, &mask, NULL, 0);
    put_function(e, &fault, NULL, 0);
    if (gradient) put_gradient(e);
    if (ir->mask != 0) fj_emit_block_class(&e->emit);
    if (ir->mask != 0 && e->emit.target == FJ_EMIT_MASK)
        fj_emit_spans(&e->emit, e->members[STAGE_ROW].data, e->members[STAGE_ROW].len,
                      e->members[STAGE_COL].data, e->members[STAGE_COL].len);
    if (ir->fault != 0 && (cuda || e->emit.target == FJ_EMIT_MASK)) fj_emit_may_fault(&e->emit);
    if (e->emit.target == FJ_EMIT_SCALAR) put_wrapper(e->emit.out, ir, gradient);
}

static void put_out_mod(emission *e, bool gradient) {
    const fj_ir *ir = e->emit.ir;
    const function out = {"out", "fj_f", ", fj_f score", ", (void)score", ir->score, "score"};
    const function fault = {"out_fault", "fj_b",    ", fj_f score, fj_b live", ", (void)score, (void)live",
                            ir->fault,   no_bits(e)};
    const function grad = {
        "out_grad",
        "fj_f",
        ",\n                         fj_f score, fj_f adjoint, fj_b live, struct fj_capture_grads *grads",
        ", (void)score, (void)adjoint, (void)live, (void)grads",
        ir->dscore,
        "adjoint",
    };
    fj_emit_out_facts(&e->emit, find_empty(e), gradient);
    put_states(e);
    put_function(e, &out, NULL, 0);
    put_function(e, &fault, NULL, 0);
    if (gradient) put_function(e, &grad, ir->scatters.data, ir->scatters.len);
}

static void put_sink_mod(emission *e, bool gradient) {
    const fj_ir *ir = e->emit.ir;
    const function sink = {"sink", "fj_f", "", "", ir->score, ""};
    const function fault = {"sink_fault", "fj_b",    "",
                            "",           ir->fault, no_bits(e)}; /* it does not ask for live */
    const function grad = {
        "sink_grad",
        "void",
        ",\n                         fj_f adjoint, fj_b live, struct fj_capture_grads *grads",
        ", (void)adjoint, (void)live, (void)grads",
        0,
        NULL,
    };
    fj_emit_sink_facts(&e->emit, find_empty(e), gradient);
    put_states(e);
    put_function(e, &sink, NULL, 0);
    put_function(e, &fault, NULL, 0);
    if (gradient) put_function(e, &grad, ir->scatters.data, ir->scatters.len);
}

typedef struct emit_call {
    const fj_ir *ir;
    bool gradient;
    fj_emit_target target;
    const mod_names *names;
    void (*put)(emission *e, bool gradient);
    fj_buf *out;
} emit_call;

static void emit_body(fj_scope *scope, void *argument) {
    const emit_call *call = argument;
    const fj_ir view = fj_ir_view(call->ir, scope->arena);
    emission e = {.emit = {.ir = &view, .arena = scope->arena, .target = call->target, .out = call->out},
                  .names = call->names};
    e.emit.rates = fj_ir_rates(&view);
    e.emit.leaves = fj_ir_leaves(&view);
    e.emit.free_loops = fj_ir_free_loops(&view);
    find_given(&e);
    find_all_members(&e, call->gradient);
    call->put(&e, call->gradient);
}

static void emit(emit_call *call, const fj_ir *ir, const fj_ir *gradient) {
    call->ir = gradient != NULL ? gradient : ir;
    call->gradient = gradient != NULL;
    fj_arena arena;
    fj_arena_init(&arena, call->out->allocator);
    if (fj_scope_run(&arena, NULL, emit_body, call) != FJ_OK) call->out->failed = true;
    fj_arena_finish(&arena);
}

void fj_ir_emit(const fj_ir *ir, const fj_ir *gradient, fj_emit_target target, fj_buf *out) {
    emit_call call = {.target = target, .names = &score_names, .put = put_score_mod, .out = out};
    emit(&call, ir, gradient);
}

void fj_ir_emit_out(const fj_ir *ir, const fj_ir *gradient, fj_emit_target target, fj_buf *out) {
    emit_call call = {.target = target, .names = &out_names, .put = put_out_mod, .out = out};
    if (ir != NULL)
        emit(&call, ir, gradient);
    else
        fj_buf_put(out, "#define FJ_HAS_OUT 0\n");
}

void fj_ir_emit_sink(const fj_ir *ir, const fj_ir *gradient, fj_emit_target target, fj_buf *out) {
    emit_call call = {.target = target, .names = &sink_names, .put = put_sink_mod, .out = out};
    if (ir != NULL)
        emit(&call, ir, gradient);
    else
        fj_buf_put(out, "#define FJ_HAS_SINK 0\n");
}
