/* Tensors of the kernel tests: every byte that is not an element is guarded. */
#ifndef FJ_TESTS_KERN_KERN_TENSOR_H
#define FJ_TESTS_KERN_KERN_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "templates/cpu/abi.h"

/* As FJ_F16 and its kin in templates/cpu/prim.h. */
typedef enum kern_dtype { KERN_F16 = 1, KERN_BF16, KERN_F32, KERN_F64 } kern_dtype;
typedef enum kern_layout {
    KERN_PACKED,  /* row-major */
    KERN_GAPS,    /* [B, length, heads, dim] in memory, with gaps between rows, heads and batches */
    KERN_OVERLAP, /* heads on top of each other; inputs only */
} kern_layout;

typedef struct kern_tensor {
    struct fj_cpu_tensor tensor;
    kern_dtype dtype;
    char *memory;
    size_t bytes;
} kern_tensor;

size_t kern_dtype_size(kern_dtype dtype);

/* Memory of all ones: NaN in every type, for elements and for what lies between and around them. */
kern_tensor kern_tensor_create(const int64_t dims[4], kern_dtype dtype, kern_layout layout);
void kern_tensor_destroy(kern_tensor *t);
void kern_tensor_reset(kern_tensor *t);
/* Rounds the values (packed, row-major), and reads the elements back into values. */
void kern_tensor_fill(kern_tensor *t, double *values);
void kern_tensor_read(const kern_tensor *t, double *values);
/* Whether nothing but elements was written since the reset. */
bool kern_tensor_intact(const kern_tensor *t);

#endif
