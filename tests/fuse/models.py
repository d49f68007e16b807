#!/usr/bin/env python3
"""Runs `flexjit fuse` on what export.py made, and compares with what PyTorch gave.

usage: models.py TOOL DIR [PATTERN]      one line a model: softmaxes, fused, reasons, after against before, and against PyTorch
"""

import fnmatch
import json
import os
import pathlib
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "cli"))
import harness

TOLERANCE = {"F32": 2e-5, "BF16": 0.06, "F16": 0.01}


def difference(got, expected):
    return max((abs(a - b) for a, b in zip(got, expected) if a == a and b == b), default=0.0)


def run(tool, path):
    with tempfile.TemporaryDirectory() as folder:
        given = path.with_suffix(".st")
        done = subprocess.run([tool, "fuse", path, "--output", folder, "--run", given, "--check", "--device", "reference", "--json"],
                              stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)  # fmt: skip
        report = json.loads(done.stdout) if done.stdout else {}
        if "fused" not in report:
            return f"FAILED {done.stderr.strip()[:300]}"
        expected = {name: value for name, value in harness.read_safetensors(given).items() if name.startswith("expected_")}
        line = f"{len(report['fused']) + len(report['refused'])} softmaxes, {len(report['fused'])} fused"
        for refused in report["refused"]:
            line += f"; {refused['softmax']}: {refused['reason']} ({refused['detail']})"
        for name, error in report.get("errors", {}).items():
            line += f"; {name} mean {error['mean']:.2g} of {error['bound']:.2g}"
        outputs = pathlib.Path(folder, "outputs.safetensors")
        if outputs.exists():
            made = harness.read_safetensors(outputs)
            worst = max(difference(made[f"output_{i}"][2], expected[f"expected_{i}"][2]) for i in range(len(expected)))
            within = worst <= TOLERANCE[next(iter(expected.values()))[0]]
            line += f"; PyTorch {worst:.2g}{'' if within else ' BAD'}"
        return line if done.returncode == 0 else f"BAD {line} {done.stderr.strip()[-200:]}"


def main():
    tool, folder, pattern = sys.argv[1], pathlib.Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else "*"
    bad = 0
    for path in sorted([*folder.glob("*.pt2"), *folder.glob("*.onnx")]):
        if fnmatch.fnmatch(path.stem, pattern):
            line = run(tool, path)
            bad += "BAD" in line or line.startswith("FAILED")
            print(f"{path.name}: {line}", flush=True)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
