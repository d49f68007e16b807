/* Tensors on a device, in memory of any layout: what a launch is given. The test's own side is a cli_view, packed.
 *
 * What lies between the elements of a box is NaN, and must still be so after a launch. */
#ifndef FJ_TESTS_ATTN_BOXES_H
#define FJ_TESTS_ATTN_BOXES_H

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "cli/call.h"
#include "cli/number.h"

typedef enum box_layout {
    BOX_PACKED,
    BOX_SWAPPED, /* rows of a position's heads beside each other, 16-byte aligned */
    BOX_ODD,     /* one element off, and nothing is a multiple of anything */
    BOX_LAYOUT_COUNT
} box_layout;

typedef struct box {
    const fj_device *device;
    cli_view *view;
    DLTensor dl;
    int64_t strides[FJ_MAX_RANK];
    size_t bytes;
    unsigned char *copy; /* on the host */
} box;

static inline void box_lay_out(box *b, box_layout layout) {
    const int rank = b->view->tensor.ndim;
    int64_t next = 1;
    for (int i = 0; i < rank; i++) {
        int d = rank - 1 - i;
        if (layout == BOX_SWAPPED && rank == 4 && (d == 1 || d == 2)) d = 3 - d;
        b->strides[d] = next;
        next *= b->view->dims[d];
        if (layout == BOX_ODD) next++;
        if (layout == BOX_SWAPPED && i == 0) next = (next + 15) / 8 * 8;
    }
    b->bytes = ((size_t)next + (layout == BOX_ODD)) * fj_dtype_size(b->view->dtype);
}

static inline size_t box_place(const box *b, size_t element) {
    size_t at = b->dl.byte_offset;
    for (int d = b->view->tensor.ndim - 1; d >= 0; d--) {
        at += element % (size_t)b->view->dims[d] * (size_t)b->strides[d] * fj_dtype_size(b->view->dtype);
        element /= (size_t)b->view->dims[d];
    }
    return at;
}

static inline void box_check(fj_status status, const fj_error *error) {
    ck_assert_msg(status == FJ_OK, "%s", error->text);
}

static inline void box_put(box *b, bool filled) {
    const size_t size = fj_dtype_size(b->view->dtype);
    fj_error error = {0};
    memset(b->copy, 0xff, b->bytes);
    for (size_t i = 0; filled && i < b->view->count; i++)
        memcpy(b->copy + box_place(b, i), (const char *)b->view->tensor.data + i * size, size);
    box_check(fj_device_upload(b->device, b->dl.data, b->copy, b->bytes, NULL, &error), &error);
    box_check(fj_device_wait(b->device, NULL, &error), &error);
}

/* Takes the view's elements with it (an input), or only its shape. */
static inline void box_make(box *b, const fj_device *device, cli_view *view, box_layout layout, bool filled) {
    fj_error error = {0};
    *b = (box){.device = device, .view = view};
    if (!cli_view_is_set(view)) return;
    box_lay_out(b, layout);
    b->dl = view->tensor;
    b->dl.device = fj_device_dlpack(device);
    b->dl.data = NULL;
    b->dl.strides = layout == BOX_PACKED ? NULL : b->strides;
    b->dl.byte_offset = layout == BOX_ODD ? fj_dtype_size(view->dtype) : 0;
    b->copy = malloc(b->bytes + 1);
    box_check(fj_device_alloc(device, b->bytes, &b->dl.data, &error), &error);
    box_put(b, filled);
}

/* Into the view. */
static inline void box_get(box *b, const char *name) {
    const size_t size = fj_dtype_size(b->view->dtype);
    fj_error error = {0};
    box_check(fj_device_download(b->device, b->copy, b->dl.data, b->bytes, NULL, &error), &error);
    box_check(fj_device_wait(b->device, NULL, &error), &error);
    for (size_t i = 0; i < b->view->count; i++) {
        unsigned char *from = b->copy + box_place(b, i);
        memcpy((char *)b->view->tensor.data + i * size, from, size);
        memset(from, 0xff, size);
    }
    for (size_t i = 0; i < b->bytes; i++)
        ck_assert_msg(b->copy[i] == 0xff, "%s: byte %zu is not an element's, and was written", name, i);
}

static inline void box_finish(box *b) {
    fj_device_free(b->device, &b->dl.data);
    free(b->copy);
}

static inline const DLTensor *box_tensor(const box *b) { return b->copy ? &b->dl : NULL; }

#endif
