#include "tests/support/isolate.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { MOST_JOBS = 64 };

/* What a worker is at; item -1: at nothing. */
typedef struct slot {
    atomic_int item;
    _Atomic double since;
    char where[ISOLATE_WHERE];
} slot;

typedef struct board {
    atomic_int next, failed;
    slot slots[MOST_JOBS];
} board;

static double now(void) {
    struct timespec t;
    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void *isolate_shared(size_t size) {
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) abort();
    return memory;
}

static void work(const isolate *tests, board *b, slot *s) {
    for (int item; (item = atomic_fetch_add(&b->next, 1)) < tests->count;) {
        s->where[0] = '\0';
        atomic_store(&s->since, now());
        atomic_store(&s->item, item);
        const isolate_result result = tests->run(tests->user, item, s->where);
        (void)fflush(stdout);
        if (result != ISOLATE_OK) atomic_fetch_add(&b->failed, 1);
        atomic_store(&s->item, -1);
        if (result == ISOLATE_SPENT) break;
    }
    if (tests->finish) tests->finish(tests->user);
}

static pid_t start(const isolate *tests, board *b, slot *s) {
    atomic_store(&s->item, -1);
    (void)fflush(NULL);
    const pid_t parent = getpid(), child = fork();
    if (child != 0) return child;
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    work(tests, b, s);
    (void)fflush(NULL);
    _exit(0);
}

static void tell(const isolate *tests, board *b, const slot *s, int status, bool late) {
    char how[96];
    if (late)
        (void)snprintf(how, sizeof how, "did not end within %.0f s", tests->seconds);
    else if (WIFSIGNALED(status))
        (void)snprintf(how, sizeof how, "killed by %s", strsignal(WTERMSIG(status)));
    else
        (void)snprintf(how, sizeof how, "its process ended with status %d", WEXITSTATUS(status));
    tests->died(tests->user, s->item, s->where, how);
    (void)fflush(stdout);
    atomic_fetch_add(&b->failed, 1);
}

/* Waits for workers, and starts another in the place of one that died. */
static void watch(const isolate *tests, board *b, pid_t *workers, int jobs) {
    bool late[MOST_JOBS] = {false};
    for (int alive = jobs; alive > 0;) {
        const struct timespec pause = {0, 10000000};
        (void)nanosleep(&pause, NULL);
        for (int i = 0; i < jobs; i++) {
            slot *s = &b->slots[i];
            int status = 0;
            if (workers[i] <= 0) continue;
            if (s->item >= 0 && now() - s->since > tests->seconds && !late[i])
                late[i] = kill(workers[i], SIGKILL) == 0;
            if (waitpid(workers[i], &status, WNOHANG) != workers[i]) continue;
            if (s->item >= 0) tell(tests, b, s, status, late[i]);
            late[i] = false;
            workers[i] = atomic_load(&b->next) < tests->count ? start(tests, b, s) : 0;
            alive -= workers[i] <= 0;
        }
    }
}

int isolate_run(const isolate *tests) {
    board *b = isolate_shared(sizeof *b);
    pid_t workers[MOST_JOBS] = {0};
    const int most = tests->jobs < tests->count ? tests->jobs : tests->count;
    const int jobs = most < MOST_JOBS ? most : MOST_JOBS;
    if (tests->jobs == 0) work(tests, b, &b->slots[0]);
    for (int i = 0; i < jobs; i++) {
        workers[i] = start(tests, b, &b->slots[i]);
        if (workers[i] < 0) abort();
    }
    watch(tests, b, workers, jobs);
    const int failed = b->failed;
    (void)munmap(b, sizeof *b);
    return failed;
}
