/* The form of a cache file: a header, metadata (JSON text), a payload.
 *
 *     0  magic "FLEXJIT\x1a"       32  length of the metadata, u64
 *     8  schema, u32               40  length of the payload, u64
 *    12  kind, u32                 48  digest: XXH3-128 of bytes [0, 48) and the XXH3-128
 *    16  key, 16 bytes                 of metadata and of payload
 *                                  64  metadata, then payload, then the end of the file
 *
 * Integers are little-endian. What does not agree in every part is not an entry.
 */
#ifndef FJ_CACHE_ENTRY_H
#define FJ_CACHE_ENTRY_H

#include "base/base.h"

#define FJ_CACHE_SCHEMA 1
#define FJ_CACHE_HEADER 64
#define FJ_CACHE_LARGEST (1u << 30) /* bytes of metadata and payload */

typedef struct fj_digest {
    uint8_t bytes[16];
} fj_digest;

/* XXH3-128, canonical order of bytes. */
fj_digest fj_cache_digest(const void *bytes, size_t size);
bool fj_cache_digest_equal(fj_digest a, fj_digest b);
/* 32 lower-case hexadecimal digits and a NUL. */
void fj_cache_digest_hex(fj_digest digest, char text[33]);
bool fj_cache_digest_parse(const char *text, fj_digest *ret_digest);

typedef enum fj_cache_kind {
    FJ_CACHE_SELECTION, /* request key -> which kernel */
    FJ_CACHE_KERNEL,    /* content key -> code object */
    FJ_CACHE_KIND_COUNT
} fj_cache_kind;

/* Writes the header of an entry. */
void fj_cache_encode(fj_cache_kind kind, fj_digest key, fj_str metadata, fj_str payload,
                     uint8_t header[FJ_CACHE_HEADER]);

/* Views into a whole file. NULL, or what is wrong with it: "is damaged ...". */
const char *fj_cache_decode(const void *file, size_t size, fj_cache_kind kind, fj_digest key,
                            fj_str *ret_metadata, fj_str *ret_payload);

#endif
