import Foundation

/// What the samples of a bundle can show: its classes, the prompts that it has embeddings of, or nothing in particular.
public struct Subjects: Sendable {
    /// "" where there is nothing to choose; empty where any prompt can be given (`takesPrompts`).
    public let names: [String]
    /// A prompt is understood by the bundle's own text encoder.
    public let takesPrompts: Bool

    private let arrays: [String: Tensor]
    private let constants: [String: Tensor]
    private let null: [String: Tensor]

    static let labels = "class_labels"
    static let embedding = "encoder_hidden_states"
    static let guidance = "timestep_cond"

    public init(_ bundle: Bundle) throws {
        let manifest = bundle.manifest
        constants =
            try manifest.constants.map { file in
                split(try TensorFile(bundle.url.appendingPathComponent(file)).tensors).given
            } ?? [:]
        takesPrompts = manifest.text != nil && manifest.text?.prompts == nil
        if let text = manifest.text, let prompts = text.prompts {
            let tensors = try TensorFile(bundle.url.appendingPathComponent(prompts)).tensors
            names = text.subjects
            (arrays, null) = split(tensors)
            for (name, array) in arrays where array.shape.first != names.count {
                throw UsageError("\(prompts) has \(array.shape) for \(name), but there are \(names.count) prompts.")
            }
        } else if takesPrompts {
            (names, arrays, null) = ([], [:], [:])
        } else if manifest.model.classes.isEmpty {
            (names, arrays, null) = ([""], [:], [:])
        } else {
            names = manifest.model.classes
            arrays = [Self.labels: Tensor(shape: [names.count], values: names.indices.map(Float.init))]
            guard manifest.guidance != 1 else {
                null = [:]
                return
            }
            guard let label = manifest.model.nullLabel, label.magnitude <= Tensor.largestInteger else {
                throw UsageError(
                    "guidance \(manifest.guidance) needs a null class, which \(manifest.name) does not have.")
            }
            null = [Self.labels: Tensor(shape: [1], values: [Float(label)])]
        }
    }

    /// Of the subject with this name. Where nothing can be chosen, `name` is "".
    public func conditioning(of name: String) throws -> Conditioning {
        guard let index = names.firstIndex(where: { Key($0) == Key(name) }) else {
            throw UsageError("'\(name)' is none of: \(names.joined(separator: ", ")).")
        }
        let rows = arrays.mapValues { array in array[index].reshaped([1] + array.shape.dropFirst()) }
        return Conditioning(given: rows.merging(constants) { row, _ in row }, null: null)
    }

    /// Of embeddings (1, S, D); `negative` is that of guidance's other branch, nil without guidance.
    public func conditioning(embedding: Tensor, negative: Tensor?) -> Conditioning {
        Conditioning(
            given: constants.merging([Self.embedding: embedding]) { $1 },
            null: negative.map { [Self.embedding: $0] } ?? [:])
    }
}

/// Tensors by name, and those of guidance's other branch, "null.<name>", without that prefix.
func split(_ tensors: [Key: Tensor]) -> (given: [String: Tensor], null: [String: Tensor]) {
    var (given, null): ([String: Tensor], [String: Tensor]) = ([:], [:])
    for (name, tensor) in tensors {
        if name.text.hasPrefix("null.") {
            null[String(name.text.dropFirst("null.".count))] = tensor
        } else {
            given[name.text] = tensor
        }
    }
    return (given, null)
}
