/* Outputs of real devices: tests/data/prim/ARCH/KERNEL.txt, text, one file per kernel:
 *
 *     flexjit-prim 1
 *     kernel prim_shuffle
 *     device NVIDIA H200
 *     arch sm_90
 *     input 4f0d7c3a2b1e9d85        of the input words, so that a changed generator makes the record stale
 *     output 256
 *     3f800000 ...                  the words, in hexadecimal, 8 on a line
 *
 * Written by `test_prim ... --cuda SOURCE PRIM --record FOLDER` on a machine with a GPU; CONTRIBUTING has the command.
 */
#ifndef FJ_TESTS_PRIM_RECORD_H
#define FJ_TESTS_PRIM_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "tests/prim/prim.h"

enum prim_record { PRIM_RECORD_ABSENT, PRIM_RECORD_READ, PRIM_RECORD_STALE, PRIM_RECORD_DAMAGED };

/* FNV-1a. */
uint64_t prim_input_digest(const uint32_t *in, uint32_t words);
bool prim_record_write(const char *folder, uint32_t arch, const char *device, const struct prim_case *test,
                       const uint32_t *in, const uint32_t *out);
enum prim_record prim_record_read(const char *folder, uint32_t arch, const struct prim_case *test,
                                  const uint32_t *in, uint32_t *out);

#endif
