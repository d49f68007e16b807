/* The log is made of blocks such as
 *
 *     ptxas info    : Compiling entry function 'k' for 'sm_80'
 *     ptxas info    : Function properties for k
 *     ptxas         .     0 bytes stack frame, 0 bytes spill stores, 0 bytes spill loads
 *     ptxas info    : Used 10 registers, used 1 barriers, 320 bytes smem, 364 bytes cmem[0]
 *     ptxas info    : Compile time = 5.035 ms
 *
 * A line of another form is passed over: what is not found is 0.
 */
#include "jit/resources.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The number before `unit`. */
static int number_before(const char *line, const char *unit) {
    const char *at = strstr(line, unit);
    if (!at) return 0;
    while (at > line && at[-1] == ' ') at--;
    while (at > line && at[-1] >= '0' && at[-1] <= '9') at--;
    return atoi(at);
}

/* Functions that were not inlined have properties of their own: they add up. */
static void read_line(const char *line, fj_resources *kernel) {
    if (strstr(line, "bytes stack frame")) {
        kernel->stack += number_before(line, " bytes stack frame");
        kernel->spill_stores += number_before(line, " bytes spill stores");
        kernel->spill_loads += number_before(line, " bytes spill loads");
    } else if (strstr(line, " registers")) {
        kernel->registers = number_before(line, " registers");
        kernel->barriers = number_before(line, " barriers");
        kernel->shared = number_before(line, " bytes smem");
    }
}

int fj_jit_resources_parse(fj_str log, fj_resources resources[FJ_RESOURCES_MAX]) {
    static const char mark[] = "Compiling entry function '";
    int count = 0;
    char line[512];
    for (const char *at = log.data, *end = log.data + log.len; at < end;) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t length = (size_t)((newline ? newline : end) - at);
        (void)snprintf(line, sizeof line, "%.*s", (int)(length < sizeof line ? length : sizeof line - 1), at);
        at += length + 1;
        if (strncmp(line, "ptxas", 5) != 0 && line[0] != ' ') continue;
        const char *entry = strstr(line, mark);
        if (entry && count == FJ_RESOURCES_MAX) break;
        if (entry) {
            resources[count] = (fj_resources){0};
            (void)sscanf(entry + strlen(mark), "%63[^']", resources[count].kernel);
            count++;
        } else if (count > 0) {
            read_line(line, &resources[count - 1]);
        }
    }
    return count;
}
