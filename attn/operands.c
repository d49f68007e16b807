/* What attention reads and writes, in the three forms of a call: checked, and resolved into the order of the dense one.
 *
 *                dense          packed        paged
 *     query      [B,Hq,L,E]     [Tq,Hq,E]     [B,Hq,L,E]
 *     key        [B,Hkv,S,E]    [Tk,Hkv,E]    [N,P,Hkv,E]       page b, row of it
 *     lse        [B,Hq,L]       [Hq,Tq]       [B,Hq,L]
 */
#include <stdio.h>
#include <string.h>

#include "attn/validate.h"
#include "base/dtype.h"

typedef enum operand_kind { QUERY, KEY, VALUE, OUT, ROWS, KIND_COUNT } operand_kind;

/* Where the caller's tensor has batch, head and row; -1: nowhere. */
typedef struct layout {
    const char *axes;
    int rank, axis[3];
} layout;

#define DENSE(axes)          \
    {                        \
        axes, 4, { 0, 1, 2 } \
    }
#define PACKED(axes)          \
    {                         \
        axes, 3, { -1, 1, 0 } \
    }
#define PAGED(axes)          \
    {                        \
        axes, 4, { 0, 2, 1 } \
    }
static const layout layouts[][KIND_COUNT] = {
    [FJ_FORM_DENSE] = {DENSE("[B,Hq,L,E]"),
                       DENSE("[B,Hkv,S,E]"),
                       DENSE("[B,Hkv,S,Ev]"),
                       DENSE("[B,Hq,L,Ev]"),
                       {"[B,Hq,L]", 3, {0, 1, 2}}},
    [FJ_FORM_PACKED] = {PACKED("[Tq,Hq,E]"),
                        PACKED("[Tk,Hkv,E]"),
                        PACKED("[Tk,Hkv,Ev]"),
                        PACKED("[Tq,Hq,Ev]"),
                        {"[Hq,Tq]", 2, {-1, 0, 1}}},
    [FJ_FORM_PAGED] = {DENSE("[B,Hq,L,E]"),
                       PAGED("[N,P,Hkv,E]"),
                       PAGED("[N,P,Hkv,Ev]"),
                       DENSE("[B,Hq,L,Ev]"),
                       {"[B,Hq,L]", 3, {0, 1, 2}}},
};

/* extents: batch, heads, rows, and the width that all but ROWS have. Resolves into that order. */
static fj_status resolve(const fj_validation *v, const char *name, const DLTensor *tensor, operand_kind kind,
                         fj_expected want, const int64_t extents[4], fj_tensor *ret_tensor) {
    const layout *of = &layouts[v->plan->problem.form][kind];
    const bool has_width = kind != ROWS;
    want.rank = of->rank;
    want.axes = of->axes;
    (void)snprintf(want.name, sizeof want.name, "%s", name);
    for (int i = 0; i < 3; i++)
        if (of->axis[i] >= 0) want.shape[of->axis[i]] = extents[i];
    if (has_width) want.shape[of->rank - 1] = extents[3];
    fj_tensor got;
    fj_status status = fj_attn_resolve_tensor(v, tensor, &want, &got);
    if (status != FJ_OK) return status;
    *ret_tensor = got;
    ret_tensor->rank = has_width ? 4 : 3;
    for (int i = 0; i < 3; i++) {
        ret_tensor->shape[i] = of->axis[i] < 0 ? 1 : got.shape[of->axis[i]];
        ret_tensor->strides[i] = of->axis[i] < 0 ? 0 : got.strides[of->axis[i]];
    }
    if (has_width) {
        ret_tensor->shape[3] = got.shape[of->rank - 1];
        ret_tensor->strides[3] = got.strides[of->rank - 1];
    }
    return FJ_OK;
}

static bool is_reference(const fj_validation *v) { return v->plan->device->traits->text == FJ_TEXT_NONE; }

fj_expected fj_attn_statistic(const fj_validation *v, bool written) {
    bool wide = v->plan->problem.dtype == FJ_DTYPE_F64;
    return (fj_expected){
        .dtype = wide ? FJ_DTYPE_F64 : FJ_DTYPE_F32,
        .also = wide || is_reference(v) ? FJ_DTYPE_F64 : FJ_DTYPE_F32,
        .written = written,
    };
}

/* An input has the problem's dtype; a result of the reference may be F64. */
static fj_status input(const fj_validation *v, const char *name, const DLTensor *tensor, operand_kind kind,
                       const int64_t extents[4], fj_tensor *ret_tensor) {
    const fj_dtype dtype = v->plan->problem.dtype;
    return resolve(v, name, tensor, kind, (fj_expected){.dtype = dtype, .also = dtype}, extents, ret_tensor);
}
static fj_status result(const fj_validation *v, const char *name, const DLTensor *tensor, operand_kind kind,
                        bool written, const int64_t extents[4], fj_tensor *ret_tensor) {
    const fj_dtype dtype = v->plan->problem.dtype;
    const fj_expected want = {
        .dtype = dtype, .also = is_reference(v) ? FJ_DTYPE_F64 : dtype, .written = written};
    return resolve(v, name, tensor, kind, want, extents, ret_tensor);
}

/* ---- Sequences --------------------------------------------------------------------------------------------- */

/* Whether the host can read them. */
static bool reads_values(const fj_validation *v) {
    const fj_driver *driver = v->plan->device->driver;
    return driver && driver->is_host;
}

static fj_status integers(const fj_validation *v, const char *name, const char *axes, const DLTensor *tensor,
                          int rank, const int64_t *shape, fj_tensor *ret_tensor) {
    fj_expected want = {
        .rank = rank, .axes = axes, .dtype = FJ_DTYPE_I32, .also = FJ_DTYPE_I32, .is_read = reads_values(v)};
    (void)snprintf(want.name, sizeof want.name, "%s", name);
    memcpy(want.shape, shape, (size_t)rank * sizeof *shape);
    return fj_attn_resolve_tensor(v, tensor, &want, ret_tensor);
}
static const int32_t *numbers(const fj_tensor *tensor) { return (const int32_t *)(const void *)tensor->data; }

/* Cumulative lengths: from 0, never less than before, to all rows. */
static fj_status check_cumulative(const fj_validation *v, const char *name, const int32_t *cu, int64_t batch,
                                  int64_t rows, const char *of) {
    if (!reads_values(v)) return FJ_OK;
    if (cu[0] != 0) return fj_attn_bad(v, "%s begins with %d, not with 0", name, cu[0]);
    for (int64_t b = 0; b < batch; b++)
        if (cu[b + 1] < cu[b])
            return fj_attn_bad(v, "%s decreases from %d to %d at index %lld", name, cu[b], cu[b + 1],
                               (long long)b + 1);
    if (cu[batch] == rows) return FJ_OK;
    return fj_attn_bad(v, "%s ends with %d, but %s has %lld rows", name, cu[batch], of, (long long)rows);
}

static fj_status resolve_packed(const fj_validation *v, const fj_args *args, fj_resolved *all) {
    const int64_t any = FJ_ANY_EXTENT;
    fj_tensor cu_q, cu_kv;
    fj_status status = integers(v, "cu_seqlens_q", "[B+1]", args->cu_seqlens_q, 1, &any, &cu_q);
    if (status != FJ_OK) return status;
    if (cu_q.shape[0] < 1) return fj_attn_bad(v, "cu_seqlens_q is empty: it has B + 1 elements");
    status = integers(v, "cu_seqlens_kv", "[B+1]", args->cu_seqlens_kv, 1, cu_q.shape, &cu_kv);
    if (status != FJ_OK) return status;
    all->batch = cu_q.shape[0] - 1;
    all->sequences.cu_q = numbers(&cu_q);
    all->sequences.cu_kv = numbers(&cu_kv);
    status = check_cumulative(v, "cu_seqlens_q", numbers(&cu_q), all->batch, all->q_len, "query");
    if (status == FJ_OK)
        status = check_cumulative(v, "cu_seqlens_kv", numbers(&cu_kv), all->batch, all->kv_len, "key");
    return status;
}

/* Of each sequence its length, and that the pages of it are there. */
static fj_status check_pages(const fj_validation *v, const fj_resolved *all) {
    const fj_sequences *s = &all->sequences;
    if (!reads_values(v)) return FJ_OK;
    for (int64_t b = 0; b < all->batch; b++) {
        if (s->kv_lens[b] < 0 || s->kv_lens[b] > all->kv_len)
            return fj_attn_bad(v, "kv_lens[%lld] is %d: the table's %lld pages of %lld have 0 to %lld keys",
                               (long long)b, s->kv_lens[b], (long long)s->table_width,
                               (long long)s->page_size, (long long)all->kv_len);
        for (int64_t i = 0; i * s->page_size < s->kv_lens[b] && !v->sizing; i++) {
            const int32_t page = s->page_table[b * s->table_row + i];
            if (page < -1 || page >= s->pages)
                return fj_attn_bad(v, "page_table[%lld,%lld] is %d: there are %lld pages, and -1 is none",
                                   (long long)b, (long long)i, page, (long long)s->pages);
        }
    }
    return FJ_OK;
}

static fj_status resolve_paged(const fj_validation *v, const fj_args *args, fj_resolved *all) {
    fj_sequences *s = &all->sequences;
    fj_tensor table, lens;
    fj_status status = integers(v, "page_table", "[B,M]", args->page_table, 2,
                                (int64_t[]){all->batch, FJ_ANY_EXTENT}, &table);
    if (status == FJ_OK) status = integers(v, "kv_lens", "[B]", args->kv_lens, 1, &all->batch, &lens);
    if (status != FJ_OK) return status;
    s->pages = all->key.shape[0];
    s->page_size = all->key.shape[2];
    s->page_table = numbers(&table);
    s->table_width = table.shape[1];
    s->table_row = table.strides[0];
    s->kv_lens = numbers(&lens);
    if (s->page_size < 1 && s->table_width > 0) return fj_attn_bad(v, "key has pages of no rows");
    if (__builtin_mul_overflow(s->page_size, s->table_width, &all->kv_len) || all->kv_len > INT32_MAX)
        return fj_attn_bad(v, "page_table has room for %lld pages of %lld keys, which is above 2147483647",
                           (long long)s->table_width, (long long)s->page_size);
    return check_pages(v, all);
}

/* The seed and offset that the kernel reads: of the device's memory, or the call's. */
static fj_status resolve_dropout_state(const fj_validation *v, const fj_args *args, fj_dropout *dropout) {
    fj_expected want = {.name = "dropout_state",
                        .rank = 1,
                        .shape = {2},
                        .axes = "(seed, offset)",
                        .dtype = FJ_DTYPE_I64,
                        .also = FJ_DTYPE_I64};
    fj_tensor state;
    if (!args->dropout_state) return FJ_OK;
    const fj_status status = fj_attn_resolve_tensor(v, args->dropout_state, &want, &state);
    if (status != FJ_OK || v->sizing) return status;
    dropout->state = (const int64_t *)(const void *)state.data;
    if (!reads_values(v)) return FJ_OK;
    dropout->seed = (uint64_t)dropout->state[0];
    dropout->offset = (uint64_t)dropout->state[1];
    return FJ_OK;
}

static fj_status bad_dropout(const fj_validation *v, double dropout, const char *why) {
    fj_buf value;
    fj_buf_init(&value, &v->plan->device->context->allocator);
    fj_buf_double(&value, dropout);
    (void)fj_error_set(v->error, FJ_ERR_ARGUMENT, "dropout is %.*s%s", (int)value.len,
                       value.data ? value.data : "", why);
    fj_buf_finish(&value);
    return FJ_ERR_ARGUMENT;
}

fj_status fj_attn_resolve_dropout(const fj_validation *v, const fj_args *args, fj_resolved *all) {
    if (!(args->dropout >= 0 && args->dropout <= 1))
        return bad_dropout(v, args->dropout, ": a probability is from 0 to 1");
    if (!v->plan->problem.dropout) {
        if (args->dropout > 0)
            return bad_dropout(v, args->dropout, ", but the plan was made without dropout");
        return args->dropout_state
                 ? fj_attn_bad(v, "dropout_state is given, but the plan was made without dropout")
                 : FJ_OK;
    }
    all->dropout = (fj_dropout){
        .probability = args->dropout, .seed = args->dropout_seed, .offset = args->dropout_offset};
    return resolve_dropout_state(v, args, &all->dropout);
}

static fj_status resolve_offset(const fj_validation *v, const fj_args *args, fj_resolved *all) {
    fj_tensor offset;
    if (!v->plan->problem.q_offset)
        return args->q_offset ? fj_attn_bad(v, "q_offset is given, but the plan was made without it") : FJ_OK;
    fj_status status = integers(v, "q_offset", "[B]", args->q_offset, 1, &all->batch, &offset);
    if (status != FJ_OK) return status;
    all->sequences.q_offset = numbers(&offset);
    if (!reads_values(v)) return FJ_OK;
    for (int64_t b = 0; b < all->batch; b++)
        if (numbers(&offset)[b] < 0 || numbers(&offset)[b] > INT32_MAX - all->q_len)
            return fj_attn_bad(v,
                               "q_offset[%lld] is %d: positions of %lld queries reach from 0 to 2147483646",
                               (long long)b, numbers(&offset)[b], (long long)all->q_len);
    return FJ_OK;
}

/* A tensor of a form that the problem does not have. */
static fj_status check_form(const fj_validation *v, const fj_args *args) {
    const fj_form form = v->plan->problem.form;
    const struct {
        const char *name;
        const DLTensor *tensor;
        fj_form form;
    } of_forms[] = {{"cu_seqlens_q", args->cu_seqlens_q, FJ_FORM_PACKED},
                    {"cu_seqlens_kv", args->cu_seqlens_kv, FJ_FORM_PACKED},
                    {"page_table", args->page_table, FJ_FORM_PAGED},
                    {"kv_lens", args->kv_lens, FJ_FORM_PAGED}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(of_forms); i++)
        if (of_forms[i].tensor && of_forms[i].form != form)
            return fj_attn_bad(v, "%s is given, but the plan was made for another form", of_forms[i].name);
    return FJ_OK;
}

/* ---- Inputs ------------------------------------------------------------------------------------------------- */

static fj_status check_sizes(const fj_validation *v, const fj_resolved *all) {
    const struct {
        const char *what;
        int64_t value;
    } sizes[] = {{"query has a batch of", all->batch},
                 {"query has a number of heads of", all->heads_q},
                 {"query has a length of", all->q_len},
                 {"key has a length of", all->kv_len}};
    for (size_t i = 0; i < FJ_ARRAY_LEN(sizes); i++)
        if (sizes[i].value > INT32_MAX)
            return fj_attn_bad(v, "%s %lld, which is above 2147483647", sizes[i].what,
                               (long long)sizes[i].value);
    if (all->heads_kv == 0 && all->heads_q > 0)
        return fj_attn_bad(v, "query has %lld heads, but key has none", (long long)all->heads_q);
    if (all->heads_kv > 0 && all->heads_q % all->heads_kv != 0)
        return fj_attn_bad(v, "query has %lld heads, which is not a multiple of key's %lld",
                           (long long)all->heads_q, (long long)all->heads_kv);
    return FJ_OK;
}

/* Dense keys have query's batch, or 1 that serves all. */
static int64_t key_batch(const fj_validation *v, const fj_args *args, int64_t batch) {
    if (v->plan->problem.form == FJ_FORM_PAGED) return FJ_ANY_EXTENT;
    const DLTensor *key = args->key;
    if (v->plan->problem.shared_keys) return 1;
    return key && key->ndim == 4 && key->shape && key->shape[0] == 1 ? 1 : batch;
}

fj_status fj_attn_resolve_inputs(const fj_validation *v, const fj_args *args, fj_resolved *all) {
    const fj_problem *problem = &v->plan->problem;
    const int64_t e = problem->head_dim, ev = problem->value_dim, any = FJ_ANY_EXTENT;
    all->form = problem->form;
    all->head_dim = e;
    all->value_dim = ev;
    fj_status status = check_form(v, args);
    if (status == FJ_OK)
        status = input(v, "query", args->query, QUERY, (int64_t[]){any, any, any, e}, &all->query);
    if (status != FJ_OK) return status;
    all->batch = all->query.shape[0];
    all->heads_q = all->query.shape[1];
    all->q_len = all->query.shape[2];
    const int64_t batch = key_batch(v, args, all->batch);
    status = input(v, "key", args->key, KEY, (int64_t[]){batch, any, any, e}, &all->key);
    if (status != FJ_OK) return status;
    all->heads_kv = all->key.shape[1];
    all->kv_len = all->key.shape[2];
    const int64_t value[] = {all->key.shape[0], all->heads_kv, all->kv_len, ev};
    status = input(v, "value", args->value, VALUE, value, &all->value);
    if (status == FJ_OK && problem->form == FJ_FORM_PACKED) status = resolve_packed(v, args, all);
    if (status == FJ_OK && problem->form == FJ_FORM_PAGED) status = resolve_paged(v, args, all);
    if (status == FJ_OK) status = check_sizes(v, all);
    if (status == FJ_OK) status = resolve_offset(v, args, all);
    if (problem->form == FJ_FORM_DENSE && batch == 1 && all->batch != 1) {
        all->shared_keys = true;
        all->key.strides[0] = all->value.strides[0] = 0;
    }
    return status;
}

/* ---- Results ------------------------------------------------------------------------------------------------ */

typedef struct target {
    const char *name;
    const DLTensor *tensor;
    operand_kind kind;
    bool optional, written;
    fj_tensor *to;
} target;

static fj_status resolve_targets(const fj_validation *v, const fj_resolved *all, const target *targets,
                                 size_t count) {
    const int64_t batch = all->form == FJ_FORM_PACKED ? 1 : all->batch;
    const int64_t key_batch = all->key.shape[0];
    const int64_t extents[KIND_COUNT][4] = {
        [QUERY] = {batch, all->heads_q, all->q_len, all->head_dim},
        [KEY] = {key_batch, all->heads_kv, all->kv_len, all->head_dim},
        [VALUE] = {key_batch, all->heads_kv, all->kv_len, all->value_dim},
        [OUT] = {batch, all->heads_q, all->q_len, all->value_dim},
        [ROWS] = {batch, all->heads_q, all->q_len},
    };
    fj_status status = FJ_OK;
    for (size_t i = 0; i < count && status == FJ_OK; i++) {
        const target *t = &targets[i];
        const int64_t *shape = extents[t->kind];
        if (!t->tensor && t->optional) continue;
        status = t->kind == ROWS
                   ? resolve(v, t->name, t->tensor, ROWS, fj_attn_statistic(v, t->written), shape, t->to)
                   : result(v, t->name, t->tensor, t->kind, t->written, shape, t->to);
    }
    return status;
}

static fj_status resolve_forward(const fj_validation *v, const fj_args *args, fj_resolved *all) {
    if (args->max && !v->plan->problem.max)
        return fj_attn_bad(v, "max is given, but the plan was made without it");
    if (args->out_raw && !v->plan->mod->program.out)
        return fj_attn_bad(v, "out_raw is given, but the mod has no mod of the output");
    const target targets[] = {
        {"out", args->out, OUT, .optional = true, .written = true, .to = &all->out},
        {"out_raw", args->out_raw, OUT, .optional = true, .written = true, .to = &all->out_raw},
        {"lse", args->lse, ROWS, .written = true, .to = &all->lse},
        {"lse_low", args->lse_low, ROWS, .optional = true, .written = true, .to = &all->lse_low},
        {"max", args->max, ROWS, .optional = !v->plan->problem.max, .written = true, .to = &all->max},
    };
    return resolve_targets(v, all, targets, FJ_ARRAY_LEN(targets));
}

static fj_status resolve_backward(const fj_validation *v, const fj_args *args, fj_resolved *all) {
    if (args->dlse && !v->plan->problem.dlse)
        return fj_attn_bad(v, "dlse is given, but the plan was made without it");
    const bool has_out = v->plan->mod->program.out;
    if (args->out_raw && !has_out)
        return fj_attn_bad(v, "out_raw is given, but the mod has no mod of the output");
    if (has_out && !args->out_raw)
        return fj_attn_bad(
            v, "out_raw is missing: backward of a mod of the output reads what forward wrote there");
    const target targets[] = {
        {"out", args->out, OUT, .optional = has_out, .to = &all->out},
        {"out_raw", args->out_raw, OUT, .optional = !has_out, .to = &all->out_raw},
        {"lse", args->lse, ROWS, .to = &all->lse},
        {"dout", args->dout, OUT, .to = &all->dout},
        {"dlse", args->dlse, ROWS, .optional = !v->plan->problem.dlse, .to = &all->dlse},
        {"lse_low", args->lse_low, ROWS, .optional = true, .to = &all->lse_low},
        {"dquery", args->dquery, QUERY, .optional = true, .written = true, .to = &all->dquery},
        {"dkey", args->dkey, KEY, .optional = true, .written = true, .to = &all->dkey},
        {"dvalue", args->dvalue, VALUE, .optional = true, .written = true, .to = &all->dvalue},
    };
    if (all->shared_keys && !v->plan->problem.shared_keys && v->plan->device->traits->text == FJ_TEXT_GPU)
        return fj_attn_bad(
            v, "key has a batch of 1 under query's %lld, but the plan was made without shared_keys",
            (long long)all->batch);
    const fj_status status = resolve_targets(v, all, targets, FJ_ARRAY_LEN(targets));
    if (all->shared_keys) all->dkey.strides[0] = all->dvalue.strides[0] = 0;
    return status;
}

fj_status fj_attn_resolve_results(const fj_validation *v, const fj_args *args, fj_resolved *all) {
    return v->plan->problem.direction == FJ_BACKWARD ? resolve_backward(v, args, all)
                                                     : resolve_forward(v, args, all);
}
