/* Safetensors files, read strictly and written whole (https://github.com/huggingface/safetensors#format):
 *
 *   8 bytes   N, little endian: length of the header, at most 100,000,000
 *   N bytes   JSON object: name -> {"dtype": "F32", "shape": [2,3], "data_offsets": [begin, end]}
 *             and optionally "__metadata__", an object of strings or null
 *   the rest  the data; offsets count from here, and the tensors cover it without holes or overlaps
 */
#ifndef FJ_CLI_SAFETENSORS_H
#define FJ_CLI_SAFETENSORS_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flexjit/flexjit.h"

enum { CLI_ST_MAX_HEADER = 100000000, CLI_ST_ERROR_SIZE = 512 };

typedef struct cli_tensor {
    const char *name;
    const char *dtype_name; /* as the file spells it */
    bool known;             /* dtype is one of the library's */
    fj_dtype dtype;
    int rank;
    const int64_t *dims;
    size_t offset; /* from the beginning of the data */
    size_t size;
    const void *data; /* may be less aligned than its dtype */
} cli_tensor;

typedef struct cli_safetensors {
    cli_tensor *tensors; /* in the order of the header */
    size_t count;
    json_t *header; /* owns the names */
    void *map;      /* NULL: the bytes are the caller's */
    size_t map_size;
} cli_safetensors;

/* Reads from memory, which must outlive the result; error is a sentence that names the tensor at fault. */
bool cli_st_parse(const uint8_t *bytes, size_t size, cli_safetensors *ret_file,
                  char error[CLI_ST_ERROR_SIZE]);
/* Maps a file. Returns an exit status; the error is reported. */
int cli_st_open(const char *path, cli_safetensors *ret_file);
void cli_st_close(cli_safetensors *file);
const cli_tensor *cli_st_find(const cli_safetensors *file, const char *name);

/* Writes a file that appears under its name only when it is complete. The temporary file is made, and its space
 * reserved, before there is anything to write, so that a folder that cannot be written or a full disk is an error
 * before the work and not after it. */
typedef struct cli_st_writer {
    const char *path; /* as given, for messages */
    char *target;     /* what it stands for when it is a symbolic link */
    char *temporary;  /* NULL: the target is not a regular file and is written directly */
    bool is_open;     /* else there is nothing to discard */
    int file;
    char *header;
    size_t header_size;
    const cli_tensor **order;
    size_t count;
} cli_st_writer;

/* tensors are the caller's and stay; their data is read by cli_st_commit, their offsets are ignored. Returns an exit
 * status; errors are reported. */
int cli_st_create(const char *path, const cli_tensor *tensors, size_t count, cli_st_writer *ret_writer);
/* Writes everything and renames; the writer is finished, whatever the status. */
int cli_st_commit(cli_st_writer *writer);
/* Any file, written in the same way. Returns an exit status; errors are reported. */
int cli_write_file(const char *path, const void *data, size_t size);
/* Removes what was begun. Takes a writer that was zeroed or committed. */
void cli_st_discard(cli_st_writer *writer);

#endif
