#!/usr/bin/env bash
# An encoder layer (F32, gelu, no dropout) on the cpu, forward and training step, next to its products alone by the same BLAS, and
# next to PyTorch where FJ_VENV (by default .venv-torch) has it: see bench/layers.py.
#
#   ./dev bench layers [--shape B,L,D,HEADS,FEEDFORWARD] [--threads N] [--rounds N]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python3}" bench/layers.py "$@"
