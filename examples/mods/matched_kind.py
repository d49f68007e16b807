"""A mask chosen by a match statement, with what is computed on the way kept by a walrus."""

KIND = "chunked"
SIZE = 40


def mask_mod(b, h, q_idx, kv_idx):
    causal = q_idx >= kv_idx
    match KIND:
        case "full":
            return q_idx >= 0
        case "chunked" | "blocked" if (half := SIZE // 2) > 0:
            return causal & (q_idx // half == kv_idx // half)
        case _:
            return causal
