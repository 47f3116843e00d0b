/// Four numbers per step and channel, N rows of C: gain and bias of the model output, gain and bias of the sample.
public struct Correction: Equatable, Sendable {
    public static let maxChannels = 4096
    public static let gains: ClosedRange<Float> = 0.1...10

    public let outputGain: [[Float]]
    public let outputBias: [[Float]]
    public let inputGain: [[Float]]
    public let inputBias: [[Float]]

    public var steps: Int { outputGain.count }
    public var channels: Int { outputGain[0].count }

    init(outputGain: [[Float]], outputBias: [[Float]], inputGain: [[Float]], inputBias: [[Float]]) throws {
        self.outputGain = outputGain
        self.outputBias = outputBias
        self.inputGain = inputGain
        self.inputBias = inputBias
        for (name, table) in [
            ("input_bias", inputBias), ("input_gain", inputGain), ("output_bias", outputBias),
            ("output_gain", outputGain),
        ] {
            try requireFinite(name, table.flatMap(\.self))
        }
        for (name, table) in [("input_gain", inputGain), ("output_gain", outputGain)] {
            if let bad = table.joined().first(where: { !Self.gains.contains($0) }) {
                throw FormatError("gain-out-of-bounds", "\(name) must lie within 0.1..10, got \(bad).")
            }
        }
    }
}
