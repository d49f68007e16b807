/* Where the gradients of captured tensors and run-time scalars are summed, in double.
 *
 * Items of a round, or of a walk over rows, that may meet in an element of a capture either have an array each, summed in order at the end,
 * or, where that takes too much memory, run one after the other on one array:
 *
 *   shared   the scatters (FJ_CAPTURE_GRAD_AXES) never let two items meet: one array for all
 *   slots    one array per *slot*; a slot is a range of classes, whose items run one after the other
 *   classes  a capture too large for slots is shared, and items that may meet in it form a *class*
 *
 * The same items make a class and a slot in every round, so every sum has one order, whatever the number of
 * workers. Without large captures, every item is its own class and slot. Walks over rows, of the mods of the output and of the
 * sink, add to the same arrays, with classes of their own.
 *
 * Invariants
 *  1. Classes and slots follow from the shapes. No capture takes more than FJ_SLOT_BYTES, or one array.
 *  2. All arrays are zeroed in phase 0.
 */
#ifndef FJ_BWD_CAPTURE_GRADS_H
#define FJ_BWD_CAPTURE_GRADS_H

#include "bwd_grid.h"

#ifndef FJ_SLOT_BYTES
#define FJ_SLOT_BYTES ((int64_t)32 << 20)
#endif
#ifndef FJ_ROW_TASK
#define FJ_ROW_TASK 256 /* rows of a task of the phases that go over rows */
#endif
#define FJ_GRAD_CHUNK 16384 /* elements of a task */
#define FJ_SCALAR_LINE FJ_ROUND(FJ_SCALARS + 1, 8)

/* What adds to gradients: the score mod in the rounds, the mods of the output and of the sink in walks over rows. */
enum { WALK_SCORE, WALK_OUT, WALK_SINK, WALKS };

/* FJ_CAPTURE_GRAD_AXES and its kin. */
static const int grad_axes[WALKS][FJ_CAPTURES + 1] = {
    [WALK_SCORE] = FJ_CAPTURE_GRAD_AXES,
#if FJ_HAS_OUT_GRADS
    [WALK_OUT] = FJ_OUT_GRAD_AXES,
#endif
#if FJ_HAS_SINK_GRADS
    [WALK_SINK] = FJ_SINK_GRAD_AXES,
#endif
};
static inline int walk_adds(int walk) {
    return walk == WALK_SCORE ? FJ_HAS_CAPTURE_GRADS
         : walk == WALK_OUT   ? FJ_HAS_OUT_GRADS
                              : FJ_HAS_SINK_GRADS;
}

struct walk {
    int64_t batch, heads,
        chunks; /* items: chunk by chunk, of each batch, of each head, the last the fastest */
    int64_t items, classes;
    int apart; /* what tells classes apart: APART_ bits */
};

struct grads {
    int64_t slots;
    struct walk walks[WALKS];
    struct {
        int64_t count, offset; /* elements; 0: none */
        int shared;
    } captures[FJ_CAPTURES + 1];
    int64_t scalars, end; /* offsets in the workspace */
};

enum { APART_BATCH = 1, APART_HEAD = 2, APART_CHUNK = 4, APART_ALL = 7 };

static struct walk walk_of(const struct fj_cpu_args *a, const struct grid *g, int walk) {
    struct walk w = {.batch = a->batch, .heads = a->heads_kv, .items = g->items, .apart = APART_ALL};
    if (walk != WALK_SCORE) {
        w.heads = a->heads_q;
        w.items = a->batch * a->heads_q * divide_up(a->q_len, FJ_ROW_TASK);
    }
    w.chunks = w.items / most(1, w.batch * w.heads);
    return w;
}

/* In which of these two items of a walk cannot differ and yet meet in an element. In a round their chunks differ along both
 * axes, but along one alone where the other has copies; in a walk over rows along that of queries. */
static int grad_apart(const struct fj_cpu_args *a, const struct grid *g, int walk, const struct walk *w,
                      int axes) {
    const int has_b = axes & 1, has_h = axes & 2, has_q = axes & 4, has_kv = axes & 8;
    const int by_q = g->dquery_copies == 1 && has_q && (g->group == 1 || has_h);
    const int by_kv = g->dkv_copies == 1 && has_kv;
    const int by_chunk = walk == WALK_SCORE ? by_q || by_kv : has_q;
    const int one_chunk = w->items <= w->batch * w->heads;
    return (has_b || a->batch == 1 ? APART_BATCH : 0) | (has_h || w->heads == 1 ? APART_HEAD : 0) |
           (by_chunk || one_chunk ? APART_CHUNK : 0);
}

static int64_t grad_classes(const struct walk *w, int apart) {
    return (apart & APART_BATCH ? w->batch : 1) * (apart & APART_HEAD ? w->heads : 1) *
           (apart & APART_CHUNK ? w->chunks : 1);
}

/* The class of an item, by its number in the walk. */
static int64_t grad_class(const struct walk *w, int64_t number) {
    const int64_t h = number % w->heads, b = number / w->heads % w->batch;
    int64_t class = w->apart & APART_CHUNK ? number / w->heads / w->batch : 0;
    if (w->apart & APART_BATCH) class = class * w->batch + b;
    return w->apart & APART_HEAD ? class * w->heads + h : class;
}

/* Whether a capture has one array: no two items ever meet in it, or in the first walk that adds to it classes leave more of them to
 * run together than arrays of their own would. */
static int grad_is_shared(const struct fj_cpu_args *a, const struct grid *g, const struct walk *walks,
                          int capture, int64_t slots) {
    int meets = 0, many = -1;
    for (int walk = 0; walk < WALKS; walk++) {
        if (!walk_adds(walk) || grad_axes[walk][capture] < 0) continue;
        const struct walk *w = &walks[walk];
        const int apart = grad_apart(a, g, walk, w, grad_axes[walk][capture]);
        meets |= apart != APART_ALL;
        if (many < 0) many = slots < w->items && slots < grad_classes(w, apart);
    }
    return !meets || many > 0;
}

static int grad_is_any(int capture) {
    for (int walk = 0; walk < WALKS; walk++)
        if (walk_adds(walk) && grad_axes[walk][capture] >= 0) return 1;
    return 0;
}

static struct grads grads_of(const struct fj_cpu_args *a, const struct grid *g) {
    struct grads s = {.slots = most(1, FJ_HAS_CAPTURE_GRADS ? g->items : FJ_ITEMS)};
    int64_t at = g->grads, classes = 1;
    for (int walk = 0; walk < WALKS; walk++) s.walks[walk] = walk_of(a, g, walk);
    for (int i = 0; i < FJ_CAPTURES; i++) {
        int64_t count = 1;
        if (!grad_is_any(i)) continue;
        for (int r = 0; r < FJ_CPU_MAX_RANK; r++) count *= a->captures[i].shape[r];
        const int64_t slots = most(1, FJ_SLOT_BYTES / most(1, count * (int64_t)sizeof(fj_acc)));
        s.captures[i].count = count;
        s.captures[i].shared = grad_is_shared(a, g, s.walks, i, slots);
        if (!s.captures[i].shared) s.slots = least(s.slots, slots);
        for (int walk = 0; walk < WALKS && s.captures[i].shared; walk++)
            if (walk_adds(walk) && grad_axes[walk][i] >= 0)
                s.walks[walk].apart &= grad_apart(a, g, walk, &s.walks[walk], grad_axes[walk][i]);
    }
    for (int walk = 0; walk < WALKS; walk++) {
        s.walks[walk].classes = most(1, grad_classes(&s.walks[walk], s.walks[walk].apart));
        if (walk_adds(walk)) classes = most(classes, s.walks[walk].classes);
    }
    s.slots = least(s.slots, classes);
    for (int i = 0; i < FJ_CAPTURES; i++) {
        s.captures[i].offset = at;
        at += FJ_ROUND(s.captures[i].count * (s.captures[i].shared ? 1 : s.slots) * (int64_t)sizeof(fj_acc),
                       256);
    }
    s.scalars = at;
    s.end =
        at + (FJ_HAS_ANY_GRADS && FJ_SCALARS > 0 ? s.slots * FJ_SCALAR_LINE * (int64_t)sizeof(fj_acc) : 0);
    return s;
}

/* Tasks of a walk: one for each item, or, where they add to gradients, for each slot, which has some classes. */
static inline int64_t walk_tasks(const struct grads *s, int walk) {
    const struct walk *w = &s->walks[walk];
    return walk_adds(walk) ? least(w->items, least(s->slots, w->classes)) : w->items;
}
static inline fj_acc *grad_array(const struct fj_cpu_args *a, const struct grads *s, int capture,
                                 int64_t slot) {
    fj_acc *first = (fj_acc *)(a->workspace + s->captures[capture].offset);
    return s->captures[capture].shared ? first : first + slot * s->captures[capture].count;
}
static inline fj_acc *grad_scalars(const struct fj_cpu_args *a, const struct grads *s, int64_t slot) {
    return (fj_acc *)(a->workspace + s->scalars) + slot * FJ_SCALAR_LINE;
}

/* ---- Sums to outputs: tasks are chunks of the arrays of all captures, counted through ---------------- */

struct grad_task {
    int capture; /* FJ_CAPTURES and nothing to do past the last */
    int64_t begin, end;
};

static inline struct grad_task grad_task(const struct grads *s, int64_t number) {
    for (int i = 0; i < FJ_CAPTURES; i++) {
        int64_t chunks = divide_up(s->captures[i].count, FJ_GRAD_CHUNK), begin = number * FJ_GRAD_CHUNK;
        if (number < chunks)
            return (struct grad_task){i, begin, least(begin + FJ_GRAD_CHUNK, s->captures[i].count)};
        number -= chunks;
    }
    return (struct grad_task){.capture = FJ_CAPTURES};
}
static inline int64_t grad_tasks(const struct grads *s) {
    int64_t count = 0;
    for (int i = 0; i < FJ_CAPTURES; i++) count += divide_up(s->captures[i].count, FJ_GRAD_CHUNK);
    return count;
}

/* The slots' sums to the output, wherever its strides put it. */
static inline void grad_reduce_task(const struct fj_cpu_args *a, const struct grads *s, int64_t number) {
    const struct grad_task t = grad_task(s, number);
    const struct fj_cpu_tensor *to = &a->dcaptures[t.capture];
    if (t.begin == t.end || !to->data) return;
    const int64_t slots = s->captures[t.capture].shared ? 1 : s->slots;
    int64_t at[FJ_CPU_MAX_RANK], offset = 0, rest = t.begin, before = FJ_SCALARS;
    for (int i = 0; i < t.capture; i++) before += s->captures[i].count;
    for (int r = FJ_CPU_MAX_RANK - 1; r >= 0; r--) {
        at[r] = rest % to->shape[r], rest /= to->shape[r];
        offset += at[r] * to->stride[r];
    }
    for (int64_t i = t.begin; i < t.end; i++) {
        fj_acc sum = 0;
        for (int64_t slot = 0; slot < slots; slot++) sum += grad_array(a, s, t.capture, slot)[i];
        sum = carry_grad(a, before + i, sum);
        ((fj_real *)to->data)[offset] = (fj_real)sum;
        for (int r = FJ_CPU_MAX_RANK - 1; r >= 0; r--) {
            offset += to->stride[r];
            if (++at[r] < to->shape[r]) break;
            offset -= at[r] * to->stride[r];
            at[r] = 0;
        }
    }
}

static inline void grad_reduce_scalars(const struct fj_cpu_args *a, const struct grads *s) {
    for (int i = 0; i < FJ_SCALARS; i++) {
        const struct fj_cpu_tensor *to = &a->dscalars[i];
        fj_acc sum = 0;
        for (int64_t slot = 0; slot < s->slots; slot++) sum += grad_scalars(a, s, slot)[i];
        sum = carry_grad(a, i, sum);
        if (to->data) *(fj_real *)to->data = (fj_real)sum;
    }
}

#endif
