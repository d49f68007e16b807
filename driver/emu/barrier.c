/* Barriers of a block, and mbarriers. Keeps invariants 3 and 5. */
#include "driver/emu/machine.h"

/* ---- Block barriers --------------------------------------------------------------------------- */

static uint32_t living(const struct emu_warp *warp) { return warp->threads & ~warp->exited; }

static bool is_complete(const struct emu_block *block, const struct emu_barrier *barrier) {
    if (barrier->expected)
        return (uint32_t)__builtin_popcount(barrier->arrived) * FJ_EMU_WARP >= barrier->expected;
    for (uint32_t w = 0; w < block->warp_count; w++)
        if (living(&block->warps[w]) && !(barrier->arrived >> w & 1)) return false;
    return true;
}

static void complete(struct emu_block *block, struct emu_barrier *barrier) {
    for (uint32_t w = 0; w < block->warp_count; w++) {
        if (!(barrier->arrived >> w & 1)) continue;
        fj_emu_ready(block, &block->warps[w],
                     barrier->waiting[w] & ~barrier->arriving[w] & living(&block->warps[w]));
        barrier->waiting[w] = barrier->arriving[w] = 0;
    }
    block->counts.barriers++;
    barrier->arrived = 0;
    barrier->open = false;
    barrier->phase++;
}

/* All threads of the warp are there: those that only arrive go on. */
static void warp_arrives(struct emu_block *block, struct emu_barrier *barrier, uint32_t w) {
    barrier->arrived |= 1u << w;
    fj_emu_ready(block, &block->warps[w], barrier->arriving[w]);
    if (is_complete(block, barrier)) complete(block, barrier);
}

/* Lanes of one warp come from one line, by one call where the launch asks for it, and in one way: the instruction is
 * the warp's. */
static void check_warp(struct emu_block *block, const struct emu_barrier *barrier,
                       enum fj_emu_barrier_kind kind, fj_emu_site site, const void *caller) {
    const struct emu_thread *self = block->running;
    uint32_t w = self->warp->index;
    if (barrier->arrived >> w & 1)
        fj_emu_fault(block, site, "warp %u comes to barrier %u again before it is complete", w, barrier->id);
    if (!barrier->waiting[w]) return;
    const struct emu_thread *other =
        &block->threads[w * FJ_EMU_WARP + (uint32_t)__builtin_ctz(barrier->waiting[w])];
    bool arriving = barrier->arriving[w] != 0;
    const bool apart = block->one_call_site && other->caller != caller;
    if (other->site.line != site.line || arriving != (kind == FJ_EMU_BARRIER_ARRIVE) || apart)
        fj_emu_fault(block, site,
                     "divergence: at barrier %u, but thread %u of the same warp is at it in line %d%s",
                     barrier->id, other->self.linear, other->site.line,
                     apart ? ", through another call of what that line is in" : "");
}

void fj_emu_barrier(enum fj_emu_barrier_kind kind, uint32_t id, uint32_t threads, fj_emu_site site) {
    struct emu_block *block = fj_emu_current;
    struct emu_thread *self = block->running;
    uint32_t w = self->warp->index;
    if (id >= FJ_EMU_BARRIERS) fj_emu_fault(block, site, "there is no barrier %u, only 0 to 15", id);
    if (threads % FJ_EMU_WARP || threads > block->warp_count * FJ_EMU_WARP)
        fj_emu_fault(block, site,
                     "a barrier of %u threads, which is not a multiple of 32 or more than the block has",
                     threads);
    struct emu_barrier *barrier = &block->barriers[id];
    if (barrier->open && barrier->expected != threads)
        fj_emu_fault(block, site, "barrier %u of %u threads, but others are at it with %u", id, threads,
                     barrier->expected);
    check_warp(block, barrier, kind, site, __builtin_return_address(0));
    barrier->open = true;
    barrier->expected = threads;
    barrier->waiting[w] |= self->bit;
    if (kind == FJ_EMU_BARRIER_ARRIVE) barrier->arriving[w] |= self->bit;
    char *token = &barrier->tokens[barrier->phase & 1];
    fj_emu_tsan_release(token);
    self->barrier = barrier;
    self->caller = __builtin_return_address(0);
    if (barrier->waiting[w] == living(self->warp)) warp_arrives(block, barrier, w);
    fj_emu_wait(block, EMU_AT_BARRIER, site);
    self->barrier = NULL;
    if (kind == FJ_EMU_BARRIER_WAIT) fj_emu_tsan_acquire(token);
}

/* A thread has exited: its warp, or the block, may have been waiting for it alone. */
void fj_emu_barrier_exit(struct emu_block *block, struct emu_thread *thread) {
    uint32_t w = thread->warp->index;
    for (uint32_t id = 0; id < FJ_EMU_BARRIERS; id++) {
        struct emu_barrier *barrier = &block->barriers[id];
        if (!barrier->open) continue;
        if (!(barrier->arrived >> w & 1) && barrier->waiting[w] &&
            barrier->waiting[w] == living(thread->warp))
            warp_arrives(block, barrier, w);
        else if (!barrier->expected && is_complete(block, barrier))
            complete(block, barrier);
    }
}

/* ---- mbarriers -------------------------------------------------------------------------------- */

/* The object in shared memory, ours to lay out:
 * pending arrivals [0,20), arrivals of a phase [20,40), pending bytes + 2^20 [40,61), valid 61, phase 63. */
#define MBARRIER_COUNT ((UINT64_C(1) << 20) - 1)
#define MBARRIER_BYTES ((UINT64_C(1) << 21) - 1)
#define MBARRIER_ZERO_BYTES (UINT64_C(1) << 60)
#define MBARRIER_VALID (UINT64_C(1) << 61)

static uint32_t phase_of(uint64_t state) { return (uint32_t)(state >> 63); }

static uint64_t fresh_phase(uint64_t phase, uint64_t arrivals) {
    return phase << 63 | MBARRIER_VALID | MBARRIER_ZERO_BYTES | arrivals << 20 | arrivals;
}

static void mbarrier_settle(struct emu_block *block, uint64_t *object) {
    uint64_t state = *object;
    if (state & MBARRIER_COUNT || (state & MBARRIER_BYTES << 40) != MBARRIER_ZERO_BYTES) return;
    *object = fresh_phase(phase_of(state) ^ 1u, state >> 20 & MBARRIER_COUNT);
    for (uint32_t i = 0; i < block->thread_count; i++) {
        struct emu_thread *thread = &block->threads[i];
        if (thread->state == EMU_AT_MBARRIER && thread->mbarrier == object &&
            thread->parity == phase_of(state))
            fj_emu_ready(block, thread->warp, thread->bit);
    }
}

void fj_emu_mbarrier_complete_tx(struct emu_block *block, uint64_t *object, uint32_t bytes) {
    *object -= (uint64_t)bytes << 40;
    mbarrier_settle(block, object);
}

uint64_t *fj_emu_mbarrier_at(struct emu_block *block, void *object, bool init, fj_emu_site site) {
    size_t offset = (size_t)((unsigned char *)object - block->shared);
    if (offset % 8 || offset + 8 > block->shape->shared)
        fj_emu_fault(block, site, "an mbarrier that is not 8 aligned bytes of shared memory");
    uint64_t *at = object;
    if (!init && (*at >> 61 & 3) != 1) fj_emu_fault(block, site, "the mbarrier was not initialised");
    return at;
}

/* Of the phase that is going on; the next one has another. */
void *fj_emu_mbarrier_token(uint64_t *object) { return (char *)object + phase_of(*object); }

static void mbarrier_arrive(struct emu_block *block, uint64_t *object, uint32_t arrivals, uint32_t bytes,
                            fj_emu_site site) {
    if ((*object & MBARRIER_COUNT) < arrivals)
        fj_emu_fault(block, site, "more arrivals at the mbarrier than the phase expects");
    fj_emu_tsan_release(fj_emu_mbarrier_token(object));
    *object += (uint64_t)bytes << 40;
    *object -= arrivals;
    mbarrier_settle(block, object);
}

void fj_emu_mbarrier(enum fj_emu_mbarrier_op op, void *object, uint32_t value, fj_emu_site site) {
    struct emu_block *block = fj_emu_current;
    struct emu_thread *self = block->running;
    uint64_t *at = fj_emu_mbarrier_at(block, object, op == FJ_EMU_MBARRIER_INIT, site);
    switch (op) {
    case FJ_EMU_MBARRIER_INIT:
        if (value == 0 || value > MBARRIER_COUNT)
            fj_emu_fault(block, site, "an mbarrier of %u arrivals", value);
        *at = fresh_phase(0, value);
        break;
    case FJ_EMU_MBARRIER_ARRIVE: mbarrier_arrive(block, at, value, 0, site); break;
    case FJ_EMU_MBARRIER_EXPECT_TX: mbarrier_arrive(block, at, 1, value, site); break;
    case FJ_EMU_MBARRIER_WAIT:
        self->mbarrier = at;
        self->parity = value & 1;
        if (phase_of(*at) == self->parity) fj_emu_wait(block, EMU_AT_MBARRIER, site);
        self->mbarrier = NULL;
        fj_emu_tsan_acquire((char *)at + (value & 1));
        break;
    }
}
