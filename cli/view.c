/* Tensors in memory, borrowed from a file or made, and the inputs of a call. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/call.h"
#include "cli/report.h"

enum { ALIGNMENT = 64 };

static void set(cli_view *view, fj_dtype dtype, int rank, const int64_t *dims, void *data) {
    view->dtype = dtype;
    view->count = 1;
    for (int i = 0; i < rank; i++) {
        view->dims[i] = dims[i];
        view->count *= (size_t)dims[i];
    }
    view->tensor = (DLTensor){
        .data = data,
        .device = {kDLCPU, 0},
        .ndim = rank,
        .dtype = fj_dtype_to_dlpack(dtype),
        .shape = view->dims,
    };
}

static int allocate(const char *name, size_t size, void **ret_data) {
    size_t whole = size > SIZE_MAX - ALIGNMENT ? 0 : (size / ALIGNMENT + 1) * ALIGNMENT;
    void *data = whole == 0 ? NULL : aligned_alloc(ALIGNMENT, whole);
    if (data == NULL)
        return cli_fail(CLI_EXIT_FAILED, "not enough memory for '%.100s': %zu bytes", name, size);
    *ret_data = data;
    return CLI_EXIT_OK;
}

/* DLPack has no constant data; the library does not write to inputs. */
static void *without_const(const void *data) {
    union {
        const void *constant;
        void *pointer;
    } same = {.constant = data};
    return same.pointer;
}

int cli_view_borrow(cli_view *view, const char *name, fj_dtype dtype, int rank, const int64_t *dims,
                    const void *data) {
    *view = (cli_view){0};
    set(view, dtype, rank, dims, without_const(data));
    size_t width = fj_dtype_size(dtype);
    if ((uintptr_t)data % width == 0) return CLI_EXIT_OK;
    int status = allocate(name, view->count * width, &view->owned);
    if (status != CLI_EXIT_OK) {
        *view = (cli_view){0};
        return status;
    }
    memcpy(view->owned, data, view->count * width);
    view->tensor.data = view->owned;
    return CLI_EXIT_OK;
}

int cli_view_allocate(cli_view *view, const char *name, fj_dtype dtype, int rank, const int64_t *dims) {
    *view = (cli_view){0};
    size_t size = fj_dtype_size(dtype);
    for (int i = 0; i < rank; i++) {
        if (__builtin_mul_overflow(size, (size_t)dims[i], &size)) {
            return cli_fail(CLI_EXIT_FAILED, "not enough memory for '%.100s': its size overflows", name);
        }
    }
    void *data = NULL;
    int status = allocate(name, size, &data);
    if (status != CLI_EXIT_OK) return status;
    set(view, dtype, rank, dims, data);
    view->owned = data;
    return CLI_EXIT_OK;
}

void cli_view_finish(cli_view *view) {
    free(view->owned);
    *view = (cli_view){0};
}

bool cli_view_is_set(const cli_view *view) { return view->tensor.data != NULL; }

/* ---- Inputs ------------------------------------------------------------------------------ */

int cli_inputs_begin(cli_inputs *inputs, const fj_mod *mod) {
    *inputs =
        (cli_inputs){.capture_count = fj_mod_capture_count(mod), .scalar_count = fj_mod_scalar_count(mod)};
    inputs->captures = calloc(inputs->capture_count + 1, sizeof *inputs->captures);
    inputs->scalars = calloc(inputs->scalar_count + 1, sizeof *inputs->scalars);
    if (inputs->captures == NULL || inputs->scalars == NULL) {
        cli_inputs_finish(inputs);
        return cli_no_memory();
    }
    for (size_t i = 0; i < inputs->scalar_count; i++) {
        fj_input_info info = fj_mod_scalar(mod, i);
        if (info.is_float) {
            inputs->scalars[i].f = info.value;
        } else {
            inputs->scalars[i].i = info.int_value;
        }
    }
    return CLI_EXIT_OK;
}

void cli_inputs_finish(cli_inputs *inputs) {
    cli_view_finish(&inputs->query);
    cli_view_finish(&inputs->key);
    cli_view_finish(&inputs->value);
    cli_view_finish(&inputs->dout);
    cli_view_finish(&inputs->dlse);
    for (int i = 0; i < CLI_SEQUENCES; i++) cli_view_finish(&inputs->sequences[i]);
    for (size_t i = 0; inputs->captures != NULL && i < inputs->capture_count; i++) {
        cli_view_finish(&inputs->captures[i]);
    }
    free(inputs->captures);
    free(inputs->scalars);
    *inputs = (cli_inputs){0};
}
