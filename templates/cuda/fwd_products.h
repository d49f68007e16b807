// The products of fwd_mma, by the dtype of its inputs.
#ifndef FJ_CUDA_FWD_PRODUCTS_H
#define FJ_CUDA_FWD_PRODUCTS_H

#include "fwd_tile.h"

#if FJ_IN_DTYPE == FJ_DTYPE_F32
#include "fwd_tf32.h"
#else
#include "fwd_half.h"
#endif

#endif
