/* A timer's signal tells it: whoever waits for a compiler has no time to look at a clock. The handler uses a text that
 * is whole (the one of two that is not written now) and calls that are async-signal-safe. */
#include "cli/patience.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { FIRST = 5, EVERY = 30 /* seconds */ };

static struct {
    char texts[2][320];
    atomic_int current;        /* of texts */
    _Atomic time_t since;      /* when it began */
    atomic_bool waits, begins; /* for a first note */
} patience;

bool cli_patience_is_wanted(void) { return isatty(STDERR_FILENO) != 0; }

static time_t now(void) {
    struct timespec time;
    (void)clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec;
}

static size_t append(char *line, size_t length, size_t size, const char *text) {
    while (*text && length < size) line[length++] = *text++;
    return length;
}

static size_t append_number(char *line, size_t length, size_t size, unsigned long number) {
    char digits[24];
    size_t at = sizeof digits - 1;
    digits[at] = '\0';
    do digits[--at] = (char)('0' + number % 10);
    while ((number /= 10) != 0);
    return append(line, length, size, digits + at);
}

static void on_alarm(int number) {
    char line[400];
    (void)number;
    if (!patience.waits) return;
    size_t length = append(line, 0, sizeof line, "flexjit: ");
    length = append(line, length, sizeof line, patience.texts[patience.current]);
    length = append(line, length, sizeof line, ": ");
    length = append_number(line, length, sizeof line, (unsigned long)(now() - patience.since));
    length = append(line, length, sizeof line, " s so far\n");
    ssize_t written = write(STDERR_FILENO, line, length);
    (void)written;
}

static void set_timer(int first, int every) {
    const struct itimerval timer = {.it_interval = {every, 0}, .it_value = {first, 0}};
    (void)setitimer(ITIMER_REAL, &timer, NULL);
}

void cli_patience_note(const char *what) {
    const int next = !patience.current;
    if (!patience.begins) return;
    (void)snprintf(patience.texts[next], sizeof patience.texts[next], "%s", what);
    patience.current = next;
    patience.since = now();
    patience.waits = true;
    set_timer(FIRST, EVERY);
}

void cli_patience_begin(void) {
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    if (!cli_patience_is_wanted()) return;
    (void)sigemptyset(&action.sa_mask);
    (void)sigaction(SIGALRM, &action, NULL);
    patience.begins = true;
}

void cli_patience_end(void) {
    if (!patience.begins) return;
    patience.begins = patience.waits = false;
    set_timer(0, 0);
}
