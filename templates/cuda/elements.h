// Elements of tensors, and the reals that they are computed in, for the templates that take them one at a time.
#ifndef FJ_CUDA_ELEMENTS_H
#define FJ_CUDA_ELEMENTS_H

#include "hooks.h"

#if FJ_IN_DTYPE == FJ_DTYPE_F16
typedef fj_f16 fj_element;
FJ_DEVICE fj_real fj_widen(fj_element x) { return fj_f32_from_f16(x); }
FJ_DEVICE fj_element fj_narrow(fj_real x) { return fj_f16_from_f32(x); }
#elif FJ_IN_DTYPE == FJ_DTYPE_BF16
typedef fj_bf16 fj_element;
FJ_DEVICE fj_real fj_widen(fj_element x) { return fj_f32_from_bf16(x); }
FJ_DEVICE fj_element fj_narrow(fj_real x) { return fj_bf16_from_f32(x); }
#else
typedef fj_real fj_element;
FJ_DEVICE fj_real fj_widen(fj_element x) { return x; }
FJ_DEVICE fj_element fj_narrow(fj_real x) { return x; }
#endif

// The number, where one is NaN.
#if FJ_REAL_F64
FJ_DEVICE fj_real fj_max_real(fj_real a, fj_real b) { return fmax(a, b); }
#else
FJ_DEVICE fj_real fj_max_real(fj_real a, fj_real b) { return fj_max(a, b); }
#endif

#endif
