/// The sampler: a plan, its correction and a network, in float32, in a fixed order of operations.
///
/// docs/correction-format.md states the order in words, correction/loop.py is the same program in Python: given the
/// same model outputs, all end at the same bits.
public struct DeviceLoop: Sendable {
    /// After step `index` of `steps`: the sample that the network saw, what it said (corrected), the converted output,
    /// which is the picture as far as it has formed, and the next sample.
    public struct Step: Sendable {
        public let index: Int
        public let steps: Int
        public let x: Tensor
        public let m: Tensor
        public let y: Tensor
        public let next: Tensor
    }

    public let plan: SamplingPlan
    public let correction: Correction?

    public init(plan: SamplingPlan, correction: Correction?) {
        self.plan = plan
        self.correction = correction
    }

    /// The last sample, (B, C, H, W). Stops with `CancellationError` before the next step when its task is cancelled.
    ///
    /// - Parameters:
    ///   - noise: (B, C, H, W), unit normal.
    ///   - stepNoise: fresh noise of a step, asked for only where the plan adds some.
    public func sample(
        noise: Tensor, stepNoise: (Int) throws -> Tensor, denoiser: some Denoiser,
        onStep: (Step) throws -> Void = { _ in }
    ) throws -> Tensor {
        try check(noise)
        var x = plan.initSigma * noise
        var history: [Tensor] = []  // converted outputs, newest first
        for i in 0..<plan.steps {
            try Task.checkCancellation()
            if let correction { x = correct(x, gain: correction.inputGain[i], bias: correction.inputBias[i]) }
            var m = try predict(i, x, denoiser)
            if let correction { m = correct(m, gain: correction.outputGain[i], bias: correction.outputBias[i]) }
            let (next, y) = try advance(i, x, m, history, stepNoise)
            try onStep(Step(index: i, steps: plan.steps, x: x, m: m, y: y, next: next))
            x = next
            history = Array(([y] + history).prefix(plan.history))
        }
        return x
    }

    private func correct(_ x: Tensor, gain: [Float], bias: [Float]) -> Tensor {
        if gain.allSatisfy({ $0 == 1 }) && bias.allSatisfy({ $0 == 0 }) { return x }
        return x.scaled(byChannel: gain, plus: bias)
    }

    private func predict(_ i: Int, _ x: Tensor, _ denoiser: some Denoiser) throws -> Tensor {
        let m = try denoiser.predict(plan.inputScale[i] * x, timestep: plan.timestep[i])
        guard m.shape == x.shape else {
            throw UsageError("the network must return the shape \(x.shape), it returned \(m.shape).")
        }
        guard m.isFinite else { throw NonFiniteError(stage: "model output", step: i) }
        return m
    }

    private func advance(
        _ i: Int, _ x: Tensor, _ m: Tensor, _ history: [Tensor], _ stepNoise: (Int) throws -> Tensor
    ) throws -> (next: Tensor, y: Tensor) {
        var y = plan.p[i] * x + plan.q[i] * m
        if plan.clip[i] > 0 { y = y.clipped(to: plan.clip[i]) }
        var next = plan.a[i] * x + plan.b[i] * m
        for (j, past) in ([y] + history).prefix(plan.history).enumerated() where plan.w[i][j] != 0 {
            next = next + plan.w[i][j] * past
        }
        if plan.sigma[i] != 0 { next = next + plan.sigma[i] * (try stepNoise(i)) }
        guard next.isFinite else { throw NonFiniteError(stage: "sample", step: i) }
        return (next, y)
    }

    private func check(_ noise: Tensor) throws {
        guard noise.shape.count == 4 else { throw UsageError("noise must be (B, C, H, W), got \(noise.shape).") }
        if let correction, (correction.steps, correction.channels) != (plan.steps, noise.shape[1]) {
            throw UsageError(
                "the correction is for \(correction.steps) steps and \(correction.channels) channels, but the plan has "
                    + "\(plan.steps) steps and the noise \(noise.shape[1]) channels.")
        }
    }
}
