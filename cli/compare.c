/* The comparison behind `flexjit run --check`.
 *
 * Each row of an output has a unit of its own, its noise: the mean over the row of what rounding does to an element, as
 * FJ_DEVICE_ROUNDING derives it, with the rounding that stores it. So a row of large numbers does not hide the others,
 * and a row whose terms cancel to 0 is allowed the rounding of these terms. An output passes when
 *
 *     mean over rows of error / noise  <=  F * mean over rows of (error of the unfused pass) / noise  +  A
 *     error  <=  2 F * (error of the unfused pass + its mean of error / noise * noise)  +  2 A * noise    for each row
 *
 * The first finds what is a little wrong everywhere, the second what is wrong in one row. What is reported is in the
 * output's own unit: these means times the noise of the median row, plain means where all rows have the same.
 */
#include <math.h>
#include <stdlib.h>

#include "cli/number.h"
#include "cli/report.h"
#include "cli/run.h"

typedef struct row_errors {
    double error, noise, unfused, largest;
    size_t count; /* elements that are finite in x and in the reference */
    bool exact;   /* infinities, NaN and masked rows agree */
} row_errors;

static double element(const cli_view *view, size_t index) {
    return cli_load(view->dtype, view->tensor.data, index);
}

/* Half a unit in the last place of 1. */
static double unit_roundoff(fj_dtype dtype) { return cli_ulp(dtype, 1) / 2; }

/* Kernels may flush what is below the normal numbers, but in F16. */
static double least_noise(fj_dtype dtype) {
    double ulp = cli_ulp(dtype, 0);
    return dtype == FJ_DTYPE_F16 ? ulp / 2 : ulp / cli_ulp(dtype, 1);
}

/* Whether the error that an element is allowed at least reaches beyond the range of its dtype. */
static bool may_overflow(const cli_evidence *of, size_t i, double reference) {
    const double noise = hypot(element(of->noise, i), unit_roundoff(of->x->dtype) * reference);
    const double most = fabs(reference) + 2 * of->slack * noise;
    return !isfinite(most) || !isfinite(cli_round(of->x->dtype, most));
}

/* x is not finite exactly where the reference is not, but which of NaN and the infinities is left open, except for the -inf
 * of statistics. A finite reference beyond the range of x's dtype is an infinity there. Where the unfused pass overflows,
 * sums in float32 do, and where x's own noise reaches beyond its range, rounding may: there x may be anything that is not
 * finite. */
static bool same_special(const cli_evidence *of, size_t i, double x, double reference) {
    bool overflows = of->overflows && isfinite(reference) && !isfinite(element(of->unfused, i));
    if (overflows) return !isfinite(x);
    if (isfinite(reference) && !isfinite(x) && !of->statistic && may_overflow(of, i, reference)) return true;
    if (isfinite(reference)) return x == cli_round(of->x->dtype, reference);
    if (of->statistic && (reference == -HUGE_VAL || x == -HUGE_VAL)) return x == reference;
    return !isfinite(x);
}

static void add_element(const cli_evidence *of, size_t i, row_errors *row, size_t *unfused_count) {
    double x = element(of->x, i), reference = element(of->reference, i);
    if (!isfinite(reference) || !isfinite(x)) {
        row->exact = row->exact && same_special(of, i, x, reference);
        return;
    }
    double noise = element(of->noise, i), unfused = element(of->unfused, i);
    double error = fabs(x - reference), off = fabs(unfused - element(of->unfused_reference, i));
    row->error += error;
    row->largest = fmax(row->largest, error);
    row->noise += hypot(isfinite(noise) ? noise : 0, unit_roundoff(of->x->dtype) * reference);
    row->count++;
    if (!isfinite(off)) return;
    row->unfused += off * of->unfused_scale;
    ++*unfused_count;
}

static bool is_masked(const cli_evidence *of, size_t row) {
    if (of->masked == NULL) return false;
    const size_t at = of->heads > 0 ? row % of->heads * (of->rows / of->heads) + row / of->heads : row;
    return element(of->masked, at) == -HUGE_VAL;
}

static row_errors measure(const cli_evidence *of, size_t row) {
    size_t width = of->x->count / of->rows, unfused_count = 0;
    row_errors all = {.exact = true};
    for (size_t i = row * width; i < (row + 1) * width; i++) {
        if (is_masked(of, row) && element(of->x, i) != 0) all.exact = false;
        add_element(of, i, &all, &unfused_count);
    }
    if (all.count > 0) all.error /= (double)all.count;
    if (all.count > 0) all.noise /= (double)all.count;
    if (unfused_count > 0) all.unfused /= (double)unfused_count;
    return all;
}

/* ---- All rows ---------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *values, size_t count) {
    qsort(values, count, sizeof *values, by_size);
    return count > 0 ? values[count / 2] : 0;
}

/* The means over the rows that have noise, in units of it, then in that of the median row. */
static void compare_means(const cli_evidence *of, const row_errors *rows, double *noises,
                          cli_comparison *comparison) {
    double error = 0, unfused = 0;
    size_t count = 0;
    for (size_t i = 0; i < of->rows; i++) {
        if (rows[i].noise == 0) continue; /* of zeros: nothing to weigh */
        double noise = rows[i].noise + least_noise(of->x->dtype);
        error += rows[i].error / noise;
        unfused += rows[i].unfused / noise;
        noises[count++] = noise;
    }
    double typical = median(noises, count), unit = count > 0 ? typical / (double)count : 0;
    comparison->mean = error * unit;
    comparison->unfused = unfused * unit;
    comparison->usual = count > 0 ? unfused / (double)count : 0;
    comparison->bound = of->factor * comparison->unfused + of->slack * typical;
}

static void compare_rows(const cli_evidence *of, const row_errors *rows, cli_comparison *comparison) {
    for (size_t i = 0; i < of->rows; i++) {
        double noise = rows[i].noise + least_noise(of->x->dtype);
        double unfused = of->factor * (rows[i].unfused + comparison->usual * noise);
        double ratio = rows[i].error / (2 * (unfused + of->slack * noise));
        if (ratio <= comparison->worst) continue;
        comparison->worst = ratio;
        comparison->row = i;
    }
}

int cli_compare(const cli_evidence *of, cli_comparison *ret_comparison) {
    row_errors *rows = calloc(of->rows + 1, sizeof *rows);
    double *noises = calloc(of->rows + 1, sizeof *noises);
    cli_comparison result = {.ok = true};
    if (rows == NULL || noises == NULL) {
        free(rows);
        free(noises);
        return cli_no_memory();
    }
    for (size_t i = 0; i < of->rows; i++) {
        rows[i] = measure(of, i);
        result.max = fmax(result.max, rows[i].exact ? rows[i].largest : HUGE_VAL);
        result.ok = result.ok && rows[i].exact;
    }
    compare_means(of, rows, noises, &result);
    compare_rows(of, rows, &result);
    result.ok = result.ok && result.mean <= result.bound && result.worst <= 1;
    *ret_comparison = result;
    free(rows);
    free(noises);
    return CLI_EXIT_OK;
}

/* ---- By kind of output ------------------------------------------------------------------- */

/* F */
static double factor_of(cli_output_kind kind, double base) {
    switch (kind) {
    case CLI_OUTPUT_OUT:
    case CLI_OUTPUT_LSE:
    case CLI_OUTPUT_MAX: return base;
    case CLI_OUTPUT_DQ: return 2.5 * base;
    case CLI_OUTPUT_DK:
    case CLI_OUTPUT_DV:
    case CLI_OUTPUT_GRADIENT: return 4 * base;
    }
    return base;
}

/* Gradients of captures have no rows; a statistic is one number of a row. */
static size_t rows_of(const cli_output *output) {
    const DLTensor *tensor = &output->view->tensor;
    const bool has_rows = output->kind != CLI_OUTPUT_GRADIENT && output->kind != CLI_OUTPUT_LSE &&
                          output->kind != CLI_OUTPUT_MAX;
    const int64_t width = has_rows && tensor->ndim > 0 ? tensor->shape[tensor->ndim - 1] : 1;
    return width > 0 ? output->view->count / (size_t)width : 0;
}

/* A: with 16 bits a probability and an output are rounded once; in float32, and so statistics, a fused pass rounds them some
 * times more. */
cli_evidence cli_evidence_of(const cli_output *x, const cli_call_options *options, fj_dtype dtype,
                             const cli_view *lse) {
    bool narrow = dtype == FJ_DTYPE_F16 || dtype == FJ_DTYPE_BF16;
    bool rows = x->kind == CLI_OUTPUT_OUT || x->kind == CLI_OUTPUT_DQ;
    bool statistic = x->kind == CLI_OUTPUT_LSE || x->kind == CLI_OUTPUT_MAX;
    return (cli_evidence){
        .x = x->view,
        .unfused_scale = 1,
        .masked = rows ? lse : NULL,
        .heads = options->form == FJ_FORM_PACKED ? (size_t)options->shape.heads : 0,
        .rows = rows_of(x),
        .factor = factor_of(x->kind, narrow ? 1.1 : 10),
        .slack = narrow && !statistic ? 1 : 4,
        .overflows = dtype == FJ_DTYPE_F32 || dtype == FJ_DTYPE_BF16,
        .statistic = statistic,
    };
}

/* ---- Report ------------------------------------------------------------------------------ */

json_t *cli_comparison_json(const cli_comparison *comparison) {
    return json_pack("{s:o, s:o, s:o, s:o, s:o, s:b}", "max", cli_json_number(comparison->max), "mean",
                     cli_json_number(comparison->mean), "bound", cli_json_number(comparison->bound),
                     "unfused", cli_json_number(comparison->unfused), "worst_row",
                     cli_json_number(comparison->worst), "ok", comparison->ok);
}
