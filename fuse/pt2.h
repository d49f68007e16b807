/* What the two files of the reader of .pt2 share. */
#ifndef FJ_FUSE_PT2_H
#define FJ_FUSE_PT2_H

#include "fuse/read.h"

/* {"as_int": 4} or {"as_expr": {"expr_str": ..., "hint": ...}} */
fj_size fj_pt2_size(fj_reader *reader, json_t *item);
/* Takes a word off the text's front; false: it does not begin so. */
bool fj_pt2_take(fj_str *text, const char *word);

#endif
