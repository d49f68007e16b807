/* Compilers that are not there, that fail, that are interrupted. */
#include <fcntl.h>
#include <pthread.h>
#include <sys/file.h>
#include <sys/wait.h>
#include <time.h>

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

/* A text that says that it may be compiled in parts: each of them, and the message of the one that fails. */
#define PARTS(second)                                                 \
    "/* parts */\n#define FJ_PARTS 2\nint fj_other(int x);\n"         \
    "#if FJ_PART == 1\nint fj_first(int x) { return fj_other(x); }\n" \
    "#elif FJ_PART == 2\n" second "\n#else\n#error compiled as one\n#endif\n"

static void check_parts(fj_str source, fj_status want, const char *text, const char *message) {
    const char *const flags[] = {"-shared", "-fPIC", "-Wl,-z,defs", NULL};
    fj_compiler compiler;
    fj_error error = {0};
    fj_buf out;
    fj_buf_init(&out, &fj_allocator_libc);
    ck_assert_int_eq(
        fj_jit_compiler_find(FJ_LANGUAGE_C, &fj_file_ops_system, &fj_allocator_libc, &compiler, &error),
        FJ_OK);
    const fj_status got =
        fj_jit_compile(&compiler, FJ_LANGUAGE_C, flags, &fj_file_ops_system, source, &out, &error);
    ck_assert_msg(got == want, "%d %s", got, error.text);
    if (want == FJ_OK) ck_assert_int_eq(memcmp(out.data, "\177ELF", 4), 0);
    if (text) ck_assert_ptr_nonnull(strstr(error.text, text));
    if (message) ck_assert_ptr_nonnull(strstr(error.detail, message));
    fj_error_finish(&error);
    fj_buf_finish(&out);
    ck_assert_int_eq(folder_count(tmpdir, ""), 0);
}

START_TEST(a_text_in_parts) {
    check_parts(FJ_STR(PARTS("int fj_other(int x) { return x; }")), FJ_OK, NULL, NULL);
    check_parts(FJ_STR(PARTS("#error the second one")), FJ_ERR_COMPILER, "failed with status 1",
                "the second one");
    check_parts(FJ_STR(PARTS("")), FJ_ERR_COMPILER, "failed with status 1", "fj_other");
    use_script("#!/bin/sh\nexit 0\n");
    check_parts(FJ_STR(PARTS("")), FJ_ERR_COMPILER, "wrote no object", NULL);
}
END_TEST

/* ---- Objects that are no kernels ----------------------------------------------------------------------------- */

/* Compiles `text` instead of what it is given; C or C++. */
static void use_other_text(const char *variable, const char *text) {
    char path[128], script[512];
    file_write(tools, "other.c", text, strlen(text), 0600);
    (void)snprintf(script, sizeof script,
                   "#!/bin/sh\n[ $1 = --version ] && exit\nwhile [ $1 != -o ]; do shift; done\n"
                   "exec cc -shared -fPIC -o $2 %s/other.c\n",
                   tools);
    use_script(script);
    unsetenv("FLEXJIT_CC");
    (void)snprintf(path, sizeof path, "%s/compiler", tools);
    setenv(variable, path, 1);
}

START_TEST(an_object_that_is_no_kernel_is_not_kept) {
    static const char *const texts[] = {"void f(void) {}\n", "const int fj_cpu_kernel[64] = {12345};\n"};
    for (size_t i = 0; i < FJ_ARRAY_LEN(texts); i++) {
        use_other_text("FLEXJIT_CC", texts[i]);
        check_failure(FJ_ERR_COMPILER, "compiled for kernel test_kernel has no fj_cpu_kernel of interface",
                      NULL);
        ck_assert_int_eq(folder_count(cache_path, "") > 0, 0);
        session self;
        session_open(&self);
        ck_assert_int_eq(fj_jit_build(self.jit, &problem, &variant, false, &self.info, &self.error),
                         FJ_ERR_COMPILER);
        session_close(&self);
        ck_assert_int_eq(folder_count(cache_path, "") > 0, 0);
    }
    unsetenv("FLEXJIT_CC");
    check_prepare(false, 1);
}
END_TEST

static const fj_variant emu_variant = {.name = "fwd_test",
                                       .target = FJ_TARGET_EMU,
                                       .arch = {80, 0},
                                       .mma = true,
                                       .entry_count = 1,
                                       .entries = {{.name = "fj_fwd", .threads = 32}}};
static const fj_jit_problem gpu_problem = {.kind = FJ_JIT_FORWARD, .dtype = FJ_DTYPE_BF16};

static void check_gpu_object(const fj_variant *of, const char *part) {
    session self;
    session_open(&self);
    ck_assert_int_eq(fj_jit_build(self.jit, &gpu_problem, of, false, &self.info, &self.error),
                     FJ_ERR_COMPILER);
    ck_assert_msg(strstr(self.error.text, part) != NULL, "%s", self.error.text);
    session_close(&self);
    ck_assert_int_eq(folder_count(cache_path, "") > 0, 0);
}

START_TEST(a_gpu_object_that_is_no_kernel_is_not_kept) {
    char path[96];
    fj_variant cuda = emu_variant;
    make_folder(path, "templates/cuda");
    file_write(path, "fwd_mma.cu", "fj_fwd_other\n", 13, 0600);
    use_other_text("FLEXJIT_CXX", "void f(void) {}\n");
    check_gpu_object(&emu_variant, "kernel fwd_test has no fj_fwd of interface 1");
    use_other_text("FLEXJIT_CXX", "const int fj_fwd[64] = {12345};\n");
    check_gpu_object(&emu_variant, "kernel fwd_test has no fj_fwd of interface 1");
    const char *fake = getenv("FJ_FAKE_NVRTC");
    ck_assert_ptr_nonnull(fake);
    setenv("FLEXJIT_NVRTC", fake, 1);
    cuda.target = FJ_TARGET_CUDA;
    check_gpu_object(&cuda, "kernel fwd_test has no fj_fwd");
}
END_TEST

/* ---- What stays ------------------------------------------------------------------------------------------------ */

START_TEST(a_compiler_that_leaves_files) {
    use_script("#!/bin/sh\necho x >$TMPDIR/left; echo x >$TMPDIR/.hidden; exit 1\n");
    check_failure(FJ_ERR_COMPILER, "status 1", NULL);
}
END_TEST

START_TEST(a_compiler_that_leaves_folders) {
    use_script(
        "#!/bin/sh\nmkdir -p $TMPDIR/a/b/c; echo x >$TMPDIR/a/b/c/d; ln -s / $TMPDIR/a/root; exit 1\n");
    check_failure(FJ_ERR_COMPILER, "status 1", NULL);
}
END_TEST

/* A folder of temporary files, with a file in it, last changed some seconds ago. */
static int leave_folder(const char *name, int age) {
    char path[96];
    make_folder(path, name);
    file_write(path, "file", "x", 1, 0600);
    int directory = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    const struct timespec then = {time(NULL) - age, 0}, times[2] = {then, then};
    ck_assert_int_ge(directory, 0);
    ck_assert_int_eq(futimens(directory, times), 0);
    return directory;
}

START_TEST(what_killed_processes_left_goes) {
    const int old = leave_folder("tmp/flexjit-old", 3600), young = leave_folder("tmp/flexjit-young", 5),
              used = leave_folder("tmp/flexjit-used", 3600), other = leave_folder("tmp/other", 3600);
    ck_assert_int_eq(flock(used, LOCK_EX), 0);
    session self;
    fj_object *object = NULL;
    session_open(&self);
    ck_assert_int_eq(prepare(&self, &object), FJ_OK);
    fj_jit_release(self.jit, &object);
    session_close(&self);
    ck_assert_int_eq(folder_count(tmpdir, "old"), 0);
    ck_assert_int_eq(folder_count(tmpdir, "young"), 1);
    ck_assert_int_eq(folder_count(tmpdir, "used"), 1);
    ck_assert_int_eq(folder_count(tmpdir, "other"), 1);
    const int all[] = {old, young, used, other};
    for (size_t i = 0; i < FJ_ARRAY_LEN(all); i++) (void)close(all[i]);
}
END_TEST

/* The compiler kills the process that waits for it. */
START_TEST(a_killed_process_leaves_nothing_for_long) {
    int status = 0;
    use_script("#!/bin/sh\n[ $1 = --version ] && exit\nkill -KILL $PPID\n");
    const pid_t child = fork();
    if (child == 0) {
        session self;
        fj_object *object = NULL;
        session_open(&self);
        (void)prepare(&self, &object);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ck_assert_int_eq(folder_count(tmpdir, ""), 1);
    char path[400];
    DIR *stream = opendir(tmpdir);
    for (struct dirent *entry; (entry = readdir(stream)) != NULL;) {
        const struct timespec then = {time(NULL) - 3600, 0}, times[2] = {then, then};
        (void)snprintf(path, sizeof path, "%s/%s", tmpdir, entry->d_name);
        if (entry->d_name[0] != '.') ck_assert_int_eq(utimensat(AT_FDCWD, path, times, 0), 0);
    }
    (void)closedir(stream);
    unsetenv("FLEXJIT_CC");
    check_prepare(false, 1);
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
    const char *const none[] = {NULL}; /* by a compiler that was found before */
    const fj_compiler compiler = {.path = "/bin/true"};
    fj_error error = {0};
    fj_buf out;
    fj_buf_init(&out, &fj_allocator_libc);
    ck_assert_int_eq(
        fj_jit_compile(&compiler, FJ_LANGUAGE_C, none, &fj_file_ops_system, FJ_STR("x"), &out, &error),
        FJ_ERR_IO);
    ck_assert_str_eq(error.text, "no temporary folder in '/nowhere': No such file or directory");
    fj_error_finish(&error);
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

RUN_SUITE("compile", no_compiler, a_compiler_that_fails, a_text_in_parts,
          an_object_that_is_no_kernel_is_not_kept, a_gpu_object_that_is_no_kernel_is_not_kept,
          a_compiler_that_leaves_files, a_compiler_that_leaves_folders, what_killed_processes_left_goes,
          a_killed_process_leaves_nothing_for_long, no_folder_for_temporary_files,
          signals_of_the_caller_do_not_matter, an_interrupt_ends_the_compiler)
