/* Which probabilities dropout keeps: the words of base/philox.h, which defines them, by lanes.
 *
 *   counter i of 64 keys    keys 64 g + i, + 16, + 32, + 48, one for each of its four words: so 16 counters serve 64 keys
 *   lanes                   a word in the low half of 64 bits, which one instruction multiplies to 64. What lies in the high
 *                           half is never read. A pair holds the counters of even and odd places, whose words then lie
 *                           side by side as 32 bits each
 *
 * Of the ten rounds the first two and a half are shared: of a counter {c, q, plane} the first round makes two words of c alone and
 * two of q and plane; so do the products of the second, and one of the third is of c and plane. These are kept for the keys, or
 * for the rows, and a position costs the last seven and a half.
 *
 * A bit of `keep` says that a probability is kept, that is, that its word is not below the threshold. */
#ifndef FJ_DROPOUT_H
#define FJ_DROPOUT_H

#include "prim_tile.h"

#define FJ_KEEP_KEYS 64 /* of a word of bits */

/* Rows of one head: query q, q + 1 ... as a mod sees them, b and h as well. keep[row * line + i]: the keys of 64 (group + i). */
struct dropout_rows {
    const struct fj_cpu_args *args;
    int64_t b, h;
    int32_t q;
    int rows;
    int64_t group;
    int groups;
    uint64_t *keep;
    int64_t line;
};

#if FJ_DROPOUT

FJ_SHARED void dropout_bits(const struct dropout_rows *r);

/* The lanes of the vector that begins at key `at` of the block whose bits these are. */
FJ_INLINE fj_b dropout_lanes(const uint64_t *keep, int64_t at) {
    return fj_unbits_b((uint32_t)(keep[at / FJ_KEEP_KEYS] >> at % FJ_KEEP_KEYS) & FJ_ALL_BITS);
}

#if FJ_IN_PART(2)

#define FJ_PHILOX_PAIRS (16 / FJ_VF_LANES) /* that 16 counters take */
#define FJ_PHILOX_A 0xD2511F53u
#define FJ_PHILOX_B 0xCD9E8D57u

/* Keys of the rounds. */
struct philox_keys {
    uint64_t word[10][2];
};
static struct philox_keys philox_keys(const uint32_t key[2]) {
    struct philox_keys keys;
    for (uint32_t i = 0; i < 10; i++) {
        keys.word[i][0] = (uint32_t)(key[0] + i * 0x9E3779B9u);
        keys.word[i][1] = (uint32_t)(key[1] + i * 0xBB67AE85u);
    }
    return keys;
}

struct philox {
    fj_vul word[4];
};
FJ_INLINE struct philox philox_round(struct philox x, const uint64_t key[2]) {
    const fj_vul a = fjv_product_ul(x.word[0], FJ_PHILOX_A), b = fjv_product_ul(x.word[2], FJ_PHILOX_B);
    return (struct philox){{(b >> 32) ^ x.word[1] ^ key[0], b, (a >> 32) ^ x.word[3] ^ key[1], a}};
}

/* Of a counter and its plane: the words that the third round starts with, but for what the row adds. */
struct philox_column {
    fj_vul product; /* of its first word, in the third round */
    fj_vul second, third;
};
static struct philox_column philox_column(fj_vul counter, uint64_t plane, const struct philox_keys *keys) {
    const fj_vul a = fjv_product_ul(counter, FJ_PHILOX_A);
    const uint64_t b = (uint64_t)FJ_PHILOX_B * (uint32_t)plane;
    const fj_vul other = fjv_product_ul((a >> 32) ^ (uint32_t)(plane >> 32) ^ keys->word[0][1], FJ_PHILOX_B);
    const fj_vul first = (other >> 32) ^ (uint32_t)b ^ keys->word[1][0];
    return (struct philox_column){fjv_product_ul(first, FJ_PHILOX_A), other, a ^ keys->word[1][1]};
}

/* The product of the second round that is a row's own. */
static uint64_t philox_row(uint32_t q, uint64_t plane, const struct philox_keys *keys) {
    const uint64_t b = (uint64_t)FJ_PHILOX_B * (uint32_t)plane;
    return (uint64_t)FJ_PHILOX_A * ((uint32_t)(b >> 32) ^ q ^ (uint32_t)keys->word[0][0]);
}

FJ_INLINE struct philox philox_end(const struct philox_column *c, uint64_t row,
                                   const struct philox_keys *keys) {
    const fj_vul b = fjv_product_ul(c->third ^ (uint32_t)(row >> 32), FJ_PHILOX_B);
    struct philox x = {{(b >> 32) ^ c->second ^ keys->word[2][0], b,
                        (c->product >> 32) ^ (uint32_t)row ^ keys->word[2][1], c->product}};
    FJ_UNROLL for (int i = 3; i < 10; i++) x = philox_round(x, keys->word[i]);
    return x;
}

/* Bits of 64 keys of a row. limit: the greatest word that is dropped, its sign bit turned as compared numbers have one. */
FJ_INLINE uint64_t philox_bits(const struct philox_column columns[FJ_PHILOX_PAIRS][2], uint64_t row,
                               const struct philox_keys *keys, fj_vi limit) {
    uint64_t bits = 0;
    for (int pair = 0; pair < FJ_PHILOX_PAIRS; pair++) {
        const struct philox even = philox_end(&columns[pair][0], row, keys),
                            odd = philox_end(&columns[pair][1], row, keys);
        FJ_UNROLL for (int w = 0; w < 4; w++) {
            const fj_vul words = (even.word[w] & 0xffffffffu) | odd.word[w] << 32;
            const fj_mf kept = fjv_gt_i((fj_vi)((fj_vu)words ^ 0x80000000u), limit);
            bits |= (uint64_t)fjv_bits_mf(kept) << (16 * w + pair * FJ_VF_LANES);
        }
    }
    return bits;
}

static fj_vul philox_counters(int64_t group, int pair, int odd) {
    fj_vul counters = {0};
    for (int i = 0; i < FJ_VD_LANES; i++)
        counters[i] = (uint32_t)(group * 16 + pair * FJ_VF_LANES + 2 * i + odd);
    return counters;
}

FJ_SHARED void dropout_bits(const struct dropout_rows *r) {
    const struct fj_cpu_args *a = r->args;
    const uint64_t plane = (uint64_t)(r->b * a->heads_q + r->h);
    const struct philox_keys keys = philox_keys(a->dropout_key);
    const fj_vi limit = fjv_splat_i((int32_t)((uint32_t)(a->dropout_threshold - 1) ^ 0x80000000u));
    for (int i = 0; i < r->groups; i++) {
        struct philox_column columns[FJ_PHILOX_PAIRS][2];
        for (int n = 0; a->dropout_threshold > 0 && n < 2 * FJ_PHILOX_PAIRS; n++)
            columns[n / 2][n % 2] = philox_column(philox_counters(r->group + i, n / 2, n % 2), plane, &keys);
        for (int row = 0; row < r->rows; row++)
            r->keep[row * r->line + i] =
                a->dropout_threshold > 0
                    ? philox_bits(columns, philox_row((uint32_t)r->q + (uint32_t)row, plane, &keys), &keys,
                                  limit)
                    : ~(uint64_t)0;
    }
}

#endif

#endif

#endif
