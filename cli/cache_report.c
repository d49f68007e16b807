/* What `flexjit cache` prints. Names and logs come from files: nothing of them steers a terminal. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cache.h"
#include "cli/report.h"

enum { NAME_COLUMN = 18, SHORT_KEY = 12 };

/* ---- Values ------------------------------------------------------------------------------ */

static const char *text_of(const json_t *object, const char *name) {
    const char *text = json_string_value(json_object_get(object, name));
    return text != NULL ? text : "";
}

static long long int_of(const json_t *object, const char *name) {
    return json_integer_value(json_object_get(object, name));
}

static bool is_true(const json_t *object, const char *name) {
    return json_is_true(json_object_get(object, name));
}

typedef struct words {
    char text[32];
} words;

static words size_words(long long bytes) {
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double size = (double)bytes;
    size_t unit = 0;
    for (; size >= 1000 && unit + 1 < sizeof units / sizeof units[0]; unit++) size /= 1024;
    words w;
    snprintf(w.text, sizeof w.text, unit == 0 ? "%.0f %s" : "%.1f %s", size, units[unit]);
    return w;
}

static words age_words(long long used) {
    static const struct {
        const char *unit;
        long long seconds;
    } units[] = {{"d", 86400}, {"h", 3600}, {"min", 60}, {"s", 1}};
    long long age = (long long)time(NULL) - used;
    size_t i = 0;
    if (age < 0) age = 0;
    while (i < 3 && age < units[i].seconds) i++;
    words w;
    snprintf(w.text, sizeof w.text, "%lld %s", age / units[i].seconds, units[i].unit);
    return w;
}

/* At most `length` bytes, those that are no text replaced; the lines after the first are indented. */
static void put_text(const char *text, int length, int indent) {
    for (; *text != '\0' && length != 0; text++, length--) {
        if (*text == '\n' && text[1] != '\0' && indent > 0) {
            printf("\n%*s", indent, "");
        } else if ((unsigned char)*text < 0x20 || *text == 0x7f) {
            putchar(*text == '\n' || *text == '\t' ? ' ' : '?');
        } else {
            putchar(*text);
        }
    }
}

static void put_name(const char *name) {
    printf("%s", cli_style(stdout, CLI_BOLD));
    put_text(name, 60, 0);
    printf("%s%*s", cli_style(stdout, CLI_PLAIN),
           strlen(name) < NAME_COLUMN ? NAME_COLUMN - (int)strlen(name) : 1, "");
}

static void put_line(const char *name, const char *text) {
    put_name(name);
    put_text(text, -1, NAME_COLUMN);
    putchar('\n');
}

static void put_value(const char *name, const json_t *value) {
    char *text = NULL;
    if (json_is_string(value)) {
        put_line(name, json_string_value(value));
        return;
    }
    if (value != NULL) text = json_dumps(value, JSON_ENCODE_ANY | JSON_REAL_PRECISION(6));
    put_line(name, text != NULL ? text : "-");
    free(text);
}

static int done(json_t *report) {
    json_decref(report);
    return CLI_EXIT_OK;
}

/* ---- list -------------------------------------------------------------------------------- */

static int by_use(const void *a, const void *b) {
    const json_t *x = *(json_t *const *)a, *y = *(json_t *const *)b;
    long long used_x = int_of(x, "used"), used_y = int_of(y, "used");
    if (used_x != used_y) return used_x > used_y ? -1 : 1;
    int order = strcmp(text_of(x, "variant"), text_of(y, "variant"));
    return order != 0 ? order : strcmp(text_of(x, "key"), text_of(y, "key"));
}

static void print_kernel(const json_t *row) {
    printf("%.*s  ", SHORT_KEY, text_of(row, "key"));
    const char *arch = text_of(row, "arch");
    put_text(arch, 10, 0);
    printf("%*s  %10s  %6s  %5lld  ", strlen(arch) < 10 ? 10 - (int)strlen(arch) : 0, "",
           size_words(int_of(row, "bytes")).text, age_words(int_of(row, "used")).text, int_of(row, "layer"));
    put_text(text_of(row, "variant"), 80, 0);
    printf("%s\n", is_true(row, "hidden") ? "  (hidden by an earlier layer)" : "");
}

int cli_cache_print_list(json_t *report) {
    long long damaged = int_of(report, "damaged"), bytes = 0;
    if (damaged > 0)
        cli_warn("%lld %s of the cache cannot be used: see 'flexjit cache verify'", damaged,
                 damaged == 1 ? "file" : "files");
    if (cli_report_is_json()) return cli_print_json(report);
    const json_t *kernels = json_object_get(report, "kernels");
    size_t count = json_array_size(kernels);
    json_t **rows = calloc(count + 1, sizeof(json_t *));
    if (rows == NULL) {
        json_decref(report);
        return cli_no_memory();
    }
    for (size_t i = 0; i < count; i++) rows[i] = json_array_get(kernels, i);
    qsort(rows, count, sizeof(json_t *), by_use);
    if (count > 0)
        printf("%s%-*s  %-10s  %10s  %6s  layer  variant%s\n", cli_style(stdout, CLI_BOLD), SHORT_KEY, "key",
               "arch", "size", "used", cli_style(stdout, CLI_PLAIN));
    for (size_t i = 0; i < count; i++) {
        print_kernel(rows[i]);
        bytes += int_of(rows[i], "bytes");
    }
    printf("%zu %s, %s\n", count, count == 1 ? "kernel" : "kernels", size_words(bytes).text);
    free(rows);
    return done(report);
}

/* ---- show, explain ----------------------------------------------------------------------- */

static void print_resources(const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *of = json_array_get(list, i);
        char line[200];
        snprintf(
            line, sizeof line,
            "%.63s: %lld registers, %lld B stack, %lld B spilled and %lld B reloaded, %lld B static shared "
            "memory, %lld barriers",
            text_of(of, "kernel"), int_of(of, "registers"), int_of(of, "stack"), int_of(of, "spill_stores"),
            int_of(of, "spill_loads"), int_of(of, "shared"), int_of(of, "barriers"));
        put_line("entry point", line);
    }
}

static void print_launches(const json_t *list) {
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *of = json_array_get(list, i);
        char line[200];
        snprintf(line, sizeof line, "%.63s: blocks of %lld threads, %lld B shared memory",
                 text_of(of, "kernel"), int_of(of, "threads"), int_of(of, "shared"));
        put_line("launch", line);
    }
}

int cli_cache_print_show(json_t *report) {
    if (cli_report_is_json()) return cli_print_json(report);
    const char *name;
    json_t *value;
    json_object_foreach(report, name, value) {
        if (strcmp(name, "schema") == 0 || json_is_object(value) || json_is_null(value)) continue;
        if (strcmp(name, "used") == 0) {
            char line[64];
            snprintf(line, sizeof line, "%s ago", age_words(json_integer_value(value)).text);
            put_line(name, line);
        } else {
            put_value(name, value);
        }
    }
    const json_t *metadata = json_object_get(report, "metadata");
    json_object_foreach(json_object_get(report, "parts"), name, value) {
        if (json_object_get(report, name) == NULL) put_value(name, value);
    }
    print_launches(json_object_get(metadata, "launches"));
    print_resources(json_object_get(metadata, "resources"));
    value = json_object_get(metadata, "log");
    if (json_string_length(value) > 0) put_value("log", value);
    return done(report);
}

/* Of two texts of several lines, those that only one of them has, between what both begin and end with. */
static void print_difference(const char *mark, const char *text, const char *other) {
    size_t from = 0, length = strlen(text), end = length, other_end = strlen(other);
    for (size_t i = 0; text[i] != '\0' && text[i] == other[i]; i++)
        if (text[i] == '\n') from = i + 1;
    while (end > from && other_end > from && text[end - 1] == other[other_end - 1]) end--, other_end--;
    end += strcspn(text + end, "\n");
    printf("  %s  ", mark);
    if (from > 0) printf("... ");
    put_text(text + from, (int)(end - from), 5);
    printf("%s\n", end + 1 < length ? " ..." : "");
}

int cli_cache_print_explain(json_t *report) {
    if (cli_report_is_json()) return cli_print_json(report);
    static const char *const sides[] = {"a", "b"};
    for (size_t i = 0; i < 2; i++) {
        const json_t *side = json_object_get(report, sides[i]);
        printf("%s  %s  %s  ", sides[i], text_of(side, "key"), text_of(side, "kind"));
        put_text(text_of(side, "variant"), 80, 0);
        putchar(' ');
        put_text(text_of(side, "arch"), 20, 0);
        putchar('\n');
    }
    const json_t *parts = json_object_get(report, "parts");
    for (size_t i = 0; i < json_array_size(parts); i++) {
        const json_t *part = json_array_get(parts, i);
        if (is_true(part, "same")) continue;
        put_text(text_of(part, "part"), 60, 0);
        putchar('\n');
        print_difference("a", text_of(part, "a"), text_of(part, "b"));
        print_difference("b", text_of(part, "b"), text_of(part, "a"));
    }
    put_text(text_of(report, "why"), -1, 0);
    putchar('\n');
    return done(report);
}

/* ---- verify, gc, export, import, path ---------------------------------------------------- */

int cli_cache_print_verify(json_t *report) {
    const json_t *damaged = json_object_get(report, "damaged");
    size_t count = json_array_size(damaged);
    for (size_t i = 0; i < count; i++) {
        const json_t *row = json_array_get(damaged, i);
        cli_say_error(CLI_EXIT_FAILED, text_of(row, "file"), "it %s", text_of(row, "text"));
    }
    int status = count > 0 ? CLI_EXIT_FAILED : CLI_EXIT_OK;
    if (cli_report_is_json()) {
        json_t *error = cli_take_error();
        if (error != NULL) json_object_set_new(report, "error", error);
        int printed = cli_print_json(report);
        return status != CLI_EXIT_OK ? status : printed;
    }
    printf("%lld entries (%lld kernels, %lld records), %s: ", int_of(report, "entries"),
           int_of(report, "kernels"), int_of(report, "records"), size_words(int_of(report, "bytes")).text);
    if (count > 0)
        printf("%zu damaged", count);
    else
        printf("all sound");
    if (int_of(report, "dangling") > 0)
        printf("; the kernels of %lld records are gone and will be compiled again",
               int_of(report, "dangling"));
    putchar('\n');
    (void)done(report);
    return status;
}

int cli_cache_print_gc(json_t *report) {
    if (cli_report_is_json()) return cli_print_json(report);
    const json_t *removed = json_object_get(report, "removed");
    bool dry = is_true(report, "dry_run");
    for (size_t i = 0; dry && i < json_array_size(removed); i++) {
        const json_t *row = json_array_get(removed, i);
        printf("%s  %10s%s\n", text_of(row, "file"), size_words(int_of(row, "bytes")).text,
               is_true(row, "damaged") ? "  damaged" : "");
    }
    printf("%s %zu of %lld entries, %s of ", dry ? "would remove" : "removed", json_array_size(removed),
           int_of(report, "entries"), size_words(int_of(report, "removed_bytes")).text);
    printf("%s, and %lld temporary files\n", size_words(int_of(report, "bytes")).text,
           int_of(report, "temporaries"));
    return done(report);
}

int cli_cache_print_export(json_t *report) {
    if (cli_report_is_json()) return cli_print_json(report);
    printf("%lld kernels and %lld records, %s\n", int_of(report, "kernels"), int_of(report, "records"),
           size_words(int_of(report, "bytes")).text);
    return done(report);
}

int cli_cache_print_import(json_t *report) {
    if (cli_report_is_json()) return cli_print_json(report);
    long long all = int_of(report, "kernels") + int_of(report, "records");
    printf("%lld kernels and %lld records, %s: %lld written, %lld were there\n", int_of(report, "kernels"),
           int_of(report, "records"), size_words(int_of(report, "bytes")).text, int_of(report, "written"),
           all - int_of(report, "written"));
    return done(report);
}

static const char *layer_words(const json_t *layer) {
    if (!is_true(layer, "exists")) return is_true(layer, "written") ? "not there yet" : "not there";
    if (!is_true(layer, "readable")) return "not used: it cannot be read, or others may write to it";
    if (is_true(layer, "written")) return is_true(layer, "writable") ? "written" : "cannot be written";
    return "only read";
}

int cli_cache_print_path(json_t *report) {
    if (cli_report_is_json()) return cli_print_json(report);
    const json_t *layers = json_object_get(report, "layers");
    for (size_t i = 0; i < json_array_size(layers); i++) {
        const json_t *layer = json_array_get(layers, i);
        printf("%zu  ", i);
        put_text(text_of(layer, "path"), -1, 0);
        printf("  %s, %lld entries, %s", layer_words(layer), int_of(layer, "entries"),
               size_words(int_of(layer, "bytes")).text);
        if (i == 0) printf(" of %s", size_words(int_of(report, "limit")).text);
        putchar('\n');
    }
    return done(report);
}
