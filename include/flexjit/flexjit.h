/* flexjit: FlexAttention without Python.
 *
 * The core, which sdpa.h and nn.h build on. Compiles as C11 or newer and as C++, as they do.
 *
 * The way of one call:
 *
 *     fj_context -> fj_mod      parse and type the user's mods: of score, mask, output, sink
 *                -> fj_device   cpu, cuda, emu, reference...
 *     fj_plan    =  device + mod + problem: which variant; no compilation
 *     fj_kernel  =  a plan made ready: may compile, load and block
 *     fj_kernel_launch           no allocation, no compilation
 *
 * Conventions, unless a function says otherwise:
 *   - Functions return fj_status: FJ_OK is 0, errors are negative. Outputs named ret_x are untouched
 *     on failure. An fj_error may be NULL; it is filled on failure only.
 *   - Objects are reference counted. Who gets a ret_x object owns one reference and gives it back
 *     with the fj_..._unref function, which clears the pointer and takes NULL.
 *   - Mods, devices, plans and kernels are immutable once made: any thread may use them at any time.
 *     One fj_context may be used from many threads.
 *   - Descriptors begin with struct_size = sizeof(the struct); zero-initialise the rest. Of one that is larger than
 *     this version's, the fields that it does not know are not read.
 *   - Sizes are in bytes, lengths in elements, times in milliseconds.
 */
#ifndef FLEXJIT_H
#define FLEXJIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "flexjit/dlpack.h"

#ifdef __cplusplus
extern "C" {
#endif

#if defined(FJ_BUILDING) || defined(__GNUC__)
#define FJ_API __attribute__((visibility("default")))
#else
#define FJ_API
#endif

#if defined(__GNUC__)
#define FJ_NODISCARD __attribute__((warn_unused_result))
#else
#define FJ_NODISCARD
#endif

#define FJ_VERSION "0.1.0"
#define FJ_MAX_RANK 8

/* ---- Status and errors ------------------------------------------------------------------- */

typedef enum fj_status {
    FJ_OK = 0,
    FJ_ERR_MEMORY = -1,      /* an allocation failed, or memory that the caller gave is too small */
    FJ_ERR_ARGUMENT = -2,    /* the caller broke a rule of this header */
    FJ_ERR_MOD = -3,         /* the mod is wrong: located in fj_error */
    FJ_ERR_NAME = -4,        /* an unknown NAME in a parameter or a choice of mod */
    FJ_ERR_TENSOR = -5,      /* shapes, dtypes, strides or missing tensors */
    FJ_ERR_INDEX = -6,       /* a mod read outside a captured tensor, or divided an int by zero */
    FJ_ERR_UNSUPPORTED = -7, /* no variant of this device covers the problem */
    FJ_ERR_DEVICE = -8,      /* the device or its toolchain is not there */
    FJ_ERR_COMPILER = -9,    /* the compiler failed: its message is kept in fj_error */
    FJ_ERR_IO = -10,         /* a file could not be read or written */
    FJ_ERR_NO_JIT = -11,     /* FLEXJIT_NO_JIT is set and the cache has no such kernel */
} fj_status;

/* A failure, owned by the caller. line and column are 1-based, 0 when there is no place; column and
 * length count code points. text is one sentence, note a second line or empty. source_line is the
 * line of the mod that is at fault. detail, when not NULL, is a long text (a compiler's messages):
 * heap memory that fj_error_finish frees. */
typedef struct fj_error {
    fj_status status;
    int line;
    int column;
    int length;
    char file[256];
    char text[512];
    char note[512];
    char source_line[512];
    char *detail;
} fj_error;

/* Frees what the error holds and clears it. Takes NULL. */
FJ_API void fj_error_finish(fj_error *error);

/* Renders the error as the command line prints it (file:line:column: error: text, the source line,
 * a caret, the note), each line with its newline; at most size bytes with the terminating NUL. Returns the length of the
 * whole. */
FJ_API size_t fj_error_format(const fj_error *error, char *buffer, size_t size);

/* A text the library made; give it back with fj_text_finish. */
typedef struct fj_text {
    char *data; /* NUL-terminated */
    size_t length;
} fj_text;
FJ_API void fj_text_finish(fj_text *text);

/* ---- Context ----------------------------------------------------------------------------- */

typedef struct fj_context fj_context;

typedef enum fj_log_level {
    FJ_LOG_DEBUG,
    FJ_LOG_INFO,
    FJ_LOG_WARN,
    FJ_LOG_ERROR,
} fj_log_level;

typedef struct fj_context_desc {
    size_t struct_size;
    /* Resizes a block: new_size 0 frees and returns NULL, pointer NULL allocates, NULL is failure.
     * Called from any thread. NULL: the C library's. */
    void *(*resize)(void *user, void *pointer, size_t old_size, size_t new_size);
    void *allocator_user;
    /* Receives diagnostics of at least log_level; NULL: silence. Called from any thread. */
    void (*log)(void *user, fj_log_level level, const char *message);
    void *log_user;
    fj_log_level log_level;
    const char *cache_path; /* colon list, first is written; NULL: FLEXJIT_CACHE_PATH, else the user's */
    const char *tune_path;  /* the same of records of tuning; NULL: FLEXJIT_TUNE_PATH, else the user's */
} fj_context_desc;

/* desc may be NULL. */
FJ_NODISCARD FJ_API fj_status fj_context_create(const fj_context_desc *desc, fj_context **ret_context);
FJ_API void fj_context_unref(fj_context **context);
/* A message to the context's log, where it has one of this level: for rooms and programs above. Any thread. */
FJ_API void fj_context_log(const fj_context *context, fj_log_level level, const char *message);

/* ---- Data types -------------------------------------------------------------------------- */

typedef enum fj_dtype {
    FJ_DTYPE_BOOL,
    FJ_DTYPE_I8,
    FJ_DTYPE_U8,
    FJ_DTYPE_I16,
    FJ_DTYPE_I32,
    FJ_DTYPE_I64,
    FJ_DTYPE_F8_E4M3,
    FJ_DTYPE_F8_E5M2,
    FJ_DTYPE_F16,
    FJ_DTYPE_BF16,
    FJ_DTYPE_F32,
    FJ_DTYPE_F64,
    FJ_DTYPE_COUNT
} fj_dtype;

/* The name safetensors uses ("F32", "BF16", "BOOL", "F8_E4M3"...), and back: false if unknown. */
FJ_API const char *fj_dtype_name(fj_dtype dtype);
FJ_API bool fj_dtype_parse(const char *name, fj_dtype *ret_dtype);
FJ_API size_t fj_dtype_size(fj_dtype dtype);
FJ_API DLDataType fj_dtype_to_dlpack(fj_dtype dtype);
FJ_API bool fj_dtype_from_dlpack(DLDataType dlpack, fj_dtype *ret_dtype);

/* ---- Mods -------------------------------------------------------------------------------- */

typedef struct fj_mod fj_mod;

/* What the caller will bind to a captured tensor. dims[i] is -1 where it is not known yet. */
typedef struct fj_binding {
    const char *name;
    fj_dtype dtype;
    int rank;
    int64_t dims[FJ_MAX_RANK];
} fj_binding;

typedef struct fj_param {
    const char *name;
    const char *expression; /* text in the mod language */
} fj_param;

/* The source is a Python file (source, file), or expressions (score, mask), or both: an expression
 * wins over the file's mod of the same kind. Everything may be absent: identity, no mask. */
typedef struct fj_mod_desc {
    size_t struct_size;
    const char *source; /* UTF-8 text, any bytes; copied; NULL: none */
    size_t source_length;
    const char *file;      /* name for messages; NULL: "<mod>" */
    const char *score;     /* expression over score b h q kv; NULL: none */
    const char *mask;      /* expression over b h q kv; NULL: none */
    const char *score_mod; /* a name or a factory call of the file; NULL: chosen by LANGUAGE.md's rule */
    const char *mask_mod;
    const fj_param *params; /* replace module constants */
    size_t param_count;
    const char *const *runtime_params; /* constants that become run-time scalars */
    size_t runtime_param_count;
    const fj_binding *bindings;
    size_t binding_count;
    bool bindings_open; /* captures without a binding are no error yet (check without inputs) */
    /* An epilogue of the output, and a logit that joins each row's denominator; NULL, and no such function in the source: none. */
    const char *out; /* expression over out b h q d */
    const char
        *out_mod; /* a name or a factory call of the file; default: the function out_mod, where it has one */
    const char *sink;     /* expression over b h */
    const char *sink_mod; /* default: the function sink_mod */
    /* Captured tensors whose gradients are not wanted: none are derived, and backward is the faster for it. */
    const char *const *constants;
    size_t constant_count;
} fj_mod_desc;

/* Parses, evaluates at compile time, types and optimises. Errors: FJ_ERR_MOD with a place,
 * FJ_ERR_NAME, FJ_ERR_MEMORY. */
FJ_NODISCARD FJ_API fj_status fj_mod_create(fj_context *context, const fj_mod_desc *desc, fj_mod **ret_mod,
                                            fj_error *error);
FJ_API void fj_mod_unref(fj_mod **mod);

/* Where a mod comes from. Its text lives as long as the mod. */
typedef struct fj_mod_origin {
    const char *
        name; /* as it was chosen: "causal", "generate(8)", "<mask>" for an expression; NULL: there is none */
    int line; /* of its definition in the file, 1-based; 0: it is an expression, or built in */
    bool by_count; /* chosen by its number of parameters, neither by its name nor by the caller */
} fj_mod_origin;
FJ_API fj_mod_origin fj_mod_score_origin(const fj_mod *mod);
FJ_API fj_mod_origin fj_mod_mask_origin(const fj_mod *mod);
FJ_API fj_mod_origin fj_mod_out_origin(const fj_mod *mod);
FJ_API fj_mod_origin fj_mod_sink_origin(const fj_mod *mod);

/* A captured tensor or a run-time scalar that the mods reach. Names live as long as the mod. */
typedef struct fj_input_info {
    const char *name;
    bool is_scalar; /* a run-time scalar: rank 0, value passed in fj_args.scalars */
    bool is_float;  /* value type */
    bool gradient;  /* backward gives its gradient: a float that the score, out or sink mod reads */
    fj_dtype dtype; /* as bound; scalars: F64 or I64 */
    int rank;
    double value;      /* scalars: the value in the source, the default; of an int rounded to a double */
    int64_t int_value; /* int and bool scalars: the same, exact */
} fj_input_info;

/* Captured tensors first, then run-time scalars, each in order of first use. */
FJ_API size_t fj_mod_capture_count(const fj_mod *mod);
FJ_API size_t fj_mod_scalar_count(const fj_mod *mod);
FJ_API fj_input_info fj_mod_capture(const fj_mod *mod, size_t index);
FJ_API fj_input_info fj_mod_scalar(const fj_mod *mod, size_t index);

typedef enum fj_mask_tier {
    FJ_TIER_NONE,        /* no mask */
    FJ_TIER_RANGES,      /* block bounds in closed form, from interval analysis */
    FJ_TIER_BLOCKS,      /* block lists */
    FJ_TIER_ELEMENTWISE, /* evaluated at every position: no block is known to be empty or full */
} fj_mask_tier;
FJ_API fj_mask_tier fj_mod_mask_tier(const fj_mod *mod);
FJ_API const char *fj_mask_tier_name(fj_mask_tier tier);

/* What the compiler made of a mod, as text. stage: "ast", "ir", "grad", "rates", "ranges". */
FJ_NODISCARD FJ_API fj_status fj_mod_show(const fj_mod *mod, const char *stage, fj_text *ret_text,
                                          fj_error *error);

/* ---- Devices ----------------------------------------------------------------------------- */

typedef struct fj_device fj_device;

typedef enum fj_device_kind {
    FJ_DEVICE_CPU,       /* fused kernels, compiled by the host's C compiler, found at run time */
    FJ_DEVICE_REFERENCE, /* the definition in double, unfused */
    FJ_DEVICE_UNFUSED,   /* the definition in the inputs' dtype: products (but those beyond its range) and
                            probabilities rounded to it, sums in float32; the yardstick of --check */
    FJ_DEVICE_CUDA,      /* an NVIDIA GPU: that of the current CUDA context, else the first */
    FJ_DEVICE_EMU,       /* the text of CUDA kernels, compiled by the host's C++ compiler, run on the
                            CPU: what a GPU of sm_80 would compute, slowly */
    FJ_DEVICE_ROUNDING,  /* how far rounding moves each output, to first order: the standard deviation, if
                            every step is rounded once, inputs and probabilities to the inputs' dtype, sums to
                            float32 (F64: float64), without the rounding of the output itself. In the outputs'
                            place, forward and backward; for --check */
} fj_device_kind;

/* FJ_ERR_DEVICE says in one sentence what was looked for. */
FJ_NODISCARD FJ_API fj_status fj_device_create(fj_context *context, fj_device_kind kind,
                                               fj_device **ret_device, fj_error *error);
/* The device of an architecture, "sm_80", "sm_90a"... kind FJ_DEVICE_CUDA: a GPU that need not be here,
 * for plans and fj_plan_build; its kernels cannot be loaded. FJ_DEVICE_EMU: emulated, with kernels that
 * run. FJ_DEVICE_CPU: a CPU whose best instruction set is "avx512bf16", "avx512", "avx2" or "portable"; its kernels
 * run where this CPU has that set, and can be built elsewhere. FJ_ERR_NAME: no architecture that flexjit knows.
 * FJ_ERR_ARGUMENT: another kind. */
FJ_NODISCARD FJ_API fj_status fj_device_create_for_arch(fj_context *context, fj_device_kind kind,
                                                        const char *arch, fj_device **ret_device,
                                                        fj_error *error);
FJ_API void fj_device_unref(fj_device **device);
FJ_API const char *fj_device_name(const fj_device *device);
/* The context that it was made in; lives as long as the device. */
FJ_API fj_context *fj_device_context(const fj_device *device);
/* What DLTensor.device is of tensors that launches on this device take: kDLCUDA and the GPU's number
 * (kDLCUDAManaged, of any number, is taken too), else kDLCPU. */
FJ_API DLDevice fj_device_dlpack(const fj_device *device);

/* Peak of this device in FLOP/s, measured now on `workers` threads (about a quarter of a second): FMA for F32, F64
 * and F16, dot products for BF16 where the device has them. The peer for a share of the peak. */
FJ_NODISCARD FJ_API fj_status fj_device_peak(fj_device *device, fj_dtype dtype, int workers,
                                             double *ret_flops, fj_error *error);

/* Memory of a device, for programs that are not made with CUDA. Of a GPU on cuda, of the host elsewhere;
 * programs that have memory use their own. On cuda all of these use the current context of the GPU, else
 * its primary one, and a stream: a CUstream, NULL for the default one, as in fj_launch. Copies and fills
 * are put on it in order: the host's memory must stay as it is until fj_device_wait. Elsewhere they are
 * done when they return.
 * 256-byte aligned, not initialised; NULL for size 0. FJ_ERR_MEMORY says how much was asked for. */
FJ_NODISCARD FJ_API fj_status fj_device_alloc(const fj_device *device, size_t size, void **ret_memory,
                                              fj_error *error);
/* Clears the pointer, takes NULL. */
FJ_API void fj_device_free(const fj_device *device, void **memory);
FJ_NODISCARD FJ_API fj_status fj_device_upload(const fj_device *device, void *to, const void *from,
                                               size_t size, void *stream, fj_error *error);
FJ_NODISCARD FJ_API fj_status fj_device_download(const fj_device *device, void *to, const void *from,
                                                 size_t size, void *stream, fj_error *error);
FJ_NODISCARD FJ_API fj_status fj_device_fill(const fj_device *device, void *to, uint8_t byte, size_t size,
                                             void *stream, fj_error *error);
/* Returns when all that was put on the stream is done. FJ_ERR_DEVICE: something of it failed.
 * FJ_ERR_ARGUMENT while the stream is captured in a graph, which goes on. */
FJ_NODISCARD FJ_API fj_status fj_device_wait(const fj_device *device, void *stream, fj_error *error);

/* The time between two moments of a stream: on cuda by events, elsewhere by the clock. One thread at a
 * time uses a timer; it may be started and stopped again. */
typedef struct fj_timer fj_timer;
FJ_NODISCARD FJ_API fj_status fj_timer_create(fj_device *device, fj_timer **ret_timer, fj_error *error);
FJ_API void fj_timer_unref(fj_timer **timer);
FJ_NODISCARD FJ_API fj_status fj_timer_start(fj_timer *timer, void *stream, fj_error *error);
FJ_NODISCARD FJ_API fj_status fj_timer_stop(fj_timer *timer, void *stream, fj_error *error);
/* Waits until the stream has come to the stop. */
FJ_NODISCARD FJ_API fj_status fj_timer_read(const fj_timer *timer, double *ret_ms, fj_error *error);

/* ---- Plans and kernels ------------------------------------------------------------------- */

typedef enum fj_direction { FJ_FORWARD, FJ_BACKWARD } fj_direction;

/* How the tensors of a call hold its sequences: see fj_args. */
typedef enum fj_form {
    FJ_FORM_DENSE,  /* as many queries and keys in each batch */
    FJ_FORM_PACKED, /* sequences of any lengths, one after the other */
    FJ_FORM_PAGED,  /* keys and values in pages; forward only */
} fj_form;

/* A parameter of a kernel by value. Legal values depend on the problem, the device and each other: an error lists them, and
 * fj_plan_show's stage "plan" too.
 *
 *   tile_q, tile_kv   queries and keys of a tile: m and n of a variant's name, as in m128_n64. In backward on a GPU the pass for
 *                     dquery has tile_q queries and walks tile_kv keys, that for dkey and dvalue tile_q keys and tile_kv
 *                     queries
 *   isa               cpu: 0 portable, 1 avx2, 2 avx512, 3 avx512bf16
 *   direct            cpu, forward: 1: units of few rows read keys and values where they lie, instead of packing them first;
 *                     the default where few_queries is set. The results are the same bits
 *   splits            cuda and emu, forward: parts of the keys that blocks take apart, merged by a second kernel: 1, a power of
 *                     two up to 64, or 0, the default where few_queries is set: as many as fill the device, by the shapes of
 *                     each launch (fj_kernel_splits). Those of the cpu split keys by themselves: 1
 *
 * and for cuda and emu
 *
 *   stages            tiles that are in shared memory at a time
 *   warps             of a block
 *   pack              1: rows of a tile are queries of all heads of a group, for few queries; forward
 *   wide              1: dimensions of captured tensors may exceed 2^31 - 1
 *   mod_chunks        the loop over a thread's scores is unrolled to one part in 1, 2, 4 or 8
 *   mask_unroll       columns of a thread that an iteration of the mask's loop takes: 1, 2, 4
 *   one_copy          1: full blocks and partial ones share the text of the score mod */
typedef struct fj_option {
    const char *name;
    int64_t value;
} fj_option;

/* What a kernel is specialised on. Batch, heads and lengths are not: a change of length never recompiles. */
typedef struct fj_problem {
    size_t struct_size;
    fj_direction direction;
    fj_dtype dtype; /* of query, key, value, out and their gradients: F16 BF16 F32 F64 */
    int head_dim;   /* E, 1 to 256 */
    int value_dim;  /* Ev, 1 to 256 */
    bool max;       /* forward also writes the row maximum */
    bool dlse;      /* backward also takes the gradient of lse */
    /* Results may depend on the order of threads. GPU kernels then add up some gradients by float atomics, which take
     * subnormal addends and sums as 0. */
    bool nondeterministic;
    bool tf32;           /* F32 products may be rounded to TF32 */
    const char *variant; /* a variant's name; NULL: the plan chooses */
    /* What the plan is to suit; a kernel takes other shapes as well. */
    int gqa; /* query heads for each key head; 0: any */
    /* Lengths of a few queries, as in decoding: with it kernels are made that are quick there. */
    bool few_queries;
    bool block_mask; /* each call brings a block mask */
    fj_form form;
    bool q_offset; /* each call brings the positions of its first queries */
    /* Backward, of dense calls: key and value have a batch of 1, whatever query's is. Kernels for a GPU have to know; others may be called
     * so without it. */
    bool shared_keys;
    /* A choice among the variants in place of the plan's, that of `variant` excluded: a family of kernels, "simt" or "mma"
     * (cuda and emu; NULL: any), and values of parameters, each at most once. Of what has these values the plan takes the
     * first that it lists, if it is of the default's family, else what is nearest to the default. Copied. */
    const char *kernel;
    const fj_option *options;
    size_t option_count;
    /* What calls are like, only for the choice among tuned variants; 0: not known. */
    int64_t batch_heads, q_len, kv_len; /* batch_heads: batch times heads of queries */
    bool untuned;                       /* records of tuning are not asked */
    bool dropout;                       /* each call gives a probability of dropout, which may be 0 */
} fj_problem;

typedef struct fj_block_mask fj_block_mask; /* see below, "Block masks" */
typedef struct fj_plan fj_plan;
typedef struct fj_kernel fj_kernel;

/* No compilation, no device work. FJ_ERR_UNSUPPORTED when no variant is legal, has the kernel and the options asked for (the
 * note lists the values that are legal beside the others) or, on cuda and emu, when the captured tensors and scalars are
 * more than a kernel's parameters can hold; FJ_ERR_NAME for an unknown variant, kernel or option (the note lists what there
 * is); FJ_ERR_ARGUMENT for an option that is given twice, or beside a variant. The mod must have all its captures bound. */
FJ_NODISCARD FJ_API fj_status fj_plan_create(fj_device *device, const fj_mod *mod, const fj_problem *problem,
                                             fj_plan **ret_plan, fj_error *error);
FJ_API void fj_plan_unref(fj_plan **plan);
FJ_API const char *fj_plan_variant(const fj_plan *plan);
/* Why that one: "variant" or "options" where the caller asked for it, "tuning record FILE:LINE (exact)" (see "Tuning"), or
 * "default". Lives as long as the plan. */
FJ_API const char *fj_plan_decision(const fj_plan *plan);
/* How the plan's kernels find the blocks that they compute: blocks with a block mask, else fj_mod_mask_tier; but on cpu ranges also
 * where the mask compares what captured tensors hold, as documents do: there their minima and maxima are looked up in a launch. */
FJ_API fj_mask_tier fj_plan_mask_tier(const fj_plan *plan);
/* Every variant that is legal for the plan's problem and device, whatever it was asked for: {"schema":1, "variants":[{"variant":NAME,
 * "parameters":{"kernel":"mma", "tile_q":128, ...}, "shared_bytes", "listed"}]}. First those that the plan lists, best first,
 * the default being the first; then all others. Any name of them is legal as fj_problem.variant. parameters: as fj_option,
 * and of cuda and emu the kernel, of cpu the isa by name; shared_bytes: of a block. To give back with fj_text_finish.
 * FJ_ERR_MEMORY. */
FJ_NODISCARD FJ_API fj_status fj_plan_variants(const fj_plan *plan, fj_text *ret_json, fj_error *error);
/* stage: "prologue", "source" (the whole kernel text), "plan", "key". */
FJ_NODISCARD FJ_API fj_status fj_plan_show(const fj_plan *plan, const char *stage, fj_text *ret_text,
                                           fj_error *error);

/* Finds the kernel in the cache or compiles it. May block for as long as a compiler runs. On cuda it is
 * made resident in the context that is current, else in the GPU's primary one; it is launched there. */
FJ_NODISCARD FJ_API fj_status fj_kernel_create(const fj_plan *plan, fj_kernel **ret_kernel, fj_error *error);
FJ_API void fj_kernel_unref(fj_kernel **kernel);

typedef struct fj_kernel_info {
    const char
        *variant; /* the plan's; but where the plan chose it on cuda and its kernel spills registers, the
                            next that does not, or the one that spills least */
    bool cache_hit;
    double compile_ms; /* 0 on a hit */
    double load_ms;
    int registers;        /* of a thread; this and the next two: cuda, the most of its entry points, else 0 */
    int spill_bytes;      /* registers that did not fit, of a thread */
    int shared_bytes;     /* of a block */
    const char *decision; /* as fj_plan_decision; "default" where a tuned variant's kernel could not be had */
} fj_kernel_info;
FJ_API fj_kernel_info fj_kernel_describe(const fj_kernel *kernel);

/* Has the plan's kernel in the cache, compiling it if no layer has it; loads nothing, needs no device.
 * verify: compiles nothing; FJ_ERR_NO_JIT when no layer has it. FJ_ERR_IO: the cache cannot be written.
 * ret_info's variant lives as long as the plan. Threads may build at the same time. */
FJ_NODISCARD FJ_API fj_status fj_plan_build(const fj_plan *plan, bool verify, fj_kernel_info *ret_info,
                                            fj_error *error);

/* The plan's kernel as a pair of C files, NAME.h and NAME.c, for programs that ship neither flexjit nor a compiler. NAME, an
 * identifier of C, begins the name of each of their functions, which NAME.h documents; all else in NAME.c is static. They compile
 * as C11 with GCC or Clang, the header as C++ too. Of a cpu's plan they have the kernel's text, with pragmas for its instruction
 * set, and need libm, and OpenMP for more than one thread (compile with -O2); of cuda's they have the cubin, found or compiled as
 * by fj_plan_build, and need cuda.h and libcuda of CUDA 12 or newer. The same plan and name give the same bytes, as long as the
 * kernel's are the same. What they compute has the bits of fj_kernel_launch.
 * FJ_ERR_UNSUPPORTED: packed, paged, q_offset, block_mask, shared_keys and dropout are not covered, nor sinks, mods of the output
 * and mods that require something of extents or run-time scalars which only a launch shows, nor the emu and reference devices. FJ_ERR_ARGUMENT: not an
 * identifier. Else as fj_plan_build. Both texts are given back with fj_text_finish. Threads may emit at the same time. */
FJ_NODISCARD FJ_API fj_status fj_plan_emit_c(const fj_plan *plan, const char *name, fj_text *ret_header,
                                             fj_text *ret_source, fj_error *error);

typedef union fj_scalar {
    double f;  /* float scalars */
    int64_t i; /* int and bool scalars */
} fj_scalar;

/* Tensors of one call; all stay the caller's. Strides NULL means packed; otherwise any, in elements,
 * with a unit last stride where the last extent is above 1. B batch, Hq and Hkv heads (Hq a multiple
 * of Hkv), L and S lengths, any from 0 up.
 *
 *   query [B,Hq,L,E]  key [B,Hkv,S,E]  value [B,Hkv,S,Ev]   dtype of the problem
 *   out [B,Hq,L,Ev]   lse [B,Hq,L] natural logarithm, -inf for a fully masked row   max [B,Hq,L]
 *   dout as out       dlse as lse
 *   dquery, dkey, dvalue as query, key, value
 *
 * The data of all of them is memory of the device: see fj_device_dlpack.
 * lse, max, dlse and the gradients of captures are F32, or F64 for F64 inputs. Forward writes out,
 * lse and max; where out is NULL it is not computed, nor is the mod of the output then, and lse is the same: on cpu
 * without reading values. Backward reads out and lse as forward gave them and writes dquery, dkey, dvalue,
 * dcaptures and dscalars, fully, whatever they held. The reference device also takes F64 outputs
 * (and F64 out, lse, dout, dlse) for any input dtype.
 * lse_low [B,Hq,L], as lse, optional: what rounding took from lse, so that lse + lse_low is the logarithm to twice
 * the precision. Forward writes it, backward reads it. A probability of backward is exp(score - lse): without
 * lse_low its relative error is |lse| * 6e-8 in F32 (1e-16 in F64), nothing at |lse| of 10 and all of it at 1e8.
 *
 * What a query does not see (a masked pair, a key that no query sees, whatever lies between the elements of a
 * strided tensor) contributes exactly 0, whatever query, key, value, dout and captures hold there: each element
 * of a result has the bits that zeros there would give, NaN and infinities included. A query that sees nothing,
 * or only scores of -inf, is dead: out 0, lse -inf, and exactly 0 to every gradient, whatever its query and dout
 * are. A score that is seen and NaN or +inf makes its whole query NaN: out, lse, its dquery, and what the keys
 * that it sees get from it; other values that are not finite come out as the definition has them, NaN and
 * infinities not told apart.
 *
 * block_mask, with a problem that has one: what is seen is what lies in its full blocks, and in its partial ones what the
 * mod's mask shows; the mod's mask is not asked elsewhere (but a bad read in it is reported wherever something is seen).
 * Made for these lengths, and for this batch and these heads of queries or for 1; it has to stay until the launch is over.
 * Kernels for cuda and emu take one that fj_block_mask_copy_to made for their device, others any.
 *
 * key and value with a batch of 1 serve every batch of query; then dkey and dvalue have a batch of 1 too, and are the sums
 * over the batch. Gradients may be NULL: those are not computed. Elements of different indices of an output may not overlap.
 *
 * Packed (FJ_FORM_PACKED): sequence b has rows cu_seqlens_q[b] to cu_seqlens_q[b + 1] of query, and those of cu_seqlens_kv
 * of key and value. Lengths may be 0 and differ between queries and keys. A mod sees b, and positions within its sequence: it
 * reads a table that is packed likewise at table[cu_seqlens_q[b] + q], with cu_seqlens_q captured. No block masks.
 *
 *   query [Tq,Hq,E]  key [Tk,Hkv,E]  value [Tk,Hkv,Ev]  out [Tq,Hq,Ev]  lse, max, lse_low, dlse [Hq,Tq]
 *   dout as out      dquery, dkey, dvalue as query, key, value
 *   cu_seqlens_q, cu_seqlens_kv [B+1] I32: from 0, never less than before, to Tq and Tk
 *
 * Paged (FJ_FORM_PAGED): key j of sequence b is row j % P of page page_table[b, j / P] of key and value, a mod sees j. What
 * is on a page of -1 is hidden, whatever the mod's mask shows; so is what follows kv_lens[b]. Entries of the table behind
 * that are not read. A block mask is made for M * P keys.
 *
 *   query [B,Hq,L,E]  key [N,P,Hkv,E]  value [N,P,Hkv,Ev], any strides (so [N,Hkv,P,E] too)
 *   page_table [B,M] I32: pages from 0 to N - 1, or -1    kv_lens [B] I32: 0 to M * P
 *
 * q_offset [B] I32, with a problem that has it, in any form: the position of a sequence's first query, 0 or more. A mod sees
 * q_offset[b] + i for the query at index i; block masks count indices.
 *
 * These five are memory of the device. On cpu, emu and reference devices their values are checked (FJ_ERR_TENSOR), and
 * fj_kernel_workspace and fj_kernel_blocks read those of cu_seqlens and kv_lens: other lengths, another size.
 *
 * The mod's sink, a natural logit for each batch and head, joins the denominator of each row: P = exp(s) / (exp(sink) +
 * sum of exp(s)), lse is the logarithm of that denominator, and a row that sees nothing has lse = sink, out 0 (a sink of -inf
 * is none; with one of NaN or +inf each lse is NaN, and rows that see something are NaN altogether). max is that of the scores
 * alone.
 *
 * The mod's out is applied to each element of the output in the arithmetic of scores, before it is rounded:
 * out = out_mod(o, b, h, q, d), o the attention, 0 for a row that sees nothing. Its derivative needs o: forward writes
 * out_raw, as out, where it is not NULL, and backward reads it, in place of out, which it does not read with such a mod. What
 * the mod reads gets its gradient of rows that see nothing too.
 *
 * dropout, with a problem that has it: each probability is dropped with this chance, 0 to 1, the others are divided by
 * 1 - dropout; lse is that before. Which ones is a function of seed, offset and the position (b, h, q, kv) that a mod sees
 * (fj_dropout_mask): the same for every device, kernel and direction. Where one is dropped, what value and dout hold there
 * contributes exactly 0 to out, dvalue and the gradient of that score; with a dropout of 1 out is 0, and only dlse flows back.
 * dropout_state, I64 [2] of the device's memory, replaces dropout_seed and dropout_offset where it is not NULL: it is read when
 * the kernel runs, so that each replay of a captured graph may have another.
 *
 * captures, dcaptures: in the order of fj_mod_capture; dcaptures[i] has the capture's shape, NULL
 * where the gradient is not wanted or does not exist. scalars, dscalars (rank 0) likewise. */
typedef struct fj_args {
    size_t struct_size;
    const DLTensor *query, *key, *value;
    const DLTensor *out, *lse, *max;
    const DLTensor *dout, *dlse;
    const DLTensor *dquery, *dkey, *dvalue;
    const DLTensor *const *captures;
    const DLTensor *const *dcaptures;
    const fj_scalar *scalars;
    const DLTensor *const *dscalars;
    /* Any sign; callers usually give 1/sqrt(E). 0, or a magnitude from 2^-126 to 2^126, for F64 up to
     * 2^1022; else FJ_ERR_ARGUMENT. */
    double scale;
    const DLTensor *lse_low; /* NULL: absent */
    const fj_block_mask *block_mask;
    const DLTensor *cu_seqlens_q, *cu_seqlens_kv; /* FJ_FORM_PACKED */
    const DLTensor *page_table, *kv_lens;         /* FJ_FORM_PAGED */
    const DLTensor *q_offset;
    const DLTensor *out_raw;
    double dropout;
    uint64_t dropout_seed, dropout_offset;
    const DLTensor *dropout_state;
} fj_args;

/* Writes which probabilities a call keeps: BOOL [B,Hq,L,S], any strides, in the host's memory; true is kept. Philox 4x32-10
 * (Salmon et al. 2011), u = word (kv / 16) % 4 of counter {kv / 64 * 16 + kv % 16, q, low and high half of b * Hq + h} under the
 * key that the first two words of counter {offset low, offset high, 0, 0} under key {seed low, seed high} make; kept where
 * u >= dropout * 2^32. Any thread. FJ_ERR_TENSOR; FJ_ERR_ARGUMENT: dropout is not in 0 to 1. */
FJ_NODISCARD FJ_API fj_status fj_dropout_mask(double dropout, uint64_t seed, uint64_t offset,
                                              const DLTensor *keep, fj_error *error);

/* Runs fn(arg, item, worker) for every item in [0, items), in any order, each exactly once, and
 * returns when all are done. worker is in [0, workers) and no two concurrent calls share one. */
typedef struct fj_executor {
    void *user;
    int workers;
    void (*run)(void *user, int64_t items, void (*fn)(void *arg, int64_t item, int worker), void *arg);
} fj_executor;

/* How a launch runs. NULL anywhere: OpenMP with its default number of threads, the default stream.
 *
 * fork: the threads of OpenMP do not exist in the child, whose OpenMP waits for them for ever. A child of a process that
 * launched before may launch all the same: there each launch has threads of its own, or none with workers = 1 or an
 * executor, which never enter OpenMP. Where the parent used OpenMP without flexjit before, only these two are safe.
 * Fork while no other thread is inside a function of this header. A GPU (cuda) is of no use in the child once the
 * parent opened it: that is a rule of its driver. */
typedef struct fj_launch {
    size_t struct_size;
    const fj_executor *executor; /* NULL: OpenMP */
    int workers;                 /* threads when executor is NULL; 0: OpenMP's default */
    void *stream;                /* cuda: a CUstream, NULL: the default one */
} fj_launch;

/* Bytes of workspace, memory of the device, that a launch with these shapes and workers needs; pointers
 * are not followed. FJ_ERR_UNSUPPORTED: shapes that no grid of a GPU covers. */
FJ_NODISCARD FJ_API fj_status fj_kernel_workspace(const fj_kernel *kernel, const fj_args *args,
                                                  const fj_launch *launch, size_t *ret_size, fj_error *error);

/* Validates the tensors and runs. workspace: 256-byte aligned, need not be initialised. On
 * FJ_ERR_INDEX (a bad read in a mod) the outputs are unspecified; on any other error untouched. Bad
 * reads are reported by forward; backward reads 0 there.
 * On cuda it puts kernels on the stream and returns: it allocates nothing, waits for nothing, loads and
 * compiles nothing, and so can be captured in a graph. The workspace and the tensors' data must stay until
 * they are done; bad reads are told by fj_kernel_check, other failures of running kernels by whoever waits.
 * FJ_ERR_ARGUMENT when the current context or that of the stream is not the kernel's: then nothing is put
 * on the stream, and a capture goes on. Green contexts count as their primary one, with a driver of CUDA
 * 12.5 or newer: a stream of one runs the kernel on its SMs. FJ_ERR_UNSUPPORTED as fj_kernel_workspace. */
FJ_NODISCARD FJ_API fj_status fj_kernel_launch(const fj_kernel *kernel, const fj_args *args,
                                               const fj_launch *launch, void *workspace,
                                               size_t workspace_size, fj_error *error);

/* Waits for the stream, then says how the last launch of this kernel with these arguments and this
 * workspace ended: FJ_ERR_INDEX after a bad read in a mod, FJ_ERR_DEVICE when a kernel failed. FJ_OK on
 * devices other than cuda, where launches report themselves. Not during a capture. */
FJ_NODISCARD FJ_API fj_status fj_kernel_check(const fj_kernel *kernel, const fj_args *args,
                                              const fj_launch *launch, void *workspace, size_t workspace_size,
                                              fj_error *error);

/* Keeps a call in files of a folder, which is made when missing, so that it can be run and tuned elsewhere:
 *
 *   NAME.safetensors   the tensors, as `flexjit run --input` reads them: q, k, v, do, captures, cu_seqlens_q ...
 *   NAME.mask.safetensors   the block mask, where there is one, as --block-mask reads it
 *   NAME.py            the mod's source, where it has one
 *   NAME.json          a manifest of one problem, as `flexjit prebuild` and `tune` read it, with run-time scalars as they are
 *
 * NAME is made of mod, problem, scale and shapes: a call that differs from a kept one in values of tensors alone is not written
 * again. ret_file, which may be NULL, is the path of the manifest. Results need not be there yet; on cuda the stream is waited for.
 * Any thread. FJ_ERR_IO, and errors of fj_kernel_launch.
 *
 * Without a change to the program: with FLEXJIT_CAPTURE set to a pattern of * and ? when a context is made, each launch of a
 * variant whose name matches is kept so, in FLEXJIT_CAPTURE_DIR (by default the current folder), before it runs. What cannot be
 * written is a warning. */
FJ_NODISCARD FJ_API fj_status fj_kernel_capture(const fj_kernel *kernel, const fj_args *args,
                                                const fj_launch *launch, const char *folder,
                                                fj_text *ret_file, fj_error *error);

/* Blocks that the kernel's analysis finds full, partial and empty for these lengths, and the scores (pairs of query and key)
 * that the mask leaves: what FLOPs are counted of. All heads and batches together.
 *
 * Scores in partial blocks are found by evaluating the mask: on the cpu device at all of their elements up to 2^29 of them (one
 * head of 16k x 16k that no analysis decides), which takes a second at most; beyond, and on other devices beyond 2^23, in an even
 * choice of rows that stands for the others. Never more than full and partial blocks hold.
 * Data of captured tensors that the mask reads is read, on a GPU after what its default stream was given. */
typedef struct fj_block_counts {
    int64_t full, partial, empty;
    int64_t scores;
} fj_block_counts;
FJ_NODISCARD FJ_API fj_status fj_kernel_blocks(const fj_kernel *kernel, const fj_args *args,
                                               fj_block_counts *ret_counts, fj_error *error);
/* Parts that a launch of a kernel for a GPU cuts the keys into, by the shapes of args: 1 for kernels that do not (see fj_option,
 * "splits"), and on other devices. Parts have as many blocks with work, but for one. */
FJ_NODISCARD FJ_API fj_status fj_kernel_splits(const fj_kernel *kernel, const fj_args *args,
                                               int64_t *ret_splits, fj_error *error);

/* ---- Block masks ------------------------------------------------------------------------- */

/* What a mask is for blocks of queries and keys: empty (nothing is seen), full (all is), or partial. Kept as runs of
 * blocks, never as an array of queries by keys; for each batch and head, or once where these are alike.
 *
 *   - Empty and full are proofs: a block that is called so is so, for the captured tensors that the mask was made from. One
 *     that is called partial may be empty or full. Blocks at the ends of the lengths count for what they have.
 *   - A mask does not follow its tensors: who changes them makes another one.
 *   - Masks are immutable: any thread may use them at any time, and keep them for as many calls and layers as it likes.
 *   - Batch or heads of 1 stand for any number (broadcast).
 *   - Lengths are below 2^31; blocks have 1 to 2^30 queries and keys. */

FJ_API void fj_block_mask_unref(fj_block_mask **mask);

typedef struct fj_block_mask_info {
    int64_t batch, heads, q_len, kv_len, block_q, block_kv;
    int64_t q_blocks, kv_blocks;  /* along each axis */
    int64_t full, partial, empty; /* over all batches and heads */
    int64_t undecided;        /* of those: whose elements had to be looked at when it was made from a mod */
    double sparsity;          /* percent of the blocks that are empty */
    size_t bytes;             /* of memory that the mask has */
    bool one_batch, one_head; /* all batches, all heads are alike, and kept once */
} fj_block_mask_info;
FJ_API fj_block_mask_info fj_block_mask_describe(const fj_block_mask *mask);

/* Whether the mask fits tensors of these extents: FJ_ERR_TENSOR says what it was made for. */
FJ_NODISCARD FJ_API fj_status fj_block_mask_check(const fj_block_mask *mask, int64_t batch, int64_t heads,
                                                  int64_t q_len, int64_t kv_len, fj_error *error);

/* What makes block masks of a mod: the mod's mask as code that tells by intervals, with minima and maxima of the captured
 * tensors, what large areas are, and looks at the elements only of blocks that remain. */
typedef struct fj_mask_maker fj_mask_maker;

/* Finds the code in the cache or compiles it: may block for as long as a compiler runs; nothing of it depends on lengths,
 * block sizes or values. dtype is that of the kernels that the masks are for: the mask's floats are doubles for F64, else
 * float32. Only captures that the mask reads have to be bound. FJ_ERR_UNSUPPORTED: the device is not cpu, whose memory
 * masks and captures are in; FJ_ERR_MOD, and what fj_kernel_create gives. */
FJ_NODISCARD FJ_API fj_status fj_mask_maker_create(fj_device *device, const fj_mod *mod, fj_dtype dtype,
                                                   fj_mask_maker **ret_maker, fj_error *error);
FJ_API void fj_mask_maker_unref(fj_mask_maker **maker);
/* variant is "" where the mod has no mask, so that there is no code. */
FJ_API fj_kernel_info fj_mask_maker_describe(const fj_mask_maker *maker);

typedef struct fj_mask_args {
    size_t struct_size;
    int64_t batch, heads, q_len, kv_len; /* heads: of queries */
    int64_t block_q, block_kv;           /* 0: 64 */
    const DLTensor *const *captures;     /* as in fj_args; what the mask does not read may be NULL */
    const fj_scalar *scalars;
} fj_mask_args;

/* Makes a block mask, on threads as launch says (NULL: OpenMP). Batches and heads that the mask does not tell apart are kept
 * once. A mod without a mask gives full blocks. All partial blocks are partial: of each one something is seen and
 * something hidden. FJ_ERR_INDEX: a bad read at a position that is seen; FJ_ERR_TENSOR, FJ_ERR_ARGUMENT, FJ_ERR_MEMORY. */
FJ_NODISCARD FJ_API fj_status fj_block_mask_make(const fj_mask_maker *maker, const fj_mask_args *args,
                                                 const fj_launch *launch, fj_block_mask **ret_mask,
                                                 fj_error *error);

/* From a dense mask, BOOL [B,H,L,S] in the host's memory, any strides: 0 stands for batches or heads that are alike.
 * block_q, block_kv: 0 for 64. FJ_ERR_TENSOR, FJ_ERR_ARGUMENT, FJ_ERR_MEMORY. */
FJ_NODISCARD FJ_API fj_status fj_block_mask_from_dense(fj_context *context, const DLTensor *dense,
                                                       int64_t block_q, int64_t block_kv,
                                                       fj_block_mask **ret_mask, fj_error *error);

/* PyTorch's BlockMask as tensors of I32 (I64 is read too) in the host's memory, any strides. Row r of kv_indices lists, in
 * any order, the kv_num_blocks[r] key blocks that are partial for query block r, that of full_kv_indices the full ones; what
 * follows in a row is ignored. Qb = ceil(q_len / block_q), KVb = ceil(kv_len / block_kv).
 *
 *   kv_num_blocks, full_kv_num_blocks [B,H,Qb]     kv_indices, full_kv_indices [B,H,Qb,any]
 *   q_num_blocks, full_q_num_blocks [B,H,KVb]      q_indices, full_q_indices [B,H,KVb,any]: the same by key block
 *
 * Pairs may be NULL: full ones, and transposes. */
typedef struct fj_block_lists {
    size_t struct_size;
    const DLTensor *kv_num_blocks, *kv_indices, *full_kv_num_blocks, *full_kv_indices;
    const DLTensor *q_num_blocks, *q_indices, *full_q_num_blocks, *full_q_indices;
    int64_t block_q, block_kv; /* 0: 128, as PyTorch has it */
    int64_t q_len, kv_len;     /* -1: as many as the blocks of the lists have */
} fj_block_lists;

/* FJ_ERR_TENSOR names the list, the row and what is wrong: a count or index out of range, a block listed twice or as
 * partial and full, transposes that say something else. */
FJ_NODISCARD FJ_API fj_status fj_block_mask_from_lists(fj_context *context, const fj_block_lists *lists,
                                                       fj_block_mask **ret_mask, fj_error *error);
/* Writes the tensors that are not NULL, of the mask's batch and heads; rows of indices have KVb (Qb) entries: first the
 * blocks of the list, then the others, each in ascending order, as create_block_mask has them. block_q to kv_len are not
 * read. */
FJ_NODISCARD FJ_API fj_status fj_block_mask_to_lists(const fj_block_mask *mask, const fj_block_lists *lists,
                                                     fj_error *error);

/* Writes [B,H,Qb,KVb], any strides: U8 0 empty, 1 partial, 2 full; BOOL false empty. */
FJ_NODISCARD FJ_API fj_status fj_block_mask_to_dense(const fj_block_mask *mask, const DLTensor *classes,
                                                     fj_error *error);

/* New masks from old ones of equal lengths and blocks; batch and heads are equal or 1. A partial block of both makes a
 * partial one, though it may be empty or full: the mod that goes with the result combines the mods alike (and_masks,
 * or_masks). FJ_ERR_TENSOR says what differs; FJ_ERR_MEMORY. */
FJ_NODISCARD FJ_API fj_status fj_block_mask_and(const fj_block_mask *a, const fj_block_mask *b,
                                                fj_block_mask **ret_mask, fj_error *error);
FJ_NODISCARD FJ_API fj_status fj_block_mask_or(const fj_block_mask *a, const fj_block_mask *b,
                                               fj_block_mask **ret_mask, fj_error *error);
FJ_NODISCARD FJ_API fj_status fj_block_mask_not(const fj_block_mask *mask, fj_block_mask **ret_mask,
                                                fj_error *error);

/* Batches, heads and query blocks [first, last) of a mask, such as one step of decoding; of batches and heads that stand
 * for any number any range may be taken. The mod that goes with it sees positions from 0: it adds what was cut off in
 * front. FJ_ERR_ARGUMENT: a range that the mask does not have. */
FJ_NODISCARD FJ_API fj_status fj_block_mask_slice(const fj_block_mask *mask, const int64_t batches[2],
                                                  const int64_t heads[2], const int64_t q_blocks[2],
                                                  fj_block_mask **ret_mask, fj_error *error);
/* The first q_len queries and kv_len keys. FJ_ERR_ARGUMENT: the mask has fewer. */
FJ_NODISCARD FJ_API fj_status fj_block_mask_crop(const fj_block_mask *mask, int64_t q_len, int64_t kv_len,
                                                 fj_block_mask **ret_mask, fj_error *error);

/* The same mask where the kernels of a device read it: a launch on cuda or emu takes only such a one, of a device of its kind
 * and ordinal. It is a mask as any other, and shares the host's lists with the first one, which may be let go before it; on
 * cuda it has 16 bytes a row and column of blocks and 8 a run of the device's memory, in the context that is current, and
 * this waits until they are there: as fj_kernel_create, not while a stream is captured. FJ_ERR_MEMORY, FJ_ERR_DEVICE. */
FJ_NODISCARD FJ_API fj_status fj_block_mask_copy_to(fj_device *device, const fj_block_mask *mask,
                                                    fj_block_mask **ret_mask, fj_error *error);

/* Pictures of at most `width` by `height` cells a plane (0: 64 by 64 for text, 512 by 512 for SVG), queries down and keys
 * across; blocks share a cell where they are more. Text is UTF-8, a line for each row of cells: blocks that are full,
 * shaded where partial or mixed, dots where empty. Planes that are alike are drawn once, 16 at most. */
FJ_NODISCARD FJ_API fj_status fj_block_mask_text(const fj_block_mask *mask, int width, int height,
                                                 fj_text *ret_text, fj_error *error);
FJ_NODISCARD FJ_API fj_status fj_block_mask_svg(const fj_block_mask *mask, const char *title, int width,
                                                int height, fj_text *ret_text, fj_error *error);

/* ---- Cache ------------------------------------------------------------------------------- */

/* The kernel cache of a context: folders of entries in layers, the first of which is written. An entry is
 * a kernel, under a key made of its text, options and compiler, or a selection record, under a key made of
 * what was asked for, which names a kernel. Keys are 32 hexadecimal digits.
 *
 * Reports are JSON text with a "schema", to give back with fj_text_finish; keys may be added to them. What
 * is damaged in the cache is part of a report, never an error. FJ_ERR_MEMORY always, other errors as named. */

/* Which kernels; NULL or a field of NULL: all. */
typedef struct fj_cache_filter {
    size_t struct_size;
    const char *variant; /* a pattern for the variant's name: * is any text, ? any character */
    const char *arch;    /* "sm_90", "avx512" */
} fj_cache_filter;

/* {"layers":[{"path", "written", "exists", "readable", "writable", "entries", "bytes"}], "limit"}. */
FJ_NODISCARD FJ_API fj_status fj_cache_path(fj_context *context, fj_text *ret_json, fj_error *error);

/* {"kernels":[{"key", "variant", "device", "arch", "bytes", "payload_bytes", "used", "layer", "hidden"}],
 * "damaged"}: used is in seconds since 1970, layer a number from 0, hidden that an earlier layer has it too;
 * damaged counts files that cannot be used. */
FJ_NODISCARD FJ_API fj_status fj_cache_list(fj_context *context, const fj_cache_filter *filter,
                                            fj_text *ret_json, fj_error *error);

/* All that is known of one entry: {"key", "kind":"kernel|request", "file", "layer", "bytes", "parts":{every
 * part of its key and of what it leads to}, "metadata":{compiler, registers, spills, log ...}, ...}. name: a
 * key, the beginning of one, or the name of a variant. FJ_ERR_IO: there is none; FJ_ERR_ARGUMENT: there are
 * several, which the error's detail lists. */
FJ_NODISCARD FJ_API fj_status fj_cache_show(fj_context *context, const char *name,
                                            const fj_cache_filter *filter, fj_text *ret_json,
                                            fj_error *error);

/* Why two entries have different keys: {"a", "b", "why", "parts":[{"part", "same", "a", "b"}]}; a and b are as
 * of fj_cache_show, why is a sentence. Errors of fj_cache_show. */
FJ_NODISCARD FJ_API fj_status fj_cache_explain(fj_context *context, const char *a, const char *b,
                                               fj_text *ret_json, fj_error *error);

/* Reads all layers: {"entries", "kernels", "records", "bytes", "dangling", "damaged":[{"file", "layer",
 * "text"}]}. An entry is sound when its digest is right and its key is the one that its metadata make; a
 * record is dangling when no layer has its kernel, which is no damage. */
FJ_NODISCARD FJ_API fj_status fj_cache_verify(fj_context *context, fj_text *ret_json, fj_error *error);

/* Removes entries from the first layer, those used least recently first, until it has at most `bytes` bytes
 * and none that was last used more than `seconds` ago; negative: no such limit. Removes also what is damaged
 * and temporary files that dead processes left. dry_run: only reports. {"entries", "bytes" (before),
 * "removed":[{"file", "bytes", "damaged"}], "removed_bytes", "temporaries", "dry_run"}. FJ_ERR_IO. */
FJ_NODISCARD FJ_API fj_status fj_cache_collect(fj_context *context, int64_t bytes, int64_t seconds,
                                               bool dry_run, fj_text *ret_json, fj_error *error);

/* Writes kernels, and the selection records that lead to them, into a ustar archive: {"kernels", "records",
 * "bytes"}. The archive appears whole under its name or not at all. FJ_ERR_IO, also when no kernel matches. */
FJ_NODISCARD FJ_API fj_status fj_cache_export(fj_context *context, const char *file,
                                              const fj_cache_filter *filter, fj_text *ret_json,
                                              fj_error *error);

/* Puts all entries of such an archive into the first layer: {"kernels", "records", "written", "bytes"};
 * written leaves out what was there already. An archive that has anything wrong with it changes nothing.
 * FJ_ERR_IO, with the place in the archive. */
FJ_NODISCARD FJ_API fj_status fj_cache_import(fj_context *context, const char *file, fj_text *ret_json,
                                              fj_error *error);

/* ---- Tuning ------------------------------------------------------------------------------ */

/* Records of what was measured: JSON lines in *.jsonl of the folders of FLEXJIT_TUNE_PATH (else XDG_DATA_HOME/flexjit/tune,
 * else ~/.local/share/flexjit/tune), to be merged by `cat`; the library may be built with some. A context reads them once. They
 * decide for plans that have lengths (batch_heads, q_len, kv_len) and ask for no variant themselves: the variant is that of
 * the record of the same device (also its cores and caches), problem, costs of the mod, and lengths (exact); else of the same
 * architecture or instruction set, problem, and class of the mod's cost, and the nearest lengths, each within a factor of 4,
 * less than 64 queries apart from more (nearest): mods of one class of cost share what was measured with one of them, as a
 * guess that a sweep of the mod itself replaces; else the same of what the library was built with (shipped); else the default. What a file holds never
 * makes a plan fail: what is not understood, or of another version, is counted in a warning. A tuned variant whose kernel
 * cannot be had (it does not compile; FLEXJIT_NO_JIT, and no layer has it) is replaced by the default, with a warning (not of
 * shipped ones that FLEXJIT_NO_JIT keeps from being compiled). */

typedef struct fj_tuning_result {
    size_t struct_size;
    double time_ms;              /* of the winner */
    const char *default_variant; /* what it was compared with; NULL: the first of the plan's list */
    double default_ms;
} fj_tuning_result;

/* {"schema":1, "variants":[NAME, ...]}: those that records name for the plan's problem and architecture, whatever their lengths,
 * each once: what calls of any lengths may take besides the default. gqa 0: of any group. FJ_ERR_MEMORY. */
FJ_NODISCARD FJ_API fj_status fj_plan_tuned_variants(const fj_plan *plan, fj_text *ret_json, fj_error *error);

/* Adds to a file, in one write, that the winner's variant is the best for its problem and lengths. file NULL: tune.jsonl of
 * the first folder, which is made. FJ_ERR_ARGUMENT: lengths are not known, a time is not above 0. FJ_ERR_UNSUPPORTED: a
 * device without kernels. FJ_ERR_IO: not written; a file of something else or of another schema is left as it is. */
FJ_NODISCARD FJ_API fj_status fj_tuning_add(const fj_plan *winner, const char *file,
                                            const fj_tuning_result *result, fj_error *error);

/* Whether fj_tuning_add could add to a file, for who wants to know it before a long measurement. Writes nothing; a file that is
 * missing could be made. file NULL: as there. FJ_ERR_IO: it is of something else or of another schema, or cannot be opened. */
FJ_NODISCARD FJ_API fj_status fj_tuning_check(fj_context *context, const char *file, fj_error *error);

/* ---- Tools ------------------------------------------------------------------------------- */

/* What was found where, as JSON text: compilers, CPU features, layers of the cache and of records of tuning, threads. "works": false when something
 * was found that does not work: a compiler or NVRTC that compiles nothing, a driver that does not start. */
FJ_NODISCARD FJ_API fj_status fj_doctor(fj_context *context, fj_text *ret_json, fj_error *error);

/* Evaluates one expression of the mod language with bindings "q=3 kv=5 t=[1,2]": the engine of
 * `flexjit run-tests`. ret_text is the value as the language prints it. */
FJ_NODISCARD FJ_API fj_status fj_evaluate(fj_context *context, const char *expression, const char *bindings,
                                          fj_text *ret_text, fj_error *error);

#ifdef __cplusplus
}
#endif
#endif
