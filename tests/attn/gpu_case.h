/* One call of attention on a device that runs the kernels of templates/cuda, against the definition. */
#ifndef FJ_TESTS_ATTN_GPU_CASE_H
#define FJ_TESTS_ATTN_GPU_CASE_H

#include "cli/run.h"
#include "flexjit/flexjit.h"
#include "tests/attn/boxes.h"

enum { CASE_CAPTURES = 3 };

/* In the order in which the table of gpu_cases.h reads best. NOLINTNEXTLINE(clang-analyzer-optin.performance.Padding) */
typedef struct gpu_case {
    const char *name;
    fj_dtype dtype;
    const char *kind; /* part of the variants' names: "_mma_", "_simt_" */
    cli_shape shape;
    box_layout layout;
    const char *score, *mask;
    const char *source, *scalar; /* a file that holds both mods, and its run-time scalar */
    struct {
        const char *name, *dims; /* letters: b batch, h query heads, q, k; n: q + k */
        fj_dtype dtype;
    } capture[CASE_CAPTURES];
    bool max, dlse, nondeterministic, tf32, pack, wide, blocks;
    double scale;
    double times;     /* dout is multiplied with it; 0: it is not */
    const char *only; /* one direction: "fwd" */
} gpu_case;

/* What a call reads and writes, on the test's side: packed. */
typedef struct gpu_call {
    fj_mod *mod;
    fj_block_mask *mask; /* in the host's memory; of cases with blocks */
    cli_inputs inputs;
    cli_outputs outputs;
} gpu_call;

/* gpu_case.c */

/* Makes the mod and random inputs. */
void gpu_call_init(gpu_call *call, const gpu_case *c, fj_context *context);
void gpu_call_finish(gpu_call *call);
/* Forward and backward on a device into call->outputs, whatever it held; stream may be NULL. */
void gpu_call_run(gpu_call *call, const gpu_case *c, fj_device *device, void *stream);
/* The bound of `flexjit run --check`, of every output. */
void gpu_call_check(const gpu_call *call, const gpu_case *c, fj_context *context);

#endif
