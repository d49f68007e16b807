/* Defects that the tests must notice, each planted into the text of one kernel: a piece of it is replaced, which must
 * be there. `in` says by which program it is looked for: without a sanitizer the kernel gives wrong answers, other bits
 * in another order of threads, or bank conflicts; with one, its report names the line where `line` stands. */
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/kern/kern.h"

enum { PLAIN = 1, ADDRESS = 2, THREAD = 4 };

#ifdef KERN_ADDRESS
static const int here = ADDRESS;
#elif defined(KERN_THREAD)
static const int here = THREAD;
#else
static const int here = PLAIN;
#endif

struct plant {
    const char *name, *kernel; /* the test that fails */
    int in;
    const char *from, *to;
    const char *line; /* for sanitizers */
};

#define FWD_MMA "fwd_mma_bf16_e64_v64_m64_n64_s2_w4_none"
#define FWD_SIMT "fwd_simt_f32_e64_v64_m64_n32_s1_w4_alibi"
#define FWD_FAR "fwd_mma_f16_e64_v64_m64_n64_s2_w4_far"
#define FWD_CARE "fwd_mma_bf16_e64_v64_m64_n64_s2_w4_causal"
#define FWD_MERGE "fwd_mma_f16_e40_v80_m64_n32_s2_w4_max_split7_epilogue"
#define BWD_MMA "bwd_mma_bf16_e64_v64_m64_n64_s2_w4_none"
#define BWD_WIDE "bwd_mma_f16_e256_v144_m32_n32_s1_w4_late"
#define BWD_SUMS "bwd_mma_bf16_e16_v16_m64_n64_s2_w4_bias"
#define BWD_TABLE "bwd_mma_f16_e64_v64_m64_n64_s2_w8_relative"
#define BWD_CAUSAL "bwd_mma_f16_e80_v40_m64_n32_s2_w8_causal"
#define BWD_DOCUMENT "bwd_mma_bf16_e64_v64_m64_n64_s2_w4_document"
#define BWD_ATOMIC "bwd_mma_f16_atomic_e64_v64_m64_n64_s2_w4_causal"
#define BWD_SIMT_CAUSAL "bwd_simt_bf16_e64_v64_m32_n32_s1_w4_causal"
#define FWD_BLOCKS "fwd_mma_bf16_e64_v64_m64_n64_s2_w4_blocks_none"
#define FWD_PACKED "fwd_mma_bf16_e64_v64_m64_n64_s2_w4_varlen_none"
#define BWD_PACKED "bwd_mma_bf16_e64_v64_m64_n64_s2_w4_varlen_none"
#define FWD_PAGED "fwd_mma_bf16_e64_v64_m64_n64_s2_w4_paged_causal"
#define FWD_OFFSET "fwd_mma_bf16_e64_v64_m64_n64_s2_w4_offset_causal"
#define FWD_SIMT_BLOCKS "fwd_simt_f32_e64_v64_m64_n32_s1_w4_blocks_window"
#define BWD_BLOCKS "bwd_mma_bf16_e64_v64_m64_n64_s2_w4_blocks_causal"
#define BWD_SIMT_BLOCKS "bwd_simt_f32_e64_v64_m32_n32_s1_w4_blocks_none"
#define BWD_SIMT "bwd_simt_f32_e64_v64_m32_n32_s1_w4_alibi"

#define FWD_DROPOUT "fwd_mma_bf16_e64_v64_m64_n64_s2_w4_dropout_causal"
#define BWD_DROPOUT "bwd_mma_bf16_e64_v64_m64_n64_s2_w4_dropout_causal"
#define BWD_DROPOUT_WIDE "bwd_mma_f16_e64_v64_m128_n64_s2_w8_dropout_relative"
#define FWD_GATE "fwd_mma_bf16_e64_v64_m64_n64_s2_w4_gate"
#define BWD_GATE "bwd_mma_bf16_e64_v64_m64_n64_s2_w4_gate"
#define BWD_SINK "bwd_mma_bf16_e64_v64_m64_n64_s2_w4_sink"

#define VALUE_SUMS "RESIDENT_QK_BYTES, dvalue, marks ? 1.0f : t.value_scale())"
#define STEP_WAIT "fj_copy_async_wait<(stages > 1 ? stages - 2 : 0)>();"
#define COPY "fj_copy_async_16(shared + tile::at(row, chunk), count ? from"
#define MULTIPLY "fj_multiply_keys(s, fj_shared_address(fj_shared()), keys);"
#define ROW_STATS "const fj_pair_stat minus_delta(t, row_stats, FJ_CUDA_ROW_MINUS_DELTA, j);"
#define SIMT_LOAD "const fj_real x = there ? fj_widen(start[from + column]) : fj_real(0);"
#define SIMT_COPY "to[row * pitch + column] = clean && x - x != 0 ? fj_real(0) : x;"
#define SIMT_STORE "to[row * (DEPTH + 1) + i % DEPTH] ="
#define SIMT_CHUNK "there ? fj_clean(fj_widen(fj_row_start(t, b, h, first + row)[column]), how) : fj_real(0);"

static const plant plants[] = {
    /* Barriers */
    {"fwd_mma: no barrier before a block", FWD_MMA, PLAIN | THREAD,
     STEP_WAIT "\n            fj_block_sync();", STEP_WAIT, MULTIPLY},
    {"fwd_simt: no barrier before products", FWD_SIMT, PLAIN | THREAD,
     "        });\n        fj_block_sync();\n#pragma unroll 4", "        });\n#pragma unroll 4", SIMT_COPY},
    {"fwd_simt: no barrier before chunks", FWD_SIMT, PLAIN, "from += DEPTH) {\n        fj_block_sync();",
     "from += DEPTH) {", NULL},
    {"fwd_simt: no barrier before values", FWD_SIMT, PLAIN, "FJ_CARE_CLEAN);\n    fj_block_sync();",
     "FJ_CARE_CLEAN);", NULL},
    {"bwd_mma: no barrier before a step", BWD_MMA, PLAIN | THREAD, STEP_WAIT "\n            fj_block_sync();",
     STEP_WAIT, ROW_STATS},
    {"bwd_mma: no barrier before results", BWD_WIDE, PLAIN, "= any;\n    fj_block_sync();", "= any;", NULL},
    {"bwd_mma: no barrier before stores", BWD_MMA, PLAIN, VALUE_SUMS ";\n        fj_block_sync();",
     VALUE_SUMS ";", NULL},
    {"bwd_mma: shared weights without a barrier", BWD_WIDE, PLAIN,
     "fj_barrier_sync(1 + fj_warp() / SPLIT, SPLIT * FJ_WARP);", "", NULL},
    {"bwd_simt: no barrier before products", BWD_SIMT, PLAIN | THREAD,
     "from, dim);\n        fj_block_sync();\n#pragma unroll 4", "from, dim);\n#pragma unroll 4", SIMT_STORE},
    {"bwd_simt: no barrier before chunks", BWD_SIMT, PLAIN, "from += DEPTH) {\n        fj_block_sync();",
     "from += DEPTH) {", NULL},
    {"bwd_simt: no barrier before columns", BWD_SIMT, PLAIN, "chunk++) {\n        fj_block_sync();",
     "chunk++) {", NULL},
    /* Waits for asynchronous copies */
    {"fwd_mma: no wait for copies", FWD_MMA, PLAIN | THREAD, STEP_WAIT, "", MULTIPLY},
    {"fwd_mma: the stage in use is overwritten", FWD_MMA, PLAIN, "ahead[stages - 1], filled)",
     "ahead[stages - 1], stage)", NULL},
    {"bwd_mma: no wait for copies", BWD_MMA, PLAIN | THREAD, STEP_WAIT, "", ROW_STATS},
    {"bwd_mma: the stage in use is overwritten", BWD_MMA, PLAIN, "ahead[stages - 1], filled)",
     "ahead[stages - 1], stage)", NULL},
    /* Guards of bounds */
    {"fwd_mma: no bound on keys", FWD_MMA, PLAIN | ADDRESS, "i < left ? from + i * stride : nullptr",
     "from + i * stride", COPY},
    {"fwd_mma: no bound on queries", FWD_MMA, PLAIN | ADDRESS, "if (row >= t.at.rows) return nullptr;", "",
     COPY},
    {"fwd_mma: keys past the last are seen", FWD_MMA, PLAIN,
     "const bool there = kv < t.a.kv_len && fj_key_is_there(t.a, kv);", "const bool there = true;", NULL},
    {"fwd_mma: rows past the last are stored", FWD_MMA, PLAIN | ADDRESS,
     "if (in_column >= t.at.rows || !t.a.out.data) break;", "", "fj_put_chunk(to + chunk * FJ_CHUNK, x,"},
    {"fwd_simt: no bound on keys", FWD_SIMT, PLAIN | ADDRESS, "if (key + i >= a.kv_len) return nullptr;", "",
     SIMT_LOAD},
    {"bwd_mma: no bound on rows", BWD_MMA, PLAIN | ADDRESS, "i < left ? from + i * stride : nullptr",
     "from + i * stride",
     "fj_tile_copy_rows<columns, rows, threads>(\n                to, dim, vector, [&](int32_t i)"},
    {"bwd_mma: rows past the last are stored", BWD_MMA, PLAIN | ADDRESS,
     "if (index >= t.at.count || left <= 0) continue;", "if (left <= 0) continue;",
     "fj_put_chunk(place, x, left, vector);"},
    {"bwd_simt: no bound on rows", BWD_SIMT, PLAIN | ADDRESS,
     "const bool there = first + row < count && column < dim;", "const bool there = column < dim;",
     SIMT_CHUNK},
    {"bwd_mma: resident rows past the last scatter", BWD_TABLE, PLAIN,
     "index < t.at.streamed && t.row(r) < t.at.count", "index < t.at.streamed", NULL},
    /* Swizzles */
    {"fwd_mma: a swizzle is missing", FWD_MMA, PLAIN, "(fj_tile<columns>::swizzle(own) ^ (lane / 8 % 2))",
     "(lane / 8 % 2)", NULL},
    {"fwd_mma: values without a swizzle", FWD_MMA, PLAIN,
     "(fj_tile<columns>::swizzle(own) ^ (lane / 16))) {}\n    FJ_METHOD void load(uint32_t (&r)",
     "(lane / 16)) {}\n    FJ_METHOD void load(uint32_t (&r)", NULL},
    {"bwd_mma: a swizzle is missing", BWD_MMA, PLAIN, "(fj_tile<columns>::swizzle(own) ^ (lane / 8 % 2))",
     "(lane / 8 % 2)", NULL},
    /* Registers that are not set */
    {"fwd_simt: scores are not set", FWD_SIMT, PLAIN, "for (int j = 0; j < THREAD_KEYS; j++) t.s[i][j] = 0;",
     ";", NULL},
    {"bwd_mma: a sum of delta is not set", BWD_MMA, PLAIN, "fj_real sum = 0;\n    int32_t from = 0;",
     "fj_real sum;\n    int32_t from = 0;", NULL},
    {"bwd_mma: sums of products are not zeroed", BWD_MMA, PLAIN,
     "sum.c[n / 4 / (2 * pairs)][n / 4 % (2 * pairs)][n % 4] = 0;", ";", NULL},
    /* Alignment: the answers are right, and a GPU would stop */
    {"fwd_mma: unaligned chunks stored as vectors", FWD_MMA, PLAIN, "if (vector && left >= FJ_CHUNK) {",
     "if (left >= FJ_CHUNK) {", NULL},
    {"bwd_mma: unaligned chunks copied as vectors", BWD_MMA, PLAIN, "        if (vector) {",
     "        if (true) {", NULL},
    /* Meaning */
    {"fwd_mma: no guard of -inf", "fwd_mma_bf16_e32_v64_m64_n64_s2_w4_late", PLAIN,
     "return fj_max(fj_fma_rn(limit, scale_log2, -RESCALE_THRESHOLD), -FJ_MOST_REAL);",
     "return fj_fma_rn(limit, scale_log2, -RESCALE_THRESHOLD);", NULL},
    {"fwd_mma: no row goes far", FWD_FAR, PLAIN, "far = true;\n            rows.far |= 1u << r;",
     "far = false;", NULL},
    {"fwd_mma: sums stay where they were", FWD_FAR, PLAIN, "fj_fma_rn(-limit, t.scale_log2, base[r])",
     "fj_fma_rn(limit, t.scale_log2, base[r])", NULL},
    {"fwd_mma: lse in one part", FWD_FAR, PLAIN, "rest - (end.lse - all.high)", "fj_real(0)", NULL},
    {"fwd_simt: products before the difference", "fwd_simt_f32_e64_v64_m64_n32_s1_w4_far", PLAIN,
     "fj_prob_exp2((t.s[i][j] - base) * scale_log2)",
     "fj_prob_exp2(fj_fma_rn(t.s[i][j], scale_log2, -base * scale_log2))", NULL},
    {"fwd_mma: nobody takes care", FWD_CARE, PLAIN, "fj_any_of_block(stored.bad)", "false", NULL},
    {"fwd_mma: values stay as they are", FWD_CARE, PLAIN, "if (fj_is_bad_element(values[i])) values[i] = 0;",
     "", NULL},
    {"fwd_mma: no barrier after cleaning", FWD_CARE, PLAIN, "values[i] = 0;\n    fj_block_sync();",
     "values[i] = 0;", NULL},
    {"fwd_mma: nobody sees what is not finite", FWD_CARE, PLAIN, "fj_spread(end, counts);", "", NULL},
    {"fwd_simt: nobody takes care", "fwd_simt_f32_e64_v64_m64_n32_s1_w4_window", PLAIN,
     "if (!again) return false;", "return false;", NULL},
    {"fwd_simt: all see what is not finite", "fwd_simt_f32_e64_v64_m64_n32_s1_w4_window", PLAIN,
     "v - v != 0 && t.p[(t.ty + i * TY) * (FJ_TILE_N + 1) + n] != 0", "v - v != 0", NULL},
    {"fwd_merge: weights by one part of lse", "fwd_mma_bf16_e64_v64_m64_n64_s2_w4_split3_far", PLAIN,
     "+ (lse.low - base.low)", "", NULL},
    {"fwd_mma: a cut block is full", "fwd_mma_f16_e80_v40_m64_n64_s2_w4_causal", PLAIN,
     "found == FJ_CLASS_FULL && end > a.kv_len ? FJ_CLASS_PARTIAL : found;\n#else", "found;\n#else", NULL},
    {"fwd_merge: no guard of -inf", "fwd_mma_bf16_e64_v64_m64_n64_s2_w4_split3_late", PLAIN,
     "most == -fj_real(INFINITY) ? fj_real(0) : most,", "most,", NULL},
    {"fwd_merge: the sink joins every split", FWD_MERGE, PLAIN, "fj_end_row<!FJ_PARTIAL>", "fj_end_row<true>",
     NULL},
    {"fwd_merge: the output's hook twice", FWD_MERGE, PLAIN, "x = fj_out_of(mod, place, c, x);",
     "x = fj_out_of(mod, place, c, fj_out_of(mod, place, c, x));", NULL},
    {"fwd_merge: NaN of a split is not the greatest", FWD_MERGE, PLAIN, "b > a || b != b ? b : a",
     "b > a ? b : a", NULL},
    {"fwd_merge: the last split is forgotten", FWD_MERGE, PLAIN, "s = 0; s < a.splits; s++",
     "s = 0; s + 1 < a.splits; s++", NULL},
    {"fwd: a part begins a live block late", "fwd_mma_bf16_e64_v64_m64_n64_s2_w4_blocks_split5_window", PLAIN,
     "at.block = fj_find_live(count, fj_part_start(count.all, part, parts), blocks, live);",
     "at.block = fj_find_live(count, fj_part_start(count.all, part, parts) + 1, blocks, live);", NULL},
    {"fwd_merge: packed rows of another sequence", "fwd_mma_bf16_e64_v64_m64_n64_s2_w4_varlen_split3_gate",
     PLAIN, "q_position -= args.sequences.cu_q[b];", "", NULL},
    {"bwd_mma: a cut tile is full", BWD_SUMS, PLAIN,
     "end <= at.streamed && resident_end <= at.count ? FJ_CLASS_FULL : FJ_CLASS_PARTIAL", "FJ_CLASS_FULL",
     NULL},
    {"bwd_mma: delta with the wrong sign", BWD_MMA, PLAIN, "fj_real minus_delta = -sum;",
     "fj_real minus_delta = sum;", NULL},
    {"bwd_delta: lse in one part", "bwd_mma_bf16_e64_v64_m64_n64_s2_w4_far", PLAIN,
     "((product - lse) + rest) - lse_low) * FJ_LOG2_E", "(product - lse) + rest) * FJ_LOG2_E", NULL},
    {"bwd_mma: dlse is forgotten", BWD_MMA, PLAIN,
     "if (a.dlse.data) minus_delta +=", "if (false) minus_delta +=", NULL},
    {"bwd_mma: scale on dvalue", BWD_MMA, PLAIN, VALUE_SUMS,
     "RESIDENT_QK_BYTES, dvalue, static_cast<float>(t.a.scale))", NULL},
    {"bwd_mma: P is not selected", BWD_CAUSAL, PLAIN, "s = live ? p : fj_real(0);", "s = p;", NULL},
    /* Sinks, the mod of the output, dropout */
    {"fwd_mma: raw after the mod of the output", FWD_GATE, PLAIN,
     "fj_store_raw(t);\n    if (t.a.out.data) fj_stage_outputs(t, o, factors);\n    fj_warp_sync();\n",
     "fj_stage_outputs(t, o, factors);\n    fj_warp_sync();\n    fj_store_raw(t);\n", NULL},
    {"fwd_mma: dropout does not read its state", FWD_DROPOUT, PLAIN,
     "const uint64_t seed = a.state ? static_cast<uint64_t>(a.state[0]) : a.seed,",
     "const uint64_t seed = a.seed,", NULL},
    {"fwd_mma: what is dropped of another plane", FWD_DROPOUT, PLAIN,
     "static_cast<uint32_t>(b) * static_cast<uint32_t>(a.heads_q) +", "static_cast<uint32_t>(b) +", NULL},
    {"bwd_mma: another mask than forward's", BWD_DROPOUT_WIDE, PLAIN,
     "keep[r + 2 * n] |=", "keep[r + 2 * (shared - 1 - n)] |=", NULL},
    {"bwd_mma: dvalue is not divided by 1 - p", BWD_DROPOUT, PLAIN, VALUE_SUMS,
     "RESIDENT_QK_BYTES, dvalue, 1)", NULL},
    {"bwd_mma: with dropout dP starts at -delta", BWD_DROPOUT, PLAIN, "return minus_delta * kept;",
     "return minus_delta;", NULL},
    {"bwd_rows: gradients of the output's mod, once", BWD_GATE, PLAIN,
     "fj_grad_end(acc[i], args.call.runs + i);",
     "if (mode != FJ_GRAD_LOOK) fj_grad_end(acc[i], args.call.runs + i);", NULL},
    {"bwd_rows: lse has no part in the sink's gradient", BWD_SINK, PLAIN,
     "fj_exp((fj_sink(&mod, &head) - lse) - low)", "fj_exp(fj_sink(&mod, &head))", NULL},
    {"bwd_mma: only the first head of a group", BWD_CAUSAL, PLAIN, "at.head + (keys ? ratio : 1);",
     "at.head + 1;", NULL},
    {"bwd_mma: states of the first head stay", "bwd_mma_bf16_e128_v128_m64_n64_s2_w8_alibi", PLAIN,
     "tile.head != h) {", "h < 0) {", NULL},
    {"bwd_mma: nobody looks for NaN", BWD_DOCUMENT, PLAIN, "fj_block_any(bad || care.resident)",
     "fj_block_any(false)", NULL},
    {"bwd_mma: NaN is not cleaned", BWD_DOCUMENT, PLAIN, "if (care.how) fj_clean(RESIDENT_BYTES",
     "if (false) fj_clean(RESIDENT_BYTES", NULL},
    {"bwd_mma: NaN that is seen is not marked", BWD_CAUSAL, PLAIN, "if (care.how != FJ_CLEAN) return false;",
     "return false;", NULL},
    {"bwd_mma: sums of dQ of NaN keys", BWD_ATOMIC, PLAIN,
     "if (care.how != FJ_PLAIN) fj_clean(0, RESIDENT_QK_BYTES, marks);", "", NULL},
    {"bwd_simt: NaN is not cleaned", BWD_SIMT_CAUSAL, PLAIN, "finite || how == FJ_PLAIN ? x : fj_real(0)",
     "x", NULL},
    {"bwd_simt: NaN that is seen is not marked", BWD_SIMT_CAUSAL, PLAIN,
     "how == FJ_CLEAN ? FJ_MARK : FJ_PLAIN", "FJ_PLAIN", NULL},
    {"packed: the sequence before", FWD_PACKED, PLAIN, "before + end > number", "before + end >= number",
     NULL},
    {"packed: tiles count from the first sequence", FWD_PACKED, PLAIN, "number - (before + last - tiles)",
     "number", NULL},
    {"packed: idle blocks work", BWD_PACKED, PLAIN, "FJ_PACKED && at.b < 0", "false", NULL},
    {"packed: rows of the workspace overlap", BWD_PACKED, PLAIN,
     "((b) + 1) * (FJ_SEQUENCE_PAD - 1)) / FJ_SEQUENCE_PAD * FJ_SEQUENCE_PAD", "(b) * 0)", NULL},
    {"packed: values of the first sequence", FWD_PACKED, PLAIN, "fj_skip_rows(a.value, kv, FJ_IN_BYTES);", "",
     NULL},
    {"packed: dK of the first sequence", BWD_PACKED, PLAIN, "fj_skip_rows(a.dkey, kv, FJ_IN_BYTES);", "",
     NULL},
    {"paged: the first page", FWD_PAGED, PLAIN, "    b = page;\n", "    b = a.pages[0];\n", NULL},
    {"paged: rows of a page from its end", FWD_PAGED, PLAIN, "    kv = at.rest;\n",
     "    kv = a.page_size - 1 - at.rest;\n", NULL},
    {"offset: queries begin at 0", FWD_OFFSET, PLAIN, "if (s.q_offset) a.q_offset += s.q_offset[b];", "",
     NULL},
    {"block mask: a mixed tile is full", FWD_BLOCKS, PLAIN,
     "if (both > 0 && both < all) return FJ_CLASS_PARTIAL;", "", NULL},
    {"block mask: partial blocks beside full ones", FWD_SIMT_BLOCKS, PLAIN,
     "if (FJ_HAS_MASK && seen[FJ_RUNS_PARTIAL] > 0 && seen[FJ_RUNS_FULL] > 0) return FJ_CLASS_PARTIAL;", "",
     NULL},
    {"block mask: bits of a run are shifted", BWD_SIMT_BLOCKS, PLAIN, "(from > 0 ? from : 0)",
     "(from > 0 ? from + 1 : 0)", NULL},
    {"block mask: bits of fragments are shifted", FWD_BLOCKS, PLAIN, "(x % 8 < 2 ? x % 8 : 2)", "2", NULL},
    {"block mask: rows of another line", FWD_BLOCKS, PLAIN, "if (its != line)", "if (line < 0)", NULL},
    {"block mask: the mod hides what is full", FWD_SIMT_BLOCKS, PLAIN, "(((seen).full & (bit)) ||",
     "(((seen).full & (bit) && (asked)) ||", NULL},
    {"block mask: the mod hides bits of full blocks", BWD_BLOCKS, PLAIN, "(seen.full & there)",
     "(seen.full & bits[r])", NULL},
    {"block mask: resident rows past the last scatter", "bwd_mma_bf16_e16_v16_m64_n64_s2_w4_blocks_bias",
     PLAIN, "bits[r] = t.row(r) < t.at.count ? bits[r] : 0;", ";", NULL},
    {"block mask: leaps too far", BWD_BLOCKS, PLAIN, "static_cast<int64_t>(next) * block / rows",
     "(static_cast<int64_t>(next) + 1) * block / rows", NULL},
    {"block mask: all heads have the first one's", BWD_BLOCKS, PLAIN, "mask.planes_h == 1 ? 0 : h",
     "mask.planes_h == 1 ? 0 : h * 0", NULL},
    {"block mask: heads of a group have the first one's", BWD_BLOCKS, PLAIN, "resident.head = h;",
     "resident.head = t.at.head;", NULL},
    {"block mask: keys have the lines of queries", BWD_BLOCKS, PLAIN, "of_keys ? mask.kv : mask.q", "mask.q",
     NULL},
    {"block mask: hidden values spread", FWD_BLOCKS, PLAIN, "!takes_part || shown == FJ_CLASS_EMPTY",
     "!takes_part", NULL},
    {"capture grads: units are not counted", BWD_TABLE, PLAIN, "        fj_grad_count(acc);\n        int64_t",
     "        int64_t", NULL},
    {"capture grads: sums are not zeroed", BWD_SUMS, PLAIN, "threads) sums[n] = 0;", "threads) (void)sums;",
     NULL},
    {"capture grads: units of the wrong size", BWD_SUMS, PLAIN, "return 61 - count;", "return 3;", NULL},
    {"capture grads: float atomics", BWD_TABLE, PLAIN,
     "mode = FJ_DETERMINISTIC ? (keys ? FJ_GRAD_LOOK : FJ_GRAD_ADD)", "mode = false ? FJ_GRAD_NONE", NULL},
};

/* Of the cpu's kernels: portable ones, which every machine runs. */
#define CPU_FWD "fwd_cpu_f32_e64_v64_m48_n256_portable_"
#define CPU_DIRECT CPU_FWD "direct_"
#define CPU_BWD "bwd_cpu_f32_e64_v64_m48_n192_portable_"

static const plant cpu_plants[] = {
    {"cpu fwd: sums are not scaled", CPU_FWD "none", PLAIN,
     "tile_fma(tile_load(total), factor, tile_reduce_sum(sum))", "tile_load(total) + tile_reduce_sum(sum)",
     NULL},
    {"cpu fwd: masked scores stay", CPU_FWD "causal", PLAIN, "y = fj_where_f(live, y, tile_splat(-FJ_INF));",
     "(void)live;", NULL},
    {"cpu fwd: no base for rows that see nothing", CPU_FWD "late", PLAIN,
     "fj_where_f(fj_eq_f(new, tile_splat(-FJ_INF)), tile_splat(0), new)", "new", NULL},
    {"cpu fwd: each run scales the sums", CPU_FWD "gap", PLAIN, "r ? TILE_ADD : TILE_SCALE", "TILE_SCALE",
     NULL},
    {"cpu fwd: an odd vector is full", CPU_FWD "none", PLAIN, "class == 1 || p.keys % (2 * FJ_LANES)",
     "class == 1", NULL},
    {"cpu fwd: lse in one part", CPU_FWD "far", PLAIN, "*ret_low = __builtin_isfinite(lse) ? low : 0",
     "*ret_low = 0 * low", NULL},
    {"cpu fwd: NaN that is seen is not added", CPU_FWD "causal", PLAIN,
     "if (FJ_WATCH && __builtin_expect(p->it->own->nonfinite, 0)) add", "if (0) add", NULL},
    {"cpu fwd: a NaN in each row", CPU_FWD "causal", PLAIN, "if ((class == 2 || own->masks[row]",
     "if ((class || own->masks[row]", NULL},
    {"cpu fwd: values in place are not looked at", CPU_DIRECT "causal", PLAIN, "if (!FJ_WATCH || are_finite(",
     "if (1 || are_finite(", NULL},
    {"cpu fwd: each run in place scales the sums", CPU_DIRECT "gap", PLAIN, "run == 0 && from == start ?",
     "from == start ?", NULL},
    {"cpu fwd: a panel of wide queries", CPU_DIRECT "none", PLAIN,
     "t.queries = own->turned_queries + (int64_t)row * FJ_DEPTH(FJ_HEAD_DIM);",
     "t.queries = own->turned_queries;", NULL},
    {"cpu fwd: a part of the live blocks begins late", CPU_FWD "gap", PLAIN,
     "if (live >= from) do_block(it, block, marks[block]);",
     "if (live > from || !from) do_block(it, block, marks[block]);", NULL},
    {"cpu bwd: delta with the wrong sign", CPU_BWD "none", PLAIN, "tile_load(d + at)) - delta",
     "tile_load(d + at)) + delta", NULL},
    {"cpu bwd: P is not selected", CPU_BWD "causal", PLAIN, "prob = fj_where_f(live, prob, zero);", "", NULL},
    {"cpu bwd: rows that see nothing", CPU_BWD "infinite", PLAIN, "return own->base[row] == -FJ_INF;",
     "return (void)own, (void)row, 0;", NULL},
    {"cpu bwd: lse in one part", CPU_BWD "far", PLAIN, "tile_fma(score - x.base, x.unit, x.low)",
     "(score - x.base) * x.unit", NULL},
    {"cpu bwd: delta of masked keys", "bwd_cpu_f16_e64_v64_m48_n192_portable_relative", PLAIN,
     "sum += masked ? fj_where_f(live_vector(p, row, at), part, tile_splat(0)) : part;",
     "(void)masked, sum += part;", NULL},
    {"cpu bwd: keys that are seen are left out", CPU_BWD "window", PLAIN, "while (!any[from]) from++;",
     "from = to / 2;", NULL},
    {"cpu fwd: a class of other elements", CPU_FWD "document", PLAIN, "(v > high)", "(v < high)", NULL},
    {"cpu block mask: a mixed tile is full", CPU_FWD "blocks_none", PLAIN,
     "if (full > 0 && full < all) return 1;", "if (full > 0) return 2;", NULL},
    {"cpu block mask: bits of a run are shifted", CPU_BWD "blocks_causal", PLAIN, "from > 0 ? (int)from : 0",
     "from > 0 ? (int)from + 1 : 0", NULL},
    {"cpu sink: splits after the first bring one too", CPU_FWD "epilogue", PLAIN,
     "sum += from[at_sum] * f[0];", "sum += (from[at_sum] + (i > 0)) * f[0];", NULL},
    {"cpu sink: a row that sees nothing has none", CPU_FWD "sink", PLAIN,
     "if (is_alone) return sink - sink + FJ_INF;", "if (is_alone) return -FJ_INF;", NULL},
    {"cpu sink: the gradient of another sign", CPU_BWD "sink", PLAIN, "-(prob * tile_load(deltas))",
     "prob * tile_load(deltas)", NULL},
    {"cpu out: the mod before the merge", CPU_FWD "gate", PLAIN,
     "    if (g->splits == 1) {\n        finish_rows(",
     "    finish_rows(&it, own->sums, own->top, own->sum);\n    if (g->splits == 1) {\n        if (0) finish_rows(",
     NULL},
    {"cpu out: what is before the mod is after it", CPU_FWD "gate", PLAIN, "    if (a->out_raw.data)",
     "    apply_output(it, row, line, x);\n    if (a->out_raw.data)", NULL},
    {"cpu out: delta of dO before the mod", CPU_BWD "gate", PLAIN,
     "return run_delta(&past, g, task, worker);", "return (void)past, run_delta(a, g, task, worker);", NULL},
    {"cpu dropout: heads of a group drop alike backward", CPU_BWD "dropout_none", PLAIN, ".h = p->head,\n",
     ".h = it->head_kv,\n", NULL},
    {"cpu dropout: dv is not scaled", CPU_BWD "dropout_none", PLAIN,
     "FJ_DROPOUT ? (fj_real)a->dropout_scale : 1", "1", NULL},
    {"cpu dropout: lse of what is kept", CPU_FWD "dropout_none", PLAIN,
     "            sum0 += p0;\n            sum1 += p1;\n",
     "            sum0 += fj_where_f(dropout_lanes(p->it->own->keep[row], s - line), p0, tile_splat(0));\n            sum1 += p1;\n",
     NULL},
    {"cpu dropout: a value that is dropped is seen", CPU_FWD "dropout_causal", PLAIN,
     "return own->keep[row][key / FJ_KEEP_KEYS] >> key % FJ_KEEP_KEYS & 1;",
     "return (void)own, (void)row, (void)key, 1;", NULL},
    {"cpu dropout: dO that is dropped is seen", CPU_BWD "dropout_causal", PLAIN,
     "is_dout ? kept_bits(p, row, at, live) : live", "is_dout ? (void)kept_bits, live : live", NULL},
    {"cpu dropout: nine rounds", CPU_FWD "dropout_none", PLAIN, "for (int i = 3; i < 10; i++)",
     "for (int i = 3; i < 9; i++)", NULL},
    {"cpu hand: the gradient of another sign", CPU_BWD "hand_slope", PLAIN,
     "fj_mul_f(adjoint, distance), live", "fj_neg_f(fj_mul_f(adjoint, distance)), live", NULL},
};

bool plant_apply(const plant *p, fj_buf *text) { return text_replace(text, p->from, p->to); }

/* ---- What a sanitizer says ---------------------------------------------------------------------------------- */

/* "cuda/fwd_mma.cu:120" of a piece of the text. */
static bool place_of(const char *text, const char *piece, char place[128]) {
    const char *at = strstr(text, piece);
    char file[96] = "";
    int number = 0;
    if (!at) return false;
    for (const char *line = text; line <= at; line = strchr(line, '\n') + 1, number++)
        if (sscanf(line, "#line %d \"%95[^\"]\"", &number, file) == 2) number--;
    (void)snprintf(place, 128, "%s:%d", file, number - 1);
    return true;
}

static bool kernel_place(const kernel *k, const plant *p, char place[128]) {
    fj_buf text;
    fj_buf_init(&text, &fj_allocator_libc);
    const bool found = kernel_render(k, p, &text, stdout) && place_of(text.data, p->line, place);
    fj_buf_finish(&text);
    return found;
}

static char *read_all(const char *path) {
    char *text = NULL;
    size_t size = 0;
    FILE *file = fopen(path, "r"), *to = open_memstream(&text, &size);
    for (int c; file && to && (c = fgetc(file)) != EOF;) (void)fputc(c, to);
    if (!file || !to) abort();
    (void)fclose(file);
    (void)fclose(to);
    return text;
}

/* ---- Running -------------------------------------------------------------------------------------------------- */

typedef struct garden {
    runner runner;
    const plant *chosen[FJ_ARRAY_LEN(plants) + FJ_ARRAY_LEN(cpu_plants)];
    int count;
} garden;

static const range small = {.seed = 1, .filter = "*", .targets = {80, 86, 75, 90}, .target_count = 4};

static bool is_of_cpu(const plant *p) { return p >= cpu_plants && p < cpu_plants + FJ_ARRAY_LEN(cpu_plants); }

static bool make_test(const plant *p, test *t) {
    range r = small;
    r.few = here != PLAIN;
    if (is_of_cpu(p)) r.targets[0] = -FJ_ISA_PORTABLE, r.target_count = 1;
    if (!kernel_parse(&t->kernel, p->kernel, r.targets, r.target_count)) return false;
    table_shapes(t, &r, here == PLAIN ? MOST_SHAPES : 4);
    return true;
}

/* The kernel in a process of its own, whose words are kept. */
static int run_apart(const runner *r, const test *t, const char *path) {
    int status = 0;
    (void)fflush(NULL);
    const pid_t child = fork();
    if (child == 0) {
        char where[ISOLATE_WHERE];
        const int file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
        FILE *out = fdopen(file, "w");
        if (!out || dup2(file, 2) < 0) _exit(3);
        const isolate_result result = run_test(r, t, out, where);
        (void)fflush(out);
        _exit(result != ISOLATE_OK);
    }
    (void)waitpid(child, &status, 0);
    return status;
}

/* A place, and not the beginning of another. */
static bool has_place(const char *report, const char *place) {
    for (const char *at = report; (at = strstr(at, place)) != NULL; at += strlen(place))
        if (at[strlen(place)] < '0' || at[strlen(place)] > '9') return true;
    return false;
}

static bool is_reported(const test *t, const plant *p, const char *report, char place[128]) {
    if (!kernel_place(&t->kernel, p, place)) return false;
    const char *kind = here == THREAD ? "ThreadSanitizer: data race" : "AddressSanitizer: ";
    return strstr(report, kind) && has_place(report, place);
}

static isolate_result run_plant(void *user, int item, char where[ISOLATE_WHERE]) {
    garden *g = user;
    const plant *p = g->chosen[item];
    test t;
    char place[128] = "", path[640];
    runner r = g->runner;
    r.planted = p;
    if (is_of_cpu(p)) r.device = &device_cpu;
    (void)snprintf(where, ISOLATE_WHERE, "while it is planted");
    if (!make_test(p, &t)) return printf("no kernel has the name %s\n", p->kernel), ISOLATE_FAILED;
    (void)snprintf(path, sizeof path, "%s/plant%d", host_tools.folder, item);
    const int status = run_apart(&r, &t, path);
    char *report = read_all(path);
    bool caught = WIFSIGNALED(status) || WEXITSTATUS(status) != 0;
    const bool made = !strstr(report, "does not compile") && !strstr(report, "is not there");
    if (here != PLAIN && caught) caught = is_reported(&t, p, report, place);
    caught = caught && made;
    printf("%-44s %s %s%s%s\n", p->name, caught ? "caught by" : "MISSED by", p->kernel, *place ? ", at " : "",
           place);
    if (!caught) printf("%.6000s\n", report);
    free(report);
    (void)unlink(path);
    return caught ? ISOLATE_OK : ISOLATE_FAILED;
}

/* Without a defect the same tests are silent. */
static isolate_result run_control(void *user, int item, char where[ISOLATE_WHERE]) {
    garden *g = user;
    test t;
    for (int i = 0; i < item; i++)
        if (strcmp(g->chosen[i]->kernel, g->chosen[item]->kernel) == 0) return ISOLATE_OK;
    if (!make_test(g->chosen[item], &t)) return ISOLATE_FAILED;
    runner r = g->runner;
    if (is_of_cpu(g->chosen[item])) r.device = &device_cpu;
    const isolate_result result = run_test(&r, &t, stdout, where);
    if (result != ISOLATE_OK) printf("FAIL %s, without a defect\n", t.kernel.name);
    return result;
}

static void tell_death(void *user, int item, const char *where, const char *how) {
    const garden *g = user;
    printf("FAIL %s: %s, %s\n", g->chosen[item]->name, how, where);
}

/* The number of a plant's kernel: the plants of one are looked for on the same day, so that its control runs once. */
static int kernel_number(const garden *g, const plant *p) {
    int number = 0;
    for (int i = 0; i < g->count; i++) {
        if (strcmp(g->chosen[i]->kernel, p->kernel) == 0) return number;
        bool first = true;
        for (int j = 0; j < i && first; j++) first = strcmp(g->chosen[j]->kernel, g->chosen[i]->kernel) != 0;
        number += first;
    }
    return number;
}

/* With a day, those of a fifth of the kernels, in turn. */
static void keep_part(garden *g, int64_t day) {
    enum { PARTS = 5 };
    const garden all = *g;
    g->count = 0;
    for (int i = 0; i < all.count; i++)
        if (kernel_number(&all, all.chosen[i]) % PARTS == day % PARTS) g->chosen[g->count++] = all.chosen[i];
}

int plants_run(const runner *r, const range *chosen, int jobs) {
    garden g = {.runner = *r};
    if (here != PLAIN &&
        r->all.count > 2) { /* sanitizers are slow, and need no other order to see what is missing */
        g.runner.all.list[1] = r->all.list[r->all.count - 1];
        g.runner.all.count = 2;
    }
    for (size_t i = 0; i < FJ_ARRAY_LEN(plants) + FJ_ARRAY_LEN(cpu_plants); i++) {
        const plant *p = i < FJ_ARRAY_LEN(plants) ? &plants[i] : &cpu_plants[i - FJ_ARRAY_LEN(plants)];
        if ((p->in & here) && fnmatch(chosen->filter, p->name, 0) == 0) g.chosen[g.count++] = p;
    }
    if (chosen->day) keep_part(&g, chosen->day);
    isolate tests = {
        .count = g.count, .jobs = jobs, .seconds = 120, .user = &g, .run = run_plant, .died = tell_death};
    int failed = isolate_run(&tests);
    tests.run = run_control;
    failed += isolate_run(&tests);
    printf("%d defects, %d missed; day %lld\n", g.count, failed, (long long)chosen->day);
    return failed + (g.count == 0);
}
