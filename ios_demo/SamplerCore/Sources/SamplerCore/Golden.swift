import Foundation

/// One sample of a part with every model output on its way, as the exporting machine drew it: golden.safetensors.
///
/// A device replays it in lock-step. The loop goes on from the recorded outputs, which must give the recorded sample
/// (sampler parity), and at each step the network is asked for its own output (conversion parity).
public struct Golden: Sendable {
    public let noise: Tensor
    /// (N, 1, C, H, W): after guidance, before the output correction.
    public let outputs: Tensor
    public let sampleCorrected: Tensor
    public let conditioning: Conditioning

    /// - Parameter steps: of the plan that the record must fit.
    public init(_ bundle: Bundle, _ part: Manifest.Part, steps: Int) throws {
        var tensors = try TensorFile(bundle.url.appendingPathComponent(part.golden)).tensors
        func take(_ name: Key, _ shape: [Int]) throws -> Tensor {
            guard let tensor = tensors.removeValue(forKey: name), tensor.shape == shape else {
                throw UsageError("\(bundle.name) holds no record to verify (\(name) is missing or does not fit).")
            }
            return tensor
        }
        let shape = bundle.manifest.sample.shape
        noise = try take("noise", shape)
        outputs = try take("outputs", [steps] + shape)
        sampleCorrected = try take("sample_corrected", shape)
        _ = try take("sample_uncorrected", shape)
        let (given, null) = split(tensors)
        conditioning = Conditioning(given: given, null: null)
    }
}
