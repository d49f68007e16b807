/* What the files that check a call's tensors share: validate.c one tensor, captures and scalars; operands.c what attention
 * reads and writes, in each form. */
#ifndef FJ_ATTN_VALIDATE_H
#define FJ_ATTN_VALIDATE_H

#include "attn/objects.h"

enum { FJ_EXPECTED_NAME = 160, FJ_ANY_EXTENT = -1 };

/* What a tensor must be. */
typedef struct fj_expected {
    char name[FJ_EXPECTED_NAME];
    int rank;
    int64_t shape[FJ_MAX_RANK]; /* or FJ_ANY_EXTENT */
    const char *axes;           /* "[B,Hkv,S,E]" */
    fj_dtype dtype, also;       /* one of the two */
    bool written;
    bool is_read; /* by the host, also when a call is only sized */
} fj_expected;

typedef struct fj_validation {
    const fj_plan *plan;
    bool sizing; /* data pointers are not looked at */
    fj_error *error;
    const bool *used; /* of ir->captures; NULL: all are */
} fj_validation;

/* FJ_ERR_TENSOR with this sentence. */
fj_status fj_attn_bad(const fj_validation *v, const char *format, ...) FJ_PRINTF(2, 3);
fj_status fj_attn_resolve_tensor(const fj_validation *v, const DLTensor *tensor, const fj_expected *want,
                                 fj_tensor *ret_tensor);
/* lse, max, dlse and gradients of captures: F32, or F64 for F64 inputs; the reference path takes F64 for any. */
fj_expected fj_attn_statistic(const fj_validation *v, bool written);

/* Query, key, value and what says where sequences are: batch, heads and lengths of the call; then what is written and,
 * in backward, read of forward. */
fj_status fj_attn_resolve_inputs(const fj_validation *v, const fj_args *args, fj_resolved *all);
/* FJ_ERR_ARGUMENT: dropout is no probability, or the plan has none. */
fj_status fj_attn_resolve_dropout(const fj_validation *v, const fj_args *args, fj_resolved *all);
fj_status fj_attn_resolve_results(const fj_validation *v, const fj_args *args, fj_resolved *all);

#endif
