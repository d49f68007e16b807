/* The smallest use of the library: attention over a sliding window, forward, checked against a plain loop. */
#include <flexjit/flexjit.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 2, LENGTH = 200, DIM = 64, WINDOW = 32, COUNT = HEADS * LENGTH * DIM };

static float q[COUNT], k[COUNT], v[COUNT], out[COUNT], lse[HEADS * LENGTH];

static void must(fj_status status, fj_error *error) {
    if (status == FJ_OK) return;
    char text[2048];
    fj_error_format(error, text, sizeof text);
    fputs(text, stderr);
    fj_error_finish(error);
    exit(1);
}

static DLTensor tensor(float *data, int rank, int64_t *shape) {
    return (DLTensor){.data = data,
                      .device = {kDLCPU, 0},
                      .ndim = rank,
                      .dtype = fj_dtype_to_dlpack(FJ_DTYPE_F32),
                      .shape = shape}; /* strides NULL: packed */
}

/* One output as the definition has it. */
static double expected(int head, int row, int column) {
    double sum = 0, total = 0;
    for (int j = row < WINDOW ? 0 : row - WINDOW; j <= row; j++) {
        double score = 0;
        for (int c = 0; c < DIM; c++) {
            score += (double)q[(head * LENGTH + row) * DIM + c] * (double)k[(head * LENGTH + j) * DIM + c];
        }
        double weight = exp(score / sqrt(DIM));
        sum += weight * (double)v[(head * LENGTH + j) * DIM + column];
        total += weight;
    }
    return sum / total;
}

static int compare(void) {
    double worst = 0;
    for (int i = 0; i < COUNT; i++) {
        double error = fabs((double)out[i] - expected(i / (LENGTH * DIM), i / DIM % LENGTH, i % DIM));
        if (error > worst) worst = error;
    }
    printf("largest error %.1e\n", worst);
    return worst < 1e-5 ? 0 : 1;
}

int main(void) {
    for (int i = 0; i < COUNT; i++) {
        q[i] = (float)sin(i * 0.7);
        k[i] = (float)cos(i * 1.3);
        v[i] = (float)sin(i * 0.11);
    }
    fj_error error = {0};
    fj_context *context;
    fj_device *device;
    must(fj_context_create(NULL, &context), &error);
    must(fj_device_create(context, FJ_DEVICE_CPU, &device, &error), &error);

    /* What to compute: a mod and a problem make a plan, a plan makes a kernel. */
    fj_mod *mod;
    fj_mod_desc mod_desc = {.struct_size = sizeof mod_desc, .mask = "(q >= kv) & (q - kv <= 32)"};
    must(fj_mod_create(context, &mod_desc, &mod, &error), &error);
    fj_problem problem = {
        .struct_size = sizeof problem, .dtype = FJ_DTYPE_F32, .head_dim = DIM, .value_dim = DIM};
    fj_plan *plan;
    fj_kernel *kernel;
    must(fj_plan_create(device, mod, &problem, &plan, &error), &error);
    must(fj_kernel_create(plan, &kernel, &error), &error); /* compiles, or finds it in the cache */
    printf("%s\n", fj_kernel_describe(kernel).variant);

    /* With what: tensors and memory are the caller's. */
    int64_t shape[] = {1, HEADS, LENGTH, DIM};
    DLTensor tq = tensor(q, 4, shape), tk = tensor(k, 4, shape), tv = tensor(v, 4, shape);
    DLTensor tout = tensor(out, 4, shape), tlse = tensor(lse, 3, shape);
    fj_args args = {.struct_size = sizeof args,
                    .query = &tq,
                    .key = &tk,
                    .value = &tv,
                    .out = &tout,
                    .lse = &tlse,
                    .scale = 1 / sqrt(DIM)};
    size_t size;
    must(fj_kernel_workspace(kernel, &args, NULL, &size, &error), &error);
    void *workspace = aligned_alloc(256, (size + 255) / 256 * 256 + 256);
    must(fj_kernel_launch(kernel, &args, NULL, workspace, size, &error), &error);

    free(workspace);
    fj_kernel_unref(&kernel);
    fj_plan_unref(&plan);
    fj_mod_unref(&mod);
    fj_device_unref(&device);
    fj_context_unref(&context);
    return compare();
}
