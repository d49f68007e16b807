/* The form of a cache file, and digests: pure functions over bytes. */
#include "cache/entry.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static const uint8_t magic[8] = {'F', 'L', 'E', 'X', 'J', 'I', 'T', 0x1a};

enum { AT_SCHEMA = 8, AT_KIND = 12, AT_KEY = 16, AT_METADATA = 32, AT_PAYLOAD = 40, AT_DIGEST = 48 };

/* ---- Digests --------------------------------------------------------------------------------- */

static fj_digest canonical(XXH128_hash_t hash) {
    XXH128_canonical_t form;
    XXH128_canonicalFromHash(&form, hash);
    fj_digest digest;
    memcpy(digest.bytes, form.digest, sizeof digest.bytes);
    return digest;
}

fj_digest fj_cache_digest(const void *bytes, size_t size) { return canonical(XXH3_128bits(bytes, size)); }

bool fj_cache_digest_equal(fj_digest a, fj_digest b) { return memcmp(a.bytes, b.bytes, sizeof a.bytes) == 0; }

void fj_cache_digest_hex(fj_digest digest, char text[33]) {
    for (int i = 0; i < 16; i++) (void)snprintf(text + 2 * i, 3, "%02x", digest.bytes[i]);
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool fj_cache_digest_parse(const char *text, fj_digest *ret_digest) {
    fj_digest digest;
    if (strlen(text) != 32) return false;
    for (int i = 0; i < 16; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);
        if (high < 0 || low < 0) return false;
        digest.bytes[i] = (uint8_t)(high << 4 | low);
    }
    *ret_digest = digest;
    return true;
}

/* ---- Header ---------------------------------------------------------------------------------- */

static void put_number(uint8_t *at, uint64_t value, int bytes) {
    for (int i = 0; i < bytes; i++) at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_number(const uint8_t *at, int bytes) {
    uint64_t value = 0;
    for (int i = 0; i < bytes; i++) value |= (uint64_t)at[i] << (8 * i);
    return value;
}

/* The digest of the header's own fields and of the digests of the two parts. */
static fj_digest entry_digest(const uint8_t *header, fj_str metadata, fj_str payload) {
    fj_digest parts[2] = {fj_cache_digest(metadata.data, metadata.len),
                          fj_cache_digest(payload.data, payload.len)};
    uint8_t all[AT_DIGEST + sizeof parts];
    memcpy(all, header, AT_DIGEST);
    memcpy(all + AT_DIGEST, parts, sizeof parts);
    return fj_cache_digest(all, sizeof all);
}

void fj_cache_encode(fj_cache_kind kind, fj_digest key, fj_str metadata, fj_str payload,
                     uint8_t header[FJ_CACHE_HEADER]) {
    memcpy(header, magic, sizeof magic);
    put_number(header + AT_SCHEMA, FJ_CACHE_SCHEMA, 4);
    put_number(header + AT_KIND, kind, 4);
    memcpy(header + AT_KEY, key.bytes, sizeof key.bytes);
    put_number(header + AT_METADATA, metadata.len, 8);
    put_number(header + AT_PAYLOAD, payload.len, 8);
    fj_digest digest = entry_digest(header, metadata, payload);
    memcpy(header + AT_DIGEST, digest.bytes, sizeof digest.bytes);
}

const char *fj_cache_decode(const void *file, size_t size, fj_cache_kind kind, fj_digest key,
                            fj_str *ret_metadata, fj_str *ret_payload) {
    const uint8_t *header = file;
    if (size < FJ_CACHE_HEADER) return "is cut short";
    if (memcmp(header, magic, sizeof magic) != 0) return "is not an entry of a cache";
    if (get_number(header + AT_SCHEMA, 4) != FJ_CACHE_SCHEMA) return "is of another schema";
    if (get_number(header + AT_KIND, 4) != kind) return "is of another kind";
    if (memcmp(header + AT_KEY, key.bytes, sizeof key.bytes) != 0) return "has another key than its name";
    uint64_t metadata_len = get_number(header + AT_METADATA, 8);
    uint64_t payload_len = get_number(header + AT_PAYLOAD, 8);
    uint64_t rest = size - FJ_CACHE_HEADER;
    if (metadata_len > rest || payload_len != rest - metadata_len) return "has another length than it says";
    const char *body = (const char *)file + FJ_CACHE_HEADER;
    fj_str metadata = {body, (size_t)metadata_len}, payload = {body + metadata_len, (size_t)payload_len};
    fj_digest digest = entry_digest(header, metadata, payload);
    if (memcmp(header + AT_DIGEST, digest.bytes, sizeof digest.bytes) != 0)
        return "is damaged: its digest is wrong";
    *ret_metadata = metadata;
    *ret_payload = payload;
    return NULL;
}
