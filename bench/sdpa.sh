#!/usr/bin/env bash
# Scaled dot product attention on the cpu, with and without a float mask, next to PyTorch's: see bench/sdpa.py.
#
#   ./dev bench sdpa [--shape B,H,L,E] [--threads N] [--rounds N] [--dtypes F32,BF16]
#
# FJ_VENV is the environment with PyTorch, by default .venv-torch, which ./dev test-torch makes.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${FJ_VENV:-.venv-torch}/bin/python" bench/sdpa.py "$@"
