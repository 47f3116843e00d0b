import XCTest

@testable import SamplerCore

/// Expected values: `printf ... | sha256sum`, and the examples of FIPS 180-4.
final class SHA256Tests: XCTestCase {
    private let expected: [([UInt8], String)] = [
        ([], "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
        (Array("abc".utf8), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"),
        (
            Array("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq".utf8),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
        ),
        ([UInt8](repeating: 97, count: 1_000_000), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"),
    ]

    func testKnownDigests() {
        for (bytes, digest) in expected {
            XCTAssertEqual(sha256(bytes), digest)
            var portable = PortableSHA256()
            portable.update(bytes)
            XCTAssertEqual(hexadecimal(portable.digest()), digest)
        }
    }

    func testAnyCutGivesTheSameDigest() {
        let bytes = (0..<200).map { UInt8($0) }
        for length in [55, 56, 63, 64, 65, 119, 120, 128, 200] {
            let whole = sha256(Array(bytes.prefix(length)))
            for cut in 0...length {
                var hash = PortableSHA256()
                hash.update(Array(bytes[..<cut]))
                hash.update(Array(bytes[cut..<length]))
                XCTAssertEqual(hexadecimal(hash.digest()), whole, "\(length) bytes cut at \(cut)")
            }
        }
    }

    func testAFileOfSeveralPieces() throws {
        let folder = try TemporaryFolder()
        let url = folder.url.appendingPathComponent("a")
        let bytes = (0..<(3 << 20) + 17).map { UInt8(truncatingIfNeeded: $0 &* 31) }
        try Data(bytes).write(to: url)
        XCTAssertEqual(try sha256(url), sha256(bytes))
    }
}
