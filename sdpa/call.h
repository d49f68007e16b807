/* A call of scaled dot product attention as the files of sdpa/ hand it on.
 *
 * Every tensor is seen in five axes, whatever its rank and form:
 *
 *     BATCH, ROWS, GROUP, REPEAT, WIDTH        heads are GROUP * REPEAT; of a mask ROWS are queries, WIDTH keys
 *
 * with the extents that the call has, those that the caller's tensor has (1 where it is broadcast) and the caller's strides (0
 * there). So a copy for the kernel is a loop over the call's extents that reads the caller's strides, and a sum for the caller
 * one over his extents that adds up the rest. Most tensors need neither: the kernel is given the caller's memory with strides.
 */
#ifndef FJ_SDPA_CALL_H
#define FJ_SDPA_CALL_H

#include "base/base.h"
#include "flexjit/sdpa.h"

enum { BATCH, ROWS, GROUP, REPEAT, WIDTH, AXES };

enum { QUERY, KEY, VALUE, MASK, OUT, LSE, LSE_LOW, DOUT, DLSE, DQUERY, DKEY, DVALUE, DMASK, SLOTS };

typedef struct fj_sdpa_slot {
    const char *name;
    const DLTensor *tensor; /* the caller's; NULL: absent */
    bool present;           /* the kernel has one, maybe without the caller */
    bool written;
    fj_dtype dtype, kernel_dtype;
    int64_t extent[AXES], own[AXES], stride[AXES];
    const char *copied; /* why the kernel works on a copy; NULL: it does not */
    bool summed;        /* more than one element of the kernel's goes to one of the caller's */
    int64_t copy_stride[AXES];
    size_t offset, size; /* of the copy, in the workspace */
    DLTensor kernel;     /* what the kernel is given; it points to what follows: set by fj_sdpa_bind */
    int64_t shape[FJ_MAX_RANK], strides[FJ_MAX_RANK];
} fj_sdpa_slot;

typedef enum fj_sdpa_mask { NO_MASK, BOOL_MASK, FLOAT_MASK } fj_sdpa_mask;

/* What a kernel is made for. */
typedef struct fj_sdpa_class {
    fj_direction direction;
    fj_dtype dtype;
    int64_t head_dim, value_dim;
    bool packed, shared_keys, has_dlse, has_dmask, has_dropout, nondeterministic, tf32;
    fj_sdpa_causal causal;
    fj_sdpa_mask mask;
    fj_dtype mask_dtype;
    bool walks[AXES]; /* axes that the mask has; GROUP: heads */
    bool strided;     /* the last of them has any stride */
    unsigned backends;
} fj_sdpa_class;

typedef struct fj_sdpa_call {
    fj_sdpa_args args;
    const fj_device *device;
    fj_direction direction;
    bool sizing; /* data is not followed */
    fj_error *error;
    fj_sdpa_class class;
    int rank; /* of a dense call's out */
    int64_t batch, heads, kv_heads;
    int64_t q_len, kv_len;           /* of a packed call the longest */
    int64_t q_rows, kv_rows;         /* that the kernel's tensors have: of all sequences */
    bool shared_query, shared_lists; /* packed: without cu_seqlens_q, without cu_seqlens_kv */
    double scale;
    bool takes_wide; /* the kernel writes F64 for any dtype: the reference */
    fj_sdpa_slot slots[SLOTS];
} fj_sdpa_call;

/* Checks every tensor against the others, and fills the call. Errors name the tensor, its shape and what is allowed. */
fj_status fj_sdpa_read(const fj_device *device, fj_direction direction, const fj_sdpa_args *args, bool sizing,
                       fj_sdpa_call *ret_call, fj_error *error);
/* FJ_ERR_ARGUMENT: the call is not one of those that the class is of. Else the call takes on the class. */
fj_status fj_sdpa_take_class(fj_sdpa_call *call, const fj_sdpa_class *class);
/* What of the call is copied, and where; the size of all copies. */
fj_status fj_sdpa_lay_out(fj_sdpa_call *call, size_t *ret_size);
/* Sets the kernel's tensors, copies in workspace. */
void fj_sdpa_bind(fj_sdpa_call *call, char *copies);
void fj_sdpa_copy_in(const fj_sdpa_call *call);
void fj_sdpa_copy_out(const fj_sdpa_call *call);

/* tensor.c: one tensor of the caller. */
fj_status fj_sdpa_bad(const fj_sdpa_call *call, const char *format, ...) FJ_PRINTF(2, 3);
enum { FJ_SDPA_TEXT = 96 };
const char *fj_sdpa_shape_text(const DLTensor *tensor, char text[FJ_SDPA_TEXT]);
/* Dtype, device, extents, data and alignment; ranks from least to most. */
fj_status fj_sdpa_check_tensor(const fj_sdpa_call *call, const char *name, const DLTensor *tensor, int least,
                               int most, const char *axes);
fj_dtype fj_sdpa_dtype(const DLTensor *tensor);
/* The stride of an axis, from the front; 0 where it has one element. */
int64_t fj_sdpa_stride(const DLTensor *tensor, int axis);

/* jagged.c: sequences; their lists as the kernel takes them. */
fj_status fj_sdpa_read_packed(fj_sdpa_call *call);
bool fj_sdpa_makes_list(const fj_sdpa_call *call, bool of_keys);
void fj_sdpa_make_list(const fj_sdpa_call *call, bool of_keys, int32_t *list);

/* operands.c: fills the five axes of a slot. */
fj_status fj_sdpa_place_operand(fj_sdpa_call *call, int index, const char *name, const DLTensor *tensor);
fj_status fj_sdpa_place_results(fj_sdpa_call *call);
/* Of an output: a stride of 0 where there are elements. */
fj_status fj_sdpa_refuse_overlap(const fj_sdpa_call *call, const fj_sdpa_slot *slot);

/* mask.c */
fj_status fj_sdpa_read_mask(fj_sdpa_call *call);
/* The mod of a class: expressions of the language, and the tensors that they capture. */
typedef struct fj_sdpa_mod {
    char score[96], mask[160];
    bool has_shift;   /* a run-time scalar: S - L */
    bool is_constant; /* the mask: it has no gradient */
    fj_binding bindings[2];
    size_t binding_count;
} fj_sdpa_mod;
void fj_sdpa_write_mod(const fj_sdpa_class *class, fj_sdpa_mod *ret_mod);

/* backends.c: which backends can compute a call, and the plan and the device of the first that can. */
typedef struct fj_sdpa_choice {
    fj_device *device; /* that computes: the caller's, or the reference */
    fj_mod *mod;
    fj_plan *plan; /* NULL: none can */
    fj_sdpa_report report;
} fj_sdpa_choice;
/* What fails is the mod or memory, not a backend. */
fj_status fj_sdpa_choose(fj_device *device, fj_sdpa_call *call, fj_sdpa_choice *ret_choice, fj_error *error);
void fj_sdpa_choice_finish(fj_sdpa_choice *choice);
void fj_sdpa_tell_copies(const fj_sdpa_call *call, char *text, size_t size);

#endif
