/* The page of a sweep: for each problem the times by parameter and in their order, the roof, default and best. It loads
 * nothing, so that it can be kept, sent and looked at anywhere. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/report.h"
#include "cli/safetensors.h"
#include "cli/tune.h"
#include "cli/tune_plot.h"

enum { VALUES = 64, SHOWN = 20, TITLE = 256 };

/* A problem's variants that were timed, in the order of the log. */
typedef struct timed {
    const json_t *result;
    double ms;
    char title[TITLE];
    const char *kind;
} timed;

typedef struct page {
    FILE *to;
    const cli_log *log;
    size_t problem;
    const json_t *of; /* the problem */
    cli_ranking ranking;
    timed *items;
    cli_point *points; /* room for three for each item */
    size_t count;
} page;

static const char *text_of(const json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "";
}

static double number_of(const json_t *object, const char *key) {
    return json_number_value(json_object_get(object, key));
}

/* ---- Collecting -------------------------------------------------------------------------- */

static int collect(page *p) {
    size_t i;
    json_t *result;
    const size_t all = json_array_size(p->log->results);
    p->items = calloc(all + 1, sizeof *p->items);
    p->points = calloc(3 * all + 4, sizeof *p->points);
    if (p->items == NULL || p->points == NULL) return cli_no_memory();
    json_array_foreach(p->log->results, i, result) {
        const double ms = cli_result_ms(result);
        const char *variant = text_of(result, "variant");
        if (json_integer_value(json_object_get(result, "problem")) != (json_int_t)p->problem) continue;
        if (!(ms > 0)) continue;
        timed *item = &p->items[p->count++];
        const bool is_best = p->ranking.best != NULL && strcmp(variant, p->ranking.best) == 0;
        const bool is_default = p->ranking.standard != NULL && strcmp(variant, p->ranking.standard) == 0;
        *item = (timed){.result = result, .ms = ms, .kind = is_default ? "default" : is_best ? "best" : ""};
        snprintf(item->title, TITLE, "%s: %.4g ms", variant, ms);
    }
    return CLI_EXIT_OK;
}

/* ---- Pictures ---------------------------------------------------------------------------- */

static void draw_order(page *p) {
    cli_plot plot = {.to = p->to, .log_y = true};
    cli_point *steps = p->points + p->count;
    size_t step_count = 0;
    double best = HUGE_VAL;
    for (size_t i = 0; i < p->count; i++)
        p->points[i] = (cli_point){(double)i + 1, p->items[i].ms, p->items[i].title, p->items[i].kind};
    cli_plot_span(&plot, p->points, p->count);
    plot.left = 0;
    cli_plot_begin(&plot, "Time of each variant, and the best so far", "measurement", "ms", NULL, 0);
    for (size_t i = 0; i < p->count; i++) {
        if (i > 0) steps[step_count++] = (cli_point){(double)i + 1, best, "", ""};
        best = fmin(best, p->items[i].ms);
        steps[step_count++] = (cli_point){(double)i + 1, best, "", ""};
    }
    cli_plot_line(&plot, steps, step_count);
    cli_plot_points(&plot, p->points, p->count);
    cli_plot_end(&plot);
}

/* The texts of a parameter's values, numbers in their order; false where there is but one. */
static int by_value(const void *a, const void *b) {
    const char *x = *(const char *const *)a, *y = *(const char *const *)b;
    const double u = strtod(x, NULL), v = strtod(y, NULL);
    return u != v ? (u > v) - (u < v) : strcmp(x, y);
}

static char *value_text(const json_t *result, const char *parameter) {
    const json_t *value = json_object_get(json_object_get(result, "configuration"), parameter);
    char *text = NULL;
    if (json_is_string(value)) return strdup(json_string_value(value));
    if (json_is_integer(value) && asprintf(&text, "%lld", (long long)json_integer_value(value)) < 0)
        return NULL;
    return text;
}

static size_t find(char *const *names, size_t count, const char *text) {
    size_t i = 0;
    while (i < count && strcmp(names[i], text) != 0) i++;
    return i;
}

static size_t list_values(const page *p, const char *parameter, char *names[VALUES]) {
    size_t count = 0;
    for (size_t i = 0; i < p->count && count < VALUES; i++) {
        char *text = value_text(p->items[i].result, parameter);
        if (text != NULL && find(names, count, text) == count)
            names[count++] = text;
        else
            free(text);
    }
    if (count > 0) qsort(names, count, sizeof *names, by_value);
    return count;
}

static void draw_parameter(page *p, const char *parameter) {
    char *names[VALUES], title[TITLE];
    const size_t name_count = list_values(p, parameter, names);
    size_t count = 0;
    for (size_t i = 0; name_count > 1 && i < p->count; i++) {
        char *text = value_text(p->items[i].result, parameter);
        const size_t place = text != NULL ? find(names, name_count, text) : name_count;
        free(text);
        if (place < name_count)
            p->points[count++] =
                (cli_point){(double)place, p->items[i].ms, p->items[i].title, p->items[i].kind};
    }
    if (count > 0) {
        cli_plot plot = {.to = p->to, .log_y = true};
        snprintf(title, sizeof title, "Time by %s", parameter);
        cli_plot_span(&plot, p->points, count);
        cli_plot_begin(&plot, title, parameter, "ms", (const char *const *)names, name_count);
        cli_plot_points(&plot, p->points, count);
        cli_plot_end(&plot);
    }
    for (size_t i = 0; i < name_count; i++) free(names[i]);
}

/* TFLOP/s over FLOPs a byte: below memory's slope and arithmetic's ceiling. */
static void draw_roof(page *p) {
    const double flops = number_of(p->of, "flops"), bytes = number_of(p->of, "bytes"),
                 peak = number_of(p->of, "peak"), rate = number_of(p->of, "rate");
    if (!(flops > 0 && bytes > 0 && peak > 0 && rate > 0) || p->ranking.standard == NULL) return;
    const double intensity = flops / bytes, ridge = peak / rate;
    const double from = fmin(intensity, ridge) / 4, to = fmax(intensity, ridge) * 4;
    char titles[2][TITLE];
    const double ms[2] = {p->ranking.standard_ms, p->ranking.best_ms};
    cli_point points[5] = {
        {from, from * rate * 1e-12, "", ""}, {ridge, peak * 1e-12, "", ""}, {to, peak * 1e-12, "", ""}};
    for (int i = 0; i < 2; i++) {
        const double tflops = flops / ms[i] * 1e-9;
        snprintf(titles[i], TITLE, "%s: %.4g TFLOP/s", i == 0 ? "default" : "best", tflops);
        points[3 + i] = (cli_point){intensity, tflops, titles[i], i == 0 ? "default" : "best"};
    }
    cli_plot plot = {.to = p->to, .log_x = true, .log_y = true};
    cli_plot_span(&plot, points, 5);
    cli_plot_begin(&plot, "Roofline, of measured peaks", "FLOPs a byte", "TFLOP/s", NULL, 0);
    cli_plot_line(&plot, points, 3);
    cli_plot_points(&plot, points + 3, 2);
    cli_plot_end(&plot);
}

/* ---- Tables ------------------------------------------------------------------------------ */

static int by_time(const void *a, const void *b) {
    const double x = ((const timed *)a)->ms, y = ((const timed *)b)->ms;
    return (x > y) - (x < y);
}

/* After the pictures: the items lose their order. */
static void put_fastest(page *p) {
    if (p->count > 0) qsort(p->items, p->count, sizeof *p->items, by_time);
    fputs(
        "<details><summary>The fastest variants of the sweep</summary><table><tr><th>variant</th><th>median ms"
        "</th><th>compiled in ms</th></tr>\n",
        p->to);
    for (size_t i = 0; i < p->count && i < SHOWN; i++) {
        fprintf(p->to, "<tr class=\"%s\"><td>", p->items[i].kind);
        cli_put_escaped(p->to, text_of(p->items[i].result, "variant"));
        fprintf(p->to, "</td><td>%.4g</td><td>%.0f</td></tr>\n", p->items[i].ms,
                number_of(json_object_get(p->items[i].result, "times"), "compilation_time"));
    }
    fputs("</table></details>\n", p->to);
}

static void put_rejected(const page *p) {
    size_t i, count = 0;
    json_t *result;
    for (i = 0; i < CLI_REJECTIONS; i++) count += p->ranking.rejected[i];
    if (count == 0) return;
    fputs(
        "<details><summary>What was rejected</summary><table><tr><th>variant</th><th>as</th><th>why</th></tr>\n",
        p->to);
    json_array_foreach(p->log->results, i, result) {
        if (json_object_get(result, "rejected") == NULL) continue;
        if (json_integer_value(json_object_get(result, "problem")) != (json_int_t)p->problem) continue;
        fputs("<tr><td>", p->to);
        cli_put_escaped(p->to, text_of(result, "variant"));
        fputs("</td><td>", p->to);
        cli_put_escaped(p->to, text_of(result, "rejected"));
        fputs("</td><td>", p->to);
        cli_put_escaped(p->to, text_of(result, "text"));
        fputs("</td></tr>\n", p->to);
    }
    fputs("</table></details>\n", p->to);
}

static void put_summary(const page *p) {
    const cli_ranking *of = &p->ranking;
    size_t rejected = 0;
    for (size_t i = 0; i < CLI_REJECTIONS; i++) rejected += of->rejected[i];
    if (of->standard == NULL) {
        fprintf(p->to, "<p>%zu variants tried, %zu rejected; the default was not timed.</p>\n", of->tried,
                rejected);
        return;
    }
    fprintf(p->to,
            "<p>Default %.4g ms, best %.4g ms: %.3f times as fast, with a spread of %.3f. %zu variants "
            "tried, %zu rejected.</p>\n<p><span class=\"key default\"></span>default <code>",
            of->standard_ms, of->best_ms, of->speedup, of->spread, of->tried, rejected);
    cli_put_escaped(p->to, of->standard);
    fputs("</code><br><span class=\"key best\"></span>best <code>", p->to);
    cli_put_escaped(p->to, of->best);
    fputs("</code></p>\n", p->to);
}

/* ---- The page ---------------------------------------------------------------------------- */

static void put_heading(const page *p) {
    char *shape = json_dumps(json_object_get(p->of, "shape"), JSON_COMPACT);
    fputs("<section>\n<h2>", p->to);
    cli_put_escaped(p->to, text_of(p->of, "direction"));
    fputc(' ', p->to);
    cli_put_escaped(p->to, text_of(p->of, "dtype"));
    fputc(' ', p->to);
    cli_put_escaped(p->to, shape != NULL ? shape : "");
    fputs("</h2>\n", p->to);
    free(shape);
}

static int put_problem(FILE *to, const cli_log *log, size_t problem) {
    page p = {.to = to, .log = log, .problem = problem, .of = json_array_get(log->problems, problem)};
    p.ranking = cli_rank(log, problem);
    const int status = collect(&p);
    if (status == CLI_EXIT_OK) {
        const char *parameter;
        json_t *value;
        put_heading(&p);
        put_summary(&p);
        fputs("<div class=\"plots\">\n", to);
        if (p.count > 0) {
            draw_order(&p);
            draw_roof(&p);
            json_t *parameters = json_object_get(p.items[0].result, "configuration");
            json_object_foreach(parameters, parameter, value) draw_parameter(&p, parameter);
        }
        fputs("</div>\n", to);
        put_fastest(&p);
        put_rejected(&p);
        fputs("</section>\n", to);
    }
    free(p.items);
    free(p.points);
    return status;
}

static const char style[] =
    ":root{--ink:#1c1e21;--dim:#6b7280;--paper:#fff;--rule:#e2e5e9;--point:#4878b0;--default:#d97706;--best:#15803d}"
    "@media(prefers-color-scheme:dark){:root{--ink:#e6e8eb;--dim:#9aa3ae;--paper:#14171a;--rule:#2b3036;--point:#7aa7dc;"
    "--default:#f5a742;--best:#4ade80}}"
    "body{font:15px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper);max-width:1000px;margin:2em auto;"
    "padding:0 1em}h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em}p{margin:.5em 0}code,td{font-size:.9em}"
    ".plots{display:grid;grid-template-columns:repeat(auto-fill,minmax(20em,1fr));gap:1em;margin:1em 0}"
    "svg{width:100%;height:auto}text{font-size:11px;fill:var(--dim)}.head text{font-size:13px;fill:var(--ink)}"
    ".grid{stroke:var(--rule);fill:none}.axis{stroke:var(--dim);fill:none}.line{stroke:var(--dim);fill:none;"
    "stroke-width:1.5}.point{fill:var(--point);fill-opacity:.75}.point.default{fill:var(--default);fill-opacity:1}"
    ".point.best{fill:var(--best);fill-opacity:1}.key{display:inline-block;width:.7em;height:.7em;border-radius:50%;"
    "margin-right:.4em}.key.default{background:var(--default)}.key.best{background:var(--best)}"
    "table{border-collapse:collapse;margin:.5em 0}td,th{text-align:left;padding:.15em 1em .15em 0;border-bottom:1px solid "
    "var(--rule)}tr.default td{color:var(--default)}tr.best td{color:var(--best)}summary{cursor:pointer}";

static int put_page(FILE *to, const cli_log *log) {
    const json_t *ours = json_object_get(log->root, "flexjit");
    fprintf(to,
            "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
            "content=\"width=device-width\">\n<title>flexjit tune</title>\n<style>%s</style></head>\n<body>\n"
            "<h1>flexjit tune</h1>\n<p>",
            style);
    cli_put_escaped(to, text_of(ours, "device"));
    fputs(", ", to);
    cli_put_escaped(to, text_of(ours, "machine"));
    fputs(", flexjit ", to);
    cli_put_escaped(to, text_of(ours, "version"));
    fputs("</p>\n", to);
    int status = CLI_EXIT_OK;
    for (size_t i = 0; status == CLI_EXIT_OK && i < json_array_size(log->problems); i++)
        status = put_problem(to, log, i);
    fputs("</body></html>\n", to);
    return status;
}

int cli_tune_report(const cli_log *log, const char *path) {
    char *text = NULL;
    size_t size = 0;
    FILE *to = open_memstream(&text, &size);
    int status = to == NULL ? cli_no_memory() : put_page(to, log);
    if (to != NULL && (fclose(to) != 0 || text == NULL) && status == CLI_EXIT_OK) status = cli_no_memory();
    if (status == CLI_EXIT_OK) status = cli_write_file(path, text, size);
    free(text);
    return status;
}
