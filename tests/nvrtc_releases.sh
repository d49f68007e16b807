#!/usr/bin/env bash
# Releases of NVRTC, each as its package gives it: `flexjit doctor`, then forward and backward of three mods.
#
# usage: nvrtc_releases.sh TOOL [VERSION...]
#
# Installs the packages into build/nvrtc (kept for the next time; a network is needed) and prints a table. Versions
# below 13 are of nvidia-cuda-nvrtc-cu12, others of nvidia-cuda-nvrtc.
set -euo pipefail

tool=$(realpath "$1")
shift
(($#)) || set -- 12.0.140 12.4.127 12.8.93 12.9.86 13.0.88 13.5.37
kept=$(dirname "$tool")/nvrtc
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

cat >"$work/causal.py" <<'MOD'
def mask_mod(b, h, q, kv):
    return q >= kv
MOD
cat - "$work/causal.py" >"$work/alibi.py" <<'MOD'
def score_mod(score, b, h, q, kv):
    return score - 0.1 * h * (q - kv)


MOD
cat - "$work/causal.py" >"$work/cap.py" <<'MOD'
import torch


def score_mod(score, b, h, q, kv):
    return 30 * torch.tanh(score / 30)


MOD
{
    printf '{"schema": 1, "entries": ['
    separator=''
    for mod in causal alibi cap; do
        printf '%s{"mod": "%s.py", "problems": [{"dtype": "BF16", "head_dim": [64], "direction": ["fwd", "bwd"]}]}' \
            "$separator" "$mod"
        separator=', '
    done
    # atomic sums of four floats, which 12.0 does not know
    printf '%s{"mod": "causal.py", "problems": [{"dtype": "BF16", "head_dim": 64, "direction": "bwd", "deterministic": false}]}' \
        "$separator"
    printf ']}\n'
} >"$work/manifest.json"

install() { # VERSION: prints the folder of the library
    local package=nvidia-cuda-nvrtc folder=$kept/$1
    [[ $1 != 12.* ]] || package+=-cu12
    [[ -d $folder ]] || python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore \
        --no-deps --target "$folder" "$package==$1" >&2
    dirname "$(ls "$folder"/nvidia/*/lib/libnvrtc.so.1[23])"
}

rc=0
echo '| NVRTC | doctor | sm_80, sm_90a: kernels | seconds |'
echo '|---|---|---|---|'
for version; do
    folder=$(install "$version")
    export FLEXJIT_NVRTC=$folder FLEXJIT_CACHE_PATH=$work/cache-$version
    doctor=works
    "$tool" doctor --json >"$work/doctor" 2>&1 || doctor=BROKEN
    said=$("$tool" prebuild --manifest "$work/manifest.json" --arch sm_80,sm_90a -j1 --output "$work/$version" 2>"$work/err") ||
        said="FAILED: $(head -n 1 "$work/err")"
    [[ $doctor == works && $said == *' 12 compiled, '* ]] || rc=1
    echo "| $version | $doctor | ${said%, *} | ${said##*, } |"
done
exit "$rc"
