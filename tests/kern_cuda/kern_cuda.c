/* kern_cuda [--filter GLOB] [--cxx COMPILER] [--flags FLAGS] [--keep DIR] [--few] [--plants | --sweep]
 * kern_cuda [--filter GLOB] --nvrtc [all]
 *
 * Every kernel below is compiled for the emulator, all of them in two processes, and run at several shapes:
 * against the definition in double, in several orders of threads and with copies that land early and late,
 * which must give the same bits; on inputs whose gaps are NaN and that end at a page without access. */
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
#include "tests/kern_cuda/kern_cuda.h"

static bool few; /* shapes and modes: for sanitizers */

static const variant chosen_variants[] = {
    {"mma", FJ_DTYPE_BF16, 64, 64, 64, 64, 2, 4, 0, 0, "none"},
    {"mma", FJ_DTYPE_F16, 80, 40, 64, 32, 3, 4, 0, 0, "causal"},
    {"mma", FJ_DTYPE_BF16, 128, 128, 128, 64, 2, 8, 0, 0, "alibi"},
    {"mma", FJ_DTYPE_BF16, 128, 128, 128, 64, 1, 4, 0, 0, "causal"},
    {"mma", FJ_DTYPE_F16, 20, 33, 64, 64, 1, 4, 1, 0, "document"},
    {"mma", FJ_DTYPE_BF16, 64, 96, 128, 32, 2, 4, 1, 1, "softcap"},
    {"mma", FJ_DTYPE_F16, 256, 256, 64, 32, 1, 4, 0, 0, "window"},
    {"mma", FJ_DTYPE_BF16, 16, 16, 32, 128, 2, 2, 0, 0, "bias"},
    {"mma", FJ_DTYPE_F16, 48, 32, 64, 64, 2, 4, 1, 0, "table"},
    {"mma", FJ_DTYPE_BF16, 32, 64, 64, 64, 1, 4, 0, 0, "late"},
    {"mma", FJ_DTYPE_F16, 64, 64, 64, 64, 2, 4, 0, 0, "infinite"},
    {"mma", FJ_DTYPE_F16, 32, 16, 64, 32, 2, 4, 0, 0, "fault"},
    {"mma", FJ_DTYPE_F32, 64, 64, 64, 32, 2, 4, 0, 0, "causal"},
    {"mma", FJ_DTYPE_F32, 20, 40, 64, 32, 1, 4, 1, 0, "bias"},
    {"mma", FJ_DTYPE_BF16, 72, 8, 16, 16, 4, 1, 1, 0, "rank0"},
    {"simt", FJ_DTYPE_F32, 64, 64, 64, 32, 1, 4, 0, 0, "alibi"},
    {"simt", FJ_DTYPE_BF16, 17, 130, 32, 32, 1, 4, 0, 0, "bias"},
    {"simt", FJ_DTYPE_F16, 40, 7, 64, 32, 1, 4, 1, 0, "document"},
    {"simt", FJ_DTYPE_F64, 33, 16, 32, 32, 1, 4, 0, 0, "window"},
    {"simt", FJ_DTYPE_F32, 100, 200, 16, 16, 1, 4, 1, 1, "table"},
    {"simt", FJ_DTYPE_F32, 8, 8, 8, 8, 1, 2, 0, 0, "none"},
    {"simt", FJ_DTYPE_F32, 16, 16, 64, 32, 1, 4, 0, 0, "infinite"},
    {"simt", FJ_DTYPE_F32, 9, 9, 16, 16, 1, 4, 1, 0, "fault"},
};
enum { VARIANTS = FJ_ARRAY_LEN(chosen_variants), SWEEP = 34, JOBS = 2, MODES = 6 };

/* --sweep: head dimensions in steps of 8, and two odd ones. */
static variant sweep[SWEEP];
static const variant *variants = chosen_variants;
static int variant_count = VARIANTS;

static void make_sweep(void) {
    static const fj_dtype dtypes[] = {FJ_DTYPE_BF16, FJ_DTYPE_F16, FJ_DTYPE_F32};
    for (int i = 0; i < SWEEP; i++) {
        const int e = i < 32 ? 8 * (i + 1) : i == 32 ? 1 : 155, v = i < 32 ? 8 * (i * 11 % 32 + 1) : e;
        const fj_dtype dtype = dtypes[e + v > 256 ? i % 2 : i % 3];
        sweep[i] = (variant){"mma", dtype, e, v, 64 << i % 2, 32, 1 + i % 3, 4, i / 2 % 2, 0, "alibi"};
    }
    variants = sweep;
    variant_count = SWEEP;
    few = true;
}

static const shape shapes[] = {
    {1, 2, 2, 70, 200, 0.35, LAYOUT_PACKED, 0, 0},   {2, 3, 1, 65, 129, 0.2, LAYOUT_ROWS, 0, 0},
    {1, 8, 1, 5, 64, -0.3, LAYOUT_ODD, 59, 0},       {1, 1, 1, 1, 1, 1.0, LAYOUT_PACKED, 0, 0},
    {2, 4, 2, 64, 63, 0.0, LAYOUT_ROWS, 0, 0},       {1, 3, 3, 17, 1, 0.25, LAYOUT_ODD, 5, 0},
    {1, 6, 2, 33, 300, 1.5, LAYOUT_PACKED, 300, 33},
};

static struct {
    const char *root, *filter, *cxx, *flags, *folder;
} options = {KERN_SOURCE "/templates", "*", "c++", "-O1", NULL};

static fj_emu *emu;
static const plant *planted; /* into what is compiled now */

/* ---- Compiling ------------------------------------------------------------------------------------ */

static void path_of(const variant *v, const char *suffix, char path[512]) {
    char name[128];
    variant_name(v, name);
    (void)snprintf(path, 512, "%s/%s%s", options.folder, name, suffix);
}

static bool is_chosen(const variant *v) {
    char name[128];
    variant_name(v, name);
    return fnmatch(options.filter, name, 0) == 0;
}

static int compile_one(const variant *v) {
    char source[512], object[512], command[4096];
    fj_arena arena;
    fj_buf text;
    path_of(v, ".cc", source);
    path_of(v, ".so", object);
    fj_arena_init(&arena, &fj_allocator_libc);
    fj_buf_init(&text, &fj_allocator_libc);
    render(v, mod_compile(&arena, mod_find(v->mod)), options.root, &text);
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

/* All chosen kernels, by JOBS processes. */
static int compile_all(void) {
    int wrong = 0, status;
    for (int job = 0; job < JOBS; job++) {
        const pid_t child = fork();
        if (child != 0) continue;
        for (int i = job; i < variant_count; i += JOBS)
            if (is_chosen(&variants[i])) wrong |= compile_one(&variants[i]);
        _exit(wrong);
    }
    while (wait(&status) > 0) wrong |= status;
    return wrong;
}

/* ---- Calls ------------------------------------------------------------------------------------------ */

static void make_captures(call *c, const mod *m) {
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
                       : dims[d] == '5' ? 50
                                        : q + kv;
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
    }
}

static void make_call(call *c, const variant *v, const shape *s, const fj_ir *ir) {
    const int64_t rows[] = {s->batch, s->heads_q, s->q_len, 1};
    const int64_t q[] = {s->batch, s->heads_q, s->q_len, v->e}, o[] = {s->batch, s->heads_q, s->q_len, v->v};
    const int64_t k[] = {s->batch, s->heads_kv, s->kv_len, v->e},
                  w[] = {s->batch, s->heads_kv, s->kv_len, v->v};
    const fj_dtype real = v->dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32;
    *c = (call){.s = s, .ir = ir};
    tensor_make(&c->query, v->dtype, q, s->how);
    tensor_make(&c->key, v->dtype, k, s->how);
    tensor_make(&c->value, v->dtype, w, s->how);
    tensor_make(&c->out, v->partial ? real : v->dtype, o, s->how);
    tensor_make(&c->lse, real, rows, LAYOUT_PACKED);
    tensor_make(&c->max, real, rows, LAYOUT_ROWS);
    tensor_fill(&c->query, 1.5);
    tensor_fill(&c->key, 1.5);
    tensor_fill(&c->value, 2);
    make_captures(c, mod_find(v->mod));
    if (mod_find(v->mod)->table) {
        c->q_position = calloc((size_t)s->q_len, sizeof(int32_t));
        c->kv_position = calloc((size_t)s->kv_len, sizeof(int32_t));
        for (int64_t i = 0; i < s->q_len; i++) c->q_position[i] = (int32_t)(i * 7 % 50);
        for (int64_t i = 0; i < s->kv_len; i++) c->kv_position[i] = (int32_t)(i * 5 % 64);
    }
    reference_run(c, v->dtype);
}

static void finish_call(call *c) {
    tensor *all[] = {&c->query, &c->key, &c->value, &c->out, &c->lse, &c->max};
    for (int i = 0; i < 6; i++) tensor_finish(all[i]);
    for (int i = 0; i < MAX_CAPTURES; i++) free((void *)(uintptr_t)c->captures[i].data);
    free(c->q_position);
    free(c->kv_position);
    reference_finish(c);
}

/* ---- Launching -------------------------------------------------------------------------------------- */

typedef struct packet {
    struct fj_cuda_forward call;
    struct fj_cuda_capture captures[MAX_CAPTURES];
} packet;

static fj_status launch(call *c, const variant *v, const fj_emu_kernel *kernel, int mode,
                        struct fj_cuda_fault *fault, fj_emu_counts *counts, fj_error *error) {
    const shape *s = c->s;
    packet p = {.call = {.query = tensor_describe(&c->query),
                         .key = tensor_describe(&c->key),
                         .value = tensor_describe(&c->value),
                         .out = tensor_describe(&c->out),
                         .lse = tensor_describe(&c->lse),
                         .max = tensor_describe(&c->max),
                         .q_position = c->q_position,
                         .kv_position = c->kv_position,
                         .fault = fault,
                         .scale = s->scale,
                         .q_offset = s->q_offset,
                         .kv_offset = s->kv_offset,
                         .batch = (int32_t)s->batch,
                         .heads_q = (int32_t)s->heads_q,
                         .heads_kv = (int32_t)s->heads_kv,
                         .q_len = (int32_t)s->q_len,
                         .kv_len = (int32_t)s->kv_len,
                         .section = 2}};
    p.call.vector = (tensor_is_vector(&c->query) ? FJ_CUDA_VECTOR_QUERY : 0) |
                    (tensor_is_vector(&c->key) ? FJ_CUDA_VECTOR_KEY : 0) |
                    (tensor_is_vector(&c->value) ? FJ_CUDA_VECTOR_VALUE : 0) |
                    (tensor_is_vector(&c->out) ? FJ_CUDA_VECTOR_OUT : 0);
    for (int i = 0; i < MAX_CAPTURES; i++) {
        p.captures[i].data = c->captures[i].data;
        memcpy(p.captures[i].shape, c->captures[i].dims, sizeof p.captures[i].shape);
        memcpy(p.captures[i].stride, c->captures[i].strides, sizeof p.captures[i].stride);
    }
    const int64_t group = v->pack ? s->heads_q / s->heads_kv : 1;
    const int64_t tiles = FJ_CEIL_DIV(s->q_len * group, v->m), columns = s->batch * s->heads_q / group;
    const bool simt = strcmp(v->template, "simt") == 0;
    const fj_emu_shape grid = {
        {(uint32_t)(tiles * columns), 1, simt ? (uint32_t)FJ_FWD_SIMT_SLICES(v->v) : 1},
        (uint32_t)v->warps * 32,
        (uint32_t)variant_shared(v)};
    const fj_launch one = {.struct_size = sizeof one, .workers = 1};
    const fj_emu_options how = {(fj_emu_schedule)(mode / 2), (fj_emu_copies)(mode % 2), 7, 0, &one, counts};
    tensor_clear(&c->out);
    tensor_clear(&c->lse);
    tensor_clear(&c->max);
    return fj_emu_launch(emu, kernel, &grid, &p, &how, error);
}

/* ---- Checking ---------------------------------------------------------------------------------------- */

static int differs(const char *what, const tensor *t, const double *want, const double *bound, int64_t each) {
    const int64_t count = t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3];
    for (int64_t i = 0; i < count; i++) {
        const double got = t->values[i], off = fabs(got - want[i]);
        if (got == want[i] || off <= bound[i / each] || (got != got && want[i] != want[i])) continue;
        printf("    %s element %lld (of %lld) is %.9g, not %.9g; bound %.3g\n", what, (long long)i,
               (long long)count, got, want[i], bound[i / each]);
        return 1;
    }
    return 0;
}

static int check(call *c, bool has_max) {
    int wrong = 0;
    tensor *outputs[] = {&c->out, &c->lse, &c->max};
    static const char *const names[] = {"out", "lse", "max"};
    for (int i = 0; i < 3; i++)
        if (!tensor_read(outputs[i]))
            printf("    %s: written outside of its elements\n", names[i]), wrong = 1;
    wrong |= differs("out", &c->out, c->want_out, c->bound_out, 1);
    wrong |= differs("lse", &c->lse, c->want_lse, c->bound_lse, 1);
    if (has_max) return wrong | differs("max", &c->max, c->want_max, c->bound_lse, 1);
    for (size_t i = 0; i < c->max.bytes; i++) wrong |= c->max.memory[i] != 0xff;
    return wrong;
}

/* Blocks of keys in which some row of a tile sees something, over all tiles. */
static int64_t live_blocks(const call *c, const variant *v) {
    const shape *s = c->s;
    const int64_t group = v->pack ? s->heads_q / s->heads_kv : 1, rows = s->q_len * group;
    int64_t live = 0;
    for (int64_t column = 0; column < s->batch * s->heads_q / group; column++)
        for (int64_t first = 0; first < rows; first += v->m)
            for (int64_t key = 0; key < s->kv_len; key += v->n) {
                bool any = false;
                for (int64_t row = first; row < first + v->m && row < rows; row++)
                    for (int64_t kv = key; kv < key + v->n && kv < s->kv_len; kv++)
                        any |=
                            c->visible[((column * group + row % group) * s->q_len + row / group) * s->kv_len +
                                       kv];
                live += any;
            }
    return live;
}

static int check_counts(const call *c, const variant *v, const fj_emu_counts *counts) {
    if (strcmp(v->template, "mma") != 0) return 0;
    const int steps = v->dtype == FJ_DTYPE_F32 ? 6 : 1; /* half as deep, three products */
    const int64_t each = (int64_t)v->m / 16 * (v->n / 8) * (FJ_MMA_PAD(v->e) / 16) +
                         (int64_t)v->m / 16 * (v->n / 16) * (FJ_MMA_PAD(v->v) / 8);
    const int64_t want = live_blocks(c, v), got = (int64_t)counts->matrix_products / each / steps;
    int wrong = got < want || (got > want && mod_find(v->mod)->exact);
    if (wrong) printf("    %lld blocks were computed, %lld are live\n", (long long)got, (long long)want);
    if (counts->bank_conflicts) printf("    %d bank conflicts\n", (int)counts->bank_conflicts), wrong = 1;
    return wrong;
}

/* The first shape runs in all modes, the others in the two that differ most. */
static int run_shape(const variant *v, const fj_emu_kernel *kernel, const fj_ir *ir, int index) {
    call c;
    int wrong = 0;
    make_call(&c, v, &shapes[index], ir);
    unsigned char *first = calloc(1, c.out.bytes + c.lse.bytes);
    for (int mode = 0; mode < MODES && !wrong; mode += index == 0 && !few ? 1 : 5) {
        fj_error error = {0};
        struct fj_cuda_fault fault = {0};
        fj_emu_counts counts = {0};
        if (launch(&c, v, kernel, mode, &fault, &counts, &error) != FJ_OK) {
            printf("    %s %s\n", error.text, error.detail ? error.detail : "");
            fj_error_finish(&error);
            wrong = 1;
            break;
        }
        if ((fault.found != 0) != c.want_fault || (fault.found && (fault.kv < 50 || fault.q < fault.kv))) {
            printf("    fault %u at b=%d h=%d q=%d kv=%d\n", fault.found, fault.b, fault.h, fault.q,
                   fault.kv);
            wrong = 1;
        }
        if (mode == 0) {
            memcpy(first, c.out.memory, c.out.bytes), memcpy(first + c.out.bytes, c.lse.memory, c.lse.bytes);
            wrong |= check(&c, variant_has_max(v)) | check_counts(&c, v, &counts);
        } else if (memcmp(first, c.out.memory, c.out.bytes) != 0 ||
                   memcmp(first + c.out.bytes, c.lse.memory, c.lse.bytes) != 0) {
            printf("    mode %d: not the same bits as forward, eager\n", mode);
            wrong = 1;
        }
    }
    if (wrong) printf("    at shape %d\n", index);
    free(first);
    finish_call(&c);
    return wrong;
}

static int run_variant(const variant *v) {
    char path[512], name[128];
    fj_arena arena;
    path_of(v, ".so", path);
    variant_name(v, name);
    void *object = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    const fj_emu_kernel *kernel = object ? dlsym(object, "fj_fwd") : NULL;
    if (!kernel) {
        printf("%-48s %s\n", name, dlerror());
        return 1;
    }
    fj_arena_init(&arena, &fj_allocator_libc);
    const fj_ir *ir = mod_compile(&arena, mod_find(v->mod));
    const size_t header = sizeof(struct fj_cuda_forward) + ir->captures.len * sizeof(struct fj_cuda_capture);
    int wrong = kernel->args_size != header;
    if (wrong) printf("    arguments of %u bytes, not %zu\n", kernel->args_size, header);
    for (int i = 0; i < (int)FJ_ARRAY_LEN(shapes) && !wrong; i += few ? 2 : 1)
        wrong = run_shape(v, kernel, ir, i);
    printf("%-48s %s\n", name, wrong ? "WRONG" : "ok");
    (void)fflush(stdout);
    fj_arena_finish(&arena);
    (void)dlclose(object);
    return wrong;
}

/* ---- The program -------------------------------------------------------------------------------------- */

static int run_all(void) {
    int wrong = compile_all(), status;
    for (int job = 0; job < JOBS; job++) {
        const pid_t child = fork();
        if (child != 0) continue;
        fj_error error = {0};
        int bad = fj_emu_create(&fj_allocator_libc, &emu, &error) != FJ_OK;
        for (int i = job; i < variant_count; i += JOBS)
            if (is_chosen(&variants[i])) bad |= run_variant(&variants[i]);
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
    for (planted = plants; planted->name; planted++) {
        int status = 0;
        if (fnmatch(options.filter, planted->name, 0) != 0) continue;
        if (fork() == 0) {
            fj_error error = {0};
            int bad = fj_emu_create(&fj_allocator_libc, &emu, &error) != FJ_OK, i = 0;
            for (char name[128]; i < variant_count; i++) {
                variant_name(&variants[i], name);
                if (fnmatch(planted->variant, name, 0) == 0) break;
            }
            bad |= i == variant_count || compile_one(&variants[i]) != 0;
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
    char folder[] = "/tmp/kern_cuda.XXXXXX", command[600];
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
        else if (strcmp(argv[i], "--sweep") == 0)
            make_sweep();
        else if (strcmp(argv[i], "--plants") == 0)
            with_plants = true;
        else if (strcmp(argv[i], "--nvrtc") == 0)
            return nvrtc_table(options.root, options.filter, strcmp(next, "all") == 0);
        else {
            printf(
                "usage: kern_cuda [--filter GLOB] [--cxx COMPILER] [--flags FLAGS] [--keep DIR] [--few] [--plants]\n"
                "       kern_cuda [--filter GLOB] --nvrtc [all]\n");
            return 2;
        }
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
