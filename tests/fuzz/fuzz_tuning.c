/* Any bytes at all: the reader of tuning records takes a line or counts it. What it takes has a name and lengths; what it
 * skips has a reason. Read after a header, most bytes are records that are nearly right. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "jit/tuning_record.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds) {
    if (!holds) abort();
}

static void read_all(const char *text, size_t size, bool any_version) {
    fj_tuning_reader reader;
    fj_tuning_record record;
    int lines = 0, last = 0;
    for (size_t i = 0; i < size; i++) lines += text[i] == '\n';
    lines += size > 0 && text[size - 1] != '\n';
    fj_tuning_reader_begin(&reader, (fj_str){text, size}, any_version);
    int records = 0;
    for (; fj_tuning_reader_next(&reader, &record); records++) {
        const size_t length = strnlen(record.variant, sizeof record.variant);
        require(reader.headed && reader.current && record.line > last && record.line <= lines);
        require(length > 0 && length < sizeof record.variant);
        require(record.key.batch_heads > 0 && record.key.q_len > 0 && record.key.kv_len > 0);
        require(record.key.gqa >= 0);
        last = record.line;
    }
    require(reader.rest.len == 0 && reader.line == lines && records + reader.skipped <= lines);
    require((reader.skipped == 0) == (reader.first_why == NULL) && reader.first_line <= lines);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *header = fj_tuning_header_text();
    const size_t length = header ? strlen(header) : 0;
    char *text = malloc(length + size + 1);
    if (header && text) {
        (void)snprintf(text, length + 1, "%s", header);
        memcpy(text + length, data, size);
        read_all(text + length, size, true);
        read_all(text, length + size, false);
    }
    free(text);
    free(header);
    return 0;
}
