/* Private to jit/: what the threads of a process share: loaded objects, kernels on their way, choices. */
#ifndef FJ_JIT_SHARING_H
#define FJ_JIT_SHARING_H

#include <pthread.h>

#include "jit/request.h"

/* A loaded code object. */
struct fj_object {
    fj_object *next;
    const fj_driver *driver;
    fj_code *code;
    fj_digest content;
    int64_t refs;
    int resource_count; /* what its compiler said */
    fj_resources resources[FJ_RESOURCES_MAX];
};

/* Request of a device -> object; holds no reference: it goes with the object. */
typedef struct fj_promise {
    struct fj_promise *next;
    const fj_driver *driver;
    fj_digest key, source;
    fj_object *object; /* NULL while a thread is at it */
} fj_promise;

/* For a request of this process: which variant is taken in its place. Lives as long as the jit. */
typedef struct fj_choice {
    struct fj_choice *next;
    fj_digest key, source;
    fj_variant variant;
} fj_choice;

struct fj_jit {
    const fj_allocator *allocator;
    fj_cache *cache;
    const fj_file_ops *ops;
    void (*log)(void *user, fj_log_level level, const char *message);
    void *log_user;
    pthread_mutex_t lock; /* of what follows; objects too */
    pthread_cond_t changed;
    fj_object *objects;
    fj_promise *promises;
    fj_choice *choices;
};

/* An object for the request, with a reference for the caller, waiting for a thread that is making it; or NULL and a
 * promise, which the caller settles. Both NULL: out of memory. */
fj_object *fj_sharing_take(fj_jit *jit, const fj_driver *driver, const fj_request *request,
                           fj_promise **ret_promise);
/* Ends a promise: with an object, or (NULL) without: then those who wait try themselves. */
void fj_sharing_settle(fj_jit *jit, fj_promise *promise, fj_object *object);

/* An object, with a reference for the caller, that an equal content loaded earlier gave; or NULL. */
fj_object *fj_sharing_find(fj_jit *jit, const fj_driver *driver, fj_digest content);
/* From now on others find it. */
void fj_sharing_add(fj_jit *jit, fj_object *object);

/* The variant that was chosen for a request in this process, or NULL. */
const fj_variant *fj_sharing_recall(fj_jit *jit, const fj_request *request);
/* Keeps a choice, unless there is one: returns the one that holds. NULL: out of memory. */
const fj_variant *fj_sharing_remember(fj_jit *jit, const fj_request *request, const fj_variant *variant);

#endif
