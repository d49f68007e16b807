/* What torch.export.save writes: an archive of stored members, ROOT/models/model.json and the weights' bytes. Of schema 8. Nothing
 * that is pickled is read. Weights stay where they are, and their checksums are not looked at: reading them all would be the
 * larger part of the work. */
#include <math.h>
#include <string.h>

#include "base/dtype.h"
#include "fuse/pt2.h"
#include "fuse/zip.h"

enum { SCHEMA_MAJOR = 8, SCHEMA_MINOR = 20 };

/* ---- Types ------------------------------------------------------------------------------- */

/* ScalarType of torch/_export/serde/schema.py. False: flexjit has none. */
static bool dtype_of(json_int_t number, fj_dtype *ret) {
    static const int8_t types[] = {-1,           FJ_DTYPE_U8,  FJ_DTYPE_I8,   FJ_DTYPE_I16, FJ_DTYPE_I32,
                                   FJ_DTYPE_I64, FJ_DTYPE_F16, FJ_DTYPE_F32,  FJ_DTYPE_F64, -1,
                                   -1,           -1,           FJ_DTYPE_BOOL, FJ_DTYPE_BF16};
    if (number < 0 || number >= (json_int_t)FJ_ARRAY_LEN(types) || types[number] < 0) return false;
    *ret = (fj_dtype)types[number];
    return true;
}

/* ---- Values ------------------------------------------------------------------------------ */

typedef struct pt2_file {
    fj_reader *reader;
    fj_zip zip;
    const char *root;       /* of the archive */
    json_t *tensors, *ints; /* tensor_values, sym_int_values */
} pt2_file;

static int read_value(pt2_file *pt2, const char *name, fj_value_kind kind) {
    fj_reader *reader = pt2->reader;
    json_t *meta = json_object_get(pt2->tensors, name);
    fj_size dims[FJ_MAX_RANK];
    fj_dtype dtype;
    if (!json_is_object(meta)) fj_read_fail(reader, "'%.80s' is not in tensor_values", name);
    const json_int_t number = json_integer_value(json_object_get(meta, "dtype"));
    if (!dtype_of(number, &dtype))
        fj_read_fail(reader, "'%.80s' has the dtype number %lld, which flexjit does not have", name,
                     (long long)number);
    json_t *sizes = fj_read_array(reader, meta, "sizes");
    const size_t rank = json_array_size(sizes);
    if (rank > FJ_MAX_RANK)
        fj_read_fail(reader, "'%.80s' has rank %zu; the limit is %d", name, rank, FJ_MAX_RANK);
    for (size_t i = 0; i < rank; i++) {
        int64_t extent;
        dims[i] = fj_pt2_size(reader, json_array_get(sizes, i));
        if (fj_size_is_const(&reader->graph->sizes, dims[i], &extent) && extent < 0)
            fj_read_fail(reader, "'%.80s' has the extent %lld", name, (long long)extent);
    }
    const int value = fj_read_value(reader, name, kind, dtype, (int)rank, dims);
    const char *device = json_string_value(json_object_get(json_object_get(meta, "device"), "type"));
    if (device != NULL) {
        const json_int_t index =
            json_integer_value(json_object_get(json_object_get(meta, "device"), "index"));
        reader->graph->values.data[value].device =
            fj_arena_printf(reader->arena, "%.20s:%lld", device, (long long)index);
    }
    return value;
}

/* ---- Arguments --------------------------------------------------------------------------- */

static int find_value(pt2_file *pt2, const json_t *tensor) {
    const char *name = json_string_value(json_object_get(tensor, "name"));
    const int value = name ? fj_read_find(pt2->reader, name) : -1;
    if (value < 0) fj_read_fail(pt2->reader, "'%.80s' is not defined", name ? name : "a tensor");
    return value;
}

/* {"as_int": 4} or {"as_name": "sym_size_int"} */
static bool read_sym_int(pt2_file *pt2, json_t *item, fj_size *ret) {
    const json_t *number = json_object_get(item, "as_int");
    const char *name = json_string_value(json_object_get(item, "as_name"));
    if (json_is_integer(number))
        return *ret = fj_size_of(&pt2->reader->graph->sizes, json_integer_value(number)), true;
    json_t *known = name ? json_object_get(pt2->ints, name) : NULL;
    if (known == NULL) return false;
    *ret = fj_pt2_size(pt2->reader, known);
    return true;
}

static double read_float(pt2_file *pt2, const json_t *item) {
    const char *text = json_string_value(item);
    if (json_is_number(item)) return json_number_value(item);
    if (text != NULL && strcmp(text, "Infinity") == 0) return HUGE_VAL;
    if (text != NULL && strcmp(text, "-Infinity") == 0) return -HUGE_VAL;
    if (text != NULL && strcmp(text, "NaN") == 0) return (double)NAN;
    fj_read_fail(pt2->reader, "'%.40s' is not a float", text ? text : "an argument");
}

static fj_arg read_ints(pt2_file *pt2, json_t *list, bool symbolic) {
    const int count = (int)json_array_size(list);
    fj_arg arg = {
        .kind = FJ_ARG_INTS, .count = count, .sizes = FJ_NEW_ARRAY(pt2->reader->arena, fj_size, count + 1)};
    for (int i = 0; i < count; i++) {
        json_t *item = json_array_get(list, (size_t)i);
        if (symbolic) {
            if (!read_sym_int(pt2, item, &arg.sizes[i]))
                fj_read_fail(pt2->reader, "a symbolic size is not defined");
        } else {
            if (!json_is_integer(item)) fj_read_fail(pt2->reader, "an item of a list is not an integer");
            arg.sizes[i] = fj_size_of(&pt2->reader->graph->sizes, json_integer_value(item));
        }
    }
    return arg;
}

static fj_arg read_tensors(pt2_file *pt2, json_t *list, bool optional) {
    const int count = (int)json_array_size(list);
    fj_arg arg = {
        .kind = FJ_ARG_VALUES, .count = count, .values = FJ_NEW_ARRAY(pt2->reader->arena, int, count + 1)};
    for (int i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, (size_t)i);
        const json_t *tensor = optional ? json_object_get(item, "as_tensor") : item;
        arg.values[i] = tensor == NULL ? -1 : find_value(pt2, tensor);
    }
    return arg;
}

/* False: of a kind that no operation of the table takes. */
static bool read_arg(pt2_file *pt2, json_t *object, fj_arg *ret) {
    void *first = json_object_iter(object);
    if (first == NULL) fj_read_fail(pt2->reader, "an argument is empty");
    const char *kind = json_object_iter_key(first);
    json_t *item = json_object_iter_value(first);
    if (strcmp(kind, "as_none") == 0)
        *ret = (fj_arg){.kind = FJ_ARG_NONE};
    else if (strcmp(kind, "as_tensor") == 0)
        *ret = (fj_arg){.kind = FJ_ARG_VALUE, .value = find_value(pt2, item)};
    else if (strcmp(kind, "as_tensors") == 0 || strcmp(kind, "as_optional_tensors") == 0)
        *ret = read_tensors(pt2, item, kind[3] == 'o');
    else if (strcmp(kind, "as_optional_tensor") == 0)
        *ret =
            json_object_get(item, "as_tensor")
                ? (fj_arg){.kind = FJ_ARG_VALUE, .value = find_value(pt2, json_object_get(item, "as_tensor"))}
                : (fj_arg){.kind = FJ_ARG_NONE};
    else if (strcmp(kind, "as_int") == 0)
        *ret = (fj_arg){.kind = FJ_ARG_INT,
                        .size = fj_size_of(&pt2->reader->graph->sizes, json_integer_value(item))};
    else if (strcmp(kind, "as_ints") == 0)
        *ret = read_ints(pt2, item, false);
    else if (strcmp(kind, "as_sym_ints") == 0)
        *ret = read_ints(pt2, item, true);
    else if (strcmp(kind, "as_sym_int") == 0 && read_sym_int(pt2, item, &ret->size))
        ret->kind = FJ_ARG_INT;
    else if (strcmp(kind, "as_float") == 0)
        *ret = (fj_arg){.kind = FJ_ARG_FLOAT, .real = read_float(pt2, item)};
    else if (strcmp(kind, "as_sym_float") == 0 && json_object_get(item, "as_float"))
        *ret = (fj_arg){.kind = FJ_ARG_FLOAT, .real = read_float(pt2, json_object_get(item, "as_float"))};
    else if (strcmp(kind, "as_bool") == 0)
        *ret = (fj_arg){.kind = FJ_ARG_BOOL, .flag = json_is_true(item)};
    else if (strcmp(kind, "as_string") == 0 && json_is_string(item))
        *ret = (fj_arg){.kind = FJ_ARG_TEXT,
                        .text = fj_arena_strdup(pt2->reader->arena, fj_str_from(json_string_value(item)))};
    else if (strcmp(kind, "as_scalar_type") == 0 || strcmp(kind, "as_device") == 0 ||
             strcmp(kind, "as_layout") == 0 || strcmp(kind, "as_memory_format") == 0)
        *ret = (fj_arg){.kind = FJ_ARG_NONE};
    else
        return false;
    return true;
}

/* ---- Nodes ------------------------------------------------------------------------------- */

static int read_outputs(pt2_file *pt2, json_t *list, int *outputs, size_t room) {
    size_t i, j, count = 0;
    json_t *item, *tensor;
    json_array_foreach(list, i, item) {
        json_t *one = json_object_get(item, "as_tensor"), *many = json_object_get(item, "as_tensors");
        if (one != NULL) {
            if (count < room)
                outputs[count++] = read_value(pt2, fj_read_text(pt2->reader, one, "name"), FJ_VALUE_RESULT);
        }
        json_array_foreach(many, j, tensor) {
            if (count == room) fj_read_fail(pt2->reader, "it has more than %zu results", room);
            outputs[count++] = read_value(pt2, fj_read_text(pt2->reader, tensor, "name"), FJ_VALUE_RESULT);
        }
    }
    return (int)count;
}

static void read_node(pt2_file *pt2, json_t *object, size_t index) {
    fj_reader *reader = pt2->reader;
    int outputs[1024];
    size_t i;
    json_t *item;
    fj_arg arg = {.kind = FJ_ARG_NONE};
    bool in_place, understood = true;
    const char *target = fj_read_text(reader, object, "target"),
               *name = json_string_value(json_object_get(object, "name"));
    fj_str call = fj_str_from(target);
    if (!fj_pt2_take(&call, "torch.ops.aten.") && !fj_pt2_take(&call, "torch.ops.prims."))
        call = fj_str_from(target);
    const fj_node_op op = fj_node_op_target(call, &in_place);
    fj_read_node(reader, op, name ? name : fj_arena_printf(reader->arena, "#%zu", index), target);
    reader->in_place = in_place;
    json_array_foreach(fj_read_array(reader, object, "inputs"), i, item) {
        const char *parameter = fj_read_text(reader, item, "name");
        if (read_arg(pt2, fj_read_object(reader, item, "arg"), &arg))
            fj_read_arg(reader, parameter, arg);
        else
            understood = false;
    }
    if (!understood) fj_read_arg(reader, "?", (fj_arg){.kind = FJ_ARG_NONE});
    const int count =
        read_outputs(pt2, fj_read_array(reader, object, "outputs"), outputs, FJ_ARRAY_LEN(outputs));
    /* Assertions and reads of sizes, whose values stand in the graph. */
    if (count == 0 && !in_place)
        reader->node = NULL;
    else
        fj_read_node_end(reader, outputs, count);
}

/* ---- Weights ----------------------------------------------------------------------------- */

/* The bytes' own dtype and sizes are those that the graph says. */
static void check_meta(pt2_file *pt2, json_t *meta, const fj_value *value, const char *full_name) {
    json_t *sizes = fj_read_array(pt2->reader, meta, "sizes");
    fj_dtype dtype;
    bool same = json_array_size(sizes) == (size_t)value->rank;
    if (!dtype_of(json_integer_value(json_object_get(meta, "dtype")), &dtype) || dtype != value->dtype)
        fj_read_fail(pt2->reader, "the bytes of '%.80s' have another dtype than the graph's %s", full_name,
                     fj_dtype_name(value->dtype));
    for (int i = 0; same && i < value->rank; i++)
        same = fj_pt2_size(pt2->reader, json_array_get(sizes, (size_t)i)) == value->dims[i];
    if (!same)
        fj_read_fail(pt2->reader, "the bytes of '%.80s' have another shape than the graph says", full_name);
}

/* A name of torch's (layer.weight) to the member with its bytes. */
static void find_bytes(pt2_file *pt2, json_t *config, const char *folder, const char *full_name, int index) {
    fj_reader *reader = pt2->reader;
    fj_value *value = &reader->graph->values.data[index];
    json_t *entry = json_object_get(config, full_name);
    if (entry == NULL) return;
    if (json_is_true(json_object_get(entry, "use_pickle")))
        fj_read_fail(reader, "'%.80s' is a pickle, which flexjit does not read; export it as a plain tensor",
                     full_name);
    const char *path = fj_read_text(reader, entry, "path_name");
    value->member = fj_arena_printf(reader->arena, "%s/data/%s/%s", pt2->root, folder, path);
    const fj_zip_member *member = fj_zip_find(&pt2->zip, value->member);
    if (member == NULL)
        fj_read_fail(reader, "member '%.100s' of '%.80s' is missing", value->member, full_name);
    value->offset = member->offset;
    uint64_t bytes = fj_dtype_size(value->dtype);
    int64_t stride = 1, extent, found;
    json_t *meta = fj_read_object(reader, entry, "tensor_meta"),
           *strides = fj_read_array(reader, meta, "strides");
    check_meta(pt2, meta, value, full_name);
    const json_t *first = json_object_get(json_object_get(meta, "storage_offset"), "as_int");
    bool packed = json_array_size(strides) == (size_t)value->rank && json_integer_value(first) == 0;
    for (int i = value->rank; i-- > 0;) {
        if (!fj_size_is_const(&reader->graph->sizes, value->dims[i], &extent) ||
            __builtin_mul_overflow(bytes, (uint64_t)extent, &bytes))
            fj_read_fail(reader, "'%.80s' has a size that is not a number", full_name);
        found = json_integer_value(json_object_get(json_array_get(strides, (size_t)i), "as_int"));
        packed &= extent <= 1 || found == stride;
        stride *= extent;
    }
    if (packed && member->size < bytes)
        fj_read_fail(reader, "member '%.100s' has %llu bytes, fewer than the %llu of '%.80s'", value->member,
                     (unsigned long long)member->size, (unsigned long long)bytes, full_name);
    if (packed) value->data = member->data;
}

static json_t *read_member(pt2_file *pt2, const char *name, bool needed, json_t **ret_root) {
    const char *path = fj_arena_printf(pt2->reader->arena, "%s/%s", pt2->root, name);
    const fj_zip_member *member = fj_zip_find(&pt2->zip, path);
    if (member == NULL && needed) fj_read_fail(pt2->reader, "the archive has no member '%.100s'", path);
    if (member == NULL) return NULL;
    fj_zip_verify(pt2->reader->scope, member);
    pt2->reader->place = path;
    json_t *json = fj_read_json(pt2->reader, (const char *)member->data, (size_t)member->size);
    if (json_array_append_new(*ret_root, json) != 0)
        fj_fail(pt2->reader->scope, FJ_ERR_MEMORY, "not enough memory");
    return json;
}

/* ---- The archive ------------------------------------------------------------------------- */

static void check_version(pt2_file *pt2, json_t *model) {
    json_t *version = fj_read_object(pt2->reader, model, "schema_version");
    const json_int_t major = json_integer_value(json_object_get(version, "major")),
                     minor = json_integer_value(json_object_get(version, "minor"));
    if (major != SCHEMA_MAJOR)
        fj_read_fail(pt2->reader, "schema %lld.%lld is not supported; this version reads %d.x",
                     (long long)major, (long long)minor, SCHEMA_MAJOR);
    if (minor > SCHEMA_MINOR)
        FJ_PUSH(pt2->reader->arena, &pt2->reader->graph->notes,
                fj_arena_printf(pt2->reader->arena, "the model's schema %lld.%lld is newer than %d.%d",
                                (long long)major, (long long)minor, SCHEMA_MAJOR, SCHEMA_MINOR));
}

static void find_root(pt2_file *pt2) {
    const char *name = "/models/model.json";
    pt2->root = NULL;
    for (size_t i = 0; i < pt2->zip.count; i++) {
        const char *member = pt2->zip.members[i].name, *slash = strchr(member, '/');
        if (slash != NULL && strcmp(slash, name) == 0)
            pt2->root = fj_arena_strdup(pt2->reader->arena, (fj_str){member, (size_t)(slash - member)});
        if (strcmp(member, "serialized_exported_program.json") == 0)
            fj_read_fail(pt2->reader,
                         "the archive is of a version before August 2025, whose weights are pickles; "
                         "export the model again");
    }
    if (pt2->root == NULL) fj_read_fail(pt2->reader, "the archive has no member 'NAME/models/model.json'");
}

/* {"user_input": {"arg": {"as_tensor": {"name"}}}}, {"parameter": {"arg": {"name"}, "parameter_name"}} ... */
static void read_inputs(pt2_file *pt2, json_t *signature, json_t *weights, json_t *constants) {
    static const struct {
        const char *word, *key, *folder;
        fj_value_kind kind;
    } kinds[] = {{"parameter", "parameter_name", "weights", FJ_VALUE_PARAMETER},
                 {"buffer", "buffer_name", "weights", FJ_VALUE_BUFFER},
                 {"tensor_constant", "tensor_constant_name", "constants", FJ_VALUE_CONSTANT}};
    fj_reader *reader = pt2->reader;
    size_t i;
    json_t *spec;
    json_array_foreach(fj_read_array(reader, signature, "input_specs"), i, spec) {
        json_t *user = json_object_get(json_object_get(spec, "user_input"), "arg");
        json_t *tensor = json_object_get(user, "as_tensor");
        if (tensor != NULL) (void)read_value(pt2, fj_read_text(reader, tensor, "name"), FJ_VALUE_INPUT);
        for (size_t k = 0; k < FJ_ARRAY_LEN(kinds); k++) {
            json_t *kept = json_object_get(spec, kinds[k].word);
            if (kept == NULL) continue;
            const int value = read_value(
                pt2, fj_read_text(reader, fj_read_object(reader, kept, "arg"), "name"), kinds[k].kind);
            const char *name = fj_read_text(reader, kept, kinds[k].key);
            find_bytes(pt2, weights, "weights", name, value);
            if (reader->graph->values.data[value].member == NULL)
                find_bytes(pt2, constants, "constants", name, value);
        }
    }
    /* A buffer that the model changes is a state: its value in the file is no constant. */
    json_array_foreach(fj_read_array(reader, signature, "output_specs"), i, spec) {
        const char *changed =
            json_string_value(json_object_get(json_object_get(spec, "buffer_mutation"), "buffer_name"));
        for (size_t j = 0; changed != NULL && j < json_array_size(json_object_get(signature, "input_specs"));
             j++) {
            json_t *buffer =
                json_object_get(json_array_get(json_object_get(signature, "input_specs"), j), "buffer");
            const char *name = json_string_value(json_object_get(buffer, "buffer_name"));
            const char *value = json_string_value(json_object_get(json_object_get(buffer, "arg"), "name"));
            if (name != NULL && value != NULL && strcmp(name, changed) == 0 &&
                fj_read_find(reader, value) >= 0)
                reader->graph->values.data[fj_read_find(reader, value)].kind = FJ_VALUE_PARAMETER;
        }
    }
}

void fj_read_pt2(fj_reader *reader, const uint8_t *bytes, size_t size, json_t **ret_root) {
    pt2_file pt2 = {.reader = reader};
    size_t i;
    json_t *item;
    *ret_root = json_array();
    if (*ret_root == NULL) fj_fail(reader->scope, FJ_ERR_MEMORY, "not enough memory");
    fj_zip_read(reader->scope, bytes, size, &pt2.zip);
    find_root(&pt2);
    json_t *weights = read_member(&pt2, "data/weights/model_weights_config.json", false, ret_root);
    json_t *constants = read_member(&pt2, "data/constants/model_constants_config.json", false, ret_root);
    json_t *model = read_member(&pt2, "models/model.json", true, ret_root);
    if (!json_is_object(model)) fj_read_fail(reader, "it is not an object");
    check_version(&pt2, model);
    json_t *module = fj_read_object(reader, model, "graph_module");
    json_t *graph = fj_read_object(reader, module, "graph"),
           *signature = fj_read_object(reader, module, "signature");
    pt2.tensors = fj_read_object(reader, graph, "tensor_values");
    pt2.ints = fj_read_object(reader, graph, "sym_int_values");
    read_inputs(&pt2, signature, json_object_get(weights, "config"), json_object_get(constants, "config"));
    json_array_foreach(fj_read_array(reader, graph, "nodes"), i, item) read_node(&pt2, item, i);
    json_array_foreach(fj_read_array(reader, graph, "outputs"), i, item) {
        json_t *tensor = json_object_get(item, "as_tensor");
        if (tensor != NULL) FJ_PUSH(reader->arena, &reader->graph->outputs, find_value(&pt2, tensor));
    }
}
