#!/usr/bin/env bash
# Compares flexjit's reference with PyTorch on every example mod; options go to test_mods.py. With `masks` first, its block
# masks with those of create_block_mask: test_masks.py.
# PyTorch is installed from PyPI into a private environment: FJ_VENV, by default .venv-torch (1.4 GB).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
venv=${FJ_VENV:-.venv-torch}

# PyPI's wheel for x86-64 is linked with CUDA libraries of several GB, which a test on the CPU never calls.
# One small library stands in for all of them: every function returns 100, which is cudaErrorNoDevice.
replace_cuda() ( # FOLDER of PyTorch's libraries
    cd "$1"
    nm -D --undefined-only ./*.so | awk '$1 == "U" && $2 ~ /^(__cuda|cu|nv|nccl)/ { print $2 }' |
        sort -u >nocuda.list
    awk -F@ '{ print "int " $1 "(void) { return 100; }" }' nocuda.list >nocuda.c
    awk -F@ 'NF > 1 { of[$NF] = of[$NF] " " $1 ";" } END { for (v in of) print v " {" of[v] " };" }' \
        nocuda.list >nocuda.map
    cc -shared -fPIC -w -Wl,--version-script=nocuda.map -o libnocuda.so nocuda.c
    readelf -d ./*.so | { grep -oE '\[lib(cu|nv|nccl)[^]]*\]' || true; } | tr -d '[]' | sort -u |
        xargs -r -n 1 ln -sf libnocuda.so
)

install_torch() {
    echo "installing PyTorch into $venv" >&2
    python3 -m venv "$venv" || {
        echo "tests/torch: python3 -m venv failed; on Debian it needs the package python3-venv" >&2
        exit 3
    }
    echo '*' >"$venv/.gitignore"
    local pip=("$venv/bin/pip" --disable-pip-version-check install --quiet --no-cache-dir)
    "${pip[@]}" --no-deps torch
    "${pip[@]}" --no-warn-conflicts \
        filelock typing-extensions sympy networkx jinja2 fsspec numpy 'setuptools>=77.0.3'
    local packages
    packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
    replace_cuda "$packages/torch/lib"
    "$venv/bin/python" -c 'import torch; print("PyTorch", torch.__version__)' >&2
    touch "$venv/complete"
}

[[ -e $venv/complete ]] || install_torch
script=mods
if [[ ${1-} == masks ]]; then
    script=masks
    shift
fi
exec "$venv/bin/python" "tests/torch/test_$script.py" "$@"
