/* Any bytes at all: the safetensors reader accepts or reports. What it accepts keeps the promises that the rest of the
 * tool relies on: names, sizes that match shapes, data inside the file that no two tensors share. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

static void check_tensor(const cli_tensor *tensor, const uint8_t *begin, size_t size) {
    const uint8_t *at = tensor->data;
    require(tensor->name != NULL && tensor->dtype_name != NULL);
    require(at >= begin && at <= begin + size && tensor->size <= (size_t)(begin + size - at));
    size_t count = 1;
    for (int i = 0; i < tensor->rank; i++) {
        require(tensor->dims[i] >= 0);
        require(!__builtin_mul_overflow(count, (size_t)tensor->dims[i], &count));
    }
    if (tensor->known) require(count * fj_dtype_size(tensor->dtype) == tensor->size);
}

static void parse(const uint8_t *data, size_t size) {
    cli_safetensors file;
    char error[CLI_ST_ERROR_SIZE] = "";
    if (!cli_st_parse(data, size, &file, error)) {
        require(error[0] != '\0' && memchr(error, '\0', sizeof error) != NULL);
        return;
    }
    size_t total = 0;
    for (size_t i = 0; i < file.count; i++) {
        check_tensor(&file.tensors[i], data, size);
        require(cli_st_find(&file, file.tensors[i].name) == &file.tensors[i]);
        total += file.tensors[i].size;
    }
    require(total <= size - 8);
    cli_st_close(&file);
}

/* As it is; and, so that mutations of the header get past its length, with a length that ends at the last brace. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    parse(data, size);
    size_t end = size;
    while (end > 8 && data[end - 1] != '}') end--;
    uint8_t *copy = end > 8 ? malloc(size) : NULL;
    if (copy == NULL) return 0;
    memcpy(copy, data, size);
    for (int i = 0; i < 8; i++) copy[i] = (uint8_t)((end - 8) >> (8 * i) & 0xff);
    parse(copy, size);
    free(copy);
    return 0;
}
