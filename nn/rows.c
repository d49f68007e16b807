/* Which of the builds of rows_isa.c this machine runs. */
#include "nn/rows.h"

const fj_nn_rows *fj_nn_rows_portable(fj_dtype dtype);
const fj_nn_rows *fj_nn_rows_avx2(fj_dtype dtype);
const fj_nn_rows *fj_nn_rows_avx512(fj_dtype dtype);

const fj_nn_rows *fj_nn_rows_of(fj_dtype dtype) {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return fj_nn_rows_avx512(dtype);
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return fj_nn_rows_avx2(dtype);
#endif
    return fj_nn_rows_portable(dtype);
}
