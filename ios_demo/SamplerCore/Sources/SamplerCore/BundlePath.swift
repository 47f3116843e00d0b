/// A path of a manifest: relative, without control characters, within the bundle.
enum BundlePath {
    /// The names along the path, as they are.
    static func names(_ path: Key) -> [String] {
        let names = path.text.utf8.split(separator: UInt8(ascii: "/"), omittingEmptySubsequences: false)
        return names.map { String(Substring($0)) }
    }

    static func check(_ path: Key) throws {
        // A line break would make the lines of a folder's digest ambiguous.
        guard !path.text.unicodeScalars.contains(where: isControl) else {
            throw FormatError("bad-path", "the manifest names a file with characters that no file name here may have.")
        }
        let isPlain = !names(path).contains { ["", ".", ".."].contains($0) }
        guard isPlain, !path.text.utf8.contains(UInt8(ascii: "\\")) else {
            throw FormatError("bad-path", "the manifest names '\(path)', outside of the bundle or no plain path.")
        }
    }

    private static func isControl(_ scalar: Unicode.Scalar) -> Bool {
        [0x00...0x1f, 0x7f...0x9f, 0x2028...0x2029].contains { $0.contains(scalar.value) }
    }
}
