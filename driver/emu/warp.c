/* Operations of a warp: gathers the members, runs the operation once. Keeps invariants 2 and 5.
 *
 * The last member to come runs the operation on everybody's operands, in place, and goes on at once.
 */
#include "driver/emu/machine.h"

static const struct {
    const char *name;
    bool whole; /* needs all 32 lanes, at one instruction */
} op_facts[FJ_EMU_WARP_OPS] = {
    [FJ_EMU_SYNC] = {"warp_sync", false},   [FJ_EMU_SHUFFLE] = {"shuffle", false},
    [FJ_EMU_BALLOT] = {"ballot", false},    [FJ_EMU_MMA] = {"mma", true},
    [FJ_EMU_LDMATRIX] = {"ldmatrix", true}, [FJ_EMU_STMATRIX] = {"stmatrix", true},
};

const char *fj_emu_warp_op_name(enum fj_emu_warp_op op) { return op_facts[op].name; }

/* ---- The simple ones -------------------------------------------------------------------------- */

static void shuffle(const struct emu_warp_op *op) {
    uint32_t before[FJ_EMU_WARP];
    for (uint32_t l = 0; l < FJ_EMU_WARP; l++) {
        const struct fj_emu_shuffle *lane = op->operands[l];
        before[l] = op->arrived >> l & 1 ? lane->value : UINT32_MAX; /* NaN: undefined */
    }
    for (uint32_t l = 0; l < FJ_EMU_WARP; l++) {
        if (!(op->arrived >> l & 1)) continue;
        struct fj_emu_shuffle *lane = op->operands[l];
        lane->value = before[lane->source];
    }
}

static void ballot(const struct emu_warp_op *op) {
    uint32_t votes = 0;
    for (uint32_t l = 0; l < FJ_EMU_WARP; l++)
        if (op->arrived >> l & 1) votes |= ((const struct fj_emu_ballot *)op->operands[l])->vote << l;
    for (uint32_t l = 0; l < FJ_EMU_WARP; l++)
        if (op->arrived >> l & 1) ((struct fj_emu_ballot *)op->operands[l])->vote = votes;
}

static void perform(struct emu_block *block, const struct emu_warp_op *op) {
    block->counts.warp_ops++;
    switch (op->call.op) {
    case FJ_EMU_SHUFFLE: shuffle(op); break;
    case FJ_EMU_BALLOT: ballot(op); break;
    case FJ_EMU_MMA:
        block->counts.matrix_products++;
        fj_emu_multiply(op->call.variant, block->rounding, op->operands);
        break;
    case FJ_EMU_LDMATRIX: fj_emu_load_matrices(block, op->call.variant, op->operands); break;
    case FJ_EMU_STMATRIX: fj_emu_store_matrices(block, op->call.variant, op->operands); break;
    case FJ_EMU_SYNC:
    case FJ_EMU_WARP_OPS: break;
    }
}

/* ---- Gathering -------------------------------------------------------------------------------- */

static bool all_there(const struct emu_warp *warp, const struct emu_warp_op *op) {
    return !(op->call.members & ~op->arrived & ~warp->exited);
}

/* The operation of these members that this lane has not joined yet, or a free slot. */
static struct emu_warp_op *find(struct emu_warp *warp, uint32_t members, uint32_t bit) {
    struct emu_warp_op *vacant = NULL;
    for (uint32_t i = 0; i < warp->op_limit; i++) {
        struct emu_warp_op *op = &warp->ops[i];
        if (!op->arrived)
            vacant = vacant ? vacant : op;
        else if (op->call.members == members && !(op->arrived & bit))
            return op;
    }
    return vacant ? vacant : &warp->ops[warp->op_limit++];
}

static void begin(struct emu_block *block, struct emu_warp_op *op, const struct emu_warp_call *call) {
    struct emu_warp *warp = block->running->warp;
    op->call = *call;
    op->token = &warp->tokens[warp->syncs % EMU_TOKENS];
    if (call->op == FJ_EMU_SYNC) warp->syncs++;
    if (op_facts[call->op].whole && (call->members != UINT32_MAX || warp->exited))
        fj_emu_fault(block, call->site, "%s needs all 32 lanes of the warp, but %d have exited",
                     op_facts[call->op].name, __builtin_popcount(warp->exited));
}

static void check_same(struct emu_block *block, const struct emu_warp_op *op,
                       const struct emu_warp_call *call) {
    const struct emu_warp_call *first = &op->call;
    const bool apart = block->one_call_site && op_facts[call->op].whole && first->caller != call->caller;
    if (first->op == call->op && first->variant == call->variant && first->site.line == call->site.line &&
        !apart)
        return;
    uint32_t other = block->running->warp->index * FJ_EMU_WARP + (uint32_t)__builtin_ctz(op->arrived);
    fj_emu_fault(block, call->site, "divergence: %s, but thread %u of the same warp calls %s in line %d%s",
                 op_facts[call->op].name, block->threads[other].self.linear, op_facts[first->op].name,
                 first->site.line, apart ? ", through another call of what that line is in" : "");
}

static void finish(struct emu_block *block, struct emu_warp *warp, struct emu_warp_op *op, uint32_t but) {
    perform(block, op);
    fj_emu_ready(block, warp, op->arrived & ~but);
    op->arrived = 0;
    while (warp->op_limit && !warp->ops[warp->op_limit - 1].arrived) warp->op_limit--;
}

void fj_emu_warp(enum fj_emu_warp_op kind, int variant, uint32_t members, void *operands, fj_emu_site site) {
    struct emu_block *block = fj_emu_current;
    struct emu_thread *self = block->running;
    struct emu_warp *warp = self->warp;
    const struct emu_warp_call call = {kind, variant, members, site, __builtin_return_address(0)};
    if (!(members & self->bit))
        fj_emu_fault(block, site, "%s of members 0x%08x, by a lane that is none of them", op_facts[kind].name,
                     members);
    struct emu_warp_op *op = find(warp, members, self->bit);
    if (op->arrived)
        check_same(block, op, &call);
    else
        begin(block, op, &call);
    char *token = op->token;
    op->operands[__builtin_ctz(self->bit)] = operands;
    op->arrived |= self->bit;
    if (kind == FJ_EMU_SYNC) fj_emu_tsan_release(token);
    if (all_there(warp, op)) {
        finish(block, warp, op, self->bit);
    } else {
        self->op = op;
        fj_emu_wait(block, EMU_AT_WARP_OP, site);
        self->op = NULL;
    }
    if (kind == FJ_EMU_SYNC) fj_emu_tsan_acquire(token);
}

/* A thread has exited: operations that named it go on without it. */
void fj_emu_warp_exit(struct emu_block *block, struct emu_thread *thread) {
    struct emu_warp *warp = thread->warp;
    for (uint32_t i = 0; i < warp->op_limit; i++) {
        struct emu_warp_op *op = &warp->ops[i];
        if (!op->arrived || !(op->call.members & thread->bit)) continue;
        if (op_facts[op->call.op].whole)
            fj_emu_fault(block, op->call.site, "%s needs all 32 lanes of the warp, but thread %u has exited",
                         op_facts[op->call.op].name, thread->self.linear);
        if (all_there(warp, op)) finish(block, warp, op, 0);
    }
}
