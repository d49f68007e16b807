/* Zip archives whose members are stored, not compressed: what torch.export.save writes. Untrusted bytes. */
#ifndef FJ_FUSE_ZIP_H
#define FJ_FUSE_ZIP_H

#include "base/base.h"

typedef struct fj_zip_member {
    const char *name; /* in the arena */
    const uint8_t *data;
    uint64_t size, offset;
    uint32_t crc;
} fj_zip_member;

typedef struct fj_zip {
    fj_zip_member *members; /* sorted by name */
    size_t count;
} fj_zip;

/* Leaves the scope with a located error: no archive, truncated, compressed or encrypted members, names that are given twice
 * or leave the archive's folder, members that lie outside the file. */
void fj_zip_read(fj_scope *scope, const uint8_t *bytes, size_t size, fj_zip *ret_zip);
/* NULL: there is none. The checksum is not looked at. */
const fj_zip_member *fj_zip_find(const fj_zip *zip, const char *name);
/* Leaves the scope when the member's bytes are not those that the archive was made of. */
void fj_zip_verify(fj_scope *scope, const fj_zip_member *member);

#endif
