/* Ranges of keys that a block of queries sees, by interval analysis of the mask.
 *
 * requires: a valid graph
 * keeps: the graph
 *
 *     keys     . . . + + # # # # # + . . . . # # + . .       . empty   + partial   # full
 *              ^     ^   ^         ^ ^       ^
 *              0     first         | last    the next range
 *                        first full, last full
 *
 * The keys are asked for as a whole; what is proven empty or full is done, the rest is halved, down to single keys. So the ends
 * of a mask that is monotone between them, as causal, window and prefix masks are, are exact and cost their logarithm and the
 * partial keys beside them. What would take more than LOOKS questions stays partial: bounds are always sound. */
#include "expr/ir/interval.h"

enum { LOOKS = 4096 };

typedef struct finding {
    fj_iv_analysis *an;
    fj_block block;
    fj_ranges *found;
    fj_key_range run; /* of it the full part that ends last */
    int looks;
} finding;

/* Two ranges and the empty keys between them; of full parts the longer one stays. */
static fj_key_range join(fj_key_range a, fj_key_range b) {
    const bool first = a.last_full - a.first_full >= b.last_full - b.first_full;
    return (fj_key_range){
        .first = a.first,
        .first_full = first ? a.first_full : b.first_full,
        .last_full = first ? a.last_full : b.last_full,
        .last = b.last,
    };
}

/* Makes room for one more by joining the two that are nearest to each other, the new one among them. */
static void append(fj_ranges *found, fj_key_range range) {
    if (found->count < FJ_RANGES) {
        found->of[found->count++] = range;
        return;
    }
    int least = FJ_RANGES;
    int64_t gap = range.first - found->of[FJ_RANGES - 1].last;
    for (int i = FJ_RANGES - 1; i > 0; i--) {
        if (found->of[i].first - found->of[i - 1].last >= gap) continue;
        gap = found->of[i].first - found->of[i - 1].last;
        least = i;
    }
    if (least == FJ_RANGES) {
        found->of[FJ_RANGES - 1] = join(found->of[FJ_RANGES - 1], range);
        return;
    }
    found->of[least - 1] = join(found->of[least - 1], found->of[least]);
    for (int i = least; i + 1 < FJ_RANGES; i++) found->of[i] = found->of[i + 1];
    found->of[FJ_RANGES - 1] = range;
}

/* Keys [first, last) of a class, from left to right. */
static void put(finding *f, fj_block_class class, int64_t first, int64_t last) {
    fj_ranges *found = f->found;
    if (class == FJ_BLOCK_EMPTY) return;
    if (found->count == 0 || found->of[found->count - 1].last != first)
        append(found, (fj_key_range){first, first, first, first});
    fj_key_range *range = &found->of[found->count - 1];
    range->last = last;
    if (class != FJ_BLOCK_FULL) return;
    if (f->run.last_full != first || f->run.first_full < range->first) f->run.first_full = first;
    f->run.last_full = last;
    if (f->run.last_full - f->run.first_full > range->last_full - range->first_full) {
        range->first_full = f->run.first_full;
        range->last_full = last;
    }
}

static void divide(finding *f, int64_t first, int64_t last) {
    f->block.kv[0] = first;
    f->block.kv[1] = last - 1;
    const fj_block_class class = fj_iv_classify(f->an, &f->block);
    if (class != FJ_BLOCK_PARTIAL || last - first == 1 || ++f->looks >= LOOKS) {
        put(f, class, first, last);
        return;
    }
    const int64_t middle = first + (last - first + 1) / 2;
    divide(f, first, middle);
    divide(f, middle, last);
}

typedef struct range_call {
    const fj_ir *ir;
    const fj_block *block;
    const fj_scalar *scalars;
    const int64_t *dims;
    fj_ranges *found;
} range_call;

static void find(fj_scope *scope, void *argument) {
    const range_call *call = argument;
    const fj_ir view = fj_ir_view(call->ir, scope->arena);
    finding f = {
        .an = fj_iv_prepare(&view, call->scalars, call->dims), .block = *call->block, .found = call->found};
    f.run.last_full = -1;
    divide(&f, call->block->kv[0], call->block->kv[1] + 1);
}

fj_ranges fj_ir_key_ranges(const fj_ir *ir, const fj_block *block, const fj_scalar *scalars,
                           const int64_t *dims) {
    const int64_t first = block->kv[0], last = block->kv[1] + 1;
    fj_ranges found = {0};
    range_call call = {ir, block, scalars, dims, &found};
    fj_status status = FJ_OK;
    if (first >= last) return found;
    if (ir->mask == 0) return (fj_ranges){1, {{first, first, last, last}}};
    fj_arena arena;
    fj_arena_init(&arena, ir->arena->allocator);
    status = fj_scope_run(&arena, NULL, find, &call);
    fj_arena_finish(&arena);
    if (status != FJ_OK) return (fj_ranges){1, {{first, first, first, last}}};
    return found;
}

/* ---- Printing ------------------------------------------------------------------------------------------ */

/* What the analysis knows nothing of, though the mask's truth depends on it. */
static void put_undecided(const fj_ir *ir, fj_buf *out) {
    const bool *needed = fj_iv_needed(ir);
    bool *told = FJ_NEW_ARRAY(ir->arena, bool, ir->captures.len + 1);
    for (fj_ref ref = 1; ref <= ir->mask; ref++) {
        const fj_node *node = fj_ir_at(ir, ref);
        if (!needed[ref] || fj_iv_kind_of(ir, ref) != FJ_IV_UNKNOWN) continue;
        if (node->op != FJ_OP_LOAD) {
            fj_buf_printf(out, "not decided: %%%u, %s has no interval\n", ref, fj_op_table[node->op].name);
            continue;
        }
        if (told[node->imm.i]) continue;
        told[node->imm.i] = true;
        const char *name = ir->captures.data[node->imm.i].name;
        fj_buf_printf(
            out,
            "not decided: %%%u, what captured tensor '%s' holds is known at run time; block masks are "
            "made with its minima and maxima\n",
            ref, name != NULL ? name : "");
    }
}

static void put_ranges(const fj_ir *ir, int64_t q, int rows, int64_t keys, fj_buf *out) {
    const fj_block block = {.q = {q, q + rows - 1}, .kv = {0, keys - 1}};
    const fj_ranges found = fj_ir_key_ranges(ir, &block, NULL, NULL);
    fj_buf_printf(out, "q %lld to %lld:", (long long)block.q[0], (long long)block.q[1]);
    for (int i = 0; i < found.count; i++) {
        const fj_key_range *range = &found.of[i];
        fj_buf_printf(out, "%s [%lld, %lld)", i > 0 ? "," : "", (long long)range->first,
                      (long long)range->last);
        if (range->first_full < range->last_full)
            fj_buf_printf(out, " full [%lld, %lld)", (long long)range->first_full,
                          (long long)range->last_full);
    }
    fj_buf_put(out, found.count == 0 ? " none\n" : "\n");
}

void fj_ir_print_ranges(const fj_ir *ir, fj_buf *out) {
    static const char *const marks[] = {".", "+", "#"};
    enum { BLOCK = 64, COUNT = 8 };
    if (ir->mask == 0) {
        fj_buf_put(out, "no mask\n");
        return;
    }
    fj_buf_printf(out, "%s\n",
                  fj_ir_mask_has_ranges(ir, false) ? "tier ranges: blocks are decided by intervals"
                                                   : "tier elementwise: no block is decided by intervals");
    put_undecided(ir, out);
    fj_buf_printf(out, "of %d keys, what %d queries of b 0, h 0 may see, and what all of them do:\n",
                  BLOCK * COUNT, BLOCK);
    for (int q = 0; q < COUNT; q++) put_ranges(ir, (int64_t)q * BLOCK, BLOCK, BLOCK * COUNT, out);
    fj_buf_printf(out, "blocks of %d queries (down) and %d keys (across): . empty + partial # full\n", BLOCK,
                  BLOCK);
    for (int q = 0; q < COUNT; q++) {
        for (int kv = 0; kv < COUNT; kv++) {
            const fj_block block = {.q = {q * BLOCK, q * BLOCK + BLOCK - 1},
                                    .kv = {kv * BLOCK, kv * BLOCK + BLOCK - 1}};
            fj_buf_put(out, marks[fj_ir_classify(ir, &block, NULL, NULL)]);
        }
        fj_buf_put(out, "\n");
    }
}
