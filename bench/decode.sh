#!/usr/bin/env bash
# Few queries against many keys on the cpu, next to the rate at which memory is read: see bench/decode.py.
#
#   ./dev bench decode [options of bench/decode.py]
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec "${PYTHON:-python3}" bench/decode.py "$@"
