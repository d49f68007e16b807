/* The emu device: launches. Blocks go to the threads of driver/parallel.h, each of which takes a machine. */
#include "driver/emu/emu.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "driver/emu/machine.h"
#include "driver/parallel.h"

#define MOST_SHARED ((uint32_t)227 << 10) /* sm_90, sm_100 */

struct fj_emu {
    const fj_allocator *allocator;
    pthread_mutex_t lock;
    struct emu_block *pool;
    fj_emu_rounding rounding; /* where a launch leaves it open */
};

static const fj_emu_thread *current_thread(void) { return &fj_emu_current->running->self; }

static void fault(const char *what, fj_emu_site site) { fj_emu_fault(fj_emu_current, site, "%s", what); }

static const fj_emu_services services = {
    .abi = FJ_EMU_ABI,
    .self = current_thread,
    .warp = fj_emu_warp,
    .barrier = fj_emu_barrier,
    .mbarrier = fj_emu_mbarrier,
    .yield = fj_emu_yield,
    .copy = fj_emu_copy,
    .copy_bulk = fj_emu_copy_bulk,
    .copy_commit = fj_emu_copy_commit,
    .copy_wait = fj_emu_copy_wait,
    .clock = fj_emu_clock,
    .fault = fault,
};

/* ---- Machines --------------------------------------------------------------------------------- */

static fj_status choose_rounding(fj_emu_rounding *ret_rounding, fj_error *error) {
    const char *chosen = getenv("FLEXJIT_EMU_MMA");
    const bool truncates = chosen && strcmp(chosen, "truncate") == 0;
    if (chosen && *chosen && !truncates && strcmp(chosen, "nearest") != 0)
        return fj_error_set(error, FJ_ERR_ARGUMENT,
                            "FLEXJIT_EMU_MMA is '%.60s': matrix products round to 'nearest' or 'truncate'",
                            chosen);
    *ret_rounding = truncates ? FJ_EMU_ROUND_TRUNCATE : FJ_EMU_ROUND_NEAREST;
    return FJ_OK;
}

fj_status fj_emu_create(const fj_allocator *allocator, fj_emu **ret_emu, fj_error *error) {
    fj_emu_rounding rounding = FJ_EMU_ROUND_NEAREST;
    const fj_status status = choose_rounding(&rounding, error);
    if (status != FJ_OK) return status;
    fj_emu *emu = fj_alloc_zeroed(allocator, sizeof *emu);
    if (!emu) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    emu->allocator = allocator;
    emu->rounding = rounding;
    (void)pthread_mutex_init(&emu->lock, NULL);
    *ret_emu = emu;
    return FJ_OK;
}

void fj_emu_destroy(fj_emu **emu) {
    if (!emu || !*emu) return;
    while ((*emu)->pool) {
        struct emu_block *block = (*emu)->pool;
        (*emu)->pool = block->next;
        fj_emu_block_destroy(block);
    }
    (void)pthread_mutex_destroy(&(*emu)->lock);
    fj_free((*emu)->allocator, *emu, sizeof **emu);
    *emu = NULL;
}

static struct emu_block *take_block(fj_emu *emu) {
    (void)pthread_mutex_lock(&emu->lock);
    struct emu_block *block = emu->pool;
    if (block) emu->pool = block->next;
    (void)pthread_mutex_unlock(&emu->lock);
    return block ? block : fj_emu_block_create(emu->allocator);
}

static void give_block(fj_emu *emu, struct emu_block *block) {
    (void)pthread_mutex_lock(&emu->lock);
    block->next = emu->pool;
    emu->pool = block;
    (void)pthread_mutex_unlock(&emu->lock);
}

/* ---- Launches --------------------------------------------------------------------------------- */

struct launch {
    fj_emu *emu;
    const fj_emu_kernel *kernel;
    const fj_emu_shape *shape;
    const void *args;
    const fj_emu_options *options;
    struct emu_block **machines; /* per worker, NULL until it has work */
    int workers;
    uint64_t blocks, stride, first; /* the order of blocks */
    atomic_bool stop;
    uint64_t failed_block;
    fj_status status;
    fj_error *error;
    char token; /* ThreadSanitizer: all threads before the end */
};

static void add_counts(fj_emu_counts *to, const fj_emu_counts *from) {
    to->switches += from->switches;
    to->barriers += from->barriers;
    to->warp_ops += from->warp_ops;
    to->matrix_products += from->matrix_products;
    to->async_copies += from->async_copies;
    to->async_bytes += from->async_bytes;
    to->matrix_loads += from->matrix_loads;
    to->bank_conflicts += from->bank_conflicts;
}

/* The first failure in the order of blocks is the one that is told. */
static void record_failure(struct launch *launch, uint64_t number, fj_status status, fj_error *error) {
    (void)pthread_mutex_lock(&launch->emu->lock);
    if (launch->status == FJ_OK || number < launch->failed_block) {
        launch->failed_block = number;
        launch->status = status;
        if (launch->error) {
            fj_error_finish(launch->error);
            *launch->error = *error;
            error->detail = NULL;
        }
    }
    (void)pthread_mutex_unlock(&launch->emu->lock);
    atomic_store(&launch->stop, true);
    fj_error_finish(error);
}

static struct emu_block *machine_of(struct launch *launch, int worker, fj_error *error) {
    struct emu_block *block = launch->machines[worker];
    if (block) return block;
    block = take_block(launch->emu);
    if (!block || !fj_emu_block_attach(block, launch->kernel, launch->shape, launch->args)) {
        fj_emu_block_destroy(block);
        (void)fj_error_set(error, FJ_ERR_MEMORY,
                           "out of memory: the emulator needs stacks for %u threads and %u bytes",
                           launch->shape->threads, launch->shape->shared);
        return NULL;
    }
    double idle = launch->options->idle_seconds > 0 ? launch->options->idle_seconds : 10;
    block->schedule = launch->options->schedule;
    block->copies = launch->options->copies;
    block->rounding =
        launch->options->rounding != FJ_EMU_ROUND_DEFAULT ? launch->options->rounding : launch->emu->rounding;
    block->one_call_site = launch->options->one_call_site;
    block->idle_limit = (uint64_t)(idle * 1e9);
    block->launch_token = &launch->token;
    launch->machines[worker] = block;
    return block;
}

static void run_block(void *arg, int64_t item, int worker) {
    struct launch *launch = arg;
    if (atomic_load(&launch->stop)) return;
    uint64_t number = (launch->first + (uint64_t)item * launch->stride) % launch->blocks;
    fj_error error = {0};
    struct emu_block *block = machine_of(launch, worker, &error);
    if (!block) {
        record_failure(launch, number, FJ_ERR_MEMORY, &error);
        return;
    }
    block->error = &error;
    if (!fj_emu_block_run(block, number, launch->options->seed))
        record_failure(launch, number, FJ_ERR_DEVICE, &error);
}

static uint64_t common_divisor(uint64_t a, uint64_t b) {
    while (b) {
        uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

static void order_blocks(struct launch *launch) {
    const fj_emu_options *options = launch->options;
    launch->first = 0;
    launch->stride = 1;
    if (launch->blocks <= 1) return;
    if (options->schedule == FJ_EMU_REVERSE) {
        launch->first = launch->stride = launch->blocks - 1;
    } else if (options->schedule == FJ_EMU_RANDOM) {
        uint64_t random = (options->seed + 1) * UINT64_C(0x9e3779b97f4a7c15);
        launch->first = (random >> 40) % launch->blocks;
        launch->stride = (random >> 16 & 0xffffff) % launch->blocks;
        while (common_divisor(launch->stride, launch->blocks) != 1) launch->stride++;
    }
}

static fj_status check_launch(const fj_emu_kernel *kernel, const fj_emu_shape *shape, uint32_t shared_limit,
                              fj_error *error) {
    const uint32_t limit = shared_limit ? shared_limit : MOST_SHARED;
    if (kernel->abi != FJ_EMU_ABI)
        return fj_error_set(error, FJ_ERR_DEVICE,
                            "the kernel was compiled for emulator interface %d, this is %d", kernel->abi,
                            FJ_EMU_ABI);
    if (shape->threads == 0 || shape->threads > kernel->max_threads || shape->threads > FJ_EMU_MAX_THREADS)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "kernel %s takes blocks of 1 to %u threads, not %u",
                            kernel->name, kernel->max_threads, shape->threads);
    if (shape->grid[0] == 0 || shape->grid[1] == 0 || shape->grid[2] == 0 || shape->grid[0] > INT32_MAX ||
        shape->grid[1] > 65535 || shape->grid[2] > 65535)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "kernel %s: no grid is %u x %u x %u blocks", kernel->name,
                            shape->grid[0], shape->grid[1], shape->grid[2]);
    if (shape->shared > limit)
        return fj_error_set(
            error, FJ_ERR_ARGUMENT, "kernel %s takes %u bytes of shared memory; a block %s has at most %u",
            kernel->name, shape->shared, shared_limit ? "of this architecture" : "on any device", limit);
    return FJ_OK;
}

fj_status fj_emu_launch(fj_emu *emu, const fj_emu_kernel *kernel, const fj_emu_shape *shape, const void *args,
                        const fj_emu_options *options, fj_error *error) {
    fj_status status = check_launch(kernel, shape, options->shared_limit, error);
    if (status != FJ_OK) return status;
    struct launch launch = {
        .emu = emu,
        .kernel = kernel,
        .shape = shape,
        .args = args,
        .options = options,
        .workers = fj_driver_workers(options->launch),
        .blocks = (uint64_t)shape->grid[0] * shape->grid[1] * shape->grid[2],
        .status = FJ_OK,
        .error = error,
    };
    size_t machines_size = (size_t)launch.workers * sizeof(void *);
    launch.machines = fj_alloc_zeroed(emu->allocator, machines_size);
    if (!launch.machines) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    order_blocks(&launch);
    __atomic_store_n(kernel->services, &services, __ATOMIC_RELEASE);
    fj_driver_parallel(options->launch, launch.workers, (int64_t)launch.blocks, run_block, &launch);
    fj_emu_tsan_acquire(&launch.token);
    for (int i = 0; i < launch.workers; i++) {
        if (!launch.machines[i]) continue;
        if (options->counts) add_counts(options->counts, &launch.machines[i]->counts);
        give_block(emu, launch.machines[i]);
    }
    fj_free(emu->allocator, launch.machines, machines_size);
    return launch.status;
}

/* ---- Guarded memory --------------------------------------------------------------------------- */

#define PAGE ((size_t)4096)

static size_t guarded_pages(size_t size) { return (size + PAGE - 1) / PAGE * PAGE; }

void *fj_emu_guarded_alloc(size_t size) {
    size_t pages = guarded_pages(size);
    unsigned char *memory =
        mmap(NULL, pages + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) return NULL;
    (void)mprotect(memory + pages, PAGE, PROT_NONE);
    memset(memory, EMU_POISON, pages);
    return memory + pages - size;
}

void fj_emu_guarded_free(void *pointer, size_t size) {
    if (!pointer) return;
    size_t pages = guarded_pages(size);
    (void)munmap((unsigned char *)pointer - (pages - size), pages + PAGE);
}
