/* The files of a captured call. Each is written under a temporary name beside its own and renamed. */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "attn/capture.h"
#include "base/dtype.h"
#include "cache/files.h"

enum { PATH = 4096, BLOCK = 1 << 16, ALIGNED = 64 };

/* A file on its way. */
typedef struct output {
    const fj_file_ops *ops;
    const char *path;
    char temporary[PATH];
    int file;
    fj_error *error;
} output;

static fj_status cannot_write(const output *out, int reason) {
    return fj_error_set(out->error, FJ_ERR_IO, "'%s' cannot be written: %s", out->path, strerror(reason));
}

static fj_status begin(output *out, const fj_plan *plan, const char *path, fj_error *error) {
    const fj_file_ops *ops = plan->device->context->files;
    *out = (output){.ops = ops ? ops : &fj_file_ops_system, .path = path, .file = -1, .error = error};
    static atomic_uint serial; /* threads may keep the same call */
    const int length = snprintf(out->temporary, sizeof out->temporary, "%s.%ld-%u.tmp", path, (long)getpid(),
                                atomic_fetch_add(&serial, 1));
    if (length < 0 || (size_t)length >= sizeof out->temporary) return cannot_write(out, ENAMETOOLONG);
    out->file = out->ops->openat(AT_FDCWD, out->temporary,
                                 O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    return out->file < 0 ? cannot_write(out, errno) : FJ_OK;
}

static fj_status put(const output *out, const void *bytes, size_t size) {
    return fj_cache_write_all(out->ops, out->file, bytes, size) ? FJ_OK : cannot_write(out, errno);
}

/* With the status so far: of a failure nothing stays. */
static fj_status end(output *out, fj_status status) {
    if (out->file < 0) return status;
    if (status == FJ_OK && out->ops->fsync(out->file) != 0) status = cannot_write(out, errno);
    if (out->ops->close(out->file) != 0 && status == FJ_OK) status = cannot_write(out, errno);
    if (status == FJ_OK && out->ops->rename(AT_FDCWD, out->temporary, out->path) != 0)
        status = cannot_write(out, errno);
    if (status != FJ_OK) (void)out->ops->unlink(AT_FDCWD, out->temporary, false);
    return status;
}

fj_status fj_attn_capture_text(const fj_plan *plan, const char *file, fj_str text, fj_error *error) {
    output out;
    fj_status status = begin(&out, plan, file, error);
    if (status == FJ_OK) status = put(&out, text.data, text.len);
    return end(&out, status);
}

/* ---- Tensors ------------------------------------------------------------------------------------------------ */

static int64_t elements(const fj_tensor *tensor) {
    int64_t count = 1;
    for (int i = 0; i < tensor->rank; i++) count *= tensor->shape[i];
    return count;
}

/* The length of the header, the header, blanks. Wide dtypes come first, so that each tensor is aligned. */
static fj_status render_header(const fj_captured *const *order, size_t count, fj_buf *text) {
    json_t *header = json_object();
    int64_t at = 0;
    bool made = header != NULL;
    for (size_t i = 0; i < count && made; i++) {
        const fj_tensor *tensor = &order[i]->tensor;
        const int64_t end = at + elements(tensor) * (int64_t)fj_dtype_size(tensor->dtype);
        json_t *shape = json_array();
        for (int d = 0; d < tensor->rank; d++)
            made &= json_array_append_new(shape, json_integer(tensor->shape[d])) == 0;
        made &= json_object_set_new(header, order[i]->name,
                                    json_pack("{s:s, s:o, s:[I,I]}", "dtype", fj_dtype_name(tensor->dtype),
                                              "shape", shape, "data_offsets", (json_int_t)at,
                                              (json_int_t)end)) == 0;
        at = end;
    }
    char *json = made ? json_dumps(header, JSON_COMPACT) : NULL;
    json_decref(header);
    if (!json) return FJ_ERR_MEMORY;
    const size_t length = strlen(json), whole = (8 + length + ALIGNED - 1) / ALIGNED * ALIGNED - 8;
    for (int i = 0; i < 8; i++) fj_buf_write(text, &(char){(char)((uint64_t)whole >> (8 * i) & 0xff)}, 1);
    fj_buf_write(text, json, length);
    for (size_t i = length; i < whole; i++) fj_buf_write(text, " ", 1);
    free(json);
    return text->failed ? FJ_ERR_MEMORY : FJ_OK;
}

static bool is_packed(const fj_tensor *tensor) {
    int64_t packed = 1;
    for (int d = tensor->rank - 1; d >= 0; packed *= tensor->shape[d--])
        if (tensor->shape[d] > 1 && tensor->strides[d] != packed) return false;
    return true;
}

/* Elements in order, whatever the strides. */
static fj_status put_elements(const output *out, const fj_tensor *tensor, const char *data) {
    char block[BLOCK];
    if (is_packed(tensor)) return put(out, data, (size_t)elements(tensor) * fj_dtype_size(tensor->dtype));
    int64_t index[FJ_MAX_RANK] = {0};
    const size_t size = fj_dtype_size(tensor->dtype);
    size_t filled = 0;
    fj_status status = FJ_OK;
    for (int64_t left = elements(tensor); left > 0 && status == FJ_OK; left--) {
        int64_t at = 0;
        for (int d = 0; d < tensor->rank; d++) at += index[d] * tensor->strides[d];
        memcpy(block + filled, data + at * (int64_t)size, size);
        filled += size;
        if (filled == sizeof block || left == 1) {
            status = put(out, block, filled);
            filled = 0;
        }
        for (int d = tensor->rank - 1; d >= 0 && ++index[d] == tensor->shape[d]; d--) index[d] = 0;
    }
    return status;
}

typedef struct write {
    const fj_plan *plan;
    void *stream;
    bool on_host;
    const fj_captured *tensors;
    size_t count;
    output out;
} write_job;

static void write_all(fj_scope *scope, void *argument) {
    write_job *job = argument;
    const fj_captured *order[FJ_CAPTURE_MOST];
    size_t placed = 0;
    fj_buf header;
    for (size_t width = 8; width > 0; width /= 2)
        for (size_t i = 0; i < job->count; i++)
            if (fj_dtype_size(job->tensors[i].tensor.dtype) == width) order[placed++] = &job->tensors[i];
    fj_buf_init(&header, scope->arena->allocator);
    fj_status status = render_header(order, job->count, &header);
    if (status == FJ_OK) status = put(&job->out, header.data, header.len);
    fj_buf_finish(&header);
    if (status == FJ_ERR_MEMORY) fj_fail(scope, status, "out of memory");
    for (size_t i = 0; i < job->count && status == FJ_OK; i++) {
        const fj_tensor *tensor = &order[i]->tensor;
        if (elements(tensor) == 0) continue;
        status = put_elements(&job->out, tensor,
                              job->on_host ? tensor->data
                                           : fj_attn_readable(scope, job->plan, job->stream, tensor));
    }
    if (status != FJ_OK) fj_escape(scope, status);
}

fj_status fj_attn_capture_tensors(const fj_plan *plan, void *stream, bool on_host, const char *file,
                                  const fj_captured *tensors, size_t count, fj_error *error) {
    write_job job = {.plan = plan, .stream = stream, .on_host = on_host, .tensors = tensors, .count = count};
    fj_status status = begin(&job.out, plan, file, error);
    if (status != FJ_OK) return end(&job.out, status);
    fj_arena arena;
    fj_arena_init(&arena, &plan->device->context->allocator);
    status = fj_scope_run(&arena, error, write_all, &job);
    fj_arena_finish(&arena);
    return end(&job.out, status);
}
