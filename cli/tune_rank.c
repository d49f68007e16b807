/* From what a log holds to the winner of each problem. Nothing else decides, so that a replayed log gives the same.
 *
 * The times of a sweep were taken minutes apart, and a machine drifts by some percent in between: they choose who is timed
 * again, in turns with the default. The winner is the one whose time there is the smallest part of the default's, if that
 * is beyond the spread of the comparison and the least times, which other work disturbs least, agree; else the default
 * stays. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/tune.h"

const char *const cli_rejections[CLI_REJECTIONS] = {"compile", "spill",   "launch",
                                                    "wrong",   "timeout", "crash"};

/* Finalists may be slower in the sweep by what it drifts; a winner is faster by more than what nobody notices. */
static const double may_lose = 1.05, must_win = 1.01, hopeless = 1.5;

/* ---- Reading ----------------------------------------------------------------------------- */

static const char *text_of(const json_t *object, const char *key) {
    return json_string_value(json_object_get(object, key));
}

static bool belongs(const json_t *result, size_t problem) {
    return json_integer_value(json_object_get(result, "problem")) == (json_int_t)problem;
}

/* NAN where a result has none, as what was rejected. */
double cli_result_ms(const json_t *result) {
    size_t i;
    json_t *measurement;
    if (json_object_get(result, "rejected") != NULL) return (double)NAN;
    json_array_foreach(json_object_get(result, "measurements"), i, measurement) {
        const char *name = text_of(measurement, "name");
        const json_t *value = json_object_get(measurement, "value");
        if (name != NULL && strcmp(name, "time") == 0 && json_is_number(value))
            return json_number_value(value);
    }
    return (double)NAN;
}

static size_t read_samples(const json_t *list, double samples[CLI_MOST_SAMPLES]) {
    size_t count = 0;
    for (size_t i = 0; i < json_array_size(list) && count < CLI_MOST_SAMPLES; i++) {
        const double value = json_number_value(json_array_get(list, i));
        if (isfinite(value) && value > 0) samples[count++] = value;
    }
    return count;
}

/* ---- Finalists --------------------------------------------------------------------------- */

size_t cli_rank_finalists(const cli_log *log, size_t problem, const char *ret_variants[CLI_FINALISTS]) {
    const char *standard = text_of(json_array_get(log->problems, problem), "default");
    const json_t *of_default = standard != NULL ? cli_log_find(log, problem, standard) : NULL;
    const double limit = of_default != NULL ? cli_result_ms(of_default) * may_lose : (double)NAN;
    double times[CLI_FINALISTS + 1];
    size_t count = 0, i;
    json_t *result;
    json_array_foreach(log->results, i, result) {
        const char *variant = text_of(result, "variant");
        const double time = cli_result_ms(result);
        if (!belongs(result, problem) || variant == NULL || isnan(time) || time > limit) continue;
        if (standard != NULL && strcmp(variant, standard) == 0) continue;
        size_t at = count;
        for (; at > 0 && times[at - 1] > time; at--) {
            times[at] = times[at - 1];
            if (at < CLI_FINALISTS) ret_variants[at] = ret_variants[at - 1];
        }
        times[at] = time;
        if (at < CLI_FINALISTS) ret_variants[at] = variant;
        if (count < CLI_FINALISTS) count++;
    }
    return count;
}

/* ---- Kinds ------------------------------------------------------------------------------- */

/* The least time of what has a value of a parameter; NAN when there is none. */
static double least_with(const cli_log *log, size_t problem, const char *parameter, const json_t *value) {
    double least = (double)NAN;
    size_t i;
    json_t *result;
    json_array_foreach(log->results, i, result) {
        const json_t *has = json_object_get(json_object_get(result, "configuration"), parameter);
        if (!belongs(result, problem) || has == NULL || !json_equal(has, value)) continue;
        least = fmin(least, cli_result_ms(result)); /* NAN is none */
    }
    return least;
}

/* Parameters with names for values are kinds of kernels: of each the plan lists some, which are tried first. */
bool cli_rank_is_hopeless(const cli_log *log, size_t problem, const cli_candidate *candidate,
                          double best_ms) {
    const char *parameter;
    json_t *value;
    json_object_foreach(candidate->parameters, parameter, value) {
        if (json_is_string(value) && least_with(log, problem, parameter, value) > hopeless * best_ms)
            return true;
    }
    return false;
}

/* ---- Duels ------------------------------------------------------------------------------- */

typedef struct duel {
    double standard_ms, variant_ms, speedup, spread;
    bool least_agree;
} duel;

/* Ratios of neighbours in time. The spread is two standard errors of their median, from the median distance to it. */
static bool judge(const json_t *of, duel *ret_duel) {
    double standard[CLI_MOST_SAMPLES], variant[CLI_MOST_SAMPLES], ratios[CLI_MOST_SAMPLES],
        off[CLI_MOST_SAMPLES];
    const size_t count = read_samples(json_object_get(of, "default"), standard);
    if (count < 3 || read_samples(json_object_get(of, "times"), variant) != count) return false;
    for (size_t i = 0; i < count; i++) ratios[i] = standard[i] / variant[i];
    const double speedup = cli_median(ratios, count);
    double least_standard = HUGE_VAL, least_variant = HUGE_VAL;
    for (size_t i = 0; i < count; i++) {
        least_standard = fmin(least_standard, standard[i]);
        least_variant = fmin(least_variant, variant[i]);
    }
    for (size_t i = 0; i < count; i++) off[i] = fabs(ratios[i] - speedup);
    *ret_duel = (duel){
        .standard_ms = cli_median(standard, count),
        .variant_ms = cli_median(variant, count),
        .speedup = speedup,
        .spread = 2 * 1.4826 * 1.2533 * cli_median(off, count) / sqrt((double)count),
        .least_agree = least_variant < least_standard,
    };
    return true;
}

static void count_results(const cli_log *log, size_t problem, cli_ranking *ranking) {
    size_t i;
    json_t *result;
    json_array_foreach(log->results, i, result) {
        const char *rejected = text_of(result, "rejected");
        if (!belongs(result, problem)) continue;
        ranking->tried++;
        for (size_t j = 0; rejected != NULL && j < CLI_REJECTIONS; j++)
            ranking->rejected[j] += strcmp(rejected, cli_rejections[j]) == 0;
    }
}

cli_ranking cli_rank(const cli_log *log, size_t problem) {
    const json_t *object = json_array_get(log->problems, problem);
    const char *standard = text_of(object, "default");
    cli_ranking ranking = {.standard_ms = (double)NAN, .best_ms = (double)NAN, .speedup = (double)NAN};
    const json_t *of_default = standard != NULL ? cli_log_find(log, problem, standard) : NULL;
    count_results(log, problem, &ranking);
    if (of_default == NULL || isnan(cli_result_ms(of_default))) return ranking;
    ranking.standard = ranking.best = standard;
    ranking.standard_ms = ranking.best_ms = cli_result_ms(of_default);
    ranking.speedup = 1;
    size_t i;
    json_t *of;
    json_array_foreach(json_object_get(object, "duels"), i, of) {
        duel now;
        if (text_of(of, "variant") == NULL || !judge(of, &now) || !now.least_agree) continue;
        if (now.speedup < must_win || now.speedup - now.spread <= 1 || now.speedup <= ranking.speedup)
            continue;
        ranking.best = text_of(of, "variant");
        ranking.standard_ms = now.standard_ms;
        ranking.best_ms = now.variant_ms;
        ranking.speedup = now.speedup;
        ranking.spread = now.spread;
    }
    return ranking;
}
