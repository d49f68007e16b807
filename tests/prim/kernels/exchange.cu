// Where a thread is, and exchange within a warp.
#include "prim_args.h"

FJ_KERNEL(prim_ids, 64, 1, prim_args) { // grid 2 x 3 x 2
    const uint32_t block = (fj_block_z() * fj_grid_y() + fj_block_y()) * fj_grid_x() + fj_block_x();
    uint32_t *out = args.out + (block * fj_block_threads() + fj_thread_x()) * 8;
    out[0] = fj_thread_x();
    out[1] = fj_block_threads();
    out[2] = fj_lane();
    out[3] = fj_warp();
    out[4] = fj_block_x() | fj_block_y() << 8 | fj_block_z() << 16;
    out[5] = fj_grid_x();
    out[6] = fj_grid_y();
    out[7] = fj_grid_z();
}

// Time does not run backwards; the trap is not reached.
FJ_KERNEL(prim_clock, 32, 1, prim_args) {
    const uint64_t first = fj_clock();
    if (*prim_in(args, 1) == 0) fj_trap("an input of 0");
    fj_block_sync();
    *prim_out(args, 1) = fj_clock() >= first ? 1 : 0;
}

FJ_KERNEL(prim_shuffle, 32, 1, prim_args) {
    const uint32_t value = *prim_in(args, 1);
    uint32_t *out = prim_out(args, 8);
    out[0] = fj_shuffle_xor(value, 1);
    out[1] = fj_shuffle_xor(value, 21);
    out[2] = fj_shuffle_index(value, 5);
    out[3] = fj_shuffle_index(value, fj_lane() * 7);
    out[4] = fj_shuffle_up(value, 3);
    out[5] = fj_shuffle_down(value, 9);
    out[6] =
        fj_bits_from_f32(fj_shuffle_xor(prim_float(value), 16) + fj_shuffle_index(prim_float(value), 31));
    out[7] = fj_bits_from_f32(fj_shuffle_up(prim_float(value), 1) + fj_shuffle_down(prim_float(value), 1));
}

// The halves of a warp go different ways, each with its own members.
FJ_KERNEL(prim_shuffle_members, 32, 1, prim_args) {
    const uint32_t value = *prim_in(args, 1);
    uint32_t *out = prim_out(args, 2);
    if (fj_lane() < 16) {
        out[0] = fj_shuffle_xor(value, 8, 0x0000ffffu);
        out[1] = fj_ballot((value & 1) != 0, 0x0000ffffu);
    } else {
        out[0] = fj_shuffle_index(value, 16 + (fj_lane() + 1) % 16, 0xffff0000u);
        out[1] = fj_any(value == 0, 0xffff0000u) ? 1 : 0;
    }
}

FJ_KERNEL(prim_vote, 32, 1, prim_args) {
    const uint32_t value = *prim_in(args, 1);
    uint32_t *out = prim_out(args, 5);
    out[0] = fj_ballot((value & 1) != 0);
    out[1] = fj_any(fj_lane() == 17) ? 1 : 0;
    out[2] = fj_any(fj_lane() == 32) ? 1 : 0;
    out[3] = fj_all(fj_lane() < 32) ? 1 : 0;
    out[4] = fj_all(fj_lane() != 3) ? 1 : 0;
}

// Lanes that have exited take no part.
FJ_KERNEL(prim_exited_lanes, 32, 1, prim_args) {
    if (fj_lane() >= 20) return;
    uint32_t *out = prim_out(args, 2);
    out[0] = fj_ballot(true, 0x000fffffu);
    out[1] = fj_shuffle_xor(*prim_in(args, 1), 2, 0x000fffffu);
}
