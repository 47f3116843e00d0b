import XCTest

@testable import SamplerCore

/// Bundles with a Core ML part that the exporter made on this machine: those in build/, or BUNDLES="one another", paths
/// below the repository.
final class MadeBundlesTests: XCTestCase {
    func testTheirRecordsAreReplayedToTheBit() throws {
        let bundles = try made()
        for bundle in bundles {
            let part = try bundle.part("coreml")
            let file = try bundle.correctionFile(of: part)
            let golden = try Golden(bundle, part, steps: file.plan.steps)
            let shape = bundle.manifest.sample.shape
            XCTAssertEqual(bits(Noise(seed: 0).initial(shape)), bits(golden.noise), bundle.name)
            let last = try DeviceLoop(plan: file.plan, correction: file.correction).sample(
                noise: golden.noise, stepNoise: { Noise(seed: 0).step($0, shape) },
                denoiser: Recording(golden.outputs))
            XCTAssertEqual(bits(last), bits(golden.sampleCorrected), bundle.name)
        }
        print("bundles of this machine: \(bundles.map(\.name)) replayed to the bit")
    }

    /// The session calls every network with what its signature says, in the order of a pipeline.
    func testTheirNetworksAreCalledAsTheirSignaturesSay() throws {
        for bundle in try made() {
            let networks = Networks()
            let sampling = try Sampling(bundle, target: "coreml") { name, component in
                StandIn(networks, name, component.signature) { _, _ in
                    Tensor(repeating: 0.25, shape: component.signature.output.shape)
                }
            }
            let subject = sampling.subjects.takesPrompts ? "a cat" : sampling.subjects.names[0]
            let image = try sampling.image(Sampling.Request(subject: subject, seed: 3))
            let size = bundle.manifest.image
            XCTAssertEqual(image.shape, [1, size.channels, size.height, size.width], bundle.name)
            let expected = (sampling.subjects.takesPrompts ? ["text_encoder"] : []) + ["unet"]
            XCTAssertEqual(
                networks.loaded, expected + (bundle.manifest.latents == nil ? [] : ["vae_decoder"]), bundle.name)
            XCTAssertEqual(networks.alive, 0, bundle.name)
        }
    }

    private func made() throws -> [Bundle] {
        let bundles = try candidates().compactMap(opened)
        if bundles.isEmpty { throw XCTSkip("there is no bundle with a Core ML part in build/; make demo makes some") }
        return bundles
    }

    private func candidates() -> [URL] {
        let repository = Corpus.root.appendingPathComponent("../..").standardizedFileURL
        if let named = ProcessInfo.processInfo.environment["BUNDLES"], !named.isEmpty {
            return named.split(separator: " ").map { URL(fileURLWithPath: String($0), relativeTo: repository) }
        }
        let build = repository.appendingPathComponent("build")
        let names = (try? FileManager.default.contentsOfDirectory(atPath: build.path)) ?? []
        return names.filter { !$0.hasPrefix(".") }.sorted().map(build.appendingPathComponent)
    }

    /// nil of what is no bundle for this app, or one of a version without a record of every output.
    private func opened(_ url: URL) throws -> Bundle? {
        let file = url.appendingPathComponent(Manifest.fileName)
        guard FileManager.default.fileExists(atPath: file.path) else { return nil }
        do {
            let manifest = try Manifest(file)
            guard manifest.parts["coreml"] != nil, manifest.formatVersion != "3.0" else { return nil }
        } catch let error as FormatError where error.name == "unknown-major-version" {
            return nil
        }
        return try Bundle(url, target: "coreml")
    }
}
