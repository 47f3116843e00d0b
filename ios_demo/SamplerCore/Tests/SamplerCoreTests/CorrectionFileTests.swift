import XCTest

@testable import SamplerCore

final class CorrectionFileTests: XCTestCase {
    func testEveryHostileFileIsRefusedByName() throws {
        let files = try Corpus.index("hostile")
        for entry in files {
            let name = try entry.text("name")
            let (url, made) = try entry["make"].map { (try large($0), true) } ?? (entry.file("file"), false)
            defer { if made { try? FileManager.default.removeItem(at: url) } }
            let artifact = entry["artifact_sha256"]?.string
            XCTAssertThrowsError(try CorrectionFile(url, artifactSHA256: artifact), name) { error in
                XCTAssertEqual((error as? FormatError)?.name, try? entry.text("error"), "\(name): \(error)")
            }
        }
        print("hostile: \(files.count) files refused by name")
    }

    /// A file too large for the corpus: the length of a header, and blanks.
    private func large(_ make: JSON) throws -> URL {
        let length = try make.whole("header_length")
        var data = Data((0..<8).map { UInt8(truncatingIfNeeded: length >> (8 * $0)) })
        data.append(Data(repeating: UInt8(ascii: " "), count: Int(try make.whole("bytes")) - 8))
        let url = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        try data.write(to: url)
        return url
    }

    func testEveryTruncationIsCalledTruncated() throws {
        let valid = try validBytes()
        XCTAssertNoThrow(try CorrectionFile(bytes: valid))
        for length in 0..<valid.count {
            XCTAssertThrowsError(try CorrectionFile(bytes: Array(valid.prefix(length)))) { error in
                XCTAssertEqual((error as? FormatError)?.name, "truncated", "\(length) bytes")
            }
        }
    }

    func testTheDigestOfTheArtifactIsComparedInLowerCase() throws {
        let entry = try Corpus.index("cases")[0]
        let digest = try entry.text("artifact_sha256")
        let file = try CorrectionFile(entry.file("correction"), artifactSHA256: digest.uppercased())
        XCTAssertEqual(file.artifactSHA256, digest)
        XCTAssertThrowsError(
            try CorrectionFile(entry.file("correction"), artifactSHA256: String(repeating: "0", count: 64))
        ) { error in
            XCTAssertEqual((error as? FormatError)?.name, "other-artifact")
        }
    }

    /// A quarter of all bits, one flipped at a time: a named error or a file with finite numbers, never a crash.
    func testFlippedBitsAreRefusedByTypeOrReadAsValid() throws {
        let valid = try validBytes()
        var refused = 0
        for position in stride(from: 0, to: 8 * valid.count, by: 4) {
            var bytes = valid
            bytes[position / 8] ^= 1 << (position % 8)
            do {
                let file = try CorrectionFile(bytes: bytes)
                XCTAssertTrue(file.plan.w.joined().allSatisfy(\.isFinite))
                XCTAssertTrue(file.correction.outputGain.joined().allSatisfy(Correction.gains.contains))
            } catch is FormatError {
                refused += 1
            }
        }
        XCTAssertGreaterThan(refused, valid.count / 4)
    }

    private func validBytes() throws -> [UInt8] {
        try [UInt8](Data(contentsOf: Corpus.index("cases")[0].file("correction")))
    }
}
