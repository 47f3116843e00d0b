#if canImport(CoreML)
    import CoreML
    import SamplerCore

    /// The networks of an opened bundle on this device: prepared once, put into memory for as long as they run.
    struct CoreMLRuntime: Sendable {
        let bundle: Bundle
        let units: ComputeUnits
        private let compiled: [String: [URL]]

        /// Prepares every package that was not prepared before.
        ///
        /// - Parameter onPrepare: called with the number of packages done and of all, before each that takes long.
        init(
            _ bundle: Bundle, part: Manifest.Part, units: ComputeUnits,
            onPrepare: @Sendable (_ done: Int, _ all: Int) async -> Void
        ) async throws {
            let cache = try Self.cache()
            let packages = try part.components.mapValues { try bundle.manifest.packages(of: $0.artifact) }
            let all = packages.values.reduce(0) { $0 + $1.count }
            var compiled: [String: [URL]] = [:]
            var done = 0
            for (name, component) in part.components.sorted(by: { $0.key < $1.key }) {
                for package in packages[name] ?? [] {
                    try Task.checkCancellation()
                    let before = done
                    let place = try await cache.prepared(
                        digest: bundle.manifest.artifactSHA256(component.artifact), package: Self.prepared(package)
                    ) {
                        await onPrepare(before, all)
                        return try await MLModel.compileModel(at: bundle.url.appendingPathComponent(package))
                    }
                    compiled[name, default: []].append(place)
                    done += 1
                }
            }
            self.bundle = bundle
            self.units = units
            self.compiled = compiled
        }

        func load(_ name: String, _ component: Manifest.Component) throws -> any Network {
            do {
                return try CoreMLNetwork(compiled: compiled[name] ?? [], signature: component.signature, units: units)
            } catch let error as UsageError {
                throw error
            } catch {
                // A system update may have made it unreadable: it is prepared again the next time.
                try Self.cache().remove(digest: bundle.manifest.artifactSHA256(component.artifact))
                throw UsageError(
                    "Core ML could not load \(name) (\(error.localizedDescription)). "
                        + "It will be prepared again on the next try; another compute unit may help too.")
            }
        }

        static func cache() throws -> ArtifactCache {
            let caches = try FileManager.default.url(
                for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true)
            return try ArtifactCache(folder: caches.appendingPathComponent("Prepared"))
        }

        private static func prepared(_ package: String) -> String {
            (package.split(separator: "/").last.map(String.init) ?? package) + "c"
        }
    }
#endif
