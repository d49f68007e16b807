/* Pictures in SVG for the report of a sweep. */
#include "cli/tune_plot.h"

#include <math.h>

enum { WIDTH = 440, HEIGHT = 260, LEFT = 62, RIGHT = 14, TOP = 30, BOTTOM = 46, TICKS = 4, MOST_TICKS = 12 };

void cli_put_escaped(FILE *to, const char *text) {
    for (; *text != '\0'; text++) {
        switch (*text) {
        case '&': fputs("&amp;", to); break;
        case '<': fputs("&lt;", to); break;
        case '>': fputs("&gt;", to); break;
        case '"': fputs("&quot;", to); break;
        case '\'': fputs("&#39;", to); break;
        default: fputc(*text, to);
        }
    }
}

static double part(double value, double from, double to, bool is_log) {
    if (is_log) return (log(value) - log(from)) / (log(to) - log(from));
    return (value - from) / (to - from);
}

static double across(const cli_plot *plot, double x) {
    return LEFT + part(x, plot->left, plot->right, plot->log_x) * (WIDTH - LEFT - RIGHT);
}

static double down(const cli_plot *plot, double y) {
    return HEIGHT - BOTTOM - part(y, plot->low, plot->high, plot->log_y) * (HEIGHT - TOP - BOTTOM);
}

/* A little room around what is shown, also where all is alike. */
static void widen(double *low, double *high, bool is_log) {
    if (is_log) {
        const double factor = fmax(1.05, pow(*high / *low, 0.06));
        *low /= factor;
        *high *= factor;
        return;
    }
    const double room = fmax((*high - *low) * 0.06, 0.5);
    *low -= room;
    *high += room;
}

void cli_plot_span(cli_plot *plot, const cli_point *points, size_t count) {
    plot->left = plot->low = HUGE_VAL;
    plot->right = plot->high = -HUGE_VAL;
    for (size_t i = 0; i < count; i++) {
        plot->left = fmin(plot->left, points[i].x);
        plot->right = fmax(plot->right, points[i].x);
        plot->low = fmin(plot->low, points[i].y);
        plot->high = fmax(plot->high, points[i].y);
    }
    if (count == 0) plot->left = plot->low = plot->right = plot->high = 1;
    widen(&plot->left, &plot->right, plot->log_x);
    widen(&plot->low, &plot->high, plot->log_y);
}

static double at_part(double low, double high, bool is_log, double where) {
    return is_log ? low * pow(high / low, where) : low + (high - low) * where;
}

static void put_text(const cli_plot *plot, double x, double y, const char *anchor, const char *text) {
    fprintf(plot->to, "<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\">", x, y, anchor);
    cli_put_escaped(plot->to, text);
    fputs("</text>\n", plot->to);
}

/* Numbers that are easy to read, 1, 2 and 5 times powers of ten, within what an axis spans. */
static size_t round_ticks(double low, double high, bool is_log, double ticks[MOST_TICKS]) {
    static const double steps[] = {1, 2, 5};
    size_t count = 0;
    if (is_log) {
        for (int power = (int)floor(log10(low)); power <= (int)ceil(log10(high)); power++)
            for (int i = 0; i < 3 && count < MOST_TICKS; i++) {
                const double tick = steps[i] * pow(10, power);
                if (tick >= low && tick <= high) ticks[count++] = tick;
            }
        return count;
    }
    double step = pow(10, floor(log10((high - low) / TICKS)));
    for (int i = 1; i < 3 && (high - low) / step > TICKS + 1; i++) step *= steps[i] / steps[i - 1];
    if ((high - low) / step > TICKS + 1) step *= 2;
    for (double tick = ceil(low / step) * step; tick <= high && count < MOST_TICKS; tick += step)
        ticks[count++] = fabs(tick) < step / 2 ? 0 : tick;
    return count;
}

/* Where an axis spans too little for these: its parts. */
static size_t ticks_of(double low, double high, bool is_log, double ticks[MOST_TICKS]) {
    size_t count = round_ticks(low, high, is_log, ticks);
    if (count >= 3) return count;
    for (count = 0; count <= TICKS; count++) ticks[count] = at_part(low, high, is_log, (double)count / TICKS);
    return count;
}

static void put_ticks(const cli_plot *plot, const char *const *names, size_t name_count) {
    char text[40];
    double ticks[MOST_TICKS];
    size_t count = ticks_of(plot->low, plot->high, plot->log_y, ticks);
    for (size_t i = 0; i < count; i++) {
        const double y = down(plot, ticks[i]);
        snprintf(text, sizeof text, "%.3g", ticks[i]);
        fprintf(plot->to, "<path class=\"grid\" d=\"M%d %.1fH%d\"/>\n", LEFT, y, WIDTH - RIGHT);
        put_text(plot, LEFT - 6, y + 4, "end", text);
    }
    count = names == NULL ? ticks_of(plot->left, plot->right, plot->log_x, ticks) : 0;
    for (size_t i = 0; i < count; i++) {
        snprintf(text, sizeof text, "%.3g", ticks[i]);
        put_text(plot, across(plot, ticks[i]), HEIGHT - BOTTOM + 16, "middle", text);
    }
    const size_t every = (name_count + MOST_TICKS - 1) / MOST_TICKS;
    for (size_t i = 0; names != NULL && i < name_count; i += every)
        put_text(plot, across(plot, (double)i), HEIGHT - BOTTOM + 16, "middle", names[i]);
}

void cli_plot_begin(const cli_plot *plot, const char *title, const char *x_name, const char *y_name,
                    const char *const *names, size_t name_count) {
    fprintf(plot->to, "<svg viewBox=\"0 0 %d %d\" role=\"img\">\n<title>", WIDTH, HEIGHT);
    cli_put_escaped(plot->to, title);
    fputs("</title>\n<g class=\"head\">", plot->to);
    put_text(plot, LEFT, TOP - 12, "start", title);
    fputs("</g>\n", plot->to);
    put_ticks(plot, names, name_count);
    fprintf(plot->to, "<path class=\"axis\" d=\"M%d %dV%dH%d\"/>\n", LEFT, TOP, HEIGHT - BOTTOM,
            WIDTH - RIGHT);
    put_text(plot, (LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10, "middle", x_name);
    fprintf(plot->to, "<text transform=\"translate(14 %.1f) rotate(-90)\" text-anchor=\"middle\">",
            (TOP + HEIGHT - BOTTOM) / 2.0);
    cli_put_escaped(plot->to, y_name);
    fputs("</text>\n", plot->to);
}

void cli_plot_points(const cli_plot *plot, const cli_point *points, size_t count) {
    for (size_t i = 0; i < count; i++) {
        fprintf(plot->to, "<circle class=\"point %s\" cx=\"%.1f\" cy=\"%.1f\" r=\"%s\"><title>",
                points[i].kind, across(plot, points[i].x), down(plot, points[i].y),
                points[i].kind[0] != '\0' ? "5" : "3");
        cli_put_escaped(plot->to, points[i].title);
        fputs("</title></circle>\n", plot->to);
    }
}

void cli_plot_line(const cli_plot *plot, const cli_point *points, size_t count) {
    fputs("<path class=\"line\" d=\"", plot->to);
    for (size_t i = 0; i < count; i++)
        fprintf(plot->to, "%c%.1f %.1f", i == 0 ? 'M' : 'L', across(plot, points[i].x),
                down(plot, points[i].y));
    fputs("\"/>\n", plot->to);
}

void cli_plot_end(const cli_plot *plot) { fputs("</svg>\n", plot->to); }
