"""A batch folded into one sequence: groups of GROUP tokens that do not see each other."""

GROUP = 50


def causal_mask(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx


def batchify_mask_mod(mask_mod, group: int):
    """Returns `mask_mod` applied within groups of `group` tokens."""

    def batched_mask_mod(b, h, q_idx, kv_idx):
        same_group = q_idx // group == kv_idx // group
        return same_group & mask_mod(b, h, q_idx % group, kv_idx % group)

    return batched_mask_mod


mask_mod = batchify_mask_mod(causal_mask, GROUP)
