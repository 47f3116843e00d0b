/// What the UNet is told besides sample and timestep: inputs by name, a row each, and what guidance's other branch is
/// told in their place, nothing without guidance.
public struct Conditioning: Equatable, Sendable {
    public let given: [String: Tensor]
    public let null: [String: Tensor]

    public init(given: [String: Tensor] = [:], null: [String: Tensor] = [:]) {
        self.given = given
        self.null = null
    }

    /// The network as a denoiser, with guidance where there is something to be guided away from.
    public func denoiser(_ network: any Network, guidance: Double) throws -> any Denoiser {
        let conditional = NetworkDenoiser(network: network, conditioning: given)
        if null.isEmpty || guidance == 1 { return conditional }
        let other = NetworkDenoiser(network: network, conditioning: given.merging(null) { _, null in null })
        return try GuidedDenoiser(unconditional: other, conditional: conditional, scale: Float(guidance))
    }
}
