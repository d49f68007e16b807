/* What stands in a cubin, by the encoding of its instructions: no disassembler is needed. */
#ifndef FJ_TESTS_SUPPORT_MACHINE_H
#define FJ_TESTS_SUPPORT_MACHINE_H

#include <stddef.h>

/* Of global memory (LDG, STG), of one thread. */
typedef struct machine_counts {
    int loads[17], stores[17]; /* by bytes: 1, 2, 4, 8, 16 */
} machine_counts;

/* Over all functions of a cubin for sm_75 or later. No ELF file: nothing is counted. */
machine_counts machine_count(const char *cubin, size_t size);

#endif
