#!/usr/bin/env bash
# Sweeps a fixed table of problems (bench/tune_shipped.json) on this CPU, and writes the winners where the library is built
# with them, tuning/cpu.jsonl: for each of its instruction sets, in place of what this machine wrote before. Wants a machine
# that does nothing else, for some hours. What was measured stays in FOLDER: a sweep that was stopped goes on.
#
#   ./dev tune-shipped [FOLDER] [options of flexjit tune]
#
# The default of FOLDER is build/tune-shipped. FLEXJIT chooses another tool.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

tool=${FLEXJIT:-build/flexjit}
folder=build/tune-shipped
if [[ ${1-} && $1 != -* ]]; then
    folder=$1
    shift
fi
mkdir -p "$folder"
shopt -s nullglob
archs=(avx2)
grep -qw avx512f /proc/cpuinfo && archs+=(avx512)
grep -qw avx512_bf16 /proc/cpuinfo && archs+=(avx512bf16)

for arch in "${archs[@]}"; do
    echo "$arch"
    rm -f "$folder/$arch.jsonl"
    "$tool" tune --manifest bench/tune_shipped.json --device cpu --arch "$arch" --strategy all --log "$folder/$arch.json" \
        --report "$folder/$arch.html" --output "$folder/$arch.jsonl" "$@"
done

# The records of other machines stay.
python3 - tuning/cpu.jsonl "$folder"/*.jsonl <<'PYTHON'
import json
import sys

to, *files = sys.argv[1:]
new = [line for file in files for line in open(file) if "device" in json.loads(line)]
mine = {(record["machine"], record["device"]["arch"]) for record in map(json.loads, new)}
header, *old = open(to)
old = [line for line in old if (json.loads(line)["machine"], json.loads(line)["device"]["arch"]) not in mine]
open(to, "w").writelines([header, *old, *new])
print(f"{len(new)} records of this machine and {len(old)} of others in {to}")
PYTHON
