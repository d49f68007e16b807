// The primitives of prim.h for the emulator, in C++17. Documented there; this file says only why.
//
// Memory of the kernel is touched here, in the kernel's own object, and not in the emulator: so a sanitizer
// that the object is compiled with sees the access, under the lane that makes it, at the kernel's line.
// What lanes exchange travels in operands on their stacks, which only the emulator reads across lanes.
#ifndef FJ_CUDA_PRIM_HOST_H
#define FJ_CUDA_PRIM_HOST_H

#if defined(__SANITIZE_ADDRESS__)
#define FJ_EMU_ASAN 1
#elif defined(__SANITIZE_THREAD__)
#define FJ_EMU_TSAN 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FJ_EMU_ASAN 1
#elif __has_feature(thread_sanitizer)
#define FJ_EMU_TSAN 1
#endif
#endif

// ---- Where am I -------------------------------------------------------------------------------------

FJ_DEVICE uint32_t fj_thread_x() { return fj_emu->self()->thread[0]; }
FJ_DEVICE uint32_t fj_block_threads() { return fj_emu->self()->block_dim[0]; }
FJ_DEVICE uint32_t fj_lane() { return fj_emu->self()->linear % FJ_WARP; }
FJ_DEVICE uint32_t fj_warp() { return fj_emu->self()->linear / FJ_WARP; }
FJ_DEVICE uint32_t fj_block_x() { return fj_emu->self()->block[0]; }
FJ_DEVICE uint32_t fj_block_y() { return fj_emu->self()->block[1]; }
FJ_DEVICE uint32_t fj_block_z() { return fj_emu->self()->block[2]; }
FJ_DEVICE uint32_t fj_grid_x() { return fj_emu->self()->grid_dim[0]; }
FJ_DEVICE uint32_t fj_grid_y() { return fj_emu->self()->grid_dim[1]; }
FJ_DEVICE uint32_t fj_grid_z() { return fj_emu->self()->grid_dim[2]; }

// ---- Shared memory and synchronisation --------------------------------------------------------------

FJ_DEVICE void fj_emu_aligned(const void *address, uint32_t bytes, fj_emu_site site) {
    if (reinterpret_cast<uintptr_t>(address) % bytes) fj_emu->fault("misaligned address", site);
}

FJ_DEVICE unsigned char *fj_shared() { return fj_emu->self()->shared; }
template <class T> FJ_DEVICE T *fj_shared_at(uint32_t byte, fj_emu_site site) {
    if (byte % alignof(T)) fj_emu->fault("misaligned byte of shared memory", site);
    return reinterpret_cast<T *>(fj_shared() + byte);
}

FJ_DEVICE uint32_t fj_shared_address(const void *pointer, fj_emu_site site) {
    const fj_emu_thread *self = fj_emu->self();
    const uintptr_t offset = reinterpret_cast<uintptr_t>(pointer) - reinterpret_cast<uintptr_t>(self->shared);
    if (offset > self->shared_size)
        fj_emu->fault("the address of something that is not in shared memory", site);
    return FJ_EMU_SHARED_START + static_cast<uint32_t>(offset);
}

// What a shared address points to: `size` bytes, aligned. Past the end a sanitizer, if there is one, speaks first.
FJ_DEVICE unsigned char *fj_emu_shared_at(uint32_t address, uint32_t size, fj_emu_site site) {
    const fj_emu_thread *self = fj_emu->self();
    const uint32_t offset = address - FJ_EMU_SHARED_START;
    if (address % size) fj_emu->fault("misaligned shared address", site);
#if FJ_EMU_ASAN
    (void)*static_cast<volatile unsigned char *>(self->shared + offset);
#endif
    if (offset + size > self->shared_size || offset > self->shared_size)
        fj_emu->fault("a shared address outside of the block's shared memory", site);
    return self->shared + offset;
}

FJ_DEVICE void fj_block_sync(fj_emu_site site) { fj_emu->barrier(FJ_EMU_BARRIER_WAIT, 0, 0, site); }
FJ_DEVICE void fj_barrier_sync(uint32_t id, uint32_t threads, fj_emu_site site) {
    fj_emu->barrier(FJ_EMU_BARRIER_WAIT, id, threads, site);
}
FJ_DEVICE void fj_barrier_arrive(uint32_t id, uint32_t threads, fj_emu_site site) {
    fj_emu->barrier(FJ_EMU_BARRIER_ARRIVE, id, threads, site);
}
FJ_DEVICE void fj_warp_sync(uint32_t members, fj_emu_site site) {
    fj_emu->warp(FJ_EMU_SYNC, 0, members, nullptr, site);
}
FJ_DEVICE void fj_fence_device() { __atomic_thread_fence(__ATOMIC_ACQ_REL); }
FJ_DEVICE uint32_t fj_load_acquire_u32(const uint32_t *address, fj_emu_site site) {
    fj_emu_aligned(address, 4, site);
    return __atomic_load_n(address, __ATOMIC_ACQUIRE);
}
FJ_DEVICE void fj_store_release_u32(uint32_t *address, uint32_t value, fj_emu_site site) {
    fj_emu_aligned(address, 4, site);
    __atomic_store_n(address, value, __ATOMIC_RELEASE);
}
FJ_DEVICE uint32_t fj_load_relaxed_u32(const uint32_t *address, fj_emu_site site) {
    fj_emu_aligned(address, 4, site);
    return __atomic_load_n(address, __ATOMIC_RELAXED);
}
FJ_DEVICE void fj_sleep(uint32_t, fj_emu_site site) { fj_emu->yield(site); }

#if FJ_HAS_MBARRIER
FJ_DEVICE void fj_mbarrier_init(uint64_t *object, uint32_t arrivals, fj_emu_site site) {
    fj_emu->mbarrier(FJ_EMU_MBARRIER_INIT, object, arrivals, site);
}
FJ_DEVICE void fj_mbarrier_arrive(uint64_t *object, fj_emu_site site) {
    fj_emu->mbarrier(FJ_EMU_MBARRIER_ARRIVE, object, 1, site);
}
FJ_DEVICE void fj_mbarrier_arrive_expect(uint64_t *object, uint32_t bytes, fj_emu_site site) {
    fj_emu->mbarrier(FJ_EMU_MBARRIER_EXPECT_TX, object, bytes, site);
}
FJ_DEVICE void fj_mbarrier_wait(uint64_t *object, uint32_t parity, fj_emu_site site) {
    fj_emu->mbarrier(FJ_EMU_MBARRIER_WAIT, object, parity, site);
}
FJ_DEVICE void fj_mbarrier_init_fence() {}
#endif

// ---- Exchange within a warp -------------------------------------------------------------------------

FJ_DEVICE uint32_t fj_emu_shuffled(uint32_t value, uint32_t source, uint32_t members, fj_emu_site site) {
    fj_emu_shuffle operands = {value, source};
    fj_emu->warp(FJ_EMU_SHUFFLE, 0, members, &operands, site);
    return operands.value;
}
FJ_DEVICE uint32_t fj_shuffle_xor(uint32_t value, uint32_t mask, uint32_t members, fj_emu_site site) {
    return fj_emu_shuffled(value, (fj_lane() ^ mask) % FJ_WARP, members, site);
}
FJ_DEVICE uint32_t fj_shuffle_index(uint32_t value, uint32_t lane, uint32_t members, fj_emu_site site) {
    return fj_emu_shuffled(value, lane % FJ_WARP, members, site);
}
FJ_DEVICE uint32_t fj_shuffle_up(uint32_t value, uint32_t delta, uint32_t members, fj_emu_site site) {
    const uint32_t lane = fj_lane();
    return fj_emu_shuffled(value, delta <= lane ? lane - delta : lane, members, site);
}
FJ_DEVICE uint32_t fj_shuffle_down(uint32_t value, uint32_t delta, uint32_t members, fj_emu_site site) {
    const uint32_t lane = fj_lane();
    return fj_emu_shuffled(value, delta < FJ_WARP - lane ? lane + delta : lane, members, site);
}
#define FJ_EMU_FLOAT_SHUFFLE(name)                                                         \
    FJ_DEVICE float name(float value, uint32_t from, uint32_t members, fj_emu_site site) { \
        return fj_f32_from_bits(name(fj_bits_from_f32(value), from, members, site));       \
    }
FJ_EMU_FLOAT_SHUFFLE(fj_shuffle_xor)
FJ_EMU_FLOAT_SHUFFLE(fj_shuffle_index)
FJ_EMU_FLOAT_SHUFFLE(fj_shuffle_up)
FJ_EMU_FLOAT_SHUFFLE(fj_shuffle_down)
#undef FJ_EMU_FLOAT_SHUFFLE

FJ_DEVICE uint32_t fj_ballot(bool vote, uint32_t members, fj_emu_site site) {
    fj_emu_ballot operands = {vote ? 1u : 0u};
    fj_emu->warp(FJ_EMU_BALLOT, 0, members, &operands, site);
    return operands.vote;
}
FJ_DEVICE bool fj_any(bool vote, uint32_t members, fj_emu_site site) {
    return fj_ballot(vote, members, site) != 0;
}
FJ_DEVICE bool fj_all(bool vote, uint32_t members, fj_emu_site site) {
    return fj_ballot(!vote, members, site) == 0;
}

// ---- Matrices ---------------------------------------------------------------------------------------

FJ_DEVICE void fj_emu_multiply(int type, float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                               fj_emu_site site) {
    fj_emu_mma operands = {{c[0], c[1], c[2], c[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
    fj_emu->warp(FJ_EMU_MMA, type, FJ_ALL_LANES, &operands, site);
    for (int i = 0; i < 4; i++) c[i] = operands.c[i];
}
#if FJ_HAS_MMA_BF16
FJ_DEVICE void fj_mma_m16n8k16_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                   fj_emu_site site) {
    fj_emu_multiply(FJ_EMU_MMA_F16, c, a, b0, b1, site);
}
FJ_DEVICE void fj_mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                    fj_emu_site site) {
    fj_emu_multiply(FJ_EMU_MMA_BF16, c, a, b0, b1, site);
}
FJ_DEVICE void fj_mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                   fj_emu_site site) {
    fj_emu_multiply(FJ_EMU_MMA_TF32, c, a, b0, b1, site);
}
#endif
FJ_DEVICE void fj_mma_m16n8k8_f16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0, fj_emu_site site) {
    fj_emu_multiply(FJ_EMU_MMA_F16_K8, c, {a0, a1, 0, 0}, b0, 0, site);
}

// Rows move word by word: a call of memcpy would be the library's access, which ThreadSanitizer may be told to
// ignore.
typedef uint32_t __attribute__((may_alias)) fj_emu_word;

FJ_DEVICE void fj_emu_load_row(uint32_t (&row)[4], const unsigned char *from) {
    for (int i = 0; i < 4; i++) row[i] = reinterpret_cast<const fj_emu_word *>(from)[i];
}
FJ_DEVICE void fj_emu_store_row(unsigned char *to, const uint32_t (&row)[4]) {
    for (int i = 0; i < 4; i++) reinterpret_cast<fj_emu_word *>(to)[i] = row[i];
}

template <int count>
FJ_DEVICE void fj_emu_ldmatrix(int variant, uint32_t (&r)[count], uint32_t address, fj_emu_site site) {
    fj_emu_matrix operands = {};
    if (fj_lane() < 8 * count) {
        fj_emu_load_row(operands.row, fj_emu_shared_at(address, 16, site));
        operands.address = address;
    }
    fj_emu->warp(FJ_EMU_LDMATRIX, variant + count, FJ_ALL_LANES, &operands, site);
    for (int i = 0; i < count; i++) r[i] = operands.reg[i];
}
template <int count>
FJ_DEVICE void fj_emu_stmatrix(int variant, uint32_t address, const uint32_t (&r)[count], fj_emu_site site) {
    fj_emu_matrix operands = {};
    for (int i = 0; i < count; i++) operands.reg[i] = r[i];
    operands.address = address;
    fj_emu->warp(FJ_EMU_STMATRIX, variant + count, FJ_ALL_LANES, &operands, site);
    if (fj_lane() < 8 * count) fj_emu_store_row(fj_emu_shared_at(address, 16, site), operands.row);
}
#define FJ_EMU_MATRIX(count)                                                                           \
    FJ_DEVICE void fj_ldmatrix_x##count(uint32_t(&r)[count], uint32_t address, fj_emu_site site) {     \
        fj_emu_ldmatrix<count>(0, r, address, site);                                                   \
    }                                                                                                  \
    FJ_DEVICE void fj_ldmatrix_x##count##_t(uint32_t(&r)[count], uint32_t address, fj_emu_site site) { \
        fj_emu_ldmatrix<count>(8, r, address, site);                                                   \
    }
FJ_EMU_MATRIX(1)
FJ_EMU_MATRIX(2)
FJ_EMU_MATRIX(4)
#undef FJ_EMU_MATRIX
#if FJ_HAS_STMATRIX
#define FJ_EMU_MATRIX(count)                                                                                 \
    FJ_DEVICE void fj_stmatrix_x##count(uint32_t address, const uint32_t(&r)[count], fj_emu_site site) {     \
        fj_emu_stmatrix<count>(0, address, r, site);                                                         \
    }                                                                                                        \
    FJ_DEVICE void fj_stmatrix_x##count##_t(uint32_t address, const uint32_t(&r)[count], fj_emu_site site) { \
        fj_emu_stmatrix<count>(8, address, r, site);                                                         \
    }
FJ_EMU_MATRIX(1)
FJ_EMU_MATRIX(2)
FJ_EMU_MATRIX(4)
#undef FJ_EMU_MATRIX
#endif

// ---- Asynchronous copies ----------------------------------------------------------------------------

// The source is read here, at once, for the sanitizers' sake; the emulator copies when it chooses to. On
// architectures without asynchronous copies it still may: a text that is right there is right here.
FJ_DEVICE void fj_emu_copy_async(uint32_t shared, const void *global, uint32_t size, uint32_t source_bytes,
                                 fj_emu_site site) {
    fj_emu_aligned(global, size, site);
    if (source_bytes > size) fj_emu->fault("a copy of more bytes than its size", site);
#if FJ_EMU_ASAN || FJ_EMU_TSAN
    for (uint32_t i = 0; i < source_bytes; i++) (void)static_cast<const volatile unsigned char *>(global)[i];
#endif
    fj_emu->copy(fj_emu_shared_at(shared, size, site), global, size, source_bytes, site);
}
FJ_DEVICE void fj_copy_async_4(uint32_t shared, const void *global, uint32_t source_bytes, fj_emu_site site) {
    fj_emu_copy_async(shared, global, 4, source_bytes, site);
}
FJ_DEVICE void fj_copy_async_8(uint32_t shared, const void *global, uint32_t source_bytes, fj_emu_site site) {
    fj_emu_copy_async(shared, global, 8, source_bytes, site);
}
FJ_DEVICE void fj_copy_async_16(uint32_t shared, const void *global, uint32_t source_bytes,
                                fj_emu_site site) {
    fj_emu_copy_async(shared, global, 16, source_bytes, site);
}
FJ_DEVICE void fj_copy_async_commit(fj_emu_site site) { fj_emu->copy_commit(site); }
template <int pending> FJ_DEVICE void fj_copy_async_wait(fj_emu_site site) {
    fj_emu->copy_wait(pending, site);
}

#if FJ_HAS_MBARRIER
FJ_DEVICE void fj_copy_bulk(uint32_t shared, const void *global, uint32_t bytes, uint64_t *object,
                            fj_emu_site site) {
    fj_emu_aligned(global, 16, site);
    if (bytes == 0 || bytes % 16) fj_emu->fault("a bulk copy of no multiple of 16 bytes", site);
#if FJ_EMU_ASAN || FJ_EMU_TSAN
    for (uint32_t i = 0; i < bytes; i++) (void)static_cast<const volatile unsigned char *>(global)[i];
#endif
    (void)fj_emu_shared_at(shared + bytes - 16, 16, site);
    fj_emu->copy_bulk(fj_emu_shared_at(shared, 16, site), global, bytes, object, site);
}
FJ_DEVICE void fj_fence_async_shared() {} // which proxy a write went through, the emulator does not model
#endif

#include "prim_host_math.h"

// ---- Global memory ----------------------------------------------------------------------------------

template <class T> FJ_DEVICE T fj_emu_load(const void *address, fj_emu_site site) {
    fj_emu_aligned(address, sizeof(T), site);
    uint32_t words[sizeof(T) / 4];
    for (uint32_t i = 0; i < sizeof(T) / 4; i++) words[i] = static_cast<const fj_emu_word *>(address)[i];
    T value;
    __builtin_memcpy(&value, words, sizeof value);
    return value;
}
template <class T> FJ_DEVICE void fj_emu_store(void *address, const T &value, fj_emu_site site) {
    fj_emu_aligned(address, sizeof(T), site);
    uint32_t words[sizeof(T) / 4];
    __builtin_memcpy(words, &value, sizeof value);
    for (uint32_t i = 0; i < sizeof(T) / 4; i++) static_cast<fj_emu_word *>(address)[i] = words[i];
}
template <fj_cache> FJ_DEVICE uint32_t fj_load_b32(const void *address, fj_emu_site site) {
    return fj_emu_load<uint32_t>(address, site);
}
template <fj_cache> FJ_DEVICE fj_b64 fj_load_b64(const void *address, fj_emu_site site) {
    return fj_emu_load<fj_b64>(address, site);
}
template <fj_cache> FJ_DEVICE fj_b128 fj_load_b128(const void *address, fj_emu_site site) {
    return fj_emu_load<fj_b128>(address, site);
}
template <fj_cache> FJ_DEVICE void fj_store_b32(void *address, uint32_t value, fj_emu_site site) {
    fj_emu_store(address, value, site);
}
template <fj_cache> FJ_DEVICE void fj_store_b64(void *address, fj_b64 value, fj_emu_site site) {
    fj_emu_store(address, value, site);
}
template <fj_cache> FJ_DEVICE void fj_store_b128(void *address, fj_b128 value, fj_emu_site site) {
    fj_emu_store(address, value, site);
}
FJ_DEVICE void fj_prefetch(const void *) {} // may point anywhere

// T fetch(old): replaces the value by next(old, value), gives the old one.
template <class T, class F> FJ_DEVICE T fj_emu_exchange(T *address, T value, fj_emu_site site, F next) {
    T old, wanted;
    fj_emu_aligned(address, sizeof(T), site);
    __atomic_load(address, &old, __ATOMIC_RELAXED);
    do wanted = next(old, value);
    while (!__atomic_compare_exchange(address, &old, &wanted, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED));
    return old;
}
template <class T> FJ_DEVICE T fj_emu_add(T *address, T value, fj_emu_site site) { // integers
    fj_emu_aligned(address, sizeof(T), site);
    return __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
FJ_DEVICE void fj_atomic_add(float *address, float value, fj_emu_site site) {
    (void)fj_emu_exchange(address, value, site,
                          [](float a, float b) { return fj_emu_flush(fj_emu_flush(a) + fj_emu_flush(b)); });
}
#if FJ_HAS_ATOMIC_V4
FJ_DEVICE void fj_atomic_add_v4(float *address, const float (&values)[4], fj_emu_site site) {
    fj_emu_aligned(address, 4 * sizeof(float), site);
    for (int i = 0; i < 4; i++) fj_atomic_add(address + i, values[i], site);
}
#endif
FJ_DEVICE void fj_atomic_add(double *address, double value, fj_emu_site site) {
    (void)fj_emu_exchange(address, value, site, [](double a, double b) { return a + b; });
}
FJ_DEVICE void fj_atomic_add(int32_t *address, int32_t value, fj_emu_site site) {
    (void)fj_emu_add(address, value, site);
}
FJ_DEVICE void fj_atomic_add(int64_t *address, int64_t value, fj_emu_site site) {
    (void)fj_emu_add(address, value, site);
}
FJ_DEVICE int32_t fj_atomic_fetch_add(int32_t *address, int32_t value, fj_emu_site site) {
    return fj_emu_add(address, value, site);
}
FJ_DEVICE uint32_t fj_atomic_fetch_min(uint32_t *address, uint32_t value, fj_emu_site site) {
    return fj_emu_exchange(address, value, site, [](uint32_t a, uint32_t b) { return a < b ? a : b; });
}
FJ_DEVICE uint32_t fj_atomic_fetch_max(uint32_t *address, uint32_t value, fj_emu_site site) {
    return fj_emu_exchange(address, value, site, [](uint32_t a, uint32_t b) { return a > b ? a : b; });
}
FJ_DEVICE void fj_shared_atomic_add(float *address, float value, fj_emu_site site) {
    (void)fj_emu_exchange(address, value, site, [](float a, float b) { return a + b; });
}
FJ_DEVICE void fj_shared_atomic_add(int32_t *address, int32_t value, fj_emu_site site) {
    (void)fj_emu_add(address, value, site);
}
FJ_DEVICE void fj_shared_atomic_add(int64_t *address, int64_t value, fj_emu_site site) {
    (void)fj_emu_add(address, value, site);
}

// ---- The rest ---------------------------------------------------------------------------------------

FJ_DEVICE uint64_t fj_clock() { return fj_emu->clock(); }
FJ_DEVICE void fj_trap(const char *why, fj_emu_site site) { fj_emu->fault(why, site); }

#endif
