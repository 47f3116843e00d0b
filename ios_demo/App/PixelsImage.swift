#if canImport(CoreGraphics)
    import CoreGraphics
    import Foundation
    import SamplerCore

    extension Pixels {
        /// The same pixels for the screen.
        var image: CGImage? {
            guard let provider = CGDataProvider(data: Data(rgba) as CFData),
                let space = CGColorSpace(name: CGColorSpace.sRGB)
            else { return nil }
            return CGImage(
                width: width, height: height, bitsPerComponent: 8, bitsPerPixel: 32, bytesPerRow: 4 * width,
                space: space,
                bitmapInfo: CGBitmapInfo(rawValue: CGImageAlphaInfo.noneSkipLast.rawValue), provider: provider,
                decode: nil, shouldInterpolate: false, intent: .defaultIntent)
        }
    }
#endif
