/* The record nearest to a call.
 *
 * Of the records of the same architecture and problem the one is taken whose lengths are nearest: the distance is the worst
 * of three ratios (batch times heads, queries, keys), each looked at alone, so that calls whose products agree are far apart
 * all the same. Equal ones are told apart by the other two ratios, then by the whole device, then by the mod, then by the group
 * of heads, then by layer, then the later one of a layer wins. The shipped layer is asked only where the user's have nothing.
 *
 * Mods of a class of cost (tuning_record.c) are one problem, as plans list the same variants for them: what was measured with
 * one of them is a better guess for another than the default is, and nobody measures each of their mods. But it is a guess: a
 * record is exact only where the costs of score and mask agree too, and a sweep of the mod itself comes before it.
 */
#include "jit/tuning_record.h"

#include <math.h>

#include "jit/space.h"

typedef struct nearness {
    double distance; /* the logarithm of the worst ratio */
    double sum;      /* of all three, where the worst are equal */
    bool other_device, other_mod, other_group;
} nearness;

typedef struct lookup {
    fj_tuning *tuning;
    const fj_tuning_call *call;
    fj_tuning_key key;
    const fj_tuning_record *best, *illegal;
    fj_variant variant; /* of the best */
    nearness near;      /* of the best */
} lookup;

static double ratio(int64_t a, int64_t b) { return fabs(log2((double)a / (double)b)); }

static nearness nearness_of(const fj_tuning_key *a, const fj_tuning_key *b) {
    const double heads = ratio(a->batch_heads, b->batch_heads), q = ratio(a->q_len, b->q_len),
                 kv = ratio(a->kv_len, b->kv_len);
    return (nearness){.distance = fmax(heads, fmax(q, kv)),
                      .sum = heads + q + kv,
                      .other_device = !fj_cache_digest_equal(a->device, b->device),
                      .other_mod = a->score_cost != b->score_cost || a->mask_cost != b->mask_cost,
                      .other_group = a->gqa != b->gqa};
}

static bool is_nearer(const nearness *a, const nearness *b) {
    if (a->distance < b->distance || a->distance > b->distance) return a->distance < b->distance;
    if (a->sum < b->sum || a->sum > b->sum) return a->sum < b->sum;
    if (a->other_device != b->other_device) return b->other_device;
    if (a->other_mod != b->other_mod) return b->other_mod;
    return a->other_group < b->other_group;
}

static bool is_alike(const lookup *look, const fj_tuning_record *record) {
    return fj_cache_digest_equal(record->key.problem, look->key.problem) &&
           fj_cache_digest_equal(record->key.arch, look->key.arch);
}

static void consider(lookup *look, const fj_tuning_record *record) {
    if (!is_alike(look, record)) return;
    const nearness near = nearness_of(&record->key, &look->key);
    if (near.distance > log2(FJ_TUNING_REACH) || (look->best && !is_nearer(&near, &look->near))) return;
    if (!fj_jit_find_variant(look->call->problem, look->call->features, record->variant, &look->variant)) {
        if (!look->illegal) look->illegal = record;
        return;
    }
    look->best = record;
    look->near = near;
}

static void look_at_shelf(lookup *look, const fj_tuning_shelf *shelf) {
    for (size_t i = shelf->end; i > shelf->first; i--) consider(look, &look->tuning->records.data[i - 1]);
}

/* Once: kernels of many problems may ask for the same file. */
static void warn_of_illegal(const lookup *look) {
    if (!look->illegal) return;
    const bool again = atomic_exchange(&look->tuning->warned, true);
    fj_tuning_log(
        look->tuning, again ? FJ_LOG_DEBUG : FJ_LOG_WARN,
        "tuning file %s: line %d names variant %s, which this problem does not have: it is not used",
        look->tuning->files.data[look->illegal->file], look->illegal->line, look->illegal->variant);
}

fj_status fj_tuning_find(fj_tuning *tuning, const fj_tuning_call *call, bool *ret_is_found,
                         fj_tuning_found *ret_found) {
    *ret_is_found = false;
    if (call->batch_heads < 1 || call->q_len < 1 || call->kv_len < 1) return FJ_OK;
    const fj_status status = fj_tuning_read(tuning);
    if (status != FJ_OK || tuning->records.len == 0) return status;
    lookup look = {.tuning = tuning, .call = call};
    if (!fj_tuning_key_of(call, &look.key)) return FJ_ERR_MEMORY;
    size_t shelf = 0;
    for (; shelf < tuning->folders; shelf++) look_at_shelf(&look, &tuning->shelves.data[shelf]);
    const bool shipped = look.best == NULL;
    if (shipped) look_at_shelf(&look, &tuning->shelves.data[shelf]);
    warn_of_illegal(&look);
    if (!look.best) return FJ_OK;
    const bool exact =
        look.near.distance <= 0 && !look.near.other_device && !look.near.other_mod && !look.near.other_group;
    *ret_is_found = true;
    *ret_found = (fj_tuning_found){.variant = look.variant,
                                   .rule = exact ? FJ_TUNING_EXACT : FJ_TUNING_NEAREST,
                                   .shipped = shipped,
                                   .other_device = look.near.other_device,
                                   .other_mod = look.near.other_mod,
                                   .file = tuning->files.data[look.best->file],
                                   .line = look.best->line,
                                   .batch_heads = look.best->key.batch_heads,
                                   .q_len = look.best->key.q_len,
                                   .kv_len = look.best->key.kv_len};
    return FJ_OK;
}

/* ---- All of them ------------------------------------------------------------------------------------------- */

fj_status fj_tuning_each(fj_tuning *tuning, const fj_tuning_call *call,
                         void (*each)(void *user, const fj_variant *variant), void *user) {
    fj_jit_problem problem = *call->problem;
    const fj_tuning_call alike = {
        .problem = &problem, .features = call->features, .tier = call->tier, .q_len = call->q_len};
    const int groups = problem.gqa == 0 ? 2 : 1; /* alone, or of several */
    const fj_status status = fj_tuning_read(tuning);
    for (int group = 0; status == FJ_OK && group < groups; group++) {
        if (groups > 1) problem.gqa = group + 1;
        lookup look = {.tuning = tuning, .call = &alike};
        if (!fj_tuning_key_of(&alike, &look.key)) return FJ_ERR_MEMORY;
        for (size_t i = 0; i < tuning->records.len; i++) {
            const fj_tuning_record *record = &tuning->records.data[i];
            fj_variant variant;
            if (is_alike(&look, record) &&
                fj_jit_find_variant(&problem, call->features, record->variant, &variant))
                each(user, &variant);
        }
    }
    return status;
}
