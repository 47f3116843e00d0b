import Foundation
import XCTest

@testable import SamplerCore

typealias Bundle = SamplerCore.Bundle  // not Foundation's

/// tests/golden, which the readers and loops of all languages share.
enum Corpus {
    static let root = URL(fileURLWithPath: #filePath).deletingLastPathComponent().appendingPathComponent(
        "../../../../tests/golden"
    ).standardizedFileURL
    static let docs = root.appendingPathComponent("../../docs").standardizedFileURL

    static func index(_ key: Key) throws -> [JSON] {
        let index = try JSON.parse(Data(contentsOf: root.appendingPathComponent("index.json")), maxDepth: 16)
        XCTAssertEqual(index["format"]?.integer, 1)
        let entries = try XCTUnwrap(index[key]?.array)
        XCTAssertFalse(entries.isEmpty)
        return entries
    }
}

extension JSON {
    func text(_ key: Key) throws -> String { try XCTUnwrap(self[key]?.string, "\(key) of \(self)") }

    func file(_ key: Key) throws -> URL { Corpus.root.appendingPathComponent(try text(key)) }

    /// A whole number; above 2^53 the corpus writes it as a string.
    func whole(_ key: Key) throws -> UInt64 {
        switch self[key] {
        case .number(let text), .string(let text): try XCTUnwrap(UInt64(text))
        default: throw UsageError("\(key) is no number in \(self)")
        }
    }
}

/// The bits of a tensor: equal bits, not equal numbers, are what the loops promise.
func bits(_ tensor: Tensor) -> [UInt32] { tensor.values.map(\.bitPattern) }
