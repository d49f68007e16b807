/* Building a graph by names. */
#include "fuse/read.h"

#include <stdio.h>
#include <string.h>

void fj_read_fail(fj_reader *reader, const char *format, ...) {
    va_list list;
    char text[400];
    va_start(list, format);
    (void)vsnprintf(text, sizeof text, format, list);
    va_end(list);
    const bool in_node = reader->node != NULL;
    fj_fail(reader->scope, FJ_ERR_TENSOR, "%.80s%s%s%.80s%s%s", reader->place, *reader->place ? ": " : "",
            in_node ? "node '" : "", in_node ? reader->node : "", in_node ? "': " : "", text);
}

/* Whether a text is one that JSON takes: shortest forms, no surrogates, up to U+10FFFF. */
static bool is_utf8(const char *text) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    for (const unsigned char *at = (const unsigned char *)text; *at != '\0';) {
        const int length = *at < 0x80 ? 1 : *at >> 5 == 6 ? 2 : *at >> 4 == 14 ? 3 : *at >> 3 == 30 ? 4 : 0;
        uint32_t code = length == 1 ? *at : *at & (0xffu >> (length + 1));
        for (int i = 1; i < length; i++) {
            if (at[i] >> 6 != 2) return false;
            code = code << 6 | (at[i] & 63u);
        }
        if (length == 0 || code < least[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
            return false;
        at += length;
    }
    return true;
}

/* A number under a name, in an object of JSON, which is the readers' table. */
void fj_read_map(fj_reader *reader, json_t *map, const char *name, int64_t number) {
    if (!is_utf8(name)) fj_read_fail(reader, "a name of a value is not UTF-8");
    if (json_object_set_new(map, name, json_integer(number)) == 0) return;
    fj_fail(reader->scope, FJ_ERR_MEMORY, "not enough memory for the graph");
}

int fj_read_value(fj_reader *reader, const char *name, fj_value_kind kind, fj_dtype dtype, int rank,
                  const fj_size *dims) {
    if (fj_read_find(reader, name) >= 0) fj_read_fail(reader, "two values are called '%.80s'", name);
    if (reader->graph->values.len >= FJ_READ_MOST)
        fj_read_fail(reader, "the graph has more than %d values", FJ_READ_MOST);
    char *kept = fj_arena_strdup(reader->arena, fj_str_from(name));
    const int value = fj_graph_value(reader->graph, kept, kind, dtype, rank, dims);
    fj_read_map(reader, reader->names, kept, value);
    return value;
}

int fj_read_find(const fj_reader *reader, const char *name) {
    const json_t *found = json_object_get(reader->names, name);
    return found ? (int)json_integer_value(found) : -1;
}

void fj_read_weights(fj_reader *reader, fj_value *value) {
    const char *name = value->file != NULL ? value->file : reader->graph->weights;
    uint64_t bytes;
    if (value->data != NULL || value->member == NULL || name == NULL) return;
    if (value->file == NULL && value->offset == 0) return;
    const fj_mapping *file = fj_files_find(reader->files, reader->scope, name);
    if (file == NULL) return;
    if (!fj_value_size(reader->graph, value, &bytes) || value->offset > file->size ||
        bytes > file->size - value->offset)
        fj_read_fail(reader, "'%.80s' lies outside of '%.100s'", value->name, name);
    value->data = (const char *)file->bytes + value->offset;
}

/* ---- Nodes ------------------------------------------------------------------------------- */

void fj_read_node(fj_reader *reader, fj_node_op op, const char *name, const char *target) {
    if (reader->graph->nodes.len >= FJ_READ_MOST)
        fj_read_fail(reader, "the graph has more than %d nodes", FJ_READ_MOST);
    reader->op = op;
    reader->in_place = false;
    reader->node = fj_arena_strdup(reader->arena, fj_str_from(name));
    reader->target = target ? fj_arena_strdup(reader->arena, fj_str_from(target)) : NULL;
    for (int i = 0; i < FJ_MAX_ARGS; i++) reader->args[i] = (fj_arg){.kind = FJ_ARG_NONE, .count = -1};
}

static bool is_one_of(const char *name, const char *words) {
    const size_t length = strlen(name);
    for (const char *at = words; *at != '\0';) {
        const size_t word = strcspn(at, " ");
        if (word == length && memcmp(at, name, length) == 0) return true;
        at += word + (at[word] == ' ');
    }
    return false;
}

/* Collects every tensor of a node that nobody understands. */
static void keep_tensors(fj_reader *reader, fj_arg arg) {
    fj_arg *all = &reader->args[0];
    const int add = arg.kind == FJ_ARG_VALUE ? 1 : arg.kind == FJ_ARG_VALUES ? arg.count : 0;
    const int had = all->kind == FJ_ARG_VALUES ? all->count : 0;
    int *values = FJ_NEW_ARRAY(reader->arena, int, had + add + 1);
    if (had > 0) memcpy(values, all->values, sizeof *values * (size_t)had);
    for (int i = 0; i < add; i++) values[had + i] = arg.kind == FJ_ARG_VALUE ? arg.value : arg.values[i];
    *all = (fj_arg){.kind = FJ_ARG_VALUES, .count = had + add, .values = values};
}

static void become_unknown(fj_reader *reader) {
    fj_arg args[FJ_MAX_ARGS];
    if (reader->op == FJ_NODE_UNKNOWN) return;
    memcpy(args, reader->args, sizeof args);
    if (reader->target == NULL) reader->target = fj_node_ops[reader->op].name;
    reader->op = FJ_NODE_UNKNOWN;
    reader->args[0] = (fj_arg){.kind = FJ_ARG_VALUES};
    for (int i = 0; i < FJ_MAX_ARGS; i++) keep_tensors(reader, args[i]);
}

/* The same arguments under other overloads' names. */
static const char *renamed(fj_node_op op, const char *name) {
    static const struct {
        fj_node_op op;
        const char *from, *to;
    } names[] = {{FJ_NODE_MATMUL, "mat2", "other"},  {FJ_NODE_MATMUL, "vec", "other"},
                 {FJ_NODE_ADDMM, "batch1", "mat1"},  {FJ_NODE_ADDMM, "batch2", "mat2"},
                 {FJ_NODE_FULL, "s", "fill_value"},  {FJ_NODE_CAST, "a", "self"},
                 {FJ_NODE_DROPOUT, "self", "input"}, {FJ_NODE_SUM, "dims", "dim"},
                 {FJ_NODE_RESHAPE, "input", "self"}, {FJ_NODE_ANY, "dims", "dim"}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(names); i++)
        if (names[i].op == op && strcmp(names[i].from, name) == 0) return names[i].to;
    return name;
}

void fj_read_arg(fj_reader *reader, const char *name, fj_arg arg) {
    const fj_node_op_info *info = &fj_node_ops[reader->op];
    const char *signature = info->signature;
    fj_parameter parameter;
    if (reader->op == FJ_NODE_UNKNOWN) {
        keep_tensors(reader, arg);
        return;
    }
    name = renamed(reader->op, name);
    for (int i = 0; fj_parameter_next(&signature, &parameter); i++) {
        if (!fj_str_is(parameter.name, name)) continue;
        arg.count = arg.kind == FJ_ARG_VALUES || arg.kind == FJ_ARG_INTS ? arg.count : 0;
        reader->args[i] = arg;
        return;
    }
    if (info->class == FJ_CLASS_VIEW || info->class == FJ_CLASS_SPLIT || info->class == FJ_CLASS_CREATE ||
        reader->op == FJ_NODE_CAST)
        return; /* what the result's type says */
    if (!is_one_of(name,
                   "dtype device layout pin_memory non_blocking copy memory_format generator padding_idx "
                   "scale_grad_by_freq sparse sparse_grad cudnn_enable half_to_float"))
        become_unknown(reader);
}

/* Names of operations that have one more meaning in an argument. */
static void specialise(fj_reader *reader) {
    fj_arg *args = reader->args;
    if (reader->op == FJ_NODE_DIV && args[2].kind == FJ_ARG_TEXT) {
        if (strcmp(args[2].text, "floor") != 0) {
            become_unknown(reader);
            return;
        }
        reader->op = FJ_NODE_FLOOR_DIV;
    }
    for (int i = 0; i < FJ_MAX_ARGS; i++) { /* one dimension as a list of one */
        const bool list = reader->op == FJ_NODE_SUM || reader->op == FJ_NODE_MEAN ||
                          reader->op == FJ_NODE_AMAX || reader->op == FJ_NODE_AMIN ||
                          reader->op == FJ_NODE_ANY || reader->op == FJ_NODE_ALL;
        if (!list || i != 1) continue;
        if (args[1].kind == FJ_ARG_NONE) args[1] = (fj_arg){.kind = FJ_ARG_INTS};
        if (args[1].kind != FJ_ARG_INT) continue;
        fj_size *sizes = FJ_NEW(reader->arena, fj_size);
        *sizes = args[1].size;
        args[1] = (fj_arg){.kind = FJ_ARG_INTS, .count = 1, .sizes = sizes};
    }
}

void fj_read_node_end(fj_reader *reader, const int *outputs, int output_count) {
    fj_parameter parameter;
    int count = 0;
    specialise(reader);
    for (const char *at = fj_node_ops[reader->op].signature; fj_parameter_next(&at, &parameter); count++) {
        fj_arg *arg = &reader->args[count];
        const bool missing = arg->kind == FJ_ARG_NONE && arg->count < 0;
        if (missing && parameter.has_default) *arg = fj_arg_default(&reader->graph->sizes, &parameter);
        if (missing && parameter.is_list) *arg = (fj_arg){.kind = FJ_ARG_VALUES};
        if (missing && !parameter.has_default && !parameter.is_list)
            fj_read_fail(reader, "argument '%.*s' of %.60s is missing", (int)parameter.name.len,
                         parameter.name.data, fj_node_ops[reader->op].name);
        if (parameter.is_list && arg->kind != FJ_ARG_VALUES)
            fj_read_fail(reader, "argument '%.*s' is not a list of tensors", (int)parameter.name.len,
                         parameter.name.data);
    }
    const int index =
        fj_graph_node(reader->graph, reader->op, reader->node, reader->args, count, outputs, output_count);
    reader->graph->nodes.data[index].target = reader->target;
    reader->graph->nodes.data[index].in_place = reader->in_place;
    reader->node = NULL;
}

/* ---- JSON -------------------------------------------------------------------------------- */

json_t *fj_read_json(fj_reader *reader, const char *text, size_t size) {
    json_error_t error;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    if (root == NULL && (json_error_code(&error) == json_error_out_of_memory || error.text[0] == '\0'))
        fj_fail(reader->scope, FJ_ERR_MEMORY, "not enough memory for the graph");
    if (root == NULL)
        fj_read_fail(reader, "line %d, column %d: %.200s", error.line, error.column, error.text);
    return root;
}

json_t *fj_read_array(fj_reader *reader, json_t *object, const char *key) {
    json_t *found = json_object_get(object, key);
    if (!json_is_array(found)) fj_read_fail(reader, "'%.60s' is missing or not a list", key);
    return found;
}

json_t *fj_read_object(fj_reader *reader, json_t *object, const char *key) {
    json_t *found = json_object_get(object, key);
    if (!json_is_object(found)) fj_read_fail(reader, "'%.60s' is missing or not an object", key);
    return found;
}

const char *fj_read_text(fj_reader *reader, json_t *object, const char *key) {
    const char *text = json_string_value(json_object_get(object, key));
    if (text == NULL) fj_read_fail(reader, "'%.60s' is missing or not a string", key);
    return text;
}
