// Barriers, and flags between blocks. What one thread writes another reads.
#include "prim_args.h"

FJ_KERNEL(prim_block_sync, 128, 1, prim_args) {
    uint32_t *words = fj_shared_at<uint32_t>(0);
    const uint32_t thread = fj_thread_x();
    uint32_t value = *prim_in(args, 1);
    for (uint32_t round = 1; round <= 3; round++) {
        words[thread] = value;
        fj_block_sync();
        value += words[(thread + 37 * round) % 128];
        fj_block_sync();
    }
    *prim_out(args, 1) = value;
}

// Three warps exit, at different times, before the fourth is through its barriers.
FJ_KERNEL(prim_exited_threads, 128, 1, prim_args) {
    uint32_t *words = fj_shared_at<uint32_t>(0);
    words[fj_thread_x()] = *prim_in(args, 1);
    for (uint32_t round = 0; round < 4; round++) {
        fj_block_sync();
        if (fj_warp() == round && round < 3) return;
    }
    if (fj_lane() % 2 == 1) return;
    fj_block_sync();
    args.out[fj_lane() / 2] = words[fj_lane()] + words[fj_lane() + 1];
}

// Warps 0 and 1 produce, warps 2 and 3 consume, in two rounds: barriers 1 full, 2 empty.
FJ_KERNEL(prim_barrier_named, 128, 1, prim_args) {
    uint32_t *words = fj_shared_at<uint32_t>(0);
    const uint32_t thread = fj_thread_x();
    if (fj_warp() < 2) {
        for (uint32_t round = 0; round < 2; round++) {
            if (round > 0) fj_barrier_sync(2, 128);
            words[thread] = args.in[round * 64 + thread];
            fj_barrier_arrive(1, 128);
        }
    } else {
        for (uint32_t round = 0; round < 2; round++) {
            fj_barrier_sync(1, 128);
            args.out[round * 64 + thread - 64] = words[127 - thread];
            if (round == 0) fj_barrier_arrive(2, 128);
        }
    }
}

// A barrier of two warps out of four, twice, while the others do nothing of the kind.
FJ_KERNEL(prim_barrier_part, 128, 1, prim_args) {
    uint32_t *words = fj_shared_at<uint32_t>(0);
    const uint32_t thread = fj_thread_x(), first = thread / 64 * 64;
    words[thread] = *prim_in(args, 1);
    fj_barrier_sync(3 + thread / 64, 64);
    *prim_out(args, 1) = words[first + 63 - thread % 64];
}

FJ_KERNEL(prim_warp_sync, 32, 1, prim_args) {
    uint32_t *words = fj_shared_at<uint32_t>(0);
    words[fj_lane()] = *prim_in(args, 1);
    fj_warp_sync();
    const uint32_t value = words[31 - fj_lane()];
    fj_warp_sync();
    if (fj_lane() < 16) {
        words[fj_lane()] = value;
        fj_warp_sync(0x0000ffffu);
        *prim_out(args, 1) = words[(fj_lane() + 1) % 16];
    } else {
        *prim_out(args, 1) = value;
    }
}

// The block that comes second waits for what the first one wrote. Which it is, a ticket says: a block may wait
// only for blocks that have begun.
FJ_KERNEL(prim_flag, 32, 1, prim_args) {
    uint32_t *flag = args.out + 64, *tickets = args.out + 65;
    int32_t ticket = 0;
    if (fj_lane() == 0) ticket = fj_atomic_fetch_add(reinterpret_cast<int32_t *>(tickets), 1);
    if (fj_shuffle_index(static_cast<uint32_t>(ticket), 0) == 0) {
        args.out[fj_lane()] = args.in[fj_lane()];
        fj_fence_device();
        fj_warp_sync();
        if (fj_lane() == 0) fj_store_release_u32(flag, 1);
    } else {
        while (fj_load_relaxed_u32(flag) != 1) fj_sleep(100);
        while (fj_load_acquire_u32(flag) != 1) fj_sleep(100);
        fj_warp_sync();
        args.out[32 + fj_lane()] = args.out[31 - fj_lane()] + 1;
    }
}

#if FJ_HAS_MBARRIER
// Warp 0 fills two buffers in turn, warp 1 empties them; objects: full 0, full 1, empty 0, empty 1.
FJ_KERNEL(prim_mbarrier, 64, 1, prim_args) {
    uint64_t *full = fj_shared_at<uint64_t>(0), *empty = full + 2;
    uint32_t *words = fj_shared_at<uint32_t>(64);
    const uint32_t lane = fj_lane();
    if (fj_thread_x() == 0) {
        for (uint32_t i = 0; i < 4; i++) fj_mbarrier_init(full + i, 32);
        fj_mbarrier_init_fence();
    }
    fj_block_sync();
    for (uint32_t round = 0; round < 6; round++) {
        const uint32_t buffer = round % 2, parity = round / 2 % 2;
        uint32_t *at = words + buffer * 32;
        if (fj_warp() == 0) {
            fj_mbarrier_wait(empty + buffer, parity ^ 1);
            at[lane] = args.in[round * 32 + lane];
            fj_mbarrier_arrive(full + buffer);
        } else {
            fj_mbarrier_wait(full + buffer, parity);
            args.out[round * 32 + lane] = at[31 - lane];
            fj_mbarrier_arrive(empty + buffer);
        }
    }
}

// Warp 0 copies each row of 128 bytes in two parts, warp 1 reads; two buffers.
FJ_KERNEL(prim_copy_bulk, 64, 1, prim_args) {
    uint64_t *full = fj_shared_at<uint64_t>(0), *empty = full + 2;
    uint32_t *words = fj_shared_at<uint32_t>(128);
    const uint32_t lane = fj_lane();
    if (fj_thread_x() == 0) {
        for (uint32_t i = 0; i < 2; i++) {
            fj_mbarrier_init(full + i, 1);
            fj_mbarrier_init(empty + i, 32);
        }
        fj_mbarrier_init_fence();
    }
    fj_block_sync();
    for (uint32_t round = 0; round < 6; round++) {
        const uint32_t buffer = round % 2, parity = round / 2 % 2;
        uint32_t *at = words + buffer * 32;
        if (fj_thread_x() == 0) {
            fj_mbarrier_wait(empty + buffer, parity ^ 1);
            fj_fence_async_shared();
            fj_mbarrier_arrive_expect(full + buffer, 128);
            fj_copy_bulk(fj_shared_address(at), args.in + round * 32, 96, full + buffer);
            fj_copy_bulk(fj_shared_address(at + 24), args.in + round * 32 + 24, 32, full + buffer);
        } else if (fj_warp() == 1) {
            fj_mbarrier_wait(full + buffer, parity);
            args.out[round * 32 + lane] = at[31 - lane];
            fj_mbarrier_arrive(empty + buffer);
        }
    }
}
#endif
