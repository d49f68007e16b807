/* Small files, read whole. */
#include "cli/file.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/report.h"

enum { FIRST_ROOM = 1 << 14 };

/* Doubles the room until the file ends or the limit is met. NULL with errno set on failure. */
static char *read_stream(FILE *file, size_t limit, size_t *ret_size) {
    char *text = NULL;
    size_t size = 0;
    for (size_t room = FIRST_ROOM;; room *= 2) {
        if (room > limit) room = limit;
        char *larger = realloc(text, room + 1);
        if (larger == NULL) break;
        text = larger;
        size += fread(text + size, 1, room - size, file);
        if (ferror(file) != 0) break;
        if (size < room || room == limit) {
            text[size] = '\0';
            *ret_size = size;
            return text;
        }
    }
    int error = errno;
    free(text);
    errno = error;
    return NULL;
}

int cli_read_file(const char *path, size_t limit, char **ret_text, size_t *ret_size) {
    FILE *file = fopen(path, "rbe");
    char *text = file == NULL ? NULL : read_stream(file, limit, ret_size);
    int error = errno;
    if (file != NULL) fclose(file);
    if (text == NULL) return cli_fail_file(CLI_EXIT_FAILED, path, "cannot be read: %s", strerror(error));
    *ret_text = text;
    return CLI_EXIT_OK;
}
