/* `flexjit bench`, shared by its files. */
#ifndef FJ_CLI_BENCH_H
#define FJ_CLI_BENCH_H

#include <jansson.h>

#include "cli/call.h"

/* bench_shapes.c: all shapes of all --shape options, in order. */
typedef struct cli_shapes {
    cli_shape *items;
    size_t count, room;
} cli_shapes;

int cli_shapes_parse(const cli_args *args, cli_shapes *ret_shapes);
/* Adds the shapes of one text. NULL, or what is wrong with it, after its name: "is not of the form ...". */
const char *cli_shapes_add(cli_shapes *shapes, const char *text);
void cli_shapes_finish(cli_shapes *shapes);

/* One line of the report. peak is 0 when the device has none. */
typedef struct cli_bench_row {
    cli_shape shape;
    fj_dtype dtype;
    fj_direction direction;
    const char *device;
    char variant[128];
    double median_ms, min_ms, max_ms;
    double flops, bytes, peak_flops;
    int launches;
    fj_block_counts blocks;
} cli_bench_row;

/* bench_report.c: rows are printed as they come, or, as one JSON object, at the end. */
typedef enum cli_bench_format {
    CLI_FORMAT_TABLE,
    CLI_FORMAT_MD,
    CLI_FORMAT_CSV,
    CLI_FORMAT_JSON,
    CLI_FORMAT_JSONL
} cli_bench_format;

typedef struct cli_bench_report {
    cli_bench_format format;
    size_t count;
    json_t *rows; /* of the format JSON */
    const char *device;
} cli_bench_report;

void cli_bench_report_begin(cli_bench_report *report, cli_bench_format format, const char *device);
int cli_bench_report_add(cli_bench_report *report, const cli_bench_row *row);
int cli_bench_report_end(cli_bench_report *report);

#endif
