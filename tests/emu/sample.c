/* Runs a sample kernel in every schedule, with copies eager and late, and checks its output.
 *
 * usage: sample OBJECT.so gemm|reduce [--few]      --few: two modes of the six, for ThreadSanitizer
 *
 * Exit status 0: every output is right, all are the same bits, and no matrix load had a bank conflict.
 * 1: not so. A sanitizer that the object was compiled with, and this program linked with, ends it otherwise.
 */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "driver/emu/emu.h"

struct gemm_args {
    const uint16_t *a, *b;
    float *c;
    int32_t m, n, k;
};

struct reduce_args {
    const float *in;
    float *out;
    int32_t columns, turn;
};

enum { M = 70, N = 60, K = 136, ROWS = 3, COLUMNS = 250 };

struct sample {
    fj_emu_shape shape;
    union {
        struct gemm_args gemm;
        struct reduce_args reduce;
    } args;
    size_t outputs;
    float *out, *first;
    double *expected, *scale; /* and what a bound is relative to */
    void *memory[2];
};

static double uniform(void) {
    static uint32_t state = 12345;
    state = state * 1664525u + 1013904223u;
    return (double)(state >> 8) / (1 << 23) - 1.0;
}

static uint16_t bf16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (uint16_t)(bits >> 16);
}

static double from_bf16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

static void *must(void *pointer) {
    if (!pointer) abort();
    return pointer;
}

static void make_outputs(struct sample *s, size_t count) {
    s->outputs = count;
    s->out = must(malloc(count * sizeof *s->out));
    s->first = must(malloc(count * sizeof *s->first));
    s->expected = must(calloc(count, sizeof *s->expected));
    s->scale = must(calloc(count, sizeof *s->scale));
}

static void make_gemm(struct sample *s) {
    uint16_t *a = must(malloc(M * K * sizeof *a)), *b = must(malloc(N * K * sizeof *b));
    for (int i = 0; i < M * K; i++) a[i] = bf16((float)uniform());
    for (int i = 0; i < N * K; i++) b[i] = bf16((float)uniform());
    make_outputs(s, (size_t)M * N);
    for (int i = 0; i < M; i++)
        for (int j = 0; j < N; j++)
            for (int k = 0; k < K; k++) {
                double product = from_bf16(a[i * K + k]) * from_bf16(b[j * K + k]);
                s->expected[i * N + j] += product;
                s->scale[i * N + j] += fabs(product);
            }
    s->args.gemm = (struct gemm_args){a, b, s->out, M, N, K};
    s->shape = (fj_emu_shape){.grid = {(N + 63) / 64, (M + 63) / 64, 1}, .threads = 128, .shared = 32768};
    s->memory[0] = a;
    s->memory[1] = b;
}

static void make_reduce(struct sample *s) {
    float *in = must(malloc((size_t)ROWS * COLUMNS * sizeof *in));
    make_outputs(s, ROWS);
    for (int i = 0; i < ROWS * COLUMNS; i++) {
        in[i] = (float)uniform();
        s->expected[i / COLUMNS] += (double)in[i];
        s->scale[i / COLUMNS] += fabs((double)in[i]);
    }
    s->args.reduce = (struct reduce_args){in, s->out, COLUMNS, 0};
    s->shape = (fj_emu_shape){.grid = {ROWS, 1, 1}, .threads = 256, .shared = 32};
    s->memory[0] = in;
}

static int check(const struct sample *s, const char *mode) {
    for (size_t i = 0; i < s->outputs; i++)
        if (!(fabs((double)s->out[i] - s->expected[i]) <= s->scale[i] * 0x1p-19)) {
            printf("%s: output %zu is %.9g, not %.9g\n", mode, i, (double)s->out[i], s->expected[i]);
            return 1;
        }
    if (memcmp(s->out, s->first, s->outputs * sizeof *s->out) != 0) {
        printf("%s: not the same bits as in the first mode\n", mode);
        return 1;
    }
    return 0;
}

static int run(struct sample *s, const fj_emu_kernel *kernel, int few) {
    static const char *const schedules[] = {"forward", "reverse", "random"}, *const copies[] = {"eager",
                                                                                                "late"};
    fj_emu *emu = NULL;
    fj_error error = {0};
    int wrong = fj_emu_create(&fj_allocator_libc, &emu, &error) != FJ_OK;
    const bool is_reduce = strcmp(kernel->name, "reduce") == 0;
    for (int mode = 0; mode < 6 && !wrong; mode += few ? 3 : 1) { /* few: forward eager, reverse late */
        char name[32];
        fj_emu_counts counts = {0};
        fj_launch launch = {.struct_size = sizeof launch, .workers = 1};
        fj_emu_options options = {.schedule = (fj_emu_schedule)(mode / 2),
                                  .copies = (fj_emu_copies)(mode % 2),
                                  .seed = 7,
                                  .launch = &launch,
                                  .counts = &counts,
                                  .one_call_site = true,
                                  .shared_limit = 163 << 10};
        (void)snprintf(name, sizeof name, "%s, %s", schedules[mode / 2], copies[mode % 2]);
        if (is_reduce) s->args.reduce.turn = mode;
        memset(s->out, 0xff, s->outputs * sizeof *s->out);
        if (fj_emu_launch(emu, kernel, &s->shape, &s->args, &options, &error) != FJ_OK) {
            printf("%s: %s\n", name, error.text);
            wrong = 1;
            break;
        }
        if (mode == 0) memcpy(s->first, s->out, s->outputs * sizeof *s->out);
        wrong = check(s, name);
        if (counts.bank_conflicts)
            printf("%s: %d bank conflicts\n", name, (int)counts.bank_conflicts), wrong = 1;
    }
    fj_error_finish(&error);
    fj_emu_destroy(&emu);
    return wrong;
}

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    void *object = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
    const fj_emu_kernel *kernel = object ? dlsym(object, argv[2]) : NULL;
    if (!kernel) {
        printf("%s\n", dlerror());
        return 2;
    }
    struct sample s = {0};
    if (strcmp(argv[2], "gemm") == 0)
        make_gemm(&s);
    else
        make_reduce(&s);
    int wrong = run(&s, kernel, argc > 3);
    free(s.memory[0]);
    free(s.memory[1]);
    free(s.out);
    free(s.first);
    free(s.expected);
    free(s.scale);
    (void)dlclose(object);
    return wrong;
}
