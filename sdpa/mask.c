/* Masks: which of the axes [B,H,L,S] one has, and the mod that reads it.
 *
 * An axis that a mask does not have (an extent of 1, or a stride of 0 where no gradient is wanted) is left out of the tensor that
 * the mod captures, not read with stride 0: what does not depend on the query is loaded once for all queries, and its
 * gradient is summed by the kernel. So the rank of the caller's mask does not matter. */
#include <stdio.h>
#include <string.h>

#include "sdpa/call.h"

/* In the order of a mask's dimensions. */
static const struct {
    int axis;
    const char *index, *what;
} axes[] = {{BATCH, "b", "B"}, {GROUP, "h", "H"}, {ROWS, "q", "L"}, {WIDTH, "kv", "S"}};
enum { MASK_AXES = 4 };

static fj_status check_mask(const fj_sdpa_call *call, const DLTensor *mask, const char *name) {
    const bool packed = call->class.packed;
    const int64_t extent[] = {call->batch, call->heads, call->q_len, call->kv_len};
    char text[FJ_SDPA_TEXT], must[FJ_SDPA_TEXT];
    const fj_status status =
        fj_sdpa_check_tensor(call, name, mask, 0, 4, "aligned at the right with [B,H,L,S], of rank 0 to 4");
    if (status != FJ_OK) return status;
    for (int i = 0; i < mask->ndim; i++) {
        const int at = MASK_AXES - mask->ndim + i;
        const bool fits = packed && at >= 2 ? mask->shape[i] >= extent[at] : mask->shape[i] == extent[at];
        if (fits || mask->shape[i] == 1) continue;
        const DLTensor scores = {.ndim = MASK_AXES, .shape = (int64_t *)(uintptr_t)extent};
        return fj_sdpa_bad(
            call, "%s has shape %s: each dimension is that of [B,H,L,S] = %s%s, aligned at the right, or 1",
            name, fj_sdpa_shape_text(mask, text), fj_sdpa_shape_text(&scores, must),
            packed ? ", of L and S at least that" : "");
    }
    return FJ_OK;
}

static bool is_float(fj_dtype dtype) { return dtype >= FJ_DTYPE_F8_E4M3 && dtype <= FJ_DTYPE_F64; }

static void place_mask(const fj_sdpa_call *call, fj_sdpa_slot *slot, const DLTensor *mask) {
    const int64_t extent[] = {call->batch, call->heads, call->q_len, call->kv_len};
    slot->tensor = mask;
    slot->present = true;
    slot->dtype = slot->kernel_dtype = fj_sdpa_dtype(mask);
    slot->own[REPEAT] = slot->extent[REPEAT] = 1;
    for (int i = 0; i < MASK_AXES; i++) {
        const int axis = axes[i].axis, at = i - (MASK_AXES - mask->ndim);
        slot->own[axis] = at < 0 ? 1 : mask->shape[at];
        slot->stride[axis] = at < 0 ? 0 : fj_sdpa_stride(mask, at);
        slot->extent[axis] = slot->own[axis] == 1 ? extent[i] : slot->own[axis];
    }
}

/* The last axis that a mask has; -1: none. */
static int last_axis(const bool walks[AXES]) {
    for (int i = MASK_AXES - 1; i >= 0; i--)
        if (walks[axes[i].axis]) return axes[i].axis;
    return -1;
}

static fj_status read_gradient(fj_sdpa_call *call, const DLTensor *mask, const DLTensor *dmask) {
    fj_sdpa_slot *slot = &call->slots[DMASK];
    const fj_dtype statistic = call->class.dtype == FJ_DTYPE_F64 ? FJ_DTYPE_F64 : FJ_DTYPE_F32;
    char text[FJ_SDPA_TEXT], must[FJ_SDPA_TEXT];
    if (!mask || call->class.mask != FLOAT_MASK)
        return fj_sdpa_bad(call, "dmask is given, but %s",
                           mask ? "mask is BOOL, and has no gradient" : "mask is not");
    fj_status status = check_mask(call, dmask, "dmask");
    if (status != FJ_OK) return status;
    if (dmask->ndim != mask->ndim ||
        memcmp(dmask->shape, mask->shape, (size_t)mask->ndim * sizeof *mask->shape) != 0)
        return fj_sdpa_bad(call, "dmask has shape %s: it is %s, as mask", fj_sdpa_shape_text(dmask, text),
                           fj_sdpa_shape_text(mask, must));
    slot->name = "dmask";
    slot->written = true;
    place_mask(call, slot, dmask);
    if (slot->dtype != statistic && slot->dtype != FJ_DTYPE_F64 && slot->dtype != call->class.mask_dtype)
        return fj_sdpa_bad(call, "dmask is %s: it is of mask's dtype, %s, or of that of lse, %s",
                           fj_dtype_name(slot->dtype), fj_dtype_name(call->class.mask_dtype),
                           fj_dtype_name(statistic));
    if (slot->dtype < FJ_DTYPE_F16)
        return fj_sdpa_bad(call, "dmask is %s: it is %s", fj_dtype_name(slot->dtype),
                           fj_dtype_name(statistic));
    return fj_sdpa_refuse_overlap(call, slot);
}

fj_status fj_sdpa_read_mask(fj_sdpa_call *call) {
    const DLTensor *mask = call->args.mask, *dmask = call->args.dmask;
    const bool differentiates = call->direction == FJ_BACKWARD && dmask;
    fj_sdpa_class *class = &call->class;
    fj_sdpa_slot *slot = &call->slots[MASK];
    if (!mask) return differentiates ? read_gradient(call, mask, dmask) : FJ_OK;
    const fj_status status = check_mask(call, mask, "mask");
    if (status != FJ_OK) return status;
    class->mask_dtype = fj_sdpa_dtype(mask);
    class->mask = class->mask_dtype == FJ_DTYPE_BOOL ? BOOL_MASK : FLOAT_MASK;
    if (class->mask == FLOAT_MASK && !is_float(class->mask_dtype))
        return fj_sdpa_bad(call, "mask is %s: BOOL (true keeps) and floats (added to the scores) are allowed",
                           fj_dtype_name(class->mask_dtype));
    slot->name = "mask";
    place_mask(call, slot, mask);
    for (int i = 0; i < MASK_AXES; i++) {
        const int axis = axes[i].axis;
        class->walks[axis] =
            slot->own[axis] != 1 && (slot->stride[axis] != 0 || differentiates || slot->own[axis] == 0);
    }
    const int last = last_axis(class->walks);
    class->strided = last >= 0 && slot->own[last] > 1 && slot->stride[last] != 1;
    return differentiates ? read_gradient(call, mask, dmask) : FJ_OK;
}

/* ---- Mods --------------------------------------------------------------------------------------------------- */

static void write_read(const fj_sdpa_class *class, char *text, size_t size, fj_binding *binding) {
    size_t at = (size_t)snprintf(text, size, "mask");
    *binding = (fj_binding){.name = "mask", .dtype = class->mask_dtype};
    for (int i = 0; i < MASK_AXES; i++) {
        if (!class->walks[axes[i].axis]) continue;
        at += (size_t)snprintf(text + at, size - at, "%s%s", binding->rank ? ", " : "[", axes[i].index);
        binding->dims[binding->rank++] = -1;
    }
    if (class->strided) binding->dims[binding->rank++] = 1;
    if (binding->rank) (void)snprintf(text + at, size - at, "%s]", class->strided ? ", 0" : "");
}

void fj_sdpa_write_mod(const fj_sdpa_class *class, fj_sdpa_mod *ret_mod) {
    fj_sdpa_mod *mod = ret_mod;
    /* Forward is as it is for any mod that reads such a tensor, so that kernels are shared. */
    *mod = (fj_sdpa_mod){.is_constant = class->direction == FJ_BACKWARD && !class->has_dmask};
    if (class->mask == FLOAT_MASK) {
        const size_t at = (size_t)snprintf(mod->score, sizeof mod->score, "score + ");
        write_read(class, mod->score + at, sizeof mod->score - at, &mod->bindings[mod->binding_count++]);
    } else if (class->mask == BOOL_MASK) {
        write_read(class, mod->mask, sizeof mod->mask, &mod->bindings[mod->binding_count++]);
    } else if (class->causal == FJ_SDPA_UPPER_LEFT) {
        (void)snprintf(mod->mask, sizeof mod->mask, "kv <= q");
    } else if (class->causal == FJ_SDPA_LOWER_RIGHT && !class->packed) {
        (void)snprintf(mod->mask, sizeof mod->mask, "kv <= q + shift");
        mod->has_shift = true;
    } else if (class->causal == FJ_SDPA_LOWER_RIGHT) {
        (void)snprintf(
            mod->mask, sizeof mod->mask,
            "kv <= q + (cu_seqlens_kv[b + 1] - cu_seqlens_kv[b]) - (cu_seqlens_q[b + 1] - cu_seqlens_q[b])");
        mod->bindings[0] = (fj_binding){"cu_seqlens_q", FJ_DTYPE_I32, 1, {-1}};
        mod->bindings[1] = (fj_binding){"cu_seqlens_kv", FJ_DTYPE_I32, 1, {-1}};
        mod->binding_count = 2;
    }
}

/* ---- Classes -------------------------------------------------------------------------------------------------- */

static fj_status other_kind(const fj_sdpa_call *call, const char *what) {
    return fj_error_set(call->error, FJ_ERR_ARGUMENT, "the op was made for calls of another kind: %s differs",
                        what);
}

/* The axes of the class are those that the call's mask may have: an axis of extent 1 may be walked. */
static fj_status take_mask(fj_sdpa_call *call, const fj_sdpa_class *class) {
    for (int i = 0; i < MASK_AXES; i++) {
        const int axis = axes[i].axis;
        for (int of = MASK; of < SLOTS; of += DMASK - MASK) {
            fj_sdpa_slot *slot = &call->slots[of];
            if (!slot->present) continue;
            const bool expanded = of == MASK && slot->stride[axis] == 0;
            const bool fits =
                class->walks[axis] ? slot->own[axis] == slot->extent[axis] : slot->own[axis] == 1 || expanded;
            if (!fits)
                return fj_error_set(
                    call->error, FJ_ERR_ARGUMENT,
                    "the op was made for calls of another kind: its mask %s the axis %s of [B,H,L,S], this "
                    "call's %s",
                    class->walks[axis] ? "has" : "does not have", axes[i].what,
                    class->walks[axis] ? "does not" : "has");
            if (!class->walks[axis]) slot->own[axis] = slot->extent[axis] = 1;
        }
    }
    return FJ_OK;
}

fj_status fj_sdpa_take_class(fj_sdpa_call *call, const fj_sdpa_class *class) {
    const fj_sdpa_class *own = &call->class;
    const struct {
        const char *what;
        bool differs;
    } facts[] = {
        {"the direction", own->direction != class->direction},
        {"query's dtype", own->dtype != class->dtype},
        {"query's head dimension", own->head_dim != class->head_dim},
        {"value's head dimension", own->value_dim != class->value_dim},
        {"whether it is jagged", own->packed != class->packed},
        {"causal", own->causal != class->causal},
        {"whether there is a mask, or its dtype",
         own->mask != class->mask || own->mask_dtype != class->mask_dtype},
        {"nondeterministic", own->nondeterministic != class->nondeterministic},
        {"tf32", own->tf32 != class->tf32},
        {"whether there is dlse", own->has_dlse != class->has_dlse},
        {"whether there is dmask", own->has_dmask && !class->has_dmask},
        {"whether there is dropout", own->has_dropout && !class->has_dropout},
    };
    for (size_t i = 0; i < FJ_ARRAY_LEN(facts); i++)
        if (facts[i].differs) return other_kind(call, facts[i].what);
    if (class->shared_keys && (call->slots[KEY].own[BATCH] != 1 || call->slots[VALUE].own[BATCH] != 1))
        return other_kind(call, "whether key and value have a batch of 1");
    const fj_status status = class->mask != NO_MASK ? take_mask(call, class) : FJ_OK;
    call->class = *class;
    return status;
}
