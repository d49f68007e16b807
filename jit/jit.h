/* From problem and mod to a loaded code object.
 *
 *   features + problem -> fj_jit_variants    which kernels are legal, best first; no device, no work
 *   problem + variant  -> fj_jit_render      the kernel's whole text
 *   problem + variant  -> fj_jit_prepare     cache hit, or compile; load; shared within the process
 *
 * Everything here may be called from any thread.
 */
#ifndef FJ_JIT_JIT_H
#define FJ_JIT_JIT_H

#include "cache/cache.h"
#include "driver/driver.h"
#include "expr/ir.h"

/* ---- Features ----------------------------------------------------------------------------------- */

/* Instruction sets that templates know; each kernel is compiled for one. */
typedef enum fj_isa {
    FJ_ISA_PORTABLE, /* what the compiler does for any CPU of this architecture */
    FJ_ISA_AVX2,     /* AVX2, FMA, F16C, BMI2 */
    FJ_ISA_AVX512,   /* and AVX-512 F, BW, CD, DQ, VL */
    FJ_ISA_AVX512BF16,
    FJ_ISA_COUNT
} fj_isa;

typedef struct fj_features {
    bool isa[FJ_ISA_COUNT]; /* this CPU and its operating system run it */
} fj_features;

fj_features fj_jit_features(void);
const char *fj_jit_isa_name(fj_isa isa); /* "avx512bf16" */

/* ---- Problems and variants -------------------------------------------------------------------- */

typedef enum fj_jit_kind { FJ_JIT_FORWARD, FJ_JIT_BACKWARD, FJ_JIT_PEAK, FJ_JIT_KIND_COUNT } fj_jit_kind;

/* What a kernel is specialised on. */
typedef struct fj_jit_problem {
    fj_jit_kind kind;
    const fj_ir *ir;       /* NULL for a peak kernel */
    const fj_ir *gradient; /* NULL for forward */
    fj_dtype dtype;
    int head_dim, value_dim;
    bool max, dlse, deterministic;
} fj_jit_problem;

/* Lives as long as the plan: no pointers. */
typedef struct fj_variant {
    char name[64]; /* spells every parameter: fwd_cpu_f32_e64_v64_m48_n256_avx512 */
    fj_isa isa;
    int tile_q, tile_kv;
} fj_variant;

#define FJ_JIT_MAX_VARIANTS 32

/* Writes at most FJ_JIT_MAX_VARIANTS legal variants, best first; returns how many, 0: unsupported. */
int fj_jit_variants(const fj_jit_problem *problem, const fj_features *features, fj_variant *ret_variants);

/* ---- Text --------------------------------------------------------------------------------------- */

/* Views into *text, which the caller initialised and finishes. */
typedef struct fj_rendered {
    fj_str constants, hooks; /* the prologue: what we write, without prim.h between them */
    fj_str source;           /* the whole */
} fj_rendered;

/* FJ_ERR_MEMORY, FJ_ERR_IO (a file of FLEXJIT_TEMPLATE_PATH, or a template that is not there). */
fj_status fj_jit_render(const fj_jit_problem *problem, const fj_variant *variant,
                        const fj_allocator *allocator, fj_buf *text, fj_rendered *ret_rendered,
                        fj_error *error);

/* The request in clear: all that decides which kernel this is, but for emitters and compilers. */
fj_status fj_jit_request_text(const fj_jit_problem *problem, const fj_variant *variant,
                              const fj_allocator *allocator, fj_buf *out, fj_error *error);

/* ---- Objects ------------------------------------------------------------------------------------- */

typedef struct fj_jit fj_jit;

typedef struct fj_jit_desc {
    const fj_allocator *allocator;
    fj_cache *cache; /* outlives the jit */
    const fj_file_ops *ops;
    void (*log)(void *user, fj_log_level level, const char *message);
    void *log_user;
} fj_jit_desc;

fj_status fj_jit_create(const fj_jit_desc *desc, fj_jit **ret_jit);
/* All its objects were released. */
void fj_jit_destroy(fj_jit **jit);

typedef struct fj_object fj_object; /* a loaded code object, shared and counted */
const fj_code *fj_jit_object_code(const fj_object *object);

typedef struct fj_jit_info {
    bool cache_hit;
    double compile_ms; /* finding the compiler and compiling; 0 on a hit */
    double load_ms;    /* all the rest: rendering, looking up, reading, writing, loading */
} fj_jit_info;

/* FJ_ERR_NO_JIT, FJ_ERR_DEVICE (no compiler), FJ_ERR_COMPILER (messages in error->detail),
 * FJ_ERR_IO (no temporary files), FJ_ERR_MEMORY. */
fj_status fj_jit_prepare(fj_jit *jit, const fj_driver *driver, const fj_jit_problem *problem,
                         const fj_variant *variant, fj_object **ret_object, fj_jit_info *ret_info,
                         fj_error *error);
void fj_jit_release(fj_jit *jit, fj_object **object);

#endif
