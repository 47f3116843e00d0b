// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "SamplerCore",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "SamplerCore", targets: ["SamplerCore"])],
    targets: [
        .target(name: "SamplerCore"),
        .testTarget(name: "SamplerCoreTests", dependencies: ["SamplerCore"]),
    ]
)
