/* Records of tuning: which variant was the fastest for a problem at the lengths that were measured.
 *
 *   files of records -> fj_tuning_find   the record nearest to a call, if one is near enough
 *   a measurement    -> fj_tuning_add    one more line of a file
 *
 * A file is JSON lines: a header, then a record a line. Headers may stand anywhere, and what follows one belongs to it, so that
 * files are merged by `cat`:
 *
 *   {"schema":1,"tool":"flexjit 0.1.0"}
 *   {"call":{"batch_heads":8,"gqa":1,"kv_len":512,"mask_cost":0,"q_len":512,"score_cost":3},"date":"2026-11-30T12:00:00Z",
 *    "default":{"time_ms":2.1,"variant":"fwd_cpu_..."},"device":{...},"machine":"...","problem":{...},"time_ms":1.9,
 *    "variant":"fwd_cpu_..."}
 *
 * (on one line). "device" and "problem" are keys (tuning_record.c): equal texts, equal meaning. A later record of equal key
 * wins in a layer. Whatever a file holds, it never makes a call fail: lines that are not understood are counted, and one
 * warning a file says how many and why.
 *
 * Layers are the folders of FLEXJIT_TUNE_PATH, of which all *.jsonl are read in the order of their names, and after them
 * what the library was built with (tuning/). They are read when the first plan asks, once.
 *
 * Any thread may call these.
 */
#ifndef FJ_JIT_TUNING_H
#define FJ_JIT_TUNING_H

#include "base/embed.h"
#include "jit/jit.h"

#define FJ_TUNING_FILE "tune.jsonl" /* of the first layer: where records are added */

typedef struct fj_tuning fj_tuning;

typedef struct fj_tuning_desc {
    const fj_allocator *allocator;
    const fj_file_ops *ops; /* NULL: the system's */
    const char *path;       /* colon list; NULL: FLEXJIT_TUNE_PATH, else the user's folder */
    const fj_embedded *shipped;
    size_t shipped_count;
    void (*log)(void *user, fj_log_level level, const char *message);
    void *log_user;
} fj_tuning_desc;

/* Reads nothing yet. FJ_ERR_MEMORY. */
fj_status fj_tuning_create(const fj_tuning_desc *desc, fj_tuning **ret_tuning);
void fj_tuning_destroy(fj_tuning **tuning);

/* What a record is of, and what is looked for. Lengths of 0 are not known: then nothing is found. */
typedef struct fj_tuning_call {
    const fj_jit_problem *problem;
    const fj_features *features;
    fj_mask_tier tier;
    int64_t batch_heads, q_len, kv_len;
} fj_tuning_call;

/* How near a record is. */
typedef enum fj_tuning_rule {
    FJ_TUNING_EXACT,   /* the same device, problem, costs of the mod, and lengths */
    FJ_TUNING_NEAREST, /* the same architecture and problem; lengths each within a factor of FJ_TUNING_REACH */
} fj_tuning_rule;

#define FJ_TUNING_REACH 4

typedef struct fj_tuning_found {
    fj_variant variant;
    fj_tuning_rule rule;
    bool shipped, other_device, other_mod; /* other_mod: of the same class of cost */
    const char *file;                      /* lives as long as the tuning */
    int line;
    int64_t batch_heads, q_len, kv_len; /* that were measured */
} fj_tuning_found;

/* Whether there is a record, and the variant it names is legal. FJ_ERR_MEMORY, and nothing else. */
fj_status fj_tuning_find(fj_tuning *tuning, const fj_tuning_call *call, bool *ret_is_found,
                         fj_tuning_found *ret_found);

/* Calls each(user, variant) for every legal variant that a record names for this architecture and problem, whatever its
 * lengths; of a gqa of 0 for any group. The same name may come again. FJ_ERR_MEMORY. */
fj_status fj_tuning_each(fj_tuning *tuning, const fj_tuning_call *call,
                         void (*each)(void *user, const fj_variant *variant), void *user);

typedef struct fj_tuning_time {
    const char *variant;
    double ms;
} fj_tuning_time;

typedef struct fj_tuning_new {
    fj_tuning_call call;
    const char *machine; /* a name, for people; NULL: not known */
    fj_tuning_time best, standard;
} fj_tuning_new;

/* Appends a record, in one write, after a header where the last one in the file is of another version. What a writer left
 * that was killed in the middle of a line stays alone on that line. file NULL: FJ_TUNING_FILE of the first layer, whose
 * folders are made (0700). FJ_ERR_IO: it cannot be written, or is no file of records of this schema, which is not touched.
 * Lookups of this tuning do not see it once files were read. */
fj_status fj_tuning_append(fj_tuning *tuning, const char *file, const fj_tuning_new *record, fj_error *error);

/* Whether fj_tuning_append could add to it, by what is there now. Writes and makes nothing; one that is missing could be made. */
fj_status fj_tuning_probe(fj_tuning *tuning, const char *file, fj_error *error);

typedef struct fj_tuning_layer {
    const char *path; /* "(built in)" of the shipped one, the last */
    bool written, exists;
    int files, records;
    int skipped; /* lines that were not understood, or that another version wrote */
} fj_tuning_layer;

/* FJ_ERR_MEMORY. Reads the files where that was not done. */
fj_status fj_tuning_read(fj_tuning *tuning);
size_t fj_tuning_layer_count(const fj_tuning *tuning);
/* Of a tuning that was read. */
fj_tuning_layer fj_tuning_layer_at(const fj_tuning *tuning, size_t index);

#endif
