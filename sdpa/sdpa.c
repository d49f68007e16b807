/* Scaled dot product attention: a call becomes a launch of a kernel of flexjit.h.
 *
 *     fj_sdpa_read    operands.c, mask.c, jagged.c    what the tensors are, in five axes; the class
 *     fj_sdpa_choose  backends.c                      the class's mod, and a plan
 *     fj_kernel_launch                                between copies (copies.c), where there are any
 *
 * The workspace: | the kernel's | copies | cu_seqlens as the kernel takes them |, each part aligned to 256 bytes. */
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "sdpa/call.h"

struct fj_sdpa_op {
    atomic_int refs;
    fj_device *device, *host; /* host: whose memory this is */
    fj_mod *mod;
    fj_plan *plan;
    fj_kernel *kernel;
    fj_sdpa_class class;
    fj_sdpa_backend backend;
};

/* ---- Life ------------------------------------------------------------------------------------------------------- */

static void destroy(fj_sdpa_op *op) {
    fj_device *host = op->host;
    void *memory = op;
    fj_kernel_unref(&op->kernel);
    fj_plan_unref(&op->plan);
    fj_mod_unref(&op->mod);
    fj_device_free(host, &memory);
    fj_device_unref(&host);
}

void fj_sdpa_unref(fj_sdpa_op **op) {
    if (!op || !*op) return;
    fj_sdpa_op *last = *op;
    *op = NULL;
    if (atomic_fetch_sub_explicit(&last->refs, 1, memory_order_acq_rel) == 1) destroy(last);
}

/* Every reason: in the text what fits, else all of them on lines of the detail. */
static fj_status none_is_left(const fj_sdpa_choice *choice, fj_error *error) {
    char text[400] = "", lines[FJ_SDPA_BACKENDS * 280] = "";
    size_t at = 0, line = 0;
    for (int i = 0; i < FJ_SDPA_BACKENDS; i++) {
        const char *name = fj_sdpa_backend_name(i), *reason = choice->report.refused[i];
        if (at < sizeof text)
            at += (size_t)snprintf(text + at, sizeof text - at, "%s%s: %s", i ? "; " : "", name, reason);
        line += (size_t)snprintf(lines + line, sizeof lines - line, "%s: %s\n", name, reason);
    }
    (void)fj_error_set(error, FJ_ERR_UNSUPPORTED, "no backend is left for this call: %s%s", text,
                       at < sizeof text ? "" : "...");
    if (error && at >= sizeof text) fj_error_detail(error, lines, line);
    return FJ_ERR_UNSUPPORTED;
}

static fj_status make(const fj_sdpa_call *call, fj_sdpa_choice *choice, fj_sdpa_op **ret_op,
                      fj_error *error) {
    fj_device *host = NULL;
    void *memory = NULL;
    fj_status status = fj_device_create(fj_device_context(choice->device), FJ_DEVICE_REFERENCE, &host, error);
    if (status == FJ_OK) status = fj_device_alloc(host, sizeof **ret_op, &memory, error);
    if (status != FJ_OK) {
        fj_device_unref(&host);
        return status;
    }
    fj_sdpa_op *op = memory;
    *op = (fj_sdpa_op){.host = host,
                       .device = choice->device,
                       .mod = choice->mod,
                       .plan = choice->plan,
                       .class = call->class,
                       .backend = choice->report.backend};
    atomic_init(&op->refs, 1);
    *choice = (fj_sdpa_choice){0};
    status = fj_kernel_create(op->plan, &op->kernel, error);
    if (status == FJ_OK)
        *ret_op = op;
    else
        destroy(op);
    return status;
}

/* The definition is slow: who did not ask for it is told. */
static void warn_of_math(const fj_device *device, const fj_sdpa_call *call, const fj_sdpa_choice *choice) {
    char message[700] = "";
    size_t at =
        (size_t)snprintf(message, sizeof message, "sdpa: the math backend computes this call, slowly");
    if (choice->report.backend != FJ_SDPA_MATH || choice->device == device ||
        call->class.backends == 1u << FJ_SDPA_MATH)
        return;
    for (int i = 0; i < FJ_SDPA_MATH && at < sizeof message; i++)
        at += (size_t)snprintf(message + at, sizeof message - at, "; %s: %s", fj_sdpa_backend_name(i),
                               choice->report.refused[i]);
    fj_context_log(fj_device_context(device), FJ_LOG_WARN, message);
}

fj_status fj_sdpa_create(fj_device *device, fj_direction direction, const fj_sdpa_args *args,
                         fj_sdpa_op **ret_op, fj_error *error) {
    fj_sdpa_call call;
    fj_sdpa_choice choice;
    if (!ret_op) return fj_error_set(error, FJ_ERR_ARGUMENT, "ret_op is NULL");
    fj_status status = fj_sdpa_read(device, direction, args, true, &call, error);
    if (status == FJ_OK && call.args.out) status = fj_sdpa_place_results(&call);
    if (status == FJ_OK) status = fj_sdpa_choose(device, &call, &choice, error);
    if (status != FJ_OK) return status;
    warn_of_math(device, &call, &choice);
    status = choice.plan ? make(&call, &choice, ret_op, error) : none_is_left(&choice, error);
    fj_sdpa_choice_finish(&choice);
    return status;
}

fj_sdpa_info fj_sdpa_describe(const fj_sdpa_op *op) {
    return (fj_sdpa_info){op->backend, fj_kernel_describe(op->kernel)};
}

const fj_plan *fj_sdpa_plan(const fj_sdpa_op *op) { return op->plan; }

/* ---- A launch ----------------------------------------------------------------------------------------------------- */

/* What the kernel is given. It points into itself. */
typedef struct launch {
    fj_sdpa_call call;
    fj_args args;
    const DLTensor *captures[3], *dcaptures[3];
    fj_scalar scalars[1];
    DLTensor lists[2];
    int64_t list_extent;
    bool made[2];                  /* lists of the host's making */
    size_t copies, lists_at, size; /* in bytes of what follows the kernel's workspace */
} launch;

static const DLTensor *slot_tensor(const launch *of, int index) {
    const fj_sdpa_slot *slot = &of->call.slots[index];
    return slot->present ? &slot->kernel : NULL;
}

static fj_status read_launch(const fj_sdpa_op *op, const fj_sdpa_args *args, bool sizing, launch *ret,
                             fj_error *error) {
    if (!op) return fj_error_set(error, FJ_ERR_ARGUMENT, "op is NULL");
    fj_status status = fj_sdpa_read(op->device, op->class.direction, args, sizing, &ret->call, error);
    if (status == FJ_OK) status = fj_sdpa_place_results(&ret->call);
    if (status == FJ_OK) status = fj_sdpa_take_class(&ret->call, &op->class);
    ret->call.takes_wide = op->backend == FJ_SDPA_MATH;
    if (status == FJ_OK) status = fj_sdpa_lay_out(&ret->call, &ret->copies);
    if (status != FJ_OK) return status;
    char copies[512];
    fj_sdpa_tell_copies(&ret->call, copies, sizeof copies);
    const bool of_gpu = fj_device_dlpack(op->device).device_type == kDLCUDA;
    for (int i = 0; i < 2; i++) ret->made[i] = fj_sdpa_makes_list(&ret->call, i);
    if (of_gpu && (copies[0] || ret->made[0] || ret->made[1]))
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "the host cannot copy memory of cuda: %.400s",
                            copies[0] ? copies : "give cu_seqlens_q and cu_seqlens_kv, both I32");
    const size_t list = ((size_t)(ret->call.batch + 1) * sizeof(int32_t) + 255) / 256 * 256;
    ret->list_extent = ret->call.batch + 1;
    ret->lists_at = ret->copies;
    ret->size = ret->copies + ((size_t)ret->made[0] + (size_t)ret->made[1]) * list;
    return FJ_OK;
}

static const DLTensor *bind_list(launch *of, bool of_keys, int32_t *made) {
    DLTensor *list = &of->lists[of_keys];
    if (!of->call.class.packed) return NULL;
    if (!of->made[of_keys]) return of_keys ? of->call.args.cu_seqlens_kv : of->call.args.cu_seqlens_q;
    *list = (DLTensor){.data = made,
                       .device = fj_device_dlpack(of->call.device),
                       .ndim = 1,
                       .dtype = fj_dtype_to_dlpack(FJ_DTYPE_I32),
                       .shape = &of->list_extent};
    fj_sdpa_make_list(&of->call, of_keys, made);
    return list;
}

/* Captures are known by name, lists of sequences too. */
static void bind_captures(const fj_sdpa_op *op, launch *of) {
    for (size_t i = 0; i < fj_mod_capture_count(op->mod) && i < FJ_ARRAY_LEN(of->captures); i++) {
        const char *name = fj_mod_capture(op->mod, i).name;
        const bool is_mask = strcmp(name, "mask") == 0;
        of->captures[i] = is_mask                           ? slot_tensor(of, MASK)
                        : strcmp(name, "cu_seqlens_q") == 0 ? of->args.cu_seqlens_q
                                                            : of->args.cu_seqlens_kv;
        of->dcaptures[i] = is_mask ? slot_tensor(of, DMASK) : NULL;
    }
    of->scalars[0].i = of->call.kv_len - of->call.q_len;
}

/* memory: what follows the kernel's workspace, or only lists for a call that is sized. */
static void bind(const fj_sdpa_op *op, launch *of, char *copies, char *lists) {
    const fj_sdpa_args *args = &of->call.args;
    const size_t list = of->made[0] ? ((size_t)of->list_extent * sizeof(int32_t) + 255) / 256 * 256 : 0;
    fj_sdpa_bind(&of->call, copies);
    of->args = (fj_args){
        .struct_size = sizeof of->args,
        .query = slot_tensor(of, QUERY),
        .key = slot_tensor(of, KEY),
        .value = slot_tensor(of, VALUE),
        .out = slot_tensor(of, OUT),
        .lse = slot_tensor(of, LSE),
        .lse_low = slot_tensor(of, LSE_LOW),
        .dout = slot_tensor(of, DOUT),
        .dlse = slot_tensor(of, DLSE),
        .dquery = slot_tensor(of, DQUERY),
        .dkey = slot_tensor(of, DKEY),
        .dvalue = slot_tensor(of, DVALUE),
        .captures = of->captures,
        .dcaptures = of->dcaptures,
        .scalars = of->scalars,
        .scale = of->call.scale,
        .cu_seqlens_q = bind_list(of, false, (int32_t *)(void *)lists),
        .cu_seqlens_kv = bind_list(of, true, (int32_t *)(void *)(lists ? lists + list : NULL)),
        .dropout = args->dropout,
        .dropout_seed = args->dropout_seed,
        .dropout_offset = args->dropout_offset,
        .dropout_state = args->dropout_state,
    };
    bind_captures(op, of);
}

/* The kernel's part of the workspace depends on the lists, so these are made before there is one. */
static fj_status size_launch(const fj_sdpa_op *op, launch *of, const fj_launch *how, size_t *ret_size,
                             fj_error *error) {
    void *lists = NULL;
    fj_status status = FJ_OK;
    if (of->size > of->lists_at) status = fj_device_alloc(op->host, of->size - of->lists_at, &lists, error);
    if (status != FJ_OK) return status;
    bind(op, of, NULL, lists);
    status = fj_kernel_workspace(op->kernel, &of->args, how, ret_size, error);
    *ret_size = (*ret_size + 255) / 256 * 256;
    fj_device_free(op->host, &lists);
    return status;
}

fj_status fj_sdpa_workspace(const fj_sdpa_op *op, const fj_sdpa_args *args, const fj_launch *how,
                            size_t *ret_size, fj_error *error) {
    launch of = {0};
    size_t kernel = 0;
    if (!ret_size) return fj_error_set(error, FJ_ERR_ARGUMENT, "ret_size is NULL");
    fj_status status = read_launch(op, args, true, &of, error);
    if (status == FJ_OK) status = size_launch(op, &of, how, &kernel, error);
    if (status == FJ_OK) *ret_size = kernel + of.size;
    return status;
}

static void log_copies(const fj_sdpa_op *op, const fj_sdpa_call *call) {
    char copies[512], message[600];
    fj_sdpa_tell_copies(call, copies, sizeof copies);
    if (!copies[0]) return;
    (void)snprintf(message, sizeof message, "sdpa: %s", copies);
    fj_context_log(fj_device_context(op->device), FJ_LOG_INFO, message);
}

fj_status fj_sdpa_launch(const fj_sdpa_op *op, const fj_sdpa_args *args, const fj_launch *how,
                         void *workspace, size_t workspace_size, fj_error *error) {
    launch of = {0};
    fj_status status = read_launch(op, args, false, &of, error);
    if (status != FJ_OK) return status;
    if ((uintptr_t)workspace % 256 != 0)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "the workspace is not aligned to 256 bytes");
    if (workspace_size < of.size)
        return fj_error_set(error, FJ_ERR_ARGUMENT,
                            "the workspace has %zu bytes, less than fj_sdpa_workspace says", workspace_size);
    /* The kernel's part is what is left: it says itself when that is too little. */
    const size_t kernel = (workspace_size - of.size) / 256 * 256;
    char *copies = workspace ? (char *)workspace + kernel : NULL;
    if (!workspace && of.size > 0) return fj_error_set(error, FJ_ERR_ARGUMENT, "the workspace is missing");
    bind(op, &of, copies, copies ? copies + of.lists_at : NULL);
    log_copies(op, &of.call);
    fj_sdpa_copy_in(&of.call);
    status = fj_kernel_launch(op->kernel, &of.args, how, workspace, kernel, error);
    if (status == FJ_OK) fj_sdpa_copy_out(&of.call);
    return status;
}

/* ---- All of it ---------------------------------------------------------------------------------------------------- */

fj_status fj_sdpa(fj_device *device, fj_direction direction, const fj_sdpa_args *args, const fj_launch *how,
                  fj_error *error) {
    fj_sdpa_op *op = NULL;
    void *workspace = NULL;
    size_t size = 0;
    fj_status status = fj_sdpa_create(device, direction, args, &op, error);
    if (status != FJ_OK || !op) return status;
    const fj_device *at = op->device;
    status = fj_sdpa_workspace(op, args, how, &size, error);
    if (status == FJ_OK) status = fj_device_alloc(at, size, &workspace, error);
    if (status == FJ_OK) status = fj_sdpa_launch(op, args, how, workspace, size, error);
    if (status == FJ_OK) status = fj_device_wait(at, how ? how->stream : NULL, error);
    fj_device_free(at, &workspace);
    fj_sdpa_unref(&op);
    return status;
}
