/* Telling someone at a terminal that a compilation takes its time. */
#ifndef FJ_CLI_PATIENCE_H
#define FJ_CLI_PATIENCE_H

#include <stdbool.h>

/* Whether there is someone to tell: standard error is a terminal. */
bool cli_patience_is_wanted(void);

/* What the library does now. Between begin and end it is told after 5 seconds, and then twice a minute. From any
 * thread; begin and end are the main thread's. */
void cli_patience_note(const char *what);
void cli_patience_begin(void);
void cli_patience_end(void);

#endif
