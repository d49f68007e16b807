#!/usr/bin/env bash
# NVRTC's --split-compile gives other machine code, from sm_100 on.
#
# Guess:   --split-compile=0 only spreads the work of a compilation over threads; the code is the same.
# Version: nvidia-cuda-nvrtc 13.5.37 (the same with 12.9.86), Linux, x86-64.
# Seen:    the machine code of the second of two kernels is equal with and without it for sm_80 and sm_90, and differs
#          for sm_100 and sm_120 (--split-compile=1 is as without). Each is the same every time it is compiled.
# Means:   where results of machines are compared, or the option depends on how busy a machine is, it may be used up to
#          sm_90 only.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m pip install --quiet --root-user-action=ignore --disable-pip-version-check --no-deps --target "$work" nvidia-cuda-nvrtc==13.5.37
python3 - "$work/nvidia/cu13/lib" <<'PYTHON'
import ctypes
import struct
import sys

ctypes.CDLL(sys.argv[1] + "/libnvrtc-builtins.so.13.5")
nvrtc = ctypes.CDLL(sys.argv[1] + "/libnvrtc.so.13")
KERNEL = """extern "C" __global__ void %s(float *out, const float *a, const float *b, int n) {
    float sum[8] = {0};
    for (int i = 0; i < n; i++)
        for (int r = 0; r < 8; r++) sum[r] += a[i * 1024 + threadIdx.x] * %s(b[i * 32 + r] - sum[(r + 1) %% 8]);
    for (int r = 0; r < 8; r++) out[r * 1024 + threadIdx.x] = sum[r];
}
"""
TEXT = (KERNEL % ("first", "exp2f") + KERNEL % ("second", "sinf")).encode()


def text_of(cubin):
    """The machine code of the second kernel: a section of an ELF file."""
    start, = struct.unpack_from("<Q", cubin, 0x28)
    size, count, names = struct.unpack_from("<HHH", cubin, 0x3A)
    sections = [struct.unpack_from("<IIQQQQ", cubin, start + i * size) for i in range(count)]
    for name, _, _, _, offset, length in sections:
        at = sections[names][4] + name
        if cubin[at : cubin.index(0, at)] == b".text.second":
            return cubin[offset : offset + length]
    raise ValueError("no .text.second")


def compile_for(arch, *options):
    options = (b"--gpu-architecture=" + arch, *options)
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    assert nvrtc.nvrtcCreateProgram(ctypes.byref(program), TEXT, b"k.cu", 0, None, None) == 0
    assert nvrtc.nvrtcCompileProgram(program, len(options), (ctypes.c_char_p * len(options))(*options)) == 0
    assert nvrtc.nvrtcGetCUBINSize(program, ctypes.byref(size)) == 0
    cubin = ctypes.create_string_buffer(size.value)
    assert nvrtc.nvrtcGetCUBIN(program, cubin) == 0
    return text_of(cubin.raw)


seen = []
for arch in (b"sm_80", b"sm_90", b"sm_100", b"sm_120"):
    plain, again = compile_for(arch), compile_for(arch)
    split, one = compile_for(arch, b"--split-compile=0"), compile_for(arch, b"--split-compile=1")
    assert plain == again == one
    seen.append("same" if plain == split else "other")
    print(arch.decode(), len(plain), len(split), seen[-1])
sys.exit(0 if seen == ["same", "same", "other", "other"] else "NVRTC no longer does this")
PYTHON
