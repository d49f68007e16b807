#!/usr/bin/env bash
# Speed of two builds on the cpu, call by call in turns, so that a busy machine disturbs both alike: the medians and the
# minima of each row of `flexjit bench`, and their ratio (below 1: the second is faster).
#
#   bench/compare.sh OLD/build/flexjit NEW/build/flexjit [--rounds N] [options of flexjit bench]
#
# One thread, unless OMP_NUM_THREADS says otherwise. Without options: F32 and BF16, forward and backward, 1024 keys, head
# dimension 64, without a mod and with a causal mask.
set -euo pipefail

old=${1:?usage: bench/compare.sh OLD NEW [--rounds N] [options of flexjit bench]}
new=${2:?usage: bench/compare.sh OLD NEW [--rounds N] [options of flexjit bench]}
shift 2
rounds=7
if [[ ${1-} == --rounds ]]; then
    rounds=$2
    shift 2
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

once() { # LABEL TOOL OPTION...
    FLEXJIT_CACHE_PATH=$folder/$1 "$2" bench "${@:3}" --device cpu -o jsonl | sed "s/^/$1 /" >>"$folder/rows"
}
both() {
    once "old" "$old" "$@"
    once "new" "$new" "$@"
}

for ((round = 0; round < rounds; round++)); do
    if (($# > 0)); then
        both "$@"
        continue
    fi
    shape=(--shape 1,4,4,1024,=,64 --dtype F32,BF16 --direction 'fwd,bwd')
    both "${shape[@]}"
    both "${shape[@]}" --mask 'q >= kv'
done
python3 "$(dirname "${BASH_SOURCE[0]}")/compare_table.py" <"$folder/rows"
