/* One object for one content, among threads and processes. */
#include <pthread.h>
#include <sys/wait.h>

#include "tests/jit/session.h"

/* ---- Sharing -------------------------------------------------------------------------------------------------------- */

START_TEST(one_content_is_one_object) {
    session self;
    session_open(&self);
    fj_object *first = prepared(&self, false, 1), *second = prepared(&self, true, 1);
    ck_assert_ptr_eq(first, second);
    fj_jit_release(self.jit, &first);
    ck_assert_ptr_null(first);
    ck_assert_int_eq(number_of(second), 1);
    write_template(KERNEL(2));
    first = prepared(&self, false, 2);
    ck_assert_ptr_ne(first, second);
    fj_jit_release(self.jit, &second);
    fj_jit_release(self.jit, &first);
    fj_jit_release(self.jit, NULL);
    session_close(&self);
}
END_TEST

/* Of two GPUs, say: what one has loaded is not the other's, and goes with its own device. */
START_TEST(each_device_has_an_object_of_its_own) {
    const fj_driver drivers[] = {fj_driver_cpu, fj_driver_cpu};
    session self;
    fj_object *objects[2] = {NULL}, *again = NULL;
    session_open(&self);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(
            fj_jit_prepare(self.jit, &drivers[i], &problem, &variant, &objects[i], &self.info, &self.error),
            FJ_OK);
        ck_assert_int_eq(self.info.cache_hit, i == 1); /* compiled once */
        ck_assert_int_eq(number_of(objects[i]), 1);
    }
    ck_assert_ptr_ne(objects[0], objects[1]);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(
            fj_jit_prepare(self.jit, &drivers[i], &problem, &variant, &again, &self.info, &self.error),
            FJ_OK);
        ck_assert_ptr_eq(again, objects[i]);
        fj_jit_release(self.jit, &again);
        fj_jit_release(self.jit, &objects[i]); /* the other one stays */
        ck_assert(i == 1 || number_of(objects[1]) == 1);
    }
    session_close(&self);
}
END_TEST

enum { THREADS = 8 };

struct preparer {
    pthread_t thread;
    session *session;
    fj_object *object;
    fj_status status;
    fj_jit_info info;
};

static void *prepare_in_thread(void *argument) {
    struct preparer *self = argument;
    for (int round = 0; round < 20; round++) {
        fj_jit_release(self->session->jit, &self->object);
        fj_jit_info info;
        self->status = fj_jit_prepare(self->session->jit, &fj_driver_cpu, &problem, &variant, &self->object,
                                      &info, NULL);
        if (round == 0) self->info = info;
        if (self->status != FJ_OK || number_of(self->object) != 1) break;
    }
    return NULL;
}

START_TEST(threads_compile_once) {
    session self;
    session_open(&self);
    struct preparer preparers[THREADS] = {0};
    int misses = 0;
    for (int i = 0; i < THREADS; i++) {
        preparers[i].session = &self;
        ck_assert_int_eq(pthread_create(&preparers[i].thread, NULL, prepare_in_thread, &preparers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) (void)pthread_join(preparers[i].thread, NULL);
    for (int i = 0; i < THREADS; i++) {
        ck_assert_int_eq(preparers[i].status, FJ_OK);
        ck_assert_ptr_eq(preparers[i].object, preparers[0].object);
        misses += !preparers[i].info.cache_hit;
    }
    ck_assert_int_eq(misses, 1);
    for (int i = 0; i < THREADS; i++) fj_jit_release(self.jit, &preparers[i].object);
    session_close(&self);
}
END_TEST

START_TEST(threads_all_see_a_failure) {
    use_script("#!/bin/sh\nexit 1\n");
    session self;
    session_open(&self);
    struct preparer preparers[THREADS] = {0};
    for (int i = 0; i < THREADS; i++) {
        preparers[i].session = &self;
        ck_assert_int_eq(pthread_create(&preparers[i].thread, NULL, prepare_in_thread, &preparers[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) (void)pthread_join(preparers[i].thread, NULL);
    for (int i = 0; i < THREADS; i++) ck_assert_int_eq(preparers[i].status, FJ_ERR_COMPILER);
    session_close(&self);
}
END_TEST

START_TEST(processes_race_on_one_cold_key) {
    enum { PROCESSES = 4 };
    pid_t children[PROCESSES];
    for (int i = 0; i < PROCESSES; i++) {
        children[i] = fork();
        if (children[i] != 0) continue;
        session self;
        fj_object *object = NULL;
        session_open(&self);
        bool sound = prepare(&self, &object) == FJ_OK && number_of(object) == 1;
        fj_jit_release(self.jit, &object);
        session_close(&self);
        _exit(sound ? 0 : 1);
    }
    for (int i = 0; i < PROCESSES; i++) {
        int status;
        ck_assert_int_eq(waitpid(children[i], &status, 0), children[i]);
        ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    }
    ck_assert_int_eq(folder_count(cache_path, ""), 2);
    check_prepare(true, 1);
}
END_TEST

RUN_SUITE("sharing", one_content_is_one_object, each_device_has_an_object_of_its_own, threads_compile_once,
          threads_all_see_a_failure, processes_race_on_one_cold_key)
