/* Training steps: forward, a loss, backward, and gradient descent on query, key and value. Causal, two heads of query
 * for one of key and value. The loss must fall. */
#include <flexjit/flexjit.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { HEADS = 2, LENGTH = 96, DIM = 32, QUERIES = HEADS * LENGTH * DIM, KEYS = LENGTH * DIM, STEPS = 20 };

static float q[QUERIES], k[KEYS], v[KEYS], out[QUERIES], lse[HEADS * LENGTH], dout[QUERIES];
static float dq[QUERIES], dk[KEYS], dv[KEYS];

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
                      .shape = shape};
}

static fj_kernel *make_kernel(fj_device *device, const fj_mod *mod, fj_direction direction, fj_error *error) {
    fj_problem problem = {.struct_size = sizeof problem,
                          .direction = direction,
                          .dtype = FJ_DTYPE_F32,
                          .head_dim = DIM,
                          .value_dim = DIM};
    fj_plan *plan;
    fj_kernel *kernel;
    must(fj_plan_create(device, mod, &problem, &plan, error), error);
    must(fj_kernel_create(plan, &kernel, error), error);
    fj_plan_unref(&plan); /* the kernel keeps what it needs */
    return kernel;
}

static void launch(const fj_kernel *kernel, const fj_args *args, fj_error *error) {
    size_t size;
    must(fj_kernel_workspace(kernel, args, NULL, &size, error), error);
    void *workspace = aligned_alloc(256, (size + 255) / 256 * 256 + 256);
    must(fj_kernel_launch(kernel, args, NULL, workspace, size, error), error);
    free(workspace);
}

/* Half the squared distance to a target, and its gradient. */
static double loss_and_gradient(void) {
    double loss = 0;
    for (int i = 0; i < QUERIES; i++) {
        dout[i] = out[i] - (float)sin(i * 0.05);
        loss += 0.5 * (double)dout[i] * (double)dout[i];
    }
    return loss;
}

static void descend(float *values, const float *gradient, int count) {
    for (int i = 0; i < count; i++) values[i] -= 0.1F * gradient[i];
}

int main(void) {
    for (int i = 0; i < QUERIES; i++) q[i] = (float)sin(i * 0.7);
    for (int i = 0; i < KEYS; i++) k[i] = (float)cos(i * 1.3), v[i] = (float)cos(i * 0.17);
    fj_error error = {0};
    fj_context *context;
    fj_device *device;
    fj_mod *mod;
    fj_mod_desc desc = {.struct_size = sizeof desc, .score = "8 * tanh(score / 8)", .mask = "q >= kv"};
    must(fj_context_create(NULL, &context), &error);
    must(fj_device_create(context, FJ_DEVICE_CPU, &device, &error), &error);
    must(fj_mod_create(context, &desc, &mod, &error), &error);
    fj_kernel *forward = make_kernel(device, mod, FJ_FORWARD, &error);
    fj_kernel *backward = make_kernel(device, mod, FJ_BACKWARD, &error);

    int64_t q_shape[] = {1, HEADS, LENGTH, DIM}, k_shape[] = {1, 1, LENGTH, DIM};
    DLTensor tq = tensor(q, 4, q_shape), tk = tensor(k, 4, k_shape), tv = tensor(v, 4, k_shape);
    DLTensor tout = tensor(out, 4, q_shape), tlse = tensor(lse, 3, q_shape), tdout = tensor(dout, 4, q_shape);
    DLTensor tdq = tensor(dq, 4, q_shape), tdk = tensor(dk, 4, k_shape), tdv = tensor(dv, 4, k_shape);
    fj_args args = {
        .struct_size = sizeof args, .query = &tq, .key = &tk, .value = &tv, .out = &tout, .lse = &tlse};
    args.scale = 1 / sqrt(DIM);
    fj_args back = args; /* out and lse are inputs there */
    back.dout = &tdout, back.dquery = &tdq, back.dkey = &tdk, back.dvalue = &tdv;

    double first = 0, last = HUGE_VAL;
    int falls = 1;
    for (int step = 0; step < STEPS; step++) {
        launch(forward, &args, &error);
        double loss = loss_and_gradient();
        if (step == 0) first = loss;
        falls = falls && loss < last;
        last = loss;
        launch(backward, &back, &error);
        descend(q, dq, QUERIES);
        descend(k, dk, KEYS);
        descend(v, dv, KEYS);
    }
    printf("loss %.3f, after %d steps %.3f\n", first, STEPS, last);
    fj_kernel_unref(&forward);
    fj_kernel_unref(&backward);
    fj_mod_unref(&mod);
    fj_device_unref(&device);
    fj_context_unref(&context);
    return falls && last < 0.9 * first ? 0 : 1;
}
