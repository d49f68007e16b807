/* Who runs next. Requires a block that fj_emu_block_run has set up; keeps invariants 1 and 4. */
#include <sched.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "driver/emu/machine.h"

_Thread_local struct emu_block *fj_emu_current __attribute__((tls_model("initial-exec")));

#define ROUNDS_PER_LOOK 1024 /* at the clock, while there are only sleepers */

/* ---- What a thread waits for, in words -------------------------------------------------------- */

static void put_lanes(fj_buf *out, uint32_t lanes) {
    for (uint32_t first = 0; first < FJ_EMU_WARP; first++) {
        if (!(lanes >> first & 1)) continue;
        uint32_t last = first;
        while (last + 1 < FJ_EMU_WARP && lanes >> (last + 1) & 1) last++;
        fj_buf_printf(out, lanes & ((1u << first) - 1) ? ",%u" : "%u", first);
        if (last > first) fj_buf_printf(out, "-%u", last);
        first = last;
    }
}

static void put_missing(fj_buf *out, const struct emu_block *block, const struct emu_barrier *barrier) {
    bool first = true;
    for (uint32_t w = 0; w < block->warp_count; w++) {
        const struct emu_warp *warp = &block->warps[w];
        uint32_t lanes = warp->threads & ~warp->exited & ~barrier->waiting[w];
        if (!lanes || barrier->arrived >> w & 1) continue;
        fj_buf_printf(out, "%s warp %u", first ? "; not there:" : ",", w);
        if (lanes != warp->threads) {
            fj_buf_put(out, " lanes ");
            put_lanes(out, lanes);
        }
        first = false;
    }
    if (block->live < block->thread_count)
        fj_buf_printf(out, "; %u threads have exited", block->thread_count - block->live);
}

static void put_reason(fj_buf *out, const struct emu_block *block, const struct emu_thread *thread) {
    const struct emu_warp_op *op = thread->op;
    switch (thread->state) {
    case EMU_AT_BARRIER:
        if (thread->barrier->expected)
            fj_buf_printf(out, "barrier %u of %u threads", thread->barrier->id, thread->barrier->expected);
        else
            fj_buf_put(out, "the block barrier");
        put_missing(out, block, thread->barrier);
        break;
    case EMU_AT_WARP_OP:
        fj_buf_printf(out, "%s of lanes ", fj_emu_warp_op_name(op->call.op));
        put_lanes(out, op->call.members);
        fj_buf_put(out, "; not there: ");
        put_lanes(out, op->call.members & ~op->arrived & ~thread->warp->exited);
        break;
    case EMU_AT_MBARRIER:
        fj_buf_printf(out, "the mbarrier at shared byte %td, parity %u",
                      (const unsigned char *)thread->mbarrier - block->shared, thread->parity);
        break;
    case EMU_SLEEPING: fj_buf_put(out, "a flag, asleep"); break;
    case EMU_RUNNABLE:
    case EMU_DONE: break;
    }
}

static const char *file_name(fj_emu_site site) {
    const char *slash = strrchr(site.file, '/');
    return slash ? slash + 1 : site.file;
}

static bool same_wait(const struct emu_thread *a, const struct emu_thread *b) {
    return a->state == b->state && a->site.line == b->site.line && a->op == b->op &&
           a->barrier == b->barrier && a->mbarrier == b->mbarrier && strcmp(a->site.file, b->site.file) == 0;
}

/* One line per group of lanes of a warp that wait for the same. */
static void put_waits(fj_buf *out, const struct emu_block *block) {
    for (uint32_t w = 0; w < block->warp_count; w++) {
        const struct emu_thread *threads = &block->threads[w * FJ_EMU_WARP];
        uint32_t todo = block->warps[w].threads & ~block->warps[w].exited;
        while (todo) {
            const struct emu_thread *leader = &threads[__builtin_ctz(todo)];
            uint32_t lanes = 0;
            for (uint32_t l = 0; l < FJ_EMU_WARP; l++)
                if (todo >> l & 1 && same_wait(&threads[l], leader)) lanes |= 1u << l;
            todo &= ~lanes;
            fj_buf_printf(out, "warp %u lanes ", w);
            put_lanes(out, lanes);
            fj_buf_printf(out, " wait at %s:%d for ", file_name(leader->site), leader->site.line);
            put_reason(out, block, leader);
            fj_buf_put(out, "\n");
        }
    }
}

/* ---- Faults ----------------------------------------------------------------------------------- */

static _Noreturn void abandon(struct emu_block *block) {
    block->failed = true;
    fj_emu_fiber_switch(&block->running->fiber, &block->main, true);
    __builtin_unreachable();
}

_Noreturn void fj_emu_fault(struct emu_block *block, fj_emu_site site, const char *format, ...) {
    char what[384];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(what, sizeof what, format, list);
    va_end(list);
    (void)fj_error_set(block->error, FJ_ERR_DEVICE, "kernel %s, block (%u, %u, %u), thread %u, %s:%d: %s",
                       block->kernel->name, block->index[0], block->index[1], block->index[2],
                       block->running->self.linear, file_name(site), site.line, what);
    abandon(block);
}

static _Noreturn void deadlock(struct emu_block *block) {
    fj_buf waits;
    fj_buf_init(&waits, block->allocator);
    put_waits(&waits, block);
    const char *text = waits.data ? waits.data : "";
    (void)fj_error_set(block->error, FJ_ERR_DEVICE,
                       "kernel %s, block (%u, %u, %u): deadlock, %u threads wait and none can run: %.*s",
                       block->kernel->name, block->index[0], block->index[1], block->index[2], block->live,
                       (int)strcspn(text, "\n"), text);
    fj_error_detail(block->error, text, strlen(text));
    fj_buf_finish(&waits);
    abandon(block);
}

/* ---- Choosing --------------------------------------------------------------------------------- */

static uint32_t choose(struct emu_block *block, uint32_t bits) {
    switch (block->schedule) {
    case FJ_EMU_REVERSE: return 31u - (uint32_t)__builtin_clz(bits);
    case FJ_EMU_RANDOM: {
        block->random ^= block->random << 13; /* xorshift64 */
        block->random ^= block->random >> 7;
        block->random ^= block->random << 17;
        uint32_t turn = (uint32_t)(block->random >> 59);
        uint32_t turned = turn ? bits >> turn | bits << (32 - turn) : bits;
        return ((uint32_t)__builtin_ctz(turned) + turn) % 32;
    }
    case FJ_EMU_FORWARD:
    case FJ_EMU_SCHEDULE_COUNT: break;
    }
    return (uint32_t)__builtin_ctz(bits);
}

uint64_t fj_emu_clock(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* Only sleepers are left. They may wait for another block; if nothing else happens for long, it will not. */
static bool may_idle(struct emu_block *block) {
    if (block->idle_rounds++ == 0) block->idle_since = fj_emu_clock();
    (void)sched_yield();
    return block->idle_rounds % ROUNDS_PER_LOOK != 0 ||
           fj_emu_clock() - block->idle_since < block->idle_limit;
}

static void wake_sleepers(struct emu_block *block) {
    for (uint32_t w = 0; w < block->warp_count; w++) {
        struct emu_warp *warp = &block->warps[w];
        warp->ready |= warp->sleeping;
        if (warp->sleeping) block->ready_warps |= 1u << w;
        warp->sleeping = 0;
    }
    block->sleeping_warps = 0;
}

/* NULL: no thread can run. */
static struct emu_thread *next_thread(struct emu_block *block) {
    if (!block->ready_warps) fj_emu_bulk_land(block);
    if (!block->ready_warps) {
        if (!block->sleeping_warps || !may_idle(block)) return NULL;
        wake_sleepers(block);
    }
    uint32_t w = choose(block, block->ready_warps);
    struct emu_warp *warp = &block->warps[w];
    uint32_t lane = choose(block, warp->ready);
    warp->ready &= ~(1u << lane);
    if (!warp->ready) block->ready_warps &= ~(1u << w);
    struct emu_thread *thread = &block->threads[w * FJ_EMU_WARP + lane];
    if (thread->state != EMU_SLEEPING) block->idle_rounds = 0;
    thread->state = EMU_RUNNABLE;
    return thread;
}

void fj_emu_ready(struct emu_block *block, struct emu_warp *warp, uint32_t lanes) {
    if (!lanes) return;
    warp->ready |= lanes;
    block->ready_warps |= 1u << warp->index;
}

static void switch_to(struct emu_block *block, struct emu_thread *next, bool ends) {
    struct emu_thread *self = block->running;
    block->running = next;
    block->counts.switches++;
    fj_emu_fiber_switch(&self->fiber, &next->fiber, ends);
}

void fj_emu_wait(struct emu_block *block, enum emu_state state, fj_emu_site site) {
    struct emu_thread *self = block->running;
    self->state = state;
    self->site = site;
    struct emu_thread *next = next_thread(block);
    if (!next) deadlock(block);
    if (next != self) switch_to(block, next, false);
}

void fj_emu_yield(fj_emu_site site) {
    struct emu_block *block = fj_emu_current;
    struct emu_thread *self = block->running;
    self->warp->sleeping |= self->bit;
    block->sleeping_warps |= 1u << self->warp->index;
    fj_emu_wait(block, EMU_SLEEPING, site);
}

/* ---- The life of a thread --------------------------------------------------------------------- */

void fj_emu_thread_main(void) {
    struct emu_block *block = fj_emu_current;
    fj_emu_fiber_entered(block->main.stack ? NULL : &block->main);
    block->kernel->run(block->args);
    struct emu_thread *self = block->running;
    self->state = EMU_DONE;
    self->warp->exited |= self->bit;
    block->live--;
    block->idle_rounds = 0;
    fj_emu_warp_exit(block, self);
    fj_emu_barrier_exit(block, self);
    fj_emu_tsan_release(block->launch_token);
    struct emu_thread *next = block->live ? next_thread(block) : NULL;
    if (next) switch_to(block, next, true);
    if (block->live) deadlock(block);
    fj_emu_fiber_switch(&self->fiber, &block->main, true);
    __builtin_unreachable();
}

void fj_emu_start(struct emu_block *block) {
    fj_emu_current = block;
    block->main.stack = NULL;
    block->running = next_thread(block);
    fj_emu_fiber_switch(&block->main, &block->running->fiber, false);
    fj_emu_current = NULL;
}
