/* Rows without padding. */
#include <string.h>

#include "driver/parallel.h"
#include "nn/stack.h"

bool fj_nn_find_lengths(const DLTensor *padding, int64_t batch, int64_t length, int32_t *cu) {
    const int axis = padding->ndim - 1;
    const int64_t stride = padding->ndim == 2 && padding->shape[0] > 1
                             ? (padding->strides ? padding->strides[0] : padding->shape[axis])
                             : 0;
    cu[0] = 0;
    for (int64_t b = 0; b < batch; b++) {
        const uint8_t *hidden = (const uint8_t *)fj_nn_data(padding) + b * stride;
        int64_t seen = 0, at;
        while (seen < length && !hidden[seen]) seen++;
        for (at = seen; at < length && hidden[at]; at++) continue;
        if (at < length) return false;
        cu[b + 1] = cu[b] + (int32_t)seen;
    }
    return cu[batch] < batch * length;
}

struct packing {
    const fj_nn_run *run;
    const fj_nn_packing *p;
    const char *from;
    char *to;
};

static int64_t row_of(const fj_nn_packing *p, int64_t b, int64_t l) {
    return p->batch_first ? b * p->length + l : l * p->batch + b;
}

static void pack_sequence(void *argument, int64_t b, int worker) {
    const struct packing *a = argument;
    const fj_nn_packing *p = a->p;
    (void)worker;
    for (int64_t l = 0; l < p->cu[b + 1] - p->cu[b]; l++)
        memcpy(a->to + (size_t)((p->cu[b] + l) * p->width) * a->run->size,
               fj_nn_at(a->run, a->from, row_of(p, b, l) * p->width), (size_t)p->width * a->run->size);
}

static void unpack_sequence(void *argument, int64_t b, int worker) {
    const struct packing *a = argument;
    const fj_nn_packing *p = a->p;
    const size_t bytes = (size_t)p->width * a->run->size;
    (void)worker;
    for (int64_t l = 0; l < p->length; l++) {
        char *to = fj_nn_at(a->run, a->to, row_of(p, b, l) * p->width);
        if (l < p->cu[b + 1] - p->cu[b])
            memcpy(to, fj_nn_at(a->run, a->from, (p->cu[b] + l) * p->width), bytes);
        else
            memset(to, 0, bytes);
    }
}

void fj_nn_pack(const fj_nn_run *run, const fj_nn_packing *packing, const void *rows, void *packed) {
    struct packing p = {run, packing, rows, packed};
    fj_driver_parallel(&run->launch, run->workers, packing->batch, pack_sequence, &p);
}

void fj_nn_unpack(const fj_nn_run *run, const fj_nn_packing *packing, const void *packed, void *rows) {
    struct packing p = {run, packing, packed, rows};
    fj_driver_parallel(&run->launch, run->workers, packing->batch, unpack_sequence, &p);
}
