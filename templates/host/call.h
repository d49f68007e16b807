/* A call of a kernel that fj_plan_emit_c wrote: flexjit_args checked against the kernel's tables (fj_emitted), and resolved. What
 * it resolves to has the names of attn/resolved.h, as far as a dense call has them: launchers share text with the library. */
#ifndef FJ_HOST_CALL_H
#define FJ_HOST_CALL_H

#include <math.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef flexjit_scalar fj_scalar;

typedef struct fj_tensor {
    bool present;
    int rank;
    char *data;
    int64_t shape[FLEXJIT_MAX_RANK], strides[FLEXJIT_MAX_RANK]; /* past the rank: extent 1, stride 0 */
} fj_tensor;

typedef struct fj_resolved {
    int64_t batch, heads_q, heads_kv, q_len, kv_len, head_dim, value_dim, first_batch;
    int32_t q_offset;
    double scale;
    struct {
        const int32_t *page_table;
        int64_t page_size;
    } sequences;
    fj_tensor query, key, value, out, out_raw, lse, max, lse_low, dout, dlse, dquery, dkey, dvalue;
    fj_tensor captures[FJ_EMITTED_CAPTURES + 1], dcaptures[FJ_EMITTED_CAPTURES + 1];
    fj_tensor dscalars[FJ_EMITTED_SCALARS + 1];
    fj_scalar scalars[FJ_EMITTED_SCALARS + 1];
} fj_resolved;

/* What may be wrong with a tensor, and what is said of it. */
typedef enum fj_wrong {
    FJ_FINE,
    FJ_NO_DATA,
    FJ_UNALIGNED,
    FJ_LAST_STRIDE,
    FJ_OVERLAP,
    FJ_TOO_FAR,
    FJ_NO_SHAPE,
    FJ_OTHER_SHAPE,
    FJ_NO_GRADIENT,
    FJ_WRONG_COUNT
} fj_wrong;
#define FJ_SENTENCES(name)                                                             \
    {                                                                                  \
        [FJ_NO_DATA] = name " has no data, which the kernel needs",                    \
        [FJ_UNALIGNED] = name " is not aligned to its elements",                       \
        [FJ_LAST_STRIDE] = "the last stride of " name " is not 1",                     \
        [FJ_OVERLAP] = "a stride of " name " is 0: elements that are written overlap", \
        [FJ_TOO_FAR] = name " reaches further than 64-bit byte offsets",               \
        [FJ_NO_SHAPE] = name " has no shape",                                          \
        [FJ_OTHER_SHAPE] = name " has another shape than the kernel is made for",      \
        [FJ_NO_GRADIENT] = name " is asked for, which the mod does not have",          \
    }

/* An input of a mod. */
typedef struct fj_emitted_input {
    const char *says[FJ_WRONG_COUNT], *grad_says[FJ_WRONG_COUNT];
    const void *table;              /* of the mod's text, packed; NULL: the caller's */
    int public_index;               /* of captures and scalars of the caller */
    int size, rank;                 /* of captures: bytes of an element */
    int64_t dims[FLEXJIT_MAX_RANK]; /* -1: any */
    bool gradient, is_float, is_bool;
} fj_emitted_input;

typedef struct fj_emitted {
    bool backward, wide, max; /* wide: of double */
    int element, real;        /* bytes: of query, key, value; of lse */
    int64_t head_dim, value_dim;
    const fj_emitted_input *captures, *scalars;
} fj_emitted;

/* ---- One tensor ---------------------------------------------------------------------------------------------- */

typedef struct fj_expected {
    int rank, size;
    bool required, written;
    int64_t shape[FLEXJIT_MAX_RANK];
} fj_expected;

/* Fills shape and strides; a stride that is never used becomes what a packed tensor has. */
static fj_wrong fj_set_strides(const int64_t *strides, const fj_expected *want, bool empty, fj_tensor *to) {
    int64_t packed = 1, reach = 0, far = 0;
    for (int i = 0; i < FLEXJIT_MAX_RANK; i++) to->shape[i] = 1;
    for (int i = want->rank - 1; i >= 0; i--) {
        const int64_t extent = want->shape[i];
        to->shape[i] = extent;
        to->strides[i] = strides && extent > 1 && !empty ? strides[i] : packed;
        if (i == want->rank - 1 && extent > 1 && to->strides[i] != 1) return FJ_LAST_STRIDE;
        if (want->written && extent > 1 && !empty && to->strides[i] == 0) return FJ_OVERLAP;
        if (empty) continue;
        if (__builtin_mul_overflow(packed, extent, &packed) ||
            __builtin_mul_overflow(to->strides[i], extent - 1, &far) ||
            __builtin_add_overflow(reach, far < 0 ? -far : far, &reach) || reach > INT64_MAX / 16)
            return FJ_TOO_FAR;
    }
    return FJ_FINE;
}

static fj_wrong fj_resolve_tensor(const flexjit_tensor *tensor, const fj_expected *want, fj_tensor *to) {
    bool empty = false;
    for (int i = 0; i < want->rank; i++) empty |= want->shape[i] == 0;
    *to = (fj_tensor){.present = tensor->data != NULL || (want->required && empty), .rank = want->rank};
    if (!tensor->data && want->required && !empty) return FJ_NO_DATA;
    if ((uintptr_t)tensor->data % (uintptr_t)want->size != 0) return FJ_UNALIGNED;
    to->data = (char *)tensor->data;
    const fj_wrong wrong = fj_set_strides(tensor->strides, want, empty, to);
    if (!to->present) memset(to->strides, 0, sizeof to->strides);
    return wrong;
}

/* ---- The call's own ------------------------------------------------------------------------------------------- */

static const char *fj_check_sizes(const fj_emitted *of, const flexjit_args *args) {
    const int64_t sizes[] = {args->batch, args->heads_q, args->heads_kv, args->q_len, args->kv_len};
    const double least = of->wide ? 0 : 0x1p-126, most = of->wide ? 0x1p1022 : 0x1p126,
                 scale = fabs(args->scale);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i] < 0 || sizes[i] > INT32_MAX) return "a size is negative, or 2^31 or more";
    if (args->heads_kv > 0 ? args->heads_q % args->heads_kv != 0 : args->heads_q != 0)
        return "heads_q is not a multiple of heads_kv";
    if (!(scale == 0 || (scale >= least && scale <= most))) return "scale is out of range, or not finite";
    return NULL;
}

static const char *fj_resolve_operands(const fj_emitted *of, const flexjit_args *args, fj_resolved *all) {
    const int64_t b = args->batch, hq = args->heads_q, hkv = args->heads_kv, l = args->q_len,
                  s = args->kv_len, e = of->head_dim, v = of->value_dim;
    const bool back = of->backward;
    const struct {
        const flexjit_tensor *from;
        fj_tensor *to;
        bool used;
        fj_expected want;
        const char *says[FJ_WRONG_COUNT];
    } rows[] = {
        {&args->query,
         &all->query,
         true,
         {4, of->element, true, false, {b, hq, l, e}},
         FJ_SENTENCES("query")},
        {&args->key, &all->key, true, {4, of->element, true, false, {b, hkv, s, e}}, FJ_SENTENCES("key")},
        {&args->value,
         &all->value,
         true,
         {4, of->element, true, false, {b, hkv, s, v}},
         FJ_SENTENCES("value")},
        {&args->out, &all->out, true, {4, of->element, back, !back, {b, hq, l, v}}, FJ_SENTENCES("out")},
        {&args->lse, &all->lse, true, {3, of->real, true, !back, {b, hq, l}}, FJ_SENTENCES("lse")},
        {&args->lse_low,
         &all->lse_low,
         true,
         {3, of->real, false, !back, {b, hq, l}},
         FJ_SENTENCES("lse_low")},
        {&args->max, &all->max, of->max, {3, of->real, true, true, {b, hq, l}}, FJ_SENTENCES("max")},
        {&args->dout, &all->dout, back, {4, of->element, true, false, {b, hq, l, v}}, FJ_SENTENCES("dout")},
        {&args->dlse, &all->dlse, back, {3, of->real, false, false, {b, hq, l}}, FJ_SENTENCES("dlse")},
        {&args->dquery,
         &all->dquery,
         back,
         {4, of->element, false, true, {b, hq, l, e}},
         FJ_SENTENCES("dquery")},
        {&args->dkey, &all->dkey, back, {4, of->element, false, true, {b, hkv, s, e}}, FJ_SENTENCES("dkey")},
        {&args->dvalue,
         &all->dvalue,
         back,
         {4, of->element, false, true, {b, hkv, s, v}},
         FJ_SENTENCES("dvalue")},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        if (!rows[i].used) continue;
        const fj_wrong wrong = fj_resolve_tensor(rows[i].from, &rows[i].want, rows[i].to);
        if (wrong) return rows[i].says[wrong];
    }
    return NULL;
}

/* ---- Captures and scalars --------------------------------------------------------------------------------------- */

static const char *fj_resolve_grad(const fj_emitted *of, const fj_emitted_input *input,
                                   const flexjit_tensor *grads, fj_expected want, fj_tensor *to) {
    const flexjit_tensor *grad = grads && input->public_index >= 0 ? &grads[input->public_index] : NULL;
    *to = (fj_tensor){.rank = want.rank};
    if (!of->backward || !grad || !grad->data) return NULL;
    if (!input->gradient) return input->grad_says[FJ_NO_GRADIENT];
    want.size = of->real, want.written = true;
    return input->grad_says[fj_resolve_tensor(grad, &want, to)];
}

static const char *fj_resolve_capture(const fj_emitted *of, const flexjit_args *args, int i,
                                      fj_resolved *all) {
    const fj_emitted_input *input = &of->captures[i];
    fj_expected want = {.rank = input->rank, .size = input->size, .required = true};
    flexjit_tensor tensor = {(void *)(uintptr_t)input->table, NULL, input->dims};
    if (!input->table) {
        if (!args->captures) return "captures is NULL";
        tensor = args->captures[input->public_index];
        if (!tensor.shape && input->rank > 0) return input->says[FJ_NO_SHAPE];
    }
    for (int d = 0; d < input->rank; d++) {
        want.shape[d] = tensor.shape[d];
        if (want.shape[d] < 0 || (input->dims[d] >= 0 && want.shape[d] != input->dims[d]))
            return input->says[FJ_OTHER_SHAPE];
    }
    const fj_wrong wrong = fj_resolve_tensor(&tensor, &want, &all->captures[i]);
    return wrong ? input->says[wrong] : fj_resolve_grad(of, input, args->dcaptures, want, &all->dcaptures[i]);
}

static const char *fj_resolve_scalar(const fj_emitted *of, const flexjit_args *args, int i,
                                     fj_resolved *all) {
    const fj_emitted_input *input = &of->scalars[i];
    const fj_expected want = {.rank = 0};
    if (!args->scalars) return "scalars is NULL";
    all->scalars[i] = args->scalars[i];
    if (input->is_bool) all->scalars[i].i = args->scalars[i].i != 0;
    return fj_resolve_grad(of, input, args->dscalars, want, &all->dscalars[i]);
}

/* A sentence for the first thing that is wrong, or NULL. */
static const char *fj_resolve(const fj_emitted *of, const flexjit_args *args, fj_resolved *all) {
    const char *wrong = fj_check_sizes(of, args);
    memset(all, 0, sizeof *all);
    all->batch = args->batch, all->heads_q = args->heads_q, all->heads_kv = args->heads_kv;
    all->q_len = args->q_len, all->kv_len = args->kv_len;
    all->head_dim = of->head_dim, all->value_dim = of->value_dim, all->scale = args->scale;
    if (!wrong) wrong = fj_resolve_operands(of, args, all);
    for (int i = 0; i < FJ_EMITTED_CAPTURES && !wrong; i++) wrong = fj_resolve_capture(of, args, i, all);
    for (int i = 0; i < FJ_EMITTED_SCALARS && !wrong; i++) wrong = fj_resolve_scalar(of, args, i, all);
    return wrong;
}

#endif
