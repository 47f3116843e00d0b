extension Manifest {
    /// The packages of a Core ML artifact in the order in which they are run, relative to the bundle: the artifact
    /// itself, or unet-1.mlpackage, unet-2.mlpackage and so on in the folder unet.chunks.
    public func packages(of artifact: String) throws -> [String] {
        guard artifact.hasSuffix(".chunks") else { return [artifact] }
        let paths = artifactFiles(artifact).keys
        let names = Set(paths.compactMap { $0.text.split(separator: "/").first.map(String.init) })
        let stem = artifact.split(separator: "/").last?.dropLast(".chunks".count) ?? ""
        let expected = (1...max(names.count, 1)).map { "\(stem)-\($0).mlpackage" }
        guard names == Set(expected) else {
            throw UsageError("\(artifact) must hold \(expected.joined(separator: ", ")), it holds \(names.sorted()).")
        }
        return expected.map { "\(artifact)/\($0)" }
    }
}
