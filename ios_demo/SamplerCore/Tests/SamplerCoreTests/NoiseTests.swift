import XCTest

@testable import SamplerCore

final class NoiseTests: XCTestCase {
    func testEveryNoiseVectorBitForBit() throws {
        let vectors = try Corpus.index("noise")
        for vector in vectors {
            let noise = try Noise(
                seed: vector.whole("seed"), stream: vector.whole("stream"), sample: vector.whole("sample"))
            let found = try noise.normals(word: vector.whole("step"), [Int(vector.whole("count"))])
            if let expected = vector["bits"]?.array {
                let hex = bits(found).map { String($0, radix: 16, uppercase: true) }
                XCTAssertEqual(hex, expected.compactMap(\.string), "\(vector)")
            } else {
                let bytes = bits(found).flatMap { word in (0..<4).map { UInt8(truncatingIfNeeded: word >> (8 * $0)) } }
                XCTAssertEqual(sha256(bytes), try vector.text("sha256"), "\(vector)")
            }
        }
        print("noise: \(vectors.count) vectors equal to the bit")
    }

    func testInitialAndStepNoiseAreTheirWordsOfTheCounter() {
        let noise = Noise(seed: 7)
        XCTAssertEqual(noise.initial([1, 1, 2, 2]), noise.normals(word: 0, [1, 1, 2, 2]))
        XCTAssertEqual(noise.step(4, [3]), noise.normals(word: 5, [3]))
    }
}
