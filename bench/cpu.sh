#!/usr/bin/env bash
# Speed of the cpu kernels: F32 and BF16, forward and backward, head dimension 64 and 128, lengths 512 to 8192,
# without a mod, with a causal mask, and with ALiBi and a soft cap. Each row is set against the peak of its
# dtype (fused multiply-add, or dot products of BF16), measured in the same run on as many threads.
#
#   ./dev bench cpu [--quick] [options of flexjit bench]
#
# OMP_NUM_THREADS chooses the threads, FLEXJIT another tool, HEADS the number of heads.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tool=${FLEXJIT:-build/flexjit}
lengths=512..8192
if [[ ${1-} == --quick ]]; then
    lengths=1024
    shift
fi
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$(nproc)}
heads=${HEADS:-$OMP_NUM_THREADS}
shape=1,$heads,$heads,$lengths,=,64+128

rows() { # NAME OPTION...
    "$tool" bench "${@:2}" --shape "$shape" --dtype F32,BF16 --direction fwd,bwd --device cpu -o jsonl "${extra[@]}" |
        python3 bench/cpu_table.py "$1"
}

extra=("$@")
echo "threads $OMP_NUM_THREADS, heads $heads, $(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -n 1)"
rows 'no mod'
rows 'causal mask' --mask 'q >= kv'
rows 'ALiBi and soft cap' --score '20 * tanh(score / 20) + 2.0 ** (-0.5 * (h + 1)) * (kv - q)'
cat <<'TEXT'

of peak    products alone: the FLOPs of the products over the peak; only scores in blocks that are
           computed count
rest       time beyond the products at peak, per score: softmax, mod, packing, edges of the tiles
limit      what takes the greater share of the time
TEXT
