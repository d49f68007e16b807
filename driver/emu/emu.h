/* The emu device: the text of CUDA kernels, compiled by the host C++ compiler, run on the CPU.
 *
 * What it is for: right answers, races and memory errors, without a GPU. A kernel is a kernel file that
 * was compiled with templates/cuda/prim_host.h; its code object is loaded as one of the cpu device, and
 * exports an fj_emu_kernel under the kernel's name. Blocks run on threads (driver/parallel.h), the
 * threads of a block on one of them, as fibers, in an order that the caller chooses. A correct kernel
 * gives the same bits in every order and with copies landing early or late. Its answers are within their bounds also
 * when matrix products truncate as those of hardware do. Compiled with a sanitizer, in
 * a process that has its runtime, a kernel has its memory errors (address) or its races (thread) reported
 * at its lines. See machine.h for how.
 */
#ifndef FJ_DRIVER_EMU_EMU_H
#define FJ_DRIVER_EMU_EMU_H

#include "base/base.h"
#include "templates/cuda/emu_abi.h"

typedef enum fj_emu_schedule {
    FJ_EMU_FORWARD, /* of the threads that can run the lowest, until it waits */
    FJ_EMU_REVERSE, /* the highest */
    FJ_EMU_RANDOM,  /* any, by seed */
    FJ_EMU_SCHEDULE_COUNT
} fj_emu_schedule;

typedef enum fj_emu_copies {
    FJ_EMU_EAGER, /* asynchronous copies are complete at once */
    FJ_EMU_LATE,  /* at the wait, or when no thread can run without; until then the destination is NaN */
    FJ_EMU_COPIES_COUNT
} fj_emu_copies;

/* How mma rounds its sums. Kernels must be right in both: truncation shows accumulators that are added to for too long,
 * as on a GPU. */
typedef enum fj_emu_rounding {
    FJ_EMU_ROUND_DEFAULT, /* as FLEXJIT_EMU_MMA said when the emulator was created: nearest (also unset) or truncate */
    FJ_EMU_ROUND_NEAREST,  /* each product is added by itself and rounded to nearest: fast */
    FJ_EMU_ROUND_TRUNCATE, /* as an A100 (truncate.c): groups of products, aligned and cut */
    FJ_EMU_ROUND_COUNT
} fj_emu_rounding;

/* What was done, over all blocks. */
typedef struct fj_emu_counts {
    uint64_t switches, barriers, warp_ops, matrix_products, async_copies, async_bytes;
    uint64_t matrix_loads;   /* 8x8 matrices by ldmatrix and stmatrix */
    uint64_t bank_conflicts; /* passes that these took more than one per matrix */
} fj_emu_counts;

typedef struct fj_emu_options {
    fj_emu_schedule schedule;
    fj_emu_copies copies;
    uint64_t seed;
    double idle_seconds;     /* how long a block may do nothing but spin on flags; 0: 10 */
    const fj_launch *launch; /* where the blocks run; may be NULL */
    fj_emu_counts *counts;   /* may be NULL; added to */
    fj_emu_rounding rounding;
    /* The instructions that a warp must execute as one (mma, ldmatrix, stmatrix, block barriers: .aligned in PTX) are
     * called from one place in machine code, not just from one line: halves of a warp that come to them through two
     * calls of one helper have diverged. Only for kernels compiled so that the compiler neither doubles nor merges
     * calls (tests/kern/emu.c has the options). */
    bool one_call_site;
    uint32_t shared_limit; /* most bytes of shared memory that a block has on the architecture; 0: on any */
} fj_emu_options;

typedef struct fj_emu_shape {
    uint32_t grid[3]; /* in blocks */
    uint32_t threads; /* of a block */
    uint32_t shared;  /* bytes of shared memory */
} fj_emu_shape;

/* Holds stacks and shared memory between launches. Launches may run at the same time. */
typedef struct fj_emu fj_emu;

/* FJ_ERR_ARGUMENT: FLEXJIT_EMU_MMA is neither nearest nor truncate. */
fj_status fj_emu_create(const fj_allocator *allocator, fj_emu **ret_emu, fj_error *error);
void fj_emu_destroy(fj_emu **emu);

/* Runs a kernel to its end. args: kernel->args_size bytes, what the kernel sees as `args`. A deadlock,
 * divergence, a trap or a wrong use of a primitive ends the launch: FJ_ERR_DEVICE, the error says what
 * and where, its detail who waits for what, and the output is unspecified. */
fj_status fj_emu_launch(fj_emu *emu, const fj_emu_kernel *kernel, const fj_emu_shape *shape, const void *args,
                        const fj_emu_options *options, fj_error *error);

/* Memory that ends where a page without access begins, so that a kernel that reads or writes past it stops
 * at once, sanitizer or not. Filled with NaN; aligned to `align` bytes where the size is a multiple of it.
 * NULL on failure. */
void *fj_emu_guarded_alloc(size_t size);
void fj_emu_guarded_free(void *pointer, size_t size);

#endif
