/* How long a launch takes, on a machine that does other things too.
 *
 * Before each launch the caches are flushed, since a launch in a model finds what other kernels left there. A sample is the
 * mean of some launches where these are short. The median of the samples counts; two kernels are told apart only by samples
 * that were taken in turns, where what drifts meets both. */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "cli/report.h"
#include "cli/tune.h"

enum {
    MEBIBYTE = 1 << 20,
    LEAST_CACHE = 32 * MEBIBYTE, /* what a machine that does not say is taken for */
    MOST_CACHE = 128 * MEBIBYTE,
    GPU_CACHE = 128 * MEBIBYTE,
    MOST_LAUNCHES = 4,
    FEWEST_SAMPLES = 5,
    MOST_WARM = 10,
    FEWEST_TURNS = 7
};
static const double sample_ms = 0.5, sampling_ms = 250, warming_ms = 200, steady = 0.05, noisy = 0.05,
                    duel_ms = 600, patience = 4;

/* ---- Flushing ---------------------------------------------------------------------------- */

static size_t flush_size(const fj_device *device) {
    if (fj_device_dlpack(device).device_type != kDLCPU) return GPU_CACHE;
    if (strncmp(fj_device_name(device), "cpu", 3) != 0) return 0; /* an emulator's time is not a device's */
    const long cache = sysconf(_SC_LEVEL3_CACHE_SIZE);
    const size_t size = cache > LEAST_CACHE ? (size_t)cache : LEAST_CACHE;
    return size * 3 / 2 > MOST_CACHE ? MOST_CACHE : size * 3 / 2;
}

static int flush(const cli_flush *of) {
    if (of->size == 0) return CLI_EXIT_OK;
    fj_error error = {0};
    fj_status result = fj_device_fill(of->device, of->memory, 1, of->size, NULL, &error);
    if (result == FJ_OK) result = fj_device_wait(of->device, NULL, &error);
    return result == FJ_OK ? CLI_EXIT_OK : cli_fail_library(result, &error);
}

int cli_flush_open(fj_device *device, cli_flush *ret_flush) {
    cli_flush of = {.device = device, .size = flush_size(device)};
    fj_error error = {0};
    const fj_status result = fj_device_alloc(device, of.size, &of.memory, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    int status = flush(&of); /* the first one finds pages */
    const double start = cli_seconds();
    if (status == CLI_EXIT_OK) status = flush(&of);
    of.bytes_per_ms = of.size > 0 ? (double)of.size / (cli_seconds() - start) * 1e-3 : 0;
    if (status == CLI_EXIT_OK)
        *ret_flush = of;
    else
        cli_flush_close(&of);
    return status;
}

void cli_flush_close(cli_flush *of) {
    if (of->device != NULL) fj_device_free(of->device, &of->memory);
    *of = (cli_flush){0};
}

/* ---- Samples ----------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double cli_median(const double *values, size_t count) {
    double *sorted = malloc((count + 1) * sizeof *sorted);
    if (sorted == NULL || count == 0) {
        free(sorted);
        return count == 0 ? (double)NAN : values[0];
    }
    memcpy(sorted, values, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, by_size);
    const double median = (sorted[(count - 1) / 2] + sorted[count / 2]) / 2;
    free(sorted);
    return median;
}

static int launch(cli_kernel *kernel, const cli_flush *of, double *ret_ms) {
    const int status = flush(of);
    return status == CLI_EXIT_OK ? cli_kernel_launch(kernel, ret_ms) : status;
}

static int sample(cli_kernel *kernel, const cli_flush *of, int launches, double *ret_ms) {
    double sum = 0;
    for (int i = 0; i < launches; i++) {
        double ms;
        const int status = launch(kernel, of, &ms);
        if (status != CLI_EXIT_OK) return status;
        sum += ms;
    }
    *ret_ms = sum / launches;
    return CLI_EXIT_OK;
}

/* Until two launches in a row take the same time, or it is long enough. */
static int warm_up(cli_kernel *kernel, const cli_flush *of, double *ret_ms) {
    double last = 0, sum = 0;
    for (int i = 0; i < MOST_WARM; i++) {
        double ms;
        const int status = launch(kernel, of, &ms);
        if (status != CLI_EXIT_OK) return status;
        const bool same = fabs(ms - last) <= steady * ms;
        last = ms;
        sum += ms;
        if ((i > 0 && same) || sum > warming_ms) break;
    }
    *ret_ms = last;
    return CLI_EXIT_OK;
}

static int launches_for(double ms) {
    const double launches = ceil(sample_ms / fmax(ms, 1e-6));
    return launches > MOST_LAUNCHES ? MOST_LAUNCHES : launches < 1 ? 1 : (int)launches;
}

/* Whether half of the samples are close to their median. */
static bool is_steady(const cli_samples *samples) {
    double off[CLI_MOST_SAMPLES];
    const double median = cli_median(samples->ms, samples->count);
    for (size_t i = 0; i < samples->count; i++) off[i] = fabs(samples->ms[i] - median);
    return cli_median(off, samples->count) <= noisy * median;
}

/* On a machine that is busy it takes longer. Samples cost their launches and the flushes between them. */
int cli_time_kernel(cli_kernel *kernel, const cli_flush *of, double give_up_ms, cli_samples *ret_samples) {
    double about = 0;
    int status = warm_up(kernel, of, &about);
    const int launches = launches_for(about);
    const double start = cli_seconds();
    *ret_samples = (cli_samples){0};
    while (status == CLI_EXIT_OK && ret_samples->count < CLI_MOST_SAMPLES) {
        const double passed = (cli_seconds() - start) * 1e3;
        if (ret_samples->count >= FEWEST_SAMPLES && passed > sampling_ms &&
            (passed > patience * sampling_ms || is_steady(ret_samples)))
            break;
        status = sample(kernel, of, launches, &ret_samples->ms[ret_samples->count]);
        if (status == CLI_EXIT_OK) ret_samples->count++;
        if (ret_samples->count == 2 && fmin(ret_samples->ms[0], ret_samples->ms[1]) > give_up_ms) break;
    }
    return status;
}

/* a b, b a, a b: so that neither is always the first after the other. */
int cli_time_duel(cli_kernel *a, cli_kernel *b, const cli_flush *of, cli_samples *ret_a, cli_samples *ret_b) {
    double about_a = 0, about_b = 0;
    int status = warm_up(a, of, &about_a);
    if (status == CLI_EXIT_OK) status = warm_up(b, of, &about_b);
    const int launches = launches_for(fmax(about_a, about_b));
    const double start = cli_seconds();
    *ret_a = *ret_b = (cli_samples){0};
    for (size_t i = 0; status == CLI_EXIT_OK && i < CLI_MOST_SAMPLES; i++) {
        if (i >= FEWEST_TURNS && (cli_seconds() - start) * 1e3 > duel_ms) break;
        const bool swapped = i % 2 != 0;
        status = sample(swapped ? b : a, of, launches, swapped ? &ret_b->ms[i] : &ret_a->ms[i]);
        if (status == CLI_EXIT_OK)
            status = sample(swapped ? a : b, of, launches, swapped ? &ret_a->ms[i] : &ret_b->ms[i]);
        if (status == CLI_EXIT_OK) ret_a->count = ret_b->count = i + 1;
    }
    return status;
}
