/* Items on threads: OpenMP's, or the caller's. */
#include "driver/parallel.h"

#include <omp.h>

int fj_driver_workers(const fj_launch *launch) {
    int workers = 0;
    if (launch && launch->executor)
        workers = launch->executor->workers;
    else if (launch && launch->workers > 0)
        workers = launch->workers;
    else
        workers = omp_get_max_threads();
    return workers > 0 ? workers : 1;
}

void fj_driver_parallel(const fj_launch *launch, int workers, int64_t items,
                        void (*fn)(void *arg, int64_t item, int worker), void *arg) {
    if (items <= 0) return;
    if (launch && launch->executor) {
        launch->executor->run(launch->executor->user, items, fn, arg);
        return;
    }
    if (workers == 1 || items == 1) {
        for (int64_t item = 0; item < items; item++) fn(arg, item, 0);
        return;
    }
#pragma omp parallel for schedule(dynamic) num_threads(workers)
    for (int64_t item = 0; item < items; item++) fn(arg, item, omp_get_thread_num());
}
