/* `flexjit tune`, shared by its files.
 *
 *     the tool                                          its child, which alone runs candidates
 *
 *     tune.c        the verb, what is printed
 *     tune_rows.c, tune_sources.c   what is asked for
 *     tune_sweep.c  a row: compile, measure, re-time
 *     tune_space.c  candidates and their order
 *     tune_child.c  asks, waits, kills  <== JSON lines ==>  tune_worker.c  answers
 *     tune_log.c    the log: all that is known                tune_gate.c    are the results right
 *     tune_rank.c   from the log to the winner                tune_time.c    how long it takes
 *     tune_report.c from the log to a page
 *
 * The log is the state of a sweep: whatever is measured is put there first and saved, and what is printed, ranked or drawn
 * is read from there. So a recorded log gives the same rows again, and one that was cut short goes on where it was. */
#ifndef FJ_CLI_TUNE_H
#define FJ_CLI_TUNE_H

#include <jansson.h>

#include "cli/bench.h"
#include "cli/call.h"
#include "cli/manifest.h"
#include "cli/mod.h"
#include "cli/run.h"

/* ---- What is tuned (tune_rows.c) ---------------------------------------------------------- */

/* One problem with its lengths. */
typedef struct cli_tune_row {
    cli_call_options options; /* without variants */
    fj_direction direction;
    const fj_mod *mod;
    const cli_bindings *bindings;
    bool kept; /* the file of the bindings has q, k, v and do too */
} cli_tune_row;

typedef enum cli_tune_strategy { CLI_TUNE_LIST, CLI_TUNE_RANDOM, CLI_TUNE_ALL } cli_tune_strategy;

/* A manifest, or one of a call that was kept, and what its entries bind. */
typedef struct cli_tune_source {
    char *path;
    cli_manifest manifest;
    cli_bindings *bindings;
} cli_tune_source;

typedef struct cli_tune {
    const cli_args *args;
    fj_context *context;
    fj_device *device;
    cli_bindings bindings; /* of the command line, as the mod */
    fj_mod *mod;
    cli_tune_source *sources; /* in place of these */
    size_t source_count;
    cli_tune_row *rows;
    size_t row_count, row_room;
    long long seed, jobs;
    double budget; /* seconds; NAN: none was given */
    int strategy;
} cli_tune;

/* What the command line asks for. Closed by the caller, whatever the status. */
int cli_tune_open(const cli_args *args, cli_tune *ret_tune);
void cli_tune_close(cli_tune *tune);
/* scale NAN: 1/sqrt(E). */
int cli_tune_add_row(cli_tune *tune, const cli_tune_row *from, const cli_shape *shape, double scale);

/* tune_sources.c: rows of --manifest or --from. */
int cli_tune_source_rows(cli_tune *tune, const cli_call_options *options);
void cli_tune_sources_close(cli_tune *tune);

/* ---- Candidates (tune_space.c) ----------------------------------------------------------- */

typedef struct cli_candidate {
    const char *variant;
    json_t *parameters; /* name: value */
    bool is_listed;
} cli_candidate;

typedef struct cli_space {
    json_t *all; /* owns what candidates point to */
    cli_candidate *order;
    size_t count; /* of those that the strategy may come to */
} cli_space;

/* A row's plan: of a variant, or, where that is NULL, of the plan's own choice without records of earlier sweeps. */
int cli_tune_plan(const cli_tune *tune, const cli_tune_row *row, const char *variant, fj_plan **ret_plan);
/* --kernel and --option are legal for the row, else an error says what is. */
int cli_tune_check_options(const cli_tune *tune, const cli_tune_row *row);
/* All that are legal, in the order in which they are tried: the plan's list, the default first, then by strategy. */
int cli_space_open(const cli_tune *tune, const cli_tune_row *row, size_t index, cli_space *ret_space);
void cli_space_close(cli_space *space);

/* ---- Right (tune_gate.c) ----------------------------------------------------------------- */

/* Memory between two pages that cannot be touched; what is left of its own pages has a pattern. */
typedef struct cli_guard {
    uint8_t *map, *data;
    size_t map_size, size;
} cli_guard;

/* The tensors of one shape, for which kernels are opened one after the other. */
typedef struct cli_stage {
    cli_run run;
    fj_direction direction;
    cli_guard *guards;
    size_t guard_count;
    void **expected;  /* by output of the list: what the default gave, or NULL */
    double *noise;    /* by output: what rounding does to an element, or NULL */
    cli_check *check; /* the reference, or NULL */
} cli_stage;

int cli_stage_open(const cli_tune *tune, const cli_tune_row *row, bool small, cli_stage *stage);
void cli_stage_close(cli_stage *stage);

/* A kernel on a stage, with a guarded workspace. */
typedef struct cli_trial {
    cli_kernel kernel;
    cli_guard guard;
    void *workspace; /* of a device with memory of its own */
} cli_trial;

int cli_trial_open(cli_stage *stage, const char *variant, cli_trial *trial);
void cli_trial_close(cli_trial *trial);

/* Poisons outputs and workspace, launches, and compares. ret_wrong: "" where all is as it should be. */
enum { CLI_WRONG_SIZE = 320 };
int cli_trial_check(cli_stage *stage, cli_trial *trial, char ret_wrong[CLI_WRONG_SIZE]);
/* Keeps what the last launch gave as what others are to give. */
int cli_stage_expect(cli_stage *stage);
/* Takes from the small stage how much of the outputs is rounding. */
int cli_stage_learn(cli_stage *stage, const cli_stage *small);

/* ---- Fast (tune_time.c) ------------------------------------------------------------------ */

/* Pushes what earlier launches left out of the caches. */
typedef struct cli_flush {
    fj_device *device;
    void *memory;
    size_t size;
    double bytes_per_ms; /* at which it does so */
} cli_flush;

int cli_flush_open(fj_device *device, cli_flush *ret_flush);
void cli_flush_close(cli_flush *of);

enum { CLI_MOST_SAMPLES = 64 };
typedef struct cli_samples {
    double ms[CLI_MOST_SAMPLES];
    size_t count;
} cli_samples;

double cli_median(const double *values, size_t count);
/* Warms up, then samples; ends early where the median is sure to be above give_up_ms. */
int cli_time_kernel(cli_kernel *kernel, const cli_flush *of, double give_up_ms, cli_samples *ret_samples);
/* Both in turns. */
int cli_time_duel(cli_kernel *a, cli_kernel *b, const cli_flush *of, cli_samples *ret_a, cli_samples *ret_b);

/* ---- The child (tune_worker.c, tune_child.c) --------------------------------------------- */

/* Requests, one JSON object a line, each with its "number", and their answers, which repeat it: a line with another number,
 * or none, is not the answer, whoever wrote it. Without the number:
 *   {"do":"begin", "row":N, "variant":the default}   {"flops", "bytes", "peak", "rate"}
 *   {"do":"try", "variant":NAME, "give_up":ms}       {"ms", "runtimes", "validation_ms", "confirmed"}
 *   {"do":"duel", "variant":NAME}                    {"default":[ms], "variant":[ms]}
 * or {"wrong":text} where results are not what they should be, or {"error":{"status","text"}}, after which it ends. */

typedef enum cli_answer {
    CLI_ANSWERED,
    CLI_ANSWER_TIMEOUT,
    CLI_ANSWER_CRASH,
    CLI_ANSWER_INTERRUPTED,
    CLI_ANSWER_FAILED, /* no child could be started; the error is reported */
} cli_answer;

typedef struct cli_child {
    const cli_args *args;
    int process, channel;
    json_int_t asked; /* the number of the last request; those of a child that is gone are not used again */
    char *line;       /* what was read of it and not yet looked at */
    size_t length, room;
    char end[64]; /* how the last one ended: "signal 11" */
} cli_child;

/* Starts a child where there is none. One that did not answer, or met a candidate that is wrong, which may have written
 * anywhere in it, is gone afterwards. */
cli_answer cli_child_ask(cli_child *child, json_t *request, double seconds, json_t **ret_reply);
bool cli_child_is_there(const cli_child *child);
void cli_child_stop(cli_child *child);

/* ---- The log (tune_log.c) ---------------------------------------------------------------- */

typedef struct cli_log {
    const char *path; /* NULL: it is not kept */
    json_t *root, *problems, *results;
    char *lock_path; /* of the one process that writes it; NULL: it is only read */
    int lock;        /* -1: files cannot be locked there */
} cli_log;

/* Begins, or continues a file that is there: status 1 when it is not of this machine, or when another process writes it.
 * Close it in either case. */
int cli_log_open(const cli_tune *tune, const char *path, cli_log *ret_log);
/* Reads a recorded log. */
int cli_log_read(const char *path, cli_log *ret_log);
void cli_log_close(cli_log *log);
/* Writes the file whole; it is the old one or the new one at any moment. */
int cli_log_save(const cli_log *log);
/* The number of a row's problem, which is added where there is none. Status 1: the log has this shape with another mod. */
int cli_log_problem(cli_log *log, const cli_tune_row *row, const fj_plan *plan, const char *variant,
                    size_t *ret_problem);
typedef struct cli_tune_result {
    const cli_candidate *candidate;
    const char *rejected; /* compile spill launch wrong timeout crash, or NULL */
    const char *text;     /* why; NULL: nothing to say */
    double compile_ms, validation_ms, ms;
    json_t *runtimes; /* stays the caller's; NULL: none */
} cli_tune_result;

int cli_log_add(cli_log *log, size_t problem, const cli_tune_result *result);
/* The result of a variant, or NULL. */
json_t *cli_log_find(const cli_log *log, size_t problem, const char *variant);
json_t *cli_log_duel(const cli_log *log, size_t problem, const char *variant);
int cli_log_add_duel(cli_log *log, size_t problem, const char *variant, const json_t *reply);

/* ---- Ranking (tune_rank.c) --------------------------------------------------------------- */

enum { CLI_FINALISTS = 3, CLI_REJECTIONS = 6 };
extern const char *const cli_rejections[CLI_REJECTIONS];

/* Whether a candidate is of a kind, such as an instruction set, of which all that the log has is much slower than the best. */
bool cli_rank_is_hopeless(const cli_log *log, size_t problem, const cli_candidate *candidate, double best_ms);
/* The median of a result; NAN where it has none, as what was rejected. */
double cli_result_ms(const json_t *result);
/* The variants that are re-timed against the default, the fastest first. */
size_t cli_rank_finalists(const cli_log *log, size_t problem, const char *ret_variants[CLI_FINALISTS]);

typedef struct cli_ranking {
    const char *standard, *best; /* "standard" is the default: a keyword. NULL: it gave nothing */
    double standard_ms, best_ms, speedup, spread;
    size_t tried, rejected[CLI_REJECTIONS];
} cli_ranking;
cli_ranking cli_rank(const cli_log *log, size_t problem);

/* ---- Sweep and report -------------------------------------------------------------------- */

typedef struct cli_sweep {
    const cli_tune *tune;
    cli_log *log;
    cli_child child;
    double until;     /* when the budget is spent, in seconds of the clock; INFINITY: never */
    size_t row;       /* of the tune's */
    size_t begun_row; /* that the child has */
    double longest;   /* seconds that a variant may take */
    bool ended;       /* nothing can be kept any more */
    bool warned;      /* of FLEXJIT_TUNE_TIMEOUT */
} cli_sweep;

double cli_seconds(void);
/* Measures what the log does not have yet, until the time is over; then holds the finals. */
int cli_sweep_row(cli_sweep *sweep, size_t row, size_t problem, double until);
void cli_sweep_close(cli_sweep *sweep);

/* tune_report.c: one page for all problems of a log. */
int cli_tune_report(const cli_log *log, const char *path);

#endif
