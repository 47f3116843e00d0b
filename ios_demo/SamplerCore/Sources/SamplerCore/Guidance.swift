/// Classifier-free guidance: m = m_u + scale * (m_c - m_u), three rounded operations, two calls of the network.
///
/// Ho and Salimans, arXiv 2207.12598, eq. 6, with scale = 1 + w.
public struct GuidedDenoiser<Network: Denoiser>: Denoiser {
    let unconditional: Network
    let conditional: Network
    let scale: Float

    public init(unconditional: Network, conditional: Network, scale: Float) throws {
        guard scale.isFinite && scale >= 0 else {
            throw UsageError("the guidance scale must be finite and >= 0, got \(scale).")
        }
        self.unconditional = unconditional
        self.conditional = conditional
        self.scale = scale
    }

    public func predict(_ sample: Tensor, timestep: Float) throws -> Tensor {
        let without = try unconditional.predict(sample, timestep: timestep)
        let with = try conditional.predict(sample, timestep: timestep)
        return without + scale * (with - without)
    }
}
