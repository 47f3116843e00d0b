#if canImport(CoreML)
    import CoreML
    import SamplerCore

    /// A Core ML artifact in memory: one package, or several that are run in their order.
    ///
    /// Each package takes its inputs by name from the inputs of the whole and the outputs of those before it.
    final class CoreMLNetwork: Network {
        private let signature: Signature
        private let models: [MLModel]

        /// - Parameter compiled: the prepared packages in their order.
        init(compiled: [URL], signature: Signature, units: ComputeUnits) throws {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units.setting
            self.signature = signature
            models = try compiled.map { try MLModel(contentsOf: $0, configuration: configuration) }
            let taken = Set(models.flatMap { $0.modelDescription.inputDescriptionsByName.keys })
            for port in signature.inputs where !taken.contains(port.name) {
                throw UsageError("the network does not take \(port.name), which the manifest says it does.")
            }
        }

        func run(_ inputs: [String: Tensor]) throws -> Tensor {
            try signature.check(inputs, of: "the network")
            // Core ML hands out its results in the pool of the thread, which would otherwise grow from step to step.
            return try autoreleasepool {
                var values: [String: MLFeatureValue] = [:]
                for port in signature.inputs {
                    if let tensor = inputs[port.name] { values[port.name] = Self.value(tensor, type: port.type) }
                }
                for model in models {
                    try Task.checkCancellation()
                    try run(model, &values)
                }
                return try output(values)
            }
        }

        private func run(_ model: MLModel, _ values: inout [String: MLFeatureValue]) throws {
            let names = model.modelDescription.inputDescriptionsByName.keys
            let given = try Dictionary(
                uniqueKeysWithValues: names.map { name in
                    guard let value = values[name] else { throw UsageError("no package before gives \(name).") }
                    return (name, value)
                })
            let found = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: given))
            for name in found.featureNames { values[name] = found.featureValue(for: name) }
        }

        private func output(_ values: [String: MLFeatureValue]) throws -> Tensor {
            let port = signature.output
            guard let array = values[port.name]?.multiArrayValue else {
                throw UsageError("the network gave no \(port.name).")
            }
            let shaped = MLShapedArray<Float>(converting: array)
            guard shaped.shape == port.shape else {
                throw UsageError("\(port.name) must have the shape \(port.shape), it has \(shaped.shape).")
            }
            return Tensor(shape: shaped.shape, values: shaped.scalars)
        }

        private static func value(_ tensor: Tensor, type: String) -> MLFeatureValue {
            if type == "float32" {
                return MLFeatureValue(
                    multiArray: MLMultiArray(MLShapedArray<Float>(scalars: tensor.values, shape: tensor.shape)))
            }
            let whole = tensor.values.map { Int32($0) }
            return MLFeatureValue(multiArray: MLMultiArray(MLShapedArray<Int32>(scalars: whole, shape: tensor.shape)))
        }
    }
#endif
