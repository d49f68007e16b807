/* A sequence of a call as a dense call of its own. */
#include "attn/objects.h"
#include "base/dtype.h"

/* The batch's part of a tensor, from a row on, of so many rows. */
static void narrow(fj_tensor *tensor, int64_t b, int64_t first, int64_t rows) {
    if (!tensor->present) return;
    const int64_t offset = b * tensor->strides[0] + first * tensor->strides[2];
    if (tensor->data && rows > 0) tensor->data += offset * (int64_t)fj_dtype_size(tensor->dtype);
    tensor->shape[0] = 1;
    tensor->shape[2] = rows;
}

fj_resolved fj_attn_sequence(const fj_resolved *all, int64_t b) {
    const fj_sequences *s = &all->sequences;
    fj_resolved one = *all;
    const bool packed = all->form == FJ_FORM_PACKED;
    const int64_t q_first = packed ? s->cu_q[b] : 0, kv_first = packed ? s->cu_kv[b] : 0;
    const int64_t row = packed ? 0 : b, key_row = packed || all->shared_keys ? 0 : b;
    one.batch = 1;
    one.first_batch = b;
    one.q_offset = s->q_offset ? s->q_offset[b] : 0;
    one.sequences.q_offset = NULL;
    if (packed) one.q_len = s->cu_q[b + 1] - q_first, one.kv_len = s->cu_kv[b + 1] - kv_first;
    fj_tensor *const by_query[] = {&one.query, &one.out,    &one.lse,     &one.max,    &one.dout,
                                   &one.dlse,  &one.dquery, &one.lse_low, &one.out_raw};
    fj_tensor *const by_key[] = {&one.key, &one.value, &one.dkey, &one.dvalue};
    for (size_t i = 0; i < FJ_ARRAY_LEN(by_query); i++) narrow(by_query[i], row, q_first, one.q_len);
    if (all->form == FJ_FORM_PAGED) {
        one.kv_len = s->kv_lens[b];
        one.sequences.page_table = s->page_table + b * s->table_row;
        return one;
    }
    for (size_t i = 0; i < FJ_ARRAY_LEN(by_key); i++) narrow(by_key[i], key_row, kv_first, one.kv_len);
    one.form = FJ_FORM_DENSE;
    return one;
}
