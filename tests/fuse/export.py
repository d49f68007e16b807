#!/usr/bin/env python3
"""Exports small models with random weights, as .pt2 and their inputs and outputs as safetensors, into a folder.

usage: export.py DIR [NAME...]      needs torch, and transformers for most of them (PyPI)
       export.py --committed        those of data/
       export.py --onnx DIR         the same models as ONNX, of several opsets

Each model gives DIR/NAME_ATTENTION_DTYPE_FORM.pt2, where FORM is raw or core (after run_decompositions()), and .st: the
inputs under the graph's names and what PyTorch gives as expected_0, expected_1 ...
"""

import json
import pathlib
import struct
import sys
import zipfile

import torch

DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16", torch.float16: "F16", torch.int64: "I64", torch.int32: "I32",
          torch.bool: "BOOL", torch.float64: "F64"}  # fmt: skip
BATCH, LENGTH = 2, 7


def save_tensors(path, tensors):
    header, body = {}, b""
    for name, tensor in tensors.items():
        tensor = tensor.detach().contiguous()
        data = bytes(tensor.flatten().view(torch.uint8).numpy()) if tensor.numel() else b""
        header[name] = {"dtype": DTYPES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [len(body), len(body) + len(data)]}
        body += data
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + body)


def save_program(path, program):
    """Without what says where it was made: stack traces, sample inputs."""
    torch.export.save(program, path)
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name, data in sorted(members.items()):
            if "sample_inputs" in name or name.endswith("serialization_id"):
                continue
            if name.endswith("models/model.json"):
                model = json.loads(data)
                model["guards_code"] = []
                for node in model["graph_module"]["graph"]["nodes"]:
                    node["metadata"] = {}
                data = json.dumps(model, separators=(",", ":")).encode()
            archive.writestr(zipfile.ZipInfo(name), data)


def ids(length=LENGTH):
    return torch.arange(BATCH * length).reshape(BATCH, length) * 7 % 50


def padding(length=LENGTH):
    mask = torch.ones(BATCH, length, dtype=torch.int64)
    mask[0, -2:] = 0
    return mask


def text_inputs():
    return {"input_ids": ids(), "attention_mask": padding()}


SMALL = {"vocab_size": 50, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def bert(attention):
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(**SMALL, attn_implementation=attention)), text_inputs()


def distilbert(attention):
    from transformers import DistilBertConfig, DistilBertModel

    return DistilBertModel(DistilBertConfig(vocab_size=50, dim=32, n_layers=2, n_heads=4, hidden_dim=48, attn_implementation=attention)), text_inputs()


def gpt2(attention):
    from transformers import GPT2Config, GPT2Model

    return GPT2Model(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=32, use_cache=False, attn_implementation=attention)), text_inputs()


def t5(attention):
    from transformers import T5Config, T5Model

    config = T5Config(vocab_size=50, d_model=32, d_kv=8, d_ff=48, num_layers=1, num_heads=4, use_cache=False, attn_implementation=attention)
    return T5Model(config), {**text_inputs(), "decoder_input_ids": ids(5)}


def mbart(attention):
    from transformers import MBartConfig, MBartModel

    config = MBartConfig(vocab_size=50, d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=4, decoder_attention_heads=4,
                         encoder_ffn_dim=48, decoder_ffn_dim=48, use_cache=False, max_position_embeddings=32, attn_implementation=attention)  # fmt: skip
    return MBartModel(config), {**text_inputs(), "decoder_input_ids": ids(5)}


def llama(attention):
    from transformers import LlamaConfig, LlamaModel

    return LlamaModel(LlamaConfig(**SMALL, num_key_value_heads=2, use_cache=False, attn_implementation=attention)), text_inputs()


def gemma2(attention):
    from transformers import Gemma2Config, Gemma2Model

    config = Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, sliding_window=4, use_cache=False, attn_implementation=attention)
    return Gemma2Model(config), text_inputs()


def vit(attention):
    from transformers import ViTConfig, ViTModel

    config = ViTConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48, image_size=8, patch_size=4, attn_implementation=attention)
    return ViTModel(config, add_pooling_layer=False), {"pixel_values": torch.randn(BATCH, 3, 8, 8)}


class Block(torch.nn.Module):
    """Attention written by hand, in the ways that models have."""

    def __init__(self, kind):
        super().__init__()
        self.kind = kind
        self.project = torch.nn.Linear(32, 96)
        self.register_buffer("slopes", torch.tensor([0.5, 0.25, 0.125, 0.0625]).view(4, 1, 1))
        self.register_buffer("causal", torch.ones(64, 64, dtype=torch.bool).tril().view(1, 1, 64, 64))

    def forward(self, x):
        batch, length, _ = x.shape
        q, k, v = (t.view(batch, length, 4, 8).transpose(1, 2) for t in self.project(x).chunk(3, -1))
        if self.kind == "sdpa":
            out = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            return out.transpose(1, 2).reshape(batch, length, 32)
        scores = q @ k.transpose(-1, -2) / 8**0.5
        position = torch.arange(length)
        distance = position[:, None] - position[None, :]
        if self.kind == "alibi":
            scores = scores - self.slopes.to(x.dtype) * distance.abs()
        if self.kind in ("window", "dynamic"):
            scores = scores.masked_fill((distance < 0) | (distance >= 4), float("-inf"))
        if self.kind == "buffer":
            scores = torch.where(self.causal[:, :, :length, :length], scores, torch.tensor(float("-inf")))
        if self.kind == "written":
            scores = scores - scores.amax(-1, keepdim=True)
            grown = scores.exp()
            weights = grown / grown.sum(-1, keepdim=True)
        else:
            weights = scores.softmax(-1)
        return (weights @ v).transpose(1, 2).reshape(batch, length, 32)


def block(kind):
    return lambda attention: (Block(kind), {"x": torch.randn(BATCH, LENGTH, 32)})


MODELS = {"bert": bert, "distilbert": distilbert, "gpt2": gpt2, "t5": t5, "mbart": mbart, "llama": llama, "gemma2": gemma2, "vit": vit}
BLOCKS = {kind: block(kind) for kind in ("alibi", "window", "buffer", "written", "sdpa", "dynamic")}
COMMITTED = {("alibi", torch.bfloat16), ("window", torch.float32), ("sdpa", torch.float32), ("dynamic", torch.float32), ("llama", torch.float32)}


def flatten(value):
    if isinstance(value, torch.Tensor):
        return [value]
    if isinstance(value, dict):
        return [tensor for item in value.values() for tensor in flatten(item)]
    return [tensor for item in value for tensor in flatten(item)] if isinstance(value, (list, tuple)) else []


def export(folder, name, make, attention, dtype, forms=("raw", "core")):
    torch.manual_seed(1)
    model, inputs = make(attention)
    model = model.eval().to(dtype)
    inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    with torch.no_grad():
        expected = flatten(model(**inputs))
        sizes = {"x": {0: torch.export.Dim("batch", min=2), 1: torch.export.Dim("length", min=2, max=64)}} if name == "dynamic" else None
        program = torch.export.export(model, (), inputs, dynamic_shapes=sizes, strict=False)
    for form in ("raw", "core"):
        if form == "core":
            program = program.run_decompositions()
        if form not in forms:
            continue
        stem = f"{name}_{attention}_{DTYPES[dtype]}_{form}"
        save_program(folder / f"{stem}.pt2", program)
        given = {spec.arg.name: tensor for spec, tensor in
                 zip([s for s in program.graph_signature.input_specs if s.kind.name == "USER_INPUT"], inputs.values())}  # fmt: skip
        save_tensors(folder / f"{stem}.st", {**given, **{f"expected_{i}": tensor for i, tensor in enumerate(expected)}})
        print(stem, flush=True)


def export_onnx(folder, name, make, attention, opset):
    """The same as ONNX; needs onnx and onnxscript too."""
    torch.manual_seed(1)
    model, inputs = make(attention)
    model = model.eval()
    with torch.no_grad():
        expected = flatten(model(**inputs))
        program = torch.onnx.export(model, (), kwargs=inputs, dynamo=True, opset_version=opset)
    proto = program.model_proto
    for part in (proto, proto.graph, *proto.graph.node, *proto.graph.value_info, *proto.graph.input, *proto.graph.output, *proto.graph.initializer):
        del part.metadata_props[:]  # where it was made
        part.doc_string = ""
    stem = f"{name}_{attention}_{opset}"
    (folder / f"{stem}.onnx").write_bytes(proto.SerializeToString())
    given = {value.name: tensor for value, tensor in zip(proto.graph.input, inputs.values())}
    save_tensors(folder / f"{stem}.st", {**given, **{f"expected_{i}": tensor for i, tensor in enumerate(expected)}})
    print(stem, flush=True)


def main():
    if not torch.cuda.is_available():  # 2.15 crashes when it is asked without a GPU
        torch.cuda.is_current_stream_capturing = lambda: False
    if sys.argv[1] == "--committed":
        SMALL["num_hidden_layers"] = 1
        for name, dtype in sorted(COMMITTED, key=str):
            forms = ("core",) if name in ("alibi", "sdpa") else ("raw",)
            export(pathlib.Path(__file__).parent / "data", name, {**BLOCKS, **MODELS}[name], "eager", dtype, forms)
        for name, opset in (("alibi", 20), ("sdpa", 23)):
            export_onnx(pathlib.Path(__file__).parent / "data", name, BLOCKS[name], "eager", opset)
        return
    if sys.argv[1] == "--onnx":
        folder = pathlib.Path(sys.argv[2])
        folder.mkdir(parents=True, exist_ok=True)
        for name, make in {**BLOCKS, **MODELS}.items():
            for attention, opset in (("eager", 13), ("eager", 18), ("eager", 20), ("sdpa", 23)) if name != "dynamic" else ():
                try:
                    export_onnx(folder, name, make, attention, opset)
                except Exception as error:  # one model that does not export is not the others' fault
                    print(f"{name} {attention} {opset}: {type(error).__name__}: {str(error)[:200]}", flush=True)
        return
    folder, names = pathlib.Path(sys.argv[1]), sys.argv[2:]
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in {**BLOCKS, **MODELS}.items():
        if names and name not in names:
            continue
        for attention in ("eager", "sdpa") if name in MODELS else ("eager",):
            for dtype in (torch.float32, torch.bfloat16):
                try:
                    export(folder, name, make, attention, dtype)
                except Exception as error:  # one model that does not export is not the others' fault
                    print(f"{name} {attention} {dtype}: {type(error).__name__}: {str(error)[:200]}", flush=True)


if __name__ == "__main__":
    main()
