/* A run-time scalar: a constant of the mod becomes an argument of the kernel, so that changing it compiles nothing, and
 * backward gives its gradient, which is checked by moving the scalar. */
#include <flexjit/flexjit.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { HEADS = 4, LENGTH = 50, DIM = 16, COUNT = HEADS * LENGTH * DIM };

static const char source[] = "SOFT_CAP = 20.0\n"
                             "def score_mod(score, b, h, q_idx, kv_idx):\n"
                             "    return SOFT_CAP * torch.tanh(score / SOFT_CAP)\n";

static double q[COUNT], k[COUNT], v[COUNT], out[COUNT], lse[HEADS * LENGTH], dout[COUNT];
static double dq[COUNT], dk[COUNT], dv[COUNT], dcap[1];

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

/* The loss whose gradient with respect to out is dout, at one value of the scalar. */
static double loss(const fj_kernel *forward, fj_args args, double cap, fj_error *error) {
    double sum = 0;
    fj_scalar scalar = {.f = cap};
    args.scalars = &scalar;
    launch(forward, &args, error);
    for (int i = 0; i < COUNT; i++) sum += out[i] * dout[i];
    return sum;
}

int main(void) {
    for (int i = 0; i < COUNT; i++) {
        q[i] = 2 * sin(i * 0.7), k[i] = 2 * cos(i * 1.3), v[i] = sin(i * 0.11), dout[i] = cos(i * 0.23);
    }
    fj_error error = {0};
    fj_context *context;
    fj_device *device;
    fj_mod *mod;
    const char *runtime[] = {"SOFT_CAP"};
    fj_mod_desc desc = {.struct_size = sizeof desc,
                        .source = source,
                        .source_length = strlen(source),
                        .runtime_params = runtime,
                        .runtime_param_count = 1};
    must(fj_context_create(NULL, &context), &error);
    must(fj_device_create(context, FJ_DEVICE_CPU, &device, &error), &error);
    must(fj_mod_create(context, &desc, &mod, &error), &error);
    fj_kernel *forward = make_kernel(device, mod, FJ_FORWARD, &error);
    fj_kernel *backward = make_kernel(device, mod, FJ_BACKWARD, &error);

    int64_t shape[] = {1, HEADS, LENGTH, DIM};
    DLTensor tq = tensor(q, 4, shape), tk = tensor(k, 4, shape), tv = tensor(v, 4, shape),
             tout = tensor(out, 4, shape);
    DLTensor tlse = tensor(lse, 3, shape), tdout = tensor(dout, 4, shape), tdq = tensor(dq, 4, shape);
    DLTensor tdk = tensor(dk, 4, shape), tdv = tensor(dv, 4, shape), tdcap = tensor(dcap, 0, NULL);
    const DLTensor *dscalars[] = {&tdcap}; /* in the order of fj_mod_scalar */
    fj_args args = {
        .struct_size = sizeof args, .query = &tq, .key = &tk, .value = &tv, .out = &tout, .lse = &tlse};
    args.scale = 1 / sqrt(DIM);

    double worst = 0, step = 1e-4;
    for (int i = 0; i < 6; i++) { /* one kernel for all of them */
        double cap = 1 << i;
        double difference = loss(forward, args, cap + step, &error);
        difference = (difference - loss(forward, args, cap - step, &error)) / (2 * step);
        double value = loss(forward, args, cap, &error); /* out and lse as backward needs them */
        fj_scalar scalar = {.f = cap};
        fj_args back = args;
        back.scalars = &scalar, back.dout = &tdout, back.dscalars = dscalars;
        back.dquery = &tdq, back.dkey = &tdk, back.dvalue = &tdv;
        launch(backward, &back, &error);
        printf("cap %4.0f: loss %8.4f, gradient %9.6f\n", cap, value, dcap[0]);
        if (fabs(difference - dcap[0]) > worst) worst = fabs(difference - dcap[0]);
    }
    printf("largest error of the gradient %.1e\n", worst);
    fj_kernel_unref(&forward), fj_kernel_unref(&backward), fj_mod_unref(&mod);
    fj_device_unref(&device), fj_context_unref(&context);
    return worst < 1e-6 ? 0 : 1;
}
