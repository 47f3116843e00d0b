@_exported import Foundation

public typealias CFData = Data
public typealias CFString = String

public final class CGDataProvider {
    public init?(data: CFData) {}
}

public final class CGColorSpace {
    public static let sRGB: CFString = ""
    public init?(name: CFString) {}
}

public enum CGImageAlphaInfo: UInt32 { case noneSkipLast = 5 }
public enum CGColorRenderingIntent { case defaultIntent }

public struct CGBitmapInfo {
    public init(rawValue: UInt32) {}
}

public final class CGImage {
    public init?(
        width: Int, height: Int, bitsPerComponent: Int, bitsPerPixel: Int, bytesPerRow: Int, space: CGColorSpace,
        bitmapInfo: CGBitmapInfo, provider: CGDataProvider, decode: UnsafePointer<CGFloat>?, shouldInterpolate: Bool,
        intent: CGColorRenderingIntent
    ) {}
}
