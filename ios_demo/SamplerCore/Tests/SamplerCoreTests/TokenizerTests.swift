import XCTest

@testable import SamplerCore

/// What transformers' CLIPTokenizer gave: tests/ios_demo/make_tokenizer_cases.py.
final class TokenizerTests: XCTestCase {
    private let cases = Result {
        let url = Corpus.root.appendingPathComponent("../ios_demo/tokenizer_cases.json").standardizedFileURL
        return try JSON.parse(Data(contentsOf: url), maxDepth: 8)
    }

    func testEveryPromptGivesTheNumbersOfTransformers() throws {
        let prompts = try prompts()
        for entry in try XCTUnwrap(cases.get()["tokenizers"]?.array) {
            let tokenizer = try tokenizer(specials: XCTUnwrap(entry["specials"]?.object))
            for (prompt, ids) in try zip(prompts, XCTUnwrap(entry["ids"]?.array)) {
                XCTAssertEqual(tokenizer.ids(prompt), ids.array?.compactMap(\.size), "'\(prompt)'")
            }
        }
        print("tokenizer: \(prompts.count) prompts as transformers has them")
    }

    func testTheFilesOfABundle() throws {
        let folder = try TemporaryFolder()
        func write(_ name: String, _ text: String) throws -> URL {
            let url = folder.url.appendingPathComponent(name)
            try text.write(to: url, atomically: true, encoding: .utf8)
            return url
        }
        let content = try cases.get()
        let words = try XCTUnwrap(content["vocabulary"]?.object).map {
            "\(quoted($0.key.text)): \($0.value.size ?? -1)"
        }
        let vocabulary = "{\(words.joined(separator: ", "))}"
        let pairs = try XCTUnwrap(content["merges"]?.array).map { $0.array?.compactMap(\.string) ?? [] }
        let config = #"{"pad_token": {"content": "!", "lstrip": false}, "bos_token": "<|startoftext|>"}"#
        let lines = "#version: 0.2\n" + pairs.map { "\($0[0]) \($0[1])\n" }.joined()
        let strings = pairs.map { quoted("\($0[0]) \($0[1])") }.joined(separator: ", ")
        let files = try [
            write("vocab.json", vocabulary), write("merges.txt", lines), write("tokenizer_config.json", config),
        ]
        let whole = try write("tokenizer.json", "{\"model\": {\"vocab\": \(vocabulary), \"merges\": [\(strings)]}}")
        let expected = try tokenizer(specials: ["pad_token": .string("!")])
        for files in [files, [whole, files[2]]] {
            let found = try Tokenizer(files: files, length: 20, limit: 600)
            for prompt in try prompts() { XCTAssertEqual(found.ids(prompt), expected.ids(prompt), "'\(prompt)'") }
        }
        XCTAssertThrowsError(try Tokenizer(files: files, length: 20, limit: 100)) { error in
            XCTAssertEqual(
                "\(error)", "the tokenizer has more tokens than the 100 that the text encoder knows.")
        }
        for length in [1, 4097] { XCTAssertThrowsError(try Tokenizer(files: files, length: length, limit: 600)) }
        XCTAssertThrowsError(try Tokenizer(files: [files[0]], length: 20, limit: 600)) { error in
            XCTAssertTrue("\(error)".contains("carries no tokenizer"), "\(error)")
        }
    }

    private func prompts() throws -> [String] { try XCTUnwrap(cases.get()["prompts"]?.array).compactMap(\.string) }

    private func tokenizer(specials: [Key: JSON]) throws -> Tokenizer {
        let content = try cases.get()
        return try Tokenizer(
            vocabulary: XCTUnwrap(content["vocabulary"]?.object).compactMapValues(\.size),
            merges: XCTUnwrap(content["merges"]?.array).map { pair in
                try (XCTUnwrap(pair.array?[0].string), XCTUnwrap(pair.array?[1].string))
            },
            specials: Dictionary(
                uniqueKeysWithValues: specials.compactMap { name, token in
                    token.string.map { (name.text, $0) }
                }),
            length: XCTUnwrap(content["length"]?.size))
    }

    private func quoted(_ text: String) -> String {
        "\"" + text.map { "\"\\".contains($0) ? "\\\($0)" : "\($0)" }.joined() + "\""
    }
}
