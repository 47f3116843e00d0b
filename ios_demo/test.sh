#!/usr/bin/env bash
# Tests SamplerCore, optimized as it ships; checks the types of the app and the style of both. The last line counts.
#
# Where no Swift compiler can be had, all of it is skipped, loudly, with exit code 0.
set -uo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

ios_demo/swift.sh swift --version >"$log" 2>&1
case $? in
0) cat "$log" ;;
3)
    echo "##############################################################################"
    echo "# SKIPPED: the tests of SamplerCore, and the check of the iOS app's types"
    echo "# $(tail -n 1 "$log")"
    echo "##############################################################################"
    echo "ios_demo: 0 passed, 0 failed, 1 skipped"
    exit 0
    ;;
*)
    cat "$log" >&2
    exit 1
    ;;
esac

ios_demo/swift.sh swift test --package-path ios_demo/SamplerCore --scratch-path "${TOOLS:-$root/.tools}/swift-build" \
    --disable-sandbox --disable-swift-testing -c release -Xswiftc -enable-testing 2>&1 | tee "$log" |
    grep -vE "^\[[0-9]+/|^Test (Suite|Case)|^\s+Executed"
status=${PIPESTATUS[0]}
passed=$(grep -cE "^Test Case .* passed \(" "$log")
failed=$(grep -cE "^Test Case .* failed \(" "$log")
skipped=$(grep -cE "^Test Case .* skipped \(" "$log")
if [ "$status" != 0 ] && [ "$failed" = 0 ]; then
    echo "swift test ended with status $status before its tests did" >&2
    failed=1
fi

for check in ios_demo/check_types.sh ios_demo/check_style.sh; do
    if $check; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
done

echo "ios_demo: $passed passed, $failed failed$([ "$skipped" = 0 ] || echo ", $skipped skipped")"
[ "$failed" = 0 ] && [ "$passed" -gt 2 ]
