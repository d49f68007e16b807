/* Items in a process that was forked after OpenMP had its threads, which the child does not have. In programs of their
 * own: ThreadSanitizer does not allow threads after such a fork. */
#include <check.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "driver/parallel.h"

enum { ITEMS = 200, WORKERS = 4, SECONDS = 20 };

static atomic_int visits[ITEMS], wrong_worker, workers_seen;

static void visit(void *most, int64_t item, int worker) {
    visits[item]++;
    if (worker < 0 || worker >= *(const int *)most) wrong_worker++;
    workers_seen |= 1 << worker;
    (void)usleep(200); /* so that others have a part */
}

static bool visit_all(const fj_launch *launch) {
    int most = fj_driver_workers(launch);
    for (int i = 0; i < ITEMS; i++) visits[i] = 0;
    workers_seen = 0;
    fj_driver_parallel(launch, most, ITEMS, visit, &most);
    for (int i = 0; i < ITEMS; i++)
        if (visits[i] != 1) return false;
    return wrong_worker == 0;
}

static void run_in_turn(void *user, int64_t items, void (*fn)(void *arg, int64_t item, int worker),
                        void *arg) {
    (void)user;
    for (int64_t i = 0; i < items; i++) fn(arg, i, 0);
}

/* In a child, which a hang ends by a signal. */
static void check_child(const fj_launch *launch, int seen) {
    const fj_launch many = {.struct_size = sizeof many, .workers = WORKERS};
    int status = 0;
    ck_assert(visit_all(&many));
    const pid_t child = fork();
    if (child == 0) {
        (void)alarm(SECONDS);
        bool right = visit_all(launch);
        right &= visit_all(launch); /* and once more */
        _exit(!right ? 1 : seen && workers_seen != seen ? 2 : 0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status), "the child was ended by signal %d", WTERMSIG(status));
    ck_assert_int_eq(WEXITSTATUS(status), 0);
    ck_assert(visit_all(&many)); /* the parent goes on as before */
}

START_TEST(many_workers) {
    const fj_launch launch = {.struct_size = sizeof launch, .workers = WORKERS};
    check_child(&launch, (1 << WORKERS) - 1);
}
END_TEST

START_TEST(the_default) { check_child(NULL, 0); }
END_TEST

START_TEST(one_worker) {
    const fj_launch launch = {.struct_size = sizeof launch, .workers = 1};
    check_child(&launch, 1);
}
END_TEST

START_TEST(an_executor) {
    const fj_executor executor = {.workers = 1, .run = run_in_turn};
    const fj_launch launch = {.struct_size = sizeof launch, .executor = &executor};
    check_child(&launch, 1);
}
END_TEST

/* A child of the child, which had threads of its own. */
START_TEST(a_grandchild) {
    const fj_launch many = {.struct_size = sizeof many, .workers = WORKERS};
    int status = 0;
    ck_assert(visit_all(&many));
    const pid_t child = fork();
    if (child == 0) {
        (void)alarm(SECONDS);
        if (!visit_all(&many)) _exit(1);
        const pid_t grandchild = fork();
        if (grandchild == 0) {
            (void)alarm(SECONDS);
            _exit(!visit_all(&many));
        }
        _exit(waitpid(grandchild, &status, 0) != grandchild || status != 0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
}
END_TEST

int main(void) {
    Suite *suite = suite_create("fork");
    TCase *group = tcase_create("fork");
    suite_add_tcase(suite, group);
    tcase_set_timeout(group, 60);
    tcase_add_test(group, many_workers);
    tcase_add_test(group, the_default);
    tcase_add_test(group, one_worker);
    tcase_add_test(group, an_executor);
    tcase_add_test(group, a_grandchild);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
