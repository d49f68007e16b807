/* What the two files of fj_plan_emit_c share. */
#ifndef FJ_ATTN_EMIT_H
#define FJ_ATTN_EMIT_H

#include "attn/objects.h"

typedef struct fj_emit {
    const fj_plan *plan;
    const fj_variant *variant; /* what the kernel is of */
    const char *name;
    int64_t *extents; /* FJ_MAX_RANK for each of ir->captures: those that calls have to have; -1: any */
    fj_str code;      /* cuda: the cubin */
    fj_str kernel;    /* cpu: the text of the kernel */
    fj_str api;       /* texts of templates/host: what headers share, */
    fj_str host;      /* and what launches */
} fj_emit;

/* Failures show in out->failed. */
void fj_emit_header(const fj_emit *of, fj_buf *out);
void fj_emit_source(const fj_emit *of, fj_buf *out);

#endif
