/* flexjit/nn.h: multi-head attention and the transformer's encoder and decoder around it, forward and backward.
 *
 * Formulas, names of parameters and defaults are those of PyTorch's MultiheadAttention, TransformerEncoder(Layer) and
 * TransformerDecoder(Layer), so that their state is read as it stands. Attention runs by kernels that are made of mods, as
 * everything of flexjit.h; masks are merged in them and never made dense. Products run by the C interface of a BLAS, which is
 * opened when the first of these objects is made: FLEXJIT_BLAS, a path or a name; else OpenBLAS (libopenblas.so.0), else
 * libblas.so.3.
 *
 * The way of a call:
 *
 *     fj_encoder_create      device + desc; compiles the attention kernels, or finds them in the cache
 *     fj_encoder_sizes       bytes of workspace and of saved state that a call needs
 *     fj_encoder_forward     no allocation of its own, no compilation (the BLAS has buffers of its own)
 *     fj_encoder_backward    reads what forward saved; writes gradients
 *
 * Conventions are those of flexjit.h, and
 *
 *   - State is plain structs of tensors, the caller's; gradients are the same structs. What a gradient struct has NULL is not
 *     computed; what it has is written fully, whatever it held (not added to).
 *   - Tensors are memory of the device and of the object's dtype. Activations, parameters and gradients are packed (strides
 *     NULL, or those of a packed tensor); masks have any strides, 0 too, but a unit last one.
 *   - Outputs may not overlap inputs or one another.
 *   - **In these masks true means hidden**, as in PyTorch's layers; not as in its scaled_dot_product_attention. Floating masks
 *     are added to the scores, after these are scaled.
 *   - A query that sees nothing has an attention of 0, where PyTorch may have NaN: the layer goes on with the bias.
 *   - Evaluation is a call without memory for saved state; training is one with it. Dropout acts in training alone.
 *   - Threads: objects are immutable once made, so any thread may use them at any time, each call with memory of its own. A call
 *     runs on threads as fj_launch says, each with products on one thread: while calls run, OpenBLAS is set to one thread
 *     for the whole process (where it has threads of its own, not OpenMP's), and set back when the last one is done. Another
 *     BLAS has to be told by its own means.
 *   - The same call on as many threads gives the same bits. On another number of threads rows are parted elsewhere: gradients
 *     of biases and norms, which are sums over rows, then differ in their last digits, and with some BLAS other results too.
 *   - Devices: cpu, whose kernels are fast; reference, unfused and emu compute the same attention in their way.
 *
 * Errors of every call: FJ_ERR_TENSOR names the tensor, its shape and what is allowed; FJ_ERR_ARGUMENT; FJ_ERR_MEMORY: the workspace
 * or the saved state is too small. Outputs are untouched then.
 */
#ifndef FLEXJIT_NN_H
#define FLEXJIT_NN_H

#include "flexjit/flexjit.h"

#ifdef __cplusplus
extern "C" {
#endif

/* ---- State ------------------------------------------------------------------------------------------------- */

/* y = x W^T + b. weight [out, in], bias [out]; bias NULL: none. */
typedef struct fj_linear {
    const DLTensor *weight, *bias;
} fj_linear;

/* y = (x - mean) / sqrt(variance + eps) * weight + bias. weight, bias [D]; NULL: ones, zeros. */
typedef struct fj_norm {
    const DLTensor *weight, *bias;
} fj_norm;

/* Projections of multi-head attention, in one of two forms:
 *
 *   packed     in.weight [3*E, E]: query's rows, key's, value's; in.bias [3*E] or NULL. q, k, v have no weights
 *   separate   q.weight [E, E], k.weight [E, kdim], v.weight [E, vdim]; biases [E], each may be NULL. in.weight is NULL;
 *              in.bias [3*E] may stand for the three biases, as in PyTorch
 *
 * out.weight [E, E], out.bias [E] or NULL. */
typedef struct fj_mha_state {
    fj_linear in;
    fj_linear q, k, v;
    fj_linear out;
} fj_mha_state;

typedef struct fj_encoder_layer {
    fj_mha_state self_attn;
    fj_linear linear1, linear2; /* [F, D], [D, F] */
    fj_norm norm1, norm2;
} fj_encoder_layer;

typedef struct fj_decoder_layer {
    fj_mha_state self_attn, cross_attn; /* cross_attn: PyTorch's multihead_attn */
    fj_linear linear1, linear2;
    fj_norm norm1, norm2, norm3;
} fj_decoder_layer;

/* ---- Masks ------------------------------------------------------------------------------------------------- */

/* What masks the calls of an object bring. A call may leave out what the object was made for, and can't bring what it was not.
 *
 *   attention mask     [L,S], [B*H,L,S] with index b * H + h, or [B,H,L,S] (extents of 1, but S, stand for any)
 *   key padding mask   [B,S]
 *
 * Both may be used together, but not a floating key padding mask with a BOOL attention mask. Integers are no masks. */
typedef enum fj_mask_kind {
    FJ_MASK_NONE,
    FJ_MASK_BOOL,   /* true is hidden */
    FJ_MASK_FLOAT,  /* of the object's dtype, added; -inf is hidden */
    FJ_MASK_CAUSAL, /* attention masks alone: query q sees keys up to q. No tensor */
} fj_mask_kind;

/* ---- Memory ------------------------------------------------------------------------------------------------ */

/* What a call needs, in bytes. */
typedef struct fj_nn_sizes {
    size_t forward, backward; /* workspaces */
    size_t saved;             /* what forward keeps for backward */
} fj_nn_sizes;

/* Memory of a call, 256-byte aligned, not initialised. The workspace is free again when the call returns; saved has to stay as
 * forward wrote it until backward has read it. */
typedef struct fj_nn_memory {
    void *workspace;
    size_t workspace_size;
    void *saved; /* NULL in forward: evaluation */
    size_t saved_size;
} fj_nn_memory;

/* ---- Multi-head attention ------------------------------------------------------------------------------------ */

typedef struct fj_mha fj_mha;

typedef struct fj_mha_desc {
    size_t struct_size;
    fj_dtype dtype;           /* F32 or F64 */
    int64_t embed_dim, heads; /* E is a multiple of heads; E / heads is 1 to 256 */
    int64_t kdim, vdim;       /* features of key and value; 0: embed_dim. Others need separate projections */
    bool batch_first;         /* [B,L,E]; false, as in PyTorch: [L,B,E] */
    fj_mask_kind attn_mask, key_padding_mask;
    bool inference; /* no backward, and no kernel for it */
    double dropout; /* of probabilities, 0 to 1 */
} fj_mha_desc;

/* FJ_ERR_UNSUPPORTED: no BLAS was found, or the device's memory is not the host's. Else as fj_kernel_create. */
FJ_NODISCARD FJ_API fj_status fj_mha_create(fj_device *device, const fj_mha_desc *desc, fj_mha **ret_mha,
                                            fj_error *error);
FJ_API void fj_mha_unref(fj_mha **mha);

/* One call: forward reads the first block of fields and writes out; backward reads both. */
typedef struct fj_mha_call {
    size_t struct_size;
    fj_mha_state state;
    /* query [B,L,E], key [B,S,kdim], value [B,S,vdim], or [L,B,E] and so on; without a batch [L,E], [S,kdim], [S,vdim].
     * key NULL: query. value NULL: key. */
    const DLTensor *query, *key, *value;
    const DLTensor *out; /* as query */
    /* Probabilities, where not NULL: [B,H,L,S], or their mean over the heads [B,L,S]; without a batch [H,L,S] or [L,S]. In training
     * those that dropout leaves. They are computed beside the attention and have no gradient. */
    const DLTensor *weights;
    const DLTensor *attn_mask, *key_padding_mask; /* NULL: nothing is hidden */
    /* A hint that attn_mask is causal, which lets blocks be skipped. FJ_ERR_ARGUMENT without an attn_mask. (Without the hint a BOOL
     * [L,L] mask that is causal is recognised.) */
    bool is_causal;
    uint64_t seed, offset; /* of dropout. A call uses one offset */
    /* Backward. Of what forward read and wrote, out alone may have changed. Each NULL: not computed. dquery holds also the
     * gradients by key and value where these are NULL. */
    const DLTensor *dout, *dquery, *dkey, *dvalue;
    fj_mha_state dstate;
} fj_mha_call;

/* Of the state and the inputs shapes are looked at, their data are not; results need not be there. */
FJ_NODISCARD FJ_API fj_status fj_mha_sizes(const fj_mha *mha, const fj_mha_call *call,
                                           const fj_launch *launch, fj_nn_sizes *ret_sizes, fj_error *error);
FJ_NODISCARD FJ_API fj_status fj_mha_forward(const fj_mha *mha, const fj_mha_call *call,
                                             const fj_launch *launch, const fj_nn_memory *memory,
                                             fj_error *error);
/* FJ_ERR_ARGUMENT: the object was made for inference. */
FJ_NODISCARD FJ_API fj_status fj_mha_backward(const fj_mha *mha, const fj_mha_call *call,
                                              const fj_launch *launch, const fj_nn_memory *memory,
                                              fj_error *error);

/* ---- Encoder ----------------------------------------------------------------------------------------------- */

typedef enum fj_activation {
    FJ_ACTIVATION_RELU,
    FJ_ACTIVATION_GELU, /* x/2 (1 + erf(x / sqrt(2))) */
} fj_activation;

/* What layers of a transformer share. */
typedef struct fj_layer_desc {
    int64_t d_model, heads, dim_feedforward;
    fj_activation activation;
    bool norm_first;  /* normalised before each part; false: after it and its residual */
    double norm_eps;  /* 0: 1e-5 */
    bool batch_first; /* [B,L,D]; false: [L,B,D] */
    bool inference;   /* no backward */
    double dropout;   /* of probabilities, activations, and each part before its residual */
} fj_layer_desc;

typedef struct fj_encoder fj_encoder;

/* An encoder layer is an encoder of one layer without a final norm. */
typedef struct fj_encoder_desc {
    size_t struct_size;
    fj_dtype dtype; /* F32 or F64 */
    fj_layer_desc layer;
    int64_t layer_count; /* 0: 1 */
    bool final_norm;
    fj_mask_kind mask, key_padding_mask;
    /* Padding is not computed: where a BOOL key padding mask hides only the ends of sequences (otherwise nothing is skipped), what it
     * shows is packed before the first layer and laid out again behind the last; rows of padding are 0 in out and in dsrc. */
    bool skip_padding;
} fj_encoder_desc;

FJ_NODISCARD FJ_API fj_status fj_encoder_create(fj_device *device, const fj_encoder_desc *desc,
                                                fj_encoder **ret_encoder, fj_error *error);
FJ_API void fj_encoder_unref(fj_encoder **encoder);

typedef struct fj_encoder_call {
    size_t struct_size;
    const fj_encoder_layer *layers; /* layer_count of them */
    fj_norm norm;                   /* with final_norm */
    const DLTensor *src;            /* [B,L,D], [L,B,D], or [L,D] */
    const DLTensor *out;            /* as src */
    const DLTensor *mask, *key_padding_mask;
    bool is_causal;        /* as in fj_mha_call */
    uint64_t seed, offset; /* of dropout. A call uses the offsets from here to offset + 4 * layer_count - 1 */
    /* Backward, as in fj_mha_call. */
    const DLTensor *dout, *dsrc;
    const fj_encoder_layer *dlayers; /* layer_count of them; NULL: no gradients of parameters */
    fj_norm dnorm;
} fj_encoder_call;

/* With skip_padding the data of key_padding_mask are read: the sizes are those of the lengths that it leaves. */
FJ_NODISCARD FJ_API fj_status fj_encoder_sizes(const fj_encoder *encoder, const fj_encoder_call *call,
                                               const fj_launch *launch, fj_nn_sizes *ret_sizes,
                                               fj_error *error);
FJ_NODISCARD FJ_API fj_status fj_encoder_forward(const fj_encoder *encoder, const fj_encoder_call *call,
                                                 const fj_launch *launch, const fj_nn_memory *memory,
                                                 fj_error *error);
FJ_NODISCARD FJ_API fj_status fj_encoder_backward(const fj_encoder *encoder, const fj_encoder_call *call,
                                                  const fj_launch *launch, const fj_nn_memory *memory,
                                                  fj_error *error);

/* ---- Decoder ----------------------------------------------------------------------------------------------- */

typedef struct fj_decoder fj_decoder;

/* A decoder layer is a decoder of one layer without a final norm. */
typedef struct fj_decoder_desc {
    size_t struct_size;
    fj_dtype dtype; /* F32 or F64 */
    fj_layer_desc layer;
    int64_t layer_count; /* 0: 1 */
    bool final_norm;
    fj_mask_kind tgt_mask, tgt_key_padding_mask;
    fj_mask_kind memory_mask, memory_key_padding_mask;
} fj_decoder_desc;

FJ_NODISCARD FJ_API fj_status fj_decoder_create(fj_device *device, const fj_decoder_desc *desc,
                                                fj_decoder **ret_decoder, fj_error *error);
FJ_API void fj_decoder_unref(fj_decoder **decoder);

typedef struct fj_decoder_call {
    size_t struct_size;
    const fj_decoder_layer *layers;
    fj_norm norm;
    const DLTensor *tgt;                                   /* [B,L,D], [L,B,D], or [L,D] */
    const DLTensor *memory;                                /* [B,S,D], [S,B,D], or [S,D] */
    const DLTensor *out;                                   /* as tgt */
    const DLTensor *tgt_mask, *tgt_key_padding_mask;       /* L by L */
    const DLTensor *memory_mask, *memory_key_padding_mask; /* L by S */
    bool tgt_is_causal, memory_is_causal;
    uint64_t seed, offset; /* of dropout. A call uses the offsets from here to offset + 6 * layer_count - 1 */
    const DLTensor *dout, *dtgt, *dmemory;
    const fj_decoder_layer *dlayers;
    fj_norm dnorm;
} fj_decoder_call;

FJ_NODISCARD FJ_API fj_status fj_decoder_sizes(const fj_decoder *decoder, const fj_decoder_call *call,
                                               const fj_launch *launch, fj_nn_sizes *ret_sizes,
                                               fj_error *error);
FJ_NODISCARD FJ_API fj_status fj_decoder_forward(const fj_decoder *decoder, const fj_decoder_call *call,
                                                 const fj_launch *launch, const fj_nn_memory *memory,
                                                 fj_error *error);
FJ_NODISCARD FJ_API fj_status fj_decoder_backward(const fj_decoder *decoder, const fj_decoder_call *call,
                                                  const fj_launch *launch, const fj_nn_memory *memory,
                                                  fj_error *error);

#ifdef __cplusplus
}
#endif
#endif
