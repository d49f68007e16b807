/* The texts of a kernel's C files: see emit.c. */
#include <stdio.h>
#include <string.h>

#include "attn/emit.h"
#include "base/dtype.h"
#include "jit/compile.h"
#include "jit/launch.h"

static bool is_cpu(const fj_emit *of) { return of->variant->target == FJ_TARGET_CPU; }
static bool is_backward(const fj_emit *of) { return of->plan->problem.direction == FJ_BACKWARD; }
static const fj_ir *ir_of(const fj_emit *of) { return of->plan->mod->program.ir; }

/* ---- Pieces --------------------------------------------------------------------------------------------------- */

/* Without #line, so that a compiler's messages and debuggers name the file that there is. */
static void put_text(fj_buf *out, fj_str text) {
    for (const char *at = text.data, *end = text.data + text.len; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        const size_t length = (size_t)((newline ? newline + 1 : end) - at);
        if (length < 6 || memcmp(at, "#line ", 6) != 0) fj_buf_write(out, at, length);
        at += length;
    }
}

/* Names of Python may have other letters. */
static void put_identifier(fj_buf *out, const char *name) {
    for (const char *at = name; *at; at++) {
        const bool sound = (*at >= 'a' && *at <= 'z') || (*at >= 'A' && *at <= 'Z') ||
                           (*at >= '0' && *at <= '9') || *at == '_';
        fj_buf_write(out, sound ? at : "_", 1);
    }
}

/* Whether an earlier one of the names becomes the same identifier. */
static bool same_identifier(const char *a, const char *b) {
    fj_buf x, y;
    fj_buf_init(&x, &fj_allocator_libc);
    fj_buf_init(&y, &fj_allocator_libc);
    put_identifier(&x, a);
    put_identifier(&y, b);
    const bool same = x.len == y.len && x.len > 0 && memcmp(x.data, y.data, x.len) == 0;
    fj_buf_finish(&x);
    fj_buf_finish(&y);
    return same;
}

static void put_shape(fj_buf *out, const int64_t *dims, int rank) {
    fj_buf_put(out, "[");
    for (int d = 0; d < rank; d++) {
        if (d) fj_buf_put(out, ",");
        if (dims[d] < 0)
            fj_buf_put(out, "any");
        else
            fj_buf_printf(out, "%lld", (long long)dims[d]);
    }
    fj_buf_put(out, "]");
}

static const char *c_bool(bool value) { return value ? "true" : "false"; }

static void put_bytes(fj_buf *out, const void *data, size_t size) {
    const unsigned char *bytes = data;
    char line[32 * 4 + 2];
    for (size_t at = 0; at < size; at += 32) {
        int length = 0;
        for (size_t i = at; i < at + 32 && i < size; i++)
            length += snprintf(line + length, sizeof line - (size_t)length, "%d,", bytes[i]);
        line[length++] = '\n';
        fj_buf_write(out, line, (size_t)length);
    }
    if (size == 0) fj_buf_put(out, "0\n"); /* ISO C has no arrays of no elements */
}

static const char *arch_of(const fj_emit *of, char arch[FJ_ARCH_NAME]) {
    if (is_cpu(of)) return fj_jit_isa_name(of->variant->isa);
    fj_jit_arch_name(of->variant->arch, arch);
    return arch;
}

/* ---- The header ------------------------------------------------------------------------------------------------ */

static void put_title(const fj_emit *of, fj_buf *out) {
    const fj_problem *problem = &of->plan->problem;
    char arch[FJ_ARCH_NAME];
    fj_buf_printf(out,
                  "/* Attention, %s, for %s %s: dtype %s, E %d, Ev %d%s. Kernel %s, written by flexjit %s.",
                  is_backward(of) ? "backward" : "forward", is_cpu(of) ? "cpu" : "cuda", arch_of(of, arch),
                  fj_dtype_name(problem->dtype), problem->head_dim, problem->value_dim,
                  problem->max && !is_backward(of) ? ", with max" : "", of->variant->name, FJ_VERSION);
}

/* An enumerator for each input of the mod. */
static void put_inputs(const fj_emit *of, bool scalars, fj_buf *out) {
    const fj_mod *mod = of->plan->mod;
    const size_t count = scalars ? mod->scalar_count : mod->capture_count;
    const char *word = scalars ? "SCALAR" : "CAPTURE";
    if (count == 0) return;
    fj_buf_printf(out, "/* %s */\nenum {\n", scalars ? "flexjit_args.scalars" : "flexjit_args.captures");
    for (size_t i = 0; i < count; i++) {
        const fj_input_info info = scalars ? fj_mod_scalar(mod, i) : fj_mod_capture(mod, i);
        bool repeated = false;
        for (size_t k = 0; k < i; k++)
            repeated |= same_identifier(info.name, scalars ? mod->scalars[k].name : mod->captures[k].name);
        fj_buf_printf(out, "    %s_%s_", of->name, word);
        put_identifier(out, info.name);
        if (repeated) fj_buf_printf(out, "_%zu", i);
        fj_buf_printf(out, " = %zu, /* ", i);
        if (scalars) {
            fj_buf_put(out, info.is_float ? "float, .f" : "int or bool, .i");
        } else {
            fj_buf_printf(out, "%s ", fj_dtype_name(info.dtype));
            put_shape(out, of->extents + mod->capture_index[i] * FJ_MAX_RANK, info.rank);
        }
        fj_buf_printf(out, "%s */\n", info.gradient && is_backward(of) ? ", has a gradient" : "");
    }
    fj_buf_printf(out, "    %s_%sS = %zu\n};\n\n", of->name, word, count);
}

static void put_cpu_functions(const fj_emit *of, fj_buf *out) {
    const char *name = of->name;
    fj_buf_printf(
        out,
        "/* Whether this CPU has the kernel's instruction set: 1, else 0. */\n"
        "int %s_supported(void);\n\n"
        "/* Bytes of workspace for a call on so many threads; 0: the arguments are wrong. workers: 0 for OpenMP's\n"
        " * default; without OpenMP there is one. Pointers are not followed, except for shapes and strides. */\n"
        "size_t %s_workspace(const flexjit_args *args, int workers);\n\n",
        name, name);
    fj_buf_printf(
        out,
        "/* Computes. workspace: as many bytes as %s_workspace says for these arguments and workers, 256-byte\n"
        " * aligned; it need not be initialised. Results do not depend on workers. Allocates nothing. %s */\n"
        "flexjit_status %s_launch(const flexjit_args *args, int workers, void *workspace, size_t workspace_size,\n"
        "                         flexjit_fault *ret_fault);\n\n",
        name,
        is_backward(of)
            ? "ret_fault may be NULL."
            : "ret_fault, which\n * may be NULL, is the first bad read of the mod in the order of b, h, q, kv.",
        name);
}

static void put_cuda_functions(const fj_emit *of, fj_buf *out) {
    const char *name = of->name;
    fj_buf_printf(
        out,
        "/* Loads the kernel for the GPU of the current context, and waits until it is there: not while a stream is\n"
        " * captured. What it loads is given back by %s_unload, in the same context, when nothing runs any more. */\n"
        "CUresult %s_load(flexjit_kernel *ret_kernel);\n"
        "CUresult %s_unload(flexjit_kernel *kernel);\n\n"
        "/* Bytes of workspace for a call, which may be 0. CUDA_ERROR_INVALID_VALUE: the arguments are wrong. */\n"
        "CUresult %s_workspace(const flexjit_args *args, size_t *ret_size);\n\n",
        name, name, name, name);
    fj_buf_printf(
        out,
        "/* Puts the kernels on a stream of the context of %s_load, which is current, and returns: it allocates nothing,\n"
        " * waits for nothing, loads nothing, and so can be captured in a graph. Data of tensors and the workspace, as\n"
        " * many bytes as %s_workspace says, 256-byte aligned, not initialised, are the GPU's memory, and stay until the\n"
        " * kernels are done. CUDA_ERROR_INVALID_VALUE: the arguments are wrong, or the workspace is; what cuLaunchKernel\n"
        " * gives. */\n"
        "CUresult %s_launch(const flexjit_kernel *kernel, const flexjit_args *args, CUdeviceptr workspace,\n"
        "                   size_t workspace_size, CUstream stream);\n\n",
        name, name, name);
    if (is_backward(of)) return;
    fj_buf_printf(
        out,
        "/* Waits for the stream, then says whether the mod read badly in the last launch with this workspace. */\n"
        "CUresult %s_check(CUdeviceptr workspace, CUstream stream, flexjit_fault *ret_fault);\n\n",
        name);
}

void fj_emit_header(const fj_emit *of, fj_buf *out) {
    const char *name = of->name;
    put_title(of, out);
    fj_buf_printf(
        out,
        "\n *\n * Functions may be called from any threads at the same time%s. All memory is the caller's.%s */\n",
        is_cpu(of) ? ", with workspaces of their own"
                   : ", with workspaces of their own and, to load, kernels",
        is_cpu(of) ? "" : " Needs CUDA 12 or newer.");
    fj_buf_printf(out,
                  "#ifndef FLEXJIT_EMITTED_%s_H\n#define FLEXJIT_EMITTED_%s_H\n\n%s#include <stddef.h>\n",
                  name, name, is_cpu(of) ? "" : "#include <cuda.h>\n");
    fj_buf_put(out, "#include <stdint.h>\n\n#ifdef __cplusplus\nextern \"C\" {\n#endif\n\n");
    put_text(out, of->api);
    fj_buf_put(out, "\n");
    put_inputs(of, false, out);
    put_inputs(of, true, out);
    fj_buf_printf(
        out,
        "/* A sentence for the first thing that is wrong with the arguments, as far as it can be seen without their data:\n"
        " * static. NULL: nothing is. */\n"
        "const char *%s_wrong(const flexjit_args *args);\n\n",
        name);
    (is_cpu(of) ? put_cpu_functions : put_cuda_functions)(of, out);
    fj_buf_put(out, "#ifdef __cplusplus\n}\n#endif\n\n#endif\n");
}

/* ---- Tables ---------------------------------------------------------------------------------------------------- */

static int public_index(const fj_mod *mod, size_t index) {
    for (size_t i = 0; i < mod->capture_count; i++)
        if (mod->capture_index[i] == index) return (int)i;
    return -1;
}

static size_t literal_size(const fj_tensor *literal) {
    size_t size = fj_dtype_size(literal->dtype);
    for (int d = 0; d < literal->rank; d++) size *= (size_t)literal->shape[d];
    return size;
}

static void put_literals(const fj_emit *of, fj_buf *out) {
    const fj_mod *mod = of->plan->mod;
    for (size_t i = 0; i < ir_of(of)->captures.len; i++) {
        const fj_tensor *literal = &mod->literals[i];
        if (!literal->present) continue;
        fj_buf_printf(out, "_Alignas(16) static const unsigned char fj_table_%zu[] = {\n", i);
        put_bytes(out, literal->data, literal_size(literal));
        fj_buf_put(out, "};\n");
    }
}

/* What is said of an input of the mod, and of its gradient. */
static void put_sentences(const char *kind, const char *name, fj_buf *out) {
    static const char *const members[] = {"says", "grad_says"}, *const wholes[] = {"", "the gradient of "};
    for (int i = 0; i < 2; i++) {
        fj_buf_printf(out, "%s.%s = FJ_SENTENCES(\"%s%s '", i ? ", " : "", members[i], wholes[i], kind);
        put_identifier(out, name ? name : "");
        fj_buf_put(out, "'\")");
    }
}

static void put_capture(const fj_emit *of, size_t i, fj_buf *out) {
    const fj_mod *mod = of->plan->mod;
    const fj_capture *capture = &ir_of(of)->captures.data[i];
    const fj_tensor *literal = &mod->literals[i];
    fj_buf_put(out, "    {");
    put_sentences("captured tensor", capture->name, out);
    if (literal->present) fj_buf_printf(out, ", .table = fj_table_%zu", i);
    fj_buf_printf(out, ", .public_index = %d, .size = %zu, .rank = %d, .dims = {", public_index(mod, i),
                  fj_dtype_size(capture->dtype), capture->rank);
    for (int d = 0; d < capture->rank; d++)
        fj_buf_printf(
            out, "%lld, ",
            (long long)(literal->present ? literal->shape[d] : of->extents[i * FJ_MAX_RANK + (size_t)d]));
    fj_buf_printf(out, "0}, .gradient = %s},\n", c_bool(capture->gradient));
}

static void put_tables(const fj_emit *of, fj_buf *out) {
    const fj_problem *problem = &of->plan->problem;
    const fj_ir *ir = ir_of(of);
    put_literals(of, out);
    fj_buf_put(out, "static const fj_emitted_input fj_emitted_captures[] = {\n");
    for (size_t i = 0; i < ir->captures.len; i++) put_capture(of, i, out);
    fj_buf_put(out, "    {.says = {NULL}},\n};\nstatic const fj_emitted_input fj_emitted_scalars[] = {\n");
    for (size_t i = 0; i < ir->scalars.len; i++) {
        const fj_runtime_scalar *scalar = &ir->scalars.data[i];
        fj_buf_put(out, "    {");
        put_sentences("run-time scalar", scalar->name, out);
        fj_buf_printf(out, ", .public_index = %zu, .gradient = %s, .is_float = %s, .is_bool = %s},\n", i,
                      c_bool(scalar->gradient), c_bool(scalar->type == FJ_TYPE_FLOAT),
                      c_bool(scalar->type == FJ_TYPE_BOOL));
    }
    fj_buf_printf(
        out,
        "    {.says = {NULL}},\n};\nstatic const fj_emitted fj_emitted_tables = {\n"
        "    .backward = %s,\n    .wide = %s,\n    .max = %s,\n    .element = %zu,\n    .real = %d,\n"
        "    .head_dim = %d,\n    .value_dim = %d,\n    .captures = fj_emitted_captures,\n"
        "    .scalars = fj_emitted_scalars,\n};\n",
        c_bool(is_backward(of)), c_bool(problem->dtype == FJ_DTYPE_F64),
        c_bool(problem->max && !is_backward(of)), fj_dtype_size(problem->dtype),
        problem->dtype == FJ_DTYPE_F64 ? 8 : 4, problem->head_dim, problem->value_dim);
}

static void put_cuda_tables(const fj_emit *of, fj_buf *out) {
    static const char *const grids[] = {
        [FJ_GRID_QUERY_TILES] = "FJ_GRID_QUERY_TILES",
        [FJ_GRID_KEY_TILES] = "FJ_GRID_KEY_TILES",
        [FJ_GRID_ROWS] = "FJ_GRID_ROWS",
        [FJ_GRID_GRADIENTS] = "FJ_GRID_GRADIENTS",
        [FJ_GRID_KEYS] = "FJ_GRID_KEYS",
    };
    const fj_gpu_facts facts = fj_jit_facts(&of->plan->jit_problem, of->variant);
    fj_buf_printf(
        out,
        "static const fj_gpu_facts fj_emitted_facts = {\n    .mma = %s,\n    .pack_heads = %s,\n"
        "    .tile_m = %d,\n    .head_pad = %d,\n    .backward = %s,\n    .deterministic = %s,\n"
        "    .notes = %s,\n    .capture_grads = %s,\n    .element = %d,\n    .real = %d,\n"
        "    .inputs = %d,\n    .splits = %d,\n    .tile_n = %d,\n    .value_dim = %d,\n    .room = %d,\n"
        "    .max = %s,\n};\n",
        c_bool(facts.mma), c_bool(facts.pack_heads), facts.tile_m, facts.head_pad, c_bool(facts.backward),
        c_bool(facts.deterministic), c_bool(facts.notes), c_bool(facts.capture_grads), facts.element,
        facts.real, facts.inputs, facts.splits, facts.tile_n, facts.value_dim, facts.room, c_bool(facts.max));
    fj_buf_put(out, "static const fj_entry fj_emitted_entries[FJ_EMITTED_ENTRIES] = {\n");
    for (int i = 0; i < of->variant->entry_count; i++) {
        const fj_entry *entry = &of->variant->entries[i];
        fj_buf_printf(out, "    {\"%s\", %d, %d, %s, %d},\n", entry->name, entry->threads, entry->shared,
                      grids[entry->grid], entry->slices);
    }
    fj_buf_put(out, "};\n/* The cubin. */\n"
                    "_Alignas(16) static const unsigned char fj_emitted_code[FJ_EMITTED_CODE_SIZE] = {\n");
    put_bytes(out, of->code.data, of->code.len);
    fj_buf_put(out, "};\n");
}

/* ---- The kernel of a cpu ------------------------------------------------------------------------------------------ */

/* The instruction set, -mNAME of the options that kernels are compiled with: GCC takes all of them, Clang names of
 * instructions alone. */
static void put_target(const fj_emit *of, bool gcc, fj_buf *out) {
    const char *const *options = fj_jit_compile_options(of->variant->isa);
    const char *comma = "";
    for (; *options; options++) {
        if (strncmp(*options, "-m", 2) != 0 || (!gcc && strchr(*options, '='))) continue;
        fj_buf_printf(out, "%s%s", comma, *options + 2);
        comma = ",";
    }
}

static bool has_target(const fj_emit *of) {
    const char *const *options = fj_jit_compile_options(of->variant->isa);
    for (; *options; options++)
        if (strncmp(*options, "-m", 2) == 0) return true;
    return false;
}

/* The other options that change code, not what is linked: arithmetic is op by op. The kernels are wrong without optimisation,
 * as they ask what is constant (tile_multiply of templates/cpu/tile.h). */
static void put_arithmetic(const fj_emit *of, fj_buf *out) {
    const char *const *options = fj_jit_compile_options(of->variant->isa);
    const char *comma = "";
    fj_buf_put(out, "#pragma GCC optimize(");
    for (; *options; options++) {
        const bool taken = strncmp(*options, "-O", 2) == 0 || strncmp(*options, "-ffp-", 5) == 0 ||
                           strncmp(*options, "-fno-math", 9) == 0 ||
                           strncmp(*options, "-fno-trapping", 13) == 0;
        if (!taken) continue;
        fj_buf_printf(out, "%s\"%s\"", comma, *options);
        comma = ", ";
    }
    fj_buf_put(out, ")\n");
}

static void put_kernel(const fj_emit *of, fj_buf *out) {
    fj_buf_put(out, "\n/* ---- The kernel ---- */\n\n#if defined(__clang__)\n#ifndef __OPTIMIZE__\n"
                    "#error \"this kernel needs optimisation: compile with -O2\"\n#endif\n"
                    "#pragma STDC FP_CONTRACT OFF\n");
    if (has_target(of)) {
        fj_buf_put(out, "#pragma clang attribute push(__attribute__((target(\"");
        put_target(of, false, out);
        fj_buf_put(out, "\"))), apply_to = function)\n#define FJ_ISA_BY_PRAGMA 1\n");
    }
    fj_buf_put(out, "#else\n#pragma GCC push_options\n");
    put_arithmetic(of, out);
    if (has_target(of)) {
        fj_buf_put(out, "#pragma GCC target(\"");
        put_target(of, true, out);
        fj_buf_put(out, "\")\n");
    }
    fj_buf_put(out, "#endif\n");
    put_text(out, of->kernel);
    fj_buf_put(out, "#if !defined(__clang__)\n#pragma GCC pop_options\n");
    if (has_target(of)) fj_buf_put(out, "#else\n#pragma clang attribute pop\n");
    fj_buf_put(out, "#endif\n");
}

/* ---- The source --------------------------------------------------------------------------------------------------- */

/* Of texts that are made of parts not all of which every kernel uses. */
static void put_silence(fj_buf *out) {
    static const char *const warnings[] = {"unused-function",         "unused-parameter", "unused-variable",
                                           "unused-but-set-variable", "sign-compare",     "unknown-pragmas"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(warnings); i++)
        fj_buf_printf(out, "#pragma GCC diagnostic ignored \"-W%s\"\n", warnings[i]);
    fj_buf_put(out, "#if !defined(__clang__)\n#pragma GCC diagnostic ignored \"-Wpsabi\"\n#endif\n");
}

void fj_emit_source(const fj_emit *of, fj_buf *out) {
    put_title(of, out);
    fj_buf_printf(out, " %s.h says how it\n * is called. */\n#include \"%s.h\"\n\n", of->name, of->name);
    put_silence(out);
    fj_buf_printf(out,
                  "\n#define FJ_EMITTED(what) %s_##what\n#define FJ_EMITTED_CAPTURES %zu\n#define "
                  "FJ_EMITTED_SCALARS %zu\n",
                  of->name, ir_of(of)->captures.len, ir_of(of)->scalars.len);
    if (is_cpu(of))
        fj_buf_printf(out, "#define FJ_EMITTED_ISA %d\n#define FJ_CPU_EXPORT static\n\n",
                      (int)of->variant->isa);
    else
        fj_buf_printf(out,
                      "#define FJ_EMITTED_ENTRIES %d\n#define FJ_EMITTED_CODE_SIZE %zu\n#define "
                      "FJ_EMITTED_WIDE_CAPTURES %d\n#define FJ_EMITTED_BACKWARD %d\n\n",
                      of->variant->entry_count, of->code.len > 0 ? of->code.len : 1,
                      of->variant->wide_captures, is_backward(of));
    put_text(out, of->host);
    if (is_cpu(of)) put_kernel(of, out);
    fj_buf_put(out, "\n/* ---- Tables ---- */\n\n");
    put_tables(of, out);
    if (!is_cpu(of)) put_cuda_tables(of, out);
}
