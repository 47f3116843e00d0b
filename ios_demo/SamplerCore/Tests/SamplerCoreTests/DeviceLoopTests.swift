import XCTest

@testable import SamplerCore

/// The loop of correction/loop.py, replayed: `tests/golden/make_golden.py` ran it and recorded everything.
final class DeviceLoopTests: XCTestCase {
    func testEveryGoldenSampleBitForBit() throws {
        let cases = try Corpus.index("cases")
        var samples = 0
        for entry in cases {
            let name = try entry.text("name")
            let file = try CorrectionFile(entry.file("correction"), artifactSHA256: entry.text("artifact_sha256"))
            let record = try TensorFile(entry.file("record")).tensors
            func recorded(_ key: Key) throws -> Tensor { try XCTUnwrap(record[key], "\(key) of \(name)") }
            let (inputs, stepSamples) = try (recorded("inputs"), recorded("samples"))
            let stepNoise = try recorded("step_noise")
            let outputs = Recording(try recorded("outputs"))
            let guidance = try Float(XCTUnwrap(entry["guidance"]?.double))
            let denoiser: any Denoiser =
                guidance == 1
                ? outputs
                : try GuidedDenoiser(
                    unconditional: Recording(recorded("outputs_null")), conditional: outputs, scale: guidance)
            let check = { (step: DeviceLoop.Step) in
                XCTAssertEqual(bits(outputs.seen[step.index]), bits(inputs[step.index]), "\(name), input \(step.index)")
                XCTAssertEqual(bits(step.next), bits(stepSamples[step.index]), "\(name), sample \(step.index)")
                samples += 1
            }
            let last = try DeviceLoop(plan: file.plan, correction: file.correction).sample(
                noise: recorded("noise"), stepNoise: { stepNoise[$0] }, denoiser: denoiser, onStep: check)
            XCTAssertEqual(outputs.seen.count, file.plan.steps, name)
            XCTAssertEqual(bits(last), bits(stepSamples[file.plan.steps - 1]), name)
        }
        print("golden: \(cases.count) cases, \(samples) samples equal to the bit")
    }

    func testTheIdentityCorrectionGivesTheBitsOfNone() throws {
        let entry = try XCTUnwrap(Corpus.index("cases").first { try $0.text("name") == "ddim" })
        let file = try CorrectionFile(entry.file("correction"))
        let record = try TensorFile(entry.file("record")).tensors
        let outputs = try XCTUnwrap(record["outputs"])
        XCTAssertTrue(file.correction.outputGain.joined().allSatisfy { $0 == 1 })
        let last = try DeviceLoop(plan: file.plan, correction: nil).sample(
            noise: XCTUnwrap(record["noise"]), stepNoise: { _ in throw UsageError("this plan draws no noise") },
            denoiser: Recording(outputs))
        XCTAssertEqual(bits(last), bits(try XCTUnwrap(record["samples"])[file.plan.steps - 1]))
    }

    func testNonFiniteNumbersNameStageAndStep() throws {
        let (loop, noise) = try someLoop()
        for (stage, value) in [("model output", Float.nan), ("model output", .infinity), ("sample", 3e38)] {
            let wrong = Denoise { x, _, call in Tensor(repeating: call == 2 ? value : 0, shape: x.shape) }
            XCTAssertThrowsError(try loop.sample(noise: noise, stepNoise: { _ in noise }, denoiser: wrong)) { error in
                XCTAssertEqual(error as? NonFiniteError, NonFiniteError(stage: stage, step: 2))
            }
        }
    }

    func testAnOutputOfAnotherShapeIsRefused() throws {
        let (loop, noise) = try someLoop()
        let wrong = Denoise { _, _, _ in Tensor(repeating: 0, shape: [1, 1, 1, 1]) }
        XCTAssertThrowsError(try loop.sample(noise: noise, stepNoise: { _ in noise }, denoiser: wrong)) { error in
            XCTAssertTrue(error is UsageError, "\(error)")
        }
    }

    func testACancelledTaskStopsBeforeTheNextStep() async throws {
        let (loop, noise) = try someLoop()
        let task = Task {
            var calls = 0
            let denoiser = Denoise { x, _, call in
                calls = call + 1
                if call == 1 { withUnsafeCurrentTask { $0?.cancel() } }
                return Tensor(repeating: 0, shape: x.shape)
            }
            do {
                _ = try loop.sample(noise: noise, stepNoise: { _ in noise }, denoiser: denoiser)
            } catch is CancellationError {
                return calls
            }
            return -1
        }
        let calls = try await task.value
        XCTAssertEqual(calls, 2)
    }

    private func someLoop() throws -> (DeviceLoop, Tensor) {
        let entry = try XCTUnwrap(Corpus.index("cases").first { try $0.text("name") == "ddim-corrected" })
        let file = try CorrectionFile(entry.file("correction"))
        let noise = try XCTUnwrap(TensorFile(entry.file("record")).tensors["noise"])
        return (DeviceLoop(plan: file.plan, correction: file.correction), noise)
    }
}

/// Answers with recorded outputs, (N, B, C, H, W), one a call, and remembers what it was given.
final class Recording: Denoiser {
    let outputs: Tensor
    var seen: [Tensor] = []

    init(_ outputs: Tensor) { self.outputs = outputs }

    func predict(_ sample: Tensor, timestep: Float) -> Tensor {
        seen.append(sample)
        return outputs[seen.count - 1]
    }
}

/// Answers with a function of the sample, the timestep and the number of calls before.
final class Denoise: Denoiser {
    private let answer: (Tensor, Float, Int) throws -> Tensor
    private var calls = 0

    init(_ answer: @escaping (Tensor, Float, Int) throws -> Tensor) { self.answer = answer }

    func predict(_ sample: Tensor, timestep: Float) throws -> Tensor {
        calls += 1
        return try answer(sample, timestep, calls - 1)
    }
}
