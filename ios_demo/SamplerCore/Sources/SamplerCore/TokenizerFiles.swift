import Foundation

extension Tokenizer {
    private static let maxBytes = 32 << 20

    /// Of the files that a bundle carries: vocab.json and merges.txt, or tokenizer.json.
    init(_ bundle: Bundle) throws {
        guard let text = bundle.manifest.text else { throw UsageError("\(bundle.name) has no text.") }
        let files = text.tokenizer.map { bundle.url.appendingPathComponent($0) }
        try self.init(files: files, length: text.maxLength, limit: text.vocabulary)
    }

    /// - Parameter limit: how many tokens the text encoder knows.
    init(files: [URL], length: Int, limit: Int) throws {
        let files = Dictionary(files.map { ($0.lastPathComponent, $0) }, uniquingKeysWith: { first, _ in first })
        let (vocabulary, merges) = try Self.tables(files)
        let known = min(limit, Tensor.largestInteger)
        guard let largest = vocabulary.values.max(), largest < known else {
            throw UsageError("the tokenizer has more tokens than the \(known) that the text encoder knows.")
        }
        try self.init(vocabulary: vocabulary, merges: merges, specials: Self.specials(files), length: length)
    }

    private static func tables(_ files: [String: URL]) throws -> ([Key: Int], [(String, String)]) {
        if let vocabulary = files["vocab.json"], let merges = files["merges.txt"] {
            let lines = String(decoding: try readFile(merges, atMost: maxBytes), as: UTF8.self)
                .split(whereSeparator: \.isNewline).filter { !$0.hasPrefix("#version") }
            return try (numbers(json(vocabulary)), lines.map { try pair(words($0)) })
        }
        guard let file = files["tokenizer.json"], let model = try json(file)["model"] else {
            throw UsageError("the bundle carries no tokenizer: it needs vocab.json and merges.txt, or tokenizer.json.")
        }
        let merges = try (model["merges"]?.array ?? []).map { merge in
            try pair(merge.string.map { words(Substring($0)) } ?? merge.array?.compactMap(\.string) ?? [])
        }
        return (try numbers(model["vocab"] ?? .null), merges)
    }

    /// The special tokens that the files name; tokenizer_config.json comes first.
    private static func specials(_ files: [String: URL]) throws -> [String: String] {
        var found: [String: String] = [:]
        for file in ["special_tokens_map.json", "tokenizer_config.json"].compactMap({ files[$0] }) {
            let content = try json(file)
            for name in ["bos_token", "eos_token", "unk_token", "pad_token"] {
                let token = content[Key(name)]
                if let text = token?.string ?? token?["content"]?.string { found[name] = text }
            }
        }
        return found
    }

    private static func json(_ url: URL) throws -> JSON {
        do {
            return try JSON.parse(readFile(url, atMost: maxBytes), maxDepth: 32)
        } catch let error as JSONError {
            throw UsageError("\(url.lastPathComponent) of the tokenizer is not JSON (\(error)).")
        }
    }

    private static func numbers(_ value: JSON) throws -> [Key: Int] {
        guard let members = value.object else { throw UsageError("the vocabulary of the tokenizer is no object.") }
        return try members.mapValues { value in
            guard let number = value.size else { throw UsageError("the vocabulary of the tokenizer holds \(value).") }
            return number
        }
    }

    private static func words(_ line: Substring) -> [String] { line.split(separator: " ").map(String.init) }

    private static func pair(_ tokens: [String]) throws -> (String, String) {
        guard tokens.count == 2 else { throw UsageError("a merge of the tokenizer is \(tokens), not two tokens.") }
        return (tokens[0], tokens[1])
    }
}
