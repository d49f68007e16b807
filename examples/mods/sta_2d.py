"""Sliding tile attention on an image followed by text: windows move by whole tiles, and text
sees and is seen by all."""

CANVAS_HW = (12, 12)
KERNEL_HW = (12, 8)
TILE_HW = (4, 4)
TEXT_LEN = 30


def generate_sta_mask_mod_2d(canvas_hw, kernel_hw, tile_hw, text_len: int = 0):
    """Returns the mask mod; the canvas and the kernel are whole numbers of tiles."""
    tile_numel = tile_hw[0] * tile_hw[1]
    tiles = [canvas // tile for canvas, tile in zip(canvas_hw, tile_hw)]
    kernels = [kernel // tile for kernel, tile in zip(kernel_hw, tile_hw)]
    vision_len = canvas_hw[0] * canvas_hw[1]

    def tile_coordinates(idx):
        tile = idx // tile_numel
        return tile // tiles[1], tile % tiles[1]

    def in_window(q_tile, kv_tile, num_tiles, kernel):
        left = kernel // 2
        right = kernel // 2 + (kernel % 2 - 1)
        centre = q_tile.clamp(left, (num_tiles - 1) - right)
        return (kv_tile >= centre - left) & (kv_tile <= centre + right)

    def sta_mask_mod_2d(b, h, q_idx, kv_idx):
        window = kv_idx < vision_len
        for q, kv, n, k in zip(tile_coordinates(q_idx), tile_coordinates(kv_idx), tiles, kernels):
            window = window & in_window(q, kv, n, k)
        q_vision = q_idx < vision_len
        kv_valid = kv_idx < vision_len + text_len
        vision_to_text = q_vision & (kv_idx >= vision_len) & kv_valid
        return (q_vision & window) | vision_to_text | (~q_vision & kv_valid)

    return sta_mask_mod_2d


mask_mod = generate_sta_mask_mod_2d(CANVAS_HW, KERNEL_HW, TILE_HW, TEXT_LEN)
