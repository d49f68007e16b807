/* Which lane holds which element of a matrix, as data.
 *
 * Every fragment map of the tensor cores is linear over the bits of the lane and of the value: the bits
 * that are set each add a row and a column. So a map is a short table, and two facts make it right: no two
 * (lane, value) give the same element, and all of them together give the whole matrix. tests/emu checks
 * both, and against the formulas of templates/cuda/prim.h.
 */
#ifndef FJ_DRIVER_EMU_LAYOUT_H
#define FJ_DRIVER_EMU_LAYOUT_H

#include <stdint.h>

typedef enum fj_emu_layout_id {
    FJ_EMU_A_16X16,   /* m16n8k16, 16-bit elements: 4 registers of 2 */
    FJ_EMU_B_16X8,    /* 2 registers of 2 */
    FJ_EMU_C_16X8,    /* 4 floats */
    FJ_EMU_A_16X8_K8, /* m16n8k8, 16-bit elements: 2 registers of 2 */
    FJ_EMU_B_8X8_K8,
    FJ_EMU_A_16X8_TF32, /* m16n8k8, 32-bit elements: 4 registers */
    FJ_EMU_B_8X8_TF32,
    FJ_EMU_MATRIX_8X8, /* ldmatrix, stmatrix: 1 register of 2 */
    FJ_EMU_MATRIX_8X8_T,
    FJ_EMU_LAYOUT_COUNT
} fj_emu_layout_id;

typedef struct fj_emu_step {
    uint8_t row, column;
} fj_emu_step;

typedef struct fj_emu_layout {
    const char *name;
    uint8_t rows, columns, values; /* values per lane: registers times elements in each, lowest first */
    fj_emu_step lane[5], value[3]; /* of bit 0, 1, ... */
} fj_emu_layout;

/* PTX ISA, "Matrix Fragments for mma.m16n8k16" and following, and ldmatrix. In the header, so that the
 * compiler folds it into matrix.c. */
/* clang-format off */
static const fj_emu_layout fj_emu_layouts[FJ_EMU_LAYOUT_COUNT] = {
    /*                       name            rows cols values  lane bits, {row, column} each                    value bits */
    [FJ_EMU_A_16X16]      = {"A 16x16",        16, 16, 8, {{0, 2}, {0, 4}, {1, 0}, {2, 0}, {4, 0}}, {{0, 1}, {8, 0}, {0, 8}}},
    [FJ_EMU_B_16X8]       = {"B 16x8",         16,  8, 4, {{2, 0}, {4, 0}, {0, 1}, {0, 2}, {0, 4}}, {{1, 0}, {8, 0}}},
    [FJ_EMU_C_16X8]       = {"C 16x8",         16,  8, 4, {{0, 2}, {0, 4}, {1, 0}, {2, 0}, {4, 0}}, {{0, 1}, {8, 0}}},
    [FJ_EMU_A_16X8_K8]    = {"A 16x8 k8",      16,  8, 4, {{0, 2}, {0, 4}, {1, 0}, {2, 0}, {4, 0}}, {{0, 1}, {8, 0}}},
    [FJ_EMU_B_8X8_K8]     = {"B 8x8 k8",        8,  8, 2, {{2, 0}, {4, 0}, {0, 1}, {0, 2}, {0, 4}}, {{1, 0}}},
    [FJ_EMU_A_16X8_TF32]  = {"A 16x8 tf32",    16,  8, 4, {{0, 1}, {0, 2}, {1, 0}, {2, 0}, {4, 0}}, {{8, 0}, {0, 4}}},
    [FJ_EMU_B_8X8_TF32]   = {"B 8x8 tf32",      8,  8, 2, {{1, 0}, {2, 0}, {0, 1}, {0, 2}, {0, 4}}, {{4, 0}}},
    [FJ_EMU_MATRIX_8X8]   = {"matrix 8x8",      8,  8, 2, {{0, 2}, {0, 4}, {1, 0}, {2, 0}, {4, 0}}, {{0, 1}}},
    [FJ_EMU_MATRIX_8X8_T] = {"matrix 8x8 t",    8,  8, 2, {{2, 0}, {4, 0}, {0, 1}, {0, 2}, {0, 4}}, {{1, 0}}},
};
/* clang-format on */

/* Where value `value` of lane `lane` is in the matrix, row by row. The index of (lane, value) is the sum of
 * those of (lane, 0) and (0, value). */
static inline __attribute__((always_inline)) uint32_t fj_emu_layout_index(const fj_emu_layout *layout,
                                                                          uint32_t lane, uint32_t value) {
    uint32_t index = 0;
    for (uint32_t i = 0; i < 5; i++)
        index += (lane >> i & 1) * (uint32_t)(layout->lane[i].row * layout->columns + layout->lane[i].column);
    for (uint32_t i = 0; i < 3; i++)
        index +=
            (value >> i & 1) * (uint32_t)(layout->value[i].row * layout->columns + layout->value[i].column);
    return index;
}

#endif
