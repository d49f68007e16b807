/* The context: allocator, log, kernel cache, loaded kernels, records of tuning. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "attn/objects.h"

/* ---- Descriptors ------------------------------------------------------------------------------- */

fj_status fj_attn_read_desc(void *to, size_t to_size, const void *from, const char *name, fj_error *error) {
    size_t size;
    memset(to, 0, to_size);
    if (!from) return fj_error_set(error, FJ_ERR_ARGUMENT, "%s is NULL", name);
    memcpy(&size, from, sizeof size);
    if (size < sizeof size) return fj_error_set(error, FJ_ERR_ARGUMENT, "%s: struct_size is not set", name);
    memcpy(to, from, size < to_size ? size : to_size);
    memcpy(to, &to_size, sizeof to_size);
    return FJ_OK;
}

/* ---- Context ------------------------------------------------------------------------------------- */

static void log_filtered(void *user, fj_log_level level, const char *message) {
    const fj_context *context = user;
    if (context->log && level >= context->log_level) context->log(context->log_user, level, message);
}

void fj_attn_log(const fj_context *context, fj_log_level level, const char *format, ...) {
    char message[1024];
    va_list list;
    va_start(list, format);
    (void)vsnprintf(message, sizeof message, format, list);
    va_end(list);
    log_filtered((void *)(uintptr_t)context, level, message);
}

void fj_context_log(const fj_context *context, fj_log_level level, const char *message) {
    if (context && message) log_filtered((void *)(uintptr_t)context, level, message);
}

fj_context *fj_attn_context_ref(fj_context *context) {
    (void)atomic_fetch_add_explicit(&context->refs, 1, memory_order_relaxed);
    return context;
}

static fj_status copy_pattern(fj_context *context, const char *pattern) {
    if (!pattern || !*pattern) return FJ_OK;
    const size_t size = strlen(pattern) + 1;
    context->capture = fj_alloc(&context->allocator, size);
    if (!context->capture) return FJ_ERR_MEMORY;
    memcpy(context->capture, pattern, size);
    return FJ_OK;
}

static void context_destroy(fj_context *context) {
    fj_allocator allocator = context->allocator;
    fj_tuning_destroy(&context->tuning);
    fj_jit_destroy(&context->jit);
    fj_cache_destroy(&context->cache);
    if (context->capture) fj_free(&allocator, context->capture, strlen(context->capture) + 1);
    fj_free(&allocator, context, sizeof *context);
}

fj_status fj_attn_context_create(const fj_context_desc *desc, const fj_file_ops *files,
                                 fj_context **ret_context) {
    fj_context_desc all = {.struct_size = sizeof all};
    if (desc) {
        fj_status status = fj_attn_read_desc(&all, sizeof all, desc, "fj_context_desc", NULL);
        if (status != FJ_OK) return status;
    }
    fj_allocator allocator = fj_allocator_libc;
    if (all.resize) allocator = (fj_allocator){all.resize, all.allocator_user};
    fj_context *context = fj_alloc_zeroed(&allocator, sizeof *context);
    if (!context) return FJ_ERR_MEMORY;
    atomic_init(&context->refs, 1);
    context->allocator = allocator;
    context->log = all.log;
    context->log_user = all.log_user;
    context->log_level = all.log_level;
    context->files = files;
    const fj_status copied = copy_pattern(context, getenv("FLEXJIT_CAPTURE"));
    fj_cache_desc cache = {.path = all.cache_path,
                           .ops = files,
                           .allocator = &context->allocator,
                           .log = log_filtered,
                           .log_user = context};
    fj_status status = copied == FJ_OK ? fj_cache_create(&cache, &context->cache) : copied;
    fj_jit_desc jit = {.allocator = &context->allocator,
                       .cache = context->cache,
                       .ops = files,
                       .log = log_filtered,
                       .log_user = context};
    if (status == FJ_OK) status = fj_jit_create(&jit, &context->jit);
    fj_tuning_desc tuning = {.allocator = &context->allocator,
                             .ops = files,
                             .path = all.tune_path,
                             .shipped = fj_tuning_table,
                             .shipped_count = fj_tuning_table_len,
                             .log = log_filtered,
                             .log_user = context};
    if (status == FJ_OK) status = fj_tuning_create(&tuning, &context->tuning);
    if (status != FJ_OK) {
        context_destroy(context);
        return status;
    }
    *ret_context = context;
    return FJ_OK;
}

fj_status fj_context_create(const fj_context_desc *desc, fj_context **ret_context) {
    return fj_attn_context_create(desc, NULL, ret_context);
}

void fj_context_unref(fj_context **context) {
    if (!context || !*context) return;
    fj_context *last = *context;
    *context = NULL;
    if (atomic_fetch_sub_explicit(&last->refs, 1, memory_order_acq_rel) == 1) context_destroy(last);
}
