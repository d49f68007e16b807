#!/usr/bin/env python3
"""Runs a sample kernel and expects what its name says.

usage: planted.py RUNNER SAMPLE-DEFECT-SANITIZER.so SOURCE.cu

DEFECT `right`: every output is right, in every mode, and the sanitizer is silent. Any other: it is found, and a
sanitizer names the line that the source marks with `// line: NAME`.
"""

import os
import pathlib
import platform
import re
import subprocess
import sys

# What the output must hold: {NAME} is FILE:LINE of a marked line.
EXPECTED = {
    "gemm-barrier-none": ["forward, eager: output"],
    "gemm-barrier-thread": ["ThreadSanitizer: data race", "{read}", "{copy}"],
    "gemm-wait-none": ["forward, late: output"],
    "gemm-wait-thread": ["ThreadSanitizer: data race", "{read}", "{copy}", "asynchronous copies of CUDA thread"],
    "gemm-reuse-thread": ["ThreadSanitizer: data race", "{read}", "{copy}"],
    "gemm-guard-address": ["AddressSanitizer: heap-buffer-overflow", "WRITE of size 4", "{write}"],
    "gemm-swizzle-none": ["forward, eager: output", "bank conflicts"],
    "reduce-barrier-none": ["forward, eager: output"],
    "reduce-align-none": ["ended by signal"],
    "reduce-barrier-thread": ["ThreadSanitizer: data race", "{write}", "{sum}"],
    "reduce-blocks-thread": ["ThreadSanitizer: data race", "{store}", "CUDA thread 0"],
    "reduce-shared-address": ["AddressSanitizer: use-after-poison", "READ of size 4", "{sum}"],
    "reduce-guard-address": ["AddressSanitizer: heap-buffer-overflow", "READ of size 4", "{read}"],
}
SKIPPED = 77


def marked_lines(source):
    lines = {}
    for number, text in enumerate(source.read_text(encoding="utf-8").split("\n"), 1):
        for name in re.findall(r"// line: (\w+)", text):
            lines[name] = f"{source.name}:{number}"
    return lines


def run(command):
    environment = dict(os.environ, OMP_TOOL="disabled")  # Clang's OpenMP would talk to ThreadSanitizer
    result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
    ended = f"ended by signal {-result.returncode}" if result.returncode < 0 else ""
    return result.returncode, result.stdout + result.stderr + ended


def run_sample(runner, sample_object):
    command = [runner, str(sample_object), sample_object.name.split("-")[0]]
    if sample_object.stem.endswith("-thread"):
        command.append("--few")
    status, output = run(command)
    if "unexpected memory mapping" in output:  # ThreadSanitizer and much address space randomisation
        status, output = run(["setarch", platform.machine(), "-R", *command])
        if "unexpected memory mapping" in output:
            print("skipped: ThreadSanitizer does not start here")
            sys.exit(SKIPPED)
    return status, output


def main(runner, sample_object, source):
    lines = marked_lines(source)
    status, output = run_sample(runner, sample_object)
    if "-right-" in sample_object.name:
        missing = [] if status == 0 and not output else ["silence and status 0"]
    else:
        missing = [text for text in (t.format(**lines) for t in EXPECTED[sample_object.stem]) if text not in output]
        if status == 0:
            missing.append("a status that is not 0")
    for text in missing:
        print(f"missing: {text}")
    if missing:
        print(f"status {status}, output:\n{output}")
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])))
