/* Pictures in SVG for the report of a sweep. */
#ifndef FJ_CLI_TUNE_PLOT_H
#define FJ_CLI_TUNE_PLOT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

/* Text as HTML and SVG take it. */
void cli_put_escaped(FILE *to, const char *text);

typedef struct cli_point {
    double x, y;
    const char *title; /* what a pointer over it is told */
    const char *kind;  /* its class: "default", "best" or "" */
} cli_point;

/* Axes with numbers; scales are logarithmic where asked for, which needs positive values. */
typedef struct cli_plot {
    FILE *to;
    double left, right, low, high; /* what the axes span */
    bool log_x, log_y;
} cli_plot;

/* Makes the axes span the points. */
void cli_plot_span(cli_plot *plot, const cli_point *points, size_t count);
/* names: of the places 0, 1, 2 ... on the horizontal axis, or NULL where it has numbers. */
void cli_plot_begin(const cli_plot *plot, const char *title, const char *x_name, const char *y_name,
                    const char *const *names, size_t name_count);
void cli_plot_points(const cli_plot *plot, const cli_point *points, size_t count);
void cli_plot_line(const cli_plot *plot, const cli_point *points, size_t count);
void cli_plot_end(const cli_plot *plot);

#endif
