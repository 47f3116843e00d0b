import Foundation

/// What a runtime makes of artifacts on their first load, kept by the digest of the artifact: another artifact is
/// prepared anew, and a preparation that broke off leaves nothing that looks finished.
public struct ArtifactCache: Sendable {
    public let folder: URL

    public init(folder: URL) throws {
        self.folder = folder
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    }

    /// The prepared form of one package of an artifact.
    ///
    /// - Parameters:
    ///   - digest: of the artifact, which names the folder.
    ///   - prepare: called where there is none yet; gives a file or folder that is moved into the cache.
    public func prepared(
        digest: String, package: String, prepare: () async throws -> URL
    ) async throws -> URL {
        guard isSHA256(digest) else { throw UsageError("'\(digest)' is no digest.") }
        let home = folder.appendingPathComponent(digest)
        let place = home.appendingPathComponent(package)
        if FileManager.default.fileExists(atPath: place.path) { return place }
        let made = try await prepare()
        try FileManager.default.createDirectory(at: home, withIntermediateDirectories: true)
        do {
            try FileManager.default.moveItem(at: made, to: place)
        } catch {
            try? FileManager.default.removeItem(at: made)
            throw error
        }
        return place
    }

    /// Removes what was prepared of artifacts that no bundle has any more.
    public func keepOnly(_ digests: Set<String>) throws {
        for name in try FileManager.default.contentsOfDirectory(atPath: folder.path) where !digests.contains(name) {
            try FileManager.default.removeItem(at: folder.appendingPathComponent(name))
        }
    }

    /// Removes what was prepared of one artifact, for example because a newer system cannot read it.
    public func remove(digest: String) throws {
        let home = folder.appendingPathComponent(digest)
        if isSHA256(digest), FileManager.default.fileExists(atPath: home.path) {
            try FileManager.default.removeItem(at: home)
        }
    }
}
