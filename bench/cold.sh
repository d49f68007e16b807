#!/usr/bin/env bash
# What the first call of a kernel costs on the cpu: `run` and `run --backward` with an empty cache less the same with a full
# one, two builds in turns, so that a busy machine disturbs both alike. Wall time and processor time of all children, minima of
# the rounds; the ratio is new over old.
#
#   ./dev bench cold OLD [--rounds N] [--new TOOL] [--dtype F32,BF16] [--head-dim E]
#
# OLD is a tree that is built, or a tool. FLEXJIT_CC chooses the compiler.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec python3 bench/cold.py "$@"
