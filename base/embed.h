/* Text files that the build embeds in the library (tools/embed.py): the kernel templates, records of tuning. */
#ifndef FJ_BASE_EMBED_H
#define FJ_BASE_EMBED_H

#include <stddef.h>

typedef struct fj_embedded {
    const char *name; /* path below templates/, as "cpu/forward.c" */
    const char *text; /* ends with a NUL that len does not count */
    size_t len;
} fj_embedded;

extern const fj_embedded fj_template_table[];
extern const size_t fj_template_table_len;

/* tuning/: records of tuning, by their path below the root of the source. */
extern const fj_embedded fj_tuning_table[];
extern const size_t fj_tuning_table_len;

#endif
