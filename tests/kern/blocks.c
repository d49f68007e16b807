/* Block masks of calls: classes drawn for blocks, and the lists of runs that kernels get of them. */
#include <stdlib.h>
#include <string.h>

#include "tests/kern/kern.h"

static int64_t blocks_of(int64_t length, int64_t block) { return (length + block - 1) / block; }

/* Stretches of a few blocks, most of them empty; some rows have nothing else. */
static void draw_row(uint8_t *row, int64_t count, generator *random) {
    const bool nothing = random_below(random, 6) == 0;
    for (int64_t at = 0; at < count;) {
        const int drawn = random_below(random, 10), class = nothing || drawn < 4 ? 0 : drawn < 7 ? 1 : 2;
        for (int64_t end = at + 1 + random_below(random, 4); at < end && at < count; at++)
            row[at] = (uint8_t) class;
    }
}

static int class_of(const block_mask *m, int64_t plane, int side, int64_t line, int64_t at) {
    const int64_t q = side ? at : line, kv = side ? line : at;
    return m->classes[(plane * m->count[0] + q) * m->count[1] + kv];
}

/* Runs of all lines of a side: written where runs is not NULL; returns how many there are. */
static int64_t put_lines(const block_mask *m, int side, int64_t *starts, int32_t (*runs)[2]) {
    const int64_t planes = m->planes[0] * m->planes[1], along = m->count[1 - side];
    int64_t found = 0;
    if (starts) *starts++ = 0;
    for (int64_t n = 0; n < planes * m->count[side] * 2; n++) {
        const int64_t line = n / 2 % m->count[side], plane = n / 2 / m->count[side];
        for (int64_t at = 0; at < along; at++) {
            if (class_of(m, plane, side, line, at) != n % 2 + 1) continue;
            const int64_t first = at;
            while (at < along && class_of(m, plane, side, line, at) == n % 2 + 1) at++;
            if (runs) runs[found][0] = (int32_t)first, runs[found][1] = (int32_t)at;
            found++;
        }
        if (starts) *starts++ = found;
    }
    return found;
}

void blocks_make(call *c, generator *random) {
    const shape *s = c->shape;
    block_mask *m = &c->blocks;
    if (!c->kernel->problem.block_mask) return;
    for (int side = 0; side < 2; side++) {
        m->block[side] = s->block[side] > 0 ? s->block[side] : 128;
        m->count[side] = blocks_of(side ? s->kv_len : s->q_len, m->block[side]);
    }
    m->planes[0] = s->block_planes & 1 ? s->batch : 1;
    m->planes[1] = s->block_planes & 2 ? s->heads_q : 1;
    const int64_t rows = m->planes[0] * m->planes[1] * m->count[0];
    m->classes = malloc((size_t)(rows * m->count[1]) + 1);
    if (!m->classes) abort();
    for (int64_t i = 0; i < rows; i++) draw_row(m->classes + i * m->count[1], m->count[1], random);
    for (int side = 0; side < 2; side++) {
        const int64_t lines = m->planes[0] * m->planes[1] * m->count[side];
        c->device->create(&m->starts[side], (size_t)(2 * lines + 1) * sizeof(int64_t));
        c->device->create(&m->runs[side], (size_t)put_lines(m, side, NULL, NULL) * 2 * sizeof(int32_t));
        (void)put_lines(m, side, (int64_t *)(void *)m->starts[side].host,
                        (int32_t(*)[2])(void *)m->runs[side].host);
    }
}

void blocks_finish(call *c) {
    for (int side = 0; side < 2; side++) {
        c->device->destroy(&c->blocks.starts[side]);
        c->device->destroy(&c->blocks.runs[side]);
    }
    free(c->blocks.classes);
}

bool blocks_put(const call *c) {
    bool there = true;
    for (int side = 0; side < 2; side++)
        there &= c->device->put(&c->blocks.starts[side]) && c->device->put(&c->blocks.runs[side]);
    return there;
}

void blocks_show(const call *c, int64_t b, int64_t h, int64_t q, bool *live) {
    const block_mask *m = &c->blocks;
    if (!m->classes) return;
    const int64_t plane = (m->planes[0] == 1 ? 0 : b) * m->planes[1] + (m->planes[1] == 1 ? 0 : h);
    for (int64_t kv = 0; kv < c->shape->kv_len; kv++) {
        const int class = class_of(m, plane, 0, q / m->block[0], kv / m->block[1]);
        live[kv] = class == 2 || (class == 1 && live[kv]);
    }
}

struct fj_cuda_block_mask blocks_describe(const call *c) {
    const block_mask *m = &c->blocks;
    struct fj_cuda_block_lines lines[2];
    for (int side = 0; side < 2; side++)
        lines[side] = (struct fj_cuda_block_lines){
            .starts = (const int64_t *)(uintptr_t)m->starts[side].address,
            .runs = (const struct fj_cuda_run *)(uintptr_t)m->runs[side].address,
            .lines = (int32_t)m->count[side],
            .block = (int32_t)m->block[side],
        };
    return (struct fj_cuda_block_mask){lines[0], lines[1], (int32_t)m->planes[0], (int32_t)m->planes[1]};
}
