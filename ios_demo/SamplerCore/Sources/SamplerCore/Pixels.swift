/// An image as bytes: red, green, blue and opaque alpha of each pixel, row by row.
public struct Pixels: Equatable, Sendable {
    public let width: Int
    public let height: Int
    public let rgba: [UInt8]

    /// - Parameter image: (1, C, H, W) with C = 1 (grey) or 3, in about [-1, 1]: clamped, never wrapped; -1 gives 0,
    ///   1 gives 255.
    public init(image: Tensor) throws {
        guard image.shape.count == 4, image.shape[0] == 1, [1, 3].contains(image.shape[1]) else {
            throw UsageError("an image is (1, 1 or 3, height, width), got \(image.shape).")
        }
        let (channels, height, width) = (image.shape[1], image.shape[2], image.shape[3])
        let size = height * width
        self.height = height
        self.width = width
        rgba = (0..<size).flatMap { pixel in
            (0..<3).map { Self.byte(image.values[min($0, channels - 1) * size + pixel]) } + [255]
        }
    }

    /// What there is to see before the last step, for samples of any number of channels: an image as it is; of latents
    /// the first three channels (or the first alone), stretched to the whole range.
    public init(preview y: Tensor, latents: Bool) throws {
        guard latents else {
            try self.init(image: y)
            return
        }
        guard y.shape.count == 4, y.shape[0] == 1 else {
            throw UsageError("a preview is of one sample, got \(y.shape).")
        }
        let channels = y.shape[1] < 3 ? 1 : 3
        let values = y.values.prefix(channels * y.shape[2] * y.shape[3])
        let peak = max(values.reduce(0) { max($0, abs($1)) }, .leastNormalMagnitude)
        try self.init(
            image: Tensor(shape: [1, channels, y.shape[2], y.shape[3]], values: values.map { $0 / peak }))
    }

    /// (value + 1) * 127.5 in float64, rounded half to even.
    static func byte(_ value: Float) -> UInt8 {
        let limited = value.isNaN ? -1 : min(max(Double(value), -1), 1)
        return UInt8(((limited + 1) * 127.5).rounded(.toNearestOrEven))
    }
}
