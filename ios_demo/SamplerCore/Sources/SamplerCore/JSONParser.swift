extension JSON {
    /// The one value that the bytes hold. A key that an object has twice is reported only if all else is JSON.
    ///
    /// - Parameters:
    ///   - maxDepth: how deep brackets may nest.
    ///   - maxInteger: how many characters a number without fraction and exponent may have.
    public static func parse(
        _ bytes: some Collection<UInt8>, maxDepth: Int, maxInteger: Int = .max
    ) throws(JSONError) -> JSON {
        guard isUTF8(bytes) else { throw .notUTF8 }
        var parser = JSONParser(bytes: Array(bytes), maxDepth: maxDepth, maxInteger: maxInteger)
        let value = try parser.document()
        if let key = parser.repeated { throw .duplicateKey(key) }
        return value
    }

    /// Decoding repairs what is broken, so that bytes whose text has other bytes were not UTF-8.
    static func isUTF8(_ bytes: some Collection<UInt8>) -> Bool {
        String(decoding: bytes, as: UTF8.self).utf8.elementsEqual(bytes)
    }
}

/// Recursive descent over bytes that are known to be UTF-8.
private struct JSONParser {
    let bytes: [UInt8]
    let maxDepth: Int
    let maxInteger: Int
    var position = 0
    var depth = 0
    var repeated: String?

    init(bytes: [UInt8], maxDepth: Int, maxInteger: Int) {
        self.bytes = bytes
        self.maxDepth = maxDepth
        self.maxInteger = maxInteger
    }

    mutating func document() throws(JSONError) -> JSON {
        let value = try value()
        skipBlanks()
        if let byte = next { throw unexpected(byte) }
        return value
    }

    private mutating func value() throws(JSONError) -> JSON {
        skipBlanks()
        switch next {
        case UInt8(ascii: "{"): return try nested { (parser) throws(JSONError) in try parser.object() }
        case UInt8(ascii: "["): return try nested { (parser) throws(JSONError) in try parser.array() }
        case UInt8(ascii: "\""): return .string(try string())
        case UInt8(ascii: "t"): return try word("true", .boolean(true))
        case UInt8(ascii: "f"): return try word("false", .boolean(false))
        case UInt8(ascii: "n"): return try word("null", .null)
        default: return .number(try number())
        }
    }

    private mutating func nested(
        _ read: (inout JSONParser) throws(JSONError) -> JSON
    ) throws(JSONError) -> JSON {
        depth += 1
        guard depth <= maxDepth else { throw .notJSON("it nests deeper than \(maxDepth)") }
        position += 1
        let value = try read(&self)
        depth -= 1
        return value
    }

    private mutating func object() throws(JSONError) -> JSON {
        var members: [Key: JSON] = [:]
        skipBlanks()
        if take("}") { return .object(members) }
        repeat {
            skipBlanks()
            let key = try string()
            skipBlanks()
            try expect(":")
            if members.updateValue(try value(), forKey: Key(key)) != nil, repeated == nil { repeated = key }
            skipBlanks()
        } while take(",")
        try expect("}")
        return .object(members)
    }

    private mutating func array() throws(JSONError) -> JSON {
        var items: [JSON] = []
        skipBlanks()
        if take("]") { return .array(items) }
        repeat {
            items.append(try value())
            skipBlanks()
        } while take(",")
        try expect("]")
        return .array(items)
    }

    private mutating func string() throws(JSONError) -> String {
        try expect("\"")
        var text: [UInt8] = []
        while let byte = next {
            position += 1
            switch byte {
            case UInt8(ascii: "\""): return String(decoding: text, as: UTF8.self)
            case UInt8(ascii: "\\"): text.append(contentsOf: Array(String(try escape()).utf8))
            case 0..<0x20: throw .notJSON("a control character in a string at byte \(position - 1)")
            default: text.append(byte)
            }
        }
        throw .notJSON("a string without end")
    }

    private mutating func escape() throws(JSONError) -> Unicode.Scalar {
        guard let byte = next else { throw .notJSON("a string without end") }
        position += 1
        switch byte {
        case UInt8(ascii: "\""), UInt8(ascii: "\\"), UInt8(ascii: "/"): return Unicode.Scalar(byte)
        case UInt8(ascii: "b"): return "\u{8}"
        case UInt8(ascii: "f"): return "\u{c}"
        case UInt8(ascii: "n"): return "\n"
        case UInt8(ascii: "r"): return "\r"
        case UInt8(ascii: "t"): return "\t"
        case UInt8(ascii: "u"): return try codePoint()
        default: throw unexpected(byte)
        }
    }

    private mutating func codePoint() throws(JSONError) -> Unicode.Scalar {
        let first = try hexDigits()
        if let scalar = Unicode.Scalar(first) { return scalar }
        guard first < 0xdc00, take("\\"), take("u") else { throw .notJSON("a lone surrogate before byte \(position)") }
        let second = try hexDigits()
        guard (0xdc00..<0xe000).contains(second),
            let scalar = Unicode.Scalar(0x10000 + (first - 0xd800) << 10 + (second - 0xdc00))
        else { throw .notJSON("a lone surrogate before byte \(position)") }
        return scalar
    }

    private mutating func hexDigits() throws(JSONError) -> UInt32 {
        var number: UInt32 = 0
        for _ in 0..<4 {
            guard let byte = next, let digit = Character(Unicode.Scalar(byte)).hexDigitValue else {
                throw .notJSON("no four hexadecimal digits at byte \(position)")
            }
            number = number << 4 + UInt32(digit)
            position += 1
        }
        return number
    }

    private mutating func number() throws(JSONError) -> String {
        let start = position
        _ = take("-")
        if !take("0") { try digits() }
        let integerEnd = position
        if take(".") { try digits() }
        if take("e") || take("E") {
            _ = take("+") || take("-")
            try digits()
        }
        guard position > integerEnd || position - start <= maxInteger else {
            throw .notJSON("a whole number of more than \(maxInteger) characters at byte \(start)")
        }
        return String(decoding: bytes[start..<position], as: UTF8.self)
    }

    private mutating func digits() throws(JSONError) {
        guard let byte = next, isDigit(byte) else { throw unexpected(next) }
        while let byte = next, isDigit(byte) { position += 1 }
    }

    private mutating func word(_ word: StaticString, _ value: JSON) throws(JSONError) -> JSON {
        let end = position + word.utf8CodeUnitCount
        guard end <= bytes.count, bytes[position..<end].elementsEqual(word.description.utf8) else {
            throw unexpected(next)
        }
        position = end
        return value
    }

    private var next: UInt8? { position < bytes.count ? bytes[position] : nil }

    private mutating func skipBlanks() {
        while let byte = next, [0x20, 0x09, 0x0a, 0x0d].contains(byte) { position += 1 }
    }

    private mutating func take(_ scalar: Unicode.Scalar) -> Bool {
        guard next == UInt8(ascii: scalar) else { return false }
        position += 1
        return true
    }

    private mutating func expect(_ scalar: Unicode.Scalar) throws(JSONError) {
        guard take(scalar) else { throw unexpected(next) }
    }

    private func unexpected(_ byte: UInt8?) -> JSONError {
        guard let byte else { return .notJSON("it ends too early") }
        return .notJSON("byte \(byte) at \(position) is not what may stand there")
    }
}
