import Foundation
import XCTest

@testable import SamplerCore

/// A folder for one test, removed behind it.
final class TemporaryFolder {
    let url: URL

    init() throws {
        url = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try FileManager.default.createDirectory(at: url, withIntermediateDirectories: true)
    }

    deinit { try? FileManager.default.removeItem(at: url) }

    /// Everything below it, folders with a slash behind, sorted.
    func contents() throws -> [String] {
        try FileManager.default.subpathsOfDirectory(atPath: url.path).sorted()
    }
}

extension Corpus {
    /// A copy of the corpus's bundle, after edits in the words of tests/golden/README.md.
    static func bundle(in folder: TemporaryFolder, edits: [JSON] = []) throws -> URL {
        let copy = folder.url.appendingPathComponent("bundle")
        try FileManager.default.copyItem(at: root.appendingPathComponent("bundle"), to: copy)
        for edit in edits { try apply(edit, copy, outside: folder.url.appendingPathComponent("outside")) }
        return copy
    }

    private static func apply(_ edit: JSON, _ bundle: URL, outside: URL) throws {
        let files = FileManager.default
        let url = bundle.appendingPathComponent(try edit.text("file"))
        switch try edit.text("op") {
        case "splice":
            var bytes = try [UInt8](Data(contentsOf: url))
            let (at, count) = try (Int(edit.whole("at")), Int(edit.whole("remove")))
            bytes.replaceSubrange(at..<at + count, with: try content(edit))
            try Data(bytes).write(to: url)
        case "delete":
            try files.removeItem(at: url)
        case "add":
            try files.createDirectory(at: url.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data(content(edit)).write(to: url)
        case "pad":
            let data = try Data(contentsOf: url)
            try (data + Data(repeating: UInt8(ascii: " "), count: Int(edit.whole("bytes")) - data.count)).write(to: url)
        case "link":
            try files.createDirectory(at: outside, withIntermediateDirectories: true)
            let kept = outside.appendingPathComponent(url.lastPathComponent)
            try files.moveItem(at: url, to: kept)
            try files.createSymbolicLink(at: url, withDestinationURL: kept)
        case let other: throw UsageError("unknown edit \(other)")
        }
    }

    private static func content(_ edit: JSON) throws -> [UInt8] {
        if let text = edit["text"]?.string { return Array(text.utf8) }
        let digits = try edit.text("hex").compactMap(\.hexDigitValue)
        return stride(from: 0, to: digits.count, by: 2).map { UInt8(digits[$0] * 16 + digits[$0 + 1]) }
    }
}
