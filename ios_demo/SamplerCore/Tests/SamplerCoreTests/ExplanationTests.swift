import XCTest

@testable import SamplerCore

final class ExplanationTests: XCTestCase {
    func testEveryNameOfTheFormatsHasAnExplanation() throws {
        for (page, heading) in [
            ("correction-format.md", "## Order of checks"),
            ("bundle-format.md", "## What a reader checks, in this order"),
        ] {
            let text = try String(contentsOf: Corpus.docs.appendingPathComponent(page), encoding: .utf8)
            let table = try XCTUnwrap(text.components(separatedBy: heading).dropFirst().first, page)
                .components(separatedBy: "\n## ")[0]
            let names = table.split(separator: "\n").filter { $0.hasPrefix("| `") }
                .flatMap { $0.split(separator: "|")[0].split(separator: "`").filter { $0.first?.isLetter == true } }
            XCTAssertGreaterThan(names.count, 10, page)
            for name in names { XCTAssertNotNil(FormatError.explanations[String(name)], "\(name) of \(page)") }
        }
    }

    func testAnExplanationSaysWhatToDoAndKeepsTheName() {
        let text = explanation(of: FormatError("changed-file", "coreml/golden.safetensors was changed."))
        XCTAssertEqual(
            text,
            "A file of this bundle is incomplete or was changed after the export. Copy the folder again.\n\n"
                + "changed-file: coreml/golden.safetensors was changed.")
        XCTAssertEqual(explanation(of: UsageError("there is no bundle 'x'.")), "There is no bundle 'x'.")
        let infinite = explanation(of: NonFiniteError(stage: "sample", step: 3))
        XCTAssertTrue(infinite.hasSuffix("sample holds NaN or infinity at step 3."), infinite)
    }
}
