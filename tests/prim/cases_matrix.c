/* Matrices. Layouts are those of the PTX ISA's text, "Matrix Fragments for mma": groups of four lanes. */
#include <math.h>
#include <string.h>

#include "tests/prim/prim.h"

enum format { F16, BF16, TF32 };

struct element {
    int row, column;
};

/* ---- Fragments -------------------------------------------------------------------------------- */

/* 16-bit elements: groupID = lane / 4, threadID_in_group = lane % 4; i counts elements.
 * a: row groupID for i = 0, 1, 4, 5, else groupID + 8; column threadID * 2 + (i & 1), + 8 for i >= 4.
 * b: row threadID * 2 + (i & 1), + 8 for i >= 2; column groupID. */
static struct element a_of(enum format format, int lane, int i) {
    int group = lane / 4, thread = lane % 4;
    if (format == TF32) /* a0 (g, t), a1 (g + 8, t), a2 (g, t + 4), a3 (g + 8, t + 4) */
        return (struct element){i == 1 || i == 3 ? group + 8 : group, i >= 2 ? thread + 4 : thread};
    bool upper = i == 0 || i == 1 || i == 4 || i == 5;
    return (struct element){upper ? group : group + 8, thread * 2 + (i & 1) + (i >= 4 ? 8 : 0)};
}

static struct element b_of(enum format format, int lane, int i) {
    int group = lane / 4, thread = lane % 4;
    if (format == TF32) return (struct element){i == 0 ? thread : thread + 4, group};
    return (struct element){thread * 2 + (i & 1) + (i >= 2 ? 8 : 0), group};
}

static struct element c_of(int lane, int i) {
    return (struct element){i < 2 ? lane / 4 : lane / 4 + 8, lane % 4 * 2 + (i & 1)};
}

static double decode(enum format format, const uint32_t *registers, int i) {
    if (format == TF32) return (double)prim_float(registers[i] & 0xffffe000u);
    uint16_t bits = (uint16_t)(registers[i / 2] >> (i % 2 * 16));
    return format == F16 ? prim_decode(bits, 10, 5) : prim_decode(bits, 7, 8);
}

/* ---- mma -------------------------------------------------------------------------------------- */

static void mma(enum format format, int depth, const uint32_t *in, const struct prim_expected *e) {
    static double a[16][16], b[16][8];
    int a_count = 16 * depth / 32, b_count = depth * 8 / 32;
    for (int l = 0; l < 32; l++) {
        for (int i = 0; i < a_count; i++) {
            struct element at = a_of(format, l, i);
            a[at.row][at.column] = decode(format, in + l * 10, i);
        }
        for (int i = 0; i < b_count; i++) {
            struct element at = b_of(format, l, i);
            b[at.row][at.column] = decode(format, in + l * 10 + 4, i);
        }
    }
    for (int l = 0; l < 32; l++)
        for (int i = 0; i < 4; i++) {
            struct element at = c_of(l, i);
            double sum = (double)prim_float(in[l * 10 + 6 + i]), size = fabs(sum);
            for (int k = 0; k < depth; k++) {
                sum += a[at.row][k] * b[k][at.column];
                size += fabs(a[at.row][k] * b[k][at.column]);
            }
            e->bits[l * 4 + i] = prim_bits((float)sum);
            e->value[l * 4 + i] = sum;
            e->tolerance[l * 4 + i] = size * 0x1p-19; /* hardware truncates each of the terms */
        }
}

static void mma_f16(const uint32_t *in, const struct prim_expected *e) { mma(F16, 16, in, e); }
static void mma_bf16(const uint32_t *in, const struct prim_expected *e) { mma(BF16, 16, in, e); }
static void mma_tf32(const uint32_t *in, const struct prim_expected *e) { mma(TF32, 8, in, e); }
static void mma_f16_k8(const uint32_t *in, const struct prim_expected *e) { mma(F16, 8, in, e); }

/* Small integers: sums are exact, in whatever order. */
static double small(void) { return (double)(int)(prim_random() % 17) - 8; }

static void fill(enum format format, uint32_t *in, double (*number)(void)) {
    for (int l = 0; l < 32; l++, in += 10) {
        for (int i = 0; i < 6; i++) {
            double x = number(), y = number();
            if (format == TF32) in[i] = prim_bits((float)prim_round(x, 10, -126, 127, true));
            if (format == F16)
                in[i] = prim_encode(prim_round(x, 10, -14, 15, false), 10, 5) |
                        (uint32_t)prim_encode(prim_round(y, 10, -14, 15, false), 10, 5) << 16;
            if (format == BF16)
                in[i] = prim_encode(prim_round(x, 7, -126, 127, false), 7, 8) |
                        (uint32_t)prim_encode(prim_round(y, 7, -126, 127, false), 7, 8) << 16;
        }
        for (int i = 6; i < 10; i++) in[i] = prim_bits((float)number());
    }
}

static double any(void) {
    double x = (double)prim_random() / 0x1p31 - 1;
    return ldexp(x, (int)(prim_random() % 12) - 8);
}

static void fill_f16(uint32_t *in, uint32_t words) { (void)words, fill(F16, in, small); }
static void fill_bf16(uint32_t *in, uint32_t words) { (void)words, fill(BF16, in, small); }
static void fill_tf32(uint32_t *in, uint32_t words) { (void)words, fill(TF32, in, small); }
static void fill_any_f16(uint32_t *in, uint32_t words) { (void)words, fill(F16, in, any); }
static void fill_any_bf16(uint32_t *in, uint32_t words) { (void)words, fill(BF16, in, any); }
static void fill_any_tf32(uint32_t *in, uint32_t words) { (void)words, fill(TF32, in, any); }

/* ---- ldmatrix, stmatrix ----------------------------------------------------------------------- */

/* Row r of matrix m is where lane 8 * m + r points: row 5 * lane % 32 of memory. */
static int element_index(int m, int row, int column) { return 5 * (8 * m + row) % 32 * 8 + column; }

static void load_matrices(const uint32_t *in, const struct prim_expected *e, int count, bool transposed) {
    uint16_t memory[256];
    memcpy(memory, in, sizeof memory);
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < count; m++) {
            uint32_t pair = 0;
            for (int i = 0; i < 2; i++) {
                int major = l / 4, minor = l % 4 * 2 + i;
                int at = transposed ? element_index(m, minor, major) : element_index(m, major, minor);
                pair |= (uint32_t)memory[at] << (16 * i);
            }
            e->bits[l * count + m] = pair;
        }
}

static void store_matrices(const uint32_t *in, const struct prim_expected *e, int count, bool transposed) {
    uint16_t memory[256] = {0};
    for (int l = 0; l < 32; l++)
        for (int m = 0; m < count; m++)
            for (int i = 0; i < 2; i++) {
                int major = l / 4, minor = l % 4 * 2 + i;
                int at = transposed ? element_index(m, minor, major) : element_index(m, major, minor);
                memory[at] = (uint16_t)(in[l * count + m] >> (16 * i));
            }
    memcpy(e->bits, memory, sizeof memory);
}

#define MATRIX(count)                                                             \
    static void ld##count(const uint32_t *in, const struct prim_expected *e) {    \
        load_matrices(in, e, count, false);                                       \
    }                                                                             \
    static void ld##count##t(const uint32_t *in, const struct prim_expected *e) { \
        load_matrices(in, e, count, true);                                        \
    }                                                                             \
    static void st##count(const uint32_t *in, const struct prim_expected *e) {    \
        store_matrices(in, e, count, false);                                      \
    }                                                                             \
    static void st##count##t(const uint32_t *in, const struct prim_expected *e) { \
        store_matrices(in, e, count, true);                                       \
    }
MATRIX(1)
MATRIX(2)
MATRIX(4)

const struct prim_case prim_matrix_cases[] = {
    {"matrix", "prim_mma_f16", 80, 32, 0, 320, 128, PRIM_BITS, fill_f16, mma_f16, {0}, 0},
    {"matrix", "prim_mma_bf16", 80, 32, 0, 320, 128, PRIM_BITS, fill_bf16, mma_bf16, {0}, 0},
    {"matrix", "prim_mma_tf32", 80, 32, 0, 320, 128, PRIM_BITS, fill_tf32, mma_tf32, {0}, 0},
    {"matrix", "prim_mma_f16_k8", 75, 32, 0, 320, 128, PRIM_BITS, fill_f16, mma_f16_k8, {0}, 0},
    {"matrix", "prim_mma_f16_inexact", 80, 32, 0, 320, 128, PRIM_BOUND, fill_any_f16, mma_f16, {0}, 0},
    {"matrix", "prim_mma_bf16_inexact", 80, 32, 0, 320, 128, PRIM_BOUND, fill_any_bf16, mma_bf16, {0}, 0},
    {"matrix", "prim_mma_tf32_inexact", 80, 32, 0, 320, 128, PRIM_BOUND, fill_any_tf32, mma_tf32, {0}, 0},
    {"matrix", "prim_ldmatrix_x1", 75, 32, 512, 128, 32, PRIM_BITS, prim_fill_words, ld1, {0}, 0},
    {"matrix", "prim_ldmatrix_x2", 75, 32, 512, 128, 64, PRIM_BITS, prim_fill_words, ld2, {0}, 0},
    {"matrix", "prim_ldmatrix_x4", 75, 32, 512, 128, 128, PRIM_BITS, prim_fill_words, ld4, {0}, 0},
    {"matrix", "prim_ldmatrix_x1_t", 75, 32, 512, 128, 32, PRIM_BITS, prim_fill_words, ld1t, {0}, 0},
    {"matrix", "prim_ldmatrix_x2_t", 75, 32, 512, 128, 64, PRIM_BITS, prim_fill_words, ld2t, {0}, 0},
    {"matrix", "prim_ldmatrix_x4_t", 75, 32, 512, 128, 128, PRIM_BITS, prim_fill_words, ld4t, {0}, 0},
    {"matrix", "prim_stmatrix_x1", 90, 32, 512, 32, 128, PRIM_BITS, prim_fill_words, st1, {0}, 0},
    {"matrix", "prim_stmatrix_x2", 90, 32, 512, 64, 128, PRIM_BITS, prim_fill_words, st2, {0}, 0},
    {"matrix", "prim_stmatrix_x4", 90, 32, 512, 128, 128, PRIM_BITS, prim_fill_words, st4, {0}, 0},
    {"matrix", "prim_stmatrix_x1_t", 90, 32, 512, 32, 128, PRIM_BITS, prim_fill_words, st1t, {0}, 0},
    {"matrix", "prim_stmatrix_x2_t", 90, 32, 512, 64, 128, PRIM_BITS, prim_fill_words, st2t, {0}, 0},
    {"matrix", "prim_stmatrix_x4_t", 90, 32, 512, 128, 128, PRIM_BITS, prim_fill_words, st4t, {0}, 0},
    {0},
};
