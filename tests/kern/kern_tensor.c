/* See kern_tensor.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/kern/kern_tensor.h"

#define GUARD ((size_t)64)

size_t kern_dtype_size(kern_dtype dtype) { return dtype == KERN_F64 ? 8 : dtype == KERN_F32 ? 4 : 2; }

/* ---- Elements --------------------------------------------------------------------------------------- */

/* To a small float of `bits` significant bits and a least exponent: exact arithmetic in double. */
static double round_small(double x, int bits, int least, double most) {
    int exponent;
    if (x == 0 || !isfinite(x)) return x;
    frexp(x, &exponent);
    int place = (exponent > least ? exponent : least) - bits;
    double r = ldexp(rint(ldexp(x, -place)), place);
    return fabs(r) > most ? copysign(HUGE_VAL, x) : r;
}

static uint16_t encode_half(double x) {
    uint16_t sign = signbit(x) ? 0x8000 : 0;
    x = fabs(round_small(x, 11, -13, 65504));
    if (isnan(x)) return 0x7e00;
    if (isinf(x)) return sign | 0x7c00;
    if (x < 0x1p-14) return (uint16_t)(sign | (int)ldexp(x, 24));
    int exponent;
    double m = frexp(x, &exponent);
    return (uint16_t)(sign | (exponent + 14) << 10 | ((int)ldexp(m, 11) & 0x3ff));
}

static double decode_half(uint16_t h) {
    int exponent = h >> 10 & 31, fraction = h & 0x3ff;
    double x = exponent == 31 ? (fraction ? (double)NAN : HUGE_VAL)
             : exponent == 0  ? ldexp(fraction, -24)
                              : ldexp(fraction + 1024, exponent - 25);
    return h & 0x8000 ? -x : x;
}

static void store(char *at, kern_dtype dtype, double x) {
    float f = (float)(dtype == KERN_BF16 ? round_small(x, 8, -125, 0x1.fep127) : x);
    uint32_t bits;
    uint16_t half;
    switch (dtype) {
    case KERN_F16:
        half = encode_half(x);
        memcpy(at, &half, 2);
        break;
    case KERN_BF16:
        memcpy(&bits, &f, sizeof bits);
        half = (uint16_t)(bits >> 16);
        memcpy(at, &half, 2);
        break;
    case KERN_F32: memcpy(at, &f, 4); break;
    case KERN_F64: memcpy(at, &x, 8); break;
    }
}

static double load(const char *at, kern_dtype dtype) {
    uint16_t half;
    uint32_t bits;
    float f;
    double x;
    switch (dtype) {
    case KERN_F64: memcpy(&x, at, 8); return x;
    case KERN_F32: memcpy(&f, at, 4); return (double)f;
    case KERN_F16: memcpy(&half, at, 2); return decode_half(half);
    case KERN_BF16: break;
    }
    memcpy(&half, at, 2);
    bits = (uint32_t)half << 16;
    memcpy(&f, &bits, 4);
    return (double)f;
}

/* ---- Tensors ---------------------------------------------------------------------------------------- */

kern_tensor kern_tensor_create(const int64_t dims[4], kern_dtype dtype, kern_layout layout) {
    kern_tensor t = {.dtype = dtype};
    int64_t reach = 1, *stride = t.tensor.stride;
    for (int i = 0; i < FJ_CPU_MAX_RANK; i++) t.tensor.shape[i] = i < 4 ? dims[i] : 1;
    stride[3] = 1;
    stride[2] = layout == KERN_PACKED ? dims[3] : dims[1] * (dims[3] + 5) + 3;
    stride[1] = layout == KERN_PACKED ? dims[2] * stride[2] : layout == KERN_OVERLAP ? 0 : dims[3] + 5;
    stride[0] = layout == KERN_PACKED ? dims[1] * stride[1] : (dims[2] + 2) * stride[2];
    for (int i = 0; i < 4; i++) reach = dims[i] == 0 ? 0 : reach + (dims[i] - 1) * stride[i];
    for (int i = 0; i < 4; i++)
        if (dims[i] == 0) reach = 0;
    t.bytes = (size_t)reach * kern_dtype_size(dtype) + 2 * GUARD;
    t.memory = malloc(t.bytes);
    t.tensor.data = t.memory + GUARD;
    kern_tensor_reset(&t);
    return t;
}

void kern_tensor_destroy(kern_tensor *t) {
    free(t->memory);
    t->memory = NULL;
}

void kern_tensor_reset(kern_tensor *t) { memset(t->memory, 0xff, t->bytes); }

static int64_t count_of(const kern_tensor *t) {
    return t->tensor.shape[0] * t->tensor.shape[1] * t->tensor.shape[2] * t->tensor.shape[3];
}

/* A walk over all elements, the last dimension innermost: for (walk w = begin(t); w.left > 0; next(t, &w)) */
typedef struct walk {
    int64_t left, index[4], offset;
} walk;

static walk begin(const kern_tensor *t) { return (walk){.left = count_of(t)}; }

static void next(const kern_tensor *t, walk *w) {
    w->left--;
    for (int i = 3; i >= 0; i--) {
        w->offset += t->tensor.stride[i];
        if (++w->index[i] < t->tensor.shape[i]) return;
        w->offset -= t->tensor.shape[i] * t->tensor.stride[i];
        w->index[i] = 0;
    }
}

static char *element(const kern_tensor *t, char *memory, const walk *w) {
    return memory + GUARD + (size_t)w->offset * kern_dtype_size(t->dtype);
}

void kern_tensor_fill(kern_tensor *t, double *values) {
    double *value = values;
    for (walk w = begin(t); w.left > 0; next(t, &w)) store(element(t, t->memory, &w), t->dtype, *value++);
    kern_tensor_read(t, values);
}

void kern_tensor_read(const kern_tensor *t, double *values) {
    for (walk w = begin(t); w.left > 0; next(t, &w)) *values++ = load(element(t, t->memory, &w), t->dtype);
}

bool kern_tensor_intact(const kern_tensor *t) {
    char *copy = malloc(t->bytes);
    memcpy(copy, t->memory, t->bytes);
    for (walk w = begin(t); w.left > 0; next(t, &w))
        memset(element(t, copy, &w), 0xff, kern_dtype_size(t->dtype));
    bool intact = true;
    for (size_t i = 0; i < t->bytes; i++) intact &= copy[i] == (char)0xff;
    free(copy);
    return intact;
}
