import Foundation
import Observation
import SamplerCore

/// The installed bundles, and the one that is being copied in.
@MainActor @Observable
final class Library {
    nonisolated static let target = "coreml"

    private(set) var names: [String] = []
    /// The share that is copied and checked, nil while nothing is.
    private(set) var installing: Double?
    var failure: String?

    private var task: Task<Void, Never>?

    /// One for the life of the app: a store that is made clears away what a copy left behind, also one that goes on.
    nonisolated static let store = Result { try makeStore() }

    nonisolated private static func makeStore() throws -> BundleStore {
        let support = try FileManager.default.url(
            for: .applicationSupportDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
        let store = try BundleStore(folder: support.appendingPathComponent("Bundles"))
        #if canImport(Darwin)
            var (folder, values) = (store.folder, URLResourceValues())
            values.isExcludedFromBackup = true  // it can be copied again, and is large
            try folder.setResourceValues(values)
        #endif
        return store
    }

    /// Lists what is installed, and lets go of what was prepared for bundles that are gone.
    func refresh() {
        report {
            let store = try Self.store.get()
            names = try store.names()
            #if canImport(CoreML)
                try CoreMLRuntime.cache().keepOnly(store.artifactDigests(target: Self.target))
            #endif
        }
    }

    /// Copies a folder that the user picked. The system grants access to it only between the two calls.
    func install(from source: URL) {
        guard task == nil else { return }
        installing = 0
        task = Task {
            let copy = Task.detached {
                let granted = source.startAccessingSecurityScopedResource()
                defer { if granted { source.stopAccessingSecurityScopedResource() } }
                _ = try Self.store.get().install(from: source, target: Self.target) { share in
                    Task { @MainActor in self.advance(share) }
                }
            }
            do {
                try await withTaskCancellationHandler {
                    try await copy.value
                } onCancel: {
                    copy.cancel()
                }
            } catch {
                failure = explanation(of: error)
            }
            installing = nil
            task = nil
            refresh()
        }
    }

    func cancelInstall() { task?.cancel() }

    func remove(_ name: String) {
        report { try Self.store.get().remove(name) }
        refresh()
    }

    private func advance(_ share: Double) {
        if installing != nil { installing = share }
    }

    private func report(_ action: () throws -> Void) {
        do { try action() } catch { failure = explanation(of: error) }
    }
}
