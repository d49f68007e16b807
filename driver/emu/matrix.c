/* mma, ldmatrix, stmatrix on the operands of 32 lanes.
 *
 * Numerics of mma: products of f16, bf16 and tf32 are exact in float. FJ_EMU_ROUND_NEAREST: they are added to the
 * addend one by one, in order of k, each sum rounded to nearest, which is fast. FJ_EMU_ROUND_TRUNCATE: several at once,
 * truncated, as hardware does (truncate.c). Kernels are compared within bounds that hold for both.
 */
#include <string.h>

#include "driver/emu/layout.h"
#include "driver/emu/machine.h"

#define INLINE static inline __attribute__((always_inline))

enum { ROWS = 16, COLUMNS = 8, MAX_DEPTH = 16 };

/* ---- Fragments to matrices and back ----------------------------------------------------------- */

INLINE void value_offsets(const fj_emu_layout *layout, uint32_t offsets[8]) {
    for (uint32_t v = 0; v < layout->values; v++) offsets[v] = fj_emu_layout_index(layout, 0, v);
}

/* 16-bit elements, two in a register. */
INLINE void gather_16(const fj_emu_layout *layout, uint32_t lane, const uint32_t *registers,
                      const uint32_t *offsets, uint16_t *matrix) {
    uint16_t *at = matrix + fj_emu_layout_index(layout, lane, 0);
    for (uint32_t v = 0; v < layout->values; v++)
        at[offsets[v]] = (uint16_t)(registers[v / 2] >> (v % 2 * 16));
}

INLINE void gather_32(const fj_emu_layout *layout, uint32_t lane, const uint32_t *registers,
                      const uint32_t *offsets, uint32_t *matrix) {
    uint32_t *at = matrix + fj_emu_layout_index(layout, lane, 0);
    for (uint32_t v = 0; v < layout->values; v++) at[offsets[v]] = registers[v];
}

/* ---- Elements to float, as bits --------------------------------------------------------------- */

INLINE void widen_f16(uint32_t *to, const uint16_t *from, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) {
        uint32_t magnitude = (from[i] & 0x7fffu) << 13, sign = (from[i] & 0x8000u) << 16;
        float scaled;
        memcpy(&scaled, &magnitude, sizeof scaled);
        scaled *= 0x1p112f; /* subnormals become normal */
        memcpy(&to[i], &scaled, sizeof scaled);
        to[i] |= sign | (magnitude >= 0x0f800000u ? 0x7f800000u : 0u); /* infinity, NaN */
    }
}

INLINE void widen_bf16(uint32_t *to, const uint16_t *from, uint32_t count) {
    for (uint32_t i = 0; i < count; i++) to[i] = (uint32_t)from[i] << 16;
}

/* ---- mma -------------------------------------------------------------------------------------- */

typedef float row_of_c __attribute__((vector_size(32)));

/* c[16][8] += a[16][depth] * b[depth][8] */
INLINE void multiply(float *c, const float *a, const float *b, int depth) {
    row_of_c columns[MAX_DEPTH];
    memcpy(columns, b, (size_t)depth * sizeof columns[0]);
    for (int i = 0; i < ROWS; i++) {
        row_of_c sum;
        memcpy(&sum, c + i * COLUMNS, sizeof sum);
        for (int k = 0; k < depth; k++) sum += a[i * depth + k] * columns[k];
        memcpy(c + i * COLUMNS, &sum, sizeof sum);
    }
}

/* The bits of A and B as floats. */
INLINE void gather_factors(int type, void *const operands[FJ_EMU_WARP], fj_emu_layout_id a_id,
                           fj_emu_layout_id b_id, uint32_t *a, uint32_t *b) {
    const fj_emu_layout *a_layout = &fj_emu_layouts[a_id], *b_layout = &fj_emu_layouts[b_id];
    uint32_t a_offsets[8] = {0}, b_offsets[8] = {0};
    uint16_t a_16[ROWS * MAX_DEPTH], b_16[MAX_DEPTH * COLUMNS];
    value_offsets(a_layout, a_offsets);
    value_offsets(b_layout, b_offsets);
    for (uint32_t l = 0; l < FJ_EMU_WARP; l++) {
        const fj_emu_mma *lane = operands[l];
        if (type == FJ_EMU_MMA_TF32) {
            gather_32(a_layout, l, lane->a, a_offsets, a);
            gather_32(b_layout, l, lane->b, b_offsets, b);
        } else {
            gather_16(a_layout, l, lane->a, a_offsets, a_16);
            gather_16(b_layout, l, lane->b, b_offsets, b_16);
        }
    }
    uint32_t a_count = (uint32_t)a_layout->rows * a_layout->columns,
             b_count = (uint32_t)b_layout->rows * COLUMNS;
    if (type == FJ_EMU_MMA_TF32) { /* the low 13 bits are not looked at */
        for (uint32_t i = 0; i < a_count; i++) a[i] &= 0xffffe000u;
        for (uint32_t i = 0; i < b_count; i++) b[i] &= 0xffffe000u;
    } else if (type == FJ_EMU_MMA_BF16) {
        widen_bf16(a, a_16, a_count);
        widen_bf16(b, b_16, b_count);
    } else {
        widen_f16(a, a_16, a_count);
        widen_f16(b, b_16, b_count);
    }
}

INLINE void product(int type, fj_emu_rounding rounding, void *const operands[FJ_EMU_WARP],
                    fj_emu_layout_id a_id, fj_emu_layout_id b_id, int depth) {
    uint32_t a_bits[ROWS * MAX_DEPTH], b_bits[MAX_DEPTH * COLUMNS], offsets[8] = {0};
    float a[ROWS * MAX_DEPTH], b[MAX_DEPTH * COLUMNS], c[ROWS * COLUMNS];
    const fj_emu_layout *layout = &fj_emu_layouts[FJ_EMU_C_16X8];
    gather_factors(type, operands, a_id, b_id, a_bits, b_bits);
    memcpy(a, a_bits, (size_t)(ROWS * depth) * sizeof *a);
    memcpy(b, b_bits, (size_t)(depth * COLUMNS) * sizeof *b);
    value_offsets(layout, offsets);
    for (uint32_t l = 0; l < FJ_EMU_WARP; l++) {
        float *at = c + fj_emu_layout_index(layout, l, 0);
        for (uint32_t v = 0; v < 4; v++) at[offsets[v]] = ((const fj_emu_mma *)operands[l])->c[v];
    }
    if (rounding == FJ_EMU_ROUND_TRUNCATE)
        fj_emu_multiply_truncated(c, a, b, depth, type == FJ_EMU_MMA_TF32 ? 4 : 8,
                                  type == FJ_EMU_MMA_F16 ? -14 : -126);
    else
        multiply(c, a, b, depth);
    for (uint32_t l = 0; l < FJ_EMU_WARP; l++) {
        const float *at = c + fj_emu_layout_index(layout, l, 0);
        for (uint32_t v = 0; v < 4; v++) ((fj_emu_mma *)operands[l])->c[v] = at[offsets[v]];
    }
}

void fj_emu_multiply(int type, fj_emu_rounding rounding, void *const operands[FJ_EMU_WARP]) {
    switch ((enum fj_emu_mma_type)type) {
    case FJ_EMU_MMA_F16:
        product(FJ_EMU_MMA_F16, rounding, operands, FJ_EMU_A_16X16, FJ_EMU_B_16X8, 16);
        break;
    case FJ_EMU_MMA_BF16:
        product(FJ_EMU_MMA_BF16, rounding, operands, FJ_EMU_A_16X16, FJ_EMU_B_16X8, 16);
        break;
    case FJ_EMU_MMA_TF32:
        product(FJ_EMU_MMA_TF32, rounding, operands, FJ_EMU_A_16X8_TF32, FJ_EMU_B_8X8_TF32, 8);
        break;
    case FJ_EMU_MMA_F16_K8:
        product(FJ_EMU_MMA_F16, rounding, operands, FJ_EMU_A_16X8_K8, FJ_EMU_B_8X8_K8, 8);
        break;
    }
}

/* ---- ldmatrix, stmatrix ----------------------------------------------------------------------- */

/* 8 rows of 16 bytes fill all 32 banks once when no two are in the same eighth of them. */
static void count_conflicts(struct emu_block *block, const fj_emu_matrix *const rows[8]) {
    uint32_t passes = 1;
    for (int i = 0; i < 8; i++) {
        uint32_t same = 0;
        for (int j = 0; j < 8; j++)
            same += (rows[j]->address >> 4 & 7) == (rows[i]->address >> 4 & 7) &&
                    (j <= i || rows[j]->address != rows[i]->address);
        passes = same > passes ? same : passes;
    }
    block->counts.matrix_loads++;
    block->counts.bank_conflicts += passes - 1;
}

/* Where element v (0 or 1) of the register of a lane is: the row, and its half-word. */
static const fj_emu_layout *matrix_layout(int variant) {
    return &fj_emu_layouts[variant & 8 ? FJ_EMU_MATRIX_8X8_T : FJ_EMU_MATRIX_8X8];
}

void fj_emu_load_matrices(struct emu_block *block, int variant, void *const operands[FJ_EMU_WARP]) {
    const fj_emu_layout *layout = matrix_layout(variant);
    for (int m = 0; m < (variant & 7); m++) {
        uint16_t matrix[64];
        const fj_emu_matrix *rows[8];
        for (int i = 0; i < 8; i++) {
            rows[i] = operands[8 * m + i];
            memcpy(matrix + 8 * i, rows[i]->row, 16);
        }
        count_conflicts(block, rows);
        uint32_t second = fj_emu_layout_index(layout, 0, 1);
        for (uint32_t l = 0; l < FJ_EMU_WARP; l++) {
            const uint16_t *at = matrix + fj_emu_layout_index(layout, l, 0);
            ((fj_emu_matrix *)operands[l])->reg[m] = at[0] | (uint32_t)at[second] << 16;
        }
    }
}

void fj_emu_store_matrices(struct emu_block *block, int variant, void *const operands[FJ_EMU_WARP]) {
    const fj_emu_layout *layout = matrix_layout(variant);
    for (int m = 0; m < (variant & 7); m++) {
        uint16_t matrix[64];
        const fj_emu_matrix *rows[8];
        uint32_t second = fj_emu_layout_index(layout, 0, 1);
        for (uint32_t l = 0; l < FJ_EMU_WARP; l++) {
            uint16_t *at = matrix + fj_emu_layout_index(layout, l, 0);
            uint32_t pair = ((const fj_emu_matrix *)operands[l])->reg[m];
            at[0] = (uint16_t)pair;
            at[second] = (uint16_t)(pair >> 16);
        }
        for (int i = 0; i < 8; i++) {
            fj_emu_matrix *row = operands[8 * m + i];
            rows[i] = row;
            memcpy(row->row, matrix + 8 * i, 16);
        }
        count_conflicts(block, rows);
    }
}
