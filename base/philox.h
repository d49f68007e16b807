/* Philox 4x32-10, a counter-based generator: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011. And
 * how dropout uses it (fj_dropout_mask in flexjit.h). */
#ifndef FJ_BASE_PHILOX_H
#define FJ_BASE_PHILOX_H

#include <stdint.h>

typedef struct fj_philox_words {
    uint32_t word[4];
} fj_philox_words;

typedef struct fj_philox_key {
    uint32_t word[2];
} fj_philox_key;

static inline fj_philox_words fj_philox(fj_philox_key key, fj_philox_words counter) {
    for (int round = 0; round < 10; round++) {
        const uint64_t a = (uint64_t)0xD2511F53u * counter.word[0];
        const uint64_t b = (uint64_t)0xCD9E8D57u * counter.word[2];
        counter = (fj_philox_words){{(uint32_t)(b >> 32) ^ counter.word[1] ^ key.word[0], (uint32_t)b,
                                     (uint32_t)(a >> 32) ^ counter.word[3] ^ key.word[1], (uint32_t)a}};
        key.word[0] += 0x9E3779B9u;
        key.word[1] += 0xBB67AE85u;
    }
    return counter;
}

/* The key of a call's positions. */
static inline fj_philox_key fj_dropout_key(uint64_t seed, uint64_t offset) {
    const fj_philox_key first = {{(uint32_t)seed, (uint32_t)(seed >> 32)}};
    const fj_philox_words words =
        fj_philox(first, (fj_philox_words){{(uint32_t)offset, (uint32_t)(offset >> 32), 0, 0}});
    return (fj_philox_key){{words.word[0], words.word[1]}};
}

/* Words of positions below this are dropped: 0 to 2^32. dropout: 0 to 1. */
static inline uint64_t fj_dropout_threshold(double dropout) {
    const double scaled = dropout * 4294967296.0;
    const uint64_t below = (uint64_t)scaled;
    return below + ((double)below < scaled);
}

/* plane: b * Hq + h. A counter serves the keys kv, kv + 16, kv + 32 and kv + 48 of 64: those that lanes of 16 take one after the
 * other, and that a thread holds of a tile of tensor cores. */
static inline uint32_t fj_dropout_word(fj_philox_key key, uint64_t plane, uint32_t q, uint32_t kv) {
    const fj_philox_words counter = {{kv / 64 * 16 + kv % 16, q, (uint32_t)plane, (uint32_t)(plane >> 32)}};
    return fj_philox(key, counter).word[kv / 16 % 4];
}

#endif
