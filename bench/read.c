/* How fast threads read memory: the yardstick of what is bound by it.
 *
 *   read MEGABYTES THREADS TIMES    prints the best of TIMES, in GB/s
 *
 * Each thread reads a part of its own in order, 64 bytes at a time, and adds them up by `or`. The memory is from malloc and
 * written before, as tensors of `flexjit bench` are: it has the pages that these have.
 */
#include <omp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef uint64_t line __attribute__((vector_size(64)));

static uint64_t read_all(const line *from, size_t count) {
    line sum[4] = {{0}};
    for (size_t i = 0; i + 4 <= count; i += 4)
        for (int j = 0; j < 4; j++) sum[j] |= from[i + (size_t)j];
    sum[0] |= sum[1] | sum[2] | sum[3];
    return sum[0][0] | sum[0][3] | sum[0][5];
}

int main(int argc, char **argv) {
    if (argc != 4) return (void)fprintf(stderr, "usage: read MEGABYTES THREADS TIMES\n"), 2;
    const size_t size = (size_t)atol(argv[1]) << 20;
    const int threads = atoi(argv[2]), times = atoi(argv[3]);
    char *memory = malloc(size + 64);
    double best = 0;
    uint64_t all = 0;
    if (!memory || size == 0 || threads < 1) return 1;
    memset(memory, 1, size + 64);
    const line *lines = (const line *)(memory + (64 - (uintptr_t)memory % 64));
    for (int i = 0; i < times; i++) {
        const size_t part = (size / 64 - 1) / (size_t)threads;
        const double from = omp_get_wtime();
#pragma omp parallel num_threads(threads) reduction(| : all)
        all |= read_all(lines + part * (size_t)omp_get_thread_num(), part);
        const double rate = (double)(part * (size_t)threads * 64) / (omp_get_wtime() - from) * 1e-9;
        if (rate > best) best = rate;
    }
    printf("%.3f\n", all ? best : 0);
    free(memory);
    return 0;
}
