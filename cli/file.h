/* Small files, read whole. */
#ifndef FJ_CLI_FILE_H
#define FJ_CLI_FILE_H

#include <stddef.h>

/* Reads at most limit bytes; a longer file gives the first limit bytes. The text ends with a NUL that size does not
 * count; free it. Returns an exit status, the error is reported. */
int cli_read_file(const char *path, size_t limit, char **ret_text, size_t *ret_size);

#endif
