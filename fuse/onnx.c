/* ONNX models: the messages of onnx.proto that are needed, read from bytes. Shapes are those that the file declares (value_info):
 * torch.onnx.export writes them, and onnx.shape_inference adds them. Data in other files is mapped when these lie in the model's
 * folder. */
#include "fuse/onnx.h"

#include <string.h>

#include "base/dtype.h"
#include "fuse/files.h"

char *fj_onnx_text(fj_onnx *onnx, const fj_wire_field *field) {
    return fj_arena_strdup(onnx->reader->arena, fj_wire_text(field));
}

/* TensorProto.DataType. */
static bool dtype_of(uint64_t number, fj_dtype *ret) {
    static const int8_t types[] = {-1,           FJ_DTYPE_F32, FJ_DTYPE_U8,  FJ_DTYPE_I8, -1,
                                   FJ_DTYPE_I16, FJ_DTYPE_I32, FJ_DTYPE_I64, -1,          FJ_DTYPE_BOOL,
                                   FJ_DTYPE_F16, FJ_DTYPE_F64, -1,           -1,          -1,
                                   -1,           FJ_DTYPE_BF16};
    if (number >= FJ_ARRAY_LEN(types) || types[number] < 0) return false;
    *ret = (fj_dtype)types[number];
    return true;
}

/* ---- Types ------------------------------------------------------------------------------- */

static fj_size symbol(fj_onnx *onnx, fj_str text) {
    fj_sizes *sizes = &onnx->reader->graph->sizes;
    fj_size size;
    if (fj_size_parse(sizes, text, &size)) return size;
    char *name =
        fj_arena_printf(onnx->reader->arena, "u_%.*s", (int)(text.len < 60 ? text.len : 60), text.data);
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < text.len; i++) hash = (hash ^ (unsigned char)text.data[i]) * 16777619u;
    for (char *at = name; *at != '\0'; at++)
        if (!fj_is_alnum(*at)) *at = '_';
    return fj_size_symbol(sizes, fj_str_from(fj_arena_printf(onnx->reader->arena, "%s_%08x", name, hash)));
}

static void read_shape(fj_onnx *onnx, fj_wire wire, const char *name, fj_onnx_type *type) {
    fj_wire_field field, part;
    while (fj_wire_next(&wire, &field)) {
        if (field.number != 1 || field.type != 2) continue;
        if (type->rank == FJ_MAX_RANK)
            fj_read_fail(onnx->reader, "'%.80s' has a rank above %d", name, FJ_MAX_RANK);
        /* A dimension that nothing is said of is equal to no other. */
        fj_size size =
            symbol(onnx, fj_str_from(fj_arena_printf(onnx->reader->arena, "?%s.%d", name, type->rank)));
        while (fj_wire_next(&field.message, &part)) {
            if (part.number == 1 && part.type == 0) {
                if (part.value > INT32_MAX)
                    fj_read_fail(onnx->reader, "'%.80s' has an extent beyond 2^31 - 1", name);
                size = fj_size_of(&onnx->reader->graph->sizes, (int64_t)part.value);
            }
            if (part.number == 2 && part.type == 2 && fj_wire_text(&part).len > 0)
                size = symbol(onnx, fj_wire_text(&part));
        }
        type->dims[type->rank++] = size;
    }
}

/* ValueInfoProto: name, type.tensor_type {elem_type, shape}. */
static const char *read_type(fj_onnx *onnx, fj_wire wire) {
    fj_wire_field field, kind, part;
    fj_wire type_wire = {0};
    const char *name = "";
    fj_onnx_type type = {.known = false};
    while (fj_wire_next(&wire, &field)) {
        if (field.number == 1) name = fj_onnx_text(onnx, &field);
        if (field.number == 2 && field.type == 2) type_wire = field.message;
    }
    while (fj_wire_next(&type_wire, &kind)) {
        if (kind.number != 1 || kind.type != 2) continue;
        while (fj_wire_next(&kind.message, &part)) {
            if (part.number == 1 && part.type == 0) type.known = dtype_of(part.value, &type.dtype);
            if (part.number == 2 && part.type == 2) read_shape(onnx, part.message, name, &type);
        }
    }
    FJ_PUSH(onnx->reader->arena, &onnx->kinds, type);
    fj_read_map(onnx->reader, onnx->types, name, (int64_t)onnx->kinds.len - 1);
    return name;
}

fj_onnx_type fj_onnx_type_of(fj_onnx *onnx, const char *name) {
    const json_t *found = json_object_get(onnx->types, name);
    if (found == NULL || !onnx->kinds.data[json_integer_value(found)].known)
        fj_read_fail(
            onnx->reader,
            "'%.80s' has no type and shape in the file that flexjit has: onnx.shape_inference adds those that are missing",
            name);
    return onnx->kinds.data[json_integer_value(found)];
}

/* ---- Tensors ----------------------------------------------------------------------------- */

typedef struct tensor_parts {
    fj_onnx_type type;
    const char *name;
    fj_wire raw, typed; /* typed: packed float_data, int32_data, int64_data, double_data */
    uint32_t typed_field;
    bool external;
    fj_str location; /* of external data: a file in the model's folder */
    uint64_t offset, length;
    bool has_length;
} tensor_parts;

static void add_dim(fj_onnx *onnx, tensor_parts *parts, uint64_t value) {
    if (value > INT32_MAX || parts->type.rank == FJ_MAX_RANK)
        fj_read_fail(onnx->reader, "tensor '%.80s' has a rank above %d or an extent beyond 2^31 - 1",
                     parts->name, FJ_MAX_RANK);
    parts->type.dims[parts->type.rank++] = fj_size_of(&onnx->reader->graph->sizes, (int64_t)value);
}

static uint64_t packed_varint(fj_wire *wire) {
    uint64_t value = 0;
    for (int shift = 0; wire->at < wire->end && shift < 64; shift += 7) {
        const uint8_t byte = *wire->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) break;
    }
    return value;
}

static uint64_t number_of(fj_onnx *onnx, fj_str text, const char *what) {
    uint64_t value = 0;
    for (size_t i = 0; i < text.len; i++)
        if (!fj_is_digit(text.data[i]) || __builtin_mul_overflow(value, (uint64_t)10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(text.data[i] - '0'), &value))
            fj_read_fail(onnx->reader, "the %s of external data is not a number", what);
    return value;
}

/* StringStringEntryProto: location, offset, length; others say nothing of where it is. */
static void read_external(fj_onnx *onnx, fj_wire wire, tensor_parts *parts) {
    fj_wire_field field;
    fj_str key = {"", 0}, value = {"", 0};
    while (fj_wire_next(&wire, &field)) {
        if (field.number == 1) key = fj_wire_text(&field);
        if (field.number == 2) value = fj_wire_text(&field);
    }
    if (fj_str_is(key, "location")) parts->location = value;
    if (fj_str_is(key, "offset")) parts->offset = number_of(onnx, value, "offset");
    if (fj_str_is(key, "length")) parts->length = number_of(onnx, value, "length"), parts->has_length = true;
}

/* Where the elements lie, without looking at the file: one that is missing is told of where it is needed. */
static void place_external(fj_onnx *onnx, const tensor_parts *parts, fj_value *value) {
    fj_reader *reader = onnx->reader;
    const char *name = fj_arena_strdup(reader->arena, parts->location);
    uint64_t bytes;
    if (strlen(name) != parts->location.len || fj_file_leaves_folder(name))
        fj_read_fail(reader, "the data of tensor '%.80s' is in '%.100s', which is not in the model's folder",
                     parts->name, name);
    if (!fj_value_size(reader->graph, value, &bytes) || (parts->has_length && parts->length != bytes))
        fj_read_fail(reader, "tensor '%.80s' has other data than its %llu bytes", parts->name,
                     (unsigned long long)bytes);
    value->file = name;
    value->member = "onnx";
    value->offset = parts->offset;
    fj_read_weights(reader, value);
}

static tensor_parts read_parts(fj_onnx *onnx, fj_wire wire, const char *name) {
    tensor_parts parts = {.name = name};
    fj_wire_field field;
    while (fj_wire_next(&wire, &field)) {
        if (field.number == 1 && field.type == 0) add_dim(onnx, &parts, field.value);
        if (field.number == 1 && field.type == 2)
            while (field.message.at < field.message.end) add_dim(onnx, &parts, packed_varint(&field.message));
        if (field.number == 2 && field.type == 0) parts.type.known = dtype_of(field.value, &parts.type.dtype);
        if (field.number == 8 && parts.name == NULL) parts.name = fj_onnx_text(onnx, &field);
        if (field.number == 9 && field.type == 2) parts.raw = field.message;
        if ((field.number == 4 || field.number == 5 || field.number == 7 || field.number == 10) &&
            field.type == 2)
            parts.typed = field.message, parts.typed_field = field.number;
        if (field.number == 13 && field.type == 2) read_external(onnx, field.message, &parts);
        if (field.number == 14 && field.type == 0) parts.external = field.value == 1;
    }
    if (parts.name == NULL) parts.name = "";
    if (!parts.type.known)
        fj_read_fail(onnx->reader, "tensor '%.80s' has a dtype that flexjit does not have", parts.name);
    return parts;
}

/* Elements that are not raw bytes: int32_data holds 16-bit floats by their bits, bools and small integers by value. */
static const void *read_typed(fj_onnx *onnx, tensor_parts *parts, int64_t count) {
    const size_t size = fj_dtype_size(parts->type.dtype);
    char *data = fj_arena_alloc(onnx->reader->arena, (size_t)count * size + 8);
    for (int64_t i = 0; i < count; i++) {
        uint64_t value = 0;
        const size_t width = parts->typed_field == 4 ? 4 : parts->typed_field == 10 ? 8 : 0;
        if ((size_t)(parts->typed.end - parts->typed.at) < (width ? width : 1)) return NULL;
        if (width > 0) {
            memcpy(&value, parts->typed.at, width);
            parts->typed.at += width;
        } else {
            value = packed_varint(&parts->typed);
        }
        memcpy(data + (size_t)i * size, &value, size < 8 ? size : 8);
    }
    return data;
}

int fj_onnx_tensor(fj_onnx *onnx, fj_wire wire, const char *name) {
    tensor_parts parts = read_parts(onnx, wire, name);
    fj_reader *reader = onnx->reader;
    const int index = fj_read_value(reader, parts.name, FJ_VALUE_CONSTANT, parts.type.dtype, parts.type.rank,
                                    parts.type.dims);
    fj_value *value = &reader->graph->values.data[index];
    int64_t count = 1, extent;
    for (int d = 0; d < parts.type.rank; d++) {
        (void)fj_size_is_const(&reader->graph->sizes, parts.type.dims[d], &extent);
        if (__builtin_mul_overflow(count, extent, &count)) count = INT64_MAX / 16;
    }
    if (parts.external) {
        place_external(onnx, &parts, value);
        return index;
    }
    const size_t size = (size_t)(parts.raw.end - parts.raw.at);
    if (parts.raw.at != NULL && size == (size_t)count * fj_dtype_size(parts.type.dtype)) {
        value->data = parts.raw.at;
        value->member = "onnx";
        value->offset = (uint64_t)(parts.raw.at - onnx->file);
    } else if (parts.typed.at != NULL && (int64_t)(parts.typed.end - parts.typed.at) >= count) {
        value->data = read_typed(onnx, &parts, count);
    }
    if (value->data == NULL && count > 0)
        fj_read_fail(reader, "tensor '%.80s' has other data than its %lld elements", parts.name,
                     (long long)count);
    return index;
}

/* ---- Nodes ------------------------------------------------------------------------------- */

static fj_onnx_attribute read_attribute(fj_onnx *onnx, fj_wire wire) {
    fj_onnx_attribute attribute = {.name = {"", 0}};
    fj_wire_field field;
    while (fj_wire_next(&wire, &field)) {
        if (field.number == 1) attribute.name = fj_wire_text(&field);
        if (field.number == 2 && field.type == 5) {
            const uint32_t bits = (uint32_t)field.value;
            float real;
            memcpy(&real, &bits, sizeof real);
            attribute.f = (double)real;
        }
        if (field.number == 3 && field.type == 0) attribute.i = (int64_t)field.value;
        if (field.number == 4) attribute.s = fj_wire_text(&field);
        if (field.number == 5 && field.type == 2)
            attribute.has_tensor = true, attribute.tensor = field.message;
        if ((field.number == 6 || field.number == 11) && field.type == 2)
            FJ_PUSH(onnx->reader->arena, &attribute.graphs, field.message);
        if (field.number == 8 && field.type == 0 && attribute.count < FJ_MAX_RANK * 2)
            attribute.ints[attribute.count++] = (int64_t)field.value;
        if (field.number == 8 && field.type == 2)
            while (field.message.at < field.message.end && attribute.count < FJ_MAX_RANK * 2)
                attribute.ints[attribute.count++] = (int64_t)packed_varint(&field.message);
    }
    return attribute;
}

static void read_node(fj_onnx *onnx, fj_wire wire, size_t index) {
    fj_onnx_node *node = FJ_NEW(onnx->reader->arena, fj_onnx_node);
    fj_wire_field field;
    while (fj_wire_next(&wire, &field)) {
        if (field.number == 1 || field.number == 2) {
            int *count = field.number == 1 ? &node->input_count : &node->output_count;
            if (*count == FJ_ONNX_INPUTS)
                fj_read_fail(onnx->reader, "node %zu has more than %d inputs or outputs", index,
                             FJ_ONNX_INPUTS);
            (field.number == 1 ? node->inputs : node->outputs)[(*count)++] = fj_onnx_text(onnx, &field);
        }
        if (field.number == 3) node->name = fj_onnx_text(onnx, &field);
        if (field.number == 4) node->op = fj_wire_text(&field);
        if (field.number == 5 && field.type == 2)
            FJ_PUSH(onnx->reader->arena, &node->attributes, read_attribute(onnx, field.message));
        if (field.number == 7) node->domain = fj_wire_text(&field);
    }
    if (node->name == NULL || *node->name == '\0')
        node->name = fj_arena_printf(onnx->reader->arena, "#%zu", index);
    onnx->reader->node = node->name;
    if (!fj_onnx_inner(onnx, node)) fj_onnx_translate(onnx, node);
    onnx->reader->node = NULL;
}

static void read_graph(fj_onnx *onnx, fj_wire wire) {
    fj_wire_field field;
    fj_reader *reader = onnx->reader;
    const fj_wire begin = wire;
    FJ_VEC(const char *) inputs = {0};
    FJ_VEC(const char *) outputs = {0};
    while (fj_wire_next(&wire, &field)) {
        if (field.type != 2 || field.number < 11 || field.number > 13) continue;
        const char *name = read_type(onnx, field.message);
        if (field.number == 11) FJ_PUSH(reader->arena, &inputs, name);
        if (field.number == 12) FJ_PUSH(reader->arena, &outputs, name);
    }
    wire = begin;
    while (fj_wire_next(&wire, &field))
        if (field.number == 5 && field.type == 2) (void)fj_onnx_tensor(onnx, field.message, NULL);
    for (size_t i = 0; i < inputs.len; i++) { /* an initializer may be an input too: its default */
        const int given = fj_read_find(reader, inputs.data[i]);
        /* From IR version 4 on that says that a caller may give another one; before, it had to be so. */
        if (given >= 0 && onnx->ir_version >= 4) reader->graph->values.data[given].kind = FJ_VALUE_PARAMETER;
        if (given >= 0) continue;
        const fj_onnx_type type = fj_onnx_type_of(onnx, inputs.data[i]);
        (void)fj_read_value(reader, inputs.data[i], FJ_VALUE_INPUT, type.dtype, type.rank, type.dims);
    }
    wire = begin;
    for (size_t i = 0; fj_wire_next(&wire, &field);)
        if (field.number == 1 && field.type == 2) read_node(onnx, field.message, i++);
    for (size_t i = 0; i < outputs.len; i++) {
        const int value = fj_read_find(reader, outputs.data[i]);
        if (value < 0) fj_read_fail(reader, "output '%.80s' is not a value", outputs.data[i]);
        FJ_PUSH(reader->arena, &reader->graph->outputs, value);
    }
}

static void read_opset(fj_onnx *onnx, fj_wire wire) {
    fj_wire_field field;
    fj_str domain = {"", 0};
    int64_t version = 0;
    while (fj_wire_next(&wire, &field)) {
        if (field.number == 1) domain = fj_wire_text(&field);
        if (field.number == 2 && field.type == 0) version = (int64_t)field.value;
    }
    if (domain.len == 0 || fj_str_is(domain, "ai.onnx")) onnx->opset = version;
}

void fj_read_onnx(fj_reader *reader, const uint8_t *bytes, size_t size, json_t **ret_types) {
    fj_onnx onnx = {.reader = reader, .file = bytes};
    fj_wire wire = {bytes, bytes + size, reader->scope}, graph = {0};
    fj_wire_field field;
    onnx.types = *ret_types = json_object();
    if (onnx.types == NULL) fj_fail(reader->scope, FJ_ERR_MEMORY, "not enough memory");
    while (fj_wire_next(&wire, &field)) {
        if (field.number == 1 && field.type == 0) onnx.ir_version = (int64_t)field.value;
        if (field.number == 7 && field.type == 2) graph = field.message;
        if (field.number == 8 && field.type == 2) read_opset(&onnx, field.message);
        if (field.number == 25)
            fj_read_fail(reader, "the model has functions of its own; inline them (onnx.inliner) first");
    }
    if (graph.at == NULL) fj_fail(reader->scope, FJ_ERR_TENSOR, "not an ONNX model: it has no graph");
    if (onnx.opset < 11 || onnx.opset > 25)
        fj_read_fail(reader, "opset %lld is not supported; 11 to 25 are", (long long)onnx.opset);
    read_graph(&onnx, graph);
}
