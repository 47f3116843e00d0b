import Foundation

/// Peak signal-to-noise ratio in dB for a peak of 2 (values in [-1, 1]), in float64; 200 for equal tensors.
func psnr(_ a: Tensor, _ b: Tensor) -> Double {
    precondition(a.shape == b.shape, "shapes \(a.shape) and \(b.shape)")
    var squares = 0.0
    for (x, y) in zip(a.values, b.values) {
        let difference = Double(x) - Double(y)
        squares += difference * difference
    }
    let error = squares / Double(max(a.values.count, 1))
    return error == 0 ? 200 : min(10 * log10(4 / error), 200)
}
