// The products of bwd_mma, by the dtype of its inputs.
#ifndef FJ_CUDA_BWD_PRODUCTS_H
#define FJ_CUDA_BWD_PRODUCTS_H

#include "bwd_tile.h"

#if FJ_IN_DTYPE == FJ_DTYPE_F32
#include "bwd_tf32.h"
#else
#include "bwd_half.h"
#endif

#endif
