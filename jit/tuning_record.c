/* Records of tuning as text, and the keys by which they are compared.
 *
 * A key is a JSON object; two are equal when their texts with sorted members are, so a member that this version does not
 * know makes a record of another problem, not one that is misread.
 */
#include "jit/tuning_record.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* FEW_QUERIES: a call with fewer is like decoding, for what is looked up. HEAVY and LONG_MASK are where plans of GPU kernels
 * change what they list (plan_cuda.c); above COSTLY times that, what a mod costs is all that counts. */
enum {
    FEW_QUERIES = 64,
    FORWARD_HEAVY = 16,
    BACKWARD_HEAVY = 48,
    COSTLY = 16,
    LONG_MASK = 48,
    NOT_KNOWN = -1
};

#define TOOL "flexjit " FJ_VERSION

static const size_t text_flags = JSON_COMPACT | JSON_SORT_KEYS | JSON_ENSURE_ASCII | JSON_REAL_PRECISION(6);

/* ---- Keys ---------------------------------------------------------------------------------------------- */

/* Takes the object over; NULL is a lack of memory. */
static bool digest_take(json_t *object, fj_digest *ret_digest) {
    char *text = object ? json_dumps(object, text_flags) : NULL;
    if (text) *ret_digest = fj_cache_digest(text, strlen(text));
    free(text);
    json_decref(object);
    return text != NULL;
}

static bool is_gpu(const fj_tuning_call *call) { return call->features->arch.number != 0; }

/* The best that this dtype has kernels for. */
static fj_isa isa_of(const fj_tuning_call *call) {
    int isa = FJ_ISA_COUNT - 1;
    while (isa > FJ_ISA_PORTABLE &&
           (!call->features->isa[isa] || (isa == FJ_ISA_AVX512BF16 && call->problem->dtype != FJ_DTYPE_BF16)))
        isa--;
    return (fj_isa)isa;
}

static json_t *device_json(const fj_tuning_call *call) {
    const fj_features *features = call->features;
    if (!is_gpu(call))
        return json_pack("{s:s, s:s, s:i, s:I, s:I, s:I}", "target", fj_jit_target_name(FJ_TARGET_CPU),
                         "arch", fj_jit_isa_name(isa_of(call)), "cores", features->cores, "l1d",
                         (json_int_t)features->l1d, "l2", (json_int_t)features->l2, "l3",
                         (json_int_t)features->l3);
    char arch[FJ_ARCH_NAME];
    fj_jit_arch_name((fj_arch){features->arch.number, '\0'}, arch);
    return json_pack("{s:s, s:s, s:i, s:i}", "target",
                     fj_jit_target_name(features->emulated ? FJ_TARGET_EMU : FJ_TARGET_CUDA), "arch", arch,
                     "multiprocessors", features->multiprocessors, "shared_limit", features->shared_limit);
}

/* What one score costs, and one look at the mask: two mods of which both agree are taken for one. */
static int64_t score_cost(const fj_tuning_call *call) {
    const fj_ir_cost cost = fj_jit_mod_cost(call->problem);
    return (int64_t)cost.score + cost.gradient;
}

static int64_t mask_cost(const fj_tuning_call *call) { return fj_jit_mod_cost(call->problem).mask; }

static const char *class_of(int64_t cost, int heavy) {
    if (cost <= 0) return "none";
    return cost < heavy ? "light" : cost < (int64_t)heavy * COSTLY ? "heavy" : "costly";
}

/* What makes another kernel; what kernels of this device do not know is as if it were not asked for. */
static json_t *problem_json(const fj_tuning_call *call) {
    const fj_jit_problem *of = call->problem;
    const bool gpu = is_gpu(call), backward = of->kind == FJ_JIT_BACKWARD;
    const bool is_few = call->q_len > 0 && call->q_len < FEW_QUERIES;
    json_t *object =
        json_pack("{s:s, s:s, s:i, s:i, s:s, s:s, s:s, s:s, s:b, s:b, s:b}", //
                  "direction", backward ? "bwd" : "fwd", "dtype", fj_dtype_name(of->dtype), "head_dim",
                  of->head_dim, "value_dim", of->value_dim, "form",
                  of->packed  ? "packed"
                  : of->paged ? "paged"
                              : "dense",
                  "mask", fj_mask_tier_name(call->tier), "cost",
                  class_of(score_cost(call), backward ? BACKWARD_HEAVY : FORWARD_HEAVY), "mask_cost",
                  class_of(mask_cost(call), LONG_MASK), "block_mask", (int)of->block_mask, "few_queries",
                  (int)(of->few_queries || is_few), "grouped", (int)(of->gqa > 1));
    json_t *flags =
        json_pack("{s:b, s:b, s:b, s:b, s:b, s:b}", //
                  "max", (int)of->max, "capture_grads", (int)(of->gradient && of->gradient->scatters.len > 0),
                  "deterministic", (int)(of->deterministic || !gpu || !backward), "tf32",
                  (int)(of->tf32 && gpu && of->dtype == FJ_DTYPE_F32), "q_offset", (int)(of->q_offset && gpu),
                  "shared_keys", (int)(of->shared_keys && gpu));
    /* Problems without these have the keys that they had before there were any. */
    const struct {
        const char *name;
        bool is_there;
    } rare[] = {{"dropout", of->dropout}, {"out", of->out != NULL}, {"sink", of->sink != NULL}};
    bool whole = object && flags && json_object_update(object, flags) == 0;
    for (size_t i = 0; i < FJ_ARRAY_LEN(rare) && whole; i++)
        whole = !rare[i].is_there || json_object_set_new(object, rare[i].name, json_true()) == 0;
    json_decref(flags);
    if (whole) return object;
    json_decref(object);
    return NULL;
}

/* The part of a device that has to agree. */
static json_t *arch_json(const json_t *device) {
    return json_pack("{s:O?, s:O?}", "target", json_object_get(device, "target"), "arch",
                     json_object_get(device, "arch"));
}

static bool digest_keys(json_t *device, json_t *problem, fj_tuning_key *ret_key) {
    json_t *arch = arch_json(device);
    bool made = digest_take(arch, &ret_key->arch);
    made &= digest_take(device, &ret_key->device);
    return digest_take(problem, &ret_key->problem) && made;
}

bool fj_tuning_key_of(const fj_tuning_call *call, fj_tuning_key *ret_key) {
    *ret_key = (fj_tuning_key){.batch_heads = call->batch_heads,
                               .q_len = call->q_len,
                               .kv_len = call->kv_len,
                               .gqa = call->problem->gqa,
                               .score_cost = score_cost(call),
                               .mask_cost = mask_cost(call)};
    return digest_keys(device_json(call), problem_json(call), ret_key);
}

/* ---- Reading ------------------------------------------------------------------------------------------- */

void fj_tuning_reader_begin(fj_tuning_reader *reader, fj_str text, bool any_version) {
    *reader = (fj_tuning_reader){.rest = text, .any_version = any_version};
}

static void skip(fj_tuning_reader *reader, const char *why) {
    if (reader->skipped++ > 0) return;
    reader->first_line = reader->line;
    reader->first_why = why;
}

static bool is_blank(fj_str line) {
    for (size_t i = 0; i < line.len; i++)
        if (line.data[i] != ' ' && line.data[i] != '\t' && line.data[i] != '\r') return false;
    return true;
}

static fj_str next_line(fj_tuning_reader *reader) {
    const char *end = memchr(reader->rest.data, '\n', reader->rest.len);
    const size_t length = end ? (size_t)(end - reader->rest.data) : reader->rest.len;
    const fj_str line = {reader->rest.data, length};
    reader->rest.data += length + (end != NULL);
    reader->rest.len -= length + (end != NULL);
    reader->line++;
    return line;
}

static void read_header(fj_tuning_reader *reader, const json_t *header) {
    const json_t *schema = json_object_get(header, "schema");
    const char *tool = json_string_value(json_object_get(header, "tool"));
    reader->headed = true;
    reader->current = false;
    if (!json_is_integer(schema) || json_integer_value(schema) != FJ_TUNING_SCHEMA) {
        reader->foreign = true;
        skip(reader, "is a header of another schema");
    } else if (!tool) {
        skip(reader, "is a header that names no tool");
    } else {
        reader->current = reader->any_version || strcmp(tool, TOOL) == 0;
    }
}

static bool read_count(const json_t *call, const char *name, json_int_t least, int64_t *ret_value) {
    const json_t *value = json_object_get(call, name);
    *ret_value = json_integer_value(value);
    return json_is_integer(value) && *ret_value >= least;
}

/* One that has none is of a mod that is not known. */
static bool read_cost(const json_t *call, const char *name, int64_t *ret_value) {
    *ret_value = NOT_KNOWN;
    return !json_object_get(call, name) || read_count(call, name, 0, ret_value);
}

static bool is_target(const char *name) {
    for (int i = 0; name && i < FJ_TARGET_COUNT; i++)
        if (strcmp(name, fj_jit_target_name((fj_target)i)) == 0) return true;
    return false;
}

/* NULL, or what is wrong with it. */
static const char *read_record(const json_t *object, fj_tuning_record *ret_record) {
    json_t *device = json_object_get(object, "device"), *problem = json_object_get(object, "problem");
    const json_t *call = json_object_get(object, "call");
    const char *variant = json_string_value(json_object_get(object, "variant"));
    fj_tuning_record record = {0};
    if (!json_is_object(device) || !json_is_object(problem) || !json_is_object(call))
        return "is a record without device, problem or call";
    if (!is_target(json_string_value(json_object_get(device, "target"))) ||
        !json_is_string(json_object_get(device, "arch")))
        return "is a record of a target that is not known";
    if (!variant || !*variant || strlen(variant) >= sizeof record.variant)
        return "is a record without the name of a variant";
    if (!read_count(call, "batch_heads", 1, &record.key.batch_heads) ||
        !read_count(call, "q_len", 1, &record.key.q_len) ||
        !read_count(call, "kv_len", 1, &record.key.kv_len) || !read_count(call, "gqa", 0, &record.key.gqa))
        return "is a record without lengths";
    if (!read_cost(call, "score_cost", &record.key.score_cost) ||
        !read_cost(call, "mask_cost", &record.key.mask_cost))
        return "is a record whose costs are no numbers";
    if (!digest_keys(json_incref(device), json_incref(problem), &record.key))
        return "does not fit into memory";
    memcpy(record.variant, variant, strlen(variant) + 1);
    *ret_record = record;
    return NULL;
}

/* False: the line has no record that is used. */
static bool read_line(fj_tuning_reader *reader, fj_str line, fj_tuning_record *ret_record) {
    if (is_blank(line)) return false;
    json_t *object = line.len <= FJ_TUNING_LONGEST_LINE
                       ? json_loadb(line.data, line.len, JSON_REJECT_DUPLICATES, NULL)
                       : NULL;
    const char *wrong = NULL;
    bool is_record = false;
    if (!json_is_object(object)) {
        wrong = "is not a JSON object";
    } else if (json_object_get(object, "schema")) {
        read_header(reader, object);
    } else if (!reader->headed) {
        wrong = "is a record without a header before it";
    } else if (!reader->current) {
        wrong = "is a record of another schema or version of flexjit";
    } else {
        wrong = read_record(object, ret_record);
        is_record = wrong == NULL;
    }
    if (wrong) skip(reader, wrong);
    json_decref(object);
    ret_record->line = reader->line;
    return is_record;
}

bool fj_tuning_reader_next(fj_tuning_reader *reader, fj_tuning_record *ret_record) {
    while (reader->rest.len > 0)
        if (read_line(reader, next_line(reader), ret_record)) return true;
    return false;
}

/* ---- Writing ------------------------------------------------------------------------------------------- */

/* Takes the object over. */
static char *line_take(json_t *object) {
    char *text = object ? json_dumps(object, text_flags) : NULL;
    json_decref(object);
    const size_t length = text ? strlen(text) : 0;
    char *line = text ? malloc(length + 2) : NULL;
    if (line) (void)snprintf(line, length + 2, "%s\n", text);
    free(text);
    return line;
}

char *fj_tuning_header_text(void) {
    return line_take(json_pack("{s:i, s:s}", "schema", FJ_TUNING_SCHEMA, "tool", TOOL));
}

char *fj_tuning_record_text(const fj_tuning_new *record) {
    const fj_tuning_call *call = &record->call;
    char date[80] = "";
    const time_t now = time(NULL);
    struct tm at;
    if (gmtime_r(&now, &at))
        (void)snprintf(date, sizeof date, "%04d-%02d-%02dT%02d:%02d:%02dZ", at.tm_year + 1900, at.tm_mon + 1,
                       at.tm_mday, at.tm_hour, at.tm_min, at.tm_sec);
    json_t *machine = json_string(record->machine ? record->machine : "");
    if (!machine) machine = json_string(""); /* not UTF-8 */
    return line_take(json_pack(
        "{s:{s:I, s:I, s:I, s:I, s:I, s:I}, s:s, s:o, s:o, s:o, s:f, s:s, s:{s:s, s:f}}", //
        "call", "batch_heads", (json_int_t)call->batch_heads, "gqa", (json_int_t)call->problem->gqa, "kv_len",
        (json_int_t)call->kv_len, "q_len", (json_int_t)call->q_len, "mask_cost", (json_int_t)mask_cost(call),
        "score_cost", (json_int_t)score_cost(call), "date", date, "device", device_json(call), "problem",
        problem_json(call), "machine", machine, "time_ms", record->best.ms, "variant", record->best.variant,
        "default", "variant", record->standard.variant, "time_ms", record->standard.ms));
}
