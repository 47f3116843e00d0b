import Foundation

/// The safetensors container, read without trust: a length, a JSON header, the payload.
struct Safetensors {
    /// One tensor of the header: its dtype, shape, and the bytes `begin ..< end` of the payload.
    struct Entry {
        let dtype: String
        let shape: [Int]
        let begin: Int
        let end: Int
    }

    static let maxHeader = 1 << 20
    static let maxDepth = 4  // header > tensor > shape is 3

    let metadata: [Key: String]
    let entries: [Key: Entry]
    let payload: ArraySlice<UInt8>

    /// `checkVersion` sees the metadata before the tensors are looked at, since another version may describe them
    /// in another way.
    init(_ bytes: [UInt8], checkVersion: ([Key: String]) throws -> Void = { _ in }) throws {
        guard bytes.count >= 8 else {
            throw FormatError("truncated", "a file has at least 8 bytes, got \(bytes.count).")
        }
        let length = bytes[0..<8].reversed().reduce(UInt64(0)) { $0 << 8 | UInt64($1) }
        guard length <= Self.maxHeader else {
            throw FormatError("header-too-large", "at most \(Self.maxHeader) bytes, the file says \(length).")
        }
        guard 8 + Int(length) <= bytes.count else {
            throw FormatError("truncated", "the header needs \(length) bytes, \(bytes.count - 8) are there.")
        }
        var header = try Self.header(bytes[8..<8 + Int(length)])
        metadata = try Self.metadata(header.removeValue(forKey: "__metadata__"))
        try checkVersion(metadata)
        var entries: [Key: Entry] = [:]
        for (name, value) in header.sorted(by: { $0.key < $1.key }) { entries[name] = try Self.entry(name, value) }
        self.entries = entries
        payload = bytes[(8 + Int(length))...]
    }

    /// The tensors tile the payload exactly: no hole, no overlap, nothing behind.
    func checkCoverage() throws {
        var reached = 0
        for entry in entries.values.sorted(by: { ($0.begin, $0.end) < ($1.begin, $1.end) }) {
            guard entry.begin >= reached else {
                throw FormatError("overlapping-tensors", "a tensor begins at \(entry.begin), before \(reached).")
            }
            guard entry.begin == reached else {
                throw FormatError("gap", "bytes \(reached)..\(entry.begin) belong to no tensor.")
            }
            reached = entry.end
        }
        guard reached <= payload.count else {
            throw FormatError("truncated", "the tensors need \(reached) bytes, \(payload.count) are there.")
        }
        guard reached == payload.count else {
            throw FormatError("trailing-bytes", "\(payload.count - reached) bytes follow the last tensor.")
        }
    }

    /// The float32 numbers of an entry whose size and place were checked.
    func floats(_ entry: Entry) -> [Float] {
        payload.withUnsafeBytes { payload in
            stride(from: entry.begin, to: entry.end, by: 4).map { offset in
                Float(bitPattern: UInt32(littleEndian: payload.loadUnaligned(fromByteOffset: offset, as: UInt32.self)))
            }
        }
    }

    func integers<Integer: FixedWidthInteger>(_ entry: Entry, _: Integer.Type) -> [Int64] {
        payload.withUnsafeBytes { payload in
            stride(from: entry.begin, to: entry.end, by: MemoryLayout<Integer>.size).map { offset in
                Int64(Integer(littleEndian: payload.loadUnaligned(fromByteOffset: offset, as: Integer.self)))
            }
        }
    }

    private static func header(_ bytes: ArraySlice<UInt8>) throws -> [Key: JSON] {
        do {
            guard JSON.isUTF8(bytes) else { throw JSONError.notUTF8 }
            guard bytes.first == UInt8(ascii: "{") else { throw JSONError.notJSON("it must begin with '{'") }
            return try JSON.parse(bytes, maxDepth: maxDepth).object ?? [:]
        } catch JSONError.notUTF8 {
            throw FormatError("not-utf8", "the header is not UTF-8.")
        } catch JSONError.notJSON(let reason) {
            throw FormatError("not-json", "the header is not JSON: \(reason).")
        } catch JSONError.duplicateKey(let key) {
            throw FormatError("duplicate-key", "the header names '\(key)' twice.")
        }
    }

    private static func metadata(_ value: JSON?) throws -> [Key: String] {
        guard let members = (value ?? .object([:])).object else {
            throw FormatError("bad-header", "__metadata__ must be an object of strings.")
        }
        return try members.mapValues { value in
            guard let text = value.string else {
                throw FormatError("bad-header", "__metadata__ must be an object of strings.")
            }
            return text
        }
    }

    private static func entry(_ name: Key, _ value: JSON) throws -> Entry {
        guard let fields = value.object, Set(fields.keys) == ["dtype", "shape", "data_offsets"],
            let dtype = fields["dtype"]?.string, let shape = sizes(fields["shape"]),
            let offsets = sizes(fields["data_offsets"]), offsets.count == 2
        else {
            throw FormatError("bad-header", "'\(name)' must have a dtype name, a shape and two offsets.")
        }
        guard offsets[0] <= offsets[1] else {
            throw FormatError("bad-header", "'\(name)' ends at \(offsets[1]), before it begins at \(offsets[0]).")
        }
        return Entry(dtype: dtype, shape: shape, begin: offsets[0], end: offsets[1])
    }

    private static func sizes(_ value: JSON?) -> [Int]? {
        guard let items = value?.array else { return nil }
        let sizes = items.compactMap(\.size)
        return sizes.count == items.count ? sizes : nil
    }
}
