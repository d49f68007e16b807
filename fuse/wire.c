/* https://protobuf.dev/programming-guides/encoding */
#include "fuse/wire.h"

_Noreturn static void damaged(fj_wire *wire) {
    fj_fail(wire->scope, FJ_ERR_TENSOR,
            "not an ONNX model, or damaged: a message of protocol buffers ends too early");
}

static uint64_t varint(fj_wire *wire) {
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (wire->at == wire->end) damaged(wire);
        const uint8_t byte = *wire->at++;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return value;
    }
    damaged(wire);
}

static uint64_t fixed(fj_wire *wire, int bytes) {
    uint64_t value = 0;
    if (wire->end - wire->at < bytes) damaged(wire);
    for (int i = 0; i < bytes; i++) value |= (uint64_t)wire->at[i] << (8 * i);
    wire->at += bytes;
    return value;
}

bool fj_wire_next(fj_wire *wire, fj_wire_field *ret) {
    if (wire->at == wire->end) return false;
    const uint64_t tag = varint(wire);
    *ret = (fj_wire_field){.number = (uint32_t)(tag >> 3), .type = (int)(tag & 7)};
    if (tag >> 3 == 0 || tag >> 35 != 0) damaged(wire);
    switch (ret->type) {
    case 0: ret->value = varint(wire); break;
    case 1: ret->value = fixed(wire, 8); break;
    case 5: ret->value = fixed(wire, 4); break;
    case 2: {
        const uint64_t size = varint(wire);
        if (size > (uint64_t)(wire->end - wire->at)) damaged(wire);
        ret->message = (fj_wire){wire->at, wire->at + size, wire->scope};
        wire->at += size;
        break;
    }
    default: damaged(wire);
    }
    return true;
}

fj_str fj_wire_text(const fj_wire_field *field) {
    if (field->type != 2) return (fj_str){"", 0};
    return (fj_str){(const char *)field->message.at, (size_t)(field->message.end - field->message.at)};
}
