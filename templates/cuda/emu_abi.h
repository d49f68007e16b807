/* What a kernel compiled for the emulator and the emulator agree on. C17 and C++17, no dependencies.
 *
 * A compiled kernel file exports one fj_emu_kernel per kernel, under the kernel's name. The launch
 * stores the table of services through `services` before any thread runs, so the shared object needs
 * no symbol of the library. Services are called by the thread that they concern; those that wait
 * switch to another thread and return when this one may go on. A fault ends the launch: the service
 * that found it never returns.
 */
#ifndef FJ_EMU_ABI_H
#define FJ_EMU_ABI_H

#include <stdint.h>

#define FJ_EMU_ABI 1
#define FJ_EMU_WARP 32
#define FJ_EMU_MAX_THREADS 1024
#define FJ_EMU_BARRIERS 16
/* The address, in the shared window, of the first byte of a block's shared memory. */
#define FJ_EMU_SHARED_START 1024u

/* Where in the kernel text a primitive was called. */
typedef struct fj_emu_site {
    const char *file;
    int line;
} fj_emu_site;

/* What a thread may know of itself. */
typedef struct fj_emu_thread {
    uint32_t thread[3], block[3], block_dim[3], grid_dim[3];
    uint32_t linear; /* x runs fastest; lane = linear % 32, warp = linear / 32 */
    uint32_t shared_size;
    unsigned char *shared; /* aligned to 1024 bytes */
} fj_emu_thread;

/* Operations of a warp. Every lane of `members` calls with the same operation, variant and members,
 * from the same line, and operands of the type named here; results are in the operands. */
enum fj_emu_warp_op {
    FJ_EMU_SYNC,     /* none; orders memory among the members. The others do not. */
    FJ_EMU_SHUFFLE,  /* fj_emu_shuffle */
    FJ_EMU_BALLOT,   /* fj_emu_ballot */
    FJ_EMU_MMA,      /* fj_emu_mma; variant: enum fj_emu_mma_type */
    FJ_EMU_LDMATRIX, /* fj_emu_matrix; variant: matrices, + 8 when transposed */
    FJ_EMU_STMATRIX, /* fj_emu_matrix; the same */
    FJ_EMU_WARP_OPS
};

enum fj_emu_mma_type { FJ_EMU_MMA_F16, FJ_EMU_MMA_BF16, FJ_EMU_MMA_TF32, FJ_EMU_MMA_F16_K8 };

typedef struct fj_emu_shuffle {
    uint32_t value;
    uint32_t source; /* lane to read from; of a lane that is not a member: poison */
} fj_emu_shuffle;

typedef struct fj_emu_ballot {
    uint32_t vote; /* in: 0 or 1; out: a bit per member */
} fj_emu_ballot;

typedef struct fj_emu_mma {
    float c[4]; /* in: addend, out: sum */
    uint32_t a[4], b[2];
} fj_emu_mma;

/* ldmatrix: `row` holds the 16 bytes at this lane's address, in; `reg` out. stmatrix: the reverse.
 * `address` (in the shared window) is for counting bank conflicts. */
typedef struct fj_emu_matrix {
    uint32_t reg[4];
    uint32_t row[4];
    uint32_t address;
} fj_emu_matrix;

/* How a thread comes to a block barrier. */
enum fj_emu_barrier_kind { FJ_EMU_BARRIER_WAIT, FJ_EMU_BARRIER_ARRIVE };

enum fj_emu_mbarrier_op {
    FJ_EMU_MBARRIER_INIT,      /* value: arrivals that complete a phase */
    FJ_EMU_MBARRIER_ARRIVE,    /* value: arrivals */
    FJ_EMU_MBARRIER_EXPECT_TX, /* value: bytes; arrives once as well */
    FJ_EMU_MBARRIER_WAIT       /* value: parity; returns when a phase of that parity is complete */
};

typedef struct fj_emu_services {
    int32_t abi;
    const fj_emu_thread *(*self)(void);
    void (*warp)(enum fj_emu_warp_op op, int variant, uint32_t members, void *operands, fj_emu_site site);
    /* threads 0: all of the block */
    void (*barrier)(enum fj_emu_barrier_kind kind, uint32_t id, uint32_t threads, fj_emu_site site);
    void (*mbarrier)(enum fj_emu_mbarrier_op op, void *object, uint32_t value, fj_emu_site site);
    /* Lets other threads run: spinning without it would never end. */
    void (*yield)(fj_emu_site site);
    /* Asynchronous copy to shared memory: source_size bytes, then zeros up to size. */
    void (*copy)(void *shared, const void *global, uint32_t size, uint32_t source_size, fj_emu_site site);
    /* The same of any size; completes as `size` bytes of a transaction of the mbarrier. */
    void (*copy_bulk)(void *shared, const void *global, uint32_t size, void *mbarrier, fj_emu_site site);
    void (*copy_commit)(fj_emu_site site);
    void (*copy_wait)(uint32_t pending, fj_emu_site site);
    uint64_t (*clock)(void); /* nanoseconds */
    /* A wrong use that the primitive found itself, or a trap. Does not return. */
    void (*fault)(const char *what, fj_emu_site site);
} fj_emu_services;

typedef struct fj_emu_kernel {
    int32_t abi; /* FJ_EMU_ABI */
    uint32_t max_threads;
    uint32_t args_size;
    const char *name;
    void (*run)(const void *args); /* one thread, from start to end */
    const fj_emu_services **services;
} fj_emu_kernel;

#endif
