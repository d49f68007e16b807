#!/usr/bin/env bash
# NVRTC keeps --restrict for all later compilations of the process.
#
# Guess:   options belong to one nvrtcCompileProgram: they are its argument, and the documentation calls --restrict an
#          assertion about the kernels of the program that is compiled.
# Version: nvidia-cuda-nvrtc 13.5.37 (the same with 12.4.127, 12.9.86, 13.0.88), Linux, x86-64.
# Seen:    one text is compiled without the option, then with it, then without it again. The third cubin is the second,
#          not the first: 20, 32 and 32 registers. The pointers of that third kernel may alias, and its code takes
#          for granted that they do not. A new process is clean. -G leaves traces as well, in larger kernels.
# Means:   a library that compiles in a process with others (PyTorch uses the same NVRTC) gets kernels that depend on
#          what was compiled before.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps --target "$work" nvidia-cuda-nvrtc==13.5.37
python3 - "$work/nvidia/cu13/lib" <<'PYTHON'
import ctypes
import re
import sys

ctypes.CDLL(sys.argv[1] + "/libnvrtc-builtins.so.13.5")
nvrtc = ctypes.CDLL(sys.argv[1] + "/libnvrtc.so.13")
TEXT = b"""extern "C" __global__ void k(float *x, float *y) {
    for (int i = 0; i < 100; i++) x[i] += y[i] * 3;
}
"""


def compile_with(*options):
    options = (b"--gpu-architecture=sm_90", b"--ptxas-options=-v", *options)
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), TEXT, b"k.cu", 0, None, None) == 0
    assert nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)) == 0
    parts = []
    for what in ("CUBIN", "ProgramLog"):
        assert getattr(nvrtc, f"nvrtcGet{what}Size")(program, ctypes.byref(size)) == 0
        bytes_ = ctypes.create_string_buffer(size.value)
        assert getattr(nvrtc, f"nvrtcGet{what}")(program, bytes_) == 0
        parts.append(bytes_.raw)
    return parts[0], int(re.search(rb"Used (\d+) registers", parts[1])[1])


before, restricted, after = compile_with(), compile_with(b"--restrict"), compile_with()
print("registers: %d without, %d with, %d without again" % (before[1], restricted[1], after[1]))
sys.exit(0 if before[0] != restricted[0] == after[0] else "NVRTC no longer does this")
PYTHON
