"""Sliding tile attention on a video followed by text: windows move by whole tiles in time,
height and width."""

CANVAS_THW = (4, 6, 6)
KERNEL_THW = (2, 6, 4)
TILE_THW = (2, 2, 2)
TEXT_LEN = 30


def generate_sta_mask_mod_3d(canvas_thw, kernel_thw, tile_thw, text_len: int = 0):
    """Returns the mask mod; the canvas and the kernel are whole numbers of tiles."""
    tile_numel = tile_thw[0] * tile_thw[1] * tile_thw[2]
    tiles = [canvas // tile for canvas, tile in zip(canvas_thw, tile_thw)]
    kernels = [kernel // tile for kernel, tile in zip(kernel_thw, tile_thw)]
    vision_len = canvas_thw[0] * canvas_thw[1] * canvas_thw[2]

    def tile_coordinates(idx):
        tile = idx // tile_numel
        area = tiles[1] * tiles[2]
        return tile // area, (tile % area) // tiles[2], tile % tiles[2]

    def in_window(q_tile, kv_tile, num_tiles, kernel):
        left = kernel // 2
        right = kernel // 2 + (kernel % 2 - 1)
        centre = q_tile.clamp(left, (num_tiles - 1) - right)
        return (kv_tile >= centre - left) & (kv_tile <= centre + right)

    def sta_mask_mod_3d(b, h, q_idx, kv_idx):
        window = kv_idx < vision_len
        for q, kv, n, k in zip(tile_coordinates(q_idx), tile_coordinates(kv_idx), tiles, kernels):
            window = window & in_window(q, kv, n, k)
        q_vision = q_idx < vision_len
        kv_valid = kv_idx < vision_len + text_len
        vision_to_text = q_vision & (kv_idx >= vision_len) & kv_valid
        return (q_vision & window) | vision_to_text | (~q_vision & kv_valid)

    return sta_mask_mod_3d


mask_mod = generate_sta_mask_mod_3d(CANVAS_THW, KERNEL_THW, TILE_THW, TEXT_LEN)
