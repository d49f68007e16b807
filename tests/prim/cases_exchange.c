/* Where a thread is, exchange within a warp, barriers. */
#include <string.h>

#include "tests/prim/prim.h"

/* ---- exchange.cu ------------------------------------------------------------------------------ */

static void ids(const uint32_t *in, const struct prim_expected *e) {
    (void)in;
    for (uint32_t i = 0; i < 12 * 64; i++) {
        uint32_t block = i / 64, thread = i % 64;
        const uint32_t words[8] = {
            thread, 64, thread % 32, thread / 32, block % 2 | block / 2 % 3 << 8 | block / 6 << 16, 2, 3, 2};
        memcpy(e->bits + i * 8, words, sizeof words);
    }
}

static void ones(const uint32_t *in, const struct prim_expected *e) {
    (void)in;
    for (uint32_t l = 0; l < 32; l++) e->bits[l] = 1;
}

static uint32_t add_floats(uint32_t a, uint32_t b) { return prim_bits(prim_float(a) + prim_float(b)); }

static void shuffle(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t l = 0; l < 32; l++) {
        const uint32_t words[8] = {
            in[l ^ 1],
            in[l ^ 21],
            in[5],
            in[l * 7 % 32],
            in[l >= 3 ? l - 3 : l],
            in[l + 9 < 32 ? l + 9 : l],
            add_floats(in[l ^ 16], in[31]),
            add_floats(in[l ? l - 1 : l], in[l < 31 ? l + 1 : l]),
        };
        memcpy(e->bits + l * 8, words, sizeof words);
    }
}

static void shuffle_members(const uint32_t *in, const struct prim_expected *e) {
    uint32_t odd = 0, zero = 0;
    for (uint32_t l = 0; l < 16; l++) odd |= (in[l] & 1) << l;
    for (uint32_t l = 16; l < 32; l++) zero |= in[l] == 0;
    for (uint32_t l = 0; l < 32; l++) {
        e->bits[2 * l] = l < 16 ? in[l ^ 8] : in[16 + (l + 1) % 16];
        e->bits[2 * l + 1] = l < 16 ? odd : zero;
    }
}

static void vote(const uint32_t *in, const struct prim_expected *e) {
    uint32_t odd = 0;
    for (uint32_t l = 0; l < 32; l++) odd |= (in[l] & 1) << l;
    for (uint32_t l = 0; l < 32; l++) {
        const uint32_t words[5] = {odd, 1, 0, 1, 0};
        memcpy(e->bits + l * 5, words, sizeof words);
    }
}

static void exited_lanes(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t l = 0; l < 20; l++) {
        e->bits[2 * l] = 0x000fffff;
        e->bits[2 * l + 1] = in[l ^ 2];
    }
}

/* ---- sync.cu ---------------------------------------------------------------------------------- */

static void block_sync(const uint32_t *in, const struct prim_expected *e) {
    uint32_t before[128];
    memcpy(e->bits, in, sizeof before);
    for (uint32_t round = 1; round <= 3; round++) {
        memcpy(before, e->bits, sizeof before);
        for (uint32_t i = 0; i < 128; i++) e->bits[i] += before[(i + 37 * round) % 128];
    }
}

static void exited_threads(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 16; i++) e->bits[i] = in[2 * i] + in[2 * i + 1];
}

static void barrier_named(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 128; i++) e->bits[i] = in[i / 64 * 64 + 63 - i % 64];
}

static void warp_sync(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t l = 0; l < 32; l++) e->bits[l] = l < 16 ? in[31 - (l + 1) % 16] : in[31 - l];
}

static void flag(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t l = 0; l < 32; l++) {
        e->bits[l] = in[l];
        e->bits[32 + l] = in[31 - l] + 1;
    }
    e->bits[64] = 1;
    e->bits[65] = 2;
}

static void mbarrier(const uint32_t *in, const struct prim_expected *e) {
    for (uint32_t i = 0; i < 192; i++) e->bits[i] = in[i / 32 * 32 + 31 - i % 32];
}

static void fill_finite(uint32_t *in, uint32_t words) {
    for (uint32_t i = 0; i < words; i++) in[i] = (prim_random() & 0x807fffffu) | 0x3f000000u;
}

const struct prim_case prim_exchange_cases[] = {
    {"exchange", "prim_ids", 75, 64, 0, 0, 12 * 64 * 8, PRIM_BITS, prim_fill_words, ids, {2, 3, 2}, 0},
    {"exchange", "prim_clock", 75, 32, 0, 32, 32, PRIM_BITS, prim_fill_words, ones, {0}, 0},
    {"exchange", "prim_shuffle", 75, 32, 0, 32, 256, PRIM_BITS, fill_finite, shuffle, {0}, 0},
    {"exchange",
     "prim_shuffle_members",
     75,
     32,
     0,
     32,
     64,
     PRIM_BITS,
     prim_fill_words,
     shuffle_members,
     {0},
     0},
    {"exchange", "prim_vote", 75, 32, 0, 32, 160, PRIM_BITS, prim_fill_words, vote, {0}, 0},
    {"exchange", "prim_exited_lanes", 75, 32, 0, 32, 40, PRIM_BITS, prim_fill_words, exited_lanes, {0}, 0},
    {"sync", "prim_block_sync", 75, 128, 512, 128, 128, PRIM_BITS, prim_fill_words, block_sync, {0}, 0},
    {"sync",
     "prim_exited_threads",
     75,
     128,
     512,
     128,
     16,
     PRIM_BITS,
     prim_fill_words,
     exited_threads,
     {0},
     0},
    {"sync", "prim_barrier_named", 75, 128, 256, 128, 128, PRIM_BITS, prim_fill_words, barrier_named, {0}, 0},
    {"sync", "prim_barrier_part", 75, 128, 512, 128, 128, PRIM_BITS, prim_fill_words, barrier_named, {0}, 0},
    {"sync", "prim_warp_sync", 75, 32, 128, 32, 32, PRIM_BITS, prim_fill_words, warp_sync, {0}, 0},
    {"sync", "prim_flag", 75, 32, 0, 32, 66, PRIM_BITS, prim_fill_words, flag, {2, 1, 1}, 0},
    {"sync", "prim_mbarrier", 90, 64, 64 + 256, 192, 192, PRIM_BITS, prim_fill_words, mbarrier, {0}, 0},
    {"sync", "prim_copy_bulk", 90, 64, 128 + 256, 192, 192, PRIM_BITS, prim_fill_words, mbarrier, {0}, 0},
    {0},
};
