"""Compares fj_sdpa with PyTorch's scaled_dot_product_attention: seeded random calls, out and all gradients.

A call draws ranks, broadcast batches and heads, groups of heads, lengths, strides, dtype, mask (none, bool and floating of every
rank and pattern of extents of 1, causal from both corners), scale, dropout (what is kept, fj_dropout_mask says). Backends are
the device's kernels and math, which takes those patterns too that would each need a kernel to be compiled.

Tolerances are those of PyTorch's own tests: its math path is run in a higher precision (F64 for F32 and F64, else F32) and in
the call's dtype, and what is compared may be off by FUDGE times the larger of that deviation and PyTorch's default tolerance.

With --shapes the calls are those of PyTorch's test_transformers.py, by the names of its tests, at its shapes.
"""

import argparse
import ctypes
import itertools
import random
import sys
import time

import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

import flexjit_c

FORWARD, BACKWARD = 0, 1
FUDGE = {"out": 1, "dq": 2, "dk": 12, "dv": 1, "dmask": 12}  # of its memory-efficient kernels with a mask
FUDGE_OF_16_BITS = {"dq": 4, "dv": 2}  # of its flash kernels
DEFAULT = {torch.float16: (1e-3, 1e-3), torch.bfloat16: (1e-3, 1.6e-2), torch.float32: (1e-5, 1.3e-6), torch.float64: (1e-7, 1e-7)}
WIDTHS = {torch.float32: (16, 8), torch.float64: (5, 5), torch.bfloat16: (32, 32), torch.float16: (8, 24)}
# Kernels are compiled for each pattern: those of the device take these, math takes all.
PATTERNS = ["q kv", "b q kv", "h q kv", "b h q kv", "kv", "b kv"]
AXES = ["b", "h", "q", "kv"]


# ---- The library ----------------------------------------------------------------------------------------------------


class Sdpa:
    def __init__(self, device):
        self.fj = flexjit_c.Library(device=device)
        self.backends = {name: 1 << self.fj.constants["FJ_SDPA_" + name.upper()] for name in ("math", "flash", "efficient", "cpu")}

    def layout(self, args):
        rank, shape, strides = ctypes.c_int(), (ctypes.c_int64 * 4)(), (ctypes.c_int64 * 4)()
        self.fj.call("fj_sdpa_out_layout", self.fj.device, args, ctypes.byref(rank), shape, strides)
        return list(shape[: rank.value]), list(strides[: rank.value])

    def __call__(self, q, k, v, mask=None, dout=None, scale=None, backend=None, **fields):
        """out, and with dout a dict of gradients."""
        number = ctypes.c_double(scale if scale is not None else 0)
        fields |= {"query": q, "key": k, "value": v, "mask": mask}
        fields["scale"] = ctypes.addressof(number) if scale is not None else None
        fields["backends"] = self.backends[backend] if backend else 0
        shape, strides = self.layout(self.fj.make("fj_sdpa_args", **fields))
        out = torch.empty_strided(shape, strides, dtype=q.dtype)
        wide = torch.float64 if q.dtype == torch.float64 else torch.float32
        lse = torch.empty(shape[:-1] if not fields.get("cu_seqlens_q") is not None else (shape[1], shape[0]), dtype=wide)
        low = torch.empty_like(lse)
        fields |= {"out": out, "lse": lse, "lse_low": low}
        self.fj.call("fj_sdpa", self.fj.device, FORWARD, self.fj.make("fj_sdpa_args", **fields), None)
        if dout is None:
            return out, {}
        gradients = {"dq": torch.empty_like(q), "dk": torch.empty_like(k), "dv": torch.empty_like(v)}
        gradients = {name: torch.empty(t.shape, dtype=t.dtype) for name, t in gradients.items()}
        if mask is not None and mask.dtype != torch.bool:
            gradients["dmask"] = torch.empty(mask.shape, dtype=wide)
        named = {"dquery": "dq", "dkey": "dk", "dvalue": "dv", "dmask": "dmask"}
        fields |= {field: gradients[name] for field, name in named.items() if name in gradients}
        args = self.fj.make("fj_sdpa_args", **fields, dout=dout)
        self.fj.call("fj_sdpa", self.fj.device, BACKWARD, args, None)
        return out, gradients

    def kept(self, shape, rate, seed):
        keep = torch.empty(shape, dtype=torch.bool)
        self.fj.call("fj_dropout_mask", float(rate), ctypes.c_uint64(seed), ctypes.c_uint64(0), keep)
        return keep


# ---- PyTorch --------------------------------------------------------------------------------------------------------


def reference(call, dtype):
    """out and gradients by PyTorch's math path, or its formula where what is kept is given."""
    tensors = [t.to(dtype).detach().clone().requires_grad_() for t in (call["q"], call["k"], call["v"])]
    q, k, v = tensors
    mask = call["mask"]
    if mask is not None and mask.dtype != torch.bool:
        mask = mask.to(dtype).detach().clone().requires_grad_()
        tensors.append(mask)
    L, S = q.shape[-2], k.shape[-2]
    applied = mask
    if call["causal"] == 2:
        applied = torch.ones(L, S, dtype=torch.bool).tril(S - L)
    groups = q.dim() > 2 and q.shape[-3] > max(k.shape[-3], v.shape[-3])
    if call["keep"] is None:
        with sdpa_kernel(SDPBackend.MATH):
            out = F.scaled_dot_product_attention(q, k, v, applied, is_causal=call["causal"] == 1, scale=call["scale"], enable_gqa=groups)
    else:
        out = dropped(call, q, k, v, applied, groups)
    out.backward(call["dout"].to(dtype))
    grads = (t.grad if t.grad is not None else torch.zeros_like(t) for t in tensors)  # None: of no elements
    return out.detach(), dict(zip(("dq", "dk", "dv", "dmask"), grads))


def dropped(call, q, k, v, mask, groups):
    if groups:
        k, v = (t.repeat_interleave(q.shape[-3] // t.shape[-3], -3) if t.dim() > 2 else t for t in (k, v))
    scores = q @ k.transpose(-1, -2) * (q.shape[-1] ** -0.5 if call["scale"] is None else call["scale"])
    if call["causal"] == 1:
        mask = torch.ones(scores.shape[-2:], dtype=torch.bool).tril()
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else scores + mask
    seen = scores > float("-inf")
    weights = torch.softmax(scores.masked_fill(~seen.any(-1, keepdim=True), 0), -1) * seen
    weights = torch.where(call["keep"], weights / (1 - call["rate"]) if call["rate"] < 1 else 0 * weights, 0)
    return weights @ v


def ratio(name, got, call, exact, near):
    """The error over what is allowed."""
    dtype = call["q"].dtype
    atol, rtol = DEFAULT[dtype]
    fudge = FUDGE[name] if name != "dmask" or got.numel() > 512 else 22
    if dtype in (torch.float16, torch.bfloat16):
        fudge = FUDGE_OF_16_BITS.get(name, fudge)
    if got.shape != exact.shape:
        raise AssertionError(f"{name} has shape {tuple(got.shape)}, not {tuple(exact.shape)}")
    if got.numel() == 0:
        return 0.0
    got, exact, near = got.double(), exact.double(), near.double()
    deviation = (exact - near).abs()
    deviation = deviation[deviation.isfinite()].max().item() if deviation.isfinite().any() else 0.0
    bound = fudge * (max(deviation, atol) + rtol * exact.abs())
    error = torch.where(got == exact, 0, (got - exact).abs())
    error = torch.where(got.isnan() & exact.isnan(), 0, error)
    return (error / bound).nan_to_num(nan=float("inf")).max().item()


def compare(sdpa, call):
    """The worst ratio of each output."""
    dtype = call["q"].dtype
    high = torch.float64 if dtype in (torch.float32, torch.float64) else torch.float32
    got, gradients = sdpa(call["q"], call["k"], call["v"], call["mask"], call["dout"], call["scale"], call["backend"], **call["fields"])
    exact, exact_gradients = reference(call, high)
    near, near_gradients = reference(call, dtype)
    worst = {"out": ratio("out", got, call, exact, near)}
    for name, gradient in gradients.items():
        worst[name] = ratio(name, gradient, call, exact_gradients[name], near_gradients[name])
    return worst


# ---- Random calls ---------------------------------------------------------------------------------------------------


def strided(rng, tensor, kinds=("packed", "packed", "swapped", "apart", "last")):
    """The same numbers in memory that is laid out another way."""
    kind = rng.choice(kinds)
    if tensor.dim() < 2 or kind == "packed":
        return tensor
    if kind == "swapped" and tensor.dim() > 2:
        return tensor.transpose(-2, -3).contiguous().transpose(-2, -3)
    if kind == "last":
        return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)
    padded = torch.full((*tensor.shape[:-1], tensor.shape[-1] + 3), float("nan") if tensor.dtype.is_floating_point else 1).to(tensor.dtype)
    padded[..., : tensor.shape[-1]] = tensor
    return padded[..., : tensor.shape[-1]]


def draw_mask(rng, kind, pattern, sizes, dtype, rank):
    shape = [sizes[axis] if axis in pattern.split() else 1 for axis in AXES][4 - rank :]
    first = next((i for i, extent in enumerate(shape) if extent != 1), rank)
    shape = shape[rng.randint(0, first) :]
    if kind == "bool":
        return strided(rng, torch.rand(shape) > 0.3)
    mask = torch.randn(shape)
    if rng.random() < 0.3:
        mask = mask.masked_fill(torch.rand(shape) < 0.2, float("-inf"))
    mask = mask.to(rng.choice([dtype, dtype, torch.float32]))
    return strided(rng, mask, ("packed", "packed", "packed", "swapped", "last") if pattern == "q kv" else ("packed", "packed", "apart"))


def draw_heads(rng, backend, few):
    """Heads of query, key, value."""
    kind = rng.choice(["same", "same", "one of one", "group"])
    if kind == "one of one":
        return rng.choice([(1, 3, 3), (3, 1, 3), (3, 3, 1), (3, 1, 1)])
    if kind == "group" and (backend == "math" or not few):
        return rng.choice([(4, 2, 2), (6, 2, 2), (4, 1, 1)])
    return (3, 3, 3)


def draw_call(rng, device, seed):
    torch.manual_seed(seed)
    dtype = rng.choice(list(WIDTHS))
    backend = rng.choice(["math", device, device])
    E, Ev = WIDTHS[dtype]
    rank = rng.choice([2, 3, 4, 4, 4])
    L = rng.choice([1, 3, 8, 23, 56]) if rng.random() < 0.7 else rng.choice([70, 143])
    S = rng.choice([1, 4, 15, 56, 65, 130])
    heads = draw_heads(rng, backend, L < 64)
    batches = rng.choice([(2, 2, 2)] * 3 + [(1, 2, 2), (2, 1, 2), (2, 1, 1), (1, 2, 1), (1, 1, 1)])
    if rng.random() < 0.03:
        L, S = rng.choice([(0, S), (L, 0)])
        heads, batches = (3, 3, 3), (2, 2, 2)  # with no keys PyTorch's out has query's batch, not the broadcast one
    shapes = [[batches[i], heads[i], (L, S, S)[i], (E, E, Ev)[i]][4 - rank :] for i in range(3)]
    sizes = {"b": max(batches), "h": max(heads), "q": L, "kv": S}
    out = [sizes["b"], sizes["h"], L, Ev][4 - rank :]
    tensors = [torch.randn(shape).to(dtype) for shape in shapes]
    if rng.random() < 0.2 and shapes[0] == shapes[1] == shapes[2]:  # one projection of all three
        packed = torch.cat(tensors, -1)
        tensors = list(packed.chunk(3, -1))
    tensors = [strided(rng, tensor) for tensor in tensors]
    call = dict(zip("qkv", tensors), mask=None, causal=0, keep=None, rate=0.0, backend=backend, fields={})
    kind = rng.choice(["none", "bool", "float", "float", "causal", "lower right"])
    if kind in ("bool", "float"):
        patterns = PATTERNS[: 3 if kind == "bool" else None]
        if backend == "math":
            patterns = [" ".join(some) for n in range(5) for some in itertools.combinations(AXES, n)]
        call["mask"] = draw_mask(rng, kind, rng.choice(patterns), sizes, dtype, rank)
    call["causal"] = {"causal": 1, "lower right": 2}.get(kind, 0)
    call["scale"] = rng.choice([None, None, 1 / E, 0.3, -0.5, 0.0])
    wide = dtype in (torch.float32, torch.float64)
    if rng.random() < 0.15 and (wide or S > 1):  # of one key dq is 0, but for the rounding of out, which PyTorch's math has not
        call["rate"] = rng.choice([0.1, 0.22, 0.5, 1.0])
        keep = sdpa_kept(call, (sizes["b"] if rank > 3 else 1, sizes["h"] if rank > 2 else 1, L, S), seed)
        call["keep"] = keep.reshape(keep.shape[4 - rank :])
        call["fields"] = {"dropout": call["rate"], "dropout_seed": seed}
    call["fields"]["causal"] = call["causal"]
    call["dout"] = strided(rng, torch.randn(out).to(dtype)) if rng.random() < 0.8 else torch.ones((), dtype=dtype).expand(out)
    call["what"] = (f"{dtype} {backend} q {shapes[0]} k {shapes[1]} v {shapes[2]} {kind} "
                    f"{None if call['mask'] is None else list(call['mask'].shape)} scale {call['scale']} dropout {call['rate']}")  # fmt: skip
    return call


def sdpa_kept(call, shape, seed):
    return LIBRARY.kept(shape, call["rate"], seed)


# ---- Shapes of PyTorch's tests --------------------------------------------------------------------------------------


def plain(q, k, v, dtype, mask=None, causal=0, scale=None, swapped=False):
    tensors = [torch.randn(shape) for shape in (q, k, v)]
    if swapped:
        tensors = [t.transpose(1, 2).contiguous().transpose(1, 2) for t in tensors]
    tensors = [t.to(dtype) for t in tensors]
    out = [max(q[0], k[0], v[0]), max(q[1], k[1], v[1]), q[2], v[3]]
    call = dict(zip("qkv", tensors), mask=mask, causal=causal, keep=None, rate=0.0, backend=None, scale=scale)
    return call | {"dout": torch.randn(out).to(dtype), "fields": {"causal": causal}}


def named_calls():
    """(name of the test, call)"""
    f16, bf16, f32, f64 = torch.float16, torch.bfloat16, torch.float32, torch.float64
    name = "scaled_dot_product_fused_attention_vs_math_cpu"
    for dtype, B, L, H, E, causal in itertools.product((f64, f32, bf16, f16), (2, 12), (267, 1030), (1, 3), (8, 16), (0, 1)):
        if B * L <= 2 * 1030:
            yield name, plain((B, H, L, E), (B, H, L, E), (B, H, L, E), dtype, causal=causal, swapped=True)
    name = "scaled_dot_product_fused_attention_mask_vs_math_cpu"
    for dtype, kind, ones in itertools.product((f32, bf16), ("bool", "float"), itertools.product((0, 1), repeat=4)):
        shape = [1 if one else extent for one, extent in zip(ones, (2, 3, 267, 514))]
        mask = torch.rand(shape) > 0.5 if kind == "bool" else torch.randn(shape).to(dtype)
        yield name, plain((2, 3, 267, 16), (2, 3, 514, 16), (2, 3, 514, 16), dtype, mask)
    name = "scaled_dot_product_fused_attention_with_inf"
    for dtype in (f32, bf16):
        band = torch.full((600, 600), float("-inf")).tril(-10).to(dtype)
        yield name, plain((1, 2, 600, 64), (1, 2, 600, 64), (1, 2, 600, 64), dtype, band)
    name = "mem_efficient_attention_vs_math_ref_grads"
    for L, S, E, causal, scale in ((4, 2048, 8, 0, None), (256, 512, 64, 1, "l1"), (512, 256, 128, 0, None), (1, 8, 16, 0, "l1"), (2048, 4, 32, 1, None)):
        yield name, plain((1, 3, L, E), (1, 3, S, E), (1, 3, S, E), f32, causal=causal, scale=1 / E if scale else None)
    name = "mem_efficient_attention_attn_mask_vs_math_ref_grads"
    for L, S, E in ((37, 65, 8), (152, 312, 64), (408, 37, 128), (8, 256, 16)):
        yield name, plain((2, 3, L, E), (2, 3, S, E), (2, 3, S, E), f32, torch.rand(L, S))
    name = "flash_attention_vs_math_ref_grads"
    for dtype, E, causal in itertools.product((f16, bf16), (21, 72, 96, 160, 192, 203, 256), (0, 1)):
        yield name, plain((1, 4, 143, E), (1, 4, 587, E), (1, 4, 587, E), dtype, causal=causal)
    name = "causal_variants"
    for B, H, L, S, E in ((2, 2, 128, 128, 16), (2, 2, 128, 256, 32), (2, 2, 256, 128, 32), (1, 1, 23, 56, 15)):
        for causal in (1, 2):
            yield name, plain((B, H, L, E), (B, H, S, E), (B, H, S, E), f32, causal=causal)
    yield "scaled_dot_product_attention", plain((5, 2, 4, 6), (5, 2, 3, 6), (5, 2, 3, 6), f64)
    yield "scaled_dot_product_attention_math_with_negative_scale", plain((1, 1, 4, 8), (1, 1, 4, 8), (1, 1, 4, 8), f64, scale=-1e4)
    yield "mem_eff_attention_pad_mask", plain((1, 2, 16, 8), (1, 2, 15, 8), (1, 2, 15, 8), f32, torch.rand(1, 2, 16, 15))
    yield "mem_eff_attention_non_contiguous_mask", plain((1, 2, 16, 8), (1, 2, 16, 8), (1, 2, 16, 8), f32, torch.rand(16).expand(1, 2, 16, 16))
    yield "cudnn_attention_different_dk_dv", plain((2, 4, 64, 128), (2, 4, 64, 128), (2, 4, 64, 64), bf16)
    yield "fused_attention_gqa", plain((2, 8, 70, 64), (2, 2, 90, 64), (2, 2, 90, 64), bf16)
    yield "mem_eff_attention_large_seq_len_uniform", plain((1, 1, 4, 8), (1, 1, 49999, 8), (1, 1, 49999, 8), f32)


# ---- Running --------------------------------------------------------------------------------------------------------


def run(sdpa, calls, quiet):
    worst, failed, count = {}, 0, 0
    began = time.time()
    for label, call in calls:
        count += 1
        try:
            ratios = compare(sdpa, call)
            bad = {name: value for name, value in ratios.items() if not value <= 1}
        except (AssertionError, flexjit_c.Error) as error:
            ratios, bad = {}, {"error": error}
        for name, value in ratios.items():
            worst[name] = max(worst.get(name, 0), value)
        if bad:
            failed += 1
            print(f"BAD {label}: {call.get('what', '')}: {bad}", flush=True)
        elif not quiet and count % 200 == 0:
            print(f"{count} calls, {time.time() - began:.0f} s", flush=True)
    share = ", ".join(f"{name} {value:.2f}" for name, value in worst.items())
    print(f"{count} calls, {failed} failed; largest error over its bound: {share}")
    return failed


def main():
    global LIBRARY
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1, help="of the first call; each call has its own")
    parser.add_argument("--device", default="cpu", choices=["cpu"])
    parser.add_argument("--shapes", action="store_true", help="the shapes of PyTorch's tests")
    parser.add_argument("--name", default="", help="with --shapes: only tests whose name contains it")
    options = parser.parse_args()
    torch.manual_seed(1)
    LIBRARY = Sdpa("FJ_DEVICE_" + options.device.upper())
    if options.shapes:
        calls = ((name, call) for name, call in named_calls() if options.name in name)
        return run(LIBRARY, calls, False) > 0
    seeds = range(options.seed, options.seed + options.count)
    return run(LIBRARY, ((f"seed {s}", draw_call(random.Random(s), options.device, s)) for s in seeds), False) > 0


if __name__ == "__main__":
    sys.exit(main())
