/* kern_cuda_merge [--filter GLOB] [--cxx COMPILER] [--flags FLAGS]
 *
 * Forward kernels with FJ_PARTIAL and fj_fwd_merge behind them, on the emulator, against the definition: for several
 * numbers of splits, more than there are blocks of keys too; with a sink and with a hook of the output, both of which
 * must act once; with no keys at all. The parts are packed, start as NaN and end at a page without access. */
#include <dlfcn.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/dtype.h"
#include "templates/cuda/shapes.h"
#include "tests/kern_cuda/kern_cuda.h"

static const struct {
    variant v;
    bool seams;
} cases[] = {
    {{"mma", FJ_DTYPE_BF16, 64, 64, 64, 64, 1, 4, 1, 1, "causal"}, false},
    {{"mma", FJ_DTYPE_F16, 40, 80, 32, 32, 2, 2, 0, 1, "late"}, true},
    {{"mma", FJ_DTYPE_F32, 16, 24, 64, 32, 1, 4, 1, 1, "none"}, true},
    {{"simt", FJ_DTYPE_F64, 8, 33, 16, 16, 1, 2, 1, 1, "window"}, true},
    {{"simt", FJ_DTYPE_BF16, 17, 130, 16, 32, 1, 2, 0, 1, "table"}, false},
};
static const shape shapes[] = {
    {1, 8, 2, 3, 300, 0.4, LAYOUT_PACKED, 297, 0}, {2, 2, 2, 35, 65, -0.2, LAYOUT_ROWS, 0, 0},
    {1, 3, 1, 1, 400, 0.3, LAYOUT_ODD, 20, 0},     {1, 2, 1, 5, 0, 0.3, LAYOUT_PACKED, 0, 0},
    {2, 2, 1, 4, 40, 1.0, LAYOUT_ODD, 0, 100},
};
static const int split_counts[] = {1, 3, 7, 40};

static const char *filter = "*", *cxx = "c++", *flags = "-O1";
static char folder[] = "/tmp/kern_cuda_merge_XXXXXX";
static fj_emu *emu;

/* ---- Compiling ------------------------------------------------------------------------------------------ */

/* Before the defaults of identity.h: a sink, and a hook that is not the same twice. */
#define SINK (-0.25)
static const char seams_text[] =
    "#define FJ_HAS_SINK 1\n#define FJ_HAS_OUT 1\n"
    "FJ_DEVICE fj_f fj_sink(const fj_mod_args *, const struct fj_head_state *) { return fj_f(-0.25); }\n"
    "FJ_DEVICE fj_f fj_out(const fj_mod_args *, const struct fj_head_state *, const struct fj_row_state *,\n"
    "                      int32_t column, fj_f x) { return x * fj_f(0.5) + fj_f(column % 3); }\n";
static double hook_of(double x, int64_t column) { return x * 0.5 + (double)(column % 3); }

static bool put_text(const variant *v, bool seams, const char *path) {
    static const char place[] = "#ifndef FJ_HAS_PROB\n";
    fj_arena arena;
    fj_buf text;
    fj_arena_init(&arena, &fj_allocator_libc);
    fj_buf_init(&text, &fj_allocator_libc);
    render(v, mod_compile(&arena, mod_find(v->mod)), KERN_SOURCE "/templates", &text);
    FILE *file = fopen(path, "w");
    const char *at = file && !text.failed ? strstr(text.data, place) : NULL;
    bool done = at && fwrite(text.data, 1, (size_t)(at - text.data), file) == (size_t)(at - text.data) &&
                (!seams || fputs(seams_text, file) >= 0) && fputs(at, file) >= 0;
    done &= file && fclose(file) == 0;
    fj_buf_finish(&text);
    fj_arena_finish(&arena);
    return done;
}

static void *compile(const variant *v, bool seams) {
    char source[128], object[128], command[2048];
    (void)snprintf(source, sizeof source, "%s/kernel.cc", folder);
    (void)snprintf(object, sizeof object, "%s/kernel.so", folder);
    (void)snprintf(
        command, sizeof command,
        "%s -x c++ -std=c++17 -w %s -ffp-contract=off -DFJ_ARCH=80 -I%s/cuda -fPIC -shared -g1 -o %s %s", cxx,
        flags, KERN_SOURCE "/templates", object, source);
    if (!put_text(v, seams, source) || system(command) != 0) return NULL;
    void *loaded = dlopen(object, RTLD_NOW | RTLD_LOCAL);
    (void)unlink(object); /* the next one has the name again */
    return loaded;
}

/* ---- Calls ---------------------------------------------------------------------------------------------- */

static void make_call(call *c, const variant *v, const shape *s, const fj_ir *ir) {
    const int64_t rows[] = {s->batch, s->heads_q, s->q_len, 1};
    const int64_t q[] = {s->batch, s->heads_q, s->q_len, v->e}, o[] = {s->batch, s->heads_q, s->q_len, v->v};
    const int64_t k[] = {s->batch, s->heads_kv, s->kv_len, v->e},
                  w[] = {s->batch, s->heads_kv, s->kv_len, v->v};
    const fj_dtype real = v->dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32;
    *c = (call){.s = s, .ir = ir};
    tensor_make(&c->query, v->dtype, q, s->how);
    tensor_make(&c->key, v->dtype, k, s->kv_len ? s->how : LAYOUT_PACKED);
    tensor_make(&c->value, v->dtype, w, s->kv_len ? s->how : LAYOUT_PACKED);
    tensor_make(&c->out, v->dtype, o, s->how);
    tensor_make(&c->lse, real, rows, LAYOUT_PACKED);
    tensor_make(&c->max, real, rows, LAYOUT_ROWS);
    tensor_fill(&c->query, 1.5);
    tensor_fill(&c->key, 1.5);
    tensor_fill(&c->value, 2);
    if (mod_find(v->mod)->table) {
        c->q_position = calloc((size_t)s->q_len + 1, sizeof(int32_t));
        c->kv_position = calloc((size_t)s->kv_len + 1, sizeof(int32_t));
        for (int64_t i = 0; i < s->q_len; i++) c->q_position[i] = (int32_t)(i * 7 % 50);
        for (int64_t i = 0; i < s->kv_len; i++) c->kv_position[i] = (int32_t)(i * 5 % 64);
    }
    reference_run(c, v->dtype);
}

static void finish_call(call *c) {
    tensor *all[] = {&c->query, &c->key, &c->value, &c->out, &c->lse, &c->max};
    for (int i = 0; i < 6; i++) tensor_finish(all[i]);
    free(c->q_position);
    free(c->kv_position);
    reference_finish(c);
}

/* What seams make of the definition. */
static void add_seams(call *c, int64_t v) {
    const int64_t rows = c->s->batch * c->s->heads_q * c->s->q_len;
    for (int64_t r = 0; r < rows; r++) {
        const double before = c->want_lse[r], after = fmax(before, SINK) + log1p(exp(-fabs(before - SINK)));
        c->want_lse[r] = isinf(before) ? SINK : after;
        c->bound_lse[r] += 0x1p-18;
        for (int64_t j = 0; j < v; j++) {
            double *out = &c->want_out[r * v + j];
            *out = hook_of(isinf(before) ? 0 : *out * exp(before - after), j);
            c->bound_out[r * v + j] += fabs(*out) * 0x1p-8;
        }
    }
}

/* ---- Launching ------------------------------------------------------------------------------------------ */

typedef struct parts {
    unsigned char *memory;
    size_t bytes, real;
    int64_t rows, columns, splits;
} parts;

static struct fj_cuda_tensor part_tensor(const parts *p, const shape *s, int64_t first, int64_t columns) {
    return (struct fj_cuda_tensor){p->memory + (size_t)(first * p->splits) * p->real,
                                   {s->heads_q * s->q_len * columns, s->q_len * columns, columns}};
}

static fj_status run_one(const fj_emu_kernel *kernel, const fj_emu_shape *grid, const void *args, int mode) {
    fj_error error = {0};
    const fj_launch one = {.struct_size = sizeof one, .workers = 1};
    const fj_emu_options how = {.schedule = (fj_emu_schedule)(mode / 2),
                                .copies = (fj_emu_copies)(mode % 2),
                                .seed = 7,
                                .launch = &one};
    const fj_status status = fj_emu_launch(emu, kernel, grid, args, &how, &error);
    if (status != FJ_OK) printf("    %s %s\n", error.text, error.detail ? error.detail : "");
    fj_error_finish(&error);
    return status;
}

static fj_status launch_parts(const call *c, const variant *v, const fj_emu_kernel *kernel, const parts *p,
                              int mode) {
    const shape *s = c->s;
    const int64_t group = v->pack ? s->heads_q / s->heads_kv : 1, columns = s->batch * s->heads_q / group;
    const struct fj_cuda_forward args = {
        .query = tensor_describe(&c->query),
        .key = tensor_describe(&c->key),
        .value = tensor_describe(&c->value),
        .out = part_tensor(p, s, 0, v->v),
        .lse = part_tensor(p, s, p->rows * v->v, 1),
        .max = part_tensor(p, s, p->rows * (v->v + 1), 1),
        .split_out = p->rows * v->v,
        .split_lse = p->rows,
        .q_position = c->q_position,
        .kv_position = c->kv_position,
        .scale = s->scale,
        .q_offset = s->q_offset,
        .kv_offset = s->kv_offset,
        .batch = (int32_t)s->batch,
        .heads_q = (int32_t)s->heads_q,
        .heads_kv = (int32_t)s->heads_kv,
        .q_len = (int32_t)s->q_len,
        .kv_len = (int32_t)s->kv_len,
        .section = 2,
        .vector = (tensor_is_vector(&c->query) ? FJ_CUDA_VECTOR_QUERY : 0u) |
                  (tensor_is_vector(&c->key) ? FJ_CUDA_VECTOR_KEY : 0u) |
                  (tensor_is_vector(&c->value) ? FJ_CUDA_VECTOR_VALUE : 0u),
    };
    const uint32_t slices = strcmp(v->template, "simt") == 0 ? (uint32_t)FJ_FWD_SIMT_SLICES(v->v) : 1;
    const fj_emu_shape grid = {
        {(uint32_t)(FJ_CEIL_DIV(s->q_len * group, v->m) * columns), (uint32_t)p->splits, slices},
        (uint32_t)v->warps * 32,
        (uint32_t)variant_shared(v)};
    return run_one(kernel, &grid, &args, mode);
}

static fj_status launch_merge(const call *c, const variant *v, const fj_emu_kernel *kernel, const parts *p,
                              int mode) {
    const shape *s = c->s;
    const struct fj_cuda_merge args = {
        .part_out = part_tensor(p, s, 0, v->v),
        .part_lse = part_tensor(p, s, p->rows * v->v, 1),
        .part_max = part_tensor(p, s, p->rows * (v->v + 1), 1),
        .split_out = p->rows * v->v,
        .split_lse = p->rows,
        .out = tensor_describe(&c->out),
        .lse = tensor_describe(&c->lse),
        .max = tensor_describe(&c->max),
        .q_position = c->q_position,
        .q_offset = s->q_offset,
        .splits = (int32_t)p->splits,
        .batch = (int32_t)s->batch,
        .heads_q = (int32_t)s->heads_q,
        .q_len = (int32_t)s->q_len,
    };
    const fj_emu_shape grid = {{(uint32_t)(mode + 1), 1, 1}, 128, 0}; /* any grid: the same bits */
    return run_one(kernel, &grid, &args, mode);
}

/* ---- Checking ------------------------------------------------------------------------------------------- */

static int differs(const char *what, tensor *t, const double *want, const double *bound) {
    int wrong = !tensor_read(t);
    if (wrong) printf("    %s: written outside of its elements\n", what);
    const int64_t count = t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    for (int64_t i = 0; i < count && !wrong; i++) {
        const double got = t->values[i];
        if (got == want[i] || fabs(got - want[i]) <= bound[i]) continue;
        printf("    %s element %lld is %.9g, not %.9g; bound %.3g\n", what, (long long)i, got, want[i],
               bound[i]);
        wrong = 1;
    }
    return wrong;
}

static int run_splits(call *c, const variant *v, const fj_emu_kernel *forward, const fj_emu_kernel *merge,
                      int splits) {
    parts p = {.real = v->dtype == FJ_DTYPE_F64 ? 8 : 4,
               .rows = c->s->batch * c->s->heads_q * c->s->q_len,
               .columns = v->v,
               .splits = splits};
    p.bytes = (size_t)(splits * FJ_FWD_PART_REALS(p.rows, v->v, 1)) * p.real;
    p.memory = fj_emu_guarded_alloc(p.bytes);
    unsigned char *first = calloc(1, c->out.bytes + 1);
    int wrong = !p.memory || !first;
    for (int mode = 0; mode < 6 && !wrong; mode += 5) { /* the two that differ most */
        memset(p.memory, 0xff, p.bytes);
        tensor_clear(&c->out);
        tensor_clear(&c->lse);
        tensor_clear(&c->max);
        wrong =
            launch_parts(c, v, forward, &p, mode) != FJ_OK || launch_merge(c, v, merge, &p, mode) != FJ_OK;
        if (wrong) break;
        wrong = differs("out", &c->out, c->want_out, c->bound_out) |
                differs("lse", &c->lse, c->want_lse, c->bound_lse);
        if (variant_has_max(v)) wrong |= differs("max", &c->max, c->want_max, c->bound_lse);
        if (mode == 0) memcpy(first, c->out.memory, c->out.bytes);
        if (memcmp(first, c->out.memory, c->out.bytes) != 0) printf("    not the same bits\n"), wrong = 1;
    }
    if (wrong) printf("    with %d splits\n", splits);
    fj_emu_guarded_free(p.memory, p.bytes);
    free(first);
    return wrong;
}

static int run_case(const variant *v, bool seams) {
    char name[128];
    fj_arena arena;
    int wrong = 0;
    variant_name(v, name);
    void *object = compile(v, seams);
    const fj_emu_kernel *forward = object ? dlsym(object, "fj_fwd") : NULL,
                        *merge = object ? dlsym(object, "fj_fwd_merge") : NULL;
    if (!forward || !merge) return printf("%-48s did not compile\n", name), 1;
    fj_arena_init(&arena, &fj_allocator_libc);
    const fj_ir *ir = mod_compile(&arena, mod_find(v->mod));
    if (merge->args_size != sizeof(struct fj_cuda_merge)) wrong = printf("    arguments of another size\n");
    for (size_t i = 0; i < FJ_ARRAY_LEN(shapes) && !wrong; i++) {
        call c;
        make_call(&c, v, &shapes[i], ir);
        if (seams) add_seams(&c, v->v);
        for (size_t k = 0; k < FJ_ARRAY_LEN(split_counts) && !wrong; k++)
            wrong = run_splits(&c, v, forward, merge, split_counts[k]);
        if (wrong) printf("    at shape %zu\n", i);
        finish_call(&c);
    }
    printf("%-48s %s\n", name, wrong ? "WRONG" : "ok");
    fj_arena_finish(&arena);
    (void)dlclose(object);
    return wrong != 0;
}

int main(int argc, char **argv) {
    int wrong = 0;
    char command[128];
    fj_error error = {0};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (strcmp(argv[i], "--filter") == 0) filter = argv[i + 1];
        if (strcmp(argv[i], "--cxx") == 0) cxx = argv[i + 1];
        if (strcmp(argv[i], "--flags") == 0) flags = argv[i + 1];
    }
    if (!mkdtemp(folder) || fj_emu_create(&fj_allocator_libc, &emu, &error) != FJ_OK) return 2;
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases); i++) {
        char name[128];
        variant_name(&cases[i].v, name);
        if (fnmatch(filter, name, 0) == 0) wrong |= run_case(&cases[i].v, cases[i].seams);
    }
    fj_emu_destroy(&emu);
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) != 0 ? 2 : wrong;
}
