@_exported import Foundation

public enum MLComputeUnits: Sendable { case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine }

open class MLModelConfiguration {
    public var computeUnits = MLComputeUnits.all
    public init() {}
}

public protocol MLShapedArrayScalar {}
extension Float: MLShapedArrayScalar {}
extension Int32: MLShapedArrayScalar {}

public struct MLShapedArray<Scalar: MLShapedArrayScalar> {
    public let shape: [Int] = []
    public let scalars: [Scalar] = []
    public init(scalars: some Sequence<Scalar>, shape: [Int]) {}
    public init(converting array: MLMultiArray) {}
}

open class MLMultiArray {
    public init<Scalar>(_ shapedArray: MLShapedArray<Scalar>) {}
}

open class MLFeatureValue {
    public init(multiArray: MLMultiArray) {}
    public var multiArrayValue: MLMultiArray? { nil }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for name: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: MLFeatureProvider {
    public init(dictionary: [String: Any]) throws {}
    public var featureNames: Set<String> { [] }
    public func featureValue(for name: String) -> MLFeatureValue? { nil }
}

open class MLFeatureDescription {}

open class MLModelDescription {
    public let inputDescriptionsByName: [String: MLFeatureDescription] = [:]
}

open class MLModel {
    public let modelDescription = MLModelDescription()
    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {}
    public func prediction(from input: any MLFeatureProvider) throws -> any MLFeatureProvider { input }
    public class func compileModel(at url: URL) async throws -> URL { url }
}

/// Of the Objective-C runtime, which Linux has not.
public func autoreleasepool<Result>(invoking body: () throws -> Result) rethrows -> Result { try body() }
