/* Shapes with lists and ranges: `1+2,8,8,512..16384,=,64+128`. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/bench.h"
#include "cli/report.h"

enum { FIELDS = 7, VALUES = 64, MOST_SHAPES = 100000 };

/* The values of one number of a shape; none of them: that of the field before it. */
typedef struct field {
    int64_t values[VALUES];
    size_t count;
} field;

static bool add_value(field *to, int64_t value) {
    if (to->count == VALUES) return false;
    to->values[to->count++] = value;
    return true;
}

static const char *parse_number(const char *text, int64_t *ret_value) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (*text < '0' || *text > '9' || errno != 0 || value < 1 || value > INT64_C(1) << 40) return NULL;
    *ret_value = value;
    return end;
}

/* N, or FIRST..LAST by doubling. */
static const char *parse_item(const char *text, field *to) {
    int64_t first, last;
    text = parse_number(text, &first);
    if (text == NULL) return NULL;
    last = first;
    if (strncmp(text, "..", 2) == 0) text = parse_number(text + 2, &last);
    if (text == NULL || last < first) return NULL;
    for (int64_t value = first; value <= last; value *= 2) {
        if (!add_value(to, value)) return NULL;
    }
    return text;
}

static const char *parse_field(const char *text, bool first, field *to) {
    if (*text == '=' && !first) return text + 1;
    for (;;) {
        text = parse_item(text, to);
        if (text == NULL || *text != '+') return text;
        text++;
    }
}

/* Six or seven fields; the seventh is the sixth when it is left out. */
static bool parse_fields(const char *text, field fields[FIELDS]) {
    for (int i = 0; i < FIELDS; i++) {
        text = parse_field(text, i == 0, &fields[i]);
        if (text == NULL) return false;
        if (*text == '\0') return i >= FIELDS - 2;
        if (*text++ != ',') return false;
    }
    return false;
}

/* ---- Cross product ----------------------------------------------------------------------- */

static const char *add_shape(cli_shapes *shapes, const int64_t numbers[FIELDS]) {
    cli_shape shape = {numbers[0], numbers[1], numbers[2], numbers[3], numbers[4], numbers[5], numbers[6]};
    if (shape.heads % shape.kv_heads != 0) return "has heads of q that are not a multiple of the heads of k";
    if (shapes->count == MOST_SHAPES) return "is one shape too many";
    if (shapes->count == shapes->room) {
        size_t room = shapes->room * 2 + 16;
        cli_shape *items = realloc(shapes->items, room * sizeof *items);
        if (items == NULL) return "does not fit into memory";
        shapes->items = items;
        shapes->room = room;
    }
    shapes->items[shapes->count++] = shape;
    return NULL;
}

static const char *cross(cli_shapes *shapes, const field fields[FIELDS], int depth, int64_t numbers[FIELDS]) {
    if (depth == FIELDS) return add_shape(shapes, numbers);
    const field *now = &fields[depth];
    if (now->count == 0 && depth > 0) {
        numbers[depth] = numbers[depth - 1];
        return cross(shapes, fields, depth + 1, numbers);
    }
    const char *wrong = NULL;
    for (size_t i = 0; wrong == NULL && i < now->count; i++) {
        numbers[depth] = now->values[i];
        wrong = cross(shapes, fields, depth + 1, numbers);
    }
    return wrong;
}

const char *cli_shapes_add(cli_shapes *shapes, const char *text) {
    field fields[FIELDS] = {0};
    int64_t numbers[FIELDS] = {0};
    if (parse_fields(text, fields)) return cross(shapes, fields, 0, numbers);
    return "is not of the form B,Hq,Hkv,L,S,E[,Ev], of numbers from 1, lists 1+2+8, ranges 512..16384 and =";
}

int cli_shapes_parse(const cli_args *args, cli_shapes *ret_shapes) {
    cli_shapes shapes = {0};
    const char *text;
    int status = CLI_EXIT_OK;
    for (size_t i = 0; status == CLI_EXIT_OK && (text = cli_args_nth(args, CLI_OPT_SHAPE, i)) != NULL; i++) {
        const char *wrong = cli_shapes_add(&shapes, text);
        if (wrong != NULL) status = cli_usage(args->verb, "'--shape %s' %s", text, wrong);
    }
    if (status == CLI_EXIT_OK && shapes.count == 0) status = cli_usage(args->verb, "--shape is missing");
    if (status != CLI_EXIT_OK) {
        cli_shapes_finish(&shapes);
        return status;
    }
    *ret_shapes = shapes;
    return CLI_EXIT_OK;
}

void cli_shapes_finish(cli_shapes *shapes) {
    free(shapes->items);
    *shapes = (cli_shapes){0};
}
