"""Stand-alone self-attention (arXiv:1906.05909): a square window on an image, cut at its edges."""

CANVAS_W = 18
WINDOW = 3


def get_x_y(idx):
    return idx // CANVAS_W, idx % CANVAS_W


def mask_mod(b, h, q_idx, kv_idx):
    q_x, q_y = get_x_y(q_idx)
    kv_x, kv_y = get_x_y(kv_idx)
    return ((q_x - kv_x).abs() <= WINDOW) & ((q_y - kv_y).abs() <= WINDOW)
