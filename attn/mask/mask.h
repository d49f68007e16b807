/* Block masks: the object behind flexjit.h's fj_block_mask, and what the files of attn/mask/ share.
 *
 *   rows.c      runs of blocks, and their transpose        tables.c, spans.c   minima and maxima of captures, rows, columns
 *   mask.c      the object                                 maker.c    the code that decides blocks of a mod
 *   dense.c, lists.c   from and to dense and PyTorch's     build.c, fault.c   a mask made by it
 *   algebra.c   and, or, not, slices                       picture.c  text and SVG
 *   device.c    where kernels of a GPU read them
 *
 * A mask is planes, one for each batch and head that differ from others: row r of plane p is row p * q_blocks + r.
 */
#ifndef FJ_ATTN_MASK_MASK_H
#define FJ_ATTN_MASK_MASK_H

#include "attn/mask/rows.h"
#include "attn/objects.h"
#include "templates/cuda/abi.h"

enum { FJ_MASK_BLOCK = 64, FJ_MASK_LARGEST_BLOCK = 1 << 30 };

/* What a mask is of. */
typedef struct fj_mask_shape {
    int64_t batch, heads, q_len, kv_len, block_q, block_kv;
    int64_t planes_b, planes_h; /* batch and heads, or 1 where all are alike */
} fj_mask_shape;

struct fj_block_mask {
    atomic_int refs;
    fj_context *context;
    fj_mask_shape shape;
    int32_t q_blocks, kv_blocks;
    int64_t undecided;
    fj_block_rows rows;
    _Atomic(fj_block_rows *) columns; /* the transpose; NULL until it is asked for */
    /* Of a copy (device.c): */
    fj_block_mask *source; /* has the rows; NULL: they are this one's own */
    fj_device *device;     /* whose kernels take it; NULL: it is in the host's memory alone */
    uint64_t memory;       /* of the device; 0: it reads the host's */
    size_t memory_size;
    struct fj_cuda_block_mask lists; /* what these kernels are given; with a device */
};

/* Checks lengths and blocks: FJ_ERR_ARGUMENT. Blocks of 0 become `otherwise`. */
fj_status fj_mask_check_shape(fj_mask_shape *shape, int64_t otherwise, fj_error *error);
/* A mask of these rows, which it takes, whatever the status. FJ_ERR_MEMORY. */
fj_status fj_mask_create(fj_context *context, const fj_mask_shape *shape, fj_block_rows *rows,
                         fj_block_mask **ret_mask, fj_error *error);
/* A mask with the rows of another one, which stays as long. FJ_ERR_MEMORY. */
fj_status fj_mask_share(const fj_block_mask *mask, fj_block_mask **ret_mask, fj_error *error);
/* Frees what the mask has of a device. */
void fj_mask_leave_device(fj_block_mask *mask);
/* Whether kernels of this device, which is one with a driver, can be given the mask. FJ_ERR_TENSOR. */
fj_status fj_mask_check_device(const fj_block_mask *mask, const fj_device *device, fj_error *error);
fj_status fj_mask_no_memory(fj_error *error);

static inline int64_t fj_mask_planes(const fj_mask_shape *shape) { return shape->planes_b * shape->planes_h; }
static inline int64_t fj_mask_blocks(int64_t length, int64_t block) { return (length + block - 1) / block; }
static inline int64_t fj_mask_plane(const fj_mask_shape *shape, int64_t b, int64_t h) {
    return (shape->planes_b == 1 ? 0 : b) * shape->planes_h + (shape->planes_h == 1 ? 0 : h);
}

/* Query blocks of each key block. Made when it is first asked for, by any thread; lives as long as the mask. NULL: no memory. */
const fj_block_rows *fj_mask_columns(const fj_block_mask *mask);

/* A tensor in the host's memory, any strides: data is its first element. FJ_ERR_TENSOR. dims: -1 for any extent;
 * also: a second dtype that is taken. */
typedef struct fj_mask_expected {
    const char *name, *axes;
    int rank;
    fj_dtype dtype, also;
    const int64_t *dims;
} fj_mask_expected;
fj_status fj_mask_read_tensor(const DLTensor *tensor, const fj_mask_expected *want, fj_tensor *ret_tensor,
                              fj_error *error);

#endif
