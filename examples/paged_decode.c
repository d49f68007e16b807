/* One step of decoding: two sequences of different lengths whose keys and values lie in pages, in any order. The window of
 * the mask sees positions in the sequence; the result is checked against the definition. */
#include <flexjit/flexjit.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 2, HEADS = 6, KV_HEADS = 2, DIM = 32, PAGE = 16, PAGES = 12, TABLE = 5, WINDOW = 40 };

static float q[BATCH][HEADS][1][DIM], out[BATCH][HEADS][1][DIM], lse[BATCH][HEADS][1];
static float k_pages[PAGES][PAGE][KV_HEADS][DIM], v_pages[PAGES][PAGE][KV_HEADS][DIM];
static int32_t page_table[BATCH][TABLE] = {{7, 2, 11, 0, 5}, {3, 9, -1, -1, -1}}; /* -1: no page */
static int32_t kv_lens[BATCH] = {77, 20}, q_offset[BATCH] = {76, 19}; /* the newest key is the query's own */

static void must(fj_status status, fj_error *error) {
    if (status == FJ_OK) return;
    char text[2048];
    fj_error_format(error, text, sizeof text);
    fputs(text, stderr);
    fj_error_finish(error);
    exit(1);
}

static DLTensor tensor(void *data, fj_dtype dtype, int rank, int64_t *shape) {
    return (DLTensor){.data = data,
                      .device = {kDLCPU, 0},
                      .ndim = rank,
                      .dtype = fj_dtype_to_dlpack(dtype),
                      .shape = shape};
}

/* The largest error of a sequence's output. */
static double worst_of(int b, double scale) {
    double worst = 0;
    for (int h = 0; h < HEADS; h++) {
        double sum = 0, row[DIM] = {0};
        for (int kv = 0; kv < kv_lens[b]; kv++) {
            const int page = page_table[b][kv / PAGE], g = h / (HEADS / KV_HEADS);
            double s = 0;
            if (q_offset[b] - kv >= WINDOW) continue;
            for (int e = 0; e < DIM; e++) s += (double)q[b][h][0][e] * (double)k_pages[page][kv % PAGE][g][e];
            const double p = exp(s * scale);
            for (int e = 0; e < DIM; e++) row[e] += p * (double)v_pages[page][kv % PAGE][g][e];
            sum += p;
        }
        for (int e = 0; e < DIM; e++) worst = fmax(worst, fabs((double)out[b][h][0][e] - row[e] / sum));
    }
    return worst;
}

int main(void) {
    for (int i = 0; i < BATCH * HEADS * DIM; i++) (&q[0][0][0][0])[i] = (float)sin(i * 0.7);
    for (int i = 0; i < PAGES * PAGE * KV_HEADS * DIM; i++) {
        (&k_pages[0][0][0][0])[i] = (float)cos(i * 1.3);
        (&v_pages[0][0][0][0])[i] = (float)sin(i * 0.11);
    }
    fj_error error = {0};
    fj_context *context;
    fj_device *device;
    fj_mod *mod;
    fj_plan *plan;
    fj_kernel *kernel;
    fj_mod_desc desc = {.struct_size = sizeof desc, .mask = "(q >= kv) & (q - kv < 40)"};
    fj_problem problem = {.struct_size = sizeof problem,
                          .dtype = FJ_DTYPE_F32,
                          .head_dim = DIM,
                          .value_dim = DIM,
                          .form = FJ_FORM_PAGED,
                          .q_offset = true,
                          .gqa = HEADS / KV_HEADS,
                          .few_queries = true};
    must(fj_context_create(NULL, &context), &error);
    must(fj_device_create(context, FJ_DEVICE_CPU, &device, &error), &error);
    must(fj_mod_create(context, &desc, &mod, &error), &error);
    must(fj_plan_create(device, mod, &problem, &plan, &error), &error);
    must(fj_kernel_create(plan, &kernel, &error), &error);

    int64_t rows[] = {BATCH, HEADS, 1, DIM}, pages[] = {PAGES, PAGE, KV_HEADS, DIM}, table[] = {BATCH, TABLE};
    DLTensor tq = tensor(q, FJ_DTYPE_F32, 4, rows), tout = tensor(out, FJ_DTYPE_F32, 4, rows),
             tlse = tensor(lse, FJ_DTYPE_F32, 3, rows);
    DLTensor tk = tensor(k_pages, FJ_DTYPE_F32, 4, pages), tv = tensor(v_pages, FJ_DTYPE_F32, 4, pages);
    DLTensor ttable = tensor(page_table, FJ_DTYPE_I32, 2, table),
             tlens = tensor(kv_lens, FJ_DTYPE_I32, 1, table),
             toffset = tensor(q_offset, FJ_DTYPE_I32, 1, table);
    fj_args args = {
        .struct_size = sizeof args, .query = &tq, .key = &tk, .value = &tv, .out = &tout, .lse = &tlse};
    args.page_table = &ttable, args.kv_lens = &tlens, args.q_offset = &toffset, args.scale = 1 / sqrt(DIM);
    size_t size;
    must(fj_kernel_workspace(kernel, &args, NULL, &size, &error), &error);
    void *workspace = aligned_alloc(256, (size + 255) / 256 * 256 + 256);
    must(fj_kernel_launch(kernel, &args, NULL, workspace, size, &error), &error);

    const double worst = fmax(worst_of(0, args.scale), worst_of(1, args.scale));
    printf("%s: largest error %.1e\n", fj_plan_variant(plan), worst);
    free(workspace);
    fj_kernel_unref(&kernel), fj_plan_unref(&plan), fj_mod_unref(&mod);
    fj_device_unref(&device), fj_context_unref(&context);
    return worst < 1e-5 ? 0 : 1;
}
