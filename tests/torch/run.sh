#!/usr/bin/env bash
# Compares flexjit's reference with PyTorch on every example mod; options go to test_mods.py. With `masks` first, its block
# masks with those of create_block_mask: test_masks.py; with `sdpa` or `layers` calls of sdpa.h or nn.h with its own.
# PyTorch is installed from PyPI into a private environment: FJ_VENV, by default .venv-torch (1.4 GB).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
venv=${FJ_VENV:-.venv-torch}

[[ -e $venv/complete ]] || tests/torch/install.sh "$venv"
script=mods
if [[ ${1-} =~ ^(masks|layers|sdpa)$ ]]; then
    script=$1
    shift
fi
exec "$venv/bin/python" "tests/torch/test_$script.py" "$@"
