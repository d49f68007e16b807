/* Ctrl-C and its like: nothing half-written stays behind. */
#ifndef FJ_CLI_INTERRUPT_H
#define FJ_CLI_INTERRUPT_H

#include <stdbool.h>

/* Installs the handlers. By default a signal removes the guarded file and ends the process with status 130. */
void cli_interrupt_begin(void);

/* The file to remove when the process is ended by a signal; NULL: none. The path stays the caller's. */
void cli_interrupt_guard(const char *path);

/* From now on the first Ctrl-C only raises a flag, for a verb that saves what it has; the second ends the process. */
void cli_interrupt_defer(void);
bool cli_interrupted(void);

/* Between the two, a Ctrl-C waits: a compilation, which the same Ctrl-C ends, is to remove its own files first. */
void cli_interrupt_hold(void);
void cli_interrupt_release(void);

#endif
