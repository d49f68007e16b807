/* Emitted text, compiled by the host's compiler, gives what the evaluator gives, bit for bit: as C with
 * lanes of one, the CUDA column as C++, and over the lanes of templates/cpu/prim.h in double (there only of
 * operations that are rounded correctly). Many graphs go into one compilation. */
#include <check.h>
#include <dlfcn.h>
#include <errno.h>
#include <ftw.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/embed.h"
#include "generate.h"
#include "templates/cpu/abi.h"

enum { GRAPHS = 60, POSITIONS = 8 };

/* As emit_scalar.c writes them. */
struct fj_scalar_position {
    int32_t b, h, q, kv;
    double score, adjoint;
    bool live;
};
struct fj_scalar_result {
    double score, dscore;
    bool mask, fault;
    int block_class;
    double **dcaptures, *dscalars;
};
typedef void (*scalar_mod)(const struct fj_cpu_args *, struct fj_scalar_position *,
                           struct fj_scalar_result *);

typedef struct batch {
    fj_world *worlds[GRAPHS];
    const fj_ir *graphs[GRAPHS];
    fj_buf text;
    fj_emit_target target;
} batch;

static const char *const renamed[] = {
    "fj_head_state",    "fj_row_state",   "fj_col_state", "fj_head_init",  "fj_row_init",
    "fj_col_init",      "fj_score",       "fj_mask",      "fj_fault",      "fj_score_grad",
    "fj_capture_grads", "fj_block_class", "fj_may_fault", "fj_scalar_mod",
};
/* The hooks of a mod of the output, and what they are the same as. */
static const char *const own_hooks[][2] = {
    {"fj_out_head_state", "fj_head_state"},
    {"fj_out_row_state", "fj_row_state"},
    {"fj_out_col_state", "fj_col_state"},
    {"fj_out_head_init", "fj_head_init"},
    {"fj_out_row_init", "fj_row_init"},
    {"fj_out_col_init", "fj_col_init"},
    {"fj_out", "fj_score"},
    {"fj_out_fault", "fj_fault"},
    {"fj_out_grad", "fj_score_grad"},
};
static const char *const undefined[] = {
    "FJ_HAS_SCORE",
    "FJ_HAS_MASK",
    "FJ_HAS_FAULT",
    "FJ_HAS_CAPTURE_GRADS",
    "FJ_HEAD_EMPTY",
    "FJ_ROW_EMPTY",
    "FJ_COL_EMPTY",
    "FJ_CAPTURES",
    "FJ_SCALARS",
    "FJ_CAPTURE_GRAD_0_AXES",
    "FJ_CAPTURE_GRAD_1_AXES",
    "FJ_CAPTURE_GRAD_2_AXES",
    "FJ_CAPTURE_GRAD_3_AXES",
};

static const char cuda_wrapper[] =
    "static void fj_scalar_mod(const struct fj_cpu_args *a, struct fj_scalar_position *at, struct fj_scalar_result *to) {\n"
    "    struct fj_head_state head;\n    struct fj_row_state row;\n    struct fj_col_state col;\n"
    "    fj_head_init(a, at->b, at->h, &head);\n    fj_row_init(a, &head, at->q, &row);\n"
    "    fj_col_init(a, &head, at->kv, &col);\n"
    "    to->score = fj_score(a, &head, &row, &col, at->score);\n    to->mask = fj_mask(a, &head, &row, &col);\n"
    "    to->fault = fj_fault(a, &head, &row, &col, at->score, at->live);\n"
    "    struct fj_capture_grads grads;\n    grads.scalar = to->dscalars;\n"
    "    for (int i = 0; i < FJ_CAPTURES; i++) grads.capture[i] = to->dcaptures[i];\n"
    "    to->dscore = fj_score_grad(a, &head, &row, &col, at->score, at->adjoint, at->live, &grads);\n"
    "    to->block_class = 1;\n"
    "#if FJ_HAS_FAULT\n" /* no fault where analysis proves that there is none */
    "    to->fault &= fj_may_fault(a, at->b, at->h, at->q, at->q, at->kv, at->kv);\n"
    "#endif\n}\n";

static const char cuda_header[] =
    "#define FJ_DEVICE static inline\n#define FJ_CALLED static inline\ntypedef struct fj_cpu_args fj_mod_args;\n";

/* Runs all lanes of prim.h, and gives those of one position. */
static const char lanes_wrapper[] =
    "static void fj_scalar_mod(const struct fj_cpu_args *a, struct fj_scalar_position *at, struct fj_scalar_result *to) {\n"
    "    struct fj_head_state head;\n    struct fj_row_state row;\n    struct fj_col_state col;\n"
    "    const int lane = at->kv % FJ_LANES;\n"
    "    const fj_b one = fj_unbits_b(at->live ? 1u << lane : 0);\n"
    "    double score[FJ_LANES], adjoint[FJ_LANES];\n"
    "    for (int i = 0; i < FJ_LANES; i++) score[i] = at->score, adjoint[i] = at->adjoint;\n"
    "    fj_head_init(a, at->b, at->h, &head);\n    fj_row_init(a, &head, at->q, &row);\n"
    "    fj_col_init(a, &head, fj_add_i(fj_splat_i(at->kv - lane), fj_iota_i()), &col);\n"
    "    fj_put_f(score, fj_score(a, &head, &row, &col, fj_get_f(score)));\n    to->score = score[lane];\n"
    "    to->mask = fj_bits_b(fj_mask(a, &head, &row, &col)) >> lane & 1;\n"
    "    to->fault = fj_bits_b(fj_fault(a, &head, &row, &col, fj_splat_f(at->score), one)) >> lane & 1;\n"
    "    struct fj_capture_grads grads = {.scalar = to->dscalars};\n"
    "    for (int i = 0; i < FJ_CAPTURES; i++) grads.capture[i] = to->dcaptures[i];\n"
    "    fj_put_f(adjoint, fj_score_grad(a, &head, &row, &col, fj_splat_f(at->score), fj_get_f(adjoint), one, &grads));\n"
    "    to->dscore = adjoint[lane];\n    to->block_class = 1;\n"
    "#if FJ_HAS_MASK\n" /* of a block that the position is in */
    "    const int q = at->q - at->q % 3, kv = at->kv - lane;\n"
    "    to->block_class = fj_block_class(a, at->b, at->h, q, q + 2, kv, kv + FJ_LANES - 1);\n"
    "#endif\n}\n";

/* Of a sink there is no more than a head. */
static const char *const sink_hooks[] = {"fj_sink_head_state", "fj_sink_head_init", "fj_sink",
                                         "fj_sink_fault", "fj_sink_grad"};

static const char sink_wrapper[] =
    "static void fj_scalar_mod(const struct fj_cpu_args *a, struct fj_scalar_position *at, struct fj_scalar_result *to) {\n"
    "    struct fj_sink_head_state head;\n    fj_sink_head_init(a, at->b, at->h, &head);\n"
    "    struct fj_capture_grads grads;\n    grads.scalar = to->dscalars;\n"
    "    for (int i = 0; i < FJ_CAPTURES; i++) grads.capture[i] = to->dcaptures[i];\n"
    "#ifdef FJ_LANES\n" /* all lanes are alike, and one is live */
    "    const int lane = at->kv % FJ_LANES;\n    const fj_b sees = fj_sink_fault(a, &head);\n"
    "    to->score = fj_first_f(fj_sink(a, &head));\n    to->fault = fj_first_b(sees);\n"
    "    if (fj_any(sees) != fj_all(sees)) to->score = 12345;\n"
    "    fj_sink_grad(a, &head, fj_splat_f(at->adjoint), fj_unbits_b(at->live ? 1u << lane : 0), &grads);\n"
    "#else\n"
    "    to->score = fj_sink(a, &head);\n    to->fault = fj_sink_fault(a, &head);\n"
    "    fj_sink_grad(a, &head, at->adjoint, at->live, &grads);\n"
    "#endif\n"
    "    to->mask = true;\n    to->dscore = 0;\n    to->block_class = 1;\n}\n";

static void rename_hook(batch *b, const char *name, int number) {
    fj_buf_printf(&b->text, "#undef %s\n#define %s %s_%d\n", name, name, name, number);
}

/* The graph once more as a mod of the output, whose hooks are then those that the wrapper calls. */
static void put_own(batch *b, int number) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(own_hooks); i++) rename_hook(b, own_hooks[i][0], number);
    fj_ir_emit_out(b->graphs[number], b->graphs[number], b->target, &b->text);
    for (size_t i = 0; i < FJ_ARRAY_LEN(own_hooks); i++) {
        const char *name = own_hooks[i][1];
        fj_buf_printf(&b->text, "#undef %s\n#define %s %s\n", name, name, own_hooks[i][0]);
    }
    fj_buf_printf(&b->text, "#undef fj_mask\n#define fj_mask(a, head, row, col) %s\n",
                  b->target == FJ_EMIT_CUDA ? "true" : "fj_splat_b(1)");
}

static void put_sink(batch *b, int number) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(sink_hooks); i++) rename_hook(b, sink_hooks[i], number);
    fj_ir_emit_sink(b->graphs[number], b->graphs[number], b->target, &b->text);
    fj_buf_put(&b->text, sink_wrapper);
}

/* Some graphs are mods of the output, and some of a sink: these have no mask. */
static bool is_own(const batch *b, int number) { return b->target != FJ_EMIT_SCALAR && number % 4 == 3; }
static bool is_sink(const batch *b, int number) { return b->target != FJ_EMIT_SCALAR && number % 4 == 1; }

/* A score mod that reads b and h alone. */
static void make_sink(fj_ir *ir) {
    static const fj_op leaves[] = {FJ_OP_Q, FJ_OP_KV};
    for (size_t i = 0; i < FJ_ARRAY_LEN(leaves); i++)
        ir->score = fj_ir_substitute(ir, ir->score, fj_ir_leaf(ir, leaves[i]), fj_ir_i32(ir, 1 + (int)i));
    ir->score = fj_ir_substitute(ir, ir->score, fj_ir_leaf(ir, FJ_OP_SCORE), fj_ir_float(ir, 0.75));
    ir->mask = 0;
}

static const fj_ir *make_graph(const batch *b, int number) {
    fj_ir *ir = b->worlds[number]->ir;
    if (is_own(b, number)) ir->mask = 0;
    if (is_sink(b, number)) make_sink(ir);
    fj_ir *guarded = fj_ir_guard(ir);
    if (is_sink(b, number) && guarded->fault)
        guarded->fault = fj_ir_substitute(guarded, guarded->fault, fj_ir_leaf(guarded, FJ_OP_LIVE),
                                          fj_ir_bool(guarded, true));
    return fj_ir_gradient(fj_ir_optimise(guarded));
}

static void put_graph(batch *b, int number) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(renamed); i++) rename_hook(b, renamed[i], number);
    for (size_t i = 0; i < FJ_ARRAY_LEN(undefined); i++) fj_buf_printf(&b->text, "#undef %s\n", undefined[i]);
    fj_ir_emit(b->graphs[number], b->graphs[number], b->target, &b->text);
    if (is_own(b, number)) put_own(b, number);
    if (is_sink(b, number)) {
        put_sink(b, number);
        return;
    }
    if (b->target == FJ_EMIT_CUDA) fj_buf_put(&b->text, cuda_wrapper);
    if (b->target == FJ_EMIT_CPU) fj_buf_put(&b->text, lanes_wrapper);
}

static void write_text(const char *path, const char *text, size_t length) {
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(text, 1, length, file), length);
    ck_assert_int_eq(fclose(file), 0);
}

/* The kernel templates' files, in folders beside the text that includes them. */
static void write_templates(const char *folder) {
    static const char *const folders[] = {"cpu", "cuda", "expr", "expr/ir", "host"};
    char path[256];
    for (size_t i = 0; i < FJ_ARRAY_LEN(folders); i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, folders[i]);
        ck_assert(mkdir(path, 0700) == 0 || errno == EEXIST);
    }
    for (size_t i = 0; i < fj_template_table_len; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", folder, fj_template_table[i].name);
        write_text(path, fj_template_table[i].text, fj_template_table[i].len);
    }
}

static int remove_entry(const char *path, const struct stat *status, int kind, struct FTW *place) {
    (void)status, (void)kind, (void)place;
    return remove(path);
}

static void *compile(const batch *b, const char *folder) {
    char source[256], object[256], command[1024];
    const bool cuda = b->target == FJ_EMIT_CUDA;
    (void)snprintf(source, sizeof source, "%s/mods.%s", folder, cuda ? "cc" : "c");
    (void)snprintf(object, sizeof object, "%s/mods.so", folder);
    (void)snprintf(command, sizeof command,
                   "%s -w -O1 -fno-builtin -ffp-contract=off -fPIC -shared -I %s -o %s %s -lm",
                   cuda ? "c++ -std=c++17" : "cc -std=gnu17", folder, object, source);
    write_text(source, b->text.data, b->text.len);
    write_templates(folder);
    FJ_HOLD(system(command) == 0, "%s",
            command); /* NOLINT(cert-env33-c): the compiler is what is tested with */
    void *library = dlopen(object, RTLD_NOW | RTLD_LOCAL);
    FJ_HOLD(library != NULL, "%s", dlerror());
    return library;
}

static void fill_args(const fj_world *world, struct fj_cpu_args *args, struct fj_cpu_tensor *tensors,
                      union fj_cpu_scalar *scalars) {
    for (size_t i = 0; i < world->ir->captures.len; i++) {
        tensors[i].data = (char *)(uintptr_t)world->captures[i].data;
        memcpy(tensors[i].shape, world->captures[i].dims, sizeof tensors[i].shape);
        memcpy(tensors[i].stride, world->captures[i].strides, sizeof tensors[i].stride);
    }
    for (size_t i = 0; i < world->ir->scalars.len; i++) scalars[i].i = world->scalars[i].i;
    args->captures = tensors;
    args->scalars = scalars;
}

static void check_graph(const batch *b, int number, scalar_mod mod, fj_random *random) {
    const fj_world *world = b->worlds[number];
    fj_arena *arena = world->ir->arena;
    fj_eval *eval = fj_eval_create(arena, b->graphs[number]);
    struct fj_cpu_args args = {0};
    struct fj_cpu_tensor tensors[8] = {0};
    union fj_cpu_scalar scalars[8];
    fill_args(world, &args, tensors, scalars);
    for (int i = 0; i < POSITIONS; i++) {
        int32_t p[4];
        for (int k = 0; k < 4; k++) p[k] = (int32_t)fj_random_below(random, 6);
        struct fj_scalar_position at = {p[0],
                                        p[1],
                                        p[2],
                                        p[3],
                                        fj_random_real(random, -3, 3),
                                        fj_random_real(random, -1, 1),
                                        fj_random_below(random, 4) != 0};
        fj_outcome expected = fj_outcome_new(arena, world), got = fj_outcome_new(arena, world);
        struct fj_scalar_result result = {.dcaptures = got.dcaptures, .dscalars = got.dscalars};
        fj_world_run(world, eval, p, at.score, at.adjoint, at.live, &expected);
        mod(&args, &at, &result);
        got.score = result.score;
        got.dscore = result.dscore;
        got.mask = result.mask;
        got.fault = result.fault;
        FJ_HOLD(fj_outcome_same(world, &expected, &got),
                "graph %d: score %a, compiled %a; dscore %a, compiled %a", number, expected.score, got.score,
                expected.dscore, got.dscore);
        FJ_TRUE(result.block_class != 0 || !got.mask);
        FJ_TRUE(result.block_class != 2 || got.mask);
    }
}

/* The types that the wrapper of prim.h's lanes exchanges: the same as in the scalar header. */
static const char lanes_header[] =
    "#define FJ_REAL_F64 1\n#include \"cpu/prim.h\"\n#include \"cpu/block_load.h\"\n#include <stdbool.h>\n"
    "struct fj_scalar_position { int32_t b, h, q, kv; double score, adjoint; bool live; };\n"
    "struct fj_scalar_result { double score, dscore; bool mask, fault; int block_class; double **dcaptures, *dscalars; };\n";

static fj_generate pick_kind(fj_random *random, fj_emit_target target) {
    if (target == FJ_EMIT_CPU) return FJ_GENERATE_EXACT;
    return fj_random_below(random, 3) ? FJ_GENERATE_ANY : FJ_GENERATE_MASK;
}

static void check_batch(fj_arena *arena, fj_random *random, fj_emit_target target) {
    char folder[] = "/tmp/fj_emit_XXXXXX";
    batch b = {.target = target};
    const bool cuda = target == FJ_EMIT_CUDA;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    fj_buf_init(&b.text, &fj_allocator_libc);
    if (target == FJ_EMIT_CPU)
        fj_buf_put(&b.text, lanes_header);
    else
        fj_ir_emit_scalar_header(&b.text);
    if (cuda) fj_buf_put(&b.text, cuda_header);
    for (int i = 0; i < GRAPHS; i++) {
        const bool changed = is_own(&b, i) || is_sink(&b, i);
        b.worlds[i] =
            fj_generate_world(arena, random, changed ? FJ_GENERATE_EXACT : pick_kind(random, target));
        b.graphs[i] = make_graph(&b, i);
        put_graph(&b, i);
    }
    fj_buf_put(&b.text, cuda ? "extern \"C\" " : "");
    fj_buf_printf(&b.text, "__attribute__((visibility(\"default\"))) void *fj_test_mods[%d] = {", GRAPHS);
    for (int i = 0; i < GRAPHS; i++)
        fj_buf_printf(&b.text, "%s(void *)fj_scalar_mod_%d", i > 0 ? ", " : "", i);
    fj_buf_put(&b.text, "};\n");
    FJ_TRUE(!b.text.failed);
    void *library = compile(&b, folder);
    void *const *mods = dlsym(library, "fj_test_mods");
    ck_assert_ptr_nonnull(mods);
    for (int i = 0; i < GRAPHS; i++) {
        scalar_mod mod;
        memcpy(&mod, &mods[i], sizeof mod);
        check_graph(&b, i, mod, random);
    }
    dlclose(library);
    fj_buf_finish(&b.text);
    ck_assert_int_eq(nftw(folder, remove_entry, 8, FTW_DEPTH | FTW_PHYS), 0);
}

static void c_property(fj_arena *arena, fj_random *random, int number) {
    (void)number;
    check_batch(arena, random, FJ_EMIT_SCALAR);
}

static void cuda_property(fj_arena *arena, fj_random *random, int number) {
    (void)number;
    check_batch(arena, random, FJ_EMIT_CUDA);
}

static void lanes_property(fj_arena *arena, fj_random *random, int number) {
    (void)number;
    check_batch(arena, random, FJ_EMIT_CPU);
}

START_TEST(c_text_is_the_evaluator) { fj_check_property("emit c", fj_test_count(2), c_property); }
END_TEST

START_TEST(cuda_text_is_the_evaluator) { fj_check_property("emit cuda", fj_test_count(1), cuda_property); }
END_TEST

START_TEST(lanes_are_the_evaluator) { fj_check_property("emit lanes", fj_test_count(1), lanes_property); }
END_TEST

/* ---- Facts ----------------------------------------------------------------------------------------------- */

/* Axes that are the same bare index of the same dimension in every scatter to a capture: b 1, h 2, q 4, kv 8. */
static const struct axes_case {
    const char *scatters, *axes;
} axes_cases[] = {
    {"%5 = scatter @0 %4, %1, %2\neffect %5\n", "{12, -1}"},
    {"%5 = scatter @0 %4, %1, %1\neffect %5\n", "{4, -1}"},
    {"%5 = scatter @0 %4, %1, %2\n%6 = scatter @0 %4, %2, %1\neffect %5\neffect %6\n", "{0, -1}"},
    {"%5 = scatter @0 %4, %1, %2\n%6 = scatter @0 %4, %1, %3\neffect %5\neffect %6\n", "{4, -1}"},
    {"%5 = scatter @0 %4, %1, %2\n%6 = add.i32 %1, %3\n%7 = scatter @0 %4, %6, %2\neffect %5\neffect %7\n",
     "{8, -1}"},
    {"%5 = cast_i64.i64 %1\n%6 = scatter @0 %4, %5, %3\neffect %6\n", "{6, -1}"},
    {"dscore %4\n", "{-1, -1}"},
};

static void axes_body(fj_scope *scope, void *argument) {
    const struct axes_case *c = argument;
    char text[512], want[64];
    fj_buf out;
    (void)snprintf(text, sizeof text,
                   "capture 0 F32 [-1,-1] \"bias\" gradient\n%%1 = q\n%%2 = kv\n%%3 = h\n%%4 = adjoint\n%s",
                   c->scatters);
    (void)snprintf(want, sizeof want, "#define FJ_CAPTURE_GRAD_AXES %s\n", c->axes);
    const fj_ir *ir = fj_ir_parse(scope->arena, scope, fj_str_from(text));
    fj_buf_init(&out, &fj_allocator_libc);
    fj_ir_emit(ir, ir, FJ_EMIT_CPU, &out);
    ck_assert_msg(!out.failed && strstr(out.data, want) != NULL, "no %s of\n%s", want, text);
    fj_buf_finish(&out);
}

START_TEST(axes_of_scatters) {
    for (size_t i = 0; i < FJ_ARRAY_LEN(axes_cases); i++) {
        struct axes_case c = axes_cases[i];
        fj_error error = {0};
        fj_arena arena;
        fj_arena_init(&arena, &fj_allocator_libc);
        ck_assert_msg(fj_scope_run(&arena, &error, axes_body, &c) == FJ_OK, "%s", error.text);
        fj_arena_finish(&arena);
    }
}
END_TEST

int main(void) {
    Suite *suite = suite_create("emit");
    TCase *tcase = tcase_create("compiled");
    tcase_set_timeout(tcase, 0);
    tcase_add_test(tcase, c_text_is_the_evaluator);
    tcase_add_test(tcase, cuda_text_is_the_evaluator);
    tcase_add_test(tcase, lanes_are_the_evaluator);
    tcase_add_test(tcase, axes_of_scatters);
    suite_add_tcase(suite, tcase);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    const int number_failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return number_failed != 0;
}
