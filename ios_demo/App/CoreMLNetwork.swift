#if canImport(CoreML)
    import CoreML
    import SamplerCore

    /// A Core ML artifact in memory: one package, or several that are run in their order.
    final class CoreMLNetwork: Network {
        private let signature: Signature
        private let chain: PackageChain<MLFeatureValue>

        /// - Parameter compiled: the prepared packages in their order.
        init(compiled: [URL], signature: Signature, units: ComputeUnits) throws {
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units.setting
            self.signature = signature
            chain = PackageChain(
                try compiled.map { Self.link(try MLModel(contentsOf: $0, configuration: configuration)) })
            for port in signature.inputs where !chain.inputs.contains(port.name) {
                throw UsageError("the network does not take \(port.name), which the manifest says it does.")
            }
        }

        func run(_ inputs: [String: Tensor]) throws -> Tensor {
            try signature.check(inputs, of: "the network")
            // Core ML hands out its results in the pool of the thread, which would otherwise grow from step to step.
            return try autoreleasepool {
                var given: [String: MLFeatureValue] = [:]
                for port in signature.inputs {
                    if let tensor = inputs[port.name] { given[port.name] = try Self.value(tensor, port) }
                }
                return try Self.tensor(chain.run(given)[signature.output.name], signature.output)
            }
        }

        private static func link(_ model: MLModel) -> PackageChain<MLFeatureValue>.Link {
            .init(inputs: Array(model.modelDescription.inputDescriptionsByName.keys)) { given in
                let found = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: given))
                var values: [String: MLFeatureValue] = [:]
                for name in found.featureNames { values[name] = found.featureValue(for: name) }
                return values
            }
        }

        private static func value(_ tensor: Tensor, _ port: Signature.Port) throws -> MLFeatureValue {
            if port.type == "float32" {
                return MLFeatureValue(
                    multiArray: MLMultiArray(MLShapedArray<Float>(scalars: tensor.values, shape: tensor.shape)))
            }
            let whole = try tensor.values.map { value in
                guard let number = Int32(exactly: value) else { throw UsageError("\(port.name) cannot be \(value).") }
                return number
            }
            return MLFeatureValue(multiArray: MLMultiArray(MLShapedArray<Int32>(scalars: whole, shape: tensor.shape)))
        }

        private static func tensor(_ value: MLFeatureValue?, _ port: Signature.Port) throws -> Tensor {
            guard let array = value?.multiArrayValue else { throw UsageError("the network gave no \(port.name).") }
            let shaped = MLShapedArray<Float>(converting: array)
            guard shaped.shape == port.shape else {
                throw UsageError("\(port.name) must have the shape \(port.shape), it has \(shaped.shape).")
            }
            return Tensor(shape: shaped.shape, values: shaped.scalars)
        }
    }
#endif
