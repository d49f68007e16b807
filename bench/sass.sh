#!/usr/bin/env bash
# What limits the main loops of the cuda kernels, counted in their machine code: no GPU is needed, but NVRTC and
# nvdisasm of the CUDA toolkit (PATH, or NVDISASM). bench/sass.py says what the columns are.
#
#   ./dev bench sass [--arch 80,90] [--head-dim 64,128] [--direction fwd,bwd] [--mod none,causal,alibi,softcap] ...
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

exec python3 bench/sass.py "$@"
