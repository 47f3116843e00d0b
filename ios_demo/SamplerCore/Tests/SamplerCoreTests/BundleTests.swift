import XCTest

@testable import SamplerCore

final class BundleTests: XCTestCase {
    func testEveryHostileBundleIsRefusedByName() throws {
        let entries = try Corpus.index("bundles")
        for entry in entries {
            let name = try entry.text("name")
            let folder = try TemporaryFolder()
            let url = try Corpus.bundle(in: folder, edits: XCTUnwrap(entry["edits"]?.array))
            if let error = entry["error"]?.string {
                XCTAssertThrowsError(try Bundle(url), name) {
                    XCTAssertEqual(($0 as? FormatError)?.name, error, "\(name): \($0)")
                }
            } else {
                XCTAssertNoThrow(try Bundle(url), name)
            }
        }
        print("bundles: \(entries.count) opened or refused by name")
    }

    func testAPartIsOpenedWithoutTheFilesOfOthers() throws {
        let folder = try TemporaryFolder()
        let url = try Corpus.bundle(in: folder)
        try FileManager.default.removeItem(at: url.appendingPathComponent("executorch"))
        XCTAssertThrowsError(try Bundle(url)) { XCTAssertEqual(($0 as? FormatError)?.name, "missing-file") }
        let bundle = try Bundle(url, target: "coreml")
        XCTAssertEqual(bundle.name, "golden — tiny")
        XCTAssertEqual(
            bundle.manifest.files(of: "coreml").map(\.path.text),
            [
                "coreml/correction.safetensors", "coreml/golden.safetensors",
                "coreml/unet.mlpackage/Data/weights.bin", "coreml/unet.mlpackage/Manifest.json",
            ])
        XCTAssertThrowsError(try Bundle(url, target: "tensorrt")) { error in
            XCTAssertEqual(
                (error as? UsageError)?.description, "golden — tiny has no tensorrt part; it has: coreml, executorch.")
        }
    }

    func testAnArtifactInTheFolderOfAnotherPartIsChecked() throws {
        let folder = try TemporaryFolder()
        let url = try Corpus.bundle(in: folder)
        let manifest = url.appendingPathComponent(Manifest.fileName)
        let text = try String(contentsOf: manifest, encoding: .utf8)
        try text.replacingOccurrences(
            of: #"artifact": "coreml/unet.mlpackage""#, with: #"artifact": "executorch/unet.pte""#
        )
        .write(to: manifest, atomically: true, encoding: .utf8)
        try FileManager.default.removeItem(at: url.appendingPathComponent("executorch/unet.pte"))
        XCTAssertThrowsError(try Bundle(url, target: "coreml")) {
            XCTAssertEqual(($0 as? FormatError)?.name, "missing-file")
        }
    }

    func testProgressGoesUpToAll() throws {
        let folder = try TemporaryFolder()
        var shares: [Double] = []
        _ = try Bundle(Corpus.bundle(in: folder)) { shares.append($0) }
        XCTAssertEqual(shares, shares.sorted())
        XCTAssertEqual(shares.count, 7)
        XCTAssertEqual(shares.last, 1)
    }
}
