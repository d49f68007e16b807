"""Compares `flexjit mask --export` with PyTorch's create_block_mask: every mask of examples/mods.

Where lengths are multiples of the blocks the eight tensors are equal, entry by entry; elsewhere, as PyTorch takes what is
past a length for hidden, the blocks of full and partial ones together. With --bench the times to make causal masks of 16,384
tokens in documents, by create_block_mask, eager and compiled (without its compilation), and by flexjit.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from torch.nn.attention import flex_attention as flex

import inputs
import test_mods

sys.path.insert(0, str(test_mods.ROOT / "tests"))
import masks  # noqa: E402

SHAPES = ["2,2,2,192,256,1", "1,3,3,133,250,1"]
BLOCKS = [(64, 64), (32, 64)]
NAMES = ["kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices",
         "q_num_blocks", "q_indices", "full_q_num_blocks", "full_q_indices"]  # fmt: skip


def run_flexjit(tool, path, folder, options):
    command = [tool, "mask", path, *options, "--export", f"{folder}/mask.st", "--json"]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    exported = inputs.load(f"{folder}/mask.st")
    return json.loads(done.stdout), {name: test_mods.to_torch(tensor) for name, tensor in exported.items()}


def dense(counts, indices):
    """Blocks that lists name, as bools."""
    listed = torch.arange(indices.shape[-1]) < counts[..., None]
    return torch.zeros(indices.shape, dtype=torch.int32).scatter_(-1, indices.long(), listed.int()).bool()


def difference(theirs, ours, shape, block):
    """What differs, or nothing."""
    if shape.L % block[0] == 0 and shape.S % block[1] == 0:
        return [name for name in NAMES if not torch.equal(getattr(theirs, name), ours[name])]
    union = [dense(m["kv_num_blocks"], m["kv_indices"]) | dense(m["full_kv_num_blocks"], m["full_kv_indices"])
             for m in (ours, {name: getattr(theirs, name) for name in NAMES})]  # fmt: skip
    return [] if torch.equal(*union) else ["the blocks that are not empty"]


def check(options, name, entry, shape, block, folder):
    captured = inputs.captured_inputs(entry, shape, "F64")
    inputs.save(f"{folder}/in.st", captured)
    bound = {**{n: test_mods.to_torch(t) for n, t in captured.items()}, **inputs.parameters(entry, shape)}
    mask_mod = test_mods.choose(test_mods.execute(entry["path"], bound), {k: v for k, v in entry.items() if k != "score_mod"})[1]
    if mask_mod is None:
        return [f"PyTorch finds no mask in {entry['path']}"]
    theirs = flex.create_block_mask(mask_mod, shape.B, shape.Hq, shape.L, shape.S, device="cpu", BLOCK_SIZE=block)
    _, ours = run_flexjit(options.flexjit, entry["path"], folder, [
        *masks.mask_options(entry, shape), "--input", f"{folder}/in.st", "--q-len", shape.L, "--kv-len", shape.S, "--batch",
        shape.B, "--heads", shape.Hq, "--block", f"{block[0]},{block[1]}"])  # fmt: skip
    return difference(theirs, ours, shape, block)


def best_ms(function, repeats):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append((time.perf_counter() - start) * 1e3)
    return min(times)


def bench(options, length=16384, documents=32, threads=2):
    torch.set_num_threads(threads)
    cuts = sorted(random.Random(1).sample(range(1, length), documents - 1))
    doc = torch.bucketize(torch.arange(length), torch.tensor(cuts), right=True).int()

    def mask_mod(b, h, q_idx, kv_idx):
        return (doc[q_idx] == doc[kv_idx]) & (q_idx >= kv_idx)

    def make(create):
        return lambda: create(mask_mod, None, None, length, length, device="cpu")

    compiled = make(torch.compile(flex.create_block_mask))
    compiled()
    rows = {"PyTorch, compiled": best_ms(compiled, 20), "PyTorch, eager": best_ms(make(flex.create_block_mask), 2)}
    with tempfile.TemporaryDirectory() as folder:
        inputs.save(f"{folder}/in.st", {"doc": inputs.Tensor("I32", (length,), doc.numpy().tobytes())})
        text = "import torch\ndoc = torch.zeros(1)\ndef mask_mod(b, h, q, kv):\n    return (doc[q] == doc[kv]) & (q >= kv)\n"
        Path(f"{folder}/doc.py").write_text(text)
        for block in (64, 128):
            report, _ = run_flexjit(options.flexjit, f"{folder}/doc.py", folder, [
                "--input", f"{folder}/in.st", "--q-len", length, "--kv-len", length, "--block", f"{block},{block}",
                "--threads", threads])  # fmt: skip
            rows[f"flexjit, blocks of {block}"] = report["time_ms"]
    for name, ms in rows.items():
        print(f"{name:24} {ms:10.3f} ms  {rows['PyTorch, compiled'] / ms:8.1f} times as fast as PyTorch, compiled")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--flexjit", default=str(test_mods.ROOT / "build/flexjit"))
    parser.add_argument("--filter", default="", metavar="TEXT", help="only mods whose names contain it")
    parser.add_argument("--bench", action="store_true", help="time 16,384 tokens of documents instead")
    options = parser.parse_args()
    if options.bench:
        return bench(options)
    failed = count = 0
    with tempfile.TemporaryDirectory() as folder:
        for name, entry in inputs.read_corpus(test_mods.MODS / "corpus.json", test_mods.MODS).items():
            chosen = options.filter in name and masks.has_mask(argparse.Namespace(tool=options.flexjit), entry)
            for shape in map(inputs.Shape.parse, SHAPES if chosen else []):
                for block in BLOCKS:
                    try:
                        wrong = check(options, name, entry, shape, block, folder)
                    except (RuntimeError, ValueError, IndexError) as error:
                        wrong = [str(error)[:300]]
                    count += 1
                    failed += bool(wrong)
                    if wrong:
                        print(f"{name:28} {tuple(shape)[:5]} {block}: {', '.join(wrong)}", flush=True)
    print(f"{count - failed} of {count} block masks are PyTorch {torch.__version__}'s")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
