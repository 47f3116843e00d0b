#!/usr/bin/env bash
# Tests the ExecuTorch runtime for ARM on emulated processors. The last line has the counts.
#
# PYTHON names an interpreter with the exporter, pytest and pip. What cannot be had on this machine is skipped, loudly,
# with exit code 0.
set -uo pipefail

cd "$(dirname "${BASH_SOURCE[0]}")/../.."
export PYTHON=${PYTHON:-python3} OMP_NUM_THREADS=1
log=$(mktemp)
trap 'rm -f "$log"' EXIT

android_demo/arm/toolchain.sh 2>&1 | tee "$log"
case ${PIPESTATUS[0]} in
0) ;;
3)
    echo "##############################################################################"
    echo "# SKIPPED: the ExecuTorch runtime on emulated ARM processors"
    echo "# $(tail -n 1 "$log")"
    echo "##############################################################################"
    echo "test-arm: 0 passed, 0 failed, 1 skipped"
    exit 0
    ;;
*)
    echo "test-arm: 0 passed, 1 failed"
    exit 1
    ;;
esac

# A busy machine takes minutes for what an idle one does in seconds.
"$PYTHON" -m pytest android_demo/arm --timeout 1800 --disable-warnings --show-capture no "$@" 2>&1 | tee "$log"
status=${PIPESTATUS[0]}
# Errors of fixtures count as failures; without a count of its own, a run that broke off is one.
count() { tail -n 1 "$log" | grep -oE "[0-9]+ $1" | grep -oE "^[0-9]+" || echo 0; }
failed=$(($(count failed) + $(count error)))
[ "$status" = 0 ] || [ "$failed" != 0 ] || failed=1
echo "test-arm: $(count passed) passed, $failed failed"
[ "$failed" = 0 ]
