/* The strict reader of safetensors files. Any bytes at all are input to it. */
#include "cli/safetensors.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/report.h"

/* Every dtype of the format, with its width; the library computes with fewer. */
static const struct {
    const char *name;
    unsigned bits;
} widths[] = {
    {"BOOL", 8},  {"U8", 8},      {"I8", 8},      {"I16", 16},    {"U16", 16},        {"F16", 16},
    {"BF16", 16}, {"I32", 32},    {"U32", 32},    {"F32", 32},    {"F64", 64},        {"I64", 64},
    {"U64", 64},  {"F8_E4M3", 8}, {"F8_E5M2", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8},
    {"C64", 64},  {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},
};

typedef struct reader {
    const uint8_t *data;
    size_t data_size;
    char *error;
} reader;

CLI_PRINTF(2, 3)
static bool refuse(const reader *in, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(in->error, CLI_ST_ERROR_SIZE, format, arguments);
    va_end(arguments);
    return false;
}

/* ---- One tensor -------------------------------------------------------------------------- */

static bool read_dtype(const reader *in, const json_t *entry, cli_tensor *tensor, unsigned *ret_bits) {
    const char *name = json_string_value(json_object_get(entry, "dtype"));
    if (name == NULL) return refuse(in, "tensor '%.100s' has no dtype", tensor->name);
    for (size_t i = 0; i < sizeof widths / sizeof widths[0]; i++) {
        if (strcmp(widths[i].name, name) != 0) continue;
        tensor->dtype_name = name;
        tensor->known = fj_dtype_parse(name, &tensor->dtype);
        *ret_bits = widths[i].bits;
        return true;
    }
    return refuse(in, "tensor '%.100s' has the unknown dtype '%.40s'", tensor->name, name);
}

static bool read_shape(const reader *in, const json_t *entry, cli_tensor *tensor, unsigned bits,
                       size_t *ret_size) {
    const json_t *shape = json_object_get(entry, "shape");
    if (!json_is_array(shape)) return refuse(in, "tensor '%.100s' has no shape", tensor->name);
    size_t rank = json_array_size(shape), count = 1, total;
    int64_t *dims = malloc((rank + 1) * sizeof *dims);
    if (dims == NULL) return refuse(in, "not enough memory");
    tensor->dims = dims;
    tensor->rank = (int)rank;
    for (size_t i = 0; i < rank; i++) {
        const json_t *dim = json_array_get(shape, i);
        if (!json_is_integer(dim) || json_integer_value(dim) < 0) {
            return refuse(in, "tensor '%.100s': dimension %zu of its shape is not a size", tensor->name, i);
        }
        dims[i] = json_integer_value(dim);
        if (__builtin_mul_overflow(count, (size_t)dims[i], &count)) {
            return refuse(in, "tensor '%.100s': its shape overflows", tensor->name);
        }
    }
    if (__builtin_mul_overflow(count, bits, &total)) {
        return refuse(in, "tensor '%.100s': its size in bytes overflows", tensor->name);
    }
    if (total % 8 != 0) return refuse(in, "tensor '%.100s': its data ends within a byte", tensor->name);
    *ret_size = total / 8;
    return true;
}

static bool read_offsets(const reader *in, const json_t *entry, cli_tensor *tensor, size_t expected) {
    const json_t *offsets = json_object_get(entry, "data_offsets");
    const json_t *first = json_array_get(offsets, 0), *last = json_array_get(offsets, 1);
    if (json_array_size(offsets) != 2 || !json_is_integer(first) || !json_is_integer(last)) {
        return refuse(in, "tensor '%.100s' has no data_offsets [begin, end]", tensor->name);
    }
    json_int_t begin = json_integer_value(first), end = json_integer_value(last);
    if (begin < 0 || end < begin || (uint64_t)end > in->data_size) {
        return refuse(
            in, "tensor '%.100s': its data [%lld, %lld) is not within the %zu bytes of data of the file",
            tensor->name, (long long)begin, (long long)end, in->data_size);
    }
    tensor->offset = (size_t)begin;
    tensor->size = (size_t)(end - begin);
    if (tensor->size != expected) {
        return refuse(in, "tensor '%.100s': %zu bytes of data, but its dtype and shape make %zu",
                      tensor->name, tensor->size, expected);
    }
    tensor->data = in->data + tensor->offset;
    return true;
}

static bool read_tensor(const reader *in, const json_t *entry, cli_tensor *tensor) {
    if (!json_is_object(entry)) return refuse(in, "tensor '%.100s' is not an object", tensor->name);
    unsigned bits = 0;
    size_t expected = 0;
    if (!read_dtype(in, entry, tensor, &bits) || !read_shape(in, entry, tensor, bits, &expected) ||
        !read_offsets(in, entry, tensor, expected)) {
        return false;
    }
    if (json_object_size(entry) != 3) {
        return refuse(in, "tensor '%.100s' has keys besides dtype, shape and data_offsets", tensor->name);
    }
    return true;
}

/* ---- The whole --------------------------------------------------------------------------- */

static bool check_metadata(const reader *in, json_t *metadata) {
    if (json_is_null(metadata)) return true; /* as other readers take it */
    if (!json_is_object(metadata)) return refuse(in, "__metadata__ is not an object");
    const char *key;
    json_t *value;
    json_object_foreach(metadata, key, value) {
        if (!json_is_string(value))
            return refuse(in, "__metadata__ has the key '%.100s', which is not a string", key);
    }
    return true;
}

static int by_offset(const void *a, const void *b) {
    const cli_tensor *x = *(const cli_tensor *const *)a, *y = *(const cli_tensor *const *)b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->size < y->size ? -1 : x->size > y->size;
}

/* The data, walked in order, must be covered exactly once. */
static bool check_cover(const reader *in, const cli_safetensors *file) {
    const cli_tensor **order = calloc(file->count + 1, sizeof(const cli_tensor *));
    if (order == NULL) return refuse(in, "not enough memory");
    for (size_t i = 0; i < file->count; i++) order[i] = &file->tensors[i];
    qsort(order, file->count, sizeof(const cli_tensor *), by_offset);
    size_t at = 0;
    bool ok = true;
    for (size_t i = 0; ok && i < file->count; i++) {
        if (order[i]->offset > at) {
            ok = refuse(in, "a hole of %zu bytes before tensor '%.100s'", order[i]->offset - at,
                        order[i]->name);
        } else if (order[i]->offset < at) {
            ok = refuse(in, "tensor '%.100s' overlaps tensor '%.100s'", order[i]->name, order[i - 1]->name);
        }
        at = order[i]->offset + order[i]->size;
    }
    if (ok && at != in->data_size) {
        ok = refuse(in, "%zu bytes after the last tensor%s%.100s%s", in->data_size - at,
                    file->count > 0 ? " '" : "", file->count > 0 ? order[file->count - 1]->name : "",
                    file->count > 0 ? "'" : "");
    }
    free(order);
    return ok;
}

static bool read_tensors(const reader *in, cli_safetensors *file) {
    file->tensors = calloc(json_object_size(file->header) + 1, sizeof *file->tensors);
    if (file->tensors == NULL) return refuse(in, "not enough memory");
    const char *name;
    json_t *entry;
    json_object_foreach(file->header, name, entry) {
        if (strcmp(name, "__metadata__") == 0) {
            if (!check_metadata(in, entry)) return false;
            continue;
        }
        cli_tensor *tensor = &file->tensors[file->count++];
        tensor->name = name;
        if (!read_tensor(in, entry, tensor)) return false;
    }
    return check_cover(in, file);
}

static json_t *read_header(reader *in, const uint8_t *bytes, size_t size) {
    if (size < 8) {
        refuse(in, "no safetensors file: %zu bytes, less than the 8 of the header's length", size);
        return NULL;
    }
    uint64_t length = 0;
    for (int i = 7; i >= 0; i--) length = length << 8 | bytes[i];
    if (length > CLI_ST_MAX_HEADER) {
        refuse(in, "no safetensors file: a header of %llu bytes, more than %d", (unsigned long long)length,
               CLI_ST_MAX_HEADER);
        return NULL;
    }
    if (length > size - 8) {
        refuse(in, "cut short: a header of %llu bytes, but only %zu follow", (unsigned long long)length,
               size - 8);
        return NULL;
    }
    if (length == 0 || bytes[8] != '{') {
        refuse(in, "no safetensors file: the header is not a JSON object");
        return NULL;
    }
    json_error_t error;
    json_t *header = json_loadb((const char *)bytes + 8, (size_t)length, JSON_REJECT_DUPLICATES, &error);
    if (header == NULL) refuse(in, "the header is not valid: %.300s (byte %d)", error.text, error.position);
    in->data = bytes + 8 + length;
    in->data_size = size - 8 - (size_t)length;
    return header;
}

bool cli_st_parse(const uint8_t *bytes, size_t size, cli_safetensors *ret_file,
                  char error[CLI_ST_ERROR_SIZE]) {
    cli_safetensors file = {0};
    reader in = {0};
    in.error = error;
    file.header = read_header(&in, bytes, size);
    if (file.header == NULL || !read_tensors(&in, &file)) {
        cli_st_close(&file);
        return false;
    }
    *ret_file = file;
    return true;
}

/* ---- Files ------------------------------------------------------------------------------- */

static int open_regular(const char *path, struct stat *ret_status) {
    int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file < 0 || fstat(file, ret_status) != 0) {
        cli_say_error(CLI_EXIT_FAILED, path, "cannot be read: %s", strerror(errno));
    } else if (!S_ISREG(ret_status->st_mode)) {
        cli_say_error(CLI_EXIT_FAILED, path, "cannot be read: not a regular file");
    } else {
        return file;
    }
    if (file >= 0) close(file);
    return -1;
}

int cli_st_open(const char *path, cli_safetensors *ret_file) {
    struct stat status;
    int file = open_regular(path, &status);
    if (file < 0) return CLI_EXIT_FAILED;
    size_t size = (size_t)status.st_size;
    void *map = size == 0 ? NULL : mmap(NULL, size, PROT_READ, MAP_PRIVATE, file, 0);
    int map_error = errno;
    close(file);
    if (map == MAP_FAILED) {
        return cli_fail_file(CLI_EXIT_FAILED, path, "cannot be mapped: %s", strerror(map_error));
    }
    char error[CLI_ST_ERROR_SIZE];
    if (!cli_st_parse(map != NULL ? map : (const uint8_t *)"", size, ret_file, error)) {
        if (map != NULL) munmap(map, size);
        return cli_fail_file(CLI_EXIT_FAILED, path, "%s", error);
    }
    ret_file->map = map;
    ret_file->map_size = size;
    madvise(map, size, MADV_WILLNEED);
    return CLI_EXIT_OK;
}

void cli_st_close(cli_safetensors *file) {
    for (size_t i = 0; i < file->count; i++) {
        union {
            const int64_t *constant;
            int64_t *owned;
        } dims = {.constant = file->tensors[i].dims}; /* made here, constant to everyone else */
        free(dims.owned);
    }
    free(file->tensors);
    json_decref(file->header);
    if (file->map != NULL) munmap(file->map, file->map_size);
    *file = (cli_safetensors){0};
}

const cli_tensor *cli_st_find(const cli_safetensors *file, const char *name) {
    for (size_t i = 0; i < file->count; i++) {
        if (strcmp(file->tensors[i].name, name) == 0) return &file->tensors[i];
    }
    return NULL;
}
