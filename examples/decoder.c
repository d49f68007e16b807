/* Generation with a key cache: each step runs one query against the keys that are kept; its logits equal those of a pass over
 * all of the text. The model, an induction head, has no trained weights: head h of layer 1 sees the byte 1 + h places back;
 * layer 2 finds a place that follows the same bytes as the next one will, the latest first, and gives the byte there. */
#include "examples/common.h"
#include <math.h>
#include <string.h>

enum { HEADS = 8, DIM = 32, WIDE = HEADS * DIM, CAPACITY = 2048, STEPS = 72 };

static const char PROMPT[] = "\nFrom so simple", CONTINUED[] = " a beginning endless forms most beautiful";
static unsigned char text[CAPACITY];
static float embedding[256][DIM];

/* Kept for later positions: bytes, layer 1's key and both layers' value, and what is before them, layer 2's key. */
static struct cache {
    float bytes[CAPACITY][DIM], before[CAPACITY][WIDE], queries[CAPACITY][WIDE], out[CAPACITY][DIM];
    float lse[HEADS * CAPACITY];
} kept, fresh;

/* A layer's kernels: for many queries, and for few. */
static void make_layer(fj_context *context, fj_device *device, const fj_mod_desc *desc, fj_problem problem,
                       fj_kernel *kernels[2]) {
    fj_error error = {0};
    fj_mod *mod;
    must(fj_mod_create(context, desc, &mod, &error), &error);
    for (int few = 0; few < 2; few++) {
        fj_plan *plan;
        problem.few_queries = few;
        must(fj_plan_create(device, mod, &problem, &plan, &error), &error);
        must(fj_kernel_create(plan, &kernels[few], &error), &error);
        fj_plan_unref(&plan);
    }
    fj_mod_unref(&mod);
}

/* Rows [first, first + count) of a matrix whose heads lie side by side, as [1,heads,count,dim]. */
static DLTensor *rows(tensor *t, void *data, int heads, int first, int count, int dim) {
    float *begin = (float *)data + (size_t)first * (size_t)(heads * dim);
    tensor_of(t, begin, FJ_DTYPE_F32, 4, (int64_t[]){1, heads, count, dim});
    t->strides[1] = dim, t->strides[2] = (int64_t)heads * dim;
    return &t->dl;
}

static void attend(const fj_kernel *kernel, int first, fj_args args, float *lse) {
    tensor offset, lses;
    args.struct_size = sizeof args, args.scale = 1;
    args.q_offset = tensor_of(&offset, &(int32_t){first}, FJ_DTYPE_I32, 1, (int64_t[]){1});
    args.lse = tensor_of(&lses, lse, FJ_DTYPE_F32, 3, args.query->shape);
    launch(kernel, &args);
}

/* Both layers for bytes [first, first + count), which see the cache's rows before them and each other. */
static void run(fj_kernel *kernels[2][2], int few, struct cache *c, int first, int count) {
    const int end = first + count;
    tensor now, byte, before, now_before, key, out;
    for (int i = first; i < end; i++) memcpy(c->bytes[i], embedding[text[i]], sizeof c->bytes[i]);
    fj_args args = {.query = rows(&now, c->queries, HEADS, first, count, DIM), /* any: one key is seen */
                    .key = rows(&byte, c->bytes, 1, 0, end, DIM),
                    .value = &byte.dl,
                    .out = rows(&before, c->before, HEADS, first, count, DIM)};
    attend(kernels[0][few], first, args, c->lse);
    for (int i = first; i < end; i++) { /* what will be before the next byte: nearer ones count more */
        float *query = c->queries[i], weight = 12;
        for (int e = 0; e < DIM; e++) query[e] = weight * c->bytes[i][e];
        for (int e = DIM; e < WIDE; e++) query[e] = (weight -= 1.0F / DIM) * c->before[i][e - DIM];
    }
    args = (fj_args){.query = rows(&now_before, c->queries, 1, first, count, WIDE),
                     .key = rows(&key, c->before, 1, 0, end, WIDE),
                     .value = &byte.dl,
                     .out = rows(&out, c->out, 1, first, count, DIM)};
    attend(kernels[1][few], first, args, c->lse);
}

static double logit(const float *out, int byte) {
    double sum = 0;
    for (int e = 0; e < DIM; e++) sum += (double)out[e] * (double)embedding[byte][e];
    return sum;
}

int main(int argc, char **argv) {
    FILE *file = fopen(argc > 1 ? argv[1] : "examples/data/paragraph.txt", "rb");
    if (!file) return perror("the text"), 1;
    int length = (int)fread(text, 1, CAPACITY - sizeof PROMPT - STEPS, file);
    memcpy(text + length, PROMPT, sizeof PROMPT - 1), length += (int)sizeof PROMPT - 1, fclose(file);
    for (unsigned i = 0; i < 256 * DIM; i++) { /* signs by a hash: vectors of length 1, nearly orthogonal */
        const unsigned hash = (i + 1) * 2654435761U;
        embedding[i / DIM][i % DIM] = ((hash ^ hash >> 15) * 2246822519U >> 31 ? 1 : -1) / sqrtf(DIM);
    }
    fj_context *context;
    fj_device *device;
    open_cpu(&context, &device);
    fj_mod_desc back = {.struct_size = sizeof back, .mask = "kv == q - 1 - h"};
    fj_mod_desc match = {.struct_size = sizeof match, .score = "score + (kv - q) / 512", .mask = "q >= kv"};
    fj_problem problem = {.struct_size = sizeof problem, .dtype = FJ_DTYPE_F32, .q_offset = true};
    fj_kernel *kernels[2][2];
    problem.head_dim = DIM, problem.value_dim = DIM, problem.gqa = HEADS;
    make_layer(context, device, &back, problem, kernels[0]);
    problem.head_dim = WIDE, problem.gqa = 1;
    make_layer(context, device, &match, problem, kernels[1]);

    double worst = 0;
    const unsigned char *said = text + length;
    run(kernels, 0, &kept, 0, length); /* the prompt fills the cache */
    for (int step = 0; step < STEPS; step++, length++) {
        if (step > 0) run(kernels, 1, &kept, length - 1, 1);
        run(kernels, 0, &fresh, 0, length);
        int best = 0;
        for (int byte = 0; byte < 256; byte++) {
            const double now = logit(kept.out[length - 1], byte);
            worst = fmax(worst, fabs(now - logit(fresh.out[length - 1], byte)));
            if (now > logit(kept.out[length - 1], best)) best = byte;
        }
        text[length] = (unsigned char)best;
    }
    printf("%s|%.*s\nlargest difference from the full pass %.1e\n", PROMPT, STEPS, said, worst);
    for (int i = 0; i < 4; i++) fj_kernel_unref(&kernels[i / 2][i % 2]);
    fj_device_unref(&device), fj_context_unref(&context);
    return worst < 1e-5 && memcmp(said, CONTINUED, sizeof CONTINUED - 1) == 0 ? 0 : 1;
}
