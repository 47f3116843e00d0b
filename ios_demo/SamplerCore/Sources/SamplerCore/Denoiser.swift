/// Anything that predicts: the network on the phone, recorded outputs in a test.
public protocol Denoiser {
    /// (B, C, H, W), already multiplied by the plan's input scale -> the model output, of the same shape.
    func predict(_ sample: Tensor, timestep: Float) throws -> Tensor
}
