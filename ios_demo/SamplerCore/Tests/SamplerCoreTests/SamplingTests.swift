import XCTest

@testable import SamplerCore

/// The session on the corpus's bundle, with a network made of recorded outputs in place of Core ML's.
final class SamplingTests: XCTestCase {
    func testTheGoldenRecordIsReplayedToTheBit() throws {
        let scene = try Scene()
        let golden = try scene.golden()
        // With equal answers of both branches, guidance is the answer itself: m + g * 0.
        let sampling = try scene.sampling { _, step in golden.outputs[step] }
        let found = try sampling.verify()
        XCTAssertTrue(found.passed)
        XCTAssertEqual(found.sampleError, 0)
        XCTAssertEqual(found.steps.map(\.psnr), [200, 200, 200, 200])
        XCTAssertEqual(found.steps.map(\.equal), [true, true, true, true])
        XCTAssertEqual(scene.networks.alive, 0)
        XCTAssertEqual(scene.networks.loaded, ["unet"])
        let report = found.report(about: ["golden — tiny on a test"])
        XCTAssertTrue(report.hasPrefix("golden — tiny on a test\n\nSampler parity: passed\n"), report)
        XCTAssertTrue(report.contains("Conversion parity: passed (at least 20 dB at each step, 35 dB at half"), report)
    }

    func testAnotherNetworkFailsConversionParityAlone() throws {
        let found = try verification(offsets: [0, 0, 0.25, 0])
        XCTAssertTrue(found.samplerPassed)
        XCTAssertFalse(found.conversionPassed)
        let worst = try XCTUnwrap(found.worst)
        XCTAssertEqual(worst.index, 2)
        XCTAssertEqual(worst.psnr, 18.06, accuracy: 0.01)  // 10 log10(2^2 / 0.25^2)
        XCTAssertTrue(found.report(about: []).contains("Conversion parity: FAILED"))
    }

    func testAFewStepsMayDifferByAFlippedRoundingMostMayNot() throws {
        XCTAssertTrue(try verification(offsets: [0, 0.05, 0.05, 0]).passed)
        let found = try verification(offsets: [0, 0.05, 0.05, 0.05])
        XCTAssertEqual(try XCTUnwrap(found.worst).psnr, 32.04, accuracy: 0.01)
        XCTAssertTrue(found.samplerPassed)
        XCTAssertFalse(found.conversionPassed)
    }

    /// By a network whose outputs are off by so much at each step.
    private func verification(offsets: [Float]) throws -> Verification {
        let scene = try Scene()
        let golden = try scene.golden()
        let sampling = try scene.sampling { _, step in
            golden.outputs[step] + Tensor(repeating: offsets[step], shape: golden.noise.shape)
        }
        return try sampling.verify()
    }

    func testARecordOfAnotherSampleFailsSamplerParity() throws {
        let scene = try Scene()
        let golden = try scene.golden()
        try scene.rewriteGolden { bytes, header in
            let begin = header["noise"].map { $0.begin } ?? 0  // the lowest bit of the first number
            bytes[begin] ^= 1
        }
        let found = try scene.sampling { _, step in golden.outputs[step] }.verify()
        XCTAssertFalse(found.noiseEqual)
        XCTAssertFalse(found.samplerPassed)
        XCTAssertTrue(found.report(about: []).contains("noise                          DIFFERENT"))
    }

    func testAnImageIsTheLoopsLastSample() throws {
        let scene = try Scene()
        let sampling = try scene.sampling { inputs, _ in
            Tensor(repeating: inputs["class_labels"]?.values[0] ?? -1, shape: inputs["sample"]?.shape ?? [])
        }
        var steps: [Int] = []
        let image = try sampling.image(Sampling.Request(subject: "Füchsin 🦊", seed: 7)) { event in
            if case .step(let step, _) = event { steps.append(step.index) }
        }
        XCTAssertEqual(steps, [0, 1, 2, 3])
        // Label 1 and null label 2 with guidance 2.5 are the constant output 2 + 2.5 * (1 - 2).
        let file = try scene.bundle.correctionFile(of: scene.bundle.part("coreml"))
        let expected = try DeviceLoop(plan: file.plan, correction: file.correction).sample(
            noise: Noise(seed: 7).initial([1, 3, 4, 5]), stepNoise: { Noise(seed: 7).step($0, [1, 3, 4, 5]) },
            denoiser: Denoise { x, _, _ in Tensor(repeating: -0.5, shape: x.shape) })
        XCTAssertTrue(image.hasSameBits(as: expected))
        let uncorrected = try sampling.image(Sampling.Request(subject: "Füchsin 🦊", seed: 7, corrected: false))
        XCTAssertFalse(image.hasSameBits(as: uncorrected))
        XCTAssertThrowsError(try sampling.image(Sampling.Request(subject: "cat", seed: 1 << 63))) { error in
            XCTAssertEqual(
                (error as? UsageError)?.description, "the seed must be 0 to 2^63 - 1, got 9223372036854775808.")
        }
        XCTAssertThrowsError(try sampling.image(Sampling.Request(subject: "dog", seed: 7))) { error in
            XCTAssertEqual((error as? UsageError)?.description, "'dog' is none of: cat, Füchsin 🦊.")
        }
    }

    /// Allowed by the format, but no device has memory for it, or no float32 is this number.
    func testSizesThatNoDeviceHasAreRefusedBeforeTheyAreAllocated() throws {
        let huge = try Scene {
            $0.replacingOccurrences(of: #""width": 5"#, with: #""width": 4096"#)
                .replacingOccurrences(of: #""height": 4"#, with: #""height": 4096"#)
        }
        let sampling = try huge.sampling { _, _ in throw UsageError("never called") }
        for attempt in [
            { _ = try sampling.image(Sampling.Request(subject: "cat", seed: 1)) }, { _ = try sampling.verify() },
        ] as [() throws -> Void] {
            XCTAssertThrowsError(try attempt()) { error in
                XCTAssertEqual("\(error)", "samples of the shape [1, 3, 4096, 4096] are too large for this device.")
            }
        }
        XCTAssertEqual(huge.networks.loaded, [])
        let label = try Scene {
            $0.replacingOccurrences(of: #""null_label": 2"#, with: #""null_label": 1099511627776"#)
        }
        XCTAssertThrowsError(try label.sampling { _, _ in throw UsageError("never called") }) { error in
            XCTAssertTrue("\(error)".contains("needs a null class"), "\(error)")
        }
    }

    func testEveryWayOutFreesTheNetwork() async throws {
        let scene = try Scene()
        let request = Sampling.Request(subject: "cat", seed: 1)

        let fine = try scene.sampling { inputs, _ in Tensor(repeating: 0, shape: inputs["sample"]?.shape ?? []) }
        _ = try fine.image(request)
        XCTAssertEqual(scene.networks.alive, 0, "at the end")

        let broken = try scene.sampling { _, call in throw UsageError("no memory at call \(call)") }
        XCTAssertThrowsError(try broken.image(request))
        XCTAssertThrowsError(try broken.verify())
        XCTAssertEqual(scene.networks.alive, 0, "after an error of the network")

        let infinite = try scene.sampling { inputs, _ in Tensor(repeating: .nan, shape: inputs["sample"]?.shape ?? []) }
        XCTAssertThrowsError(try infinite.image(request)) { XCTAssertTrue($0 is NonFiniteError) }
        XCTAssertEqual(scene.networks.alive, 0, "after NaN")

        let task = Task {
            try fine.image(request) { event in
                if case .step(let step, _) = event, step.index == 1 { withUnsafeCurrentTask { $0?.cancel() } }
            }
        }
        do {
            _ = try await task.value
            XCTFail("it must not end well")
        } catch is CancellationError {}
        XCTAssertEqual(scene.networks.alive, 0, "after it was cancelled")

        XCTAssertThrowsError(try fine.image(request) { _ in throw UsageError("the screen is gone") })
        XCTAssertEqual(scene.networks.alive, 0, "after an error of the listener")
        XCTAssertEqual(scene.networks.loaded.count, 5)  // the last listener refused before anything was loaded
    }
}

/// The corpus's bundle with a network that a closure answers for.
final class Scene {
    let folder: TemporaryFolder
    let bundle: Bundle
    let networks = Networks()

    /// `change` edits the text of the manifest.
    init(_ change: (String) -> String = { $0 }) throws {
        folder = try TemporaryFolder()
        let url = try Corpus.bundle(in: folder)
        let file = url.appendingPathComponent(Manifest.fileName)
        try change(String(contentsOf: file, encoding: .utf8)).write(to: file, atomically: true, encoding: .utf8)
        bundle = try Bundle(url, target: "coreml")
    }

    /// `answer` gets the inputs and the number of the step: two calls each, since the bundle has guidance.
    func sampling(_ answer: @escaping @Sendable ([String: Tensor], Int) throws -> Tensor) throws -> Sampling {
        let networks = networks
        return try Sampling(bundle, target: "coreml") { name, component in
            StandIn(networks, name, component.signature, answer)
        }
    }

    func golden() throws -> Golden { try Golden(bundle, bundle.part("coreml"), steps: 4) }

    /// Changes bytes of the record's payload behind the back of the opened bundle.
    func rewriteGolden(_ change: (inout [UInt8], [Key: Safetensors.Entry]) -> Void) throws {
        let url = bundle.url.appendingPathComponent("coreml/golden.safetensors")
        let bytes = try [UInt8](Data(contentsOf: url))
        let file = try Safetensors(bytes)
        var payload = Array(file.payload)
        change(&payload, file.entries)
        try Data(bytes.prefix(bytes.count - payload.count) + payload).write(to: url)
    }
}

/// Counts the networks that are in memory.
final class Networks: @unchecked Sendable {
    var alive = 0
    var loaded: [String] = []
}

final class StandIn: Network {
    private let networks: Networks
    private let signature: Signature
    private let answer: ([String: Tensor], Int) throws -> Tensor
    private var calls = 0

    init(
        _ networks: Networks, _ name: String, _ signature: Signature,
        _ answer: @escaping ([String: Tensor], Int) throws -> Tensor
    ) {
        (self.networks, self.signature, self.answer) = (networks, signature, answer)
        networks.alive += 1
        networks.loaded.append(name)
    }

    deinit { networks.alive -= 1 }

    func run(_ inputs: [String: Tensor]) throws -> Tensor {
        try signature.check(inputs, of: "the network")
        calls += 1
        return try answer(inputs, (calls - 1) / 2)
    }
}
