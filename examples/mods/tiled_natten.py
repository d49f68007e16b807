"""Neighbourhood attention on a canvas that is stored tile by tile."""

W = 16
H = 24
K_W = 7
K_H = 7
T_W = 4
T_H = 8


def get_x_y_tiled(idx):
    tile = idx // (T_H * T_W)
    tile_y, tile_x = tile // (W // T_W), tile % (W // T_W)
    inner = idx % (T_H * T_W)
    inner_y, inner_x = inner // T_W, inner % T_W
    return tile_x * T_W + inner_x, tile_y * T_H + inner_y


def mask_mod(b, h, q_idx, kv_idx):
    q_x, q_y = get_x_y_tiled(q_idx)
    kv_x, kv_y = get_x_y_tiled(kv_idx)
    centre_x = q_x.clamp(K_W // 2, (W - 1) - K_W // 2)
    centre_y = q_y.clamp(K_H // 2, (H - 1) - K_H // 2)
    return ((centre_x - kv_x).abs() <= K_W // 2) & ((centre_y - kv_y).abs() <= K_H // 2)
