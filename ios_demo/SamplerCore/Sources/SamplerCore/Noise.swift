/// Unit-normal noise that depends on stream, seed, sample and step alone: docs/noise.md.
public struct Noise: Sendable {
    public static let simulation: UInt64 = 3  // the stream of apps

    public let seed: UInt64
    public let stream: UInt64
    public let sample: UInt64

    public init(seed: UInt64, stream: UInt64 = Noise.simulation, sample: UInt64 = 0) {
        self.seed = seed
        self.stream = stream
        self.sample = sample
    }

    /// The noise that the loop begins with.
    public func initial(_ shape: [Int]) -> Tensor { normals(word: 0, shape) }

    /// The fresh noise of step `i`, counted from 0.
    public func step(_ i: Int, _ shape: [Int]) -> Tensor { normals(word: UInt64(i) + 1, shape) }

    func normals(word: UInt64, _ shape: [Int]) -> Tensor {
        let count = shape.reduce(1, *)
        var values: [Float] = []
        values.reserveCapacity(count + 3)
        var block: UInt64 = 0
        while values.count < count {
            block += 1
            let words = Philox.words(key: (seed, stream), counter: (block, word, sample, 0))
            let (first, second) = (Normals.pair(words.0, words.1), Normals.pair(words.2, words.3))
            values += [first.0, first.1, second.0, second.1]
        }
        return Tensor(shape: shape, values: Array(values.prefix(count)))
    }
}

/// Philox 4x64-10: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
enum Philox {
    static func words(
        key: (UInt64, UInt64), counter: (UInt64, UInt64, UInt64, UInt64)
    ) -> (UInt64, UInt64, UInt64, UInt64) {
        var (k0, k1) = key
        var (c0, c1, c2, c3) = counter
        for _ in 0..<10 {
            let (h0, l0) = (0xd2e7_470e_e14c_6c93 as UInt64).multipliedFullWidth(by: c0)
            let (h1, l1) = (0xca5a_8263_9512_1157 as UInt64).multipliedFullWidth(by: c2)
            (c0, c1, c2, c3) = (h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0)
            k0 &+= 0x9e37_79b9_7f4a_7c15
            k1 &+= 0xbb67_ae85_84ca_a73b
        }
        return (c0, c1, c2, c3)
    }
}
