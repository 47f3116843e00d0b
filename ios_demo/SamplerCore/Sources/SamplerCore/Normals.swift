/// Normals without a mathematics library: the same bits in every language. docs/noise.md, "Normals".
///
/// Every operation below is one float64 operation, rounded to nearest, none fused, in the order of the brackets.
enum Normals {
    static let ln2 = 0.6931471805599453
    static let halfRoot = 0.7071067811865476
    static let twoPi = 6.283185307179586
    static let logTerms = (0...10).map { 1.0 / Double(2 * $0 + 1) }
    static let sineTerms = seriesTerms(first: 1)
    static let cosineTerms = seriesTerms(first: 0)

    /// Two unit normals from two random words (Box and Muller, 1958).
    static func pair(_ u: UInt64, _ v: UInt64) -> (Float, Float) {
        let radius = (-2.0 * logarithm(Double(u >> 11 + 1) * 0x1p-53)).squareRoot()
        let (cosine, sine) = circle(Double(v >> 11) * 0x1p-53)
        return (Float(radius * cosine), Float(radius * sine))
    }

    /// ln x, 0 < x <= 1.
    static func logarithm(_ x: Double) -> Double {
        var m = x.significand / 2  // 0.5 <= m < 1
        var e = Double(x.exponent + 1)
        if m < halfRoot {
            m = m + m
            e = e - 1
        }
        let s = (m - 1) / (m + 1)
        return e * ln2 + (s + s) * polynomial(logTerms, s * s)
    }

    /// Cosine and sine of `turns` in [0, 1).
    static func circle(_ turns: Double) -> (cosine: Double, sine: Double) {
        let quarter = (4 * turns + 0.5).rounded(.down)
        let angle = twoPi * (turns - 0.25 * quarter)
        let square = angle * angle
        let sine = angle * polynomial(sineTerms, square)
        let cosine = polynomial(cosineTerms, square)
        switch Int(quarter) % 4 {
        case 0: return (cosine, sine)
        case 1: return (-sine, cosine)
        case 2: return (-cosine, -sine)
        default: return (sine, -cosine)
        }
    }

    /// Horner's scheme.
    private static func polynomial(_ terms: [Double], _ x: Double) -> Double {
        var total = terms[terms.count - 1]
        for term in terms.dropLast().reversed() { total = total * x + term }
        return total
    }

    /// 1/n! with alternating signs for n = first, first + 2, ..., first + 16.
    private static func seriesTerms(first: Int) -> [Double] {
        (0...8).map { k in
            let n = first + 2 * k
            let factorial = n == 0 ? 1.0 : (1...n).map(Double.init).reduce(1, *)  // exact: below 2^53 up to 18!
            return (k % 2 == 0 ? 1.0 : -1.0) / factorial
        }
    }
}
