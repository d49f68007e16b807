/* Sequences: their lists, and what they say about lengths. Only where the host can read the lists are their values checked. */
#include "sdpa/call.h"

static bool reads_lists(const fj_sdpa_call *call) {
    return fj_device_dlpack(call->device).device_type != kDLCUDA;
}

static int64_t entry(const DLTensor *list, int64_t index) {
    const char *data = (const char *)list->data + list->byte_offset;
    const int64_t at = index * fj_sdpa_stride(list, 0);
    return fj_sdpa_dtype(list) == FJ_DTYPE_I64 ? ((const int64_t *)(const void *)data)[at]
                                               : ((const int32_t *)(const void *)data)[at];
}

static fj_status check_form(fj_sdpa_call *call, const char *name, const DLTensor *list) {
    const bool sizing = call->sizing;
    call->sizing = false; /* the values are read */
    const fj_status status =
        fj_sdpa_check_tensor(call, name, list, 1, 1, "[B+1], the first row of each sequence and the end");
    call->sizing = sizing;
    if (status != FJ_OK) return status;
    const fj_dtype dtype = fj_sdpa_dtype(list);
    if (dtype != FJ_DTYPE_I32 && dtype != FJ_DTYPE_I64)
        return fj_sdpa_bad(call, "%s is %s: I32 and I64 are allowed", name, fj_dtype_name(dtype));
    if (list->shape[0] < 1) return fj_sdpa_bad(call, "%s is empty: it has B + 1 elements", name);
    const int64_t batch = list->shape[0] - 1;
    if (call->batch >= 0 && batch != call->batch)
        return fj_sdpa_bad(call, "%s has %lld elements, cu_seqlens_q %lld: both have B + 1", name,
                           (long long)batch + 1, (long long)call->batch + 1);
    call->batch = batch;
    return FJ_OK;
}

/* From 0, never less than before, to all rows. */
static fj_status check_values(const fj_sdpa_call *call, const char *name, const DLTensor *list, int64_t rows,
                              const char *of, int64_t *ret_longest) {
    *ret_longest = rows;
    if (!reads_lists(call)) return FJ_OK;
    int64_t before = entry(list, 0), longest = 0;
    if (before != 0) return fj_sdpa_bad(call, "%s begins with %lld, not with 0", name, (long long)before);
    for (int64_t b = 0; b < call->batch; b++) {
        const int64_t next = entry(list, b + 1);
        if (next < before)
            return fj_sdpa_bad(call, "%s decreases from %lld to %lld at index %lld", name, (long long)before,
                               (long long)next, (long long)b + 1);
        if (next - before > longest) longest = next - before;
        before = next;
    }
    if (before != rows)
        return fj_sdpa_bad(call, "%s ends with %lld, but %s has %lld rows", name, (long long)before, of,
                           (long long)rows);
    *ret_longest = longest;
    return FJ_OK;
}

static fj_status repeated_rows(const fj_sdpa_call *call, const char *name, int64_t length,
                               int64_t *ret_rows) {
    if (!__builtin_mul_overflow(length, call->batch, ret_rows) && *ret_rows <= INT32_MAX) return FJ_OK;
    return fj_sdpa_bad(call, "%s has %lld rows for each of %lld sequences, more than 2147483647 in all", name,
                       (long long)length, (long long)call->batch);
}

/* One of key and value may be the same for every sequence, where all of the other have its length. */
static fj_status check_lengths(const fj_sdpa_call *call, const char *name, int64_t length) {
    const DLTensor *list = call->args.cu_seqlens_kv;
    for (int64_t b = 0; b < call->batch && reads_lists(call); b++)
        if (entry(list, b + 1) - entry(list, b) != length)
            return fj_sdpa_bad(
                call, "%s is the same %lld rows for every sequence, but sequence %lld has %lld keys", name,
                (long long)length, (long long)b, (long long)(entry(list, b + 1) - entry(list, b)));
    return FJ_OK;
}

static fj_status read_keys(fj_sdpa_call *call) {
    const fj_sdpa_args *args = &call->args;
    const DLTensor *const tensors[] = {args->key, args->value};
    static const char *const names[] = {"key", "value"};
    const bool listed[] = {args->key->ndim == 3, args->value->ndim == 3};
    call->shared_lists = !args->cu_seqlens_kv;
    if (call->shared_lists && (listed[0] || listed[1]))
        return fj_sdpa_bad(call, "cu_seqlens_kv is missing: %s has the rows of all sequences",
                           listed[0] ? "key" : "value");
    if (!call->shared_lists && !listed[0] && !listed[1])
        return fj_sdpa_bad(call, "cu_seqlens_kv is given, but key and value are the same for every sequence");
    const DLTensor *rows = listed[0] ? args->key : args->value;
    fj_status status = FJ_OK;
    if (call->shared_lists) {
        call->kv_len = args->key->shape[2];
        if (args->value->shape[2] != call->kv_len)
            return fj_sdpa_bad(call, "value has %lld rows, key %lld: they have one length",
                               (long long)args->value->shape[2], (long long)call->kv_len);
        return repeated_rows(call, "key", call->kv_len, &call->kv_rows);
    }
    call->kv_rows = rows->shape[0];
    status = check_values(call, "cu_seqlens_kv", args->cu_seqlens_kv, call->kv_rows,
                          listed[0] ? "key" : "value", &call->kv_len);
    for (int i = 0; i < 2 && status == FJ_OK; i++) {
        if (!listed[i])
            status = check_lengths(call, names[i], tensors[i]->shape[2]);
        else if (tensors[i]->shape[0] != call->kv_rows)
            status = fj_sdpa_bad(call, "value has %lld rows, key %lld: they have one length",
                                 (long long)tensors[1]->shape[0], (long long)call->kv_rows);
    }
    return status;
}

fj_status fj_sdpa_read_packed(fj_sdpa_call *call) {
    const fj_sdpa_args *args = &call->args;
    const DLTensor *query = args->query;
    fj_status status = FJ_OK;
    call->batch = -1;
    if (args->cu_seqlens_q) status = check_form(call, "cu_seqlens_q", args->cu_seqlens_q);
    if (status == FJ_OK && args->cu_seqlens_kv)
        status = check_form(call, "cu_seqlens_kv", args->cu_seqlens_kv);
    if (status != FJ_OK) return status;
    call->shared_query = !args->cu_seqlens_q;
    if (call->shared_query != (query->ndim == 4))
        return fj_sdpa_bad(call, call->shared_query
                                     ? "cu_seqlens_q is missing: query has the rows of all sequences"
                                     : "cu_seqlens_q is given, but query is the same for every sequence");
    call->q_len = query->shape[call->shared_query ? 2 : 0];
    call->q_rows = call->q_len;
    status = call->shared_query
               ? repeated_rows(call, "query", call->q_len, &call->q_rows)
               : check_values(call, "cu_seqlens_q", args->cu_seqlens_q, call->q_rows, "query", &call->q_len);
    return status == FJ_OK ? read_keys(call) : status;
}

/* ---- Lists for the kernel: I32, one after the other ------------------------------------------------------- */

bool fj_sdpa_makes_list(const fj_sdpa_call *call, bool of_keys) {
    const DLTensor *list = of_keys ? call->args.cu_seqlens_kv : call->args.cu_seqlens_q;
    if (!call->class.packed) return false;
    return !list || fj_sdpa_dtype(list) != FJ_DTYPE_I32 ||
           (list->shape[0] > 1 && fj_sdpa_stride(list, 0) != 1);
}

void fj_sdpa_make_list(const fj_sdpa_call *call, bool of_keys, int32_t *list) {
    const DLTensor *from = of_keys ? call->args.cu_seqlens_kv : call->args.cu_seqlens_q;
    const int64_t length = of_keys ? call->kv_len : call->q_len;
    for (int64_t b = 0; b <= call->batch; b++) list[b] = (int32_t)(from ? entry(from, b) : b * length);
}
