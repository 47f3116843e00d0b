#!/usr/bin/env bash
# Compiles a folder of Kotlin, unless nothing changed since: compile.sh SOURCES OUTPUT [CLASSPATH [OPTION...]]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
kotlin=$(echo "${TOOLS:-$root/.tools}"/kotlin-*/bin/kotlinc)
sources=$1 output=$2 classpath=${3:-}
shift $(($# < 3 ? $# : 3))

state=$({
    echo "$kotlin $classpath $*"
    find "$sources" -name '*.kt' -print0 | sort -z | xargs -0 sha256sum
    IFS=:
    for path in $classpath; do [ -e "$path/.state" ] && cat "$path/.state"; done
    true
} | sha256sum)
[ -e "$output/.state" ] && [ "$(cat "$output/.state")" = "$state" ] && exit 0

rm -rf "$output"
# The launcher is a script of bash, and npm leaves it without the right to be run.
bash "$kotlin" -jvm-target 11 -Werror -cp "$classpath" -d "$output" "$@" "$sources"
echo "$state" >"$output/.state"
