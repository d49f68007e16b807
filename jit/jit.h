/* From problem and mod to a loaded code object.
 *
 *   features + problem -> fj_jit_variants    which kernels are legal, best first; no device, no work
 *   problem + variant  -> fj_jit_render      the kernel's whole text
 *   problem + variant  -> fj_jit_prepare     cache hit, or compile; load; shared within the process
 *   problem + features -> fj_jit_choose      the same, for the first variant that spills no registers
 *
 * Everything here may be called from any thread.
 */
#ifndef FJ_JIT_JIT_H
#define FJ_JIT_JIT_H

#include "cache/cache.h"
#include "driver/driver.h"
#include "expr/ir/ir.h"
#include "jit/resources.h"
#include "templates/host/gpu_launch.h"

/* ---- Features ----------------------------------------------------------------------------------- */

/* Instruction sets that templates know; each kernel is compiled for one. */
typedef enum fj_isa {
    FJ_ISA_PORTABLE, /* what the compiler does for any CPU of this architecture */
    FJ_ISA_AVX2,     /* AVX2, FMA, F16C, BMI2 */
    FJ_ISA_AVX512,   /* and AVX-512 F, BW, CD, DQ, VL */
    FJ_ISA_AVX512BF16,
    FJ_ISA_COUNT
} fj_isa;

/* A GPU architecture as its compilers name it: sm_80, sm_90a. number 0: none. */
typedef struct fj_arch {
    int number;  /* ten times the major compute capability, plus the minor one */
    char suffix; /* 'a' or 'f', or 0 */
} fj_arch;

#define FJ_ARCH_NAME 16
#define FJ_ARCH_OLDEST 75
#define FJ_ARCH_LIST 160

void fj_jit_arch_name(fj_arch arch, char name[FJ_ARCH_NAME]); /* "sm_90a" */
/* Takes "sm_90a", "90a" and "9.0". False: not the name of an architecture from FJ_ARCH_OLDEST on, or an invention: the
 * suffix a exists from sm_90 on, f from sm_100 on. */
bool fj_jit_arch_parse(const char *name, fj_arch *ret_arch);

/* "sm_75 sm_80 ..." */
void fj_jit_arch_list(char list[FJ_ARCH_LIST]);

typedef struct fj_features {
    bool isa[FJ_ISA_COUNT]; /* this CPU and its operating system run it */
    fj_arch arch;           /* of a GPU: then the rest is about it, and not about the CPU */
    bool emulated;          /* which is the emulator's */
    int multiprocessors;
    int shared_limit; /* bytes of dynamic shared memory that a block can have */
    /* Only records of tuning have these. */
    int cores;           /* processors of this machine that are online, also hardware threads; 0: not known */
    int64_t l1d, l2, l3; /* bytes of this CPU's caches, of the first core; 0: not known */
} fj_features;

fj_features fj_jit_features(void);
/* Those of any GPU of an architecture: a typical number of multiprocessors, the shared memory that all
 * have. */
fj_features fj_jit_arch_features(fj_arch arch);
const char *fj_jit_isa_name(fj_isa isa); /* "avx512bf16" */
bool fj_jit_isa_parse(const char *name, fj_isa *ret_isa);
/* Those of any CPU that has an instruction set: those before it are there too. */
fj_features fj_jit_isa_features(fj_isa isa);
#define FJ_JIT_CPU_NAME 49
void fj_jit_cpu_name(char name[FJ_JIT_CPU_NAME]); /* as its maker calls it; "" where that is not known */

/* ---- Problems and variants -------------------------------------------------------------------- */

typedef enum fj_jit_kind {
    FJ_JIT_FORWARD,
    FJ_JIT_BACKWARD,
    FJ_JIT_PEAK,
    FJ_JIT_MASK, /* what a mask is for blocks: F32 or F64, the arithmetic of its floats; cpu alone */
    FJ_JIT_KIND_COUNT
} fj_jit_kind;

/* What a kernel is specialised on. */
typedef struct fj_jit_problem {
    const fj_ir *ir;       /* NULL for a peak kernel */
    const fj_ir *gradient; /* NULL for forward */
    /* Of the epilogue and of the sink, gradients for backward alone; NULL: absent. */
    const fj_ir *out, *out_gradient, *sink, *sink_gradient;
    fj_jit_kind kind;
    fj_dtype dtype;
    int head_dim, value_dim;
    bool max;
    bool packed;      /* sequences of any lengths, one after the other; the cpu's kernels see one at a time */
    bool paged;       /* keys and values are in pages, some of which may not be there */
    bool q_offset;    /* the call brings positions of first queries; the cpu's kernels always take one */
    bool shared_keys; /* of backward kernels for a GPU: keys serve a batch, their gradients are the sums */
    bool block_mask;  /* the call brings one: it decides blocks, the mod's mask only what is partial */
    bool deterministic; /* of backward kernels for a GPU: the others always are */
    bool dropout;       /* the call brings a probability of dropout */
    bool tf32;          /* F32 products may be rounded to TF32; the cpu templates never do */
    /* Only for the order of the variants: kernels take any ratio and any lengths. */
    bool few_queries; /* as in decoding: fewer rows of queries than a tile has */
    int gqa;          /* query heads for each key head; 0: not known */
} fj_jit_problem;

/* Of kernels for a GPU: whether a sequence has a length or a position of its own. */
static inline bool fj_jit_has_sequences(const fj_jit_problem *problem) {
    return problem->packed || problem->paged || problem->q_offset;
}

typedef enum fj_target {
    FJ_TARGET_CPU,
    FJ_TARGET_CUDA,
    FJ_TARGET_EMU, /* the text of cuda, by the host's C++ compiler */
    FJ_TARGET_COUNT
} fj_target;
const char *fj_jit_target_name(fj_target target); /* "cuda" */

#define FJ_JIT_MAX_ENTRIES 9

#define FJ_JIT_VARIANT_NAME 96

/* Lives as long as the plan: no pointers but to static text. */
typedef struct fj_variant {
    char name[FJ_JIT_VARIANT_NAME]; /* spells every parameter: fwd_cpu_f32_e64_v64_m48_n256_avx512,
                      fwd_mma_bf16_e128_v128_m128_n64_s2_w4 */
    fj_target target;
    fj_isa isa;  /* cpu */
    bool direct; /* cpu, forward: also reads keys and values where they lie, for few queries (_direct) */
    int tile_m,
        tile_n; /* rows a block keeps, rows it takes at a time: queries and keys; cuda's fj_bwd_kv: keys, queries */
    /* cuda, emu */
    fj_arch arch;
    bool mma;        /* tensor cores; else the simt templates */
    bool pack_heads; /* rows of a tile are (query, head of a group) */
    int splits; /* forward: parts of the keys: 1: all at once; 0: as many as a launch finds best (_split), or so
                           many (_split4) */
    int room;   /* blocks of the first entry that the device holds at a time */
    bool wide_captures; /* a dimension of a capture may exceed 2^31 - 1 */
    bool one_copy;      /* partial and full blocks share the text of the score mod (_one) */
    int head_pad, value_pad;
    int stages, warps;
    int mod_chunks; /* of the loop over scores: the score mod stands in the text once a chunk (_t2, _t4, _t8) */
    int mask_unroll; /* columns an iteration of the mask's loop; 1: _roll, 4: _u4 */
    int entry_count; /* in the order in which they are launched */
    fj_entry entries[FJ_JIT_MAX_ENTRIES];
} fj_variant;

#define FJ_JIT_MAX_VARIANTS 64

/* Writes at most FJ_JIT_MAX_VARIANTS legal variants (of all: space.h), best first; returns how many, 0: unsupported. */
int fj_jit_variants(const fj_jit_problem *problem, const fj_features *features, fj_variant *ret_variants);
/* The same for a GPU (plan_cuda.c): fj_jit_variants calls it. */
int fj_jit_cuda_variants(const fj_jit_problem *problem, const fj_features *features,
                         fj_variant *ret_variants);
/* What its mod, and for backward the derivative, costs a thread of a GPU. */
static inline fj_ir_cost fj_jit_mod_cost(const fj_jit_problem *problem) {
    const fj_ir *ir = problem->gradient ? problem->gradient : problem->ir;
    return ir ? ir->cost : (fj_ir_cost){0};
}

/* Whether a mod may read badly, so that a forward kernel for a GPU notes where. */
static inline bool fj_jit_notes_faults(const fj_jit_problem *problem) {
    return problem->ir->fault != 0 || (problem->out && problem->out->fault != 0) ||
           (problem->sink && problem->sink->fault != 0);
}

/* Whether a backward kernel for a GPU adds to gradients of captured tensors and scalars: rows, by itself the mods of the
 * output and the sink, which take rows alone. */
static inline bool fj_jit_adds_rows(const fj_jit_problem *problem) {
    return (problem->out_gradient && problem->out_gradient->scatters.len > 0) ||
           (problem->sink_gradient && problem->sink_gradient->scatters.len > 0);
}
static inline bool fj_jit_adds_gradients(const fj_jit_problem *problem) {
    return (problem->gradient && problem->gradient->scatters.len > 0) || fj_jit_adds_rows(problem);
}

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

/* Files of templates/, in this order, each file that they include once in its place. Errors as fj_jit_render. */
fj_status fj_jit_render_parts(const char *const *names, size_t count, const fj_allocator *allocator,
                              fj_buf *out, fj_error *error);

/* The request as text: all that decides which kernel this is, except for emitters and compilers. */
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
    double compile_ms;  /* finding the compiler and compiling; 0 on a hit */
    double load_ms;     /* all the rest: rendering, looking up, reading, writing, loading */
    int resource_count; /* of cuda: what its compiler said of each entry */
    fj_resources resources[FJ_RESOURCES_MAX];
} fj_jit_info;

/* FJ_ERR_NO_JIT, FJ_ERR_DEVICE (no compiler), FJ_ERR_COMPILER (messages in error->detail),
 * FJ_ERR_IO (no temporary files), FJ_ERR_MEMORY. */
fj_status fj_jit_prepare(fj_jit *jit, const fj_driver *driver, const fj_jit_problem *problem,
                         const fj_variant *variant, fj_object **ret_object, fj_jit_info *ret_info,
                         fj_error *error);
void fj_jit_release(fj_jit *jit, fj_object **object);

/* Has the kernel in the cache without loading it, so for devices that are not here too. verify: a kernel
 * that no layer has is FJ_ERR_NO_JIT. FJ_ERR_IO when the cache cannot be written; else as fj_jit_prepare. */
fj_status fj_jit_build(fj_jit *jit, const fj_jit_problem *problem, const fj_variant *variant, bool verify,
                       fj_jit_info *ret_info, fj_error *error);

/* The bytes of a kernel that the cache has, such as one that was built. FJ_ERR_IO: it has it no more. */
fj_status fj_jit_payload(fj_jit *jit, const fj_jit_problem *problem, const fj_variant *variant, fj_buf *out,
                         fj_error *error);

typedef struct fj_jit_chosen {
    const fj_variant *variant; /* the one that was asked for, or lives as long as the jit */
    fj_object *object;         /* NULL without a driver */
    fj_jit_info info;          /* times are of all that was tried */
} fj_jit_chosen;

/* As fj_jit_prepare, without a driver as fj_jit_build, for a variant that was not named: where its kernel spills
 * registers (more than 32 bytes), the next ones of its family (the same template, of the variants of these features) are tried, and
 * the first that does not is taken, else the one that spills least. The cache remembers which. */
fj_status fj_jit_choose(fj_jit *jit, const fj_driver *driver, const fj_jit_problem *problem,
                        const fj_features *features, const fj_variant *variant, bool verify,
                        fj_jit_chosen *ret_chosen, fj_error *error);

#endif
