/* Asynchronous copies: when they complete, and who makes them for ThreadSanitizer. Keeps invariant 6. */
#include <stdio.h>

#include "driver/emu/machine.h"

/* Single bytes, volatile: a call of memcpy would be the current fiber's access, for ThreadSanitizer. */
static void move(unsigned char *to, const unsigned char *from, uint32_t size, uint32_t source_size) {
    volatile unsigned char *out = to;
    uint32_t i = 0;
    for (; i < source_size; i++) out[i] = from[i];
    for (; i < size; i++) out[i] = 0;
}

static void poison(unsigned char *to, uint32_t size) {
    volatile unsigned char *out = to;
    for (uint32_t i = 0; i < size; i++) out[i] = EMU_POISON;
}

static char *token_of(struct emu_copies *copies, uint32_t group) {
    return &copies->tokens[group % EMU_TOKENS];
}

/* Room for one more in an array of the machine. */
static void *grow(struct emu_block *block, void *array, size_t size, size_t len, size_t *cap,
                  fj_emu_site site) {
    if (len < *cap) return array;
    size_t larger = *cap ? 2 * *cap : 32;
    fj_emu_tsan_enter(block->main.race); /* whose memory it is */
    array = block->allocator->resize(block->allocator->user, array, *cap * size, larger * size);
    fj_emu_tsan_enter(block->running->fiber.race);
    if (!array) fj_emu_fault(block, site, "out of memory");
    *cap = larger;
    return array;
}

/* ---- The agent -------------------------------------------------------------------------------- */

void fj_emu_copies_name(struct emu_copies *copies, uint32_t thread) {
    char name[64];
    (void)snprintf(name, sizeof name, "asynchronous copies of CUDA thread %u", thread);
    fj_emu_tsan_name(copies->agent, name);
}

/* The write, as the agent's, after everything that the thread did so far. token: what waiters will acquire. */
static void write_by_agent(const struct emu_block *block, struct emu_copies *copies, void *to, size_t size,
                           void *token, void *pc) {
    if (!fj_emu_tsan()) return;
    if (!copies->agent) {
        copies->agent = fj_emu_tsan_create();
        fj_emu_copies_name(copies, block->running->self.linear);
    }
    fj_emu_tsan_release(copies);
    fj_emu_tsan_enter(copies->agent);
    fj_emu_tsan_acquire(copies);
    fj_emu_tsan_write(to, size, pc);
    fj_emu_tsan_release(token);
    fj_emu_tsan_enter(block->running->fiber.race);
}

/* ---- Copies in groups ------------------------------------------------------------------------- */

void fj_emu_copy(void *shared, const void *global, uint32_t size, uint32_t source_size, fj_emu_site site) {
    void *pc = __builtin_return_address(0);
    struct emu_block *block = fj_emu_current;
    struct emu_copies *copies = &block->running->copies;
    write_by_agent(block, copies, shared, size, token_of(copies, copies->committed), pc);
    block->counts.async_copies++;
    block->counts.async_bytes += source_size;
    if (block->copies == FJ_EMU_EAGER) {
        move(shared, global, size, source_size);
        return;
    }
    poison(shared, size);
    copies->pending = grow(block, copies->pending, sizeof *copies->pending, copies->len, &copies->cap, site);
    copies->pending[copies->len++] = (struct emu_copy){shared, global, size, source_size, copies->committed};
}

void fj_emu_copy_commit(fj_emu_site site) {
    (void)site;
    fj_emu_current->running->copies.committed++;
}

/* At most `pending` of the committed groups may go on. */
void fj_emu_copy_wait(uint32_t pending, fj_emu_site site) {
    (void)site;
    struct emu_copies *copies = &fj_emu_current->running->copies;
    uint32_t complete = copies->committed > pending ? copies->committed - pending : 0;
    size_t landed = 0;
    for (; landed < copies->len && copies->pending[landed].group < complete; landed++) {
        const struct emu_copy *copy = &copies->pending[landed];
        move(copy->to, copy->from, copy->size, copy->source_size);
    }
    for (size_t i = landed; i < copies->len; i++) copies->pending[i - landed] = copies->pending[i];
    copies->len -= landed;
    for (; copies->complete < complete; copies->complete++)
        fj_emu_tsan_acquire(token_of(copies, copies->complete));
}

void fj_emu_copies_reset(struct emu_copies *copies) {
    copies->len = 0;
    copies->committed = copies->complete = 0;
}

void fj_emu_copies_finish(struct emu_block *block, struct emu_copies *copies) {
    fj_free(block->allocator, copies->pending, copies->cap * sizeof *copies->pending);
    copies->pending = NULL;
    copies->len = copies->cap = 0;
}

/* ---- Bulk copies ------------------------------------------------------------------------------ */

void fj_emu_copy_bulk(void *shared, const void *global, uint32_t size, void *mbarrier, fj_emu_site site) {
    void *pc = __builtin_return_address(0);
    struct emu_block *block = fj_emu_current;
    uint64_t *at = fj_emu_mbarrier_at(block, mbarrier, false, site);
    write_by_agent(block, &block->running->copies, shared, size, fj_emu_mbarrier_token(at), pc);
    block->counts.async_copies++;
    block->counts.async_bytes += size;
    if (block->copies == FJ_EMU_EAGER) {
        move(shared, global, size, size);
        fj_emu_mbarrier_complete_tx(block, at, size);
        return;
    }
    poison(shared, size);
    block->bulk = grow(block, block->bulk, sizeof *block->bulk, block->bulk_len, &block->bulk_cap, site);
    block->bulk[block->bulk_len++] = (struct emu_bulk){shared, global, at, size};
}

void fj_emu_bulk_land(struct emu_block *block) {
    for (size_t i = 0; i < block->bulk_len; i++) {
        const struct emu_bulk *copy = &block->bulk[i];
        move(copy->to, copy->from, copy->size, copy->size);
        fj_emu_mbarrier_complete_tx(block, copy->mbarrier, copy->size);
    }
    block->bulk_len = 0;
}
