#!/usr/bin/env bash
# Tests the Kotlin core, and draws with it on a real `.pte`: test.sh [BUNDLE...]. The last line has the counts.
#
# BUNDLEs are drawn besides the tiny ones that are exported here. PYTHON names an interpreter with the exporter. What
# cannot be had on this machine is skipped, loudly, with exit code 0.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
export TOOLS=${TOOLS:-$root/.tools} PYTHON=${PYTHON:-python3}
build=$TOOLS/android-build
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
log=$temporary/log
passed=0 failed=0 skipped=0

skip() {
    echo "##############################################################################"
    echo "# SKIPPED: $1"
    echo "# $(tail -n 1 "$log")"
    echo "##############################################################################"
    skipped=$((skipped + 1))
}

finish() {
    echo "android_demo: $passed passed, $failed failed$([ $skipped = 0 ] || echo ", $skipped skipped")"
    [ $failed = 0 ]
    exit
}

count() {
    local number
    number=$(sed -n "s/^\[ *\([0-9]*\) tests $1 *\]$/\1/p" "$log")
    echo "${number:-0}"
}

core() {
    local jars
    jars=$(echo "$TOOLS"/junit/*.jar "$TOOLS"/kotlin-*/lib/kotlin-{stdlib,test,test-junit5}.jar | tr ' ' ':')
    android_demo/compile.sh android_demo/core/src/main "$build/core" &&
        android_demo/compile.sh android_demo/core/src/test "$build/core-test" "$build/core:$jars" \
            "-Xfriend-paths=$build/core" || return
    java -Djava.io.tmpdir="$temporary" -cp "$build/core-test:$build/core:$jars" \
        org.junit.platform.console.ConsoleLauncher --disable-banner --disable-ansi-colors --details=summary \
        --fail-if-no-tests --scan-class-path "$build/core-test" >"$log" 2>&1
    local status=$?
    if [ $status = 0 ]; then tail -n 13 "$log" | grep tests; else cat "$log"; fi
    passed=$((passed + $(count successful))) failed=$((failed + $(count failed)))
    return $status
}

on_runtime() {
    local kotlin
    kotlin=$(echo "$TOOLS"/kotlin-*/lib/kotlin-stdlib.jar)
    android_demo/compile.sh android_demo/host/src/main/kotlin "$build/host" "$build/core" || return
    "$PYTHON" android_demo/host/compare.py java -cp "$build/core:$build/host:$kotlin" mobileexport.host.MainKt \
        --library "$build/libhost_network.so" -- "$@" >"$log" 2>&1
    local status=$?
    if [ $status = 0 ]; then grep '^passed ' "$log"; else cat "$log"; fi
    passed=$((passed + $(grep -c '^passed ' "$log"))) failed=$((failed + $(grep -c '^FAILED ' "$log")))
    return $status
}

# A step that broke before it counted a failure is one itself.
run() {
    local before=$failed
    "$@" || [ $failed != "$before" ] || failed=$((failed + 1))
}

android_demo/toolchain.sh >"$log" 2>&1
case $? in
0) ;;
3)
    skip "the Kotlin tests, and the Kotlin loop on the ExecuTorch runtime"
    finish
    ;;
*)
    cat "$log" >&2
    exit 1
    ;;
esac
mkdir -p "$build"
run core

android_demo/host/build.sh "$build/libhost_network.so" >"$log" 2>&1
case $? in
0) run on_runtime "$@" ;;
3) skip "the Kotlin loop on the ExecuTorch runtime" ;;
*)
    cat "$log" >&2
    failed=$((failed + 1))
    ;;
esac
finish
