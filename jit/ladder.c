/* Which variant is taken where none was asked for: the first of its family whose kernel spills no registers, which only
 * ptxas knows; else the one that spills least. Up to FEW_BYTES count as none: a smaller tile costs more than the few
 * moves outside of loops that they are, besides the time to compile it. Spills inside of loops begin at some 60 bytes
 * where machine code was looked at (backward of a soft cap, BF16: 32 stored and 28 loaded, 11 of 15 moves in a loop).
 *
 *     variants   A    B    C            best first, of one family: mma or simt, packed or not
 *     spills    40    8    0
 *     record of A: instead C            the next time, and on other machines, only C is looked for
 *
 * The jit remembers it as well, for a cache that cannot be written. A variant that cannot be compiled, also because
 * there is no compiler, ends the climb: then the best until there is taken, and nothing is remembered.
 *
 * What is loaded of those that spill is unloaded at once.
 */
#include <string.h>

#include "jit/prepare.h"

enum { MOST_STEPS = 4 /* each is a compilation */, FEW_BYTES = 32 };

typedef struct climb {
    fj_jit *jit;
    const fj_driver *driver;
    const fj_jit_problem *problem;
    const fj_variant *first;
    fj_variant variants[FJ_JIT_MAX_VARIANTS];
    int count;
    bool verify;
    fj_made made;           /* of the chosen one */
    const fj_variant *best; /* which one that is */
} climb;

/* Bytes stored and loaded, of all entries. */
static int spills_of(const fj_made *made) {
    int sum = 0;
    for (int i = 0; i < made->info.resource_count; i++)
        sum += made->info.resources[i].spill_stores + made->info.resources[i].spill_loads;
    return sum;
}

static bool is_good(const fj_made *made) { return spills_of(made) <= FEW_BYTES; }

static const fj_variant *find_variant(const climb *c, const char *name) {
    for (int i = 0; i < c->count; i++)
        if (strcmp(c->variants[i].name, name) == 0) return &c->variants[i];
    return NULL;
}

static bool is_family(const fj_variant *a, const fj_variant *b) {
    return a->mma == b->mma && a->pack_heads == b->pack_heads && a->wide_captures == b->wide_captures;
}

/* NULL: out of memory. */
static const fj_variant *remember(fj_jit *jit, const fj_made *of, const fj_variant *variant) {
    const fj_variant *known = fj_jit_recall(jit, of->key, of->source);
    if (known) return known;
    fj_choice *fresh = fj_alloc_zeroed(jit->allocator, sizeof *fresh);
    if (!fresh) return NULL;
    *fresh = (fj_choice){.key = of->key, .source = of->source, .variant = *variant};
    (void)pthread_mutex_lock(&jit->lock);
    fresh->next = jit->choices;
    jit->choices = fresh;
    (void)pthread_mutex_unlock(&jit->lock);
    return &fresh->variant;
}

/* ---- Climbing -------------------------------------------------------------------------------------------- */

static fj_status make(const climb *c, const fj_variant *variant, fj_ask ask, fj_made *ret_made,
                      fj_error *error) {
    return fj_jit_make(c->jit, c->driver, c->problem, variant, ask, ret_made, error);
}

static void add_times(fj_jit_info *info, const fj_jit_info *other) {
    info->cache_hit &= other->cache_hit;
    info->compile_ms += other->compile_ms;
    info->load_ms += other->load_ms;
}

/* One more. False: it cannot be had. */
static bool step(climb *c, const fj_variant *variant) {
    fj_made made;
    fj_error error = {0};
    fj_status status = make(c, variant, (fj_ask){.verify = c->verify}, &made, &error);
    fj_error_finish(&error);
    if (status != FJ_OK) return false;
    const bool better = spills_of(&made) < spills_of(&c->made);
    fj_made *worse = better ? &c->made : &made;
    add_times(better ? &made.info : &c->made.info, &worse->info);
    fj_jit_release(c->jit, &worse->object);
    if (!better) return true;
    c->made = made;
    c->best = variant;
    return true;
}

/* From the first, which is made and spills. False: not all that come into question were tried. */
static bool climb_on(climb *c) {
    const fj_variant *at = find_variant(c, c->first->name), *end = c->variants + c->count;
    int steps = 0;
    for (at = at ? at + 1 : end; at < end && steps < MOST_STEPS && !is_good(&c->made); at++) {
        if (!is_family(at, c->first)) continue;
        if (!step(c, at)) return false;
        steps++;
    }
    return true;
}

/* A name of an older release is no variant: then the first is taken. */
static fj_status take_other(climb *c, const char *name, fj_error *error) {
    const fj_variant *other = find_variant(c, name);
    if (other) c->best = other;
    return make(c, c->best, (fj_ask){.verify = c->verify}, &c->made, error);
}

static fj_status choose(climb *c, const fj_features *features, fj_error *error) {
    fj_status status = make(c, c->first, (fj_ask){.verify = c->verify, .replaceable = true}, &c->made, error);
    if (status != FJ_OK || (c->made.instead[0] == '\0' && is_good(&c->made))) return status;
    const fj_made first = c->made;
    bool whole = false;
    c->count = fj_jit_variants(c->problem, features, c->variants);
    if (first.instead[0])
        status = take_other(c, first.instead, error);
    else
        whole = climb_on(c);
    if (status != FJ_OK || c->best == c->first) return status;
    c->best = remember(c->jit, &first, c->best);
    if (!c->best) {
        fj_jit_release(c->jit, &c->made.object);
        return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    }
    fj_made ignored;
    if (whole) (void)make(c, c->first, (fj_ask){.instead = c->best->name}, &ignored, NULL);
    return FJ_OK;
}

fj_status fj_jit_choose(fj_jit *jit, const fj_driver *driver, const fj_jit_problem *problem,
                        const fj_features *features, const fj_variant *variant, bool verify,
                        fj_jit_chosen *ret_chosen, fj_error *error) {
    climb c = {.jit = jit,
               .driver = driver,
               .problem = problem,
               .first = variant,
               .best = variant,
               .verify = verify};
    fj_status status = choose(&c, features, error);
    if (status == FJ_OK)
        *ret_chosen = (fj_jit_chosen){.variant = c.best, .object = c.made.object, .info = c.made.info};
    return status;
}
