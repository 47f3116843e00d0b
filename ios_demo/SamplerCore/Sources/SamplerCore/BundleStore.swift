import Foundation

/// The bundles that are installed on this device, each a folder. What is copied in becomes a bundle by a rename, after
/// all of it was checked: a broken or interrupted copy never replaces a bundle that works.
public struct BundleStore: Sendable {
    public let folder: URL

    /// Removes what an interrupted copy left behind, so that a folder has one store, made before any copy begins.
    public init(folder: URL) throws {
        self.folder = folder
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try recover()
    }

    /// Names of the installed bundles' folders.
    public func names() throws -> [String] {
        try contents().filter { !$0.hasPrefix(".") && exists(folder.appendingPathComponent($0)) }.sorted()
    }

    /// Opens an installed bundle, which checks its files again.
    public func open(_ name: String, target: String, onProgress: (Double) -> Void = { _ in }) throws -> Bundle {
        try Bundle(folder.appendingPathComponent(name), target: target, onProgress: onProgress)
    }

    /// Copies the files that `target` needs, checks the copy, and puts it in the place of an earlier one of its name.
    ///
    /// - Parameter onProgress: the share of the bytes that are copied and checked, 0 ... 1.
    public func install(from source: URL, target: String, onProgress: (Double) -> Void = { _ in }) throws -> Bundle {
        let name = source.lastPathComponent
        guard !name.hasPrefix("."), !name.isEmpty, name != "/" else {
            throw UsageError("'\(name)' is no name for a bundle.")
        }
        let work = hidden(name, "partial")
        try? FileManager.default.removeItem(at: work)
        do {
            try copy(from: source, to: work, target: target) { onProgress(0.5 * $0) }
            _ = try Bundle(work, target: target) { onProgress(0.5 + 0.5 * $0) }
            try replace(name, by: work)
        } catch {
            try? FileManager.default.removeItem(at: work)
            throw error
        }
        return try Bundle(folder.appendingPathComponent(name), target: target)
    }

    public func remove(_ name: String) throws {
        guard try names().contains(name) else { throw UsageError("there is no bundle '\(name)'.") }
        try FileManager.default.removeItem(at: folder.appendingPathComponent(name))
    }

    /// Digests of the artifacts of all installed bundles that have a readable manifest.
    public func artifactDigests(target: String) throws -> Set<String> {
        let manifests = try names().compactMap { name in
            try? Manifest(folder.appendingPathComponent(name).appendingPathComponent(Manifest.fileName))
        }
        return Set(
            manifests.flatMap { manifest in
                (manifest.parts[target]?.components.values.map(\.artifact) ?? []).map(manifest.artifactSHA256)
            })
    }

    private func copy(from source: URL, to work: URL, target: String, onProgress: (Double) -> Void) throws {
        let manifestFile = source.appendingPathComponent(Manifest.fileName)
        guard exists(manifestFile) else {
            throw FormatError(
                "no-manifest", "\(source.lastPathComponent) is not a bundle: it has no \(Manifest.fileName).")
        }
        let manifest = try Manifest(manifestFile)
        for path in manifest.files.keys.sorted() { try BundlePath.check(path) }
        guard manifest.parts[target] != nil else {
            throw UsageError("\(manifest.name) has no \(target) part; it has: \(manifest.parts.keys.sorted()).")
        }
        let files = manifest.files(of: target)
        let total = files.reduce(0) { $0 + ($1.file.bytes ?? 0) }
        try FileManager.default.createDirectory(at: work, withIntermediateDirectories: true)
        var done = 0
        for (path, file) in files {
            try Task.checkCancellation()
            let place = work.appendingPathComponent(path.text)
            try FileManager.default.createDirectory(
                at: place.deletingLastPathComponent(), withIntermediateDirectories: true)
            let origin = source.appendingPathComponent(path.text)
            guard exists(origin) else { throw FormatError("missing-file", "\(path) is missing.") }
            try FileManager.default.copyItem(at: origin, to: place)
            done += file.bytes ?? 0
            onProgress(Double(done) / Double(max(total, 1)))
        }
        try FileManager.default.copyItem(at: manifestFile, to: work.appendingPathComponent(Manifest.fileName))
    }

    private func replace(_ name: String, by work: URL) throws {
        let (place, old) = (folder.appendingPathComponent(name), hidden(name, "old"))
        if exists(place) { try FileManager.default.moveItem(at: place, to: old) }
        do {
            try FileManager.default.moveItem(at: work, to: place)
        } catch {
            try recover()
            throw error
        }
        try? FileManager.default.removeItem(at: old)
    }

    private func recover() throws {
        for name in try contents() where name.hasPrefix(".") {
            let left = folder.appendingPathComponent(name)
            if name.hasSuffix(".old") {
                let place = folder.appendingPathComponent(String(name.dropFirst().dropLast(".old".count)))
                if !exists(place) {
                    try FileManager.default.moveItem(at: left, to: place)
                    continue
                }
            }
            if name.hasSuffix(".old") || name.hasSuffix(".partial") { try FileManager.default.removeItem(at: left) }
        }
    }

    private func hidden(_ name: String, _ suffix: String) -> URL { folder.appendingPathComponent(".\(name).\(suffix)") }

    private func contents() throws -> [String] { try FileManager.default.contentsOfDirectory(atPath: folder.path) }

    private func exists(_ url: URL) -> Bool { FileManager.default.fileExists(atPath: url.path) }
}
