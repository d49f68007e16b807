#!/usr/bin/env python3
"""Deterministic gradients of a captured tensor at the ends of their range: NaN, and the least normal numbers.

usage: captures.py [--tool build/flexjit] DEVICE [OPTION of flexjit run ...]

A score that is NaN makes the gradients of its row NaN, and no other element's; gradients about as small as the least
normal number are as near to those of the reference device as others. Needs the standard library alone.
"""

import argparse
import os
import sys
import tempfile

import nonfinite

MOD = "mask and bias"
LEAST = {"F32": 2.0**-126, "F64": 2.0**-1022}


def of_nan(runner, dtype):
    """What is wrong where one element of the capture is NaN, or nothing."""
    place = [(9, 4)]
    zero = runner.run(nonfinite.put(nonfinite.inputs(dtype, MOD), "bias", place, 0.0), MOD, runner.options.device)
    return runner.case(dtype, MOD, "bias", place, nonfinite.VALUES["nan"], zero)


def of_least(runner, dtype):
    """What is wrong where the largest gradients are some times the least normal number, or nothing."""
    tensors = nonfinite.inputs(dtype, MOD)
    tensors["do"][2] = [x * 64 * LEAST[dtype] for x in tensors["do"][2]]
    got, wanted = (runner.run(tensors, MOD, device)["d_bias"].values for device in (runner.options.device, "reference"))
    most = max(map(abs, wanted))
    if not LEAST[dtype] < most < 512 * LEAST[dtype]:
        return f"the largest gradient is {most}"
    worst = max(range(len(got)), key=lambda i: abs(got[i] - wanted[i]))
    if abs(got[worst] - wanted[worst]) <= 1e-4 * most:
        return ""
    return f"d_bias[{worst}] is {got[worst]}, the reference {wanted[worst]}, the largest {most}"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tool", default=str(nonfinite.ROOT / "build/flexjit"))
    parser.add_argument("device")
    options, options.rest = parser.parse_known_args()
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("FLEXJIT_CACHE_PATH", f"{folder}/cache")
        runner = nonfinite.Runner(options, folder)
        for name, check in (("NaN", of_nan), ("least", of_least)):
            wrong = check(runner, "F32")
            failed += bool(wrong)
            print(f"F32  {name:6}{wrong or 'ok'}")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
