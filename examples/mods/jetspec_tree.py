"""Tree-causal attention for speculative decoding (JetSpec, arXiv:2606.18394): a drafted token
sees the prefix and its ancestors in the tree."""

import torch

PREFIX_LENGTH = 24
ancestor_matrix = torch.eye(333, dtype=torch.bool)


def generate_tree_causal_mask(prefix_length: int, ancestor_matrix):
    """Returns the mask mod; `ancestor_matrix[i, j]` says that node j is on the path to node i."""
    assert ancestor_matrix.ndim == 2, "ancestor_matrix must be 2D"
    num_nodes = ancestor_matrix.shape[0]

    def tree_causal_mask(b, h, q_idx, kv_idx):
        node = (kv_idx - prefix_length).clamp(min=0, max=num_nodes - 1)
        in_tree = (kv_idx >= prefix_length) & (kv_idx < prefix_length + num_nodes)
        return (kv_idx < prefix_length) | (in_tree & ancestor_matrix[q_idx, node])

    return tree_causal_mask


mask_mod = generate_tree_causal_mask(PREFIX_LENGTH, ancestor_matrix)
