/* The emulator's machine: one block of CUDA threads on one OS thread.
 *
 *      emu.c      launches: blocks onto threads, machines kept between them
 *      block.c    one block: its memory, its start and end, what a fault says
 *      schedule.c who runs next: waiting, waking, faults
 *      barrier.c  block barriers and mbarriers
 *      warp.c     operations of a warp: gathering lanes; shuffle, ballot
 *      matrix.c   mma, ldmatrix, stmatrix
 *      truncate.c mma as hardware rounds it
 *      layout.h   which lane holds which element, as data
 *      copy.c     asynchronous copies
 *      fiber.c    stacks and sanitizers; switch.S
 *
 * Each CUDA thread is a fiber. It runs until a primitive makes it wait, then the scheduler continues
 * another one that can run. States: runnable, at a barrier (id), at a warp operation (its members), at an
 * mbarrier (phase), sleeping, done. Invariants:
 *
 *  1. A thread is in block->running, or its bit is in warp->ready, or its state says what it waits for.
 *  2. A warp operation runs when all its members have called it that have not exited; they call with the
 *     same operation from the same line (where hardware wants it and the launch asks for it, from the same call
 *     in machine code), else they have diverged, which is a fault.
 *  3. Barriers count warps: a warp has arrived when all its threads have that did not exit, and counts as
 *     32 threads. Barrier 0 without a count expects all warps that still have threads.
 *  4. Nothing runnable and somebody waiting is a deadlock. Faults and deadlocks leave the fibers as they
 *     are: the machine starts the next block on fresh frames.
 *  5. ThreadSanitizer sees order among threads only where CUDA promises it: block barriers, mbarriers and
 *     fj_warp_sync release before and acquire after; nothing else does. A token serves one phase, so that a
 *     thread that is slow to leave does not learn what a fast one did afterwards.
 *  6. An asynchronous copy is made by an agent, one per thread, ordered after the copy's issue; the thread
 *     is ordered after it by the wait. So the destination, read too early, is a race.
 *  7. Blocks are not ordered: each has views of its own, and stacks and shared memory mapped anew (only so does
 *     ThreadSanitizer forget). The launch's end is after all of them. To make a view takes longer than a small block
 *     runs, so a launch takes over those of the one before it, which ended before it began.
 */
#ifndef FJ_DRIVER_EMU_MACHINE_H
#define FJ_DRIVER_EMU_MACHINE_H

#include "driver/emu/emu.h"
#include "driver/emu/fiber.h"

#define EMU_WARPS (FJ_EMU_MAX_THREADS / FJ_EMU_WARP)
#define EMU_TOKENS 64
#define EMU_VIEWS 512   /* that outlive a launch: ThreadSanitizer has at most 8,000, of about a megabyte */
#define EMU_POISON 0xff /* NaN of every float type */
#define EMU_CANARY 0xa7 /* around shared memory */

enum emu_state { EMU_RUNNABLE, EMU_AT_BARRIER, EMU_AT_WARP_OP, EMU_AT_MBARRIER, EMU_SLEEPING, EMU_DONE };

struct emu_copy {
    unsigned char *to;
    const unsigned char *from;
    uint32_t size, source_size, group;
};

/* Bulk copies that have not landed, of the whole block. */
struct emu_bulk {
    unsigned char *to;
    const unsigned char *from;
    uint64_t *mbarrier;
    uint32_t size;
};

struct emu_copies {
    struct emu_copy *pending; /* late copies, oldest group first */
    size_t len, cap;
    uint32_t committed, complete; /* groups */
    void *agent;
    char tokens[EMU_TOKENS]; /* one per group, in turn */
};

/* ThreadSanitizer's, of a thread and of the agent of its copies. */
struct emu_view {
    void *thread, *agent;
};

struct emu_thread {
    struct fj_emu_thread self;
    struct fj_emu_fiber fiber;
    struct emu_warp *warp;
    uint32_t bit; /* in its warp */
    enum emu_state state;
    fj_emu_site site; /* where it waits */
    const void *caller;
    const struct emu_warp_op *op;
    const struct emu_barrier *barrier;
    const uint64_t *mbarrier;
    uint32_t parity;
    struct emu_copies copies;
    struct emu_view *view; /* where its views go; NULL: they end with it */
};

/* What all members of a warp operation call alike. */
struct emu_warp_call {
    enum fj_emu_warp_op op;
    int variant;
    uint32_t members;
    fj_emu_site site;
    const void *caller;
};

/* A warp operation that some members have called. */
struct emu_warp_op {
    struct emu_warp_call call;
    uint32_t arrived; /* 0: this slot is free */
    char *token;
    void *operands[FJ_EMU_WARP];
};

struct emu_warp {
    uint32_t index, threads; /* bit per thread that the block has */
    uint32_t ready, exited;
    uint32_t sleeping;
    struct emu_warp_op ops[FJ_EMU_WARP]; /* as many as lanes can wait */
    uint32_t op_limit;                   /* those beyond are free */
    uint32_t syncs;
    char tokens[EMU_TOKENS];
};

struct emu_barrier {
    uint32_t id, expected;                            /* threads; 0: all */
    uint32_t arrived;                                 /* bit per warp */
    uint32_t waiting[EMU_WARPS], arriving[EMU_WARPS]; /* lanes that came, those that do not stay */
    bool open;                                        /* somebody came */
    uint32_t phase;
    char tokens[2];
};

struct emu_block {
    const fj_allocator *allocator;
    struct emu_block *next; /* in the pool */

    /* of the launch */
    const fj_emu_kernel *kernel;
    const void *args;
    const fj_emu_shape *shape;
    fj_emu_schedule schedule;
    fj_emu_copies copies;
    fj_emu_rounding rounding; /* not the default */
    bool one_call_site;
    char *launch_token;
    struct emu_view *views; /* of the threads of all its blocks, in their order */
    uint32_t views_used;
    char begin_token;

    /* memory: [guard | stack] per thread, [guard | shared memory | guard] */
    unsigned char *stacks, *shared_map, *shared;
    size_t stack_slot, stacks_size, shared_map_size;

    struct emu_thread *threads, *running;
    struct emu_warp *warps;
    struct emu_barrier barriers[FJ_EMU_BARRIERS];
    uint32_t thread_count, warp_count, live;
    uint32_t ready_warps, sleeping_warps; /* bit per warp */
    uint64_t random;
    uint64_t idle_rounds, idle_since, idle_limit; /* wakings of sleepers since anything else happened; ns */
    struct emu_bulk *bulk;
    size_t bulk_len, bulk_cap;
    struct fj_emu_fiber main;
    fj_emu_counts counts;
    uint32_t index[3]; /* of the block */
    bool failed;
    fj_error *error;
};

/* The block that this OS thread runs. */
extern _Thread_local struct emu_block *fj_emu_current __attribute__((tls_model("initial-exec")));

/* ---- block.c ---------------------------------------------------------------------------------- */

/* NULL when memory is short. */
struct emu_block *fj_emu_block_create(const fj_allocator *allocator);
void fj_emu_block_destroy(struct emu_block *block);
/* Prepares for a launch: false when memory is short. */
bool fj_emu_block_attach(struct emu_block *block, const fj_emu_kernel *kernel, const fj_emu_shape *shape,
                         const void *args);
/* Runs block number `index` of the grid. False: it failed, block->error says how. */
bool fj_emu_block_run(struct emu_block *block, uint64_t index, uint64_t seed);

/* ---- schedule.c ------------------------------------------------------------------------------- */

void fj_emu_ready(struct emu_block *block, struct emu_warp *warp, uint32_t lanes);
/* Leaves the running thread, whose state says what for, and returns when it is made ready. */
void fj_emu_wait(struct emu_block *block, enum emu_state state, fj_emu_site site);
/* Ends the block. `kind` and the place come before the text. */
_Noreturn void fj_emu_fault(struct emu_block *block, fj_emu_site site, const char *format, ...)
    FJ_PRINTF(3, 4);
/* The entry of every fiber. */
void fj_emu_thread_main(void);
void fj_emu_start(struct emu_block *block); /* continues threads until none is left */
void fj_emu_yield(fj_emu_site site);
uint64_t fj_emu_clock(void);

/* ---- barrier.c, warp.c, matrix.c, copy.c ------------------------------------------------------ */

void fj_emu_barrier(enum fj_emu_barrier_kind kind, uint32_t id, uint32_t threads, fj_emu_site site);
void fj_emu_barrier_exit(struct emu_block *block, struct emu_thread *thread);
void fj_emu_mbarrier(enum fj_emu_mbarrier_op op, void *object, uint32_t value, fj_emu_site site);
/* The bytes of a transaction that has landed. */
/* The mbarrier at an address; a fault when there is none. */
uint64_t *fj_emu_mbarrier_at(struct emu_block *block, void *object, bool init, fj_emu_site site);
void *fj_emu_mbarrier_token(uint64_t *object);
void fj_emu_mbarrier_complete_tx(struct emu_block *block, uint64_t *object, uint32_t bytes);

void fj_emu_warp(enum fj_emu_warp_op kind, int variant, uint32_t members, void *operands, fj_emu_site site);
void fj_emu_warp_exit(struct emu_block *block, struct emu_thread *thread);
const char *fj_emu_warp_op_name(enum fj_emu_warp_op op);

void fj_emu_multiply(int type, fj_emu_rounding rounding, void *const operands[FJ_EMU_WARP]);
/* c[16][8] += a[16][depth] * b[depth][8], `group` products at a time. least: exponent of a normal factor. */
void fj_emu_multiply_truncated(float *c, const float *a, const float *b, int depth, int group, int least);
void fj_emu_load_matrices(struct emu_block *block, int variant, void *const operands[FJ_EMU_WARP]);
void fj_emu_store_matrices(struct emu_block *block, int variant, void *const operands[FJ_EMU_WARP]);

void fj_emu_copy(void *shared, const void *global, uint32_t size, uint32_t source_size, fj_emu_site site);
void fj_emu_copy_bulk(void *shared, const void *global, uint32_t size, void *mbarrier, fj_emu_site site);
/* Completes pending copies, as late as allowed: when no thread can run without them. */
void fj_emu_bulk_land(struct emu_block *block);
void fj_emu_copy_commit(fj_emu_site site);
void fj_emu_copy_wait(uint32_t pending, fj_emu_site site);
void fj_emu_copies_reset(struct emu_copies *copies);
void fj_emu_copies_name(struct emu_copies *copies, uint32_t thread); /* in reports of ThreadSanitizer */
void fj_emu_copies_finish(struct emu_block *block, struct emu_copies *copies);

#endif
