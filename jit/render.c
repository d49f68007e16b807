/* The text of a kernel: prologue, prim.h, hooks, template, in one file.
 *
 *                                                      cpu                    cuda
 *     prologue    #define FJ_HEAD_DIM 64 ...           written here           written here
 *     base        what the hooks are made of           prim.h, interval.h     hooks.h, which includes prim.h
 *     hooks       fj_score, fj_mask ...                fj_ir_emit             fj_ir_emit
 *     template                                         fwd.c, bwd.c ...       fwd_mma.cu, fwd_simt.cu ...
 *
 * Lines of the form #include "x.h" are replaced by that file the first time and dropped afterwards,
 * so the text needs no folder to compile in. #line keeps the names of the parts in the compiler's
 * messages. A file in the folder FLEXJIT_TEMPLATE_PATH wins over the one that is built in.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/dtype.h"
#include "base/embed.h"
#include "jit/jit.h"

enum { MAX_PARTS = 48, MAX_DEPTH = 16, NAME_SIZE = 128, LARGEST_TEMPLATE = 4 << 20 };

struct render {
    fj_buf *out;
    char seen[MAX_PARTS][NAME_SIZE];
    int seen_count;
    const fj_jit_problem *problem;
    const fj_variant *variant;
    size_t constants_len;
    size_t hooks_from, hooks_to; /* in out */
    const char *const *parts;    /* fj_jit_render_parts */
    size_t part_count;
};

static const char *const cpu_templates[] = {
    [FJ_JIT_FORWARD] = "cpu/fwd.c",
    [FJ_JIT_BACKWARD] = "cpu/bwd.c",
    [FJ_JIT_PEAK] = "cpu/peak.c",
    [FJ_JIT_MASK] = "cpu/mask.c",
};
_Static_assert(FJ_ARRAY_LEN(cpu_templates) == FJ_JIT_KIND_COUNT, "a template for each");

static const char *template_of(const fj_jit_problem *problem, const fj_variant *variant) {
    if (variant->target == FJ_TARGET_CPU) return cpu_templates[problem->kind];
    if (problem->kind == FJ_JIT_FORWARD) return variant->mma ? "cuda/fwd_mma.cu" : "cuda/fwd_simt.cu";
    return variant->mma ? "cuda/bwd_mma.cu" : "cuda/bwd_simt.cu";
}

/* ---- Finding the parts ----------------------------------------------------------------------- */

static bool read_replacement(fj_scope *scope, const char *name, fj_str *ret_text) {
    const char *folder = getenv("FLEXJIT_TEMPLATE_PATH");
    if (!folder || !*folder) return false;
    const fj_file_ops *ops = &fj_file_ops_system;
    const char *path = fj_arena_printf(scope->arena, "%s/%s", folder, name);
    int file = ops->openat(AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (file < 0 && errno == ENOENT) return false;
    struct stat status;
    bool sound = file >= 0 && ops->fstat(file, &status) == 0 && S_ISREG(status.st_mode) &&
                 status.st_size <= LARGEST_TEMPLATE;
    char *text = sound ? fj_arena_alloc(scope->arena, (size_t)status.st_size + 1) : NULL;
    sound = sound && fj_cache_read_all(ops, file, text, (size_t)status.st_size);
    int reason = errno;
    if (file >= 0) (void)ops->close(file);
    if (!sound) fj_fail(scope, FJ_ERR_IO, "template '%s' cannot be read: %s", path, strerror(reason));
    *ret_text = (fj_str){text, (size_t)status.st_size};
    return true;
}

static bool find_part(fj_scope *scope, const char *name, fj_str *ret_text) {
    if (read_replacement(scope, name, ret_text)) return true;
    for (size_t i = 0; i < fj_template_table_len; i++) {
        if (strcmp(fj_template_table[i].name, name) != 0) continue;
        *ret_text = (fj_str){fj_template_table[i].text, fj_template_table[i].len};
        return true;
    }
    return false;
}

/* ---- Putting them together ------------------------------------------------------------------- */

static bool was_seen(fj_scope *scope, struct render *render, const char *name) {
    for (int i = 0; i < render->seen_count; i++)
        if (strcmp(render->seen[i], name) == 0) return true;
    if (render->seen_count == MAX_PARTS) fj_fail(scope, FJ_ERR_IO, "template '%s': too many files", name);
    (void)snprintf(render->seen[render->seen_count++], NAME_SIZE, "%s", name);
    return false;
}

/* A line #include "x": gives x, resolved in the folder of `name`; expr/ir/x is a file of that room. */
static bool is_include(fj_str line, const char *name, char ret_name[NAME_SIZE]) {
    char text[NAME_SIZE], file[64];
    size_t blanks = 0;
    while (blanks < line.len && line.data[blanks] == ' ') blanks++;
    if (blanks == line.len || line.data[blanks] != '#' || line.len >= sizeof text) return false;
    memcpy(text, line.data, line.len);
    text[line.len] = '\0';
    if (sscanf(text, " # include \"%63[A-Za-z0-9_./]\"", file) != 1) return false;
    const char *slash = strrchr(name, '/');
    if (strncmp(file, "expr/", 5) == 0)
        (void)snprintf(ret_name, NAME_SIZE, "%s", file);
    else if (slash && strncmp(file, "../", 3) == 0) /* of the one folder above, templates/ */
        (void)snprintf(ret_name, NAME_SIZE, "%s", file + 3);
    else
        (void)snprintf(ret_name, NAME_SIZE, "%.*s%s", slash ? (int)(slash - name + 1) : 0, name, file);
    return true;
}

static void put_part(fj_scope *scope, struct render *render, const char *name, int depth) {
    fj_str text;
    if (was_seen(scope, render, name)) return;
    if (!find_part(scope, name, &text) || depth > MAX_DEPTH)
        fj_fail(scope, FJ_ERR_IO, "kernel template not found: '%s'", name);
    fj_buf_printf(render->out, "#line 1 \"%s\"\n", name);
    int number = 1;
    for (const char *at = text.data, *end = text.data + text.len; at < end; number++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        fj_str line = {at, (size_t)((newline ? newline : end) - at)};
        char included[NAME_SIZE];
        if (is_include(line, name, included)) {
            put_part(scope, render, included, depth + 1);
            fj_buf_printf(render->out, "#line %d \"%s\"\n", number + 1, name);
        } else {
            fj_buf_write(render->out, line.data, line.len);
            fj_buf_put(render->out, "\n");
        }
        at += line.len + 1;
    }
}

/* Whether the text is that of sums in one order: what does not change the text must not change the request either. */
static bool is_deterministic(const fj_jit_problem *problem, const fj_variant *variant) {
    return problem->deterministic || problem->kind != FJ_JIT_BACKWARD || variant->target == FJ_TARGET_CPU;
}

typedef struct constant {
    const char *name;
    int value;
} constant;

static void put_constants(fj_buf *out, const constant *constants, size_t count) {
    for (size_t i = 0; i < count; i++)
        fj_buf_printf(out, "#define FJ_%s %d\n", constants[i].name, constants[i].value);
}

/* Of a variant's name, what its text depends on: not the number of parts at the end, one text has any. */
static int name_length(const fj_variant *variant) {
    size_t length = strlen(variant->name);
    while (variant->splits > 1 && variant->name[length - 1] >= '0' && variant->name[length - 1] <= '9')
        length--;
    return (int)length;
}

/* The dtypes' numbers are the text's own. */
static void put_prologue_cuda(const struct render *render) {
    static const fj_dtype dtypes[] = {FJ_DTYPE_F16, FJ_DTYPE_BF16, FJ_DTYPE_F32, FJ_DTYPE_F64};
    const fj_jit_problem *problem = render->problem;
    const fj_variant *variant = render->variant;
    const bool forward = problem->kind == FJ_JIT_FORWARD;
    int shared = 0;
    for (int i = 0; i < variant->entry_count; i++)
        if (variant->entries[i].shared > shared) shared = variant->entries[i].shared;
    const constant constants[] = {
        {"REAL_F64", problem->dtype == FJ_DTYPE_F64},
        {"TEMPLATE_MMA", variant->mma},
        {"HEAD_DIM", problem->head_dim},
        {"VALUE_DIM", problem->value_dim},
        {"HEAD_PAD", variant->head_pad},
        {"VALUE_PAD", variant->value_pad},
        {"WANT_MAX", problem->max},
        {"DROPOUT", problem->dropout},
        {"DETERMINISTIC", is_deterministic(problem, variant)},
        {"TF32", problem->tf32},
        {"TILE_M", variant->tile_m},
        {"TILE_N", variant->tile_n},
        {"STAGES", variant->stages},
        {"WARPS", variant->warps},
        {"PACK_HEADS", variant->pack_heads},
        {"WIDE_CAPTURES", variant->wide_captures},
        {"SHARED_BYTES", shared},
        {"MOD_CHUNKS", variant->mod_chunks},
        {"MASK_UNROLL", variant->mask_unroll},
        {forward ? "ONE_COPY" : "FULL_COPY", forward ? variant->one_copy : !variant->one_copy},
    };
    const int length = name_length(variant);
    fj_buf_printf(render->out, "// flexjit %s: %.*s\n#define FJ_VARIANT \"%.*s\"\n", FJ_VERSION, length,
                  variant->name, length, variant->name);
    for (size_t i = 0; i < FJ_ARRAY_LEN(dtypes); i++)
        fj_buf_printf(render->out, "#define FJ_DTYPE_%s %zu\n", fj_dtype_name(dtypes[i]), i + 1);
    fj_buf_printf(render->out, "#define FJ_IN_DTYPE FJ_DTYPE_%s\n", fj_dtype_name(problem->dtype));
    if (problem->block_mask) fj_buf_put(render->out, "#define FJ_BLOCK_MASK 1\n");
    if (variant->splits != 1) fj_buf_put(render->out, "#define FJ_PARTIAL 1\n");
    if (problem->packed) fj_buf_put(render->out, "#define FJ_PACKED 1\n");
    if (problem->paged) fj_buf_put(render->out, "#define FJ_PAGED 1\n");
    if (problem->shared_keys) fj_buf_put(render->out, "#define FJ_SHARED_KEYS 1\n");
    if (fj_jit_has_sequences(problem)) fj_buf_put(render->out, "#define FJ_SEQUENCES 1\n");
    put_constants(render->out, constants, FJ_ARRAY_LEN(constants));
}

static void put_prologue(const struct render *render) {
    const fj_jit_problem *problem = render->problem;
    const fj_variant *variant = render->variant;
    fj_isa isa = variant->isa;
    char dtype[16];
    (void)snprintf(dtype, sizeof dtype, "FJ_%s", fj_dtype_name(problem->dtype));
    fj_buf_printf(render->out, "/* flexjit %s: %s */\n", FJ_VERSION, variant->name);
    fj_buf_printf(render->out, "#define FJ_VARIANT \"%s\"\n", variant->name);
    fj_buf_printf(render->out, "#define FJ_IN_DTYPE %s\n", dtype);
    const constant constants[] = {
        {"REAL_F64", problem->dtype == FJ_DTYPE_F64},
        {"ISA_AVX2", isa >= FJ_ISA_AVX2},
        {"ISA_AVX512", isa >= FJ_ISA_AVX512},
        {"ISA_AVX512BF16", isa >= FJ_ISA_AVX512BF16},
        {"HEAD_DIM", problem->head_dim},
        {"VALUE_DIM", problem->value_dim},
        {"WANT_MAX", problem->max},
        {"DROPOUT", problem->dropout},
        {"TILE_Q", variant->tile_m},
        {"TILE_KV", variant->tile_n},
        {"DIRECT", variant->direct},
        {"PARTS", 2},
    };
    if (problem->paged) fj_buf_put(render->out, "#define FJ_PAGED 1\n");
    if (problem->block_mask) fj_buf_put(render->out, "#define FJ_BLOCK_MASK 1\n");
    const bool is_attention = problem->kind == FJ_JIT_FORWARD || problem->kind == FJ_JIT_BACKWARD;
    put_constants(render->out, constants, is_attention ? FJ_ARRAY_LEN(constants) : 4);
}

static void put_hooks(fj_scope *scope, struct render *render) {
    const fj_jit_problem *problem = render->problem;
    fj_ir ir = fj_ir_view(problem->ir, scope->arena), gradient = {0};
    if (problem->gradient) gradient = fj_ir_view(problem->gradient, scope->arena);
    fj_buf_put(render->out, "#line 1 \"hooks\"\n");
    render->hooks_from = render->out->len;
    fj_emit_target target = render->variant->target != FJ_TARGET_CPU ? FJ_EMIT_CUDA
                          : problem->kind == FJ_JIT_MASK             ? FJ_EMIT_MASK
                                                                     : FJ_EMIT_CPU;
    fj_ir_emit(&ir, problem->gradient ? &gradient : NULL, target, render->out);
    if (problem->kind == FJ_JIT_FORWARD || problem->kind == FJ_JIT_BACKWARD) {
        fj_ir_emit_out(problem->out, problem->out_gradient, target, render->out);
        fj_ir_emit_sink(problem->sink, problem->sink_gradient, target, render->out);
    }
    render->hooks_to = render->out->len;
}

static void put_all(fj_scope *scope, void *argument) {
    struct render *render = argument;
    bool cuda = render->variant->target != FJ_TARGET_CPU;
    if (cuda)
        put_prologue_cuda(render);
    else
        put_prologue(render);
    render->constants_len = render->out->len;
    if (render->problem->ir && cuda) {
        put_part(scope, render, "cuda/hooks.h", 0);
        put_hooks(scope, render);
    } else if (render->problem->ir) {
        put_part(scope, render, "cpu/prim.h", 0);
        if (render->problem->ir->mask) { /* what fj_block_class calls */
            put_part(scope, render, "expr/ir/interval_rules.h", 0);
            put_part(scope, render,
                     render->problem->kind == FJ_JIT_MASK ? "cpu/mask_load.h" : "cpu/block_load.h", 0);
        }
        put_hooks(scope, render);
    }
    put_part(scope, render, template_of(render->problem, render->variant), 0);
    if (render->out->failed) fj_fail(scope, FJ_ERR_MEMORY, "out of memory");
}

static fj_status run(struct render *render, const fj_allocator *allocator, fj_error *error,
                     void (*body)(fj_scope *, void *)) {
    fj_arena arena;
    fj_arena_init(&arena, allocator);
    fj_status status = fj_scope_run(&arena, error, body, render);
    fj_arena_finish(&arena);
    return status;
}

fj_status fj_jit_render(const fj_jit_problem *problem, const fj_variant *variant,
                        const fj_allocator *allocator, fj_buf *text, fj_rendered *ret_rendered,
                        fj_error *error) {
    struct render render = {.out = text, .problem = problem, .variant = variant};
    fj_status status = run(&render, allocator, error, put_all);
    if (status != FJ_OK) return status;
    ret_rendered->constants = (fj_str){text->data, render.constants_len};
    ret_rendered->hooks = (fj_str){text->data + render.hooks_from, render.hooks_to - render.hooks_from};
    ret_rendered->source = (fj_str){text->data, text->len};
    return FJ_OK;
}

static void put_parts(fj_scope *scope, void *argument) {
    struct render *render = argument;
    for (size_t i = 0; i < render->part_count; i++) put_part(scope, render, render->parts[i], 0);
    if (render->out->failed) fj_fail(scope, FJ_ERR_MEMORY, "out of memory");
}

fj_status fj_jit_render_parts(const char *const *names, size_t count, const fj_allocator *allocator,
                              fj_buf *out, fj_error *error) {
    struct render render = {.out = out, .parts = names, .part_count = count};
    return run(&render, allocator, error, put_parts);
}

/* ---- The request ------------------------------------------------------------------------------- */

/* A graph of its own, under its name: of a problem without it nothing, so that its key is what it ever was. */
static void put_graph(fj_scope *scope, const char *name, const fj_ir *graph, fj_buf *out) {
    if (!graph) return;
    fj_ir ir = fj_ir_view(graph, scope->arena);
    fj_buf_printf(out, "%s\n", name);
    fj_ir_print_canonical(&ir, out);
}

static void put_request(fj_scope *scope, void *argument) {
    static const char *const kinds[] = {"forward", "backward", "peak", "mask"};
    _Static_assert(FJ_ARRAY_LEN(kinds) == FJ_JIT_KIND_COUNT, "a word for each");
    const struct render *render = argument;
    const fj_jit_problem *problem = render->problem;
    fj_buf_printf(render->out, "flexjit %s\nkernel %.*s\ndirection %s\ndtype %s\n", FJ_VERSION,
                  name_length(render->variant), render->variant->name, kinds[problem->kind],
                  fj_dtype_name(problem->dtype));
    if (render->variant->target != FJ_TARGET_CPU) {
        char arch[FJ_ARCH_NAME];
        fj_jit_arch_name(render->variant->arch, arch);
        fj_buf_printf(render->out, "arch %s\ntf32 %d\n", arch, problem->tf32);
    }
    if (render->variant->target == FJ_TARGET_EMU) fj_buf_put(render->out, "target emu\n");
    if (problem->ir) {
        fj_buf_printf(render->out, "head_dim %d\nvalue_dim %d\nmax %d\ndeterministic %d\n", problem->head_dim,
                      problem->value_dim, problem->max, is_deterministic(problem, render->variant));
        if (problem->dropout) fj_buf_put(render->out, "dropout 1\n");
        fj_ir ir = fj_ir_view(problem->ir, scope->arena);
        fj_ir_print_canonical(&ir, render->out);
        put_graph(scope, "out", problem->out, render->out);
        put_graph(scope, "sink", problem->sink, render->out);
    }
    if (render->out->failed) fj_fail(scope, FJ_ERR_MEMORY, "out of memory");
}

fj_status fj_jit_request_text(const fj_jit_problem *problem, const fj_variant *variant,
                              const fj_allocator *allocator, fj_buf *out, fj_error *error) {
    struct render render = {.out = out, .problem = problem, .variant = variant};
    return run(&render, allocator, error, put_request);
}
