"""What PyTorch makes of the sentences of examples/minilm.c: their embeddings, and the losses of its training steps.

    minilm.py MODEL.safetensors TOKENS.safetensors    adds `embeddings` and `losses` to the file of tokens
    minilm.py --tiny FILE                             makes both in one file, of a small random model: the test's
"""

import argparse

import torch
from torch import nn
from torch.nn import functional

import inputs

NAMES = {torch.float32: "F32", torch.float64: "F64", torch.int32: "I32", torch.int64: "I64", torch.bool: "BOOL"}
DTYPES = {name: dtype for dtype, name in NAMES.items()}
STEPS = 20
PARTS = {"self_attn.out_proj": "attention.output.dense", "norm1": "attention.output.LayerNorm",
         "linear1": "intermediate.dense", "linear2": "output.dense", "norm2": "output.LayerNorm"}  # fmt: skip


def load(path):
    return {name: torch.frombuffer(bytearray(tensor.data), dtype=DTYPES[tensor.dtype]).reshape(tensor.dims)
            for name, tensor in inputs.load(path).items()}  # fmt: skip


def save(path, tensors):
    """Those of eight bytes first, so that each is aligned."""
    order = sorted(tensors.items(), key=lambda item: -item[1].element_size())
    inputs.save(path, {name: inputs.Tensor(NAMES[t.dtype], tuple(t.shape), t.numpy().tobytes()) for name, t in order})


def make_encoder(weights, heads):
    """PyTorch's encoder with BERT's weights. In training mode, without dropout: none of its fast paths."""
    names = {name.split(".")[2] for name in weights if name.startswith("encoder.layer.")}
    features, width = weights["encoder.layer.0.intermediate.dense.weight"].shape
    layer = nn.TransformerEncoderLayer(width, heads, features, 0, "gelu", 1e-12, batch_first=True)
    encoder = nn.TransformerEncoder(layer, len(names), enable_nested_tensor=False)
    for number, layer in enumerate(encoder.layers):
        state = {}
        for kind in ("weight", "bias"):
            of = lambda part: weights[f"encoder.layer.{number}.{part}.{kind}"]  # noqa: E731, B023
            state[f"self_attn.in_proj_{kind}"] = torch.cat([of(f"attention.self.{x}") for x in ("query", "key", "value")])
            state |= {f"{ours}.{kind}": of(theirs) for ours, theirs in PARTS.items()}
        layer.load_state_dict(state)
    return encoder


def embed(weights, tokens):
    table = lambda name: weights[f"embeddings.{name}"]  # noqa: E731
    x = table("word_embeddings.weight")[tokens.long()]
    x = x + table("position_embeddings.weight")[: tokens.shape[1]] + table("token_type_embeddings.weight")[0]
    return functional.layer_norm(x, x.shape[-1:], table("LayerNorm.weight"), table("LayerNorm.bias"), 1e-12)


def pool(rows, padding):
    return functional.normalize((rows * ~padding[..., None]).sum(1))


def loss_of(embeddings):
    """Sentences 2i and 2i + 1 mean the same."""
    cosines = embeddings[::2] @ embeddings[1::2].T
    return functional.cross_entropy(20 * cosines, torch.arange(len(cosines)))


def results(weights, tokens):
    encoder = make_encoder(weights, int(tokens["heads"]))
    x, padding = embed(weights, tokens["tokens"]), tokens["padding"]
    run = lambda: pool(encoder(x, src_key_padding_mask=padding), padding)  # noqa: E731
    with torch.no_grad():
        embeddings = run()
    optimiser = torch.optim.SGD(encoder.parameters(), lr=float(tokens["rate"]))
    losses = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        loss = loss_of(run())
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    return {"embeddings": embeddings, "losses": torch.tensor(losses, dtype=torch.float64)}


def tiny():
    """A model of MiniLM's form, and sentences of random tokens: two of one token, the longest without padding."""
    width, features, heads, words, length, layers = 16, 32, 2, 40, 9, 2
    normal = lambda *shape: torch.randn(*shape) / shape[-1] ** 0.5  # noqa: E731
    model = {f"embeddings.{name}_embeddings.weight": normal(rows, width)
             for name, rows in {"word": words, "position": length, "token_type": 2}.items()}  # fmt: skip
    shapes = {"attention.self.query": (width, width), "attention.self.key": (width, width),
              "attention.self.value": (width, width), "attention.output.dense": (width, width),
              "intermediate.dense": (features, width), "output.dense": (width, features)}  # fmt: skip
    for layer in range(layers):
        for part, shape in shapes.items():
            model[f"encoder.layer.{layer}.{part}.weight"] = normal(*shape)
            model[f"encoder.layer.{layer}.{part}.bias"] = 0.1 * torch.randn(shape[0])
    norms = [f"encoder.layer.{n}.{part}.LayerNorm" for n in range(layers) for part in ("attention.output", "output")]
    for name in ["embeddings.LayerNorm", *norms]:
        model[f"{name}.weight"], model[f"{name}.bias"] = 1 + 0.1 * torch.randn(width), 0.1 * torch.randn(width)
    lengths = torch.tensor([9, 5, 1, 7, 2, 8, 6, 1])
    return model, {
        "tokens": torch.randint(words, (len(lengths), length), dtype=torch.int32),
        "padding": torch.arange(length) >= lengths[:, None],
        "heads": torch.tensor([heads], dtype=torch.int32),
        "rate": torch.tensor([0.02]),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="*", metavar="FILE")
    parser.add_argument("--tiny", metavar="FILE")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.tiny:
        model, tokens = tiny()
        save(options.tiny, model | tokens | results(model, tokens))
    else:
        weights, tokens = map(load, options.files)
        save(options.files[1], tokens | results(weights, tokens))
        print(f"PyTorch {torch.__version__}: embeddings and losses added to {options.files[1]}")


if __name__ == "__main__":
    main()
