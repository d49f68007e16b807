/* kern_cuda_bwd_edges [--filter GLOB] [--cxx COMPILER] [--flags FLAGS]
 *
 * Backward kernels with positions from tables (of each batch, or of all), and with lengths of zero, on the emulator,
 * against the gradients of one mod that is written down here: score + (q - kv) / 64 where q >= kv. */
#include <dlfcn.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "templates/cuda/shapes.h"
#include "tests/kern_cuda/bwd.h"

static const bwd_mod the_mod = {.name = "table", .score = "score + (q - kv) / 64.0", .mask = "q >= kv"};

static const bwd_variant variants[] = {
    {"mma", FJ_DTYPE_BF16, 64, 48, 128, 32, 2, 4, 0, "table"},
    {"mma", FJ_DTYPE_F16, 32, 32, 32, 32, 1, 4, 0, "table"},
    {"mma", FJ_DTYPE_BF16, 16, 64, 64, 64, 2, 4, 1, "table"},
    {"simt", FJ_DTYPE_F32, 20, 33, 16, 16, 1, 2, 0, "table"},
};
/* tables: 0 none, 1 one for all batches, 2 one for each */
static const struct {
    shape s;
    int tables;
} cases[] = {
    {{2, 4, 2, 37, 70, 0.3, LAYOUT_PACKED, 33, 2}, 0},  {{2, 4, 2, 37, 70, 0.3, LAYOUT_PACKED, 900, 900}, 1},
    {{3, 2, 1, 130, 33, -0.2, LAYOUT_PACKED, 0, 0}, 2}, {{1, 2, 1, 0, 40, 0.3, LAYOUT_PACKED, 0, 0}, 0},
    {{1, 2, 1, 40, 0, 0.3, LAYOUT_PACKED, 0, 0}, 0},    {{1, 2, 2, 0, 20, 0.3, LAYOUT_PACKED, 0, 0}, 1},
    {{2, 2, 2, 20, 0, 0.3, LAYOUT_PACKED, 0, 0}, 2},
};

static const char *filter = "*", *cxx = "c++", *flags = "-O1";
static char folder[] = "/tmp/kern_cuda_bwd_edges_XXXXXX";
static fj_emu *emu;

enum { QUERY, KEY, VALUE, OUT, DOUT, DQUERY, DKEY, DVALUE, TENSORS };

typedef struct job {
    const bwd_variant *v;
    const shape *s;
    int tables;
    tensor t[TENSORS], lse;
    double *want[3], *bound[3];
    int32_t *q_position, *kv_position;
} job;

/* ---- The definition ------------------------------------------------------------------------------------- */

static int64_t position(const int32_t *table, int tables, int64_t b, int64_t length, int32_t offset,
                        int64_t i) {
    return table ? table[(tables == 2 ? b * length : 0) + i] : offset + i;
}

static const double *row_of(const job *j, int which, int64_t b, int64_t h, int64_t i) {
    const tensor *t = &j->t[which];
    return t->values + ((b * t->dims[1] + h) * t->dims[2] + i) * t->dims[3];
}

static double dot(const double *x, const double *y, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

/* p: of each key. Gives out, rounded, and lse. */
static void forward_row(job *j, int64_t b, int64_t h, int64_t hk, int64_t q, double *p) {
    const shape *s = j->s;
    const int64_t n = s->kv_len, at = (b * s->heads_q + h) * s->q_len + q, v = j->v->v;
    const int64_t q_at = position(j->q_position, j->tables, b, s->q_len, s->q_offset, q);
    double top = -(double)INFINITY, sum = 0;
    for (int64_t k = 0; k < n; k++) {
        const int64_t kv_at = position(j->kv_position, j->tables, b, n, s->kv_offset, k);
        const double score = s->scale * dot(row_of(j, QUERY, b, h, q), row_of(j, KEY, b, hk, k), j->v->e);
        p[k] = q_at >= kv_at ? score + (double)(q_at - kv_at) / 64 : -(double)INFINITY;
        top = fmax(top, p[k]);
    }
    for (int64_t k = 0; k < n; k++) sum += p[k] = isinf(top) ? 0 : exp(p[k] - top);
    for (int64_t k = 0; k < n && sum > 0; k++) p[k] /= sum;
    j->lse.values[at] = sum > 0 ? top + log(sum) : -(double)INFINITY;
    for (int64_t i = 0; i < v; i++) {
        double x = 0;
        for (int64_t k = 0; k < n; k++) x += p[k] * row_of(j, VALUE, b, hk, k)[i];
        j->t[OUT].values[at * v + i] = fj_dtype_round(j->v->dtype, x);
    }
}

static void add(job *j, int which, int64_t at, double x, double off) {
    j->want[which][at] += x;
    j->bound[which][at] += off;
}

static void backward_row(job *j, int64_t b, int64_t h, int64_t hk, int64_t q, const double *p, double unit) {
    const shape *s = j->s;
    const int64_t at = (b * s->heads_q + h) * s->q_len + q, e = j->v->e, v = j->v->v;
    const double *dout = row_of(j, DOUT, b, h, q), delta = dot(row_of(j, OUT, b, h, q), dout, v);
    for (int64_t k = 0; k < s->kv_len; k++) {
        const int64_t key = (b * s->heads_kv + hk) * s->kv_len + k;
        const double ds = p[k] * (dot(dout, row_of(j, VALUE, b, hk, k), v) - delta) * s->scale;
        const double off = unit * fabs(ds) + 0x1p-14 * p[k]; /* sums of a few products of about 1 */
        for (int64_t i = 0; i < e; i++) {
            const double x = row_of(j, KEY, b, hk, k)[i], y = row_of(j, QUERY, b, h, q)[i];
            add(j, 0, at * e + i, ds * x, off * fabs(x));
            add(j, 1, key * e + i, ds * y, off * fabs(y));
        }
        for (int64_t i = 0; i < v; i++)
            add(j, 2, key * v + i, p[k] * dout[i], (unit + 0x1p-14) * p[k] * fabs(dout[i]));
    }
}

static int64_t count_of(const tensor *t) { return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3]; }

static void make_reference(job *j) {
    const shape *s = j->s;
    const fj_dtype dtype = j->v->dtype;
    const double unit = dtype == FJ_DTYPE_BF16 ? 0x1p-8 : dtype == FJ_DTYPE_F16 ? 0x1p-11 : 0x1p-24;
    double *p = calloc((size_t)s->kv_len + 1, sizeof(double));
    for (int n = 0; n < 3; n++) {
        j->want[n] = calloc((size_t)count_of(&j->t[DQUERY + n]) + 1, sizeof(double));
        j->bound[n] = calloc((size_t)count_of(&j->t[DQUERY + n]) + 1, sizeof(double));
    }
    for (int64_t b = 0; b < s->batch; b++)
        for (int64_t h = 0; h < s->heads_q; h++)
            for (int64_t q = 0; q < s->q_len; q++) {
                const int64_t hk = h / (s->heads_q / s->heads_kv);
                forward_row(j, b, h, hk, q, p);
                backward_row(j, b, h, hk, q, p, unit);
            }
    free(p);
    for (int n = 0; n < 3; n++)
        for (int64_t i = 0; i < count_of(&j->t[DQUERY + n]); i++)
            j->bound[n][i] += 2 * unit * fabs(j->want[n][i]) + 1e-6;
}

/* ---- Jobs ------------------------------------------------------------------------------------------------ */

static void store_packed(tensor *t) {
    for (int64_t i = 0; i < count_of(t); i++) fj_dtype_store_float(t->dtype, t->memory, i, t->values[i]);
}

/* A permutation of a range, another for each batch. */
static int32_t *make_table(const job *j, int64_t length, int64_t step, int32_t from) {
    const int64_t tables = j->tables == 2 ? j->s->batch : 1;
    int32_t *table = calloc((size_t)(tables * length) + 1, sizeof(int32_t));
    for (int64_t i = 0; i < tables * length; i++)
        table[i] = from + (int32_t)((i % length * step + i / length * 11) % length);
    return table;
}

static void make_job(job *j, const bwd_variant *v, size_t index) {
    const shape *s = &cases[index].s;
    *j = (job){.v = v, .s = s, .tables = cases[index].tables};
    for (int i = 0; i < TENSORS; i++) {
        const bool keys = i == KEY || i == VALUE || i == DKEY || i == DVALUE;
        const bool values = i == VALUE || i == OUT || i == DOUT || i == DVALUE;
        const int64_t dims[] = {s->batch, keys ? s->heads_kv : s->heads_q, keys ? s->kv_len : s->q_len,
                                values ? v->v : v->e};
        tensor_make(&j->t[i], v->dtype, dims, LAYOUT_PACKED);
        if (i < DQUERY) tensor_fill(&j->t[i], 1);
    }
    tensor_make(&j->lse, FJ_DTYPE_F32, (int64_t[]){s->batch, s->heads_q, s->q_len, 1}, LAYOUT_PACKED);
    if (j->tables) {
        j->q_position = make_table(j, s->q_len, 7, 20);
        j->kv_position = make_table(j, s->kv_len, 9, 0);
    }
    make_reference(j);
    store_packed(&j->t[OUT]);
    store_packed(&j->lse);
}

static void finish_job(job *j) {
    for (int i = 0; i < TENSORS; i++) tensor_finish(&j->t[i]);
    tensor_finish(&j->lse);
    for (int n = 0; n < 3; n++) free(j->want[n]), free(j->bound[n]);
    free(j->q_position);
    free(j->kv_position);
}

static struct fj_cuda_backward arguments(const job *j, void *rows, float *sums) {
    const shape *s = j->s;
    uint32_t vector = 0;
    for (int i = 0; i < TENSORS; i++) vector |= (uint32_t)tensor_is_vector(&j->t[i]) << i;
    return (struct fj_cuda_backward){.query = tensor_describe(&j->t[QUERY]),
                                     .key = tensor_describe(&j->t[KEY]),
                                     .value = tensor_describe(&j->t[VALUE]),
                                     .out = tensor_describe(&j->t[OUT]),
                                     .dout = tensor_describe(&j->t[DOUT]),
                                     .lse = tensor_describe(&j->lse),
                                     .dquery = tensor_describe(&j->t[DQUERY]),
                                     .dkey = tensor_describe(&j->t[DKEY]),
                                     .dvalue = tensor_describe(&j->t[DVALUE]),
                                     .q_position = j->q_position,
                                     .kv_position = j->kv_position,
                                     .q_position_stride = j->tables == 2 ? s->q_len : 0,
                                     .kv_position_stride = j->tables == 2 ? s->kv_len : 0,
                                     .rows = rows,
                                     .dquery_sums = sums,
                                     .scale = s->scale,
                                     .q_offset = s->q_offset,
                                     .kv_offset = s->kv_offset,
                                     .batch = (int32_t)s->batch,
                                     .heads_q = (int32_t)s->heads_q,
                                     .heads_kv = (int32_t)s->heads_kv,
                                     .q_len = (int32_t)s->q_len,
                                     .kv_len = (int32_t)s->kv_len,
                                     .section = 2,
                                     .vector = vector};
}

static int launch(const job *j, void *object, const struct fj_cuda_backward *args, int mode) {
    const bwd_variant *v = j->v;
    const shape *s = j->s;
    const uint32_t threads = (uint32_t)v->warps * 32, shared = (uint32_t)bwd_variant_shared(v);
    const struct {
        const char *name;
        fj_emu_shape grid;
    } launches[] = {
        {"fj_bwd_delta", {{2, 1, 1}, 128, 0}},
        {"fj_bwd_kv",
         {{(uint32_t)(FJ_CEIL_DIV(s->kv_len, v->m) * s->batch * s->heads_kv), 1, 1}, threads, shared}},
        {"fj_bwd_q",
         {{(uint32_t)(FJ_CEIL_DIV(s->q_len, v->m) * s->batch * s->heads_q), 1, 1}, threads, shared}},
    };
    const fj_launch one = {.struct_size = sizeof one, .workers = 1};
    const fj_emu_options how = {.schedule = (fj_emu_schedule)(mode / 2),
                                .copies = (fj_emu_copies)(mode % 2),
                                .seed = 5,
                                .launch = &one};
    for (size_t i = 0; i < FJ_ARRAY_LEN(launches); i++) {
        const fj_emu_kernel *kernel = dlsym(object, launches[i].name);
        fj_error error = {0};
        if (launches[i].grid.grid[0] == 0) continue; /* a grid of no blocks is not launched */
        if (!kernel || fj_emu_launch(emu, kernel, &launches[i].grid, args, &how, &error) != FJ_OK) {
            printf("    %s: %s\n", launches[i].name, kernel ? error.text : "not there");
            fj_error_finish(&error);
            return 1;
        }
    }
    return 0;
}

static int check(job *j) {
    static const char *const names[] = {"dquery", "dkey", "dvalue"};
    for (int n = 0; n < 3; n++) {
        tensor *t = &j->t[DQUERY + n];
        if (!tensor_read(t)) return printf("    %s: written outside of its elements\n", names[n]), 1;
        for (int64_t i = 0; i < count_of(t); i++) {
            if (fabs(t->values[i] - j->want[n][i]) <= j->bound[n][i]) continue;
            printf("    %s element %lld is %.9g, not %.9g; bound %.3g\n", names[n], (long long)i,
                   t->values[i], j->want[n][i], j->bound[n][i]);
            return 1;
        }
    }
    return 0;
}

static int run_case(const bwd_variant *v, void *object, size_t index) {
    job j;
    make_job(&j, v, index);
    const size_t rows = (size_t)(j.s->batch * j.s->heads_q * j.s->q_len);
    void *facts = fj_emu_guarded_alloc(rows * 8);
    float *sums = v->atomic ? fj_emu_guarded_alloc(rows * (size_t)FJ_MMA_PAD(v->e) * sizeof(float)) : NULL;
    const struct fj_cuda_backward args = arguments(&j, facts, sums);
    int wrong = 0;
    for (int mode = 0; mode < 6 && !wrong; mode += 5) {
        for (int i = DQUERY; i < TENSORS; i++) tensor_clear(&j.t[i]);
        wrong = launch(&j, object, &args, mode) || check(&j);
    }
    if (wrong) printf("    at case %zu\n", index);
    fj_emu_guarded_free(facts, rows * 8);
    if (sums) fj_emu_guarded_free(sums, rows * (size_t)FJ_MMA_PAD(v->e) * sizeof(float));
    finish_job(&j);
    return wrong;
}

/* ---- Compiling -------------------------------------------------------------------------------------------- */

static void *compile(const bwd_variant *v, const char *name) {
    char source[256], object[256], command[2048];
    fj_arena arena;
    fj_buf text;
    (void)snprintf(source, sizeof source, "%s/%s.cc", folder, name);
    (void)snprintf(object, sizeof object, "%s/%s.so", folder, name);
    (void)snprintf(
        command, sizeof command,
        "%s -x c++ -std=c++17 -w %s -ffp-contract=off -DFJ_ARCH=80 -I%s/cuda -fPIC -shared -g1 -o %s %s", cxx,
        flags, KERN_SOURCE "/templates", object, source);
    fj_arena_init(&arena, &fj_allocator_libc);
    fj_buf_init(&text, &fj_allocator_libc);
    const bwd_graphs graphs = bwd_mod_compile(&arena, &the_mod);
    fj_buf_put(&text, "#define FJ_POSITION_TABLE 1\n");
    bwd_render(v, &graphs, KERN_SOURCE "/templates", &text);
    FILE *file = fopen(source, "w");
    bool done = file && !text.failed && fwrite(text.data, 1, text.len, file) == text.len;
    done &= file && fclose(file) == 0;
    fj_buf_finish(&text);
    fj_arena_finish(&arena);
    return done && system(command) == 0 ? dlopen(object, RTLD_NOW | RTLD_LOCAL) : NULL;
}

static int run_variant(const bwd_variant *v) {
    char name[128];
    bwd_variant_name(v, name);
    if (fnmatch(filter, name, 0) != 0) return 0;
    void *object = compile(v, name);
    int wrong = object == NULL;
    for (size_t i = 0; i < FJ_ARRAY_LEN(cases) && !wrong; i++) wrong = run_case(v, object, i);
    printf("%-56s %s\n", name, wrong ? "WRONG" : "ok");
    if (object) (void)dlclose(object);
    return wrong;
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
    for (size_t i = 0; i < FJ_ARRAY_LEN(variants); i++) wrong |= run_variant(&variants[i]);
    fj_emu_destroy(&emu);
    (void)snprintf(command, sizeof command, "rm -rf %s", folder);
    return system(command) != 0 ? 2 : wrong;
}
