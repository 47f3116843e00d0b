#!/usr/bin/env bash
# Checks the types of App/ against SamplerCore and the stubs of Apple's modules. Says nothing about Apple's SDK.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
work=${TOOLS:-$root/.tools}/swift-types
rm -rf "$work"
mkdir -p "$work"
cd "$root"

module() {
    ios_demo/swift.sh swiftc -emit-module -module-name "$1" -I "$work" -o "$work/$1.swiftmodule" "${@:2}"
}
for name in CoreGraphics UniformTypeIdentifiers CoreML UIKit SwiftUI; do
    module "$name" -swift-version 5 -suppress-warnings -parse-as-library "ios_demo/stubs/$name.swift"
done
module SamplerCore -swift-version 6 ios_demo/SamplerCore/Sources/SamplerCore/*.swift
for version in 5 6; do
    ios_demo/swift.sh swiftc -typecheck -parse-as-library -swift-version "$version" -warnings-as-errors -I "$work" \
        ios_demo/App/*.swift
done
echo "ios_demo/App: the types of $(ls ios_demo/App/*.swift | wc -l) files fit SamplerCore and the stubs"
