/// Numbers with a shape, row-major float32. Whole numbers up to 2^24 (`largestInteger`) are exact in it.
///
/// Its operators are those of the device loop: each rounds every element once, and none is ever fused with another.
public struct Tensor: Equatable, Sendable {
    public static let largestInteger = 1 << 24

    public let shape: [Int]
    public var values: [Float]

    public init(shape: [Int], values: [Float]) {
        precondition(shape.reduce(1, *) == values.count, "\(values.count) values for the shape \(shape)")
        self.shape = shape
        self.values = values
    }

    public init(repeating value: Float, shape: [Int]) {
        self.init(shape: shape, values: [Float](repeating: value, count: shape.reduce(1, *)))
    }

    public var isFinite: Bool { values.allSatisfy(\.isFinite) }

    /// Equal to the bit: 0 is not -0.
    public func hasSameBits(as other: Tensor) -> Bool {
        shape == other.shape && zip(values, other.values).allSatisfy { $0.bitPattern == $1.bitPattern }
    }

    /// Part `index` of the first axis.
    public subscript(index: Int) -> Tensor {
        let size = shape.dropFirst().reduce(1, *)
        return Tensor(shape: Array(shape.dropFirst()), values: Array(values[index * size..<(index + 1) * size]))
    }

    /// The same numbers in another shape of as many.
    public func reshaped(_ shape: [Int]) -> Tensor { Tensor(shape: shape, values: values) }

    public static func * (factor: Float, x: Tensor) -> Tensor {
        Tensor(shape: x.shape, values: x.values.map { factor * $0 })
    }

    public static func + (a: Tensor, b: Tensor) -> Tensor { a.combined(with: b, +) }
    public static func - (a: Tensor, b: Tensor) -> Tensor { a.combined(with: b, -) }

    /// Limited to `-bound ... bound`; NaN stays NaN.
    public func clipped(to bound: Float) -> Tensor {
        Tensor(shape: shape, values: values.map { $0 < -bound ? -bound : $0 > bound ? bound : $0 })
    }

    /// (B, C, H, W): each channel times its gain, plus its bias.
    public func scaled(byChannel gain: [Float], plus bias: [Float]) -> Tensor {
        let channels = shape[1]
        let pixels = shape[2...].reduce(1, *)
        let values = values.indices.map { index in
            let channel = index / pixels % channels
            let scaled = gain[channel] * self.values[index]
            return scaled + bias[channel]
        }
        return Tensor(shape: shape, values: values)
    }

    private func combined(with other: Tensor, _ operation: (Float, Float) -> Float) -> Tensor {
        precondition(shape == other.shape, "shapes \(shape) and \(other.shape)")
        return Tensor(shape: shape, values: zip(values, other.values).map(operation))
    }
}
