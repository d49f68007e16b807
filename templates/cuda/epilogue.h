// The mods of the output and of the sink, as the templates ask them: with the position that a score mod sees.
#ifndef FJ_CUDA_EPILOGUE_H
#define FJ_CUDA_EPILOGUE_H

#include "hooks.h"

#include "identity.h"

#if FJ_HAS_SINK
// The sink of a head: a natural logit.
FJ_DEVICE fj_real fj_sink_of(const fj_mod_args &mod, int32_t b, int32_t h) {
    struct fj_sink_head_state head;
    fj_sink_head_init(&mod, b, h, &head);
    return fj_sink(&mod, &head);
}
#endif

#if FJ_HAS_OUT
// A row of the output.
struct fj_out_place {
    struct fj_out_head_state head;
    struct fj_out_row_state row;
};
FJ_DEVICE fj_out_place fj_out_place_of(const fj_mod_args &mod, int32_t b, int32_t h, int32_t q_position) {
    fj_out_place place;
    fj_out_head_init(&mod, b, h, &place.head);
    fj_out_row_init(&mod, &place.head, q_position, &place.row);
    return place;
}
// An element of it.
FJ_DEVICE fj_real fj_out_of(const fj_mod_args &mod, const fj_out_place &place, int32_t column, fj_real x) {
    struct fj_out_col_state col;
    fj_out_col_init(&mod, &place.head, column, &col);
    return fj_out(&mod, &place.head, &place.row, &col, x);
}
FJ_DEVICE bool fj_out_fails([[maybe_unused]] const fj_mod_args &mod,
                            [[maybe_unused]] const fj_out_place &place, [[maybe_unused]] int32_t column,
                            [[maybe_unused]] fj_real x) {
#if FJ_HAS_OUT_FAULT
    struct fj_out_col_state col;
    fj_out_col_init(&mod, &place.head, column, &col);
    return fj_out_fault(&mod, &place.head, &place.row, &col, x, true);
#else
    return false;
#endif
}
#endif

FJ_DEVICE bool fj_sink_fails([[maybe_unused]] const fj_mod_args &mod, [[maybe_unused]] int32_t b,
                             [[maybe_unused]] int32_t h) {
#if FJ_HAS_SINK_FAULT
    struct fj_sink_head_state head;
    fj_sink_head_init(&mod, b, h, &head);
    return fj_sink_fault(&mod, &head);
#else
    return false;
#endif
}

#endif
