/* Which variant is taken where none was asked for: the first of its family whose kernel spills no registers, which only
 * ptxas knows; else the one that spills least. Up to FEW_BYTES count as none: a smaller tile costs more than the few
 * moves outside of loops that they are, besides the time to compile it. Spills inside of loops begin at some 60 bytes
 * where machine code was looked at (backward of a soft cap, BF16: 32 stored and 28 loaded, 11 of 15 moves in a loop).
 *
 *     variants   A    B    C            best first, of one family: mma or simt, packed or not
 *     spills    40    8    0
 *     record of A: replacement C        the next time, and on other machines, only C is looked for
 *
 * The jit remembers it as well, for a cache that cannot be written. A variant that cannot be compiled, also because
 * there is no compiler, stops the search: then the best so far is taken, and nothing is remembered.
 *
 * What is loaded of those that spill is unloaded at once.
 */
#include <string.h>

#include "jit/prepare.h"

enum { MOST_STEPS = 4 /* each is a compilation */, FEW_BYTES = 32 };

typedef struct search {
    fj_jit *jit;
    const fj_driver *driver;
    const fj_jit_problem *problem;
    const fj_variant *first;
    fj_variant variants[FJ_JIT_MAX_VARIANTS];
    int count;
    bool verify;
    fj_made made;           /* of the chosen one */
    const fj_variant *best; /* which one that is */
} search;

/* Bytes stored and loaded, of all entries. */
static int spills_of(const fj_made *made) {
    int sum = 0;
    for (int i = 0; i < made->info.resource_count; i++)
        sum += made->info.resources[i].spill_stores + made->info.resources[i].spill_loads;
    return sum;
}

static bool is_good(const fj_made *made) { return spills_of(made) <= FEW_BYTES; }

static const fj_variant *find_variant(const search *s, const char *name) {
    for (int i = 0; i < s->count; i++)
        if (strcmp(s->variants[i].name, name) == 0) return &s->variants[i];
    return NULL;
}

static bool is_family(const fj_variant *a, const fj_variant *b) {
    return a->mma == b->mma && a->pack_heads == b->pack_heads && a->splits == b->splits &&
           a->wide_captures == b->wide_captures;
}

static fj_status make(const search *s, const fj_variant *variant, fj_made *ret_made, fj_error *error) {
    fj_request request;
    fj_status status = fj_request_create(s->problem, variant, s->jit->allocator, &request, error);
    if (status == FJ_OK) status = fj_jit_make(s->jit, s->driver, &request, s->verify, ret_made, error);
    fj_request_finish(&request);
    return status;
}

/* ---- Searching ------------------------------------------------------------------------------------------- */

static void add_times(fj_jit_info *info, const fj_jit_info *other) {
    info->cache_hit &= other->cache_hit;
    info->compile_ms += other->compile_ms;
    info->load_ms += other->load_ms;
}

/* One more. False: it cannot be had. */
static bool step(search *s, const fj_variant *variant) {
    fj_made made;
    fj_error error = {0};
    fj_status status = make(s, variant, &made, &error);
    fj_error_finish(&error);
    if (status != FJ_OK) return false;
    const bool better = spills_of(&made) < spills_of(&s->made);
    fj_made *worse = better ? &s->made : &made;
    add_times(better ? &made.info : &s->made.info, &worse->info);
    fj_jit_release(s->jit, &worse->object);
    if (!better) return true;
    s->made = made;
    s->best = variant;
    return true;
}

/* From the first, which is made and spills. False: not all that come into question were tried. */
static bool search_on(search *s) {
    const fj_variant *at = find_variant(s, s->first->name), *end = s->variants + s->count;
    int steps = 0;
    for (at = at ? at + 1 : end; at < end && steps < MOST_STEPS && !is_good(&s->made); at++) {
        if (!is_family(at, s->first)) continue;
        if (!step(s, at)) return false;
        steps++;
    }
    return true;
}

/* What an earlier search found better, in this process or by the cache's record; NULL: nothing. A name of an older
 * release is not a variant. */
static const fj_variant *find_replacement(const search *s, const fj_request *first) {
    const fj_variant *known = fj_sharing_recall(s->jit, first);
    fj_record record;
    if (known) return known;
    bool named = fj_jit_record_find(s->jit->cache, first, &record) && record.replacement[0];
    return named ? find_variant(s, record.replacement) : NULL;
}

static fj_status make_first(search *s, const fj_request *first, fj_error *error) {
    fj_status status = fj_jit_make(s->jit, s->driver, first, s->verify, &s->made, error);
    if (status != FJ_OK || is_good(&s->made)) return status;
    fj_record record;
    if (search_on(s) && s->best != s->first && fj_jit_record_find(s->jit->cache, first, &record))
        (void)fj_jit_record_put(s->jit->cache, first, record.content, s->best->name);
    return FJ_OK;
}

static fj_status make_best(search *s, const fj_request *first, fj_error *error) {
    const fj_variant *replacement = find_replacement(s, first);
    if (replacement) s->best = replacement;
    fj_status status = replacement ? make(s, replacement, &s->made, error) : make_first(s, first, error);
    if (status != FJ_OK || s->best == s->first) return status;
    s->best = fj_sharing_remember(s->jit, first, s->best); /* which outlives this search */
    if (s->best) return FJ_OK;
    fj_jit_release(s->jit, &s->made.object);
    return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
}

fj_status fj_jit_choose(fj_jit *jit, const fj_driver *driver, const fj_jit_problem *problem,
                        const fj_features *features, const fj_variant *variant, bool verify,
                        fj_jit_chosen *ret_chosen, fj_error *error) {
    search s = {.jit = jit,
                .driver = driver,
                .problem = problem,
                .first = variant,
                .best = variant,
                .verify = verify};
    fj_request first;
    fj_status status = fj_request_create(problem, variant, jit->allocator, &first, error);
    if (status == FJ_OK) {
        s.count = fj_jit_variants(problem, features, s.variants);
        status = make_best(&s, &first, error);
    }
    fj_request_finish(&first);
    if (status == FJ_OK)
        *ret_chosen = (fj_jit_chosen){.variant = s.best, .object = s.made.object, .info = s.made.info};
    return status;
}
