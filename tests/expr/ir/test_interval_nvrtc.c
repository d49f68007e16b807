/* The rules as NVRTC compiles them, by the same tests. */
#define INTERVAL_NVRTC
#include "test_interval.c" /* NOLINT(bugprone-suspicious-include) */
