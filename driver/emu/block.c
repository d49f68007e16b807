/* One block: its memory, its beginning and its end. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "driver/emu/machine.h"

#define PAGE ((size_t)4096)
/* Of a thread, with its guard page. Address space: memory is used where a kernel has been. A mod has at most 65,536
 * values (expr/LANGUAGE.md), of which a compiler may keep each on the stack; 20,000 were measured to take 60 kB. */
#define STACK ((size_t)4 << 20)
#define STACK_SANITIZED ((size_t)512 << 10) /* what is written of the whole of it, by sanitizers, is memory */
#define STACK_LEAST ((size_t)64 << 10)      /* where address space is short */
#define STAGGER ((size_t)256)               /* so that the hot ends of stacks do not share cache sets */

static size_t round_up(size_t size, size_t unit) { return (size + unit - 1) / unit * unit; }

/* ---- Memory ----------------------------------------------------------------------------------- */

/* Anew, at the same place if there was one: ThreadSanitizer forgets what was there. */
static unsigned char *map(void *at, size_t size) {
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (at ? MAP_FIXED : 0);
    void *memory = mmap(at, size, PROT_READ | PROT_WRITE, flags, -1, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

/* Poison would outlive the mapping, and meet whatever is mapped there next. */
static void unmap(unsigned char *memory, size_t size) {
    if (!memory) return;
    fj_emu_asan_unpoison(memory, size);
    (void)munmap(memory, size);
}

static void guard(unsigned char *page) { (void)mprotect(page, PAGE, PROT_NONE); }

static void guard_stacks(struct emu_block *block) {
    for (size_t at = 0; at < block->stacks_size; at += block->stack_slot) guard(block->stacks + at);
}

static bool make_stacks(struct emu_block *block, uint32_t threads) {
    if (block->stacks && block->stacks_size >= block->stack_slot * threads) return true;
    unmap(block->stacks, block->stacks_size);
    block->stacks = NULL;
    block->stack_slot = fj_emu_asan() || fj_emu_tsan() ? STACK_SANITIZED : STACK;
    while (!(block->stacks = map(NULL, block->stack_slot * threads)) && block->stack_slot > STACK_LEAST)
        block->stack_slot /= 2;
    block->stacks_size = block->stacks ? block->stack_slot * threads : 0;
    /* Else the first touch of each stack may take a huge page. */
    if (block->stacks) (void)madvise(block->stacks, block->stacks_size, MADV_NOHUGEPAGE);
    guard_stacks(block);
    return block->stacks != NULL;
}

/* Shared memory ends, rounded to its alignment of 1024, where the guard page begins. */
static bool make_shared(struct emu_block *block, uint32_t bytes) {
    size_t size = round_up(bytes, PAGE) + 2 * PAGE;
    if (block->shared_map_size != size) {
        unmap(block->shared_map, block->shared_map_size);
        block->shared_map = map(NULL, size);
        block->shared_map_size = block->shared_map ? size : 0;
        if (!block->shared_map) return false;
        guard(block->shared_map);
        guard(block->shared_map + size - PAGE);
    }
    block->shared = block->shared_map + size - PAGE - round_up(bytes, 1024);
    return true;
}

static void forget(struct emu_block *block) {
    if (!fj_emu_tsan()) return;
    (void)map(block->stacks, block->stacks_size);
    guard_stacks(block);
    (void)map(block->shared_map + PAGE, block->shared_map_size - 2 * PAGE);
}

struct canaries {
    unsigned char *before, *after;
    size_t before_size, after_size;
};

static struct canaries canaries_of(const struct emu_block *block) {
    unsigned char *first = block->shared_map + PAGE, *end = block->shared_map + block->shared_map_size - PAGE;
    unsigned char *after = block->shared + block->shape->shared;
    return (struct canaries){first, after, (size_t)(block->shared - first), (size_t)(end - after)};
}

static void poison_shared(struct emu_block *block) {
    struct canaries c = canaries_of(block);
    fj_emu_asan_unpoison(c.before, block->shared_map_size - 2 * PAGE);
    memset(c.before, EMU_CANARY, c.before_size);
    memset(block->shared, EMU_POISON, block->shape->shared);
    memset(c.after, EMU_CANARY, c.after_size);
    fj_emu_asan_poison(c.before, c.before_size);
    fj_emu_asan_poison(c.after, c.after_size);
}

static bool is_untouched(const unsigned char *memory, size_t size) {
    for (size_t i = 0; i < size; i++)
        if (((const volatile unsigned char *)memory)[i] != EMU_CANARY) return false;
    return true;
}

static void check_canaries(struct emu_block *block) {
    struct canaries c = canaries_of(block);
    bool before = is_untouched(c.before, c.before_size);
    if (before && is_untouched(c.after, c.after_size)) return;
    block->failed = true;
    (void)fj_error_set(block->error, FJ_ERR_DEVICE,
                       "kernel %s, block (%u, %u, %u): a write %s its %u bytes of shared memory",
                       block->kernel->name, block->index[0], block->index[1], block->index[2],
                       before ? "past" : "before", block->shape->shared);
}

/* ---- What ThreadSanitizer sees -------------------------------------------------------------------- */

static bool make_views(struct emu_block *block) {
    if (!fj_emu_tsan() || block->views) return true;
    block->views = fj_alloc_zeroed(block->allocator, EMU_VIEWS * sizeof *block->views);
    return block->views != NULL;
}

static void destroy_views(struct emu_block *block) {
    for (uint32_t i = 0; block->views && i < EMU_VIEWS; i++) {
        fj_emu_tsan_destroy(&block->views[i].thread);
        fj_emu_tsan_destroy(&block->views[i].agent);
    }
    fj_free(block->allocator, block->views, EMU_VIEWS * sizeof *block->views);
}

/* A new view is ordered after what made it; one of an earlier launch is told. */
static void take_views(struct emu_block *block, struct emu_thread *thread) {
    struct emu_view *view = block->views_used < EMU_VIEWS ? &block->views[block->views_used++] : NULL;
    char name[64];
    thread->view = view;
    thread->fiber.race = view && view->thread ? view->thread : fj_emu_tsan_create();
    thread->copies.agent = view ? view->agent : NULL;
    if (view && view->thread) {
        fj_emu_tsan_enter(thread->fiber.race);
        fj_emu_tsan_acquire(&block->begin_token);
        fj_emu_tsan_enter(block->main.race);
    }
    (void)snprintf(name, sizeof name, "CUDA thread %u", thread->self.linear);
    fj_emu_tsan_name(thread->fiber.race, name);
    fj_emu_copies_name(&thread->copies, thread->self.linear);
}

/* A thread that failed ends within calls, which its view would keep. */
static void give_views(const struct emu_block *block, struct emu_thread *thread) {
    struct emu_view now = {thread->fiber.race, thread->copies.agent}, none = {NULL, NULL};
    const bool stays = thread->view && !block->failed;
    if (thread->view) *thread->view = stays ? now : none;
    if (!stays) {
        fj_emu_tsan_destroy(&now.thread);
        fj_emu_tsan_destroy(&now.agent);
    }
    thread->fiber.race = thread->copies.agent = NULL;
}

/* ---- Life ------------------------------------------------------------------------------------- */

struct emu_block *fj_emu_block_create(const fj_allocator *allocator) {
    struct emu_block *block = fj_alloc_zeroed(allocator, sizeof *block);
    if (!block) return NULL;
    block->allocator = allocator;
    block->threads = fj_alloc_zeroed(allocator, FJ_EMU_MAX_THREADS * sizeof *block->threads);
    block->warps = fj_alloc_zeroed(allocator, EMU_WARPS * sizeof *block->warps);
    if (!block->threads || !block->warps) {
        fj_emu_block_destroy(block);
        return NULL;
    }
    return block;
}

void fj_emu_block_destroy(struct emu_block *block) {
    if (!block) return;
    for (uint32_t i = 0; block->threads && i < FJ_EMU_MAX_THREADS; i++)
        fj_emu_copies_finish(block, &block->threads[i].copies);
    unmap(block->stacks, block->stacks_size);
    unmap(block->shared_map, block->shared_map_size);
    destroy_views(block);
    fj_free(block->allocator, block->bulk, block->bulk_cap * sizeof *block->bulk);
    fj_free(block->allocator, block->warps, EMU_WARPS * sizeof *block->warps);
    fj_free(block->allocator, block->threads, FJ_EMU_MAX_THREADS * sizeof *block->threads);
    fj_free(block->allocator, block, sizeof *block);
}

bool fj_emu_block_attach(struct emu_block *block, const fj_emu_kernel *kernel, const fj_emu_shape *shape,
                         const void *args) {
    block->kernel = kernel;
    block->shape = shape;
    block->args = args;
    block->thread_count = shape->threads;
    block->warp_count = (shape->threads + FJ_EMU_WARP - 1) / FJ_EMU_WARP;
    block->counts = (fj_emu_counts){0};
    block->main.race = fj_emu_tsan_current();
    block->views_used = 0;
    return make_views(block) && make_stacks(block, shape->threads) && make_shared(block, shape->shared);
}

static void start_thread(struct emu_block *block, uint32_t i) {
    struct emu_thread *thread = &block->threads[i];
    thread->self = (fj_emu_thread){
        .thread = {i, 0, 0},
        .block = {block->index[0], block->index[1], block->index[2]},
        .block_dim = {block->thread_count, 1, 1},
        .grid_dim = {block->shape->grid[0], block->shape->grid[1], block->shape->grid[2]},
        .linear = i,
        .shared_size = block->shape->shared,
        .shared = block->shared,
    };
    thread->warp = &block->warps[i / FJ_EMU_WARP];
    thread->bit = 1u << i % FJ_EMU_WARP;
    thread->warp->threads |= thread->bit;
    thread->state = EMU_RUNNABLE;
    thread->op = NULL;
    thread->barrier = NULL;
    thread->mbarrier = NULL;
    fj_emu_copies_reset(&thread->copies);
    thread->fiber.stack = block->stacks + i * block->stack_slot + PAGE;
    thread->fiber.stack_size = block->stack_slot - PAGE;
    fj_emu_fiber_start(&thread->fiber, i % 16 * STAGGER, fj_emu_thread_main);
    if (fj_emu_tsan()) take_views(block, thread);
}

static void start_warps(struct emu_block *block) {
    for (uint32_t w = 0; w < block->warp_count; w++) {
        struct emu_warp *warp = &block->warps[w];
        warp->index = w;
        warp->threads = warp->sleeping = warp->op_limit = warp->ready = 0;
        for (uint32_t i = 0; i < FJ_EMU_WARP; i++) warp->ops[i].arrived = 0;
    }
    for (uint32_t i = 0; i < block->thread_count; i++) start_thread(block, i);
    block->ready_warps = block->sleeping_warps = 0;
    for (uint32_t w = 0; w < block->warp_count; w++) {
        struct emu_warp *warp = &block->warps[w];
        warp->exited = ~warp->threads;
        fj_emu_ready(block, warp, warp->threads);
    }
}

static void end_threads(struct emu_block *block) {
    for (uint32_t i = 0; fj_emu_tsan() && i < block->thread_count; i++) give_views(block, &block->threads[i]);
    if (block->failed) fj_emu_asan_unpoison(block->stacks, block->stacks_size);
}

bool fj_emu_block_run(struct emu_block *block, uint64_t index, uint64_t seed) {
    const uint32_t *grid = block->shape->grid;
    block->index[0] = (uint32_t)(index % grid[0]);
    block->index[1] = (uint32_t)(index / grid[0] % grid[1]);
    block->index[2] = (uint32_t)(index / grid[0] / grid[1]);
    block->random = (seed + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ (index + 1) * UINT64_C(0xbf58476d1ce4e5b9);
    block->live = block->thread_count;
    block->idle_rounds = 0;
    block->failed = false;
    block->bulk_len = 0;
    memset(block->barriers, 0, sizeof block->barriers);
    for (uint32_t id = 0; id < FJ_EMU_BARRIERS; id++) block->barriers[id].id = id;
    forget(block);
    poison_shared(block);
    fj_emu_tsan_release(&block->begin_token);
    start_warps(block);
    fj_emu_start(block);
    end_threads(block);
    if (!block->failed) check_canaries(block);
    return !block->failed;
}
