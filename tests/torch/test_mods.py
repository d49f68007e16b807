"""Runs mods unchanged under PyTorch in double precision and compares flexjit's reference with it.

Two computations of PyTorch's: out and lse from its own eager flex_attention, and, as that has no
backward on the CPU, all outputs and gradients from a dense attention that maps the mod over the
score matrix with torch.vmap and is differentiated by autograd. They must agree with each other, and
`flexjit run --device reference` with them, to a relative error (largest difference over largest
value) of 1e-9. The mods are those of examples/mods, or with --gym the factories of attention-gym.
"""

import argparse
import ast
import logging
import subprocess
import sys
import tempfile
import types
from pathlib import Path

import torch
from torch.nn.attention import flex_attention as flex

import inputs

ROOT = Path(__file__).resolve().parent.parent.parent
MODS = ROOT / "examples/mods"
TOLERANCE = 1e-9
COLUMNS = ["eager", "out", "lse", "dq", "dk", "dv", "d_*"]
DTYPES = {
    "F64": torch.float64, "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


def to_torch(tensor):
    return torch.frombuffer(bytearray(tensor.data), dtype=DTYPES[tensor.dtype]).reshape(tensor.dims)


# Running a mod's file with other values for its captured tensors and constants


class DropAssignments(ast.NodeTransformer):
    """Removes the assignments to some names, so that these are found among the globals instead."""

    def __init__(self, names):
        self.names = names

    def visit_Assign(self, node):
        if all(isinstance(target, ast.Name) and target.id in self.names for target in node.targets):
            return ast.copy_location(ast.Pass(), node)
        return node


def bind_buffers(module, bound):
    """Gives a module the tensors of `bound` in the place of its buffers with their names."""
    for name, buffer in module.named_buffers(recurse=False):
        if name in bound:
            if bound[name].shape != buffer.shape:
                raise ValueError(f"buffer {name} has shape {list(buffer.shape)}: choose a --shape that suits it")
            module._buffers[name] = bound[name]


unbound_modules = {}


def execute(path, bound):
    """Executes a mod's file with the names of `bound` given by the caller; returns its globals.

    A file that nothing is bound to is executed once: it may register operators."""
    if not bound and path in unbound_modules:
        return unbound_modules[path]
    tree = DropAssignments(bound).visit(ast.parse(path.read_text(encoding="utf-8")))
    names = {"__name__": path.stem, **bound}
    exec(compile(tree, str(path), "exec"), names)
    for module in names.values():
        if isinstance(module, torch.nn.Module):
            bind_buffers(module, bound)
    if not bound:
        unbound_modules[path] = names
    return names


def choose(names, entry):
    """Returns the file's score mod and mask mod (or None), as --score-mod and --mask-mod choose them."""
    return [eval(entry[key], names) if key in entry else names.get(key) for key in ("score_mod", "mask_mod")]


# The two computations


def map_scores(mod, indices, *score):
    """Applies a mod to every (b, h, q, kv), the score matrix being the first argument if there is one."""
    for axis in reversed(range(4)):
        positions = [0 if i == axis else None for i in range(4)]
        mod = torch.vmap(mod, in_dims=(*[0] * len(score), *positions))
    return mod(*score, *indices)


def dense_attention(q, k, v, score_mod, mask_mod):
    """The definition: (out, lse), where a row that sees nothing has out = 0 and lse = -inf."""
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    score = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5
    indices = [torch.arange(n) for n in score.shape]
    if score_mod:
        score = map_scores(score_mod, indices, score)
    if mask_mod:
        score = torch.where(map_scores(mask_mod, indices), score, -torch.inf)
    highest = score.detach().amax(dim=-1, keepdim=True)
    highest = torch.where(highest == -torch.inf, 0.0, highest)
    weight = torch.exp(score - highest)
    total = weight.sum(dim=-1, keepdim=True)
    divisor = torch.where(total > 0, total, 1.0)
    lse = torch.where(total > 0, highest + torch.log(divisor), -torch.inf)
    return weight @ v / divisor, lse.squeeze(-1)


def dense_results(tensors, captured, score_mod, mask_mod):
    """out, lse and every gradient of the dense attention, by the names that flexjit gives them."""
    leaves = {name: tensors[name].requires_grad_() for name in "qkv"}
    leaves.update({name: x for name, x in captured.items() if x.requires_grad})
    out, lse = dense_attention(*(tensors[name] for name in "qkv"), score_mod, mask_mod)
    loss = (out * tensors["do"]).sum() + torch.where(lse > -torch.inf, lse * tensors["dlse"], 0.0).sum()
    gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    results = {"out": out.detach(), "lse": lse.detach()}
    for name, gradient in zip(leaves, gradients):
        if gradient is not None:
            results[f"d{name}" if name in "qkv" else f"d_{name}"] = gradient
    if any(result.isnan().any() for result in results.values()):
        raise RuntimeError("a result of the dense attention is NaN")
    return results


@torch.no_grad()
def eager_results(tensors, score_mod, mask_mod):
    """out and lse of PyTorch's own flex_attention."""
    q, k, v = (tensors[name].detach() for name in "qkv")
    block_mask = None
    if mask_mod:
        block_mask = flex.create_block_mask(mask_mod, *q.shape[:2], q.shape[2], k.shape[2], device="cpu")
    out, aux = flex.flex_attention(
        q, k, v, score_mod, block_mask, enable_gqa=True, return_aux=flex.AuxRequest(lse=True)
    )
    return {"out": out, "lse": aux.lse}


def flexjit_results(tool, entry, shape, tensors):
    """What `flexjit run --device reference --backward` writes."""
    with tempfile.TemporaryDirectory() as folder:
        source, result = f"{folder}/in.safetensors", f"{folder}/out.safetensors"
        inputs.save(source, tensors)
        command = [tool, "run", str(entry["path"]), "--input", source, "--output", result]
        command += ["--device", "reference", "--backward"]
        done = subprocess.run(command + inputs.mod_options(entry, shape), capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"flexjit: exit status {done.returncode}\n{done.stderr.strip()}")
        return {name: to_torch(tensor) for name, tensor in inputs.load(result).items()}


# Comparison


def relative_error(x, reference):
    """The largest difference over the largest value; infinities must be the same, and NaN is an error."""
    finite = reference.isfinite()
    if x.shape != reference.shape or not torch.equal(x[~finite], reference[~finite]):
        return float("inf")
    difference = (x[finite] - reference[finite]).abs()
    if difference.numel() == 0 or difference.max() == 0:
        return 0.0
    largest = reference[finite].abs().max().item()
    return difference.max().item() / largest if largest else float("inf")


def compare(tool, entry, shape):
    """Returns the errors by column, and remarks on what PyTorch or flexjit could not do."""
    tensors = inputs.attention_inputs(shape, "F64", dlse=True)
    captured = inputs.captured_inputs(entry, shape, "F64")
    bound = {name: to_torch(tensor) for name, tensor in captured.items()}
    for tensor in bound.values():
        tensor.requires_grad_(tensor.is_floating_point())
    attention = {name: to_torch(tensor) for name, tensor in tensors.items()}
    score_mod, mask_mod = choose(execute(entry["path"], {**bound, **inputs.parameters(entry, shape)}), entry)

    errors, remarks = {}, []
    expected = dense_results(attention, bound, score_mod, mask_mod)
    try:
        eager = eager_results(attention, score_mod, mask_mod)
        errors["eager"] = max(relative_error(eager[name], expected[name]) for name in eager)
        expected.update(eager)
    except Exception as error:  # whatever a mod makes PyTorch raise
        remarks.append(f"eager flex_attention: {type(error).__name__}: {str(error).splitlines()[0][:150]}")
    if tool:
        computed = flexjit_results(tool, entry, shape, {**tensors, **captured})
        for name in expected.keys() | computed.keys():
            column = name if name in COLUMNS else "d_*"
            # A gradient that one side knows to be zero may be missing there.
            blank = torch.zeros_like(expected.get(name, computed.get(name)))
            error = relative_error(computed.get(name, blank), expected.get(name, blank))
            errors[column] = max(error, errors.get(column, 0.0))
    return errors, remarks


def gym_corpus(checkout):
    """The table of attention-gym's factories, with the paths of a checkout."""
    # Its package would import Triton and more; its modules import one another.
    package = types.ModuleType("attn_gym")
    package.__path__ = [str(checkout / "attn_gym")]
    sys.modules["attn_gym"] = package
    return inputs.read_corpus(Path(__file__).with_name("gym.json"), checkout)


def factories(checkout):
    """The names of the functions in attention-gym's mods and masks that are mods or return one."""
    for path in sorted(checkout.glob("attn_gym/m[oa][ds]*/*.py")):
        for function in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(function, ast.FunctionDef) and function.name != "main":
                inner = [node for node in ast.walk(function) if isinstance(node, ast.FunctionDef)]
                if any(node.args.args and node.args.args[-1].arg == "kv_idx" for node in inner):
                    yield function.name


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", default=str(ROOT / "build/flexjit"), help="the flexjit to test")
    parser.add_argument("--torch-only", action="store_true", help="only compare PyTorch with itself")
    parser.add_argument("--shape", default="2,8,2,150,190,16", metavar="B,Hq,Hkv,L,S,E[,Ev]")
    parser.add_argument("--filter", default="", metavar="TEXT", help="only mods whose names contain it")
    parser.add_argument("--gym", type=Path, metavar="PATH", help="a checkout of attention-gym to test")
    options = parser.parse_args()
    tool = None if options.torch_only else options.tool
    if tool and not Path(tool).is_file():
        parser.error(f"there is no {tool}: run ./dev build, or use --torch-only")
    if options.gym and not (options.gym / "attn_gym").is_dir():
        parser.error(f"{options.gym} is not a checkout of attention-gym")

    torch.set_default_dtype(torch.float64)
    flex._FLEX_ATTENTION_DISABLE_COMPILE_DEBUG = True  # eager, without tracing the mod first
    logging.disable(logging.WARNING)  # of PyTorch, on what it would want on a GPU
    shape = inputs.Shape.parse(options.shape)
    corpus = gym_corpus(options.gym) if options.gym else inputs.read_corpus(MODS / "corpus.json", MODS)
    chosen = {name: entry for name, entry in corpus.items() if options.filter in name}
    passed = failed = 0
    print(f"{'mod':30}{' '.join(f'{c:>8}' for c in COLUMNS)}")
    for name, entry in chosen.items():
        try:
            errors, remarks = compare(tool, entry, shape)
            good = all(error <= TOLERANCE for error in errors.values())
        except Exception as error:  # a row of the table, not the end of it
            errors, remarks, good = {}, [f"{type(error).__name__}: {error}"], False
        cells = (f"{errors[c]:8.1e}" if c in errors else "       -" for c in COLUMNS)
        print(f"{name:30}{' '.join(cells)} {'ok' if good else 'BAD'}", flush=True)
        for remark in remarks:
            print("    " + remark.replace("\n", "\n    "), flush=True)
        passed += good
        failed += not good
    if options.gym and not options.filter:
        calls = " ".join(entry.get("score_mod", "") + entry.get("mask_mod", "") for entry in corpus.values())
        for name in factories(options.gym):
            if name not in calls:
                print(f"{name} is not in gym.json")
                failed += 1
    print(f"{passed} passed, {failed} failed")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
