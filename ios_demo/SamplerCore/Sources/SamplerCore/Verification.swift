import Foundation

/// What a device found when it replayed a bundle's golden record. Two numbers, never merged.
public struct Verification: Equatable, Sendable {
    // dB, at each step and at half of them or more: another machine rounds differently.
    public static let minimumPSNR = 20.0
    public static let usualPSNR = 35.0

    /// This device's network against the recorded output, at the same sample.
    public struct Step: Equatable, Sendable {
        public let index: Int
        public let timestep: Float
        public let psnr: Double
        public let equal: Bool
        public let seconds: Double
    }

    /// Conversion parity.
    public let steps: [Step]
    /// Sampler parity: largest difference of the loop's last sample from the recorded one; 0 where all bits are equal.
    public let sampleError: Float
    public let sampleEqual: Bool
    /// The generator gives the recorded noise.
    public let noiseEqual: Bool

    public var worst: Step? { steps.min { $0.psnr < $1.psnr } }
    /// At one step a flipped rounding may cost percents; a wrong network is wrong at most of them.
    public var conversionPassed: Bool {
        steps.allSatisfy { $0.psnr >= Self.minimumPSNR }
            && 2 * steps.count { $0.psnr >= Self.usualPSNR } >= steps.count
    }
    public var samplerPassed: Bool { sampleEqual && noiseEqual }
    public var passed: Bool { conversionPassed && samplerPassed }

    /// The whole of it as text to share; `about` says what ran where, a line each.
    public func report(about: [String]) -> String {
        let rows = steps.map { step in
            String(
                format: "%4d  %8.2f  %7.2f%@  %8.3f", step.index, step.timestep, step.psnr, step.equal ? " =" : "  ",
                step.seconds)
        }
        let needed = "at least \(Int(Self.minimumPSNR)) dB at each step, \(Int(Self.usualPSNR)) dB at half of them"
        let noise = noiseEqual ? "equal to the bit" : "DIFFERENT"
        let sample = sampleEqual ? "equal to the bit" : "DIFFERENT, by up to \(sampleError)"
        return """
            \(about.joined(separator: "\n"))

            Sampler parity: \(samplerPassed ? "passed" : "FAILED")
              noise                          \(noise)
              last sample of recorded outputs \(sample)

            Conversion parity: \(conversionPassed ? "passed" : "FAILED") (\(needed))
            step  timestep  PSNR dB     seconds
            \(rows.joined(separator: "\n"))

            "=" marks outputs that are equal to the bit, and 200 dB is the most that is shown.
            """
    }
}

extension Sampling {
    /// Replays the golden record of the part. The network is in memory only until then.
    public func verify(onEvent: @escaping (Event) throws -> Void = { _ in }) throws -> Verification {
        let shape = try sampleShape()
        let golden = try Golden(bundle, part, steps: file.plan.steps)
        let noise = Noise(seed: 0)
        let network = try golden.conditioning.denoiser(network("unet", onEvent), guidance: bundle.manifest.guidance)
        let recorded = Replay(outputs: golden.outputs, network: network)
        let last = try DeviceLoop(plan: file.plan, correction: file.correction).sample(
            noise: golden.noise, stepNoise: { noise.step($0, shape) }, denoiser: recorded, onStep: timed(onEvent))
        return Verification(
            steps: recorded.steps,
            sampleError: (last - golden.sampleCorrected).values.reduce(0) { max($0, abs($1)) },
            sampleEqual: last.hasSameBits(as: golden.sampleCorrected),
            noiseEqual: noise.initial(shape).hasSameBits(as: golden.noise))
    }
}

/// Answers with what was recorded, and asks the network beside it.
private final class Replay: Denoiser {
    let outputs: Tensor
    let network: any Denoiser
    let clock = ContinuousClock()
    var steps: [Verification.Step] = []

    init(outputs: Tensor, network: any Denoiser) {
        self.outputs = outputs
        self.network = network
    }

    func predict(_ sample: Tensor, timestep: Float) throws -> Tensor {
        let index = steps.count
        let expected = outputs[index]
        let start = clock.now
        let found = try network.predict(sample, timestep: timestep)
        let seconds = (clock.now - start) / .seconds(1)
        guard found.shape == expected.shape else {
            throw UsageError("the network must return the shape \(expected.shape), it returned \(found.shape).")
        }
        guard found.isFinite else { throw NonFiniteError(stage: "model output", step: index) }
        steps.append(
            Verification.Step(
                index: index, timestep: timestep, psnr: psnr(found, expected), equal: found.hasSameBits(as: expected),
                seconds: seconds))
        return expected
    }
}
