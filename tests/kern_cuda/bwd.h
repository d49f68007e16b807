/* Tests of the backward cuda templates, in the manner of kern_cuda.h, whose tensors they use.
 *
 *     bwd_text.c        mods with gradients; constants + hooks + template -> one text
 *     bwd_reference.c   the gradients of attention by their definition, in double, and how much each may be off
 *     bwd_plants.c      defects that the tests must notice
 *     bwd_nvrtc.c       the table of registers and spills
 *     bwd.c             variants, shapes, the runs
 */
#ifndef FJ_TESTS_KERN_CUDA_BWD_H
#define FJ_TESTS_KERN_CUDA_BWD_H

#include "tests/kern_cuda/kern_cuda.h"

typedef struct bwd_mod {
    const char *name, *score, *mask;
    bool exact;                  /* the analysis finds every empty tile */
    const char *source, *scalar; /* a run-time scalar, and the file that gives its value */
    struct {
        const char *name, *dims; /* letters: b batch, h query heads, q, k; n: q + k */
        fj_dtype dtype;
    } capture[MAX_CAPTURES];
} bwd_mod;

const bwd_mod *bwd_mod_find(const char *name);
typedef struct bwd_graphs {
    fj_ir *ir, *gradient; /* optimised */
} bwd_graphs;
bwd_graphs bwd_mod_compile(fj_arena *arena, const bwd_mod *m);

typedef struct bwd_variant {
    const char *template; /* "mma" or "simt" */
    fj_dtype dtype;
    int e, v, m, n, stages, warps, atomic;
    const char *mod;
} bwd_variant;

void bwd_variant_name(const bwd_variant *v, char name[128]);
int bwd_variant_shared(const bwd_variant *v);
void bwd_render(const bwd_variant *v, const bwd_graphs *graphs, const char *root, fj_buf *out);

/* The gradient of a capture, or of the scalar (the last): packed in its shape. */
typedef struct bwd_sink {
    int64_t count;
    double *want, mass; /* mass: of all that is scattered, about */
} bwd_sink;

typedef struct bwd_call {
    const shape *s;
    const bwd_graphs *graphs;
    tensor query, key, value, out, dout, lse, dlse, dquery, dkey, dvalue;
    bool with_dlse;
    fj_eval_tensor captures[MAX_CAPTURES];
    bwd_sink sinks[MAX_CAPTURES + MAX_SCALARS];
    double *want[3], *bound[3]; /* of dquery, dkey, dvalue */
    bool *visible;              /* [B,Hq,L,S] */
} bwd_call;

/* Fills out and lse as well, as the forward kernel would: they are inputs. */
void bwd_reference_run(bwd_call *c);
void bwd_reference_finish(bwd_call *c);

extern const plant bwd_plants[];

int bwd_nvrtc_table(const char *root, bool all);

#endif
