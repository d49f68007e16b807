/* Compilers that are not there, that fail, that are interrupted. */
#include <pthread.h>

#include "tests/jit/session.h"

/* ---- Compilers ------------------------------------------------------------------------------------------------ */

START_TEST(no_compiler) {
    setenv("FLEXJIT_CC", "/nowhere/cc", 1);
    check_failure(FJ_ERR_DEVICE, "FLEXJIT_CC='/nowhere/cc' is not a program", NULL);
    setenv("FLEXJIT_CC", folder, 1);
    check_failure(FJ_ERR_DEVICE, "is not a program", NULL);
    unsetenv("FLEXJIT_CC");
    setenv("PATH", tmpdir, 1);
    check_failure(FJ_ERR_DEVICE, "looked for cc, gcc and clang on PATH", NULL);
    setenv("PATH", "", 1);
    check_failure(FJ_ERR_DEVICE, "looked for cc, gcc and clang on PATH", NULL);
}
END_TEST

START_TEST(a_compiler_that_fails) {
    write_template("#include \"abi.h\"\nint mistake(\n#error the message\n");
    check_failure(FJ_ERR_COMPILER, "failed with status 1", "cpu/peak.c:3:2: error: #error the message");
    use_script("#!/bin/sh\necho to out; echo to err >&2; exit 7\n");
    check_failure(FJ_ERR_COMPILER, "failed with status 7", "to out\nto err\n");
    use_script("#!/bin/sh\nkill -INT $$\n");
    check_failure(FJ_ERR_COMPILER, "ended by signal 2 (Interrupt)", NULL);
    use_script("#!/bin/sh\nexit 0\n");
    check_failure(FJ_ERR_COMPILER, "wrote no object", NULL);
    use_script("#!/bin/sh\nwhile [ $1 != -o ]; do shift; done; echo rubbish >$2\n");
    check_failure(FJ_ERR_DEVICE, "cannot be loaded", NULL);
    use_script("not a program");
    check_failure(FJ_ERR_DEVICE, "cannot be run", NULL);
    ck_assert_int_eq(folder_count(cache_path, "") > 0, 0);
    unsetenv("FLEXJIT_CC");
    write_template(KERNEL(1));
    check_prepare(false, 1);
}
END_TEST

START_TEST(a_compiler_that_leaves_files) {
    use_script("#!/bin/sh\necho x >$TMPDIR/left; echo x >$TMPDIR/.hidden; exit 1\n");
    check_failure(FJ_ERR_COMPILER, "status 1", NULL);
}
END_TEST

START_TEST(no_folder_for_temporary_files) {
    setenv("TMPDIR", "/nowhere", 1);
    session self;
    fj_object *object = NULL;
    session_open(&self);
    ck_assert_int_eq(prepare(&self, &object), FJ_ERR_IO);
    ck_assert_str_eq(self.error.text, "no temporary folder in '/nowhere': No such file or directory");
    session_close(&self);
}
END_TEST

START_TEST(signals_of_the_caller_do_not_matter) {
    sigset_t all;
    sigfillset(&all);
    ck_assert_int_eq(pthread_sigmask(SIG_BLOCK, &all, NULL), 0);
    (void)signal(SIGCHLD, SIG_IGN); /* the child's status cannot be known */
    (void)signal(SIGPIPE, SIG_IGN);
    check_prepare(false, 1);
    check_prepare(true, 1);
}
END_TEST

static atomic_int interrupts;
static void on_interrupt(int number) { interrupts += number == SIGINT; }

/* As Ctrl-C on a terminal does it: the whole process group gets the signal. */
START_TEST(an_interrupt_ends_the_compiler) {
    use_script("#!/bin/sh\n[ $1 = --version ] && exit\ntouch $TMPDIR/left; kill -INT 0; sleep 20\n");
    struct sigaction action = {.sa_handler = on_interrupt};
    ck_assert_int_eq(sigaction(SIGINT, &action, NULL), 0);
    ck_assert_int_eq(setpgid(0, 0), 0);
    check_failure(FJ_ERR_COMPILER, "ended by signal 2 (Interrupt)", NULL);
    ck_assert_int_eq(interrupts, 1);
}
END_TEST

RUN_SUITE("compile", no_compiler, a_compiler_that_fails, a_compiler_that_leaves_files,
          no_folder_for_temporary_files, signals_of_the_caller_do_not_matter, an_interrupt_ends_the_compiler)
