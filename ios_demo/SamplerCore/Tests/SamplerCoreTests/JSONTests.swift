import XCTest

@testable import SamplerCore

final class JSONTests: XCTestCase {
    func testValues() throws {
        let text = #" {"a": [1, -2.5e+3, true, false, null], "é\n\"\u00e9\ud83e\udd8a/": "x", "": {}} "#
        let value = try parse(text)
        XCTAssertEqual(
            value["a"], .array([.number("1"), .number("-2.5e+3"), .boolean(true), .boolean(false), .null]))
        XCTAssertEqual(value["é\n\"é🦊/"], .string("x"))
        XCTAssertEqual(value[""], .object([:]))
        XCTAssertEqual(value["a"]?.array?[1].double, -2500)
        XCTAssertNil(value["a"]?.array?[1].integer)
    }

    func testEquivalentKeysAreTwoKeys() throws {
        let value = try parse("{\"\u{e9}\": 1, \"e\u{301}\": 2}")
        XCTAssertEqual(value["\u{e9}"]?.size, 1)
        XCTAssertEqual(value["e\u{301}"]?.size, 2)
    }

    func testSizesHaveFifteenDigitsAndNoSign() {
        XCTAssertEqual(JSON.number("999999999999999").size, 999_999_999_999_999)
        for text in ["1000000000000000", "-0", "-1", "1.0", "1e2"] { XCTAssertNil(JSON.number(text).size, text) }
        XCTAssertEqual(JSON.number("-9223372036854775808").integer, .min)
        XCTAssertNil(JSON.number("9223372036854775808").integer)
        XCTAssertNil(JSON.number("1e999").double)
    }

    func testADuplicateKeyIsReportedOnlyOfJSON() {
        XCTAssertThrowsError(try parse(#"{"a": 1, "a": 2}"#)) { XCTAssertEqual($0 as? JSONError, .duplicateKey("a")) }
        XCTAssertThrowsError(try parse(#"{"a": 1, "a": 2"#)) {
            XCTAssertEqual($0 as? JSONError, .notJSON("it ends too early"))
        }
    }

    private func parse(_ text: String) throws -> JSON { try JSON.parse(Array(text.utf8), maxDepth: 4) }
}
