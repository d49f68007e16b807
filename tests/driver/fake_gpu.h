/* What the two files of the fake driver share. */
#ifndef FJ_TESTS_DRIVER_FAKE_GPU_H
#define FJ_TESTS_DRIVER_FAKE_GPU_H

#include "tests/driver/fake_cuda.h"

#define EXPORT __attribute__((visibility("default")))

/* Bytes of shared memory: of an SM; that a block takes besides its own. */
enum { FAKE_SHARED = 228 << 10, FAKE_RESERVED = 1 << 10 };

/* fake_cuda.c */
int fake_setting(const char *name, int otherwise);
__attribute__((format(printf, 1, 2))) void fake_note(const char *format, ...);
void *fake_context(int context);
void *fake_root(void *context); /* whose memory and code it has */
void *fake_current(void);

/* fake_gpu.c */
void *fake_stream(int context);
void fake_capture(void *stream);
bool fake_end_capture(void);
int fake_replay(void);
size_t fake_memory(void);

#endif
