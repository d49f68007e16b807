/* The form of an archive of entries: a tar file as POSIX.1-1988 defines it (ustar), so that
 * `tar xf` takes it apart. Private to cache/.
 *
 * An entry is up to three members that follow each other, whose contents one after the other are the
 * entry's file (entry.h):
 *
 *     <key>.kernel.header     64 bytes, with the digest of all three
 *     <key>.kernel.json       metadata
 *     <key>.kernel.payload    the code object, as cuobjdump or objdump take it; not of an empty payload
 *
 * (<key>.select.header, <key>.select.json for a selection record.) Any order of entries will do. Two
 * blocks of zeros end the archive; after them come only zeros.
 */
#ifndef FJ_CACHE_ARCHIVE_H
#define FJ_CACHE_ARCHIVE_H

#include "cache/entry.h"

#define FJ_ARCHIVE_BLOCK 512
#define FJ_ARCHIVE_NAME 64

typedef enum fj_archive_part {
    FJ_ARCHIVE_HEADER,
    FJ_ARCHIVE_METADATA,
    FJ_ARCHIVE_PAYLOAD,
    FJ_ARCHIVE_PARTS
} fj_archive_part;

typedef struct fj_archive_member {
    char name[FJ_ARCHIVE_NAME]; /* as the archive has it, what is not ASCII replaced; for messages */
    fj_cache_kind kind;
    fj_digest key;
    fj_archive_part part;
    uint64_t size;
} fj_archive_member;

/* Writes the header block of a member; its name is made from kind, key and part. */
void fj_cache_archive_header(const fj_archive_member *member, uint8_t block[FJ_ARCHIVE_BLOCK]);
/* Reads one. NULL, or what is wrong with it: "is a link". */
const char *fj_cache_archive_parse(const uint8_t block[FJ_ARCHIVE_BLOCK], fj_archive_member *ret_member);

/* Bytes from the end of a member's content to the next block. */
static inline size_t fj_cache_archive_padding(uint64_t size) {
    return (size_t)((FJ_ARCHIVE_BLOCK - size % FJ_ARCHIVE_BLOCK) % FJ_ARCHIVE_BLOCK);
}

#endif
