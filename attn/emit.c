/* Kernels as C files, for programs that ship no JIT.
 *
 *     NAME.h    templates/host/api.h, and the functions of NAME
 *     NAME.c    cpu     templates/host/cpu.c   with the tables of the mod, and the text of the kernel
 *               cuda    templates/host/cuda.c  with the tables, and the cubin
 *
 * What computes grids, workspaces and parameters is the text that the library itself is made of (templates/host/gpu_*.h,
 * cpu_arguments.h): an emitted launch does what the library's does. Bytes depend on the plan and the name alone.
 */
#include "attn/emit.h"

#include <string.h>

#include "jit/jit.h"

enum { LONGEST_NAME = 200 };

/* ---- What can be emitted ------------------------------------------------------------------------------------ */

static fj_status check_name(const char *name, fj_error *error) {
    const size_t length = strlen(name);
    bool sound = length > 0 && length <= LONGEST_NAME && !(name[0] >= '0' && name[0] <= '9');
    for (size_t i = 0; i < length; i++)
        sound &= (name[i] >= 'a' && name[i] <= 'z') || (name[i] >= 'A' && name[i] <= 'Z') ||
                 (name[i] >= '0' && name[i] <= '9') || name[i] == '_';
    if (sound) return FJ_OK;
    return fj_error_set(error, FJ_ERR_ARGUMENT,
                        "'%.60s' is not an identifier of C of at most %d letters, digits and underscores",
                        name, LONGEST_NAME);
}

/* What of the problem the launchers of templates/host do not do; NULL: they do it all. */
static const char *uncovered(const fj_plan *plan) {
    const fj_problem *problem = &plan->problem;
    if (problem->form == FJ_FORM_PACKED) return "packed sequences";
    if (problem->form == FJ_FORM_PAGED) return "paged keys and values";
    if (problem->q_offset) return "positions of first queries (q_offset)";
    if (problem->block_mask) return "block masks";
    if (problem->shared_keys) return "keys that serve a batch (shared_keys)";
    if (problem->dropout) return "dropout";
    if (plan->mod->program.out) return "mods of the output";
    if (plan->mod->program.sink) return "sinks";
    return NULL;
}

static int64_t bound_extent(const fj_mod *mod, const char *name, int axis) {
    for (size_t i = 0; i < mod->desc.binding_count; i++)
        if (strcmp(mod->desc.bindings[i].name, name) == 0) return mod->desc.bindings[i].dims[axis];
    return -1;
}

/* Fixes the extents that a value is made of to those that captured tensors are bound with. False: one is not known, or it is
 * made of a run-time scalar. */
static bool fix_extents(const fj_emit *of, const fj_uniform *uniform) {
    const fj_mod *mod = of->plan->mod;
    for (int i = 0; i < uniform->count; i++) {
        const fj_uniform_step *step = &uniform->steps[i];
        if (step->op == FJ_OP_SCALAR) return false;
        if (step->op != FJ_OP_DIM) continue;
        const int axis = (int)(step->imm & 255);
        int64_t *extent = &of->extents[(step->imm >> 8) * FJ_MAX_RANK + axis];
        if (*extent < 0)
            *extent = bound_extent(mod, mod->program.ir->captures.data[step->imm >> 8].name, axis);
        if (*extent < 0) return false;
    }
    return true;
}

/* The library checks at each launch what a mod requires of extents and scalars. Emitted launches take only the extents that
 * this was checked with. */
static fj_status fix_requirements(const fj_emit *of, fj_error *error) {
    const fj_ir *ir = of->plan->mod->program.ir;
    const fj_requirements *all = &of->plan->mod->program.origins.requirements;
    for (size_t i = 0; i < ir->captures.len; i++)
        memcpy(of->extents + i * FJ_MAX_RANK, ir->captures.data[i].dims, sizeof ir->captures.data[i].dims);
    for (size_t i = 0; i < all->count; i++) {
        if (fix_extents(of, &all->items[i].a) && fix_extents(of, &all->items[i].b)) continue;
        (void)fj_error_set(error, FJ_ERR_UNSUPPORTED,
                           "the mod requires something of its inputs that emitted C files do not check");
        fj_error_note(error, all->items[i].name[0] ? "make the run-time scalars that it depends on constants"
                                                   : "bind its captured tensors with all their dimensions");
        return FJ_ERR_UNSUPPORTED;
    }
    return fj_requirements_check(all, ir, NULL, (fj_extents){of->extents, FJ_MAX_RANK}, error);
}

static fj_status check_plan(const fj_plan *plan, fj_error *error) {
    const char *device = fj_device_name(plan->device), *part = uncovered(plan);
    if (plan->device->traits->text == FJ_TEXT_NONE)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "the %s device has no kernels to emit", device);
    if (plan->variant.target == FJ_TARGET_EMU)
        return fj_error_set(error, FJ_ERR_UNSUPPORTED, "kernels of the %s device need the emulator", device);
    if (part) return fj_error_set(error, FJ_ERR_UNSUPPORTED, "emitted C files do not cover %s", part);
    return FJ_OK;
}

/* ---- Parts -------------------------------------------------------------------------------------------------- */

/* What they are views of. */
typedef struct buffers {
    fj_buf code, kernel, api, host, header, source;
} buffers;

static fj_status render_kernel(fj_emit *of, buffers *b, const fj_allocator *allocator, fj_error *error) {
    fj_rendered rendered;
    of->variant = &of->plan->variant;
    fj_status status =
        fj_jit_render(&of->plan->jit_problem, of->variant, allocator, &b->kernel, &rendered, error);
    if (status == FJ_OK) of->kernel = rendered.source;
    return status;
}

static fj_status build_kernel(fj_emit *of, buffers *b, fj_error *error) {
    const fj_plan *plan = of->plan;
    fj_jit *jit = plan->device->context->jit;
    fj_jit_chosen chosen;
    fj_status status = fj_attn_choose_kernel(plan, &plan->variant, NULL, false, &chosen, error);
    if (status == FJ_OK) status = fj_jit_payload(jit, &plan->jit_problem, chosen.variant, &b->code, error);
    if (status != FJ_OK) return status;
    of->variant = chosen.variant;
    of->code = (fj_str){b->code.data, b->code.len};
    return FJ_OK;
}

static fj_status collect(fj_emit *of, buffers *b, const fj_allocator *allocator, fj_error *error) {
    static const char *const cpu_api[] = {"host/api.h"}, *const cuda_api[] = {"host/api.h",
                                                                              "host/cuda_api.h"};
    static const char *const cpu_host[] = {"host/cpu.c"}, *const cuda_host[] = {"host/cuda.c"};
    const bool cpu = of->plan->variant.target == FJ_TARGET_CPU;
    fj_status status = cpu ? render_kernel(of, b, allocator, error) : build_kernel(of, b, error);
    if (status == FJ_OK)
        status = fj_jit_render_parts(cpu ? cpu_api : cuda_api, cpu ? 1 : 2, allocator, &b->api, error);
    if (status == FJ_OK)
        status = fj_jit_render_parts(cpu ? cpu_host : cuda_host, 1, allocator, &b->host, error);
    of->api = (fj_str){b->api.data, b->api.len};
    of->host = (fj_str){b->host.data, b->host.len};
    return status;
}

static fj_status emit(fj_emit *of, buffers *b, const fj_allocator *allocator, fj_text *ret_header,
                      fj_text *ret_source, fj_error *error) {
    fj_status status = fix_requirements(of, error);
    if (status == FJ_OK) status = collect(of, b, allocator, error);
    if (status != FJ_OK) return status;
    fj_emit_header(of, &b->header);
    fj_emit_source(of, &b->source);
    fj_text header = {0};
    if (fj_buf_take(&b->header, &header) != FJ_OK || fj_buf_take(&b->source, ret_source) != FJ_OK) {
        fj_text_finish(&header);
        return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    }
    *ret_header = header;
    return FJ_OK;
}

fj_status fj_plan_emit_c(const fj_plan *plan, const char *name, fj_text *ret_header, fj_text *ret_source,
                         fj_error *error) {
    if (!plan || !name || !ret_header || !ret_source)
        return fj_error_set(error, FJ_ERR_ARGUMENT, "plan, name, ret_header or ret_source is NULL");
    const fj_allocator *allocator = &plan->device->context->allocator;
    fj_emit of = {.plan = plan, .name = name};
    buffers b;
    fj_buf *const all[] = {&b.code, &b.kernel, &b.api, &b.host, &b.header, &b.source};
    for (size_t i = 0; i < FJ_ARRAY_LEN(all); i++) fj_buf_init(all[i], allocator);
    const size_t size = (plan->mod->program.ir->captures.len + 1) * FJ_MAX_RANK * sizeof *of.extents;
    fj_status status = check_name(name, error);
    if (status == FJ_OK) status = check_plan(plan, error);
    if (status == FJ_OK) of.extents = fj_alloc_zeroed(allocator, size);
    if (status == FJ_OK && !of.extents) status = fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    if (status == FJ_OK) status = emit(&of, &b, allocator, ret_header, ret_source, error);
    for (size_t i = 0; i < FJ_ARRAY_LEN(all); i++) fj_buf_finish(all[i]);
    fj_free(allocator, of.extents, size);
    return status;
}
