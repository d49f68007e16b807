/* What the threads of a process share.
 *
 * The lock is held to look and to enter, never while compiling. A promise without an object says that a thread makes
 * it: it ends with an object, or goes, and those who waited try themselves. */
#include "jit/sharing.h"

#include <pthread.h>
#include <stdlib.h>

/* ---- Life ---------------------------------------------------------------------------------------- */

fj_status fj_jit_create(const fj_jit_desc *desc, fj_jit **ret_jit) {
    fj_jit *jit = fj_alloc_zeroed(desc->allocator, sizeof *jit);
    if (!jit) return FJ_ERR_MEMORY;
    jit->allocator = desc->allocator;
    jit->cache = desc->cache;
    jit->ops = desc->ops ? desc->ops : &fj_file_ops_system;
    jit->log = desc->log;
    jit->log_user = desc->log_user;
    (void)pthread_mutex_init(&jit->lock, NULL);
    (void)pthread_cond_init(&jit->changed, NULL);
    *ret_jit = jit;
    return FJ_OK;
}

void fj_jit_destroy(fj_jit **jit) {
    if (!jit || !*jit) return;
    while ((*jit)->choices) {
        fj_choice *first = (*jit)->choices;
        (*jit)->choices = first->next;
        fj_free((*jit)->allocator, first, sizeof *first);
    }
    (void)pthread_cond_destroy(&(*jit)->changed);
    (void)pthread_mutex_destroy(&(*jit)->lock);
    fj_free((*jit)->allocator, *jit, sizeof **jit);
    *jit = NULL;
}

const fj_code *fj_jit_object_code(const fj_object *object) { return object->code; }

/* ---- Promises ------------------------------------------------------------------------------------ */

static bool is_of(fj_digest key, fj_digest source, const fj_request *request) {
    return fj_cache_digest_equal(key, request->key) && fj_cache_digest_equal(source, request->source);
}

static fj_promise *find_promise(const fj_jit *jit, const fj_driver *driver, const fj_request *request) {
    for (fj_promise *at = jit->promises; at; at = at->next)
        if (at->driver == driver && is_of(at->key, at->source, request)) return at;
    return NULL;
}

/* This one, or those of an object. */
static void drop_promises(fj_jit *jit, const fj_promise *this, const fj_object *object) {
    for (fj_promise **at = &jit->promises; *at;) {
        fj_promise *here = *at;
        if (here != this && (!object || here->object != object)) {
            at = &here->next;
            continue;
        }
        *at = here->next;
        fj_free(jit->allocator, here, sizeof *here);
    }
}

static fj_promise *add_promise(fj_jit *jit, const fj_driver *driver, const fj_request *request) {
    fj_promise *fresh = fj_alloc_zeroed(jit->allocator, sizeof *fresh);
    if (!fresh) return NULL;
    fresh->driver = driver;
    fresh->key = request->key;
    fresh->source = request->source;
    fresh->next = jit->promises;
    return jit->promises = fresh;
}

fj_object *fj_sharing_take(fj_jit *jit, const fj_driver *driver, const fj_request *request,
                           fj_promise **ret_promise) {
    (void)pthread_mutex_lock(&jit->lock);
    fj_promise *found;
    while ((found = find_promise(jit, driver, request)) != NULL && !found->object)
        (void)pthread_cond_wait(&jit->changed, &jit->lock);
    fj_object *object = found ? found->object : NULL;
    if (object) object->refs++;
    *ret_promise = object ? NULL : add_promise(jit, driver, request);
    (void)pthread_mutex_unlock(&jit->lock);
    return object;
}

void fj_sharing_settle(fj_jit *jit, fj_promise *promise, fj_object *object) {
    (void)pthread_mutex_lock(&jit->lock);
    if (object)
        promise->object = object;
    else
        drop_promises(jit, promise, NULL);
    (void)pthread_cond_broadcast(&jit->changed);
    (void)pthread_mutex_unlock(&jit->lock);
}

/* ---- Objects ------------------------------------------------------------------------------------- */

fj_object *fj_sharing_find(fj_jit *jit, const fj_driver *driver, fj_digest content) {
    (void)pthread_mutex_lock(&jit->lock);
    fj_object *at = jit->objects;
    while (at && !(at->driver == driver && fj_cache_digest_equal(at->content, content))) at = at->next;
    if (at) at->refs++;
    (void)pthread_mutex_unlock(&jit->lock);
    return at;
}

void fj_sharing_add(fj_jit *jit, fj_object *object) {
    (void)pthread_mutex_lock(&jit->lock);
    object->next = jit->objects;
    jit->objects = object;
    (void)pthread_mutex_unlock(&jit->lock);
}

void fj_jit_release(fj_jit *jit, fj_object **object) {
    if (!object || !*object) return;
    fj_object *last = *object;
    *object = NULL;
    (void)pthread_mutex_lock(&jit->lock);
    if (--last->refs > 0) {
        (void)pthread_mutex_unlock(&jit->lock);
        return;
    }
    drop_promises(jit, NULL, last);
    for (fj_object **at = &jit->objects; *at; at = &(*at)->next)
        if (*at == last) {
            *at = last->next;
            break;
        }
    (void)pthread_mutex_unlock(&jit->lock);
    last->driver->unload(&last->code);
    fj_free(jit->allocator, last, sizeof *last);
}

/* ---- Choices ------------------------------------------------------------------------------------- */

static const fj_variant *find_choice(const fj_jit *jit, const fj_request *request) {
    for (const fj_choice *at = jit->choices; at; at = at->next)
        if (is_of(at->key, at->source, request)) return &at->variant;
    return NULL;
}

const fj_variant *fj_sharing_recall(fj_jit *jit, const fj_request *request) {
    (void)pthread_mutex_lock(&jit->lock);
    const fj_variant *found = find_choice(jit, request);
    (void)pthread_mutex_unlock(&jit->lock);
    return found;
}

const fj_variant *fj_sharing_remember(fj_jit *jit, const fj_request *request, const fj_variant *variant) {
    (void)pthread_mutex_lock(&jit->lock);
    const fj_variant *kept = find_choice(jit, request);
    fj_choice *fresh = kept ? NULL : fj_alloc_zeroed(jit->allocator, sizeof *fresh);
    if (fresh) {
        *fresh = (fj_choice){jit->choices, request->key, request->source, *variant};
        jit->choices = fresh;
        kept = &fresh->variant;
    }
    (void)pthread_mutex_unlock(&jit->lock);
    return kept;
}
