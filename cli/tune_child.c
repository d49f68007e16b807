/* The owner of the child that runs candidates: starts it, asks, and kills it when it takes too long. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "cli/report.h"
#include "cli/tune.h"
#include "cli/verbs.h"

enum { BETWEEN_LOOKS = 100 /* ms, at a Ctrl-C that came just before the wait */ };

bool cli_child_is_there(const cli_child *child) { return child->process > 0; }

/* ---- Starting ---------------------------------------------------------------------------- */

/* The command line again. Values are joined to their options, so that one that begins with a dash is none. */
static char **copy_arguments(const cli_args *args) {
    char **argv = calloc(args->value_count + args->positional_count + 4, sizeof *argv);
    size_t count = 0;
    bool whole = argv != NULL;
    if (!whole) return NULL;
    argv[count++] = strdup("flexjit");
    argv[count++] = strdup(CLI_TUNE_WORKER);
    for (size_t i = 0; whole && i < args->value_count; i++) {
        const cli_value *value = &args->values[i];
        const int length = asprintf(&argv[count], "--%s%s%s", cli_options[value->option].long_name,
                                    value->text != NULL ? "=" : "", value->text != NULL ? value->text : "");
        if (length < 0) argv[count] = NULL;
        whole = length >= 0;
        count++;
    }
    if (args->positional_count > 0) argv[count++] = strdup("--");
    for (size_t i = 0; i < args->positional_count; i++) argv[count++] = strdup(args->positionals[i]);
    for (size_t i = 0; i < count; i++) whole = whole && argv[i] != NULL;
    if (whole) return argv;
    for (size_t i = 0; i < count; i++) free(argv[i]);
    free(argv);
    return NULL;
}

static void free_arguments(char **argv) {
    for (char **at = argv; argv != NULL && *at != NULL; at++) free(*at);
    free(argv);
}

/* In the child, between fork and exec. It ends with its parent, and leaves Ctrl-C to it. */
static void become_worker(char **argv, int channel, int nowhere, pid_t parent) {
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) _exit(1);
    (void)signal(SIGINT, SIG_IGN);
    (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0}); /* crashes are expected */
    const char *log = getenv("FLEXJIT_LOG");
    const bool quiet = log == NULL || strcmp(log, "debug") != 0;
    if (dup2(channel, STDIN_FILENO) < 0 || dup2(nowhere, STDOUT_FILENO) < 0) _exit(1);
    if (quiet && dup2(nowhere, STDERR_FILENO) < 0) _exit(1);
    execv("/proc/self/exe", argv);
    _exit(127);
}

static int start(cli_child *child) {
    int pair[2], nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    char **argv = copy_arguments(child->args);
    if (argv == NULL || nowhere < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0) {
        if (nowhere >= 0) close(nowhere);
        free_arguments(argv);
        return cli_fail(CLI_EXIT_FAILED, "cannot start a process for measuring: %s", strerror(errno));
    }
    const pid_t parent = getpid(), process = fork();
    if (process == 0) become_worker(argv, pair[1], nowhere, parent);
    const int wrong = errno;
    close(pair[1]);
    close(nowhere);
    free_arguments(argv);
    if (process < 0) {
        close(pair[0]);
        return cli_fail(CLI_EXIT_FAILED, "cannot start a process for measuring: %s", strerror(wrong));
    }
    child->process = process;
    child->channel = pair[0];
    child->length = 0;
    return CLI_EXIT_OK;
}

/* ---- Ending ------------------------------------------------------------------------------ */

/* One that crashed is given a moment, so that it is known how it ended. */
static void end(cli_child *child, bool crashed) {
    enum { LOOKS = 20, PAUSE = 50 };
    int how = 0;
    bool gone = child->process <= 0;
    for (int i = 0; crashed && !gone && i < LOOKS; i++) {
        gone = waitpid(child->process, &how, WNOHANG) != 0;
        if (!gone) poll(NULL, 0, PAUSE);
    }
    if (!gone) {
        (void)kill(child->process, SIGKILL); /* it holds nothing that is worth waiting for */
        while (waitpid(child->process, &how, 0) < 0 && errno == EINTR) {}
    }
    if (child->process > 0) close(child->channel);
    if (WIFSIGNALED(how))
        snprintf(child->end, sizeof child->end, "signal %d", WTERMSIG(how));
    else
        snprintf(child->end, sizeof child->end, "exit status %d", WEXITSTATUS(how));
    free(child->line);
    child->line = NULL;
    child->process = 0;
    child->channel = -1;
    child->length = child->room = 0;
}

void cli_child_stop(cli_child *child) { end(child, false); }

/* ---- Asking ------------------------------------------------------------------------------ */

static bool send_request(const cli_child *child, json_t *request) {
    char *text = json_dumps(request, JSON_COMPACT);
    bool sent = text != NULL;
    const size_t size = text != NULL ? strlen(text) : 0;
    for (size_t at = 0; sent && at <= size;) { /* the NUL's place is the newline's */
        const ssize_t done = at < size ? send(child->channel, text + at, size - at, MSG_NOSIGNAL)
                                       : send(child->channel, "\n", 1, MSG_NOSIGNAL);
        if (done < 0 && errno == EINTR) continue;
        sent = done > 0;
        at += sent ? (size_t)done : 0;
    }
    free(text);
    return sent;
}

static bool grow(cli_child *child) {
    if (child->length < child->room) return true;
    const size_t room = child->room * 2 + 4096;
    char *line = realloc(child->line, room);
    if (line == NULL) return false;
    child->line = line;
    child->room = room;
    return true;
}

/* Takes a whole line from what was read; NULL: there is none. What is no object is no answer: {}. */
static json_t *take_line(cli_child *child) {
    char *end = child->length > 0 ? memchr(child->line, '\n', child->length) : NULL;
    if (end == NULL) return NULL;
    const size_t size = (size_t)(end - child->line) + 1;
    json_t *object = json_loadb(child->line, size, 0, NULL);
    child->length -= size;
    memmove(child->line, child->line + size, child->length);
    if (json_is_object(object)) return object;
    json_decref(object);
    return json_object();
}

/* The answer to the last request: a candidate may have written lines of its own, and an answer may be late. */
static json_t *take_answer(cli_child *child) {
    for (json_t *object = take_line(child); object != NULL; object = take_line(child)) {
        const json_t *number = json_object_get(object, "number");
        if (json_is_integer(number) && json_integer_value(number) == child->asked) return object;
        json_decref(object);
    }
    return NULL;
}

/* The answer, or why there is none. */
static cli_answer read_answer(cli_child *child, double until, json_t **ret_reply) {
    for (;;) {
        *ret_reply = take_answer(child);
        if (*ret_reply != NULL) return CLI_ANSWERED;
        const double left = until - cli_seconds();
        if (cli_interrupted()) return CLI_ANSWER_INTERRUPTED;
        if (left <= 0) return CLI_ANSWER_TIMEOUT;
        struct pollfd wait = {.fd = child->channel, .events = POLLIN};
        if (poll(&wait, 1, BETWEEN_LOOKS) <= 0) continue;
        if (!grow(child)) return CLI_ANSWER_CRASH;
        const ssize_t got = recv(child->channel, child->line + child->length, child->room - child->length, 0);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) return CLI_ANSWER_CRASH;
        child->length += (size_t)got;
    }
}

static cli_answer exchange(cli_child *child, json_t *request, double seconds, json_t **ret_reply) {
    const double until = cli_seconds() + seconds;
    json_object_set_new(request, "number", json_integer(++child->asked));
    if (!send_request(child, request)) return CLI_ANSWER_CRASH;
    return read_answer(child, until, ret_reply);
}

cli_answer cli_child_ask(cli_child *child, json_t *request, double seconds, json_t **ret_reply) {
    cli_answer answer = CLI_ANSWER_FAILED;
    *ret_reply = NULL;
    if (request == NULL)
        cli_say_error(CLI_EXIT_FAILED, "", "not enough memory");
    else if (cli_child_is_there(child) || start(child) == CLI_EXIT_OK)
        answer = exchange(child, request, seconds, ret_reply);
    json_decref(request);
    const bool unsound =
        json_object_get(*ret_reply, "error") != NULL || json_object_get(*ret_reply, "wrong") != NULL;
    if (answer != CLI_ANSWERED || unsound) end(child, answer == CLI_ANSWER_CRASH);
    return answer;
}
