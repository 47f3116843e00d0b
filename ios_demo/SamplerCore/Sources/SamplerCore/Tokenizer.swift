import Foundation

/// Prompts to token numbers, as transformers' CLIPTokenizer does: lower case, words, byte-pair merges (Sennrich et al.,
/// arXiv 1508.07909, on bytes).
public struct Tokenizer: Sendable {
    public static let maxLength = 4096

    /// start, words, end, padding: as many as the text encoder takes.
    public let length: Int

    private let vocabulary: [Key: Int]
    private let ranks: [Pair: Int]  // earlier merges first
    private let merged: [Pair: Int]
    private let special: [String: Int]
    private let start: Int
    private let end: Int
    private let unknown: Int
    private let padding: Int

    private struct Pair: Hashable, Sendable {
        let left: Int
        let right: Int
    }

    /// - Parameters:
    ///   - merges: pairs of tokens, those to be merged first first.
    ///   - specials: `bos_token`, `eos_token`, `unk_token`, `pad_token`; those missing are CLIP's.
    public init(vocabulary: [Key: Int], merges: [(String, String)], specials: [String: String], length: Int) throws {
        func number(_ token: String) throws -> Int {
            guard let number = vocabulary[Key(token)] else {
                throw UsageError("the tokenizer has no number for '\(token)'.")
            }
            return number
        }
        let names = ["bos_token": "<|startoftext|>"].merging(specials) { $1 }
        func special(_ name: String) throws -> Int { try number(names[name] ?? "<|endoftext|>") }
        start = try special("bos_token")
        end = try special("eos_token")
        unknown = try special("unk_token")
        padding = try special("pad_token")
        self.special = try Dictionary(
            ["bos_token", "eos_token", "unk_token", "pad_token"].map { name in
                (names[name] ?? "<|endoftext|>", try special(name))
            }, uniquingKeysWith: { first, _ in first })
        var (ranks, merged): ([Pair: Int], [Pair: Int]) = ([:], [:])
        for (rank, (left, right)) in merges.enumerated() {
            let pair = try Pair(left: number(left), right: number(right))
            guard ranks[pair] == nil else { continue }
            ranks[pair] = rank
            merged[pair] = try number(left + right)
        }
        guard (2...Self.maxLength).contains(length) else {
            throw UsageError("a prompt has 2 to \(Self.maxLength) tokens, got \(length).")
        }
        (self.ranks, self.merged, self.vocabulary, self.length) = (ranks, merged, vocabulary, length)
    }

    /// What does not fit is cut.
    public func ids(_ prompt: String) -> [Int] {
        let words = pieces(prompt).flatMap(tokens)
        let ids = [start] + words.prefix(length - 2) + [end]
        return ids + [Int](repeating: padding, count: length - ids.count)
    }

    private enum Piece {
        case special(Int)
        case word(String)
    }

    private func pieces(_ prompt: String) -> [Piece] {
        var pieces: [Piece] = []
        var rest = Substring(prompt)
        while let (range, number) = firstSpecial(rest) {
            pieces += Words.split(String(rest[..<range.lowerBound])).map(Piece.word)
            pieces.append(.special(number))
            rest = rest[range.upperBound...]
        }
        return pieces + Words.split(String(rest)).map(Piece.word)
    }

    private func firstSpecial(_ text: Substring) -> (Range<Substring.Index>, Int)? {
        special.compactMap { token, number in text.range(of: token, options: .literal).map { ($0, number) } }
            .min { ($0.0.lowerBound, $1.0.upperBound) < ($1.0.lowerBound, $0.0.upperBound) }
    }

    private func tokens(_ piece: Piece) -> [Int] {
        guard case .word(let word) = piece else {
            if case .special(let number) = piece { return [number] }
            return []
        }
        let letters = word.utf8.map { String(Self.letters[Int($0)]) }
        var symbols = letters.enumerated().map { index, letter in
            vocabulary[Key(index == letters.count - 1 ? letter + "</w>" : letter)] ?? unknown
        }
        while let pair = zip(symbols, symbols.dropFirst()).map(Pair.init).filter({ ranks[$0] != nil })
            .min(by: { (ranks[$0] ?? 0) < (ranks[$1] ?? 0) }), let number = merged[pair]
        {
            var index = 0
            while index + 1 < symbols.count {
                if Pair(left: symbols[index], right: symbols[index + 1]) == pair {
                    symbols.replaceSubrange(index...index + 1, with: [number])
                }
                index += 1
            }
        }
        return symbols
    }

    /// A printable letter for each byte: itself, or the next free one from U+0100.
    private static let letters: [Unicode.Scalar] = {
        var free: UInt32 = 0x100
        return (0...255).map { byte in
            if (33...126).contains(byte) || (161...172).contains(byte) || byte >= 174 {
                return Unicode.Scalar(UInt8(byte))
            }
            defer { free += 1 }
            return Unicode.Scalar(free) ?? "?"
        }
    }()
}

/// Text in lower case as words: runs of letters, single digits, runs of anything else but blanks, English endings.
enum Words {
    private static let endings = ["'s", "'t", "'re", "'ve", "'m", "'ll", "'d"].map { Array($0.unicodeScalars) }

    static func split(_ text: String) -> [String] {
        let scalars = text.precomposedStringWithCanonicalMapping.unicodeScalars
            .flatMap { $0.properties.lowercaseMapping.unicodeScalars }
        var words: [String] = []
        var position = 0
        while position < scalars.count {
            let rest = scalars[position...]
            let length = endings.first { rest.starts(with: $0) }?.count ?? run(rest)
            if kind(rest[position]) != .blank { words.append(joined(rest.prefix(length))) }
            position += length
        }
        return words
    }

    private enum Kind { case blank, letter, digit, other }

    private static func run(_ scalars: ArraySlice<Unicode.Scalar>) -> Int {
        let first = kind(scalars[scalars.startIndex])
        return first == .digit ? 1 : scalars.prefix { kind($0) == first }.count
    }

    private static func joined(_ scalars: ArraySlice<Unicode.Scalar>) -> String {
        var view = String.UnicodeScalarView()
        view.append(contentsOf: scalars)
        return String(view)
    }

    private static func kind(_ scalar: Unicode.Scalar) -> Kind {
        if scalar.properties.isWhitespace { return .blank }
        switch scalar.properties.generalCategory {
        case .uppercaseLetter, .lowercaseLetter, .titlecaseLetter, .modifierLetter, .otherLetter: return .letter
        case .decimalNumber, .letterNumber, .otherNumber: return .digit
        default: return .other
        }
    }
}
