/* Reads a safetensors file: the length of the header in 8 bytes, the header in JSON, then the tensors. */
#ifndef EXAMPLES_SAFETENSORS_H
#define EXAMPLES_SAFETENSORS_H

#include "examples/common.h"
#include <jansson.h>
#include <string.h>

typedef struct tensor_file {
    char *bytes; /* the whole file, which tensors point into */
    size_t size, start;
    json_t *header;
} tensor_file;

static inline void file_open(tensor_file *file, const char *path) {
    FILE *stream = fopen(path, "rb");
    uint64_t length = 0;
    if (!stream || fseek(stream, 0, SEEK_END)) perror(path), exit(1);
    file->size = (size_t)ftell(stream);
    file->bytes = workspace_of(file->size); /* aligned */
    rewind(stream);
    if (fread(file->bytes, 1, file->size, stream) != file->size) perror(path), exit(1);
    fclose(stream);
    if (file->size >= sizeof length) memcpy(&length, file->bytes, sizeof length);
    if (file->size < sizeof length || length > file->size - sizeof length) length = 0;
    file->start = sizeof length + (size_t)length;
    file->header = json_loadb(file->bytes + sizeof length, (size_t)length, 0, NULL);
    if (!file->header) fprintf(stderr, "%s: not a safetensors file\n", path), exit(1);
}

static inline void file_close(tensor_file *file) {
    json_decref(file->header);
    free(file->bytes);
}

/* The tensor of that name, in the file's memory; NULL: the file has none. */
static inline DLTensor *file_find(const tensor_file *file, const char *name, tensor *t) {
    const char *dtype_name = NULL;
    json_t *dims = NULL;
    json_int_t begin = 0, end = 0;
    int64_t shape[4] = {0}, size = 1;
    fj_dtype dtype;
    json_t *entry = json_object_get(file->header, name);
    if (!entry) return NULL;
    bool good = !json_unpack(entry, "{s:s, s:o, s:[I,I]}", "dtype", &dtype_name, "shape", &dims,
                             "data_offsets", &begin, &end) &&
                fj_dtype_parse(dtype_name, &dtype) && json_array_size(dims) <= 4;
    for (size_t i = 0; good && i < json_array_size(dims); i++)
        shape[i] = json_integer_value(json_array_get(dims, i)), size *= shape[i];
    if (!good || begin < 0 || end < begin || (size_t)end > file->size - file->start ||
        end - begin != size * (int64_t)fj_dtype_size(dtype)) {
        fprintf(stderr, "%s: not a tensor of a safetensors file\n", name);
        exit(1);
    }
    return tensor_of(t, file->bytes + file->start + begin, dtype, (int)json_array_size(dims), shape);
}

/* The same, where it has to be there. */
static inline DLTensor *file_need(const tensor_file *file, const char *name, tensor *t) {
    DLTensor *found = file_find(file, name, t);
    if (!found) fprintf(stderr, "%s: the file has no such tensor\n", name), exit(1);
    return found;
}

#endif
