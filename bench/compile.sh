#!/usr/bin/env bash
# The CUDA compiler on the default kernels: registers, spills, shared memory and time, as Markdown. No GPU is needed.
#
#   ./dev bench compile [options of bench/compile.py]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec python3 bench/compile.py "$@"
