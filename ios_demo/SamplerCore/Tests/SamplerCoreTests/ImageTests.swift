import XCTest

@testable import SamplerCore

final class ImageTests: XCTestCase {
    /// The values that mobile_export.pictures.to_uint8 gives: (x + 1) * 127.5, half to even, clamped.
    func testBytesOfPixels() throws {
        let values: [Float] = [-1, 1, 0, -2, 2, 1 / 255, -1 / 255, 0.5]
        XCTAssertEqual(values.map(Pixels.byte), [0, 255, 128, 0, 255, 128, 127, 191])
    }

    func testColoursAndGrey() throws {
        let colours = Tensor(shape: [1, 3, 1, 2], values: [-1, 1, 0, 0, 1, -1])
        let pixels = try Pixels(image: colours)
        XCTAssertEqual(pixels.rgba, [0, 128, 255, 255, 255, 128, 0, 255])
        XCTAssertEqual([pixels.width, pixels.height], [2, 1])
        XCTAssertEqual(try Pixels(image: Tensor(shape: [1, 1, 1, 1], values: [0])).rgba, [128, 128, 128, 255])
        XCTAssertThrowsError(try Pixels(image: Tensor(shape: [1, 4, 1, 1], values: [0, 0, 0, 0])))
    }

    func testAPreviewOfLatentsIsStretched() throws {
        let latents = Tensor(shape: [1, 4, 1, 1], values: [8, 0, -8, 100])
        XCTAssertEqual(try Pixels(preview: latents, latents: true).rgba, [255, 128, 0, 255])
        let two = Tensor(shape: [1, 2, 1, 1], values: [-3, 9])
        XCTAssertEqual(try Pixels(preview: two, latents: true).rgba, [0, 0, 0, 255])
        let image = Tensor(shape: [1, 1, 1, 1], values: [0.5])
        XCTAssertEqual(try Pixels(preview: image, latents: false).rgba, [191, 191, 191, 255])
    }

    /// numpy: (np.float32([0.9, -1.5]) / np.float32(0.18215) + np.float32(0.1)).view(np.uint32)
    func testLatentsForTheDecoder() throws {
        let entry: JSON = .object([
            "kind": .string("kl"), "channels": .number("1"), "image_channels": .number("3"), "factor": .number("8"),
            "scaling_factor": .number("0.18215"), "shift_factor": .number("0.1"),
        ])
        let latents = try Latents(Fields(entry))
        let found = latents.toDecoder(Tensor(shape: [1, 1, 1, 2], values: [0.9, -1.5]))
        XCTAssertEqual(bits(found), [0x40a1_4fba, 0xc102_28d7])
    }

    func testPSNR() {
        let zeros = Tensor(repeating: 0, shape: [2, 2])
        XCTAssertEqual(psnr(zeros, Tensor(repeating: 2, shape: [2, 2])), 0)
        XCTAssertEqual(psnr(zeros, Tensor(repeating: 0.02, shape: [2, 2])), 40, accuracy: 1e-6)
        XCTAssertEqual(psnr(zeros, zeros), 200)
    }
}
