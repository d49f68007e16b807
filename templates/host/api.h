#ifndef FLEXJIT_CALL_H
#define FLEXJIT_CALL_H

#define FLEXJIT_MAX_RANK 8

typedef enum flexjit_status {
    FLEXJIT_OK = 0,
    FLEXJIT_ARGUMENT = -2, /* NAME_wrong says what; or the workspace is missing, not aligned, or too small */
    FLEXJIT_INDEX = -6,    /* a bad read in a mod: outputs are unspecified */
    FLEXJIT_UNSUPPORTED = -7, /* this CPU does not have the kernel's instruction set */
} flexjit_status;

/* A tensor of a call, the caller's. */
typedef struct flexjit_tensor {
    void *data;             /* its first element; NULL: absent */
    const int64_t *strides; /* in elements, one a dimension, the last is 1; NULL: packed */
    const int64_t *shape;   /* of captured tensors alone: all others have that of the sizes */
} flexjit_tensor;

typedef union flexjit_scalar {
    double f;  /* float scalars */
    int64_t i; /* int and bool scalars */
} flexjit_scalar;

/* A call; zero what is not used. B batch, Hq and Hkv heads (Hq a multiple of Hkv), L and S lengths, any from 0 up; E and Ev are
 * the kernel's head and value dimension.
 *
 *     query [B,Hq,L,E]  key [B,Hkv,S,E]  value [B,Hkv,S,Ev]  out [B,Hq,L,Ev]      the kernel's dtype
 *     lse, lse_low, max [B,Hq,L]: float, or double for double inputs
 *     dout, dlse as out, lse; dquery, dkey, dvalue as query, key, value
 *     gradients of captured tensors (of their shape) and of scalars: as lse
 *
 * Forward writes out if it is there, lse (the natural logarithm, -inf for a query that sees nothing), lse_low if it is there (what
 * rounding took from lse), and max. Backward reads out, lse, lse_low and, if it is there, dlse, and writes the gradients that are there, all of
 * their elements. Elements of different indices of what is written may not overlap. What a query does not see contributes
 * exactly 0, whatever lies there. */
typedef struct flexjit_args {
    int64_t batch, heads_q, heads_kv, q_len, kv_len;
    double
        scale; /* of the scores, usually 1/sqrt(E): 0, or a magnitude from 2^-126 to 2^126 (double inputs: up to 2^1022) */
    flexjit_tensor query, key, value;
    flexjit_tensor out, lse, lse_low, max;
    flexjit_tensor dout, dlse, dquery, dkey, dvalue; /* backward */
    const flexjit_tensor *captures;  /* in the order of the kernel's enum; NULL where it has none */
    const flexjit_tensor *dcaptures; /* as captures, or NULL: none is wanted */
    const flexjit_scalar *scalars;
    const flexjit_tensor *dscalars; /* as dcaptures */
} flexjit_args;

/* A bad read in a mod: it read outside of a captured tensor, or divided an int by zero, at this position. */
typedef struct flexjit_fault {
    int32_t found; /* 0: there was none */
    int32_t b, h, q, kv;
} flexjit_fault;

#endif
