import Foundation

/// One image of a bundle on this device. A network is in memory only while it runs: each is loaded in a scope of its
/// own, and every way out of that scope (the end, an error, a cancelled task) lets go of it.
public struct Sampling: Sendable {
    /// What is shown while it goes on.
    public enum Event: Sendable {
        case loading(component: String)
        /// `seconds` is what this step took.
        case step(DeviceLoop.Step, seconds: Double)
        case decoding
    }

    /// What to draw.
    public struct Request: Equatable, Sendable {
        /// A name of `Subjects.names`, or any prompt where the bundle takes prompts.
        public var subject: String
        public var seed: UInt64
        /// False leaves the correction out, to see what it does.
        public var corrected: Bool

        public init(subject: String, seed: UInt64, corrected: Bool = true) {
            self.subject = subject
            self.seed = seed
            self.corrected = corrected
        }
    }

    static let maxNumbers = 1 << 24  // of a sample: 64 MiB

    public typealias Load = @Sendable (_ name: String, Manifest.Component) throws -> any Network

    public let bundle: Bundle
    public let part: Manifest.Part
    public let subjects: Subjects
    let file: CorrectionFile
    let load: Load

    /// - Parameters:
    ///   - target: whose part is run, such as "coreml".
    ///   - load: puts the artifact of a component into memory.
    public init(_ bundle: Bundle, target: String, load: @escaping Load) throws {
        self.bundle = bundle
        self.load = load
        part = try bundle.part(target)
        file = try bundle.correctionFile(of: part)
        subjects = try Subjects(bundle)
    }

    /// (1, C, H, W), an image in about [-1, 1]. Throws `CancellationError` when its task is cancelled.
    public func image(_ request: Request, onEvent: @escaping (Event) throws -> Void = { _ in }) throws -> Tensor {
        let conditioning = try conditioning(request.subject, onEvent)
        let sample = try sample(request, conditioning, onEvent)
        guard let latents = bundle.manifest.latents else { return sample }
        try Task.checkCancellation()
        let decoder = try network("vae_decoder", onEvent)
        try onEvent(.decoding)
        return try decoder.run(["latents": latents.toDecoder(sample)])
    }

    private func sample(
        _ request: Request, _ conditioning: Conditioning, _ onEvent: @escaping (Event) throws -> Void
    ) throws -> Tensor {
        guard request.seed < 1 << 63 else { throw UsageError("the seed must be 0 to 2^63 - 1, got \(request.seed).") }
        let shape = try sampleShape()
        let noise = Noise(seed: request.seed)
        let denoiser = try conditioning.denoiser(network("unet", onEvent), guidance: bundle.manifest.guidance)
        let loop = DeviceLoop(plan: file.plan, correction: request.corrected ? file.correction : nil)
        return try loop.sample(
            noise: noise.initial(shape), stepNoise: { noise.step($0, shape) }, denoiser: denoiser,
            onStep: timed(onEvent))
    }

    /// Tells of each step with the time since the one before.
    func timed(_ onEvent: @escaping (Event) throws -> Void) -> (DeviceLoop.Step) throws -> Void {
        let clock = ContinuousClock()
        var last = clock.now
        return { step in
            let now = clock.now
            try onEvent(.step(step, seconds: (now - last) / .seconds(1)))
            last = clock.now
        }
    }

    private func conditioning(_ subject: String, _ onEvent: (Event) throws -> Void) throws -> Conditioning {
        guard subjects.takesPrompts, let text = bundle.manifest.text else {
            return try subjects.conditioning(of: subject)
        }
        let tokenizer = try Tokenizer(bundle)
        let unet = part.components["unet"]?.signature.inputs.map(\.name) ?? []
        let guided = bundle.manifest.guidance > 1 && !unet.contains(Subjects.guidance)
        let encoder = try network("text_encoder", onEvent)
        func embedding(_ prompt: String) throws -> Tensor {
            let ids = tokenizer.ids(prompt).map(Float.init)
            return try encoder.run(["input_ids": Tensor(shape: [1, ids.count], values: ids)])
        }
        let negative = guided ? try embedding(text.negativePrompt) : nil
        return subjects.conditioning(embedding: try embedding(subject), negative: negative)
    }

    /// Bounded before anything of this shape is made: the format allows more than a device has memory for.
    func sampleShape() throws -> [Int] {
        let shape = bundle.manifest.sample.shape
        guard shape.reduce(1, *) <= Self.maxNumbers else {
            throw UsageError("samples of the shape \(shape) are too large for this device.")
        }
        return shape
    }

    func network(_ name: String, _ onEvent: (Event) throws -> Void) throws -> any Network {
        try Task.checkCancellation()
        guard let component = part.components[name] else {
            throw UsageError("\(bundle.name) has no \(name) for this device: it has \(part.components.keys.sorted()).")
        }
        try onEvent(.loading(component: name))
        return try load(name, component)
    }
}
