#include "tests/support/machine.h"

#include <elf.h>
#include <stdint.h>
#include <string.h>

/* An instruction has 16 bytes. These places of its parts are those of sm_75 to sm_120, as nvdisasm -hex shows them. */
enum {
    INSTRUCTION = 16,
    OPCODE = 0x1ff, /* of the first word; the bits above say what operands are */
    LDG = 0x181,
    STG = 0x186,
    SIZE_SHIFT = 9, /* in the second word */
    SIZE = 7,
};
/* Signed and unsigned bytes, halves; words; two and four words; no size. */
static const int bytes_of[SIZE + 1] = {1, 1, 2, 2, 4, 8, 16, 0};

static void count_section(const char *text, size_t size, machine_counts *counts) {
    for (size_t at = 0; at + INSTRUCTION <= size; at += INSTRUCTION) {
        uint64_t word[2];
        memcpy(word, text + at, sizeof word);
        const int bytes = bytes_of[word[1] >> SIZE_SHIFT & SIZE];
        counts->loads[bytes] += (word[0] & OPCODE) == LDG;
        counts->stores[bytes] += (word[0] & OPCODE) == STG;
    }
}

machine_counts machine_count(const char *cubin, size_t size) {
    machine_counts counts = {0};
    Elf64_Ehdr head;
    if (size < sizeof head || memcmp(cubin, ELFMAG, SELFMAG) != 0) return counts;
    memcpy(&head, cubin, sizeof head);
    for (size_t i = 0; i < head.e_shnum; i++) {
        Elf64_Shdr section;
        const size_t at = head.e_shoff + i * sizeof section;
        if (at > size || size - at < sizeof section) break;
        memcpy(&section, cubin + at, sizeof section);
        if (section.sh_type != SHT_PROGBITS || !(section.sh_flags & SHF_EXECINSTR)) continue;
        if (section.sh_offset > size || section.sh_size > size - section.sh_offset) break;
        count_section(cubin + section.sh_offset, section.sh_size, &counts);
    }
    return counts;
}
