"""Neighbourhood attention on a canvas that is stored along a Morton (Z-order) curve."""

CANVAS_W = 32
CANVAS_H = 32
KERNEL_W = 9
KERNEL_H = 7


def deinterleave_bits(code):
    code = code & 0x55555555
    code = (code | (code >> 1)) & 0x33333333
    code = (code | (code >> 2)) & 0x0F0F0F0F
    code = (code | (code >> 4)) & 0x00FF00FF
    return (code | (code >> 8)) & 0x0000FFFF


def morton_decode(code):
    return deinterleave_bits(code), deinterleave_bits(code >> 1)


def mask_mod(b, h, q_idx, kv_idx):
    q_x, q_y = morton_decode(q_idx)
    kv_x, kv_y = morton_decode(kv_idx)
    centre_x = q_x.clamp(KERNEL_W // 2, (CANVAS_W - 1) - KERNEL_W // 2)
    centre_y = q_y.clamp(KERNEL_H // 2, (CANVAS_H - 1) - KERNEL_H // 2)
    return ((centre_x - kv_x).abs() <= KERNEL_W // 2) & ((centre_y - kv_y).abs() <= KERNEL_H // 2)
