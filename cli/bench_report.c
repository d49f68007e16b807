/* The forms of the report of `flexjit bench`. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/report.h"

static double tflops(const cli_bench_row *row) {
    return row->median_ms > 0 ? row->flops / row->median_ms * 1e-9 : 0;
}

static double gbps(const cli_bench_row *row) {
    return row->median_ms > 0 ? row->bytes / row->median_ms * 1e-6 : 0;
}

static double of_peak(const cli_bench_row *row) {
    return row->peak_flops > 0 ? tflops(row) * 1e12 / row->peak_flops : 0;
}

static const char *direction_name(fj_direction direction) { return direction == FJ_FORWARD ? "fwd" : "bwd"; }

enum { SHAPE_TEXT = 160 };

static const char *shape_text(const cli_shape *shape, char text[SHAPE_TEXT]) {
    snprintf(text, SHAPE_TEXT, "%lld,%lld,%lld,%lld,%lld,%lld,%lld", (long long)shape->batch,
             (long long)shape->heads, (long long)shape->kv_heads, (long long)shape->q_len,
             (long long)shape->kv_len, (long long)shape->head_dim, (long long)shape->value_dim);
    return text;
}

/* ---- Text -------------------------------------------------------------------------------- */

static const char *peak_text(const cli_bench_row *row, char text[16]) {
    if (row->peak_flops > 0) {
        snprintf(text, 16, "%.1f %%", 100 * of_peak(row));
    } else {
        snprintf(text, 16, "-");
    }
    return text;
}

static void print_table_row(const cli_bench_row *row) {
    char shape[SHAPE_TEXT], peak[16];
    printf("%-30s %-5s %-3s %-9s %10.3f %10.3f %10.3f %8.3f %8.2f %8s  %s\n", shape_text(&row->shape, shape),
           fj_dtype_name(row->dtype), direction_name(row->direction), row->device, row->median_ms,
           row->min_ms, row->max_ms, tflops(row), gbps(row), peak_text(row, peak), row->variant);
}

static void print_table_head(void) {
    printf("%-30s %-5s %-3s %-9s %10s %10s %10s %8s %8s %8s  %s\n", "B,Hq,Hkv,L,S,E,Ev", "dtype", "dir",
           "device", "median ms", "min ms", "max ms", "TFLOP/s", "GB/s", "of peak", "variant");
}

static void print_md_row(const cli_bench_row *row) {
    char shape[SHAPE_TEXT], peak[16];
    printf("| %s | %s | %s | %s | %.3f | %.3f | %.3f | %.3f | %.2f | %s | %s |\n",
           shape_text(&row->shape, shape), fj_dtype_name(row->dtype), direction_name(row->direction),
           row->device, row->median_ms, row->min_ms, row->max_ms, tflops(row), gbps(row),
           peak_text(row, peak), row->variant);
}

static void print_md_head(void) {
    printf(
        "| B,Hq,Hkv,L,S,E,Ev | dtype | direction | device | median ms | min ms | max ms | TFLOP/s | GB/s | of peak | "
        "variant |\n|---|---|---|---|---:|---:|---:|---:|---:|---:|---|\n");
}

static void print_csv_row(const cli_bench_row *row) {
    char shape[SHAPE_TEXT];
    printf("%s,%s,%s,%s,%s,%.6f,%.6f,%.6f,%.6f,%.6f,", shape_text(&row->shape, shape),
           fj_dtype_name(row->dtype), direction_name(row->direction), row->device, row->variant,
           row->median_ms, row->min_ms, row->max_ms, tflops(row), gbps(row));
    if (row->peak_flops > 0) {
        printf("%.6f,%.6f\n", row->peak_flops * 1e-12, of_peak(row));
    } else {
        printf(",\n"); /* not known, as null in JSON */
    }
}

static void print_csv_head(void) {
    printf(
        "batch,q_heads,kv_heads,q_len,kv_len,head_dim,value_dim,dtype,direction,device,variant,median_ms,min_ms,max_ms,"
        "tflops,gbps,peak_tflops,of_peak\n");
}

/* ---- JSON -------------------------------------------------------------------------------- */

static json_t *row_json(const cli_bench_row *row) {
    const cli_shape *shape = &row->shape;
    json_t *object = json_pack(
        "{s:[I,I,I,I,I,I,I], s:s, s:s, s:s, s:s, s:f, s:f, s:f, s:f, s:f, s:i, s:{s:I, s:I, s:I}, s:I}", //
        "shape", (json_int_t)shape->batch, (json_int_t)shape->heads, (json_int_t)shape->kv_heads,
        (json_int_t)shape->q_len, (json_int_t)shape->kv_len, (json_int_t)shape->head_dim,
        (json_int_t)shape->value_dim, "dtype", fj_dtype_name(row->dtype), "direction",
        direction_name(row->direction), "device", row->device, "variant", row->variant, "median_ms",
        row->median_ms, "min_ms", row->min_ms, "max_ms", row->max_ms, "tflops", tflops(row), "gbps",
        gbps(row), "launches", row->launches, "blocks", "full", (json_int_t)row->blocks.full, "partial",
        (json_int_t)row->blocks.partial, "empty", (json_int_t)row->blocks.empty, "scores",
        (json_int_t)cli_scores(shape, &row->blocks));
    bool known = row->peak_flops > 0;
    json_object_set_new(object, "peak_tflops", known ? json_real(row->peak_flops * 1e-12) : json_null());
    json_object_set_new(object, "of_peak", known ? json_real(of_peak(row)) : json_null());
    return object;
}

/* ---- Report ------------------------------------------------------------------------------ */

void cli_bench_report_begin(cli_bench_report *report, cli_bench_format format, const char *device) {
    *report = (cli_bench_report){.format = format, .device = device};
    if (format == CLI_FORMAT_JSON) report->rows = json_array();
}

int cli_bench_report_add(cli_bench_report *report, const cli_bench_row *row) {
    bool first = report->count++ == 0;
    switch (report->format) {
    case CLI_FORMAT_TABLE:
        if (first) print_table_head();
        print_table_row(row);
        break;
    case CLI_FORMAT_MD:
        if (first) print_md_head();
        print_md_row(row);
        break;
    case CLI_FORMAT_CSV:
        if (first) print_csv_head();
        print_csv_row(row);
        break;
    case CLI_FORMAT_JSON: json_array_append_new(report->rows, row_json(row)); break;
    case CLI_FORMAT_JSONL: return cli_print_json(row_json(row));
    }
    fflush(stdout);
    return CLI_EXIT_OK;
}

int cli_bench_report_end(cli_bench_report *report) {
    if (report->format != CLI_FORMAT_JSON) return CLI_EXIT_OK;
    json_t *object = json_pack("{s:s, s:o}", "device", report->device, "rows", report->rows);
    json_t *warnings = cli_take_warnings(), *error = cli_take_error();
    if (warnings != NULL) json_object_set_new(object, "warnings", warnings);
    if (error != NULL) json_object_set_new(object, "error", error);
    return cli_print_json(object);
}
