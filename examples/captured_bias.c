/* A learned bias: the score mod, a Python function as PyTorch takes it, reads a table of relative positions; backward
 * gives the table's gradient, which is checked by moving the table. */
#include <flexjit/flexjit.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LENGTH = 40, DIM = 16, COUNT = LENGTH * DIM, TABLE = 2 * LENGTH };

static const char source[] = "def score_mod(score, b, h, q_idx, kv_idx):\n"
                             "    return score + bias[q_idx - kv_idx + 40]\n";

static double q[COUNT], k[COUNT], v[COUNT], out[COUNT], lse[LENGTH], dout[COUNT], dq[COUNT], dk[COUNT],
    dv[COUNT];
static double bias[TABLE], dbias[TABLE];

static void must(fj_status status, fj_error *error) {
    if (status == FJ_OK) return;
    char text[2048];
    fj_error_format(error, text, sizeof text);
    fputs(text, stderr);
    fj_error_finish(error);
    exit(1);
}

static DLTensor tensor(double *data, int rank, int64_t *shape) {
    return (DLTensor){.data = data,
                      .device = {kDLCPU, 0},
                      .ndim = rank,
                      .dtype = fj_dtype_to_dlpack(FJ_DTYPE_F64),
                      .shape = shape};
}

static fj_kernel *make_kernel(fj_device *device, const fj_mod *mod, fj_direction direction, fj_error *error) {
    fj_problem problem = {.struct_size = sizeof problem,
                          .direction = direction,
                          .dtype = FJ_DTYPE_F64,
                          .head_dim = DIM,
                          .value_dim = DIM};
    fj_plan *plan;
    fj_kernel *kernel;
    must(fj_plan_create(device, mod, &problem, &plan, error), error);
    must(fj_kernel_create(plan, &kernel, error), error);
    fj_plan_unref(&plan);
    return kernel;
}

static void launch(const fj_kernel *kernel, const fj_args *args, fj_error *error) {
    size_t size;
    must(fj_kernel_workspace(kernel, args, NULL, &size, error), error);
    void *workspace = aligned_alloc(256, (size + 255) / 256 * 256 + 256);
    must(fj_kernel_launch(kernel, args, NULL, workspace, size, error), error);
    free(workspace);
}

/* The loss whose gradient with respect to out is dout. */
static double loss(const fj_kernel *forward, const fj_args *args, fj_error *error) {
    double sum = 0;
    launch(forward, args, error);
    for (int i = 0; i < COUNT; i++) sum += out[i] * dout[i];
    return sum;
}

int main(void) {
    for (int i = 0; i < COUNT; i++) {
        q[i] = sin(i * 0.7), k[i] = cos(i * 1.3), v[i] = sin(i * 0.11), dout[i] = cos(i * 0.23);
    }
    for (int i = 0; i < TABLE; i++) bias[i] = 0.1 * sin(i);
    fj_error error = {0};
    fj_context *context;
    fj_device *device;
    fj_mod *mod;
    /* The mod's captured tensor gets its dtype and shape here, and its values with each launch. */
    fj_binding binding = {.name = "bias", .dtype = FJ_DTYPE_F64, .rank = 1, .dims = {TABLE}};
    fj_mod_desc desc = {.struct_size = sizeof desc,
                        .source = source,
                        .source_length = strlen(source),
                        .file = "bias.py",
                        .bindings = &binding,
                        .binding_count = 1};
    must(fj_context_create(NULL, &context), &error);
    must(fj_device_create(context, FJ_DEVICE_CPU, &device, &error), &error);
    must(fj_mod_create(context, &desc, &mod, &error), &error);
    fj_kernel *forward = make_kernel(device, mod, FJ_FORWARD, &error);
    fj_kernel *backward = make_kernel(device, mod, FJ_BACKWARD, &error);

    int64_t shape[] = {1, 1, LENGTH, DIM}, table_shape[] = {TABLE};
    DLTensor tq = tensor(q, 4, shape), tk = tensor(k, 4, shape), tv = tensor(v, 4, shape),
             tout = tensor(out, 4, shape);
    DLTensor tlse = tensor(lse, 3, shape), tdout = tensor(dout, 4, shape), tdq = tensor(dq, 4, shape);
    DLTensor tdk = tensor(dk, 4, shape), tdv = tensor(dv, 4, shape);
    DLTensor tbias = tensor(bias, 1, table_shape), tdbias = tensor(dbias, 1, table_shape);
    const DLTensor *captures[] = {&tbias}, *dcaptures[] = {&tdbias}; /* in the order of fj_mod_capture */
    fj_args args = {
        .struct_size = sizeof args, .query = &tq, .key = &tk, .value = &tv, .out = &tout, .lse = &tlse};
    args.captures = captures, args.scale = 1 / sqrt(DIM);
    fj_args back = args;
    back.dout = &tdout, back.dquery = &tdq, back.dkey = &tdk, back.dvalue = &tdv, back.dcaptures = dcaptures;
    launch(forward, &args, &error);
    launch(backward, &back, &error);

    double worst = 0, step = 1e-5;
    for (int i = 1; i < TABLE; i += 7) {
        double value = bias[i];
        bias[i] = value + step;
        double above = loss(forward, &args, &error);
        bias[i] = value - step;
        double difference = (above - loss(forward, &args, &error)) / (2 * step);
        bias[i] = value;
        if (fabs(difference - dbias[i]) > worst) worst = fabs(difference - dbias[i]);
    }
    printf("largest error of the table's gradient %.1e\n", worst);
    fj_kernel_unref(&forward), fj_kernel_unref(&backward), fj_mod_unref(&mod);
    fj_device_unref(&device), fj_context_unref(&context);
    return worst < 1e-7 ? 0 : 1;
}
