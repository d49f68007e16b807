/* Query, key and value, and what has their shapes: read, checked against each other, and placed in five axes. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sdpa/call.h"

/* Where a tensor of the caller has its axes, from the front; -1: it has none. */
typedef struct layout {
    int batch, heads, rows, width;
} layout;

static layout dense_layout(int rank, bool has_width) {
    const int last = has_width ? rank - 1 : rank;
    return (layout){last - 3, last - 2, last - 1, has_width ? last : -1};
}

static int64_t extent_at(const DLTensor *tensor, int axis) { return axis < 0 ? 1 : tensor->shape[axis]; }

/* heads: of the call; a tensor may have a divisor of them. batch: what the call has along BATCH. */
static void place(fj_sdpa_slot *slot, const DLTensor *tensor, layout at, int64_t batch, int64_t heads) {
    const int axes[AXES] = {at.batch, at.rows, at.heads, -1, at.width};
    for (int i = 0; i < AXES; i++) {
        slot->own[i] = extent_at(tensor, axes[i]);
        slot->extent[i] = slot->own[i];
        slot->stride[i] = axes[i] < 0 ? 0 : fj_sdpa_stride(tensor, axes[i]);
    }
    slot->tensor = tensor;
    slot->present = true;
    slot->dtype = slot->kernel_dtype = fj_sdpa_dtype(tensor);
    slot->extent[BATCH] = batch;
    slot->extent[REPEAT] = slot->own[GROUP] > 0 ? heads / slot->own[GROUP] : 1;
    if (slot->own[GROUP] == 0) slot->extent[GROUP] = heads;
}

/* ---- Query, key, value ----------------------------------------------------------------------------------- */

static layout operand_layout(const fj_sdpa_call *call, const DLTensor *tensor) {
    const bool is_list = call->class.packed && tensor->ndim == 3;
    return is_list ? (layout){-1, 1, 0, 2} : dense_layout(tensor->ndim, true);
}

fj_status fj_sdpa_place_operand(fj_sdpa_call *call, int index, const char *name, const DLTensor *tensor) {
    fj_sdpa_slot *slot = &call->slots[index];
    const bool of_query = index == QUERY || index == DQUERY;
    const bool is_list = call->class.packed && tensor->ndim == 3;
    slot->name = name;
    place(slot, tensor, operand_layout(call, tensor), is_list ? 1 : call->batch,
          of_query ? call->heads : call->kv_heads);
    return FJ_OK;
}

static fj_status check_operand(const fj_sdpa_call *call, const char *name, const DLTensor *tensor) {
    const bool packed = call->class.packed;
    const fj_status status =
        packed ? fj_sdpa_check_tensor(call, name, tensor, 3, 4,
                                      "[T,H,E], the rows of all sequences, or [1,H,L,E], the same for each")
               : fj_sdpa_check_tensor(call, name, tensor, 2, 4, "[L,E], [H,L,E] or [B,H,L,E]");
    char text[FJ_SDPA_TEXT];
    if (status == FJ_OK && packed && tensor->ndim == 4 && tensor->shape[0] != 1)
        return fj_sdpa_bad(call, "%s has shape %s: of jagged calls a tensor of rank 4 has a batch of 1", name,
                           fj_sdpa_shape_text(tensor, text));
    return status;
}

static fj_status check_dtypes(const fj_sdpa_call *call) {
    const fj_dtype dtype = fj_sdpa_dtype(call->args.query);
    if (dtype != FJ_DTYPE_F16 && dtype != FJ_DTYPE_BF16 && dtype != FJ_DTYPE_F32 && dtype != FJ_DTYPE_F64)
        return fj_sdpa_bad(call, "query is %s: F16, BF16, F32 and F64 are allowed", fj_dtype_name(dtype));
    const DLTensor *const others[] = {call->args.key, call->args.value};
    for (int i = 0; i < 2; i++)
        if (fj_sdpa_dtype(others[i]) != dtype)
            return fj_sdpa_bad(call, "%s is %s, query %s: query, key and value have one dtype",
                               i ? "value" : "key", fj_dtype_name(fj_sdpa_dtype(others[i])),
                               fj_dtype_name(dtype));
    return FJ_OK;
}

static fj_status disagree(const fj_sdpa_call *call, const char *what) {
    char q[FJ_SDPA_TEXT], k[FJ_SDPA_TEXT], v[FJ_SDPA_TEXT];
    return fj_sdpa_bad(call, "query is %s, key %s, value %s: %s", fj_sdpa_shape_text(call->args.query, q),
                       fj_sdpa_shape_text(call->args.key, k), fj_sdpa_shape_text(call->args.value, v), what);
}

/* One extent of several tensors where 1 stands for any; false: they differ. */
static bool broadcast(const int64_t *extents, int count, int64_t *ret_extent) {
    int64_t all = 1;
    for (int i = 0; i < count; i++) {
        if (extents[i] == 1) continue;
        if (all != 1 && extents[i] != all) return false;
        all = extents[i];
    }
    *ret_extent = all;
    return true;
}

static int64_t common_multiple(int64_t a, int64_t b) {
    int64_t x = a, y = b, product;
    while (y != 0) {
        const int64_t rest = x % y;
        x = y;
        y = rest;
    }
    return x == 0 || __builtin_mul_overflow(a / x, b, &product) ? 0 : product;
}

/* Key's and value's heads become as many as both divide; query's are a multiple of them, or one that stands for all. */
static fj_status read_heads(fj_sdpa_call *call, const layout at[3]) {
    const int64_t q = extent_at(call->args.query, at[0].heads), k = extent_at(call->args.key, at[1].heads),
                  v = extent_at(call->args.value, at[2].heads);
    const int64_t kv = common_multiple(k, v);
    call->kv_heads = kv;
    call->heads = q == 1 ? kv : q;
    if (call->heads == 0 && (k == 0 || k == 1) && (v == 0 || v == 1)) {
        call->kv_heads = 0;
        return FJ_OK;
    }
    if (kv > 0 && call->heads > 0 && call->heads % kv == 0) return FJ_OK;
    return disagree(call, "query's heads are a multiple of key's and of value's, or 1");
}

static fj_status read_extents(fj_sdpa_call *call) {
    const DLTensor *const tensors[] = {call->args.query, call->args.key, call->args.value};
    layout at[3];
    int64_t batches[3];
    for (int i = 0; i < 3; i++) {
        at[i] = operand_layout(call, tensors[i]);
        batches[i] = extent_at(tensors[i], at[i].batch);
        if (tensors[i]->ndim > call->rank) call->rank = tensors[i]->ndim;
    }
    fj_sdpa_class *class = &call->class;
    class->head_dim = tensors[0]->shape[at[0].width];
    class->value_dim = tensors[2]->shape[at[2].width];
    if (tensors[1]->shape[at[1].width] != class->head_dim)
        return disagree(call, "query and key have one head dimension, the last extent");
    const fj_status status = read_heads(call, at);
    if (status != FJ_OK) return status;
    if (class->packed) return fj_sdpa_read_packed(call);
    if (!broadcast(batches, 3, &call->batch)) return disagree(call, "batches are equal, or 1");
    call->q_len = call->q_rows = tensors[0]->shape[at[0].rows];
    call->kv_len = call->kv_rows = tensors[1]->shape[at[1].rows];
    class->shared_keys = batches[1] == 1 && batches[2] == 1 && call->batch != 1;
    if (tensors[2]->shape[at[2].rows] != call->kv_len) return disagree(call, "key and value have one length");
    return FJ_OK;
}

/* ---- Results ---------------------------------------------------------------------------------------------- */

static fj_status expect(const fj_sdpa_call *call, const char *name, const DLTensor *tensor, int rank,
                        const int64_t *shape, const char *because) {
    int64_t copy[FJ_MAX_RANK] = {0};
    memcpy(copy, shape, (size_t)rank * sizeof *shape);
    const DLTensor wanted = {.ndim = rank, .shape = copy};
    char text[FJ_SDPA_TEXT], must[FJ_SDPA_TEXT], axes[FJ_SDPA_TEXT + 32];
    (void)snprintf(axes, sizeof axes, "%s, %s", fj_sdpa_shape_text(&wanted, must), because);
    const fj_status status = fj_sdpa_check_tensor(call, name, tensor, rank, rank, axes);
    if (status != FJ_OK || !tensor || memcmp(tensor->shape, shape, (size_t)rank * sizeof *shape) == 0)
        return status;
    return fj_sdpa_bad(call, "%s has shape %s: it is %s", name, fj_sdpa_shape_text(tensor, text), axes);
}

static fj_status expect_dtype(const fj_sdpa_call *call, const fj_sdpa_slot *slot, fj_dtype dtype) {
    if (slot->dtype == dtype || slot->dtype == FJ_DTYPE_F64) return FJ_OK;
    return fj_sdpa_bad(call, "%s is %s: it is %s, as query is %s", slot->name, fj_dtype_name(slot->dtype),
                       fj_dtype_name(dtype), fj_dtype_name(call->class.dtype));
}

fj_status fj_sdpa_refuse_overlap(const fj_sdpa_call *call, const fj_sdpa_slot *slot) {
    const DLTensor *tensor = slot->tensor;
    bool empty = false;
    for (int i = 0; i < tensor->ndim; i++) empty |= tensor->shape[i] == 0;
    for (int i = 0; i < tensor->ndim && !empty && tensor->strides; i++)
        if (tensor->shape[i] > 1 && tensor->strides[i] == 0)
            return fj_sdpa_bad(call, "%s has stride 0 in dimension %d: its elements overlap", slot->name, i);
    return FJ_OK;
}

/* The shapes of out and lse; returns the rank of out. */
static int result_shape(const fj_sdpa_call *call, bool of_rows, int64_t shape[4]) {
    const int64_t dense[] = {call->batch, call->heads, call->q_len, call->class.value_dim};
    const int64_t list[] = {call->q_rows, call->heads, call->class.value_dim};
    const int64_t rows[] = {call->heads, call->q_rows};
    const int rank = call->class.packed ? 3 : call->rank;
    if (!call->class.packed)
        memcpy(shape, dense + 4 - rank, (size_t)rank * sizeof *shape);
    else if (of_rows)
        memcpy(shape, rows, sizeof rows);
    else
        memcpy(shape, list, sizeof list);
    return rank;
}

typedef struct result {
    const char *name;
    const DLTensor *tensor;
    int index;
    bool of_rows, written, optional;
} result;

/* lse that the caller does not want is scratch. */
static void place_scratch(const fj_sdpa_call *call, fj_sdpa_slot *slot, fj_dtype dtype) {
    const int64_t extent[AXES] = {call->class.packed ? 1 : call->batch, call->q_rows, call->heads, 1, 1};
    slot->present = true;
    slot->dtype = slot->kernel_dtype = dtype;
    slot->copied = "scratch";
    memcpy(slot->extent, extent, sizeof extent);
    memcpy(slot->own, extent, sizeof extent);
}

static fj_status place_result(fj_sdpa_call *call, const result *of) {
    fj_sdpa_slot *slot = &call->slots[of->index];
    const fj_dtype dtype = call->class.dtype, statistic = dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32;
    int64_t shape[4];
    slot->name = of->name;
    slot->written = of->written;
    if (!of->tensor && of->index == LSE && of->written) {
        place_scratch(call, slot, statistic);
        return FJ_OK;
    }
    if (!of->tensor && of->optional) return FJ_OK;
    const int rank = result_shape(call, of->of_rows, shape) - of->of_rows;
    fj_status status = expect(call, of->name, of->tensor, rank, shape,
                              of->of_rows ? "a number for each query" : "as batches and heads are broadcast");
    if (status != FJ_OK) return status;
    const layout list = of->of_rows ? (layout){-1, 0, 1, -1} : (layout){-1, 1, 0, 2};
    place(slot, of->tensor, call->class.packed ? list : dense_layout(rank, !of->of_rows),
          call->class.packed ? 1 : call->batch, call->heads);
    status = expect_dtype(call, slot, of->of_rows ? statistic : dtype);
    return status == FJ_OK && of->written ? fj_sdpa_refuse_overlap(call, slot) : status;
}

static fj_status place_gradient(fj_sdpa_call *call, int index, const char *name, const DLTensor *tensor,
                                int of) {
    fj_sdpa_slot *slot = &call->slots[index];
    if (!tensor) return FJ_OK;
    const DLTensor *like = call->slots[of].tensor;
    char because[64];
    (void)snprintf(because, sizeof because, "as %s", call->slots[of].name);
    fj_status status = expect(call, name, tensor, like->ndim, like->shape, because);
    if (status == FJ_OK) status = fj_sdpa_place_operand(call, index, name, tensor);
    if (status != FJ_OK) return status;
    slot->written = true;
    status = expect_dtype(call, slot, call->class.dtype);
    return status == FJ_OK ? fj_sdpa_refuse_overlap(call, slot) : status;
}

fj_status fj_sdpa_place_results(fj_sdpa_call *call) {
    const fj_sdpa_args *args = &call->args;
    const bool backward = call->direction == FJ_BACKWARD;
    const result results[] = {
        {"out", args->out, OUT, false, !backward, false},
        {"lse", args->lse, LSE, true, !backward, false},
        {"lse_low", args->lse_low, LSE_LOW, true, !backward, true},
        {"dout", args->dout, DOUT, false, false, false},
        {"dlse", args->dlse, DLSE, true, false, true},
    };
    fj_status status = FJ_OK;
    for (size_t i = 0; i < (backward ? FJ_ARRAY_LEN(results) : 3) && status == FJ_OK; i++)
        status = place_result(call, &results[i]);
    if (!backward || status != FJ_OK) return status;
    status = place_gradient(call, DQUERY, "dquery", args->dquery, QUERY);
    if (status == FJ_OK) status = place_gradient(call, DKEY, "dkey", args->dkey, KEY);
    if (status == FJ_OK) status = place_gradient(call, DVALUE, "dvalue", args->dvalue, VALUE);
    return status;
}

/* ---- The call --------------------------------------------------------------------------------------------- */

static fj_status read_args(fj_sdpa_args *to, const fj_sdpa_args *from, fj_error *error) {
    size_t size = 0;
    *to = (fj_sdpa_args){0};
    if (!from) return fj_error_set(error, FJ_ERR_ARGUMENT, "fj_sdpa_args is NULL");
    memcpy(&size, from, sizeof size);
    if (size < sizeof size)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "fj_sdpa_args: struct_size is not set");
    memcpy(to, from, size < sizeof *to ? size : sizeof *to);
    return FJ_OK;
}

static fj_status check_numbers(const fj_sdpa_call *call) {
    const fj_sdpa_args *args = &call->args;
    if (call->direction != FJ_FORWARD && call->direction != FJ_BACKWARD)
        return fj_error_set(call->error, FJ_ERR_ARGUMENT, "unknown direction %d", (int)call->direction);
    if ((unsigned)args->causal > FJ_SDPA_LOWER_RIGHT)
        return fj_error_set(call->error, FJ_ERR_ARGUMENT, "unknown kind of causal: %d", (int)args->causal);
    if (args->backends >> FJ_SDPA_BACKENDS != 0)
        return fj_error_set(call->error, FJ_ERR_ARGUMENT, "backends has bits of no backend: 0x%x",
                            args->backends);
    if (!(args->dropout >= 0 && args->dropout <= 1))
        return fj_error_set(call->error, FJ_ERR_ARGUMENT, "dropout is a probability: 0 to 1");
    if (args->mask && args->causal != FJ_SDPA_NOT_CAUSAL)
        return fj_error_set(
            call->error, FJ_ERR_ARGUMENT,
            "mask is given, but causal too: leave one out (a mask can hide later keys itself)");
    return FJ_OK;
}

static fj_status read_operands(fj_sdpa_call *call) {
    const fj_sdpa_args *args = &call->args;
    const DLTensor *const tensors[] = {args->query, args->key, args->value};
    static const char *const names[] = {"query", "key", "value"};
    fj_status status = FJ_OK;
    for (int i = 0; i < 3 && status == FJ_OK; i++) status = check_operand(call, names[i], tensors[i]);
    if (status == FJ_OK) status = check_dtypes(call);
    if (status != FJ_OK) return status;
    call->class.dtype = fj_sdpa_dtype(args->query);
    status = read_extents(call);
    for (int i = 0; i < 3 && status == FJ_OK; i++)
        status = fj_sdpa_place_operand(call, QUERY + i, names[i], tensors[i]);
    return status;
}

fj_status fj_sdpa_read(const fj_device *device, fj_direction direction, const fj_sdpa_args *args, bool sizing,
                       fj_sdpa_call *ret_call, fj_error *error) {
    *ret_call = (fj_sdpa_call){.device = device, .direction = direction, .sizing = sizing, .error = error};
    fj_sdpa_call *call = ret_call;
    if (!device) return fj_error_set(error, FJ_ERR_ARGUMENT, "device is NULL");
    fj_status status = read_args(&call->args, args, error);
    if (status == FJ_OK) status = check_numbers(call);
    if (status != FJ_OK) return status;
    call->class = (fj_sdpa_class){
        .direction = direction,
        .packed = call->args.cu_seqlens_q || call->args.cu_seqlens_kv,
        .causal = call->args.causal,
        .nondeterministic = call->args.nondeterministic,
        .tf32 = call->args.tf32,
        .has_dlse = direction == FJ_BACKWARD && call->args.dlse,
        .has_dmask = direction == FJ_BACKWARD && call->args.dmask,
        .has_dropout = call->args.dropout > 0 || call->args.dropout_state,
        .backends = call->args.backends,
    };
    status = read_operands(call);
    if (status == FJ_OK) status = fj_sdpa_read_mask(call);
    if (status != FJ_OK) return status;
    call->scale = call->args.scale         ? *call->args.scale
                : call->class.head_dim > 0 ? 1 / sqrt((double)call->class.head_dim)
                                           : 1;
    return FJ_OK;
}

/* ---- The layout of out ------------------------------------------------------------------------------------- */

/* Dimensions from the slowest to the fastest: as query's strides fall, and as they stand where these are equal. */
static void order_dimensions(const DLTensor *query, int rank, int order[4]) {
    for (int i = 0; i < rank; i++) order[i] = i;
    if (!query || query->ndim != rank || !query->strides) return;
    for (int i = 1; i < rank; i++)
        for (int j = i; j > 0; j--) {
            const int64_t before = query->strides[order[j - 1]], here = query->strides[order[j]];
            const bool counts = query->shape[order[j - 1]] > 1 && query->shape[order[j]] > 1;
            if (!counts || before >= here) break;
            const int swap = order[j];
            order[j] = order[j - 1];
            order[j - 1] = swap;
        }
}

fj_status fj_sdpa_out_layout(const fj_device *device, const fj_sdpa_args *args, int *ret_rank,
                             int64_t ret_shape[4], int64_t ret_strides[4], fj_error *error) {
    fj_sdpa_call call;
    if (!ret_rank || !ret_shape || !ret_strides)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "ret_rank, ret_shape or ret_strides is NULL");
    const fj_status status = fj_sdpa_read(device, FJ_FORWARD, args, true, &call, error);
    if (status != FJ_OK) return status;
    int64_t shape[4], next = 1;
    int order[4] = {0};
    const int rank = result_shape(&call, false, shape);
    order_dimensions(call.args.query, rank, order);
    for (int i = rank - 1; i >= 0; i--) {
        ret_strides[order[i]] = next;
        next *= shape[order[i]] > 1 ? shape[order[i]] : 1;
    }
    memcpy(ret_shape, shape, (size_t)rank * sizeof *shape);
    *ret_rank = rank;
    return FJ_OK;
}
