// The primitives of prim.h in PTX, for NVRTC. Documented there; this file says only why.
//
// Loads and stores of matrices, copies and exchanges are volatile but do not clobber memory: the barriers
// do, so that plain loads and stores may move between them as the hardware allows.
#ifndef FJ_CUDA_PRIM_PTX_H
#define FJ_CUDA_PRIM_PTX_H

extern __shared__ __align__(1024) unsigned char fj_shared_memory[];

// ---- Where am I -------------------------------------------------------------------------------------

FJ_DEVICE uint32_t fj_thread_x() { return threadIdx.x; }
FJ_DEVICE uint32_t fj_block_threads() { return blockDim.x; }
FJ_DEVICE uint32_t fj_lane() { return threadIdx.x & 31u; }
FJ_DEVICE uint32_t fj_warp() { return threadIdx.x >> 5; }
FJ_DEVICE uint32_t fj_block_x() { return blockIdx.x; }
FJ_DEVICE uint32_t fj_block_y() { return blockIdx.y; }
FJ_DEVICE uint32_t fj_block_z() { return blockIdx.z; }
FJ_DEVICE uint32_t fj_grid_x() { return gridDim.x; }
FJ_DEVICE uint32_t fj_grid_y() { return gridDim.y; }
FJ_DEVICE uint32_t fj_grid_z() { return gridDim.z; }

// ---- Shared memory and synchronisation --------------------------------------------------------------

FJ_DEVICE unsigned char *fj_shared() { return fj_shared_memory; }
template <class T> FJ_DEVICE T *fj_shared_at(uint32_t byte) {
    return reinterpret_cast<T *>(fj_shared_memory + byte);
}
FJ_DEVICE uint32_t fj_shared_address(const void *pointer) {
    return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}
FJ_DEVICE uint64_t fj_ptx_global(const void *pointer) { return __cvta_generic_to_global(pointer); }

FJ_DEVICE void fj_block_sync() { asm volatile("bar.sync 0;" ::: "memory"); }
FJ_DEVICE void fj_barrier_sync(uint32_t id, uint32_t threads) {
    asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
FJ_DEVICE void fj_barrier_arrive(uint32_t id, uint32_t threads) {
    asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory");
}
FJ_DEVICE void fj_warp_sync(uint32_t members) { asm volatile("bar.warp.sync %0;" ::"r"(members) : "memory"); }
FJ_DEVICE void fj_fence_device() { asm volatile("fence.acq_rel.gpu;" ::: "memory"); }
FJ_DEVICE uint32_t fj_load_acquire_u32(const uint32_t *address) {
    uint32_t value;
    asm volatile("ld.acquire.gpu.global.u32 %0, [%1];"
                 : "=r"(value)
                 : "l"(fj_ptx_global(address))
                 : "memory");
    return value;
}
FJ_DEVICE void fj_store_release_u32(uint32_t *address, uint32_t value) {
    asm volatile("st.release.gpu.global.u32 [%0], %1;" ::"l"(fj_ptx_global(address)), "r"(value) : "memory");
}
FJ_DEVICE uint32_t fj_load_relaxed_u32(const uint32_t *address) {
    uint32_t value;
    asm volatile("ld.relaxed.gpu.global.u32 %0, [%1];" : "=r"(value) : "l"(fj_ptx_global(address)));
    return value;
}
FJ_DEVICE void fj_sleep(uint32_t nanoseconds) { asm volatile("nanosleep.u32 %0;" ::"r"(nanoseconds)); }

#if FJ_HAS_MBARRIER
FJ_DEVICE void fj_mbarrier_init(uint64_t *object, uint32_t arrivals) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(fj_shared_address(object)), "r"(arrivals)
                 : "memory");
}
FJ_DEVICE void fj_mbarrier_arrive(uint64_t *object) {
    asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(fj_shared_address(object)) : "memory");
}
FJ_DEVICE void fj_mbarrier_arrive_expect(uint64_t *object, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(fj_shared_address(object)),
                 "r"(bytes)
                 : "memory");
}
FJ_DEVICE void fj_mbarrier_wait(uint64_t *object, uint32_t parity) {
    uint32_t done;
    do {
        asm volatile("{\n.reg .pred p;\n"
                     "mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2;\n"
                     "selp.u32 %0, 1, 0, p;\n}"
                     : "=r"(done)
                     : "r"(fj_shared_address(object)), "r"(parity)
                     : "memory");
    } while (!done);
}
FJ_DEVICE void fj_mbarrier_init_fence() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
#endif

// ---- Exchange within a warp -------------------------------------------------------------------------

#define FJ_PTX_SHUFFLE(name, mode, clamp)                                      \
    FJ_DEVICE uint32_t name(uint32_t value, uint32_t from, uint32_t members) { \
        uint32_t result;                                                       \
        asm volatile("shfl.sync." mode ".b32 %0, %1, %2, " clamp ", %3;"       \
                     : "=r"(result)                                            \
                     : "r"(value), "r"(from), "r"(members));                   \
        return result;                                                         \
    }                                                                          \
    FJ_DEVICE float name(float value, uint32_t from, uint32_t members) {       \
        return __uint_as_float(name(__float_as_uint(value), from, members));   \
    }
FJ_PTX_SHUFFLE(fj_shuffle_xor, "bfly", "31")
FJ_PTX_SHUFFLE(fj_shuffle_index, "idx", "31")
FJ_PTX_SHUFFLE(fj_shuffle_up, "up", "0")
FJ_PTX_SHUFFLE(fj_shuffle_down, "down", "31")
#undef FJ_PTX_SHUFFLE

FJ_DEVICE uint32_t fj_ballot(bool vote, uint32_t members) {
    uint32_t result;
    asm volatile("{\n.reg .pred p;\nsetp.ne.u32 p, %1, 0;\nvote.sync.ballot.b32 %0, p, %2;\n}"
                 : "=r"(result)
                 : "r"(static_cast<uint32_t>(vote)), "r"(members));
    return result;
}
#define FJ_PTX_VOTE(name, mode)                                                                        \
    FJ_DEVICE bool name(bool vote, uint32_t members) {                                                 \
        uint32_t result;                                                                               \
        asm volatile("{\n.reg .pred p, q;\nsetp.ne.u32 p, %1, 0;\nvote.sync." mode ".pred q, p, %2;\n" \
                     "selp.u32 %0, 1, 0, q;\n}"                                                        \
                     : "=r"(result)                                                                    \
                     : "r"(static_cast<uint32_t>(vote)), "r"(members));                                \
        return result != 0;                                                                            \
    }
FJ_PTX_VOTE(fj_any, "any")
FJ_PTX_VOTE(fj_all, "all")
#undef FJ_PTX_VOTE

// ---- Matrices ---------------------------------------------------------------------------------------

#define FJ_PTX_MMA(name, shape_and_types)                                                                  \
    FJ_DEVICE void name(float(&c)[4], const uint32_t(&a)[4], uint32_t b0, uint32_t b1) {                   \
        asm volatile("mma.sync.aligned." shape_and_types " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, " \
                     "{%0, %1, %2, %3};"                                                                   \
                     : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                                      \
                     : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));                      \
    }
#if FJ_HAS_MMA_BF16
FJ_PTX_MMA(fj_mma_m16n8k16_f16, "m16n8k16.row.col.f32.f16.f16.f32")
FJ_PTX_MMA(fj_mma_m16n8k16_bf16, "m16n8k16.row.col.f32.bf16.bf16.f32")
FJ_PTX_MMA(fj_mma_m16n8k8_tf32, "m16n8k8.row.col.f32.tf32.tf32.f32")
#endif
#undef FJ_PTX_MMA

FJ_DEVICE void fj_mma_m16n8k8_f16(float (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a0), "r"(a1), "r"(b0));
}

#define FJ_PTX_LDMATRIX(suffix, trans)                                                           \
    FJ_DEVICE void fj_ldmatrix_x1##suffix(uint32_t(&r)[1], uint32_t address) {                   \
        asm volatile("ldmatrix.sync.aligned.m8n8.x1" trans ".shared.b16 {%0}, [%1];"             \
                     : "=r"(r[0])                                                                \
                     : "r"(address));                                                            \
    }                                                                                            \
    FJ_DEVICE void fj_ldmatrix_x2##suffix(uint32_t(&r)[2], uint32_t address) {                   \
        asm volatile("ldmatrix.sync.aligned.m8n8.x2" trans ".shared.b16 {%0, %1}, [%2];"         \
                     : "=r"(r[0]), "=r"(r[1])                                                    \
                     : "r"(address));                                                            \
    }                                                                                            \
    FJ_DEVICE void fj_ldmatrix_x4##suffix(uint32_t(&r)[4], uint32_t address) {                   \
        asm volatile("ldmatrix.sync.aligned.m8n8.x4" trans ".shared.b16 {%0, %1, %2, %3}, [%4];" \
                     : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                            \
                     : "r"(address));                                                            \
    }
FJ_PTX_LDMATRIX(, "")
FJ_PTX_LDMATRIX(_t, ".trans")
#undef FJ_PTX_LDMATRIX

// These write memory that plain loads may read before any barrier does: hence the clobber.
#define FJ_PTX_STMATRIX(suffix, trans)                                                                   \
    FJ_DEVICE void fj_stmatrix_x1##suffix(uint32_t address, const uint32_t(&r)[1]) {                     \
        asm volatile("stmatrix.sync.aligned.m8n8.x1" trans ".shared.b16 [%0], {%1};" ::"r"(address),     \
                     "r"(r[0])                                                                           \
                     : "memory");                                                                        \
    }                                                                                                    \
    FJ_DEVICE void fj_stmatrix_x2##suffix(uint32_t address, const uint32_t(&r)[2]) {                     \
        asm volatile("stmatrix.sync.aligned.m8n8.x2" trans ".shared.b16 [%0], {%1, %2};" ::"r"(address), \
                     "r"(r[0]), "r"(r[1])                                                                \
                     : "memory");                                                                        \
    }                                                                                                    \
    FJ_DEVICE void fj_stmatrix_x4##suffix(uint32_t address, const uint32_t(&r)[4]) {                     \
        asm volatile("stmatrix.sync.aligned.m8n8.x4" trans                                               \
                     ".shared.b16 [%0], {%1, %2, %3, %4};" ::"r"(address),                               \
                     "r"(r[0]), "r"(r[1]), "r"(r[2]), "r"(r[3])                                          \
                     : "memory");                                                                        \
    }
#if FJ_HAS_STMATRIX
FJ_PTX_STMATRIX(, "")
FJ_PTX_STMATRIX(_t, ".trans")
#endif
#undef FJ_PTX_STMATRIX

// ---- Asynchronous copies ----------------------------------------------------------------------------

#if FJ_HAS_ASYNC_COPY
#define FJ_PTX_COPY(size, cache)                                                                      \
    FJ_DEVICE void fj_copy_async_##size(uint32_t shared, const void *global, uint32_t source_bytes) { \
        asm volatile("cp.async." cache ".shared.global [%0], [%1], " #size ", %2;" ::"r"(shared),     \
                     "l"(fj_ptx_global(global)), "r"(source_bytes));                                  \
    }
FJ_PTX_COPY(4, "ca")
FJ_PTX_COPY(8, "ca")
FJ_PTX_COPY(16, "cg")
#undef FJ_PTX_COPY
FJ_DEVICE void fj_copy_async_commit() { asm volatile("cp.async.commit_group;"); }
template <int pending> FJ_DEVICE void fj_copy_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(pending) : "memory");
}
#else
// No asynchronous copies: through registers, at once. A partial source is read element by element (4 bytes,
// then single bytes), as it may end where its memory does.
FJ_DEVICE uint32_t fj_ptx_word(const void *global, uint32_t first, uint32_t source_bytes) {
    const unsigned char *bytes = static_cast<const unsigned char *>(global) + first;
    if (source_bytes >= first + 4) return *reinterpret_cast<const uint32_t *>(bytes);
    uint32_t word = 0;
    for (uint32_t i = 0; first + i < source_bytes; i++) word |= static_cast<uint32_t>(bytes[i]) << (8 * i);
    return word;
}
#define FJ_PTX_COPY(size)                                                                             \
    FJ_DEVICE void fj_copy_async_##size(uint32_t shared, const void *global, uint32_t source_bytes) { \
        for (uint32_t i = 0; i < size; i += 4)                                                        \
            asm volatile("st.shared.u32 [%0], %1;" ::"r"(shared + i),                                 \
                         "r"(fj_ptx_word(global, i, source_bytes))                                    \
                         : "memory");                                                                 \
    }
FJ_PTX_COPY(4)
FJ_PTX_COPY(8)
FJ_PTX_COPY(16)
#undef FJ_PTX_COPY
FJ_DEVICE void fj_copy_async_commit() {}
template <int pending> FJ_DEVICE void fj_copy_async_wait() {}
#endif

#if FJ_HAS_MBARRIER
FJ_DEVICE void fj_copy_bulk(uint32_t shared, const void *global, uint32_t bytes, uint64_t *object) {
    asm volatile(
        "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
            shared),
        "l"(fj_ptx_global(global)), "r"(bytes), "r"(fj_shared_address(object))
        : "memory");
}
FJ_DEVICE void fj_fence_async_shared() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }
#endif

// ---- Global memory ----------------------------------------------------------------------------------
//
// Vectors are never plain accesses to a struct: in large kernels NVRTC makes one access per word of these (13.0, for
// sm_80 to sm_90).

template <fj_cache cache> FJ_DEVICE uint32_t fj_load_b32(const void *address) {
    uint32_t value;
    if constexpr (cache == FJ_CACHE_DEFAULT) return *static_cast<const uint32_t *>(address);
    if constexpr (cache == FJ_CACHE_READ_ONLY)
        asm("ld.global.nc.u32 %0, [%1];" : "=r"(value) : "l"(fj_ptx_global(address)));
    else
        asm("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(value) : "l"(fj_ptx_global(address)));
    return value;
}
template <fj_cache cache> FJ_DEVICE fj_b64 fj_load_b64(const void *address) {
    fj_b64 v;
    if constexpr (cache == FJ_CACHE_DEFAULT)
        asm volatile("ld.global.v2.u32 {%0, %1}, [%2];"
                     : "=r"(v.r[0]), "=r"(v.r[1])
                     : "l"(fj_ptx_global(address))
                     : "memory");
    else if constexpr (cache == FJ_CACHE_READ_ONLY)
        asm("ld.global.nc.v2.u32 {%0, %1}, [%2];" : "=r"(v.r[0]), "=r"(v.r[1]) : "l"(fj_ptx_global(address)));
    else
        asm("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];"
            : "=r"(v.r[0]), "=r"(v.r[1])
            : "l"(fj_ptx_global(address)));
    return v;
}
template <fj_cache cache> FJ_DEVICE fj_b128 fj_load_b128(const void *address) {
    fj_b128 v;
    if constexpr (cache == FJ_CACHE_DEFAULT)
        asm volatile("ld.global.v4.u32 {%0, %1, %2, %3}, [%4];"
                     : "=r"(v.r[0]), "=r"(v.r[1]), "=r"(v.r[2]), "=r"(v.r[3])
                     : "l"(fj_ptx_global(address))
                     : "memory");
    else if constexpr (cache == FJ_CACHE_READ_ONLY)
        asm("ld.global.nc.v4.u32 {%0, %1, %2, %3}, [%4];"
            : "=r"(v.r[0]), "=r"(v.r[1]), "=r"(v.r[2]), "=r"(v.r[3])
            : "l"(fj_ptx_global(address)));
    else
        asm("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
            : "=r"(v.r[0]), "=r"(v.r[1]), "=r"(v.r[2]), "=r"(v.r[3])
            : "l"(fj_ptx_global(address)));
    return v;
}
template <fj_cache cache> FJ_DEVICE void fj_store_b32(void *address, uint32_t value) {
    if constexpr (cache == FJ_CACHE_STREAM)
        asm volatile("st.global.cs.u32 [%0], %1;" ::"l"(fj_ptx_global(address)), "r"(value) : "memory");
    else
        *static_cast<uint32_t *>(address) = value;
}
template <fj_cache cache> FJ_DEVICE void fj_store_b64(void *address, fj_b64 v) {
    if constexpr (cache == FJ_CACHE_STREAM)
        asm volatile("st.global.cs.v2.u32 [%0], {%1, %2};" ::"l"(fj_ptx_global(address)), "r"(v.r[0]),
                     "r"(v.r[1])
                     : "memory");
    else
        asm volatile("st.global.v2.u32 [%0], {%1, %2};" ::"l"(fj_ptx_global(address)), "r"(v.r[0]),
                     "r"(v.r[1])
                     : "memory");
}
template <fj_cache cache> FJ_DEVICE void fj_store_b128(void *address, fj_b128 v) {
    if constexpr (cache == FJ_CACHE_STREAM)
        asm volatile("st.global.cs.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(fj_ptx_global(address)), "r"(v.r[0]),
                     "r"(v.r[1]), "r"(v.r[2]), "r"(v.r[3])
                     : "memory");
    else
        asm volatile("st.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(fj_ptx_global(address)), "r"(v.r[0]),
                     "r"(v.r[1]), "r"(v.r[2]), "r"(v.r[3])
                     : "memory");
}
FJ_DEVICE void fj_prefetch(const void *address) {
    asm volatile("prefetch.global.L2 [%0];" ::"l"(fj_ptx_global(address)));
}

// For the block, .shared; for the device, .global: a generic address would cost a test of its window.
#define FJ_PTX_ADD(name, space, window, register_class, pointer_type, ptx_type, type, value_type) \
    FJ_DEVICE void name(type *address, type value) {                                              \
        asm volatile("red." space ".add." ptx_type " [%0], %1;" ::pointer_type(window(address)),  \
                     register_class(static_cast<value_type>(value))                               \
                     : "memory");                                                                 \
    }
FJ_PTX_ADD(fj_atomic_add, "relaxed.gpu.global", fj_ptx_global, "f", "l", "f32", float, float)
FJ_PTX_ADD(fj_atomic_add, "relaxed.gpu.global", fj_ptx_global, "d", "l", "f64", double, double)
FJ_PTX_ADD(fj_atomic_add, "relaxed.gpu.global", fj_ptx_global, "r", "l", "s32", int32_t, int32_t)
FJ_PTX_ADD(fj_atomic_add, "relaxed.gpu.global", fj_ptx_global, "l", "l", "u64", int64_t, uint64_t)
#if FJ_HAS_ATOMIC_V4
FJ_DEVICE void fj_atomic_add_v4(float *address, const float (&x)[4]) {
    asm volatile("red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(fj_ptx_global(address)),
                 "f"(x[0]), "f"(x[1]), "f"(x[2]), "f"(x[3])
                 : "memory");
}
#endif
FJ_PTX_ADD(fj_shared_atomic_add, "relaxed.cta.shared", fj_shared_address, "f", "r", "f32", float, float)
FJ_PTX_ADD(fj_shared_atomic_add, "relaxed.cta.shared", fj_shared_address, "r", "r", "s32", int32_t, int32_t)
FJ_PTX_ADD(fj_shared_atomic_add, "relaxed.cta.shared", fj_shared_address, "l", "r", "u64", int64_t, uint64_t)
#undef FJ_PTX_ADD

#define FJ_PTX_FETCH(name, op, type)                                \
    FJ_DEVICE type name(type *address, type value) {                \
        type before;                                                \
        asm volatile("atom.relaxed.gpu.global." op " %0, [%1], %2;" \
                     : "=r"(before)                                 \
                     : "l"(fj_ptx_global(address)), "r"(value)      \
                     : "memory");                                   \
        return before;                                              \
    }
FJ_PTX_FETCH(fj_atomic_fetch_add, "add.s32", int32_t)
FJ_PTX_FETCH(fj_atomic_fetch_min, "min.u32", uint32_t)
FJ_PTX_FETCH(fj_atomic_fetch_max, "max.u32", uint32_t)
#undef FJ_PTX_FETCH

// ---- Arithmetic -------------------------------------------------------------------------------------
//
// Functions that the compiler knows, not asm, where they exist: it folds and schedules them.

FJ_DEVICE float fj_add_rn(float a, float b) { return __fadd_rn(a, b); }
FJ_DEVICE float fj_sub_rn(float a, float b) { return __fsub_rn(a, b); }
FJ_DEVICE float fj_mul_rn(float a, float b) { return __fmul_rn(a, b); }
FJ_DEVICE float fj_fma_rn(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FJ_DEVICE float fj_div_rn(float a, float b) { return __fdiv_rn(a, b); }
FJ_DEVICE float fj_rcp_rn(float a) { return __frcp_rn(a); }
FJ_DEVICE float fj_sqrt_rn(float a) { return __fsqrt_rn(a); }
FJ_DEVICE double fj_add_rn(double a, double b) { return __dadd_rn(a, b); }
FJ_DEVICE double fj_sub_rn(double a, double b) { return __dsub_rn(a, b); }
FJ_DEVICE double fj_mul_rn(double a, double b) { return __dmul_rn(a, b); }
FJ_DEVICE double fj_fma_rn(double a, double b, double c) { return __fma_rn(a, b, c); }
FJ_DEVICE double fj_div_rn(double a, double b) { return __ddiv_rn(a, b); }
FJ_DEVICE double fj_sqrt_rn(double a) { return __dsqrt_rn(a); }

FJ_DEVICE float fj_min(float a, float b) { return fminf(a, b); }
FJ_DEVICE float fj_max(float a, float b) { return fmaxf(a, b); }
#if FJ_ARCH >= 80
FJ_DEVICE float fj_min_nan(float a, float b) {
    float result;
    asm("min.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
}
FJ_DEVICE float fj_max_nan(float a, float b) {
    float result;
    asm("max.NaN.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
}
#else
FJ_DEVICE float fj_min_nan(float a, float b) { return a != a || b != b ? a + b : fminf(a, b); }
FJ_DEVICE float fj_max_nan(float a, float b) { return a != a || b != b ? a + b : fmaxf(a, b); }
#endif
FJ_DEVICE float fj_round_even(float a) { return rintf(a); }
FJ_DEVICE float fj_floor(float a) { return floorf(a); }
FJ_DEVICE float fj_ceil(float a) { return ceilf(a); }
FJ_DEVICE float fj_trunc(float a) { return truncf(a); }
FJ_DEVICE uint32_t fj_mulhi_u32(uint32_t a, uint32_t b) { return __umulhi(a, b); }
FJ_DEVICE uint32_t fj_popcount(uint32_t a) { return static_cast<uint32_t>(__popc(static_cast<int>(a))); }
FJ_DEVICE uint32_t fj_leading_zeros(uint32_t a) { return static_cast<uint32_t>(__clz(static_cast<int>(a))); }
FJ_DEVICE uint32_t fj_reverse_bits(uint32_t a) { return __brev(a); }
FJ_DEVICE uint32_t fj_permute_bytes(uint32_t a, uint32_t b, uint32_t s) {
    return __byte_perm(a, b, s & 0x7777u);
}

#define FJ_PTX_UNARY(name, op)                      \
    FJ_DEVICE float name(float a) {                 \
        float result;                               \
        asm(op " %0, %1;" : "=f"(result) : "f"(a)); \
        return result;                              \
    }
FJ_PTX_UNARY(fj_ex2_approx, "ex2.approx.ftz.f32")
FJ_PTX_UNARY(fj_lg2_approx, "lg2.approx.ftz.f32")
FJ_PTX_UNARY(fj_rcp_approx, "rcp.approx.ftz.f32")
FJ_PTX_UNARY(fj_rsqrt_approx, "rsqrt.approx.ftz.f32")
FJ_PTX_UNARY(fj_sqrt_approx, "sqrt.approx.ftz.f32")
FJ_PTX_UNARY(fj_tanh_approx, "tanh.approx.f32")
#undef FJ_PTX_UNARY
FJ_DEVICE float fj_div_approx(float a, float b) {
    float result;
    asm("div.approx.ftz.f32 %0, %1, %2;" : "=f"(result) : "f"(a), "f"(b));
    return result;
}

// ---- Conversions ------------------------------------------------------------------------------------

FJ_DEVICE uint32_t fj_bits_from_f32(float a) { return __float_as_uint(a); }
FJ_DEVICE float fj_f32_from_bits(uint32_t a) { return __uint_as_float(a); }
FJ_DEVICE uint64_t fj_bits_from_f64(double a) { return static_cast<uint64_t>(__double_as_longlong(a)); }
FJ_DEVICE double fj_f64_from_bits(uint64_t a) { return __longlong_as_double(static_cast<long long>(a)); }

FJ_DEVICE fj_f16 fj_f16_from_f32(float a) {
    fj_f16 result;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(result.bits) : "f"(a));
    return result;
}
FJ_DEVICE float fj_f32_from_f16(fj_f16 a) {
    float result;
    asm("cvt.f32.f16 %0, %1;" : "=f"(result) : "h"(a.bits));
    return result;
}
FJ_DEVICE float fj_f32_from_bf16(fj_bf16 a) { return __uint_as_float(static_cast<uint32_t>(a.bits) << 16); }
#if FJ_ARCH >= 80
FJ_DEVICE uint32_t fj_f16x2_from_f32(float low, float high) {
    uint32_t result;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}
FJ_DEVICE uint32_t fj_bf16x2_from_f32(float low, float high) {
    uint32_t result;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(result) : "f"(high), "f"(low));
    return result;
}
FJ_DEVICE fj_bf16 fj_bf16_from_f32(float a) {
    fj_bf16 result;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(result.bits) : "f"(a));
    return result;
}
FJ_DEVICE uint32_t fj_tf32_from_f32(float a) {
    uint32_t result;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(result) : "f"(a));
    return result;
}
#else
FJ_DEVICE fj_bf16 fj_bf16_from_f32(float a) {
    const uint32_t bits = __float_as_uint(a);
    if (a != a) return fj_bf16{0x7fff};
    return fj_bf16{static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16)};
}
FJ_DEVICE uint32_t fj_bf16x2_from_f32(float low, float high) {
    return fj_bf16_from_f32(low).bits | static_cast<uint32_t>(fj_bf16_from_f32(high).bits) << 16;
}
FJ_DEVICE uint32_t fj_f16x2_from_f32(float low, float high) {
    return fj_f16_from_f32(low).bits | static_cast<uint32_t>(fj_f16_from_f32(high).bits) << 16;
}
#endif
FJ_DEVICE float fj_f32_from_f16x2_low(uint32_t pair) {
    return fj_f32_from_f16(fj_f16{static_cast<uint16_t>(pair & 0xffffu)});
}
FJ_DEVICE float fj_f32_from_f16x2_high(uint32_t pair) {
    return fj_f32_from_f16(fj_f16{static_cast<uint16_t>(pair >> 16)});
}
FJ_DEVICE float fj_f32_from_bf16x2_low(uint32_t pair) { return __uint_as_float(pair << 16); }
FJ_DEVICE float fj_f32_from_bf16x2_high(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// ---- The rest ---------------------------------------------------------------------------------------

FJ_DEVICE uint64_t fj_clock() {
    uint64_t time;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(time));
    return time;
}
FJ_DEVICE void fj_trap(const char *) { asm volatile("trap;"); }

#endif
