#!/bin/sh
# Compiles each header of some folders as the only line of a source file.
#
# usage: self_contained.sh ROOT FOLDER... -- CC...
set -eu

root=$1
shift
folders=
while [ "$1" != -- ]; do
    [ ! -d "$root/$1" ] || folders="$folders $1"
    shift
done
shift

status=0
count=0
for folder in $folders; do
    for header in "$root/$folder"/*.h; do
        [ -f "$header" ] || continue
        count=$((count + 1))
        echo "#include \"$folder/${header##*/}\"" |
            "$@" -Wall -Wextra -Werror -I"$root" -fsyntax-only - || status=1
    done
done
echo "$count headers"
exit "$status"
