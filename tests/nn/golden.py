#!/usr/bin/env python3
"""Writes golden.h: what PyTorch's layers compute, in F64, of inputs and weights that formulas give. Needs PyTorch.

usage: golden.py >golden.h

Parameters are cos(0), cos(1), ... of each tensor, as in PyTorch's own tests of TransformerEncoder; the input is theirs too. The
numbers of that test for one layer are the first rows, to its 6 decimals.
"""

import warnings

import torch

SRC = [
    [[0.7462, 0.6653, 0.5679, 0.4891], [0.5387, 0.1655, 0.3565, 0.0471]],
    [[0.8335, 0.2799, 0.5031, 0.2947], [0.1402, 0.0318, 0.7636, 0.1346]],
    [[0.6333, 0.9344, 0.1376, 0.9938], [0.8924, 0.2872, 0.6692, 0.2944]],
    [[0.9897, 0.6915, 0.3154, 0.1733], [0.8645, 0.3513, 0.3064, 0.0767]],
    [[0.8117, 0.2366, 0.4838, 0.7881], [0.3718, 0.4945, 0.9511, 0.0864]],
]
MEMORY = [[[0.1 * (5 * s + 3 * b + d) - 0.6 for d in range(4)] for b in range(2)] for s in range(3)]


def set_parameters(module):
    with torch.no_grad():
        for p in module.parameters():
            p.copy_(torch.cos(torch.arange(p.numel(), dtype=p.dtype)).view(p.shape))


def put(name, tensor):
    print(f"static const double {name}[] = {{")
    for row in tensor.detach().reshape(-1, 4):
        print("    " + ", ".join(f"{x:.12g}" if float(f"{x:.12g}") != int(x) else f"{x:.1f}" for x in row.tolist()) + ",")
    print("};")


def causal(length):
    return torch.ones(length, length, dtype=torch.bool).triu(1)


def encoder(layers, norm, activation="relu", norm_first=False):
    layer = torch.nn.TransformerEncoderLayer(4, 2, 16, 0.0, activation, norm_first=norm_first, dtype=torch.float64)
    final = torch.nn.LayerNorm(4, dtype=torch.float64) if norm else None
    made = torch.nn.TransformerEncoder(layer, layers, final, enable_nested_tensor=False)
    set_parameters(made)
    return made


def padding(*hidden):
    mask = torch.zeros(2, 5, dtype=torch.bool)
    for b, s in hidden:
        mask[b, s] = True
    return mask


def put_encoder(name, made, with_gradient=False, **masks):
    src = torch.tensor(SRC, dtype=torch.float64, requires_grad=True)
    out = made(src, **masks)
    put(name, out)
    if with_gradient:
        out.backward(torch.sin(torch.arange(40, dtype=torch.float64)).view(5, 2, 4))
        put(name + "_dsrc", src.grad)
        put(name + "_dweight", made.layers[0].self_attn.in_proj_weight.grad)


def put_decoder(name, layers, norm_first):
    layer = torch.nn.TransformerDecoderLayer(4, 2, 16, 0.0, "gelu", norm_first=norm_first, dtype=torch.float64)
    made = torch.nn.TransformerDecoder(layer, layers)
    set_parameters(made)
    tgt = torch.tensor(SRC, dtype=torch.float64, requires_grad=True)
    memory = torch.tensor(MEMORY, dtype=torch.float64, requires_grad=True)
    hidden = torch.tensor([[False, False, True], [False, False, False]])
    out = made(tgt, memory, tgt_mask=causal(5), memory_key_padding_mask=hidden)
    put(name, out)
    out.backward(torch.sin(torch.arange(40, dtype=torch.float64)).view(5, 2, 4))
    put(name + "_dtgt", tgt.grad)
    put(name + "_dmemory", memory.grad)


def main():
    warnings.simplefilter("ignore")
    print("/* Written by golden.py with PyTorch: do not edit. */")
    print("#ifndef FJ_TESTS_NN_GOLDEN_H\n#define FJ_TESTS_NN_GOLDEN_H\n\n/* clang-format off */")
    put("golden_src", torch.tensor(SRC, dtype=torch.float64))
    put("golden_memory", torch.tensor(MEMORY, dtype=torch.float64))
    put_encoder("golden_one", encoder(1, False))
    put_encoder("golden_one_padded", encoder(1, False), src_key_padding_mask=padding((0, 2), (1, 3), (1, 4)))
    put_encoder("golden_two_tails", encoder(2, False), src_key_padding_mask=padding((0, 3), (0, 4), (1, 4)))
    put_encoder("golden_two_norm", encoder(2, True), True, src_key_padding_mask=padding((0, 2), (1, 3), (1, 4)))
    put_encoder("golden_six", encoder(6, False))
    put_encoder("golden_six_norm", encoder(6, True))
    put_encoder("golden_two_first", encoder(2, True, "gelu", norm_first=True), True, mask=causal(5))
    put_decoder("golden_decoder", 2, False)
    put_decoder("golden_decoder_first", 1, True)
    print("\n#endif")


if __name__ == "__main__":
    main()
