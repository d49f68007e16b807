/* kern_cuda_bwd [--filter GLOB] [--cxx COMPILER] [--flags FLAGS] [--keep DIR] [--few] [--nvrtc [all]] [--plants]
 *
 * Every backward variant below is compiled for the emulator and run at several shapes against the definition in
 * double, on inputs whose gaps are NaN and that end at a page without access; in every order of threads and with
 * copies that land early and late: the deterministic ones must give the same bits, captured gradients too. */
#include <dlfcn.h>
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/dtype.h"
#include "templates/cuda/shapes.h"
#include "tests/kern_cuda/bwd.h"

static const bwd_variant variants[] = {
    {"mma", FJ_DTYPE_BF16, 64, 64, 64, 64, 2, 4, 0, "none"},
    {"mma", FJ_DTYPE_F16, 80, 40, 64, 32, 2, 4, 0, "causal"},
    {"mma", FJ_DTYPE_BF16, 128, 128, 64, 64, 2, 8, 0, "alibi"},
    {"mma", FJ_DTYPE_F16, 20, 33, 64, 64, 1, 4, 0, "document"},
    {"mma", FJ_DTYPE_F16, 256, 144, 32, 32, 1, 4, 0, "late"},
    {"mma", FJ_DTYPE_BF16, 64, 96, 128, 64, 2, 4, 0, "softcap"},
    {"mma", FJ_DTYPE_BF16, 80, 128, 128, 64, 2, 8, 0, "causal"},
    {"mma", FJ_DTYPE_BF16, 24, 16, 128, 64, 1, 8, 0, "causal"},
    {"mma", FJ_DTYPE_BF16, 88, 192, 128, 32, 1, 8, 0, "document"},
    {"mma", FJ_DTYPE_BF16, 64, 64, 128, 32, 2, 4, 1, "alibi"},
    {"mma", FJ_DTYPE_BF16, 16, 16, 32, 64, 3, 2, 0, "bias"},
    {"mma", FJ_DTYPE_F16, 64, 64, 64, 64, 2, 8, 0, "relative"},
    {"mma", FJ_DTYPE_BF16, 32, 48, 64, 32, 2, 4, 1, "bias"},
    {"mma", FJ_DTYPE_F16, 80, 64, 32, 32, 1, 4, 1, "causal"},
    {"mma", FJ_DTYPE_F16, 64, 64, 64, 64, 2, 4, 0, "infinite"},
    {"simt", FJ_DTYPE_F32, 64, 64, 32, 32, 1, 4, 0, "alibi"},
    {"simt", FJ_DTYPE_BF16, 17, 130, 16, 32, 1, 4, 0, "bias"},
    {"simt", FJ_DTYPE_F16, 40, 7, 32, 32, 1, 4, 0, "document"},
    {"simt", FJ_DTYPE_F64, 33, 16, 16, 16, 1, 4, 0, "head"},
    {"simt", FJ_DTYPE_F32, 100, 200, 16, 32, 1, 4, 1, "relative"},
    {"simt", FJ_DTYPE_F32, 8, 8, 8, 8, 1, 2, 0, "late"},
};
enum { VARIANTS = FJ_ARRAY_LEN(variants), JOBS = 2, MODES = 6, SINKS = MAX_CAPTURES + MAX_SCALARS };

static const shape shapes[] = {
    {1, 2, 2, 70, 130, 0.35, LAYOUT_PACKED, 0, 0}, {2, 3, 1, 33, 65, 0.2, LAYOUT_ROWS, 0, 0},
    {1, 8, 1, 5, 64, -0.3, LAYOUT_ODD, 59, 0},     {1, 1, 1, 1, 1, 1.0, LAYOUT_PACKED, 0, 0},
    {1, 2, 1, 64, 63, 0.0, LAYOUT_ROWS, 0, 0},     {1, 6, 2, 17, 100, 0.7, LAYOUT_ODD, 100, 3},
};

static struct {
    const char *root, *filter, *cxx, *flags, *folder;
} options = {KERN_SOURCE "/templates", "*", "c++", "-O1", NULL};

static fj_emu *emu;
static bool few;             /* shapes and modes: for sanitizers */
static const plant *planted; /* into what is compiled now */

/* ---- Compiling ------------------------------------------------------------------------------------ */

static void path_of(const bwd_variant *v, const char *suffix, char path[512]) {
    char name[128];
    bwd_variant_name(v, name);
    (void)snprintf(path, 512, "%s/%s%s", options.folder, name, suffix);
}

static bool is_chosen(const bwd_variant *v) {
    char name[128];
    bwd_variant_name(v, name);
    return fnmatch(options.filter, name, 0) == 0;
}

static int compile_one(const bwd_variant *v) {
    char source[512], object[512], command[4096];
    fj_arena arena;
    fj_buf text;
    path_of(v, ".cc", source);
    path_of(v, ".so", object);
    fj_arena_init(&arena, &fj_allocator_libc);
    fj_buf_init(&text, &fj_allocator_libc);
    const bwd_graphs graphs = bwd_mod_compile(&arena, bwd_mod_find(v->mod));
    bwd_render(v, &graphs, options.root, &text);
    if (planted && !plant_apply(planted, &text)) return printf("    %s: no such text\n", planted->name), 2;
    FILE *file = fopen(source, "w");
    if (!file || text.failed || fwrite(text.data, 1, text.len, file) != text.len || fclose(file) != 0)
        return 1;
    fj_buf_finish(&text);
    fj_arena_finish(&arena);
    (void)snprintf(
        command, sizeof command,
        "%s -x c++ -std=c++17 -w %s -ffp-contract=off -DFJ_ARCH=80 -I%s/cuda -fPIC -shared -g1 -o %s %s",
        options.cxx, options.flags, options.root, object, source);
    return system(command) != 0;
}

/* ---- Calls ------------------------------------------------------------------------------------------ */

static int64_t elements(const tensor *t) { return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3]; }

static void store_values(tensor *t) {
    for (int64_t i = 0; i < elements(t); i++) {
        int64_t at = 0, rest = i;
        for (int d = 3; d >= 0; rest /= t->dims[d--]) at += rest % t->dims[d] * t->stride[d];
        fj_dtype_store_float(t->dtype, t->memory + t->offset + (size_t)at * fj_dtype_size(t->dtype), 0,
                             t->values[i]);
    }
}

static void make_captures(bwd_call *c, const bwd_mod *m) {
    for (int i = 0; i < MAX_CAPTURES && m->capture[i].name; i++) {
        fj_eval_tensor *t = &c->captures[i];
        const char *dims = m->capture[i].dims;
        int64_t count = 1, stride = 1;
        for (int d = 0; dims[d]; d++) {
            const int64_t q = c->s->q_len + c->s->q_offset, kv = c->s->kv_len + c->s->kv_offset;
            t->dims[d] = dims[d] == 'b' ? c->s->batch
                       : dims[d] == 'h' ? c->s->heads_q
                       : dims[d] == 'q' ? q
                       : dims[d] == 'k' ? kv
                                        : q + kv + 200;
            count *= t->dims[d];
        }
        for (int d = (int)strlen(dims) - 1; d >= 0; stride *= t->dims[d--]) t->strides[d] = stride;
        t->dtype = m->capture[i].dtype;
        void *data = calloc((size_t)count, 8);
        for (int64_t n = 0; n < count; n++) {
            if (t->dtype == FJ_DTYPE_I32)
                ((int32_t *)data)[n] = (int32_t)(n / 23);
            else
                fj_dtype_store_float(t->dtype, data, n, random_uniform());
        }
        t->data = data;
        if (t->dtype != FJ_DTYPE_I32) c->sinks[i].count = count;
    }
    if (m->scalar) c->sinks[MAX_CAPTURES].count = 1;
}

static void make_call(bwd_call *c, const bwd_variant *v, const shape *s, const bwd_graphs *graphs,
                      int index) {
    const int64_t rows[] = {s->batch, s->heads_q, s->q_len, 1};
    const int64_t q[] = {s->batch, s->heads_q, s->q_len, v->e}, o[] = {s->batch, s->heads_q, s->q_len, v->v};
    const int64_t k[] = {s->batch, s->heads_kv, s->kv_len, v->e},
                  w[] = {s->batch, s->heads_kv, s->kv_len, v->v};
    const fj_dtype real = v->dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32;
    *c = (bwd_call){.s = s, .graphs = graphs, .with_dlse = index % 2 == 1};
    tensor *const inputs[] = {&c->query, &c->key, &c->value, &c->out, &c->dout};
    const int64_t *const dims[] = {q, k, w, o, o};
    for (int i = 0; i < 5; i++) {
        tensor_make(inputs[i], v->dtype, dims[i], s->how);
        tensor_fill(inputs[i], i < 2 ? 1.5 : 2);
    }
    tensor_make(&c->lse, real, rows, LAYOUT_PACKED);
    tensor_make(&c->dlse, real, rows, LAYOUT_ROWS);
    tensor_fill(&c->dlse, 1);
    tensor_make(&c->dquery, v->dtype, q, s->how);
    tensor_make(&c->dkey, v->dtype, k, s->how);
    tensor_make(&c->dvalue, v->dtype, w, s->how);
    make_captures(c, bwd_mod_find(v->mod));
    bwd_reference_run(c);
    store_values(&c->out);
    store_values(&c->lse);
}

static void finish_call(bwd_call *c) {
    tensor *all[] = {&c->query, &c->key,  &c->value,  &c->out,  &c->dout,
                     &c->lse,   &c->dlse, &c->dquery, &c->dkey, &c->dvalue};
    for (size_t i = 0; i < FJ_ARRAY_LEN(all); i++) tensor_finish(all[i]);
    for (int i = 0; i < MAX_CAPTURES; i++) free((void *)(uintptr_t)c->captures[i].data);
    bwd_reference_finish(c);
}

/* ---- Launching -------------------------------------------------------------------------------------- */

typedef struct work {
    unsigned char args[8192];
    size_t args_size, real;
    void *rows, *queries, *sums[SINKS], *out[SINKS];
    size_t rows_size, queries_size;
    uint32_t most[SINKS];
} work;

static void *put_args(work *w, const void *part, size_t size) {
    void *to = memcpy(w->args + w->args_size, part, size);
    w->args_size += size;
    return to;
}

static uint32_t vectors_of(const bwd_call *c) {
    const tensor *const all[] = {&c->query, &c->key,    &c->value, &c->out,
                                 &c->dout,  &c->dquery, &c->dkey,  &c->dvalue};
    uint32_t bits = 0;
    for (uint32_t i = 0; i < 8; i++) bits |= (uint32_t)tensor_is_vector(all[i]) << i;
    return bits;
}

static void put_call(work *w, const bwd_call *c) {
    const shape *s = c->s;
    struct fj_cuda_backward args = {.query = tensor_describe(&c->query),
                                    .key = tensor_describe(&c->key),
                                    .value = tensor_describe(&c->value),
                                    .out = tensor_describe(&c->out),
                                    .dout = tensor_describe(&c->dout),
                                    .lse = tensor_describe(&c->lse),
                                    .dquery = tensor_describe(&c->dquery),
                                    .dkey = tensor_describe(&c->dkey),
                                    .dvalue = tensor_describe(&c->dvalue),
                                    .rows = w->rows,
                                    .dquery_sums = w->queries,
                                    .most = w->most,
                                    .scale = s->scale,
                                    .q_offset = s->q_offset,
                                    .kv_offset = s->kv_offset,
                                    .batch = (int32_t)s->batch,
                                    .heads_q = (int32_t)s->heads_q,
                                    .heads_kv = (int32_t)s->heads_kv,
                                    .q_len = (int32_t)s->q_len,
                                    .kv_len = (int32_t)s->kv_len,
                                    .section = 2,
                                    .vector = vectors_of(c)};
    if (c->with_dlse) args.dlse = tensor_describe(&c->dlse);
    put_args(w, &args, sizeof args);
}

/* A capture's gradient goes to column-major memory. */
static void put_sinks(work *w, const bwd_call *c) {
    const fj_ir *ir = c->graphs->ir;
    for (size_t i = 0; i < ir->captures.len; i++) {
        struct fj_cuda_capture capture = {.data = c->captures[i].data};
        for (int d = 0; d < FJ_CUDA_MAX_RANK; d++)
            capture.shape[d] = d < ir->captures.data[i].rank ? c->captures[i].dims[d] : 1;
        memcpy(capture.stride, c->captures[i].strides, sizeof capture.stride);
        put_args(w, &capture, sizeof capture);
    }
    for (size_t i = 0; i < ir->scalars.len; i++) {
        const struct fj_cuda_scalar scalar = {0.05, 0};
        put_args(w, &scalar, sizeof scalar);
    }
    for (size_t i = 0; i < ir->captures.len + ir->scalars.len; i++) {
        const size_t k = i < ir->captures.len ? i : MAX_CAPTURES;
        struct fj_cuda_sink sink = {.sums = w->sums[k], .out = w->out[k], .count = c->sinks[k].count};
        int64_t stride = 1;
        for (int d = 0; i < ir->captures.len && d < ir->captures.data[i].rank; d++) {
            sink.stride[d] = stride;
            stride *= c->captures[i].dims[d];
        }
        put_args(w, &sink, sizeof sink);
    }
}

static void make_work(work *w, const bwd_call *c, const bwd_variant *v) {
    *w = (work){.real = v->dtype == FJ_DTYPE_F64 ? 8 : 4};
    w->rows_size = (size_t)(c->s->batch * c->s->heads_q * c->s->q_len) * 2 * w->real;
    w->rows = fj_emu_guarded_alloc(w->rows_size);
    w->queries_size =
        (size_t)(c->s->batch * c->s->heads_q * c->s->q_len) * (size_t)FJ_MMA_PAD(v->e) * sizeof(float);
    if (v->atomic && strcmp(v->template, "mma") == 0) w->queries = fj_emu_guarded_alloc(w->queries_size);
    memset(w->most, 0xff, sizeof w->most);
    for (int i = 0; i < SINKS; i++) {
        if (!c->sinks[i].count) continue;
        w->sums[i] = fj_emu_guarded_alloc((size_t)c->sinks[i].count * 8);
        w->out[i] = fj_emu_guarded_alloc((size_t)c->sinks[i].count * w->real);
    }
    put_call(w, c);
    put_sinks(w, c);
}

static void finish_work(work *w, const bwd_call *c) {
    fj_emu_guarded_free(w->rows, w->rows_size);
    if (w->queries) fj_emu_guarded_free(w->queries, w->queries_size);
    for (int i = 0; i < SINKS; i++) {
        if (!c->sinks[i].count) continue;
        fj_emu_guarded_free(w->sums[i], (size_t)c->sinks[i].count * 8);
        fj_emu_guarded_free(w->out[i], (size_t)c->sinks[i].count * w->real);
    }
}

static int launch(const bwd_call *c, const bwd_variant *v, void *object, int mode, work *w,
                  fj_emu_counts *counts) {
    const shape *s = c->s;
    const uint32_t threads = (uint32_t)v->warps * 32, shared = (uint32_t)bwd_variant_shared(v);
    const struct {
        const char *name;
        fj_emu_shape grid;
    } launches[] = {
        {"fj_bwd_delta", {{3, 1, 1}, 128, 0}},
        {"fj_bwd_measure", /* as bwd_q */
         {{(uint32_t)(FJ_CEIL_DIV(s->q_len, v->m) * s->batch * s->heads_q), 1, 1}, threads, shared}},
        {"fj_bwd_kv",
         {{(uint32_t)(FJ_CEIL_DIV(s->kv_len, v->m) * s->batch * s->heads_kv), 1, 1}, threads, shared}},
        {"fj_bwd_q",
         {{(uint32_t)(FJ_CEIL_DIV(s->q_len, v->m) * s->batch * s->heads_q), 1, 1}, threads, shared}},
        {"fj_bwd_end", {{2, 1, 1}, 128, 0}},
    };
    const fj_launch one = {.struct_size = sizeof one, .workers = 1};
    fj_emu_options how = {(fj_emu_schedule)(mode / 2), (fj_emu_copies)(mode % 2), 7, 0, &one, counts};
    for (size_t i = 0; i < FJ_ARRAY_LEN(launches); i++) {
        const fj_emu_kernel *kernel = dlsym(object, launches[i].name);
        fj_error error = {0};
        if (!kernel && (i == 1 || i == 4)) continue; /* nothing captured */
        how.counts = i == 1 ? NULL : counts;
        if (!kernel || kernel->args_size != w->args_size)
            return printf("    %s: arguments\n", launches[i].name), 1;
        if (fj_emu_launch(emu, kernel, &launches[i].grid, w->args, &how, &error) == FJ_OK) continue;
        printf("    %s %s\n", error.text, error.detail ? error.detail : "");
        fj_error_finish(&error);
        return 1;
    }
    return 0;
}

/* ---- Checking ---------------------------------------------------------------------------------------- */

static int differs(const char *what, const tensor *t, const double *want, const double *bound) {
    for (int64_t i = 0; i < elements(t); i++) {
        const double got = t->values[i];
        if (fabs(got - want[i]) <= bound[i]) continue;
        printf("    %s element %lld (of %lld) is %.9g, not %.9g; bound %.3g\n", what, (long long)i,
               (long long)elements(t), got, want[i], bound[i]);
        return 1;
    }
    return 0;
}

static int sink_differs(const bwd_call *c, const work *w, int index) {
    const bwd_sink *sink = &c->sinks[index];
    const fj_eval_tensor *t = index < MAX_CAPTURES ? &c->captures[index] : NULL;
    double square = 0;
    for (int64_t i = 0; i < sink->count; i++) square += sink->want[i] * sink->want[i] / (double)sink->count;
    for (int64_t i = 0; i < sink->count; i++) {
        int64_t place = 0, rest = i, stride[FJ_MAX_RANK] = {0}, next = 1;
        for (int d = 0; t && d < FJ_MAX_RANK && t->dims[d]; d++) stride[d] = next, next *= t->dims[d];
        for (int d = FJ_MAX_RANK - 1; t && d >= 0; d--)
            if (t->dims[d]) place += rest % t->dims[d] * stride[d], rest /= t->dims[d];
        const double got =
            w->real == 8 ? ((double *)w->out[index])[place] : (double)((float *)w->out[index])[place];
        const double bound =
            0x1p-12 * (fabs(sink->want[i]) + sqrt(square)) + 0x1p-16 * sink->mass / (double)sink->count;
        if (fabs(got - sink->want[i]) <= bound) continue;
        printf("    gradient %d, element %lld (of %lld), is %.9g, not %.9g; bound %.3g\n", index,
               (long long)i, (long long)sink->count, got, sink->want[i], bound);
        return 1;
    }
    return 0;
}

static int check(bwd_call *c, const work *w) {
    int wrong = 0;
    tensor *outputs[] = {&c->dquery, &c->dkey, &c->dvalue};
    static const char *const names[] = {"dquery", "dkey", "dvalue"};
    for (int i = 0; i < 3; i++) {
        if (!tensor_read(outputs[i]))
            printf("    %s: written outside of its elements\n", names[i]), wrong = 1;
        wrong |= differs(names[i], outputs[i], c->want[i], c->bound[i]);
    }
    for (int i = 0; i < SINKS; i++)
        if (c->sinks[i].count) wrong |= sink_differs(c, w, i);
    return wrong;
}

/* Everything that was written, one after the other; all: also what atomics add up. */
static size_t collect(const bwd_call *c, const work *w, bool all, unsigned char *to) {
    const tensor *outputs[] = {&c->dquery, &c->dkey, &c->dvalue};
    size_t at = 0;
    for (int i = all ? 0 : 1; i < 3; at += outputs[i++]->bytes)
        if (to) memcpy(to + at, outputs[i]->memory, outputs[i]->bytes);
    for (int i = 0; i < SINKS && all; i++) {
        const size_t size = (size_t)c->sinks[i].count * w->real;
        if (to && size) memcpy(to + at, w->out[i], size);
        at += size;
    }
    return at;
}

/* Tiles of `own` by `walked` rows, over all query heads, in which something is visible. */
static int64_t live_tiles(const bwd_call *c, int64_t rows, int64_t keys) {
    const shape *s = c->s;
    int64_t live = 0;
    for (int64_t head = 0; head < s->batch * s->heads_q; head++)
        for (int64_t q = 0; q < s->q_len; q += rows)
            for (int64_t k = 0; k < s->kv_len; k += keys) {
                bool any = false;
                for (int64_t i = q; i < q + rows && i < s->q_len; i++)
                    for (int64_t j = k; j < k + keys && j < s->kv_len; j++)
                        any |= c->visible[(head * s->q_len + i) * s->kv_len + j];
                live += any;
            }
    return live;
}

static int check_counts(const bwd_call *c, const bwd_variant *v, const fj_emu_counts *counts) {
    if (strcmp(v->template, "mma") != 0) return 0;
    const int64_t unit = (int64_t)v->m / 16 * v->n / 8, e = FJ_MMA_PAD(v->e) / 16, w = FJ_MMA_PAD(v->v) / 16;
    const int64_t want =
        live_tiles(c, v->n, v->m) * unit * (2 * e + 2 * w) + live_tiles(c, v->m, v->n) * unit * (2 * e + w);
    const int64_t got = (int64_t)counts->matrix_products;
    int wrong = !v->atomic && (got < want || (got > want && bwd_mod_find(v->mod)->exact));
    if (wrong) printf("    %lld products, %lld are needed\n", (long long)got, (long long)want);
    if (counts->bank_conflicts) printf("    %d bank conflicts\n", (int)counts->bank_conflicts), wrong = 1;
    return wrong;
}

/* The first shape runs in all modes, the others in the two that differ most. */
static int run_shape(const bwd_variant *v, void *object, const bwd_graphs *graphs, int index) {
    bwd_call c;
    work w;
    int wrong = 0;
    make_call(&c, v, &shapes[index], graphs, index);
    make_work(&w, &c, v);
    const size_t size = collect(&c, &w, !v->atomic, NULL);
    unsigned char *first = calloc(2, size);
    for (int mode = 0; mode < MODES && !wrong; mode += index == 0 && !few ? 1 : 5) {
        tensor_clear(&c.dquery);
        tensor_clear(&c.dkey);
        tensor_clear(&c.dvalue);
        fj_emu_counts counts = {0};
        wrong = launch(&c, v, object, mode, &w, &counts);
        if (!wrong && mode == 0) wrong = check_counts(&c, v, &counts);
        if (!wrong && (mode == 0 || v->atomic)) wrong = check(&c, &w);
        (void)collect(&c, &w, !v->atomic, first + (mode ? size : 0));
        if (!wrong && mode && memcmp(first, first + size, size) != 0)
            printf("    mode %d: not the same bits as forward, eager\n", mode), wrong = 1;
    }
    if (wrong) printf("    at shape %d\n", index);
    free(first);
    finish_work(&w, &c);
    finish_call(&c);
    return wrong;
}

static int run_variant(const bwd_variant *v) {
    char path[512], name[128];
    fj_arena arena;
    path_of(v, ".so", path);
    bwd_variant_name(v, name);
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!object) return printf("%-56s %s\n", name, dlerror()), 1;
    fj_arena_init(&arena, &fj_allocator_libc);
    const bwd_graphs graphs = bwd_mod_compile(&arena, bwd_mod_find(v->mod));
    int wrong = 0;
    for (int i = 0; i < (int)FJ_ARRAY_LEN(shapes) && !wrong; i += few ? 2 : 1)
        wrong = run_shape(v, object, &graphs, i);
    printf("%-56s %s\n", name, wrong ? "WRONG" : "ok");
    (void)fflush(stdout);
    fj_arena_finish(&arena);
    (void)dlclose(object);
    return wrong;
}

/* ---- The program -------------------------------------------------------------------------------------- */

static int run_all(void) {
    int wrong = 0, status;
    for (int job = 0; job < JOBS; job++) {
        const pid_t child = fork();
        if (child != 0) continue;
        fj_error error = {0};
        int bad = fj_emu_create(&fj_allocator_libc, &emu, &error) != FJ_OK;
        for (int i = job; i < VARIANTS; i += JOBS)
            if (is_chosen(&variants[i])) bad |= compile_one(&variants[i]) != 0 || run_variant(&variants[i]);
        fj_emu_destroy(&emu);
        (void)fflush(stdout);
        _exit(bad);
    }
    while (wait(&status) > 0) wrong |= status;
    return wrong != 0;
}

/* Each plant in a process of its own, which must fail. */
static int run_plants(void) {
    int missed = 0;
    for (planted = bwd_plants; planted->name; planted++) {
        int status = 0;
        if (fork() == 0) {
            fj_error error = {0};
            int bad = fj_emu_create(&fj_allocator_libc, &emu, &error) != FJ_OK, i = 0;
            for (char name[128]; i < VARIANTS; i++) {
                bwd_variant_name(&variants[i], name);
                if (fnmatch(planted->variant, name, 0) == 0) break;
            }
            bad |= i == VARIANTS || compile_one(&variants[i]) != 0;
            if (bad) _exit(3);
            if (!freopen("/dev/null", "w", stdout)) _exit(3);
            _exit(run_variant(&variants[i]));
        }
        (void)wait(&status);
        const bool caught = WIFSIGNALED(status) || (WIFEXITED(status) && WEXITSTATUS(status) == 1);
        printf("%-40s %s\n", planted->name, caught ? "caught" : "MISSED");
        (void)fflush(stdout);
        missed |= !caught;
    }
    return missed;
}

int main(int argc, char **argv) {
    char folder[] = "/tmp/kern_cuda_bwd.XXXXXX", command[600];
    bool kept = false, with_plants = false;
    for (int i = 1; i < argc; i++) {
        const char *next = i + 1 < argc ? argv[i + 1] : "";
        if (strcmp(argv[i], "--filter") == 0)
            options.filter = next, i++;
        else if (strcmp(argv[i], "--cxx") == 0)
            options.cxx = next, i++;
        else if (strcmp(argv[i], "--flags") == 0)
            options.flags = next, i++;
        else if (strcmp(argv[i], "--keep") == 0)
            options.folder = next, kept = true, i++;
        else if (strcmp(argv[i], "--few") == 0)
            few = true;
        else if (strcmp(argv[i], "--plants") == 0)
            with_plants = true;
        else if (strcmp(argv[i], "--nvrtc") == 0)
            return bwd_nvrtc_table(options.root, strcmp(next, "all") == 0);
        else
            return printf(
                       "usage: kern_cuda_bwd [--filter GLOB] [--cxx C] [--flags F] [--keep DIR] [--few] [--nvrtc [all]] [--plants]\n"),
                   2;
    }
    if (kept)
        (void)mkdir(options.folder, 0700);
    else
        options.folder = mkdtemp(folder);
    if (!options.folder) return 2;
    const int wrong = with_plants ? run_plants() : run_all();
    (void)snprintf(command, sizeof command, "rm -rf %s", options.folder);
    if (!kept && system(command) != 0) return 2;
    return wrong;
}
