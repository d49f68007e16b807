#!/bin/sh
# Compiles each header of the cuda templates as the only line of a kernel, with the emulator's primitives, for each dtype
# that it is for.
#
# usage: kernel_headers.sh ROOT CXX...
set -eu

root=$1
shift

status=0
count=0
for header in "$root"/templates/cuda/*.h; do
    name=${header##*/}
    dtypes="2 3" # BF16, F32
    case $name in
    prim_*) continue ;; # parts of prim.h
    *_half.h) dtypes=2 ;;
    tf32.h | *_tf32.h) dtypes=3 ;;
    esac
    for dtype in $dtypes; do
        count=$((count + 1))
        echo "#include \"$name\"" |
            "$@" -Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-unused-function -DFJ_ARCH=80 "-DFJ_IN_DTYPE=$dtype" \
                -I"$root" -I"$root/templates/cuda" -fsyntax-only - || status=1
    done
done
echo "$count compilations"
exit "$status"
