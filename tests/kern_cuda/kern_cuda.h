/* Tests of the cuda templates: their text, compiled for the emulator, against attention in double; and
 * compiled by NVRTC, for its registers and spills.
 *
 *     mods.c        mods, as expressions of the language, and what they capture
 *     render.c      constants + hooks.h + hooks + template -> one text
 *     tensor.c      tensors with gaps of NaN, and the definition of attention
 *     nvrtc.c       the table of registers
 *     kern_cuda.c   kernels, shapes, the runs
 */
#ifndef FJ_TESTS_KERN_CUDA_H
#define FJ_TESTS_KERN_CUDA_H

#include "driver/emu/emu.h"
#include "expr/mod.h"
#include "templates/cuda/abi.h"

/* ---- Mods ------------------------------------------------------------------------------------- */

enum { MAX_CAPTURES = 2, MAX_SCALARS = 1 };

typedef struct mod {
    const char *name, *score, *mask;
    struct {
        const char *name, *dims; /* letters: b batch, h query heads, q, k; n: q + k; 5: 50 */
        fj_dtype dtype;
    } capture[MAX_CAPTURES];
    const char *table; /* FJ_POSITION_TABLE 1 when not NULL */
    bool exact;        /* the analysis finds every empty block */
} mod;

extern const mod mods[];
const mod *mod_find(const char *name);
/* The optimised graph; exits with a message when the mod does not compile. */
fj_ir *mod_compile(fj_arena *arena, const mod *m);

/* ---- Text ------------------------------------------------------------------------------------- */

typedef struct variant {
    const char *template; /* "mma" or "simt" */
    fj_dtype dtype;
    int e, v, m, n, stages, warps;
    int pack, partial;
    const char *mod;
} variant;

void variant_name(const variant *v, char name[128]);
int variant_shared(const variant *v);
bool variant_has_max(const variant *v); /* FJ_WANT_MAX */
/* A defect: a piece of the text that is replaced. */
typedef struct plant {
    const char *name, *variant, *from, *to; /* variant: a pattern */
} plant;

extern const plant plants[];

/* False: the plant's piece is not there. */
bool plant_apply(const plant *p, fj_buf *text);
void render(const variant *v, const fj_ir *ir, const char *root, fj_buf *out);

/* ---- Tensors ---------------------------------------------------------------------------------- */

typedef enum layout { LAYOUT_PACKED, LAYOUT_ROWS, LAYOUT_ODD, LAYOUT_COUNT } layout;

typedef struct tensor {
    unsigned char *memory; /* ends at a guard page */
    size_t bytes, offset;  /* of the first element, in bytes */
    fj_dtype dtype;
    int64_t dims[4], stride[4];
    double *values; /* packed; what inputs hold, rounded to the dtype */
} tensor;

void tensor_make(tensor *t, fj_dtype dtype, const int64_t dims[4], layout how);
void tensor_fill(tensor *t, double scale); /* random */
void tensor_clear(tensor *t);              /* everything NaN: what a kernel is to write */
/* Reads values back; false: something outside of the tensor's elements was written. */
bool tensor_read(tensor *t);
void tensor_finish(tensor *t);
struct fj_cuda_tensor tensor_describe(const tensor *t);
bool tensor_is_vector(const tensor *t);
double random_uniform(void); /* -1 .. 1 */

typedef struct shape {
    int64_t batch, heads_q, heads_kv, q_len, kv_len;
    double scale;
    layout how;
    int32_t q_offset, kv_offset;
} shape;

typedef struct call {
    const shape *s;
    const fj_ir *ir;
    tensor query, key, value, out, lse, max;
    fj_eval_tensor captures[MAX_CAPTURES];
    int32_t *q_position, *kv_position;
    /* The definition's: out, lse and max, and how much each may be off. */
    double *want_out, *want_lse, *want_max, *bound_out, *bound_lse;
    bool *visible; /* [B,Hq,L,S] */
    bool want_fault;
} call;

void reference_run(call *c, fj_dtype dtype); /* dtype: whose rounding the bounds allow */
void reference_finish(call *c);

/* ---- NVRTC ------------------------------------------------------------------------------------ */

/* 0: nothing wrong; 77: no NVRTC here. */
int nvrtc_table(const char *root, const char *filter, bool all);

#endif
