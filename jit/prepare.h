/* Private to jit/: one variant made ready, and what the choice among variants needs of it. */
#ifndef FJ_JIT_PREPARE_H
#define FJ_JIT_PREPARE_H

#include <pthread.h>

#include "jit/jit.h"
#include "jit/records.h"

/* For a request of this process: which variant is taken instead. Lives as long as the jit. */
typedef struct fj_choice {
    struct fj_choice *next;
    fj_digest key, source;
    fj_variant variant;
} fj_choice;

struct fj_promise;

struct fj_jit {
    const fj_allocator *allocator;
    fj_cache *cache;
    const fj_file_ops *ops;
    void (*log)(void *user, fj_log_level level, const char *message);
    void *log_user;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    fj_object *objects;
    struct fj_promise *promises;
    fj_choice *choices;
};

/* How a kernel is asked for. */
typedef struct fj_ask {
    bool verify;         /* without a driver: what is not there is an error */
    bool replaceable;    /* the cache's record may name another variant: then that is all that is found out */
    const char *instead; /* not NULL: only its record is changed, to name this variant */
} fj_ask;

typedef struct fj_made {
    fj_digest key, source;             /* of the request */
    fj_object *object;                 /* with a driver */
    char instead[FJ_JIT_VARIANT_NAME]; /* not "": the record names this one, and nothing was loaded */
    fj_jit_info info;
} fj_made;

/* The variant that was chosen for a request in this process, or NULL. */
const fj_variant *fj_jit_recall(fj_jit *jit, fj_digest key, fj_digest source);

/* verify.c: whether a loaded object, or the bytes of one that is not loaded here, has the entry points of its variant.
 * FJ_ERR_COMPILER says what is missing; else the errors of loading. */
fj_status fj_jit_verify_code(const fj_variant *variant, const fj_driver *driver, const fj_code *code,
                             fj_error *error);
fj_status fj_jit_verify_payload(const fj_variant *variant, const fj_allocator *allocator, fj_str payload,
                                fj_error *error);

/* driver NULL: the cache has it from then on, and it is not loaded. Errors as fj_jit_prepare and fj_jit_build. */
fj_status fj_jit_make(fj_jit *jit, const fj_driver *driver, const fj_jit_problem *problem,
                      const fj_variant *variant, fj_ask ask, fj_made *ret_made, fj_error *error);

#endif
