/* Items on threads: OpenMP's, or the caller's.
 *
 * After fork a child has one thread, but its OpenMP believes that the others are there and waits for them for ever. So in
 * a process that did not begin OpenMP's threads they are left alone, and each call has threads of its own.
 */
#include "driver/parallel.h"

#include <omp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

int fj_driver_workers(const fj_launch *launch) {
    int workers = 0;
    if (launch && launch->executor)
        workers = launch->executor->workers;
    else if (launch && launch->workers > 0)
        workers = launch->workers;
    else
        workers = omp_get_max_threads();
    if (workers > FJ_DRIVER_MAX_WORKERS) return FJ_DRIVER_MAX_WORKERS;
    return workers > 0 ? workers : 1;
}

/* ---- Threads of a call ---------------------------------------------------------------------------------- */

typedef struct crew {
    int64_t items;
    void (*fn)(void *arg, int64_t item, int worker);
    void *arg;
    _Atomic int64_t next;
    atomic_int workers; /* which have a number */
} crew;

static void *work(void *argument) {
    crew *c = argument;
    const int worker = atomic_fetch_add(&c->workers, 1);
    for (int64_t item; (item = atomic_fetch_add(&c->next, 1)) < c->items;) c->fn(c->arg, item, worker);
    return NULL;
}

/* The caller is one of the workers. With fewer threads than were asked for it takes longer. */
static void run_crew(int workers, int64_t items, void (*fn)(void *arg, int64_t item, int worker), void *arg) {
    enum { MOST = 256 };
    crew c = {.items = items, .fn = fn, .arg = arg};
    pthread_t threads[MOST];
    int count = 0;
    if (workers > MOST) workers = MOST;
    while (count < workers - 1 && pthread_create(&threads[count], NULL, work, &c) == 0) count++;
    (void)work(&c);
    while (count > 0) (void)pthread_join(threads[--count], NULL);
}

/* ---- Choosing --------------------------------------------------------------------------------------------- */

/* Whether this is the process in which OpenMP was first used here. */
static bool owns_openmp(void) {
    static _Atomic pid_t owner;
    const pid_t self = getpid();
    pid_t nobody = 0;
    return atomic_compare_exchange_strong(&owner, &nobody, self) || nobody == self;
}

void fj_driver_parallel(const fj_launch *launch, int workers, int64_t items,
                        void (*fn)(void *arg, int64_t item, int worker), void *arg) {
    if (items <= 0) return;
    if (launch && launch->executor) {
        launch->executor->run(launch->executor->user, items, fn, arg);
        return;
    }
    if (workers > items) workers = (int)items;
    if (workers == 1) {
        for (int64_t item = 0; item < items; item++) fn(arg, item, 0);
        return;
    }
    if (!owns_openmp()) {
        run_crew(workers, items, fn, arg);
        return;
    }
#pragma omp parallel for schedule(dynamic) num_threads(workers)
    for (int64_t item = 0; item < items; item++) fn(arg, item, omp_get_thread_num());
}
