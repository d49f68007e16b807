/* Tests in processes of their own: one that crashes, traps, hangs or ends its process is one failed test, with a name,
 * and the others go on. */
#ifndef FJ_TESTS_SUPPORT_ISOLATE_H
#define FJ_TESTS_SUPPORT_ISOLATE_H

#include <stdbool.h>
#include <stddef.h>

enum { ISOLATE_WHERE = 320 };

typedef enum isolate_result {
    ISOLATE_OK,
    ISOLATE_FAILED,
    ISOLATE_SPENT /* failed, and so that this process is of no further use */
} isolate_result;

typedef struct isolate {
    int count;      /* tests */
    int jobs;       /* processes at a time; 0: none, all in this one, for debuggers */
    double seconds; /* how long a test may take */
    void *user;
    /* Runs test `item`, in a worker. It writes into `where` what it is at: should the worker die, that is told. */
    isolate_result (*run)(void *user, int item, char where[ISOLATE_WHERE]);
    /* Tells of a test whose worker died: how is "killed by SIGSEGV" and the like. In the parent. */
    void (*died)(void *user, int item, const char *where, const char *how);
    void (*finish)(void *user); /* may be NULL; at the end of each worker */
} isolate;

/* Returns how many failed. Workers take the tests in order; what they print is theirs to flush. */
int isolate_run(const isolate *tests);

/* Zeroed memory that workers share with their parent; stays. */
void *isolate_shared(size_t size);

#endif
