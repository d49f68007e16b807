"""Neighbourhood attention (NATTEN) on a canvas: a window whose centre is kept off the edges."""

CANVAS_W = 18
CANVAS_H = 18
KERNEL_W = 7
KERNEL_H = 5


def get_x_y(idx):
    return idx // CANVAS_W, idx % CANVAS_W


def mask_mod(b, h, q_idx, kv_idx):
    q_x, q_y = get_x_y(q_idx)
    kv_x, kv_y = get_x_y(kv_idx)
    centre_x = q_x.clamp(KERNEL_W // 2, (CANVAS_W - 1) - KERNEL_W // 2)
    centre_y = q_y.clamp(KERNEL_H // 2, (CANVAS_H - 1) - KERNEL_H // 2)
    horizontal = (centre_x - kv_x).abs() <= KERNEL_W // 2
    vertical = (centre_y - kv_y).abs() <= KERNEL_H // 2
    return horizontal & vertical
