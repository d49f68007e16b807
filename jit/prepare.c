/* Making a kernel ready: share, find, or compile; load.
 *
 *   1. an object of this process with the same request and source is shared; if another thread is
 *      at it, wait for that
 *   2. the cache: selection record -> kernel
 *   3. the compiler: content key -> kernel of the cache, else compile and write both
 *   4. load, or share an object with the same content
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "jit/prepare.h"

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

/* One kernel on its way. */
typedef struct job {
    fj_jit *jit;
    const fj_driver *driver; /* NULL: it is not loaded, only kept */
    const fj_request *request;
    bool verify;
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
    fj_object *object = fj_sharing_find(jit, driver, content);
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
        fj_sharing_add(jit, object);
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
    if (j->driver) j->made.object = fj_sharing_find(jit, j->driver, content);
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

/* What needs no compiler. */
static bool find(job *j) {
    fj_record record;
    return fj_jit_record_find(j->jit->cache, j->request, &record) && find_content(j, record.content);
}

static bool jit_is_off(void) {
    const char *value = getenv("FLEXJIT_NO_JIT");
    return value && *value && strcmp(value, "0") != 0;
}

/* What is not loaded must at least be kept. */
static fj_status keep(const job *j, fj_digest content, const fj_toolchain *toolchain,
                      const fj_compiled *compiled, fj_error *error) {
    bool kept = fj_jit_record_put_kernel(j->jit->cache, j->request, content, &toolchain->compiler, compiled);
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
    fj_status status = fj_jit_toolchain_compile(toolchain, jit->ops, j->request->variant,
                                                &j->request->options, j->request->code, &compiled, error);
    j->made.info.compile_ms = fj_now_ms() - start;
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
    if (jit_is_off()) {
        (void)fj_error_set(error, FJ_ERR_NO_JIT,
                           "FLEXJIT_NO_JIT is set and the cache has no kernel %s for this mod",
                           variant->name);
        fj_error_note(error, "`flexjit prebuild` makes it; FLEXJIT_CACHE_PATH says where it is looked for");
        return FJ_ERR_NO_JIT;
    }
    fj_toolchain toolchain;
    fj_digest content;
    double start = fj_now_ms();
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
    fj_promise *promise;
    j->made.object = fj_sharing_take(j->jit, j->driver, j->request, &promise);
    if (!j->made.object && !promise) return fj_error_set(error, FJ_ERR_MEMORY, "out of memory");
    if (j->made.object) {
        share_resources(j);
        return FJ_OK;
    }
    fj_status status = find(j) ? FJ_OK : make(j, error);
    fj_sharing_settle(j->jit, promise, j->made.object);
    return status;
}

static fj_status build(job *j, fj_error *error) {
    if (find(j)) return FJ_OK;
    if (!j->verify) return make(j, error);
    return fj_error_set(error, FJ_ERR_NO_JIT, "the cache has no kernel %s for this mod",
                        j->request->variant->name);
}

fj_status fj_jit_make(fj_jit *jit, const fj_driver *driver, const fj_request *request, bool verify,
                      fj_made *ret_made, fj_error *error) {
    const double start = fj_now_ms();
    job j = {.jit = jit, .driver = driver, .request = request, .verify = verify, .made.info.cache_hit = true};
    fj_status status = driver ? prepare(&j, error) : build(&j, error);
    if (status != FJ_OK) return status;
    j.made.info.load_ms = request->render_ms + fj_now_ms() - start - j.made.info.compile_ms;
    *ret_made = j.made;
    return FJ_OK;
}

/* ---- A variant that was asked for -------------------------------------------------------------------- */

static fj_status make_variant(fj_jit *jit, const fj_driver *driver, const fj_jit_problem *problem,
                              const fj_variant *variant, bool verify, fj_made *ret_made, fj_error *error) {
    fj_request request;
    fj_status status = fj_request_create(problem, variant, jit->allocator, &request, error);
    if (status == FJ_OK) status = fj_jit_make(jit, driver, &request, verify, ret_made, error);
    fj_request_finish(&request);
    return status;
}

fj_status fj_jit_prepare(fj_jit *jit, const fj_driver *driver, const fj_jit_problem *problem,
                         const fj_variant *variant, fj_object **ret_object, fj_jit_info *ret_info,
                         fj_error *error) {
    fj_made made;
    fj_status status = make_variant(jit, driver, problem, variant, false, &made, error);
    if (status != FJ_OK) return status;
    *ret_object = made.object;
    *ret_info = made.info;
    return FJ_OK;
}

fj_status fj_jit_build(fj_jit *jit, const fj_jit_problem *problem, const fj_variant *variant, bool verify,
                       fj_jit_info *ret_info, fj_error *error) {
    fj_made made;
    fj_status status = make_variant(jit, NULL, problem, variant, verify, &made, error);
    if (status == FJ_OK) *ret_info = made.info;
    return status;
}

fj_status fj_jit_payload(fj_jit *jit, const fj_jit_problem *problem, const fj_variant *variant, fj_buf *out,
                         fj_error *error) {
    fj_request request;
    fj_record record;
    fj_cache_entry entry;
    fj_status status = fj_request_create(problem, variant, jit->allocator, &request, error);
    if (status == FJ_OK && fj_jit_record_find(jit->cache, &request, &record) &&
        fj_cache_get(jit->cache, FJ_CACHE_KERNEL, record.content, &entry)) {
        fj_buf_write(out, entry.payload.data, entry.payload.len);
        fj_cache_entry_finish(jit->cache, &entry);
    } else if (status == FJ_OK) {
        status = fj_error_set(error, FJ_ERR_IO, "the cache has no kernel %s any more", variant->name);
    }
    fj_request_finish(&request);
    return status;
}
