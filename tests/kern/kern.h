/* Tests and benchmarks of kernels, after dav1d's checkasm: the text that users get (fj_jit_render), compiled for the
 * cpu, the emulator or a GPU, held against the definition in double.
 *
 *     kern.c        options, and what is run
 *     table.c       every variant that the plan lists, with mods, dimensions and shapes drawn from a seed
 *     space.c       variants that it does not list
 *     mods.c        mods, as the language has them, and what they capture
 *     hand.c        hooks of some of these mods, written by hand
 *     kernel.c      a kernel: its name, its text
 *     blocks.c      block masks
 *     sequences.c   packed and paged calls
 *     tensor.c      tensors with gaps of NaN between canaries
 *     call.c        what a kernel is called with
 *     pass.c        memory filled, a pass, memory looked at
 *     launch.c      packed arguments of a GPU's kernels; their launches
 *     reference.c   the definition of attention and its gradients, in double and unfused in the dtype
 *     check.c       what came out against what should
 *     poison.c      what is not finite, and is not seen
 *     run.c         a kernel at its shapes, in every order of threads
 *     cpu.c emu.c cuda.c   devices; host.c: memory and compilers of the first two
 *     bench.c       times
 *     plants.c      defects that the tests must notice
 *     nvrtc.c       registers and spills of kernels, without a GPU
 */
#ifndef FJ_TESTS_KERN_KERN_H
#define FJ_TESTS_KERN_KERN_H

#include <stdio.h>

#include "driver/emu/emu.h"
#include "expr/lang/mod.h"
#include "jit/jit.h"
#include "templates/cuda/abi.h"
#include "tests/support/isolate.h"

enum { MAX_CAPTURES = 2, MAX_SCALARS = 1, MOST_TARGETS = 8, GRADS = MAX_CAPTURES + MAX_SCALARS };

/* ---- Random numbers --------------------------------------------------------------------------- */

typedef struct generator {
    uint64_t state;
} generator;

uint64_t random_next(generator *s);
double random_uniform(generator *s); /* -1 .. 1 */
int random_below(generator *s, int count);
generator random_of(uint64_t seed, const char *text);

/* ---- Mods ------------------------------------------------------------------------------------- */

typedef struct mod {
    const char *name, *score, *mask;
    bool exact;                       /* the analysis finds every empty block */
    bool large;                       /* scores so large that backward needs lse in two parts */
    const char *out, *sink;           /* mods of the output and of the sink */
    const char *definitions, *scalar; /* a run-time scalar, and the source that gives its value */
    struct {
        const char *name,
            *dims; /* letters: b batch, h query heads, q, k positions; n: of both; d: columns; 5: 50 */
        fj_dtype dtype;
    } capture[MAX_CAPTURES];
} mod;

typedef struct graphs {
    const fj_ir *ir, *gradient, *out, *out_gradient, *sink, *sink_gradient; /* as the library makes them */
} graphs;

extern const mod mods[]; /* ends with a row without a name */
const mod *mod_find(const char *name);
/* Compiled once, for the life of the process; ends it with a message when the mod is wrong. */
graphs mod_graphs(const mod *m);

/* ---- Kernels ------------------------------------------------------------------------------------ */

/* What no problem says yet: constants that are put before the text. splits: FJ_PARTIAL with so many, merged by a kernel
 * of the same text; 0: without. hand: hooks of hand.c. */
typedef struct kernel {
    fj_jit_problem problem;
    fj_variant variant;
    const mod *mod;
    bool pack, table, hand;
    int splits;
    char name[160];
} kernel;

/* Of the mod, as the problem's direction needs them. */
void kernel_put_graphs(kernel *k);
/* Fills the graphs, the entry that merges and the name. */
void kernel_finish(kernel *k);
/* A target of kernels as one number: the architecture of a GPU, or an instruction set of the cpu, negated. */
fj_features target_features(int target);
static inline bool target_is_cpu(int target) { return target <= 0; }
bool kernel_is_cpu(const kernel *k);
/* Hooks by hand of a mod, for a kernel of the cpu; false: it has none. */
bool hand_hooks(const kernel *k, fj_buf *text);
/* The kernel that the name spells, on the first of the targets that has it; false: there is none. */
bool kernel_parse(kernel *k, const char *name, const int *targets, int target_count);
bool kernel_is_backward(const kernel *k);
extern int kernel_chunks; /* FJ_MOD_CHUNKS where the plan says 1: costly mods have more; 0: as planned */
bool kernel_packs(const kernel *k); /* rows of a tile are (query, head of a group) */
/* The first such piece of a text; lines after it keep their numbers where there are no more of them. False: it is not
 * there. */
bool text_replace(fj_buf *text, const char *from, const char *to);
/* A defect: a piece of the text that is replaced. */
typedef struct plant plant;
/* Writes the text into an empty buffer. False, after a message on out: it cannot be made, or the plant is not in it. */
bool kernel_render(const kernel *k, const plant *planted, fj_buf *text, FILE *out);

/* ---- Shapes --------------------------------------------------------------------------------------- */

typedef enum layout { LAYOUT_PACKED, LAYOUT_ROWS, LAYOUT_ODD, LAYOUT_SHARED, LAYOUT_COUNT } layout;

enum {
    ABSENT_DQUERY = 1,
    ABSENT_DKEY = 2,
    ABSENT_DVALUE = 4,
    ABSENT_CAPTURE_GRADS = 8,
    ABSENT_LSE = 16,
    ABSENT_MAX = 32,
    ABSENT_LOW = 64,
    ABSENT_RAW = 128
};

typedef struct shape {
    int64_t batch, heads_q, heads_kv, q_len, kv_len;
    double scale;
    layout how;
    int32_t q_offset, kv_offset, l2_group;
    unsigned absent;
    bool dlse;
    int32_t block[2];      /* of queries, of keys; where the kernel has a block mask */
    unsigned block_planes; /* 1: batches differ, 2: heads */
    double dropout;        /* where the kernel has it: the probability, and what chooses positions */
    uint64_t seed, offset;
    bool spoilt; /* forward: elements that are not finite; outputs that see none are as with zeros there */
} shape;

void shape_name(const shape *s, char name[128]);

/* ---- The table -------------------------------------------------------------------------------------- */

typedef struct range {
    uint64_t seed;
    const char *filter;
    int targets[MOST_TARGETS], target_count;
    bool all;       /* several kernels and more shapes for every variant */
    bool few;       /* the smallest kernel of each template: for sanitizers */
    int64_t length; /* of keys, and of queries in backward; 0: drawn */
    int64_t day;    /* not 0: the part of the table for this day, see table.c */
    int space;      /* not 0: so many points of the space, instead of the table */
} range;

enum { MOST_SHAPES = 12, MOST_DECODES = 3 }; /* drawn; and of few queries, for forward on the cpu */

typedef struct test {
    kernel kernel;
    shape shapes[MOST_SHAPES + MOST_DECODES];
    int shape_count;
} test;

/* Every variant with what is drawn for it; *count of them, from malloc. */
test *table_make(const range *r, int *count);
/* Points of the space; *count of them, from malloc. */
test *space_make(const range *r, int *count);
/* The shapes of a kernel that is not in the table. */
void table_shapes(test *t, const range *r, int count);

/* ---- Memory of a device ----------------------------------------------------------------------------- */

typedef struct device device;

/* Bytes here and there. On a device without its own memory these are the same, and end at a page without access. */
typedef struct buffer {
    unsigned char *host;
    size_t size;
    uint64_t address;
} buffer;

typedef struct tensor {
    buffer memory;
    size_t offset; /* of the first element, in bytes */
    fj_dtype dtype;
    int64_t dims[4], stride[4];
    double *values; /* packed; what inputs hold, rounded to the dtype */
} tensor;

int64_t tensor_count(const tensor *t);
void tensor_make(tensor *t, const device *d, fj_dtype dtype, const int64_t dims[4], layout how);
void tensor_fill(tensor *t, generator *s, double scale);   /* random */
void tensor_repeat(tensor *t, generator *s, double scale); /* as tensor_fill, quickly and without values */
void tensor_store(tensor *t);                              /* values, as they are rounded */
/* An element of the memory alone. */
void tensor_put(tensor *t, int64_t i, double value);
void tensor_clear(tensor *t); /* everything NaN: what a kernel is to write */
/* Reads values back; false: something outside of the tensor's elements was written. */
bool tensor_read(tensor *t);
void tensor_finish(tensor *t, const device *d);
struct fj_cuda_tensor tensor_describe(const tensor *t);
bool tensor_is_vector(const tensor *t);

/* ---- Calls ---------------------------------------------------------------------------------------------- */

/* Forward: query key value -> out raw lse low max. Backward: all but the maximum and dlse's are inputs -> dquery dkey dvalue.
 * lse + low is the logarithm. raw: the output before its mod, in place of out for backward. */
enum { QUERY, KEY, VALUE, OUT, RAW, LSE, LOW, MAX, DOUT, DLSE, DQUERY, DKEY, DVALUE, TENSORS };
extern const char *const tensor_names[TENSORS];

/* The gradient of a capture, or of the scalar (the last). */
typedef struct grad {
    int64_t count;
    double mass; /* of all that is scattered, about */
    buffer sums, most, out;
} grad;

/* What the definition gives, packed. bound: how much an element may be off. */
typedef struct answer {
    double *exact, *unfused, *bound;
    int64_t count;
} answer;

/* A side is queries (0) or keys (1). */
typedef struct block_mask {
    int64_t block[2], count[2], planes[2]; /* rows of a block; blocks of a plane; of batches, of heads */
    uint8_t *classes;          /* [planes][count][count] 0 empty, 1 partial, 2 full; NULL: there is none */
    buffer starts[2], runs[2]; /* of the lines of a side (abi.h) */
} block_mask;

/* An element of an input that is not finite. */
typedef struct spoil {
    int tensor;
    int64_t at;
    double value;
} spoil;
enum { SPOILS = 10 };

typedef struct call {
    const kernel *kernel;
    const shape *shape;
    const device *device;
    tensor tensors[TENSORS];
    fj_eval_tensor captures[MAX_CAPTURES];
    buffer capture_data[MAX_CAPTURES], positions[2]; /* of queries, of keys */
    int64_t position_stride[2];                      /* from one batch to the next */
    grad grads[GRADS];
    buffer rows, query_sums, runs, parts, fault, sequences;
    buffer dout_before,
        dropout_state; /* of a GPU: in the workspace; in place of the call's seed and offset */
    block_mask blocks;
    answer answers[TENSORS + GRADS];
    bool *visible; /* [B,Hq,L,S] */
    spoil spoils[SPOILS];
    int spoil_count;
    bool want_fault;
} call;

/* With the answers, unless the shape is one for measuring. */
void call_make(call *c, const device *d, const kernel *k, const shape *s, uint64_t seed, bool answers);
void call_finish(call *c);
/* The elements that are not finite, or zeros in their place. */
void call_spoil(call *c, bool zeros);
int32_t call_position(const call *c, int side, int64_t b,
                      int64_t index);        /* side 0: of a query, 1: of a key */
bool call_has(const call *c, int tensor);    /* false: the kernel is given none */
bool call_reads(const call *c, int tensor);  /* an input of the kernel */
bool call_writes(const call *c, int tensor); /* an output of the kernel that is wanted */
size_t call_real_size(const call *c);

/* What backward reads of the output. */
int call_output(const call *c);
/* Whether dropout leaves a probability, and what it is multiplied by then; without dropout true and 1. */
bool call_keeps(const call *c, int64_t b, int64_t h, int64_t q, int64_t kv);
double call_keep_scale(const call *c);

void blocks_make(call *c, generator *random);
void blocks_finish(call *c);
bool blocks_put(const call *c);
/* Of a row what the block mask shows: live holds what the mod's mask shows. */
void blocks_show(const call *c, int64_t b, int64_t h, int64_t q, bool *live);
struct fj_cuda_block_mask blocks_describe(const call *c);

bool kernel_has_sequences(const kernel *k);
void sequences_make(call *c);
struct fj_cuda_sequences sequences_describe(const call *c);
struct fj_cuda_tensor sequences_tensor(const call *c, int tensor, struct fj_cuda_tensor dense);
int64_t sequences_rows(const call *c, int64_t rows); /* that a head has in the arguments */
int64_t sequences_workspace_rows(const call *c);
int64_t sequences_tiles(const call *c, int64_t rows, int64_t tile); /* of one head, all batches together */

void reference_run(call *c);
/* Pairs of a query and a key that see each other, of the first head. */
int64_t reference_area(const call *c);
/* Whether a read of the mod fails at these positions. */
bool reference_faults(const call *c, const struct fj_cuda_fault *fault);

/* ---- Devices ------------------------------------------------------------------------------------------------ */

typedef struct mode {
    fj_emu_schedule schedule;
    fj_emu_copies copies;
    fj_emu_rounding rounding;
} mode;

typedef struct object object;

struct device {
    const char *name;
    bool has_modes; /* orders of threads, or of items, can be chosen */
    bool counts;    /* operations are counted */
    /* Compiles a text; false after a message on out. plants have folders of their own. */
    bool (*build)(const kernel *k, const char *text, FILE *out, object **ret_object);
    void (*unload)(object *o);
    /* A pass, over memory that is filled. FJ_ERR_DEVICE: what ran went wrong; then the device may be of no further use. */
    fj_status (*run)(const call *c, const object *o, const mode *m, fj_emu_counts *counts, fj_error *error);
    /* GPUs: what the run of launch.c is made of. */
    uint32_t (*args_size)(const object *o, int entry); /* 0: not known; entry: of the variant */
    fj_status (*launch)(const object *o, int entry, const uint32_t grid[3], const void *args, const mode *m,
                        fj_emu_counts *counts, fj_error *error);
    void (*create)(buffer *b, size_t size); /* everything 0xff */
    void (*destroy)(buffer *b);
    bool (*put)(const buffer *b); /* here to there */
    bool (*get)(const buffer *b); /* false: it failed, or bytes around it were written */
    /* Milliseconds of each of `times` runs; NULL: this device does not measure. */
    bool (*measure)(fj_status (*run)(void *user), void *user, int times, double *ret_ms);
};

extern const device device_cpu, device_emu, device_cuda;
/* What the cpu and emu need to compile; flags NULL: those that suit the build's compiler. */
extern struct host_tools { const char *cc, *cxx, *flags, *folder; } host_tools;
/* What a test program is linked with, its kernels are compiled with. */
#ifndef KERN_SANITIZER
#define KERN_SANITIZER "-g1"
#endif
/* Writes the text beside the library, runs the command that makes the one from the other, and opens it. NULL, after a
 * message on out. */
void *host_compile(const char *text, const char *command, const char *source, const char *library, FILE *out);
/* Memory of devices that have none of their own: it ends at a page without access. */
void host_create(buffer *b, size_t size);
void host_destroy(buffer *b);
bool host_put(const buffer *b);
bool host_get(const buffer *b);
#define HOST_MEMORY .create = host_create, .destroy = host_destroy, .put = host_put, .get = host_get

/* ---- Running ------------------------------------------------------------------------------------------------- */

/* One pass. Outputs are cleared before, and fetched after it. False after a message on out. */
bool call_run(call *c, const object *o, const mode *m, fj_emu_counts *counts, FILE *out);
/* The launches of a GPU's kernels. */
fj_status gpu_run(const call *c, const object *o, const mode *m, fj_emu_counts *counts, fj_error *error);
bool call_wants_grads(const call *c, int grad); /* the gradient of a capture, or of the scalar */

/* Runs twice, after which the call is of no further use. False after a message on out. */
bool poison_check(call *c, const object *o, const mode *m, FILE *out);
/* False after a message on out. */
bool check_answers(call *c, FILE *out);
bool check_counts(const call *c, const fj_emu_counts *counts, FILE *out);
bool check_fault(const call *c, FILE *out);

typedef struct modes {
    mode list[FJ_EMU_SCHEDULE_COUNT * FJ_EMU_COPIES_COUNT];
    int count;
} modes;

typedef struct runner {
    const device *device;
    uint64_t seed;
    int64_t length; /* of what is measured; 0: what the device can */
    modes all;      /* for the first shape; the others have the first and the last of them */
    const plant *planted;
} runner;

/* Builds a kernel and runs it at all its shapes. */
isolate_result run_test(const runner *r, const test *t, FILE *out, char where[ISOLATE_WHERE]);
/* The kernels that are measured when none are named. */
test *bench_make(const range *r, int *count);
isolate_result bench_test(const runner *r, const test *t, FILE *out, char where[ISOLATE_WHERE]);

/* How many defects were missed. */
int plants_run(const runner *r, const range *chosen, int jobs);
bool plant_apply(const plant *p, fj_buf *text);

/* 0: nothing wrong; 77: no NVRTC here. */
int nvrtc_run(const range *r, int jobs);

#endif
