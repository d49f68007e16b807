/* Protocol buffers as bytes: fields of a message, one after the other. Untrusted.
 *
 * Read here, and not by protobuf-c: that unpacks a whole model before anything is looked at, copying every tensor, where models are
 * mapped and their weights stay in the file; it needs onnx.proto and its compiler when flexjit is built, for a dozen messages of
 * which a few fields each are wanted; and it takes no message above 2 GB. The format of the wire is four kinds of fields. */
#ifndef FJ_FUSE_WIRE_H
#define FJ_FUSE_WIRE_H

#include "base/base.h"

typedef struct fj_wire {
    const uint8_t *at, *end;
    fj_scope *scope;
} fj_wire;

typedef struct fj_wire_field {
    uint32_t number;
    int type;        /* 0 varint, 1 eight bytes, 2 bytes, 5 four bytes */
    uint64_t value;  /* of 0, 1 and 5 */
    fj_wire message; /* of 2 */
} fj_wire_field;

/* False at the end. Leaves the scope where the bytes are no message. */
bool fj_wire_next(fj_wire *wire, fj_wire_field *ret);
fj_str fj_wire_text(const fj_wire_field *field);

#endif
