/* Times of an encoder layer, F32, gelu, no dropout, and of its products alone by the same BLAS, in turns: minima in milliseconds,
 * as JSON. bench/layers.sh says how it is used.
 *
 * usage: layers B L D HEADS FEEDFORWARD WORKERS ROUNDS
 */
#include <dlfcn.h>
#include <flexjit/nn.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ROW_MAJOR = 101, PLAIN = 111, TRANSPOSED = 112, PARAMETERS = 12 };

typedef void sgemm_fn(int order, int trans_a, int trans_b, int m, int n, int k, float alpha, const float *a,
                      int lda, const float *b, int ldb, float beta, float *c, int ldc);

static sgemm_fn *sgemm;
static void (*set_threads)(int);
static int batch, length, width, heads, inner, workers, rows;

static void fail(const char *what, const char *why) {
    (void)fprintf(stderr, "layers: %s: %s\n", what, why);
    exit(1);
}

static void open_blas(void) {
    const char *name = getenv("FLEXJIT_BLAS");
    void *library = dlopen(name && *name ? name : "libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    if (!library) fail("no BLAS", dlerror());
    void *symbols[] = {dlsym(library, "cblas_sgemm"), dlsym(library, "openblas_set_num_threads")};
    memcpy(&sgemm, &symbols[0], sizeof sgemm);
    memcpy(&set_threads, &symbols[1], sizeof set_threads);
    if (!sgemm) fail("no cblas_sgemm in", name);
}

static float *numbers(size_t count, float scale) {
    float *data = aligned_alloc(64, (count * sizeof *data + 63) / 64 * 64);
    if (!data) fail("memory", "none is left");
    for (size_t i = 0; i < count; i++) data[i] = scale * (float)((int)(i * 7919 % 1999) - 999) / 999;
    return data;
}

/* ---- Products ---------------------------------------------------------------------------------------------- */

/* y [m,n] = x [m,k] w [n,k]^T, and for a step its two gradients. */
static void linear(const float *x, const float *w, float *y, int n, int k, int step) {
    sgemm(ROW_MAJOR, PLAIN, TRANSPOSED, rows, n, k, 1, x, k, w, k, 0, y, n);
    if (!step) return;
    static float *dx, *dw;
    if (!dx) dx = numbers((size_t)rows * (size_t)(3 * width + inner), 1);
    if (!dw) dw = numbers((size_t)(3 * width + inner) * (size_t)(width + inner), 1);
    sgemm(ROW_MAJOR, PLAIN, PLAIN, rows, k, n, 1, y, n, w, k, 0, dx, k);
    sgemm(ROW_MAJOR, TRANSPOSED, PLAIN, n, k, rows, 1, y, n, x, k, 0, dw, k);
}

static void linear_products(const float *x, const float *w, float *y, int step) {
    set_threads(workers);
    linear(x, w, y, 3 * width, width, step);
    linear(x, w, y, width, width, step);
    linear(x, w, y, inner, width, step);
    linear(x, w, y, width, inner, step);
}

/* Of all heads, each on one thread: scores and output; for a step the four of their gradients too. */
static void attention_products(const float *qkv, float *scores, float *out, int step) {
    const int e = width / heads, ld = 3 * width;
    set_threads(1);
#pragma omp parallel for schedule(dynamic) num_threads(workers)
    for (int i = 0; i < batch * heads; i++) {
        const float *q = qkv + (size_t)(i / heads * length) * (size_t)ld + i % heads * e, *k = q + width,
                    *v = k + width;
        float *s = scores + (size_t)omp_get_thread_num() * (size_t)length * (size_t)length;
        float *o = out + (size_t)(i / heads * length) * (size_t)ld + i % heads * e;
        sgemm(ROW_MAJOR, PLAIN, TRANSPOSED, length, length, e, 1, q, ld, k, ld, 0, s, length);
        sgemm(ROW_MAJOR, PLAIN, PLAIN, length, e, length, 1, s, length, v, ld, 0, o, ld);
        if (!step) continue;
        sgemm(ROW_MAJOR, PLAIN, TRANSPOSED, length, length, e, 1, q, ld, v, ld, 0, s, length);
        sgemm(ROW_MAJOR, TRANSPOSED, PLAIN, length, e, length, 1, s, length, q, ld, 0, o + 2 * width, ld);
        sgemm(ROW_MAJOR, PLAIN, PLAIN, length, e, length, 1, s, length, k, ld, 0, o, ld);
        sgemm(ROW_MAJOR, TRANSPOSED, PLAIN, length, e, length, 1, s, length, q, ld, 0, o + width, ld);
    }
}

/* ---- The layer ----------------------------------------------------------------------------------------------- */

static fj_error error;

static void must(fj_status status) {
    if (status != FJ_OK) fail("flexjit", error.text);
}

typedef struct tensor {
    DLTensor dl;
    int64_t shape[3];
} tensor;

static const DLTensor *make(tensor *t, int rank, int64_t a, int64_t b, int64_t c, float scale) {
    const int64_t shape[] = {a, b, c};
    size_t count = 1;
    for (int i = 0; i < rank; i++) count *= (size_t)shape[i];
    memcpy(t->shape, shape, sizeof shape);
    t->dl = (DLTensor){.data = numbers(count, scale),
                       .device = {kDLCPU, 0},
                       .ndim = rank,
                       .dtype = fj_dtype_to_dlpack(FJ_DTYPE_F32),
                       .shape = t->shape};
    return &t->dl;
}

static fj_encoder_layer make_layer(tensor t[PARAMETERS]) {
    const float scale = 0.05F;
    return (fj_encoder_layer){
        .self_attn = {.in = {make(&t[0], 2, 3 * width, width, 1, scale),
                             make(&t[1], 1, 3 * width, 1, 1, scale)},
                      .out = {make(&t[2], 2, width, width, 1, scale), make(&t[3], 1, width, 1, 1, scale)}},
        .linear1 = {make(&t[4], 2, inner, width, 1, scale), make(&t[5], 1, inner, 1, 1, scale)},
        .linear2 = {make(&t[6], 2, width, inner, 1, scale), make(&t[7], 1, width, 1, 1, scale)},
        .norm1 = {make(&t[8], 1, width, 1, 1, 1), make(&t[9], 1, width, 1, 1, scale)},
        .norm2 = {make(&t[10], 1, width, 1, 1, 1), make(&t[11], 1, width, 1, 1, scale)},
    };
}

static void *memory_of(size_t size) {
    void *memory = aligned_alloc(256, (size + 255) / 256 * 256 + 256);
    if (!memory) fail("memory", "none is left");
    return memset(memory, 0, size); /* its pages are there before anything is measured */
}

int main(int count, char **arguments) {
    int *const values[] = {&batch, &length, &width, &heads, &inner, &workers};
    if (count != 8) fail("usage", "layers B L D HEADS FEEDFORWARD WORKERS ROUNDS");
    for (int i = 0; i < 6; i++) *values[i] = atoi(arguments[i + 1]);
    rows = batch * length;
    open_blas();
    fj_context *context;
    fj_device *device;
    fj_encoder *encoder;
    const fj_encoder_desc desc = {.struct_size = sizeof desc,
                                  .dtype = FJ_DTYPE_F32,
                                  .layer = {.d_model = width,
                                            .heads = heads,
                                            .dim_feedforward = inner,
                                            .activation = FJ_ACTIVATION_GELU,
                                            .batch_first = true}};
    must(fj_context_create(NULL, &context));
    must(fj_device_create(context, FJ_DEVICE_CPU, &device, &error));
    must(fj_encoder_create(device, &desc, &encoder, &error));
    tensor parameters[PARAMETERS], gradients[PARAMETERS], src, out, dout, dsrc;
    const fj_encoder_layer layer = make_layer(parameters), dlayer = make_layer(gradients);
    const fj_encoder_call call = {.struct_size = sizeof call,
                                  .layers = &layer,
                                  .src = make(&src, 3, batch, length, width, 1),
                                  .out = make(&out, 3, batch, length, width, 1),
                                  .dout = make(&dout, 3, batch, length, width, 1),
                                  .dsrc = make(&dsrc, 3, batch, length, width, 1),
                                  .dlayers = &dlayer};
    const fj_launch launch = {.struct_size = sizeof launch, .workers = workers};
    fj_nn_sizes sizes;
    must(fj_encoder_sizes(encoder, &call, &launch, &sizes, &error));
    const size_t most = sizes.forward > sizes.backward ? sizes.forward : sizes.backward;
    const fj_nn_memory training = {memory_of(most), most, memory_of(sizes.saved), sizes.saved};
    fj_nn_memory evaluation = training;
    evaluation.saved = NULL;

    float *x = numbers((size_t)rows * (size_t)(3 * width + inner), 1);
    float *w = numbers((size_t)(3 * width + inner) * (size_t)(width + inner), 0.05F);
    float *y = numbers((size_t)rows * (size_t)(3 * width + inner), 1);
    float *scores = numbers((size_t)workers * (size_t)length * (size_t)length, 1);
    enum { LAYER, STEP, LINEAR, LINEAR_STEP, ATTENTION, ATTENTION_STEP, CASES };
    static const char *const names[] = {"forward",     "step",      "linear",
                                        "linear step", "attention", "attention step"};
    double best[CASES];
    for (int i = 0; i < CASES; i++) best[i] = 1e30;
    for (int round = -1; round < atoi(arguments[7]); round++)
        for (int i = 0; i < CASES; i++) {
            const double start = omp_get_wtime();
            if (i == LAYER) must(fj_encoder_forward(encoder, &call, &launch, &evaluation, &error));
            if (i == STEP) {
                must(fj_encoder_forward(encoder, &call, &launch, &training, &error));
                must(fj_encoder_backward(encoder, &call, &launch, &training, &error));
            }
            if (i == LINEAR || i == LINEAR_STEP) linear_products(x, w, y, i == LINEAR_STEP);
            if (i == ATTENTION || i == ATTENTION_STEP) attention_products(x, scores, y, i == ATTENTION_STEP);
            const double ms = (omp_get_wtime() - start) * 1e3;
            if (round >= 0 && ms < best[i]) best[i] = ms;
        }
    printf("{");
    for (int i = 0; i < CASES; i++) printf("%s\"%s\": %.3f", i ? ", " : "", names[i], best[i]);
    printf("}\n");
    fj_encoder_unref(&encoder);
    fj_device_unref(&device);
    fj_context_unref(&context);
    return 0;
}
