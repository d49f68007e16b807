/* Any bytes at all: a graph, as JSON of our own, an ONNX model or an archive of torch.export, is read or refused. What is read is searched for attention
 * and written; what was written is read again. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuse/fuse.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

static void parse(const uint8_t *data, size_t size, bool again) {
    fj_model *model = NULL;
    fj_text text = {0};
    fj_error error = {0};
    const fj_fuse_options options = {.no_empty_rows = size % 2 == 1};
    if (fj_fuse_parse(data, size, NULL, &model, &error) != FJ_OK) {
        require(error.text[0] != '\0' && model == NULL);
        return;
    }
    if (fj_fuse_find(model, &options, &error) == FJ_OK) {
        require(fj_fuse_write_graph(model, &text, &error) == FJ_OK);
        if (again) parse((const uint8_t *)text.data, text.length, false);
        fj_text_finish(&text);
        require(fj_fuse_write_manifest(model, &text, &error) == FJ_OK);
        fj_text_finish(&text);
    }
    fj_fuse_close(&model);
}

static uint32_t crc_of(const uint8_t *data, size_t size) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

static uint8_t *put(uint8_t *at, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) *at++ = i < 8 ? (uint8_t)(value >> (8 * i)) : 0;
    return at;
}

/* An archive with the bytes as its model.json, so that mutations get past checksums. */
static void parse_model(const uint8_t *data, size_t size) {
    static const char name[] = "m/models/model.json";
    const size_t length = sizeof name - 1;
    uint8_t *bytes = malloc(size + 2 * length + 200), *at = bytes;
    if (bytes == NULL) return;
    const uint32_t crc = crc_of(data, size);
    at = put(at, 0x04034b50, 4);
    at = put(at, 10, 2);
    at = put(at, 0, 8);
    at = put(put(put(at, crc, 4), size, 4), size, 4);
    at = put(put(at, length, 2), 0, 2);
    memcpy(at, name, length);
    memcpy(at + length, data, size);
    uint8_t *directory = at += length + size;
    at = put(at, 0x02014b50, 4);
    at = put(put(at, 10, 2), 10, 2);
    at = put(at, 0, 8);
    at = put(put(put(at, crc, 4), size, 4), size, 4);
    at = put(put(at, length, 2), 0, 12);
    at = put(at, 0, 4);
    memcpy(at, name, length);
    at += length;
    const size_t directory_size = (size_t)(at - directory);
    at = put(put(at, 0x06054b50, 4), 0, 4);
    at = put(put(at, 1, 2), 1, 2);
    at = put(put(put(at, directory_size, 4), (uint64_t)(directory - bytes), 4), 0, 2);
    parse(bytes, (size_t)(at - bytes), true);
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    parse(data, size, true);
    if (size < 1 << 20) parse_model(data, size);
    return 0;
}
