/* Calls kept in files, so that they can be run and tuned again elsewhere. */
#ifndef FJ_ATTN_CAPTURE_H
#define FJ_ATTN_CAPTURE_H

#include "attn/objects.h"

#define FJ_CAPTURE_MOST 48

/* A tensor of the call and its name in the file. */
typedef struct fj_captured {
    const char *name;
    fj_tensor tensor;
} fj_captured;

/* Writes a safetensors file of tensors of the plan's device, or of the host; of those on a GPU copies are made, on the stream.
 * The file appears whole or not at all. FJ_ERR_IO, FJ_ERR_MEMORY. */
fj_status fj_attn_capture_tensors(const fj_plan *plan, void *stream, bool on_host, const char *file,
                                  const fj_captured *tensors, size_t count, fj_error *error);
/* The same of bytes. */
fj_status fj_attn_capture_text(const fj_plan *plan, const char *file, fj_str text, fj_error *error);

/* What FLEXJIT_CAPTURE asks for, before a launch whose arguments are sound: a failure is a warning. */
void fj_attn_capture_launch(const fj_kernel *kernel, const fj_call *call);

#endif
