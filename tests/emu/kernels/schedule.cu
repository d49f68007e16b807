// Kernels that do one thing wrong each, and some that show in which order threads ran. The line directives
// give each a file and line of its own, as rendered kernels have.
#include "prim.h"

struct schedule_args {
    uint32_t *out;
    const float *in;
};

// ---- Wrong ------------------------------------------------------------------------------------------

#line 10 "diverge.cu"
FJ_KERNEL(diverge, 64, 1, schedule_args) {
    uint32_t value;
    if (fj_lane() < 16)
        value = fj_shuffle_xor(fj_lane(), 1);
    else
        value = fj_shuffle_xor(fj_lane(), 1);
    args.out[fj_thread_x()] = value;
}

#line 20 "diverge_barrier.cu"
FJ_KERNEL(diverge_barrier, 64, 1, schedule_args) {
    if (fj_lane() == 7)
        fj_block_sync();
    else
        fj_block_sync();
    args.out[fj_thread_x()] = 1;
}

#line 30 "missing_warp.cu"
FJ_KERNEL(missing_warp, 128, 1, schedule_args) {
    if (fj_warp() == 2) return;
    fj_barrier_sync(1, 128);
    args.out[fj_thread_x()] = 1;
}

#line 40 "missing_lanes.cu"
FJ_KERNEL(missing_lanes, 64, 1, schedule_args) {
    if (fj_lane() < 30) fj_block_sync();
    args.out[fj_thread_x()] = fj_shuffle_xor(1u, 1);
}

#line 50 "exited_mma.cu"
FJ_KERNEL(exited_mma, 32, 1, schedule_args) {
    if (fj_lane() == 31) return;
    float c[4] = {};
    fj_mma_m16n8k8_f16(c, 0, 0, 0);
    args.out[fj_thread_x()] = fj_bits_from_f32(c[0]);
}

#line 60 "misaligned.cu"
FJ_KERNEL(misaligned, 32, 1, schedule_args) { args.out[0] = fj_load_b128(args.in + 1).r[0]; }

#line 70 "outside.cu"
FJ_KERNEL(outside, 32, 1, schedule_args) {
    uint32_t r[4];
    fj_ldmatrix_x4(r, fj_shared_address(fj_shared()) + fj_lane() * 16);
    args.out[fj_lane()] = r[0];
}

#line 80 "trapped.cu"
FJ_KERNEL(trapped, 32, 1, schedule_args) {
    if (fj_block_x() >= 3 && fj_lane() == 5) fj_trap("the input is wrong");
    args.out[fj_lane()] = 1;
}

#line 90 "overrun.cu"
FJ_KERNEL(overrun, 32, 1, schedule_args) {
    if (fj_lane() == 0) fj_shared_at<float>(0)[args.out[0]] = 1.0f;
}

#line 100 "spin.cu"
FJ_KERNEL(spin, 32, 1, schedule_args) {
    while (fj_load_acquire_u32(args.out) != 12345) fj_sleep(10);
}

#line 110 "arrive_twice.cu"
FJ_KERNEL(arrive_twice, 64, 1, schedule_args) {
    if (fj_warp() == 0) {
        fj_barrier_arrive(1, 64);
        fj_barrier_arrive(1, 64);
    }
    fj_block_sync();
}

#line 120 "counts_differ.cu"
FJ_KERNEL(counts_differ, 128, 1, schedule_args) { fj_barrier_sync(1, fj_warp() == 3 ? 64 : 128); }

#line 130 "no_mbarrier.cu"
FJ_KERNEL(no_mbarrier, 32, 1, schedule_args) { fj_mbarrier_wait(fj_shared_at<uint64_t>(0), 0); }

#line 140 "not_a_member.cu"
FJ_KERNEL(not_a_member, 32, 1, schedule_args) { args.out[fj_lane()] = fj_shuffle_xor(fj_lane(), 1, 0xffu); }

#line 150 "misaligned_shared.cu"
FJ_KERNEL(misaligned_shared, 32, 1, schedule_args) { args.out[0] = fj_shared_at<fj_b128>(8)->r[0]; }

#line 160 "misaligned_copy.cu"
FJ_KERNEL(misaligned_copy, 32, 1, schedule_args) {
    fj_copy_async_16(fj_shared_address(fj_shared()) + 8, args.in);
}

#line 170 "misaligned_source.cu"
FJ_KERNEL(misaligned_source, 32, 1, schedule_args) {
    fj_copy_async_8(fj_shared_address(fj_shared()), args.in + 1);
}

#line 180 "misaligned_matrix.cu"
FJ_KERNEL(misaligned_matrix, 32, 1, schedule_args) {
    uint32_t r[1];
    fj_ldmatrix_x1(r, fj_shared_address(fj_shared()) + fj_lane() % 8 * 8);
    args.out[fj_lane()] = r[0];
}

#line 190 "misaligned_store.cu"
FJ_KERNEL(misaligned_store, 32, 1, schedule_args) { fj_store_b64(args.out + 1, fj_b64{{1, 2}}); }

#line 200 "misaligned_atomic.cu"
FJ_KERNEL(misaligned_atomic, 32, 1, schedule_args) {
    fj_atomic_add(reinterpret_cast<int64_t *>(args.out + 1), int64_t{1});
}

// Halves of a warp come to one line, in two copies of the function that it is in.
#line 210 "two_products.cu"
FJ_DEVICE float multiply(float x) {
    float c[4] = {x, x, x, x};
    fj_mma_m16n8k8_f16(c, 0, 0, 0);
    return c[0];
}
FJ_KERNEL(two_products, 32, 1, schedule_args) {
    float c;
    if (fj_lane() < 16)
        c = multiply(args.in[0]);
    else
        c = multiply(args.in[1]) + 1;
    args.out[fj_lane()] = fj_bits_from_f32(c);
}

#line 230 "two_barriers.cu"
FJ_DEVICE void publish(uint32_t *to, uint32_t value) {
    *to = value;
    fj_block_sync();
}
FJ_KERNEL(two_barriers, 64, 1, schedule_args) {
    if (fj_lane() < 16) { // the ends differ, else a compiler may join them
        publish(args.out + fj_lane(), 1);
        args.out[64 + fj_lane()] = 3;
    } else {
        publish(args.out + 32, 2);
    }
    args.out[fj_thread_x()] += 1;
}

// ---- Right ------------------------------------------------------------------------------------------

#line 250 "order.cu"
// out[0]: a counter; then the threads, in the order in which they came, before and after a barrier.
FJ_KERNEL(order, 128, 1, schedule_args) {
    int32_t *counter = reinterpret_cast<int32_t *>(args.out);
    args.out[1 + fj_atomic_fetch_add(counter, 1)] = fj_thread_x();
    fj_block_sync();
    args.out[1 + fj_atomic_fetch_add(counter, 1)] = fj_thread_x();
}

FJ_KERNEL(block_order, 32, 1, schedule_args) {
    if (fj_lane() == 0)
        args.out[1 + fj_atomic_fetch_add(reinterpret_cast<int32_t *>(args.out), 1)] = fj_block_x();
}

// The product of 1 and 1, added to what in[0] is.
FJ_KERNEL(product, 32, 1, schedule_args) {
    const uint32_t one = fj_lane() % 4 == 0 ? 0x3f80u : 0;
    float c[4] = {args.in[0], args.in[0], args.in[0], args.in[0]};
    fj_mma_m16n8k16_bf16(c, {one, one, 0, 0}, one, 0);
    for (uint32_t i = 0; i < 4; i++) args.out[fj_lane() * 4 + i] = fj_bits_from_f32(c[i]);
}

// A frame of 300 kB: of a mod with many values.
FJ_KERNEL(deep, 1024, 1, schedule_args) {
    uint32_t words[75000];
    for (uint32_t i = 0; i < 75000; i++) words[i] = i * 3 + fj_thread_x();
    fj_block_sync();
    if (fj_thread_x() < 64) args.out[fj_thread_x()] = words[args.out[500] % 75000];
}

// What was not set.
FJ_KERNEL(unset, 32, 1, schedule_args) {
    uint32_t words[8];
    const uint32_t set = args.out[0];
    words[set % 8] = 0;
    fj_block_sync();
    args.out[fj_lane()] = words[(set + 1 + fj_lane()) % 8];
}

// What shared memory holds at the start, and where a copy was to land before and after the wait.
FJ_KERNEL(undefined, 32, 1, schedule_args) {
    uint32_t *words = fj_shared_at<uint32_t>(0);
    args.out[fj_lane()] = words[fj_lane()];
    fj_copy_async_4(fj_shared_address(words + fj_lane()), args.in + fj_lane());
    fj_copy_async_commit();
    args.out[32 + fj_lane()] = words[fj_lane()];
    fj_copy_async_wait<0>();
    args.out[64 + fj_lane()] = words[fj_lane()];
}

// Two groups, of which the first is waited for, and a copy that no group holds.
FJ_KERNEL(pending, 32, 1, schedule_args) {
    uint32_t *words = fj_shared_at<uint32_t>(0) + fj_lane();
    for (uint32_t i = 0; i < 3; i++) {
        fj_copy_async_4(fj_shared_address(words + 32 * i), args.in + fj_lane());
        if (i < 2) fj_copy_async_commit();
    }
    fj_copy_async_wait<1>();
    for (uint32_t i = 0; i < 3; i++) args.out[32 * i + fj_lane()] = words[32 * i];
    fj_copy_async_wait<0>();
    for (uint32_t i = 0; i < 3; i++) args.out[96 + 32 * i + fj_lane()] = words[32 * i];
}

// Words that are written before they are copied over, and read before the wait and after; half of each copy has no source.
FJ_KERNEL(overwritten, 32, 1, schedule_args) {
    uint32_t *words = fj_shared_at<uint32_t>(0) + fj_lane() * 4;
    for (uint32_t i = 0; i < 4; i++) words[i] = 7;
    fj_copy_async_16(fj_shared_address(words), args.in + fj_lane() % 8 * 4, 8);
    fj_copy_async_commit();
    for (uint32_t i = 0; i < 4; i++) args.out[fj_lane() * 4 + i] = words[i];
    fj_copy_async_wait<0>();
    for (uint32_t i = 0; i < 4; i++) args.out[128 + fj_lane() * 4 + i] = words[i];
}

// The same by a bulk copy, of all of its bytes.
FJ_KERNEL(overwritten_bulk, 32, 1, schedule_args) {
    uint32_t *words = fj_shared_at<uint32_t>(0);
    uint64_t *barrier = fj_shared_at<uint64_t>(128);
    words[fj_lane()] = 7;
    if (fj_lane() == 0) fj_mbarrier_init(barrier, 1);
    fj_fence_async_shared();
    fj_block_sync();
    if (fj_lane() == 0) {
        fj_mbarrier_arrive_expect(barrier, 128);
        fj_copy_bulk(fj_shared_address(words), args.in, 128, barrier);
    }
    fj_warp_sync();
    args.out[fj_lane()] = words[fj_lane()];
    fj_mbarrier_wait(barrier, 0);
    args.out[32 + fj_lane()] = words[fj_lane()];
}

// The formulas of prim.h, for the test of the tables.
FJ_KERNEL(formulas, 32, 1, schedule_args) {
    for (uint32_t i = 0; i < 4; i++)
        args.out[fj_lane() * 4 + i] = fj_mma_c_row(fj_lane(), i) * 8 + fj_mma_c_column(fj_lane(), i);
}

// Two rows of 16 bytes in the same banks, twice.
FJ_KERNEL(conflicts, 32, 1, schedule_args) {
    uint32_t r[2];
    fj_shared_at<uint32_t>(0)[fj_lane()] = 0;
    fj_block_sync();
    fj_ldmatrix_x2(r, fj_shared_address(fj_shared()) + (fj_lane() % 8 == 7 ? 128u : fj_lane() % 8 * 16));
    args.out[fj_lane()] = r[0];
}
