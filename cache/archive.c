/* Headers of tar members: pure functions over bytes. */
#include "cache/archive.h"

#include <stdio.h>
#include <string.h>

#include "cache/layer.h"

/* Fields of a ustar header: offset and width. The rest (owner, device numbers, prefix) is empty here. */
enum {
    NAME = 0,
    NAME_SIZE = 100,
    MODE = 100,
    OWNER = 108,
    GROUP = 116,
    SIZE = 124,
    TIME = 136,
    CHECKSUM = 148,
    TYPE = 156,
    MAGIC = 257,
    PREFIX = 345,
    PREFIX_SIZE = 155,
    NUMBER = 8,
    LONG_NUMBER = 12
};

static const uint8_t magic[8] = {'u', 's',  't', 'a',
                                 'r', '\0', '0', '0'}; /* and the version, without a NUL */

static const char *const suffixes[FJ_ARCHIVE_PARTS] = {
    [FJ_ARCHIVE_HEADER] = ".header",
    [FJ_ARCHIVE_METADATA] = ".json",
    [FJ_ARCHIVE_PAYLOAD] = ".payload",
};

/* ---- Numbers --------------------------------------------------------------------------------- */

/* Octal digits that fill the field except for a NUL. */
static void put_octal(uint8_t *at, size_t width, uint64_t value) {
    at[width - 1] = '\0';
    for (size_t i = width - 1; i-- > 0; value /= 8) at[i] = (uint8_t)('0' + value % 8);
}

/* Octal digits, with blanks before and blanks or NULs after them. */
static bool get_octal(const uint8_t *at, size_t width, uint64_t *ret_value) {
    uint64_t value = 0;
    size_t i = 0, digits = 0;
    while (i < width && at[i] == ' ') i++;
    for (; i < width && at[i] >= '0' && at[i] <= '7'; i++, digits++) value = value * 8 + (at[i] - '0');
    for (; i < width; i++)
        if (at[i] != ' ' && at[i] != '\0') return false;
    *ret_value = value;
    return digits > 0;
}

/* The sum of all bytes, those of the sum itself taken as blanks. */
static uint64_t checksum(const uint8_t *block) {
    uint64_t sum = 0;
    for (size_t i = 0; i < FJ_ARCHIVE_BLOCK; i++)
        sum += i >= CHECKSUM && i < CHECKSUM + NUMBER ? ' ' : block[i];
    return sum;
}

/* ---- Headers ----------------------------------------------------------------------------------- */

void fj_cache_archive_header(const fj_archive_member *member, uint8_t block[FJ_ARCHIVE_BLOCK]) {
    char name[FJ_CACHE_NAME];
    memset(block, 0, FJ_ARCHIVE_BLOCK);
    fj_cache_file_name(member->kind, member->key, name);
    (void)snprintf((char *)block + NAME, NAME_SIZE, "%s%s", name, suffixes[member->part]);
    put_octal(block + MODE, NUMBER, 0644);
    put_octal(block + OWNER, NUMBER, 0);
    put_octal(block + GROUP, NUMBER, 0);
    put_octal(block + SIZE, LONG_NUMBER, member->size);
    put_octal(block + TIME, LONG_NUMBER, 0);
    block[TYPE] = '0';
    memcpy(block + MAGIC, magic, sizeof magic);
    put_octal(block + CHECKSUM, NUMBER - 1, checksum(block));
    block[CHECKSUM + NUMBER - 1] = ' ';
}

static const char *kind_of_file(uint8_t type) {
    switch (type) {
    case '0':
    case '\0': return NULL;
    case '1':
    case '2': return "is a link";
    case '5': return "is a folder";
    default: return "is not a regular file";
    }
}

/* "<key>.kernel.json" and its like, without any folder. */
static bool parse_name(const char *name, fj_archive_member *member) {
    char entry[FJ_ARCHIVE_NAME];
    for (int part = 0; part < FJ_ARCHIVE_PARTS; part++) {
        size_t length = strlen(name), suffix = strlen(suffixes[part]);
        if (length <= suffix || strcmp(name + length - suffix, suffixes[part]) != 0) continue;
        member->part = (fj_archive_part)part;
        (void)snprintf(entry, sizeof entry, "%.*s", (int)(length - suffix), name);
        return fj_cache_name_parse(entry, &member->kind, &member->key);
    }
    return false;
}

const char *fj_cache_archive_parse(const uint8_t block[FJ_ARCHIVE_BLOCK], fj_archive_member *ret_member) {
    fj_archive_member member = {0};
    uint64_t sum;
    size_t length = strnlen((const char *)block + NAME, NAME_SIZE);
    for (size_t i = 0; i < length && i < FJ_ARCHIVE_NAME - 1; i++)
        member.name[i] = block[i] > ' ' && block[i] < 0x7f ? (char)block[i] : '?';
    *ret_member = member;
    if (memcmp(block + MAGIC, "ustar", 5) != 0) return "is not a member of a ustar archive";
    if (!get_octal(block + CHECKSUM, NUMBER, &sum) || sum != checksum(block)) return "has a wrong checksum";
    const char *wrong = kind_of_file(block[TYPE]);
    if (wrong) return wrong;
    bool foreign = length >= FJ_ARCHIVE_NAME || strnlen((const char *)block + PREFIX, PREFIX_SIZE) > 0;
    if (foreign || !parse_name(member.name, &member)) return "is not part of an entry of a cache";
    if (!get_octal(block + SIZE, LONG_NUMBER, &member.size)) return "has no size";
    if (member.size > FJ_CACHE_LARGEST) return "is too large";
    *ret_member = member;
    return NULL;
}
