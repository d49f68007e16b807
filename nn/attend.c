/* Attention kernels of layers: their mods, and calls of them. */
#include "nn/attend.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "attn/objects.h"

enum { FORMS = 2 }; /* FJ_FORM_DENSE, FJ_FORM_PACKED */

struct fj_nn_attend {
    fj_device *device; /* who holds this holds the device */
    fj_nn_attend_desc desc;
    fj_mod *mods[FORMS];
    fj_kernel *kernels[FORMS][2]; /* of each direction */
};

/* ---- Mods ------------------------------------------------------------------------------------------------- */

static bool is_tensor(fj_mask_kind kind) { return kind == FJ_MASK_BOOL || kind == FJ_MASK_FLOAT; }

/* A mask that is said to be causal is causal by positions too, so that its blocks are skipped: slack is then 0, and else as large
 * as the lengths. It is read at run time: one kernel serves both. */
static const char slack_source[] = "slack = 0\n";

/* An expression in pieces, as long as all of them can get. */
typedef struct expression {
    char text[160];
} expression;

static void append(expression *to, const char *separator, const char *piece) {
    const size_t length = strlen(to->text);
    (void)snprintf(to->text + length, sizeof to->text - length, "%s%s", length > 0 ? separator : "", piece);
}

static fj_status create_mod(fj_context *context, const fj_nn_attend_desc *desc, fj_mod **ret_mod,
                            fj_error *error) {
    expression score = {"score"}, mask = {""};
    const char *const runtime[] = {"slack"};
    const char *names[2]; /* masks have no gradient */
    fj_binding bindings[2];
    size_t count = 0;
    const bool slack = is_tensor(desc->mask);
    const fj_dtype dtypes[] = {[FJ_MASK_BOOL] = FJ_DTYPE_BOOL, [FJ_MASK_FLOAT] = desc->dtype};
    if (slack) {
        bindings[count++] = (fj_binding){"attn_mask", dtypes[desc->mask], 4, {-1, -1, -1, -1}};
        append(&mask, " & ", "(kv <= q + slack)");
    }
    if (desc->mask == FJ_MASK_CAUSAL) append(&mask, " & ", "(kv <= q)");
    if (desc->mask == FJ_MASK_BOOL) append(&mask, " & ", "~attn_mask[b, h, q, kv]");
    if (desc->mask == FJ_MASK_FLOAT) append(&score, " + ", "attn_mask[b, h, q, kv]");
    if (is_tensor(desc->padding))
        bindings[count++] = (fj_binding){"padding", dtypes[desc->padding], 2, {-1, -1}};
    if (desc->padding == FJ_MASK_BOOL) append(&mask, " & ", "~padding[b, kv]");
    if (desc->padding == FJ_MASK_FLOAT) append(&score, " + ", "padding[b, kv]");
    for (size_t i = 0; i < count; i++) names[i] = bindings[i].name;
    const fj_mod_desc mod = {.struct_size = sizeof mod,
                             .source = slack ? slack_source : NULL,
                             .source_length = slack ? sizeof slack_source - 1 : 0,
                             .file = "<layer>",
                             .score = strcmp(score.text, "score") != 0 ? score.text : NULL,
                             .mask = mask.text[0] ? mask.text : NULL,
                             .runtime_params = runtime,
                             .runtime_param_count = slack,
                             .bindings = bindings,
                             .binding_count = count,
                             .constants = names,
                             .constant_count = count};
    return fj_mod_create(context, &mod, ret_mod, error);
}

static fj_status create_kernel(fj_device *device, const fj_nn_attend_desc *desc, const fj_mod *mod,
                               fj_form form, fj_direction direction, fj_kernel **ret_kernel,
                               fj_error *error) {
    const fj_problem problem = {.struct_size = sizeof problem,
                                .direction = direction,
                                .dtype = desc->dtype,
                                .head_dim = (int)desc->head_dim,
                                .value_dim = (int)desc->head_dim,
                                .gqa = 1,
                                .form = form,
                                .dropout = desc->dropout};
    fj_plan *plan = NULL;
    fj_status status = fj_plan_create(device, mod, &problem, &plan, error);
    if (status == FJ_OK) status = fj_kernel_create(plan, ret_kernel, error);
    fj_plan_unref(&plan);
    return status;
}

static fj_status create_form(fj_nn_attend *attend, fj_form form, fj_error *error) {
    fj_nn_attend_desc desc = attend->desc;
    if (form == FJ_FORM_PACKED) desc.padding = FJ_MASK_NONE;
    fj_status status = create_mod(attend->device->context, &desc, &attend->mods[form], error);
    for (int direction = FJ_FORWARD; direction <= (desc.backward ? FJ_BACKWARD : FJ_FORWARD); direction++)
        if (status == FJ_OK)
            status = create_kernel(attend->device, &desc, attend->mods[form], form, (fj_direction)direction,
                                   &attend->kernels[form][direction], error);
    return status;
}

static fj_status check_desc(const fj_nn_attend_desc *desc, fj_error *error) {
    if (desc->dtype != FJ_DTYPE_F32 && desc->dtype != FJ_DTYPE_F64)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "dtype %s is not supported: layers are F32 or F64",
                            (unsigned)desc->dtype < FJ_DTYPE_COUNT ? fj_dtype_name(desc->dtype) : "unknown");
    if ((unsigned)desc->mask > FJ_MASK_CAUSAL || (unsigned)desc->padding > FJ_MASK_FLOAT)
        return fj_error_set(error, FJ_ERR_ARGUMENT,
                            desc->padding == FJ_MASK_CAUSAL
                                ? "a key padding mask can't be FJ_MASK_CAUSAL, which is for attention masks"
                                : "unknown kind of mask: %d",
                            (int)((unsigned)desc->mask > FJ_MASK_CAUSAL ? desc->mask : desc->padding));
    if (desc->mask == FJ_MASK_BOOL && desc->padding == FJ_MASK_FLOAT)
        return fj_error_set(
            error, FJ_ERR_ARGUMENT,
            "a floating key padding mask can't go with a BOOL attention mask: make both BOOL or "
            "both floating");
    return FJ_OK;
}

fj_status fj_nn_attend_create(fj_device *device, const fj_nn_attend_desc *desc, fj_nn_attend **ret_attend,
                              fj_error *error) {
    fj_status status = check_desc(desc, error);
    if (status != FJ_OK) return status;
    fj_nn_attend *attend = fj_alloc_zeroed(&device->context->allocator, sizeof *attend);
    if (!attend) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    attend->desc = *desc;
    attend->device = device;
    status = create_form(attend, FJ_FORM_DENSE, error);
    if (status == FJ_OK && desc->packed) status = create_form(attend, FJ_FORM_PACKED, error);
    if (status == FJ_OK)
        *ret_attend = attend;
    else
        fj_nn_attend_destroy(&attend);
    return status;
}

void fj_nn_attend_destroy(fj_nn_attend **attend) {
    if (!attend || !*attend) return;
    for (int form = 0; form < FORMS; form++) {
        for (int direction = 0; direction < 2; direction++)
            fj_kernel_unref(&(*attend)->kernels[form][direction]);
        fj_mod_unref(&(*attend)->mods[form]);
    }
    fj_free(&(*attend)->device->context->allocator, *attend, sizeof **attend);
    *attend = NULL;
}

/* ---- A call of a kernel ------------------------------------------------------------------------------------- */

typedef struct view {
    DLTensor tensor;
    int64_t shape[4], strides[4];
} view;

enum { QUERY, KEY, VALUE, OUT, LSE, DOUT, DQUERY, DKEY, DVALUE, CU, VIEW_COUNT };

typedef struct bound {
    view views[VIEW_COUNT];
    view masks[2];
    const DLTensor *captures[2];
    fj_scalar slack;
    fj_args args;
} bound;

static void set_view(view *v, void *data, fj_dtype dtype, int rank) {
    v->tensor = (DLTensor){.data = data,
                           .device = {kDLCPU, 0},
                           .ndim = rank,
                           .dtype = fj_dtype_to_dlpack(dtype),
                           .shape = v->shape,
                           .strides = v->strides};
}

static void add_axis(view *v, int axis, int64_t extent, int64_t stride) {
    v->shape[axis] = extent;
    v->strides[axis] = stride;
}

/* Columns of rows as [B,H,L,E/H], or packed [T,H,E/H]. */
static void view_columns(const fj_nn_attend_desc *desc, const fj_nn_attention *call, fj_nn_columns columns,
                         int64_t length, view *v) {
    const int64_t ld = columns.ld, rows_b = call->batch_first ? length : 1,
                  rows_l = call->batch_first ? 1 : call->batch;
    int axis = 0;
    set_view(v, columns.data, desc->dtype, call->cu ? 3 : 4);
    if (call->cu) {
        add_axis(v, axis++, length, ld);
        add_axis(v, axis++, desc->heads, desc->head_dim);
    } else {
        add_axis(v, axis++, call->batch, rows_b * ld);
        add_axis(v, axis++, desc->heads, desc->head_dim);
        add_axis(v, axis++, length, rows_l * ld);
    }
    add_axis(v, axis, desc->head_dim, 1);
}

static void view_lse(const fj_nn_attend_desc *desc, const fj_nn_attention *call, view *v) {
    int axis = 0;
    set_view(v, call->lse, desc->dtype, call->cu ? 2 : 3);
    if (!call->cu) add_axis(v, axis++, call->batch, desc->heads * call->q_len);
    add_axis(v, axis++, desc->heads, call->q_len);
    add_axis(v, axis, call->q_len, 1);
}

/* Stride of an axis of a mask; 0 where it has an extent of 1. */
static int64_t stride_of(const DLTensor *t, int axis) {
    int64_t stride = 1;
    if (t->shape[axis] == 1) return 0;
    if (t->strides) return t->strides[axis];
    for (int i = axis + 1; i < t->ndim; i++) stride *= t->shape[i];
    return stride;
}

/* The mask as [B,H,L,S]. */
static void view_mask(const fj_nn_attend_desc *desc, const fj_nn_attention *call, const DLTensor *mask,
                      view *v) {
    const int rank = mask->ndim;
    set_view(v, fj_nn_data(mask), desc->mask == FJ_MASK_BOOL ? FJ_DTYPE_BOOL : desc->dtype, 4);
    const int64_t outer = rank == 3 ? stride_of(mask, 0) : 0;
    add_axis(v, 0, call->batch, rank == 4 ? stride_of(mask, 0) : outer * desc->heads);
    add_axis(v, 1, desc->heads, rank == 4 ? stride_of(mask, 1) : outer);
    add_axis(v, 2, call->q_len, stride_of(mask, rank - 2));
    add_axis(v, 3, call->kv_len, 1);
}

/* A row of zeros, which hide nothing and add nothing, for every query. */
static void view_zeros(fj_dtype dtype, int rank, const int64_t *shape, void *zeros, view *v) {
    set_view(v, zeros, dtype, rank);
    for (int i = 0; i < rank; i++) add_axis(v, i, shape[i], i == rank - 1);
}

/* Whether a BOOL mask hides exactly what is later: as PyTorch's layers find out. */
static bool hides_the_future(const DLTensor *mask) {
    const uint8_t *data = fj_nn_data(mask);
    if (mask->ndim != 2 || mask->shape[0] != mask->shape[1]) return false;
    const int64_t length = mask->shape[0], stride = stride_of(mask, 0);
    for (int64_t q = 0; q < length; q++)
        for (int64_t kv = 0; kv < length; kv++)
            if ((data[q * stride + kv] != 0) != (kv > q)) return false;
    return true;
}

/* What positions alone say of a mask: everything (1: it need not be read), that the future is hidden, or nothing. */
typedef struct causality {
    bool future_is_hidden, is_all;
} causality;

static causality find_causality(const fj_nn_attend_desc *desc, const fj_nn_masks *masks, bool sizing) {
    causality found = {desc->mask == FJ_MASK_CAUSAL, desc->mask == FJ_MASK_CAUSAL};
    if (!masks->mask) return found;
    found.future_is_hidden = masks->is_causal;
    if (desc->mask == FJ_MASK_BOOL && !sizing && hides_the_future(masks->mask))
        found = (causality){true, true};
    return found;
}

static void bind_masks(const fj_nn_attend *attend, const fj_nn_attention *call, void *zeros, bool sizing,
                       bound *to) {
    const fj_nn_attend_desc *desc = &attend->desc;
    const causality found = find_causality(desc, &call->masks, sizing);
    const fj_form form = call->cu ? FJ_FORM_PACKED : FJ_FORM_DENSE;
    const int64_t lengths[] = {call->batch, desc->heads, call->q_len, call->kv_len};
    const int64_t keys[] = {call->batch, call->kv_len};
    const fj_dtype mask_dtype = desc->mask == FJ_MASK_BOOL ? FJ_DTYPE_BOOL : desc->dtype;
    if (call->masks.mask && !found.is_all)
        view_mask(desc, call, call->masks.mask, &to->masks[0]);
    else
        view_zeros(mask_dtype, 4, lengths, zeros, &to->masks[0]);
    const DLTensor *padding = call->masks.padding;
    view_zeros(desc->padding == FJ_MASK_BOOL ? FJ_DTYPE_BOOL : desc->dtype, 2, keys,
               padding ? fj_nn_data(padding) : zeros, &to->masks[1]);
    if (padding && padding->ndim == 2) to->masks[1].strides[0] = stride_of(padding, 0);
    const size_t captures = fj_mod_capture_count(attend->mods[form]);
    for (size_t i = 0; i < captures; i++) {
        const bool is_mask = strcmp(fj_mod_capture(attend->mods[form], i).name, "attn_mask") == 0;
        to->captures[i] = &to->masks[is_mask ? 0 : 1].tensor;
    }
    to->slack.i = found.future_is_hidden ? 0 : call->kv_len;
    to->args.captures = to->captures;
    to->args.scalars = fj_mod_scalar_count(attend->mods[form]) > 0 ? &to->slack : NULL;
}

static void bind(const fj_nn_attend *attend, const fj_nn_attention *call, fj_direction direction, void *zeros,
                 bool sizing, bound *to) {
    const fj_nn_attend_desc *desc = &attend->desc;
    const bool backward = direction == FJ_BACKWARD;
    memset(to, 0, sizeof *to);
    const struct {
        fj_nn_columns columns;
        int64_t length;
        int index;
        bool used;
    } columns[] = {
        {call->q, call->q_len, QUERY, true},       {call->k, call->kv_len, KEY, true},
        {call->v, call->kv_len, VALUE, true},      {call->out, call->q_len, OUT, true},
        {call->dout, call->q_len, DOUT, backward}, {call->dq, call->q_len, DQUERY, backward},
        {call->dk, call->kv_len, DKEY, backward},  {call->dv, call->kv_len, DVALUE, backward},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(columns); i++)
        if (columns[i].used)
            view_columns(desc, call, columns[i].columns, columns[i].length, &to->views[columns[i].index]);
    view_lse(desc, call, &to->views[LSE]);
    view *v = to->views;
    to->args = (fj_args){.struct_size = sizeof to->args,
                         .query = &v[QUERY].tensor,
                         .key = &v[KEY].tensor,
                         .value = &v[VALUE].tensor,
                         .out = &v[OUT].tensor,
                         .lse = &v[LSE].tensor,
                         .scale = fj_nn_attend_scale(desc),
                         .dropout = call->dropout,
                         .dropout_seed = call->seed,
                         .dropout_offset = call->offset};
    if (backward) {
        to->args.dout = &v[DOUT].tensor;
        to->args.dquery = &v[DQUERY].tensor;
        to->args.dkey = &v[DKEY].tensor;
        to->args.dvalue = &v[DVALUE].tensor;
    }
    if (call->cu) {
        set_view(&v[CU], (void *)(uintptr_t)call->cu, FJ_DTYPE_I32, 1);
        add_axis(&v[CU], 0, call->batch + 1, 1);
        to->args.cu_seqlens_q = to->args.cu_seqlens_kv = &v[CU].tensor;
    }
    bind_masks(attend, call, zeros, sizing, to);
}

/* Zeros in front of the kernel's workspace. */
static size_t zeros_size(const fj_nn_attend *attend, const fj_nn_attention *call) {
    fj_nn_cursor cursor = {0};
    if (is_tensor(attend->desc.mask) || is_tensor(attend->desc.padding))
        (void)fj_nn_take(&cursor, call->kv_len, 1, fj_dtype_size(attend->desc.dtype));
    return cursor.used;
}

static const fj_kernel *kernel_of(const fj_nn_attend *attend, const fj_nn_attention *call,
                                  fj_direction direction) {
    return attend->kernels[call->cu ? FJ_FORM_PACKED : FJ_FORM_DENSE][direction];
}

fj_status fj_nn_attend_take(const fj_nn_attend *attend, const fj_nn_run *run, const fj_nn_attention *call,
                            fj_direction direction, fj_nn_cursor *cursor, void **ret_workspace,
                            size_t *ret_size, fj_error *error) {
    bound to;
    size_t size = 0;
    bind(attend, call, direction, NULL, true, &to);
    const fj_status status =
        fj_kernel_workspace(kernel_of(attend, call, direction), &to.args, &run->launch, &size, error);
    if (status != FJ_OK) return status;
    size += zeros_size(attend, call);
    *ret_workspace = fj_nn_take(cursor, (int64_t)size, 1, 1);
    *ret_size = size;
    return FJ_OK;
}

fj_status fj_nn_attend_run(const fj_nn_attend *attend, const fj_nn_run *run, const fj_nn_attention *call,
                           fj_direction direction, void *workspace, size_t size, fj_error *error) {
    bound to;
    const size_t zeros = zeros_size(attend, call);
    if (zeros > 0) memset(workspace, 0, zeros);
    bind(attend, call, direction, workspace, false, &to);
    return fj_kernel_launch(kernel_of(attend, call, direction), &to.args, &run->launch,
                            (char *)workspace + zeros, size - zeros, error);
}

/* ---- For others --------------------------------------------------------------------------------------------- */

fj_nn_mask_view fj_nn_attend_masks(const fj_nn_attend *attend, const fj_nn_attention *call) {
    const fj_nn_attend_desc *desc = &attend->desc;
    bound to = {0};
    bind_masks(attend, call, NULL, false, &to);
    const bool is_all = find_causality(desc, &call->masks, false).is_all;
    return (fj_nn_mask_view){
        .mask = call->masks.mask && !is_all ? to.masks[0].tensor.data : NULL,
        .padding = call->masks.padding ? to.masks[1].tensor.data : NULL,
        .mask_is_bool = desc->mask == FJ_MASK_BOOL,
        .padding_is_bool = desc->padding == FJ_MASK_BOOL,
        .mask_strides = {to.masks[0].strides[0], to.masks[0].strides[1], to.masks[0].strides[2]},
        .padding_stride = to.masks[1].strides[0],
        .future_is_hidden = find_causality(desc, &call->masks, false).future_is_hidden,
    };
}

const fj_nn_attend_desc *fj_nn_attend_describe(const fj_nn_attend *attend) { return &attend->desc; }

double fj_nn_attend_scale(const fj_nn_attend_desc *desc) { return 1 / sqrt((double)desc->head_dim); }
