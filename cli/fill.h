/* Random tensors for calls that measure: `bench`, `tune`. */
#ifndef FJ_CLI_FILL_H
#define FJ_CLI_FILL_H

#include "cli/call.h"
#include "cli/mod.h"

/* Where captured tensors come from: the file of --input, else their bound shape and the seed. */
typedef struct cli_fill {
    const fj_mod *mod;
    const cli_bindings *bindings;
    cli_verb verb; /* for messages */
    long long seed;
    bool kept; /* q, k, v and do are of the file too */
} cli_fill;

/* Makes q, k, v, with backward do, and the captures of a dense call. Finished by the caller, whatever the status. */
int cli_fill_inputs(const cli_fill *from, const cli_call_options *options, bool backward, cli_inputs *inputs);

/* Every tensor of a launch, once. */
double cli_launch_bytes(const cli_inputs *in, const cli_outputs *out, fj_direction direction);

#endif
