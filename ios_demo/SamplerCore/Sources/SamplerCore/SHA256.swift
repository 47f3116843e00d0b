import Foundation

#if canImport(CryptoKit)
    import CryptoKit

    typealias SHA256 = CryptoKit.SHA256
    extension CryptoKit.SHA256 {
        mutating func update(_ bytes: [UInt8]) { update(data: bytes) }
        consuming func digest() -> [UInt8] { Array(finalize()) }
    }
#else
    typealias SHA256 = PortableSHA256
#endif

/// sha256 as lower-case hex.
func sha256(_ bytes: [UInt8]) -> String {
    var hash = SHA256()
    hash.update(bytes)
    return hexadecimal(hash.digest())
}

/// sha256 of a file, read a megabyte at a time. Stops with `CancellationError` when its task is cancelled.
func sha256(_ url: URL) throws -> String {
    let file = try FileHandle(forReadingFrom: url)
    defer { try? file.close() }
    var hash = SHA256()
    while let data = try file.read(upToCount: 1 << 20), !data.isEmpty {
        try Task.checkCancellation()
        hash.update([UInt8](data))
    }
    return hexadecimal(hash.digest())
}

func hexadecimal(_ bytes: [UInt8]) -> String {
    let digits = Array("0123456789abcdef")
    return String(bytes.flatMap { [digits[Int($0 >> 4)], digits[Int($0 & 15)]] })
}

/// SHA-256 (FIPS 180-4) for systems without CryptoKit.
struct PortableSHA256 {
    /// The first 32 bits of the fractional parts of the cube roots of the first 64 primes.
    private static let constants: [UInt32] = primes.map { fraction($0) { cbrt($0) } }
    /// The same of the square roots of the first 8.
    private static let start: [UInt32] = primes.prefix(8).map { fraction($0) { $0.squareRoot() } }
    private static let primes = (2..<312).filter { n in !(2..<n).contains { n % $0 == 0 } }

    private var state = start
    private var waiting: [UInt8] = []
    private var length: UInt64 = 0

    init() {}

    mutating func update(_ bytes: [UInt8]) {
        length += UInt64(bytes.count)
        waiting += bytes
        let whole = waiting.count / 64 * 64
        waiting.withUnsafeBufferPointer { buffer in
            for offset in stride(from: 0, to: whole, by: 64) {
                Self.compress(&state, UnsafeBufferPointer(rebasing: buffer[offset..<offset + 64]))
            }
        }
        waiting.removeFirst(whole)
    }

    mutating func digest() -> [UInt8] {
        let bits = length * 8
        let zeros = (119 - waiting.count % 64) % 64
        update([0x80] + [UInt8](repeating: 0, count: zeros) + Self.bigEndian(bits))
        return state.flatMap(Self.bigEndian)
    }

    private static func compress(_ state: inout [UInt32], _ block: UnsafeBufferPointer<UInt8>) {
        var w = [UInt32](repeating: 0, count: 64)
        for t in 0..<16 {
            w[t] = (0..<4).reduce(0) { $0 << 8 | UInt32(block[4 * t + $1]) }
        }
        for t in 16..<64 {
            let (early, late) = (w[t - 15], w[t - 2])
            let first = rotated(early, 7) ^ rotated(early, 18) ^ early >> 3
            let second = rotated(late, 17) ^ rotated(late, 19) ^ late >> 10
            w[t] = w[t - 16] &+ first &+ w[t - 7] &+ second
        }
        var (a, b, c, d) = (state[0], state[1], state[2], state[3])
        var (e, f, g, h) = (state[4], state[5], state[6], state[7])
        for t in 0..<64 {
            let choice = (e & f) ^ (~e & g)
            let majority = (a & b) ^ (a & c) ^ (b & c)
            let first = h &+ (rotated(e, 6) ^ rotated(e, 11) ^ rotated(e, 25)) &+ choice &+ constants[t] &+ w[t]
            let second = (rotated(a, 2) ^ rotated(a, 13) ^ rotated(a, 22)) &+ majority
            (h, g, f, e, d, c, b, a) = (g, f, e, d &+ first, c, b, a, first &+ second)
        }
        for (index, value) in [a, b, c, d, e, f, g, h].enumerated() { state[index] &+= value }
    }

    private static func rotated(_ x: UInt32, _ count: UInt32) -> UInt32 { x >> count | x << (32 - count) }

    private static func bigEndian(_ x: some FixedWidthInteger) -> [UInt8] {
        withUnsafeBytes(of: x.bigEndian) { Array($0) }
    }

    /// The first 32 bits of the fractional part of a prime's root: with 53 bits of it, no rounding reaches them.
    private static func fraction(_ prime: Int, _ root: (Double) -> Double) -> UInt32 {
        let value = root(Double(prime))
        return UInt32((value - value.rounded(.down)) * 0x1p32)
    }
}
