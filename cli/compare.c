/* The comparison behind `flexjit run --check`. */
#include <math.h>

#include "cli/number.h"
#include "cli/run.h"

typedef struct sums {
    double error, largest, magnitude; /* of the elements that are finite in both */
    size_t count;
    bool exact; /* infinities, NaN and masked rows agree */
} sums;

/* Infinities must be the same; a finite reference beyond the range of x's dtype is an infinity there. */
static bool same_special(double x, double reference, fj_dtype dtype) {
    if (isnan(reference) || isnan(x)) return isnan(reference) && isnan(x);
    return x == cli_round(dtype, reference);
}

static void add_element(sums *sum, double x, double reference, fj_dtype dtype) {
    if (!isfinite(reference) || !isfinite(x)) {
        sum->exact = sum->exact && same_special(x, reference, dtype);
        return;
    }
    double error = fabs(x - reference);
    sum->error += error;
    if (error > sum->largest) sum->largest = error;
    sum->magnitude += fabs(reference);
    sum->count++;
}

static bool is_masked(const cli_view *masked, size_t row) {
    return masked != NULL && cli_load(masked->dtype, masked->tensor.data, row) == -HUGE_VAL;
}

static double element(const cli_view *view, size_t index) {
    return cli_load(view->dtype, view->tensor.data, index);
}

double cli_mean_error(const cli_view *x, const cli_view *reference) {
    sums sum = {0};
    for (size_t i = 0; i < x->count; i++) add_element(&sum, element(x, i), element(reference, i), x->dtype);
    return sum.count > 0 ? sum.error / (double)sum.count : 0;
}

void cli_compare(const cli_view *x, const cli_view *reference, const cli_view *masked, double allowed,
                 fj_dtype unit, cli_comparison *ret_comparison) {
    sums sum = {.exact = true};
    size_t rows = masked != NULL ? masked->count : 1;
    size_t width = rows > 0 ? x->count / rows : 0;
    for (size_t row = 0; row < rows; row++) {
        bool zero = is_masked(masked, row);
        for (size_t i = row * width; i < (row + 1) * width; i++) {
            double value = element(x, i);
            if (zero && value != 0) sum.exact = false;
            add_element(&sum, value, element(reference, i), x->dtype);
        }
    }
    double count = sum.count > 0 ? (double)sum.count : 1;
    cli_comparison result = {.max = sum.exact ? sum.largest : HUGE_VAL, .mean = sum.error / count};
    result.bound = allowed + 4 * cli_ulp(unit, sum.magnitude / count);
    result.ok = sum.exact && result.mean <= result.bound;
    *ret_comparison = result;
}
