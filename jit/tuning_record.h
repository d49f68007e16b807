/* Records of tuning as text. Private to the files jit/tuning*.c, and their tests. */
#ifndef FJ_JIT_TUNING_RECORD_H
#define FJ_JIT_TUNING_RECORD_H

#include <jansson.h>
#include <pthread.h>
#include <stdatomic.h>

#include "jit/tuning.h"

enum { FJ_TUNING_SCHEMA = 1, FJ_TUNING_LONGEST_LINE = 1 << 16 };

/* The three keys as digests of their text, and the lengths. */
typedef struct fj_tuning_key {
    fj_digest device; /* the whole */
    fj_digest arch;   /* the part of it that has to agree */
    fj_digest problem;
    int64_t batch_heads, q_len, kv_len, gqa;
    int64_t score_cost, mask_cost; /* of the mod; below 0: not known */
} fj_tuning_key;

/* False: out of memory. */
bool fj_tuning_key_of(const fj_tuning_call *call, fj_tuning_key *ret_key);

typedef struct fj_tuning_record {
    fj_tuning_key key;
    char variant[FJ_JIT_VARIANT_NAME];
    int file, line;
} fj_tuning_record;

/* Goes through the lines of a file. */
typedef struct fj_tuning_reader {
    fj_str rest;
    int line;              /* of the record that was read last */
    bool any_version;      /* of flexjit, too */
    bool headed;           /* there was a header */
    bool current;          /* the last one is of this schema and version */
    bool foreign;          /* some header is of another schema */
    int skipped;           /* lines */
    int first_line;        /* of them */
    const char *first_why; /* static */
} fj_tuning_reader;

void fj_tuning_reader_begin(fj_tuning_reader *reader, fj_str text, bool any_version);
/* The next sound record, without its file. False: there is none. */
bool fj_tuning_reader_next(fj_tuning_reader *reader, fj_tuning_record *ret_record);

/* ---- Layers --------------------------------------------------------------------------------------------- */

/* A layer and its records, in the order in which they were read. */
typedef struct fj_tuning_shelf {
    fj_tuning_layer info;
    size_t first, end;
} fj_tuning_shelf;

struct fj_tuning {
    const fj_allocator *allocator;
    const fj_file_ops *ops;
    void (*log)(void *user, fj_log_level level, const char *message);
    void *log_user;
    const fj_embedded *shipped;
    size_t shipped_count;
    char *paths; /* the colon list, cut by NULs */
    size_t paths_size, folders;
    atomic_bool warned;   /* of a variant that is not legal */
    pthread_mutex_t lock; /* until `read`; nothing changes after it */
    bool read;
    fj_arena arena; /* everything below lives in it */
    FJ_VEC(fj_tuning_record) records;
    FJ_VEC(const char *) files;
    FJ_VEC(fj_tuning_shelf) shelves; /* the folders, then the shipped one */
};

void fj_tuning_log(const fj_tuning *tuning, fj_log_level level, const char *format, ...) FJ_PRINTF(3, 4);
const char *fj_tuning_folder(const fj_tuning *tuning, size_t index);

/* Reads an open file from where it stands to its end; closes nothing. NULL, or what is wrong with it: static text, or the
 * system's. */
const char *fj_tuning_read_file(const fj_file_ops *ops, int descriptor, fj_buf *text);

/* ---- Writing -------------------------------------------------------------------------------------------- */

/* One line with its newline. NULL: out of memory; else of the C library's heap. */
char *fj_tuning_header_text(void);
char *fj_tuning_record_text(const fj_tuning_new *record);

#endif
