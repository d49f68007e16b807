/* The text that makes emitted hooks compile for one position: lanes of one, everything in double. The
 * operations are the value columns of ops.def, as text. C; and C++ with an overload per type, for the
 * text of the CUDA column. */
#include <stdio.h>
#include <string.h>

#include "base/dtype.h"
#include "base/embed.h"
#include "expr/ir/emit.h"

static const char *const c_types[FJ_TYPE_COUNT] = {"void", "bool", "int32_t", "int64_t", "double"};

static void put_embedded(fj_buf *out, const char *name) {
    for (size_t i = 0; i < fj_template_table_len; i++) {
        if (strcmp(fj_template_table[i].name, name) == 0) {
            fj_buf_write(out, fj_template_table[i].text, fj_template_table[i].len);
        }
    }
}

static void put_parameters(fj_buf *out, const fj_op_info *info, fj_type type) {
    for (int i = 0; i < info->arity; i++) {
        const fj_type of = info->rule == FJ_RULE_WHERE && i == 0 ? FJ_TYPE_BOOL : type;
        fj_buf_printf(out, "%s%s %c", i > 0 ? ", " : "", c_types[of], 'a' + i);
    }
}

static void put_operation(fj_buf *out, fj_op op, fj_type type) {
    static const char *const names[FJ_TYPE_COUNT] = {
        "",
        "typedef bool T; enum { ONES = 1 };",
        "typedef int32_t T; typedef uint32_t U; enum { WIDTH = 32, ONES = -1 };",
        "typedef int64_t T; typedef uint64_t U; enum { WIDTH = 64, ONES = -1 };",
        "typedef double T;",
    };
    const fj_op_info *info = &fj_op_table[op];
    const fj_type result = (fj_type)fj_op_result(op, (int)type);
    char suffixed[64];
    const char letter = fj_type_letters[type], to = fj_type_letters[result];
    fj_buf_printf(out, "static inline %s ", c_types[result]);
    if (info->rule >= FJ_RULE_CAST_BOOL) {
        (void)snprintf(suffixed, sizeof suffixed, "fj_cast_%c_%c", letter, to);
    } else {
        (void)snprintf(suffixed, sizeof suffixed, "fj_%s_%c", info->name, letter);
    }
    fj_buf_printf(out, "%s(", suffixed);
    put_parameters(out, info, type);
    fj_buf_printf(out, ") { %s return %s; }\n", names[type],
                  type == FJ_TYPE_FLOAT ? info->float_text : info->int_text);
    fj_buf_printf(out, "#ifdef __cplusplus\nstatic inline %s fj_%s(", c_types[result], info->name);
    put_parameters(out, info, type);
    fj_buf_printf(out, ") { return %s(%s); }\n#endif\n", suffixed,
                  info->arity == 1   ? "a"
                  : info->arity == 2 ? "a, b"
                                     : "a, b, c");
}

static void put_operations(fj_buf *out) {
    for (int op = FJ_OP_NONE + 1; op < FJ_OP_COUNT; op++) {
        for (int type = FJ_TYPE_BOOL; type < FJ_TYPE_COUNT; type++) {
            if (fj_op_lanes_table[op][type] != NULL) put_operation(out, (fj_op)op, (fj_type)type);
        }
    }
}

static void put_loads(fj_buf *out) {
    static const char *const elements[FJ_DTYPE_COUNT] = {
        [FJ_DTYPE_BOOL] = "uint8_t", [FJ_DTYPE_I8] = "int8_t",   [FJ_DTYPE_U8] = "uint8_t",
        [FJ_DTYPE_I16] = "int16_t",  [FJ_DTYPE_I32] = "int32_t", [FJ_DTYPE_I64] = "int64_t",
        [FJ_DTYPE_F32] = "float",    [FJ_DTYPE_F64] = "double",
    };
    for (int dtype = 0; dtype < FJ_DTYPE_COUNT; dtype++) {
        if (elements[dtype] != NULL) {
            fj_buf_printf(out, "FJ_LOAD(%s, %s, %s)\n", fj_dtype_code_name((fj_dtype)dtype), elements[dtype],
                          c_types[fj_ir_value_type((fj_dtype)dtype)]);
        }
    }
}

static const char types_text[] =
    "typedef double fj_real, fj_f, fj_acc;\ntypedef int32_t fj_i;\ntypedef int64_t fj_l;\ntypedef bool fj_b;\n"
    "static inline fj_f fj_splat_f(double x) { return x; }\n"
    "static inline fj_i fj_splat_i(int32_t x) { return x; }\n"
    "static inline fj_l fj_splat_l(int64_t x) { return x; }\n"
    "static inline fj_b fj_splat_b(int x) { return x != 0; }\n"
    "static inline double fj_first_f(fj_f x) { return x; }\n"
    "static inline int32_t fj_first_i(fj_i x) { return x; }\n"
    "static inline int64_t fj_first_l(fj_l x) { return x; }\n"
    "static inline int fj_first_b(fj_b x) { return x; }\n";

/* Reads and scatters of one position; the index rule again. */
static const char memory_text[] =
    "static inline int64_t fj_locate(const struct fj_cpu_tensor *t, int rank, const fj_l *at, int packed) {\n"
    "    int64_t offset = 0;\n"
    "    for (int d = 0; d < rank; d++) {\n"
    "        int64_t n = t->shape[d];\n"
    "        if (at[d] < -n || at[d] >= n) return -1;\n"
    "        int64_t i = at[d] < 0 ? at[d] + n : at[d];\n"
    "        offset = packed ? offset * n + i : offset + i * t->stride[d];\n"
    "    }\n"
    "    return offset;\n"
    "}\n"
    "static inline bool fj_out_of_range_mixed(const struct fj_cpu_tensor *t, int rank, const fj_l *at,\n"
    "                                         unsigned varying) {\n"
    "    (void)varying;\n"
    "    return fj_locate(t, rank, at, 1) < 0;\n"
    "}\n"
    "static inline void fj_scatter_mixed_f(fj_acc *to, const struct fj_cpu_tensor *t, int rank, const fj_l *at,\n"
    "                                      unsigned varying, fj_f value, fj_b live) {\n"
    "    (void)varying;\n"
    "    int64_t offset = fj_locate(t, rank, at, 1);\n"
    "    if (to && live && offset >= 0) to[offset] += value;\n"
    "}\n"
    "static inline bool fj_out_of_range(const struct fj_cpu_tensor *t, int rank, const fj_l *at) {\n"
    "    return fj_out_of_range_mixed(t, rank, at, 0);\n"
    "}\n"
    "static inline void fj_scatter_f(fj_acc *to, const struct fj_cpu_tensor *t, int rank, const fj_l *at, fj_f value,\n"
    "                                fj_b live) {\n"
    "    fj_scatter_mixed_f(to, t, rank, at, 0, value, live);\n"
    "}\n"
    "static inline void fj_scatter_scalar_f(fj_acc *to, fj_f value, fj_b live) {\n"
    "    if (live) *to += value;\n"
    "}\n"
    "#define FJ_LOAD_AS(name, element, value) \\\n"
    "    static inline value name(const struct fj_cpu_tensor *t, int rank, const fj_l *at) { \\\n"
    "        int64_t offset = fj_locate(t, rank, at, 0); \\\n"
    "        return offset < 0 ? (value)0 : (value)((const element *)t->data)[offset]; \\\n"
    "    }\n"
    "#define FJ_LOAD(name, element, value) \\\n"
    "    FJ_LOAD_AS(fj_load_##name, element, value) \\\n"
    "    FJ_LOAD_AS(fj_load_##name##_uniform, element, value) \\\n"
    "    static inline value fj_load_##name##_mixed(const struct fj_cpu_tensor *t, int rank, const fj_l *at, \\\n"
    "                                               unsigned varying) { \\\n"
    "        (void)varying; \\\n"
    "        return fj_load_##name##_uniform(t, rank, at); \\\n"
    "    }\n";

/* What a wrapper of the hooks takes and gives (emit.c). */
static const char wrapper_text[] = "struct fj_scalar_position {\n"
                                   "    int32_t b, h, q, kv;\n"
                                   "    double score, adjoint;\n"
                                   "    bool live;\n"
                                   "};\n"
                                   "struct fj_scalar_result {\n"
                                   "    double score, dscore;\n"
                                   "    bool mask, fault;\n"
                                   "    int block_class;\n"
                                   "    double **dcaptures, *dscalars;\n"
                                   "};\n"
                                   "#ifdef __cplusplus\n"
                                   "struct fj_indices {\n"
                                   "    fj_l at[8];\n"
                                   "    operator const fj_l *() const { return at; }\n"
                                   "};\n"
                                   "#endif\n";

void fj_ir_emit_scalar_header(fj_buf *out) {
    fj_buf_put(out, "#include <math.h>\n#include <stdbool.h>\n#include <stdint.h>\n\n");
    put_embedded(out, "cpu/abi.h");
    put_embedded(out, "expr/ir/scalar_ops.h");
    put_embedded(out, "expr/ir/interval_rules.h");
    fj_buf_put(out, types_text);
    put_operations(out);
    fj_buf_put(out, memory_text);
    put_loads(out);
    fj_buf_put(out, wrapper_text);
}
