// What a prologue may say, and what holds where it does not: so a template, and each header, compiles as it stands.
// hooks.md says what each constant means.
#ifndef FJ_CUDA_DEFAULTS_H
#define FJ_CUDA_DEFAULTS_H

#ifndef FJ_DTYPE_F16
#define FJ_DTYPE_F16 1
#define FJ_DTYPE_BF16 2
#define FJ_DTYPE_F32 3
#define FJ_DTYPE_F64 4
#endif
#ifndef FJ_IN_DTYPE
#define FJ_IN_DTYPE FJ_DTYPE_BF16
#endif
#ifndef FJ_REAL_F64
#define FJ_REAL_F64 0
#endif
#ifndef FJ_TF32
#define FJ_TF32 0
#endif

#ifndef FJ_HEAD_DIM
#define FJ_HEAD_DIM 128
#define FJ_VALUE_DIM 128
#define FJ_HEAD_PAD 128
#define FJ_VALUE_PAD 128
#endif
#ifndef FJ_TILE_M
#define FJ_TILE_M 64
#define FJ_TILE_N 64
#define FJ_STAGES 2
#define FJ_WARPS 4
#endif

#ifndef FJ_PACK_HEADS
#define FJ_PACK_HEADS 0
#endif
#ifndef FJ_PARTIAL
#define FJ_PARTIAL 0
#endif
#ifndef FJ_WANT_MAX
#define FJ_WANT_MAX 0
#endif
#ifndef FJ_DETERMINISTIC
#define FJ_DETERMINISTIC 1
#endif
#ifndef FJ_BLOCK_MASK
#define FJ_BLOCK_MASK 0
#endif
#ifndef FJ_PACKED
#define FJ_PACKED 0
#endif
#ifndef FJ_PAGED
#define FJ_PAGED 0
#endif
#ifndef FJ_SEQUENCES
#define FJ_SEQUENCES (FJ_PACKED || FJ_PAGED)
#endif
#ifndef FJ_SHARED_KEYS
#define FJ_SHARED_KEYS 0
#endif
#ifndef FJ_DROPOUT
#define FJ_DROPOUT 0
#endif
#ifndef FJ_POSITION_TABLE
#define FJ_POSITION_TABLE 0
#endif
#ifndef FJ_WIDE_CAPTURES
#define FJ_WIDE_CAPTURES 0
#endif

// Columns of a thread per iteration of the mask's loop: more is faster and longer.
#ifndef FJ_MASK_UNROLL
#define FJ_MASK_UNROLL 2
#endif
// Chunks of the loop over scores, each with the score mod (and its derivative) once: more are slower, and the text is
// shorter by as much.
#ifndef FJ_MOD_CHUNKS
#define FJ_MOD_CHUNKS 1
#endif
// 1: the score mod stands in the text once, with the mask's selects: for mods so costly that these do not matter.
#ifndef FJ_ONE_COPY
#define FJ_ONE_COPY (FJ_HAS_SCORE && FJ_CAPTURES > 0)
#endif
// 1: full tiles have a copy of the mod of their own, without selection; not where it scatters, which is long.
#ifndef FJ_FULL_COPY
#define FJ_FULL_COPY (!FJ_HAS_CAPTURE_GRADS)
#endif

#endif
