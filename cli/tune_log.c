/* The log of a sweep: Kernel Tuner's T4 results, with what they have no place for under keys of our own.
 *
 *   {"schema_version": "1.0.0", "metadata": {"timeunit": "milliseconds"},
 *    "results": [{"timestamp", "configuration": {a parameter: its value}, "objectives": ["time"],
 *                 "times": {"compilation_time", "runtimes", "validation", ...}, "invalidity", "correctness",
 *                 "measurements": [{"name": "time", "value": ms, "unit": "ms"}],
 *                 "problem": its number, "variant", "rejected", "text"}],
 *    "flexjit": {"schema": 1, "version", "device", "machine",
 *                "problems": [{"shape", "dtype", "direction", "digest", "default", "flops", "bytes", "peak", "rate",
 *                              "duels": [{"variant", "default": [ms], "times": [ms]}]}]}}
 *
 * The schema and Kernel Tuner's writer differ about the keys of times: the schema has compilation_time, the writer
 * compilation and benchmark (findings/kernel_tuner_t4.sh). Both are written. "runtime" stands for launches that fail and
 * for crashes, "constraints" for spills: rejected says which.
 *
 * The file is written whole after each result, beside the old one, which it then replaces: a process that is killed, or a
 * disk that is full, leaves what was there. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/file.h"
#include "cli/report.h"
#include "cli/safetensors.h"
#include "cli/tune.h"

enum { LONGEST = 1 << 30, LOG_SCHEMA = 1, MACHINE = 160 };

/* ---- The machine ------------------------------------------------------------------------- */

/* Name and number of the processors, which a device of the host's memory runs on. */
static void machine_name(char text[MACHINE]) {
    char line[256], name[100] = "a processor";
    FILE *file = fopen("/proc/cpuinfo", "r");
    while (file != NULL && fgets(line, sizeof line, file) != NULL) {
        const char *colon = strchr(line, ':');
        if (strncmp(line, "model name", 10) != 0 || colon == NULL) continue;
        snprintf(name, sizeof name, "%.*s", (int)strcspn(colon + 2, "\n"), colon + 2);
        break;
    }
    if (file != NULL) fclose(file);
    snprintf(text, MACHINE, "%ld x %s", sysconf(_SC_NPROCESSORS_ONLN), name);
}

/* ---- One writer -------------------------------------------------------------------------- */

/* FOLDER/.NAME.lock, of the file that a link leads to. */
static char *lock_name(const char *path) {
    char *real = realpath(path, NULL), *name = NULL;
    const char *of = real != NULL ? real : path, *slash = strrchr(of, '/');
    const int folder = slash != NULL ? (int)(slash + 1 - of) : 0;
    const int length = asprintf(&name, "%.*s.%.200s.lock", folder, of, of + folder);
    free(real);
    return length < 0 ? NULL : name;
}

/* The one that held it may have removed the file between our open and our lock. */
static bool is_still_named(int lock, const char *name) {
    struct stat ours, named;
    return fstat(lock, &ours) == 0 && stat(name, &named) == 0 && ours.st_ino == named.st_ino &&
           ours.st_dev == named.st_dev;
}

/* Each save replaces the whole file: of two sweeps that write one log, one would lose what it measured. The log itself is
 * replaced and cannot hold a lock; the lock of a process that was killed is free. Where files cannot be locked, or none can
 * be made, there is no lock: the first save says what is wrong with the folder. */
static int lock_log(cli_log *log) {
    log->lock_path = lock_name(log->path);
    if (log->lock_path == NULL) return cli_no_memory();
    for (;;) {
        log->lock = open(log->lock_path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (log->lock < 0) break;
        const bool locked = flock(log->lock, LOCK_EX | LOCK_NB) == 0, taken = !locked && errno == EWOULDBLOCK;
        if (locked && is_still_named(log->lock, log->lock_path)) return CLI_EXIT_OK;
        close(log->lock);
        log->lock = -1;
        if (taken)
            return cli_fail_file(CLI_EXIT_FAILED, log->path,
                                 "another sweep writes this log: wait for it, or give another --log");
        if (!locked) break;
    }
    return CLI_EXIT_OK;
}

static void unlock_log(cli_log *log) {
    if (log->lock_path != NULL && log->lock >= 0) {
        (void)unlink(log->lock_path);
        close(log->lock);
    }
    free(log->lock_path);
}

/* ---- Opening ----------------------------------------------------------------------------- */

static int take(const char *path, json_t *root, cli_log *ret_log) {
    json_t *ours = json_object_get(root, "flexjit");
    const char *version = json_string_value(json_object_get(root, "schema_version"));
    const json_t *schema = json_object_get(ours, "schema");
    ret_log->path = path;
    ret_log->root = root;
    ret_log->problems = json_object_get(ours, "problems");
    ret_log->results = json_object_get(root, "results");
    if (version == NULL || !json_is_array(ret_log->results))
        return cli_fail_file(CLI_EXIT_FAILED, path,
                             "it is not a log of a sweep: no results in the schema T4");
    if (strcmp(version, "1.0.0") != 0)
        return cli_fail_file(CLI_EXIT_FAILED, path, "'schema_version' is '%.40s', not 1.0.0", version);
    if (!json_is_object(ours) || !json_is_array(ret_log->problems))
        return cli_fail_file(CLI_EXIT_FAILED, path, "it is not a log of flexjit: it names no problems");
    if (json_integer_value(schema) != LOG_SCHEMA)
        return cli_fail_file(CLI_EXIT_FAILED, path,
                             "it was written by another flexjit: 'schema' is %lld, not %d",
                             (long long)json_integer_value(schema), LOG_SCHEMA);
    return CLI_EXIT_OK;
}

static int read_log(const char *path, cli_log *ret_log) {
    char *text = NULL;
    size_t size = 0;
    json_error_t error;
    int status = cli_read_file(path, LONGEST, &text, &size);
    if (status != CLI_EXIT_OK) return status;
    json_t *root = json_loadb(text, size, JSON_REJECT_DUPLICATES, &error);
    free(text);
    if (root == NULL) return cli_fail_file(CLI_EXIT_FAILED, path, "line %d: %s", error.line, error.text);
    return take(path, root, ret_log);
}

int cli_log_read(const char *path, cli_log *ret_log) {
    *ret_log = (cli_log){.path = path, .lock = -1};
    const int status = read_log(path, ret_log);
    if (status != CLI_EXIT_OK) cli_log_close(ret_log);
    return status;
}

static int begin(const cli_tune *tune, const char *path, const char *machine, cli_log *ret_log) {
    json_t *root = json_pack(
        "{s:s, s:{s:s}, s:[], s:{s:i, s:s, s:o, s:o, s:[]}}", "schema_version", "1.0.0", "metadata",
        "timeunit", "milliseconds", "results", "flexjit", "schema", LOG_SCHEMA, "version", FJ_VERSION,
        "device", cli_json_text(fj_device_name(tune->device)), "machine", cli_json_text(machine), "problems");
    return root != NULL ? take(path, root, ret_log) : cli_no_memory();
}

static int check_machine(const cli_tune *tune, const cli_log *log, const char *machine) {
    const json_t *ours = json_object_get(log->root, "flexjit");
    const char *device = json_string_value(json_object_get(ours, "device"));
    const char *of = json_string_value(json_object_get(ours, "machine"));
    const char *here = fj_device_name(tune->device);
    if (device == NULL || strcmp(device, here) != 0)
        return cli_fail_file(CLI_EXIT_FAILED, log->path,
                             "this log is of device %.60s, and this is %s: give another --log",
                             device != NULL ? device : "(none)", here);
    if (of == NULL || strcmp(of, machine) != 0)
        return cli_fail_file(CLI_EXIT_FAILED, log->path,
                             "this log is of another machine, %.120s, and this is %s: give another --log",
                             of != NULL ? of : "(none)", machine);
    return CLI_EXIT_OK;
}

int cli_log_open(const cli_tune *tune, const char *path, cli_log *ret_log) {
    char machine[MACHINE];
    struct stat about;
    machine_name(machine);
    *ret_log = (cli_log){.path = path, .lock = -1};
    int status = path != NULL ? lock_log(ret_log) : CLI_EXIT_OK;
    if (status != CLI_EXIT_OK) return status;
    if (path == NULL || (stat(path, &about) != 0 && errno == ENOENT)) {
        status = begin(tune, path, machine, ret_log);
        return status == CLI_EXIT_OK ? cli_log_save(ret_log) : status; /* a bad path costs no sweep */
    }
    status = read_log(path, ret_log);
    return status == CLI_EXIT_OK ? check_machine(tune, ret_log, machine) : status;
}

void cli_log_close(cli_log *log) {
    json_decref(log->root);
    unlock_log(log);
    *log = (cli_log){.lock = -1};
}

int cli_log_save(const cli_log *log) {
    if (log->path == NULL) return CLI_EXIT_OK;
    char *text = json_dumps(log->root, JSON_INDENT(1) | JSON_REAL_PRECISION(15));
    if (text == NULL) return cli_no_memory();
    const int status = cli_write_file(log->path, text, strlen(text));
    free(text);
    return status;
}

/* ---- Problems ---------------------------------------------------------------------------- */

/* FNV-1a of the default's whole text: another mod, problem or template is another text. */
static int digest_of(const fj_plan *plan, char digest[17]) {
    fj_text text = {0};
    fj_error error = {0};
    const fj_status result = fj_plan_show(plan, "source", &text, &error);
    if (result != FJ_OK) return cli_fail_library(result, &error);
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (size_t i = 0; i < text.length; i++) {
        hash ^= (unsigned char)text.data[i];
        hash *= UINT64_C(0x100000001b3);
    }
    fj_text_finish(&text);
    snprintf(digest, 17, "%016llx", (unsigned long long)hash);
    return CLI_EXIT_OK;
}

static json_t *shape_json(const cli_shape *shape) {
    return json_pack("[I,I,I,I,I,I,I]", (json_int_t)shape->batch, (json_int_t)shape->heads,
                     (json_int_t)shape->kv_heads, (json_int_t)shape->q_len, (json_int_t)shape->kv_len,
                     (json_int_t)shape->head_dim, (json_int_t)shape->value_dim);
}

/* All keys of an object are those of another one. */
static bool includes(const json_t *object, json_t *keys) {
    const char *key;
    json_t *value;
    json_object_foreach(keys, key, value) {
        if (!json_equal(json_object_get(object, key), value)) return false;
    }
    return true;
}

int cli_log_problem(cli_log *log, const cli_tune_row *row, const fj_plan *plan, const char *variant,
                    size_t *ret_problem) {
    char digest[17];
    int status = digest_of(plan, digest);
    if (status != CLI_EXIT_OK) return status;
    json_t *object =
        json_pack("{s:o, s:s, s:s, s:s, s:s}", "shape", shape_json(&row->options.shape), "dtype",
                  fj_dtype_name(row->options.dtype), "direction",
                  row->direction == FJ_BACKWARD ? "bwd" : "fwd", "digest", digest, "default", variant);
    if (object == NULL) return cli_no_memory();
    for (size_t i = 0; i < json_array_size(log->problems); i++) {
        if (!includes(json_array_get(log->problems, i), object)) continue;
        json_decref(object);
        *ret_problem = i;
        return CLI_EXIT_OK;
    }
    json_object_set_new(object, "duels", json_array());
    *ret_problem = json_array_size(log->problems);
    return json_array_append_new(log->problems, object) == 0 ? CLI_EXIT_OK : cli_no_memory();
}

/* ---- Results ----------------------------------------------------------------------------- */

static const char *invalidity(const char *rejected) {
    static const struct {
        const char *rejected, *invalidity;
    } words[] = {{"compile", "compile"},   {"spill", "constraints"}, {"launch", "runtime"},
                 {"wrong", "correctness"}, {"timeout", "timeout"},   {"crash", "runtime"}};
    for (size_t i = 0; rejected != NULL && i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].rejected, rejected) == 0) return words[i].invalidity;
    return "correct";
}

static void timestamp(char text[32]) {
    const time_t now = time(NULL);
    struct tm parts = {0};
    (void)gmtime_r(&now, &parts);
    (void)strftime(text, 32, "%Y-%m-%dT%H:%M:%SZ", &parts);
}

static json_t *times_json(const cli_tune_result *result) {
    json_t *runtimes = result->runtimes != NULL ? json_deep_copy(result->runtimes) : json_array();
    double sum = 0;
    for (size_t i = 0; i < json_array_size(runtimes); i++)
        sum += json_number_value(json_array_get(runtimes, i));
    return json_pack("{s:f, s:f, s:f, s:o, s:f, s:f, s:f}", "compilation_time", result->compile_ms,
                     "compilation", result->compile_ms, "benchmark", sum, "runtimes", runtimes, "framework",
                     0.0, "search_algorithm", 0.0, "validation", result->validation_ms);
}

int cli_log_add(cli_log *log, size_t problem, const cli_tune_result *result) {
    char now[32];
    timestamp(now);
    const bool correct = result->rejected == NULL;
    json_t *measurements =
        correct ? json_pack("[{s:s, s:f, s:s}]", "name", "time", "value", result->ms, "unit", "ms")
                : json_array();
    json_t *object =
        json_pack("{s:s, s:O, s:[s], s:o, s:s, s:i, s:o, s:I, s:s}", "timestamp", now, "configuration",
                  result->candidate->parameters, "objectives", "time", "times", times_json(result),
                  "invalidity", invalidity(result->rejected), "correctness", correct ? 1 : 0, "measurements",
                  measurements, "problem", (json_int_t)problem, "variant", result->candidate->variant);
    if (object == NULL) return cli_no_memory();
    if (!correct) json_object_set_new(object, "rejected", json_string(result->rejected));
    if (result->text != NULL) json_object_set_new(object, "text", cli_json_text(result->text));
    if (json_array_append_new(log->results, object) != 0) return cli_no_memory();
    return cli_log_save(log);
}

json_t *cli_log_find(const cli_log *log, size_t problem, const char *variant) {
    size_t i;
    json_t *result;
    json_array_foreach(log->results, i, result) {
        const char *name = json_string_value(json_object_get(result, "variant"));
        if (name != NULL && strcmp(name, variant) == 0 &&
            json_integer_value(json_object_get(result, "problem")) == (json_int_t)problem)
            return result;
    }
    return NULL;
}

json_t *cli_log_duel(const cli_log *log, size_t problem, const char *variant) {
    size_t i;
    json_t *duel;
    json_array_foreach(json_object_get(json_array_get(log->problems, problem), "duels"), i, duel) {
        const char *name = json_string_value(json_object_get(duel, "variant"));
        if (name != NULL && strcmp(name, variant) == 0) return duel;
    }
    return NULL;
}

int cli_log_add_duel(cli_log *log, size_t problem, const char *variant, const json_t *reply) {
    json_t *duels = json_object_get(json_array_get(log->problems, problem), "duels");
    json_t *object = json_pack("{s:s, s:O?, s:O?}", "variant", variant, "default",
                               json_object_get(reply, "default"), "times", json_object_get(reply, "variant"));
    if (object == NULL || json_array_append_new(duels, object) != 0) return cli_no_memory();
    return cli_log_save(log);
}
