/* Making a kernel ready: share, find, or compile; load.
 *
 *   1. render, and from the text the request and source digests
 *   2. an object of this process with the same request and source is shared; if another thread is
 *      at it, wait for that
 *   3. the cache: selection record -> kernel
 *   4. the compiler: content key -> kernel of the cache, else compile and write both
 *   5. load, or share an object with the same content
 *
 * The lock is held to look and to enter, never while compiling. An entry without an object is a
 * promise of the thread that entered it: it ends as an object, or the entry goes and those who
 * waited try themselves.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "jit/prepare.h"

/* A loaded code object. Guarded by the lock of its jit. */
struct fj_object {
    fj_object *next;
    const fj_driver *driver;
    fj_code *code;
    fj_digest content;
    int64_t refs;
    int resource_count; /* what its compiler said */
    fj_resources resources[FJ_RESOURCES_MAX];
};

/* Request -> object; holds no reference: it goes with the object. */
typedef struct fj_promise {
    struct fj_promise *next;
    fj_digest key, source;
    fj_object *object; /* NULL while a thread is at it */
} promise;

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

static void say(const fj_jit *jit, fj_log_level level, const char *format, ...) FJ_PRINTF(3, 4);
static void say(const fj_jit *jit, fj_log_level level, const char *format, ...) {
    if (!jit->log) return;
    char message[512];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(message, sizeof message, format, list);
    va_end(list);
    jit->log(jit->log_user, level, message);
}

static double now_ms(void) {
    struct timespec now;
    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec * 1e3 + (double)now.tv_nsec * 1e-6;
}

/* ---- The table, under the lock ---------------------------------------------------------------------- */

static promise *find_promise(fj_jit *jit, const fj_request *request) {
    for (promise *at = jit->promises; at; at = at->next)
        if (fj_cache_digest_equal(at->key, request->key) &&
            fj_cache_digest_equal(at->source, request->source))
            return at;
    return NULL;
}

static void drop_promises(fj_jit *jit, const promise *this, const fj_object *object) {
    for (promise **at = &jit->promises; *at;) {
        promise *here = *at;
        if (here != this && (!object || here->object != object)) {
            at = &here->next;
            continue;
        }
        *at = here->next;
        fj_free(jit->allocator, here, sizeof *here);
    }
}

static fj_object *find_object(const fj_jit *jit, const fj_driver *driver, fj_digest content) {
    for (fj_object *at = jit->objects; at; at = at->next)
        if (at->driver == driver && fj_cache_digest_equal(at->content, content)) return at;
    return NULL;
}

/* Shares an object, waiting for a thread that is making it; or enters a promise. Both NULL: out of
 * memory. */
static fj_object *share_or_promise(fj_jit *jit, const fj_request *request, promise **ret_promise) {
    fj_object *object = NULL;
    (void)pthread_mutex_lock(&jit->lock);
    promise *found;
    while ((found = find_promise(jit, request)) != NULL && !found->object)
        (void)pthread_cond_wait(&jit->changed, &jit->lock);
    if (found) {
        object = found->object;
        object->refs++;
    } else {
        promise *fresh = fj_alloc_zeroed(jit->allocator, sizeof *fresh);
        if (fresh) {
            fresh->key = request->key;
            fresh->source = request->source;
            fresh->next = jit->promises;
            jit->promises = fresh;
        }
        *ret_promise = fresh;
    }
    (void)pthread_mutex_unlock(&jit->lock);
    return object;
}

/* An object, with a reference for the caller, that an equal content loaded earlier gave. */
static fj_object *share_content(fj_jit *jit, const fj_driver *driver, fj_digest content) {
    (void)pthread_mutex_lock(&jit->lock);
    fj_object *object = find_object(jit, driver, content);
    if (object) object->refs++;
    (void)pthread_mutex_unlock(&jit->lock);
    return object;
}

/* Ends a promise: with an object, or (NULL) without. */
static void settle(fj_jit *jit, promise *made, fj_object *object) {
    (void)pthread_mutex_lock(&jit->lock);
    if (object)
        made->object = object;
    else
        drop_promises(jit, made, NULL);
    (void)pthread_cond_broadcast(&jit->changed);
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

/* ---- Making an object --------------------------------------------------------------------------------- */

/* One kernel on its way. */
typedef struct job {
    fj_jit *jit;
    const fj_driver *driver; /* NULL: it is not loaded, only kept */
    const fj_request *request;
    fj_str source;
    fj_ask ask;
    fj_made made;
} job;

static void take_resources(job *j, const fj_resources *resources, int count) {
    j->made.info.resource_count = count;
    memcpy(j->made.info.resources, resources, sizeof *resources * (size_t)count);
}

/* With the resources that the job has already. */
static fj_status load_object(job *j, fj_digest content, fj_str payload, fj_error *error) {
    fj_jit *jit = j->jit;
    const fj_driver *driver = j->driver;
    fj_object *object = share_content(jit, driver, content);
    if (!object) {
        object = fj_alloc_zeroed(jit->allocator, sizeof *object);
        if (!object) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
        fj_status status =
            driver->load(driver, jit->allocator, payload.data, payload.len, &object->code, error);
        if (status == FJ_OK) {
            status = fj_jit_verify_code(j->request->variant, driver, object->code, error);
            if (status != FJ_OK) driver->unload(&object->code);
        }
        if (status != FJ_OK) {
            fj_free(jit->allocator, object, sizeof *object);
            return status;
        }
        object->driver = driver;
        object->content = content;
        object->refs = 1;
        object->resource_count = j->made.info.resource_count;
        memcpy(object->resources, j->made.info.resources, sizeof object->resources);
        (void)pthread_mutex_lock(&jit->lock);
        object->next = jit->objects;
        jit->objects = object;
        (void)pthread_mutex_unlock(&jit->lock);
    }
    j->made.object = object;
    return FJ_OK;
}

static void share_resources(job *j) {
    take_resources(j, j->made.object->resources, j->made.object->resource_count);
}

/* Loads it, or sees that it could be. */
static fj_status use(job *j, fj_digest content, fj_str payload, fj_error *error) {
    if (j->driver) return load_object(j, content, payload, error);
    return fj_jit_verify_payload(j->request->variant, j->jit->allocator, payload, error);
}

/* A content that this process or the cache has. A kernel that does not load here (made for another
 * libc) is a miss. */
static bool find_content(job *j, fj_digest content) {
    fj_jit *jit = j->jit;
    fj_cache_entry entry;
    if (j->driver) j->made.object = share_content(jit, j->driver, content);
    if (j->made.object) {
        share_resources(j);
        return true;
    }
    if (!fj_cache_get(jit->cache, FJ_CACHE_KERNEL, content, &entry)) return false;
    fj_error error = {0};
    j->made.info.resource_count = fj_jit_record_resources(entry.metadata, j->made.info.resources);
    fj_status status = use(j, content, entry.payload, &error);
    if (status != FJ_OK)
        say(jit, FJ_LOG_WARN, "kernel %s of the cache is not used: %s", j->request->variant->name,
            error.text);
    fj_error_finish(&error);
    fj_cache_entry_finish(jit->cache, &entry);
    return status == FJ_OK;
}

/* What needs no compiler. Of a variant that may be replaced, the record may name another. */
static bool find(job *j) {
    fj_record record;
    if (!fj_jit_record_find(j->jit->cache, j->request, &record)) return false;
    if (j->ask.replaceable && record.instead[0]) {
        memcpy(j->made.instead, record.instead, sizeof j->made.instead);
        return true;
    }
    return find_content(j, record.content);
}

static bool jit_is_off(void) {
    const char *value = getenv("FLEXJIT_NO_JIT");
    return value && *value && strcmp(value, "0") != 0;
}

/* What is not loaded must at least be kept. */
static fj_status keep(const job *j, fj_digest content, const fj_toolchain *toolchain,
                      const fj_compiled *compiled, fj_error *error) {
    bool kept = fj_jit_record_put_kernel(j->jit->cache, j->request, content, &toolchain->compiler, compiled,
                                         j->made.info.compile_ms);
    if (kept || j->driver) return FJ_OK;
    return fj_error_set(error, FJ_ERR_IO, "kernel %s cannot be written to the cache",
                        j->request->variant->name);
}

static fj_status compile(job *j, const fj_toolchain *toolchain, fj_digest content, double start,
                         fj_error *error) {
    fj_jit *jit = j->jit;
    fj_compiled compiled;
    fj_jit_compiled_init(&compiled, jit->allocator);
    say(jit, FJ_LOG_INFO, "compiling %s with %s %s", j->request->variant->name, toolchain->compiler.path,
        toolchain->compiler.version);
    fj_status status = fj_jit_toolchain_compile(toolchain, jit->ops, j->request->variant, j->request->options,
                                                j->source, &compiled, error);
    j->made.info.compile_ms = now_ms() - start;
    fj_str payload = {compiled.bytes.data, compiled.bytes.len};
    take_resources(j, compiled.resources, compiled.resource_count);
    if (status == FJ_OK) status = use(j, content, payload, error);
    if (status == FJ_OK) status = keep(j, content, toolchain, &compiled, error);
    fj_jit_compiled_finish(&compiled);
    return status;
}

/* After a failure: whether the compiler does not work at all and there is another one. */
static bool find_another(const job *j, fj_toolchain *toolchain, fj_error *error) {
    fj_error ignored = {0};
    if (!toolchain->nvrtc || !toolchain->nvrtc->broken) return false;
    bool found = fj_jit_toolchain_find(j->request->variant, j->jit->ops, j->jit->allocator, toolchain,
                                       &ignored) == FJ_OK &&
                 !toolchain->nvrtc->broken;
    fj_error_finish(&ignored);
    if (found) say(j->jit, FJ_LOG_WARN, "%s", error ? error->text : "the compiler does not work");
    if (found) fj_error_finish(error);
    return found;
}

/* Compiles, unless the cache has the content already under another request. */
static fj_status make(job *j, fj_error *error) {
    const fj_variant *variant = j->request->variant;
    if (jit_is_off())
        return fj_error_set(error, FJ_ERR_NO_JIT,
                            "FLEXJIT_NO_JIT is set and the cache has no kernel %s for this mod",
                            variant->name);
    fj_toolchain toolchain;
    fj_digest content;
    double start = now_ms();
    fj_status status = fj_jit_toolchain_find(variant, j->jit->ops, j->jit->allocator, &toolchain, error);
    while (status == FJ_OK) {
        content = fj_jit_content_key(j->request->source, &toolchain.compiler);
        if (find_content(j, content)) break;
        status = compile(j, &toolchain, content, start, error);
        j->made.info.cache_hit = false;
        if (status == FJ_OK || !find_another(j, &toolchain, error)) break;
        status = FJ_OK;
    }
    if (status == FJ_OK && !fj_jit_record_put(j->jit->cache, j->request, content, "") && !j->driver)
        status = fj_error_set(error, FJ_ERR_IO, "the cache cannot be written");
    return status;
}

static fj_status prepare(job *j, fj_error *error) {
    promise *made = NULL;
    j->made.object = share_or_promise(j->jit, j->request, &made);
    if (!j->made.object && !made) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    if (j->made.object) {
        share_resources(j);
        return FJ_OK;
    }
    fj_status status = find(j) ? FJ_OK : make(j, error);
    settle(j->jit, made, j->made.object);
    return status;
}

static fj_status build(job *j, fj_error *error) {
    if (find(j)) return FJ_OK;
    if (!j->ask.verify) return make(j, error);
    return fj_error_set(error, FJ_ERR_NO_JIT, "the cache has no kernel %s for this mod",
                        j->request->variant->name);
}

const fj_variant *fj_jit_recall(fj_jit *jit, fj_digest key, fj_digest source) {
    const fj_variant *found = NULL;
    (void)pthread_mutex_lock(&jit->lock);
    for (const fj_choice *at = jit->choices; at && !found; at = at->next)
        if (fj_cache_digest_equal(at->key, key) && fj_cache_digest_equal(at->source, source))
            found = &at->variant;
    (void)pthread_mutex_unlock(&jit->lock);
    return found;
}

static fj_status make_ready(job *j, fj_error *error) {
    const fj_variant *other =
        j->ask.replaceable ? fj_jit_recall(j->jit, j->request->key, j->request->source) : NULL;
    if (other) {
        memcpy(j->made.instead, other->name, sizeof j->made.instead);
        return FJ_OK;
    }
    return j->driver ? prepare(j, error) : build(j, error);
}

/* The record of a kernel that is there from now on names another. */
static fj_status replace(job *j) {
    fj_record record;
    if (fj_jit_record_find(j->jit->cache, j->request, &record))
        (void)fj_jit_record_put(j->jit->cache, j->request, record.content, j->ask.instead);
    return FJ_OK;
}

/* ---- From a problem to a request -------------------------------------------------------------------------- */

/* With a driver it is prepared, without it is built. */
static fj_status with_request(job *j, const fj_jit_problem *problem, const fj_variant *variant,
                              fj_error *error) {
    fj_jit *jit = j->jit;
    fj_buf source, text;
    fj_options options;
    fj_rendered rendered = {0};
    double start = now_ms();
    fj_buf_init(&source, jit->allocator);
    fj_buf_init(&text, jit->allocator);
    fj_jit_options(variant, &options);
    fj_status status = fj_jit_render(problem, variant, jit->allocator, &source, &rendered, error);
    if (status == FJ_OK) status = fj_jit_request_text(problem, variant, jit->allocator, &text, error);
    if (status == FJ_OK) {
        fj_request request = {
            .key = fj_cache_digest(text.data, text.len),
            .source = fj_jit_source_digest(rendered.source, &options),
            .text = {text.data, text.len},
            .variant = variant,
            .options = &options,
        };
        j->request = &request;
        j->source = rendered.source;
        j->made.key = request.key;
        j->made.source = request.source;
        j->made.info.cache_hit = true;
        status = j->ask.instead ? replace(j) : make_ready(j, error);
        j->made.info.load_ms = now_ms() - start - j->made.info.compile_ms;
        j->request = NULL;
    }
    fj_buf_finish(&text);
    fj_buf_finish(&source);
    return status;
}

fj_status fj_jit_make(fj_jit *jit, const fj_driver *driver, const fj_jit_problem *problem,
                      const fj_variant *variant, fj_ask ask, fj_made *ret_made, fj_error *error) {
    job j = {.jit = jit, .driver = driver, .ask = ask};
    fj_status status = with_request(&j, problem, variant, error);
    if (status == FJ_OK) *ret_made = j.made;
    return status;
}

fj_status fj_jit_prepare(fj_jit *jit, const fj_driver *driver, const fj_jit_problem *problem,
                         const fj_variant *variant, fj_object **ret_object, fj_jit_info *ret_info,
                         fj_error *error) {
    fj_made made;
    fj_status status = fj_jit_make(jit, driver, problem, variant, (fj_ask){0}, &made, error);
    if (status != FJ_OK) return status;
    *ret_object = made.object;
    *ret_info = made.info;
    return FJ_OK;
}

fj_status fj_jit_build(fj_jit *jit, const fj_jit_problem *problem, const fj_variant *variant, bool verify,
                       fj_jit_info *ret_info, fj_error *error) {
    fj_made made;
    fj_status status = fj_jit_make(jit, NULL, problem, variant, (fj_ask){.verify = verify}, &made, error);
    if (status == FJ_OK) *ret_info = made.info;
    return status;
}
