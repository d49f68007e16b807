/* Attention on an NVIDIA GPU, without a header of CUDA: memory, copies, time and a stream's wait are the library's. Where
 * there is no GPU, the same kernel text runs on the emulator, and the same calls. Checked against a plain loop. */
#include <flexjit/flexjit.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 4, KV_HEADS = 2, LENGTH = 150, DIM = 64, COUNT = HEADS * LENGTH * DIM };

static float q[COUNT], k[COUNT / 2], v[COUNT / 2], out[COUNT];

static void must(fj_status status, fj_error *error) {
    if (status == FJ_OK) return;
    char text[2048];
    fj_error_format(error, text, sizeof text);
    fputs(text, stderr);
    fj_error_finish(error);
    exit(1);
}

/* A GPU, else the emulator. */
static fj_device *open_device(fj_context *context) {
    fj_error error = {0};
    fj_device *device = NULL;
    if (fj_device_create(context, FJ_DEVICE_CUDA, &device, &error) == FJ_OK) return device;
    printf("%s\n", error.text);
    fj_error_finish(&error);
    must(fj_device_create(context, FJ_DEVICE_EMU, &device, &error), &error);
    return device;
}

/* Memory of the device, with a copy of the host's (NULL: none). */
static DLTensor tensor(const fj_device *device, const float *data, int rank,
                       int64_t *shape) { /* NOLINT(readability-non-const-parameter): DLPack's */
    fj_error error = {0};
    DLTensor made = {.device = fj_device_dlpack(device),
                     .ndim = rank,
                     .dtype = fj_dtype_to_dlpack(FJ_DTYPE_F32),
                     .shape = shape}; /* strides NULL: packed */
    size_t size = sizeof(float);
    for (int i = 0; i < rank; i++) size *= (size_t)shape[i];
    must(fj_device_alloc(device, size, &made.data, &error), &error);
    if (data) must(fj_device_upload(device, made.data, data, size, NULL, &error), &error);
    return made;
}

/* One output as the definition has it. */
static double expected(int head, int row, int column) {
    double sum = 0, total = 0;
    const float *keys = k + head / (HEADS / KV_HEADS) * LENGTH * DIM;
    const float *values = v + head / (HEADS / KV_HEADS) * LENGTH * DIM;
    for (int j = 0; j <= row; j++) {
        double score = 0;
        for (int c = 0; c < DIM; c++)
            score += (double)q[(head * LENGTH + row) * DIM + c] * (double)keys[j * DIM + c];
        double weight = exp(score / sqrt(DIM));
        sum += weight * (double)values[j * DIM + column];
        total += weight;
    }
    return sum / total;
}

static int compare(void) {
    double worst = 0;
    for (int i = 0; i < COUNT; i += 7) {
        double error = fabs((double)out[i] - expected(i / (LENGTH * DIM), i / DIM % LENGTH, i % DIM));
        if (error > worst) worst = error;
    }
    printf("largest error %.1e\n", worst);
    return worst < 1e-5 ? 0 : 1;
}

int main(void) {
    for (int i = 0; i < COUNT; i++) q[i] = (float)sin(i * 0.7);
    for (int i = 0; i < COUNT / 2; i++) {
        k[i] = (float)cos(i * 1.3);
        v[i] = (float)sin(i * 0.11);
    }
    fj_error error = {0};
    fj_context *context;
    must(fj_context_create(NULL, &context), &error);
    fj_device *device = open_device(context);

    fj_mod *mod;
    fj_plan *plan;
    fj_kernel *kernel;
    fj_mod_desc mod_desc = {.struct_size = sizeof mod_desc, .mask = "q >= kv"};
    fj_problem problem = {
        .struct_size = sizeof problem, .dtype = FJ_DTYPE_F32, .head_dim = DIM, .value_dim = DIM};
    must(fj_mod_create(context, &mod_desc, &mod, &error), &error);
    must(fj_plan_create(device, mod, &problem, &plan, &error), &error);
    must(fj_kernel_create(plan, &kernel, &error), &error); /* resident from here on */

    int64_t shape[] = {1, HEADS, LENGTH, DIM}, kv_shape[] = {1, KV_HEADS, LENGTH, DIM};
    DLTensor tensors[] = {tensor(device, q, 4, shape), tensor(device, k, 4, kv_shape),
                          tensor(device, v, 4, kv_shape), tensor(device, NULL, 4, shape),
                          tensor(device, NULL, 3, shape)};
    fj_args args = {.struct_size = sizeof args,
                    .query = &tensors[0],
                    .key = &tensors[1],
                    .value = &tensors[2],
                    .out = &tensors[3],
                    .lse = &tensors[4],
                    .scale = 1 / sqrt(DIM)};
    fj_launch launch = {.struct_size = sizeof launch}; /* .stream: a CUstream; NULL is the default one */
    size_t size;
    void *workspace;
    fj_timer *timer;
    double ms;
    must(fj_kernel_workspace(kernel, &args, &launch, &size, &error), &error);
    must(fj_device_alloc(device, size, &workspace, &error), &error);
    must(fj_timer_create(device, &timer, &error), &error);
    must(fj_timer_start(timer, launch.stream, &error), &error);
    must(fj_kernel_launch(kernel, &args, &launch, workspace, size, &error), &error); /* returns at once */
    must(fj_timer_stop(timer, launch.stream, &error), &error);
    must(fj_device_download(device, out, tensors[3].data, sizeof out, launch.stream, &error), &error);
    must(fj_kernel_check(kernel, &args, &launch, workspace, size, &error), &error); /* waits */
    must(fj_timer_read(timer, &ms, &error), &error);
    printf("%s on %s: %.3f ms\n", fj_kernel_describe(kernel).variant, fj_device_name(device), ms);

    fj_timer_unref(&timer);
    fj_device_free(device, &workspace);
    for (int i = 0; i < 5; i++) fj_device_free(device, &tensors[i].data);
    fj_kernel_unref(&kernel);
    fj_plan_unref(&plan);
    fj_mod_unref(&mod);
    fj_device_unref(&device);
    fj_context_unref(&context);
    return compare();
}
