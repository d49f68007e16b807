/* The central directory of a zip archive. Layout: APPNOTE.TXT of PKWARE, 4.3.7 to 4.3.16, with zip64. */
#include "fuse/zip.h"

#include <stdlib.h>
#include <string.h>

#include "fuse/files.h"

enum {
    END_SIZE = 22,
    END64_SIZE = 56,
    LOCATOR_SIZE = 20,
    CENTRAL_SIZE = 46,
    LOCAL_SIZE = 30,
    MOST_MEMBERS = 1000000,
};

static uint32_t u16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static uint32_t u32(const uint8_t *p) { return u16(p) | u16(p + 2) << 16; }
static uint64_t u64(const uint8_t *p) { return (uint64_t)u32(p) | (uint64_t)u32(p + 4) << 32; }

typedef struct zip_reading {
    fj_scope *scope;
    const uint8_t *bytes;
    size_t size;
    uint64_t directory, directory_size, count;
} zip_reading;

/* Whether [offset, offset + length) lies in the file. */
static bool inside(const zip_reading *r, uint64_t offset, uint64_t length) {
    return offset <= r->size && length <= r->size - offset;
}

static const uint8_t *find_end(const zip_reading *r) {
    if (r->size < END_SIZE) return NULL;
    const size_t most = r->size < 65535 + END_SIZE ? r->size : 65535 + END_SIZE;
    for (size_t back = END_SIZE; back <= most; back++) {
        const uint8_t *at = r->bytes + r->size - back;
        if (u32(at) == 0x06054b50 && u16(at + 20) == back - END_SIZE) return at;
    }
    return NULL;
}

static void read_end(zip_reading *r) {
    const uint8_t *end = find_end(r);
    if (end == NULL) fj_fail(r->scope, FJ_ERR_TENSOR, "not a zip archive, or truncated: it has no directory");
    r->count = u16(end + 10);
    r->directory_size = u32(end + 12);
    r->directory = u32(end + 16);
    const size_t at = (size_t)(end - r->bytes);
    if (at >= LOCATOR_SIZE && u32(end - LOCATOR_SIZE) == 0x07064b50) {
        const uint64_t where = u64(end - LOCATOR_SIZE + 8);
        if (!inside(r, where, END64_SIZE) || u32(r->bytes + where) != 0x06064b50)
            fj_fail(r->scope, FJ_ERR_TENSOR, "the archive's 64-bit directory is damaged");
        r->count = u64(r->bytes + where + 32);
        r->directory_size = u64(r->bytes + where + 40);
        r->directory = u64(r->bytes + where + 48);
    }
    if (!inside(r, r->directory, r->directory_size) || r->count > r->directory_size / CENTRAL_SIZE)
        fj_fail(r->scope, FJ_ERR_TENSOR, "the archive's directory lies outside the file");
    if (r->count > MOST_MEMBERS)
        fj_fail(r->scope, FJ_ERR_TENSOR, "the archive has %llu members; the limit is %d",
                (unsigned long long)r->count, MOST_MEMBERS);
}

/* Sizes that do not fit 32 bits stand in an extra field. */
static void read_zip64(const uint8_t *extra, size_t length, uint64_t *fields[3]) {
    while (length >= 4) {
        const size_t part = u16(extra + 2);
        if (part > length - 4) return;
        if (u16(extra) == 1) {
            const uint8_t *at = extra + 4;
            size_t left = part;
            for (int i = 0; i < 3; i++) {
                if (*fields[i] != 0xffffffffu || left < 8) continue;
                *fields[i] = u64(at);
                at += 8, left -= 8;
            }
            return;
        }
        extra += 4 + part;
        length -= 4 + part;
    }
}

/* Reads one entry of the directory; returns its length. */
static uint64_t read_member(zip_reading *r, uint64_t at, uint64_t left, fj_zip_member *member) {
    const uint8_t *entry = r->bytes + at;
    if (left < CENTRAL_SIZE || u32(entry) != 0x02014b50)
        fj_fail(r->scope, FJ_ERR_TENSOR, "the archive's directory is damaged at byte %llu",
                (unsigned long long)at);
    const size_t name = u16(entry + 28), extra = u16(entry + 30), comment = u16(entry + 32);
    const uint64_t whole = CENTRAL_SIZE + name + extra + comment;
    if (whole > left || name == 0 || memchr(entry + CENTRAL_SIZE, '\0', name) != NULL)
        fj_fail(r->scope, FJ_ERR_TENSOR, "the archive's directory is damaged at byte %llu",
                (unsigned long long)at);
    member->name = fj_arena_strdup(r->scope->arena, (fj_str){(const char *)entry + CENTRAL_SIZE, name});
    member->crc = u32(entry + 16);
    uint64_t packed = u32(entry + 20), local = u32(entry + 42);
    member->size = u32(entry + 24);
    read_zip64(entry + CENTRAL_SIZE + name, extra, (uint64_t *[]){&member->size, &packed, &local});
    if (fj_file_leaves_folder(member->name))
        fj_fail(r->scope, FJ_ERR_TENSOR, "member '%.100s': its path leaves the archive", member->name);
    if (u16(entry + 10) != 0 || (u16(entry + 8) & 1) != 0 || packed != member->size)
        fj_fail(
            r->scope, FJ_ERR_TENSOR,
            "member '%.100s' is compressed or encrypted; members have to be stored, as torch.export.save does",
            member->name);
    if (!inside(r, local, LOCAL_SIZE) || u32(r->bytes + local) != 0x04034b50)
        fj_fail(r->scope, FJ_ERR_TENSOR, "member '%.100s': its header is damaged", member->name);
    const uint8_t *header = r->bytes + local;
    member->offset = local + LOCAL_SIZE + u16(header + 26) + u16(header + 28);
    if (!inside(r, member->offset, member->size))
        fj_fail(r->scope, FJ_ERR_TENSOR, "member '%.100s' lies outside the file: truncated?", member->name);
    member->data = r->bytes + member->offset;
    return whole;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const fj_zip_member *)a)->name, ((const fj_zip_member *)b)->name);
}

void fj_zip_read(fj_scope *scope, const uint8_t *bytes, size_t size, fj_zip *ret_zip) {
    zip_reading r = {.scope = scope, .bytes = bytes, .size = size};
    read_end(&r);
    fj_zip_member *members = FJ_NEW_ARRAY(scope->arena, fj_zip_member, r.count + 1);
    uint64_t at = r.directory, left = r.directory_size;
    for (uint64_t i = 0; i < r.count; i++) {
        const uint64_t length = read_member(&r, at, left, &members[i]);
        at += length;
        left -= length;
    }
    qsort(members, (size_t)r.count, sizeof *members, by_name);
    for (uint64_t i = 1; i < r.count; i++)
        if (strcmp(members[i - 1].name, members[i].name) == 0)
            fj_fail(scope, FJ_ERR_TENSOR, "the archive has two members called '%.100s'", members[i].name);
    *ret_zip = (fj_zip){members, (size_t)r.count};
}

const fj_zip_member *fj_zip_find(const fj_zip *zip, const char *name) {
    const fj_zip_member key = {.name = name};
    return zip->count == 0 ? NULL : bsearch(&key, zip->members, zip->count, sizeof key, by_name);
}

void fj_zip_verify(fj_scope *scope, const fj_zip_member *member) {
    static const uint32_t nibbles[16] = {
        0x00000000, 0x1db71064, 0x3b6e20c8, 0x26d930ac, 0x76dc4190, 0x6b6b51f4, 0x4db26158, 0x5005713c,
        0xedb88320, 0xf00f9344, 0xd6d6a3e8, 0xcb61b38c, 0x9b64c2b0, 0x86d3d2d4, 0xa00ae278, 0xbdbdf21c};
    uint32_t crc = 0xffffffffu;
    for (uint64_t i = 0; i < member->size; i++) {
        crc ^= member->data[i];
        crc = nibbles[crc & 15] ^ crc >> 4;
        crc = nibbles[crc & 15] ^ crc >> 4;
    }
    if (~crc != member->crc)
        fj_fail(scope, FJ_ERR_TENSOR, "member '%.100s' is damaged: its checksum differs", member->name);
}
