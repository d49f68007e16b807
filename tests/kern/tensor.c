/* Tensors: elements with gaps of NaN around them, and random numbers to fill them with. */
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "tests/kern/kern.h"

/* ---- Random numbers: xorshift64 ------------------------------------------------------------------ */

uint64_t random_next(generator *s) {
    s->state ^= s->state << 13;
    s->state ^= s->state >> 7;
    s->state ^= s->state << 17;
    return s->state;
}

double random_uniform(generator *s) { return (double)(random_next(s) >> 11) * 0x1p-52 - 1.0; }

int random_below(generator *s, int count) { return (int)((random_next(s) >> 16) % (uint64_t)count); }

generator random_of(uint64_t seed, const char *text) {
    uint64_t state = UINT64_C(0xcbf29ce484222325) ^ (seed * UINT64_C(0x9e3779b97f4a7c15)); /* FNV-1a */
    for (; *text; text++) state = (state ^ (unsigned char)*text) * UINT64_C(0x100000001b3);
    generator s = {state | 1};
    for (int i = 0; i < 8; i++) (void)random_next(&s);
    return s;
}

/* ---- Tensors ---------------------------------------------------------------------------------------- */

int64_t tensor_count(const tensor *t) { return t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3]; }

static size_t place_of(const tensor *t, int64_t i) {
    int64_t offset = 0;
    for (int d = 3; d >= 0; d--) {
        offset += i % t->dims[d] * t->stride[d];
        i /= t->dims[d];
    }
    return t->offset + (size_t)offset * fj_dtype_size(t->dtype);
}

/* PACKED: [B,H,L,E]. ROWS: [B,L,H,E], rows with gaps of eight elements. ODD: nothing is aligned. SHARED: PACKED, all
 * batches are one. The memory ends with the last element, but for what alignment needs. */
void tensor_make(tensor *t, const device *d, fj_dtype dtype, const int64_t dims[4], layout how) {
    const bool packed = how == LAYOUT_PACKED || how == LAYOUT_SHARED;
    const int64_t pitch = dims[3] + (packed ? 0 : how == LAYOUT_ROWS ? 8 : 3);
    const size_t size = fj_dtype_size(dtype), start = how == LAYOUT_ODD ? 1 : 0;
    *t = (tensor){.dtype = dtype, .offset = start * size};
    memcpy(t->dims, dims, sizeof t->dims);
    t->stride[3] = 1;
    t->stride[2] = how == LAYOUT_ROWS ? pitch * dims[1] : pitch;
    t->stride[1] = how == LAYOUT_ROWS ? pitch : pitch * dims[2];
    t->stride[0] = how == LAYOUT_SHARED ? 0 : pitch * dims[1] * dims[2];
    int64_t last = 0;
    for (int i = 0; i < 4; i++) last += (dims[i] - 1) * t->stride[i];
    const size_t elements = tensor_count(t) > 0 ? start + (size_t)last + 1 : 0;
    d->create(&t->memory, (elements * size + 15) / 16 * 16);
    t->values = calloc((size_t)tensor_count(t) + 1, sizeof(double));
    if (!t->values) abort();
}

/* Elements that share their place have the last of their values. */
void tensor_store(tensor *t) {
    const int64_t count = tensor_count(t);
    for (int64_t i = 0; i < count; i++)
        fj_dtype_store_float(t->dtype, t->memory.host + place_of(t, i), 0, t->values[i]);
    for (int64_t i = 0; i < count; i++)
        t->values[i] = fj_dtype_load_float(t->dtype, t->memory.host + place_of(t, i), 0);
}

void tensor_fill(tensor *t, generator *s, double scale) {
    const int64_t count = tensor_count(t);
    for (int64_t i = 0; i < count; i++) t->values[i] = random_uniform(s) * scale;
    tensor_store(t);
}

/* A pattern over and over, whatever the strides. */
void tensor_repeat(tensor *t, generator *s, double scale) {
    enum { PATTERN = 4096 };
    const size_t size = fj_dtype_size(t->dtype);
    for (size_t i = 0; i < t->memory.size / size; i++)
        if (i < PATTERN)
            fj_dtype_store_float(t->dtype, t->memory.host, (int64_t)i, random_uniform(s) * scale);
        else
            memcpy(t->memory.host + i * size, t->memory.host + (i - PATTERN) * size, size);
}

void tensor_put(tensor *t, int64_t i, double value) {
    fj_dtype_store_float(t->dtype, t->memory.host + place_of(t, i), 0, value);
}

void tensor_clear(tensor *t) { memset(t->memory.host, 0xff, t->memory.size); }

bool tensor_read(tensor *t) {
    unsigned char *mine = calloc(1, t->memory.size + 1);
    bool clean = true;
    const size_t size = fj_dtype_size(t->dtype);
    const int64_t count = tensor_count(t);
    if (!mine) abort();
    for (int64_t i = 0; i < count; i++) {
        const size_t place = place_of(t, i);
        t->values[i] = fj_dtype_load_float(t->dtype, t->memory.host + place, 0);
        memset(mine + place, 1, size);
    }
    for (size_t i = 0; i < t->memory.size; i++) clean &= mine[i] || t->memory.host[i] == 0xff;
    free(mine);
    return clean;
}

void tensor_finish(tensor *t, const device *d) {
    if (!t->values) return;
    d->destroy(&t->memory);
    free(t->values);
    *t = (tensor){0};
}

struct fj_cuda_tensor tensor_describe(const tensor *t) {
    return (struct fj_cuda_tensor){(void *)(uintptr_t)(t->memory.address + t->offset),
                                   {t->stride[0], t->stride[1], t->stride[2]}};
}

bool tensor_is_vector(const tensor *t) {
    const size_t size = fj_dtype_size(t->dtype);
    bool yes = (t->memory.address + t->offset) % 16 == 0;
    for (int d = 0; d < 3; d++) yes &= (size_t)t->stride[d] * size % 16 == 0;
    return yes;
}
