import Foundation

/// A folder that an app runs as it is, checked against its manifest when it was opened: docs/bundle-format.md.
public struct Bundle: Sendable {
    public let url: URL
    public let manifest: Manifest

    /// Everything is checked before anything is loaded: the manifest, then paths and sizes, then digests, then that
    /// each correction was solved for the artifact beside it.
    ///
    /// - Parameters:
    ///   - target: check the files of this part alone; nil checks all of them.
    ///   - onProgress: called with the share that is done, 0 ... 1, by bytes.
    /// - Throws: `FormatError`, whose name says why the bundle is refused; `UsageError` where there is none.
    public init(_ url: URL, target: String? = nil, onProgress: (Double) -> Void = { _ in }) throws {
        let manifestURL = url.appendingPathComponent(Manifest.fileName)
        guard kind(of: manifestURL) != .typeSymbolicLink else {
            throw FormatError("link", "\(Manifest.fileName) is a link: a bundle holds its files itself.")
        }
        guard kind(of: manifestURL) == .typeRegular else {
            throw FormatError(
                "no-manifest", "\(url.lastPathComponent) is not a bundle: it has no \(Manifest.fileName).")
        }
        self.url = url
        manifest = try Manifest(manifestURL)
        let targets = target.map { [$0] } ?? manifest.parts.keys.sorted { Key($0) < Key($1) }
        let parts = try targets.map(part)
        let files = target.map(manifest.files) ?? manifest.allFiles
        for path in manifest.files.keys.sorted() { try BundlePath.check(path) }
        for (path, file) in files { try checkSize(path, file) }
        let total = files.reduce(0) { $0 + ($1.file.bytes ?? 0) }
        var done = 0
        for (path, file) in files {
            try checkDigest(path, file)
            done += file.bytes ?? 0
            onProgress(Double(done) / Double(max(total, 1)))
        }
        for part in parts {
            for component in part.components.values { try checkNothingElse(component.artifact) }
        }
        for part in parts { _ = try correctionFile(of: part) }
    }

    public var name: String { manifest.name }

    /// The part of one target, such as "coreml".
    public func part(_ target: String) throws -> Manifest.Part {
        guard let part = manifest.parts[target] else {
            let has = manifest.parts.keys.sorted().joined(separator: ", ")
            throw UsageError("\(manifest.name) has no \(target) part; it has: \(has).")
        }
        return part
    }

    /// Where the file or folder of a component lies.
    public func artifact(_ component: Manifest.Component) -> URL { url.appendingPathComponent(component.artifact) }

    /// The plan and correction of a part, checked to be solved for its UNet.
    public func correctionFile(of part: Manifest.Part) throws -> CorrectionFile {
        guard let unet = part.components["unet"] else { throw UsageError("\(manifest.name) has no unet.") }
        let file = try CorrectionFile(
            url.appendingPathComponent(part.correction), artifactSHA256: manifest.artifactSHA256(unet.artifact))
        guard file.correction.channels == manifest.sample.channels else {
            let (has, needs) = (file.correction.channels, manifest.sample.channels)
            throw FormatError("wrong-channels", "the correction is for \(has) channels, samples have \(needs).")
        }
        return file
    }

    private func checkSize(_ path: Key, _ file: Manifest.File) throws {
        let parts = BundlePath.names(path)
        for count in 1...parts.count {
            let place = url.appendingPathComponent(parts.prefix(count).joined(separator: "/"))
            guard kind(of: place) != .typeSymbolicLink else {
                throw FormatError("link", "\(path) is a link: a bundle holds its files itself.")
            }
        }
        let place = url.appendingPathComponent(path.text)
        guard kind(of: place) == .typeRegular else { throw FormatError("missing-file", "\(path) is missing.") }
        let size = try FileManager.default.attributesOfItem(atPath: place.path)[.size] as? Int
        guard size == file.bytes else {
            throw FormatError("wrong-size", "\(path) has \(size ?? 0) bytes, the manifest says otherwise.")
        }
    }

    private func checkDigest(_ path: Key, _ file: Manifest.File) throws {
        guard try sha256(url.appendingPathComponent(path.text)) == file.sha256 else {
            throw FormatError("changed-file", "\(path) was changed since the bundle was made.")
        }
    }

    /// A runtime may load whatever lies in an artifact folder, so that nothing else may lie there.
    private func checkNothingElse(_ artifact: String) throws {
        guard manifest.files[Key(artifact)] == nil else { return }
        let known = Set(manifest.artifactFiles(artifact).keys)
        let folder = url.appendingPathComponent(artifact)
        for path in try FileManager.default.subpathsOfDirectory(atPath: folder.path)
        where kind(of: folder.appendingPathComponent(path)) != .typeDirectory && !known.contains(Key(path)) {
            throw FormatError("extra-file", "\(artifact)/\(path) is not in the manifest.")
        }
    }
}

/// A file's own type: a link is a link, wherever it leads. nil where there is nothing.
private func kind(of url: URL) -> FileAttributeType? {
    try? FileManager.default.attributesOfItem(atPath: url.path)[.type] as? FileAttributeType
}
