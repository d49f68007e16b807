// The device primitives: everything that a kernel text may ask of the hardware, and nothing else may.
//
// A kernel text is CUDA C++17 for NVRTC and, unchanged, C++17 for the host compiler:
//
//      kernel text ── #include "prim.h" ──┬── NVRTC:  prim_ptx.h   inline PTX, no CUDA headers
//                                         └── host:   prim_host.h  calls of driver/emu (emu_abi.h)
//
//      struct sum_args { const float *in; float *out; int32_t n; };
//
//      FJ_KERNEL(sum, 128, 1, sum_args) {          // name, threads, blocks per SM, type of `args`
//          float *part = fj_shared_at<float>(0);   // shared memory is one dynamic array
//          ...
//          fj_block_sync();
//      }
//
// Rules of the idiom
//
//  1. Blocks are one-dimensional, FJ_KERNEL states their greatest size; grids have up to three dimensions.
//  2. The arguments are one struct of plain data, read-only, called `args`.
//  3. Shared memory is dynamic, aligned to 1024 bytes and undefined at the start (NaN in the emulator).
//     Plain loads and stores go through typed pointers (fj_shared_at). Matrix loads and asynchronous
//     copies take *shared addresses*: uint32_t in the shared window, of fj_shared_address(pointer), on
//     which byte arithmetic is done.
//  4. Names end in the type where there is more than one. `fj_x_approx` is the hardware's approximation,
//     with its error here; everything else is exact: one IEEE operation, rounded to nearest even, never
//     contracted with its neighbours, whatever the compiler's options.
//  5. A warp operation is executed by all lanes of `members` together; one without `members` by all 32.
//     Lanes that have exited take no part in those with members. None but fj_warp_sync orders memory.
//  6. A primitive that an architecture lacks is not declared: FJ_HAS_* say what is there.
//  7. What is not listed here and is not plain C++ is not allowed in a kernel text: ./dev lint looks for
//     asm and intrinsics outside prim*.
//
// FJ_ARCH is ten times the compute capability's major number plus its minor: 75, 80, 86, 89, 90, 100, 120.
// NVRTC sets it; for the emulator it is given (-DFJ_ARCH=80), and the same primitives are there or absent.
//
// FJ_SITE below is nothing on a GPU. On the host it is a defaulted argument that tells the emulator the
// line of the call. To add a primitive: declare it here, implement it in prim_ptx.h and prim_host.h, add
// a kernel to tests/prim/kernels and its expected output to the table of the tests.
#ifndef FJ_CUDA_PRIM_H
#define FJ_CUDA_PRIM_H

// ---- The two compilers ------------------------------------------------------------------------------

#ifdef __CUDACC_RTC__

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;

#define FJ_ARCH (__CUDA_ARCH__ / 10)
#define FJ_DEVICE static __device__ __forceinline__
#define FJ_KERNEL(name, threads, blocks_per_sm, args_type)               \
    extern "C" __global__ void __launch_bounds__(threads, blocks_per_sm) \
        name([[maybe_unused]] const __grid_constant__ args_type args)
#define FJ_SITE
#define FJ_SITE_ALONE

#else

#include "emu_abi.h"

#ifndef FJ_ARCH
#define FJ_ARCH 90
#endif
#define FJ_DEVICE static inline __attribute__((always_inline, unused))
#define FJ_KERNEL(name, threads, blocks_per_sm, args_type)                                                \
    static void name##_thread(const args_type &args);                                                     \
    extern "C" {                                                                                          \
    extern __attribute__((visibility("default"))) fj_emu_kernel name;                                     \
    fj_emu_kernel name = {FJ_EMU_ABI,                                                                     \
                          threads,                                                                        \
                          sizeof(args_type),                                                              \
                          #name,                                                                          \
                          [](const void *args) { name##_thread(*static_cast<const args_type *>(args)); }, \
                          &fj_emu};                                                                       \
    }                                                                                                     \
    static void name##_thread([[maybe_unused]] const args_type &args)
#define FJ_SITE , fj_emu_site site = fj_emu_here()
#define FJ_SITE_ALONE fj_emu_site site = fj_emu_here()

static const fj_emu_services *fj_emu;

static constexpr fj_emu_site fj_emu_here(const char *file = __builtin_FILE(), int line = __builtin_LINE()) {
    return fj_emu_site{file, line};
}

#endif

#define FJ_HAS_MMA_BF16 (FJ_ARCH >= 80) // mma of bf16 and tf32, 16-deep mma of f16
// red of vectors: PTX 8.1, which NVRTC 12.0 does not write
#if defined(__CUDACC_VER_MAJOR__) && __CUDACC_VER_MAJOR__ == 12 && __CUDACC_VER_MINOR__ == 0
#define FJ_HAS_ATOMIC_V4 0
#else
#define FJ_HAS_ATOMIC_V4 (FJ_ARCH >= 90)
#endif
#define FJ_HAS_ASYNC_COPY (FJ_ARCH >= 80) // fj_copy_async_*; below, they copy at once
#define FJ_HAS_STMATRIX (FJ_ARCH >= 90)
#define FJ_HAS_MBARRIER (FJ_ARCH >= 90)

#define FJ_WARP 32
#define FJ_ALL_LANES 0xffffffffu

// ---- Types ------------------------------------------------------------------------------------------

// 16-bit floats are storage: they are converted, never computed with. Pairs travel in a uint32_t, the
// element of lower address in the lower half.
struct fj_f16 {
    uint16_t bits;
};
struct fj_bf16 {
    uint16_t bits;
};
struct alignas(8) fj_b64 {
    uint32_t r[2];
};
struct alignas(16) fj_b128 {
    uint32_t r[4];
};

// ---- Where am I -------------------------------------------------------------------------------------

FJ_DEVICE uint32_t fj_thread_x();      // in the block
FJ_DEVICE uint32_t fj_block_threads(); // of this launch
FJ_DEVICE uint32_t fj_lane();          // 0..31
FJ_DEVICE uint32_t fj_warp();          // thread / 32
FJ_DEVICE uint32_t fj_block_x();
FJ_DEVICE uint32_t fj_block_y();
FJ_DEVICE uint32_t fj_block_z();
FJ_DEVICE uint32_t fj_grid_x(); // in blocks
FJ_DEVICE uint32_t fj_grid_y();
FJ_DEVICE uint32_t fj_grid_z();

// ---- Shared memory ----------------------------------------------------------------------------------

FJ_DEVICE unsigned char *fj_shared();                                // the first byte
template <class T> FJ_DEVICE T *fj_shared_at(uint32_t byte FJ_SITE); // aligned as T is
FJ_DEVICE uint32_t fj_shared_address(const void *pointer FJ_SITE);   // pointer into shared memory

// Swizzles: a permutation of 16-byte chunks that spreads the rows of a matrix over all banks. span: bytes
// of a row, 32, 64 or 128 (0: none). Each XORs chunk bits with row bits; this is the swizzle of TMA and
// wgmma as well. `byte` is relative to a buffer aligned to 8 * span bytes.
//
//      span   chunk bits   row bits (of the byte offset)
//       32       [4]          [7]
//       64       [5:4]        [8:7]
//      128       [6:4]        [9:7]
template <uint32_t span> FJ_DEVICE constexpr uint32_t fj_swizzle(uint32_t byte) {
    static_assert(span == 0 || span == 32 || span == 64 || span == 128, "no such swizzle");
    return byte ^ ((byte >> 3) & (span ? (span - 1) & 0x70u : 0u));
}

// ---- Synchronisation --------------------------------------------------------------------------------

// All threads of the block; those that exited count as arrived.
FJ_DEVICE void fj_block_sync(FJ_SITE_ALONE);
// Barrier id (1..15) for `threads` threads, a multiple of 32: whole warps. Arriving does not wait.
FJ_DEVICE void fj_barrier_sync(uint32_t id, uint32_t threads FJ_SITE);
FJ_DEVICE void fj_barrier_arrive(uint32_t id, uint32_t threads FJ_SITE);
FJ_DEVICE void fj_warp_sync(uint32_t members = FJ_ALL_LANES FJ_SITE);
// Orders this thread's writes before its later ones, for all threads of the device.
FJ_DEVICE void fj_fence_device();
// A flag between blocks: a load that later accesses stay behind, a store that earlier ones stay before; a load that
// orders nothing.
FJ_DEVICE uint32_t fj_load_acquire_u32(const uint32_t *address FJ_SITE);
FJ_DEVICE void fj_store_release_u32(uint32_t *address, uint32_t value FJ_SITE);
FJ_DEVICE uint32_t fj_load_relaxed_u32(const uint32_t *address FJ_SITE);
// Between two looks at a flag: a hint of how long to sleep. Spinning without it hangs the emulator. A block
// may wait only for blocks that have begun, which a ticket (fj_atomic_fetch_add) tells: the order is free.
FJ_DEVICE void fj_sleep(uint32_t nanoseconds FJ_SITE);

#if FJ_HAS_MBARRIER
// An 8-byte barrier object in shared memory, with phases: arrivals of a phase are counted down, with the
// bytes that were announced; then the next phase begins. wait returns when a phase of that parity is
// complete: consumers start with parity 0, producers (of an empty buffer) with 1.
FJ_DEVICE void fj_mbarrier_init(uint64_t *object, uint32_t arrivals FJ_SITE);
FJ_DEVICE void fj_mbarrier_arrive(uint64_t *object FJ_SITE);
// The same arrival, and the phase is not complete before so many bytes of bulk copies have landed.
FJ_DEVICE void fj_mbarrier_arrive_expect(uint64_t *object, uint32_t bytes FJ_SITE);
FJ_DEVICE void fj_mbarrier_wait(uint64_t *object, uint32_t parity FJ_SITE);
// Makes initialised objects known to the asynchronous units; a block barrier must follow.
FJ_DEVICE void fj_mbarrier_init_fence();
#endif

// ---- Exchange within a warp -------------------------------------------------------------------------

// The value of lane (own ^ mask), of `lane`, of (own - delta) or (own + delta); up and down give the own
// value where that lane does not exist. Reading a lane that is not a member gives an undefined value.
FJ_DEVICE uint32_t fj_shuffle_xor(uint32_t value, uint32_t mask, uint32_t members = FJ_ALL_LANES FJ_SITE);
FJ_DEVICE uint32_t fj_shuffle_index(uint32_t value, uint32_t lane, uint32_t members = FJ_ALL_LANES FJ_SITE);
FJ_DEVICE uint32_t fj_shuffle_up(uint32_t value, uint32_t delta, uint32_t members = FJ_ALL_LANES FJ_SITE);
FJ_DEVICE uint32_t fj_shuffle_down(uint32_t value, uint32_t delta, uint32_t members = FJ_ALL_LANES FJ_SITE);
FJ_DEVICE float fj_shuffle_xor(float value, uint32_t mask, uint32_t members = FJ_ALL_LANES FJ_SITE);
FJ_DEVICE float fj_shuffle_index(float value, uint32_t lane, uint32_t members = FJ_ALL_LANES FJ_SITE);
FJ_DEVICE float fj_shuffle_up(float value, uint32_t delta, uint32_t members = FJ_ALL_LANES FJ_SITE);
FJ_DEVICE float fj_shuffle_down(float value, uint32_t delta, uint32_t members = FJ_ALL_LANES FJ_SITE);
FJ_DEVICE uint32_t fj_ballot(bool vote, uint32_t members = FJ_ALL_LANES FJ_SITE); // bit per member
FJ_DEVICE bool fj_any(bool vote, uint32_t members = FJ_ALL_LANES FJ_SITE);
FJ_DEVICE bool fj_all(bool vote, uint32_t members = FJ_ALL_LANES FJ_SITE);

// ---- Matrices ---------------------------------------------------------------------------------------
//
// Fragments of m16n8k16, lane l, 16-bit elements; register r, half h (lower half first):
//
//      A  16x16   row l/4 + 8*(r&1)     column 2*(l%4) + h + 8*(r>>1)      r = 0..3
//      B  16x8    row 2*(l%4) + h + 8*r column l/4                         r = 0..1
//      C  16x8    row l/4 + 8*(i>>1)    column 2*(l%4) + (i&1)             i = 0..3, float
//
// so two C tiles side by side, rounded and packed in pairs, are one A. Of m16n8k8 with tf32 elements:
//
//      A  16x8    row l/4 + 8*(r&1)     column l%4 + 4*(r>>1)              r = 0..3
//      B  8x8     row l%4 + 4*r         column l/4                         r = 0..1

FJ_DEVICE constexpr uint32_t fj_mma_c_row(uint32_t lane, uint32_t i) { return lane / 4 + 8 * (i >> 1); }
FJ_DEVICE constexpr uint32_t fj_mma_c_column(uint32_t lane, uint32_t i) { return 2 * (lane % 4) + (i & 1); }

// c += a * b, accumulated in f32. Products are exact; the order and the rounding of the sum are the
// hardware's: compare with a bound, not with bits.
#if FJ_HAS_MMA_BF16
FJ_DEVICE void fj_mma_m16n8k16_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1 FJ_SITE);
FJ_DEVICE void fj_mma_m16n8k16_bf16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1 FJ_SITE);
FJ_DEVICE void fj_mma_m16n8k8_tf32(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1 FJ_SITE);
#endif
// The first half of m16n8k16: a0, a1 (columns 0..7) and b0.
FJ_DEVICE void fj_mma_m16n8k8_f16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0 FJ_SITE);

// Loads 1, 2 or 4 matrices of 8x8 16-bit elements. Lanes 8i..8i+7 give the shared addresses of the rows
// of matrix i (16 bytes, aligned to 16); lane l gets row l/4, columns 2*(l%4) and + 1 of each; with _t of
// each transposed. Addresses of the other lanes are not used.
FJ_DEVICE void fj_ldmatrix_x1(uint32_t (&r)[1], uint32_t address FJ_SITE);
FJ_DEVICE void fj_ldmatrix_x2(uint32_t (&r)[2], uint32_t address FJ_SITE);
FJ_DEVICE void fj_ldmatrix_x4(uint32_t (&r)[4], uint32_t address FJ_SITE);
FJ_DEVICE void fj_ldmatrix_x1_t(uint32_t (&r)[1], uint32_t address FJ_SITE);
FJ_DEVICE void fj_ldmatrix_x2_t(uint32_t (&r)[2], uint32_t address FJ_SITE);
FJ_DEVICE void fj_ldmatrix_x4_t(uint32_t (&r)[4], uint32_t address FJ_SITE);
#if FJ_HAS_STMATRIX
FJ_DEVICE void fj_stmatrix_x1(uint32_t address, const uint32_t (&r)[1] FJ_SITE);
FJ_DEVICE void fj_stmatrix_x2(uint32_t address, const uint32_t (&r)[2] FJ_SITE);
FJ_DEVICE void fj_stmatrix_x4(uint32_t address, const uint32_t (&r)[4] FJ_SITE);
FJ_DEVICE void fj_stmatrix_x1_t(uint32_t address, const uint32_t (&r)[1] FJ_SITE);
FJ_DEVICE void fj_stmatrix_x2_t(uint32_t address, const uint32_t (&r)[2] FJ_SITE);
FJ_DEVICE void fj_stmatrix_x4_t(uint32_t address, const uint32_t (&r)[4] FJ_SITE);
#endif

// ---- Asynchronous copies ----------------------------------------------------------------------------
//
// From global to shared memory, 4, 8 or 16 bytes, both aligned to as many. The first source_bytes (0 to
// the size) are read, the rest of the destination becomes zero. A copy belongs to the group that its
// thread commits next; wait<n> returns when at most the n latest groups of this thread are pending. What
// a thread waited for is seen by others after a barrier. The destination is undefined in between.

FJ_DEVICE void fj_copy_async_4(uint32_t shared, const void *global, uint32_t source_bytes = 4 FJ_SITE);
FJ_DEVICE void fj_copy_async_8(uint32_t shared, const void *global, uint32_t source_bytes = 8 FJ_SITE);
FJ_DEVICE void fj_copy_async_16(uint32_t shared, const void *global,
                                uint32_t source_bytes = 16 FJ_SITE); // L2 only
FJ_DEVICE void fj_copy_async_commit(FJ_SITE_ALONE);
template <int pending> FJ_DEVICE void fj_copy_async_wait(FJ_SITE_ALONE);
#if FJ_HAS_MBARRIER
// One thread copies any multiple of 16 bytes. Lands as bytes of the mbarrier's phase; who waits for that phase
// sees it. A fence, by those that wrote the shared memory before, and a barrier come first.
FJ_DEVICE void fj_copy_bulk(uint32_t shared, const void *global, uint32_t bytes, uint64_t *object FJ_SITE);
FJ_DEVICE void fj_fence_async_shared();
#endif

// ---- Global memory ----------------------------------------------------------------------------------
//
// 4, 8 and 16 bytes, aligned to as many. Single elements go through plain pointers.

enum fj_cache {
    FJ_CACHE_DEFAULT,
    FJ_CACHE_READ_ONLY, // loads: it is not written during the kernel
    FJ_CACHE_STREAM     // used once: do not keep. For loads, also read-only
};
template <fj_cache cache = FJ_CACHE_DEFAULT> FJ_DEVICE uint32_t fj_load_b32(const void *address FJ_SITE);
template <fj_cache cache = FJ_CACHE_DEFAULT> FJ_DEVICE fj_b64 fj_load_b64(const void *address FJ_SITE);
template <fj_cache cache = FJ_CACHE_DEFAULT> FJ_DEVICE fj_b128 fj_load_b128(const void *address FJ_SITE);
template <fj_cache cache = FJ_CACHE_DEFAULT>
FJ_DEVICE void fj_store_b32(void *address, uint32_t value FJ_SITE);
template <fj_cache cache = FJ_CACHE_DEFAULT> FJ_DEVICE void fj_store_b64(void *address, fj_b64 value FJ_SITE);
template <fj_cache cache = FJ_CACHE_DEFAULT>
FJ_DEVICE void fj_store_b128(void *address, fj_b128 value FJ_SITE);
FJ_DEVICE void fj_prefetch(const void *address); // a global line into L2

// Relaxed, of the whole device. Sums of floats depend on the order, those of integers do not: int64 is
// for deterministic fixed point. fetch_* give the value before. Float sums in global memory flush subnormal
// addends, what is there, and the result to 0 of their sign; sums of doubles, and those in shared memory, do not.
FJ_DEVICE void fj_atomic_add(float *address, float value FJ_SITE);
FJ_DEVICE void fj_atomic_add(double *address, double value FJ_SITE);
FJ_DEVICE void fj_atomic_add(int32_t *address, int32_t value FJ_SITE);
FJ_DEVICE void fj_atomic_add(int64_t *address, int64_t value FJ_SITE);
#if FJ_HAS_ATOMIC_V4
// Four neighbours at a multiple of 16 bytes, each as by fj_atomic_add; together they are not atomic.
FJ_DEVICE void fj_atomic_add_v4(float *address, const float (&values)[4] FJ_SITE);
#endif
FJ_DEVICE int32_t fj_atomic_fetch_add(int32_t *address, int32_t value FJ_SITE);
FJ_DEVICE uint32_t fj_atomic_fetch_min(uint32_t *address, uint32_t value FJ_SITE);
FJ_DEVICE uint32_t fj_atomic_fetch_max(uint32_t *address, uint32_t value FJ_SITE);
// The same in shared memory, for the block.
FJ_DEVICE void fj_shared_atomic_add(float *address, float value FJ_SITE);
FJ_DEVICE void fj_shared_atomic_add(int32_t *address, int32_t value FJ_SITE);
FJ_DEVICE void fj_shared_atomic_add(int64_t *address, int64_t value FJ_SITE);

// ---- Arithmetic: exact ------------------------------------------------------------------------------

FJ_DEVICE float fj_add_rn(float a, float b);
FJ_DEVICE float fj_sub_rn(float a, float b);
FJ_DEVICE float fj_mul_rn(float a, float b);
FJ_DEVICE float fj_fma_rn(float a, float b, float c);
FJ_DEVICE float fj_div_rn(float a, float b);
FJ_DEVICE float fj_rcp_rn(float a);
FJ_DEVICE float fj_sqrt_rn(float a);
FJ_DEVICE double fj_add_rn(double a, double b);
FJ_DEVICE double fj_sub_rn(double a, double b);
FJ_DEVICE double fj_mul_rn(double a, double b);
FJ_DEVICE double fj_fma_rn(double a, double b, double c);
FJ_DEVICE double fj_div_rn(double a, double b);
FJ_DEVICE double fj_sqrt_rn(double a);
// The number, where one argument is NaN; with _nan, NaN. -0 is less than +0.
FJ_DEVICE float fj_min(float a, float b);
FJ_DEVICE float fj_max(float a, float b);
FJ_DEVICE float fj_min_nan(float a, float b);
FJ_DEVICE float fj_max_nan(float a, float b);
FJ_DEVICE float fj_round_even(float a); // to an integer, as are these three
FJ_DEVICE float fj_floor(float a);
FJ_DEVICE float fj_ceil(float a);
FJ_DEVICE float fj_trunc(float a);
FJ_DEVICE uint32_t fj_mulhi_u32(uint32_t a, uint32_t b);
FJ_DEVICE uint32_t fj_popcount(uint32_t a);
FJ_DEVICE uint32_t fj_leading_zeros(uint32_t a);                         // 32 for 0
FJ_DEVICE uint32_t fj_reverse_bits(uint32_t a);                          // bit i is bit 31 - i
FJ_DEVICE uint32_t fj_permute_bytes(uint32_t a, uint32_t b, uint32_t s); // byte i: byte s[4i+2:4i] of b:a

// ---- Arithmetic: approximations of the hardware -------------------------------------------------------
//
// Subnormal arguments and results are 0. Errors are those of the PTX documentation.

FJ_DEVICE float fj_ex2_approx(float a);          // 2 to the a; relative error 2^-22
FJ_DEVICE float fj_lg2_approx(float a);          // absolute error 2^-22 between 0.5 and 2, else relative
FJ_DEVICE float fj_rcp_approx(float a);          // 1 ulp
FJ_DEVICE float fj_rsqrt_approx(float a);        // relative error 2^-22.9
FJ_DEVICE float fj_sqrt_approx(float a);         // relative error 2^-23
FJ_DEVICE float fj_div_approx(float a, float b); // 2 ulp for b in 2^-126 .. 2^126; beyond, finite: 0
FJ_DEVICE float fj_tanh_approx(float a);         // relative error 2^-11; subnormals are kept

// ---- Conversions ------------------------------------------------------------------------------------
//
// Rounded to nearest even; NaN becomes the canonical NaN (0x7fff). Overflow gives infinity.

FJ_DEVICE fj_f16 fj_f16_from_f32(float a);
FJ_DEVICE fj_bf16 fj_bf16_from_f32(float a);
FJ_DEVICE float fj_f32_from_f16(fj_f16 a);
FJ_DEVICE float fj_f32_from_bf16(fj_bf16 a);
FJ_DEVICE uint32_t fj_f16x2_from_f32(float low, float high);
FJ_DEVICE uint32_t fj_bf16x2_from_f32(float low, float high);
FJ_DEVICE float fj_f32_from_f16x2_low(uint32_t pair);
FJ_DEVICE float fj_f32_from_f16x2_high(uint32_t pair);
FJ_DEVICE float fj_f32_from_bf16x2_low(uint32_t pair);
FJ_DEVICE float fj_f32_from_bf16x2_high(uint32_t pair);
#if FJ_HAS_MMA_BF16
// To nearest, ties away from zero; the bits of an f32, of which the low 13 are 0. Of infinities and NaN these are cut:
// so a NaN that has no other bits becomes an infinity.
FJ_DEVICE uint32_t fj_tf32_from_f32(float a);
#endif
FJ_DEVICE uint32_t fj_bits_from_f32(float a);
FJ_DEVICE float fj_f32_from_bits(uint32_t a);
FJ_DEVICE uint64_t fj_bits_from_f64(double a);
FJ_DEVICE double fj_f64_from_bits(uint64_t a);

// ---- The rest ---------------------------------------------------------------------------------------

FJ_DEVICE uint64_t fj_clock();                   // nanoseconds, for measuring only
FJ_DEVICE void fj_trap(const char *why FJ_SITE); // ends the launch with an error

#ifdef __CUDACC_RTC__
#include "prim_ptx.h"
#else
#include "prim_host.h"
#endif

#endif
