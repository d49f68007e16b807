"""What bench/torch_gpu.py runs: the mods, as one text for flexjit and for PyTorch, their tensors, and the definition of
attention in float64."""

import itertools
import math
from dataclasses import dataclass
from typing import Callable

import torch

HEADS = 16
WINDOW = 1024


@dataclass(frozen=True)
class Case:
    mod: str
    batch: int
    length: int
    head_dim: int
    group: int  # query heads per key head

    @property
    def kv_heads(self):
        return HEADS // self.group

    @property
    def scale(self):
        return self.head_dim**-0.5

    def __str__(self):
        return f"{self.mod} B{self.batch} S{self.length} D{self.head_dim} G{self.group}"


def documents(case, generator):
    """Document of each position: lengths around an eighth of the whole, each batch its own."""
    count = 8
    cuts = torch.randint(1, case.length, (case.batch, count - 1), generator=generator)
    marks = torch.zeros(case.batch, case.length, dtype=torch.int32)
    marks.scatter_(1, cuts, 1)
    return {"document": marks.cumsum(1, dtype=torch.int32)}


def bias_table(case, generator):
    return {"table": torch.randn(HEADS, 2 * case.length, generator=generator)}


@dataclass(frozen=True)
class Mod:
    source: str  # Python that flexjit takes and PyTorch runs
    captures: Callable = lambda case, generator: {}
    is_causal: bool = False  # nothing but a causal mask, or nothing at all: what PyTorch's SDPA can do
    is_plain: bool = False


CAUSAL = """
def mask_mod(b, h, q, kv):
    return q >= kv
"""

MODS = {
    "noop": Mod("", is_plain=True),
    "causal": Mod(CAUSAL, is_causal=True, is_plain=True),
    "alibi": Mod(
        f"""
import torch

def score_mod(score, b, h, q, kv):
    return score + (kv - q) * torch.exp2(-((h + 1) * 8.0 / {HEADS}))
"""
    ),
    "softcap": Mod(
        """
import torch

def score_mod(score, b, h, q, kv):
    return 20.0 * torch.tanh(score / 20.0)
"""
    ),
    "window": Mod(
        f"""
def mask_mod(b, h, q, kv):
    return (q >= kv) & (q - kv <= {WINDOW})
"""
    ),
    "document": Mod(
        """
def mask_mod(b, h, q, kv):
    return (document[b, q] == document[b, kv]) & (q >= kv)
""",
        documents,
    ),
    "bias": Mod(
        """
LENGTH = 0  # half of the table

def score_mod(score, b, h, q, kv):
    return score + table[h, q - kv + LENGTH]
""",
        bias_table,
    ),
}


def source_of(case):
    """The half of the table is a constant for PyTorch and flexjit alike."""
    return MODS[case.mod].source.replace("LENGTH = 0 ", f"LENGTH = {case.length} ")


def functions(case, captures):
    """The mods as PyTorch runs them: (score_mod or None, mask_mod or None)."""
    names = {"torch": torch, **captures}
    exec(compile(source_of(case), f"<{case.mod}>", "exec"), names)
    return names.get("score_mod"), names.get("mask_mod")


def cases(tokens, lengths, dims, groups, mods):
    """The most telling lengths come first, should time run out."""
    for length, dim, group, mod in itertools.product(lengths, dims, groups, mods):
        yield Case(mod, max(1, tokens // length), length, dim, group)


@dataclass
class Tensors:
    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    dout: torch.Tensor
    captures: dict


def make(case, seed, device, dtype=torch.bfloat16):
    generator = torch.Generator().manual_seed(seed)

    def normal(heads):
        shape = (case.batch, heads, case.length, case.head_dim)
        return torch.randn(shape, generator=generator).to(device=device, dtype=dtype)

    tensors = [normal(heads) for heads in (HEADS, case.kv_heads, case.kv_heads, HEADS)]
    captures = {name: tensor.to(device) for name, tensor in MODS[case.mod].captures(case, generator).items()}
    return Tensors(*tensors, captures)


def count_pairs(case, tensors):
    """Pairs of query and key that the mask leaves, all batches and heads: what FLOPs are counted for."""
    if case.mod in ("causal", "window"):
        reach = WINDOW if case.mod == "window" else case.length
        return sum(min(q, reach) + 1 for q in range(case.length)) * case.batch * HEADS
    if case.mod == "document":
        runs = [torch.bincount(row).tolist() for row in tensors.captures["document"].cpu()]
        return sum(n * (n + 1) // 2 for row in runs for n in row) * HEADS
    return case.length**2 * case.batch * HEADS


def flops(case, pairs, direction):
    """4 D per pair forward, 2.5 times as much backward: the convention of the field."""
    return pairs * case.head_dim * (4 if direction == "fwd" else 10)


# The definition in float64, for one key head and the query heads that share it, in every batch


def reference(case, tensors, kv_head, rows=1024):
    """out, lse, dquery of the group's heads; dkey, dvalue of the key head; d_NAME of each captured float tensor as far
    as these heads reach it."""
    heads = range(kv_head * case.group, (kv_head + 1) * case.group)
    captures = {
        name: tensor.double().requires_grad_() if tensor.is_floating_point() else tensor
        for name, tensor in tensors.captures.items()
    }
    score_mod, mask_mod = functions(case, captures)
    query, dout = (x[:, heads.start : heads.stop].double() for x in (tensors.query, tensors.dout))
    key, value = (x[:, kv_head].double() for x in (tensors.key, tensors.value))
    query, key, value = (x.detach().requires_grad_() for x in (query, key, value))
    out, lse = torch.empty_like(query), query.new_empty(query.shape[:-1])
    kv = torch.arange(case.length, device=query.device)[None, :]
    for b, i, first in itertools.product(range(case.batch), range(case.group), range(0, case.length, rows)):
        q = torch.arange(first, min(first + rows, case.length), device=query.device)[:, None]
        part = slice(first, first + rows)
        at = torch.tensor(b, device=query.device), torch.tensor(heads[i], device=query.device), q, kv
        score = query[b, i, part] @ key[b].T * case.scale
        if score_mod:
            score = score_mod(score, *at)
        if mask_mod:
            score = score.masked_fill(~mask_mod(*at), -math.inf)
        total = torch.logsumexp(score, dim=-1, keepdim=True)
        result = torch.where(score > -math.inf, torch.exp(score - total), 0.0) @ value[b]
        (result * dout[b, i, part]).sum().backward()
        out[b, i, part], lse[b, i, part] = result.detach(), total.detach().squeeze(-1)
    results = {"out": out, "lse": lse, "dq": query.grad, "dk": key.grad, "dv": value.grad}
    results.update({f"d_{name}": x.grad[heads.start : heads.stop] for name, x in captures.items() if x.grad is not None})
    return {name: tensor.detach() for name, tensor in results.items()}


def sample(case, results, kv_head):
    """The part of whole results that `reference` computes for one key head."""
    heads = slice(kv_head * case.group, (kv_head + 1) * case.group)
    parts = {name: results[name][:, heads] for name in ("out", "lse", "dq") if name in results}
    parts.update({name: results[name][:, kv_head] for name in ("dk", "dv") if name in results})
    parts.update({name: tensor[heads] for name, tensor in results.items() if name.startswith("d_")})
    return parts
