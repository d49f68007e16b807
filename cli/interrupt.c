/* Signal handlers. They touch nothing but flags, a path and system calls that are async-signal-safe. */
#include "cli/interrupt.h"

#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <string.h>
#include <unistd.h>

#include "cli/report.h"

static const char *_Atomic guarded;
static atomic_int deferred, held,
    raised; /* read by the threads of prebuild too; lock-free, as handlers need */
_Static_assert(ATOMIC_INT_LOCK_FREE == 2, "usable in a signal handler");

static void say(int file, const char *text) {
    ssize_t written = write(file, text, strlen(text));
    (void)written; /* the process is about to end */
}

static void end(int status, const char *text, const char *json) {
    const char *path = atomic_load(&guarded);
    if (path != NULL) unlink(path);
    say(STDERR_FILENO, text);
    if (cli_report_is_json()) say(STDOUT_FILENO, json);
    _exit(status);
}

static void end_interrupted(void) {
    end(CLI_EXIT_INTERRUPTED, "flexjit: interrupted\n",
        "{\"schema\":1,\"error\":{\"status\":130,\"file\":\"\",\"line\":0,\"column\":0,\"text\":\"interrupted\"}}\n");
}

static void on_end(int number) {
    (void)number;
    if ((deferred != 0 || held != 0) && atomic_exchange(&raised, 1) == 0) return;
    end_interrupted();
}

/* A mapped input that another process cut short. */
static void on_bus_error(int number) {
    (void)number;
    end(CLI_EXIT_FAILED, "flexjit: error: an input file became shorter while it was read\n",
        "{\"schema\":1,\"error\":{\"status\":1,\"file\":\"\",\"line\":0,\"column\":0,"
        "\"text\":\"an input file became shorter while it was read\"}}\n");
}

static void install(int number, void (*handler)(int)) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    sigaction(number, &action, NULL);
}

/* A signal that is ignored, as under nohup, stays ignored. */
static void install_unless_ignored(int number) {
    struct sigaction old;
    if (sigaction(number, NULL, &old) == 0 && old.sa_handler == SIG_IGN) return;
    install(number, on_end);
}

void cli_interrupt_begin(void) {
    install_unless_ignored(SIGINT);
    install_unless_ignored(SIGTERM);
    install_unless_ignored(SIGHUP);
    install(SIGBUS, on_bus_error);
    install(SIGXFSZ, SIG_IGN); /* a file size limit is an error of write, with a message */
}

void cli_interrupt_guard(const char *path) { atomic_store(&guarded, path); }

void cli_interrupt_defer(void) { deferred = 1; }

bool cli_interrupted(void) { return raised != 0; }

void cli_interrupt_hold(void) { held = 1; }

void cli_interrupt_release(void) {
    held = 0;
    if (raised != 0 && deferred == 0) end_interrupted();
}
