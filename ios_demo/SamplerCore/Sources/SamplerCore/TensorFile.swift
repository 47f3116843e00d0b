import Foundation

/// The tensors of an ordinary safetensors file: golden vectors, prompts, records of tests.
public struct TensorFile: Sendable {
    public static let maxBytes = 256 << 20

    public let tensors: [Key: Tensor]

    public init(_ url: URL) throws {
        try self.init(bytes: readFile(url, atMost: Self.maxBytes))
    }

    /// float32, and whole numbers (int32, int64) that a float32 holds exactly.
    public init(bytes: [UInt8]) throws {
        let file = try Safetensors(bytes)
        for (name, entry) in file.entries.sorted(by: { $0.key < $1.key }) {
            guard let size = Self.sizes[entry.dtype] else {
                throw FormatError("wrong-dtype", "'\(name)' has dtype \(entry.dtype), which is not read here.")
            }
            guard let bytes = Self.product(entry.shape + [size]), entry.end - entry.begin == bytes else {
                throw FormatError("wrong-size", "'\(name)' has offsets that are not the size of its shape.")
            }
        }
        try file.checkCoverage()
        var tensors: [Key: Tensor] = [:]
        for (name, entry) in file.entries {
            tensors[name] = Tensor(shape: entry.shape, values: try Self.values(name, entry, file))
        }
        self.tensors = tensors
    }

    private static let sizes = ["F32": 4, "I32": 4, "I64": 8]

    private static func product(_ factors: [Int]) -> Int? {
        factors.reduce(1 as Int?) { total, factor in
            guard let (result, overflow) = total?.multipliedReportingOverflow(by: factor), !overflow else { return nil }
            return result
        }
    }

    private static func values(_ name: Key, _ entry: Safetensors.Entry, _ file: Safetensors) throws -> [Float] {
        let whole: [Int64]
        switch entry.dtype {
        case "I32": whole = file.integers(entry, Int32.self)
        case "I64": whole = file.integers(entry, Int64.self)
        default: return file.floats(entry)
        }
        return try whole.map { number in
            guard number.magnitude <= Tensor.largestInteger else {
                throw FormatError("number-too-large", "'\(name)' holds \(number), beyond 2^24.")
            }
            return Float(number)
        }
    }
}
