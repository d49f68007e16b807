#!/usr/bin/env bash
# Everything that a GPU can show, in under 8 minutes: the conformance of the primitives (recorded, and compared with the
# emulator's), the kernel tests on the GPU, then flexjit against PyTorch on the same tensors.
#
#   ./dev bench gpu [--output DIR] [--seconds N]     on a machine that builds
#   bench/gpu.sh --pack DIR                          everything needed, built here, for a bare machine:
#   DIR/bench/gpu.sh [--output DIR] [--seconds N]    there; it needs the driver, NVRTC, and Python with PyTorch
#
# BUILD names the build folder, PYTHON the interpreter with PyTorch. Exit status: 3 without a usable GPU, 1 when
# something is wrong, 0 else. Results are in DIR (build/gpu): doctor.json, prim.log, vectors/, kern.log, torch_gpu.md and .json.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

build=${BUILD:-build} output='' seconds=450 pack='' python=${PYTHON:-python3}
while (($# > 0)); do
    case $1 in
    --output) output=$2 ;;
    --seconds) seconds=$2 ;;
    --pack) pack=$2 ;;
    *)
        echo "gpu.sh: unknown option: $1" >&2
        exit 2
        ;;
    esac
    shift 2 || exit 2
done
build=$(realpath -m "$build")
output=$(realpath -m "${output:-$build/gpu}")
export LD_LIBRARY_PATH=$build/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
export FLEXJIT_CACHE_PATH=$output/cache

programs=(flexjit libflexjit.so.0 tests/prim/test_prim tests/kern/kern)

# Only what a C library alone does not bring travels along.
pack_into() { # DIR
    local file objects
    mkdir -p "$1/build/lib" "$1/bench" "$1/build/tests/prim" "$1/tests/prim/kernels" "$1/templates" || return
    for file in "${programs[@]}"; do
        mkdir -p "$1/build/$(dirname "$file")" && cp -L "$build/$file" "$1/build/$file" || return
        ldd "$build/$file" | awk '/=> \/.*(jansson|xxhash|check|subunit)/ { print $3 }' | xargs -r cp -Lt "$1/build/lib" || return
    done
    objects=("$build"/tests/prim/*-90.so)
    cp "${objects[@]}" "$1/build/tests/prim" && cp -r templates/cuda "$1/templates" &&
        cp tests/prim/kernels/* "$1/tests/prim/kernels" && cp bench/{gpu.sh,flexjit.py,torch_*.py} "$1/bench"
}

if [[ -n $pack ]]; then
    pack_into "$pack" && du -sh "$pack"
    exit
fi

begin=$SECONDS wrong=()
left() { echo $((seconds - (SECONDS - begin))); }

step() { # NAME LOG LIMIT COMMAND...
    local name=$1 log=$output/$2 limit=$3 rc=0 start=$SECONDS
    (($(left) < limit)) && limit=$(left)
    timeout --kill-after=5 "$((limit > 5 ? limit : 5))" "${@:4}" >"$log" 2>&1 || rc=$?
    ((rc == 0)) || wrong+=("$name")
    printf '%-32s %s, %d s\n' "$name" "$( ((rc == 0)) && echo ok || echo "WRONG (status $rc), see $log")" $((SECONDS - start))
    tail -n 3 "$log" | sed 's/^/    /'
}

for file in "${programs[@]}"; do
    [[ -e $build/$file ]] || {
        echo "gpu.sh: $build/$file is not there: build first (./dev build), or --pack on a machine that can" >&2
        exit 1
    }
done
mkdir -p "$output/vectors" || exit 1
"$build/flexjit" doctor --json >"$output/doctor.json" || exit 1
"$build/flexjit" doctor | sed -n '/cuda\|nvrtc\|driver\|gpu/Ip'

# The first question is whether kernels can be launched at all: one sentence if not, and status 3.
"$build/flexjit" bench --device cuda --shape 1,1,1,64,64,64 --dtype BF16 --once >"$output/first.log" 2>&1 || {
    rc=$?
    cat "$output/first.log" >&2
    exit "$rc"
}

step 'primitives on the GPU' prim.log 60 "$build/tests/prim/test_prim" --objects "$build/tests/prim" 90 --cuda tests/prim templates/cuda --record "$output/vectors"
step 'primitives on the emulator' prim_emu.log 30 "$build/tests/prim/test_prim" --objects "$build/tests/prim" 90 --data "$output/vectors"
step 'kernels on the GPU' kern.log 150 "$build/tests/kern/kern" --device cuda --jobs 8
if "$python" -c 'import torch' 2>/dev/null; then
    step 'flexjit and PyTorch' torch.log "$(left)" "$python" bench/torch_gpu.py --library "$build/libflexjit.so.0" --output "$output" \
        --seconds "$(($(left) > 40 ? $(left) - 30 : 10))"
    cat "$output/torch_gpu.md" 2>/dev/null
else
    echo "gpu.sh: $python has no PyTorch: the comparison is left out" >&2
    wrong+=('flexjit and PyTorch')
fi
((${#wrong[@]} == 0)) || {
    echo "wrong: ${wrong[*]}" >&2
    exit 1
}
