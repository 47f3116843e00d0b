/// The members of a JSON object that must be there, each with its type. What is not so is refused by its full name.
struct Fields {
    let content: JSON
    let path: String

    init(_ content: JSON, path: String = "") {
        self.content = content
        self.path = path
    }

    func string(_ key: Key) throws -> String { try required(key, "a string", \.string) }
    func integer(_ key: Key) throws -> Int { try required(key, "a whole number", \.integer) }
    func number(_ key: Key) throws -> Double { try required(key, "a number", \.double) }
    func array(_ key: Key) throws -> [JSON] { try required(key, "a list", \.array) }
    func object(_ key: Key) throws -> [Key: JSON] { try required(key, "an object", \.object) }
    func fields(_ key: Key) throws -> Fields { Fields(.object(try object(key)), path: name(key)) }

    /// nil where the key is missing or null.
    func optional<Value>(_ key: Key, _ read: (Fields) throws -> Value) throws -> Value? {
        guard let value = content[key], value != .null else { return nil }
        return try read(Fields(.object([key: value]), path: path))
    }

    func strings(_ key: Key) throws -> [String] { try items(key, "strings", \.string) }

    func items<Value>(_ key: Key, _ what: String, _ read: (JSON) -> Value?) throws -> [Value] {
        let found = try array(key)
        let values = found.compactMap(read)
        guard values.count == found.count else { throw refused("\(name(key)) must be a list of \(what)") }
        return values
    }

    /// The numbers of an object, for people to read.
    func numbers(_ key: Key) throws -> [Key: Double] {
        try object(key).mapValues { value in
            guard let number = value.double else { throw refused("\(name(key)) must hold numbers only") }
            return number
        }
    }

    func name(_ key: Key) -> String { path.isEmpty ? key.text : "\(path).\(key)" }

    func refused(_ message: String) -> FormatError { FormatError("bad-manifest", "\(message).") }

    private func required<Value>(_ key: Key, _ what: String, _ read: (JSON) -> Value?) throws -> Value {
        guard let value = content[key], let result = read(value) else {
            throw refused("\(name(key)) is missing or not \(what)")
        }
        return result
    }
}
