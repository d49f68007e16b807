#!/usr/bin/env bash
# install.sh FOLDER [torch==VERSION]: PyTorch from PyPI in a private environment, for the CPU alone (1.4 GB).
set -euo pipefail
venv=$1 package=${2:-torch}

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

echo "installing PyTorch into $venv" >&2
python3 -m venv "$venv" || {
    echo "tests/torch: python3 -m venv failed; on Debian it needs the package python3-venv" >&2
    exit 3
}
echo '*' >"$venv/.gitignore"
pip=("$venv/bin/pip" --disable-pip-version-check install --quiet --no-cache-dir)
"${pip[@]}" --no-deps "$package"
"${pip[@]}" --no-warn-conflicts \
    filelock typing-extensions sympy networkx jinja2 fsspec numpy 'setuptools>=77.0.3'
packages=$("$venv/bin/python" -c 'import sysconfig; print(sysconfig.get_path("platlib"))')
replace_cuda "$packages/torch/lib"
"$venv/bin/python" -c 'import torch; print("PyTorch", torch.__version__)' >&2
touch "$venv/complete"
