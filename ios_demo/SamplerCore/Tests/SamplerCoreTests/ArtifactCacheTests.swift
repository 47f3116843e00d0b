import XCTest

@testable import SamplerCore

final class ArtifactCacheTests: XCTestCase {
    private let digests = [String(repeating: "a", count: 64), String(repeating: "b", count: 64)]

    func testAnArtifactIsPreparedOnce() async throws {
        let (place, work) = try (TemporaryFolder(), TemporaryFolder())
        let cache = try ArtifactCache(folder: place.url)
        var calls = 0
        func prepared(_ digest: String, _ package: String) async throws -> String {
            let url = try await cache.prepared(digest: digest, package: package) {
                calls += 1
                let made = work.url.appendingPathComponent("made-\(calls)")
                try Data("\(calls)".utf8).write(to: made)
                return made
            }
            return try String(contentsOf: url, encoding: .utf8)
        }
        var found: [String] = []
        for (digest, package) in [(0, "unet-1"), (0, "unet-1"), (0, "unet-2"), (1, "unet-1"), (0, "unet-1")] {
            found.append(try await prepared(digests[digest], package))
        }
        XCTAssertEqual(found, ["1", "1", "2", "3", "1"])
        XCTAssertEqual(try work.contents(), [])
        try cache.keepOnly([digests[1]])
        XCTAssertEqual(try place.contents(), [digests[1], "\(digests[1])/unet-1"])
        try cache.remove(digest: digests[1])
        XCTAssertEqual(try place.contents(), [])
    }

    func testAFailedPreparationLeavesNothing() async throws {
        let place = try TemporaryFolder()
        let cache = try ArtifactCache(folder: place.url)
        for digest in [digests[0], "../elsewhere"] {
            do {
                _ = try await cache.prepared(digest: digest, package: "unet") { throw UsageError("no space") }
                XCTFail("it must not end well")
            } catch is UsageError {}
            XCTAssertEqual(try place.contents(), [])
        }
    }
}
