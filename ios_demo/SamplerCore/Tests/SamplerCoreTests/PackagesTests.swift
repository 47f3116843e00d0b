import XCTest

@testable import SamplerCore

final class PackagesTests: XCTestCase {
    func testChunksAreInTheOrderOfTheirNumbers() throws {
        let manifest = try manifest(chunks: (1...11).map { "unet-\($0).mlpackage" })
        XCTAssertEqual(
            try manifest.packages(of: "coreml/unet.chunks"),
            (1...11).map { "coreml/unet.chunks/unet-\($0).mlpackage" })
        XCTAssertEqual(try manifest.packages(of: "coreml/unet.mlpackage"), ["coreml/unet.mlpackage"])
    }

    func testAMissingOrFurtherChunkIsRefused() throws {
        for chunks in [["unet-2.mlpackage"], ["unet-1.mlpackage", "unet-3.mlpackage"], ["unet-1.mlpackage", "notes"]] {
            XCTAssertThrowsError(try manifest(chunks: chunks).packages(of: "coreml/unet.chunks")) {
                XCTAssertTrue($0 is UsageError, "\($0)")
            }
        }
    }

    /// The corpus's manifest with a folder of chunks beside its package.
    private func manifest(chunks: [String]) throws -> Manifest {
        let url = Corpus.root.appendingPathComponent("bundle/manifest.json")
        let text = try String(contentsOf: url, encoding: .utf8)
        let files = chunks.map { "\"coreml/unet.chunks/\($0)/Manifest.json\": {\"bytes\": 1, \"sha256\": \"\"}," }
        let start = try XCTUnwrap(text.range(of: "\"files\": {"))
        return try Manifest(
            bytes: Array(text.replacingCharacters(in: start, with: "\"files\": {" + files.joined()).utf8))
    }
}
