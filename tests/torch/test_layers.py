"""Compares the layers of flexjit/nn.h with PyTorch's: multi-head attention, encoder, decoder, outputs and gradients.

Every combination of dtype, order of the batch, mask and padding, form of the projections, order of the norms, activation and mode is
a call; heads, lengths, biases, hints and weights vary at random between them (--seed). F64 has to agree to 1e-10 of the largest
value; F32 may be as far from PyTorch's F64 as twice PyTorch's F32 is, and always 1e-5 of the largest value.
"""

import argparse
import collections
import itertools
import os
import random
import sys
import warnings

os.environ.setdefault("OMP_NUM_THREADS", "1")  # calls are small; two pools of threads would wait for one another
import torch  # noqa: E402
from torch import nn  # noqa: E402

import flexjit_c  # noqa: E402


class Sizes:
    """What sizes are chosen from. There is one head dimension for all calls: kernels are compiled for it."""

    head_dim, heads, batches, rows, keys = 8, [1, 3, 4], [1, 2, 3], [1, 4, 9], [1, 5, 8]


class LongSizes:
    """Those of PyTorch's own tests."""

    head_dim, heads, batches, rows, keys = 16, [1, 4], [2], [100, 514, 1026], [64, 100, 1040]


sizes = Sizes

MASKS = ["none", "bool 2", "float 2", "bool 3", "float 3", "bool 4", "float 4", "causal"]
PADDINGS = ["none", "bool", "float"]
KINDS = {"none": "FJ_MASK_NONE", "bool": "FJ_MASK_BOOL", "float": "FJ_MASK_FLOAT", "causal": "FJ_MASK_BOOL"}
NAMES = {torch.float32: "FJ_DTYPE_F32", torch.float64: "FJ_DTYPE_F64"}


# What both are given


def make_mask(kind, batch, heads, rows, keys, dtype):
    """An attention mask that lets each query see key 0; true is hidden."""
    if kind == "none":
        return None
    if kind == "causal":
        return torch.ones(rows, keys).triu(1).bool()
    shape = {"2": (rows, keys), "3": (batch * heads, rows, keys), "4": (batch, heads, rows, keys)}[kind[-1]]
    hidden = torch.rand(shape) < 0.4
    hidden[..., 0] = False
    if kind.startswith("bool"):
        return hidden
    return torch.randn(shape, dtype=dtype).masked_fill(hidden, float("-inf"))


def make_padding(kind, batch, keys, dtype, aligned, order):
    """[B,S], or [S] without a batch. Key 0 is no padding; aligned: only ends are."""
    if kind == "none":
        return None
    hidden = torch.arange(keys) >= torch.randint(1, keys + 1, (batch, 1))
    if not aligned:
        hidden = hidden[:, torch.randperm(keys)]
        hidden[:, 0] = False
    if kind == "float":
        hidden = torch.randn(batch, keys, dtype=dtype).masked_fill(hidden, float("-inf"))
    return hidden[0] if order == "no batch" else hidden


def for_torch(mask):
    """PyTorch takes no rank of 4."""
    return mask.flatten(0, 1) if mask is not None and mask.dim() == 4 else mask


def lay_out(x, order):
    """[B,L,D] in the order of the call."""
    return {"batch first": x, "batch second": x.transpose(0, 1), "no batch": x[0]}[order].contiguous()


# PyTorch's results


def cast(value, dtype):
    return value.to(dtype) if value is not None and value.is_floating_point() else value


def torch_results(module, call, inputs, upstream, dtype, train):
    """(outputs, gradients by name) of a module, in a dtype."""
    module = module.to(dtype).train(train)
    module.zero_grad()
    inputs = {name: x.to(dtype).detach().requires_grad_(train) for name, x in inputs.items()}
    with torch.set_grad_enabled(train):
        outputs = call(module, inputs, lambda mask: cast(mask, dtype))
    results = {name: x.detach().double() for name, x in outputs.items() if x is not None}
    if train:
        (outputs["out"] * upstream.to(dtype)).sum().backward()
        results |= {"d " + name: x.grad.double() for name, x in inputs.items()}
        results |= {"d " + name: p.grad.double() for name, p in module.named_parameters()}
    return results


# Ours


class Ours:
    def __init__(self):
        self.fj = flexjit_c.Library()
        self.objects = {}

    def object(self, kind, **desc):
        """The fj_<kind> of a description; made once."""
        key = kind, repr(desc)
        if key not in self.objects:
            desc = self.fj.make(f"fj_{kind}_desc", **desc)
            self.objects[key] = self.fj.create(f"fj_{kind}_create", self.fj.device, desc)
        return self.objects[key]

    def run(self, kind, handle, train, **fields):
        """One forward, and backward in training, with memory as it is asked for."""
        call = self.fj.make(f"fj_{kind}_call", **fields)
        needs = self.fj.structs["fj_nn_sizes"]()
        self.fj.call(f"fj_{kind}_sizes", handle, call, None, needs)
        size = max(needs.forward, needs.backward) if train else needs.forward
        workspace, saved = self.fj.workspace(size)[0], self.fj.workspace(needs.saved)[0]
        memory = self.fj.make("fj_nn_memory", workspace=workspace, workspace_size=size)
        if train:
            memory.saved, memory.saved_size = saved, needs.saved
        self.fj.call(f"fj_{kind}_forward", handle, call, None, memory)
        if train:
            self.fj.call(f"fj_{kind}_backward", handle, call, None, memory)


def take(values, prefix, **parts):
    """{"weight": tensor, "bias": tensor} of those that there are."""
    return {part: values.get(f"{prefix}{suffix}") for part, suffix in (parts or {"weight": ".weight", "bias": ".bias"}).items()}


def attention_state(values, prefix=""):
    state = {"in": take(values, prefix + "in_proj_", weight="weight", bias="bias"), "out": take(values, prefix + "out_proj")}
    for name in "qkv":
        state[name] = {"weight": values.get(f"{prefix}{name}_proj_weight")}
    return state


def layer_state(values, prefix, norms, attentions):
    state = {ours: attention_state(values, f"{prefix}{theirs}.") for ours, theirs in attentions.items()}
    return state | {name: take(values, prefix + name) for name in ("linear1", "linear2", *norms)}


def parameters(module, dtype):
    """A module's, and memory for their gradients, full of NaN."""
    values = {name: p.detach().to(dtype) for name, p in module.named_parameters()}
    return values, {name: torch.full_like(p, torch.nan) for name, p in values.items()}


def fresh(x):
    return torch.full_like(x, torch.nan)


# The three kinds. A case is a dict of what varies; each returns (PyTorch's by dtype, ours).


def attention_case(ours, case, rng):
    dtype, order, form, kind = case["dtype"], case["order"], case["form"], case["mask"]
    heads = rng.choice(sizes.heads)
    width = sizes.head_dim * heads
    batch = 1 if order == "no batch" else rng.choice(sizes.batches)
    rows = rng.choice(sizes.rows)
    keys = rows if form == "self" or kind == "causal" else rng.choice(sizes.keys)
    kdim, vdim = (width + 3, width - 2) if form == "separate" else (width, width)
    module = nn.MultiheadAttention(width, heads, bias=case["bias"], kdim=kdim, vdim=vdim,
                                   batch_first=order == "batch first", dtype=torch.float64)  # fmt: skip
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    mask = make_mask(kind, batch, heads, rows, keys, torch.float64)
    padding = make_padding(case["padding"], batch, keys, torch.float64, rng.random() < 0.5, order)
    q = torch.randn(batch, rows, width, dtype=torch.float64)
    inputs = {"query": lay_out(q, order)}
    if form != "self":
        inputs["key"] = lay_out(torch.randn(batch, keys, kdim, dtype=torch.float64), order)
        if form == "separate" or rng.random() < 0.5:
            inputs["value"] = lay_out(torch.randn(batch, keys, vdim, dtype=torch.float64), order)
    weights = rng.choice(["none", "mean", "heads"])
    causal = kind == "causal" and rng.random() < 0.5
    squeeze = order == "no batch"

    def theirs(module, x, cast):
        key = x.get("key", x["query"])
        out, p = module(x["query"], key, x.get("value", key), key_padding_mask=cast(padding),
                        need_weights=weights != "none", attn_mask=cast(for_torch(mask)),
                        average_attn_weights=weights == "mean")  # fmt: skip
        return {"out": out, "weights": p}

    upstream = torch.randn_like(inputs["query"])
    run = lambda to: torch_results(module, theirs, inputs, upstream, to, case["train"])  # noqa: E731
    expected = {to: run(to) for to in {dtype, torch.float64}}

    object = ours.object("mha", dtype=ours.fj.constants[NAMES[dtype]], embed_dim=width, heads=heads, kdim=kdim, vdim=vdim,
                         batch_first=order == "batch first", attn_mask=ours.fj.constants[KINDS[kind.split()[0]]],
                         key_padding_mask=ours.fj.constants[KINDS[case["padding"]]])  # fmt: skip
    x = {name: cast(value, dtype) for name, value in inputs.items()}
    values, gradients = parameters(module, dtype)
    results = {"out": fresh(x["query"])}
    if weights != "none":
        shape = (batch, heads, rows, keys) if weights == "heads" else (batch, rows, keys)
        results["weights"] = torch.full(shape[1:] if squeeze else shape, torch.nan, dtype=dtype)
    if case["train"]:
        results |= {"d " + name: fresh(value) for name, value in x.items()}
    ours.run("mha", object, case["train"], state=attention_state(values), **x, out=results["out"],
             weights=results.get("weights"), attn_mask=cast(mask, dtype), key_padding_mask=cast(padding, dtype),
             is_causal=causal, dout=cast(upstream, dtype), dstate=attention_state(gradients),
             **{"d" + name: results["d " + name] for name in x if case["train"]})  # fmt: skip
    if case["train"]:
        results |= {"d " + name: value for name, value in gradients.items()}
    return expected, results, ~torch.zeros(results["out"].shape, dtype=torch.bool)


def make_stack(layer_class, stack_class, case, rng, width, heads, order):
    """PyTorch's layers with random parameters, and what describes them to us."""
    count, final, bias, eps = rng.choice([1, 2]), rng.random() < 0.5, rng.random() < 0.7, rng.choice([1e-5, 1e-12])
    layer = layer_class(width, heads, 2 * width + 1, 0, case["activation"], eps, order == "batch first", case["norm first"],
                        bias, dtype=torch.float64)  # fmt: skip
    norm = nn.LayerNorm(width, eps=eps, bias=bias, dtype=torch.float64) if final else None
    options = {"enable_nested_tensor": rng.random() < 0.5} if stack_class is nn.TransformerEncoder else {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = stack_class(layer, count, norm, **options)
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    layer = {"d_model": width, "heads": heads, "dim_feedforward": 2 * width + 1, "norm_eps": eps,
             "activation": f"FJ_ACTIVATION_{case['activation'].upper()}", "norm_first": case["norm first"],
             "batch_first": order == "batch first"}  # fmt: skip
    return module, {"layer": layer, "layer_count": count, "final_norm": final}


def stack_fields(struct, module, dtype, desc, norms, attentions, fj):
    """State and gradients of a stack's call, and the latter by PyTorch's names."""
    values, gradients = parameters(module, dtype)
    layer = lambda of, n: fj.make(struct, **layer_state(of, f"layers.{n}.", norms, attentions))  # noqa: E731
    fields = {}
    for prefix, of in (("", values), ("d", gradients)):
        fields[prefix + "layers"] = [layer(of, n) for n in range(desc["layer_count"])]
        fields[prefix + "norm"] = take(of, "norm")
    return fields, gradients


def encoder_case(ours, case, rng):
    dtype, order, kind = case["dtype"], case["order"], case["mask"]
    heads = rng.choice(sizes.heads)
    width, batch, rows = sizes.head_dim * heads, 1 if order == "no batch" else rng.choice(sizes.batches), rng.choice(sizes.rows)
    module, desc = make_stack(nn.TransformerEncoderLayer, nn.TransformerEncoder, case, rng, width, heads, order)
    mask = make_mask(kind, batch, heads, rows, rows, torch.float64)
    aligned = rng.random() < 0.7
    padding = make_padding(case["padding"], batch, rows, torch.float64, aligned, order)
    kept = torch.ones(batch, rows, width, dtype=torch.bool)
    skip = case["padding"] == "bool" and rng.random() < 0.5
    if case["padding"] == "bool":
        kept &= ~padding[..., None]
    kept = lay_out(kept, order)
    inputs = {"src": lay_out(torch.randn(batch, rows, width, dtype=torch.float64), order)}
    upstream = torch.randn_like(inputs["src"]) * kept
    causal = kind == "causal" and rng.random() < 0.5

    def theirs(module, x, cast):
        return {"out": module(x["src"], cast(for_torch(mask)), cast(padding))}

    run = lambda to: torch_results(module, theirs, inputs, upstream, to, case["train"])  # noqa: E731
    expected = {to: run(to) for to in {dtype, torch.float64}}

    constants = ours.fj.constants
    object = ours.object("encoder", dtype=constants[NAMES[dtype]], mask=constants[KINDS[kind.split()[0]]], skip_padding=skip,
                         key_padding_mask=constants[KINDS[case["padding"]]],
                         **desc | {"layer": desc["layer"] | {"activation": constants[desc["layer"]["activation"]]}})  # fmt: skip
    x = cast(inputs["src"], dtype)
    fields, gradients = stack_fields("fj_encoder_layer", module, dtype, desc, ("norm1", "norm2"), {"self_attn": "self_attn"},
                                     ours.fj)  # fmt: skip
    results = {"out": fresh(x)}
    if case["train"]:
        results["d src"] = fresh(x)
    ours.run("encoder", object, case["train"], src=x, out=results["out"], mask=cast(mask, dtype),
             key_padding_mask=cast(padding, dtype), is_causal=causal, dout=cast(upstream, dtype), dsrc=results.get("d src"),
             **fields)  # fmt: skip
    if skip and aligned and not (results["out"][~kept] == 0).all():
        raise AssertionError("rows of padding are not 0")
    if case["train"]:
        results |= {"d " + name: value for name, value in gradients.items()}
    return expected, results, kept


def decoder_case(ours, case, rng):
    dtype, order, kind = case["dtype"], case["order"], case["mask"]
    heads = rng.choice(sizes.heads)
    width, batch, rows, keys = sizes.head_dim * heads, rng.choice(sizes.batches), rng.choice(sizes.rows), rng.choice(sizes.keys)
    batch = 1 if order == "no batch" else batch
    module, desc = make_stack(nn.TransformerDecoderLayer, nn.TransformerDecoder, case, rng, width, heads, order)
    memory_kind, memory_padding_kind = rng.choice(MASKS[:7]), case["padding"]
    if memory_kind.startswith("bool") and memory_padding_kind == "float":
        memory_kind = "float 2"
    tgt_padding_kind = rng.choice(["none", "bool"])
    masks = {
        "tgt_mask": make_mask(kind, batch, heads, rows, rows, torch.float64),
        "memory_mask": make_mask(memory_kind, batch, heads, rows, keys, torch.float64),
        "tgt_key_padding_mask": make_padding(tgt_padding_kind, batch, rows, torch.float64, True, order),
        "memory_key_padding_mask": make_padding(memory_padding_kind, batch, keys, torch.float64, False, order),
    }
    inputs = {"tgt": lay_out(torch.randn(batch, rows, width, dtype=torch.float64), order),
              "memory": lay_out(torch.randn(batch, keys, width, dtype=torch.float64), order)}  # fmt: skip
    upstream = torch.randn_like(inputs["tgt"])
    causal = kind == "causal" and rng.random() < 0.5

    def theirs(module, x, cast):
        given = {name: cast(for_torch(mask)) for name, mask in masks.items()}
        return {"out": module(x["tgt"], x["memory"], **given)}

    run = lambda to: torch_results(module, theirs, inputs, upstream, to, case["train"])  # noqa: E731
    expected = {to: run(to) for to in {dtype, torch.float64}}

    constants = ours.fj.constants
    kinds = {"tgt_mask": kind.split()[0], "memory_mask": memory_kind.split()[0], "tgt_key_padding_mask": tgt_padding_kind,
             "memory_key_padding_mask": memory_padding_kind}  # fmt: skip
    object = ours.object("decoder", dtype=constants[NAMES[dtype]],
                         **{name: constants[KINDS[value]] for name, value in kinds.items()},
                         **desc | {"layer": desc["layer"] | {"activation": constants[desc["layer"]["activation"]]}})  # fmt: skip
    x = {name: cast(value, dtype) for name, value in inputs.items()}
    fields, gradients = stack_fields("fj_decoder_layer", module, dtype, desc, ("norm1", "norm2", "norm3"),
                                     {"self_attn": "self_attn", "cross_attn": "multihead_attn"}, ours.fj)  # fmt: skip
    results = {"out": fresh(x["tgt"])}
    if case["train"]:
        results |= {"d " + name: fresh(value) for name, value in x.items()}
    ours.run("decoder", object, case["train"], **x, out=results["out"], tgt_is_causal=causal,
             **{name: cast(mask, dtype) for name, mask in masks.items()}, dout=cast(upstream, dtype),
             dtgt=results.get("d tgt"), dmemory=results.get("d memory"), **fields)  # fmt: skip
    if case["train"]:
        results |= {"d " + name: value for name, value in gradients.items()}
    return expected, results, ~torch.zeros(results["out"].shape, dtype=torch.bool)


# Comparison


def differences(expected, ours, kept, dtype):
    """[(name, how many times what is allowed)]."""
    found = []
    for name, exact in expected[torch.float64].items():
        given = ours[name].double()
        scale = max(exact[torch.isfinite(exact)].abs().max().item(), 1e-3) if exact.numel() else 1
        allowed = (1e-10 if dtype == torch.float64 else 1e-5) * scale
        if dtype == torch.float32:
            allowed = max(allowed, 2 * (expected[dtype][name] - exact)[kept if name == "out" else ...].abs().max().item())
        error = (given - exact)[kept if name == "out" else ...].abs()
        worst = error.max().item() if error.numel() else 0
        found.append((name, worst / allowed if torch.isfinite(error).all() else float("inf")))
    return found


def cases():
    """Kinds of calls with every combination of what they have."""
    modes = {"dtype": NAMES, "train": [True, False], "mask": MASKS, "padding": PADDINGS}
    orders = ["batch first", "batch second", "no batch"]
    mha = modes | {"order": orders, "form": ["self", "cross", "separate"], "bias": [True, False]}
    stack = modes | {"order": orders, "norm first": [False, True], "activation": ["relu", "gelu"]}
    for kind, run, axes in (("mha", attention_case, mha), ("encoder", encoder_case, stack), ("decoder", decoder_case, stack)):
        for values in itertools.product(*axes.values()):
            case = dict(zip(axes, values))
            if not (case["padding"] == "float" and (case["mask"].startswith("bool") or case["mask"] == "causal")):
                yield kind, run, case


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=["mha", "encoder", "decoder"])
    parser.add_argument("--part", type=int, default=1, help="one case in so many")
    parser.add_argument("--number", type=int, help="one case alone, as a failure names it")
    parser.add_argument("--long", action="store_true", help="lengths of PyTorch's own tests; takes long: with --part")
    options = parser.parse_args()
    if options.long:
        global sizes
        sizes = LongSizes
    warnings.filterwarnings("ignore")
    ours, counts, worst, failures = Ours(), collections.Counter(), collections.defaultdict(float), 0
    for number, (kind, run, case) in enumerate(cases()):
        chosen = number == options.number if options.number is not None else number % options.part == options.seed % options.part
        if not chosen or options.only not in (None, kind):
            continue
        torch.manual_seed(options.seed * 100003 + number)
        # PyTorch's fast paths of evaluation take floating masks for bools: findings/torch_float_mask_eval.sh.
        torch.backends.mha.set_fastpath_enabled("float" not in case["mask"] + case["padding"])
        try:
            expected, results, kept = run(ours, case, random.Random(options.seed * 100003 + number))
            bad = []
            for name, share in differences(expected, results, kept, case["dtype"]):
                worst[kind, case["dtype"]] = max(worst[kind, case["dtype"]], share)
                if not share <= 1:
                    bad.append(f"{name}: {share:.2g} times what is allowed")
        except (flexjit_c.Error, AssertionError) as error:
            bad = [str(error)]
        counts[kind] += 1
        if bad:
            failures += 1
            print(f"{kind} --seed {options.seed} --number {number}{' --long' * options.long}: {case}\n  " + "\n  ".join(bad))
    for (kind, dtype), share in sorted(worst.items(), key=str):
        print(f"{kind:8} {str(dtype):14} largest difference {share:.3f} of what is allowed")
    print(f"{sum(counts.values())} calls ({', '.join(f'{count} {kind}' for kind, count in counts.items())}), "
          f"{failures} differ from PyTorch {torch.__version__}")  # fmt: skip
    sys.exit(failures > 0)


if __name__ == "__main__":
    main()
