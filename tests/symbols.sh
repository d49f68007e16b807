#!/bin/sh
# Every symbol that the library defines is ours by its name, and the shared library exports what the public headers
# declare with FJ_API, no less and no more.
#
# usage: symbols.sh libflexjit.a libflexjit.so HEADER... -- CC...
set -eu
export LC_ALL=C

archive=$1 shared=$2 headers=
shift 2
while [ "$1" != -- ]; do
    headers="$headers $1"
    shift
done
shift

# What the compiler adds: sanitizers, coverage, OpenMP's critical sections.
instrumentation='^(__|___asan_|asan\.|tsan\.|sancov\.|\.gomp_)'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
status=0

defined() { # NM-OPTION FILE
    nm "$1" --defined-only --format=posix "$2" | awk 'NF >= 2 && !/:$/ { print $1 }' | grep -Ev "$instrumentation" |
        sort -u
}

declared() { # CC...: the first name of each declaration of default visibility
    for header in $headers; do
        "$@" -E -P -I"${header%/*}/.." -x c "$header"
    done >"$work/header.i"
    tr '\n' ' ' <"$work/header.i" | sed 's/;/;\n/g' | awk '
        /visibility *\( *"default" *\)/ && match($0, /fj_[a-z0-9_]+ *\(/) {
            name = substr($0, RSTART, RLENGTH); sub(/ *\($/, "", name); print name
        }' | sort -u
}

expect_none() { # WHAT
    names=$(cat)
    [ -z "$names" ] && return
    echo "$1:"
    echo "$names" | sed 's/^/    /'
    status=1
}

defined -g "$archive" >"$work/global"
defined -D "$shared" >"$work/exported"
declared "$@" >"$work/declared"

grep -v '^fj_' "$work/global" >"$work/foreign" || true
comm -13 "$work/declared" "$work/exported" >"$work/leaked"
comm -23 "$work/declared" "$work/exported" >"$work/absent"

expect_none 'global, without the prefix fj_' <"$work/foreign"
expect_none 'exported, but not declared with FJ_API' <"$work/leaked"
expect_none 'declared with FJ_API, but not exported' <"$work/absent"
exit "$status"
