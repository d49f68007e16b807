/* The user's mod, made from --score, --mask, MOD.py and what is known about captured tensors. */
#ifndef FJ_CLI_MOD_H
#define FJ_CLI_MOD_H

#include "cli/options.h"
#include "cli/safetensors.h"
#include "flexjit/flexjit.h"

/* What --input and --bind say about captured tensors. */
typedef struct cli_bindings {
    fj_binding *items;
    size_t count;
    char **names;         /* of --bind: copies, NULL at the end */
    cli_safetensors file; /* of --input; empty without */
} cli_bindings;

/* q, k, v, do and dlse are no captures. */
bool cli_is_reserved(const char *name);

/* Opens --input, if given, and parses --bind. Returns an exit status. */
int cli_bindings_open(const cli_args *args, cli_bindings *ret_bindings);
void cli_bindings_close(cli_bindings *bindings);
/* Parses "F32[8,4096]" into a binding whose name is the caller's. NULL, or what is wrong with it. */
const char *cli_binding_parse(const char *text, fj_binding *binding);

/* A context that logs to standard error at the level of FLEXJIT_LOG. */
int cli_context_open(fj_context **ret_context);
/* The same with a kernel cache of its own. */
int cli_context_open_at(const char *cache_path, fj_context **ret_context);

/* Whether the command line has any mod. */
bool cli_mod_given(const cli_args *args);
/* A tensor `sink` [Hq] of --input that no mod reads, where there is no sink mod, is this one's. */
#define CLI_IMPLIED_SINK "sink[h]"
bool cli_mod_has_capture(const fj_mod *mod, const char *name);
/* Parses the mod; open: captures without a binding are no error. Returns an exit status. */
int cli_mod_open(fj_context *context, const cli_args *args, const cli_bindings *bindings, bool open,
                 fj_mod **ret_mod);
/* A note that names a mod, and where it stands. kind: "score", "mask"; file: the path of MOD.py. */
void cli_note_origin(const char *kind, const fj_mod_origin *origin, const char *file);
/* Notes a mod that was guessed beside one that was asked for. */
void cli_note_guess(const fj_mod_desc *desc, const fj_mod *mod);

#endif
