// Copies, loads and stores, atomics, swizzles.
#include "prim_args.h"

// Every lane copies its words with its own number of source bytes: lane % (size + 1).
#define PRIM_COPY(name, words, copy)                                                    \
    FJ_KERNEL(name, 32, 1, prim_args) {                                                 \
        uint32_t *at = fj_shared_at<uint32_t>(0) + fj_lane() * words;                   \
        copy(fj_shared_address(at), prim_in(args, words), fj_lane() % (words * 4 + 1)); \
        fj_copy_async_commit();                                                         \
        fj_copy_async_wait<0>();                                                        \
        for (uint32_t i = 0; i < words; i++) prim_out(args, words)[i] = at[i];          \
    }
PRIM_COPY(prim_copy_4, 1, fj_copy_async_4)
PRIM_COPY(prim_copy_8, 2, fj_copy_async_8)
PRIM_COPY(prim_copy_16, 4, fj_copy_async_16)

// Four groups in three buffers; each is read as soon as it may be, by other lanes than those that copied.
FJ_KERNEL(prim_copy_groups, 32, 1, prim_args) {
    uint32_t *words = fj_shared_at<uint32_t>(0);
    for (uint32_t group = 0; group < 2; group++) {
        fj_copy_async_16(fj_shared_address(words + group * 128 + fj_lane() * 4),
                         args.in + group * 128 + fj_lane() * 4);
        fj_copy_async_commit();
    }
    for (uint32_t group = 0; group < 4; group++) {
        const uint32_t next = group + 2;
        if (next < 4)
            fj_copy_async_16(fj_shared_address(words + next % 3 * 128 + fj_lane() * 4),
                             args.in + next * 128 + fj_lane() * 4);
        fj_copy_async_commit();
        fj_copy_async_wait<2>();
        fj_block_sync();
        for (uint32_t i = 0; i < 4; i++)
            args.out[group * 128 + i * 32 + fj_lane()] = words[group % 3 * 128 + i * 32 + 31 - fj_lane()];
        fj_block_sync();
    }
}

FJ_KERNEL(prim_load_store, 32, 1, prim_args) {
    const uint32_t *in = prim_in(args, 24);
    uint32_t *out = prim_out(args, 24);
    fj_prefetch(in);
    fj_store_b128(out, fj_load_b128(in));
    fj_store_b128<FJ_CACHE_STREAM>(out + 4, fj_load_b128<FJ_CACHE_READ_ONLY>(in + 4));
    fj_store_b128(out + 8, fj_load_b128<FJ_CACHE_STREAM>(in + 8));
    fj_store_b64(out + 12, fj_load_b64(in + 12));
    fj_store_b64<FJ_CACHE_STREAM>(out + 14, fj_load_b64<FJ_CACHE_READ_ONLY>(in + 14));
    fj_store_b64(out + 16, fj_load_b64<FJ_CACHE_STREAM>(in + 16));
    fj_store_b32(out + 18, fj_load_b32(in + 18));
    fj_store_b32<FJ_CACHE_STREAM>(out + 19, fj_load_b32<FJ_CACHE_READ_ONLY>(in + 19));
    fj_store_b32(out + 20, fj_load_b32<FJ_CACHE_STREAM>(in + 20));
    for (uint32_t i = 21; i < 24; i++) out[i] = in[i] ^ 0xffffffffu;
}

// Sums are of small integers: any order gives the same. Two blocks. out: see the table.
FJ_KERNEL(prim_atomic, 32, 1, prim_args) {
    const int32_t value = static_cast<int32_t>(args.in[fj_lane()] % 1000) - 500;
    uint32_t *out = args.out;
    fj_atomic_add(reinterpret_cast<float *>(out), static_cast<float>(value));
    fj_atomic_add(reinterpret_cast<int32_t *>(out + 1), value);
    fj_atomic_add(reinterpret_cast<double *>(out + 2), static_cast<double>(value) + 0.25);
    fj_atomic_add(reinterpret_cast<int64_t *>(out + 4), static_cast<int64_t>(value) * 0x100000000);
    (void)fj_atomic_fetch_max(out + 7, args.in[fj_lane()]);
    const uint32_t ticket =
        static_cast<uint32_t>(fj_atomic_fetch_add(reinterpret_cast<int32_t *>(out + 8), 1));
    out[16 + ticket] = 1;
}

#if FJ_HAS_ATOMIC_V4
// Threads 2 n and 2 n + 1 add to words 4 n .. 4 n + 3.
FJ_KERNEL(prim_atomic_v4, 32, 1, prim_args) {
    float values[4];
    for (uint32_t i = 0; i < 4; i++)
        values[i] = static_cast<float>(static_cast<int32_t>(args.in[fj_lane() * 4 + i] % 1000) - 500);
    fj_atomic_add_v4(reinterpret_cast<float *>(args.out) + fj_lane() / 2 * 4, values);
}
#endif

// The output starts as all ones.
FJ_KERNEL(prim_atomic_min, 32, 1, prim_args) { (void)fj_atomic_fetch_min(args.out, args.in[fj_lane()]); }

// In: what is there, and what is added. Out: the sum in global, and in shared memory.
FJ_KERNEL(prim_atomic_subnormal, 128, 1, prim_args) {
    const uint32_t *in = prim_in(args, 2);
    uint32_t *out = prim_out(args, 2), *word = fj_shared_at<uint32_t>(0) + fj_thread_x();
    out[0] = *word = in[0];
    fj_atomic_add(reinterpret_cast<float *>(out), prim_float(in[1]));
    fj_shared_atomic_add(reinterpret_cast<float *>(word), prim_float(in[1]));
    out[1] = *word;
}

FJ_KERNEL(prim_shared_atomic, 64, 1, prim_args) {
    uint32_t *words = fj_shared_at<uint32_t>(0);
    const int32_t value = static_cast<int32_t>(*prim_in(args, 1) % 1000) - 500;
    if (fj_thread_x() < 4) words[fj_thread_x()] = 0;
    fj_block_sync();
    fj_shared_atomic_add(reinterpret_cast<float *>(words), static_cast<float>(value));
    fj_shared_atomic_add(reinterpret_cast<int32_t *>(words + 1), value);
    fj_shared_atomic_add(reinterpret_cast<int64_t *>(words + 2), static_cast<int64_t>(value) * 0x10000);
    fj_block_sync();
    if (fj_thread_x() < 4) args.out[fj_thread_x()] = words[fj_thread_x()];
}

FJ_KERNEL(prim_swizzle, 32, 1, prim_args) {
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t byte = (i * 32 + fj_lane()) * 16;
        uint32_t *out = args.out + (i * 32 + fj_lane()) * 4;
        out[0] = fj_swizzle<0>(byte);
        out[1] = fj_swizzle<32>(byte);
        out[2] = fj_swizzle<64>(byte);
        out[3] = fj_swizzle<128>(byte);
    }
}
