#!/usr/bin/env bash
# Checks the style of all Swift files; with --fix, rewrites them in it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

command=(lint --strict)
[ "${1:-}" = --fix ] && command=(format --in-place)
ios_demo/swift.sh swift format "${command[@]}" --configuration ios_demo/.swift-format --recursive \
    ios_demo/SamplerCore/{Package.swift,Sources,Tests} ios_demo/App ios_demo/stubs
echo "ios_demo: the style of the Swift files is checked"
