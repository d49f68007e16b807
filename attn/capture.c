/* Captured calls: what a launch was given, as a manifest of one problem that prebuild and tune read, the mod's text, and a
 * safetensors file that `run --input` reads.
 *
 *     fwd_bf16_e64-0123456789abcdef.safetensors   q, k, v, do, the captures, cu_seqlens_q ...
 *                                  .mask.safetensors   block masks: the lists that --block-mask reads
 *                                  .py      the mod
 *                                  .json    the manifest: written last, so where it is the others are
 *
 * The digits are a digest of mod, problem and shapes: a call of the same kind is kept once. FLEXJIT_CAPTURE names variants by a
 * pattern, as KERNEL_LAUNCHER_CAPTURE does for Kernel Launcher (Heldens and van Werkhoven, iWAPT 2022). */
#include "attn/capture.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attn/catalogue.h"
#include "attn/mask/mask.h"
#include "base/dtype.h"
#include "cache/entry.h"
#include "cache/files.h"

enum { SCHEMA = 1 };

typedef struct capture {
    const fj_kernel *kernel;
    const fj_args *args;
    void *stream;
    const char *folder;
    const char *stem, *name; /* FOLDER/NAME, NAME */
    json_t *root;
    fj_captured tensors[FJ_CAPTURE_MOST];
    size_t count;
} capture;

/* ---- Tensors ------------------------------------------------------------------------------------------------- */

static bool has_tensor(const capture *c, const char *name) {
    for (size_t i = 0; i < c->count; i++)
        if (strcmp(c->tensors[i].name, name) == 0) return true;
    return false;
}

/* As the caller gave it: validation has found it sound. */
static void add_tensor(fj_scope *scope, capture *c, const char *name, const DLTensor *from) {
    if (!from || has_tensor(c, name)) return;
    if (c->count == FJ_CAPTURE_MOST)
        fj_fail(scope, FJ_ERR_UNSUPPORTED, "a call of more than %d tensors is not captured", FJ_CAPTURE_MOST);
    fj_captured *to = &c->tensors[c->count++];
    *to = (fj_captured){.name = name, .tensor = {.present = true, .rank = from->ndim}};
    (void)fj_dtype_from_dlpack(from->dtype, &to->tensor.dtype);
    to->tensor.data = from->data ? (char *)from->data + from->byte_offset : NULL;
    int64_t packed = 1;
    for (int i = from->ndim - 1; i >= 0; i--) {
        to->tensor.shape[i] = from->shape[i];
        to->tensor.strides[i] = from->strides && from->shape[i] > 1 ? from->strides[i] : packed;
        packed *= from->shape[i];
    }
}

static void list_tensors(fj_scope *scope, capture *c) {
    const fj_args *args = c->args;
    const fj_problem *problem = &c->kernel->plan->problem;
    const fj_mod *mod = c->kernel->plan->mod;
    const bool paged = problem->form == FJ_FORM_PAGED;
    add_tensor(scope, c, "q", args->query);
    add_tensor(scope, c, paged ? "k_pages" : "k", args->key);
    add_tensor(scope, c, paged ? "v_pages" : "v", args->value);
    add_tensor(scope, c, "cu_seqlens_q", args->cu_seqlens_q);
    add_tensor(scope, c, "cu_seqlens_kv", args->cu_seqlens_kv);
    add_tensor(scope, c, "page_table", args->page_table);
    add_tensor(scope, c, "kv_lens", args->kv_lens);
    add_tensor(scope, c, "q_offset", args->q_offset);
    if (problem->direction == FJ_BACKWARD) {
        add_tensor(scope, c, "do", args->dout);
        add_tensor(scope, c, "dlse", args->dlse);
    }
    for (size_t i = 0; i < mod->capture_count; i++)
        add_tensor(scope, c, mod->captures[i].name, args->captures[i]);
}

/* ---- The manifest ---------------------------------------------------------------------------------------------- */

/* Every value is put into its parent as soon as it is made, so that who owns the root frees all. */
static json_t *set(fj_scope *scope, json_t *object, const char *key, json_t *value) {
    if (json_object_set_new(object, key, value) != 0) fj_fail(scope, FJ_ERR_MEMORY, "out of memory");
    return json_object_get(object, key);
}

static void append(fj_scope *scope, json_t *list, json_t *value) {
    if (json_array_append_new(list, value) != 0) fj_fail(scope, FJ_ERR_MEMORY, "out of memory");
}

static void set_text(fj_scope *scope, json_t *object, const char *key, const char *text) {
    if (text) (void)set(scope, object, key, json_string(text));
}

static void set_flag(fj_scope *scope, json_t *object, const char *key, bool value) {
    if (value) (void)set(scope, object, key, json_true());
}

static void put_problem(fj_scope *scope, json_t *object, const fj_problem *problem) {
    static const char *const forms[] = {
        [FJ_FORM_DENSE] = "dense", [FJ_FORM_PACKED] = "packed", [FJ_FORM_PAGED] = "paged"};
    set_text(scope, object, "dtype", fj_dtype_name(problem->dtype));
    set_text(scope, object, "direction", problem->direction == FJ_BACKWARD ? "bwd" : "fwd");
    set_text(scope, object, "form", forms[problem->form]);
    (void)set(scope, object, "head_dim", json_integer(problem->head_dim));
    (void)set(scope, object, "value_dim", json_integer(problem->value_dim));
    (void)set(scope, object, "few_queries", json_boolean(problem->few_queries));
    if (problem->gqa > 0) (void)set(scope, object, "gqa", json_integer(problem->gqa));
    if (problem->nondeterministic) (void)set(scope, object, "deterministic", json_false());
    set_flag(scope, object, "max", problem->max);
    set_flag(scope, object, "dlse", problem->dlse);
    set_flag(scope, object, "tf32", problem->tf32);
    set_flag(scope, object, "block_mask", problem->block_mask);
    set_flag(scope, object, "q_offset", problem->q_offset);
    set_flag(scope, object, "shared_keys", problem->shared_keys);
    set_flag(scope, object, "dropout", problem->dropout);
}

enum { FLOAT_TEXT = 40 };

/* False: no memory. Outside of the arena: an allocation there may leave the scope. */
static bool float_text(const fj_allocator *allocator, double value, char text[FLOAT_TEXT]) {
    fj_buf buf;
    fj_buf_init(&buf, allocator);
    fj_buf_double(&buf, value);
    const bool made = !buf.failed;
    if (made) (void)snprintf(text, FLOAT_TEXT, "%s", buf.data);
    fj_buf_finish(&buf);
    return made;
}

/* As an expression of the language. */
static const char *scalar_text(fj_scope *scope, fj_type type, fj_scalar value) {
    char text[FLOAT_TEXT];
    if (type == FJ_TYPE_BOOL) return value.i ? "True" : "False";
    if (type != FJ_TYPE_FLOAT) return fj_arena_printf(scope->arena, "%lld", (long long)value.i);
    if (isnan(value.f)) return "float('nan')";
    if (isinf(value.f)) return value.f < 0 ? "-float('inf')" : "float('inf')";
    if (!float_text(scope->arena->allocator, value.f, text)) fj_fail(scope, FJ_ERR_MEMORY, "out of memory");
    return fj_arena_strdup(scope->arena, fj_str_from(text));
}

/* Run-time scalars with the values that they have in this call. */
static void put_params(fj_scope *scope, json_t *params, const capture *c) {
    const fj_mod *mod = c->kernel->plan->mod;
    for (size_t i = 0; i < mod->desc.param_count; i++)
        set_text(scope, params, mod->desc.params[i].name, mod->desc.params[i].expression);
    for (size_t i = 0; i < mod->scalar_count; i++)
        set_text(scope, params, mod->scalars[i].name,
                 scalar_text(scope, mod->program.ir->scalars.data[i].type,
                             c->args->scalars ? c->args->scalars[i] : mod->scalar_values[i]));
}

static void put_shape(fj_scope *scope, json_t *shapes, const fj_captured *of) {
    json_t *shape = set(scope, shapes, of->name, json_array());
    for (int d = 0; d < of->tensor.rank; d++) append(scope, shape, json_integer(of->tensor.shape[d]));
}

/* "F32[8,4096]" */
static void put_bindings(fj_scope *scope, json_t *bind, const capture *c) {
    const fj_mod *mod = c->kernel->plan->mod;
    for (size_t i = 0; i < mod->capture_count; i++) {
        const DLTensor *tensor = c->args->captures[i];
        const char *text = fj_arena_printf(scope->arena, "%s[", fj_dtype_name(mod->captures[i].dtype));
        for (int d = 0; d < tensor->ndim; d++)
            text = fj_arena_printf(scope->arena, "%s%s%lld", text, d ? "," : "", (long long)tensor->shape[d]);
        set_text(scope, bind, mod->captures[i].name, fj_arena_printf(scope->arena, "%s]", text));
    }
}

/* What depends neither on where the files are nor on the tensors' values: the name's digits are made of it. */
static void put_entry(fj_scope *scope, json_t *entry, const capture *c) {
    const fj_plan *plan = c->kernel->plan;
    const fj_mod_desc *desc = &plan->mod->desc;
    set_text(scope, entry, "score", desc->score);
    set_text(scope, entry, "mask", desc->mask);
    set_text(scope, entry, "score_mod", desc->score_mod);
    set_text(scope, entry, "mask_mod", desc->mask_mod);
    set_text(scope, entry, "out", desc->out);
    set_text(scope, entry, "out_mod", desc->out_mod);
    set_text(scope, entry, "sink", desc->sink);
    set_text(scope, entry, "sink_mod", desc->sink_mod);
    put_params(scope, set(scope, entry, "params", json_object()), c);
    put_bindings(scope, set(scope, entry, "bind", json_object()), c);
    json_t *names = set(scope, entry, "runtime_params", json_array());
    for (size_t i = 0; i < desc->runtime_param_count; i++)
        append(scope, names, json_string(desc->runtime_params[i]));
    json_t *problems = set(scope, entry, "problems", json_array());
    append(scope, problems, json_object());
    put_problem(scope, json_array_get(problems, 0), &plan->problem);
    json_t *call = set(scope, entry, "call", json_object());
    (void)set(scope, call, "scale", json_real(c->args->scale));
    if (plan->problem.dropout) (void)set(scope, call, "dropout", json_real(c->args->dropout));
    json_t *shapes = set(scope, call, "shapes", json_object());
    for (size_t i = 0; i < c->count; i++) put_shape(scope, shapes, &c->tensors[i]);
}

static fj_str dump(fj_scope *scope, const json_t *object, size_t flags) {
    char *text = json_dumps(object, flags | JSON_SORT_KEYS);
    if (!text) fj_fail(scope, FJ_ERR_MEMORY, "out of memory");
    const size_t length = strlen(text);
    char *copy = fj_arena_alloc(scope->arena, length + 1);
    memcpy(copy, text, length + 1);
    free(text);
    return (fj_str){copy, length};
}

static void name_call(fj_scope *scope, capture *c, const json_t *entry) {
    const fj_plan *plan = c->kernel->plan;
    const fj_problem *problem = &plan->problem;
    const fj_str text = dump(scope, entry, JSON_COMPACT);
    const fj_digest parts[] = {fj_cache_digest(text.data, text.len),
                               fj_cache_digest(plan->mod->desc.source, plan->mod->desc.source_length)};
    char hex[33];
    fj_cache_digest_hex(fj_cache_digest(parts, sizeof parts), hex);
    c->stem = fj_arena_printf(scope->arena, "%s/%s_%s_e%d_v%d-%.16s", c->folder,
                              problem->direction == FJ_BACKWARD ? "bwd" : "fwd",
                              fj_dtype_code_name(problem->dtype), problem->head_dim, problem->value_dim, hex);
    c->name = strrchr(c->stem, '/') + 1;
}

/* ---- Dropout --------------------------------------------------------------------------------------------------- */

/* As integers of 64 bits with a sign, which --seed takes too. */
static void put_seed(fj_scope *scope, const capture *c, json_t *call) {
    int64_t words[2] = {(int64_t)c->args->dropout_seed, (int64_t)c->args->dropout_offset};
    const DLTensor *state = c->args->dropout_state;
    if (!c->kernel->plan->problem.dropout) return;
    if (state) {
        const fj_tensor tensor = {.dtype = FJ_DTYPE_I64,
                                  .rank = 1,
                                  .data = (char *)state->data + state->byte_offset,
                                  .shape = {2},
                                  .strides = {1}};
        memcpy(words, fj_attn_readable(scope, c->kernel->plan, c->stream, &tensor), sizeof words);
    }
    (void)set(scope, call, "seed", json_integer(words[0]));
    (void)set(scope, call, "offset", json_integer(words[1]));
}

/* ---- Block masks ---------------------------------------------------------------------------------------------- */

static void must(fj_scope *scope, fj_status status) {
    if (status != FJ_OK) fj_escape(scope, status);
}

/* A packed tensor of I32 in the arena. */
static DLTensor *new_list(fj_scope *scope, int rank, const int64_t *shape) {
    DLTensor *tensor = FJ_NEW(scope->arena, DLTensor);
    int64_t count = 1;
    tensor->shape = FJ_NEW_ARRAY(scope->arena, int64_t, rank);
    for (int i = 0; i < rank; i++) count *= tensor->shape[i] = shape[i];
    *tensor = (DLTensor){.data = FJ_NEW_ARRAY(scope->arena, int32_t, count + 1),
                         .device = {kDLCPU, 0},
                         .ndim = rank,
                         .dtype = fj_dtype_to_dlpack(FJ_DTYPE_I32),
                         .shape = tensor->shape};
    return tensor;
}

static void write_mask(fj_scope *scope, capture *c, const char *path) {
    const fj_block_mask_info info = fj_block_mask_describe(c->args->block_mask);
    const int64_t rows[] = {info.batch, info.heads, info.q_blocks, info.kv_blocks};
    const int64_t two = 2;
    DLTensor *block = new_list(scope, 1, &two), *lengths = new_list(scope, 1, &two);
    const int32_t blocks[2] = {(int32_t)info.block_q, (int32_t)info.block_kv},
                  both[2] = {(int32_t)info.q_len, (int32_t)info.kv_len};
    memcpy(block->data, blocks, sizeof blocks);
    memcpy(lengths->data, both, sizeof both);
    const fj_block_lists lists = {.struct_size = sizeof lists,
                                  .kv_num_blocks = new_list(scope, 3, rows),
                                  .kv_indices = new_list(scope, 4, rows),
                                  .full_kv_num_blocks = new_list(scope, 3, rows),
                                  .full_kv_indices = new_list(scope, 4, rows)};
    must(scope, fj_block_mask_to_lists(c->args->block_mask, &lists, scope->error));
    capture mask = {.kernel = c->kernel};
    add_tensor(scope, &mask, "kv_num_blocks", lists.kv_num_blocks);
    add_tensor(scope, &mask, "kv_indices", lists.kv_indices);
    add_tensor(scope, &mask, "full_kv_num_blocks", lists.full_kv_num_blocks);
    add_tensor(scope, &mask, "full_kv_indices", lists.full_kv_indices);
    add_tensor(scope, &mask, "block_size", block);
    add_tensor(scope, &mask, "seq_lengths", lengths);
    must(scope,
         fj_attn_capture_tensors(c->kernel->plan, NULL, true, path, mask.tensors, mask.count, scope->error));
}

/* ---- Files ---------------------------------------------------------------------------------------------------- */

static bool is_there(const fj_file_ops *ops, const char *path) {
    const int file = ops->openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (file >= 0) (void)ops->close(file);
    return file >= 0;
}

static void write_files(fj_scope *scope, capture *c, json_t *entry) {
    const fj_plan *plan = c->kernel->plan;
    const fj_str source = {plan->mod->desc.source, plan->mod->desc.source_length};
    json_t *call = json_object_get(entry, "call");
    fj_arena *arena = scope->arena;
    set_text(scope, call, "tensors", fj_arena_printf(arena, "%s.safetensors", c->name));
    put_seed(scope, c, call);
    set_text(scope, call, "variant", c->kernel->info.variant);
    set_text(scope, call, "device", fj_device_name(plan->device));
    must(scope,
         fj_attn_capture_tensors(plan, c->stream, false, fj_arena_printf(arena, "%s.safetensors", c->stem),
                                 c->tensors, c->count, scope->error));
    if (c->args->block_mask) {
        set_text(scope, call, "block_mask", fj_arena_printf(arena, "%s.mask.safetensors", c->name));
        write_mask(scope, c, fj_arena_printf(arena, "%s.mask.safetensors", c->stem));
    }
    if (source.data) {
        set_text(scope, entry, "mod", fj_arena_printf(arena, "%s.py", c->name));
        must(scope,
             fj_attn_capture_text(plan, fj_arena_printf(arena, "%s.py", c->stem), source, scope->error));
    }
    must(scope, fj_attn_capture_text(plan, fj_arena_printf(arena, "%s.json", c->stem),
                                     dump(scope, c->root, JSON_INDENT(1)), scope->error));
}

static void write_call(fj_scope *scope, void *argument) {
    capture *c = argument;
    const fj_file_ops *ops = c->kernel->plan->device->context->files;
    if (!ops) ops = &fj_file_ops_system;
    list_tensors(scope, c);
    json_t *entries = set(scope, c->root, "entries", json_array());
    append(scope, entries, json_object());
    json_t *entry = json_array_get(entries, 0);
    put_entry(scope, entry, c);
    name_call(scope, c, entry);
    if (is_there(ops, fj_arena_printf(scope->arena, "%s.json", c->stem))) return;
    (void)ops->mkdir(c->folder, 0777); /* the first file says what went wrong */
    write_files(scope, c, entry);
}

/* Of a call that is sound. ret_file may be NULL. */
static fj_status keep(const fj_kernel *kernel, const fj_args *args, void *stream, const char *folder,
                      fj_text *ret_file, fj_error *error) {
    const fj_allocator *allocator = &kernel->plan->device->context->allocator;
    capture c = {.kernel = kernel, .args = args, .stream = stream, .folder = folder};
    c.root = json_pack("{s:i, s:s}", "schema", SCHEMA, "tool", "flexjit " FJ_VERSION);
    if (!c.root) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    fj_arena arena;
    fj_buf file;
    fj_arena_init(&arena, allocator);
    fj_buf_init(&file, allocator);
    fj_status status = fj_scope_run(&arena, error, write_call, &c);
    if (status == FJ_OK) fj_buf_printf(&file, "%s.json", c.stem);
    json_decref(c.root);
    fj_arena_finish(&arena);
    if (status != FJ_OK || !ret_file) {
        fj_buf_finish(&file);
        return status;
    }
    if (fj_buf_take(&file, ret_file) == FJ_OK) return FJ_OK;
    return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
}

fj_status fj_kernel_capture(const fj_kernel *kernel, const fj_args *args, const fj_launch *launch,
                            const char *folder, fj_text *ret_file, fj_error *error) {
    fj_call call = {0};
    if (!folder || !*folder) return fj_error_set(error, FJ_ERR_ARGUMENT, "the folder is missing");
    const fj_status status = fj_attn_check_call(kernel, args, launch, &call, error);
    if (status != FJ_OK) return status;
    return keep(kernel, &call.args, call.launch.stream, folder, ret_file, error);
}

void fj_attn_capture_launch(const fj_kernel *kernel, const fj_call *call) {
    const fj_context *context = kernel->plan->device->context;
    fj_call sound = {0};
    if (fj_attn_check_call(kernel, &call->args, &call->launch, &sound, NULL) != FJ_OK)
        return; /* the launch says it */
    if (!fj_attn_matches(context->capture, kernel->variant->name)) return;
    const char *folder = getenv("FLEXJIT_CAPTURE_DIR");
    fj_error error = {0};
    if (keep(kernel, &call->args, call->launch.stream, folder && *folder ? folder : ".", NULL, &error) !=
            FJ_OK &&
        context->log && context->log_level <= FJ_LOG_WARN) {
        char message[sizeof error.text + 128];
        (void)snprintf(message, sizeof message, "a call of %s was not captured: %s", kernel->variant->name,
                       error.text);
        context->log(context->log_user, FJ_LOG_WARN, message);
    }
    fj_error_finish(&error);
}
