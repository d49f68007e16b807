/* One call of attention: a problem, its tensors, a kernel, a launch that is timed. `run`, its check and `bench` are
 * made of these. Functions return exit statuses; errors are reported. */
#ifndef FJ_CLI_CALL_H
#define FJ_CLI_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/options.h"
#include "cli/safetensors.h"
#include "flexjit/flexjit.h"

/* A tensor, packed. It points into itself: it is not copied or moved once it was set. */
typedef struct cli_view {
    DLTensor tensor;
    int64_t dims[FJ_MAX_RANK];
    fj_dtype dtype;
    size_t count; /* elements */
    void *owned;  /* memory that cli_view_finish frees, or NULL */
} cli_view;

/* Refers to memory that outlives the view; a copy is made where it is not aligned to its elements. */
int cli_view_borrow(cli_view *view, const char *name, fj_dtype dtype, int rank, const int64_t *dims,
                    const void *data);
/* Makes memory, 64-byte aligned, not initialised. name is for the message. */
int cli_view_allocate(cli_view *view, const char *name, fj_dtype dtype, int rank, const int64_t *dims);
void cli_view_finish(cli_view *view);
bool cli_view_is_set(const cli_view *view);

typedef struct cli_shape {
    int64_t batch, heads, kv_heads, q_len, kv_len, head_dim, value_dim;
} cli_shape;

/* By fj_form: as files and reports say it. */
enum { CLI_FORMS = FJ_FORM_PAGED + 1 };
extern const char *const cli_form_names[CLI_FORMS];

enum { CLI_KERNEL_OPTIONS = 16 }; /* of --option, at most */

/* What a command line asks of a call. */
typedef struct cli_call_options {
    cli_shape shape;
    fj_dtype dtype;
    bool max, nondeterministic, tf32;
    double scale;
    fj_form
        form; /* packed: lengths of the shape are those of all sequences; paged: what the table has room for */
    bool shared_keys;                /* k and v have a batch of 1 under a larger one */
    const fj_block_mask *block_mask; /* the caller's; NULL: none */
    const char *gradients;           /* names with commas between them; NULL: all */
    bool dropout;                    /* with this chance and seed */
    double dropout_rate;
    uint64_t dropout_seed;
    int workers;             /* 0: the default */
    const char *variants[2]; /* by direction; NULL: the plan chooses */
    const char *kernel;      /* of both directions; NULL: any */
    fj_option kernel_options[CLI_KERNEL_OPTIONS];
    size_t kernel_option_count;
} cli_call_options;

/* The options that the verbs share: --precision, --no-deterministic, --max, --variant, --kernel, --option, --threads, --dropout and
 * its --seed. */
int cli_read_call_options(const cli_args *args, cli_call_options *options);
/* --kernel and --option of them (kernel_options.c), which do not go with --variant. */
int cli_read_kernel_options(const cli_args *args, cli_call_options *options);
/* One of them, of this name and value: a number, or of isa its name. False: names lists what there is, if the name is
 * unknown, else it is empty, and the value is none. */
enum { CLI_KERNEL_OPTION_NAMES = 200 };
bool cli_kernel_option_parse(const char *name, size_t length, const char *value, fj_option *ret_option,
                             char names[CLI_KERNEL_OPTION_NAMES]);
/* Leaves the choice of variants to the plan. */
void cli_forget_variants(cli_call_options *options);

/* The problem of a call; what only its tensors say (max, dlse, q_offset) is left out. */
fj_problem cli_problem_of(const cli_call_options *options, fj_direction direction);

/* What says where sequences are, and their positions. */
typedef enum cli_sequence {
    CLI_CU_SEQLENS_Q,
    CLI_CU_SEQLENS_KV,
    CLI_PAGE_TABLE,
    CLI_KV_LENS,
    CLI_Q_OFFSET,
    CLI_SEQUENCES
} cli_sequence;

typedef struct cli_inputs {
    cli_view query, key, value, dout, dlse; /* dlse may be absent */
    cli_view *captures;                     /* in the order of fj_mod_capture */
    fj_scalar *scalars;
    size_t capture_count, scalar_count;
    cli_view sequences[CLI_SEQUENCES]; /* absent where the form has none */
} cli_inputs;

/* A kernel reads a bool as 0 or 1; a file may hold anything. path is for the message. */
int cli_check_bools(const char *path, const cli_tensor *tensor);
/* Makes room for the captures of a mod and takes the scalars' values from its source. */
int cli_inputs_begin(cli_inputs *inputs, const fj_mod *mod);
void cli_inputs_finish(cli_inputs *inputs);

typedef struct cli_outputs {
    cli_view out, lse, max, dquery, dkey, dvalue;
    cli_view lse_low, out_raw;      /* for backward, the latter of a mod of the output; no file has them */
    cli_view *dcaptures, *dscalars; /* absent where there is no gradient */
    size_t capture_count, scalar_count;
} cli_outputs;

/* Whether --gradients names it: "dq", "d_bias"; without the option it names all. */
bool cli_wants_gradient(const cli_call_options *options, const char *name);
/* dtype is that of out and the gradients; statistics (lse, max, gradients of captures) have their own. */
int cli_outputs_allocate(cli_outputs *outputs, const cli_call_options *options, const cli_inputs *inputs,
                         const fj_mod *mod, bool backward, fj_dtype dtype, fj_dtype statistics);
void cli_outputs_finish(cli_outputs *outputs);
/* F32, or F64 for F64. */
fj_dtype cli_statistics_dtype(fj_dtype dtype);

/* The outputs that are there, in a fixed order, under the names that they have in a file. */
typedef enum cli_output_kind {
    CLI_OUTPUT_OUT,
    CLI_OUTPUT_LSE,
    CLI_OUTPUT_MAX,
    CLI_OUTPUT_DQ, /* from here on by backward */
    CLI_OUTPUT_DK,
    CLI_OUTPUT_DV,
    CLI_OUTPUT_GRADIENT, /* d_NAME */
} cli_output_kind;

typedef struct cli_output {
    cli_output_kind kind;
    char *name;
    const cli_view *view;
} cli_output;

typedef struct cli_output_list {
    cli_output *items;
    size_t count;
} cli_output_list;

int cli_outputs_list(const cli_outputs *outputs, const fj_mod *mod, cli_output_list *ret_list);
void cli_output_list_finish(cli_output_list *list);

/* A tensor of the host and its copy on a device that has memory of its own (device_copies.c). */
typedef struct cli_device_copy {
    const cli_view *host;
    DLTensor tensor;
    bool is_input, is_output;
} cli_device_copy;

/* The tensors of one call, on the device where it runs. */
typedef struct cli_device_copies {
    fj_device *device;
    cli_device_copy *items; /* none on devices that use the host's memory */
    size_t count, limit;
} cli_device_copies;

int cli_device_copies_begin(cli_device_copies *copies, fj_device *device, size_t limit);
/* What a launch is given for a view: NULL for one that is not set. It lives as long as the view and the copies. Status 1
 * when the device has too little memory. */
int cli_device_copies_add(cli_device_copies *copies, const cli_view *view, bool is_input, bool is_output,
                          const DLTensor **ret_tensor);
/* Inputs to the device; outputs from it. */
int cli_device_copies_put(const cli_device_copies *copies);
int cli_device_copies_get(const cli_device_copies *copies);
void cli_device_copies_finish(cli_device_copies *copies);

/* A kernel bound to tensors, ready to be launched any number of times. */
typedef struct cli_kernel {
    fj_device *device; /* outlives the kernel */
    fj_plan *plan;
    fj_kernel *kernel;
    fj_kernel_info info;
    fj_block_counts blocks; /* all zero when the device does not say */
    int64_t splits;         /* parts of the keys */
    fj_args args;
    fj_launch launch;
    void *workspace;
    size_t workspace_size;
    const DLTensor **pointers; /* the arrays of args */
    fj_timer *timer;
    cli_device_copies copies;
} cli_kernel;

/* Sets what a plan is to suit: gqa, few_queries, batch_heads, q_len, kv_len. */
void cli_problem_suits(const cli_shape *shape, fj_form form, fj_problem *problem);
int cli_kernel_open(cli_kernel *kernel, fj_device *device, const fj_mod *mod, const cli_call_options *options,
                    fj_direction direction, const cli_inputs *inputs, const cli_outputs *outputs);
/* Puts the inputs where the device reads them, launches and waits, brings the outputs back. */
int cli_kernel_put(cli_kernel *kernel);
int cli_kernel_launch(cli_kernel *kernel, double *ret_ms);
int cli_kernel_get(cli_kernel *kernel);
/* All three. */
int cli_kernel_run(cli_kernel *kernel, double *ret_ms);
void cli_kernel_close(cli_kernel *kernel);

/* The part of the blocks that is computed, 1 when the device does not say. */
double cli_computed_share(const fj_block_counts *blocks);
/* Scores that the mask leaves, all where the device does not say. */
double cli_scores(const cli_shape *shape, const fj_block_counts *blocks);
/* FLOPs of one launch, by the convention that `flexjit run --help` states. */
double cli_flops(const cli_shape *shape, fj_direction direction, const fj_block_counts *blocks);

/* The devices of --device, in the order of its choices. A device that is not there is status 3. */
typedef enum cli_device {
    CLI_DEVICE_AUTO,
    CLI_DEVICE_CPU,
    CLI_DEVICE_CUDA,
    CLI_DEVICE_EMU,
    CLI_DEVICE_REFERENCE
} cli_device;
int cli_device_open(fj_context *context, const cli_args *args, cli_device which, fj_device **ret_device);

#endif
