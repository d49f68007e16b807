/* A graph in JSON of our own:
 *
 *   {"schema": 1, "weights": "model.pt2",
 *    "inputs": [{"name": "x", "kind": "input", "dtype": "F32", "shape": [2, "s0", 32]},
 *               {"name": "c", "kind": "constant", "dtype": "F32", "shape": [], "values": [0.5]},
 *               {"name": "w", "kind": "parameter", ..., "member": "m/data/weights/weight_0", "offset": 64}],
 *    "nodes": [{"op": "add", "name": "add_1", "args": {"self": "%x", "other": 1.0},
 *               "results": [{"name": "y", "dtype": "F32", "shape": [2, "s0", 32]}]}],
 *    "outputs": ["y"]}
 *
 * An argument is a number, true, false, null, "inf", "-inf", "nan", "%NAME" for a value, "'TEXT", a size as "4*s0 + 1", or a
 * list of these. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/files.h"
#include "fuse/read.h"

/* ---- Reading ----------------------------------------------------------------------------- */

static fj_size read_size(fj_reader *reader, const json_t *item, const char *what) {
    fj_size size;
    const char *text = json_string_value(item);
    if (json_is_integer(item)) return fj_size_of(&reader->graph->sizes, json_integer_value(item));
    if (text == NULL || !fj_size_parse(&reader->graph->sizes, fj_str_from(text), &size))
        fj_read_fail(reader, "%.80s is neither an integer nor a size such as \"4*s0 + 1\"", what);
    return size;
}

static const char *kinds[] = {"input", "parameter", "buffer", "constant", "result"};

static int read_value(fj_reader *reader, json_t *object, bool is_result) {
    fj_size dims[FJ_MAX_RANK];
    fj_dtype dtype;
    int kind = FJ_VALUE_RESULT;
    if (!json_is_object(object)) fj_read_fail(reader, "a value is not an object");
    const char *name = fj_read_text(reader, object, "name"), *type = fj_read_text(reader, object, "dtype");
    if (!is_result) {
        const char *word = fj_read_text(reader, object, "kind");
        for (kind = 0; kind < FJ_VALUE_RESULT && strcmp(kinds[kind], word) != 0;) kind++;
        if (kind == FJ_VALUE_RESULT)
            fj_read_fail(reader, "'%.80s' is of an unknown kind '%.40s'", name, word);
    }
    const json_t *shape = fj_read_array(reader, object, "shape");
    if (!fj_dtype_parse(type, &dtype))
        fj_read_fail(reader, "'%.80s' has the unknown dtype '%.40s'", name, type);
    if (json_array_size(shape) > FJ_MAX_RANK)
        fj_read_fail(reader, "'%.80s' has rank %zu; the limit is %d", name, json_array_size(shape),
                     FJ_MAX_RANK);
    const int rank = (int)json_array_size(shape);
    for (int i = 0; i < rank; i++) {
        int64_t extent;
        dims[i] = read_size(reader, json_array_get(shape, (size_t)i), name);
        if (fj_size_is_const(&reader->graph->sizes, dims[i], &extent) && extent < 0)
            fj_read_fail(reader, "'%.80s' has the extent %lld", name, (long long)extent);
    }
    return fj_read_value(reader, name, (fj_value_kind)kind, dtype, rank, dims);
}

static double real_of(const json_t *item, bool *ret_ok) {
    const char *text = json_string_value(item);
    *ret_ok = true;
    if (json_is_number(item)) return json_number_value(item);
    if (json_is_boolean(item)) return json_is_true(item);
    if (text != NULL && strcmp(text, "inf") == 0) return HUGE_VAL;
    if (text != NULL && strcmp(text, "-inf") == 0) return -HUGE_VAL;
    if (text != NULL && strcmp(text, "nan") == 0) return (double)NAN;
    *ret_ok = false;
    return 0;
}

static void store(fj_dtype dtype, void *data, int64_t index, double real, const json_t *item) {
    const int64_t integer = json_is_integer(item) ? json_integer_value(item) : fj_to_int(real);
    const size_t size = fj_dtype_size(dtype);
    if (dtype == FJ_DTYPE_BOOL)
        ((uint8_t *)data)[index] = real != 0;
    else if (fj_dtype_is_float(dtype))
        fj_dtype_store_float(dtype, data, index, real);
    else
        memcpy((char *)data + (size_t)index * size, &integer, size); /* little endian */
}

/* The elements of a constant that stand in the file. */
static void read_elements(fj_reader *reader, json_t *object, int index) {
    fj_value *value = &reader->graph->values.data[index];
    const json_t *list = json_object_get(object, "values");
    int64_t count = 1, extent;
    if (list == NULL) return;
    for (int i = 0; i < value->rank; i++)
        if (!fj_size_is_const(&reader->graph->sizes, value->dims[i], &extent) ||
            __builtin_mul_overflow(count, extent, &count))
            fj_read_fail(reader, "'%.80s' has values and a size that is not a number", value->name);
    if (!json_is_array(list) || (int64_t)json_array_size(list) != count)
        fj_read_fail(reader, "'%.80s' has %zu values, not %lld", value->name, json_array_size(list),
                     (long long)count);
    if (value->kind == FJ_VALUE_INPUT || value->dtype == FJ_DTYPE_F8_E4M3 || value->dtype == FJ_DTYPE_F8_E5M2)
        fj_read_fail(reader, "'%.80s' may not have values", value->name);
    char *data = fj_arena_alloc(reader->arena, (size_t)count * fj_dtype_size(value->dtype) + 1);
    for (int64_t i = 0; i < count; i++) {
        bool ok;
        const json_t *item = json_array_get(list, (size_t)i);
        const double real = real_of(item, &ok);
        if (!ok || (!fj_dtype_is_float(value->dtype) && !(fabs(real) < 9e18)))
            fj_read_fail(reader, "value %lld of '%.80s' is not a number of its dtype", (long long)i,
                         value->name);
        store(value->dtype, data, i, real, item);
    }
    value->data = data;
}

static int read_name(fj_reader *reader, const char *text) {
    const int value = text != NULL && text[0] == '%' ? fj_read_find(reader, text + 1) : -1;
    if (value < 0) fj_read_fail(reader, "'%.80s' is not a value made before", text ? text : "an item");
    return value;
}

static fj_arg read_list(fj_reader *reader, const json_t *list) {
    const int count = (int)json_array_size(list);
    bool tensors = false;
    for (int i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, (size_t)i);
        tensors |= json_is_null(item) || (json_is_string(item) && json_string_value(item)[0] == '%');
    }
    fj_arg arg = {.kind = tensors ? FJ_ARG_VALUES : FJ_ARG_INTS, .count = count};
    if (tensors)
        arg.values = FJ_NEW_ARRAY(reader->arena, int, count);
    else
        arg.sizes = FJ_NEW_ARRAY(reader->arena, fj_size, count + 1);
    for (int i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, (size_t)i);
        if (tensors)
            arg.values[i] = json_is_null(item) ? -1 : read_name(reader, json_string_value(item));
        else
            arg.sizes[i] = read_size(reader, item, "an item of a list");
    }
    return arg;
}

static fj_arg read_arg(fj_reader *reader, const json_t *item) {
    const char *text = json_string_value(item);
    bool is_real;
    if (json_is_null(item)) return (fj_arg){.kind = FJ_ARG_NONE};
    if (json_is_boolean(item)) return (fj_arg){.kind = FJ_ARG_BOOL, .flag = json_is_true(item)};
    if (json_is_array(item)) return read_list(reader, item);
    if (json_is_integer(item)) return (fj_arg){.kind = FJ_ARG_INT, .size = read_size(reader, item, "it")};
    const double real = real_of(item, &is_real);
    if (is_real) return (fj_arg){.kind = FJ_ARG_FLOAT, .real = real};
    if (text == NULL) fj_read_fail(reader, "an argument is an object");
    if (text[0] == '%') return (fj_arg){.kind = FJ_ARG_VALUE, .value = read_name(reader, text)};
    if (text[0] == '\'')
        return (fj_arg){.kind = FJ_ARG_TEXT, .text = fj_arena_strdup(reader->arena, fj_str_from(text + 1))};
    return (fj_arg){.kind = FJ_ARG_INT, .size = read_size(reader, item, text)};
}

static void read_node(fj_reader *reader, json_t *object) {
    int outputs[256];
    const char *key;
    json_t *item, *args = fj_read_object(reader, object, "args");
    const char *op_name = fj_read_text(reader, object, "op"),
               *target = json_string_value(json_object_get(object, "target"));
    const fj_node_op op = fj_node_op_find(fj_str_from(op_name));
    fj_read_node(reader, op == FJ_NODE_OPS ? FJ_NODE_UNKNOWN : op, fj_read_text(reader, object, "name"),
                 op == FJ_NODE_OPS ? op_name : target);
    reader->in_place = json_is_true(json_object_get(object, "in_place"));
    json_object_foreach(args, key, item) {
        fj_arg arg = read_arg(reader, item);
        if (arg.kind == FJ_ARG_INTS && arg.count == 0) { /* an empty list may be one of tensors */
            const char *at = fj_node_ops[reader->op].signature;
            fj_parameter parameter;
            while (fj_parameter_next(&at, &parameter))
                if (parameter.is_list && fj_str_is(parameter.name, key)) arg.kind = FJ_ARG_VALUES;
        }
        fj_read_arg(reader, key, arg);
    }
    json_t *results = fj_read_array(reader, object, "results");
    const size_t count = json_array_size(results);
    if (count > FJ_ARRAY_LEN(outputs)) fj_read_fail(reader, "it has %zu results", count);
    for (size_t i = 0; i < count; i++) outputs[i] = read_value(reader, json_array_get(results, i), true);
    fj_read_node_end(reader, outputs, (int)count);
}

static void read_weights(fj_reader *reader, json_t *root) {
    const json_t *weights = json_object_get(root, "weights");
    if (weights == NULL) return;
    const char *name = json_string_value(weights);
    if (name == NULL || *name == '\0' || strchr(name, '/') != NULL || strcmp(name, "..") == 0)
        fj_read_fail(reader, "'weights' is not the name of a file beside the graph");
    reader->graph->weights = fj_arena_strdup(reader->arena, fj_str_from(name));
}

static void read_file(fj_reader *reader, const json_t *item, fj_value *value) {
    const json_t *file = json_object_get(item, "file");
    const char *name = json_string_value(file);
    if (file == NULL) return;
    if (name == NULL || fj_file_leaves_folder(name))
        fj_read_fail(reader, "'file' of '%.80s' is not a file in the graph's folder", value->name);
    value->file = fj_arena_strdup(reader->arena, fj_str_from(name));
}

void fj_read_own(fj_reader *reader, json_t *root) {
    json_t *item;
    size_t i;
    if (!json_is_object(root)) fj_read_fail(reader, "the graph is not an object");
    if (json_integer_value(json_object_get(root, "schema")) != 1)
        fj_read_fail(reader, "'schema' is not 1, the only one that this version reads");
    read_weights(reader, root);
    json_array_foreach(fj_read_array(reader, root, "inputs"), i, item) {
        const int index = read_value(reader, item, false);
        const char *member = json_string_value(json_object_get(item, "member"));
        fj_value *value = &reader->graph->values.data[index];
        if (member != NULL) {
            value->member = fj_arena_strdup(reader->arena, fj_str_from(member));
            const json_int_t offset = json_integer_value(json_object_get(item, "offset"));
            value->offset = offset > 0 ? (uint64_t)offset : 0;
            read_file(reader, item, value);
        }
        read_elements(reader, item, index);
    }
    json_array_foreach(fj_read_array(reader, root, "nodes"), i, item) read_node(reader, item);
    json_array_foreach(fj_read_array(reader, root, "outputs"), i, item) {
        const char *name = json_string_value(item);
        const int value = name ? fj_read_find(reader, name) : -1;
        if (value < 0) fj_read_fail(reader, "output %zu is not a value", i);
        FJ_PUSH(reader->arena, &reader->graph->outputs, value);
    }
}

/* ---- Writing ----------------------------------------------------------------------------- */

void fj_write_string(fj_buf *buf, const char *text) {
    fj_buf_put(buf, "\"");
    for (; *text != '\0'; text++) {
        const unsigned char c = (unsigned char)*text;
        if (c == '"' || c == '\\')
            fj_buf_printf(buf, "\\%c", c);
        else if (c < 0x20)
            fj_buf_printf(buf, "\\u%04x", c);
        else
            fj_buf_write(buf, text, 1);
    }
    fj_buf_put(buf, "\"");
}

static void write_size(fj_graph *graph, fj_buf *buf, fj_size size) {
    int64_t number;
    if (fj_size_is_const(&graph->sizes, size, &number))
        fj_buf_printf(buf, "%lld", (long long)number);
    else
        fj_write_string(buf, fj_size_text(&graph->sizes, size));
}

static void write_real(fj_buf *buf, double real) {
    if (isfinite(real))
        fj_buf_double(buf, real);
    else
        fj_write_string(buf, isnan(real) ? "nan" : real > 0 ? "inf" : "-inf");
}

static void write_type(fj_graph *graph, fj_buf *buf, const fj_value *value) {
    fj_buf_put(buf, "\"name\":");
    fj_write_string(buf, value->name);
    fj_buf_printf(buf, ",\"dtype\":\"%s\",\"shape\":[", fj_dtype_name(value->dtype));
    for (int i = 0; i < value->rank; i++) {
        if (i > 0) fj_buf_put(buf, ",");
        write_size(graph, buf, value->dims[i]);
    }
    fj_buf_put(buf, "]");
}

static void write_input(fj_graph *graph, fj_buf *buf, const fj_value *value) {
    int64_t count = 1, extent;
    fj_buf_put(buf, "{");
    write_type(graph, buf, value);
    fj_buf_printf(buf, ",\"kind\":\"%s\"", kinds[value->kind]);
    if (value->member != NULL) {
        fj_buf_put(buf, ",\"member\":");
        fj_write_string(buf, value->member);
        fj_buf_printf(buf, ",\"offset\":%llu", (unsigned long long)value->offset);
        if (value->file != NULL) {
            fj_buf_put(buf, ",\"file\":");
            fj_write_string(buf, value->file);
        }
    }
    for (int i = 0; i < value->rank; i++)
        if (!fj_size_is_const(&graph->sizes, value->dims[i], &extent) ||
            __builtin_mul_overflow(count, extent, &count))
            count = INT64_MAX;
    if (value->data != NULL && (value->member == NULL || count <= 1)) {
        fj_buf_put(buf, ",\"values\":[");
        for (int64_t i = 0; i < count; i++) {
            if (i > 0) fj_buf_put(buf, ",");
            if (fj_dtype_is_float(value->dtype))
                write_real(buf, fj_value_element(value, i));
            else
                fj_buf_printf(buf, "%lld", (long long)fj_to_int(fj_value_element(value, i)));
        }
        fj_buf_put(buf, "]");
    }
    fj_buf_put(buf, "}");
}

static void write_name(fj_graph *graph, fj_buf *buf, int value) {
    if (value < 0) {
        fj_buf_put(buf, "null");
        return;
    }
    fj_write_string(buf, fj_arena_printf(graph->arena, "%%%s", graph->values.data[value].name));
}

static void write_arg(fj_graph *graph, fj_buf *buf, const fj_arg *arg) {
    switch (arg->kind) {
    case FJ_ARG_NONE: fj_buf_put(buf, "null"); break;
    case FJ_ARG_VALUE: write_name(graph, buf, arg->value); break;
    case FJ_ARG_INT: write_size(graph, buf, arg->size); break;
    case FJ_ARG_FLOAT: write_real(buf, arg->real); break;
    case FJ_ARG_BOOL: fj_buf_put(buf, arg->flag ? "true" : "false"); break;
    case FJ_ARG_DTYPE: fj_write_string(buf, fj_dtype_name(arg->dtype)); break;
    case FJ_ARG_TEXT: fj_write_string(buf, fj_arena_printf(graph->arena, "'%s", arg->text)); break;
    case FJ_ARG_VALUES:
    case FJ_ARG_INTS:
        fj_buf_put(buf, "[");
        for (int i = 0; i < arg->count; i++) {
            if (i > 0) fj_buf_put(buf, ",");
            if (arg->kind == FJ_ARG_VALUES)
                write_name(graph, buf, arg->values[i]);
            else
                write_size(graph, buf, arg->sizes[i]);
        }
        fj_buf_put(buf, "]");
        break;
    }
}

static void write_node(fj_graph *graph, fj_buf *buf, const fj_node *node) {
    const char *at = fj_node_ops[node->op].signature;
    fj_parameter parameter;
    fj_buf_put(buf, "{\"op\":");
    fj_write_string(buf, fj_node_ops[node->op].name);
    fj_buf_put(buf, ",\"name\":");
    fj_write_string(buf, node->name);
    if (node->op == FJ_NODE_UNKNOWN && node->target != NULL) {
        fj_buf_put(buf, ",\"target\":");
        fj_write_string(buf, node->target);
    }
    if (node->in_place) fj_buf_put(buf, ",\"in_place\":true");
    fj_buf_put(buf, ",\"args\":{");
    for (int i = 0; i < node->arg_count && fj_parameter_next(&at, &parameter); i++) {
        fj_buf_printf(buf, "%s\"%.*s\":", i > 0 ? "," : "", (int)parameter.name.len, parameter.name.data);
        write_arg(graph, buf, &node->args[i]);
    }
    fj_buf_put(buf, "},\"results\":[");
    for (int i = 0; i < node->output_count; i++) {
        fj_buf_put(buf, i > 0 ? ",{" : "{");
        write_type(graph, buf, &graph->values.data[node->outputs[i]]);
        fj_buf_put(buf, "}");
    }
    fj_buf_put(buf, "]}");
}

void fj_write_graph(fj_graph *graph, fj_buf *buf) {
    fj_buf_put(buf, "{\"schema\":1,");
    if (graph->weights != NULL) {
        fj_buf_put(buf, "\"weights\":");
        fj_write_string(buf, graph->weights);
        fj_buf_put(buf, ",");
    }
    fj_buf_put(buf, "\n\"inputs\":[");
    for (size_t i = 0; i < graph->inputs.len; i++) {
        fj_buf_put(buf, i > 0 ? ",\n  " : "\n  ");
        write_input(graph, buf, &graph->values.data[graph->inputs.data[i]]);
    }
    fj_buf_put(buf, "],\n\"nodes\":[");
    for (size_t i = 0; i < graph->nodes.len; i++) {
        fj_buf_put(buf, i > 0 ? ",\n  " : "\n  ");
        write_node(graph, buf, &graph->nodes.data[i]);
    }
    fj_buf_put(buf, "],\n\"outputs\":[");
    for (size_t i = 0; i < graph->outputs.len; i++) {
        if (i > 0) fj_buf_put(buf, ",");
        fj_write_string(buf, graph->values.data[graph->outputs.data[i]].name);
    }
    fj_buf_put(buf, "]}\n");
}
