/// A JSON value as RFC 8259 has it. Numbers stay text until somebody says what they must be.
public enum JSON: Equatable, Sendable {
    case null
    case boolean(Bool)
    case number(String)
    case string(String)
    case array([JSON])
    case object([Key: JSON])
}

/// Why bytes are not the JSON that was asked for.
public enum JSONError: Error, Equatable {
    case notUTF8
    case notJSON(String)
    case duplicateKey(String)
}

extension JSON {
    public subscript(key: Key) -> JSON? {
        if case .object(let members) = self { members[key] } else { nil }
    }

    public var object: [Key: JSON]? {
        if case .object(let members) = self { members } else { nil }
    }

    public var array: [JSON]? {
        if case .array(let items) = self { items } else { nil }
    }

    public var string: String? {
        if case .string(let text) = self { text } else { nil }
    }

    /// A number of 1 to 15 digits, without sign, fraction and exponent: exact in every language.
    public var size: Int? {
        guard case .number(let text) = self, text.utf8.count <= 15, text.utf8.allSatisfy(isDigit) else { return nil }
        return Int(text)
    }

    /// A number without fraction and exponent that fits into 64 bits.
    public var integer: Int? {
        guard case .number(let text) = self else { return nil }
        return Int(text)
    }

    /// Any number that is finite as a double.
    public var double: Double? {
        guard case .number(let text) = self, let value = Double(text), value.isFinite else { return nil }
        return value
    }
}

func isDigit(_ byte: UInt8) -> Bool { byte >= UInt8(ascii: "0") && byte <= UInt8(ascii: "9") }
