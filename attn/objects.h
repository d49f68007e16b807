/* The objects behind flexjit.h's handles, and what the files of attn/ share. */
#ifndef FJ_ATTN_OBJECTS_H
#define FJ_ATTN_OBJECTS_H

#include <stdatomic.h>

#include "attn/resolved.h"
#include "cache/cache.h"
#include "driver/cpu.h"
#include "expr/lang/mod.h"
#include "jit/jit.h"
#include "jit/tuning.h"

/* ---- Context ----------------------------------------------------------------------------------- */

struct fj_context {
    atomic_int refs;
    fj_allocator allocator;
    void (*log)(void *user, fj_log_level level, const char *message);
    void *log_user;
    fj_log_level log_level;
    const fj_file_ops *files; /* NULL: the system's */
    fj_cache *cache;
    fj_jit *jit;
    char *capture; /* FLEXJIT_CAPTURE: a pattern for variants whose calls are kept; NULL: none */
    fj_tuning *tuning;
};

/* As fj_context_create, with the file operations that cache and compiler use. */
fj_status fj_attn_context_create(const fj_context_desc *desc, const fj_file_ops *files,
                                 fj_context **ret_context);
fj_context *fj_attn_context_ref(fj_context *context);
void fj_attn_log(const fj_context *context, fj_log_level level, const char *format, ...) FJ_PRINTF(3, 4);

/* Copies a descriptor of the caller, whose struct_size says how much of it there is: what is missing
 * is zero, what this version does not know is not read. */
fj_status fj_attn_read_desc(void *to, size_t to_size, const void *from, const char *name, fj_error *error);

/* ---- Mod ----------------------------------------------------------------------------------------- */

struct fj_mod {
    atomic_int refs;
    fj_context *context;
    fj_arena arena; /* everything below lives in it; nothing is added once the mod is made */
    fj_mod_desc desc;
    fj_program program;
    const char *unbound; /* a capture without a binding; NULL: none */
    size_t capture_count, scalar_count;
    uint32_t *capture_index; /* the public order -> ir->captures: literals are not public */
    fj_input_info *captures, *scalars;
    fj_tensor *literals;      /* per ir->captures; present for literals */
    fj_scalar *scalar_values; /* defaults */
};

fj_mod *fj_attn_mod_ref(const fj_mod *mod);

/* ---- Device, plan, kernel -------------------------------------------------------------------------- */

/* Whose text a device's kernels have, or that it has none. */
typedef enum fj_kernel_text { FJ_TEXT_NONE, FJ_TEXT_CPU, FJ_TEXT_GPU } fj_kernel_text;

/* What a kind of device is: a row of the table in device.c, where alone kinds are named. */
typedef struct fj_device_traits {
    const char *name;
    fj_status (*open)(fj_device *device, fj_arch arch, fj_error *error);
    fj_kernel_text text;
    fj_reference_pass pass; /* FJ_TEXT_NONE: what is computed instead */
    int memory;             /* DLPack's device type */
    bool exact;             /* mods are evaluated in double for every dtype */
    bool has_arch;          /* fj_device_create_for_arch makes one */
    bool needs_gpu;         /* ... which is not opened: the GPU need not be here */
} fj_device_traits;

struct fj_device {
    atomic_int refs;
    fj_context *context;
    const fj_device_traits *traits;
    const fj_driver *driver; /* NULL: it is not on this machine */
    fj_features features;
    char name[FJ_ARCH_NAME + 8];
};

fj_device *fj_attn_device_ref(fj_device *device);
/* FJ_ERR_DEVICE: the device has no driver. */
fj_status fj_attn_not_here(const fj_device *device, fj_error *error);

struct fj_plan {
    atomic_int refs;
    fj_device *device;
    fj_mod *mod;
    fj_problem problem; /* its variant points into the plan */
    fj_jit_problem jit_problem;
    fj_variant variant;
    bool named;   /* the caller asked for it, or for its options */
    bool tuned;   /* by a record: where its kernel cannot be had, `standard` is taken */
    bool shipped; /* a record that the library was built with */
    fj_variant standard;
    const char *decision; /* fj_plan_decision */
    fj_buf record;        /* its text where a record decides */
};

fj_plan *fj_attn_plan_ref(const fj_plan *plan);
/* The variant of a plan that has all but that (choose.c): the one that the problem names, the one of its options, or the
 * best. Errors as fj_plan_create. */
fj_status fj_attn_choose(fj_plan *plan, const fj_problem *problem, fj_error *error);
/* ... and then the one of a record of tuning, if there is one (tuned.c). FJ_ERR_MEMORY. */
fj_status fj_attn_tune(fj_plan *plan, fj_error *error);
/* The variants that the plan lists and the values of all, as lines of text (variants.c). */
void fj_attn_put_variants(const fj_plan *plan, fj_buf *out);

struct fj_kernel {
    atomic_int refs;
    fj_plan *plan;
    fj_object *object;               /* NULL on the reference path */
    const fj_variant *variant;       /* what the object is of */
    const struct fj_cpu_kernel *cpu; /* cpu only */
    struct fj_gpu_kernel *gpu;       /* of FJ_TEXT_GPU only (attn/gpu.h) */
    fj_kernel_info info;
};

/* The variant, which is the plan's or replaces it, if it was named or measured, else what it leads to. driver NULL: the
 * kernel is only built. */
fj_status fj_attn_choose_kernel(const fj_plan *plan, const fj_variant *variant, const fj_driver *driver,
                                bool verify, fj_jit_chosen *ret_chosen, fj_error *error);
/* What jit found, for the caller. */
fj_kernel_info fj_attn_kernel_info(const fj_variant *variant, const fj_jit_info *info);

/* ---- Validation -------------------------------------------------------------------------------------- */

/* What a call looks like once its descriptors are read. */
typedef struct fj_call {
    fj_args args;
    fj_launch launch;
    int workers;
} fj_call;

/* Reads the descriptors of a call and checks all of its tensors: errors of fj_kernel_launch. */
fj_status fj_attn_check_call(const fj_kernel *kernel, const fj_args *args, const fj_launch *launch,
                             fj_call *ret_call, fj_error *error);

/* Bytes that fj_attn_resolve needs for the captures and scalars of a plan. */
size_t fj_attn_resolve_size(const fj_plan *plan);

/* Whether kernels can multiply scores by scale: FJ_ERR_ARGUMENT names the limits. */
fj_status fj_attn_check_scale(const fj_plan *plan, double scale, fj_error *error);

/* Checks every tensor of a call and resolves it; storage (aligned to 16) holds the arrays that the
 * result points to. sizing: data pointers are not looked at. Errors: FJ_ERR_TENSOR,
 * FJ_ERR_ARGUMENT. */
fj_status fj_attn_resolve(const fj_plan *plan, const fj_args *args, bool sizing, void *storage,
                          fj_resolved *ret_resolved, fj_error *error);

/* The captures and scalars alone, of these captures (used: of ir->captures) alone: of the others no extent is known. Of
 * the plan its device, mod and problem's direction and dtype are looked at. */
fj_status fj_attn_resolve_captures(const fj_plan *plan, const fj_args *args, const bool *used, void *storage,
                                   fj_resolved *ret_resolved, fj_error *error);

/* The sentence for a bad read at a fault's position. What lies on a GPU is copied from it, on the stream. Returns
 * FJ_ERR_INDEX. */
fj_status fj_attn_explain(const fj_plan *plan, const fj_resolved *args, const fj_fault *fault, void *stream,
                          fj_error *error);

/* A resolved tensor's element of indices 0 where the host can read it and the others: its own, or that of a copy from a GPU,
 * on the stream, in the scope's arena. */
const char *fj_attn_readable(fj_scope *scope, const fj_plan *plan, void *stream, const fj_tensor *tensor);

/* What interval analysis proves of blocks of so many queries and keys, without a kernel; no scores (blocks.c). */
fj_block_counts fj_attn_count_blocks(const fj_plan *plan, const fj_resolved *all, int64_t rows, int64_t keys);
/* Scores that the mask leaves, without a kernel: as fj_block_counts says (scores.c). */
int64_t fj_attn_count_scores(const fj_plan *plan, const fj_resolved *all);

#endif
