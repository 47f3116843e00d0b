import XCTest

@testable import SamplerCore

final class BundleStoreTests: XCTestCase {
    func testInstallCopiesWhatTheTargetNeeds() throws {
        let (source, place) = try (TemporaryFolder(), TemporaryFolder())
        let store = try BundleStore(folder: place.url)
        var shares: [Double] = []
        let bundle = try store.install(from: Corpus.bundle(in: source), target: "coreml") { shares.append($0) }
        XCTAssertEqual(bundle.url.lastPathComponent, "bundle")
        XCTAssertEqual(try store.names(), ["bundle"])
        XCTAssertEqual(
            try place.contents(),
            [
                "bundle", "bundle/coreml", "bundle/coreml/correction.safetensors", "bundle/coreml/golden.safetensors",
                "bundle/coreml/unet.mlpackage", "bundle/coreml/unet.mlpackage/Data",
                "bundle/coreml/unet.mlpackage/Data/weights.bin", "bundle/coreml/unet.mlpackage/Manifest.json",
                "bundle/manifest.json",
            ])
        XCTAssertEqual(shares, shares.sorted())
        XCTAssertEqual(shares.last, 1)
        let file = try bundle.correctionFile(of: bundle.part("coreml"))
        XCTAssertEqual(try store.artifactDigests(target: "coreml"), [file.artifactSHA256])
        try store.remove("bundle")
        XCTAssertEqual(try place.contents(), [])
        XCTAssertThrowsError(try store.remove("../\(source.url.lastPathComponent)"))
        XCTAssertFalse(try source.contents().isEmpty)
    }

    /// A byte of what is copied is changed, one is missing, a file is missing: the old one stays.
    func testARefusedBundleNeverReplacesOneThatWorks() throws {
        let (good, place) = try (TemporaryFolder(), TemporaryFolder())
        let store = try BundleStore(folder: place.url)
        _ = try store.install(from: Corpus.bundle(in: good), target: "coreml")
        let before = try place.contents()
        for (change, name) in [("flip", "changed-file"), ("cut", "wrong-size"), ("delete", "missing-file")] {
            let bad = try TemporaryFolder()
            let url = try Corpus.bundle(in: bad)
            let weights = url.appendingPathComponent("coreml/unet.mlpackage/Data/weights.bin")
            var bytes = try [UInt8](Data(contentsOf: weights))
            switch change {
            case "flip": bytes[5] ^= 1
            case "cut": bytes.removeLast()
            default: break
            }
            try Data(bytes).write(to: weights)
            if change == "delete" { try FileManager.default.removeItem(at: weights) }
            XCTAssertThrowsError(try store.install(from: url, target: "coreml")) {
                XCTAssertEqual(($0 as? FormatError)?.name, name)
            }
            XCTAssertEqual(try place.contents(), before, change)
            XCTAssertNoThrow(try store.open("bundle", target: "coreml"), change)
        }
    }

    func testAnotherPartIsNotInstalled() throws {
        let (source, place) = try (TemporaryFolder(), TemporaryFolder())
        let store = try BundleStore(folder: place.url)
        XCTAssertThrowsError(try store.install(from: Corpus.bundle(in: source), target: "tensorrt"))
        XCTAssertEqual(try place.contents(), [])
    }

    func testACancelledInstallLeavesNothing() async throws {
        let (source, place) = try (TemporaryFolder(), TemporaryFolder())
        let (url, folder) = try (Corpus.bundle(in: source), place.url)
        let task = Task {
            let store = try BundleStore(folder: folder)
            _ = try store.install(from: url, target: "coreml") { share in
                if share > 0.3 { withUnsafeCurrentTask { $0?.cancel() } }
            }
        }
        do {
            try await task.value
            XCTFail("it must not end well")
        } catch is CancellationError {}
        XCTAssertEqual(try place.contents(), [])
    }

    /// As if the app was killed at each moment of a replacement.
    func testAnInterruptedInstallKeepsTheOldBundle() throws {
        let (source, place) = try (TemporaryFolder(), TemporaryFolder())
        _ = try BundleStore(folder: place.url).install(from: Corpus.bundle(in: source), target: "coreml")
        let before = try place.contents()
        let bundle = place.url.appendingPathComponent("bundle")
        let half = place.url.appendingPathComponent(".bundle.partial/coreml")
        let old = place.url.appendingPathComponent(".bundle.old")

        try FileManager.default.createDirectory(at: half, withIntermediateDirectories: true)  // while it copied
        XCTAssertNoThrow(try BundleStore(folder: place.url).open("bundle", target: "coreml"))
        XCTAssertEqual(try place.contents(), before)

        try FileManager.default.moveItem(at: bundle, to: old)  // between the two renames
        try FileManager.default.createDirectory(at: half, withIntermediateDirectories: true)
        XCTAssertNoThrow(try BundleStore(folder: place.url).open("bundle", target: "coreml"))
        XCTAssertEqual(try place.contents(), before)

        try FileManager.default.copyItem(at: bundle, to: old)  // before the old one was removed
        XCTAssertNoThrow(try BundleStore(folder: place.url).open("bundle", target: "coreml"))
        XCTAssertEqual(try place.contents(), before)
    }
}
