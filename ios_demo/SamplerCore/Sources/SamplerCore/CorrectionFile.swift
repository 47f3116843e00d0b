import Foundation

/// A plan and its correction as correction.safetensors holds them: docs/correction-format.md, checks in its order.
public struct CorrectionFile: Sendable {
    public static let maxBytes = 64 << 20

    public let plan: SamplingPlan
    public let correction: Correction
    /// sha256 of the artifact that the correction was solved for, lower-case hex.
    public let artifactSHA256: String

    /// - Parameter artifactSHA256: the artifact about to be run; a file solved for another one is refused. nil skips
    ///   this check.
    /// - Throws: `FormatError`, whose name says why the file is refused.
    public init(_ url: URL, artifactSHA256: String? = nil) throws {
        try self.init(bytes: readFile(url, atMost: Self.maxBytes), artifactSHA256: artifactSHA256)
    }

    public init(bytes: [UInt8], artifactSHA256: String? = nil) throws {
        guard bytes.count <= Self.maxBytes else {
            throw FormatError("too-large", "a correction file has at most \(Self.maxBytes) bytes.")
        }
        let file = try Safetensors(bytes, checkVersion: Self.checkVersion)
        try Self.checkShapes(file.entries)
        for (name, entry) in file.entries.sorted(by: { $0.key < $1.key })
        where entry.end - entry.begin != 4 * entry.shape.reduce(1, *) {
            throw FormatError("wrong-size", "'\(name)' has offsets that are not the size of its shape.")
        }
        try file.checkCoverage()
        self.artifactSHA256 = try Self.checkMetadata(file.metadata, artifactSHA256)
        var rows: [Key: [[Float]]] = [:]
        for (name, entry) in file.entries {
            let size = entry.shape.dropFirst().reduce(1, *)
            let values = file.floats(entry)
            rows[name] = stride(from: 0, to: values.count, by: size).map { Array(values[$0..<$0 + size]) }
        }
        func table(_ name: String) -> [[Float]] { rows[Key(name)] ?? [] }
        let columns = SamplingPlan.columns.map { ($0, table("plan.\($0)").flatMap(\.self)) }
        plan = try SamplingPlan(
            columns: Dictionary(uniqueKeysWithValues: columns), w: table("plan.w"),
            initSigma: table("plan.init_sigma")[0][0], predictionType: file.metadata["prediction_type"] ?? "",
            scheduler: file.metadata["scheduler"] ?? "")
        correction = try Correction(
            outputGain: table("output_gain"), outputBias: table("output_bias"), inputGain: table("input_gain"),
            inputBias: table("input_bias"))
    }

    private enum Axis { case one, steps, history, channels }

    private static let tensors: [(name: Key, axes: [Axis])] = {
        let columns = SamplingPlan.columns.map { (name: Key("plan.\($0)"), axes: [Axis.steps]) }
        let tables = ["output_gain", "output_bias", "input_gain", "input_bias"] as [Key]
        let others = [(name: Key("plan.w"), axes: [Axis.steps, .history]), ("plan.init_sigma", [.one])]
        let all = columns + others + tables.map { ($0, [.steps, .channels]) }
        return all.sorted { $0.name < $1.name }
    }()

    private static func limit(_ axis: Axis) -> (size: Int, error: String) {
        switch axis {
        case .one: (1, "wrong-shape")
        case .steps: (SamplingPlan.maxSteps, "too-many-steps")
        case .history: (SamplingPlan.maxHistory, "too-much-history")
        case .channels: (Correction.maxChannels, "too-many-channels")
        }
    }

    private static func checkVersion(_ metadata: [Key: String]) throws {
        guard metadata["format"] == "timestep-correction" else {
            throw FormatError("other-format", "it is not a correction file, its format is another.")
        }
        let text = metadata["format_version"] ?? ""
        guard let version = FormatVersion(text) else {
            throw FormatError("bad-version", "format_version must look like 1.1, got '\(text)'.")
        }
        guard version.major == 1 else {
            throw FormatError("unknown-major-version", "this reader knows version 1, the file has \(text).")
        }
    }

    private static func checkShapes(_ entries: [Key: Safetensors.Entry]) throws {
        let known = Set(tensors.map(\.name))
        for name in entries.keys.sorted() where !known.contains(name) {
            throw FormatError("unknown-tensor", "'\(name)' is not a tensor of this format.")
        }
        let found = try tensors.map { (name, axes) in
            guard let entry = entries[name] else { throw FormatError("missing-tensor", "'\(name)' is missing.") }
            return (name: name, axes: axes, entry: entry)
        }
        for (name, _, entry) in found where entry.dtype != "F32" {
            throw FormatError("wrong-dtype", "'\(name)' must have dtype F32, got \(entry.dtype).")
        }
        var sizes: [Axis: Int] = [:]
        for (name, axes, entry) in found {
            guard entry.shape.count == axes.count else {
                throw FormatError("wrong-shape", "'\(name)' must have \(axes.count) axes, got \(entry.shape).")
            }
            for (axis, size) in zip(axes, entry.shape) {
                let limit = limit(axis)
                guard size <= limit.size else {
                    throw FormatError(limit.error, "'\(name)' has \(size) \(axis), at most \(limit.size) are allowed.")
                }
                guard size >= 1, sizes[axis, default: size] == size else {
                    throw FormatError("wrong-shape", "'\(name)' has \(size) \(axis), expected \(sizes[axis] ?? 1).")
                }
                sizes[axis] = size
            }
        }
    }

    private static func checkMetadata(_ metadata: [Key: String], _ expected: String?) throws -> String {
        for key in ["artifact_sha256", "prediction_type", "scheduler", "scheduler_config"] as [Key]
        where metadata[key] == nil {
            throw FormatError("missing-metadata", "metadata '\(key)' is missing.")
        }
        let digest = metadata["artifact_sha256"] ?? ""
        guard isSHA256(digest) else {
            throw FormatError("bad-metadata", "artifact_sha256 must be 64 lower-case hex digits, got '\(digest)'.")
        }
        let type = metadata["prediction_type"] ?? ""
        guard SamplingPlan.predictionTypes.contains(type) else {
            throw FormatError("bad-metadata", "prediction_type is '\(type)', none of \(SamplingPlan.predictionTypes).")
        }
        if let expected, digest != expected.lowercased() {
            throw FormatError("other-artifact", "solved for artifact \(digest), not for \(expected).")
        }
        return digest
    }
}

func isSHA256(_ text: String) -> Bool {
    text.utf8.count == 64 && text.utf8.allSatisfy { "0123456789abcdef".utf8.contains($0) }
}
