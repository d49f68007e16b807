/* Dense calls as packed and paged ones: what is computed is the same, and so are the answers.
 *
 *     packed   [B,L,H,E] (LAYOUT_ROWS) is rows of B sequences of L, one after the other
 *     paged    [B,H,S,E] (LAYOUT_PACKED) is pages of P rows, P a divisor of S: those of batch b begin with page b H S / P
 *     offset   the position of each batch's first query comes from an array
 *
 *     | cu_q [B+1] | cu_kv [B+1] | kv_lens [B] | q_offset [B] | page_table [B,M] |    the buffer
 */
#include <string.h>

#include "templates/cuda/shapes.h"
#include "tests/kern/kern.h"

bool kernel_has_sequences(const kernel *k) { return fj_jit_has_sequences(&k->problem); }

static int64_t page_size(const shape *s) {
    int64_t page = 16;
    while (s->kv_len % page != 0) page--;
    return page;
}
static int64_t page_count(const call *c) {
    return c->kernel->problem.paged && c->shape->kv_len > 0 ? c->shape->kv_len / page_size(c->shape) : 0;
}

void sequences_make(call *c) {
    const shape *s = c->shape;
    if (!kernel_has_sequences(c->kernel)) return;
    const int64_t b = s->batch, pages = page_count(c);
    c->device->create(&c->sequences, (size_t)(2 * (b + 1) + 2 * b + b * pages) * sizeof(int32_t));
    int32_t *cu_q = (int32_t *)(void *)c->sequences.host, *cu_kv = cu_q + b + 1, *kv_lens = cu_kv + b + 1;
    int32_t *q_offset = kv_lens + b, *table = q_offset + b;
    for (int64_t i = 0; i <= b; i++) {
        cu_q[i] = (int32_t)(i * s->q_len);
        cu_kv[i] = (int32_t)(i * s->kv_len);
    }
    for (int64_t i = 0; i < b; i++) {
        kv_lens[i] = (int32_t)s->kv_len;
        q_offset[i] = s->q_offset;
        for (int64_t j = 0; j < pages; j++) table[i * pages + j] = (int32_t)(i * s->heads_kv * pages + j);
    }
}

struct fj_cuda_sequences sequences_describe(const call *c) {
    const fj_jit_problem *p = &c->kernel->problem;
    const int64_t b = c->shape->batch;
    const int32_t *at = (const int32_t *)(uintptr_t)c->sequences.address;
    return (struct fj_cuda_sequences){
        .cu_q = p->packed ? at : NULL,
        .cu_kv = p->packed ? at + b + 1 : NULL,
        .kv_lens = p->paged ? at + 2 * (b + 1) : NULL,
        .q_offset = at + 2 * (b + 1) + b,
        .page_table = p->paged ? at + 2 * (b + 1) + 2 * b : NULL,
        .table_row = page_count(c),
        .page_size = (int32_t)page_size(c->shape),
        .pages = (int32_t)(b * c->shape->heads_kv * page_count(c)),
    };
}

/* Where the call has the tensor in another form. */
struct fj_cuda_tensor sequences_tensor(const call *c, int t, struct fj_cuda_tensor dense) {
    const fj_jit_problem *p = &c->kernel->problem;
    if (p->packed) dense.stride[0] = 0;
    if (p->paged && (t == KEY || t == VALUE)) dense.stride[0] = page_size(c->shape) * dense.stride[2];
    return dense;
}

int64_t sequences_rows(const call *c, int64_t rows) {
    return c->kernel->problem.packed ? rows * c->shape->batch : rows;
}

int64_t sequences_workspace_rows(const call *c) {
    const shape *s = c->shape;
    return c->kernel->problem.packed ? FJ_SEQUENCE_ROWS(s->batch * s->q_len, s->batch) : s->q_len;
}

int64_t sequences_tiles(const call *c, int64_t rows, int64_t tile) {
    const int64_t batch = c->shape->batch;
    if (!c->kernel->problem.packed) return FJ_CEIL_DIV(rows, tile) * batch;
    return rows * batch / tile + (batch < rows * batch ? batch : rows * batch);
}
