/// Constants between what the UNet denoises and what the decoder takes.
public struct Latents: Equatable, Sendable {
    public let kind: String
    public let channels: Int
    public let imageChannels: Int
    /// Image pixels per latent pixel, along each side.
    public let factor: Int
    public let scalingFactor: Double
    public let shiftFactor: Double

    /// As the UNet denoises them -> as the decoder takes them.
    public func toDecoder(_ x: Tensor) -> Tensor {
        let (scale, shift) = (Float(scalingFactor), Float(shiftFactor))
        return Tensor(shape: x.shape, values: x.values.map { $0 / scale + shift })
    }
}
