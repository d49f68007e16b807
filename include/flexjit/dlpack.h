/* The structures of DLPack 1.x that flexjit uses (https://dmlc.github.io/dlpack/latest/), declared
 * here because distributions ship older headers. Include the real dlpack.h before flexjit.h and its
 * declarations are used instead. */
#ifndef FLEXJIT_DLPACK_H
#define FLEXJIT_DLPACK_H

#include <stddef.h>
#include <stdint.h>

#ifndef DLPACK_DLPACK_H_

/* DLDevice.device_type */
enum { kDLCPU = 1, kDLCUDA = 2, kDLCUDAManaged = 13 };

typedef struct {
    int32_t device_type;
    int32_t device_id;
} DLDevice;

/* DLDataType.code */
enum {
    kDLInt = 0,
    kDLUInt = 1,
    kDLFloat = 2,
    kDLBfloat = 4,
    kDLBool = 6,
    kDLFloat8_e4m3fn = 10,
    kDLFloat8_e5m2 = 12
};

typedef struct {
    uint8_t code;
    uint8_t bits;
    uint16_t lanes;
} DLDataType;

typedef struct {
    void *data;
    DLDevice device;
    int32_t ndim;
    DLDataType dtype;
    int64_t *shape;
    int64_t *strides; /* in elements; NULL: packed, row-major */
    uint64_t byte_offset;
} DLTensor;

#endif

#ifdef __cplusplus
#define FJ_DLPACK_ASSERT(condition) static_assert(condition, #condition)
#else
#define FJ_DLPACK_ASSERT(condition) _Static_assert(condition, #condition)
#endif
FJ_DLPACK_ASSERT(sizeof(DLDevice) == 8);
FJ_DLPACK_ASSERT(sizeof(DLDataType) == 4);
FJ_DLPACK_ASSERT(offsetof(DLTensor, device) == sizeof(void *));
FJ_DLPACK_ASSERT(offsetof(DLTensor, ndim) == sizeof(void *) + 8);
FJ_DLPACK_ASSERT(offsetof(DLTensor, dtype) == sizeof(void *) + 12);
FJ_DLPACK_ASSERT(offsetof(DLTensor, shape) == sizeof(void *) + 16);
FJ_DLPACK_ASSERT(offsetof(DLTensor, byte_offset) == 3 * sizeof(void *) + 16);

#endif
